//! Merging profiles. Of each file, and of each byte of it, the earliest access of all profiles counts; that is
//! all. So the outcome depends neither on the order of the profiles nor on how they are grouped, merging a profile
//! with itself adds nothing, and an order of files that all profiles agree on stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::{
    ACCESSES_MAX, Access, AccessKind, BYTES_MAX, ByteRange, Profile, ProfileError, Recording, Seconds,
    Target, Tree, Unknown,
    access::sort_accesses,
    format::{RANGES_MAX, RECORDINGS_MAX},
};

/// Single accesses and stretches that are held; many stretches may become one access in the end.
const MARKS_MAX: usize = ACCESSES_MAX + RANGES_MAX;
/// Ranges of one access, so that its line stays within what is read.
const RANGES_OF_ACCESS: usize = 10_000;

/// Profiles that are being merged. Memory is bounded by what a profile may hold.
#[derive(Debug, Default)]
pub struct Merge {
    comment: Option<String>,
    evidence: BTreeSet<String>,
    /// By their JSON.
    recordings: BTreeMap<String, Recording>,
    targets: BTreeMap<(Tree, Target), Earliest>,
    unknown: Unknown,
    marks: usize,
    text: usize,
}

/// The earliest accesses of a target.
#[derive(Debug, Default)]
struct Earliest {
    opened: Option<Mark>,
    missing: Option<Mark>,
    whole: Option<Mark>,
    /// End and mark by start; they do not overlap.
    bytes: BTreeMap<u64, (u64, Mark)>,
}

/// What is earlier is smaller. With equal times what is written decides, so that the choice is always the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    at: Seconds,
    until: Seconds,
    notes: Rc<(Option<String>, Unknown)>,
}

/// One profile of several. One alone stays as it is written.
///
/// # Errors
/// [`ProfileError::TooLarge`]: all together are more than a profile may hold.
pub fn merge(mut profiles: Vec<Profile>) -> Result<Profile, ProfileError> {
    match profiles.pop() {
        None => return Ok(Profile::default()),
        Some(only) if profiles.is_empty() => return Ok(only),
        Some(last) => profiles.push(last),
    }
    let mut merge = Merge::new();
    for profile in profiles {
        merge.add("a profile", profile)?;
    }
    merge.finish()
}

impl Merge {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a profile. `name` is what an error calls it.
    ///
    /// # Errors
    /// [`ProfileError::TooLarge`]: all together are more than a profile may hold.
    pub fn add(&mut self, name: &str, profile: Profile) -> Result<(), ProfileError> {
        let too_large = |reason: String| ProfileError::TooLarge {
            name: format!("{name}, merged with what came before it,"),
            reason,
        };
        self.comment = [self.comment.take(), profile.comment].into_iter().flatten().min();
        self.evidence.extend(profile.evidence);
        for recording in profile.recordings {
            // It was read from JSON, so it can be written.
            self.recordings.insert(serde_json::to_string(&recording).unwrap_or_default(), recording);
        }
        if self.evidence.len().max(self.recordings.len()) > RECORDINGS_MAX {
            return Err(too_large(format!("there are more than {RECORDINGS_MAX} recordings")));
        }
        for (name, value) in profile.unknown {
            let least = match self.unknown.remove(&name) {
                Some(kept) => kept.min(value),
                None => value,
            };
            self.unknown.insert(name, least);
        }
        for access in profile.accesses {
            self.access(access);
            if self.marks > MARKS_MAX || self.text > BYTES_MAX {
                return Err(too_large(format!(
                    "there are more than {MARKS_MAX} stretches, or {BYTES_MAX} bytes of names"
                )));
            }
        }
        Ok(())
    }

