//! A snapshot to plan with: small files whole, of large ones what a plan looks at, in files of the right length whose
//! rest is a hole. It lies in a temporary directory that looks like a hub cache. Must not know what a plan is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use reqwest::StatusCode;
use tempfile::TempDir;

use super::{
    Fetched, HubEnvironment, HubError, HubOptions, HubReference,
    cache::{Place, etag},
    download::{Wanted, download, range_start},
    found::{Found, find},
    in_parallel,
    net::{Failure, Net},
};
use crate::{
    progress::Observer,
    snapshot::{
        ExpectedDigest, LeftOut, SnapshotOptions,
        safetensors::{self, MAX_HEADER_LENGTH},
    },
};

/// Files up to this size are downloaded whole, in bytes: all that is read to its end before a pack is smaller, and what
/// is no weight nearly always is.
const WHOLE_MAX: u64 = 8 << 20;
/// Bytes at the start of a file that are asked for before anything is known of it: most headers end in them.
const START: u64 = 64 << 10;
/// How a GGUF file begins. Source: `docs/gguf.md` of ggml.
const GGUF_MAGIC: &[u8] = b"GGUF";

/// Tells what of a file is looked at besides its header, as offsets and lengths in bytes, by its path, its size in bytes,
/// and whether its content is that of weights.
pub type Samples<'a> = &'a (dyn Fn(&str, u64, bool) -> Vec<(u64, u64)> + Sync);

/// Offsets and lengths in bytes.
type Windows = BTreeSet<(u64, u64)>;

/// A snapshot that is good to plan with, and gone when this is dropped.
#[derive(Debug)]
pub struct Outline {
    /// Its directory.
    pub directory: PathBuf,
    /// What the repository has and the options leave out, for [`SnapshotOptions::not_downloaded`].
    pub left_out: Vec<LeftOut>,
    /// Whether nothing told what the repository has: see [`Fetched::unlisted`].
    pub unlisted: bool,
    /// `None` where all files are in the cache, which is the directory then.
    temporary: Option<Temporary>,
}

/// What the stand-ins of an outline stand for.
#[derive(Debug)]
struct Temporary {
    reference: HubReference,
    found: Found,
    _directory: TempDir,
}

impl Outline {
    /// Downloads into the cache those large files that `stand_ins` stand for, by their paths, and returns where each lies
    /// and what its content was found to be. Small files are whole, and of an outline that is a snapshot in the cache all
    /// are.
    ///
    /// # Errors
    /// As [`super::fetch`].
    pub fn complete(
        &self,
        stand_ins: &BTreeSet<PathBuf>,
        environment: &HubEnvironment,
        options: &HubOptions,
        observer: &dyn Observer,
    ) -> Result<BTreeMap<PathBuf, (PathBuf, ExpectedDigest)>, HubError> {
        let Some(Temporary { reference, found, .. }) = &self.temporary else { return Ok(BTreeMap::new()) };
        let place = &found.place;
        let directory = fs::canonicalize(&self.directory).map_err(temporary_error(&self.directory))?;
        let stands_for =
            |file: &&Wanted| file.size > WHOLE_MAX && stand_ins.contains(&directory.join(&file.path));
        let wanted: Vec<&Wanted> = found.wanted.iter().filter(stands_for).collect();
        let net = Net::new(environment, options.stall, options.retries)?;
        super::bring(found, reference, &wanted, &net, options, observer)?;
        wanted
            .into_iter()
            .map(|file| {
                let blob = place.blob(file.digest);
                let lies = fs::canonicalize(&blob).map_err(HubError::cache(&blob))?;
                Ok((directory.join(&file.path), (lies, file.digest)))
            })
            .collect()
    }
}

impl From<Fetched> for Outline {
    fn from(fetched: Fetched) -> Self {
        Self {
            directory: fetched.directory,
            left_out: fetched.left_out,
            unlisted: fetched.unlisted,
            temporary: None,
        }
    }
}

