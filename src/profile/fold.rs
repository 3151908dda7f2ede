//! Folding: many single reads become few accesses, each byte counted once, at the time of its first read.
//!
//! A run is a stretch of a file that was read without a pause: reads that touch each other in the file and lie
//! at most [`PAUSE`] apart. Each run becomes one access. Recordings, imports and merges all fold, so folding what
//! is folded changes nothing.

use std::collections::{BTreeMap, HashMap};

use super::{ACCESSES_MAX, Access, AccessKind, ByteRange, Seconds, Target, Tree, Unknown, ranges::RangeSet};

/// Reads that touch in the file and lie at most this far apart in time are one access: 0.1 s.
const PAUSE: Seconds = Seconds::from_micros(100_000);
/// The unread bytes between two runs that are joined first when there are too many runs.
const FIRST_TOLERANCE: u64 = 64 << 10;

/// Something that a start did with a file.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// When.
    pub at: Seconds,
    /// The tree.
    pub tree: &'a Tree,
    /// Path relative to the tree.
    pub path: &'a str,
    /// What.
    pub kind: EventKind,
}

/// What a start did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Opened the file.
    Open,
    /// Looked for the file, which does not exist.
    Missing,
    /// Read bytes of the file.
    Read(ByteRange),
}

/// What came out of folding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The accesses, sorted by time, then tree, path and kind.
    pub accesses: Vec<Access>,
    /// Unread bytes that the ranges of a file may cover, between two that were read: 0 unless there were too
    /// many runs.
    pub tolerance: u64,
    /// Events of further files that were dropped because there were too many files.
    pub dropped: u64,
}

/// Folds events, in any order, into accesses. Memory is bounded by [`ACCESSES_MAX`].
#[derive(Debug)]
pub struct Folder {
    trees: HashMap<Tree, HashMap<String, FileState>>,
    /// Accesses that name no single bytes: globs, and whole files.
    whole: BTreeMap<WholeKey, Access>,
    runs: usize,
    files: usize,
    limit: usize,
    tolerance: u64,
    dropped: u64,
}

type WholeKey = (Tree, Target, AccessKind, Vec<ByteRange>);

#[derive(Debug, Default)]
struct FileState {
    opened: Option<Noted>,
    missing: Option<Noted>,
    seen: RangeSet,
    runs: BTreeMap<u64, Run>,
}

/// An access without ranges.
#[derive(Debug, Clone)]
struct Noted {
    at: Seconds,
    notes: Notes,
}

/// What is carried along with an access.
#[derive(Debug, Clone, Default)]
struct Notes {
    comment: Option<String>,
    unknown: Unknown,
}

