//! Secrets that a cache would carry along: variables of the environment in `cache_key_factors.json` and in dumps, and
//! text that looks like a token. What a secret is must never be repeated, not even in part.

use std::sync::LazyLock;

use regex::bytes::Regex;
use serde_json::Value;

use super::{
    Finding, Severity,
    hits::Hits,
    reader::Reader,
    rules::SECRETS,
    view::{View, name_of},
};
use crate::compile_cache::{CacheError, CacheFile};

/// Most text files that are read, and their bytes.
const FILES_MAX: usize = 4_000;
const BYTES_MAX: u64 = 64 << 20;
/// Most that is read of one file.
const FILE_MAX: u64 = 1 << 20;
/// Files without a telling name are taken for text up to this size, in bytes.
const SMALL: u64 = 64 << 10;

/// Names of files that hold text, and those that hold settings: there a line `NAME=value` is one.
const CODE: [&str; 12] =
    ["py", "cpp", "h", "hpp", "cu", "cuh", "ptx", "ttir", "ttgir", "llir", "source", "ninja"];
const SETTINGS: [&str; 11] = ["json", "env", "txt", "sh", "yaml", "yml", "toml", "ini", "cfg", "conf", "md"];
const BINARY: [&str; 9] = ["so", "o", "a", "cubin", "hsaco", "spv", "pyc", "pkl", "zst"];

/// Looks of tokens.
#[rustfmt::skip]
const TOKENS: [(&str, &str); 11] = [
    ("a token of Hugging Face", r"\bhf_[A-Za-z0-9]{30,}"),
    ("a token of GitHub", r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50,})"),
    ("a token of GitLab", r"\bglpat-[A-Za-z0-9_-]{20}"),
    ("an access key of AWS", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("an API key", r"\bsk-[A-Za-z0-9_-]{32,}"),
    ("an API key of NVIDIA", r"\bnvapi-[A-Za-z0-9_-]{40,}"),
    ("an API key of Google", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("a token of Slack", r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}"),
    ("a JSON web token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    ("a private key", r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY"),
    ("a password in a URL", r"\b[a-z][a-z0-9+.-]{1,15}://[^\s/:@'\x22]{1,64}:[^\s/:@'\x22]{3,128}@"),
];

static TOKEN_PATTERNS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let compiled =
        |(what, pattern): &(&'static str, &str)| Some((*what, Regex::new(&format!("(?-u){pattern}")).ok()?));
    TOKENS.iter().filter_map(compiled).collect()
});

/// `NAME=value`, `NAME: value` and `"NAME": "value"`.
static ASSIGNMENT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"(?-u)\b([A-Z][A-Z0-9_]{2,63})["']?[ \t]{0,8}[=:][ \t]{0,8}["']?([^\s"',}]{4,})"#).ok()
});

pub(super) fn lint(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), CacheError> {
    let mut reader = Reader::new(FILES_MAX, BYTES_MAX);
    let mut hits = Hits::default();
    let is_factors = |file: &&CacheFile| name_of(file) == "cache_key_factors.json";
    // Where secrets were seen first, in case there are too many.
    let mut files: Vec<(&CacheFile, Text)> =
        view.tree.files.iter().filter_map(|file| Some((file, text(file)?))).collect();
    files.sort_by_key(|(file, text)| (!is_factors(file), *text));
    for (file, text) in files {
        let Some(content) = reader.read(file, FILE_MAX)? else { continue };
        let found = found(&content, text);
        if !found.is_empty() {
            hits.add(&file.path);
            for what in &found {
                hits.name(what);
            }
        }
    }
    hits.report(
        findings,
        Severity::Error,
        SECRETS,
        |hits| format!("secrets that everyone who pulls the image can read: {}", hits.names()),
        "revoke them, and make the cache anew with an environment that lacks them",
    );
    reader.report(findings, "the text files", SECRETS);
    Ok(())
}

/// What a file's text is, the likeliest to hold a secret first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Text {
    Settings,
    Code,
}

fn text(file: &CacheFile) -> Option<Text> {
    let extension = name_of(file).rsplit_once('.').map(|(_, extension)| extension);
    let is = |known: &[&str]| extension.is_some_and(|extension| known.contains(&extension));
    if is(&SETTINGS) {
        // A kernel's group holds paths, and there may be very many.
        (!name_of(file).starts_with("__grp__")).then_some(Text::Settings)
    } else if is(&CODE) {
        Some(Text::Code)
    } else {
        (file.stamp.size <= SMALL && !is(&BINARY)).then_some(Text::Settings)
    }
}

