//! A set of bytes, as ranges.

use std::collections::BTreeMap;

use super::ByteRange;

/// Bytes of a file, kept as the fewest ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RangeSet {
    /// End by start; neither overlapping nor touching.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Adds `range` and returns those parts of it that were not in the set, ascending.
    pub(super) fn insert(&mut self, range: ByteRange) -> Vec<ByteRange> {
        let (start, end) = (range.offset, range.end());
        let mut joined = (start, end);
        let mut fresh = Vec::new();
        let mut position = start;
        // Ranges that overlap or touch: the last that begins at or before the start, and all up to the end.
        let first = self.ranges.range(..=start).next_back().filter(|(_, to)| **to >= start);
        let from = first.map_or(start, |(from, _)| *from);
        let neighbours: Vec<(u64, u64)> = self.ranges.range(from..=end).map(|(a, b)| (*a, *b)).collect();
        for (from, to) in neighbours {
            if position < from {
                fresh.push(ByteRange::between(position, from.min(end)));
            }
            position = position.max(to);
            joined = (joined.0.min(from), joined.1.max(to));
            self.ranges.remove(&from);
        }
        if position < end {
            fresh.push(ByteRange::between(position, end));
        }
        if joined.0 < joined.1 {
            self.ranges.insert(joined.0, joined.1);
        }
        fresh
    }

    /// The ranges, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = ByteRange> {
        self.ranges.iter().map(|(start, end)| ByteRange::between(*start, *end))
    }
}

impl FromIterator<ByteRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(ranges: I) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_set_of_bytes(inserts in prop::collection::vec((0_u64..60, 1_u64..20), 0..30)) {
            let mut set = RangeSet::default();
            let mut bytes = [false; 80];
            for (offset, length) in inserts {
                let mut fresh = [false; 80];
                for range in set.insert(ByteRange { offset, length }) {
                    for byte in range.offset..range.end() {
                        fresh[usize::try_from(byte).unwrap()] = true;
                    }
                }
                for byte in 0..80 {
                    let inside = (offset..offset + length).contains(&(byte as u64));
                    prop_assert_eq!(fresh[byte], inside && !bytes[byte]);
                    bytes[byte] |= inside;
                }
            }
            let ranges: Vec<ByteRange> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end() < pair[1].offset));
            let held: u64 = ranges.iter().map(|range| range.length).sum();
            prop_assert_eq!(held, bytes.iter().filter(|byte| **byte).count() as u64);
        }
    }
}
