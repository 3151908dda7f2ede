//! What the writer writes, the reader reads: layers of arbitrary trees, in arbitrary chunks.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::{prelude::*, sample::Index};
use starcar::{
    blob::{BlobContent as _, RangeSource, Source, Spool},
    digest::Digest,
    estargz::{
        Estargz, EstargzReader, Files, LANDMARK_CONTENT, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK,
        TOC_DIGEST_ANNOTATION, TOC_NAME, UNCOMPRESSED_SIZE_ANNOTATION,
        members::{Members, Step},
        toc::TocEntry,
    },
    layer::{
        Content, Data, Entry, EntryKind, LayerFormat, PlainTar, SealOptions, SealedLayer, Storage, Workers,
        seal,
        tar_reader::{TarEvent, TarReader},
    },
};

/// What a tree is made of, before its parts know each other.
#[derive(Debug, Clone)]
struct Part {
    /// Which of the directories before it holds it.
    parent: Index,
    name: String,
    metadata: Metadata,
    kind: Kind,
}

#[derive(Debug, Clone)]
struct Metadata {
    mode: u32,
    owner: (u64, u64),
    names: (String, String),
    modified: i64,
    xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone)]
enum Kind {
    Directory,
    Regular(Regular),
    Symlink(String),
    /// To which of the regular files.
    Hardlink(Index),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

#[derive(Debug, Clone)]
struct Regular {
    bytes: Vec<u8>,
    /// Where one chunk ends and the next begins.
    cuts: Vec<Index>,
    storage: Storage,
    /// From a file, at this offset, and not from memory.
    from_file: Option<usize>,
}

/// A part of a path: short, long for a tar header's field, or longer than any field of it, in any script.
fn name() -> impl Strategy<Value = String> {
    let any = prop_oneof![
        4 => "[a-z0-9._-]{1,12}",
        2 => "[^/\0\n]{1,20}",
        1 => "[a-zA-Z äöü模型]{90,110}",
        1 => "[a-z]{250,300}",
    ];
    any.prop_filter("a name of its own", |name| name != "." && name != "..")
}

fn seconds() -> impl Strategy<Value = i64> {
    // The years 0 to 9999.
    prop_oneof![Just(0), -2_000_000_000_i64..2_000_000_000, -62_167_219_200_i64..=253_402_300_799]
}

/// An owner, a group: around what a field of a header can hold, and far beyond. The other reader of tar keeps 62 bits.
fn owner() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0_u64..70_000, 0o777_7776_u64..=0o1000_0001, 0_u64..1 << 62]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let owner_name = || prop_oneof![Just(String::new()), "[a-z]{1,8}".boxed(), "[^\0\n]{1,40}".boxed()];
    let xattr = ("(user|security|trusted)\\.[a-z.]{1,20}", prop::collection::vec(any::<u8>(), 0..40));
    let xattrs = prop::collection::btree_map(xattr.0, xattr.1, 0..3);
    (0_u32..=0o7777, (owner(), owner()), (owner_name(), owner_name()), seconds(), xattrs)
        .prop_map(|(mode, owner, names, modified, xattrs)| Metadata { mode, owner, names, modified, xattrs })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let size = prop_oneof![1 => Just(0), 2 => 1_usize..3, 2 => 510_usize..515, 4 => 0_usize..5_000, 1 => 60_000_usize..140_000];
    (size, any::<u64>(), any::<bool>()).prop_map(|(size, seed, random)| {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if random { state.to_be_bytes()[0] } else { b'a' + u8::from(state >> 63 == 1) }
        };
        (0..size).map(|_| next()).collect()
    })
}

fn regular() -> impl Strategy<Value = Regular> {
    let storage = prop_oneof![Just(Storage::Stored), Just(Storage::Compressed)];
    (bytes(), prop::collection::vec(any::<Index>(), 0..6), storage, prop::option::of(0_usize..1_000))
        .prop_map(|(bytes, cuts, storage, from_file)| Regular { bytes, cuts, storage, from_file })
}

