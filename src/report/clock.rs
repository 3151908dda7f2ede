//! Times as logs write them: with zone, without zone, without year. Must not know what happened then.

use chrono::{DateTime, Datelike, NaiveDate};

/// A time as a log wrote it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wall {
    /// Seconds since 1970, with a zone.
    Zoned(f64),
    /// Seconds since 1970 as if the zone were UTC: the log names none.
    Local(f64),
    /// A log that names neither year nor zone: month, day, and seconds of the day.
    Yearless {
        /// 1 to 12.
        month: u32,
        /// 1 to 31.
        day: u32,
        /// Below 86,401.
        seconds: f64,
    },
}

const DAY: f64 = 86_400.0;
/// Seconds of half a year: a step back by more is a new year.
const HALF_YEAR: f64 = 183.0 * DAY;

/// A time of RFC 3339, as Kubernetes, containers' logs and Go programs write it.
pub(super) fn rfc3339(text: &str) -> Option<Wall> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    seconds_of(time.timestamp(), time.timestamp_subsec_nanos()).map(Wall::Zoned)
}

fn seconds_of(seconds: i64, nanoseconds: u32) -> Option<f64> {
    // No log is of before 1970 or after 2100; f64 has microseconds there.
    let seconds = u32::try_from(seconds).ok()?;
    Some(f64::from(seconds) + f64::from(nanoseconds) / 1e9)
}

/// `2026-11-21 10:00:00`, with a fraction behind a point or a comma or without.
pub(super) fn dated(text: &str) -> Option<Wall> {
    let (date, time) = text.split_at_checked(10)?;
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let days = date.signed_duration_since(NaiveDate::default()).num_days();
    let days = u32::try_from(days).ok()?;
    Some(Wall::Local(f64::from(days) * DAY + of_day(time.get(1..)?)?))
}

/// A time without a year: `10:00:00` of a day.
pub(super) fn yearless(month: u32, day: u32, time: &str) -> Option<Wall> {
    // A leap year has all days that there are.
    NaiveDate::from_ymd_opt(2024, month, day)?;
    Some(Wall::Yearless { month, day, seconds: of_day(time)? })
}

/// The number of a month by its English name's three letters.
pub(super) fn month(name: &str) -> Option<u32> {
    const NAMES: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    (1..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| number)
}

fn of_day(time: &str) -> Option<f64> {
    let mut parts = time.splitn(3, ':');
    let hours: u32 = parts.next()?.parse().ok()?;
    let minutes: u32 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.replace(',', ".").parse().ok()?;
    let sound = hours < 24 && minutes < 60 && (0.0..61.0).contains(&seconds);
    sound.then(|| f64::from(hours * 3600 + minutes * 60) + seconds)
}

/// Puts the times of one log onto one axis: seconds since 1970. A time without a year follows the one before it, over
/// midnight and new year.
#[derive(Debug)]
pub(super) struct Years {
    /// A time that those of this log are close to.
    near: f64,
}

impl Years {
    /// `near` is the time of another log of the same start, if one is known. `walls` are this log's times: a 29th of
    /// February among them tells a leap year.
    pub(super) fn new(near: Option<f64>, mut walls: impl Iterator<Item = Wall>) -> Self {
        let leap = walls.any(|wall| matches!(wall, Wall::Yearless { month: 2, day: 29, .. }));
        // Any year will do where none is known: differences are all that is shown.
        Self { near: near.unwrap_or(if leap { 1_719_792_000.0 } else { 1_688_169_600.0 }) }
    }

    /// Seconds since 1970.
    pub(super) fn resolve(&mut self, wall: Wall) -> f64 {
        let time = match wall {
            Wall::Zoned(time) | Wall::Local(time) => time,
            Wall::Yearless { month, day, seconds } => self.year_of(month, day, seconds),
        };
        self.near = time;
        time
    }

