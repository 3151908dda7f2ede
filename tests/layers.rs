//! Layers as bytes: what is sealed unpacks to what went in, reads the same through ranges as through a
//! writer, and has the digests that earlier versions gave it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{collections::BTreeMap, fs, io::Read as _, path::Path, sync::Arc};

use proptest::prelude::*;
use starcar::{
    blob::{BlobContent, FileStamp, RangeSource, Source, Spool},
    digest::Digest,
    estargz::{
        Estargz, EstargzReader, Files, ReadError, TOC_DIGEST_ANNOTATION, UNCOMPRESSED_SIZE_ANNOTATION,
        footer::FOOTER_SIZE, toc::TocEntry,
    },
    layer::{
        Content, Data, Entry, EntryKind, Expected, LayerError, LayerFormat, PlainTar, SealOptions,
        SealedLayer, Storage, Workers, seal,
    },
    members::MemberKind,
    zstd_chunked::{
        MANIFEST_CHECKSUM_ANNOTATION, MANIFEST_POSITION_ANNOTATION, SKIPPABLE_HEADER, ZstdChunked,
    },
};

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        })
        .collect()
}

fn file(directory: &Path, name: &str, content: &[u8], storage: Storage, chunk: usize) -> Entry {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    let stamp = FileStamp::of(&fs::metadata(&path).unwrap());
    let content = Content {
        data: Data::Source { source: Arc::new(Source::Path { path, stamp }), offset: 0 },
        storage,
        chunks: content.chunks(chunk).map(|chunk| chunk.len() as u64).collect(),
        expected: Vec::new(),
    };
    Entry::new(format!("models/{name}"), 0o644, 0, EntryKind::Regular(content))
}

fn example(directory: &Path) -> Vec<Entry> {
    vec![
        Entry::new("models", 0o755, 0, EntryKind::Directory),
        file(directory, "config.json", b"{\"a\": 1}\n", Storage::Compressed, 1 << 20),
        file(directory, "empty", b"", Storage::Compressed, 1 << 20),
        Entry::new(
            ".prefetch.landmark",
            0o644,
            0,
            EntryKind::Regular(Content::bytes(&[0x0f][..], Storage::Stored)),
        ),
        file(directory, "weights", &noise(300_001), Storage::Stored, 100_000),
        Entry::new("models/link", 0o777, 0, EntryKind::Symlink { target: "weights".into() }),
        file(directory, "text", "line\n".repeat(50_000).as_bytes(), Storage::Compressed, 100_000),
    ]
}

fn wrap(format: impl LayerFormat + 'static) -> Arc<dyn LayerFormat> {
    Arc::new(format)
}

fn seal_with(
    entries: &[Entry],
    format: &Arc<dyn LayerFormat>,
    threads: usize,
    memory: usize,
    written: Option<&mut Vec<u8>>,
) -> Result<SealedLayer, LayerError> {
    let workers = Workers::new(threads).unwrap();
    let spool = Spool::new(std::env::temp_dir(), memory);
    let options = SealOptions { workers: &workers, spool: &spool, on_bytes: &|_| {} };
    match written {
        Some(bytes) => seal(entries, format, &options, Some(bytes)),
        None => seal(entries, format, &options, None),
    }
}

fn bytes_of(layer: &SealedLayer) -> Vec<u8> {
    let mut bytes = Vec::new();
    let blob = layer.blob.clone().expect("no writer, so there is a blob");
    blob.reader(0).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

struct InMemory(Vec<u8>);

impl RangeSource for InMemory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_range(&self, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
        let start = usize::try_from(offset).unwrap();
        Ok(self.0[start..start + length].to_vec())
    }
}

fn tar_files(stream: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(stream);
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), content)
        })
        .collect()
}

/// All members as other decoders unpack them, those that are skipped among them.
fn unpacked(kind: MemberKind, blob: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    match kind {
        MemberKind::Gzip => flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut stream).unwrap(),
        MemberKind::Zstd => zstd::Decoder::new(blob).unwrap().read_to_end(&mut stream).unwrap(),
    };
    stream
}

