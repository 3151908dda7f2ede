//! One line of `strace -f -ttt -y`, taken apart. Must not know what calls mean.

/// A line that strace wrote.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The thread; 0 in a log without `-f`.
    pub(super) pid: u64,
    /// Microseconds since 1970.
    pub(super) at: u64,
    pub(super) what: What<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    /// A call, or the beginning of one that ends in [`UNFINISHED`]: its name and all that follows.
    Call { name: &'a str, text: &'a str },
    /// The rest of a call that another line began.
    Resumed { name: &'a str, text: &'a str },
    /// The thread is gone.
    Exit,
    /// A signal, or something new.
    Other,
}

/// What a call ends in when the line was interrupted by that of another thread.
pub(super) const UNFINISHED: &str = "<unfinished ...>";

/// A line, if strace wrote it.
pub(super) fn parse(line: &str) -> Option<Line<'_>> {
    let mut rest = line.trim_end();
    let mut pid = 0;
    if let Some(text) = rest.strip_prefix("[pid") {
        let (number, text) = text.split_once(']')?;
        pid = number.trim().parse().ok()?;
        rest = text.trim_start();
    } else {
        let (number, text) = rest.split_once(' ')?;
        if let Ok(number) = number.parse() {
            pid = number;
            rest = text.trim_start();
        }
    }
    let (time, rest) = rest.split_once(' ')?;
    let at = micros(time)?;
    let rest = rest.trim_start();
    let what = if rest.starts_with("+++") {
        What::Exit
    } else if let Some(resumed) = rest.strip_prefix("<... ") {
        let (name, text) = resumed.split_once(" resumed>")?;
        What::Resumed { name, text }
    } else {
        match rest.split_once('(') {
            Some((name, text)) if is_name(name) => What::Call { name, text },
            _ => What::Other,
        }
    };
    Some(Line { pid, at, what })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `1795227501.609152` in microseconds.
fn micros(time: &str) -> Option<u64> {
    let (seconds, fraction) = time.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let micros: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros)
}

/// A call with its arguments and what it returned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call<'a> {
    pub(super) arguments: Vec<&'a str>,
    pub(super) result: &'a str,
}

impl<'a> Call<'a> {
    /// From what follows the name and its parenthesis.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let mut arguments = Vec::new();
        let (mut start, mut at, mut depth) = (0, 0, 0_usize);
        loop {
            match *bytes.get(at)? {
                b'"' => at = after_string(bytes, at + 1)?,
                b'/' if bytes.get(at + 1) == Some(&b'*') => at += 2 + text.get(at + 2..)?.find("*/")? + 2,
                // A descriptor's path: it has no `>`, which strace escapes.
                b'<' if at > 0
                    && (bytes[at - 1].is_ascii_digit() || bytes[..at].ends_with(b"CWD"))
                    && bytes.get(at + 1) != Some(&b'<') =>
                {
                    at += text.get(at..)?.find('>')? + 1;
                }
                b'(' | b'[' | b'{' => {
                    depth += 1;
                    at += 1;
                }
                b')' if depth == 0 => break,
                b')' | b']' | b'}' => {
                    depth = depth.checked_sub(1)?;
                    at += 1;
                }
                b',' if depth == 0 => {
                    arguments.push(text.get(start..at)?.trim());
                    at += 1;
                    start = at;
                }
                _ => at += 1,
            }
        }
        arguments.push(text.get(start..at)?.trim());
        let result = text.get(at + 1..)?.trim_start().strip_prefix('=')?.trim();
        Some(Self { arguments, result })
    }

    pub(super) fn argument(&self, index: usize) -> &'a str {
        self.arguments.get(index).copied().unwrap_or_default()
    }

    /// What was returned, if it is a number that is not negative.
    pub(super) fn returned(&self) -> Option<u64> {
        number(self.result)
    }

    /// Whether the file was not there.
    pub(super) fn not_found(&self) -> bool {
        let error = self.result.strip_prefix("-1 ").unwrap_or_default();
        error.starts_with("ENOENT") || error.starts_with("ENOTDIR")
    }
}

/// The number that a text begins with.
pub(super) fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let end = digits.find(|letter: char| !letter.is_digit(radix)).unwrap_or(digits.len());
    u64::from_str_radix(&digits[..end], radix).ok()
}

/// The value of `name=` in a structure.
pub(super) fn member(text: &str, name: &str) -> Option<u64> {
    let at = text.find(name)?;
    number(text[at + name.len()..].strip_prefix('=')?)
}

/// A descriptor's number, `None` for the working directory, and the absolute path that it stands for.
pub(super) fn descriptor(text: &str) -> (Option<u64>, Option<String>) {
    let path = text.find('<').and_then(|start| {
        let text = &text[start + 1..];
        let end = text.rfind('>').filter(|end| *end > 0)?;
        // `-T` puts a time in angle brackets at the end of the line.
        let end = text[..end].find('>').unwrap_or(end);
        let path = text[..end].strip_suffix(" (deleted)").unwrap_or(&text[..end]);
        path.starts_with('/').then(|| unescaped(path.as_bytes()))?
    });
    (number(text), path)
}

