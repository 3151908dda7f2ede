//! The files that a command writes beside its data: that they can be written is found out before the work, and none
//! replaces what the command reads or writes elsewhere.
//!
//! Must not know what is in them.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{CliError, output};
use crate::profile::{directory_of, write_whole};

/// The name that stands for standard input and standard output.
const STANDARD: &str = "-";

/// Fails where `written`, a file that the option names, is one of those that are read, or that other options write.
///
/// # Errors
/// [`CliError::Usage`].
pub(super) fn spare<'a>(
    option: &str,
    written: Option<&Path>,
    others: impl IntoIterator<Item = (&'a str, &'a Path)>,
) -> Result<(), CliError> {
    let Some(written) = written.filter(|path| *path != Path::new(STANDARD)) else { return Ok(()) };
    for (other, path) in others {
        if path != Path::new(STANDARD) && is_same(written, path) {
            let path = written.display();
            return Err(CliError::Usage(format!("{option} would replace {path}, {other}")));
        }
    }
    Ok(())
}

/// Fails where two options name one file, of which the second would replace what the first wrote.
///
/// # Errors
/// [`CliError::Usage`].
pub(super) fn apart(named: &[(&str, PathBuf)]) -> Result<(), CliError> {
    for (number, (option, path)) in named.iter().enumerate() {
        if let Some((first, _)) = named[..number].iter().find(|(_, other)| is_same(other, path)) {
            return Err(CliError::Usage(format!("{first} and {option} name the same file")));
        }
    }
    Ok(())
}

/// Whether two paths are of one file. What is no file, as a terminal or a pipe, is not replaced.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()) && one.is_file(),
        (Err(_), Err(_)) => real(one) == real(other),
        _ => false,
    }
}

/// A file's path, however it is written: that of its directory without links, and its name.
fn real(path: &Path) -> PathBuf {
    let directory = directory_of(path).canonicalize().unwrap_or_else(|_| directory_of(path).to_owned());
    directory.join(path.file_name().unwrap_or_default())
}

/// Makes sure that a file can be written: hours of packing should not end in a name that cannot be.
///
/// # Errors
/// [`CliError::Usage`] where it cannot be, as far as can be known.
pub(super) fn check_writable(option: &str, path: Option<&Path>) -> Result<(), CliError> {
    let Some(path) = path else { return Ok(()) };
    let wrong = |reason: String| Err(CliError::Usage(format!("{option}: {reason}")));
    if path.is_dir() || path.file_name().is_none() {
        return wrong(format!("{} is a directory", path.display()));
    }
    let directory = directory_of(path);
    if !directory.is_dir() {
        return wrong(format!("{} is no directory", directory.display()));
    }
    if path.symlink_metadata().is_ok_and(|data| !data.is_file()) {
        return Ok(());
    }
    // As it will be written: beside the file that is there, if one is, and then in its place.
    match tempfile::Builder::new()
        .prefix(".starcar-")
        .tempfile_in(directory)
        .and_then(|mut file| file.write_all(b"\n"))
    {
        Ok(()) => Ok(()),
        Err(cause) => wrong(format!("no file can be made in {}: {cause}", directory.display())),
    }
}

/// Writes a file whole or not at all.
///
/// # Errors
/// [`CliError::Output`] with its path.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    write_whole(path, text).map_err(|cause| failed(path, cause))
}

/// Writes text that ends its last line to a file, whole or not at all; to standard output without one, or for `-`.
///
/// # Errors
/// [`CliError::Output`].
pub(super) fn write_or_print(path: Option<&Path>, text: &str) -> Result<(), CliError> {
    match path.filter(|path| *path != Path::new(STANDARD)) {
        None => output::data(text),
        Some(path) if text.ends_with('\n') => write(path, text),
        Some(path) => write(path, &format!("{text}\n")),
    }
}

fn failed(path: &Path, cause: io::Error) -> CliError {
    CliError::Output { what: path.display().to_string(), cause }
}
