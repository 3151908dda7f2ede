//! Takes down what is done with the files of the trees. Must not know how it is seen.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::profile::{Event, EventKind, Folded, Folder, Seconds, Tree, format::check_path};

/// Takes accesses down, from any thread, between [`Recorder::start`] and [`Recorder::finish`].
#[derive(Debug, Default)]
pub struct Recorder {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The start of the command and what it has done since; `None` before and after.
    running: Option<(Instant, Folder)>,
    /// Events whose path cannot be written down.
    unnamed: u64,
}

impl Recorder {
    /// Begins: times count from now. What was seen before is not the command's doing.
    pub fn start(&self) {
        self.state().running = Some((Instant::now(), Folder::new()));
    }

    /// Ends, and gives what was seen; nothing when it has ended before.
    pub fn finish(&self) -> Folded {
        let mut state = self.state();
        let mut folded = match state.running.take() {
            Some((_, folder)) => folder.finish(),
            None => Folder::new().finish(),
        };
        folded.dropped += std::mem::take(&mut state.unnamed);
        folded
    }

    /// Notes what was done at a time; `None` for a path that is not UTF-8.
    pub(super) fn note(&self, at: Instant, tree: &Tree, path: Option<&str>, kind: EventKind) {
        let mut state = self.state();
        let State { running: Some((start, folder)), unnamed } = &mut *state else { return };
        match path.filter(|path| check_path(path).is_ok()) {
            Some(path) => {
                let at = Seconds::from(at.saturating_duration_since(*start));
                folder.event(&Event { at, tree, path, kind });
            }
            None => *unnamed += 1,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of another thread leaves a folder that is as good as before its event.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::ByteRange;

    #[test]
    fn only_what_happens_between_start_and_finish_counts() {
        let recorder = Recorder::default();
        let note = |path| recorder.note(Instant::now(), &Tree::Model, path, EventKind::Open);
        note(Some("before"));
        recorder.start();
        note(Some("a"));
        note(Some("a"));
        note(None);
        note(Some("../outside"));
        let range = ByteRange { offset: 0, length: 3 };
        recorder.note(Instant::now(), &Tree::Model, Some("a"), EventKind::Read(range));
        let folded = recorder.finish();
        assert_eq!(folded.accesses.len(), 2);
        assert_eq!(folded.dropped, 2);
        note(Some("after"));
        assert_eq!(recorder.finish(), Folder::new().finish());
    }
}
