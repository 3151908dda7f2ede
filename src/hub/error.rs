//! What can go wrong between a repository on the hub and its files in the cache. Every text names the repository, file
//! or variable and what can be done. Must not perform requests, and never quotes a token or a signed address.

use std::{io, path::PathBuf};

use crate::{registry::RegistryError, snapshot::SnapshotError};

/// Why a repository was not downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The reference names no repository of a model, or two revisions.
    #[error("`{reference}` cannot be used: {reason}")]
    Reference {
        /// What was given.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable makes no sense.
    #[error("{variable}: {reason}")]
    Environment {
        /// The variable's name.
        variable: &'static str,
        /// What is wrong; never its value.
        reason: String,
    },
    /// The options' globs or the files in the cache are not fit.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The repository's files are for those who were granted access.
    #[error(
        "{repository} is gated: ask for access at {page}, {}",
        match token {
            None => "and then set HF_TOKEN to a token of the account that got it".to_owned(),
            Some(token) => format!("with the account that the token of {token} belongs to"),
        }
    )]
    Gated {
        /// The repository.
        repository: String,
        /// Where access is asked for.
        page: String,
        /// Where the token came from; `None` without one.
        token: Option<String>,
    },
    /// The hub has no such repository, or does not show it to whoever asks.
    #[error(
        "{endpoint} has no model {repository}, or it is private{}",
        match token {
            None => "; check the name, or set HF_TOKEN to a token that may read it".to_owned(),
            Some(token) => format!(" and the token of {token} may not read it; check the name and the account"),
        }
    )]
    NoRepository {
        /// The repository.
        repository: String,
        /// The hub that was asked.
        endpoint: String,
        /// Where the token came from; `None` without one.
        token: Option<String>,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{repository} has no revision `{revision}`; its branches and tags are listed at {page}")]
    NoRevision {
        /// The repository.
        repository: String,
        /// What was asked for.
        revision: String,
        /// Where the revisions can be seen.
        page: String,
    },
    /// The hub lists a file and does not have it.
    #[error("{repository} has no file {file} at commit {commit}, although it is listed; try again later")]
    NoFile {
        /// The repository.
        repository: String,
        /// The file's path.
        file: String,
        /// The commit.
        commit: String,
    },
    /// The token is none, or no longer one.
    #[error("the hub refuses the token of {token}; make a new one at {page}, or unset it")]
    TokenRefused {
        /// Where the token came from.
        token: String,
        /// Where tokens are made.
        page: String,
    },
    /// The token is not enough, or the repository is closed.
    #[error(
        "cannot {action}: the hub does not allow it{said}; a token needs the permission to read the repository"
    )]
    Forbidden {
        /// What was tried.
        action: String,
        /// What the hub said, led by `: `; empty if it said nothing.
        said: String,
    },
    /// The hub wants fewer requests, for longer than was waited.
    #[error(
        "cannot {action}: the hub limits the rate of requests{said}; try again later, with a token (HF_TOKEN) if there \
         was none"
    )]
    RateLimited {
        /// What was tried.
        action: String,
        /// What the hub said, led by `: `; empty if it said nothing.
        said: String,
    },
    /// Any other answer that is no success.
    #[error("cannot {action}: {host} answered HTTP {status}{said}")]
    Server {
        /// What was tried.
        action: String,
        /// Who answered.
        host: String,
        /// HTTP status code.
        status: u16,
        /// What it said, led by `: `; empty if it said nothing.
        said: String,
    },
    /// The connection could not be made, or broke, or nothing moved on it.
    #[error("cannot {action}: the connection to {host} failed: {cause}")]
    Network {
        /// What was tried.
        action: String,
        /// The other side.
        host: String,
        /// What happened.
        cause: String,
    },
    /// An answer that cannot be meant.
    #[error("cannot {action}: {reason}")]
    Protocol {
        /// What was tried.
        action: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A file's name that must not become a path.
    #[error("{repository} lists a file `{path}`, {reason}; leave it out with --exclude")]
    Path {
        /// The repository.
        repository: String,
        /// The name, escaped.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file whose bytes are not those that the repository says.
    #[error(
        "{file} of {repository} is wrong, and was wrong before it was downloaded again from its start: expected \
         {expected}, got {actual}; the partial file is removed, and the hub or something before it serves wrong bytes"
    )]
    WrongDigest {
        /// The repository.
        repository: String,
        /// The file's path.
        file: String,
        /// The digest, or size in bytes, that it should have.
        expected: String,
        /// What it has.
        actual: String,
    },
    /// No request may be made, and the cache does not have what was asked for.
    #[error("{variable} is set, and {reference} is not in the cache: {lacks}; unset it to download")]
    Offline {
        /// The variable that forbids requests.
        variable: &'static str,
        /// What was asked for.
        reference: String,
        /// What the cache lacks.
        lacks: String,
    },
    /// The cache's disk is too small.
    #[error(
        "{} has {available} bytes free and {needed} are to be downloaded; free some space, or set HF_HUB_CACHE to a \
         directory on another disk",
        path.display()
    )]
    DiskSpace {
        /// The cache.
        path: PathBuf,
        /// Bytes that are free.
        available: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// A file of the cache could not be read or written.
    #[error("cannot use `{}` of the hub cache; HF_HUB_CACHE chooses another place", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What a plan looks at could not be written.
    #[error("cannot write {} to plan with; TMPDIR chooses where temporary files go", path.display())]
    Temporary {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The HTTP client could not be set up.
    #[error("cannot reach the hub: {0}")]
    Setup(String),
}

impl HubError {
    /// For `map_err` on files of the cache.
    pub(super) fn cache(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Cache { path: path.into(), source }
    }

    /// The message without advice, for a line of a log.
    pub(super) fn in_one_line(&self) -> String {
        let text = self.to_string();
        text.split("; ").next().unwrap_or_default().to_owned()
    }
}

impl From<RegistryError> for HubError {
    /// The HTTP client's set-up is the only thing that is shared with registries.
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Setup { message } => Self::Setup(message),
            other => Self::Setup(other.to_string()),
        }
    }
}