fn kind() -> impl Strategy<Value = Kind> {
    let device = || (0_u32..=0o777_7777, 0_u32..=0o777_7777);
    prop_oneof![
        4 => Just(Kind::Directory),
        8 => regular().prop_map(Kind::Regular),
        2 => "[^\0\n]{1,130}".prop_map(Kind::Symlink),
        2 => any::<Index>().prop_map(Kind::Hardlink),
        1 => device().prop_map(|(major, minor)| Kind::CharDevice(major, minor)),
        1 => device().prop_map(|(major, minor)| Kind::BlockDevice(major, minor)),
        1 => Just(Kind::Fifo),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    (any::<Index>(), name(), metadata(), kind()).prop_map(|(parent, name, metadata, kind)| Part {
        parent,
        name,
        metadata,
        kind,
    })
}

/// Which landmark a layer has, and where.
fn landmark() -> impl Strategy<Value = Option<(Index, &'static str)>> {
    prop::option::of((any::<Index>(), prop_oneof![Just(PREFETCH_LANDMARK), Just(NO_PREFETCH_LANDMARK)]))
}

fn content(regular: &Regular) -> Content {
    let size = regular.bytes.len();
    let mut ends: Vec<usize> = regular.cuts.iter().filter(|_| size > 0).map(|cut| cut.index(size)).collect();
    ends.extend([0, size]);
    ends.sort_unstable();
    ends.dedup();
    let data = match regular.from_file {
        None => Data::Bytes(regular.bytes.clone().into()),
        Some(offset) => {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![0x55; offset]).unwrap();
            file.write_all(&regular.bytes).unwrap();
            Data::Source { source: Arc::new(Source::Spool(Arc::new(file))), offset: offset as u64 }
        }
    };
    Content {
        data,
        storage: regular.storage,
        chunks: ends.windows(2).map(|pair| (pair[1] - pair[0]) as u64).collect(),
        expected: Vec::new(),
    }
}

/// A tree: its entries, parents first and hard links last, no name twice, and what its regular files hold.
#[derive(Debug)]
struct Tree {
    entries: Vec<Entry>,
    contents: BTreeMap<String, Vec<u8>>,
}

fn tree(parts: Vec<Part>, landmark: Option<(Index, &'static str)>) -> Tree {
    let mut directories = vec![String::new()];
    let mut taken: Vec<String> =
        [TOC_NAME, PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK].map(str::to_owned).into();
    let (mut entries, mut links, mut contents) = (Vec::new(), Vec::new(), BTreeMap::new());
    for Part { parent, name, metadata, kind } in parts {
        let mut path = format!("{}{name}", parent.get(&directories));
        while taken.contains(&path) {
            path.push('+');
        }
        taken.push(path.clone());
        let kind = match kind {
            Kind::Hardlink(target) => {
                links.push((path, metadata, target));
                continue;
            }
            Kind::Directory => {
                directories.push(format!("{path}/"));
                EntryKind::Directory
            }
            Kind::Regular(regular) => {
                let content = content(&regular);
                contents.insert(path.clone(), regular.bytes);
                EntryKind::Regular(content)
            }
            Kind::Symlink(target) => EntryKind::Symlink { target },
            Kind::CharDevice(major, minor) => EntryKind::CharDevice { major, minor },
            Kind::BlockDevice(major, minor) => EntryKind::BlockDevice { major, minor },
            Kind::Fifo => EntryKind::Fifo,
        };
        entries.push(entry(path, metadata, kind));
    }
    if let Some((position, name)) = landmark {
        let kind = EntryKind::Regular(Content::bytes(vec![LANDMARK_CONTENT], Storage::Stored));
        entries.insert(position.index(entries.len() + 1), Entry::new(name, 0o644, 0, kind));
        contents.insert(name.to_owned(), vec![LANDMARK_CONTENT]);
    }
    let regular: Vec<String> = contents.keys().cloned().collect();
    for (path, metadata, target) in links.into_iter().filter(|_| !regular.is_empty()) {
        let target = target.get(&regular).clone();
        entries.push(entry(path, metadata, EntryKind::Hardlink { target }));
    }
    Tree { entries, contents }
}

fn entry(path: String, metadata: Metadata, kind: EntryKind) -> Entry {
    Entry {
        path,
        mode: metadata.mode,
        uid: metadata.owner.0,
        gid: metadata.owner.1,
        user_name: metadata.names.0,
        group_name: metadata.names.1,
        modified: metadata.modified,
        xattrs: metadata.xattrs,
        kind,
    }
}

/// Seals a layer, and reads all of its blob.
fn sealed(entries: &[Entry], format: impl LayerFormat + 'static, memory: usize) -> (SealedLayer, InMemory) {
    let workers = Workers::new(2).unwrap();
    let spool = Spool::new(std::env::temp_dir(), memory);
    let options = SealOptions { workers: &workers, spool: &spool, on_bytes: &|_| {} };
    let format: Arc<dyn LayerFormat> = Arc::new(format);
    let layer = seal(entries, &format, &options, None).unwrap();
    let mut bytes = Vec::new();
    layer.blob.clone().unwrap().reader(0).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!((Digest::of(&bytes), bytes.len() as u64), (layer.digest, layer.size));
    (layer, InMemory(bytes))
}

struct InMemory(Vec<u8>);

impl RangeSource for InMemory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_range(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let start = usize::try_from(offset).unwrap();
        Ok(self.0[start..start + length].to_vec())
    }
}

