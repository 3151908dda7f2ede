//! Folding: many single reads become few accesses, each byte counted once, at the time of its first read.
//!
//! A run is a stretch of a file that was read without a pause: reads that touch each other in the file and lie
//! at most [`PAUSE`] apart. Each run becomes one access. Recordings and imports fold what they see, in the order of
//! time. Profiles are not folded again: joining runs of several recordings would make the outcome depend on
//! their order, so `merge.rs` has a rule of its own. Must not know where events come from.

use std::collections::{BTreeMap, HashMap};

use super::{
    ACCESSES_MAX, Access, AccessKind, ByteRange, Seconds, Target, Tree, Unknown, access::sort_accesses,
    format::ACCESSES_TEXT_MAX, ranges::RangeSet,
};

/// Reads that touch in the file and lie at most this far apart in time are one access: 0.1 s.
const PAUSE: Seconds = Seconds::from_micros(100_000);
/// The unread bytes between two runs that are joined first when there are too many runs.
const FIRST_TOLERANCE: u64 = 64 << 10;
/// Bytes that an access takes in a profile beside its path, at most.
const ACCESS_TEXT: usize = 160;

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
    /// The accesses, sorted by time.
    pub accesses: Vec<Access>,
    /// Unread bytes that the ranges of a file may cover, between two that were read: 0 unless there were too
    /// many runs.
    pub tolerance: u64,
    /// Events that were dropped because there were too many files.
    pub dropped: u64,
}

/// Folds events into accesses. Of events that read the same bytes the one that is added first counts. Memory is
/// bounded: what comes out is never more than a profile may hold.
#[derive(Debug)]
pub struct Folder {
    trees: HashMap<Tree, HashMap<String, FileState>>,
    /// Accesses without ranges.
    notes: Held,
    runs: Held,
    /// One run of each file that has any.
    read_files: Held,
    limit: Held,
    tolerance: u64,
    dropped: u64,
}

/// Accesses, and what they take in a profile.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    count: usize,
    text: usize,
}

impl Held {
    fn part(self, of: usize) -> Self {
        Self { count: self.count / of, text: self.text / of }
    }

    fn fits(self, more: usize, text: usize, limit: Self) -> bool {
        self.count + more <= limit.count && self.text + text <= limit.text
    }
}

