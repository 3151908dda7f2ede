//! What a profile means for the files of a tree: which it reads, when, and which bytes.

use globset::GlobSet;

use super::{Access, AccessKind, ByteRange, Profile, Seconds, Target, Tree};
use crate::{glob::GlobError, natural::natural_cmp};

/// What a start does with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileUse {
    /// Place of the file in the order of first accesses, from 0, among the files that are used.
    pub place: usize,
    /// Time of the first access.
    pub first: Seconds,
    /// Bytes that are read, in the order of the profile, within the file. They may overlap where accesses of
    /// patterns do.
    pub reads: Vec<TimedRange>,
}

/// Bytes that are read at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedRange {
    /// Time of the first read.
    pub at: Seconds,
    /// Time of the last read.
    pub until: Seconds,
    /// The bytes.
    pub range: ByteRange,
}

/// What a profile says of the files of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolution {
    /// For each file whether, and how, a start uses it.
    pub uses: Vec<Option<FileUse>>,
    /// Paths that the profile has seen read or opened and that are not among the files, in the profile's order.
    pub absent: Vec<String>,
}

/// Looks up `files`, path and size in bytes of each, in a profile.
pub fn resolve(profile: &Profile, tree: &Tree, files: &[(&str, u64)]) -> Resolution {
    let mut by_path: Vec<usize> = (0..files.len()).collect();
    by_path.sort_by_key(|index| files[*index].0);
    let mut uses: Vec<Option<(usize, FileUse)>> = vec![None; files.len()];
    let mut absent: Vec<String> = Vec::new();
    let accesses = profile.accesses.iter().filter(|access| access.tree == *tree);
    for (position, access) in accesses.enumerate() {
        if access.kind == AccessKind::Missing {
            continue;
        }
        match &access.target {
            Target::Path(path) => match by_path.binary_search_by_key(&path.as_str(), |index| files[*index].0)
            {
                Ok(found) => touch(&mut uses[by_path[found]], position, access, files[by_path[found]].1),
                Err(_) => absent.push(path.clone()),
            },
            Target::Glob(glob) => {
                // Checked when the profile was read.
                let Ok(matcher) = matcher(glob) else { continue };
                for (index, (path, size)) in files.iter().enumerate() {
                    if matcher.is_match(path) {
                        touch(&mut uses[index], position, access, *size);
                    }
                }
            }
        }
    }
    number(&mut uses, files);
    let mut seen = std::collections::HashSet::new();
    absent.retain(|path| seen.insert(path.clone()));
    Resolution { uses: uses.into_iter().map(|found| found.map(|(_, file)| file)).collect(), absent }
}

fn touch(found: &mut Option<(usize, FileUse)>, position: usize, access: &Access, size: u64) {
    let (_, file) =
        found.get_or_insert_with(|| (position, FileUse { place: 0, first: access.at, reads: Vec::new() }));
    if access.kind != AccessKind::Read {
        return;
    }
    let until = access.until.unwrap_or(access.at);
    let mut push = |start: u64, end: u64| {
        // Another revision of the model may have shorter files.
        if start < end.min(size) {
            let range = ByteRange::between(start, end.min(size));
            file.reads.push(TimedRange { at: access.at, until, range });
        }
    };
    if access.ranges.is_empty() {
        push(0, size);
    }
    access.ranges.iter().for_each(|range| push(range.offset, range.end()));
}

/// Numbers the files that are used: by the access that named them first, in natural order where it named several.
fn number(uses: &mut [Option<(usize, FileUse)>], files: &[(&str, u64)]) {
    let mut used: Vec<(usize, usize)> = uses
        .iter()
        .enumerate()
        .filter_map(|(index, found)| found.as_ref().map(|(position, _)| (*position, index)))
        .collect();
    used.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| natural_cmp(files[a.1].0, files[b.1].0)));
    for (place, (_, index)) in used.into_iter().enumerate() {
        if let Some((_, file)) = &mut uses[index] {
            file.place = place;
        }
    }
}

/// What matches a glob of a profile.
pub(super) fn matcher(glob: &str) -> Result<GlobSet, GlobError> {
    crate::glob::matcher(glob, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_access_gives_the_place_and_patterns_match_in_natural_order() {
        let profile = Profile::parse(
            "test",
            br#"{"version": 1, "accesses": [
                {"at": 2, "kind": "read", "glob": "model-*.safetensors"},
                {"at": 1, "kind": "read", "glob": "*.safetensors", "ranges": [[0, 8]]},
                {"at": 0, "kind": "open", "path": "config.json"},
                {"at": 0, "kind": "missing", "path": "params.json"},
                {"at": 0, "kind": "read", "path": "gone.json"},
                {"at": 0, "kind": "read", "cache": "vllm", "path": "README.md"}
            ]}"#,
        )
        .unwrap();
        let files =
            [("README.md", 1), ("config.json", 5), ("model-10.safetensors", 6), ("model-2.safetensors", 20)];
        let found = resolve(&profile, &Tree::Model, &files);
        assert_eq!(found.absent, ["gone.json"]);
        let places: Vec<Option<usize>> =
            found.uses.iter().map(|found| found.as_ref().map(|file| file.place)).collect();
        assert_eq!(places, [None, Some(0), Some(2), Some(1)]);
        let reads: Vec<(u64, u64)> = found.uses[2]
            .iter()
            .flat_map(|file| &file.reads)
            .map(|r| (r.range.offset, r.range.length))
            .collect();
        assert_eq!(reads, [(0, 6), (0, 6)]);
        assert!(found.uses[1].as_ref().unwrap().reads.is_empty());
    }
}
