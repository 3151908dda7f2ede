//! Passes a command's output through, unchanged and at once, and looks for a line in it.

use std::io::{self, Read, Write};

use regex::bytes::Regex;

/// Of a longer line only this much is looked at, in bytes.
const LINE_MAX: usize = 64 << 10;

/// Copies until the end, or until nobody reads; calls `found` with the first line that `pattern` matches.
pub(super) fn copy(mut from: impl Read, mut to: impl Write, pattern: &Regex, found: impl FnOnce(String)) {
    let mut lines = Lines::new(pattern);
    let mut found = Some(found);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        // When nobody reads our output, ending here tells the command in the usual way.
        if to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_err() {
            return;
        }
        if found.is_some()
            && let Some(line) = lines.push(&buffer[..length])
            && let Some(found) = found.take()
        {
            found(line);
        }
    }
    if let (Some(found), Some(line)) = (found, lines.end()) {
        found(line);
    }
}

/// Finds the first line that matches. A carriage return ends a line, too: progress bars write no other end.
struct Lines<'a> {
    pattern: &'a Regex,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(pattern: &'a Regex) -> Self {
        Self { pattern, line: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) -> Option<String> {
        for part in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, ends) = match part.split_last() {
                Some((b'\n' | b'\r', text)) => (text, true),
                _ => (part, false),
            };
            let room = LINE_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ends && let Some(line) = self.end() {
                return Some(line);
            }
        }
        None
    }

    fn end(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        self.pattern.is_match(&line).then(|| String::from_utf8_lossy(&line).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(input: &[u8], pattern: &str) -> (Vec<u8>, Option<String>) {
        let (mut output, mut line) = (Vec::new(), None);
        copy(input, &mut output, &Regex::new(pattern).unwrap(), |found| line = Some(found));
        (output, line)
    }

    #[test]
    fn copies_and_finds_the_first_line() {
        let text = b"one\nready 1\nready 2\nno end";
        assert_eq!(run(text, "^ready"), (text.to_vec(), Some("ready 1".to_owned())));
        assert_eq!(run(text, "no end$").1.as_deref(), Some("no end"));
        assert_eq!(run(b"50 %\r100 %\r", "^100").1.as_deref(), Some("100 %"));
        assert_eq!(run(b"one\ntwo", "onetwo").1, None);
        assert_eq!(run(b"\xff\xfe ready\n", "ready$").1.as_deref(), Some("\u{fffd}\u{fffd} ready"));
    }

    #[test]
    fn a_line_may_come_in_pieces_and_without_end() {
        let pattern = Regex::new("^ab+c$").unwrap();
        let mut lines = Lines::new(&pattern);
        assert_eq!(lines.push(b"x\na"), None);
        assert_eq!(lines.push(b"bb"), None);
        assert_eq!(lines.push(b"c\n").as_deref(), Some("abbc"));
        let mut lines = Lines::new(&pattern);
        assert_eq!(lines.push(&vec![b'a'; 10 * LINE_MAX]), None);
        assert_eq!(lines.line.len(), LINE_MAX);
    }
}
