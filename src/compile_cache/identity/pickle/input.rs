//! The bytes of a pickle, in order, with their offsets. Must not know instructions.

use std::io::{self, BufRead};

/// A stream whose place is known.
pub(super) struct Input<R> {
    stream: R,
    offset: u64,
}

impl<R: BufRead> Input<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, offset: 0 }
    }

    /// Bytes that were used so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn byte(&mut self) -> io::Result<u8> {
        let byte = *self.fill()?.first().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.consume(1);
        Ok(byte)
    }

    /// A little-endian number of `width` bytes, eight at most.
    pub(super) fn number(&mut self, width: usize) -> io::Result<u64> {
        let mut number = 0;
        for place in 0..width {
            number |= u64::from(self.byte()?) << (8 * place);
        }
        Ok(number)
    }

    /// As many bytes; the caller bounds the length.
    pub(super) fn bytes(&mut self, length: u64) -> io::Result<Vec<u8>> {
        (0..length).map(|_| self.byte()).collect()
    }

    pub(super) fn skip(&mut self, length: u64) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let available = self.fill()?.len();
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let used = usize::try_from(left).unwrap_or(usize::MAX).min(available);
            self.consume(used);
            left -= used as u64;
        }
        Ok(())
    }

    /// A line without its end; of one longer than `kept` only the beginning.
    pub(super) fn line(&mut self, kept: u64) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                byte if (line.len() as u64) < kept => line.push(byte),
                _ => {}
            }
        }
    }

    fn fill(&mut self) -> io::Result<&[u8]> {
        while let Err(error) = self.stream.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        self.stream.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.stream.consume(length);
        self.offset += length as u64;
    }
}
