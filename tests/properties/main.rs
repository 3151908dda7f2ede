//! What the writer writes, the reader reads: layers of arbitrary trees, in arbitrary chunks.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod tree;

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::{prelude::*, sample::Index};
use starcar::{
    blob::{BlobContent as _, RangeSource, Spool},
    digest::Digest,
    estargz::{
        Estargz, EstargzReader, Files, TOC_DIGEST_ANNOTATION, TOC_NAME, UNCOMPRESSED_SIZE_ANNOTATION,
        toc::TocEntry,
    },
    layer::{
        Entry, EntryKind, LayerFormat, PlainTar, SealOptions, SealedLayer, Workers, seal,
        tar_reader::{TarEvent, TarReader},
    },
    members::{MemberKind, Members, Step},
    zstd_chunked::{Consumers, ZstdChunked},
};

use self::tree::{Tree, landmark, part, tree};

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
        found.link_name_bytes().map(std::borrow::Cow::into_owned),
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

/// The tar stream, as other decoders unpack it.
fn unpacked(kind: MemberKind, blob: &[u8]) -> Vec<u8> {
    match kind {
        MemberKind::Gzip => read_to_end(&mut flate2::read::MultiGzDecoder::new(blob)),
        MemberKind::Zstd => read_to_end(&mut zstd::Decoder::new(blob).unwrap()),
    }
}

/// Every chunk is a member of its own and unpacks alone.
fn assert_members(blob: &InMemory, reader: &EstargzReader) {
    let (mut members, mut buffer) = (Members::new(reader.kind, &blob.0[..]), vec![0; 1 << 16]);
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
        zstd: bool,
        memory in prop_oneof![Just(0), 0_usize..10_000],
        ranges in prop::collection::vec(any::<(Index, Index)>(), 4),
        from in any::<Index>(),
        piece in 1_usize..2_000,
    ) {
        let tree = tree(parts, landmark);
        let (layer, blob) = if zstd {
            let consumers = if memory % 2 == 0 { Consumers::Stargz } else { Consumers::Both };
            sealed(&tree.entries, ZstdChunked::new(level).for_consumers(consumers), memory)
        } else {
            sealed(&tree.entries, Estargz::new(level), memory)
        };

        let toc_digest: Digest = layer.annotations[TOC_DIGEST_ANNOTATION].parse().unwrap();
        let reader = EstargzReader::open(&blob, Some(toc_digest)).unwrap();
        prop_assert_eq!(reader.kind == MemberKind::Zstd, zstd);
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

        let stream = unpacked(reader.kind, &blob.0);
        prop_assert_eq!((Digest::of(&stream), stream.len() as u64), (layer.diff_id, layer.uncompressed_size));
        prop_assert_eq!(&layer.annotations[UNCOMPRESSED_SIZE_ANNOTATION], &stream.len().to_string());
        assert_members(&blob, &reader);
        assert_read(&tree, &stream, piece);
        // In zstd:chunked the table is no part of the stream.
        let toc = assert_unpacks(&tree, &stream);
        prop_assert_eq!(toc.map(|toc| Digest::of(&toc)), (!zstd).then_some(toc_digest));

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
