//! What can go wrong with images and layouts.

use std::{io, path::PathBuf};

use crate::{digest::Digest, registry::RegistryError};

/// Why an image cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file or directory of a layout or archive cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `lock`, …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// A directory that is no OCI layout, where one was expected.
    #[error("{} is not an OCI layout: {reason}", path.display())]
    NotALayout {
        /// The directory or archive.
        path: PathBuf,
        /// What is missing or different.
        reason: String,
    },
    /// A name of an image that cannot be understood.
    #[error("`{text}` names no image: {reason}")]
    Target {
        /// What was given.
        text: String,
        /// Why it is not understood.
        reason: String,
    },
    /// A platform that cannot be understood.
    #[error("`{0}` is no platform: expected os/architecture or os/architecture/variant, as in linux/amd64")]
    Platform(String),
    /// The layout or archive holds no image of that name.
    #[error("{place} holds no image {wanted}; it has {present}")]
    NoSuchImage {
        /// The layout or archive.
        place: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// An index has no image for the platform, or an image is for another one.
    #[error("{place} has no image for {wanted}; it has {present}")]
    NoSuchPlatform {
        /// The image.
        place: String,
        /// The platform that was asked for.
        wanted: String,
        /// The platforms that there are.
        present: String,
    },
    /// A blob that a manifest lists is missing.
    #[error("{place} lacks blob {digest}")]
    MissingBlob {
        /// The layout or archive.
        place: String,
        /// The blob.
        digest: Digest,
    },
    /// A blob has other bytes or another size than its descriptor says.
    #[error("blob {digest} in {place} is damaged: {reason}")]
    DamagedBlob {
        /// The layout, archive or repository.
        place: String,
        /// The blob.
        digest: Digest,
        /// What differs.
        reason: String,
    },
    /// A tag names another image and was to be kept.
    #[error("{name} names {present} already and would name {wanted}; --force lets the tag move")]
    TagTaken {
        /// The name.
        name: String,
        /// The manifest that it names.
        present: Digest,
        /// The manifest that it would name.
        wanted: Digest,
    },
    /// A blob is larger than its registry takes.
    #[error("blob {digest} has {size} bytes, and {registry} is known to take {limit} at most")]
    BlobTooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The registry.
        registry: String,
        /// The most bytes that a blob may have there.
        limit: u64,
        /// What helps.
        remedy: String,
    },
    /// A blob cannot be read.
    #[error("cannot read blob {digest} of {place}")]
    ReadBlob {
        /// The layout, archive or repository.
        place: String,
        /// The blob.
        digest: Digest,
        /// Cause.
        #[source]
        cause: io::Error,
    },
    /// A manifest, index or config that cannot be understood.
    #[error("{what} of {place} cannot be understood: {reason}")]
    Document {
        /// `manifest`, `index` or `config`.
        what: &'static str,
        /// The image.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest that is no image's.
    #[error("{place} is no image, but an artifact of type {kind}")]
    NotAnImage {
        /// The name.
        place: String,
        /// The manifest's `artifactType`.
        kind: String,
    },
    /// A registry could not do its part.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl OciError {
    /// For `map_err`: the error of doing `action` to `path`.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io { action, path, cause }
    }
}