/// What the table of contents must say of an entry, its chunks aside.
fn assert_listed(entry: &Entry, listed: &TocEntry, contents: &BTreeMap<String, Vec<u8>>) {
    let (kind, link, device) = match &entry.kind {
        EntryKind::Directory => ("dir", "", (0, 0)),
        EntryKind::Regular(_) => ("reg", "", (0, 0)),
        EntryKind::Symlink { target } => ("symlink", &target[..], (0, 0)),
        EntryKind::Hardlink { target } => ("hardlink", &target[..], (0, 0)),
        EntryKind::CharDevice { major, minor } => ("char", "", (*major, *minor)),
        EntryKind::BlockDevice { major, minor } => ("block", "", (*major, *minor)),
        EntryKind::Fifo => ("fifo", "", (0, 0)),
    };
    assert_eq!(listed.name.strip_suffix('/').unwrap_or(&listed.name), entry.path.trim_end_matches('/'));
    assert_eq!(listed.name.ends_with('/'), kind == "dir" || entry.path.ends_with('/'));
    assert_eq!((&listed.entry_type[..], &listed.link_name[..]), (kind, link));
    assert_eq!((listed.dev_major, listed.dev_minor), (u64::from(device.0), u64::from(device.1)));
    assert_eq!((listed.mode, listed.uid, listed.gid), (u64::from(entry.mode), entry.uid, entry.gid));
    assert_eq!((&listed.user_name, &listed.group_name), (&entry.user_name, &entry.group_name));
    let modified = chrono::DateTime::parse_from_rfc3339(&listed.modified).unwrap();
    assert_eq!(modified.timestamp(), entry.modified);
    let xattrs: BTreeMap<String, Vec<u8>> =
        listed.xattrs.iter().map(|(name, value)| (name.clone(), STANDARD.decode(value).unwrap())).collect();
    assert_eq!(xattrs, entry.xattrs);
    let content = contents.get(&entry.path);
    assert_eq!(listed.size, content.map_or(0, |content| content.len() as u64));
    assert_eq!(listed.digest, content.map_or(String::new(), |content| Digest::of(content).to_string()));
}

/// Every file is cut as it was asked for, and reads back whole and in parts.
fn assert_files(tree: &Tree, blob: &InMemory, reader: &EstargzReader, ranges: &[(Index, Index)]) {
    let files = Files::of(reader).unwrap();
    assert_eq!(
        files.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        tree.contents.keys().collect::<Vec<_>>()
    );
    for entry in &tree.entries {
        let EntryKind::Regular(content) = &entry.kind else { continue };
        let (path, bytes) = (&entry.path, &tree.contents[&entry.path]);
        let file = files.get(path).unwrap();
        assert_eq!(file.size, bytes.len() as u64);
        assert_eq!(file.chunks.iter().map(|chunk| chunk.length).collect::<Vec<_>>(), content.chunks);
        files.verify(blob, path).unwrap();
        assert_eq!(&files.read(blob, path, 0, usize::MAX).unwrap(), bytes);
        assert!(files.read(blob, path, file.size, 1).unwrap().is_empty());
        assert!(files.read(blob, path, u64::MAX, usize::MAX).unwrap().is_empty());
        for (one, other) in ranges {
            let (one, other) = (one.index(bytes.len() + 1), other.index(bytes.len() + 1));
            let (start, end) = (one.min(other), one.max(other));
            assert_eq!(files.read(blob, path, start as u64, end - start).unwrap(), &bytes[start..end]);
        }
    }
}

/// What another reader of tar finds in the stream; the table of contents, if there is one, comes last.
fn assert_unpacks(tree: &Tree, stream: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(stream);
    let mut toc = None;
    let mut expected = tree.entries.iter();
    for found in archive.entries().unwrap() {
        let mut found = found.unwrap();
        let Some(entry) = expected.next() else {
            assert_eq!(&*found.path_bytes(), TOC_NAME.as_bytes());
            assert!(toc.is_none(), "a second entry behind the last");
            toc = Some(read_to_end(&mut found));
            continue;
        };
        assert_unpacked(entry, &mut found);
        assert_eq!(&read_to_end(&mut found), tree.contents.get(&entry.path).unwrap_or(&Vec::new()));
    }
    assert!(expected.next().is_none(), "an entry is missing");
    toc
}

