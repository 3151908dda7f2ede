//! Which bytes of a blob are asked for: widening to units, what is missing of a range, the pieces that a member is read
//! in. Pure arithmetic; source: stargz-snapshotter, `fs/remote/blob.go` and `estargz/estargz.go`, as `docs/snapshotter.md`
//! tells it.

use std::collections::BTreeMap;

use crate::members::MemberKind;

/// A gzip member or zstd frame is read in pieces of this many bytes, one after another.
pub(super) const PIECE: u64 = 2 << 20;
/// Bytes at the end of a gzip member that nobody asks for who wants its content: CRC-32 and length.
const TRAILER: u64 = 8;
/// Bytes behind a zstd frame that its decoder has asked for when the frame's content has come: it goes on reading the file, and
/// holds four blocks. Measured with stargz-snapshotter's own reader on four processors and more; on two it is one block.
const AHEAD: u64 = 3 * (128 << 10);

/// Bytes from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Span {
    pub(super) fn new(start: u64, end: u64) -> Self {
        Self { start, end }
    }

    pub(super) fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The whole units that hold the span, within a blob of `size` bytes. `unit` is not 0.
    pub(super) fn widened(self, unit: u64, size: u64) -> Self {
        let end = self.end.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
        Self { start: self.start - self.start % unit, end: end.min(size) }
    }
}

/// The reads that a member from `start` to `end` is made of, of a file whose last member ends at `file_end`: each begins where the
/// one before it ended, and the last one goes on behind the member where the file does.
pub(super) fn pieces(kind: MemberKind, start: u64, end: u64, file_end: u64) -> impl Iterator<Item = Span> {
    let mut at = start;
    let needed = match kind {
        MemberKind::Gzip => end.saturating_sub(TRAILER),
        MemberKind::Zstd => end.saturating_add(AHEAD),
    };
    std::iter::from_fn(move || {
        if at != start && at >= needed || at >= file_end {
            return None;
        }
        let piece = Span::new(at, at.saturating_add(PIECE).min(file_end));
        at = piece.end;
        Some(piece)
    })
}

/// The requests of a prefetch of the first `length` bytes: one, or parts that are asked for at once.
pub(super) fn prefetch_parts(length: u64, part: u64, unit: u64) -> impl Iterator<Item = Span> {
    // Parts are whole units; what is not larger than a unit means one request.
    let step = if part > unit { part - part % unit } else { length.max(1) };
    let mut at = 0;
    std::iter::from_fn(move || {
        (at < length).then(|| {
            let span = Span::new(at, at.saturating_add(step).min(length));
            at = span.end;
            span
        })
    })
}

/// A set of bytes, kept as the fewest spans: the memory that it takes follows what was fetched and not what a blob claims to be.
#[derive(Debug, Default)]
pub(super) struct SpanSet {
    /// End by start; neither overlapping nor touching.
    spans: BTreeMap<u64, u64>,
}

impl SpanSet {
    pub(super) fn insert(&mut self, span: Span) {
        if span.len() == 0 {
            return;
        }
        let (mut start, mut end) = (span.start, span.end);
        if let Some((from, to)) = self.spans.range(..=start).next_back().filter(|(_, to)| **to >= start) {
            start = *from;
            end = end.max(*to);
        }
        while let Some((from, to)) = self.spans.range(start..=end).next().map(|(from, to)| (*from, *to)) {
            end = end.max(to);
            self.spans.remove(&from);
        }
        self.spans.insert(start, end);
    }

