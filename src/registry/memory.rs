//! What outlives the process: uploads in progress, and which repositories have which blobs. Must not perform
//! requests. Nothing here is needed: what cannot be read or written is forgotten, and bytes are sent again.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use reqwest::Url;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, own_file, pending::PendingFile};

/// Version of the files' format.
const VERSION: u32 = 1;
/// Registries end uploads that nobody continued for this long; distribution does after a week. What registries can do is
/// looked at anew as often.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(7 * 24);
/// Blobs whose repositories are remembered; the oldest go first. Each takes a file of about 100 bytes.
const BLOBS_MAX: usize = 20_000;
/// Repositories that are remembered of one blob.
const REPOSITORIES_MAX: usize = 8;
/// How often a file is opened anew that another process removed before it was locked.
const CLAIM_TRIES: usize = 5;
/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// A directory with what is remembered. Any number of processes may use one at once.
pub(super) struct Memory {
    uploads: PathBuf,
    blobs: PathBuf,
    /// Empty files for registries that were looked at.
    checks: PathBuf,
    /// Whether it was said that nothing can be remembered.
    failure_is_told: AtomicBool,
}

/// An upload that this process, and no other, may continue and remember.
pub(super) struct Claim {
    file: File,
    path: PathBuf,
    url: Option<Url>,
    /// Whether there is something that a later run needs.
    is_of_use: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredUpload {
    version: u32,
    url: String,
}

#[derive(Serialize, Deserialize)]
struct StoredBlob {
    version: u32,
    repositories: Vec<String>,
}

impl Memory {
    /// Opens the memory in `root` and forgets what is too old.
    pub(super) fn open(root: &Path) -> Self {
        let memory = Self {
            uploads: root.join("uploads"),
            blobs: root.join("blobs"),
            checks: root.join("checks"),
            failure_is_told: AtomicBool::new(false),
        };
        let now = SystemTime::now();
        for (path, modified) in files(&memory.uploads).into_iter().chain(files(&memory.checks)) {
            if now.duration_since(modified).is_ok_and(|age| age > FORGOTTEN_AFTER) {
                fs::remove_file(path).ok();
            }
        }
        let mut blobs = files(&memory.blobs);
        if blobs.len() > BLOBS_MAX {
            blobs.sort_by_key(|(_, modified)| *modified);
            let excess = blobs.len() - BLOBS_MAX;
            for (path, _) in blobs.into_iter().take(excess) {
                fs::remove_file(path).ok();
            }
        }
        memory
    }

    /// Claims the upload of a blob to a repository; `None` while another process has it, which then is not disturbed.
    pub(super) fn claim(&self, registry: &str, repository: &str, digest: Digest) -> Option<Claim> {
        if let Err(error) = make_directory(&self.uploads) {
            if !self.failure_is_told.swap(true, Ordering::Relaxed) {
                let directory = self.uploads.display();
                tracing::warn!(
                    "cannot remember uploads in {directory}: {error}; after a kill, blobs begin anew"
                );
            }
            return None;
        }
        let path = self.uploads.join(name(&[registry, repository, &digest.to_string()]));
        let file = locked(&path)?;
        let mut text = Vec::new();
        (&file).take(FILE_MAX).read_to_end(&mut text).ok()?;
        // Only the first value counts: behind it can lie the rest of a longer one, see `Claim::remember`.
        let stored = serde_json::Deserializer::from_slice(&text).into_iter::<StoredUpload>().next();
        let stored = stored.and_then(Result::ok).filter(|stored| stored.version == VERSION);
        let url: Option<Url> = stored.and_then(|stored| stored.url.parse().ok());
        let is_of_use = url.is_some();
        Some(Claim { file, path, url, is_of_use })
    }

    /// Forgets the upload of a blob that is there by now.
    pub(super) fn forget_upload(&self, registry: &str, repository: &str, digest: Digest) {
        if self.uploads.join(name(&[registry, repository, &digest.to_string()])).exists()
            && let Some(claim) = self.claim(registry, repository, digest)
        {
            claim.forget();
        }
    }

    /// Whether it was seen lately that a registry can do what nodes need.
    pub(super) fn was_checked(&self, registry: &str) -> bool {
        self.checks.join(name(&[registry])).is_file()
    }

