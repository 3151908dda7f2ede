//! Why a start cannot be recorded. Must not know exit codes or arguments.

use std::{io, path::PathBuf, time::Duration};

/// Why a start was not recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The kernel offers no FUSE, or this user may not use it.
    #[error("cannot open /dev/fuse")]
    NoDevice(#[source] io::Error),
    /// Without root, mounting needs fusermount3.
    #[error("fusermount3 is not installed, and only root can mount without it")]
    NoFusermount,
    /// A directory cannot be mounted on.
    #[error("cannot mount on {}", .path.display())]
    Mount {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A directory cannot be used, and why is known.
    #[error("cannot mount on {}: {reason}", .path.display())]
    Place {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// A cache cannot be opened.
    #[error("cannot open the cache {}", .path.display())]
    Cache {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Two directories of a recording lie in each other.
    #[error("{} and {} lie in each other; a recording keeps them apart", .0.display(), .1.display())]
    Overlap(PathBuf, PathBuf),
    /// A mount could not be taken away.
    #[error("{} is still mounted", .0.display())]
    StillMounted(PathBuf),
    /// The command could not be started.
    #[error("cannot run {program}")]
    Spawn {
        /// What was to be run.
        program: String,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The condition to wait for was not met in time.
    #[error("the command was not ready after {} s", .0.as_secs_f64())]
    NotReady(Duration),
    /// The command ended, without an error, before the condition to wait for was met.
    #[error("the command ended before it was ready")]
    NotReadyAtEnd,
    /// A directory was given for two caches.
    #[error("the directory {} is given twice", .0.display())]
    Twice(PathBuf),
    /// The profile could not be written where it was to be, and lies elsewhere.
    #[error("cannot write {}; the profile lies in {}", .path.display(), .saved.display())]
    WrittenElsewhere {
        /// Where it was to be.
        path: PathBuf,
        /// Where it is.
        saved: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Something of the operating system failed.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        cause: io::Error,
    },
}

impl RecordError {
    /// For `map_err`.
    pub(super) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self::System { what, cause: cause.into() }
    }
}