#[derive(Debug, Clone)]
struct Run {
    at: Seconds,
    until: Seconds,
    end: u64,
    notes: Notes,
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Folder {
    /// An empty folder.
    pub fn new() -> Self {
        Self::with_limit(ACCESSES_MAX / 2)
    }

    fn with_limit(limit: usize) -> Self {
        Self {
            trees: HashMap::new(),
            whole: BTreeMap::new(),
            runs: 0,
            files: 0,
            limit,
            tolerance: 0,
            dropped: 0,
        }
    }

    /// Adds what was seen.
    pub fn event(&mut self, event: &Event<'_>) {
        let notes = Notes::default();
        match event.kind {
            EventKind::Open => self.note(event.tree, event.path, AccessKind::Open, event.at, notes),
            EventKind::Missing => self.note(event.tree, event.path, AccessKind::Missing, event.at, notes),
            EventKind::Read(range) => self.read(event.tree, event.path, (event.at, event.at), range, &notes),
        }
    }

    /// Adds an access of a profile.
    pub fn access(&mut self, access: &Access) {
        let notes = Notes { comment: access.comment.clone(), unknown: access.unknown.clone() };
        match (&access.target, access.kind) {
            (Target::Path(path), AccessKind::Read) if !access.ranges.is_empty() => {
                let times = (access.at, access.until.unwrap_or(access.at));
                for range in &access.ranges {
                    self.read(&access.tree, path, times, *range, &notes);
                }
            }
            (Target::Path(path), kind @ (AccessKind::Open | AccessKind::Missing)) => {
                self.note(&access.tree, path, kind, access.at, notes);
            }
            _ => self.keep_whole(access),
        }
    }

    fn keep_whole(&mut self, access: &Access) {
        let key = (access.tree.clone(), access.target.clone(), access.kind, access.ranges.clone());
        let full = self.whole.len() == self.limit;
        match self.whole.get(&key) {
            // The earlier one stays, and with equal times the one that was added first.
            Some(kept) if kept.at <= access.at => {}
            None if full => self.dropped += 1,
            _ => {
                self.whole.insert(key, access.clone());
            }
        }
    }

    fn note(&mut self, tree: &Tree, path: &str, kind: AccessKind, at: Seconds, notes: Notes) {
        let Some(file) = self.file(tree, path) else { return };
        let noted = if kind == AccessKind::Open { &mut file.opened } else { &mut file.missing };
        if noted.as_ref().is_none_or(|noted| at < noted.at) {
            *noted = Some(Noted { at, notes });
        }
    }

    fn read(&mut self, tree: &Tree, path: &str, times: (Seconds, Seconds), range: ByteRange, notes: &Notes) {
        let tolerance = self.tolerance;
        let Some(file) = self.file(tree, path) else { return };
        let before = file.runs.len();
        for fresh in file.seen.insert(range) {
            let run = Run { at: times.0, until: times.1, end: fresh.end(), notes: notes.clone() };
            file.insert(fresh.offset, run, tolerance);
        }
        let after = file.runs.len();
        self.runs = (self.runs + after).saturating_sub(before);
        if self.runs > self.limit {
            self.coarsen();
        }
    }

    /// The state of a file; `None`, and counted, when there are too many.
    fn file(&mut self, tree: &Tree, path: &str) -> Option<&mut FileState> {
        if !self.trees.contains_key(tree) {
            self.trees.insert(tree.clone(), HashMap::new());
        }
        let files = self.trees.get_mut(tree)?;
        if !files.contains_key(path) {
            if self.files == self.limit {
                self.dropped += 1;
                return None;
            }
            self.files += 1;
            files.insert(path.to_owned(), FileState::default());
        }
        files.get_mut(path)
    }

    /// Joins runs over ever larger gaps until half of the limit is free.
    fn coarsen(&mut self) {
        while self.runs > self.limit / 2 {
            self.tolerance = (self.tolerance * 2).max(FIRST_TOLERANCE);
            let tolerance = self.tolerance;
            let files = self.trees.values_mut().flat_map(HashMap::values_mut);
            self.runs = files
                .map(|file| {
                    file.join_all(tolerance);
                    file.runs.len()
                })
                .sum();
            // Every file has one run left: there is nothing more to join.
            if self.tolerance > 1 << 60 {
                break;
            }
        }
    }

    /// The accesses.
    pub fn finish(self) -> Folded {
        let mut accesses: Vec<Access> = self.whole.into_values().collect();
        for (tree, files) in self.trees {
            for (path, mut file) in files {
                file.join_all(self.tolerance);
                let access = |at, until: Seconds, kind, ranges, notes: Notes| Access {
                    at,
                    until: (until > at).then_some(until),
                    kind,
                    tree: tree.clone(),
                    target: Target::Path(path.clone()),
                    ranges,
                    comment: notes.comment,
                    unknown: notes.unknown,
                };
                for (noted, kind) in [(file.opened, AccessKind::Open), (file.missing, AccessKind::Missing)] {
                    if let Some(Noted { at, notes }) = noted {
                        accesses.push(access(at, at, kind, Vec::new(), notes));
                    }
                }
                for (start, run) in file.runs {
                    let range = ByteRange::between(start, run.end);
                    accesses.push(access(run.at, run.until, AccessKind::Read, vec![range], run.notes));
                }
            }
        }
        accesses.sort_by(|a, b| {
            let key = |access: &Access| (access.at, access.kind);
            key(a)
                .cmp(&key(b))
                .then_with(|| a.tree.cmp(&b.tree))
                .then_with(|| a.target.cmp(&b.target))
                .then_with(|| a.ranges.cmp(&b.ranges))
        });
        Folded { accesses, tolerance: self.tolerance, dropped: self.dropped }
    }
}

impl FileState {
    /// Adds a run and joins it with its neighbours as long as they belong together.
    fn insert(&mut self, start: u64, run: Run, tolerance: u64) {
        let mut start = start;
        let mut run = run;
        loop {
            let before = self.runs.range(..start).next_back();
            if let Some((&from, left)) = before
                && joins(left, start, &run, tolerance)
            {
                if let Some(left) = self.runs.remove(&from) {
                    (start, run) = (from, left.joined(&run));
                }
                continue;
            }
            let after = self.runs.range(start..).next();
            if let Some((&from, right)) = after
                && joins(&run, from, right, tolerance)
            {
                if let Some(right) = self.runs.remove(&from) {
                    run = run.joined(&right);
                }
                continue;
            }
            break;
        }
        self.runs.insert(start, run);
    }

