//! A blob: bytes of known size and digest that can be produced again from any offset, and the sources
//! that ranges are read from. Must not know what the bytes mean.

pub mod extents;
mod file;
pub mod framing;
mod source;
mod spool;
mod stamp;

use std::{io, sync::Arc};

pub use self::{
    extents::{Extent, ExtentBlob},
    file::{FileBlob, FileRange},
    source::{OpenSource, Source, SourceError},
    spool::{Spool, Spooled},
    stamp::FileStamp,
};
use crate::digest::Digest;

/// A finished blob: its size and digest are known and its bytes can be read from any offset, as often
/// as a network needs, whether they lie in memory, in a file or are made again from source files.
pub trait BlobContent: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// SHA-256 of all bytes.
    fn digest(&self) -> Digest;

    /// A reader over the bytes from `offset` (bytes from the blob's start) to its end. Reading past the
    /// end yields nothing. A source file that changed since it was hashed is an error of the reader
    /// that names the file.
    fn reader(self: Arc<Self>, offset: u64) -> io::Result<Box<dyn io::Read + Send>>;
}

/// A place that ranges of one blob are read from: a file of a layout, or a registry's blob through HTTP
/// Range requests.
pub trait RangeSource: Send + Sync {
    /// Size of the blob in bytes.
    fn size(&self) -> u64;

    /// The `length` bytes from `offset`. Fewer than `length` bytes available is an error
    /// ([`io::ErrorKind::UnexpectedEof`]), never a short answer.
    fn read_range(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
}

/// A blob that is held in memory: an image's config or manifest, or a small layer.
#[derive(Debug, Clone)]
pub struct MemoryBlob {
    bytes: Arc<[u8]>,
    digest: Digest,
}

impl MemoryBlob {
    /// Takes the blob's bytes and computes their digest.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        Self { bytes, digest }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl BlobContent for MemoryBlob {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn reader(self: Arc<Self>, offset: u64) -> io::Result<Box<dyn io::Read + Send>> {
        let mut cursor = io::Cursor::new(Arc::clone(&self.bytes));
        cursor.set_position(offset.min(self.size()));
        Ok(Box::new(cursor))
    }
}
