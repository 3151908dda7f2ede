//! Whether a file's times can tell that it was written to after some moment.
//!
//! The same question as that of Git's index ("racily clean" entries): a clock that ticks gives two writes within
//! one tick the same time. Must not know layers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::blob::FileStamp;

/// Linux stamps files with the time of its last tick, 1 to 10 ms ago; twice the longest is on the safe side.
const TICK: Duration = Duration::from_millis(20);
/// A time without nanoseconds is most likely of a file system that has none: FAT counts in steps of two seconds.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// Whether a write after `moment` might leave both times of the stamp as they are, so that the stamp says nothing of
/// what the file holds by then.
pub(super) fn is_racy(stamp: &FileStamp, moment: SystemTime) -> bool {
    let changed = (stamp.changed_seconds, stamp.changed_nanoseconds);
    let modified = (stamp.modified_seconds, stamp.modified_nanoseconds);
    // A change after the moment is one that a clock which was set back may give again. A time of modification after
    // it is one that somebody chose; the time of change is there to tell.
    within(changed, moment) != Within::No || within(modified, moment) == Within::Tick
}

#[derive(Debug, PartialEq, Eq)]
enum Within {
    No,
    Tick,
    Future,
}

fn within((seconds, nanoseconds): (i64, i64), moment: SystemTime) -> Within {
    // Before 1970: long ago, and chosen.
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanoseconds)) else {
        return Within::No;
    };
    let tick = if nanos == 0 { COARSE_TICK } else { TICK };
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Duration::new(seconds, nanos.min(999_999_999));
    match since.checked_sub(time) {
        None => Within::Future,
        Some(age) if age <= tick => Within::Tick,
        Some(_) => Within::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(modified: (i64, i64), changed: (i64, i64)) -> bool {
        let stamp = FileStamp {
            modified_seconds: modified.0,
            modified_nanoseconds: modified.1,
            changed_seconds: changed.0,
            changed_nanoseconds: changed.1,
            ..FileStamp::default()
        };
        is_racy(&stamp, UNIX_EPOCH + Duration::new(1000, 500_000_000))
    }

    #[test]
    fn a_file_must_be_older_than_a_tick() {
        let old = (900, 1);
        assert!(!at(old, old));
        assert!(!at(old, (1000, 450_000_000)), "written 50 ms ago");
        assert!(at(old, (1000, 490_000_000)));
        assert!(at((1000, 490_000_000), old));
        assert!(at(old, (999, 0)), "a file system that counts in seconds");
        assert!(!at(old, (998, 0)));
    }

    #[test]
    fn times_that_somebody_chose_are_no_reason_and_changes_to_come_are() {
        let old = (900, 1);
        assert!(!at((5000, 1), old));
        assert!(!at((-5, 999_999_999), old));
        assert!(at(old, (5000, 1)));
    }
}
