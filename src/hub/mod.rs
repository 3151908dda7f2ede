//! Repositories on the Hugging Face hub, downloaded into the hub cache where every other tool finds them. Must not
//! know layers or OCI, nor what a snapshot's files are good for.
//!
//! [`fetch`] blocks. What is in the cache is not asked for again, what was begun goes on where it ended, and a snapshot
//! gets its links when all of its files are there and right. [`outline`] brings only what a plan looks at.

mod api;
mod cache;
mod download;
mod environment;
mod error;
mod found;
mod net;
mod outline;
mod reference;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use self::{
    cache::Place,
    download::{Wanted, download},
    found::{Found, find},
    net::Net,
};
pub use self::{
    environment::HubEnvironment,
    error::HubError,
    outline::{Outline, Samples, outline},
    reference::{HubReference, SCHEME},
};
use crate::{
    progress::Observer,
    snapshot::{LeftOut, SnapshotError, SnapshotOptions, locate::find_in_cache, tree::kept_listing},
};

/// How the hub is asked.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// How many files are downloaded at a time; 0 counts as 1.
    pub concurrency: usize,
    /// How often something is tried again without any progress before it is given up.
    pub retries: u32,
    /// How long nothing may move on a connection, unless `HF_HUB_DOWNLOAD_TIMEOUT` says otherwise.
    pub stall: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self { concurrency: 4, retries: 8, stall: net::STALL }
    }
}

/// A snapshot in the cache.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its directory, to be opened by [`crate::snapshot::open`] with the options that it was fetched with.
    pub directory: PathBuf,
    /// What the repository has and the options leave out, for [`SnapshotOptions::not_downloaded`].
    pub left_out: Vec<LeftOut>,
    /// Whether nothing told what the repository has: what the cache lacks is not noticed then.
    pub unlisted: bool,
}

/// Brings the files of a repository that `files` wants into the hub cache. Only `include` and `exclude` of `files` are
/// looked at.
///
/// # Errors
/// See [`HubError`].
pub fn fetch(
    reference: &HubReference,
    files: &SnapshotOptions,
    environment: &HubEnvironment,
    options: &HubOptions,
    observer: &dyn Observer,
) -> Result<Fetched, HubError> {
    if let Some(variable) = environment.offline {
        return offline(reference, environment, variable);
    }
    let net = Net::new(environment, options.stall, options.retries)?;
    let found = find(&net, reference, files, environment)?;
    let Found { place, commit, .. } = &found;
    let absent = found.absent();
    if !absent.is_empty() {
        bring(&found, reference, &absent, &net, options, observer)?;
        for file in absent {
            place.link(commit, &file.path, file.digest)?;
        }
    }
    if reference.asked() != commit {
        place.note(reference.asked(), commit)?;
    }
    Ok(Fetched { directory: place.snapshot(commit), left_out: found.left_out, unlisted: false })
}

/// Downloads into the cache those of `files` whose bytes it lacks.
fn bring(
    found: &Found,
    reference: &HubReference,
    files: &[&Wanted],
    net: &Net,
    options: &HubOptions,
    observer: &dyn Observer,
) -> Result<(), HubError> {
    let place = &found.place;
    let missing = missing(place, files);
    if missing.is_empty() {
        return Ok(());
    }
    place.make()?;
    check_space(place, &missing)?;
    let total = missing.iter().map(|file| file.size).fold(0, u64::saturating_add);
    observer.downloading(&reference.to_string(), missing.len(), total);
    in_parallel(net, options.concurrency, &missing, |file| {
        let about = found.about(reference, file);
        download(net, place, &found.url(net, reference, file), &about, file, observer)
    })
}

/// What the cache has of a repository.
fn offline(
    reference: &HubReference,
    environment: &HubEnvironment,
    variable: &'static str,
) -> Result<Fetched, HubError> {
    let found = find_in_cache(&environment.cache, &reference.repository, reference.revision.as_deref());
    let directory = found.map_err(|error| {
        let lacks = match error {
            SnapshotError::NotInCache { searched, .. } => {
                format!("`{}` has no such model", searched.display())
            }
            SnapshotError::NoSuchRevision { path, revision, available, .. } => {
                let there_is = match available.as_slice() {
                    [] => String::new(),
                    commits => format!(", only of {}", commits.join(", ")),
                };
                format!("`{}` has no snapshot of revision `{revision}`{there_is}", path.display())
            }
            other => return other.into(),
        };
        HubError::Offline { variable, reference: reference.to_string(), lacks }
    })?;
    // A list that an earlier download left is compared with the files when the snapshot is opened.
    let commit = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let place = Place::new(&environment.cache, &reference.repository);
    let unlisted = kept_listing(&place.repository(), commit).is_none();
    Ok(Fetched { directory, left_out: Vec::new(), unlisted })
}

/// The files whose bytes the cache lacks, each content once, the largest first: they take longest.
fn missing<'a>(place: &Place, absent: &[&'a Wanted]) -> Vec<&'a Wanted> {
    let mut contents: BTreeMap<String, &Wanted> = BTreeMap::new();
    for file in absent.iter().filter(|file| !place.has(file.digest, file.size)) {
        contents.entry(cache::etag(file.digest)).or_insert(file);
    }
    let mut missing: Vec<&Wanted> = contents.into_values().collect();
    missing.sort_by_key(|file| std::cmp::Reverse(file.size));
    missing
}

/// Hours of downloading should not end with a full disk.
fn check_space(place: &Place, missing: &[&Wanted]) -> Result<(), HubError> {
    let rest = |file: &&Wanted| {
        let begun = fs::metadata(place.partial(file.digest)).map_or(0, |found| found.len());
        file.size.saturating_sub(begun)
    };
    let needed = missing.iter().map(rest).fold(0, u64::saturating_add);
    match place.free() {
        Some(available) if available < needed => {
            Err(HubError::DiskSpace { path: place.cache().to_owned(), available, needed })
        }
        _ => Ok(()),
    }
}

/// Does something for several files side by side. The first failure ends all.
fn in_parallel(
    net: &Net,
    concurrency: usize,
    files: &[&Wanted],
    work: impl Fn(&Wanted) -> Result<(), HubError> + Sync,
) -> Result<(), HubError> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<HubError>> = Mutex::new(None);
    let worker = || {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !net.is_stopped()) {
            if let Err(error) = work(file) {
                // What fails after this one fails because of it.
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                net.stop();
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..concurrency.clamp(1, files.len().max(1)) {
            scope.spawn(worker);
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