/// The first member alone.
fn first_member(kind: MemberKind, blob: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    match kind {
        MemberKind::Gzip => flate2::read::GzDecoder::new(blob).read_to_end(&mut content).unwrap(),
        MemberKind::Zstd => {
            zstd::Decoder::new(blob).unwrap().single_frame().read_to_end(&mut content).unwrap()
        }
    };
    content
}

#[test]
fn an_estargz_layer_unpacks_and_lists_itself() {
    unpacks_and_lists_itself(MemberKind::Gzip, &wrap(Estargz::new(6)));
}

#[test]
fn a_zstd_chunked_layer_unpacks_and_lists_itself() {
    let (blob, annotations) = unpacks_and_lists_itself(MemberKind::Zstd, &wrap(ZstdChunked::new(3)));
    let place: Vec<usize> =
        annotations[MANIFEST_POSITION_ANNOTATION].split(':').map(|number| number.parse().unwrap()).collect();
    let [offset, compressed, length, 1] = place[..] else { panic!("{place:?}") };
    let toc = &blob[offset..offset + compressed];
    assert_eq!(annotations[MANIFEST_CHECKSUM_ANNOTATION], Digest::of(toc).to_string());
    let json = zstd::decode_all(toc).unwrap();
    assert_eq!(
        (json.len(), Digest::of(&json).to_string()),
        (length, annotations[TOC_DIGEST_ANNOTATION].clone())
    );
    // Behind the header of its frame, and in front of the footer's.
    assert!(blob[offset - SKIPPABLE_HEADER..].starts_with(&[0x50, 0x2a, 0x4d, 0x18]));
    assert_eq!(offset + compressed + starcar::zstd_chunked::footer::FOOTER_SIZE, blob.len());
}

fn unpacks_and_lists_itself(
    kind: MemberKind,
    format: &Arc<dyn LayerFormat>,
) -> (Vec<u8>, BTreeMap<String, String>) {
    let directory = tempfile::tempdir().unwrap();
    let entries = example(directory.path());
    let layer = seal_with(&entries, format, 2, 0, None).unwrap();
    let blob = bytes_of(&layer);
    assert_eq!((blob.len() as u64, Digest::of(&blob)), (layer.size, layer.digest));

    let stream = unpacked(kind, &blob);
    assert_eq!((stream.len() as u64, Digest::of(&stream)), (layer.uncompressed_size, layer.diff_id));
    assert_eq!(layer.annotations[UNCOMPRESSED_SIZE_ANNOTATION], stream.len().to_string());
    let files = tar_files(&stream);
    assert_eq!(files["models/weights"], noise(300_001));
    assert_eq!(files["models/text"].len(), 250_000);
    assert_eq!(files["models/empty"], b"");

    let expected = layer.annotations[TOC_DIGEST_ANNOTATION].parse().unwrap();
    let reader = EstargzReader::open(&InMemory(blob.clone()), Some(expected)).unwrap();
    let mut weights = Vec::new();
    for entry in reader.toc.entries.iter().filter(|entry| entry.name == "models/weights") {
        let chunk = first_member(kind, &blob[usize::try_from(entry.offset).unwrap()..]);
        assert_eq!(entry.chunk_digest, Digest::of(&chunk).to_string());
        assert_eq!(entry.chunk_offset, weights.len() as u64);
        weights.extend(chunk);
    }
    assert_eq!(weights, noise(300_001));
    (blob, layer.annotations)
}

#[test]
fn writer_and_extents_give_the_same_bytes_with_any_number_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    let entries = example(directory.path());
    let formats = [wrap(Estargz::new(6)), wrap(ZstdChunked::new(3)), wrap(PlainTar)];
    for format in formats {
        let mut written = Vec::new();
        let direct = seal_with(&entries, &format, 1, 0, Some(&mut written)).unwrap();
        for (threads, memory) in [(1, 0), (2, 100), (7, 1 << 30)] {
            let kept = seal_with(&entries, &format, threads, memory, None).unwrap();
            assert_eq!(kept.digest, direct.digest);
            assert_eq!(kept.annotations, direct.annotations);
            assert_eq!(bytes_of(&kept), written);
        }
    }
}

