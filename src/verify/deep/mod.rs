//! Layers, read to their end, each once: digests of blob, tar stream, chunks and files, and the tar stream held against
//! the table of contents. Memory is bounded by a few buffers for each layer and by the tables of contents. Must not know
//! what the files are for.

mod fields;
mod hashes;
mod layer;
mod listing;
mod pieces;
mod split;
mod walk;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{finding::Findings, media_type::Compression, plain::Lister};
use crate::{blob::BlobContent, digest::Digest, estargz::EstargzReader};

/// Threads of one layer that have about the same to do; a layer uses so many processors at best.
const THREADS_PER_LAYER: usize = 4;

/// A layer that is to be read.
pub(super) struct LayerToRead<'a> {
    /// Its index among the manifest's.
    pub(super) index: usize,
    /// The blob, with the digest that the descriptor states.
    pub(super) content: Arc<dyn BlobContent>,
    /// How its bytes are compressed, whatever the media type says.
    pub(super) compression: Compression,
    /// What the config says of the tar stream.
    pub(super) diff_id: Option<Digest>,
    /// What the annotation says of the tar stream's size, in bytes.
    pub(super) unpacked_size: Option<u64>,
    /// The table of contents.
    pub(super) toc: Option<&'a EstargzReader>,
    /// The compressed tar-split, in layers that containers-storage can pull in part.
    pub(super) tar_split: Option<&'a [u8]>,
    /// Whether its files are to be listed: nobody could before.
    pub(super) list: bool,
}

/// What is wanted of a file besides what verifying needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing.
    No,
    /// Its SHA-256.
    Sha256,
    /// That, and Git's digest of it.
    WithGit,
}

/// A regular file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadFile {
    /// Its path in the image.
    pub(super) path: String,
    /// Size in bytes.
    pub(super) size: u64,
    /// SHA-256 of its bytes.
    pub(super) sha256: Digest,
    /// SHA-1 of the Git blob of its bytes, where that was wanted.
    pub(super) git_sha1: Option<[u8; 20]>,
}

/// What reading a layer gave.
#[derive(Debug, Clone, Default)]
pub(super) struct DeepLayer {
    /// What is wrong with it.
    pub(super) findings: Findings,
    /// The files that were wanted, in no order.
    pub(super) files: Vec<ReadFile>,
    /// The hard links that were wanted: path and target.
    pub(super) links: Vec<(String, String)>,
    /// How many gzip members it has.
    pub(super) members: usize,
    /// Its files, where they were to be listed.
    pub(super) lister: Option<Lister>,
}

/// Reads layers, as many at a time as `threads` processors are used by. `wanted` says what is wanted of the file of a
/// path, `on_bytes` hears of bytes of blobs that were read. One result for each layer, in order; an error is one of the
/// place that the layer is read from, and what is wrong with a layer is a finding.
pub(super) fn read_layers(
    layers: &[LayerToRead<'_>],
    threads: usize,
    wanted: &(dyn Fn(&str) -> Wanted + Sync),
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Vec<io::Result<DeepLayer>> {
    let at_a_time = threads.div_ceil(THREADS_PER_LAYER).max(2).min(threads.max(1)).min(layers.len());
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, io::Result<DeepLayer>)>> = Mutex::default();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(layer) = layers.get(index) else { return };
            let result = layer::read(layer, wanted, on_bytes);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    thread::scope(|scope| {
        // This thread is one of them.
        for _ in 1..at_a_time {
            scope.spawn(work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests;
