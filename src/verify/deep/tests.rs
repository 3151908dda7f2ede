mod others;

use std::{
    collections::HashMap,
    io::{Cursor, Read as _, Write as _},
};

use flate2::{Compression as Level, bufread::MultiGzDecoder, write::GzEncoder};
use tar::Header;

use super::*;
use crate::{
    blob::{MemoryBlob, RangeSource, Spool},
    estargz::{
        Estargz, LANDMARK_CONTENT, NO_PREFETCH_LANDMARK,
        footer::{self, FOOTER_SIZE},
        toc::TocEntry,
    },
    layer::{Content, Entry, EntryKind, LayerFormat, SealOptions, SealedLayer, Storage, Workers, seal},
    members::{MemberKind, Members, Step},
    verify::finding::{Finding, Place, Use},
};

struct Bytes<'a>(&'a [u8]);

impl RangeSource for Bytes<'_> {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_range(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let start = usize::try_from(offset).unwrap();
        Ok(self.0[start..start + length].to_vec())
    }
}

/// A layer and what its descriptor and config say.
struct Layer {
    blob: Vec<u8>,
    diff_id: Digest,
    unpacked: u64,
    reader: EstargzReader,
}

fn entries() -> Vec<Entry> {
    let file = |path: &str, bytes: Vec<u8>, chunk: usize| {
        let mut content = Content::bytes(bytes, Storage::Stored);
        let size = usize::try_from(content.size()).unwrap();
        content.chunks = vec![chunk as u64; size / chunk];
        content.chunks.extend(Some((size % chunk) as u64).filter(|rest| *rest > 0));
        Entry::new(path, 0o644, 7, EntryKind::Regular(content))
    };
    let mut special = file("models/config.json", b"{}".to_vec(), 100);
    special.xattrs.insert("user.kind".into(), b"config".to_vec());
    special.user_name = "somebody".into();
    vec![
        file(NO_PREFETCH_LANDMARK, vec![LANDMARK_CONTENT], 1),
        Entry::new("models", 0o755, 0, EntryKind::Directory),
        special,
        file("models/empty", Vec::new(), 1),
        file("models/weights", (0..250_u8).cycle().take(5_000).collect(), 2_000),
        Entry::new(
            format!("models/{}", "long".repeat(40)),
            0o777,
            -5,
            EntryKind::Symlink { target: "weights".into() },
        ),
        Entry::new("models/hard", 0o644, 7, EntryKind::Hardlink { target: "models/weights".into() }),
        Entry::new("dev", 0o755, 0, EntryKind::Directory),
        Entry::new("dev/null", 0o666, 0, EntryKind::CharDevice { major: 1, minor: 3 }),
    ]
}

fn sealed(format: impl LayerFormat + 'static, entries: &[Entry]) -> (Vec<u8>, SealedLayer) {
    let workers = Workers::new(1).unwrap();
    let spool = Spool::new(std::env::temp_dir(), 1 << 20);
    let options = SealOptions { workers: &workers, spool: &spool, on_bytes: &|_| {} };
    let mut blob = Vec::new();
    let format: Arc<dyn LayerFormat> = Arc::new(format);
    let layer = seal(entries, &format, &options, Some(&mut blob)).unwrap();
    (blob, layer)
}

impl Layer {
    /// A layer of our own writer without a fault; nothing in it is compressed.
    fn good() -> Self {
        let (blob, layer) = sealed(Estargz::new(0), &entries());
        let reader = EstargzReader::open(&Bytes(&blob), None).unwrap();
        Self { blob, diff_id: layer.diff_id, unpacked: layer.uncompressed_size, reader }
    }

    /// A layer of these members, which says of itself what it then is.
    fn of(members: &[Vec<u8>], toc: impl FnOnce(&mut EstargzReader)) -> Self {
        let Self { mut reader, .. } = Self::good();
        let mut blob: Vec<u8> = members.concat();
        let end = blob.len() - members.last().unwrap().len();
        blob.extend(footer::encode(end as u64));
        reader.toc_offset = end as u64;
        toc(&mut reader);
        let mut layer = Self { blob, diff_id: Digest::of(b""), unpacked: 0, reader };
        let stream = layer.stream();
        (layer.diff_id, layer.unpacked) = (Digest::of(&stream), stream.len() as u64);
        layer
    }

