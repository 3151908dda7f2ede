//! Where profiles come from and go to: files, standard input and standard output; and the files of a snapshot.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::{
    cli::{
        CliError, ProgressArguments, ProgressChoice, hub, image_arguments::open_profile, output,
        written_files,
    },
    hub::HubOptions,
    pack::PackError,
    profile::{BYTES_MAX, Profile, ProfileError, Tree, write_whole},
    snapshot::{self, SnapshotOptions},
};

/// What errors call standard input.
const STDIN: &str = "standard input";

/// The profile that an argument names: a file, a built-in one, or standard input.
pub(super) fn load(argument: &str) -> Result<Profile, ProfileError> {
    if argument == "-" {
        let mut text = Vec::new();
        // One byte more than is allowed tells a profile that is too large.
        let read = io::stdin().lock().take(BYTES_MAX as u64 + 1).read_to_end(&mut text);
        read.map_err(|cause| ProfileError::File { path: STDIN.into(), cause })?;
        return Profile::parse(STDIN, &text);
    }
    open_profile(argument)
}

/// What people call the profile that an argument names.
pub(super) fn name(argument: &str) -> String {
    if argument == "-" {
        return STDIN.to_owned();
    }
    Path::new(argument).file_name().map_or(argument.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Opens the file, or standard input, that an argument names; the text is what errors call it.
pub(super) fn open(argument: &str) -> Result<(String, Box<dyn Read>), ProfileError> {
    if argument == "-" {
        return Ok((STDIN.to_owned(), Box::new(io::stdin().lock())));
    }
    let file = File::open(argument).map_err(|cause| ProfileError::File { path: argument.into(), cause })?;
    Ok((argument.to_owned(), Box::new(file)))
}

/// Writes a profile; see [`write`].
pub(super) fn save(profile: &Profile, to: Option<&Path>) -> Result<(), CliError> {
    let text = profile.to_json();
    if text.len() > BYTES_MAX {
        let name = to.map_or("the profile".to_owned(), |path| path.display().to_string());
        let reason = format!("it would have more than {BYTES_MAX} bytes, which nothing reads");
        return Err(ProfileError::TooLarge { name, reason }.into());
    }
    write(&text, to)
}

/// Fails where a command would replace the file that it reads.
pub(super) fn spare(read: &str, to: Option<&Path>) -> Result<(), CliError> {
    written_files::spare("--output", to, [("which is read", Path::new(read))])
}

/// Writes to a file, whole or not at all, or to standard output.
pub(super) fn write(text: &str, to: Option<&Path>) -> Result<(), CliError> {
    let Some(path) = to.filter(|path| *path != Path::new("-")) else { return output::data(text) };
    write_whole(path, text).map_err(|cause| ProfileError::Write { path: path.into(), cause }.into())
}

/// Path and size of each file that a snapshot has.
pub(super) fn snapshot_files(argument: &str) -> Result<Vec<(String, u64)>, CliError> {
    let mut options = SnapshotOptions::default();
    let shown = ProgressArguments { progress: ProgressChoice::Auto, quiet: false };
    let local = hub::local_shown(argument, &mut options, &HubOptions::default(), &shown)?;
    let snapshot = snapshot::open(&local, &options).map_err(PackError::from)?;
    Ok(snapshot.files.into_iter().map(|file| (file.path, file.stamp.size)).collect())
}

/// The list that the library takes.
pub(super) fn borrowed(files: &[(String, u64)]) -> Vec<(&str, u64)> {
    files.iter().map(|(path, size)| (path.as_str(), *size)).collect()
}

/// `NAME=DIR`, a cache and where it lies.
pub(super) fn cache(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, directory)) if !name.is_empty() && !name.contains('/') && !directory.is_empty() => {
            Ok((name.to_owned(), directory.to_owned()))
        }
        _ => Err("expected NAME=DIR, as in vllm=/root/.cache/vllm".to_owned()),
    }
}

/// The name of a tree in JSON: null is the model.
pub(super) fn cache_name(tree: &Tree) -> Option<&str> {
    match tree {
        Tree::Model => None,
        Tree::Cache(name) => Some(name),
    }
}