#[test]
fn a_tar_layer_is_its_own_stream() {
    let directory = tempfile::tempdir().unwrap();
    let layer = seal_with(&example(directory.path()), &wrap(PlainTar), 2, 0, None).unwrap();
    let blob = bytes_of(&layer);
    assert_eq!((layer.digest, layer.diff_id), (Digest::of(&blob), Digest::of(&blob)));
    assert_eq!(layer.uncompressed_size, layer.size);
    assert_eq!(tar_files(&blob)["models/config.json"], b"{\"a\": 1}\n");
}

/// These digests are a promise: the same sources give the same layers in every version, so that a registry
/// keeps one copy. A change of them needs a line in the CHANGELOG that says why.
#[test]
fn digests_are_those_of_earlier_versions() {
    let directory = tempfile::tempdir().unwrap();
    let entries = example(directory.path());
    let estargz = seal_with(&entries, &wrap(Estargz::new(6)), 2, 0, None).unwrap();
    let zstd = seal_with(&entries, &wrap(ZstdChunked::new(3)), 2, 0, None).unwrap();
    let tar = seal_with(&entries, &wrap(PlainTar), 2, 0, None).unwrap();
    // The table of contents of zstd:chunked is no part of the tar stream.
    assert_eq!(zstd.diff_id, tar.diff_id);
    insta::assert_snapshot!(
        format!(
            "estargz blob {}\nestargz diffID {}\nzstd:chunked blob {}\ntar {}",
            estargz.digest, estargz.diff_id, zstd.digest, tar.digest
        ),
        @r"
    estargz blob sha256:5e253709a7dc0966144c38cc7aaa08c5a668a3ce24b196e8c6e32c691cd60077
    estargz diffID sha256:daeb9e5cbe9030b9f36965b4a43d70fe0ccf069a504fbc21892cb0ba3c4120ac
    zstd:chunked blob sha256:ba6fcac1051a5867980afa6e596e34c455ff39c2f28ef5d5abf22fe6e7a5cc93
    tar sha256:1d0290a38f88c23cbd4420065e78f5f51c7c7a9de1dc190a9d7fb54b3950f01e
    "
    );
}

