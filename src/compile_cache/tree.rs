//! A cache as it was found: its files and directories, and what was left out.

use std::path::PathBuf;

use super::{
    Kind,
    find::{is_aot_key, is_legacy_key},
};
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

impl CacheTree {
    /// The keys of what vLLM compiled: names of the directories in `torch_compile_cache`, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> =
            self.directories.iter().filter_map(|directory| key(&directory.path)).collect();
        keys.sort();
        keys
    }

    /// Number of entries: vLLM's keys, Triton's kernels; 0 for other kinds.
    pub fn entries(&self) -> usize {
        match self.kind {
            Kind::Vllm => self.keys().len(),
            Kind::Triton => self.directories.iter().filter(|directory| !directory.path.contains('/')).count(),
            _ => 0,
        }
    }
}

fn key(path: &str) -> Option<String> {
    let below = path.strip_prefix("torch_compile_cache/")?;
    let name = below.strip_prefix("torch_aot_compile/").unwrap_or(below);
    (is_legacy_key(name) || is_aot_key(name)).then(|| name.to_owned())
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