    /// The layer with a change in its tar stream that leaves its length as it is.
    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let good = Self::good();
        let (members, places) = good.members();
        let mut stream = members.concat();
        change(&mut stream);
        let mut contents = Vec::new();
        for member in &members {
            let rest = stream.split_off(member.len().min(stream.len()));
            contents.push(gzip(&stream));
            stream = rest;
        }
        let last = contents.len() - 1;
        let offsets: HashMap<u64, u64> = places
            .iter()
            .enumerate()
            .map(|(index, place)| (*place, contents[..index].concat().len() as u64))
            .collect();
        contents[last].extend(gzip(&stream));
        Self::of(&contents, |reader| {
            for entry in &mut reader.toc.entries {
                entry.offset = offsets[&entry.offset];
            }
        })
    }

    /// What the members hold that hold anything, and where each begins.
    fn members(&self) -> (Vec<Vec<u8>>, Vec<u64>) {
        let mut members = Members::new(MemberKind::Gzip, Cursor::new(&self.blob));
        let (mut contents, mut places) = (vec![Vec::new()], Vec::new());
        let mut buffer = [0; 1_000];
        loop {
            let at = members.member().offset;
            match members.read(&mut buffer).unwrap() {
                Step::Bytes(count) => contents.last_mut().unwrap().extend_from_slice(&buffer[..count]),
                Step::MemberEnd(_) => {
                    contents.push(Vec::new());
                    places.push(at);
                }
                Step::End => break,
            }
        }
        // The footer, and what would come behind it.
        contents.truncate(contents.len() - 2);
        places.pop();
        (contents, places)
    }

    fn stream(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        MultiGzDecoder::new(&self.blob[..]).read_to_end(&mut stream).unwrap();
        stream
    }

    fn entry(&mut self, name: &str) -> &mut TocEntry {
        self.reader.toc.entries.iter_mut().find(|entry| entry.name == name).unwrap()
    }

    fn read(&self) -> DeepLayer {
        read_one(&LayerToRead {
            index: 0,
            tar_split: None,
            list: false,
            content: Arc::new(MemoryBlob::new(self.blob.clone())),
            compression: Compression::Gzip,
            diff_id: Some(self.diff_id),
            unpacked_size: Some(self.unpacked),
            toc: Some(&self.reader),
        })
    }

    /// What is found, which must be of one rule.
    #[track_caller]
    fn only(&self, code: &str) -> Vec<Finding> {
        let found = self.read().findings.finish(&Use::ALL);
        let codes: Vec<&str> = found.iter().map(|finding| finding.rule.code).collect();
        assert!(!found.is_empty() && codes.iter().all(|found| *found == code), "{code}: {found:#?}");
        found
    }
}

