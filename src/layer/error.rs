//! What can go wrong while a layer is written. Must not know which destination it is written to.

use std::io;

use crate::blob::SourceError;

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A source file cannot be read, or is not what was planned.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file's content is not what its origin says.
    #[error("{path} is damaged: {origin} says {expected}, its content has {actual}; download it again")]
    Damaged {
        /// Path of the entry in the image.
        path: String,
        /// Where the expected digest was found.
        origin: String,
        /// The digest that the file should have.
        expected: String,
        /// The digest that it has.
        actual: String,
    },
    /// The blob cannot be written to its destination.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
    /// Bytes cannot be compressed.
    #[error("cannot compress the layer")]
    Compress(#[source] io::Error),
    /// Compressed bytes cannot be kept for later.
    #[error("cannot keep compressed data")]
    Spool(#[source] io::Error),
    /// An entry cannot be expressed in a layer.
    #[error("{path} cannot be packed: {reason}")]
    Entry {
        /// Path of the entry in the image.
        path: String,
        /// Why not.
        reason: String,
    },
}