/// What secrets a text holds: names of variables and looks of tokens, never values.
fn found(content: &[u8], text: Text) -> Vec<String> {
    let mut found: Vec<String> = TOKEN_PATTERNS
        .iter()
        .filter(|(_, pattern)| pattern.is_match(content))
        .map(|(what, _)| (*what).to_owned())
        .collect();
    if text == Text::Code {
        return found;
    }
    // Deep nesting is an error of the parser, and then the lines are looked at.
    match serde_json::from_slice::<Value>(content) {
        Ok(json) => variables(&json, &mut found),
        Err(_) => {
            for (_, [name, value]) in ASSIGNMENT
                .iter()
                .flat_map(|pattern| pattern.captures_iter(content))
                .map(|line| line.extract())
            {
                let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
                if is_secret(&name) && is_value(&value) && !found.iter().any(|known| *known == name) {
                    found.push(name.into_owned());
                }
            }
        }
    }
    found
}

/// Variables that hold a secret, of an object and of the objects in it. The parser has bounded their depth.
fn variables(json: &Value, found: &mut Vec<String>) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(value) if is_secret(name) && is_value(value) => {
                        if !found.contains(name) {
                            found.push(name.clone());
                        }
                    }
                    value => variables(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| variables(value, found)),
        _ => {}
    }
}

/// Whether a variable's name says that its value is a secret.
fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 10] = [
        "API_KEY",
        "APIKEY",
        "ACCESS_KEY",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "CREDENTIAL",
        "PRIVATE_KEY",
        "AUTH_KEY",
        "ACCOUNT_KEY",
    ];
    /// Names so ended say where a secret lies, or how it is used.
    const ELSEWHERE: [&str; 8] = ["PATH", "FILE", "DIR", "URL", "NAME", "TYPE", "THRESHOLD", "BACKEND"];
    let upper = name.to_ascii_uppercase();
    let last = upper.rsplit('_').next().unwrap_or_default();
    if name.len() > 64 || ELSEWHERE.contains(&last) {
        return false;
    }
    PARTS.iter().any(|part| upper.contains(part)) || last == "TOKEN" || last == "PAT"
}

/// Whether a value can be a secret.
fn is_value(value: &str) -> bool {
    let value = value.trim();
    value.len() >= 4
        && value.parse::<f64>().is_err()
        && !value.starts_with("${")
        && !value.bytes().all(|byte| byte == b'*')
        && !["none", "null", "true", "false"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(TOKEN_PATTERNS.len(), TOKENS.len());
        assert!(ASSIGNMENT.is_some());
    }

    #[test]
    fn secrets_and_what_only_looks_like_one() {
        let long = "a1".repeat(20);
        for (text, expected) in [
            (
                r#"{"env": {"VLLM_API_KEY": "abcdef", "S3_ACCESS_KEY_ID": null, "X": 1}}"#.to_owned(),
                vec!["VLLM_API_KEY"],
            ),
            (r#"{"env": {"VLLM_API_KEY": null, "HF_TOKEN": ""}}"#.to_owned(), vec![]),
            (
                r#"{"VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD": 256, "VLLM_MAX_TOKENS": "256"}"#.to_owned(),
                vec![],
            ),
            (r#"{"HF_TOKEN_PATH": "/root/.cache/token"}"#.to_owned(), vec![]),
            (r#"[[{"a": {"MY_SECRET": "hunter22"}}]]"#.to_owned(), vec!["MY_SECRET"]),
            (format!("x = 1\nHF_TOKEN={long}\n"), vec!["HF_TOKEN"]),
            (format!("declare -x AWS_SECRET_ACCESS_KEY=\"{long}\""), vec!["AWS_SECRET_ACCESS_KEY"]),
            ("HF_TOKEN=\nPATH=/usr/bin\nHF_TOKEN=${OTHER}".to_owned(), vec![]),
            (format!("x hf_{long} y"), vec!["a token of Hugging Face"]),
            ("hf_config hf_overrides".to_owned(), vec![]),
            ("AKIAABCDEFGHIJKLMNOP".to_owned(), vec!["an access key of AWS"]),
            ("-----BEGIN RSA PRIVATE KEY-----".to_owned(), vec!["a private key"]),
            ("https://user:hunter2@host/x".to_owned(), vec!["a password in a URL"]),
            ("https://host:8000/x@y".to_owned(), vec![]),
            (format!("ghp_{}", "a".repeat(36)), vec!["a token of GitHub"]),
        ] {
            assert_eq!(found(text.as_bytes(), Text::Settings), expected, "{text}");
        }
        assert_eq!(found(format!("HF_TOKEN={long}").as_bytes(), Text::Code), [] as [&str; 0]);
        let deep = "[".repeat(500_000);
        assert_eq!(found(deep.as_bytes(), Text::Settings), [] as [&str; 0]);
    }
}
