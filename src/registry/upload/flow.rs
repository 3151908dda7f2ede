//! A part of a blob as a request's body: read while it is sent, watched so that a connection on which nothing moves
//! is given up. Must not know registries.

use std::{
    io::{self, Read},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    Stream,
    future::{Either, select},
    stream,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::super::PushEvent;
use crate::blob::BlobContent;

/// Bytes that are read and sent at a time.
const PIECE: usize = 256 << 10;
/// Pieces that wait between reader and network. With the one being read and the one being sent this bounds the memory
/// of an upload, whatever the blob's size.
const PIECES_AHEAD: usize = 4;
/// Registries read a blob again, or copy it, before they say that they stored it: bytes per second that they are
/// trusted to manage.
const COMMIT_RATE: u64 = 32 << 20;

/// How long a registry may take to store a blob of `size` bytes that it has received.
pub(super) fn commit_time(size: u64) -> Duration {
    Duration::from_secs(size / COMMIT_RATE)
}

/// The part of a blob that one request sends.
#[derive(Clone)]
pub(in crate::registry) struct Part {
    pub(super) content: Arc<dyn BlobContent>,
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Takes how many of the blob's bytes were sent so far.
    pub(super) events: mpsc::UnboundedSender<PushEvent>,
    /// The source's own error: the HTTP library wraps a body's error beyond recognition, so it travels beside.
    pub(super) failure: SourceFailure,
    /// How far into the blob bytes were handed to the network.
    pub(super) sent: Arc<AtomicU64>,
    /// Whether the network waits for the source: what stands still then is not the registry.
    pub(super) starving: Arc<AtomicBool>,
}

/// Where a source's error is put.
#[derive(Clone, Default)]
pub(super) struct SourceFailure(Arc<Mutex<Option<io::Error>>>);

/// A body, and what is needed to watch it.
pub(in crate::registry) struct Flow {
    body: reqwest::Body,
    sent: Arc<AtomicU64>,
    starving: Arc<AtomicBool>,
    end: u64,
    /// How long the server may take after the last byte, beside the limit for stalls.
    commit: Duration,
    /// Dropped with the flow, and with it the body: a connection that still takes bytes after the registry has
    /// answered would read the rest of a big blob for nobody.
    _stop: oneshot::Sender<()>,
}

impl SourceFailure {
    fn set(&self, error: io::Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Part {
    /// Begins to read the part.
    pub(super) fn flow(&self) -> Flow {
        let (stop, stopped) = oneshot::channel();
        let end = self.offset + self.length;
        self.sent.store(self.offset, Ordering::Relaxed);
        let commit = if end == self.content.size() { commit_time(end) } else { Duration::ZERO };
        Flow {
            body: reqwest::Body::wrap_stream(self.stream(stopped)),
            sent: Arc::clone(&self.sent),
            starving: Arc::clone(&self.starving),
            end,
            commit,
            _stop: stop,
        }
    }

    /// The part's bytes as a stream that ends with an error if they cannot be read in full, or once `stopped`
    /// resolves.
    fn stream(
        &self,
        stopped: oneshot::Receiver<()>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> + 'static {
        let (sender, pieces) = mpsc::channel::<io::Result<Bytes>>(PIECES_AHEAD);
        let part = self.clone();
        tokio::task::spawn_blocking(move || {
            // An error of `blocking_send` means that the body was dropped: nobody wants the rest.
            if let Err(error) = part.read(|piece| sender.blocking_send(Ok(piece)).is_ok()) {
                part.failure.set(error);
                sender.blocking_send(Err(abandoned())).ok();
            }
        });
        let part = self.clone();
        let end = self.offset + self.length;
        stream::unfold(Some((pieces, stopped, self.offset)), move |state| {
            let part = part.clone();
            async move {
                let (mut pieces, stopped, sent) = state?;
                part.starving.store(true, Ordering::Relaxed);
                let received = match select(Box::pin(pieces.recv()), stopped).await {
                    Either::Left(received) => Some(received),
                    Either::Right(_) => None,
                };
                part.starving.store(false, Ordering::Relaxed);
                let Some((next, stopped)) = received else { return Some((Err(abandoned()), None)) };
                match next {
                    Some(Ok(piece)) => {
                        let sent = sent + piece.len() as u64;
                        part.sent.store(sent, Ordering::Relaxed);
                        part.events.send(PushEvent::Progress(sent)).ok();
                        Some((Ok(piece), Some((pieces, stopped, sent))))
                    }
                    Some(Err(error)) => Some((Err(error), None)),
                    None if sent == end => None,
                    // The reader's thread is gone without a word: it panicked.
                    None => {
                        let read = format!("reading stopped after {sent} of {} bytes", part.content.size());
                        part.failure.set(io::Error::other(read));
                        Some((Err(abandoned()), None))
                    }
                }
            }
        })
    }

    /// Reads the part in pieces, as long as `send` wants them. More or fewer bytes than the blob's size are an error,
    /// and the piece that shows it is not sent.
    fn read(&self, mut send: impl FnMut(Bytes) -> bool) -> io::Result<()> {
        let size = self.content.size();
        let mut position = self.offset;
        let end = self.offset + self.length;
        let mut reader = Arc::clone(&self.content).reader(position)?;
        while position < end {
            let length = usize::try_from(end - position).unwrap_or(PIECE).min(PIECE);
            let mut piece = Vec::with_capacity(length);
            reader.by_ref().take(length as u64).read_to_end(&mut piece)?;
            position += piece.len() as u64;
            if piece.len() < length {
                let message = format!("it ended after {position} of {size} bytes");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            if position == size && reader.read(&mut [0])? > 0 {
                return Err(io::Error::other(format!("it goes on after its {size} bytes")));
            }
            if !send(Bytes::from(piece)) {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Flow {
    /// The body; an empty one when it is asked for again.
    pub(in crate::registry) fn take_body(&mut self) -> reqwest::Body {
        std::mem::take(&mut self.body)
    }

    /// Waits for the answer to the request that sends the body. `None` when nothing moved for `stall`.
    pub(in crate::registry) async fn watch<T>(
        self,
        answer: impl Future<Output = T>,
        stall: Duration,
    ) -> Option<T> {
        let mut answer = Box::pin(answer);
        loop {
            let before = self.sent.load(Ordering::Relaxed);
            let limit = if before == self.end { stall.saturating_add(self.commit) } else { stall };
            match timeout(limit, &mut answer).await {
                Ok(answer) => return Some(answer),
                // A source may have reasons to wait that are longer than any limit for stalls.
                Err(_) if self.starving.load(Ordering::Relaxed) => {}
                Err(_) if self.sent.load(Ordering::Relaxed) == before => return None,
                Err(_) => {}
            }
        }
    }
}

/// The error that makes the HTTP client drop the connection; nobody sees its text.
fn abandoned() -> io::Error {
    io::Error::other("upload abandoned")
}
