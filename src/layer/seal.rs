//! Seals a layer: runs its entries through the pipeline, ends the blob as its format wants, and says all
//! digests and sizes. Must not know which destination the blob goes to.

use std::{collections::BTreeMap, io::Write, sync::Arc};

use sha2::Digest as _;

use super::{
    Entry, LayerError, LayerFormat, MediaType, Recorder, WrittenEntry,
    pipeline::{self, Outlet, Sink},
};
use crate::{
    blob::{Extent, ExtentBlob, Spool},
    digest::Digest,
};

/// Threads that all layers of a pack share for what chunks need on their own: digest, checksum, compression.
#[derive(Debug)]
pub struct Workers(rayon::ThreadPool);

/// Most threads that are started: more than any machine's processors only cost memory.
const THREADS_MAX: usize = 512;

impl Workers {
    /// Starts `count` threads (at least one, at most 512).
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn new(count: usize) -> std::io::Result<Self> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(count.clamp(1, THREADS_MAX))
            .thread_name(|index| format!("chunk-{index}"))
            .build()
            .map(Self)
            .map_err(std::io::Error::other)
    }
}

/// What sealing needs besides the layer.
pub struct SealOptions<'a> {
    /// Threads for the chunks.
    pub workers: &'a Workers,
    /// Keeps compressed members when the blob is not written anywhere yet.
    pub spool: &'a Spool,
    /// Hears of payload bytes as they are read.
    pub on_bytes: &'a (dyn Fn(u64) + Sync),
}

/// A layer whose digests and sizes are known.
#[derive(Debug)]
pub struct SealedLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the uncompressed tar stream.
    pub diff_id: Digest,
    /// Size of the uncompressed tar stream in bytes.
    pub uncompressed_size: u64,
    /// Media type of the descriptor.
    pub media_type: MediaType,
    /// Annotations of the descriptor.
    pub annotations: BTreeMap<String, String>,
    /// SHA-256 of each entry's file, in the order of the entries; `None` for entries that are no regular files. Empty
    /// for a layer that another process sealed.
    pub files: Vec<Option<Digest>>,
    /// The blob, to be read from any offset; `None` when it was written to a destination.
    pub blob: Option<Arc<ExtentBlob>>,
}

/// Seals the layer that `entries` form. With a `writer` the blob goes there as it is hashed; without, it
/// can be read from [`SealedLayer::blob`] as often as needed.
///
/// # Errors
/// See [`LayerError`].
pub fn seal(
    entries: &[Entry],
    format: &Arc<dyn LayerFormat>,
    options: &SealOptions<'_>,
    writer: Option<&mut (dyn Write + Send)>,
) -> Result<SealedLayer, LayerError> {
    seal_recorded(entries, format, options, writer, None)
}

/// As [`seal`]; a `recorder` hears what the blob is made of, wherever it goes.
///
/// # Errors
/// See [`LayerError`].
pub fn seal_recorded(
    entries: &[Entry],
    format: &Arc<dyn LayerFormat>,
    options: &SealOptions<'_>,
    writer: Option<&mut (dyn Write + Send)>,
    recorder: Option<&mut dyn Recorder>,
) -> Result<SealedLayer, LayerError> {
    let sink = match writer {
        Some(writer) => Sink::Write(writer),
        None => Sink::Keep(options.spool),
    };
    let mut outlet = Outlet { sink, recorder };
    let mut written = pipeline::run(entries, format, &options.workers.0, &mut outlet, options.on_bytes)?;

    let files = written.files.iter().map(|file| file.map(|file| file.sha256)).collect();
    let listed: Vec<WrittenEntry<'_>> = entries
        .iter()
        .zip(written.files)
        .zip(written.chunks)
        .map(|((entry, file), chunks)| WrittenEntry {
            entry,
            digest: file.map(|file| file.sha256),
            crc64: file.and_then(|file| file.crc64),
            chunks,
        })
        .collect();
    let tail = format.finish(&listed, written.blob_size)?;
    written.blob_hash.update(&tail.blob);
    let size = written.blob_size + tail.blob.len() as u64;
    let uncompressed_size = written.tar_size + tail.tar.len() as u64;
    let digest = Digest::finish(written.blob_hash);
    let diff_id = written.tar_hash.map_or(digest, |mut hash| {
        hash.update(&tail.tar);
        Digest::finish(hash)
    });
    outlet.record(&tail.blob);
    let blob = match outlet.sink {
        Sink::Write(writer) => {
            writer.write_all(&tail.blob).and_then(|()| writer.flush()).map_err(LayerError::Write)?;
            None
        }
        Sink::Keep(spool) => {
            written.extents.push(Extent::Kept(spool.store(tail.blob).map_err(LayerError::Spool)?));
            Some(Arc::new(ExtentBlob::new(written.extents, digest)))
        }
    };
    let mut annotations = tail.annotations;
    if let Some(name) = format.uncompressed_size_annotation() {
        annotations.insert(name.to_owned(), uncompressed_size.to_string());
    }
    let media_type = format.media_type();
    Ok(SealedLayer { digest, size, diff_id, uncompressed_size, media_type, annotations, files, blob })
}
