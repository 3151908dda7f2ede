//! Blobs from a registry, whole or in ranges; a read that breaks off goes on where it broke. Must not know what the
//! bytes mean.

use std::{
    io::{self, Read, Write},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use oci_client::Reference;
use reqwest::{Method, StatusCode, header::RANGE};
use sha2::{Digest as _, Sha256};

use super::{
    Registry,
    error::{Context, RegistryError},
    exchange::{Answer, Ask, io_error},
    failure::Failure,
    retry::{PROGRESS_MIN, Tries},
    session::Session,
};
use crate::{
    blob::{BlobContent, RangeSource},
    digest::Digest,
};

/// How far into a blob a range that is read by itself may begin, in bytes, to be cut out of a whole-blob answer.
/// Registries that ignore Range requests stay usable for small blobs, and no read costs more than this. A blob that is
/// read to its end has no such limit: what is skipped there comes once for each break, and not for each read.
const SKIP_MAX: u64 = 16 << 20;

/// One blob of a registry, read by HTTP Range requests. Cheap to clone.
#[derive(Clone)]
pub struct BlobSource {
    pub(super) registry: Registry,
    pub(super) reference: Reference,
    pub(super) digest: Digest,
    /// In bytes.
    pub(super) size: u64,
}

/// The bytes of a blob from some place to another, in pieces, across broken connections.
struct Stream {
    session: Arc<Session>,
    context: Context,
    reference: Reference,
    digest: Digest,
    /// Of the blob, in bytes.
    size: u64,
    /// Next byte of the blob that is wanted.
    position: u64,
    /// Byte behind the last one that is wanted.
    end: u64,
    /// How far tries came that counted as progress.
    most: u64,
    /// Whether this is one read of many, of a range. A range is asked for then though it is the whole blob: what reads
    /// ranges is not to depend on chance.
    ranged: bool,
    /// Bytes that the answer in progress sends before the wanted ones.
    skip: u64,
    answer: Option<Answer>,
    tries: Tries,
}

impl Stream {
    fn new(source: &BlobSource, session: Arc<Session>, context: Context, start: u64, end: u64) -> Self {
        let tries = session.host().tries();
        Self {
            session,
            context,
            reference: source.reference.clone(),
            digest: source.digest,
            size: source.size,
            position: start,
            end,
            most: start,
            ranged: false,
            skip: 0,
            answer: None,
            tries,
        }
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while self.position < self.end {
            match self.piece().await {
                Ok(piece) => {
                    self.position += piece.len() as u64;
                    if self.position >= self.most + PROGRESS_MIN {
                        self.most = self.position;
                        self.tries.moved();
                    }
                    if !piece.is_empty() {
                        return Ok(Some(piece));
                    }
                }
                Err(failure) => {
                    self.answer = None;
                    self.tries.wait(failure).await?;
                }
            }
        }
        Ok(None)
    }

    async fn piece(&mut self) -> Result<Bytes, Failure> {
        if self.answer.is_none() {
            self.answer = Some(self.open().await?);
        }
        let Some(answer) = &mut self.answer else { return Ok(Bytes::new()) };
        let Some(mut piece) = answer.piece(&self.context).await? else {
            return Err(Failure::passing(self.context.size_mismatch(self.size, self.position)));
        };
        let skipped = self.skip.min(piece.len() as u64);
        self.skip -= skipped;
        let _ = piece.split_to(usize::try_from(skipped).unwrap_or(piece.len()));
        let left = self.end - self.position;
        if piece.len() as u64 > left {
            // More than was asked for means another blob, unless the server sends all of it whatever is asked.
            if self.end == self.size {
                let actual = self.position + piece.len() as u64;
                return Err(Failure::fatal(self.context.size_mismatch(self.size, actual)));
            }
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        Ok(piece)
    }

    async fn open(&mut self) -> Result<Answer, Failure> {
        let path = format!("blobs/{}", self.digest);
        let url = self.session.url(&path, &self.context).await.map_err(Failure::fatal)?;
        let mut ask = Ask::new(Method::GET, url).scopes(self.session.pull_scopes());
        let is_whole = self.position == 0 && self.end == self.size;
        if self.ranged || !is_whole {
            ask = ask.header(RANGE, &format!("bytes={}-{}", self.position, self.end - 1));
        }
        let answer = self.session.host().once(&ask, &self.context).await?;
        let announced = answer.length();
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            self.skip = 0;
            let wanted = self.end - self.position;
            // Checked before any byte is read: this is another range than the one asked for.
            if let Some(announced) = announced.filter(|announced| *announced != wanted) {
                return Err(Failure::fatal(self.context.size_mismatch(wanted, announced)));
            }
            let interval = answer.header("content-range").and_then(interval);
            let total = answer.header("content-range").and_then(total);
            if let Some(total) = total.filter(|total| *total != self.size) {
                return Err(Failure::fatal(self.context.size_mismatch(self.size, total)));
            }
            if let Some((start, _)) = interval.filter(|(start, _)| *start != self.position) {
                let message =
                    format!("it sent the bytes from {start} when asked for those from {}", self.position);
                return Err(Failure::fatal(self.context.protocol(message)));
            }
            return Ok(answer);
        }
        if let Some(announced) = announced.filter(|announced| *announced != self.size) {
            return Err(Failure::fatal(self.context.size_mismatch(self.size, announced)));
        }
        if self.ranged && self.end > SKIP_MAX && self.position > 0 {
            return Err(Failure::fatal(RegistryError::RangeIgnored {
                reference: self.reference.whole().into(),
                digest: self.digest,
                offset: self.position,
                length: usize::try_from(self.end - self.position).unwrap_or(usize::MAX),
            }));
        }
        if self.ranged
            && self.position > 0
            && !self.session.host().ignores_ranges.swap(true, Ordering::Relaxed)
        {
            let registry = self.session.registry();
            tracing::warn!(
                "{registry} ignores requests for ranges: nodes will have to pull whole images from it"
            );
        }
        self.skip = self.position;
        Ok(answer)
    }
}

/// The first and the last byte that a `Content-Range` speaks of.
pub(super) fn interval(text: &str) -> Option<(u64, u64)> {
    let (first, rest) = text.trim().strip_prefix("bytes")?.trim_start().split_once('-')?;
    Some((first.parse().ok()?, rest.split('/').next()?.trim_end().parse().ok()?))
}

/// The size of the whole that a `Content-Range` speaks of, where it says one.
fn total(text: &str) -> Option<u64> {
    text.rsplit_once('/')?.1.trim().parse().ok()
}

impl BlobSource {
    /// Digest of the blob. Ranges are not verified against it; their readers have to check what they read
    /// (eStargz has a digest for each chunk).
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Streams the blob to `sink`, which is written to on the calling thread.
    pub(super) fn copy_to(&self, sink: &mut (dyn Write + Send)) -> Result<(), RegistryError> {
        let session = self.registry.session(&self.reference)?;
        let context = session.context(&self.reference, format!("pull blob {}", self.digest));
        let sink_error = |source| RegistryError::Sink {
            reference: self.reference.whole().into(),
            digest: self.digest,
            source,
        };
        self.registry.run(async {
            let mut stream = Stream::new(self, session, context.clone(), 0, self.size);
            let mut hash = Sha256::new();
            while let Some(piece) = stream.next().await? {
                hash.update(&piece);
                sink.write_all(&piece).map_err(sink_error)?;
            }
            let actual = Digest::finish(hash);
            if actual != self.digest {
                return Err(context.digest_mismatch(self.digest.to_string(), actual.to_string()));
            }
            sink.flush().map_err(sink_error)
        })
    }

    /// The bytes from `start` to `end` as they arrive, asked for by one Range request, and by a further one each time that the
    /// connection breaks. Dropping the reader ends the request.
    ///
    /// # Errors
    /// The range is empty or reaches beyond the blob, or the registry cannot be talked to. Errors of reading wrap a
    /// [`RegistryError`].
    pub fn range(&self, start: u64, end: u64) -> io::Result<impl Read + Send + 'static> {
        if start >= end || end > self.size {
            let message =
                format!("bytes {start} to {end} are no part of the {} of blob {}", self.size, self.digest);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let session = self.registry.session(&self.reference).map_err(io_error)?;
        let action = format!("read bytes {start}-{} of blob {}", end - 1, self.digest);
        let context = session.context(&self.reference, action);
        let mut stream = Stream::new(self, session, context, start, end);
        stream.ranged = true;
        Ok(Reader { source: Arc::new(self.clone()), stream, piece: Bytes::new() })
    }

    async fn fetch(&self, offset: u64, length: usize) -> Result<Vec<u8>, RegistryError> {
        let session = self.registry.session(&self.reference)?;
        let end = offset.saturating_add(length as u64);
        let action = format!("read bytes {offset}-{} of blob {}", end - 1, self.digest);
        let context = session.context(&self.reference, action);
        let mut stream = Stream::new(self, session, context, offset, end);
        stream.ranged = true;
        let mut bytes = Vec::with_capacity(length);
        while let Some(piece) = stream.next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

impl RangeSource for BlobSource {
    fn size(&self) -> u64 {
        self.size
    }

    /// Errors wrap a [`RegistryError`].
    fn read_range(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{length} bytes from {offset} reach beyond the {} bytes of blob {}",
                    self.size, self.digest
                ),
            ));
        }
        if length == 0 {
            return Ok(Vec::new());
        }
        self.registry.run(self.fetch(offset, length)).map_err(io_error)
    }
}

