//! Why a start could not be replayed.

use std::io;

use crate::{digest::Digest, estargz::ReadError, oci::OciError};

/// Why a start could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The image's documents could not be read, or a layer not be pulled.
    #[error(transparent)]
    Image(#[from] OciError),
    /// A file of a layer is not what the layer's table of contents says.
    #[error("layer {digest} of {place} is damaged")]
    Damaged {
        /// The image.
        place: String,
        /// The layer.
        digest: Digest,
        /// What is wrong: names the file and the offset.
        #[source]
        cause: Box<ReadError>,
    },
    /// A layer that was pulled whole cannot be unpacked, or holds something else than the image's config says.
    #[error("layer {digest} of {place} cannot be unpacked: {reason}")]
    Unpack {
        /// The image.
        place: String,
        /// The layer.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// A read got nothing from request after request.
    #[error(
        "a read of {path} in layer {digest} of {place} was given up: {requests} requests in a row brought no whole unit within {timeout} s (request_timeout_sec, chunk_size); on a node it fails, too"
    )]
    GivenUp {
        /// The image.
        place: String,
        /// The layer.
        digest: Digest,
        /// The file.
        path: String,
        /// Requests that were made in vain.
        requests: usize,
        /// Seconds that each of them had.
        timeout: f64,
    },
    /// What was fetched cannot be kept until it is verified.
    #[error("cannot keep what was fetched until it is verified (TMPDIR chooses where)")]
    Temporary(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The image has more layers than a node takes.
    #[error("{place} has {layers} layers, more than {}", super::LAYERS_MAX)]
    TooManyLayers {
        /// The image.
        place: String,
        /// Number of its layers.
        layers: usize,
    },
}
