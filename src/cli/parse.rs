//! Values of options that clap does not know.

use std::{path::Path, time::Duration};

use crate::{
    compile_cache::{Kind, is_plain_directory},
    pack::CacheOption,
};

/// A compile cache: `DIR`, `KIND=DIR` or `KIND@TARGET=DIR`.
pub(super) fn cache(text: &str) -> Result<CacheOption, String> {
    let option = |kind, target, path: &str| match path {
        "" => Err("expected a directory".to_owned()),
        path => Ok(CacheOption { path: path.into(), kind, target }),
    };
    // A directory may have an equals sign in its name.
    let Some((before, path)) = text.split_once('=').filter(|_| !Path::new(text).exists()) else {
        return option(None, None, text);
    };
    let (kind, target) = match before.split_once('@') {
        Some((kind, target)) => (kind, Some(target)),
        None => (before, None),
    };
    let kind = kind.parse::<Kind>()?;
    let is_tag = |target: &str| {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        !target.is_empty() && target.len() <= 64 && target.bytes().all(plain)
    };
    if let Some(target) = target.filter(|target| !is_tag(target)) {
        return Err(format!(
            "`{target}` cannot end a tag: small letters, digits, `-` and `.` do, as in sm90"
        ));
    }
    option(Some(kind), target.map(str::to_owned), path)
}

/// An absolute directory that a shell takes as it is.
pub(super) fn plain_directory(text: &str) -> Result<String, String> {
    let directory = text.strip_suffix('/').unwrap_or(text);
    if is_plain_directory(directory) {
        return Ok(directory.to_owned());
    }
    Err("expected an absolute directory of letters, digits and `._-+@`, as in /tmp/compile-cache".to_owned())
}

/// A number of bytes: `4063232`, `64KiB`, `4MiB`, `1GiB`; `K`, `M` and `G` mean the same.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let factor = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1_u64 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err(format!("`{unit}` is no unit; use KiB, MiB or GiB")),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a number of bytes, as in 4MiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

/// Bytes of a piece of a blob. Shorter ones would cost a request for each few milliseconds of sending.
pub(super) fn piece(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 64 << 10;
    match bytes(text) {
        Ok(..LEAST) => Err("must be at least 64KiB".to_owned()),
        result => result,
    }
}

/// A repository, with or without its registry before it.
///
/// Source: OCI distribution specification, "Pulling manifests".
pub(super) fn repository(text: &str) -> Result<String, String> {
    let path = match text.split_once('/') {
        Some((host, path)) if host.contains([':', '.']) || host == "localhost" => path,
        _ => text,
    };
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
    };
    if path.split('/').all(is_part) {
        Ok(text.to_owned())
    } else {
        Err("no repository: expected a path of small letters and digits, without a tag".to_owned())
    }
}

/// Bytes per second: `1Gbit`, `200Mbit/s`, `125MB/s`. Units are powers of 1000, as network gear counts.
pub(super) fn bandwidth(text: &str) -> Result<f64, String> {
    let (number, unit) = number_and_unit(text.strip_suffix("/s").unwrap_or(text));
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "kbit" => 1e3 / 8.0,
        "mbit" => 1e6 / 8.0,
        "gbit" => 1e9 / 8.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err("expected a bandwidth, as in 1Gbit, 200Mbit or 125MB/s".to_owned()),
    };
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number * bytes),
        _ => Err("expected a positive number, as in 200Mbit".to_owned()),
    }
}

/// Seconds: `20ms`, `0.5s`.
pub(super) fn duration(text: &str) -> Result<f64, String> {
    let (number, unit) = number_and_unit(text);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        _ => return Err("expected a time, as in 20ms or 0.5s".to_owned()),
    };
    match number.parse::<f64>() {
        Ok(number) if number >= 0.0 && number * seconds < 1e9 => Ok(number * seconds),
        _ => Err("expected a time, as in 20ms or 0.5s".to_owned()),
    }
}

/// A time of more than nothing, as [`duration`] has it.
pub(super) fn limit(text: &str) -> Result<Duration, String> {
    match Duration::try_from_secs_f64(duration(text)?) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        _ => Err("must be more than 0".to_owned()),
    }
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    (number, &text[number.len()..])
}

/// A whole number of at least one.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("expected a whole number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches() {
        let of = |text: &str| cache(text).map(|option| (option.kind, option.target, option.path));
        assert_eq!(of("/a"), Ok((None, None, "/a".into())));
        assert_eq!(of("triton=/a=b"), Ok((Some(Kind::Triton), None, "/a=b".into())));
        assert_eq!(of("vllm@sm90=/a"), Ok((Some(Kind::Vllm), Some("sm90".into()), "/a".into())));
        for bad in ["", "vllm=", "cuda=/a", "vllm@=/a", "vllm@SM 90=/a"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn links() {
        assert_eq!(bandwidth("1Gbit"), Ok(125e6));
        assert_eq!(bandwidth("200mbit/s"), Ok(25e6));
        assert_eq!(bandwidth("125MB/s"), Ok(125e6));
        assert_eq!(duration("20ms"), Ok(0.02));
        assert_eq!(duration("0s"), Ok(0.0));
        for text in ["", "1", "Gbit", "-1Gbit", "0Mbit", "1 Gbit", "infGbit", "NaNGbit", "1e400Gbit"] {
            assert!(bandwidth(text).is_err(), "{text}");
        }
        for text in ["", "20", "-1ms", "ms", "infs", "1e300s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("4063232"), Ok(4_063_232));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("4m"), Ok(4 << 20));
        for text in ["", "MiB", "4 MiB", "4TB", "-1", "99999999999G"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
