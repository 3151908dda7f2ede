//! Versions of the programs on a node. Must not know which of them has what.

use std::{fmt, str::FromStr};

/// A version, as `0.18.2`. What is left out counts as zero, which is the oldest that can be meant.
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
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = String;

    /// Reads `0.18.2`, `v1.7`, `2.x`, and with what packages append, `1.6.20~ds1` or `2.1.0-rc.1`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || format!("`{text}` is no version: expected one as in 0.18.2, 1.7 or 2.x");
        let plain = text.strip_prefix('v').unwrap_or(text);
        let plain = plain.split(['-', '+', '~', ' ']).next().unwrap_or_default();
        let mut numbers = [0_u32; 3];
        let mut parts = plain.split('.');
        for (index, number) in numbers.iter_mut().enumerate() {
            match parts.next() {
                None | Some("x") if index > 0 => break,
                Some(part) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                    *number = part.parse().map_err(|_| error())?;
                }
                _ => return Err(error()),
            }
        }
        if parts.next().is_some_and(|rest| rest != "x") {
            return Err(error());
        }
        let [major, minor, patch] = numbers;
        Ok(Self { major, minor, patch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let of = |text: &str| text.parse::<Version>().map(|version| version.to_string());
        for (text, expected) in [
            ("0.18.2", "0.18.2"),
            ("v1.7", "1.7.0"),
            ("2.x", "2.0.0"),
            ("2", "2.0.0"),
            ("1.7.x", "1.7.0"),
            ("1.6.20~ds1-1+deb12u3", "1.6.20"),
            ("2.1.0-rc.1", "2.1.0"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "x", "v", "latest", "1.", "1..2", "1.2.3.4", "-1", "99999999999.0", "1.７"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