#[test]
fn damage_is_found_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let content = noise(10);
    let expectations: [(Expected, bool); 4] = [
        (Expected::Sha256 { digest: Digest::of(&content), origin: "blob name".into() }, true),
        (Expected::Sha256 { digest: Digest::of(b"other"), origin: "blob name".into() }, false),
        (Expected::GitSha1 { digest: git_sha1(&content), origin: "tree".into() }, true),
        (Expected::GitSha1 { digest: [7; 20], origin: "tree".into() }, false),
    ];
    for (expected, sound) in expectations {
        let mut entry = file(directory.path(), "config.json", &content, Storage::Compressed, 4);
        let EntryKind::Regular(content) = &mut entry.kind else { unreachable!() };
        content.expected = vec![expected];
        let result = seal_with(&[entry], &wrap(Estargz::new(6)), 2, 0, None);
        match result {
            Ok(_) => assert!(sound),
            Err(error @ LayerError::Damaged { .. }) => {
                assert!(!sound && error.to_string().contains("models/config.json"), "{error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn git_sha1(content: &[u8]) -> [u8; 20] {
    use sha1::Digest as _;
    sha1::Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(content).finalize().into()
}

#[test]
fn a_source_that_shrinks_stops_the_layer() {
    let directory = tempfile::tempdir().unwrap();
    let entries = example(directory.path());
    fs::write(directory.path().join("weights"), noise(5)).unwrap();
    let error = seal_with(&entries, &wrap(Estargz::new(6)), 2, 0, None).unwrap_err();
    assert!(error.to_string().contains("weights changed while it was packed"), "{error}");
}

#[test]
fn a_writer_that_fails_stops_the_layer() {
    struct Full(u64);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len() as u64).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let entries = vec![file(directory.path(), "weights", &noise(3_000_000), Storage::Stored, 65_536)];
    let workers = Workers::new(2).unwrap();
    let spool = Spool::new(std::env::temp_dir(), 0);
    let options = SealOptions { workers: &workers, spool: &spool, on_bytes: &|_| {} };
    let format: Arc<dyn LayerFormat> = Arc::new(Estargz::new(6));
    let error = seal(&entries, &format, &options, Some(&mut Full(1_000_000))).unwrap_err();
    assert!(matches!(error, LayerError::Write(_)), "{error}");
}

#[test]
fn broken_blobs_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (estargz, zstd) = (wrap(Estargz::new(6)), wrap(ZstdChunked::new(3)));
    // Where the footer has the place of the table, and the largest.
    let (in_estargz, in_zstd): (usize, usize) = (51 - 16, 48 - 8);
    for (format, at, far) in [(estargz, in_estargz, &b"ffffffffffffffff"[..]), (zstd, in_zstd, &[0xff; 8])] {
        let layer = seal_with(&example(directory.path()), &format, 1, 0, None).unwrap();
        let blob = bytes_of(&layer);
        let open = |bytes: &[u8]| EstargzReader::open(&InMemory(bytes.to_vec()), None).map(|_| ());
        assert!(open(&blob).is_ok());
        assert!(open(&[]).is_err());
        assert!(open(&blob[1..]).is_err());
        assert!(open(&blob[..blob.len() - 1]).is_err());
        let mut outside = blob.clone();
        let at = blob.len() - at;
        outside[at..at + far.len()].copy_from_slice(far);
        assert!(matches!(open(&outside), Err(ReadError::TocOutside { .. })));
        let other = Some(Digest::of(b"other"));
        assert!(EstargzReader::open(&InMemory(blob.clone()), other).is_err());
    }
}

/// A layer of one file whose table of contents says what `change` makes of it.
fn with_toc(change: impl FnOnce(&mut EstargzReader)) -> (InMemory, Result<Files, ReadError>) {
    let directory = tempfile::tempdir().unwrap();
    let entries = vec![file(directory.path(), "weights", &noise(1000), Storage::Stored, 300)];
    let layer = seal_with(&entries, &wrap(Estargz::new(6)), 1, 0, None).unwrap();
    let blob = InMemory(bytes_of(&layer));
    let mut reader = EstargzReader::open(&blob, None).unwrap();
    change(&mut reader);
    let files = Files::of(&reader);
    (blob, files)
}

#[test]
fn layers_from_before_estargz_are_read_and_others_are_told_apart() {
    let (blob, _) = with_toc(|_| {});
    let reader = EstargzReader::open(&blob, None).unwrap();
    // An empty gzip member with another extra field takes the footer's place.
    let with = |extra: &[u8]| {
        let mut bytes = blob.0[..blob.0.len() - FOOTER_SIZE].to_vec();
        let member = flate2::GzBuilder::new().operating_system(255).extra(extra);
        bytes.extend(member.write(Vec::new(), flate2::Compression::none()).finish().unwrap());
        EstargzReader::open(&InMemory(bytes.clone()), None).map(|reader| (InMemory(bytes), reader))
    };
    let (old, found) = with(format!("{:016x}STARGZ", reader.toc_offset).as_bytes()).unwrap();
    assert_eq!(found.toc_digest, reader.toc_digest);
    assert_eq!(Files::of(&found).unwrap().read(&old, "models/weights", 0, 1000).unwrap(), noise(1000));
    assert!(matches!(with(b"SG\x11\x00STARGZEXTERNALTOC"), Err(ReadError::ExternalToc)));
    assert!(matches!(with(b"some other field"), Err(ReadError::NotEstargz)));
}

#[test]
fn files_are_read_only_as_they_are_listed() {
    let (blob, files) = with_toc(|_| {});
    let files = files.unwrap();
    assert_eq!(files.get("/models/weights"), files.get("./models/weights"));
    assert_eq!(files.get("models/weights").unwrap().chunks.len(), 4);
    assert!(matches!(files.read(&blob, "models", 0, 1), Err(ReadError::NoSuchFile { .. })));

    let wrong = |change: fn(&mut TocEntry)| {
        let (blob, files) = with_toc(|reader| change(&mut reader.toc.entries[1]));
        files.and_then(|files| files.verify(&blob, "models/weights")).unwrap_err()
    };
    for (change, expected) in [
        ((|entry| entry.chunk_size = 299) as fn(&mut TocEntry), "leave a gap or overlap"),
        (|entry| entry.chunk_size = 0, "lie"),
        (|entry| entry.chunk_offset = 299, "leave a gap or overlap"),
        (|entry| entry.offset = u64::MAX, "outside the layer"),
        (|entry| entry.name = "models/other".into(), "chunks are missing"),
        (|entry| entry.chunk_digest = "sha256:12".into(), "digest is none"),
        (|entry| entry.chunk_digest = Digest::of(b"").to_string(), "has digest"),
        (|entry| entry.offset -= 1, "is damaged at byte 300"),
        (|entry| entry.inner_offset = u64::MAX, "is damaged at byte 300"),
        (|entry| entry.inner_offset = 1, "is damaged at byte 300"),
    ] {
        let error = wrong(change).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let (_, files) = with_toc(|reader| {
        let again = reader.toc.entries.clone();
        reader.toc.entries.extend(again);
    });
    assert!(files.unwrap_err().to_string().contains("there are two"));
    let (_, files) = with_toc(|reader| drop(reader.toc.entries.remove(0)));
    assert!(files.unwrap_err().to_string().contains("follows no other"));
    let (_, files) = with_toc(|reader| reader.toc.entries.truncate(2));
    assert!(files.unwrap_err().to_string().contains("chunks are missing"));
    let (_, files) = with_toc(|reader| reader.toc.entries[0].size = u64::MAX);
    assert!(files.is_ok(), "the last chunk goes on to the end, which no reader reaches");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_files_survive(
        sizes in prop::collection::vec((0_usize..5_000, any::<bool>()), 0..8),
        chunk in 1_usize..3_000,
        zstd: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let entries: Vec<Entry> = sizes
            .iter()
            .enumerate()
            .map(|(index, (size, stored))| {
                let storage = if *stored { Storage::Stored } else { Storage::Compressed };
                file(directory.path(), &format!("file-{index}"), &noise(*size), storage, chunk)
            })
            .collect();
        let (kind, format) = if zstd {
            (MemberKind::Zstd, wrap(ZstdChunked::new(1)))
        } else {
            (MemberKind::Gzip, wrap(Estargz::new(1)))
        };
        let layer = seal_with(&entries, &format, 2, 1_000, None).unwrap();
        let blob = bytes_of(&layer);
        prop_assert_eq!(Digest::of(&blob), layer.digest);
        let stream = unpacked(kind, &blob);
        prop_assert_eq!(Digest::of(&stream), layer.diff_id);
        let files = tar_files(&stream);
        for (index, (size, _)) in sizes.iter().enumerate() {
            prop_assert_eq!(&files[&format!("models/file-{index}")], &noise(*size));
        }
        let blob = InMemory(blob);
        let listed = Files::of(&EstargzReader::open(&blob, None).unwrap()).unwrap();
        prop_assert_eq!(listed.iter().count(), sizes.len());
        for (index, (size, _)) in sizes.iter().enumerate() {
            let (path, content) = (format!("models/file-{index}"), noise(*size));
            listed.verify(&blob, &path).unwrap();
            prop_assert_eq!(&listed.read(&blob, &path, 0, usize::MAX).unwrap(), &content);
            let (from, to) = (size / 3, size - size / 4);
            let part = listed.read(&blob, &path, from as u64, to - from).unwrap();
            prop_assert_eq!(&part, &content[from..to]);
            prop_assert!(listed.read(&blob, &path, *size as u64, 10).unwrap().is_empty());
        }
    }
}
