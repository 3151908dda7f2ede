//! A body that is read by a thread of its own, so that whoever waits for it can stop waiting. Must not know what is read.

use std::{
    io::{self, Read},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

/// Bytes that are taken from a body at a time.
const STEP: usize = 128 << 10;

/// A body on its way. Dropping it ends the request as soon as something more comes; nobody waits for that.
pub(super) struct Pump(Receiver<io::Result<Vec<u8>>>);

impl Pump {
    /// Begins to read. Fails when there is no thread to be had.
    pub(super) fn start(mut body: Box<dyn Read + Send>) -> io::Result<Self> {
        // Nothing piles up: a piece is read when the one before it was taken.
        let (sender, pieces) = mpsc::sync_channel(0);
        // Not of a scope: a server that falls silent would keep the scope from ending.
        thread::Builder::new().name("replay-read".to_owned()).spawn(move || {
            let mut buffer = vec![0; STEP];
            loop {
                let piece = match body.read(&mut buffer) {
                    Ok(count) => Ok(buffer.get(..count).unwrap_or_default().to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let last = piece.as_ref().map_or(true, Vec::is_empty);
                if sender.send(piece).is_err() || last {
                    break;
                }
            }
        })?;
        Ok(Self(pieces))
    }

    /// The next bytes, none at the body's end; `None` when there are none within `patience`.
    pub(super) fn next(&self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        match self.0.recv_timeout(patience) {
            Ok(piece) => piece.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Ok(Some(Vec::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that says nothing before it is told to.
    struct Silent(Receiver<()>);

    impl Read for Silent {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(0)
        }
    }

    #[test]
    fn a_silent_body_holds_nobody() {
        let (end, silent) = mpsc::channel();
        let pump = Pump::start(Box::new(Silent(silent))).unwrap();
        assert_eq!(pump.next(Duration::from_millis(1)).unwrap(), None);
        drop(pump);
        drop(end);
    }

    #[test]
    fn all_bytes_come() {
        let bytes: Vec<u8> = (0..=255).cycle().take(3 * STEP + 1).collect();
        let pump = Pump::start(Box::new(io::Cursor::new(bytes.clone()))).unwrap();
        let mut found = Vec::new();
        while let Some(piece) = pump.next(Duration::MAX).unwrap().filter(|piece| !piece.is_empty()) {
            found.extend(piece);
        }
        assert_eq!(found, bytes);
    }
}