fn read_one(layer: &LayerToRead<'_>) -> DeepLayer {
    read_layers(std::slice::from_ref(layer), 2, &|_| Wanted::No, &|_| {}).remove(0).unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Changes the header of the entry of that name, and its checksum with it.
fn header(stream: &mut [u8], name: &str, change: impl FnOnce(&mut Header)) {
    let at = (0..stream.len())
        .step_by(512)
        .find(|at| stream[*at..].starts_with(format!("{name}\0").as_bytes()))
        .unwrap();
    let mut header = Header::from_byte_slice(&stream[at..at + 512]).clone();
    change(&mut header);
    header.set_cksum();
    stream[at..at + 512].copy_from_slice(header.as_bytes());
}

#[test]
fn a_good_layer_has_no_fault() {
    let good = Layer::good();
    let read = good.read();
    assert_eq!(read.findings.finish(&Use::ALL), []);
    assert!(read.files.is_empty() && read.links.is_empty());
    assert_eq!(Layer::changed(|_| {}).read().findings.finish(&Use::ALL), []);
    // Compressed, too, and with a table of contents that is larger than a piece.
    let mut many = entries();
    many.extend((0..3_000).map(|number| {
        Entry::new(format!("models/link-{number}"), 0o777, 0, EntryKind::Symlink { target: "weights".into() })
    }));
    let (blob, layer) = sealed(Estargz::new(6), &many);
    let reader = EstargzReader::open(&Bytes(&blob), None).unwrap();
    let compressed = Layer { blob, diff_id: layer.diff_id, unpacked: layer.uncompressed_size, reader };
    assert_eq!(compressed.read().findings.finish(&Use::ALL), []);
}

#[test]
fn files_are_told_once() {
    let good = Layer::good();
    let layer = LayerToRead {
        index: 0,
        tar_split: None,
        list: false,
        content: Arc::new(MemoryBlob::new(good.blob.clone())),
        compression: Compression::Gzip,
        diff_id: None,
        unpacked_size: None,
        toc: Some(&good.reader),
    };
    let wanted = |path: &str| if path.starts_with("models/") { Wanted::WithGit } else { Wanted::No };
    for toc in [layer.toc, None] {
        let layer = LayerToRead { toc, content: Arc::clone(&layer.content), ..layer };
        let mut read = read_layers(&[layer], 1, &wanted, &|_| {}).remove(0).unwrap();
        read.files.sort_by(|one, other| one.path.cmp(&other.path));
        let paths: Vec<(&str, u64)> = read.files.iter().map(|file| (file.path.as_str(), file.size)).collect();
        assert_eq!(paths, [("models/config.json", 2), ("models/empty", 0), ("models/weights", 5_000)]);
        assert_eq!(read.files[0].sha256, Digest::of(b"{}"));
        // `git hash-object` of the two bytes, and of nothing.
        let ids: Vec<String> = read.files.iter().map(|file| hex::encode(file.git_sha1.unwrap())).collect();
        assert_eq!(ids[0], "9e26dfeeb6e641a33dae4961196235bdb965b21b");
        assert_eq!(ids[1], "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(read.links, [("models/hard".to_owned(), "models/weights".to_owned())]);
    }
}

/// A blob under another name.
struct Other(Arc<MemoryBlob>);
impl BlobContent for Other {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn digest(&self) -> Digest {
        Digest::of(b"other")
    }
    fn reader(self: Arc<Self>, offset: u64) -> io::Result<Box<dyn io::Read + Send>> {
        Arc::clone(&self.0).reader(offset)
    }
}

#[test]
fn documents_that_say_something_else() {
    let mut layer = Layer::good();
    layer.diff_id = Digest::of(b"other");
    layer.only("diff-id");

    layer = Layer::good();
    layer.unpacked += 1;
    layer.only("size-annotation-differs");

    let good = Layer::good();
    let content = Arc::new(Other(Arc::new(MemoryBlob::new(good.blob))));
    let read = read_one(&LayerToRead {
        index: 3,
        tar_split: None,
        list: false,
        content,
        compression: Compression::Gzip,
        diff_id: None,
        unpacked_size: None,
        toc: None,
    });
    let found = read.findings.finish(&Use::ALL);
    assert_eq!((found.len(), found[0].rule.code, found[0].place.layer), (1, "blob-digest", Some(4)));
}

#[test]
fn tables_that_say_something_else() {
    type Change = fn(&mut TocEntry);
    let config = "models/config.json";
    let link = format!("models/{}", "long".repeat(40));
    let changes: [(&str, &str, Change); 15] = [
        ("tar-type", config, |entry| entry.entry_type = "fifo".into()),
        ("tar-size", config, |entry| entry.size = 3),
        ("tar-mode", "models/", |entry| entry.mode = 0o700),
        ("tar-owner", config, |entry| entry.uid = 5),
        ("tar-owner", config, |entry| entry.gid = 5),
        ("tar-owner-name", config, |entry| entry.user_name = "nobody".into()),
        ("tar-time", config, |entry| entry.modified = "1970-01-01T00:00:08Z".into()),
        ("tar-time", &link, |entry| entry.modified = String::new()),
        ("tar-link", &link, |entry| entry.link_name = "./weights".into()),
        ("tar-link", "models/hard", |entry| entry.link_name = "models/empty".into()),
        ("tar-device", "dev/null", |entry| entry.dev_minor = 5),
        ("tar-xattr", config, |entry| entry.xattrs.clear()),
        ("tar-xattr", config, |entry| {
            entry.xattrs.insert("user.kind".into(), "AAAA".into());
        }),
        ("member-offset", config, |entry| entry.offset += 1),
        ("member-offset", config, |entry| entry.inner_offset = 1),
    ];
    for (code, name, change) in changes {
        let mut layer = Layer::good();
        change(layer.entry(name));
        let found = layer.only(code);
        assert_eq!(found[0].place.file.as_deref(), Some(name.trim_end_matches('/')), "{code}");
    }
    // What means the same.
    let same: [(&str, Change); 5] = [
        (config, |entry| entry.name = "./models//config.json".into()),
        (config, |entry| entry.mode |= 0o100_000),
        ("dev/", |entry| entry.modified = String::new()),
        ("models/hard", |entry| entry.link_name = "/models/weights".into()),
        (config, |entry| entry.digest = String::new()),
    ];
    for (name, change) in same {
        let mut layer = Layer::good();
        change(layer.entry(name));
        assert_eq!(layer.read().findings.finish(&Use::ALL), [], "{name}");
    }
}

#[test]
fn entries_that_only_one_has_and_their_order() {
    let mut layer = Layer::good();
    layer.reader.toc.entries.retain(|entry| entry.name != "models/empty");
    assert_eq!(layer.only("tar-extra")[0].place.file.as_deref(), Some("models/empty"));

    layer = Layer::good();
    let mut another = layer.entry("models/empty").clone();
    another.name = "models/another".into();
    layer.reader.toc.entries.insert(3, another);
    assert_eq!(layer.only("tar-missing")[0].place.file.as_deref(), Some("models/another"));

    layer = Layer::good();
    layer.reader.toc.entries.swap(1, 2);
    assert_eq!(layer.only("tar-order").len(), 1);
}

#[test]
fn digests_that_differ() {
    let mut layer = Layer::good();
    layer.entry("models/weights").digest = Digest::of(b"other").to_string();
    assert_eq!(layer.only("file-digest-differs").len(), 1);

    layer = Layer::good();
    let chunk = layer.reader.toc.entries.iter_mut().filter(|entry| entry.name == "models/weights").nth(2);
    chunk.unwrap().chunk_digest = Digest::of(b"other").to_string();
    let found = layer.only("chunk-digest-differs");
    let place = &found[0].place;
    assert_eq!((place.file.as_deref(), place.offset), (Some("models/weights"), Some(4_000)));

    // A byte of the last chunk.
    let layer = Layer::changed(|stream| {
        let at = stream.windows(4).rposition(|bytes| bytes == [248, 249, 0, 1]).unwrap();
        stream[at] = 0;
    });
    let codes: Vec<&str> =
        layer.read().findings.finish(&Use::ALL).iter().map(|found| found.rule.code).collect();
    assert_eq!(codes, ["chunk-digest-differs", "file-digest-differs"]);
}

#[test]
fn streams_with_faults() {
    let layer = Layer::changed(|stream| header(stream, "models/empty", |header| header.set_mode(0o600)));
    layer.only("tar-mode");

    // The second byte behind the file of two bytes.
    let layer = Layer::changed(|stream| {
        let at = stream.windows(3).position(|bytes| bytes == b"{}\0").unwrap();
        stream[at + 3] = 1;
    });
    layer.only("tar-padding");

    let layer = Layer::changed(|stream| {
        header(stream, "models/hard", |header| header.set_entry_type(tar::EntryType::new(b'M')));
    });
    let codes: Vec<&str> =
        layer.read().findings.finish(&Use::ALL).iter().map(|found| found.rule.code).collect();
    assert_eq!(codes, ["tar-kind", "tar-type"]);

    let layer = Layer::changed(|stream| {
        let at = stream.windows(12).position(|bytes| bytes == b"models/empty").unwrap();
        stream[at] = b'x';
    });
    layer.only("tar-damaged");
}

#[test]
fn ends_with_faults() {
    let layer = Layer::changed(|stream| stream.truncate(stream.len() - 512));
    layer.only("tar-end");

    let layer = Layer::changed(|stream| stream.extend(b"more"));
    layer.only("tar-trailing");

    // More zeros are as good.
    let layer = Layer::changed(|stream| stream.extend([0; 9_000]));
    assert_eq!(layer.read().findings.finish(&Use::ALL), []);

    let mut layer = Layer::good();
    layer.reader.toc_offset = layer.reader.toc.entries[0].offset;
    let found = layer.read().findings.finish(&Use::ALL);
    assert!(found.iter().any(|found| found.rule.code == "toc-not-last"), "{found:#?}");
}

/// As `AppendTarLossLess` of the reference writes it, and so `BuildKit`.
#[test]
fn an_archive_may_end_before_the_table_of_contents() {
    let good = Layer::good();
    let (members, _) = good.members();
    let (toc, rest) = members.split_last().unwrap();
    let mut contents: Vec<Vec<u8>> = rest.iter().map(|member| gzip(member)).collect();
    contents.push(gzip(&[0; 1_024]));
    contents.push(gzip(toc));
    let offsets: HashMap<u64, u64> = good
        .members()
        .1
        .iter()
        .enumerate()
        .map(|(index, place)| (*place, contents[..index].concat().len() as u64))
        .collect();
    let layer = Layer::of(&contents, |reader| {
        for entry in &mut reader.toc.entries {
            entry.offset = offsets[&entry.offset];
        }
    });
    assert_eq!(layer.read().findings.finish(&Use::ALL), []);
}

/// As the reference writes it with a least chunk size: small files share a member.
#[test]
fn chunks_may_share_a_member() {
    let good = Layer::good();
    let (members, places) = good.members();
    let (toc, rest) = members.split_last().unwrap();
    let layer = Layer::of(&[gzip(&rest.concat()), gzip(toc)], |reader| {
        for entry in reader.toc.entries.iter_mut().filter(|entry| !entry.chunk_digest.is_empty()) {
            let index = places.iter().position(|place| *place == entry.offset).unwrap();
            entry.inner_offset = members[..index].concat().len() as u64;
            entry.offset = 0;
        }
    });
    assert_eq!(layer.read().findings.finish(&Use::ALL), []);
}

#[test]
fn members_with_faults() {
    let mut layer = Layer::good();
    let last = layer.reader.toc_offset;
    let at = usize::try_from(last).unwrap();
    let weights = usize::try_from(layer.entry("models/weights").offset).unwrap();
    layer.blob[weights + 100] ^= 1;
    let found = layer.read().findings.finish(&Use::ALL);
    let codes: Vec<&str> = found.iter().map(|found| found.rule.code).collect();
    assert_eq!(codes, ["member-damaged", "chunk-digest-differs"]);
    assert_eq!(found[0].place.offset, Some(weights as u64));
    assert!(found[0].message.ends_with("it holds bytes of models/weights"), "{}", found[0].message);

    layer = Layer::good();
    layer.blob.splice(at..at, *b"garbage");
    assert_eq!(layer.only("member-damaged")[0].place.offset, Some(last));

    layer = Layer::good();
    layer.blob.truncate(at + 20);
    layer.only("member-damaged");

    layer = Layer::good();
    layer.blob.extend([0; 3]);
    let end = layer.blob.len() as u64 - 3;
    assert_eq!(layer.only("member-damaged")[0].place.offset, Some(end));
    assert_eq!(end - FOOTER_SIZE as u64, footer_offset(&Layer::good()));
}

fn footer_offset(layer: &Layer) -> u64 {
    (layer.blob.len() - FOOTER_SIZE) as u64
}