    /// What of `span` is not in the set, neighbours joined, ascending.
    pub(super) fn missing(&self, span: Span) -> Vec<Span> {
        let mut missing = Vec::new();
        let mut at = span.start;
        let first = self.spans.range(..=at).next_back().map_or(at, |(from, _)| *from);
        for (from, to) in self.spans.range(first..span.end) {
            if at < *from {
                missing.push(Span::new(at, *from));
            }
            at = at.max(*to);
        }
        if at < span.end {
            missing.push(Span::new(at, span.end));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans(pairs: &[(u64, u64)]) -> Vec<Span> {
        pairs.iter().map(|(start, end)| Span::new(*start, *end)).collect()
    }

    #[test]
    fn reads_are_widened_to_units() {
        let widened = |start, end| Span::new(start, end).widened(50_000, 120_001);
        assert_eq!(widened(0, 1), Span::new(0, 50_000));
        assert_eq!(widened(49_999, 50_001), Span::new(0, 100_000));
        assert_eq!(widened(50_000, 100_000), Span::new(50_000, 100_000));
        assert_eq!(widened(119_950, 120_001), Span::new(100_000, 120_001));
        assert_eq!(Span::new(7, u64::MAX).widened(50_000, u64::MAX), Span::new(0, u64::MAX));
    }

    #[test]
    fn members_are_read_in_pieces_that_reach_into_what_follows_of_the_file() {
        const MIB: u64 = 1 << 20;
        let of = |start, end, file_end| pieces(MemberKind::Gzip, start, end, file_end).collect::<Vec<_>>();
        // 4 MiB less a little are two reads, the second of which goes on behind the member.
        let member = 100 + 4 * MIB - 100_000;
        assert_eq!(
            of(100, member, 100 * MIB),
            spans(&[(100, 100 + 2 * MIB), (100 + 2 * MIB, 100 + 4 * MIB)])
        );
        // The file's last member ends with it.
        assert_eq!(of(100, member, member), spans(&[(100, 100 + 2 * MIB), (100 + 2 * MIB, member)]));
        // 4 MiB and framing are three.
        assert_eq!(of(0, 4 * MIB + 400, 100 * MIB).len(), 3);
        // Nobody asks for a trailer.
        assert_eq!(of(0, 2 * MIB + 8, 100 * MIB).len(), 1);
        assert_eq!(of(0, 2 * MIB + 9, 100 * MIB).len(), 2);
        assert_eq!(of(5, 12, 12), spans(&[(5, 12)]));
        assert_eq!(of(5, 5, 5), []);
        // A decoder of zstd has asked for some of what follows, where the file goes on.
        let of = |start, end, file_end| pieces(MemberKind::Zstd, start, end, file_end).collect::<Vec<_>>();
        assert_eq!(of(100, member, 100 * MIB).len(), 3);
        assert_eq!(of(100, member - 300_000, 100 * MIB).len(), 2);
        assert_eq!(of(100, member, member), spans(&[(100, 100 + 2 * MIB), (100 + 2 * MIB, member)]));
    }

    #[test]
    fn prefetch_is_one_request_or_parts_of_whole_units() {
        let of = |length, part| prefetch_parts(length, part, 50_000).collect::<Vec<_>>();
        assert_eq!(of(120_000, 0), spans(&[(0, 120_000)]));
        assert_eq!(of(120_000, 50_000), spans(&[(0, 120_000)]));
        assert_eq!(of(220_000, 149_999), spans(&[(0, 100_000), (100_000, 200_000), (200_000, 220_000)]));
        assert_eq!(of(0, 0), []);
    }

    #[test]
    fn neighbours_are_joined_and_gaps_kept_apart() {
        let mut set = SpanSet::default();
        set.insert(Span::new(10, 20));
        set.insert(Span::new(30, 40));
        assert_eq!(set.missing(Span::new(0, 50)), spans(&[(0, 10), (20, 30), (40, 50)]));
        assert_eq!(set.missing(Span::new(12, 18)), []);
        assert_eq!(set.missing(Span::new(15, 35)), spans(&[(20, 30)]));
        set.insert(Span::new(20, 30));
        assert_eq!(set.spans.len(), 1);
    }

    proptest! {
        #[test]
        fn a_set_of_spans_is_a_set(
            inserted in prop::collection::vec((0_u64..60, 0_u64..20), 0..12), start in 0_u64..60, length in 0_u64..30,
        ) {
            let mut set = SpanSet::default();
            let mut model = [false; 100];
            for (start, length) in inserted {
                set.insert(Span::new(start, start + length));
                (start..start + length).for_each(|byte| model[usize::try_from(byte).unwrap()] = true);
            }
            let wanted = Span::new(start, start + length);
            let missing = set.missing(wanted);
            prop_assert!(missing.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(missing.iter().all(|span| span.len() > 0));
            for byte in wanted.start..wanted.end {
                let is_missing = missing.iter().any(|span| (span.start..span.end).contains(&byte));
                prop_assert_eq!(is_missing, !model[usize::try_from(byte).unwrap()]);
            }
            prop_assert!(missing.iter().all(|span| span.start >= wanted.start && span.end <= wanted.end));
        }
    }
}
