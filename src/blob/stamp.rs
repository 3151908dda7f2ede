//! What tells that a source file is still the file that was planned. Must not know what files hold.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// Identity of a file at one moment: which file, how long, last written when. Two equal stamps mean
/// "unchanged" as far as the file system tells; a digest decides where it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// Device number (`st_dev`).
    pub device: u64,
    /// Inode number (`st_ino`).
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write, whole seconds since 1970.
    pub modified_seconds: i64,
    /// Time of the last write, nanoseconds within the second.
    pub modified_nanoseconds: i64,
}

impl FileStamp {
    /// The stamp that a file's metadata (not a symlink's) carries.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified_seconds: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
        }
    }
}
