//! Who may use the link when: background fetch stands back for prioritised tasks and for five seconds after each. Must not
//! know what the tasks fetch.
//!
//! Source: stargz-snapshotter, `task/task.go`.

use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// So long after a prioritised task nothing is fetched in the background (a constant of the snapshotter, `fs/fs.go`).
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// The tasks of a node.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    state: Mutex<State>,
    changed: Condvar,
    /// Counts prioritised tasks: what runs in the background is cancelled by each that begins.
    begun: AtomicU64,
    over: AtomicBool,
    /// When the start is over at the latest.
    deadline: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    last_end: Option<Instant>,
}

/// A prioritised task, until it is dropped.
pub(super) struct Prioritised<'a>(&'a Tasks);

impl Drop for Prioritised<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running = state.running.saturating_sub(1);
        state.last_end = Some(Instant::now());
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Tasks {
    /// Tasks of a start that is over so many seconds from now at the latest, where a limit is given.
    pub(super) fn within(seconds: Option<f64>) -> Self {
        let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        // What no clock can tell is no limit.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        Self { deadline, ..Self::default() }
    }

    /// Whether the limit was passed.
    pub(super) fn is_expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    pub(super) fn prioritised(&self) -> Prioritised<'_> {
        self.lock().running += 1;
        self.begun.fetch_add(1, Ordering::SeqCst);
        Prioritised(self)
    }

    /// Waits until background tasks may run; `None` when the start is over. The number tells whether one may go on.
    pub(super) fn quiet(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if self.is_over() {
                return None;
            }
            let pause = match (state.running, state.last_end.map(|end| end.elapsed())) {
                (0, None) => return Some(self.begun.load(Ordering::SeqCst)),
                (0, Some(since)) if since >= SILENCE => return Some(self.begun.load(Ordering::SeqCst)),
                (0, Some(since)) => SILENCE.saturating_sub(since),
                _ => SILENCE,
            };
            state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether a background task that began with this number has to stop.
    pub(super) fn is_cancelled(&self, number: u64) -> bool {
        self.begun.load(Ordering::SeqCst) != number
    }

    /// Ends everything.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        // Whoever is about to wait has the lock.
        drop(self.lock());
        self.changed.notify_all();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst) || self.is_expired()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_ends_all() {
        assert!(Tasks::within(Some(0.0)).is_over());
        for endless in [Tasks::within(None), Tasks::within(Some(f64::MAX)), Tasks::within(Some(1e6))] {
            assert!(!endless.is_over() && !endless.is_expired());
            endless.end();
            assert!(endless.is_over() && !endless.is_expired());
        }
    }

    #[test]
    fn prioritised_tasks_cancel_and_silence_the_background() {
        let tasks = Tasks::default();
        let number = tasks.quiet().unwrap();
        assert!(!tasks.is_cancelled(number));
        let task = tasks.prioritised();
        assert!(tasks.is_cancelled(number));
        drop(task);
        // Not yet quiet: what would wait for it hears of the end.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| tasks.quiet());
            tasks.end();
            assert_eq!(waiting.join().unwrap(), None);
        });
    }
}