    fn access(&mut self, access: Access) {
        let mark = Mark {
            at: access.at,
            until: access.until.unwrap_or(access.at),
            notes: Rc::new((access.comment, access.unknown)),
        };
        let length = access.target.text().len() + access.tree.to_string().len();
        let targets = self.targets.len();
        let earliest = self.targets.entry((access.tree, access.target)).or_default();
        let before = earliest.marks();
        match access.kind {
            AccessKind::Open => earlier(&mut earliest.opened, mark),
            AccessKind::Missing => earlier(&mut earliest.missing, mark),
            AccessKind::Read if access.ranges.is_empty() => earlier(&mut earliest.whole, mark),
            AccessKind::Read => access.ranges.iter().for_each(|range| earliest.read(*range, &mark)),
        }
        self.marks = (self.marks + earliest.marks()).saturating_sub(before);
        self.text += if self.targets.len() > targets { length } else { 0 };
    }

    /// The merged profile.
    ///
    /// # Errors
    /// [`ProfileError::TooLarge`]: it is more than a profile may hold.
    pub fn finish(self) -> Result<Profile, ProfileError> {
        let mut accesses = Vec::new();
        for ((tree, target), earliest) in self.targets {
            let access = |mark: &Mark, kind, ranges: &[ByteRange]| Access {
                at: mark.at,
                until: (mark.until > mark.at).then_some(mark.until),
                kind,
                tree: tree.clone(),
                target: target.clone(),
                ranges: ranges.to_vec(),
                comment: mark.notes.0.clone(),
                unknown: mark.notes.1.clone(),
            };
            for (mark, kind) in [
                (&earliest.opened, AccessKind::Open),
                (&earliest.missing, AccessKind::Missing),
                (&earliest.whole, AccessKind::Read),
            ] {
                accesses.extend(mark.iter().map(|mark| access(mark, kind, &[])));
            }
            for (mark, ranges) in earliest.by_mark() {
                accesses.extend(ranges.chunks(RANGES_OF_ACCESS).map(|r| access(&mark, AccessKind::Read, r)));
            }
        }
        let ranges: usize = accesses.iter().map(|access| access.ranges.len()).sum();
        if accesses.len() > ACCESSES_MAX || ranges > RANGES_MAX {
            return Err(ProfileError::TooLarge {
                name: "the merged profile".to_owned(),
                reason: format!("it would have more than {ACCESSES_MAX} accesses or {RANGES_MAX} ranges"),
            });
        }
        sort_accesses(&mut accesses);
        Ok(Profile {
            comment: self.comment,
            evidence: self.evidence.into_iter().collect(),
            recordings: self.recordings.into_values().collect(),
            accesses,
            unknown: self.unknown,
        })
    }
}

fn earlier(kept: &mut Option<Mark>, mark: Mark) {
    if kept.as_ref().is_none_or(|kept| mark < *kept) {
        *kept = Some(mark);
    }
}

impl Earliest {
    fn marks(&self) -> usize {
        [&self.opened, &self.missing, &self.whole].into_iter().flatten().count() + self.bytes.len()
    }

    /// Gives `mark` to those bytes of `range` that have none or a later one.
    fn read(&mut self, range: ByteRange, mark: &Mark) {
        let (start, end) = (range.offset, range.end());
        let first =
            self.bytes.range(..start).next_back().filter(|(_, (to, _))| *to > start).map(|(at, _)| *at);
        let overlapping: Vec<u64> =
            self.bytes.range(first.unwrap_or(start)..end).map(|(at, _)| *at).collect();
        let mut pieces: Vec<(u64, u64, Mark)> = Vec::new();
        let mut push = |from: u64, to: u64, mark: &Mark| match pieces.last_mut() {
            _ if from >= to => {}
            Some((_, last, same)) if *last == from && same == mark => *last = to,
            _ => pieces.push((from, to, mark.clone())),
        };
        let mut position = start;
        for from in overlapping {
            let Some((to, kept)) = self.bytes.remove(&from) else { continue };
            push(from, start, &kept);
            push(position, from.max(start), mark);
            push(from.max(start), to.min(end), mark.min(&kept));
            push(end, to, &kept);
            position = to.min(end);
        }
        // What follows the last piece; nothing, where that reached over the end.
        if position < end {
            push(position, end, mark);
        }
        self.bytes.extend(pieces.into_iter().map(|(from, to, mark)| (from, (to, mark))));
    }