/// A blob of one registry as the content of an upload to another: nothing of it touches a disk.
impl BlobContent for BlobSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn reader(self: Arc<Self>, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let session = self.registry.session(&self.reference).map_err(io_error)?;
        let context = session.context(&self.reference, format!("pull blob {}", self.digest));
        let stream = Stream::new(&self, session, context, offset, self.size);
        Ok(Box::new(Reader { source: self, stream, piece: Bytes::new() }))
    }
}

/// Reads a blob of a registry from some offset to its end.
struct Reader {
    source: Arc<BlobSource>,
    stream: Stream,
    piece: Bytes,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && !buffer.is_empty() {
            let stream = &mut self.stream;
            self.piece = self.source.registry.run(stream.next()).map_err(io_error)?.unwrap_or_default();
        }
        let count = self.piece.len().min(buffer.len());
        let (filled, _) = buffer.split_at_mut(count);
        filled.copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(interval("bytes 5-9/10"), Some((5, 9)));
        assert_eq!(interval(" bytes 0-9/*"), Some((0, 9)));
        assert_eq!(interval("bytes */10"), None);
        assert_eq!(interval("bytes 5-/10"), None);
        assert_eq!(interval("items 1-2"), None);
        assert_eq!(total("bytes 5-9/10"), Some(10));
        assert_eq!(total("bytes 5-9/*"), None);
    }
}
