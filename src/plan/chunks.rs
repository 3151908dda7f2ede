//! Where a file is cut into chunks.

use crate::{
    estargz::{FIRST_CHUNK_MIN, MERGE_BUFFER_SIZE},
    profile::{Seconds, TimedRange},
};

/// Length of a chunk unless the user says otherwise, in bytes: 4 MiB less 128 KiB.
///
/// The snapshotter fetches a whole chunk in reads of 2 MiB, so a member should stay below a multiple of that
/// with its frame; and a FUSE read of at most 128 KiB should not touch two chunks, so the length is a multiple
/// of 128 KiB.
pub const CHUNK_SIZE_DEFAULT: u64 = (4 << 20) - (128 << 10);

/// The same where chunks lie in zstd frames. The snapshotter's decoder reads some blocks ahead, which would cost a third read:
/// a file of 17 MiB takes it 18 reads of 2 MiB in chunks of 4 MiB − 128 KiB on 2 processors, 12 to 16 in chunks of
/// 4 MiB − 256 KiB (more with more processors), and 13 in these on any number (docs/measurements.md).
pub const ZSTD_CHUNK_SIZE_DEFAULT: u64 = (4 << 20) - (768 << 10);

/// Smallest chunk length in bytes.
pub const CHUNK_SIZE_MIN: u64 = FIRST_CHUNK_MIN;

/// Largest chunk length in bytes: a chunk is held in memory whole, here and on every node.
pub const CHUNK_SIZE_MAX: u64 = 64 << 20;

/// Places where a chunk had better end, because a start reads what lies on both sides at different times, or one
/// side not at all. All are byte offsets, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cuts {
    /// Length in bytes of a header that is read before the rest.
    header: Option<u64>,
    /// Where bytes begin or end that are not read: a chunk across costs a node bytes that nobody wants.
    gaps: Vec<u64>,
    /// Where bytes meet that are read at different times: a chunk across brings some of them early.
    times: Vec<u64>,
}

/// A FUSE read is at most this long and, within a file that is read from its start, begins at a multiple of it.
const READ_UNIT: u64 = 128 << 10;

/// Reads this far apart are at different times: 0.1 s, as when a recording is folded.
const PAUSE: Seconds = Seconds::from_micros(100_000);

impl Cuts {
    /// Cuts at the ends of what is read at a time. `header` is the length in bytes of the file's header, if it has
    /// one: it becomes a chunk when the reads show that it is read apart from what follows.
    pub(super) fn new(size: u64, header: Option<u64>, reads: &[TimedRange]) -> Self {
        let mut sorted: Vec<&TimedRange> = reads.iter().collect();
        sorted.sort_by_key(|read| (read.range.offset, read.range.length, read.at));
        let (mut gaps, mut times) = (Vec::new(), Vec::new());
        let mut covered = 0;
        // The read that reached furthest.
        let mut last: Option<&TimedRange> = None;
        for read in sorted {
            let (start, end) = (read.range.offset, read.range.end());
            if start > covered {
                gaps.extend([covered, start]);
            } else if last.is_some_and(|last| !together(last, read)) {
                // An end inside of what another read covers is a border in time alone.
                times.extend([start, end.min(covered)]);
            }
            if end > covered {
                covered = end;
                last = Some(read);
            }
        }
        gaps.push(covered);
        for cuts in [&mut gaps, &mut times] {
            cuts.retain(|offset| (1..size).contains(offset));
            cuts.sort_unstable();
            cuts.dedup();
        }
        let first = gaps.first().into_iter().chain(&times).min().copied();
        let header = header
            // Read-ahead takes a read unit at least, and a first chunk must not be small.
            .map(|length| length.next_multiple_of(READ_UNIT).max(CHUNK_SIZE_MIN))
            .filter(|length| *length < size && first.is_some_and(|first| first <= *length));
        Self { header, gaps, times }
    }

    /// Where a chunk that begins at `start` and must end at `limit` had better end. `size` is the usual length.
    ///
    /// A border in time is worth a cut in the last quarter: chunks become a third more at worst. Unread bytes are
    /// worth one from the first quarter on.
    fn end(&self, start: u64, size: u64, limit: u64) -> Option<u64> {
        self.header
            .filter(|header| start == 0 && *header < limit)
            .or_else(|| last_between(&self.gaps, start + size / 4, limit))
            .or_else(|| last_between(&self.times, start + size / 4 * 3, limit))
    }
}

/// Whether two reads are one stretch of reading.
fn together(a: &TimedRange, b: &TimedRange) -> bool {
    a.at <= b.until.plus(PAUSE) && b.at <= a.until.plus(PAUSE)
}

/// The last of the ascending `cuts` from `first` to `last`, both included.
fn last_between(cuts: &[u64], first: u64, last: u64) -> Option<u64> {
    let end = cuts.partition_point(|offset| *offset <= last);
    cuts[..end].last().copied().filter(|offset| *offset >= first)
}

/// Lengths in bytes of the chunks of a file of `size` bytes: `chunk_size` each, begun anew at every multiple
/// of [`MERGE_BUFFER_SIZE`], none empty. `chunk_size` is held between [`CHUNK_SIZE_MIN`] and
/// [`CHUNK_SIZE_MAX`].
pub fn chunk_lengths(size: u64, chunk_size: u64) -> Vec<u64> {
    chunks_with_cuts(size, chunk_size, &Cuts::default())
}

