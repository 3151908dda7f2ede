//! One file's bytes, from the hub into the cache: gathered in a partial file that any later run goes on with, checked
//! while they come, and named when they are right. Must not know which files are wanted.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use reqwest::{StatusCode, Url, header::CONTENT_RANGE};
use rustix::fs::OFlags;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::{
    HubError,
    cache::Place,
    net::{About, Answer, Failure, Net},
};
use crate::{digest::Digest, progress::Observer, registry::retry::PROGRESS_MIN, snapshot::ExpectedDigest};

/// Longest part of a file that is asked for at a time, in bytes. The stores behind the hub serve no more than 50 GB in
/// one answer (`huggingface_hub` 2.4, `constants.MAX_HTTP_DOWNLOAD_SIZE`).
const PART_MAX: u64 = 16 << 30;
/// How long a lock that another process has is left alone before it is tried again.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// Bytes that are read at a time of what an earlier run left.
const BUFFER: usize = 1 << 20;

/// A file to download.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Path inside the repository.
    pub(super) path: String,
    /// Size in bytes.
    pub(super) size: u64,
    /// What its content must have.
    pub(super) digest: ExpectedDigest,
}

/// Why a try to get a file ended.
enum Trouble {
    /// For good.
    Failed(HubError),
    /// The bytes are not those of the file; the text says what they are.
    Wrong(String),
}

impl From<HubError> for Trouble {
    fn from(error: HubError) -> Self {
        Self::Failed(error)
    }
}

/// Brings a file into the cache, unless it is there.
///
/// # Errors
/// Failed requests, after as many tries as there are; bytes that are wrong twice; a cache that cannot be written.
pub(super) fn download(
    net: &Net,
    place: &Place,
    url: &Url,
    about: &About,
    wanted: &Wanted,
    observer: &dyn Observer,
) -> Result<(), HubError> {
    let mut waits = false;
    let _lock = place.lock(wanted.digest, || {
        if !std::mem::replace(&mut waits, true) {
            tracing::warn!("waiting for another process that downloads {}", wanted.path);
        }
        net.rest(LOCK_POLL, about)
    })?;
    if place.has(wanted.digest, wanted.size) {
        observer.downloaded(wanted.size);
        return Ok(());
    }
    let path = place.partial(wanted.digest);
    let failed = || HubError::cache(&path);
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = options.open(&path).map_err(failed())?;
    let mut partial = Partial { file, hasher: Hasher::new(wanted), position: 0, wanted, observer };
    for is_last in [false, true] {
        let left = partial.resume().map_err(failed())?;
        if left > 0 {
            observer.download_resumed(&wanted.path, left);
        }
        let trouble = match partial.complete(net, url, about, &path) {
            Ok(actual) if actual == wanted.digest => {
                fs::rename(&path, place.blob(wanted.digest)).map_err(failed())?;
                observer.file_done(&wanted.path, wanted.size);
                return Ok(());
            }
            Ok(actual) => Trouble::Wrong(actual.to_string()),
            Err(trouble) => trouble,
        };
        let actual = match trouble {
            Trouble::Failed(error) => return Err(error),
            Trouble::Wrong(actual) => actual,
        };
        partial.clear().map_err(failed())?;
        let error = HubError::WrongDigest {
            repository: about.repository.clone(),
            file: wanted.path.clone(),
            expected: format!("{} ({} bytes)", wanted.digest, wanted.size),
            actual,
        };
        if is_last {
            fs::remove_file(&path).map_err(failed())?;
            return Err(error);
        }
        tracing::warn!("{} was downloaded and is wrong; it is downloaded again from its start", wanted.path);
    }
    Ok(())
}

/// A file that is being gathered.
struct Partial<'a> {
    file: File,
    hasher: Hasher,
    /// Bytes that are there, and hashed.
    position: u64,
    wanted: &'a Wanted,
    observer: &'a dyn Observer,
}

