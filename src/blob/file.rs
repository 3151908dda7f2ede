//! Blobs that lie finished in a file, such as those of an OCI layout. Must not know what they hold.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{BlobContent, RangeSource};
use crate::digest::Digest;

/// A finished blob in a file of its own, or in a part of one.
#[derive(Debug, Clone)]
pub struct FileBlob {
    path: PathBuf,
    start: u64,
    size: u64,
    digest: Digest,
}

impl FileBlob {
    /// The blob at `path`, whose size in bytes and digest are known from a descriptor.
    pub fn new(path: PathBuf, size: u64, digest: Digest) -> Self {
        Self::part(path, 0, size, digest)
    }

    /// The same, where it begins at byte `start` of the file.
    pub fn part(path: PathBuf, start: u64, size: u64, digest: Digest) -> Self {
        Self { path, start, size, digest }
    }
}

impl BlobContent for FileBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn reader(self: Arc<Self>, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = open(&self.path)?;
        file.seek(SeekFrom::Start(self.start.saturating_add(offset)))?;
        Ok(Box::new(file.take(self.size.saturating_sub(offset))))
    }
}

/// Ranges of a file, or of the part of a file that a blob takes up (a member of an `oci-archive`).
#[derive(Debug)]
pub struct FileRange {
    file: File,
    start: u64,
    size: u64,
}

impl FileRange {
    /// The `size` bytes of the file at `path` from byte `start` on.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, start: u64, size: u64) -> io::Result<Self> {
        Ok(Self { file: open(path)?, start, size })
    }
}

impl RangeSource for FileRange {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_range(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.start + offset)?;
        Ok(bytes)
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::open(path)
        .map_err(|cause| io::Error::new(cause.kind(), format!("cannot open {}: {cause}", path.display())))
}
