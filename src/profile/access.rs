//! One access of a start.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use serde_json::value::RawValue;

use super::Seconds;
use crate::natural::natural_cmp;

/// JSON members that this version does not know, as they were written.
pub type Unknown = BTreeMap<String, UnknownValue>;

/// A JSON value that is kept as text.
#[derive(Debug, Clone)]
pub struct UnknownValue(pub(super) Box<RawValue>);

impl PartialEq for UnknownValue {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for UnknownValue {}

impl PartialOrd for UnknownValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UnknownValue {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.get().cmp(other.0.get())
    }
}

/// What was accessed when, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Time of the first access.
    pub at: Seconds,
    /// Time of the last of the reads that are folded into this access; `None` when it is `at`.
    pub until: Option<Seconds>,
    /// What was done.
    pub kind: AccessKind,
    /// The tree in which the path lies.
    pub tree: Tree,
    /// The file, or the files.
    pub target: Target,
    /// Bytes that were read, none of them twice; empty for a read of whole files, and for other kinds.
    pub ranges: Vec<ByteRange>,
    /// For people.
    pub comment: Option<String>,
    /// Fields that this version does not know; they are kept.
    pub unknown: Unknown,
}

/// What was done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessKind {
    /// It was opened.
    Open,
    /// It was looked for and did not exist.
    Missing,
    /// Bytes of it were read, or mapped and touched.
    Read,
}

impl AccessKind {
    /// The name in the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Missing => "missing",
            Self::Read => "read",
        }
    }
}

/// A directory tree that a start reads from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Tree {
    /// The model's snapshot.
    #[default]
    Model,
    /// A compile cache, by a name that the recording gave it.
    Cache(String),
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model => f.write_str("model"),
            Self::Cache(name) => f.write_str(name),
        }
    }
}

/// Which file, or which files, of a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// One file: its path relative to the tree, `/` between the parts.
    Path(String),
    /// All files that match, in natural order. `*` does not cross `/`, `**` does.
    Glob(String),
}

impl Target {
    /// The path or the pattern.
    pub fn text(&self) -> &str {
        let (Self::Path(text) | Self::Glob(text)) = self;
        text
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, more than zero.
    pub length: u64,
}

impl ByteRange {
    /// The bytes from `start` to `end`, which is after it.
    pub fn between(start: u64, end: u64) -> Self {
        Self { offset: start, length: end - start }
    }

    /// The byte after the last.
    pub fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// Sorts accesses into the order that profiles are written in: by time. Of accesses at one time no order is known,
/// so that kind, tree and path, in natural order, decide: the same accesses are always in the same order.
pub(super) fn sort_accesses(accesses: &mut [Access]) {
    accesses.sort_by(|a, b| {
        (a.at, a.kind, &a.tree)
            .cmp(&(b.at, b.kind, &b.tree))
            .then_with(|| natural_cmp(a.target.text(), b.target.text()))
            .then_with(|| a.target.cmp(&b.target))
            .then_with(|| a.ranges.cmp(&b.ranges))
            .then_with(|| (a.until, &a.comment, &a.unknown).cmp(&(b.until, &b.comment, &b.unknown)))
    });
}
