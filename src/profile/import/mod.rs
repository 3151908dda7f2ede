//! Profiles from what other tools recorded: logs of strace and records of ctr-remote. Reads streams of any length in
//! bounded memory. Must not know where the streams come from, files and snapshots.

mod ctr_remote;
mod descriptors;
mod lines;
mod roots;
mod strace;
mod strace_line;

use std::io::{self, BufRead, BufReader, Read};

pub use self::roots::{Root, RootError};
use self::{lines::Lines, roots::Roots};
use super::{Profile, ProfileError, Recording};

/// Bytes of the beginning that tell a format.
const BEGINNING: usize = 64 << 10;

/// What a file to be imported is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportFormat {
    /// A log of `strace -f -ttt -y`.
    Strace,
    /// A record of `ctr-remote image optimize --record-out`.
    CtrRemote,
}

/// How a recording of another tool is read.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// What the file is; `None` looks at its beginning.
    pub format: Option<ImportFormat>,
    /// Where the model and the caches lay. Without one of the model, it lay at `/models`.
    pub roots: Vec<Root>,
    /// What is known of the recording; the source is filled in.
    pub recording: Recording,
}

/// What an import gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The profile.
    pub profile: Profile,
    /// What was left out or may be wrong, for people.
    pub notes: Vec<String>,
}

/// Imports what `stream` holds, compressed with gzip or not. `name` is what errors call it.
///
/// # Errors
/// [`ProfileError`]: unreadable, not of the format, or nothing in it lies below a root.
pub fn import(name: &str, stream: impl Read, options: &ImportOptions) -> Result<Imported, ProfileError> {
    let unreadable = |cause: io::Error| ProfileError::File { path: name.into(), cause };
    let mut stream = BufReader::with_capacity(BEGINNING, stream);
    let compressed = peek(&mut stream, 2).map_err(unreadable)?.starts_with(&[0x1f, 0x8b]);
    let mut stream: Box<dyn BufRead + '_> = if compressed {
        Box::new(BufReader::with_capacity(BEGINNING, flate2::read::MultiGzDecoder::new(stream)))
    } else {
        Box::new(stream)
    };
    let roots = Roots::new(&options.roots);
    let format = match options.format {
        Some(format) => format,
        None => detect(name, stream.fill_buf().map_err(unreadable)?)?,
    };
    match format {
        ImportFormat::Strace => strace::import(name, Lines::new(stream), &roots, &options.recording),
        ImportFormat::CtrRemote => ctr_remote::import(name, stream, &roots, &options.recording),
    }
}

/// At least `count` bytes of the beginning, if there are so many.
fn peek(stream: &mut BufReader<impl Read>, count: usize) -> io::Result<&[u8]> {
    // A pipe may give a byte at a time; the buffer is filled once only, and then it is what it is.
    let beginning = stream.fill_buf()?;
    Ok(&beginning[..beginning.len().min(count)])
}

fn detect(name: &str, beginning: &[u8]) -> Result<ImportFormat, ProfileError> {
    let refuse = |reason: &str| {
        Err(ProfileError::Import { name: name.to_owned(), reason: reason.to_owned(), hint: None })
    };
    let text = String::from_utf8_lossy(beginning);
    if text.trim().is_empty() {
        return refuse("it is empty");
    }
    if text.trim_start().starts_with('{') {
        if text.contains("\"accesses\"") && text.contains("\"version\"") {
            return refuse("it is a profile already");
        }
        return Ok(ImportFormat::CtrRemote);
    }
    // A log may begin with words of the program; some line of the first must be strace's.
    if text.lines().any(|line| strace_line::parse(line).is_some()) {
        return Ok(ImportFormat::Strace);
    }
    Err(ProfileError::Import {
        name: name.to_owned(),
        reason: "it is neither a log of `strace -f -ttt -y` nor a record of ctr-remote".to_owned(),
        hint: Some(
            "record with `strace -f -ttt -y -o LOG COMMAND`, or name the format with --from".to_owned(),
        ),
    })
}

/// `3 lines`, `1 line`.
fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
