//! The directory that recipes lie in. Any number of processes may use one at once: files appear whole, are never
//! written to, and may vanish at any time. Must not know what the files hold.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{
    digest::Digest,
    own_file,
    pending::{PendingFile, TEMPORARY_PREFIX},
};

/// End of the names of recipes: nothing else in a directory that is given by mistake is ever removed.
const SUFFIX: &str = ".recipe";
/// After this time a file with a temporary name was left by a process that was killed.
const LEFTOVER: Duration = Duration::from_hours(1);

/// A cache of what sealing layers found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestCache {
    directory: PathBuf,
    limit: u64,
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Layers that are known.
    pub entries: usize,
    /// Bytes that they take on disk.
    pub bytes: u64,
}

struct Kept {
    path: PathBuf,
    size: u64,
    used: SystemTime,
}

impl DigestCache {
    /// A cache in `directory`, which is made when something is kept, of at most `limit` bytes. A limit of 0 keeps
    /// nothing.
    pub fn new(directory: impl Into<PathBuf>, limit: u64) -> Self {
        Self { directory: directory.into(), limit }
    }

    /// Where the cache lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Most bytes that it takes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What it holds.
    ///
    /// # Errors
    /// When the directory cannot be read. One that is not there holds nothing.
    pub fn usage(&self) -> io::Result<Usage> {
        Ok(self.list()?.iter().fold(Usage::default(), |usage, kept| Usage {
            entries: usage.entries + 1,
            bytes: usage.bytes + kept.size,
        }))
    }

    /// Removes everything that it holds, and says what that was.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn clear(&self) -> io::Result<Usage> {
        let mut usage = Usage::default();
        for kept in self.list()? {
            remove(&kept.path)?;
            usage.entries += 1;
            usage.bytes += kept.size;
        }
        Ok(usage)
    }

    pub(super) fn create(&self) -> io::Result<()> {
        // Names of models and what is in them are nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    /// The file of `key` and its size in bytes.
    pub(super) fn open(&self, key: Digest) -> io::Result<Option<(File, u64)>> {
        // Whoever else can write here could have a layer packed that is not the user's.
        let file = own_file::open(OpenOptions::new().read(true), &self.path(key))?;
        Ok(file.map(|(file, metadata)| (file, metadata.len())))
    }

    pub(super) fn put(&self, key: Digest, file: PendingFile) -> io::Result<()> {
        file.replace_unsynced(&name(key))?;
        self.shrink()
    }

    pub(super) fn remove(&self, key: Digest) -> io::Result<()> {
        remove(&self.path(key))
    }

    /// Removes what was not used for the longest time until the rest is within the limit.
    fn shrink(&self) -> io::Result<()> {
        let mut list = self.list()?;
        list.sort_by(|one, other| one.used.cmp(&other.used).then_with(|| one.path.cmp(&other.path)));
        let mut bytes: u64 = list.iter().map(|kept| kept.size).sum();
        for kept in list {
            if bytes <= self.limit {
                break;
            }
            remove(&kept.path)?;
            bytes -= kept.size;
        }
        Ok(())
    }

    /// All files of the cache. Leftovers of processes that were killed are removed on the way.
    fn list(&self) -> io::Result<Vec<Kept>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(cause) if is_absent(&cause) => return Ok(Vec::new()),
            Err(cause) => return Err(cause),
        };
        let mut list = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let is_temporary = name.starts_with(TEMPORARY_PREFIX);
            if !is_temporary && !is_name(name) {
                continue;
            }
            // Another process may have removed it.
            let Ok(metadata) = entry.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if !is_temporary {
                list.push(Kept { path: entry.path(), size: metadata.len(), used });
            } else if used.elapsed().is_ok_and(|age| age > LEFTOVER) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(list)
    }

    fn path(&self, key: Digest) -> PathBuf {
        self.directory.join(name(key))
    }
}

fn name(key: Digest) -> String {
    format!("{}{SUFFIX}", key.hex())
}

fn is_name(name: &str) -> bool {
    name.strip_suffix(SUFFIX)
        .is_some_and(|key| key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if is_absent(&cause) => Ok(()),
        done => done,
    }
}

fn is_absent(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    };

    use super::*;

    fn put(cache: &DigestCache, name: &str, size: usize) -> Digest {
        cache.create().unwrap();
        let key = Digest::of(name.as_bytes());
        let mut file = PendingFile::private(cache.directory()).unwrap();
        file.write_all(&vec![0; size]).unwrap();
        cache.put(key, file).unwrap();
        key
    }

    fn age(cache: &DigestCache, key: Digest, seconds: u64) {
        let file = cache.open(key).unwrap().unwrap().0;
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn what_was_not_used_for_long_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let cache = DigestCache::new(directory.path().join("a/b"), 100);
        let (one, two) = (put(&cache, "one", 40), put(&cache, "two", 40));
        age(&cache, one, 10);
        age(&cache, two, 20);
        let three = put(&cache, "three", 40);
        let is_there = |key| cache.open(key).unwrap().is_some();
        assert_eq!([one, two, three].map(is_there), [true, false, true]);
        assert_eq!(cache.usage().unwrap(), Usage { entries: 2, bytes: 80 });
        assert_eq!(cache.clear().unwrap(), Usage { entries: 2, bytes: 80 });
        assert_eq!(cache.usage().unwrap(), Usage::default());
        let mode = fs::metadata(cache.directory()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn files_of_others_are_left_alone_and_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = DigestCache::new(directory.path(), 10);
        let blob = directory.path().join(Digest::of(b"a blob").hex());
        fs::write(&blob, vec![0; 100]).unwrap();
        let leftover = directory.path().join(".starcar-x");
        fs::write(&leftover, "").unwrap();
        File::open(&leftover).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let key = put(&cache, "mine", 10);
        assert!(cache.open(key).unwrap().is_some());
        fs::set_permissions(cache.path(key), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(cache.open(key).unwrap().is_none());
        cache.clear().unwrap();
        assert!(blob.exists() && !leftover.exists() && !cache.path(key).exists());
    }

    #[test]
    fn a_cache_that_is_not_there_is_empty() {
        let cache = DigestCache::new("/nonexistent/cache", 10);
        assert_eq!(cache.usage().unwrap(), Usage::default());
        assert!(cache.open(Digest::of(b"")).unwrap().is_none());
        cache.remove(Digest::of(b"")).unwrap();
    }
}
