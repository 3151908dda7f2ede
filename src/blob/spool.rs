//! Bytes that cannot be made again cheaply (compressed members, a pulled base layer): kept in memory while
//! they are few, in an unlinked temporary file when they are many. Must not know what the bytes mean.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

/// Where bytes are kept until they are needed again. Shared by all layers of one pack.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    memory_limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_memory: usize,
    file: Option<Arc<File>>,
    file_size: u64,
}

/// A range of bytes in a [`Spool`].
#[derive(Debug, Clone)]
pub enum Spooled {
    /// Kept in memory.
    Memory(Bytes),
    /// Kept in the spool's file.
    File {
        /// The unlinked temporary file.
        file: Arc<File>,
        /// First byte in the file.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
}

impl Spool {
    /// A spool that keeps up to `memory_limit` bytes in memory and the rest in a file in `directory`.
    /// The file has no name, so nothing is left behind however the process ends.
    pub fn new(directory: impl AsRef<Path>, memory_limit: usize) -> Self {
        Self { directory: directory.as_ref().to_owned(), memory_limit, state: Mutex::default() }
    }

    /// Keeps `bytes`.
    ///
    /// # Errors
    /// When the temporary file cannot be made or written (disk full).
    pub fn store(&self, bytes: Vec<u8>) -> io::Result<Spooled> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.in_memory + bytes.len() <= self.memory_limit {
            state.in_memory += bytes.len();
            return Ok(Spooled::Memory(bytes.into()));
        }
        let file = if let Some(file) = &state.file {
            Arc::clone(file)
        } else {
            let file = Arc::new(self.temporary_file()?);
            state.file = Some(Arc::clone(&file));
            file
        };
        let offset = state.file_size;
        file.write_all_at(&bytes, offset)?;
        state.file_size += bytes.len() as u64;
        Ok(Spooled::File { file, offset, length: bytes.len() as u64 })
    }

    /// A new, empty, nameless file in the spool's directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary_file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.directory).map_err(|cause| {
            io::Error::new(
                cause.kind(),
                format!(
                    "cannot make a temporary file in {} (TMPDIR chooses another place): {cause}",
                    self.directory.display()
                ),
            )
        })
    }
}

impl Spooled {
    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
    pub fn load(&self) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File { file, offset, length } => {
                let length = usize::try_from(*length).map_err(io::Error::other)?;
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, *offset)?;
                Ok(bytes.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_past_the_limit_go_to_the_file_and_come_back() {
        let spool = Spool::new(std::env::temp_dir(), 4);
        let kept: Vec<Spooled> = ["abc", "defgh", "i", "jkl"]
            .iter()
            .map(|text| spool.store(text.as_bytes().to_vec()).unwrap())
            .collect();
        assert!(matches!(kept[0], Spooled::Memory(_)));
        assert!(matches!(kept[1], Spooled::File { offset: 0, length: 5, .. }));
        assert!(matches!(kept[2], Spooled::Memory(_)));
        assert!(matches!(kept[3], Spooled::File { offset: 5, length: 3, .. }));
        let bytes: Vec<u8> = kept.iter().flat_map(|part| part.load().unwrap().to_vec()).collect();
        assert_eq!(bytes, b"abcdefghijkl");
    }
}
