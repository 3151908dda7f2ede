//! Whether a model's `config.json` can be read. Every engine opens it first, so that an image with a broken one never
//! starts. Must not know what a configuration means.

use std::path::Path;

use serde::de::IgnoredAny;

use super::{SnapshotError, SnapshotFile, read::read_small};

/// The configuration of the model, in the snapshot's root.
const NAME: &str = "config.json";
/// Longest configuration that is looked at, in bytes. Real ones have some hundred KiB at most, and of larger files an
/// outline of a repository on the hub has holes.
const MAX_LENGTH: u64 = 4 << 20;

/// Refuses a `config.json` that is no JSON object.
pub(super) fn check(files: &[SnapshotFile], root: &Path) -> Result<(), SnapshotError> {
    let Some(file) = files.iter().find(|file| file.path == NAME && file.stamp.size <= MAX_LENGTH) else {
        return Ok(());
    };
    let path = root.join(NAME);
    let bytes = read_small(&file.source, MAX_LENGTH).map_err(SnapshotError::io(&path))?;
    problem(&bytes).map_or(Ok(()), |problem| Err(SnapshotError::MalformedConfig { path, problem }))
}

/// What is wrong with a configuration.
fn problem(bytes: &[u8]) -> Option<String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Some("it is empty".to_owned());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return Some("it is no UTF-8".to_owned()) };
    if !text.trim_start().starts_with('{') {
        return Some("it is no JSON object".to_owned());
    }
    serde_json::from_str::<IgnoredAny>(&without_odd_numbers(text)).err().map(|error| error.to_string())
}

/// The text with a `0` for each number that Python writes and reads and JSON does not have: `time_step_limit` of
/// Mamba models is `[0.0, Infinity]`.
///
/// Source: `json/scanner.py` of Python.
fn without_odd_numbers(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        let odd =
            ["-Infinity", "Infinity", "NaN"].into_iter().find(|odd| !in_string && rest.starts_with(odd));
        let length = match (odd, next) {
            (Some(odd), _) => {
                plain.push('0');
                rest = &rest[odd.len()..];
                continue;
            }
            // What is escaped ends no string.
            (None, '\\') if in_string => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, '"') => {
                in_string = !in_string;
                1
            }
            (None, other) => other.len_utf8(),
        };
        let (copied, after) = rest.split_at(length);
        plain.push_str(copied);
        rest = after;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_read_is_no_problem() {
        for config in [
            "{}",
            " {\"a\": [1, {\"b\": null}]}\n\n",
            "{\"time_step_limit\": [0.0, Infinity], \"low\": -Infinity, \"x\": NaN}",
            "{\"a\": 1e999, \"b\": \"\\ud800 \\\" NaN\"}",
            "{\"é\": \"ü\\\\\"}",
        ] {
            assert_eq!(problem(config.as_bytes()), None, "{config}");
        }
    }

    #[test]
    fn what_no_engine_reads_is_one() {
        for (config, words) in [
            ("", "it is empty"),
            (" \n", "it is empty"),
            ("[]", "no JSON object"),
            ("404: Not Found", "no JSON object"),
            ("<html>", "no JSON object"),
            ("{\"a\": 1", "EOF"),
            ("{}{}", "trailing"),
            ("{\"a\": \"NaN}", "EOF"),
            ("{\"a\": Nan}", "expected"),
            ("{\"a\": \"\\", "EOF"),
        ] {
            let problem = problem(config.as_bytes()).unwrap_or_default();
            assert!(problem.contains(words), "{config}: {problem}");
        }
        assert!(problem(b"{\"a\": \"\xff\"}").is_some());
        assert!(problem("{\"a\":".repeat(100_000).as_bytes()).is_some());
    }
}
