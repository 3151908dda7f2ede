//! Points in time of a start.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Seconds since the start of a recording, to the microsecond, 10⁹ at most: what is written can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seconds(u64);

impl Seconds {
    /// The start.
    pub const ZERO: Self = Self(0);
    /// Largest number of seconds that a profile can state: about 31 years.
    const MAX: f64 = 1e9;
    /// The same in microseconds.
    const MAX_MICROS: u64 = 1_000_000_000_000_000;

    /// From a number of microseconds; more than 10⁹ seconds count as those.
    pub const fn from_micros(micros: u64) -> Self {
        Self(if micros < Self::MAX_MICROS { micros } else { Self::MAX_MICROS })
    }

    /// The number of microseconds.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// From a number of seconds; `None` when it is negative, not finite, or over 10⁹.
    pub fn new(seconds: f64) -> Option<Self> {
        // In range, so that the conversion neither wraps nor loses more than the fraction of a microsecond.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        (0.0..=Self::MAX).contains(&seconds).then(|| Self((seconds * 1e6).round() as u64))
    }

    /// The number of seconds.
    pub fn get(self) -> f64 {
        // At most 10¹⁵, which a double holds exactly.
        #[expect(clippy::cast_precision_loss)]
        let micros = self.0 as f64;
        micros / 1e6
    }

    /// Later by `other`, 10⁹ seconds at most.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self::from_micros(self.0.saturating_add(other.0))
    }

    /// The time since `earlier`, zero when that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Self {
        Self::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.get())
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whole seconds without a fraction: `0`, not `0.0`.
        if self.0.is_multiple_of(1_000_000) {
            serializer.serialize_u64(self.0 / 1_000_000)
        } else {
            serializer.serialize_f64(self.get())
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Self::new(seconds)
            .ok_or_else(|| de::Error::custom(format!("{seconds} seconds are not between 0 and 10^9")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits() {
        for bad in [-0.1, f64::NAN, f64::INFINITY, 1e10] {
            assert_eq!(Seconds::new(bad), None, "{bad}");
        }
        assert_eq!(serde_json::to_string(&Seconds::from_micros(2_000_000)).unwrap(), "2");
        assert_eq!(serde_json::to_string(&Seconds::from_micros(16_600_001)).unwrap(), "16.600001");
        let last = Seconds::new(1e9).unwrap();
        assert_eq!(Seconds::from_micros(u64::MAX), last);
        assert_eq!(Seconds::from(Duration::MAX), last);
        assert_eq!(last.plus(Seconds::from_micros(1)), last);
    }

    proptest! {
        #[test]
        fn json_keeps_the_microsecond(micros in prop_oneof![0_u64..=1_000_000_000_000_000, any::<u64>()]) {
            let seconds = Seconds::from_micros(micros);
            let text = serde_json::to_string(&seconds).unwrap();
            prop_assert_eq!(serde_json::from_str::<Seconds>(&text).unwrap(), seconds);
        }
    }
}
