//! Secrets that a cache would carry along: variables of the environment in `cache_key_factors.json` and in dumps, and
//! what looks like a token in texts, in binary code and in names of files. What a secret is must never be repeated, not
//! even in part.

mod assignments;
mod names;
mod tokens;

use std::io::{self, Read};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use self::{
    assignments::Around,
    names::{Secret, is_value, is_variable, secret},
};
use super::{
    Finding, Severity,
    hits::Hits,
    reader::Reader,
    rules::SECRETS,
    view::{View, name_of},
};
use crate::compile_cache::{CacheError, CacheFile};

/// Most text files that are read, and their bytes: a cache of Triton has some hundred thousand small ones.
const TEXTS_MAX: usize = 500_000;
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// Most other files in which tokens are looked for, and their bytes.
const BINARIES_MAX: usize = 100_000;
const BINARY_BYTES_MAX: u64 = 256 << 20;
/// Bytes that are looked at at once, and how many of them again with the next: no secret is longer.
const WINDOW: usize = 4 << 20;
const OVERLAP: usize = 8 << 10;
/// Files without a telling name are taken for text up to this size, in bytes.
const SMALL: u64 = 64 << 10;
/// How deep JSON in texts of JSON is followed.
const NESTED_MAX: usize = 3;

/// Names of files that hold text, and those that hold settings: there a line `NAME=value` is one.
const CODE: [&str; 12] =
    ["py", "cpp", "h", "hpp", "cu", "cuh", "ptx", "ttir", "ttgir", "llir", "source", "ninja"];
const SETTINGS: [&str; 12] =
    ["json", "jsonl", "env", "txt", "sh", "yaml", "yml", "toml", "ini", "cfg", "conf", "md"];
const BINARY: [&str; 9] = ["so", "o", "a", "cubin", "hsaco", "spv", "pyc", "pkl", "zst"];

pub(super) fn lint(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), CacheError> {
    let mut hits = Hits::default();
    let (mut texts, mut binaries) = (Vec::new(), Vec::new());
    for file in &view.tree.files {
        match text(file) {
            Some(text) => texts.push((file, text)),
            // A kernel's group holds paths alone, and there may be very many.
            None if name_of(file).starts_with("__grp__") => {}
            None => binaries.push(file),
        }
    }
    // Where secrets were seen first, and small files before large ones, in case there is too much.
    let is_factors = |file: &CacheFile| name_of(file) == "cache_key_factors.json";
    texts.sort_by_key(|(file, text)| (!is_factors(file), *text, file.stamp.size));
    binaries.sort_by_key(|file| file.stamp.size);
    let mut reader = Reader::new(TEXTS_MAX, TEXT_BYTES_MAX);
    for (file, text) in texts {
        let mut found = Found::default();
        let netrc = name_of(file).ends_with("netrc");
        windows(&mut reader, file, |content, whole| {
            found_in(content, text, whole, &mut found);
            if netrc && tokens::is_netrc(content) {
                found.add("a password of .netrc");
            }
        })?;
        found.report(&file.path, &mut hits);
    }
    let mut binary_reader = Reader::new(BINARIES_MAX, BINARY_BYTES_MAX);
    for file in binaries {
        let mut found = Found::default();
        windows(&mut binary_reader, file, |content, _| {
            tokens::in_binary(content).for_each(|what| found.add(what));
        })?;
        found.report(&file.path, &mut hits);
    }
    in_names(view, &mut hits);
    hits.report(
        findings,
        Severity::Error,
        SECRETS,
        |hits| format!("secrets that everyone who pulls the image can read: {}", hits.names()),
        "revoke them, and make the cache anew with an environment that lacks them",
    );
    reader.warn(
        findings,
        "the text files",
        SECRETS,
        "look for tokens and passwords in the others yourself, or remove what is no part of the cache",
    );
    binary_reader.report(findings, "the binary files", SECRETS);
    Ok(())
}

/// Takes what looks like a token out of what the rules say: names of files and of directories may hold one.
pub(super) fn redact(findings: &mut [Finding]) {
    for finding in findings {
        // A name with a part left out would name another file.
        if finding.path.as_deref().is_some_and(|path| tokens::in_text(path.as_bytes()).next().is_some()) {
            finding.path = None;
        }
        for text in [&mut finding.reason, &mut finding.remedy] {
            if let std::borrow::Cow::Owned(redacted) = tokens::redacted(text) {
                *text = redacted;
            }
        }
    }
}