    fn year_of(&self, month: u32, day: u32, seconds: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, reason = "seconds of four-digit years")]
        let year = DateTime::from_timestamp(self.near as i64, 0).map_or(2023, |time| time.year());
        // Closest first: almost all are of the same year.
        for candidate in [year, year + 1, year - 1, year + 2, year - 2, year + 3, year - 3, year + 4] {
            let Some(date) = NaiveDate::from_ymd_opt(candidate, month, day) else { continue };
            let days = date.signed_duration_since(NaiveDate::default()).num_days();
            let Ok(days) = u32::try_from(days) else { continue };
            let time = f64::from(days) * DAY + seconds;
            if (time - self.near).abs() <= HALF_YEAR || (month, day) == (2, 29) {
                return time;
            }
        }
        self.near
    }
}

/// Seconds that Go's durations tell: `12.3s`, `8m34.07s`, `312ms`, `1h2m3s`.
pub(super) fn go_duration(text: &str) -> Option<f64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, behind) = rest.split_at_checked(digits)?;
        let units =
            [("ms", 1e-3), ("µs", 1e-6), ("us", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| behind.starts_with(unit))?;
        total += number.parse::<f64>().ok()? * factor;
        rest = behind.get(unit.len()..)?;
    }
    (!text.is_empty() && total.is_finite()).then_some(total)
}

/// Seconds that tqdm's clock tells: `02:47`, `1:02:47`.
pub(super) fn bar_clock(text: &str) -> Option<f64> {
    text.split(':').try_fold(0.0, |seconds, part| Some(seconds * 60.0 + f64::from(part.parse::<u32>().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(month: u32, day: u32, time: &str) -> Wall {
        yearless(month, day, time).unwrap()
    }

    fn between(walls: &[Wall], near: Option<f64>) -> Vec<f64> {
        let mut years = Years::new(near, walls.iter().copied());
        let times: Vec<f64> = walls.iter().map(|wall| years.resolve(*wall)).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[test]
    fn midnight_new_year_and_leap_days() {
        assert_eq!(between(&[at(11, 21, "23:59:58"), at(11, 22, "00:00:03")], None), [5.0]);
        assert_eq!(between(&[at(12, 31, "23:59:58"), at(1, 1, "00:00:03")], None), [5.0]);
        // Processes write side by side.
        let mixed = [at(12, 31, "23:59:59"), at(1, 1, "00:00:00"), at(12, 31, "23:59:59")];
        assert_eq!(between(&mixed, None), [1.0, -1.0]);
        assert_eq!(between(&[at(2, 28, "23:59:59"), at(3, 1, "00:00:00")], None), [1.0]);
        assert_eq!(
            between(&[at(2, 28, "23:59:59"), at(2, 29, "00:00:01"), at(3, 1, "00:00:01")], None),
            [2.0, 86_400.0]
        );
        let Some(Wall::Zoned(anchor)) = rfc3339("2028-01-01T00:00:05Z") else { panic!() };
        let mut years = Years::new(Some(anchor), std::iter::empty());
        assert!((anchor - years.resolve(at(12, 31, "23:59:58")) - 7.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "2026-13-01 00:00:00",
            "2026-01-01",
            "2026-01-01 24:00:00",
            "2026-01-01 1",
            "größer als nichts",
        ] {
            assert_eq!(dated(text), None, "{text}");
        }
        assert_eq!(dated("1970-01-02 00:00:01,500"), Some(Wall::Local(86_401.5)));
        assert_eq!(yearless(2, 30, "00:00:00"), None);
        assert_eq!(rfc3339("1969-01-01T00:00:00Z"), None);
        assert_eq!(rfc3339("1970-01-01T01:00:00.25+01:00"), Some(Wall::Zoned(0.25)));
    }

    #[test]
    fn durations() {
        assert_eq!(go_duration("8m34.5s"), Some(514.5));
        assert_eq!(go_duration("312ms"), Some(0.312));
        assert_eq!(go_duration("1h0m2s"), Some(3602.0));
        for text in ["", "s", "5", "1.2.3s", "5x"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
        assert_eq!(bar_clock("02:47"), Some(167.0));
        assert_eq!(bar_clock("1:02:47"), Some(3767.0));
        assert_eq!(bar_clock("a:1"), None);
    }
}
