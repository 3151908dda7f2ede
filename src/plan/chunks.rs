//! Where a file is cut into chunks.

use crate::estargz::{FIRST_CHUNK_MIN, MERGE_BUFFER_SIZE};

/// Length of a chunk unless the user says otherwise, in bytes: 4 MiB less 128 KiB.
///
/// The snapshotter fetches a whole chunk in reads of 2 MiB, so a member should stay below a multiple of that
/// with its frame; and a FUSE read of at most 128 KiB should not touch two chunks, so the length is a multiple
/// of 128 KiB.
pub const CHUNK_SIZE_DEFAULT: u64 = (4 << 20) - (128 << 10);

/// Smallest chunk length in bytes.
pub const CHUNK_SIZE_MIN: u64 = FIRST_CHUNK_MIN;

/// Largest chunk length in bytes: a chunk is held in memory whole, here and on every node.
pub const CHUNK_SIZE_MAX: u64 = 64 << 20;

/// Lengths in bytes of the chunks of a file of `size` bytes: `chunk_size` each, begun anew at every multiple
/// of [`MERGE_BUFFER_SIZE`], none empty. `chunk_size` is held between [`CHUNK_SIZE_MIN`] and
/// [`CHUNK_SIZE_MAX`].
pub fn chunk_lengths(size: u64, chunk_size: u64) -> Vec<u64> {
    let chunk_size = chunk_size.clamp(CHUNK_SIZE_MIN, CHUNK_SIZE_MAX);
    let mut lengths = Vec::new();
    let mut position = 0;
    while position < size {
        let cut = (position / MERGE_BUFFER_SIZE + 1) * MERGE_BUFFER_SIZE;
        let length = chunk_size.min(cut - position).min(size - position);
        lengths.push(length);
        position += length;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::blob::framing::Framing;

    #[test]
    fn edges() {
        let chunk = CHUNK_SIZE_DEFAULT;
        assert_eq!(chunk_lengths(0, chunk), [0; 0]);
        assert_eq!(chunk_lengths(1, chunk), [1]);
        assert_eq!(chunk_lengths(chunk - 1, chunk), [chunk - 1]);
        assert_eq!(chunk_lengths(chunk, chunk), [chunk]);
        assert_eq!(chunk_lengths(chunk + 1, chunk), [chunk, 1]);
        assert_eq!(chunk_lengths(MERGE_BUFFER_SIZE + 1, chunk).last(), Some(&1));
    }

    #[test]
    fn a_default_member_fits_two_reads_and_holds_whole_fuse_reads() {
        assert!(Framing::StoredGzip.framed_length(CHUNK_SIZE_DEFAULT) <= 2 * (2 << 20));
        assert_eq!(CHUNK_SIZE_DEFAULT % (128 << 10), 0);
        assert_eq!(MERGE_BUFFER_SIZE % (128 << 10), 0);
    }

    proptest! {
        #[test]
        fn chunks_keep_the_rules(size in 0_u64..3_000_000_000, chunk in 0_u64..100_000_000) {
            let lengths = chunk_lengths(size, chunk);
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
