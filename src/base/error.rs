//! What can be wrong with a base.

use std::{io, path::PathBuf};

use crate::{digest::Digest, oci::OciError};

/// Why a base cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The image cannot be read.
    #[error("cannot read the base image")]
    Image(#[from] OciError),
    /// The binary cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// The binary is not of the right kind.
    #[error("{} cannot be a base: {reason}", path.display())]
    Binary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The image is for another platform.
    #[error(
        "the base is for {stated}, the image is for {wanted}; choose another base or --platform {stated}"
    )]
    Platform {
        /// What the base's config says.
        stated: String,
        /// What was asked for.
        wanted: String,
    },
    /// A layer of the image cannot be unpacked or expressed.
    #[error("layer {layer} of the base cannot be used: {reason}")]
    Layer {
        /// Digest of the layer.
        layer: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// A temporary file cannot be written.
    #[error("cannot unpack the base")]
    Spool(#[source] io::Error),
}