/// Tokens in names of files and of directories.
fn in_names(view: &View<'_>, hits: &mut Hits) {
    let files = view.tree.files.iter().map(|file| (file.path.as_str(), "a file's name"));
    let directories = view.tree.directories.iter();
    let directories = directories.map(|directory| (directory.path.as_str(), "a directory's name"));
    for (path, place) in files.chain(directories) {
        // What a directory is called is part of the names of its files.
        let own = path.rsplit('/').next().unwrap_or_default();
        let mut tokens = tokens::in_text(own.as_bytes()).peekable();
        if tokens.peek().is_some() {
            hits.add_unnamed();
            tokens.for_each(|what| hits.name(&format!("{what} in {place}")));
        }
    }
}

/// Gives a file's bytes in pieces that overlap, and whether a piece is all of the file.
fn windows(
    reader: &mut Reader,
    file: &CacheFile,
    mut visit: impl FnMut(&[u8], bool),
) -> Result<(), CacheError> {
    let Some((mut opened, mut left)) = reader.open_part(file)? else { return Ok(()) };
    let error = |cause: io::Error| CacheError::Read { path: file.source.clone(), cause };
    let mut buffer = Vec::new();
    let mut first = true;
    while left > 0 {
        let most = left.min((WINDOW - buffer.len()) as u64);
        let read = (&mut opened).take(most).read_to_end(&mut buffer).map_err(error)? as u64;
        if read == 0 {
            break;
        }
        left -= read;
        visit(&buffer, first && read == file.stamp.size);
        first = false;
        if left > 0 {
            buffer.drain(..buffer.len().saturating_sub(OVERLAP));
        }
    }
    Ok(())
}

/// What a file's text is, the likeliest to hold a secret first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Text {
    Settings,
    Unknown,
    Code,
}

fn text(file: &CacheFile) -> Option<Text> {
    let extension = name_of(file).rsplit_once('.').map(|(_, extension)| extension);
    let is = |known: &[&str]| extension.is_some_and(|extension| known.contains(&extension));
    if name_of(file).starts_with("__grp__") {
        None
    } else if is(&SETTINGS) {
        Some(Text::Settings)
    } else if is(&CODE) {
        Some(Text::Code)
    } else {
        (file.stamp.size <= SMALL && !is(&BINARY)).then_some(Text::Unknown)
    }
}

/// Names of variables and looks of tokens that were found in a file, never values.
#[derive(Debug, Default)]
struct Found {
    names: Vec<String>,
}

impl Found {
    /// Most names that are kept: a hostile file may have millions.
    const MAX: usize = 16;

    fn is_full(&self) -> bool {
        self.names.len() >= Self::MAX
    }

    fn add(&mut self, name: &str) {
        if !self.is_full() && !self.names.iter().any(|known| known == name) {
            self.names.push(name.to_owned());
        }
    }

    fn report(self, path: &str, hits: &mut Hits) {
        if !self.names.is_empty() {
            hits.add(path);
            self.names.iter().for_each(|name| hits.name(name));
        }
    }
}

/// Adds what secrets a text holds. Only a `whole` one is looked at as JSON.
fn found_in(content: &[u8], text: Text, whole: bool, found: &mut Found) {
    // What has no name that tells may be a small pickle, in which letters are what they happen to be.
    let binary = text == Text::Unknown && content.contains(&0);
    if binary {
        tokens::in_binary(content).for_each(|what| found.add(what));
    } else {
        tokens::in_text(content).for_each(|what| found.add(what));
    }
    if text == Text::Code {
        assignments::find(content, Around::Code, found);
        return;
    }
    let begins = content.iter().find(|byte| !byte.is_ascii_whitespace());
    if whole
        && matches!(begins, Some(b'{' | b'[' | b'"'))
        // Deep nesting is an error of the parser, and then the lines are looked at.
        && let Ok(json) = serde_json::from_slice::<Value>(content)
    {
        variables(&json, 0, found);
        return;
    }
    assignments::find(content, if binary { Around::Anything } else { Around::Settings }, found);
}

/// Variables that hold a secret, of an object and of what is in it. The parser has bounded their depth.
fn variables(json: &Value, nested: usize, found: &mut Found) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                if secret(name).is_some_and(|secret| holds(secret, value)) {
                    found.add(name);
                } else if name == "auths" {
                    logins(value, found);
                } else if name == "auth" && is_login(value) {
                    found.add("a login of a registry");
                }
                variables(value, nested, found);
            }
            // As Kubernetes writes a container's environment.
            if let (Some(Value::String(name)), Some(value)) = (
                fields.get("name").or_else(|| fields.get("Name")),
                fields.get("value").or_else(|| fields.get("Value")),
            ) && secret(name).is_some_and(|secret| holds(secret, value))
            {
                found.add(name);
            }
        }
        Value::Array(values) => {
            // A pair; two names are a list of variables.
            if let [Value::String(name), value] = values.as_slice()
                && !value.as_str().is_some_and(is_variable)
                && secret(name).is_some_and(|secret| holds(secret, value))
            {
                found.add(name);
            }
            for value in values {
                variables(value, nested, found);
            }
        }
        Value::String(text) => {
            if text.starts_with(['{', '['])
                && nested < NESTED_MAX
                && let Ok(json) = serde_json::from_str::<Value>(text)
            {
                variables(&json, nested + 1, found);
            } else if text.contains('=') {
                assignments::find(text.as_bytes(), Around::Anything, found);
            }
        }
        _ => {}
    }
}

