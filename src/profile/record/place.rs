//! Directories to mount on: chosen, made where there is none, locked, and removed afterwards. Must not know what is
//! mounted there.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, FlockOperation, access, flock};

use super::{RecordError, SOURCE, mount_table};

/// Where the model lies in an image, unless told otherwise.
const MODEL_DEFAULT: &str = "/models";

/// A directory to mount on. It is removed when dropped, if it was made for this.
#[derive(Debug)]
pub struct MountPoint {
    path: PathBuf,
    /// The directory below the mount. It is locked: another recorder that wants the directory sees that.
    directory: File,
    created: bool,
}

impl MountPoint {
    /// A place for the model: `wanted`, or `/models` where that can be had, or a new temporary directory.
    pub(super) fn for_model(wanted: Option<&Path>) -> Result<Self, RecordError> {
        if let Some(path) = wanted {
            let place = Self::made(path)?;
            return if place.is_empty() { Ok(place) } else { Err(refusal(path, "it is not empty")) };
        }
        if let Ok(place) = Self::made(Path::new(MODEL_DEFAULT))
            && place.is_empty()
            && access(&place.path, Access::WRITE_OK).is_ok()
        {
            return Ok(place);
        }
        let directory = tempfile::Builder::new()
            .prefix("starcar-model-")
            .tempdir()
            .map_err(RecordError::system("create a temporary directory"))?;
        let mut place = Self::existing(directory.path())?;
        place.path = directory.keep();
        place.created = true;
        Ok(place)
    }

    /// A directory that may hold something, which is hidden for the time being.
    pub(super) fn existing(path: &Path) -> Result<Self, RecordError> {
        let cannot = |cause: io::Error| match cause.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOTCONN) => refusal(
                path,
                "a recorder that was killed has left a dead mount there; `fusermount3 -u` takes it away",
            ),
            _ => RecordError::Mount { path: path.to_owned(), cause },
        };
        let path = path.canonicalize().map_err(cannot)?;
        let directory = File::open(&path).map_err(cannot)?;
        if !directory.metadata().map_err(cannot)?.is_dir() {
            return Err(refusal(&path, "it is no directory"));
        }
        let locked = flock(&directory, FlockOperation::NonBlockingLockExclusive);
        if locked.is_err() || mount_table::has(SOURCE, &path) {
            return Err(refusal(&path, "another recording uses it"));
        }
        Ok(Self { path, directory, created: false })
    }

    fn made(path: &Path) -> Result<Self, RecordError> {
        let created = match fs::create_dir(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(cause) => return Err(RecordError::Mount { path: path.to_owned(), cause }),
        };
        let mut place = Self::existing(path)?;
        place.created = created;
        Ok(place)
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// The directory, absolute and without symlinks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory was made for this.
    pub fn created(&self) -> bool {
        self.created
    }

    /// The directory that the mount hides.
    pub(super) fn hidden(&self) -> io::Result<OwnedFd> {
        Ok(self.directory.try_clone()?.into())
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        if self.created {
            // Nobody can be told. A directory that holds something is not removed.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn refusal(path: &Path, reason: &'static str) -> RecordError {
    RecordError::Place { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_made_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new");
        let place = MountPoint::for_model(Some(&path)).unwrap();
        assert!(place.created() && path.is_dir());
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_was_there_stays_and_serves_one() {
        let path = tempfile::tempdir().unwrap();
        let place = MountPoint::for_model(Some(path.path())).unwrap();
        let error = MountPoint::for_model(Some(path.path())).unwrap_err();
        assert!(error.to_string().contains("another recording"), "{error}");
        drop(place);
        assert!(path.path().exists());
        MountPoint::for_model(Some(path.path())).unwrap();
    }

    #[test]
    fn what_is_not_empty_is_refused() {
        let path = tempfile::tempdir().unwrap();
        fs::write(path.path().join("file"), "").unwrap();
        let error = MountPoint::for_model(Some(path.path())).unwrap_err();
        assert!(error.to_string().contains("not empty"), "{error}");
        let error = MountPoint::for_model(Some(&path.path().join("file"))).unwrap_err();
        assert!(error.to_string().contains("no directory"), "{error}");
    }
}
