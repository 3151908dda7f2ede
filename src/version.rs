//! Versions of the programs that images meet: of a cluster, of a node, of an engine. Must not know which of them has
//! what.

use std::{fmt, str::FromStr};

/// A version, as `0.18.2`. What is left out counts as zero, which is the oldest that can be meant; a third number of
/// zero is not printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

impl Version {
    /// The version of three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.patch {
            0 => write!(f, "{}.{}", self.major, self.minor),
            patch => write!(f, "{}.{}.{patch}", self.major, self.minor),
        }
    }
}

impl FromStr for Version {
    type Err = String;

    /// Reads `0.18.2`, `v1.7`, `2.x`, and with what packages and tags append, `1.6.20~ds1`, `2.1.0-rc.1`,
    /// `1.33.2-gke.100` or `0.8.5.post1`. A number alone is none: a tag may be a date, or count builds.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || format!("`{text}` is no version: expected one as in 0.18.2, 1.33 or 2.x");
        let plain = text.strip_prefix('v').unwrap_or(text);
        let plain = plain.split(['-', '+', '~', '_', ' ']).next().unwrap_or_default();
        let mut parts = plain.split('.');
        let mut number = |may_be_open: bool| match parts.next() {
            Some("x") if may_be_open => Ok(None),
            Some(part) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                part.parse::<u32>().map(Some).map_err(|_| error())
            }
            Some(_) => Err(error()),
            None => Ok(None),
        };
        let major = number(false)?.ok_or_else(error)?;
        if !plain.contains('.') {
            return Err(error());
        }
        let minor = number(true)?;
        let patch = if minor.is_some() { number(true)? } else { None };
        Ok(Self { major, minor: minor.unwrap_or_default(), patch: patch.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let of = |text: &str| text.parse::<Version>();
        for (text, expected) in [
            ("0.18.2", (0, 18, 2)),
            ("v1.7", (1, 7, 0)),
            ("2.x", (2, 0, 0)),
            ("1.7.x", (1, 7, 0)),
            ("2.x.x", (2, 0, 0)),
            ("1.6.20~ds1-1+deb12u3", (1, 6, 20)),
            ("2.1.0-rc.1", (2, 1, 0)),
            ("v1.33.2-gke.100", (1, 33, 2)),
            ("1.33+", (1, 33, 0)),
            ("v0.8.5.post1", (0, 8, 5)),
            ("0.11.0_cu128", (0, 11, 0)),
        ] {
            let (major, minor, patch) = expected;
            assert_eq!(of(text), Ok(Version::new(major, minor, patch)), "{text}");
        }
        for text in [
            "",
            "x",
            "x.1",
            "v",
            "latest",
            "1",
            "42",
            "20240501",
            "1.",
            "1..2",
            "1.a",
            "1.2.a",
            "-1.2",
            "1 .2",
            "1.７",
            "99999999999.0",
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains("1.33"), "{text}: {error}");
        }
    }

    #[test]
    fn versions_are_printed_and_compared_by_their_numbers() {
        let of = |text: &str| text.parse::<Version>().unwrap();
        assert_eq!(of("1.33").to_string(), "1.33");
        assert_eq!(of("1.33.0").to_string(), "1.33");
        assert_eq!(of("v0.18.2-1").to_string(), "0.18.2");
        assert!(of("0.9.1") < of("0.11") && of("0.11") == of("0.11.0") && of("1.10") > of("1.9.9"));
    }
}
