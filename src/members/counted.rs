//! A stream that knows how far it was read, and why it failed. Must not know codecs.

use std::io::{self, BufRead, Read};

/// Counts what is consumed of a stream, and keeps its failure, which decoders wrap or swallow.
pub(super) struct Counted<R> {
    /// `None` while the stream is with another decoder, which is at its end then.
    input: Option<R>,
    position: u64,
    failure: Option<io::Error>,
}

impl<R> Counted<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input: Some(input), position: 0, failure: None }
    }

    /// Bytes that were consumed.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Why the stream failed, if it did; told once.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Says that it cannot be read on, for a reason that is not the stream's content.
    pub(super) fn fail(&mut self, cause: io::Error) -> io::Error {
        let told = io::Error::new(cause.kind(), cause.to_string());
        self.failure = Some(cause);
        told
    }

    /// Hands the stream on to another decoder; this one is at its end.
    pub(super) fn moved(&mut self) -> Self {
        Self { input: self.input.take(), position: self.position, failure: self.failure.take() }
    }
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let count = from.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(from) {
            *to = *from;
        }
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let Self { input, failure, .. } = self;
        let Some(input) = input else { return Ok(&[]) };
        loop {
            match input.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let told = io::Error::new(error.kind(), error.to_string());
                    *failure = Some(error);
                    return Err(told);
                }
            }
        }
        // What is there by now is given without reading.
        input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.position = self.position.saturating_add(count as u64);
        if let Some(input) = &mut self.input {
            input.consume(count);
        }
    }
}
