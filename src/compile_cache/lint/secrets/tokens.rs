//! What tokens look like, whatever they are called. Must not know files.

use std::{borrow::Cow, sync::LazyLock};

use regex::bytes::Regex;

/// Looks of tokens, and whether they are so telling that they are looked for among binary code too: there, bytes that
/// only look like a short or loose form are common.
#[rustfmt::skip]
const TOKENS: [(&str, bool, &str); 14] = [
    ("a token of Hugging Face", true, r"\bhf_[A-Za-z0-9]{30,}"),
    ("a token of GitHub", true, r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50,})"),
    ("a token of GitLab", true, r"\bglpat-[A-Za-z0-9_-]{20}"),
    // No boundary behind it: in a pickle, an instruction that is a letter may follow.
    ("an access key of AWS", true, r"\b(?:AKIA|ASIA)[0-9A-Z]{16}"),
    ("an API key", false, r"\bsk-[A-Za-z0-9_-]{32,}"),
    ("an API key of NVIDIA", true, r"\bnvapi-[A-Za-z0-9_-]{40,}"),
    ("an API key of Google", false, r"\bAIza[A-Za-z0-9_-]{35}"),
    ("a token of Slack", false, r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}"),
    ("a JSON web token", false, r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    ("a private key", false, r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY"),
    // Not what stands for a password: `{password}`, `<password>`, `$PASSWORD`, `%s`, `***`.
    ("a password in a URL", false, r"\b[a-z][a-z0-9+.-]{1,15}://[^\s/:@'\x22]{0,64}:(?:[^\s/:@'\x22{<$%*]|%[0-9A-Fa-f]{2})[^\s/:@'\x22{}<>]{0,128}@"),
    ("a header with authorization", false, r"(?:\bA|\ba|\bPROXY_A|\bHTTP_A)(?i:uthorization)[\x22'\\]{0,2}[ \t]{0,8}[:=,][ \t]{0,8}[\x22'\\]{0,2}(?i:bearer|basic|token)[ \t]{1,8}[A-Za-z0-9._~+/=-]{8,}"),
    ("a password of .netrc", false, r"\bmachine\s{1,8}\S{1,255}\s{1,8}(?:(?:login|account)\s{1,8}\S{1,255}\s{1,8}){0,2}password\s{1,8}\S"),
    ("a password of .netrc", false, r"\bdefault\s{1,8}login\s{1,8}\S{1,255}\s{1,8}password\s{1,8}\S"),
];

struct Token {
    what: &'static str,
    in_binaries: bool,
    pattern: Regex,
}

static PATTERNS: LazyLock<Vec<Token>> = LazyLock::new(|| {
    let compiled = |&(what, in_binaries, pattern): &(&'static str, bool, &str)| {
        let pattern = Regex::new(&format!("(?-u){pattern}")).ok()?;
        Some(Token { what, in_binaries, pattern })
    };
    TOKENS.iter().filter_map(compiled).collect()
});

/// A password in a file that is called `.netrc`, whose lines may be cut up.
static NETRC: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?-u)(?:^|\s)password\s{1,8}[^\s#]").ok());

/// What tokens a text looks like it has.
pub(super) fn in_text(content: &[u8]) -> impl Iterator<Item = &'static str> {
    PATTERNS.iter().filter(|token| token.pattern.is_match(content)).map(|token| token.what)
}

/// What tokens stand between other bytes.
pub(super) fn in_binary(content: &[u8]) -> impl Iterator<Item = &'static str> {
    let telling = PATTERNS.iter().filter(|token| token.in_binaries);
    telling.filter(|token| token.pattern.is_match(content)).map(|token| token.what)
}

/// Whether a file called `.netrc` has a password.
pub(super) fn is_netrc(content: &[u8]) -> bool {
    NETRC.iter().any(|pattern| pattern.is_match(content))
}

/// The text without what looks like a token.
pub(super) fn redacted(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for token in PATTERNS.iter() {
        if token.pattern.is_match(text.as_bytes()) {
            let bytes = token.pattern.replace_all(text.as_bytes(), &b"[secret]"[..]).into_owned();
            text = Cow::Owned(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(PATTERNS.len(), TOKENS.len());
        assert!(NETRC.is_some());
    }

    #[test]
    fn tokens_and_what_only_looks_like_one() {
        let long = "a1".repeat(20);
        for (text, expected) in [
            (format!("x hf_{long} y"), Some("a token of Hugging Face")),
            ("hf_config hf_overrides".to_owned(), None),
            ("AKIAABCDEFGHIJKLMNOP".to_owned(), Some("an access key of AWS")),
            ("-----BEGIN RSA PRIVATE KEY-----".to_owned(), Some("a private key")),
            ("https://user:hunter2@host/x".to_owned(), Some("a password in a URL")),
            ("redis://:pw@host".to_owned(), Some("a password in a URL")),
            ("https://host:8000/x@y".to_owned(), None),
            ("https://{user}:{password}@host https://u:$PW@h https://u:***@h http://u:%s@h".to_owned(), None),
            (format!("ghp_{}", "a".repeat(36)), Some("a token of GitHub")),
            ("Authorization: Bearer abcdef123456".to_owned(), Some("a header with authorization")),
            (r#"{"authorization": "Basic dXNlcjpwYXNz"}"#.to_owned(), Some("a header with authorization")),
            ("Authorization: Bearer $TOKEN, Authorization: Bearer {token}".to_owned(), None),
            (r#"{"Authorization": "Bearer " + token}"#.to_owned(), None),
            ("machine h\n login me\n password xyz\n".to_owned(), Some("a password of .netrc")),
            ("log in with your password please".to_owned(), None),
        ] {
            assert_eq!(in_text(text.as_bytes()).next(), expected, "{text}");
        }
        let token = format!("\u{1}%\0hf_{long}\0q");
        assert_eq!(in_binary(token.as_bytes()).next(), Some("a token of Hugging Face"));
        assert_eq!(in_binary(b"redis://:pw@host\0-----BEGIN RSA PRIVATE KEY").next(), None);
        assert_eq!(in_binary(format!("sk-{long}").as_bytes()).next(), None);
        assert!(is_netrc(b"password xyz") && !is_netrc(b"passwords"));
    }

    #[test]
    fn redaction() {
        assert_eq!(redacted("a/b.py"), "a/b.py");
        let path = format!("a/hf_{}/b", "c".repeat(34));
        assert_eq!(redacted(&path), "a/[secret]/b");
    }
}