fn assert_unpacked(entry: &Entry, found: &mut tar::Entry<'_, &[u8]>) {
    let directory = matches!(entry.kind, EntryKind::Directory);
    let path = if directory { format!("{}/", entry.path) } else { entry.path.clone() };
    assert_eq!(String::from_utf8_lossy(&found.path_bytes()), path);
    let (kind, link, device) = match &entry.kind {
        EntryKind::Directory => (tar::EntryType::Directory, None, None),
        EntryKind::Regular(_) => (tar::EntryType::Regular, None, None),
        EntryKind::Symlink { target } => (tar::EntryType::Symlink, Some(target), None),
        EntryKind::Hardlink { target } => (tar::EntryType::Link, Some(target), None),
        EntryKind::CharDevice { major, minor } => (tar::EntryType::Char, None, Some((*major, *minor))),
        EntryKind::BlockDevice { major, minor } => (tar::EntryType::Block, None, Some((*major, *minor))),
        EntryKind::Fifo => (tar::EntryType::Fifo, None, None),
    };
    assert_eq!(found.header().entry_type(), kind);
    assert_eq!(
        found.link_name_bytes().map(|link| link.into_owned()),
        link.map(|link| link.clone().into_bytes())
    );
    if let Some((major, minor)) = device {
        let header = found.header();
        assert_eq!(
            (header.device_major().unwrap(), header.device_minor().unwrap()),
            (Some(major), Some(minor))
        );
    }
    let header = found.header();
    assert_eq!(header.mode().unwrap(), entry.mode);
    assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (entry.uid, entry.gid));
    let mut modified = i64::try_from(header.mtime().unwrap()).unwrap();
    let mut names = [header.username_bytes(), header.groupname_bytes()].map(|name| name.unwrap().to_vec());
    let mut xattrs = BTreeMap::new();
    for record in found.pax_extensions().unwrap().into_iter().flatten() {
        // The crate takes a line feed in a value for the record's end.
        let Ok(record) = record else { continue };
        match record.key().unwrap() {
            "mtime" => modified = record.value().unwrap().parse().unwrap(),
            "uname" => names[0] = record.value_bytes().to_vec(),
            "gname" => names[1] = record.value_bytes().to_vec(),
            key => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
                }
            }
        }
    }
    assert_eq!(modified, entry.modified);
    assert_eq!(names, [entry.user_name.as_bytes(), entry.group_name.as_bytes()]);
    if entry.xattrs.values().all(|value| !value.contains(&b'\n')) {
        assert_eq!(xattrs, entry.xattrs);
    }
}

/// What starcar's own reader of tar finds in the stream, in pieces of any size: all that was written, byte by byte.
fn assert_read(tree: &Tree, stream: &[u8], piece: usize) {
    let (mut reader, mut found) = (TarReader::new(), Vec::new());
    for piece in stream.chunks(piece) {
        reader
            .feed(piece, |event| match event {
                TarEvent::Entry(entry) => found.push((*entry, Vec::new())),
                TarEvent::Payload(bytes) => found.last_mut().unwrap().1.extend_from_slice(bytes),
                TarEvent::PaddingNotZero { at } => panic!("padding at byte {at} is not zero"),
            })
            .unwrap();
    }
    let end = reader.finish().unwrap();
    assert_eq!((end.zeros, end.garbage_at, end.size), (1_024, None, stream.len() as u64));
    for (entry, (read, payload)) in tree.entries.iter().zip(&found) {
        assert_eq!(payload, tree.contents.get(&entry.path).unwrap_or(&Vec::new()));
        assert_eq!(
            String::from_utf8_lossy(&read.name).trim_end_matches('/'),
            entry.path.trim_end_matches('/')
        );
        assert_eq!((read.mode, read.uid, read.gid), (u64::from(entry.mode), entry.uid, entry.gid));
        assert_eq!(
            (&read.user[..], &read.group[..]),
            (entry.user_name.as_bytes(), entry.group_name.as_bytes())
        );
        assert_eq!((read.modified, read.modified_nanos, read.sparse), (entry.modified, 0, false));
        assert_eq!(read.xattrs, entry.xattrs);
        let (link, device) = match &entry.kind {
            EntryKind::Symlink { target } | EntryKind::Hardlink { target } => (&target[..], (0, 0)),
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                ("", (*major, *minor))
            }
            EntryKind::Directory | EntryKind::Regular(_) | EntryKind::Fifo => ("", (0, 0)),
        };
        assert_eq!(&read.link[..], link.as_bytes());
        assert_eq!((read.dev_major, read.dev_minor), (u64::from(device.0), u64::from(device.1)));
    }
    assert!((tree.entries.len()..=tree.entries.len() + 1).contains(&found.len()));
}

