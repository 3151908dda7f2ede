//! Finds short texts in streams of any length, with the bytes behind each. Memory is one window. Must not know what
//! the texts mean.

use std::io::{self, Read};

use regex::bytes::Regex;

/// Bytes behind a text that its reader can count on, unless the stream ends before.
pub(super) const CONTEXT: usize = 16 << 10;
/// Bytes that are looked at in one go.
pub(super) const WINDOW: usize = 1 << 20;

/// A text that was found.
pub(super) struct Hit<'a> {
    /// The text.
    pub(super) text: &'a [u8],
    /// What follows it, [`CONTEXT`] bytes at most.
    pub(super) behind: &'a [u8],
    /// Place of the text in the file in bytes.
    pub(super) offset: u64,
}

/// Looks for texts. Its window is kept from stream to stream.
pub(super) struct Scanner {
    texts: Option<Regex>,
    window: Vec<u8>,
}

impl Scanner {
    /// A scanner for texts, none of which may begin with another one or be longer than [`CONTEXT`].
    pub(super) fn new<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Self {
        let escaped: Vec<String> = texts.map(escape).collect();
        // A choice of plain texts: regex then looks for all of them at once.
        Self { texts: Regex::new(&format!("(?s-u){}", escaped.join("|"))).ok(), window: Vec::new() }
    }

    /// Hands over every text in a stream that begins `start` bytes into its file.
    pub(super) fn scan(
        &mut self,
        mut stream: impl Read,
        start: u64,
        mut found: impl FnMut(&Hit<'_>),
    ) -> io::Result<()> {
        let Some(texts) = &self.texts else { return Ok(()) };
        self.window.resize(WINDOW + CONTEXT, 0);
        let (mut offset, mut filled) = (start, 0);
        loop {
            let read = fill(&mut stream, &mut self.window[filled..])?;
            filled += read;
            let ended = filled < self.window.len();
            // Texts behind the limit might be cut off; they come first in the next window.
            let limit = if ended { filled } else { filled - CONTEXT };
            let window = &self.window[..filled];
            if !is_empty(window) {
                for hit in texts.find_iter(window).take_while(|hit| hit.start() < limit) {
                    found(&Hit {
                        text: hit.as_bytes(),
                        behind: &window[hit.end()..filled.min(hit.end() + CONTEXT)],
                        offset: offset + hit.start() as u64,
                    });
                }
            }
            if ended {
                return Ok(());
            }
            self.window.copy_within(limit..filled, 0);
            offset += limit as u64;
            filled -= limit;
        }
    }
}

/// Whether there is nothing but zeros: a hole of a sparse file.
fn is_empty(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first == 0 && bytes[1..] == bytes[..bytes.len() - 1])
}

/// Reads until the buffer is full or the stream ends; gives the bytes that were read.
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn escape(text: &[u8]) -> String {
    text.iter().fold(String::new(), |text, byte| text + &format!("\\x{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEEDLE: &[u8] = b"\x7fneedle(";

    /// Offsets of the needle, and how much was seen behind it.
    fn scan(stream: impl Read, start: u64) -> Vec<(u64, usize)> {
        let mut hits = Vec::new();
        let mut scanner = Scanner::new([NEEDLE, b"other"].into_iter());
        scanner
            .scan(stream, start, |hit| {
                assert_eq!(hit.text, NEEDLE);
                hits.push((hit.offset, hit.behind.len()));
            })
            .unwrap();
        hits
    }

    #[test]
    fn a_text_is_found_once_wherever_it_is() {
        let size = 2 * WINDOW + 2 * CONTEXT;
        for border in [WINDOW, WINDOW + CONTEXT, 2 * WINDOW, 2 * WINDOW + CONTEXT] {
            for at in border - NEEDLE.len() - 1..=border + 1 {
                let mut bytes = vec![b'.'; size];
                bytes[at..at + NEEDLE.len()].copy_from_slice(NEEDLE);
                let hits = scan(&bytes[..], 7);
                assert_eq!(hits.len(), 1, "at {at}");
                assert_eq!(hits[0].0, 7 + at as u64);
                let left = size - at - NEEDLE.len();
                assert!(hits[0].1 >= left.min(CONTEXT - NEEDLE.len()), "at {at}: {}", hits[0].1);
            }
        }
    }

    #[test]
    fn texts_at_the_ends_are_found() {
        let mut bytes = NEEDLE.to_vec();
        bytes.extend_from_slice(NEEDLE);
        assert_eq!(scan(&bytes[..], 0), [(0, NEEDLE.len()), (NEEDLE.len() as u64, 0)]);
        assert_eq!(scan(&bytes[..bytes.len() - 1], 0).len(), 1);
        assert_eq!(scan(&b""[..], 0), []);
        assert_eq!(scan(&b"\0"[..], 0), []);
    }

    /// Gives its bytes in small pieces.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(self.1).min(self.0.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_text_is_found_at_any_offset(
            at in 0..(WINDOW + 3 * CONTEXT),
            behind in 0..(2 * CONTEXT),
            fill in prop_oneof![Just(0_u8), Just(b'.'), Just(0x7f), Just(b'n')],
            piece in prop_oneof![Just(usize::MAX), 1_usize << 10..1 << 20],
        ) {
            let mut bytes = vec![fill; at];
            bytes.extend_from_slice(NEEDLE);
            bytes.resize(bytes.len() + behind, fill);
            let hits = scan(Trickle(&bytes, piece), 0);
            prop_assert_eq!(hits.len(), 1);
            prop_assert_eq!(hits[0].0, at as u64);
        }
    }
}
