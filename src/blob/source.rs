//! Files that a blob takes bytes from. A source is opened when it is read and must still be the file
//! that was planned. Must not know what the bytes become.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    path::PathBuf,
    sync::Arc,
};

use rustix::io::{Errno, preadv};

use super::FileStamp;

/// A file that a blob takes bytes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file of the user's: opened anew for every use, refused when its stamp changed.
    Path {
        /// Where the file lies.
        path: PathBuf,
        /// What it looked like when it was planned.
        stamp: FileStamp,
    },
    /// A temporary file of our own that no one else can change.
    Spool(Arc<File>),
}

/// Why a source could not give its bytes.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be opened or looked at.
    #[error("cannot open {}", path.display())]
    Open {
        /// Where the file lies.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read {} at byte {offset}", path.display())]
    Read {
        /// Where the file lies.
        path: PathBuf,
        /// First byte of the range that failed.
        offset: u64,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// The file is not what was planned.
    #[error(
        "{} changed while it was packed: {what}; pack again when nothing writes to it",
        path.display()
    )]
    Changed {
        /// Where the file lies.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
}

/// A source that is open for reading.
#[derive(Debug)]
pub struct OpenSource {
    file: Arc<File>,
    /// Path and stamp to check against; `None` for a spool.
    planned: Option<(PathBuf, FileStamp)>,
}

impl Source {
    /// Opens the file and checks that it is the planned one.
    ///
    /// # Errors
    /// [`SourceError::Open`] when it cannot be opened, [`SourceError::Changed`] when its stamp differs.
    pub fn open(&self) -> Result<OpenSource, SourceError> {
        let open = match self {
            Self::Path { path, stamp } => {
                let file =
                    File::open(path).map_err(|cause| SourceError::Open { path: path.clone(), cause })?;
                OpenSource { file: Arc::new(file), planned: Some((path.clone(), *stamp)) }
            }
            Self::Spool(file) => OpenSource { file: Arc::clone(file), planned: None },
        };
        open.check_unchanged()?;
        Ok(open)
    }
}

impl OpenSource {
    /// Fills `slices` one after another with the bytes from `offset`.
    ///
    /// # Errors
    /// [`SourceError::Changed`] when the file ends before the slices are full, [`SourceError::Read`] when
    /// the operating system fails.
    pub fn read_exact_vectored(&self, slices: &mut [IoSliceMut<'_>], offset: u64) -> Result<(), SourceError> {
        /// `UIO_MAXIOV` of Linux: more slices than this in one call are refused.
        const MAX_SLICES: usize = 1024;

        let mut rest = slices;
        let mut position = offset;
        // Slices may be full but for empty ones; `advance_slices` drops those.
        IoSliceMut::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let batch = rest.len().min(MAX_SLICES);
            match preadv(&self.file, &mut rest[..batch], position) {
                Ok(0) => return Err(self.changed("it is shorter than it was")),
                Ok(count) => {
                    position += count as u64;
                    IoSliceMut::advance_slices(&mut rest, count);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.read_error(offset, errno.into())),
            }
        }
        Ok(())
    }

    /// Checks that the open file still carries the stamp it was planned with.
    ///
    /// # Errors
    /// [`SourceError::Changed`] when it does not.
    pub fn check_unchanged(&self) -> Result<(), SourceError> {
        let Some((path, planned)) = &self.planned else { return Ok(()) };
        let metadata =
            self.file.metadata().map_err(|cause| SourceError::Open { path: path.clone(), cause })?;
        let now = FileStamp::of(&metadata);
        if now.is_unchanged_since(planned) {
            Ok(())
        } else if now.size != planned.size {
            Err(self.changed("its size differs"))
        } else if (now.device, now.inode) != (planned.device, planned.inode) {
            Err(self.changed("another file took its place"))
        } else {
            Err(self.changed("its modification time differs"))
        }
    }

    /// The error of a file whose content differs from what was read before.
    pub fn content_changed(&self) -> SourceError {
        self.changed("its content differs from the first read")
    }

    fn changed(&self, what: &'static str) -> SourceError {
        SourceError::Changed { path: self.path(), what }
    }

    fn read_error(&self, offset: u64, cause: io::Error) -> SourceError {
        SourceError::Read { path: self.path(), offset, cause }
    }

    fn path(&self) -> PathBuf {
        self.planned.as_ref().map_or_else(|| PathBuf::from("temporary file"), |(path, _)| path.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    fn planned(path: &std::path::Path) -> Source {
        Source::Path { path: path.to_owned(), stamp: FileStamp::of(&fs::metadata(path).unwrap()) }
    }

    #[test]
    fn slices_are_filled_in_order() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"0123456789").unwrap();
        let (mut first, mut second) = ([0; 3], [0; 4]);
        planned(file.path())
            .open()
            .unwrap()
            .read_exact_vectored(&mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)], 2)
            .unwrap();
        assert_eq!((&first, &second), (b"234", b"5678"));
    }

    #[test]
    fn a_shorter_file_is_a_changed_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"0123456789").unwrap();
        let open = planned(file.path()).open().unwrap();
        file.as_file().set_len(5).unwrap();
        let mut buffer = [0; 10];
        let error = open.read_exact_vectored(&mut [IoSliceMut::new(&mut buffer)], 0).unwrap_err();
        assert!(error.to_string().contains("shorter"), "{error}");
        assert!(open.check_unchanged().unwrap_err().to_string().contains("size"));
    }

    #[test]
    fn another_mode_or_name_changes_nothing() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weights");
        fs::write(&path, "one").unwrap();
        let Source::Path { stamp: before, .. } = planned(&path) else { unreachable!() };
        let source = planned(&path);
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(&path, directory.path().join("second")).unwrap();
        source.open().unwrap().check_unchanged().unwrap();
        let after = FileStamp::of(&fs::metadata(&path).unwrap());
        assert!(after.is_unchanged_since(&before));
        assert_ne!(after, before);
    }

    #[test]
    fn a_replaced_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weights");
        fs::write(&path, "one").unwrap();
        let source = planned(&path);
        fs::write(directory.path().join("other"), "two").unwrap();
        fs::rename(directory.path().join("other"), &path).unwrap();
        assert!(source.open().unwrap_err().to_string().contains("weights"));
    }
}