/// Every chunk is a member of its own and unpacks alone.
fn assert_members(blob: &InMemory, reader: &EstargzReader) {
    let (mut members, mut buffer) = (Members::new(&blob.0[..]), vec![0; 1 << 16]);
    let (mut found, mut content) = (BTreeMap::new(), Vec::new());
    loop {
        let offset = members.member().offset;
        match members.read(&mut buffer).unwrap() {
            Step::Bytes(count) => content.extend_from_slice(&buffer[..count]),
            Step::MemberEnd(_) => drop(found.insert(offset, Digest::of(&std::mem::take(&mut content)))),
            Step::End => break,
        }
    }
    for (_, file) in Files::of(reader).unwrap().iter() {
        for chunk in &file.chunks {
            assert_eq!((chunk.inner_offset, found.get(&chunk.member)), (0, chunk.digest.as_ref()));
        }
    }
    assert!(found.contains_key(&reader.toc_offset));
}

fn read_to_end(reader: &mut dyn io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_layer_reads_as_it_was_written(
        parts in prop::collection::vec(part(), 0..16),
        landmark in landmark(),
        level in 0_u32..=9,
        memory in prop_oneof![Just(0), 0_usize..10_000],
        ranges in prop::collection::vec(any::<(Index, Index)>(), 4),
        from in any::<Index>(),
        piece in 1_usize..2_000,
    ) {
        let tree = tree(parts, landmark);
        let (layer, blob) = sealed(&tree.entries, Estargz::new(level), memory);

        let toc_digest: Digest = layer.annotations[TOC_DIGEST_ANNOTATION].parse().unwrap();
        let reader = EstargzReader::open(&blob, Some(toc_digest)).unwrap();
        let listed: Vec<&TocEntry> =
            reader.toc.entries.iter().filter(|entry| entry.entry_type != "chunk").collect();
        prop_assert_eq!(listed.len(), tree.entries.len());
        for (entry, listed) in tree.entries.iter().zip(&listed) {
            assert_listed(entry, listed, &tree.contents);
        }
        assert_files(&tree, &blob, &reader, &ranges);
        // A node that fetches up to the landmark has all that comes before it, and nothing of what follows.
        if let Some(landmark) = landmark.and_then(|(_, name)| listed.iter().position(|entry| entry.name == name)) {
            let offset = listed[landmark].offset;
            for (position, entry) in listed.iter().enumerate().filter(|(_, entry)| entry.size > 0) {
                prop_assert_eq!(entry.offset < offset, position < landmark);
            }
        }

        let stream = read_to_end(&mut flate2::read::MultiGzDecoder::new(&blob.0[..]));
        prop_assert_eq!((Digest::of(&stream), stream.len() as u64), (layer.diff_id, layer.uncompressed_size));
        prop_assert_eq!(&layer.annotations[UNCOMPRESSED_SIZE_ANNOTATION], &stream.len().to_string());
        assert_members(&blob, &reader);
        assert_read(&tree, &stream, piece);
        let toc = assert_unpacks(&tree, &stream).unwrap();
        prop_assert_eq!(Digest::of(&toc), toc_digest);

        // An upload that is taken up again sends the same bytes.
        let from = from.index(blob.0.len());
        let rest = read_to_end(&mut layer.blob.clone().unwrap().reader(from as u64).unwrap());
        prop_assert_eq!(&rest, &blob.0[from..]);
    }

    #[test]
    fn a_plain_layer_is_the_same_stream_without_a_table(parts in prop::collection::vec(part(), 0..8)) {
        let tree = tree(parts, None);
        let (layer, plain) = sealed(&tree.entries, PlainTar, 1_000);
        prop_assert_eq!((layer.diff_id, layer.uncompressed_size), (layer.digest, layer.size));
        prop_assert_eq!(assert_unpacks(&tree, &plain.0), None);
        let (_, estargz) = sealed(&tree.entries, Estargz::new(1), 1_000);
        let stream = read_to_end(&mut flate2::read::MultiGzDecoder::new(&estargz.0[..]));
        // All but the two blocks of zeros that end it.
        let payload = &plain.0[..plain.0.len() - 1_024];
        prop_assert!(stream.starts_with(payload));
    }
}
