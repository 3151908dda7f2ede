//! Pieces of a stream on their way between threads. A fixed number of buffers goes round, which bounds the memory. Must
//! not know what the bytes mean.

use std::{
    io::{self, BufRead, Read},
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

/// Bytes of a buffer: few enough to be in the processor's cache still when the next thread comes to them.
pub(super) const PIECE: usize = 256 << 10;

/// A fixed number of buffers.
pub(super) struct Pool {
    home: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
}

impl Pool {
    pub(super) fn new(count: usize) -> Self {
        let (home, free) = channel();
        for _ in 0..count {
            let _ = home.send(Vec::new());
        }
        Self { home, free }
    }

    /// A buffer of [`PIECE`] bytes, whatever they are; waits until one is free.
    pub(super) fn take(&self) -> Vec<u8> {
        // `home` lives as long as the pool, so the channel cannot be closed.
        let mut buffer = self.free.recv().unwrap_or_default();
        buffer.resize(PIECE, 0);
        buffer
    }

    /// The first `length` bytes of a buffer, to be shared.
    pub(super) fn share(&self, mut buffer: Vec<u8>, length: usize) -> Arc<Piece> {
        buffer.truncate(length);
        Arc::new(Piece { bytes: buffer, home: self.home.clone() })
    }
}

/// A piece that threads share; its memory goes back to the pool when the last is done with it.
pub(super) struct Piece {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A part of it; nothing where there is none such.
    pub(super) fn part(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // The pool may be gone already; then so may the memory be.
        let _ = self.home.send(std::mem::take(&mut self.bytes));
    }
}

/// Pieces from a thread as a stream.
pub(super) struct PieceReader {
    pieces: Receiver<Arc<Piece>>,
    current: Option<Arc<Piece>>,
    position: usize,
}

impl PieceReader {
    pub(super) fn new(pieces: Receiver<Arc<Piece>>) -> Self {
        Self { pieces, current: None, position: 0 }
    }

    /// The next piece, whole, of a stream that nothing was read of otherwise; `None` at its end.
    pub(super) fn next(&mut self) -> Option<Arc<Piece>> {
        self.pieces.recv().ok()
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for PieceReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|piece| self.position >= piece.bytes.len()) {
            self.current = self.pieces.recv().ok();
            self.position = 0;
        }
        let bytes = self.current.as_ref().map(|piece| piece.bytes()).unwrap_or_default();
        Ok(bytes.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.position = self.position.saturating_add(count);
    }
}
