//! Lines of a stream, none of them longer than what fits into memory comfortably. Must not know what they mean.

use std::io::{self, BufRead};

/// Longest line that is looked at; strace prints 32 bytes of a buffer unless it is asked for more.
pub(super) const LINE_MAX: usize = 256 << 10;

/// Reads lines.
pub(super) struct Lines<R> {
    stream: R,
    line: Vec<u8>,
    /// Lines so far.
    pub(super) count: u64,
    /// Lines that were longer than [`LINE_MAX`] and were left out.
    pub(super) overlong: u64,
    /// Why the stream ended early, in a compressed one that was cut off.
    pub(super) cut: Option<io::Error>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, line: Vec::new(), count: 0, overlong: 0, cut: None }
    }

    /// The next line without its end; `None` at the end of the stream.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            self.line.clear();
            let mut overlong = false;
            let mut some = false;
            loop {
                let buffer = match self.stream.fill_buf() {
                    Ok(buffer) => buffer,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    // What came before the damage is as good as any log that was cut off.
                    Err(error)
                        if self.count > 0
                            && matches!(
                                error.kind(),
                                io::ErrorKind::UnexpectedEof
                                    | io::ErrorKind::InvalidInput
                                    | io::ErrorKind::InvalidData
                            ) =>
                    {
                        self.cut = Some(error);
                        &[]
                    }
                    Err(error) => return Err(error),
                };
                if buffer.is_empty() {
                    break;
                }
                some = true;
                let end = buffer.iter().position(|byte| *byte == b'\n');
                let part = &buffer[..end.unwrap_or(buffer.len())];
                overlong |= self.line.len() + part.len() > LINE_MAX;
                if !overlong {
                    self.line.extend_from_slice(part);
                }
                let used = end.map_or(buffer.len(), |end| end + 1);
                self.stream.consume(used);
                if end.is_some() {
                    break;
                }
            }
            if !some {
                return Ok(None);
            }
            self.count += 1;
            if overlong {
                self.overlong += 1;
            } else {
                return Ok(Some(&self.line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn long_lines_are_left_out() {
        let text = format!("a\n{}\nb\n\nlast", "x".repeat(LINE_MAX + 1));
        let mut lines = Lines::new(BufReader::with_capacity(7, text.as_bytes()));
        let mut seen = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            seen.push(String::from_utf8(line.to_vec()).unwrap());
        }
        assert_eq!(seen, ["a", "b", "", "last"]);
        assert_eq!((lines.count, lines.overlong), (5, 1));
        assert!(lines.line.capacity() <= 2 * LINE_MAX);
    }
}
