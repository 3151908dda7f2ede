//! Where a layer's bytes come from: a registry, request by request, or a file of a layout, as if it were one. Must not know
//! what is asked for, nor why.

use std::io::{self, Read};

use super::ranges::Span;
use crate::{
    blob::RangeSource,
    digest::Digest,
    oci::{ImageSource, OciError},
    registry::{BlobSource, Reference, Registry},
};

/// Bytes that are read of a file at a time.
const STEP: u64 = 256 << 10;

/// A blob that ranges are asked of.
pub(super) trait Wire: Send + Sync {
    /// Asks for the blob's size, as a mount does.
    fn ask_size(&self) -> io::Result<()>;

    /// Asks for a range; the reader ends with it, and dropping it ends the request.
    fn range(&self, span: Span) -> io::Result<Box<dyn Read + Send>>;
}

/// The image that is replayed.
#[derive(Clone, Copy)]
pub struct ReplayImage<'a> {
    /// Where its documents are.
    pub source: &'a dyn ImageSource,
    /// The registry that it lies in, where it does.
    pub registry: Option<(&'a Registry, &'a Reference)>,
}

impl<'a> ReplayImage<'a> {
    pub(super) fn wire(self, digest: Digest, size: u64) -> Result<Box<dyn Wire + 'a>, OciError> {
        Ok(match self.registry {
            Some((registry, reference)) => Box::new(RegistryWire {
                registry,
                reference,
                blob: registry.blob_source(reference, digest, size),
            }),
            None => Box::new(LocalWire(self.source.blob(digest, size)?.into())),
        })
    }
}

struct RegistryWire<'a> {
    registry: &'a Registry,
    reference: &'a Reference,
    blob: BlobSource,
}

impl Wire for RegistryWire<'_> {
    fn ask_size(&self) -> io::Result<()> {
        // Whatever the answer is, the ranges will tell whether the blob is there.
        self.registry.blob_exists(self.reference, self.blob.digest()).map(|_| ()).map_err(io::Error::other)
    }

    fn range(&self, span: Span) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.blob.range(span.start, span.end)?))
    }
}

struct LocalWire(std::sync::Arc<dyn RangeSource>);

impl Wire for LocalWire {
    fn ask_size(&self) -> io::Result<()> {
        Ok(())
    }

    fn range(&self, span: Span) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(LocalRange { source: std::sync::Arc::clone(&self.0), left: span }))
    }
}

struct LocalRange {
    source: std::sync::Arc<dyn RangeSource>,
    left: Span,
}

impl Read for LocalRange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left.len().min(STEP)).unwrap_or(0).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        let bytes = self.source.read_range(self.left.start, length)?;
        let (to, _) = buffer.split_at_mut(length);
        to.copy_from_slice(bytes.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?);
        self.left.start += length as u64;
        Ok(length)
    }
}
