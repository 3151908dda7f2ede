//! What a profile says of each file, in the order of first accesses; and a profile whose patterns became files. Must
//! not know how it is shown.

use std::collections::HashMap;

use super::{
    Access, AccessKind, ByteRange, Profile, Seconds, Target, Tree, ranges::RangeSet, resolve::matcher,
};
use crate::natural::natural_cmp;

/// A profile, file by file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Files and patterns that are opened or read, in the order of their first accesses.
    pub files: Vec<FileSummary>,
    /// What was looked for and was not there, in the order of the first look-up.
    pub missing: Vec<FileSummary>,
    /// Bytes that are read, as far as they are known.
    pub bytes: u64,
    /// Time of the last access.
    pub end: Seconds,
}

/// What a profile says of one file, or of one pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// Place in its list, from 0.
    pub place: usize,
    /// The tree in which it lies.
    pub tree: Tree,
    /// The file or the pattern.
    pub target: Target,
    /// Time of the first access.
    pub first: Seconds,
    /// Time of the last access.
    pub last: Seconds,
    /// Whether all of it is read, however large it is.
    pub whole: bool,
    /// Bytes that are read; `None` when that is all of a file of unknown size.
    pub bytes: Option<u64>,
    /// Number of stretches that are read.
    pub ranges: usize,
    /// Size of the file, where it is known.
    pub size: Option<u64>,
    /// The bytes that are read.
    pub(super) covered: RangeSet,
}

/// Summarises `profile`. `size` tells the size of a file of the model, if it knows it.
pub fn summary(profile: &Profile, size: &dyn Fn(&str) -> Option<u64>) -> Summary {
    let mut summary = Summary::default();
    let mut known: HashMap<(bool, &Tree, &Target), usize> = HashMap::new();
    for access in &profile.accesses {
        let missing = access.kind == AccessKind::Missing;
        let files = if missing { &mut summary.missing } else { &mut summary.files };
        let index = *known.entry((missing, &access.tree, &access.target)).or_insert_with(|| {
            files.push(FileSummary::new(files.len(), access, size));
            files.len() - 1
        });
        files[index].add(access);
        summary.end = summary.end.max(access.until.unwrap_or(access.at));
    }
    for file in summary.files.iter_mut().chain(&mut summary.missing) {
        file.bytes =
            if file.whole { file.size } else { Some(file.covered.iter().map(|range| range.length).sum()) };
        file.ranges = file.covered.iter().count();
        summary.bytes = summary.bytes.saturating_add(file.bytes.unwrap_or(0));
    }
    summary
}

impl FileSummary {
    fn new(place: usize, access: &Access, size: &dyn Fn(&str) -> Option<u64>) -> Self {
        let size = match (&access.tree, &access.target) {
            (Tree::Model, Target::Path(path)) => size(path),
            _ => None,
        };
        Self {
            place,
            tree: access.tree.clone(),
            target: access.target.clone(),
            first: access.at,
            last: access.at,
            whole: false,
            bytes: None,
            ranges: 0,
            size,
            covered: RangeSet::default(),
        }
    }

    fn add(&mut self, access: &Access) {
        self.last = self.last.max(access.until.unwrap_or(access.at));
        if access.kind == AccessKind::Read {
            self.whole |= access.ranges.is_empty();
            for range in &access.ranges {
                self.covered.insert(*range);
            }
        }
    }

    /// The tree and the file, for people: `config.json`, `vllm: a/b.so`.
    pub fn name(&self) -> String {
        match &self.tree {
            Tree::Model => self.target.to_string(),
            Tree::Cache(name) => format!("{name}: {}", self.target),
        }
    }

    /// What was read, for comparing.
    pub(super) fn reads(&self) -> (bool, &RangeSet) {
        (self.whole, &self.covered)
    }
}

/// `profile` with `files` of the model, path and size in bytes of each, in place of patterns, and without ranges that
/// the files do not have. Files that are not among them stay.
pub fn with_files(profile: &Profile, files: &[(&str, u64)]) -> Profile {
    let sizes: HashMap<&str, u64> = files.iter().copied().collect();
    let mut sorted: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
    sorted.sort_by(|a, b| natural_cmp(a, b));
    let mut accesses = Vec::with_capacity(profile.accesses.len());
    for access in &profile.accesses {
        let paths: Vec<&str> = match (&access.tree, &access.target) {
            (Tree::Model, Target::Path(path)) => vec![path],
            // Checked when the profile was read.
            (Tree::Model, Target::Glob(glob)) => match matcher(glob) {
                Ok(matcher) => sorted.iter().copied().filter(|path| matcher.is_match(path)).collect(),
                Err(_) => Vec::new(),
            },
            (Tree::Cache(_), _) => {
                accesses.push(access.clone());
                continue;
            }
        };
        for path in paths {
            let mut access = access.clone();
            access.target = Target::Path(path.to_owned());
            if let Some(&size) = sizes.get(path)
                && access.kind == AccessKind::Read
            {
                let wanted = if access.ranges.is_empty() {
                    vec![ByteRange { offset: 0, length: size }]
                } else {
                    std::mem::take(&mut access.ranges)
                };
                access.ranges = wanted
                    .into_iter()
                    .filter(|range| range.offset < range.end().min(size))
                    .map(|range| ByteRange::between(range.offset, range.end().min(size)))
                    .collect();
                // Nothing of it is left to be read; without ranges it would mean all.
                if access.ranges.is_empty() {
                    access.kind = AccessKind::Open;
                }
            }
            accesses.push(access);
        }
    }
    Profile { accesses, ..profile.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile::parse(
            "p",
            br#"{"version": 1, "accesses": [
                {"at": 0, "kind": "missing", "path": "params.json"},
                {"at": 1, "kind": "open", "path": "config.json"},
                {"at": 2, "until": 3, "kind": "read", "path": "config.json", "ranges": [[0, 4], [2, 4], [90, 10]]},
                {"at": 4, "kind": "read", "glob": "*.safetensors", "ranges": [[0, 8]]},
                {"at": 5, "kind": "read", "glob": "*.safetensors"},
                {"at": 6, "kind": "read", "cache": "c", "path": "a.so"}
            ]}"#,
        )
        .unwrap()
    }

    #[test]
    fn files_in_the_order_of_their_first_accesses() {
        let summary = summary(&profile(), &|_| None);
        let names: Vec<String> = summary.files.iter().map(FileSummary::name).collect();
        assert_eq!(names, ["config.json", "*.safetensors", "c: a.so"]);
        assert_eq!(summary.missing.len(), 1);
        let config = &summary.files[0];
        assert_eq!((config.first.get(), config.last.get()), (1.0, 3.0));
        assert_eq!((config.bytes, config.ranges, summary.bytes), (Some(16), 2, 16));
        assert_eq!((summary.files[1].whole, summary.files[1].bytes), (true, None));
    }

    #[test]
    fn patterns_become_files() {
        let files =
            [("config.json", 92), ("m-10.safetensors", 4), ("m-2.safetensors", 20), ("empty.safetensors", 0)];
        let sizes = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, size)| *size);
        let summary = summary(&with_files(&profile(), &files), &sizes);
        let files: Vec<_> = summary.files.iter().map(|f| (f.name(), f.bytes, f.size)).collect();
        assert_eq!(
            files,
            [
                ("config.json".to_owned(), Some(8), Some(92)),
                ("empty.safetensors".to_owned(), Some(0), Some(0)),
                ("m-2.safetensors".to_owned(), Some(20), Some(20)),
                ("m-10.safetensors".to_owned(), Some(4), Some(4)),
                ("c: a.so".to_owned(), None, None),
            ]
        );
    }
}