    /// The ranges of each mark, as few as there can be.
    fn by_mark(self) -> BTreeMap<Mark, Vec<ByteRange>> {
        let mut marks: BTreeMap<Mark, Vec<ByteRange>> = BTreeMap::new();
        for (start, (end, mark)) in self.bytes {
            let ranges = marks.entry(mark).or_default();
            match ranges.last_mut() {
                Some(last) if last.end() == start => last.length += end - start,
                _ => ranges.push(ByteRange::between(start, end)),
            }
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::{Engine, Source, UnknownValue};

    fn merged(profiles: &[&Profile]) -> Profile {
        let mut merge = Merge::new();
        for profile in profiles {
            merge.add("p", (*profile).clone()).unwrap();
        }
        merge.finish().unwrap()
    }

    fn access() -> impl Strategy<Value = Access> {
        (
            (0_u64..12, 0_u64..3),
            0..3_usize,
            prop::option::weighted(0.2, "[ab]"),
            "[ab]\\*?",
            prop::collection::vec((0_u64..30, 1_u64..12), 0..4),
            prop::option::weighted(0.2, "[ab]"),
            prop::option::weighted(0.2, 0..2_usize),
        )
            .prop_map(|((at, pause), kind, cache, name, ranges, comment, unknown)| {
                let kind = [AccessKind::Open, AccessKind::Missing, AccessKind::Read][kind];
                let ranges = ranges.into_iter().map(|(offset, length)| ByteRange { offset, length });
                let value = |n: usize| UnknownValue(serde_json::value::to_raw_value(&n).unwrap());
                Access {
                    at: Seconds::from_micros(at),
                    until: (pause > 0).then(|| Seconds::from_micros(at + pause)),
                    kind,
                    tree: cache.map_or(Tree::Model, Tree::Cache),
                    target: if name.ends_with('*') { Target::Glob(name) } else { Target::Path(name) },
                    ranges: if kind == AccessKind::Read { ranges.collect() } else { Vec::new() },
                    comment,
                    unknown: unknown.map(|n| ("u".to_owned(), value(n))).into_iter().collect(),
                }
            })
    }

    fn profile() -> impl Strategy<Value = Profile> {
        (
            prop::option::of("[ab]"),
            prop::collection::vec("[ab]", 0..2),
            prop::collection::vec("[ab]", 0..2),
            prop::collection::vec(access(), 0..12),
            prop::option::of(0..2_usize),
        )
            .prop_map(|(comment, evidence, engines, mut accesses, unknown)| {
                accesses.sort_by_key(|access| access.at);
                let engine = |name| Some(Engine { name, ..Engine::default() });
                let value = |n: usize| UnknownValue(serde_json::value::to_raw_value(&n).unwrap());
                Profile {
                    comment,
                    evidence,
                    recordings: engines
                        .into_iter()
                        .map(|name| Recording {
                            source: Some(Source::Record),
                            engine: engine(name),
                            ..Recording::default()
                        })
                        .collect(),
                    accesses,
                    unknown: unknown.map(|n| ("later".to_owned(), value(n))).into_iter().collect(),
                }
            })
    }

    /// The earliest read of each byte.
    fn bytes(profiles: &[&Profile]) -> BTreeMap<(Tree, Target, u64), Seconds> {
        let mut bytes = BTreeMap::new();
        for access in profiles.iter().flat_map(|profile| &profile.accesses) {
            for byte in access.ranges.iter().flat_map(|range| range.offset..range.end()) {
                let at = bytes.entry((access.tree.clone(), access.target.clone(), byte)).or_insert(access.at);
                *at = access.at.min(*at);
            }
        }
        bytes
    }

    fn first_accesses(profile: &Profile) -> BTreeMap<(Tree, Target), Seconds> {
        let mut first = BTreeMap::new();
        for access in profile.accesses.iter().filter(|access| access.kind != AccessKind::Missing) {
            first.entry((access.tree.clone(), access.target.clone())).or_insert(access.at);
        }
        first
    }

    proptest! {
        #[test]
        fn laws_of_merging(a in profile(), b in profile(), c in profile()) {
            let (ab, bc) = (merged(&[&a, &b]), merged(&[&b, &c]));
            prop_assert_eq!(&ab, &merged(&[&b, &a]), "commutative");
            prop_assert_eq!(merged(&[&ab, &c]), merged(&[&a, &bc]), "associative");
            prop_assert_eq!(&merged(&[&ab, &ab]), &ab, "idempotent");
            prop_assert_eq!(&merged(&[&ab, &a]), &ab, "absorbs");
            prop_assert_eq!(&merged(&[&a, &a]), &merged(&[&a]), "idempotent from the start");
            prop_assert_eq!(bytes(&[&ab]), bytes(&[&a, &b]));
            prop_assert_eq!(&Profile::parse("p", ab.to_json().as_bytes()).unwrap(), &ab, "can be read again");
            // Nothing is read twice.
            let count: u64 = ab.accesses.iter().flat_map(|access| &access.ranges).map(|range| range.length).sum();
            prop_assert_eq!(count, bytes(&[&ab]).len() as u64);
        }

        #[test]
        fn an_order_that_all_agree_on_stays(a in profile(), b in profile()) {
            let (first_a, first_b) = (first_accesses(&a), first_accesses(&b));
            let first = first_accesses(&merged(&[&a, &b]));
            for x in first_a.keys().filter(|x| first_b.contains_key(x)) {
                for y in first_a.keys().filter(|y| first_b.contains_key(y)) {
                    if first_a[x] < first_a[y] && first_b[x] < first_b[y] {
                        prop_assert!(first[x] < first[y]);
                    }
                }
            }
        }

        /// Two runs of one program, the second slower or faster by up to a tenth and a little uneven.
        #[test]
        fn jitter_does_not_change_the_order(
            steps in prop::collection::vec((1_000_u64..100_000, 0_u64..900), 1..30),
            speed in 90_u64..110,
        ) {
            let run = |jitter: bool| {
                let mut at = 0;
                let accesses = steps.iter().enumerate().map(|(index, (step, uneven))| {
                    at += if jitter { step * speed / 100 + uneven } else { *step };
                    Access {
                        at: Seconds::from_micros(at),
                        until: None,
                        kind: AccessKind::Read,
                        tree: Tree::Model,
                        target: Target::Path(format!("f{}", (index * 7919) % 1000)),
                        ranges: vec![ByteRange { offset: 0, length: 9 }],
                        comment: None,
                        unknown: Unknown::new(),
                    }
                });
                Profile { accesses: accesses.collect(), ..Profile::default() }
            };
            let (one, two) = (run(false), run(true));
            let order = |profile: &Profile| -> Vec<String> {
                profile.accesses.iter().map(|access| access.target.to_string()).collect()
            };
            prop_assert_eq!(order(&merged(&[&one, &two])), order(&one));
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let many = |name: &str| Profile {
            accesses: (0..=ACCESSES_MAX / 2)
                .map(|file| Access {
                    at: Seconds::ZERO,
                    until: None,
                    kind: AccessKind::Open,
                    tree: Tree::Model,
                    target: Target::Path(format!("{name}{file}")),
                    ranges: Vec::new(),
                    comment: None,
                    unknown: Unknown::new(),
                })
                .collect(),
            ..Profile::default()
        };
        let mut merge = Merge::new();
        merge.add("a", many("a")).unwrap();
        merge.add("a", many("a")).unwrap();
        merge.add("b", many("b")).unwrap();
        assert!(matches!(merge.finish(), Err(ProfileError::TooLarge { .. })));
        let mut merge = Merge::new();
        assert!((0..9).any(|n| merge.add("p", many(&n.to_string())).is_err()));
    }
}
