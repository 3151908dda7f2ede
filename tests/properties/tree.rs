//! Arbitrary trees: every kind of entry, names and numbers at and beyond what a tar header's fields hold, contents of
//! any size in any chunks.

use std::{collections::BTreeMap, io::Write as _, sync::Arc};

use proptest::{prelude::*, sample::Index};
use starcar::{
    blob::Source,
    estargz::{LANDMARK_CONTENT, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME},
    layer::{Content, Data, Entry, EntryKind, Storage},
};

/// What a tree is made of, before its parts know each other.
#[derive(Debug, Clone)]
pub struct Part {
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

pub fn part() -> impl Strategy<Value = Part> {
    (any::<Index>(), name(), metadata(), kind()).prop_map(|(parent, name, metadata, kind)| Part {
        parent,
        name,
        metadata,
        kind,
    })
}

/// Which landmark a layer has, and where.
pub fn landmark() -> impl Strategy<Value = Option<(Index, &'static str)>> {
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
pub struct Tree {
    pub entries: Vec<Entry>,
    pub contents: BTreeMap<String, Vec<u8>>,
}

pub fn tree(parts: Vec<Part>, landmark: Option<(Index, &'static str)>) -> Tree {
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
