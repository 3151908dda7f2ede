//! What `hf://` names, brought to this disk before anything else looks at it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use walkdir::{DirEntry, WalkDir};

use super::{CliError, ProgressArguments, RegistryArguments, progress::Progress};
use crate::{
    hub::{HubEnvironment, HubOptions, HubReference, Outline, fetch, outline},
    layer::Expected,
    pack::{MovedFile, PackOptions, survey::sampled},
    plan::is_weights,
    progress::Observer,
    snapshot::{ExpectedDigest, SnapshotOptions},
};

/// The snapshot that an argument means on this disk: `hf://org/name[@revision]` is downloaded into the hub cache, all
/// else is left as it is. What was found out on the way goes to `files`.
pub(super) fn local(
    argument: &str,
    files: &mut SnapshotOptions,
    options: &HubOptions,
    observer: &dyn Observer,
) -> Result<String, CliError> {
    let Some(reference) = HubReference::parse(argument, files.revision.as_deref())? else {
        return Ok(argument.to_owned());
    };
    let fetched = fetch(&reference, files, &HubEnvironment::of_process()?, options, observer)?;
    warn_without_weights(&reference, &fetched.directory, fetched.unlisted);
    // The directory is one commit's.
    files.revision = None;
    files.not_downloaded = fetched.left_out;
    path_text(fetched.directory)
}

/// As [`local`], for commands that show no progress but that of a download.
pub(super) fn local_shown(
    argument: &str,
    files: &mut SnapshotOptions,
    options: &HubOptions,
    shown: &ProgressArguments,
) -> Result<String, CliError> {
    let progress = Progress::new(shown);
    let local = local(argument, files, options, &progress)?;
    progress.finish();
    Ok(local)
}

/// As [`local`], of a snapshot that is only planned with: of weights no more is downloaded than a plan with its
/// `compression` and `compress_weights` reads. The outline is to be kept until the plan is made.
pub(super) fn outlined(
    argument: &str,
    pack: &mut PackOptions,
    options: &HubOptions,
    observer: &dyn Observer,
) -> Result<(String, Option<Outline>), CliError> {
    let (compression, compress_weights) = (pack.compression, pack.compress_weights);
    let files = &mut pack.files;
    let Some(reference) = HubReference::parse(argument, files.revision.as_deref())? else {
        return Ok((argument.to_owned(), None));
    };
    let environment = HubEnvironment::of_process()?;
    let samples =
        |path: &str, size: u64, weights: bool| sampled(path, size, weights, compression, compress_weights);
    let outline = outline(&reference, files, &samples, &environment, options, observer)?;
    warn_without_weights(&reference, &outline.directory, outline.unlisted);
    files.revision = None;
    files.not_downloaded.clone_from(&outline.left_out);
    Ok((path_text(outline.directory.clone())?, Some(outline)))
}

/// Downloads into the hub cache what `files`, which are in an outline, stand for.
pub(super) fn completed<'a>(
    outline: &Outline,
    files: impl Iterator<Item = &'a Path>,
    options: &HubOptions,
    observer: &dyn Observer,
) -> Result<BTreeMap<PathBuf, MovedFile>, CliError> {
    let files = files.map(Path::to_owned).collect();
    let lies = outline.complete(&files, &HubEnvironment::of_process()?, options, observer)?;
    let moved = lies.into_iter().map(|(stand_in, (path, digest))| {
        let origin = "the hub's list of files".to_owned();
        let expected = match digest {
            ExpectedDigest::Sha256(digest) => Expected::Sha256 { digest, origin },
            ExpectedDigest::GitSha1(digest) => Expected::GitSha1 { digest, origin },
        };
        (stand_in, MovedFile { path, expected })
    });
    Ok(moved.collect())
}

/// Warns of a snapshot that has no weights, where nothing tells whether that is all of it.
fn warn_without_weights(reference: &HubReference, directory: &Path, unlisted: bool) {
    let mut below = WalkDir::new(directory).into_iter().filter_map(Result::ok);
    let is_there = |entry: DirEntry| entry.file_name().to_str().is_some_and(|name| is_weights(name, false));
    if unlisted && !below.any(is_there) {
        tracing::warn!(
            "no requests are allowed, and the cache has files of {reference} but no weights, nor a list that says \
             whether there are any; download all of it if it should have some"
        );
    }
}

fn path_text(directory: PathBuf) -> Result<String, CliError> {
    let directory = directory.into_os_string().into_string();
    directory.map_err(|path| CliError::Usage(format!("the hub cache's path {} is not UTF-8", path.display())))
}

impl RegistryArguments {
    /// The hub is asked as patiently as registries are.
    pub(super) fn hub(&self) -> HubOptions {
        HubOptions { concurrency: self.concurrency, retries: self.retries, stall: self.stall_timeout }
    }
}
