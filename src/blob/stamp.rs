//! What tells that a source file is still the file that was planned. Must not know what files hold.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// Identity of a file at one moment: which file, how long, last written when. Two equal stamps mean
/// "unchanged" as far as the file system tells, from one run to the next; a digest decides where it matters.
/// Within one run [`Self::is_unchanged_since`] is the question to ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
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
    /// Time of the last change of content, mode, owner, names or times, whole seconds since 1970. No program can
    /// set it.
    pub changed_seconds: i64,
    /// The same time, nanoseconds within the second.
    pub changed_nanoseconds: i64,
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
            changed_seconds: metadata.ctime(),
            changed_nanoseconds: metadata.ctime_nsec(),
        }
    }

    /// Whether this is still the file of the `planned` stamp, with what it held then. The time of the last change is
    /// left out: a new hard link, another mode or another name set it, and while a file is being packed none of them
    /// is a reason to stop.
    pub fn is_unchanged_since(&self, planned: &Self) -> bool {
        let of_content = |stamp: &Self| {
            let modified = (stamp.modified_seconds, stamp.modified_nanoseconds);
            (stamp.device, stamp.inode, stamp.size, modified)
        };
        of_content(self) == of_content(planned)
    }
}
