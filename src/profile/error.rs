//! What is wrong with a profile.

use std::{io, path::PathBuf};

/// Why a profile cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read or written.
    #[error("cannot access the profile {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// There is no such profile.
    #[error(
        "there is no profile `{name}`: it is no file, and the built-in ones are {}",
        super::built_in_names().collect::<Vec<_>>().join(", ")
    )]
    Unknown {
        /// The name.
        name: String,
    },
    /// The file is no profile.
    #[error("{name} is no profile: {reason}")]
    Format {
        /// Name of the file or of the built-in profile.
        name: String,
        /// What is wrong, with line and column where they are known.
        reason: String,
    },
    /// The file is a profile of another version.
    #[error("{name} is a profile of version {version}; this starcar reads version {}", super::VERSION)]
    Version {
        /// Name of the file.
        name: String,
        /// Its version, as it is written.
        version: String,
    },
    /// The file holds more than a profile may.
    #[error("{name} is too large for a profile: {reason}")]
    TooLarge {
        /// Name of the file.
        name: String,
        /// The limit that it passes.
        reason: String,
    },
    /// A recording of another tool cannot be imported.
    #[error("cannot import {name}: {reason}")]
    Import {
        /// Name of the file.
        name: String,
        /// What is wrong.
        reason: String,
        /// The next step.
        hint: Option<String>,
    },
    /// A pattern has to be resolved before it can be exported.
    #[error("the profile has the pattern `{glob}`, which {format} cannot hold")]
    Pattern {
        /// The pattern.
        glob: String,
        /// What was to be written.
        format: &'static str,
    },
}
