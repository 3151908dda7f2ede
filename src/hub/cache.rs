//! A repository in the hub cache: where things lie, locks, links and refs, as `huggingface_hub` lays them out, so that
//! it finds what is downloaded here. Paths that a server names are checked before anything is made of them. Must not
//! perform requests.
//!
//! Source: `huggingface_hub` 2.4, `file_download.py` (`_hf_hub_download_to_cache_dir`, `_create_symlink`) and
//! `utils/_fixes.py` (`WeakFileLock`, which is flock).

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::HubError;
use crate::snapshot::ExpectedDigest;

/// Longest name of a file or directory in bytes, on nearly all file systems.
const NAME_MAX: usize = 255;
/// Longest path inside a repository in bytes: with the cache's own it must stay below 4096.
const PATH_MAX: usize = 2048;
/// Mode of locks: users that share a cache must be able to wait for each other.
const LOCK_MODE: u32 = 0o664;

/// What a snapshot has in the place of a file, where the size is right.
#[derive(Debug)]
pub(super) enum Shown {
    /// Not the file.
    Nothing,
    /// A link that is called after the file's digest.
    Blob,
    /// A plain file, as where a file system has no links: nothing tells what is in it.
    File(PathBuf),
}

/// A repository's directory in the cache.
#[derive(Debug, Clone)]
pub(super) struct Place {
    cache: PathBuf,
    folder: String,
}

impl Place {
    pub(super) fn new(cache: &Path, repository: &str) -> Self {
        Self { cache: cache.to_owned(), folder: format!("models--{}", repository.replace('/', "--")) }
    }

    pub(super) fn repository(&self) -> PathBuf {
        self.cache.join(&self.folder)
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repository().join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, digest: ExpectedDigest) -> PathBuf {
        self.repository().join("blobs").join(etag(digest))
    }

    /// Where a blob is gathered until it is whole. Only who holds its lock may write there.
    pub(super) fn partial(&self, digest: ExpectedDigest) -> PathBuf {
        self.repository().join("blobs").join(format!("{}.incomplete", etag(digest)))
    }

    /// Whether the cache has a blob of this size. A link to a blob that several repositories share is one.
    pub(super) fn has(&self, digest: ExpectedDigest, size: u64) -> bool {
        fs::metadata(self.blob(digest)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// What a snapshot shows already as a file.
    pub(super) fn shows(&self, commit: &str, file: &str, digest: ExpectedDigest, size: u64) -> Shown {
        let path = self.snapshot(commit).join(file);
        if !fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == size) {
            return Shown::Nothing;
        }
        match fs::read_link(&path) {
            Ok(target) if target.file_name().is_some_and(|name| *name == *etag(digest)) => Shown::Blob,
            Ok(_) => Shown::Nothing,
            Err(_) => Shown::File(path),
        }
    }

    /// Makes the directories that blobs and their locks lie in.
    pub(super) fn make(&self) -> Result<(), HubError> {
        for directory in [self.repository().join("blobs"), self.locks()] {
            fs::create_dir_all(&directory).map_err(HubError::cache(&directory))?;
        }
        Ok(())
    }

    fn locks(&self) -> PathBuf {
        self.cache.join(".locks").join(&self.folder)
    }

    /// Waits until no other process downloads a blob. `wait` is called between two tries to get the lock, and ends them by
    /// an error. Where the file system knows no locks there is none.
    pub(super) fn lock(
        &self,
        digest: ExpectedDigest,
        mut wait: impl FnMut() -> Result<(), HubError>,
    ) -> Result<File, HubError> {
        let path = self.locks().join(format!("{}.lock", etag(digest)));
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(LOCK_MODE);
            let file = options.open(&path).map_err(HubError::cache(&path))?;
            // A call that blocks could not be ended when another download fails.
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    wait()?;
                    continue;
                }
                Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK) => return Ok(file),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(HubError::cache(&path)(errno.into())),
            }
            // Whoever had the lock may have removed its file: then somebody else may hold a new one.
            let own = file.metadata().map_err(HubError::cache(&path))?;
            if fs::metadata(&path).is_ok_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino())) {
                return Ok(file);
            }
        }
    }

    /// Shows a blob as a file of a snapshot. `file` has passed [`check_path`].
    pub(super) fn link(&self, commit: &str, file: &str, digest: ExpectedDigest) -> Result<(), HubError> {
        let snapshot = self.snapshot(commit);
        let link = snapshot.join(file);
        let own = self.blob(digest);
        // A link that is there is left alone, if only it leads to the same bytes.
        if let (Ok(found), Ok(own)) = (fs::canonicalize(&link), fs::canonicalize(&own))
            && found == own
        {
            return Ok(());
        }
        let (directories, name) = file.rsplit_once('/').unwrap_or(("", file));
        let mut directory = snapshot;
        make_directory(&directory)?;
        let mut up = String::from("../../");
        for part in directories.split('/').filter(|part| !part.is_empty()) {
            directory.push(part);
            up.push_str("../");
            make_directory(&directory)?;
        }
        // Renamed into place, so that a reader sees the old or the new one. What a kill leaves behind lies outside of
        // snapshots and refs, where it would count as a file or a branch; it leads nowhere from there, and need not.
        let target = format!("{up}blobs/{}", etag(digest));
        let repository = self.repository();
        let made = temporary_name().make_in(&repository, |path| symlink(&target, path));
        let made = made.map_err(HubError::cache(&repository))?;
        made.persist(directory.join(name)).map_err(|error| HubError::cache(&link)(error.error))?;
        Ok(())
    }

    /// Notes the commit that a branch or tag stands for. `revision` has passed `check_revision_name`.
    pub(super) fn note(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.repository().join("refs").join(revision);
        if fs::read_to_string(&path).is_ok_and(|found| found == commit) {
            return Ok(());
        }
        let directory = path.parent().unwrap_or(&path).to_owned();
        fs::create_dir_all(&directory).map_err(HubError::cache(&directory))?;
        let repository = self.repository();
        let temporary = temporary_name().tempfile_in(&repository).map_err(HubError::cache(&repository))?;
        fs::write(temporary.path(), commit).map_err(HubError::cache(&path))?;
        readable(temporary.path()).map_err(HubError::cache(&path))?;
        temporary.persist(&path).map_err(|error| HubError::cache(&path)(error.error))?;
        Ok(())
    }

    /// Bytes that are free where blobs go, where that can be told.
    pub(super) fn free(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.cache).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    pub(super) fn cache(&self) -> &Path {
        &self.cache
    }
}

