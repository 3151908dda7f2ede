//! Files that appear under their name whole or not at all. A pending file has no name, so a process that is
//! killed leaves nothing behind. Must not know what the files are for.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, linkat, open},
    io::Errno,
};

/// A file that is being written.
#[derive(Debug)]
pub struct PendingFile {
    file: File,
    directory: PathBuf,
    /// The file's name where the file system has no nameless files.
    named: Option<tempfile::TempPath>,
}

impl PendingFile {
    /// A new, empty file that will be named in `directory`, for everybody to read.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub fn new(directory: &Path) -> io::Result<Self> {
        Self::with_mode(directory, 0o644)
    }

    /// As [`Self::new`], for its owner alone.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub fn private(directory: &Path) -> io::Result<Self> {
        Self::with_mode(directory, 0o600)
    }

    fn with_mode(directory: &Path, mode: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match open(directory, flags, Mode::from_raw_mode(mode)) {
            Ok(descriptor) => {
                return Ok(Self { file: descriptor.into(), directory: directory.to_owned(), named: None });
            }
            // Not every file system has O_TMPFILE (NFS has none).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        let named = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .permissions(fs::Permissions::from_mode(mode))
            .tempfile_in(directory)?;
        let (file, path) = named.into_parts();
        Ok(Self { file, directory: directory.to_owned(), named: Some(path) })
    }

    /// Writes the file to disk and gives it the name `name`, unless a file of that name and size is there
    /// already; then the pending file is dropped. One of another size is a damaged copy and is replaced.
    ///
    /// # Errors
    /// When it cannot be written or named.
    pub fn keep(self, name: &str) -> io::Result<()> {
        let size = self.file.metadata()?.len();
        if fs::metadata(self.directory.join(name)).is_ok_and(|present| present.len() != size) {
            return self.replace(name);
        }
        self.file.sync_all()?;
        let directory = self.directory.clone();
        match self.name_it(&directory.join(name)) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(cause) => Err(cause),
            Ok(()) => sync_directory(&directory),
        }
    }

    /// Writes the file to disk and gives it the name `name`, in place of what has that name.
    ///
    /// # Errors
    /// When it cannot be written or named.
    pub fn replace(self, name: &str) -> io::Result<()> {
        self.file.sync_all()?;
        let directory = self.directory.clone();
        self.replace_unsynced(name)?;
        sync_directory(&directory)
    }

    /// As [`Self::replace`], without waiting for the disk: when the machine crashes, the file may be damaged or the
    /// old one. For files that are checked when they are read and can be made again.
    ///
    /// # Errors
    /// When it cannot be named.
    pub fn replace_unsynced(self, name: &str) -> io::Result<()> {
        let directory = &self.directory;
        // A link cannot replace a file, a rename can: the file passes through a name of its own, for a moment.
        let step = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).make_in(directory, |path| {
            link(&self.file, path).or_else(|cause| match &self.named {
                Some(named) => fs::hard_link(named, path),
                None => Err(cause),
            })
        })?;
        fs::rename(step.path(), directory.join(name))?;
        let _ = step.into_temp_path().keep();
        Ok(())
    }

    fn name_it(self, path: &Path) -> io::Result<()> {
        match self.named {
            Some(named) => named.persist_noclobber(path).map_err(|error| error.error),
            None => link(&self.file, path),
        }
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Start of the names that pending files bear where they must have one.
pub const TEMPORARY_PREFIX: &str = ".starcar-";

/// Names an open file without a name. The detour over `/proc` needs no privilege, unlike `AT_EMPTY_PATH`.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)
}

/// Makes new names in `directory` survive a crash of the machine.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = PendingFile::new(directory.path()).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(names(directory.path()), [""; 0]);
    }

    #[test]
    fn private_files_are_their_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let make: [fn(&Path) -> io::Result<PendingFile>; 2] = [PendingFile::new, PendingFile::private];
        let modes = make.map(|make| {
            make(directory.path()).unwrap().replace_unsynced("name").unwrap();
            fs::metadata(directory.path().join("name")).unwrap().permissions().mode() & 0o777
        });
        // Whoever runs this may have a stricter umask.
        assert_eq!((modes[0] & !0o044, modes[1]), (0o600, 0o600));
    }

    #[test]
    fn keep_does_not_replace_and_replace_does() {
        let directory = tempfile::tempdir().unwrap();
        for (content, keep) in [("one", true), ("two", true), ("six", false)] {
            let mut file = PendingFile::new(directory.path()).unwrap();
            file.write_all(content.as_bytes()).unwrap();
            if keep { file.keep("name") } else { file.replace("name") }.unwrap();
            let expected = if keep { "one" } else { "six" };
            assert_eq!(fs::read_to_string(directory.path().join("name")).unwrap(), expected);
            assert_eq!(names(directory.path()), ["name"]);
        }
        // Cut short by someone else: a blob of another size is not the blob.
        fs::write(directory.path().join("name"), "s").unwrap();
        let mut file = PendingFile::new(directory.path()).unwrap();
        file.write_all(b"six").unwrap();
        file.keep("name").unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("name")).unwrap(), "six");
    }
}
