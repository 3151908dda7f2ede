//! What a layer format must say for the pipeline to write it: how payloads are framed and compressed, and
//! what follows the last of them. Must not know where the bytes come from or go to.

use std::{collections::BTreeMap, fmt, io};

use super::{Entry, LayerError};
use crate::{blob::framing::Framing, digest::Digest};

/// A layer's media type.
///
/// Source: OCI image specification, "Image Layer Filesystem Changeset".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/vnd.oci.image.layer.v1.tar`
    Tar,
    /// `application/vnd.oci.image.layer.v1.tar+gzip`
    TarGzip,
    /// `application/vnd.oci.image.layer.v1.tar+zstd`
    TarZstd,
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tar => "application/vnd.oci.image.layer.v1.tar",
            Self::TarGzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::TarZstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        })
    }
}

/// A layer format.
pub trait LayerFormat: Send + Sync + fmt::Debug {
    /// The media type of a layer's descriptor.
    fn media_type(&self) -> MediaType;

    /// Name of the format and everything that is set in it and changes a layer's bytes: two formats with equal
    /// fingerprints write equal layers.
    fn fingerprint(&self) -> String;

    /// How a stored payload lies in the blob.
    fn framing(&self) -> Framing;

    /// A compressed member that holds `payload`, or `None` when the format does not compress.
    ///
    /// # Errors
    /// When there is no memory for the compressor.
    fn compress(&self, payload: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// A member that holds `payload`, compressed by how often each byte occurs alone, or `None` when the format has
    /// none.
    ///
    /// # Errors
    /// When there is no memory for the compressor.
    fn entropy_code(&self, payload: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// The annotation that says the size of the uncompressed tar stream, if the format has one.
    fn uncompressed_size_annotation(&self) -> Option<&'static str> {
        None
    }

    /// Whether [`Self::finish`] needs files' CRC-64: see [`WrittenEntry::crc64`].
    fn wants_crc64(&self) -> bool {
        false
    }

    /// What follows the last payload and the headers after it, given everything that was written.
    /// `offset` is the number of bytes that the blob has so far.
    fn finish(&self, entries: &[WrittenEntry<'_>], offset: u64) -> Result<Tail, LayerError>;
}

/// An entry as it was written.
#[derive(Debug)]
pub struct WrittenEntry<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// SHA-256 of a regular file's content; `None` for other entries.
    pub digest: Option<Digest>,
    /// CRC-64 (GO-ISO) of a regular file's content, where the format [wants](LayerFormat::wants_crc64) it.
    pub crc64: Option<u64>,
    /// A regular file's chunks in order.
    pub chunks: Vec<WrittenChunk>,
}

/// A chunk as it was written.
#[derive(Debug, Clone, Copy)]
pub struct WrittenChunk {
    /// Where its member begins in the blob, in bytes.
    pub offset: u64,
    /// Where its member ends in the blob, in bytes.
    pub end: u64,
    /// Number of payload bytes.
    pub length: u64,
    /// SHA-256 of the payload.
    pub digest: Digest,
}

/// The end of a layer.
#[derive(Debug)]
pub struct Tail {
    /// Last bytes of the uncompressed tar stream, end-of-archive marker included.
    pub tar: Vec<u8>,
    /// Last bytes of the blob, which hold `tar` and whatever the format puts behind it.
    pub blob: Vec<u8>,
    /// Annotations that the layer's descriptor must carry, the uncompressed size aside.
    pub annotations: BTreeMap<String, String>,
}
