//! A cache as it was found: its files and directories, and what was left out.

use std::path::PathBuf;

use super::Kind;
use crate::blob::FileStamp;

/// One cache.
#[derive(Debug, Clone)]
pub struct CacheTree {
    /// What made it.
    pub kind: Kind,
    /// Name of its directory in an image: the kind's name, with a number where there are several.
    pub name: String,
    /// The directory, or the file, that it was read from.
    pub origin: PathBuf,
    /// Where the origin's content lies in the cache, without slashes at its ends: `torch_compile_cache` where the
    /// user named that directory of a vLLM cache root; usually empty.
    pub inner: String,
    /// Its files, sorted by path.
    pub files: Vec<CacheFile>,
    /// Its directories, sorted by path, the cache's own not among them.
    pub directories: Vec<CacheDirectory>,
    /// What was left out and why, sorted by path.
    pub left_out: Vec<LeftOut>,
}

/// A regular file of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFile {
    /// Path in the cache, `/` between its parts; it begins with [`CacheTree::inner`].
    pub path: String,
    /// Where its bytes lie.
    pub source: PathBuf,
    /// What it looked like when it was found.
    pub stamp: FileStamp,
    /// Whether its owner may run it.
    pub executable: bool,
}

/// A directory of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDirectory {
    /// Path in the cache, `/` between its parts.
    pub path: String,
    /// Time of the last change, seconds since 1970; `None` for one that the origin does not have.
    pub modified: Option<i64>,
}

/// Something in a cache's directory that is not part of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Path in the cache; a directory's ends in a slash.
    pub path: String,
    /// Why, in a few words.
    pub reason: String,
    /// Whether it is a symlink, so that something that the cache needs may be missing.
    pub link: bool,
}