    /// Remembers that a registry can do what nodes need.
    pub(super) fn checked(&self, registry: &str) {
        let write = || {
            make_directory(&self.checks)?;
            fs::write(self.checks.join(name(&[registry])), "")
        };
        if let Err(error) = write() {
            tracing::info!("cannot remember that {registry} was checked: {error}");
        }
    }

    /// Repositories of a registry that had a blob when it was pushed, the latest first.
    pub(super) fn repositories(&self, registry: &str, digest: Digest) -> Vec<String> {
        let path = self.blobs.join(name(&[registry, &digest.to_string()]));
        let read = || -> Option<StoredBlob> {
            let (file, _) = own_file::open(OpenOptions::new().read(true), &path).ok()??;
            let mut text = Vec::new();
            file.take(FILE_MAX).read_to_end(&mut text).ok()?;
            serde_json::from_slice(&text).ok()
        };
        read()
            .filter(|stored| stored.version == VERSION)
            .map(|stored| stored.repositories)
            .unwrap_or_default()
    }

    /// Remembers that a repository has a blob.
    pub(super) fn has(&self, registry: &str, repository: &str, digest: Digest) {
        let mut repositories = self.repositories(registry, digest);
        if repositories.first().is_some_and(|first| first == repository) {
            return;
        }
        repositories.retain(|known| known != repository);
        repositories.insert(0, repository.to_owned());
        repositories.truncate(REPOSITORIES_MAX);
        let write = || -> io::Result<()> {
            make_directory(&self.blobs)?;
            let text = serde_json::to_vec(&StoredBlob { version: VERSION, repositories })?;
            let mut file = PendingFile::private(&self.blobs)?;
            file.write_all(&text)?;
            file.replace_unsynced(&name(&[registry, &digest.to_string()]))
        };
        if let Err(error) = write() {
            tracing::info!("cannot remember blob {digest}: {error}");
        }
    }
}

impl Claim {
    /// Where the upload was when it was last remembered.
    pub(super) fn url(&self) -> Option<Url> {
        self.url.clone()
    }

    /// Remembers where the upload is.
    pub(super) fn remember(&mut self, url: &Url) {
        let write = || -> io::Result<()> {
            let text = serde_json::to_vec(&StoredUpload { version: VERSION, url: url.to_string() })?;
            // In this order, so that a process that is killed in between leaves an address and not nothing.
            self.file.write_all_at(&text, 0)?;
            self.file.set_len(text.len() as u64)
        };
        match write() {
            Ok(()) => self.is_of_use = true,
            Err(error) => tracing::info!("cannot remember an upload: {error}"),
        }
    }

    /// Forgets the upload.
    pub(super) fn forget(mut self) {
        self.is_of_use = false;
    }
}

impl Drop for Claim {
    /// An upload that ended, or never began, leaves no file. The file is removed before the lock on it ends: whoever
    /// gets the lock then sees that the file has no name any more.
    fn drop(&mut self) {
        if !self.is_of_use && is_at(&self.file, &self.path) {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Opens or makes the file at `path` and locks it; `None` while another process has the lock.
fn locked(path: &Path) -> Option<File> {
    // URLs of uploads can hold what authorises them, so the file is nobody else's to read.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    for _ in 0..CLAIM_TRIES {
        let (file, _) = own_file::open(&options, path).ok()??;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        // Another process may have removed the file between the two: a lock on that keeps nobody away.
        if is_at(&file, path) {
            return Some(file);
        }
    }
    None
}

/// Whether an open file is the one that has the name `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => place(open) == place(named),
        _ => false,
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A file's name that stands for `parts`.
fn name(parts: &[&str]) -> String {
    format!("{}.json", Digest::of(parts.join("\n").as_bytes()).hex())
}

/// The files of a directory and when they were last written.
fn files(directory: &Path) -> Vec<(PathBuf, SystemTime)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let with_time = |entry: fs::DirEntry| Some((entry.path(), entry.metadata().ok()?.modified().ok()?));
    entries.flatten().filter_map(with_time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_claimed_by_one_and_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::open(directory.path());
        let digest = Digest::of(b"blob");
        let mut claim = memory.claim("h:1", "a/b", digest).unwrap();
        assert_eq!(claim.url(), None);
        assert!(memory.claim("h:1", "a/b", digest).is_none(), "another has it");
        assert!(memory.claim("h:1", "a/c", digest).is_some());
        let url: Url = "http://h:1/v2/a/b/blobs/uploads/1?_state=x".parse().unwrap();
        claim.remember(&"http://h:1/a-longer-one/that/is/replaced/by/what/follows/it/here".parse().unwrap());
        claim.remember(&url);
        drop(claim);
        let claim = memory.claim("h:1", "a/b", digest).unwrap();
        assert_eq!(claim.url(), Some(url));
        claim.forget();
        assert_eq!(memory.claim("h:1", "a/b", digest).unwrap().url(), None);
        assert_eq!(files(&memory.uploads), []);
    }

    #[test]
    fn what_is_left_of_a_longer_address_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::open(directory.path());
        let digest = Digest::of(b"blob");
        let url: Url = "http://h:1/v2/a/b/blobs/uploads/1".parse().unwrap();
        memory.claim("h:1", "a/b", digest).unwrap().remember(&url);
        // As a process leaves it that is killed before it cuts the file.
        let (path, _) = files(&memory.uploads).remove(0);
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"rest\"}").unwrap();
        assert_eq!(memory.claim("h:1", "a/b", digest).unwrap().url(), Some(url));
    }

