//! Why a pack did not finish.

use std::{io, path::PathBuf};

use crate::{base::BaseError, layer::LayerError, oci::OciError, plan::PlanError, snapshot::SnapshotError};

/// Why a snapshot was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The snapshot is not fit to be packed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The base cannot be used.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The options allow no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A layer could not be made.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The image could not be written or pushed.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// A file of the snapshot cannot be looked into.
    #[error("cannot read {}", path.display())]
    Sample {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// The place for the model in the image cannot be used.
    #[error("`{path}` cannot hold the model: {reason}")]
    ModelDirectory {
        /// The directory in the image.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A file's name means something else in a layer.
    #[error(
        "{path} cannot be packed: a name that begins with `.wh.` deletes a file when the image is unpacked; \
         rename it or leave it out with --exclude"
    )]
    Whiteout {
        /// The file's path in the snapshot.
        path: String,
    },
    /// The destination is too small.
    #[error(
        "{} has {available} bytes free and the image needs about {needed}; \
         free some space or push without a copy (--push without --output)",
        path.display()
    )]
    DiskSpace {
        /// The destination.
        path: PathBuf,
        /// Bytes that are free.
        available: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// Threads could not be started.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
}
