//! Lines that give a variable a value: `NAME=value`, `name: value`, `"NAME": "value"` and what Python writes. A scanner
//! by hand, because a pattern with as many forms takes seconds for what one may be given. Must not know files.

use super::{
    Found,
    names::{NAME_MAX, Secret, is_value, is_variable, secret},
};

/// What may stand around assignments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Around {
    /// Lines of settings: any name, with whatever is between `=` or `:` and the end.
    Settings,
    /// Anything: only capitals are names, before `=`.
    Anything,
    /// A program: only texts are values.
    Code,
}

/// Longest value that is looked at.
const VALUE_MAX: usize = 4096;
/// Most blanks on either side of the sign between name and value.
const BLANKS_MAX: usize = 8;

/// Adds the names of variables that get a secret.
pub(super) fn find(content: &[u8], around: Around, found: &mut Found) {
    // The secret that the line `name: HF_TOKEN` before this one was about.
    let mut named: Option<(String, Secret)> = None;
    for (at, &sign) in content.iter().enumerate() {
        let between = match sign {
            b'=' => true,
            b':' => around != Around::Anything,
            b',' => around == Around::Code,
            _ => false,
        };
        if !between || is_operator(content, at) {
            continue;
        }
        let Some(value) = value(content, at + 1) else { continue };
        let Some(name) = name(content, at, around) else { continue };
        if found.is_full() {
            return;
        }
        let Ok(text) = str::from_utf8(name.text) else { continue };
        let value_text = || String::from_utf8_lossy(value.text);
        if around == Around::Settings && sign == b':' && text.eq_ignore_ascii_case("name") {
            named = secret(&value_text()).map(|secret| (value_text().into_owned(), secret));
        } else if let Some((name, secret)) =
            named.take_if(|_| sign == b':' && text.eq_ignore_ascii_case("value"))
        {
            if is_value(secret, &value_text()) {
                found.add(&name);
            }
        } else if let Some(secret) = secret(text)
            && is_assignment(content, sign, around, &name, &value)
            && is_value(secret, &value_text())
        {
            found.add(text);
        }
    }
}

/// Whether what has a name and a value is one where it stands, and not a sentence, a comparison or a parameter.
fn is_assignment(content: &[u8], sign: u8, around: Around, name: &Name<'_>, value: &Value<'_>) -> bool {
    let shouted = !name.text.iter().any(u8::is_ascii_lowercase);
    // Where a line may begin an assignment, nothing else stands before it.
    let before = &content[content[..name.start]
        .iter()
        .rev()
        .take(NAME_MAX)
        .position(|&byte| byte == b'\n')
        .map_or(0, |back| name.start - back)..name.start];
    let begins = before.iter().all(|byte| b" \t-\"'".contains(byte))
        || [&b"export "[..], b"set ", b"ENV ", b"declare -x "].iter().any(|word| before.ends_with(word));
    match around {
        Around::Anything => shouted,
        Around::Settings if shouted => true,
        Around::Settings => {
            let plain =
                value.quoted || (value.ends_line && !value.text.iter().any(|byte| b"()[]{}".contains(byte)));
            name.quoted || (plain && (begins || before.ends_with(b"--")))
        }
        Around::Code => {
            let call = [&b"setdefault("[..], b"putenv(", b"setenv("];
            let form = match sign {
                b',' => name.quoted && call.iter().any(|call| before.ends_with(call)),
                b':' => name.quoted && !name.bracketed,
                _ => name.bracketed || (!name.quoted && begins),
            };
            let text = String::from_utf8_lossy(value.text);
            form && shouted && value.quoted && !is_variable(&text) && !text.contains(char::is_whitespace)
        }
    }
}

/// Whether the sign is part of a longer one.
fn is_operator(content: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| content[before]);
    let after = content.get(at + 1).copied();
    match content[at] {
        b'=' => after == Some(b'=') || before.is_some_and(|before| b"=!<>".contains(&before)),
        b':' => before == Some(b':') || after.is_some_and(|after| b":=-".contains(&after)),
        _ => false,
    }
}

struct Name<'a> {
    text: &'a [u8],
    /// Where it begins, its quote included.
    start: usize,
    quoted: bool,
    /// Whether it stands as `["NAME"]`.
    bracketed: bool,
}

/// The name before the sign at `at`.
fn name(content: &[u8], at: usize, around: Around) -> Option<Name<'_>> {
    let mut end = at;
    let last = |end: usize| end.checked_sub(1).map(|last| content[last]);
    // `:=`
    if content[at] == b'=' && last(end) == Some(b':') {
        end -= 1;
    }
    let first = end.saturating_sub(BLANKS_MAX);
    while end > first && matches!(last(end), Some(b' ' | b'\t')) {
        end -= 1;
    }
    let bracketed = around == Around::Code && last(end) == Some(b']');
    end -= usize::from(bracketed);
    let quoted = matches!(last(end), Some(b'"' | b'\''));
    end -= usize::from(quoted);
    // A quote within a text.
    if quoted && last(end) == Some(b'\\') {
        end -= 1;
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let mut start = end;
    while start > 0 && end - start <= NAME_MAX && is_name(content[start - 1]) {
        start -= 1;
    }
    // Dashes before an option.
    while start < end && matches!(content[start], b'-' | b'.') {
        start += 1;
    }
    // `${NAME:-value}`
    let expanded = content[..start].ends_with(b"${");
    let text = &content[start..end];
    let good = (3..=NAME_MAX).contains(&text.len()) && !text[0].is_ascii_digit() && !expanded;
    good.then(|| Name { text, start: start - usize::from(quoted && start > 0), quoted, bracketed })
}