/// The text of a quoted argument; `None` when it is none, was cut short, or is not UTF-8.
pub(super) fn string(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let end = after_string(bytes, 1).filter(|_| bytes.first() == Some(&b'"'))?;
    if text.get(end..)?.starts_with("...") {
        return None;
    }
    unescaped(bytes.get(1..end - 1)?)
}

/// The position after the quote that ends the string which goes on at `at`.
fn after_string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// A text without C's escapes; `None` when it is not UTF-8.
fn unescaped(bytes: &[u8]) -> Option<String> {
    if !bytes.contains(&b'\\') {
        return String::from_utf8(bytes.to_vec()).ok();
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first()?;
        rest = after;
        let radix = match escape {
            b'0'..=b'7' => 8,
            b'x' => 16,
            _ => {
                plain.push(match escape {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'v' => 0x0b,
                    b'f' => 0x0c,
                    other => other,
                });
                continue;
            }
        };
        // Octal begins with the digit itself, hexadecimal after the `x`.
        let (digits, most) = if radix == 8 { (&bytes[bytes.len() - rest.len() - 1..], 3) } else { (rest, 2) };
        let length = digits.iter().take(most).take_while(|digit| char::from(**digit).is_digit(radix)).count();
        let value = u32::from_str_radix(std::str::from_utf8(&digits[..length]).ok()?, radix).ok()?;
        plain.push(u8::try_from(value).ok()?);
        rest = &digits[length..];
    }
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(line: &str) -> (u64, u64, &str, Call<'_>) {
        let Some(Line { pid, at, what: What::Call { name, text } }) = parse(line) else { panic!("{line}") };
        (pid, at, name, Call::parse(text).unwrap())
    }

    #[test]
    fn lines_with_and_without_a_pid() {
        for (line, pid) in [
            ("12791 1795227501.609371 close(3) = 0", 12791),
            ("[pid    17] 1795227501.609371 close(3) = 0 <0.000012>", 17),
            ("1795227501.609371 close(3)                = 0", 0),
        ] {
            let (found, at, name, call) = call(line);
            assert_eq!((found, at, name), (pid, 1_795_227_501_609_371, "close"));
            assert_eq!((call.argument(0), call.returned()), ("3", Some(0)));
        }
        assert_eq!(parse("5 1.5 +++ exited with 0 +++").unwrap().what, What::Exit);
        let resumed = What::Resumed { name: "read", text: "\"\", 5) = 0" };
        assert_eq!(parse("5 1.5 <... read resumed>\"\", 5) = 0").unwrap().what, resumed);
        for garbage in
            ["", "x", "5", "5 6 7", "12:00:01 close(3) = 0", "1 99999999999999999999.0 close(3) = 0"]
        {
            assert_eq!(parse(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn arguments_are_split_where_they_end() {
        let (.., call) = call(
            r#"7 1.0 openat2(AT_FDCWD</a, (b)>, "x, \")\" y", {flags=O_RDONLY|1<<20, mode=0}, 24 /* ), */) = 3</x\40y> <0.1>"#,
        );
        assert_eq!(
            call.arguments,
            ["AT_FDCWD</a, (b)>", r#""x, \")\" y""#, "{flags=O_RDONLY|1<<20, mode=0}", "24 /* ), */"]
        );
        assert_eq!(descriptor(call.argument(0)), (None, Some("/a, (b)".to_owned())));
        assert_eq!(string(call.argument(1)).unwrap(), "x, \")\" y");
        assert_eq!(descriptor(call.result), (Some(3), Some("/x y".to_owned())));
        assert_eq!(descriptor("4</a (deleted)>"), (Some(4), Some("/a".to_owned())));
        assert_eq!(descriptor("4</a>(deleted)"), (Some(4), Some("/a".to_owned())));
        assert_eq!(descriptor("4<socket:[1]>"), (Some(4), None));
        assert_eq!(descriptor("4"), (Some(4), None));
    }

    #[test]
    fn escapes_are_undone() {
        for (text, expected) in [
            (r#""a\tb\\\"""#, Some("a\tb\\\"")),
            (r#""\303\251\x41\618""#, Some("éA18")),
            (r#""\377""#, None),
            (r#""a"..."#, None),
            (r#""a"#, None),
            ("a", None),
        ] {
            assert_eq!(string(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in r#"([0-9]{1,3} )?([0-9]{1,2}\.[0-9]{1,2} )?[a-z]{0,3}[\[(<>){}"\\=, /*0-9xAT_é-]{0,40}"#) {
            if let Some(Line { what: What::Call { text, .. }, .. }) = parse(&text)
                && let Some(call) = Call::parse(text)
            {
                call.returned();
                for argument in call.arguments.iter().chain([&call.result]) {
                    descriptor(argument);
                    string(argument);
                    member(argument, "x");
                }
            }
            descriptor(&text);
            string(&text);
        }
    }
}
