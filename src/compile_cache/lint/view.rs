//! A cache's files, by path and by directory. Must not know rules.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::compile_cache::{CacheFile, CacheTree, identity::Identity};

/// A cache, ready to be looked into.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) tree: &'a CacheTree,
    pub(super) identity: &'a Identity,
    /// The files of each directory, in the order of the tree.
    pub(super) directories: BTreeMap<&'a str, Vec<&'a CacheFile>>,
    files: HashMap<&'a str, &'a CacheFile>,
    /// Directories that hold a file, at whatever depth.
    above: HashSet<&'a str>,
}

impl<'a> View<'a> {
    pub(super) fn of(tree: &'a CacheTree, identity: &'a Identity) -> Self {
        let mut directories: BTreeMap<&str, Vec<&CacheFile>> = BTreeMap::new();
        let mut above = HashSet::new();
        for file in &tree.files {
            let (mut directory, _) = split(&file.path);
            directories.entry(directory).or_default().push(file);
            while above.insert(directory) && !directory.is_empty() {
                (directory, _) = split(directory);
            }
        }
        let files = tree.files.iter().map(|file| (file.path.as_str(), file)).collect();
        Self { tree, identity, directories, files, above }
    }

    /// The file `name` of `directory`.
    pub(super) fn file(&self, directory: &str, name: &str) -> Option<&'a CacheFile> {
        self.files.get(join(directory, name).as_str()).copied()
    }

    /// Whether `directory` has a file or a directory that is called `name`.
    pub(super) fn has(&self, directory: &str, name: &str) -> bool {
        let path = join(directory, name);
        self.files.contains_key(path.as_str()) || self.above.contains(path.as_str())
    }

    /// Whether a file lies in `directory`, at whatever depth.
    pub(super) fn has_file_below(&self, directory: &str) -> bool {
        self.above.contains(directory)
    }

    /// Directories that hold a file at whatever depth, and those that are empty, each once and sorted.
    pub(super) fn all_directories(&self) -> Vec<&'a str> {
        let known = self.tree.directories.iter().map(|directory| directory.path.as_str());
        let mut all: Vec<&str> = self.above.iter().copied().chain(known).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Directory and name of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The name of a file.
pub(super) fn name_of(file: &CacheFile) -> &str {
    split(&file.path).1
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}
