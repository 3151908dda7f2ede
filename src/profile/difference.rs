//! What two profiles say differently: which files, in what order, which bytes, when. Must not know how it is shown.

use std::collections::HashMap;

use super::{FileSummary, Profile, Target, Tree, summary};

/// What differs between two profiles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Files that only the left profile opens or reads.
    pub only_left: Vec<FileSummary>,
    /// Files that only the right profile opens or reads.
    pub only_right: Vec<FileSummary>,
    /// Files of both, in the order of the left one, that are not alike.
    pub changed: Vec<FileDifference>,
    /// Files of both that are alike.
    pub alike: usize,
    /// What only the left profile looked for in vain.
    pub missing_left: Vec<FileSummary>,
    /// What only the right profile looked for in vain.
    pub missing_right: Vec<FileSummary>,
}

/// A file of both profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDifference {
    /// What the left profile says.
    pub left: FileSummary,
    /// What the right profile says.
    pub right: FileSummary,
    /// Whether its place among the files of both is another.
    pub moved: Option<Moved>,
    /// Whether other bytes are read.
    pub other_bytes: bool,
}

/// Another place in the order. Of files that moved past each other the fewest count as moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The right profile has it earlier.
    Earlier,
    /// The right profile has it later.
    Later,
}

impl FileDifference {
    /// How much later, or earlier, the first access of the right profile is, in seconds.
    pub fn shift(&self) -> f64 {
        self.right.first.get() - self.left.first.get()
    }

    fn other_times(&self) -> bool {
        (self.left.first, self.left.last) != (self.right.first, self.right.last)
    }
}

impl Difference {
    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.only_left.is_empty()
            && self.only_right.is_empty()
            && self.changed.is_empty()
            && self.missing_left.is_empty()
            && self.missing_right.is_empty()
    }
}

/// Compares two profiles. Without `times` only which files are read, in what order, and which bytes of them counts.
pub fn difference(left: &Profile, right: &Profile, times: bool) -> Difference {
    let (left, right) = (summary(left, &|_| None), summary(right, &|_| None));
    let (common, only_left, only_right) = matched(left.files, right.files);
    let right_places: Vec<usize> = common.iter().map(|(_, right)| right.place).collect();
    let steady = longest_ascending(&right_places);
    let mut difference = Difference { only_left, only_right, ..Difference::default() };
    // Where a file would be if nothing had moved: after the steady ones before it.
    let mut rank: Vec<usize> = (0..common.len()).collect();
    rank.sort_by_key(|index| right_places[*index]);
    let mut right_rank = vec![0; common.len()];
    rank.iter().enumerate().for_each(|(rank, index)| right_rank[*index] = rank);
    for (index, (left, right)) in common.into_iter().enumerate() {
        let moved =
            (!steady[index]).then(|| if right_rank[index] < index { Moved::Earlier } else { Moved::Later });
        let other_bytes = left.reads() != right.reads();
        let file = FileDifference { left, right, moved, other_bytes };
        if file.moved.is_some() || other_bytes || times && file.other_times() {
            difference.changed.push(file);
        } else {
            difference.alike += 1;
        }
    }
    (_, difference.missing_left, difference.missing_right) = matched(left.missing, right.missing);
    difference
}

type Matched = (Vec<(FileSummary, FileSummary)>, Vec<FileSummary>, Vec<FileSummary>);

/// The files of both, of the left and of the right list.
fn matched(left: Vec<FileSummary>, right: Vec<FileSummary>) -> Matched {
    let key = |file: &FileSummary| -> (Tree, Target) { (file.tree.clone(), file.target.clone()) };
    let mut by_name: HashMap<(Tree, Target), FileSummary> =
        right.into_iter().map(|file| (key(&file), file)).collect();
    let (mut common, mut only) = (Vec::new(), Vec::new());
    for file in left {
        match by_name.remove(&key(&file)) {
            Some(other) => common.push((file, other)),
            None => only.push(file),
        }
    }
    let mut rest: Vec<FileSummary> = by_name.into_values().collect();
    rest.sort_by_key(|file| file.place);
    (common, only, rest)
}

/// Which of `numbers`, no two of them equal, belong to a longest ascending sequence of them.
fn longest_ascending(numbers: &[usize]) -> Vec<bool> {
    // The ends of sequences by length: of those of one length the one with the smallest end.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(numbers.len());
    for (index, number) in numbers.iter().enumerate() {
        let length = ends.partition_point(|end| numbers[*end] < *number);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        if length == ends.len() {
            ends.push(index);
        } else {
            ends[length] = index;
        }
    }
    let mut member = vec![false; numbers.len()];
    let mut next = ends.last().copied();
    while let Some(index) = next {
        member[index] = true;
        next = before[index];
    }
    member
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(files: &[(&str, u32, u32)]) -> Profile {
        let accesses: Vec<String> = files
            .iter()
            .map(|(path, at, bytes)| match bytes {
                0 => format!(r#"{{"at": {at}, "kind": "missing", "path": "{path}"}}"#),
                _ => format!(r#"{{"at": {at}, "kind": "read", "path": "{path}", "ranges": [[0, {bytes}]]}}"#),
            })
            .collect();
        let text = format!(r#"{{"version": 1, "accesses": [{}]}}"#, accesses.join(","));
        Profile::parse("p", text.as_bytes()).unwrap()
    }

    #[test]
    fn what_differs_is_told() {
        let left =
            profile(&[("a", 0, 1), ("b", 1, 1), ("c", 2, 1), ("d", 3, 1), ("gone", 4, 1), ("x", 5, 0)]);
        let right =
            profile(&[("d", 0, 1), ("a", 1, 1), ("b", 2, 2), ("c", 3, 1), ("new", 4, 1), ("y", 5, 0)]);
        let found = difference(&left, &right, false);
        let names = |files: &[FileSummary]| files.iter().map(FileSummary::name).collect::<Vec<_>>();
        assert_eq!(names(&found.only_left), ["gone"]);
        assert_eq!(names(&found.only_right), ["new"]);
        assert_eq!(names(&found.missing_left), ["x"]);
        assert_eq!(names(&found.missing_right), ["y"]);
        let changed: Vec<_> =
            found.changed.iter().map(|file| (file.left.name(), file.moved, file.other_bytes)).collect();
        assert_eq!(changed, [("b".to_owned(), None, true), ("d".to_owned(), Some(Moved::Earlier), false)]);
        assert_eq!(found.alike, 2);
        assert_eq!(difference(&left, &right, true).changed.len(), 4);
        assert!(difference(&left, &left, true).is_empty());
    }
}
