//! How work in progress is told to whoever watches. Must not know terminals.

use crate::digest::Digest;

/// Hears how work goes on. All methods may be called from several threads at once.
pub trait Observer: Sync {
    /// Downloading begins of so many files of a source, of which so many bytes are missing.
    fn downloading(&self, _source: &str, _files: usize, _total: u64) {}

    /// So many more bytes were downloaded.
    fn downloaded(&self, _bytes: u64) {}

    /// So many bytes that were counted as downloaded have to be had again.
    fn lost(&self, _bytes: u64) {}

    /// The download of a file goes on after so many bytes that an earlier one left.
    fn download_resumed(&self, _file: &str, _position: u64) {}

    /// A file of so many bytes is downloaded, and what it should be.
    fn file_done(&self, _file: &str, _size: u64) {}

    /// Hashing begins; so many payload bytes will be read.
    fn hashing(&self, _total: u64) {}

    /// Reading begins of layers that are verified; so many bytes of them, which [`Self::hashed`] counts.
    fn reading(&self, _total: u64) {}

    /// So many more payload bytes were hashed, or need not be.
    fn hashed(&self, _bytes: u64) {}

    /// So many more payload bytes were read for a layer's digest, or bytes of a known layer's blob to write it.
    fn sources_read(&self, _bytes: u64) {}

    /// A layer's digest is known, and its size in bytes; the title says what it holds.
    fn layer_done(&self, _title: &str, _digest: Digest, _size: u64) {}

    /// As [`Self::layer_done`], of a layer whose digest was known from an earlier run.
    fn layer_known(&self, _title: &str, _digest: Digest, _size: u64) {}

    /// Something that the user should know and that stops nothing.
    fn warning(&self, _text: &str) {}

    /// Sending to a destination begins; so many bytes at most.
    fn sending(&self, _destination: &str, _total: u64) {}

    /// So many more bytes were sent, or need not be.
    fn sent(&self, _bytes: u64) {}

    /// A blob is at the destination already.
    fn already_there(&self, _digest: Digest) {}

    /// The source does not have a layer, and its descriptor says where else it is: it stays there.
    fn elsewhere(&self, _digest: Digest, _url: &str) {}

    /// The destination took a blob from another of its repositories.
    fn mounted(&self, _digest: Digest) {}

    /// An upload that an earlier run began goes on after so many bytes.
    fn resumed(&self, _digest: Digest, _position: u64) {}
}

/// Watches nothing.
#[derive(Debug, Clone, Copy)]
pub struct Unobserved;

impl Observer for Unobserved {}