/// Whether a value, or one of a list, can be a secret.
fn holds(secret: Secret, value: &Value) -> bool {
    match value {
        Value::String(value) => is_value(secret, value),
        Value::Number(value) => secret == Secret::Password && is_value(secret, &value.to_string()),
        Value::Array(values) => {
            values.iter().any(|value| value.as_str().is_some_and(|value| is_value(secret, value)))
        }
        _ => false,
    }
}

/// The logins that Docker keeps under `auths`.
fn logins(registries: &Value, found: &mut Found) {
    const FIELDS: [&str; 4] = ["auth", "identitytoken", "registrytoken", "password"];
    for registry in registries.as_object().into_iter().flat_map(|registries| registries.values()) {
        let has =
            |field: &&str| registry.get(field).and_then(Value::as_str).is_some_and(|value| value.len() > 3);
        if FIELDS.iter().any(has) {
            found.add("a login of a registry");
        }
    }
}

/// Whether a value is a name and a password as Docker keeps them.
fn is_login(value: &Value) -> bool {
    let decoded = value.as_str().and_then(|value| STANDARD.decode(value).ok());
    decoded.is_some_and(|login| login.len() > 2 && login.is_ascii() && login.contains(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, kind: Text) -> Vec<String> {
        let mut found = Found::default();
        found_in(text.as_bytes(), kind, true, &mut found);
        found.names
    }

    #[test]
    fn secrets_and_what_only_looks_like_one() {
        for (text, expected) in [
            (
                r#"{"env": {"VLLM_API_KEY": "abcdef", "S3_ACCESS_KEY_ID": null, "X": 1}}"#,
                &["VLLM_API_KEY"][..],
            ),
            (r#"{"env": {"VLLM_API_KEY": null, "HF_TOKEN": ""}}"#, &[]),
            (r#"{"VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD": 256, "VLLM_MAX_TOKENS": "256"}"#, &[]),
            (r#"{"HF_TOKEN_PATH": "/root/.cache/token"}"#, &[]),
            (r#"[[{"a": {"MY_SECRET": "hunter22"}}]]"#, &["MY_SECRET"]),
            (r#"{"VLLM_API_KEY": ["abcdef"]}"#, &["VLLM_API_KEY"]),
            (r#"[["HF_TOKEN", "abcdef"], ["X", "y"]]"#, &["HF_TOKEN"]),
            (r#"["HF_TOKEN", "VLLM_API_KEY"]"#, &[]),
            (r#"[{"name": "HF_TOKEN", "value": "abcdef"}]"#, &["HF_TOKEN"]),
            (
                r#"[{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf-secret", "key": "token"}}}]"#,
                &[],
            ),
            (r#"{"environ": "X=1\nHF_TOKEN=abcdef\nY=2"}"#, &["HF_TOKEN"]),
            (r#"["HF_TOKEN=abcdef"]"#, &["HF_TOKEN"]),
            (r#"{"a": "{\"HF_TOKEN\": \"abcdef\"}"}"#, &["HF_TOKEN"]),
            (
                r#"{"password": 12345678, "api_key": 12345678, "DB_PASS": "12345678"}"#,
                &["DB_PASS", "password"],
            ),
            (r#"{"auths": {"ghcr.io": {"auth": "bWU6cHc="}}}"#, &["a login of a registry"]),
            (r#"{"https://index.docker.io/v1/": {"auth": "bWU6cHc="}}"#, &["a login of a registry"]),
            (r#"{"auth": "required", "pad_token": "<pad>", "post_grad_custom_post_pass": "a.b.c"}"#, &[]),
            ("HF_TOKEN=abcdef", &["HF_TOKEN"]),
        ] {
            let mut names = found(text, Text::Settings);
            names.sort();
            names.dedup();
            assert_eq!(names, expected, "{text}");
        }
        let token = "HF_TOKEN=abcdef";
        assert_eq!(found(token, Text::Code), [] as [&str; 0]);
        assert_eq!(found(&format!("\0{token}\0password=abcdef"), Text::Unknown), ["HF_TOKEN"]);
        assert_eq!(found(&"[".repeat(500_000), Text::Settings), [] as [&str; 0]);
        let lines: Vec<String> = (0..1000).map(|number| format!("A{number}_TOKEN=abcdef")).collect();
        let many = lines.join("\n");
        assert_eq!(found(&many, Text::Settings).len(), Found::MAX);
    }
}