/// As [`super::fetch`], but only small files are downloaded whole, into the cache. Of a larger one that the cache lacks
/// its header is asked for and its `samples`; nothing of it is checked against its digest.
///
/// # Errors
/// See [`HubError`].
pub fn outline(
    reference: &HubReference,
    files: &SnapshotOptions,
    samples: Samples<'_>,
    environment: &HubEnvironment,
    options: &HubOptions,
    observer: &dyn Observer,
) -> Result<Outline, HubError> {
    if environment.offline.is_some() {
        return super::fetch(reference, files, environment, options, observer).map(Outline::from);
    }
    let net = Net::new(environment, options.stall, options.retries)?;
    let found = find(&net, reference, files, environment)?;
    if found.absent().is_empty() {
        let directory = found.place.snapshot(&found.commit);
        return Ok(Outline { directory, left_out: found.left_out, unlisted: false, temporary: None });
    }
    let temporary = TempDir::with_prefix("starcar-plan-")
        .map_err(|cause| HubError::Temporary { path: std::env::temp_dir(), source: cause })?;
    let place = Place::new(temporary.path(), &reference.repository);
    place.make()?;
    found.place.make()?;
    let snapshot = place.snapshot(&found.commit);
    fs::create_dir_all(&snapshot).map_err(temporary_error(&snapshot))?;
    // Each content once.
    let mut contents: BTreeMap<String, Vec<&Wanted>> = BTreeMap::new();
    for file in &found.wanted {
        let stand_in = snapshot.join(&file.path);
        let directory = stand_in.parent().unwrap_or(&snapshot);
        fs::create_dir_all(directory).map_err(temporary_error(directory))?;
        contents.entry(etag(file.digest)).or_default().push(file);
    }
    let firsts: Vec<&Wanted> = contents.values().filter_map(|files| files.first().copied()).collect();
    // What is looked at depends on the name too.
    let samples = |file: &Wanted, weights: bool| -> Windows {
        let named = contents.get(&etag(file.digest)).into_iter().flatten();
        named.flat_map(|file| samples(&file.path, file.size, weights)).collect()
    };
    in_parallel(&net, options.concurrency, &firsts, |file| {
        let stand_in = snapshot.join(&file.path);
        let about = found.about(reference, file);
        let url = found.url(&net, reference, file);
        if file.size <= WHOLE_MAX {
            download(&net, &found.place, &url, &about, file, observer)?;
            fs::copy(found.place.blob(file.digest), &stand_in).map_err(temporary_error(&stand_in))?;
            return Ok(());
        }
        let cached = found.place.has(file.digest, file.size).then(|| found.place.blob(file.digest));
        let read = |offset: u64, length: u64| match &cached {
            Some(blob) => read_at(blob, offset, length).map_err(HubError::cache(blob)),
            None => part(&net, &url, &about, offset, length),
        };
        stand_in_for(file, &stand_in, &read, &samples)
    })?;
    for files in contents.values() {
        let Some((first, others)) = files.split_first() else { continue };
        for other in others {
            let path = snapshot.join(&other.path);
            fs::hard_link(snapshot.join(&first.path), &path).map_err(temporary_error(&path))?;
        }
    }
    let left_out = found.left_out.clone();
    drop(contents);
    let temporary = Temporary { reference: reference.clone(), found, _directory: temporary };
    Ok(Outline { directory: snapshot, left_out, unlisted: false, temporary: Some(temporary) })
}

/// Makes a file of the right length that holds what a plan looks at.
fn stand_in_for(
    wanted: &Wanted,
    path: &Path,
    read: &dyn Fn(u64, u64) -> Result<Vec<u8>, HubError>,
    samples: &dyn Fn(&Wanted, bool) -> Windows,
) -> Result<(), HubError> {
    let failed = || temporary_error(path);
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true).open(path).map_err(failed())?;
    file.set_len(wanted.size).map_err(failed())?;
    let start = read(0, START.min(wanted.size))?;
    file.write_all_at(&start, 0).map_err(failed())?;
    let mut is_weights = start.starts_with(GGUF_MAGIC);
    if let Some(end) = header_end(&start).filter(|end| *end <= wanted.size) {
        let known = start.len() as u64;
        if let Some(rest) = end.checked_sub(known).filter(|rest| *rest > 0) {
            file.write_all_at(&read(known, rest)?, known).map_err(failed())?;
        }
        // The position is still that of the start.
        is_weights = safetensors::check(&file, wanted.size).is_ok();
    }
    for (offset, length) in samples(wanted, is_weights) {
        file.write_all_at(&read(offset, length)?, offset).map_err(failed())?;
    }
    Ok(())
}

/// Where the header of a safetensors file ends, if this is how one begins.
fn header_end(start: &[u8]) -> Option<u64> {
    let length = u64::from_le_bytes(start.get(..8)?.try_into().ok()?);
    (start.get(8) == Some(&b'{') && length <= MAX_HEADER_LENGTH).then(|| length + 8)
}

/// Bytes of a file that the cache has.
fn read_at(path: &Path, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
    // No longer than a header or a sample.
    let mut bytes = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
    File::open(path)?.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Bytes of a file on the hub.
fn part(
    net: &Net,
    url: &reqwest::Url,
    about: &super::net::About,
    offset: u64,
    length: u64,
) -> Result<Vec<u8>, HubError> {
    let mut tries = net.tries();
    loop {
        let result = net.get(url, Some((offset, offset.saturating_add(length) - 1)), about).and_then(|mut answer| {
            if answer.status() != StatusCode::PARTIAL_CONTENT || range_start(&answer) != Some(offset) {
                let reason = "it does not serve parts of files, which planning takes; pack without --dry-run, or \
                              download the repository first";
                return Err(Failure::fatal(about.protocol(reason)));
            }
            let mut bytes = Vec::new();
            while let Some(chunk) = answer.chunk()? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > length {
                    return Err(Failure::fatal(about.protocol("the answer has more bytes than were asked for")));
                }
            }
            if (bytes.len() as u64) < length {
                return Err(Failure::passing(about.protocol("the answer ended early")));
            }
            Ok(bytes)
        });
        match result {
            Ok(bytes) => return Ok(bytes),
            Err(failure) => net.wait(&mut tries, failure)?,
        }
    }
}

fn temporary_error(path: &Path) -> impl FnOnce(std::io::Error) -> HubError {
    move |source| HubError::Temporary { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_told_by_their_start() {
        let start = |length: u64, brace: u8| {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.push(brace);
            bytes
        };
        assert_eq!(header_end(&start(100, b'{')), Some(108));
        assert_eq!(header_end(&start(100, b'[')), None);
        assert_eq!(header_end(&start(u64::MAX, b'{')), None);
        assert_eq!(header_end(b"short"), None);
    }
}
