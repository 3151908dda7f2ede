//! Sending blobs: a seam that later strategies (retry, resume, chunks) fit into, and the one strategy
//! there is, a single streamed PUT. Must not know which blobs there are or why they are sent.

use std::{
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{
    Stream,
    future::{BoxFuture, Either, select},
    stream,
};
use oci_client::{Client, Reference, errors::OciDistributionError};
use tokio::sync::{mpsc, oneshot};

use super::error::{Context, RegistryError};
use crate::blob::BlobContent;

/// Bytes that are read and sent at a time.
const CHUNK: usize = 1 << 20;
/// Chunks that wait between reader and network. With the one being read and the one being sent this
/// bounds the memory of an upload to 4 MiB, however big the blob.
const CHUNKS_AHEAD: usize = 2;

/// One blob to be sent.
pub(super) struct Upload<'a> {
    /// A client that is logged in for pushing.
    pub(super) client: &'a Client,
    /// The repository to push to.
    pub(super) reference: &'a Reference,
    /// What errors have to tell.
    pub(super) context: &'a Context,
    /// The bytes.
    pub(super) content: Arc<dyn BlobContent>,
    /// Takes the number of bytes sent so far. A strategy that begins again may report less than before.
    pub(super) progress: mpsc::UnboundedSender<u64>,
}

/// A way to send a blob that the registry does not have.
pub(super) trait Uploader: Send + Sync {
    /// Sends the blob. When this returns without error, the registry has verified and stored it. Dropping
    /// the future abandons the upload.
    fn upload<'a>(&'a self, upload: Upload<'a>) -> BoxFuture<'a, Result<(), RegistryError>>;
}

/// Sends a blob with one PUT whose body is read while it is sent.
pub(super) struct SinglePut;

impl Uploader for SinglePut {
    fn upload<'a>(&'a self, upload: Upload<'a>) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move {
            let Upload { client, reference, context, content, progress } = upload;
            let (digest, size) = (content.digest(), content.size());
            let failure = Failure::default();
            // Dropped at the end of this block, and with it the body: a connection that still takes bytes
            // after the registry has answered would read the rest of a big blob for nobody.
            let (_stop, stopped) = oneshot::channel();
            let body = body(content, progress, failure.clone(), stopped);
            let name = digest.to_string();
            let sent = client.push_blob_stream(reference, body, &name, Some(size)).await;
            if let Some(source) = failure.take() {
                return Err(RegistryError::Source { reference: reference.whole().into(), digest, source });
            }
            match sent {
                Ok(_) => Ok(()),
                // Stored, but answered without a Location or with another success than 201.
                Err(
                    OciDistributionError::RegistryNoLocationError
                    | OciDistributionError::SpecViolationError(_),
                ) if client.blob_exists(reference, &name).await.unwrap_or(false) => Ok(()),
                Err(error) => Err(context.translate(error)),
            }
        })
    }
}

/// The reader's own error. The HTTP library wraps a body's error beyond recognition, so it travels beside
/// the body.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    fn set(&self, error: io::Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

type Chunk = Result<Bytes, OciDistributionError>;

/// The error that makes the HTTP client drop the connection; nobody sees its text.
fn abandoned() -> OciDistributionError {
    io::Error::other("upload abandoned").into()
}

/// The blob's bytes as a stream that ends with an error if the blob cannot be read in full, or once
/// `stopped` resolves.
fn body(
    content: Arc<dyn BlobContent>,
    progress: mpsc::UnboundedSender<u64>,
    failure: Failure,
    stopped: oneshot::Receiver<()>,
) -> impl Stream<Item = Chunk> + Send + 'static {
    let size = content.size();
    let (sender, chunks) = mpsc::channel::<Chunk>(CHUNKS_AHEAD);
    let reader_failure = failure.clone();
    tokio::task::spawn_blocking(move || {
        // An error of `blocking_send` means that the body was dropped: nobody wants the rest.
        if let Err(error) = read_chunks(content, |chunk| sender.blocking_send(Ok(chunk)).is_ok()) {
            reader_failure.set(error);
            sender.blocking_send(Err(abandoned())).ok();
        }
    });
    stream::unfold(Some((chunks, stopped, 0)), move |state| {
        let (progress, failure) = (progress.clone(), failure.clone());
        async move {
            let (mut chunks, stopped, sent) = state?;
            let (next, stopped) = {
                match select(Box::pin(chunks.recv()), stopped).await {
                    Either::Left((next, stopped)) => (next, stopped),
                    Either::Right(_) => return Some((Err(abandoned()), None)),
                }
            };
            match next {
                Some(Ok(chunk)) => {
                    let sent = sent + chunk.len() as u64;
                    progress.send(sent).ok();
                    Some((Ok(chunk), Some((chunks, stopped, sent))))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None if sent == size => None,
                // The reader's thread is gone without a word: it panicked.
                None => {
                    failure.set(io::Error::other(format!("reading stopped after {sent} of {size} bytes")));
                    Some((Err(abandoned()), None))
                }
            }
        }
    })
}

/// Reads all of a blob in chunks, as long as `send` wants them. More or fewer bytes than the blob's size
/// are an error, and the chunk that shows it is not sent.
fn read_chunks(content: Arc<dyn BlobContent>, mut send: impl FnMut(Bytes) -> bool) -> io::Result<()> {
    let size = content.size();
    let mut reader = content.reader(0)?;
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = Vec::with_capacity(length);
        reader.by_ref().take(length as u64).read_to_end(&mut chunk)?;
        if chunk.len() < length {
            let read = size - left + chunk.len() as u64;
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it ended after {read} of {size} bytes"),
            ));
        }
        left -= length as u64;
        if left == 0 && reader.read(&mut [0])? > 0 {
            return Err(io::Error::other(format!("it goes on after its {size} bytes")));
        }
        if !send(Bytes::from(chunk)) {
            return Ok(());
        }
    }
    Ok(())
}