struct Value<'a> {
    text: &'a [u8],
    quoted: bool,
    /// Whether the line ends behind it, or what follows is a remark.
    ends_line: bool,
}

/// The value that begins behind the sign; `None` when there is none.
fn value(content: &[u8], from: usize) -> Option<Value<'_>> {
    let rest = content.get(from..)?;
    let rest = &rest[..rest.len().min(VALUE_MAX)];
    let mut start = rest.iter().take(BLANKS_MAX).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    // The first of a list.
    if rest.get(start) == Some(&b'[') && matches!(rest.get(start + 1), Some(b'"' | b'\'')) {
        start += 1;
    }
    let escaped = rest.get(start) == Some(&b'\\') && matches!(rest.get(start + 1), Some(b'"'));
    start += usize::from(escaped);
    let rest = &rest[start..];
    let quote = *rest.first()?;
    let quoted = matches!(quote, b'"' | b'\'');
    let text = &rest[usize::from(quoted)..];
    let ends = |byte: u8| {
        if quoted {
            byte == quote || byte == b'\n' || byte == 0 || (escaped && byte == b'\\')
        } else {
            byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b',' | b'}' | 0)
        }
    };
    let length = text.iter().position(|&byte| ends(byte)).unwrap_or(text.len());
    let after = text[length..].iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
    let ends_line = matches!(after, None | Some(b'\n' | b'#' | b';'));
    (length > 2).then_some(Value { text: &text[..length], quoted, ends_line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, around: Around) -> Vec<String> {
        let mut found = Found::default();
        find(text.as_bytes(), around, &mut found);
        found.names
    }

    #[test]
    fn settings() {
        for (text, expected) in [
            ("x = 1\nHF_TOKEN=abcdefgh\n", &["HF_TOKEN"][..]),
            ("declare -x AWS_SECRET_ACCESS_KEY=\"abc def\"", &["AWS_SECRET_ACCESS_KEY"]),
            ("HF_TOKEN=\nPATH=/usr/bin\nHF_TOKEN=${OTHER}\nAPI_KEY=$(cat x)", &[]),
            ("password = hunter22", &["password"]),
            ("  api_key: abcdef # remark\nhf_token=abcdef\r\n", &["api_key", "hf_token"]),
            (
                "password: 'two words'\nDB_PASS=123456\nMYSQL_PWD=hunter22",
                &["password", "DB_PASS", "MYSQL_PWD"],
            ),
            ("--api-key=abcdef --x", &[]),
            ("export api_key=abcdef", &["api_key"]),
            ("the password: a word that nobody knows", &[]),
            ("password: a word that nobody knows", &[]),
            ("PWD=/root/x\nOLDPWD=/root\npad_token: <pad>", &[]),
            ("if password == 'abcdef': x", &[]),
            ("- name: HF_TOKEN\n  value: abcdef\n", &["HF_TOKEN"]),
            ("- name: HF_TOKEN\n  valueFrom: abcdef\n", &[]),
            (
                "{\"x\": {\"VLLM_API_KEY\": [\"abcdef\"], \"password\": \"abcdef\"}",
                &["VLLM_API_KEY", "password"],
            ),
            ("\"{\\\"HF_TOKEN\\\": \\\"abcdef\\\"}\"", &["HF_TOKEN"]),
        ] {
            assert_eq!(names(text, Around::Settings), expected, "{text}");
        }
        assert_eq!(names("a\0HF_TOKEN=abcdef\0b=c", Around::Anything), ["HF_TOKEN"]);
        assert_eq!(names("password=abcdef HF_TOKEN: abcdef", Around::Anything), [] as [&str; 0]);
    }

    #[test]
    fn code() {
        for text in [
            "os.environ[\"HF_TOKEN\"] = \"abcdef\"",
            "os.environ.setdefault('HF_TOKEN', 'abcdef')",
            "os.putenv(\"HF_TOKEN\", \"abcdef\")",
            "env = {\"HF_TOKEN\": \"abcdef\"}",
            "x\nHF_TOKEN = 'abcdef'\n",
        ] {
            assert_eq!(names(text, Around::Code), ["HF_TOKEN"], "{text}");
        }
        for text in [
            "os.environ.get('HF_TOKEN', 'abcdef')",
            "os.environ['HF_TOKEN'] = token",
            "ignored = ['HF_TOKEN', 'VLLM_API_KEY']",
            "HF_TOKEN = abcdef",
            "password = 'abcdef'",
            "HF_TOKEN == 'abcdef'",
            "{'HF_TOKEN': 'what the hub wants'}",
            "]= ''=]",
            "=",
        ] {
            assert_eq!(names(text, Around::Code), [] as [&str; 0], "{text}");
        }
    }
}
