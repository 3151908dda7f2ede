//! Bounded reads of small files whose content nobody vouches for. Must not know what the files mean.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// All of a small regular file. One that is longer than `limit` bytes, or no regular file (opening a fifo
/// would wait for ever), is an error of kind [`io::ErrorKind::InvalidData`].
pub(super) fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {limit} bytes")));
    }
    Ok(bytes)
}
