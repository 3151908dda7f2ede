//! Turns planned files into the entries of a layer: parents first, prioritised files before the landmark.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{ModelDirectory, PreparedCache};
use crate::{
    blob::Source,
    estargz::{LANDMARK_CONTENT, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK},
    layer::{self, Content, Data, Entry, EntryKind, Storage},
    plan::{PlannedFile, PlannedLayer},
    snapshot::{Expected, ExpectedDigest, SnapshotFile},
};

/// Mode of directories, and of files that are run.
const DIRECTORY_MODE: u32 = 0o755;
/// Mode of files: KServe's containers run as some user who must be able to read them, and nothing in a model
/// is run.
const FILE_MODE: u32 = 0o644;

/// A base layer of at most this many bytes is prefetched whole: its shell is the first thing that runs. What it
/// takes is not left for the model's files, so it is a quarter of [`crate::plan::PREFETCH_BYTES_MAX`].
const BASE_PREFETCH_MAX: u64 = 4 << 20;

/// The entries of a planned layer. `landmarks` is whether the layer's format has them.
pub(super) fn of_planned(
    layer: &PlannedLayer,
    files: &[SnapshotFile],
    directory: &ModelDirectory,
    modified: i64,
    landmarks: bool,
) -> Vec<Entry> {
    let mut entries = Collected { list: Vec::new(), directories: BTreeSet::new(), modified };
    let (first, rest) = layer.files.split_at(layer.prioritized);
    if landmarks && first.is_empty() {
        entries.list.push(landmark(NO_PREFETCH_LANDMARK, modified));
    }
    for planned in first {
        entries.file(directory, &files[planned.index], planned.storage, &planned.chunks);
    }
    if landmarks && !first.is_empty() {
        entries.list.push(landmark(PREFETCH_LANDMARK, modified));
    }
    for planned in rest {
        entries.file(directory, &files[planned.index], planned.storage, &planned.chunks);
    }
    entries.list
}

/// The entries of a compile cache's layer: its directories, those files that are prefetched, the landmark, the other
/// files, and second names of files that are the same, which have to come after the first.
///
/// Times of change are kept: ninja decides by them what to build again.
pub(super) fn of_cache(
    cache: &PreparedCache,
    directory: &ModelDirectory,
    modified: i64,
    landmarks: bool,
) -> Vec<Entry> {
    let tree = &cache.examined.tree;
    let root = format!("{}/{}", directory.relative(), cache.record.directory);
    let mut collected = Collected { list: Vec::new(), directories: BTreeSet::new(), modified };
    collected.parents(&format!("{root}/"));
    for known in tree.directories.iter().chain(&cache.created) {
        let path = format!("{root}/{}", known.path);
        collected.parents(&path);
        if collected.directories.insert(path.clone()) {
            let time = known.modified.unwrap_or(modified);
            collected.list.push(Entry::new(path, DIRECTORY_MODE, time, EntryKind::Directory));
        }
    }
    let mut links = Vec::new();
    let prioritized = cache.planned.prioritized;
    for (position, planned) in cache.planned.files.iter().enumerate() {
        if landmarks && position == prioritized {
            let name = if position == 0 { NO_PREFETCH_LANDMARK } else { PREFETCH_LANDMARK };
            collected.list.push(landmark(name, modified));
        }
        let file = &tree.files[planned.index];
        let path = format!("{root}/{}", file.path);
        let mode = if file.executable || is_library(&file.path) { DIRECTORY_MODE } else { FILE_MODE };
        let kind = match cache.same[planned.index] {
            Some(first) => EntryKind::Hardlink { target: format!("{root}/{}", tree.files[first].path) },
            None => EntryKind::Regular(content(cache, planned)),
        };
        let is_link = matches!(kind, EntryKind::Hardlink { .. });
        let entry = Entry::new(path, mode, file.stamp.modified_seconds, kind);
        if is_link { links.push(entry) } else { collected.list.push(entry) }
    }
    if landmarks && prioritized == cache.planned.files.len() {
        collected.list.push(landmark(PREFETCH_LANDMARK, modified));
    }
    collected.list.append(&mut links);
    collected.list
}

/// Whether a file is loaded as code: some loaders want it executable.
fn is_library(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "so")
}

/// A cache's file as it is, or as it is changed.
fn content(cache: &PreparedCache, planned: &PlannedFile) -> Content {
    let file = &cache.examined.tree.files[planned.index];
    match cache.relocated.binary_search_by_key(&planned.index, |relocated| relocated.index) {
        Ok(found) => Content::bytes(cache.relocated[found].content.clone(), planned.storage),
        Err(_) => Content {
            data: Data::Source {
                source: Arc::new(Source::Path { path: file.source.clone(), stamp: file.stamp }),
                offset: 0,
            },
            storage: planned.storage,
            chunks: planned.chunks.clone(),
            expected: Vec::new(),
        },
    }
}

/// The entries of a base layer with a landmark: after them when the layer is small, else before them.
pub(super) fn of_base(mut entries: Vec<Entry>, modified: i64, landmarks: bool) -> Vec<Entry> {
    if landmarks && base_prefetched(&entries) > 0 {
        entries.push(landmark(PREFETCH_LANDMARK, modified));
    } else if landmarks {
        entries.insert(0, landmark(NO_PREFETCH_LANDMARK, modified));
    }
    entries
}

/// Bytes of a base layer that are prefetched: all or none.
pub(super) fn base_prefetched(entries: &[Entry]) -> u64 {
    let size: u64 = entries.iter().map(Entry::size).sum();
    if size <= BASE_PREFETCH_MAX { size } else { 0 }
}

fn landmark(name: &str, modified: i64) -> Entry {
    let content = Content::bytes(vec![LANDMARK_CONTENT], Storage::Stored);
    Entry::new(name, FILE_MODE, modified, EntryKind::Regular(content))
}

struct Collected {
    list: Vec<Entry>,
    /// Directories that have an entry.
    directories: BTreeSet<String>,
    modified: i64,
}

impl Collected {
    /// Adds the directories above `path` that have no entry yet.
    fn parents(&mut self, path: &str) {
        for (slash, _) in path.match_indices('/') {
            let parent = &path[..slash];
            if self.directories.insert(parent.to_owned()) {
                self.list.push(Entry::new(parent, DIRECTORY_MODE, self.modified, EntryKind::Directory));
            }
        }
    }

    fn file(&mut self, directory: &ModelDirectory, file: &SnapshotFile, storage: Storage, chunks: &[u64]) {
        let path = format!("{}/{}", directory.relative(), file.path);
        self.parents(&path);
        let source = Source::Path { path: file.source.clone(), stamp: file.stamp };
        let content = Content {
            data: Data::Source { source: Arc::new(source), offset: 0 },
            storage,
            chunks: chunks.to_vec(),
            expected: file.expected.iter().map(expected).collect(),
        };
        self.list.push(Entry::new(path, FILE_MODE, self.modified, EntryKind::Regular(content)));
    }
}

fn expected(expected: &Expected) -> layer::Expected {
    let origin = expected.origin.to_string();
    match expected.digest {
        ExpectedDigest::Sha256(digest) => layer::Expected::Sha256 { digest, origin },
        ExpectedDigest::GitSha1(digest) => layer::Expected::GitSha1 { digest, origin },
    }
}