impl Partial<'_> {
    /// Hashes what an earlier run left, and gives its length.
    fn resume(&mut self) -> io::Result<u64> {
        if self.file.metadata()?.len() > self.wanted.size {
            self.clear()?;
        }
        self.file.seek(SeekFrom::Start(0))?;
        self.position += self.hasher.read(&mut self.file)?;
        self.observer.downloaded(self.position);
        Ok(self.position)
    }

    /// Begins anew.
    fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hasher = Hasher::new(self.wanted);
        self.observer.lost(self.position);
        self.position = 0;
        Ok(())
    }

    /// Downloads what is missing, and gives the digest of the whole.
    fn complete(
        &mut self,
        net: &Net,
        url: &Url,
        about: &About,
        path: &Path,
    ) -> Result<ExpectedDigest, Trouble> {
        let mut tries = net.tries();
        while self.position < self.wanted.size {
            let before = self.position;
            let outcome = self.part(net, url, about, path);
            if self.position.saturating_sub(before) >= PROGRESS_MIN {
                tries.moved();
            }
            let Err(stopped) = outcome else { continue };
            let failure = match stopped {
                Stopped::Trouble(trouble) => return Err(trouble),
                Stopped::Failure(failure) => failure,
            };
            if failure.status == Some(StatusCode::RANGE_NOT_SATISFIABLE) && self.position > 0 {
                self.clear().map_err(HubError::cache(path))?;
                net.wait(&mut tries, Failure::passing(*failure.error))?;
            } else {
                net.wait(&mut tries, failure)?;
            }
        }
        Ok(self.hasher.clone().finish())
    }

    /// Makes one request, and takes what comes.
    fn part(&mut self, net: &Net, url: &Url, about: &About, path: &Path) -> Result<(), Stopped> {
        let size = self.wanted.size;
        let mut end = self.position.saturating_add(PART_MAX).min(size);
        let is_whole = self.position == 0 && end == size;
        let range = (!is_whole).then_some((self.position, end - 1));
        let mut answer = net.get(url, range, about)?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if range_start(&answer) == Some(self.position) => {}
            StatusCode::OK => {
                if self.position > 0 {
                    tracing::warn!(
                        "the server does not go on inside {}; all of it is sent again",
                        self.wanted.path
                    );
                    self.clear().map_err(HubError::cache(path))?;
                }
                end = size;
            }
            status => {
                let reason =
                    format!("the answer {} is not for the bytes that were asked for", status.as_u16());
                return Err(Failure::passing(about.protocol(reason)).into());
            }
        }
        while let Some(chunk) = answer.chunk()? {
            if self.position.saturating_add(chunk.len() as u64) > end {
                return Err(Stopped::Trouble(Trouble::Wrong(format!("more than {end} bytes"))));
            }
            self.file.write_all(&chunk).map_err(HubError::cache(path))?;
            self.hasher.update(&chunk);
            self.position += chunk.len() as u64;
            self.observer.downloaded(chunk.len() as u64);
        }
        if self.position == end {
            return Ok(());
        }
        let reason = format!("the answer ended after {} of {end} bytes", self.position);
        Err(Failure::passing(about.protocol(reason)).into())
    }
}

/// Why a part did not come.
enum Stopped {
    /// Asking again may help.
    Failure(Failure),
    Trouble(Trouble),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<HubError> for Stopped {
    fn from(error: HubError) -> Self {
        Self::Trouble(Trouble::Failed(error))
    }
}

/// The first byte that an answer says it has.
pub(super) fn range_start(answer: &Answer<'_>) -> Option<u64> {
    let text = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// Whether a file has the content that is wanted. One that cannot be read has not.
pub(super) fn has_content(path: &Path, wanted: &Wanted) -> bool {
    let mut hasher = Hasher::new(wanted);
    let length = File::open(path).and_then(|mut file| hasher.read(&mut file));
    length.is_ok_and(|length| length == wanted.size) && hasher.finish() == wanted.digest
}

/// Hashes a file as the hub names it.
#[derive(Clone)]
enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    fn new(wanted: &Wanted) -> Self {
        match wanted.digest {
            ExpectedDigest::Sha256(_) => Self::Sha256(Sha256::new()),
            // Git hashes a file's length before its bytes.
            ExpectedDigest::GitSha1(_) => {
                Self::Git(Sha1::new().chain_update(format!("blob {}\0", wanted.size)))
            }
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    /// Takes all that is left of a file, and gives its length in bytes.
    fn read(&mut self, file: &mut File) -> io::Result<u64> {
        let mut buffer = vec![0; BUFFER];
        let mut total = 0;
        loop {
            let length = file.read(&mut buffer)?;
            let Some(read) = buffer.get(..length).filter(|read| !read.is_empty()) else { return Ok(total) };
            self.update(read);
            total += read.len() as u64;
        }
    }

    fn finish(self) -> ExpectedDigest {
        match self {
            Self::Sha256(hasher) => ExpectedDigest::Sha256(Digest::finish(hasher)),
            Self::Git(hasher) => ExpectedDigest::GitSha1(hasher.finalize().into()),
        }
    }
}