    fn join_all(&mut self, tolerance: u64) {
        for (start, run) in std::mem::take(&mut self.runs) {
            self.insert(start, run, tolerance);
        }
    }
}

/// Whether `right`, which starts at `start`, goes on where `left` ends.
fn joins(left: &Run, start: u64, right: &Run, tolerance: u64) -> bool {
    // Notes tell apart what somebody wrote apart.
    let same_notes = left.notes.comment == right.notes.comment && left.notes.unknown == right.notes.unknown;
    let near = if tolerance > 0 {
        start.saturating_sub(left.end) <= tolerance
    } else {
        left.end == start && left.at <= right.until.plus(PAUSE) && right.at <= left.until.plus(PAUSE)
    };
    same_notes && near
}

impl Run {
    fn joined(self, right: &Self) -> Self {
        Self {
            at: self.at.min(right.at),
            until: self.until.max(right.until),
            end: self.end.max(right.end),
            notes: self.notes,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(folder: &mut Folder, millis: u64, path: &str, offset: u64, length: u64) {
        folder.event(&Event {
            at: Seconds::from_micros(millis * 1000),
            tree: &Tree::Model,
            path,
            kind: EventKind::Read(ByteRange { offset, length }),
        });
    }

    fn text(result: &Folded) -> Vec<String> {
        result
            .accesses
            .iter()
            .map(|access| {
                let ranges: Vec<String> =
                    access.ranges.iter().map(|range| format!("{}+{}", range.offset, range.length)).collect();
                let until = access.until.unwrap_or(access.at);
                format!(
                    "{}..{} {} {} {}",
                    access.at,
                    until,
                    access.kind.name(),
                    access.target,
                    ranges.join(" ")
                )
            })
            .collect()
    }

    #[test]
    fn runs_are_joined_and_repeats_are_not_counted() {
        let mut folder = Folder::new();
        read(&mut folder, 0, "a", 0, 100);
        read(&mut folder, 50, "a", 100, 100);
        read(&mut folder, 60, "a", 0, 250);
        read(&mut folder, 1000, "a", 250, 50);
        read(&mut folder, 1010, "a", 400, 50);
        read(&mut folder, 70, "b", 0, 8);
        assert_eq!(
            text(&folder.finish()),
            [
                "0.000..0.060 read a 0+250",
                "0.070..0.070 read b 0+8",
                "1.000..1.000 read a 250+50",
                "1.010..1.010 read a 400+50",
            ]
        );
    }

    #[test]
    fn too_many_runs_become_coarse_and_say_so() {
        let mut folder = Folder::with_limit(100);
        for block in 0..10_000 {
            read(&mut folder, block, "a", block * 8192, 100);
        }
        let result = folder.finish();
        assert!(result.accesses.len() <= 100, "{}", result.accesses.len());
        assert!(result.tolerance > 0);
        let covered: u64 = result.accesses.iter().flat_map(|access| &access.ranges).map(|r| r.length).sum();
        assert!(covered >= 1_000_000);

        let mut folder = Folder::with_limit(100);
        for file in 0..1000 {
            read(&mut folder, file, &file.to_string(), 0, 1);
        }
        let result = folder.finish();
        assert_eq!((result.accesses.len(), result.dropped), (100, 900));
    }

    proptest! {
        #[test]
        fn ranges_cover_exactly_what_was_read_and_folding_again_changes_nothing(
            reads in prop::collection::vec((0_u64..400, 0_u64..2, 0_u64..60, 1_u64..20), 0..60),
        ) {
            let mut folder = Folder::new();
            let mut bytes = std::collections::BTreeSet::new();
            for (millis, file, offset, length) in reads {
                read(&mut folder, millis, &file.to_string(), offset, length);
                bytes.extend((offset..offset + length).map(|byte| (file.to_string(), byte)));
            }
            let result = folder.finish();
            let mut covered = Vec::new();
            for access in &result.accesses {
                for range in &access.ranges {
                    covered.extend((range.offset..range.end()).map(|byte| (access.target.to_string(), byte)));
                }
            }
            covered.sort();
            prop_assert_eq!(covered, bytes.into_iter().collect::<Vec<_>>());
            let mut again = Folder::new();
            for access in &result.accesses {
                again.access(access);
            }
            prop_assert_eq!(again.finish(), result);
        }
    }
}