/// Random names, so that processes of several machines or containers do not meet.
fn temporary_name() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".starcar-").suffix(".tmp");
    builder
}

/// The name of a digest's blob.
pub(super) fn etag(digest: ExpectedDigest) -> String {
    match digest {
        ExpectedDigest::Sha256(digest) => digest.hex(),
        ExpectedDigest::GitSha1(id) => hex::encode(id),
    }
}

/// Refuses what must not become a path below a snapshot's directory.
pub(super) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.len() > PATH_MAX {
        return Err("whose name is too long");
    }
    if path.chars().any(char::is_control) {
        return Err("whose name has a control character");
    }
    path.split('/').try_for_each(|part| match part {
        "" | "." | ".." => Err("whose name leads out of the snapshot"),
        part if part.len() > NAME_MAX => Err("whose name is too long"),
        _ => Ok(()),
    })
}

/// Makes a directory, and those above it. One that is a symlink is none: what is written below it would lie elsewhere.
fn make_directory(path: &Path) -> Result<(), HubError> {
    let failed = || HubError::cache(path);
    DirBuilder::new().recursive(true).create(path).map_err(failed())?;
    let found = fs::symlink_metadata(path).map_err(failed())?;
    if found.is_dir() {
        return Ok(());
    }
    Err(failed()(io::Error::new(io::ErrorKind::NotADirectory, "it is a symlink")))
}

/// Lets everybody read a file that was made for its owner alone, as far as the user's mask allows.
fn readable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> ExpectedDigest {
        ExpectedDigest::GitSha1([7; 20])
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["a", "a/b", "a..b", ".gitattributes", "é/ü", "a b", "..."] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        let long = "a/".repeat(2000) + "a";
        let name = "a".repeat(256);
        for path in ["", "/a", "a/", "..", "../a", "a/../../b", "a//b", "./a", "a\0b", "a\nb", &long, &name] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }

    #[test]
    fn links_are_those_of_huggingface_hub() {
        let cache = tempfile::tempdir().unwrap();
        let place = Place::new(cache.path(), "a/b");
        place.make().unwrap();
        fs::write(place.blob(digest()), "x").unwrap();
        for (file, up) in [("config.json", "../../"), ("a/b/c.json", "../../../../")] {
            for _ in 0..2 {
                place.link("c0", file, digest()).unwrap();
                let target = fs::read_link(place.snapshot("c0").join(file)).unwrap();
                assert_eq!(target, PathBuf::from(format!("{up}blobs/{}", etag(digest()))));
                assert_eq!(fs::read_to_string(place.snapshot("c0").join(file)).unwrap(), "x");
            }
        }
        assert!(place.repository().ends_with("models--a--b"));
        // Nothing temporary is left, and nothing of it ever lies inside a snapshot.
        assert_eq!(fs::read_dir(place.repository()).unwrap().count(), 2);
        assert!(place.has(digest(), 1) && !place.has(digest(), 2));
    }

    #[test]
    fn nothing_is_written_through_a_symlink() {
        let (cache, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = Place::new(cache.path(), "a/b");
        fs::create_dir_all(place.snapshot("c0")).unwrap();
        symlink(elsewhere.path(), place.snapshot("c0").join("out")).unwrap();
        assert!(place.link("c0", "out/file", digest()).is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn refs_are_plain_files() {
        let cache = tempfile::tempdir().unwrap();
        let place = Place::new(cache.path(), "a");
        for commit in ["1", "2", "2"] {
            place.note("refs/pr/1", commit).unwrap();
            let path = place.repository().join("refs/refs/pr/1");
            assert_eq!(fs::read_to_string(path).unwrap(), commit);
        }
        assert_eq!(fs::read_dir(place.repository()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_taken_anew() {
        let cache = tempfile::tempdir().unwrap();
        let place = Place::new(cache.path(), "a");
        place.make().unwrap();
        let first = place.lock(digest(), || Ok(())).unwrap();
        let path = place.locks().join(format!("{}.lock", etag(digest())));
        std::thread::scope(|scope| {
            let (said, heard) = std::sync::mpsc::channel();
            let second = scope.spawn(|| {
                place.lock(digest(), move || {
                    said.send(()).ok();
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    Ok(())
                })
            });
            heard.recv().unwrap();
            fs::remove_file(&path).unwrap();
            drop(first);
            let second = second.join().unwrap().unwrap();
            assert_eq!(second.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
        });
    }
}
