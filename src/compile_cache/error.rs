//! Why a cache was refused.

use std::{io, path::PathBuf};

/// Why a cache cannot be read or packed.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// The directory is no cache that is known.
    #[error("{} is no compile cache that starcar knows: {reason}", path.display())]
    Unknown {
        /// The directory.
        path: PathBuf,
        /// What was looked for.
        reason: String,
    },
    /// There is too much of it.
    #[error("{}: {reason}", path.display())]
    TooLarge {
        /// The directory or file.
        path: PathBuf,
        /// What is too large, and how large it may be.
        reason: String,
    },
    /// A name that an image cannot hold.
    #[error("{} cannot be packed: {reason}", path.display().to_string().escape_debug())]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with its name.
        reason: String,
    },
    /// A file changed while the cache was looked at.
    #[error("{} changed while it was read; stop what writes to the cache and try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}
