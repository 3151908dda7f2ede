//! How often something that failed is tried again, and when. Must not know what is tried.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::{
    error::RegistryError,
    failure::{Failure, Retry},
};

/// The first pause. Each further one is twice as long, and up to twice that by chance, so that many clients that one
/// outage stopped do not come back at one moment.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bytes of a blob that a try has to bring to count as progress: a peer that moves a few of them each time must not
/// keep us for ever.
pub(crate) const PROGRESS_MIN: u64 = 32 << 10;
/// The longest pause that we choose ourselves.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Counts the tries of one thing.
pub(crate) struct Tries {
    retries: u32,
    left: u32,
    pauses: ExponentialBackoff,
}

impl Tries {
    /// Allows `retries` tries after the first.
    pub(crate) fn new(retries: u32) -> Self {
        Self { retries, left: retries, pauses: pauses() }
    }

    /// Something moved: what failed before no longer counts.
    pub(crate) fn moved(&mut self) {
        *self = Self::new(self.retries);
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The failure's error, when there is to be no next try.
    pub(super) async fn wait(&mut self, failure: Failure) -> Result<(), RegistryError> {
        let asked = match failure.retry {
            Retry::Never => return Err(failure.error),
            Retry::Later => Duration::ZERO,
            Retry::After(pause) => pause,
        };
        let Some(pause) = self.pause(&failure.error.in_one_line(), asked) else { return Err(failure.error) };
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// How long to wait before the next try, `asked` at least, with a word of what failed; `None` when there is to be
    /// no next try.
    pub(crate) fn pause(&mut self, failed: &str, asked: Duration) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let pause = self.pauses.next().unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE).max(asked);
        tracing::warn!(
            "{failed}; trying again in {:.1} s ({} of {} retries)",
            pause.as_secs_f64(),
            self.retries - self.left,
            self.retries
        );
        Some(pause)
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let pauses: Vec<Duration> = pauses().take(12).collect();
        assert!(pauses[0] >= FIRST_PAUSE && pauses[0] <= 2 * FIRST_PAUSE, "{pauses:?}");
        assert!(pauses[3] > pauses[0] && pauses[11] >= LONGEST_PAUSE, "{pauses:?}");
    }
}
