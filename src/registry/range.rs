//! Range reads of a blob in a registry. Must not know what the bytes mean.

use std::io;

use futures_util::TryStreamExt;
use oci_client::{Reference, RegistryOperation, client::BlobResponse};

use super::{Registry, error::RegistryError};
use crate::{blob::RangeSource, digest::Digest};

/// How far into a blob a range may end, in bytes, to be cut out of a whole-blob answer. Registries that
/// ignore Range requests stay usable for small blobs, and no read costs more than this.
const SKIP_LIMIT: u64 = 16 << 20;

/// One blob of a registry, read by HTTP Range requests. Cheap to clone.
#[derive(Clone)]
pub struct BlobSource {
    pub(super) registry: Registry,
    pub(super) reference: Reference,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl BlobSource {
    /// Digest of the blob. Ranges are not verified against it; their readers have to check what they read
    /// (eStargz has a digest for each chunk).
    pub fn digest(&self) -> Digest {
        self.digest
    }

    async fn fetch(&self, offset: u64, length: usize) -> Result<Vec<u8>, RegistryError> {
        let Self { registry, reference, digest, size } = self;
        let session = registry.session(reference)?;
        let end = offset.saturating_add(length as u64);
        let context = session.context(reference, format!("read bytes {offset}-{} of blob {digest}", end - 1));
        session.login(reference, RegistryOperation::Pull, &context).await?;
        let name = digest.to_string();
        let response = session
            .client()
            .pull_blob_stream_partial(reference, name.as_str(), offset, Some(length as u64))
            .await
            .map_err(|error| context.translate(error))?;
        let (mut stream, mut skip) = match response {
            BlobResponse::Partial(stream) => {
                // Checked before any byte is read: this is another range than the one asked for.
                if let Some(announced) = stream.content_length.filter(|announced| *announced != length as u64)
                {
                    return Err(context.size_mismatch(length as u64, announced));
                }
                (stream, 0)
            }
            BlobResponse::Full(stream) => {
                if let Some(announced) = stream.content_length.filter(|announced| announced != size) {
                    return Err(context.size_mismatch(*size, announced));
                }
                if end > SKIP_LIMIT {
                    return Err(RegistryError::RangeIgnored {
                        reference: reference.whole().into(),
                        digest: *digest,
                        offset,
                        length,
                    });
                }
                (stream, offset)
            }
        };
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let next = stream.try_next().await.map_err(|error| context.io(error))?;
            let Some(chunk) = next else {
                return Err(context.size_mismatch(length as u64, bytes.len() as u64));
            };
            let start = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= start as u64;
            let wanted = chunk.len().min(start + (length - bytes.len()));
            bytes.extend_from_slice(chunk.get(start..wanted).unwrap_or_default());
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
        self.registry.run(self.fetch(offset, length)).map_err(|error| match error {
            RegistryError::SizeMismatch { .. } => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            error => io::Error::other(error),
        })
    }
}
