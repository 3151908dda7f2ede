//! Profiles: what a start of an engine reads, in what order and when. The format, folding, merging, importing,
//! exporting and showing it, and what it means for the files of a snapshot. Must not know layers, chunks or OCI.

mod access;
mod builtin;
mod difference;
mod error;
mod export;
mod fold;
mod format;
pub mod import;
mod json;
mod merge;
pub(crate) mod picture;
mod ranges;
pub mod record;
mod recording;
mod resolve;
mod save;
mod seconds;
mod summary;

pub use self::{
    access::{Access, AccessKind, ByteRange, Target, Tree, Unknown, UnknownValue},
    builtin::{DEFAULT, names as built_in_names},
    difference::{Difference, FileDifference, Moved, difference},
    error::ProfileError,
    export::{ExportFormat, ExportOptions, Exported, export},
    fold::{Event, EventKind, Folded, Folder},
    format::{ACCESSES_MAX, BYTES_MAX, VERSION},
    merge::{Merge, merge},
    picture::{html, svg},
    recording::{Engine, Host, Model, Recording, Source},
    resolve::{FileUse, Resolution, TimedRange, resolve},
    save::{directory_of, write_whole},
    seconds::Seconds,
    summary::{FileSummary, Summary, summary, with_files},
};

/// A profile: accesses of one start, or of several that were merged, sorted by time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// What the profile is for, for people.
    pub comment: Option<String>,
    /// What the profile was made from, for people.
    pub evidence: Vec<String>,
    /// The starts that were recorded; more than one in a merged profile.
    pub recordings: Vec<Recording>,
    /// What was accessed, by time of the first access.
    pub accesses: Vec<Access>,
    /// Fields that this version does not know; they are kept.
    pub unknown: Unknown,
}

impl Profile {
    /// Why the first recording that ended before its start was over did so; `None` where all are complete, as far as
    /// is known.
    pub fn ended_early(&self) -> Option<&str> {
        self.recordings.iter().find_map(|recording| recording.ended_early.as_deref())
    }
}
