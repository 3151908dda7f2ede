//! What outlives the process: uploads in progress, and which repositories have which blobs. Must not perform
//! requests. Nothing here is needed: what cannot be read or written is forgotten, and bytes are sent again.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use reqwest::Url;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Version of the files' format.
const VERSION: u32 = 1;
/// Registries end uploads that nobody continued for this long; distribution does after a week.
const UPLOADS_LIVE: Duration = Duration::from_hours(7 * 24);
/// Blobs whose repositories are remembered; the oldest go first. Each takes a file of about 100 bytes.
const BLOBS_MAX: usize = 20_000;
/// Repositories that are remembered of one blob.
const REPOSITORIES_MAX: usize = 8;
/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// A directory with what is remembered. Any number of processes may use one at once.
pub(super) struct Memory {
    uploads: PathBuf,
    blobs: PathBuf,
}

/// An upload that this process, and no other, may continue and remember.
pub(super) struct Claim {
    file: File,
    path: PathBuf,
    url: Option<Url>,
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
        let memory = Self { uploads: root.join("uploads"), blobs: root.join("blobs") };
        let now = SystemTime::now();
        for (path, modified) in files(&memory.uploads) {
            if now.duration_since(modified).is_ok_and(|age| age > UPLOADS_LIVE) {
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
        make_directory(&self.uploads).ok()?;
        let path = self.uploads.join(name(&[registry, repository, &digest.to_string()]));
        // URLs of uploads can hold what authorises them, so the file is nobody else's to read.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        let mut text = Vec::new();
        (&file).take(FILE_MAX).read_to_end(&mut text).ok()?;
        let stored = serde_json::from_slice::<StoredUpload>(&text).ok();
        let url =
            stored.filter(|stored| stored.version == VERSION).and_then(|stored| stored.url.parse().ok());
        Some(Claim { file, path, url })
    }

    /// Repositories of a registry that had a blob when it was pushed, the latest first.
    pub(super) fn repositories(&self, registry: &str, digest: Digest) -> Vec<String> {
        let path = self.blobs.join(name(&[registry, &digest.to_string()]));
        let read = || -> Option<StoredBlob> {
            let mut text = Vec::new();
            File::open(path).ok()?.take(FILE_MAX).read_to_end(&mut text).ok()?;
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
            let mut file = tempfile::NamedTempFile::new_in(&self.blobs)?;
            file.write_all(&text)?;
            file.persist(self.blobs.join(name(&[registry, &digest.to_string()])))?;
            Ok(())
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
        let mut write = || -> io::Result<()> {
            let text = serde_json::to_vec(&StoredUpload { version: VERSION, url: url.to_string() })?;
            self.file.rewind()?;
            self.file.set_len(0)?;
            self.file.write_all(&text)
        };
        if let Err(error) = write() {
            tracing::info!("cannot remember an upload: {error}");
        }
    }

    /// Forgets the upload.
    pub(super) fn forget(self) {
        fs::remove_file(&self.path).ok();
    }
}

impl Drop for Claim {
    /// An upload that never began leaves no file.
    fn drop(&mut self) {
        if self.file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            fs::remove_file(&self.path).ok();
        }
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
        let memory = Memory::open(directory.path());
        let digest = Digest::of(b"blob");
        memory.has("h", "a", digest);
        memory.claim("h", "a", digest).unwrap().remember(&"http://h/".parse().unwrap());
        for (path, _) in files(&memory.blobs).into_iter().chain(files(&memory.uploads)) {
            fs::write(path, b"{\"version\":1,").unwrap();
        }
        assert!(memory.repositories("h", digest).is_empty());
        assert_eq!(memory.claim("h", "a", digest).unwrap().url(), None);
        memory.has("h", "b", digest);
        assert_eq!(memory.repositories("h", digest), ["b"]);
    }
}
