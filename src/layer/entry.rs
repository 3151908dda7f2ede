//! What a layer is made of: one entry per file, in the order in which they lie in the blob. Must not know
//! how a format writes them.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{blob::Source, digest::Digest};

/// One entry of a layer's tar stream.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Path in the image without a leading or trailing slash: `models/config.json`.
    pub path: String,
    /// Permission, setuid, setgid and sticky bits (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Owner's name; empty when there is none.
    pub user_name: String,
    /// Group's name; empty when there is none.
    pub group_name: String,
    /// Modification time, whole seconds since 1970.
    pub modified: i64,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// What the entry is.
    pub kind: EntryKind,
}

/// The kinds of entries a layer can hold.
#[derive(Debug, Clone)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    Regular(Content),
    /// A symbolic link.
    Symlink {
        /// What the link says, as it is.
        target: String,
    },
    /// A second name of a file that comes earlier in the same layer.
    Hardlink {
        /// Path in the image, as in [`Entry::path`].
        target: String,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// The bytes of a regular file and how they lie in the layer.
#[derive(Debug, Clone)]
pub struct Content {
    /// Where the bytes come from.
    pub data: Data,
    /// Whether they are compressed.
    pub storage: Storage,
    /// Lengths of the chunks in bytes: none is zero, their sum is the file's size.
    pub chunks: Vec<u64>,
    /// Digests that the whole file must have, and where each was found, for the message.
    pub expected: Vec<Expected>,
}

/// A digest that a file must have.
#[derive(Debug, Clone)]
pub enum Expected {
    /// SHA-256 of the content (Git LFS, Xet).
    Sha256 {
        /// The digest.
        digest: Digest,
        /// Who says so.
        origin: String,
    },
    /// SHA-1 of a Git blob: of `blob <size>\0` and the content.
    GitSha1 {
        /// The digest's 20 bytes.
        digest: [u8; 20],
        /// Who says so.
        origin: String,
    },
}

/// Where a file's bytes come from.
#[derive(Debug, Clone)]
pub enum Data {
    /// Known bytes.
    Bytes(Bytes),
    /// A range of a source that begins at `offset` and is as long as the file.
    Source {
        /// The source.
        source: Arc<Source>,
        /// First byte in the source.
        offset: u64,
    },
}

/// How a file's chunks lie in a layer of a format that compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// As they are, in a frame: sizes are known before the bytes are, and reading costs next to nothing.
    Stored,
    /// Compressed.
    Compressed,
    /// Compressed as fast as the format can by how often each byte occurs, without a search for repetitions: for
    /// weights, which have none. A chunk that hardly shrinks lies stored.
    EntropyCoded,
}

impl Entry {
    /// An entry that belongs to `0:0`, with no names and no extended attributes.
    pub fn new(path: impl Into<String>, mode: u32, modified: i64, kind: EntryKind) -> Self {
        Self {
            path: path.into(),
            mode,
            uid: 0,
            gid: 0,
            user_name: String::new(),
            group_name: String::new(),
            modified,
            xattrs: BTreeMap::new(),
            kind,
        }
    }

    /// Size in bytes of a regular file, 0 for everything else.
    pub fn size(&self) -> u64 {
        match &self.kind {
            EntryKind::Regular(content) => content.size(),
            _ => 0,
        }
    }
}

impl Content {
    /// Known bytes, in one chunk.
    pub fn bytes(bytes: impl Into<Bytes>, storage: Storage) -> Self {
        let bytes = bytes.into();
        let chunks = if bytes.is_empty() { Vec::new() } else { vec![bytes.len() as u64] };
        Self { data: Data::Bytes(bytes), storage, chunks, expected: Vec::new() }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.chunks.iter().sum()
    }
}