/// [`chunk_lengths`], but chunks end at cuts where that is worth it.
pub(super) fn chunks_with_cuts(size: u64, chunk_size: u64, cuts: &Cuts) -> Vec<u64> {
    let chunk_size = chunk_size.clamp(CHUNK_SIZE_MIN, CHUNK_SIZE_MAX);
    let mut lengths = Vec::new();
    let mut position = 0;
    while position < size {
        let merge_end = (position / MERGE_BUFFER_SIZE + 1) * MERGE_BUFFER_SIZE;
        let limit = (position + chunk_size).min(merge_end).min(size);
        let end = cuts.end(position, chunk_size, limit).unwrap_or(limit);
        // The first chunk's length is what the snapshotter divides the file's size by.
        let end = if position == 0 && end < CHUNK_SIZE_MIN { limit } else { end };
        lengths.push(end - position);
        position = end;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{blob::framing::Framing, profile::ByteRange};

    /// Reads of these offsets and lengths, a second apart.
    fn reads(ranges: &[(u64, u64)]) -> Vec<TimedRange> {
        let read = |(second, (offset, length)): (u64, &(u64, u64))| {
            let at = Seconds::from_micros(second * 1_000_000);
            TimedRange { at, until: at, range: ByteRange { offset: *offset, length: *length } }
        };
        (0..).zip(ranges).map(read).collect()
    }

    fn plain(size: u64) -> Vec<u64> {
        chunk_lengths(size, CHUNK_SIZE_DEFAULT)
    }

    #[test]
    fn edges() {
        let chunk = CHUNK_SIZE_DEFAULT;
        assert_eq!(plain(0), [0; 0]);
        assert_eq!(plain(1), [1]);
        assert_eq!(plain(chunk - 1), [chunk - 1]);
        assert_eq!(plain(chunk), [chunk]);
        assert_eq!(plain(chunk + 1), [chunk, 1]);
        assert_eq!(plain(MERGE_BUFFER_SIZE + 1).last(), Some(&1));
    }

    #[test]
    fn a_header_that_is_read_apart_is_a_chunk() {
        let size = 100 << 20;
        let first = |header, ranges: &[(u64, u64)]| {
            chunks_with_cuts(size, CHUNK_SIZE_DEFAULT, &Cuts::new(size, Some(header), &reads(ranges)))[0]
        };
        assert_eq!(first(20_000, &[(0, 8), (0, size)]), READ_UNIT);
        assert_eq!(first(200_000, &[(0, 200_000), (200_000, 5000)]), 2 * READ_UNIT);
        // Read in one go with what follows; not known to be read at all.
        assert_eq!(first(20_000, &[(0, size)]), CHUNK_SIZE_DEFAULT);
        assert_eq!(first(20_000, &[]), CHUNK_SIZE_DEFAULT);
        // A header as long as a chunk or longer is cut like everything else.
        assert_eq!(first(50 << 20, &[(0, 8), (0, size)]), CHUNK_SIZE_DEFAULT);
    }

    #[test]
    fn chunks_end_where_reads_do_when_that_is_worth_it() {
        let size = 12 << 20;
        let mib = |number: u64| number << 20;
        let cut =
            |ranges: &[(u64, u64)]| chunks_with_cuts(size, 4 << 20, &Cuts::new(size, None, &reads(ranges)));
        // What is not read gets chunks of its own, unless they would be small.
        assert_eq!(cut(&[(0, mib(2)), (mib(5), mib(7))]), [mib(2), mib(3), mib(4), mib(3)]);
        assert_eq!(cut(&[(0, 1_000_000)]), [mib(4); 3]);
        // What is read at two times is parted where that costs few chunks.
        assert_eq!(cut(&[(0, mib(3)), (mib(3), mib(9))]), [mib(3), mib(4), mib(4), mib(1)]);
        assert_eq!(cut(&[(0, mib(2)), (mib(2), mib(10))]), [mib(4); 3]);
        // One stretch of reading, cut into calls.
        let mut calls = reads(&[(0, mib(3)), (mib(3), mib(9))]);
        calls[1].at = calls[0].until.plus(PAUSE);
        calls[1].until = calls[1].at;
        assert_eq!(chunks_with_cuts(size, 4 << 20, &Cuts::new(size, None, &calls)), [mib(4); 3]);
        // Patterns name bytes twice: what lies inside of another read is a border, too.
        assert_eq!(cut(&[(0, mib(3)), (0, size)]), [mib(3), mib(4), mib(4), mib(1)]);
    }

    #[test]
    fn a_default_member_fits_two_reads_and_holds_whole_fuse_reads() {
        assert!(Framing::StoredGzip.framed_length(CHUNK_SIZE_DEFAULT) <= 2 * (2 << 20));
        assert_eq!(CHUNK_SIZE_DEFAULT % READ_UNIT, 0);
        assert_eq!(MERGE_BUFFER_SIZE % READ_UNIT, 0);
    }

    proptest! {
        #[test]
        fn chunks_keep_the_rules(
            size in 0_u64..3_000_000_000,
            chunk in 0_u64..100_000_000,
            header in prop::option::of(1_u64..500_000),
            ranges in prop::collection::vec((0_u64..3_000_000_000, 1_u64..50_000_000), 0..50),
        ) {
            let lengths = chunks_with_cuts(size, chunk, &Cuts::new(size, header, &reads(&ranges)));
            let plain = chunk_lengths(size, chunk);
            prop_assert!(lengths.len() <= 4 * plain.len() + 1);
            prop_assert_eq!(lengths.iter().sum::<u64>(), size);
            prop_assert!(lengths.iter().all(|length| (1..=CHUNK_SIZE_MAX).contains(length)));
            prop_assert!(lengths.first().is_none_or(|first| *first >= CHUNK_SIZE_MIN.min(size)));
            let mut start = 0;
            for length in lengths {
                prop_assert_eq!(start / MERGE_BUFFER_SIZE, (start + length - 1) / MERGE_BUFFER_SIZE);
                start += length;
            }
        }
    }
}