    #[test]
    fn a_claim_is_of_the_file_that_has_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::open(directory.path());
        let digest = Digest::of(b"blob");
        let first = memory.claim("h", "a", digest).unwrap();
        assert!(is_at(&first.file, &first.path));
        fs::remove_file(&first.path).unwrap();
        assert!(!is_at(&first.file, &first.path));
        let mut second = memory.claim("h", "a", digest).unwrap();
        second.remember(&"http://h/".parse().unwrap());
        first.forget();
        assert!(second.path.exists(), "it is not the first one's to remove");
    }

    #[test]
    fn uploads_are_claimed_by_one_at_a_time_in_a_crowd() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::open(directory.path());
        let digest = Digest::of(b"blob");
        let holders = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Some(claim) = memory.claim("h", "a", digest) else { continue };
                        assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        claim.forget();
                    }
                });
            }
        });
    }

    /// A memory of one blob, and of an upload of it, in repository `a` of registry `h`.
    fn with_blob_and_upload(directory: &Path) -> (Memory, Digest) {
        let (memory, digest) = (Memory::open(directory), Digest::of(b"blob"));
        memory.has("h", "a", digest);
        memory.claim("h", "a", digest).unwrap().remember(&"http://h/".parse().unwrap());
        (memory, digest)
    }

    #[test]
    fn files_are_the_users_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let (memory, digest) = with_blob_and_upload(directory.path());
        for (path, _) in files(&memory.blobs).into_iter().chain(files(&memory.uploads)) {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }
        assert!(memory.repositories("h", digest).is_empty(), "others could have written it");
        assert!(memory.claim("h", "a", digest).is_none());
    }

    #[test]
    fn the_latest_repositories_come_first() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::open(directory.path());
        let digest = Digest::of(b"blob");
        assert!(memory.repositories("h", digest).is_empty());
        for repository in ["a", "b", "a", "c"] {
            memory.has("h", repository, digest);
        }
        assert_eq!(memory.repositories("h", digest), ["c", "a", "b"]);
        (0..20).for_each(|number| memory.has("h", &number.to_string(), digest));
        assert_eq!(memory.repositories("h", digest).len(), REPOSITORIES_MAX);
        assert!(memory.repositories("i", digest).is_empty());
    }

    #[test]
    fn damaged_files_are_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let (memory, digest) = with_blob_and_upload(directory.path());
        for (path, _) in files(&memory.blobs).into_iter().chain(files(&memory.uploads)) {
            fs::write(path, b"{\"version\":1,").unwrap();
        }
        assert!(memory.repositories("h", digest).is_empty());
        assert_eq!(memory.claim("h", "a", digest).unwrap().url(), None);
        memory.has("h", "b", digest);
        assert_eq!(memory.repositories("h", digest), ["b"]);
    }
}
