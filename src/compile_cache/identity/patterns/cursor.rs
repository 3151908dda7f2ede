//! Reads plain text bit by bit. Must not know what it says.

/// A place in some bytes. Each step gives `None`, and stays, where something else stands there.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes that were read so far.
    pub(super) fn used(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Just that text.
    pub(super) fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.rest().starts_with(text).then(|| self.at += text.len())
    }

    /// The next bytes; `None` where there are fewer.
    pub(super) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.rest().get(..length)?;
        self.at += length;
        Some(bytes)
    }

    /// Printable text that ends before a byte which must come within `max` bytes.
    pub(super) fn until(&mut self, end: u8, max: usize) -> Option<&'a str> {
        let rest = self.rest();
        let length = rest.iter().take(max + 1).position(|byte| *byte == end)?;
        let text = &rest[..length];
        if text.is_empty() || !text.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return None;
        }
        self.at += length;
        std::str::from_utf8(text).ok()
    }

    /// Up to six digits behind which no digit stands.
    pub(super) fn number(&mut self) -> Option<&'a str> {
        let digits = self.rest().iter().take(7).take_while(|byte| byte.is_ascii_digit()).count();
        let more = self.rest().get(digits).is_none();
        if digits == 0 || digits > 6 || more {
            return None;
        }
        let text = std::str::from_utf8(&self.rest()[..digits]).ok()?;
        self.at += digits;
        Some(text)
    }

    /// The first two numbers of a version: `12.8`.
    pub(super) fn major_minor(&mut self) -> Option<String> {
        let major = self.number()?;
        self.literal(b".")?;
        let minor = self.number()?;
        Some(format!("{major}.{minor}"))
    }

    /// An architecture of CUDA without its `sm_`, up to the end of its line or a comma: `75`, `90a`.
    pub(super) fn sm(&mut self) -> Option<String> {
        let number = self.number().filter(|number| (2..=3).contains(&number.len()))?;
        let letter = if self.literal(b"a").is_some() {
            "a"
        } else if self.literal(b"f").is_some() {
            "f"
        } else {
            ""
        };
        matches!(self.rest().first(), Some(b'\n' | b'\r' | b',' | b' ')).then(|| format!("{number}{letter}"))
    }
}

/// Whether a text is a version as Python packages have them: `2.9.1+cu128`.
pub(in super::super) fn is_version(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-' | b'_');
    text.len() <= 60
        && text.contains('.')
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
        && text.bytes().all(known)
}
