//! What a file system shows: nodes with numbers, attributes and content. Must not know FUSE's requests, or what is
//! recorded.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    sync::Arc,
    time::Duration,
};

use fuser::{FileAttr, FileType};

/// The number of the node at the top, in every FUSE file system.
pub(super) const ROOT: u64 = 1;

/// A tree of files that is shown. Nodes keep their numbers as long as it lives.
pub(super) trait Backing: Send + Sync + 'static {
    /// The node of this name in a directory; [`io::ErrorKind::NotFound`] where there is none.
    fn look_up(&self, parent: u64, name: &OsStr) -> io::Result<FileAttr>;
    /// What is known of a node.
    fn attributes(&self, node: u64) -> io::Result<FileAttr>;
    /// Path of a node relative to the tree, empty for its top; `None` when it is not UTF-8.
    fn path(&self, node: u64) -> Option<Arc<str>>;
    /// Opens a regular file.
    fn open(&self, node: u64) -> io::Result<File>;
    /// What a directory holds, without `.` and `..`.
    fn list(&self, node: u64) -> io::Result<Vec<Listed>>;
    /// Where a symlink points.
    fn link(&self, node: u64) -> io::Result<OsString>;
    /// How long the kernel may believe what it was told.
    fn time_to_live(&self) -> Duration;
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: OsString,
    pub(super) kind: FileType,
    pub(super) node: u64,
}

/// The path of `name` in the directory `parent`.
pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}