#[derive(Debug, Default)]
struct FileState {
    opened: Option<Seconds>,
    missing: Option<Seconds>,
    seen: RangeSet,
    runs: BTreeMap<u64, Run>,
    /// What an access takes in a profile.
    text: usize,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    at: Seconds,
    until: Seconds,
    end: u64,
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Folder {
    /// An empty folder.
    pub fn new() -> Self {
        Self::with_limit(ACCESSES_MAX / 2, ACCESSES_TEXT_MAX / 2)
    }

    /// `count` accesses of `text` bytes without ranges, and as many with.
    fn with_limit(count: usize, text: usize) -> Self {
        Self {
            trees: HashMap::new(),
            notes: Held::default(),
            runs: Held::default(),
            read_files: Held::default(),
            limit: Held { count, text },
            tolerance: 0,
            dropped: 0,
        }
    }

    /// Adds what was seen.
    pub fn event(&mut self, event: &Event<'_>) {
        match event.kind {
            EventKind::Open => self.note(event, AccessKind::Open),
            EventKind::Missing => self.note(event, AccessKind::Missing),
            EventKind::Read(range) => self.read(event, range),
        }
    }

    fn note(&mut self, event: &Event<'_>, kind: AccessKind) {
        let (held, limit) = (self.notes, self.limit);
        let file = match find(&mut self.trees, event) {
            Some(file) => file,
            None if held.fits(1, access_text(event), limit) => add(&mut self.trees, event),
            None => {
                self.dropped += 1;
                return;
            }
        };
        let noted = if kind == AccessKind::Open { &mut file.opened } else { &mut file.missing };
        match noted {
            Some(noted) => *noted = event.at.min(*noted),
            None if held.fits(1, file.text, limit) => {
                *noted = Some(event.at);
                self.notes.count += 1;
                self.notes.text += file.text;
            }
            None => self.dropped += 1,
        }
    }

    fn read(&mut self, event: &Event<'_>, range: ByteRange) {
        let known = find(&mut self.trees, event).is_some_and(|file| !file.runs.is_empty());
        if !known {
            // Half of the room is for a run of each file, so that joining always frees some.
            let text = access_text(event);
            if !self.read_files.fits(1, text, self.limit.part(2)) {
                self.dropped += 1;
                return;
            }
            self.read_files.count += 1;
            self.read_files.text += text;
        }
        let file = add(&mut self.trees, event);
        let (before, text) = (file.runs.len(), file.text);
        for fresh in file.seen.insert(range) {
            let run = Run { at: event.at, until: event.at, end: fresh.end() };
            let joined = file.insert(fresh.offset, run, self.tolerance);
            if self.tolerance > 0 {
                // What lies between joined runs counts as read; and the set must not outgrow the runs.
                file.seen.insert(joined);
            }
        }
        let after = file.runs.len();
        self.runs.count = (self.runs.count + after).saturating_sub(before);
        self.runs.text = (self.runs.text + after * text).saturating_sub(before * text);
        if !self.runs.fits(0, 0, self.limit) {
            self.coarsen();
        }
    }

    /// Joins runs over ever larger gaps until a quarter of the room is free.
    fn coarsen(&mut self) {
        let free = self.limit.part(4);
        let enough = Held { count: self.limit.count - free.count, text: self.limit.text - free.text };
        // With one run left in each file it fits.
        while !self.runs.fits(0, 0, enough) && self.runs.count > self.read_files.count {
            self.tolerance = self.tolerance.saturating_mul(2).max(FIRST_TOLERANCE);
            self.runs = Held::default();
            for file in self.trees.values_mut().flat_map(HashMap::values_mut) {
                file.join_all(self.tolerance);
                file.seen =
                    file.runs.iter().map(|(start, run)| ByteRange::between(*start, run.end)).collect();
                self.runs.count += file.runs.len();
                self.runs.text += file.runs.len() * file.text;
            }
        }
    }

    /// The accesses.
    pub fn finish(self) -> Folded {
        let mut accesses: Vec<Access> = Vec::with_capacity(self.notes.count + self.runs.count);
        for (tree, files) in self.trees {
            for (path, mut file) in files {
                file.join_all(self.tolerance);
                let access = |at, until: Seconds, kind, ranges| Access {
                    at,
                    until: (until > at).then_some(until),
                    kind,
                    tree: tree.clone(),
                    target: Target::Path(path.clone()),
                    ranges,
                    comment: None,
                    unknown: Unknown::new(),
                };
                for (noted, kind) in [(file.opened, AccessKind::Open), (file.missing, AccessKind::Missing)] {
                    accesses.extend(noted.map(|at| access(at, at, kind, Vec::new())));
                }
                for (start, run) in file.runs {
                    let range = ByteRange::between(start, run.end);
                    accesses.push(access(run.at, run.until, AccessKind::Read, vec![range]));
                }
            }
        }
        sort_accesses(&mut accesses);
        Folded { accesses, tolerance: self.tolerance, dropped: self.dropped }
    }
}

type Trees = HashMap<Tree, HashMap<String, FileState>>;

fn find<'a>(trees: &'a mut Trees, event: &Event<'_>) -> Option<&'a mut FileState> {
    trees.get_mut(event.tree)?.get_mut(event.path)
}

/// The state of a file, a new one if there is none.
fn add<'a>(trees: &'a mut Trees, event: &Event<'_>) -> &'a mut FileState {
    let new = || FileState { text: access_text(event), ..FileState::default() };
    trees.entry(event.tree.clone()).or_default().entry(event.path.to_owned()).or_insert_with(new)
}

/// What an access takes in a profile, at most.
fn access_text(event: &Event<'_>) -> usize {
    let cache = if let Tree::Cache(name) = event.tree { json_length(name) } else { 0 };
    json_length(event.path) + cache + ACCESS_TEXT
}

/// Length of a text in JSON, at most.
fn json_length(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            0..=0x1f => 6,
            b'"' | b'\\' => 2,
            _ => 1,
        })
        .sum()
}

impl FileState {
    /// Adds a run and joins it with its neighbours as long as they belong together. Returns what they are now.
    fn insert(&mut self, start: u64, run: Run, tolerance: u64) -> ByteRange {
        let mut start = start;
        let mut run = run;
        loop {
            let before = self.runs.range(..start).next_back();
            if let Some((&from, left)) = before
                && joins(*left, start, run, tolerance)
            {
                if let Some(left) = self.runs.remove(&from) {
                    (start, run) = (from, left.joined(run));
                }
                continue;
            }
            let after = self.runs.range(start..).next();
            if let Some((&from, right)) = after
                && joins(run, from, *right, tolerance)
            {
                if let Some(right) = self.runs.remove(&from) {
                    run = run.joined(right);
                }
                continue;
            }
            break;
        }
        self.runs.insert(start, run);
        ByteRange::between(start, run.end)
    }

    fn join_all(&mut self, tolerance: u64) {
        for (start, run) in std::mem::take(&mut self.runs) {
            self.insert(start, run, tolerance);
        }
    }
}

/// Whether `right`, which starts at `start`, goes on where `left` ends.
fn joins(left: Run, start: u64, right: Run, tolerance: u64) -> bool {
    if tolerance > 0 {
        start.saturating_sub(left.end) <= tolerance
    } else {
        left.end == start && left.at <= right.until.plus(PAUSE) && right.at <= left.until.plus(PAUSE)
    }
}

impl Run {
    fn joined(self, right: Self) -> Self {
        Self { at: self.at.min(right.at), until: self.until.max(right.until), end: self.end.max(right.end) }
    }
}

#[cfg(test)]
mod tests;
