//! The threads of one layer: a reader fills buffers, and three serial hashes (each file's, the tar stream's,
//! the blob's) follow it side by side, while workers do what a chunk needs on its own (digest, checksum,
//! compression). Every source byte is read once; memory is bounded by the number of buffers.
//!
//! SHA-256 is the cost of packing: four passes over every stored byte. Three of them are serial, so they get a
//! thread each; the fourth, and compression, go to the workers. Must not know formats' tails or destinations.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use sha2::{Digest as _, Sha256};

use super::{
    Entry, EntryKind, LayerError, LayerFormat, Recorder, Storage, StoredChunk, WrittenChunk,
    file_hash::{FileDigests, FileHash},
    segment::{Chunk, ChunkData, Segment, for_each_segment},
    work::{Made, Worked, work_on},
};
use crate::blob::{
    Extent, OpenSource, Source, Spool,
    framing::{FramedBuffer, Framing},
};

/// Buffers of one layer. Few, so that a chunk is still in the processor's shared cache when the last hash comes
/// to it: on 2 cores of an AMD EPYC (32 MiB of L3, two layers at once, 2 GB on tmpfs) packing took 7.3 s of
/// processor time with 3 buffers and 7.8 s with 6; 4 leave one more for threads that fall behind.
const BUFFERS: usize = 4;
/// Bytes that are hashed and then written at a time: few enough to be in the core's own cache still. In the
/// same measurement 256 KiB took 1.5 to 2.0 s of system time, whole chunks 2.0 to 2.3 s.
const WRITE_PIECE: usize = 256 * 1024;
/// Segments that may wait for a hash: headers are small and chunks are bounded by the buffers.
const QUEUE: usize = 64;

/// Where the blob's bytes go while they are hashed.
pub(super) enum Sink<'a> {
    /// To a destination that wants them now.
    Write(&'a mut (dyn Write + Send)),
    /// Nowhere: what cannot be made again is kept in the spool and the rest is remembered as extents.
    Keep(&'a Spool),
}

/// Where the blob goes, and who hears what it is made of.
pub(super) struct Outlet<'a, 'r> {
    pub sink: Sink<'a>,
    pub recorder: Option<&'r mut dyn Recorder>,
}

impl Outlet<'_, '_> {
    /// Tells of bytes that are made, not read.
    pub(super) fn record(&mut self, bytes: &[u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.kept(bytes);
        }
    }
}

/// What the pipeline found out, everything but the layer's tail.
pub(super) struct Written {
    /// Running hash of the tar stream; `None` when the blob is the tar stream.
    pub tar_hash: Option<Sha256>,
    /// Bytes of the tar stream so far.
    pub tar_size: u64,
    /// Running hash of the blob.
    pub blob_hash: Sha256,
    /// Bytes of the blob so far.
    pub blob_size: u64,
    /// The blob's extents so far; empty when it was written to a destination.
    pub extents: Vec<Extent>,
    /// Per entry: the file's digests, if it is a regular file.
    pub files: Vec<Option<FileDigests>>,
    /// Per entry: its chunks.
    pub chunks: Vec<Vec<WrittenChunk>>,
}

/// Runs `entries` through the pipeline. `on_bytes` hears of every payload byte that was read.
pub(super) fn run(
    entries: &[Entry],
    format: &Arc<dyn LayerFormat>,
    workers: &rayon::ThreadPool,
    outlet: &mut Outlet<'_, '_>,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<Written, LayerError> {
    // A layer that frames nothing is its own tar stream: one hash serves both.
    let hash_tar = format.framing() != Framing::Raw;
    let wants_crc64 = format.wants_crc64();
    thread::scope(|scope| {
        let (to_files, files) = sync_channel(QUEUE);
        let (to_tar, tar) = sync_channel(QUEUE);
        let (to_blob, blob) = sync_channel(QUEUE);
        let files = scope.spawn(move || hash_files(entries, wants_crc64, &files));
        let tar = hash_tar.then(|| scope.spawn(move || hash_tar_stream(&tar)));
        let blob = scope.spawn(move || write_blob(entries.len(), format.framing(), outlet, &blob));

        let reader = SegmentReader {
            format,
            workers,
            on_bytes,
            pool: BufferPool::new(BUFFERS),
            open: None,
            to_files,
            to_tar: hash_tar.then_some(to_tar),
            to_blob,
        };
        let read = reader.read(entries);

        let files = join(files);
        let tar = tar.map(join);
        let blob = join(blob);
        // A stopped reader only says that one of the others failed, and theirs is the reason.
        let (files, blob) = (files?, blob?);
        match read {
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::HashesGone) => {
                return Err(LayerError::Write(io::Error::other("a thread stopped early")));
            }
            Ok(()) => {}
        }
        let (tar_hash, tar_size) = tar.map_or((None, blob.size), |(hash, size)| (Some(hash), size));
        Ok(Written {
            tar_hash,
            tar_size,
            blob_hash: blob.hash,
            blob_size: blob.size,
            extents: blob.extents,
            files,
            chunks: blob.chunks,
        })
    })
}

/// A thread's result; a panic in it goes on in the caller.
fn join<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A chunk's payload, shared by the threads; the memory goes back to the pool when the last is done with it.
struct SharedBuffer {
    buffer: Option<FramedBuffer>,
    home: Sender<Vec<u8>>,
}

impl SharedBuffer {
    fn get(&self) -> Option<&FramedBuffer> {
        self.buffer.as_ref()
    }

    fn payload(&self) -> impl Iterator<Item = &[u8]> {
        self.get().into_iter().flat_map(FramedBuffer::payload)
    }
}

impl Drop for SharedBuffer {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            // The pool may be gone already; then so may the memory be.
            let _ = self.home.send(buffer.into_memory());
        }
    }
}

/// A fixed number of reusable buffers; taking one waits for one.
struct BufferPool {
    home: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
}

impl BufferPool {
    fn new(count: usize) -> Self {
        let (home, free) = channel();
        for _ in 0..count {
            let _ = home.send(Vec::new());
        }
        Self { home, free }
    }

    fn take(&self) -> Vec<u8> {
        // `home` lives as long as the pool, so the channel cannot be closed.
        self.free.recv().unwrap_or_default()
    }
}

/// What the tar hash is given.
enum TarItem {
    Headers(Arc<[u8]>),
    Chunk(Arc<SharedBuffer>),
}

/// What the file hash is given: a chunk, its entry, and whether it is the file's last.
type FileItem = (usize, bool, Arc<SharedBuffer>);

/// What the blob's writer is given.
enum BlobItem {
    Headers(Vec<u8>),
    Chunk { chunk: Chunk, buffer: Arc<SharedBuffer>, worked: Receiver<Worked> },
}

/// Why the reader stopped before the end.
enum Stop {
    Failed(LayerError),
    HashesGone,
}

impl<E: Into<LayerError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

struct SegmentReader<'a> {
    format: &'a Arc<dyn LayerFormat>,
    workers: &'a rayon::ThreadPool,
    on_bytes: &'a (dyn Fn(u64) + Sync),
    pool: BufferPool,
    /// The source that the last chunk came from, kept open for the next.
    open: Option<(Arc<Source>, OpenSource)>,
    to_files: SyncSender<FileItem>,
    to_tar: Option<SyncSender<TarItem>>,
    to_blob: SyncSender<BlobItem>,
}

impl SegmentReader<'_> {
    fn read(mut self, entries: &[Entry]) -> Result<(), Stop> {
        for_each_segment(entries, |segment| match segment {
            Segment::Headers(bytes) => self.headers(bytes),
            Segment::Chunk(chunk) => self.chunk(chunk),
        })
    }

    fn headers(&self, bytes: Vec<u8>) -> Result<(), Stop> {
        let member = self.format.compress(&bytes).map_err(LayerError::Compress)?;
        let member = member.unwrap_or_else(|| bytes.clone());
        if let Some(to_tar) = &self.to_tar {
            to_tar.send(TarItem::Headers(bytes.into())).map_err(|_| Stop::HashesGone)?;
        }
        self.to_blob.send(BlobItem::Headers(member)).map_err(|_| Stop::HashesGone)
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), Stop> {
        let framing = match chunk.storage {
            Storage::Stored => self.format.framing(),
            Storage::Compressed | Storage::EntropyCoded => Framing::Raw,
        };
        let mut buffer = FramedBuffer::new(self.pool.take(), framing, chunk.length);
        self.fill(&mut buffer, &chunk)?;
        (self.on_bytes)(chunk.length as u64);
        let buffer = Arc::new(SharedBuffer { buffer: Some(buffer), home: self.pool.home.clone() });

        let (to_writer, worked) = channel();
        let work = Arc::clone(&buffer);
        let format = Arc::clone(self.format);
        let storage = chunk.storage;
        self.workers.spawn(move || {
            // The writer may have failed and gone; then no one waits for this.
            if let Some(buffer) = work.get() {
                let _ = to_writer.send(work_on(buffer, storage, &*format));
            }
        });
        let entry = chunk.entry;
        let last = chunk.last;
        self.to_files.send((entry, last, Arc::clone(&buffer))).map_err(|_| Stop::HashesGone)?;
        if let Some(to_tar) = &self.to_tar {
            to_tar.send(TarItem::Chunk(Arc::clone(&buffer))).map_err(|_| Stop::HashesGone)?;
        }
        self.to_blob.send(BlobItem::Chunk { chunk, buffer, worked }).map_err(|_| Stop::HashesGone)
    }

    fn fill(&mut self, buffer: &mut FramedBuffer, chunk: &Chunk) -> Result<(), Stop> {
        match &chunk.data {
            ChunkData::Bytes(bytes) => buffer.fill(bytes),
            ChunkData::Source { source, offset } => {
                let reopen = self.open.take().filter(|(current, _)| Arc::ptr_eq(current, source));
                let current = match reopen {
                    Some(current) => current,
                    None => (Arc::clone(source), source.open()?),
                };
                current.1.read_exact_vectored(&mut buffer.payload_mut(), *offset)?;
                if chunk.last {
                    current.1.check_unchanged()?;
                }
                self.open = Some(current);
            }
        }
        Ok(())
    }
}

fn hash_tar_stream(items: &Receiver<TarItem>) -> (Sha256, u64) {
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut update = |bytes: &[u8]| {
        hash.update(bytes);
        size += bytes.len() as u64;
    };
    for item in items {
        match item {
            TarItem::Headers(bytes) => update(&bytes),
            TarItem::Chunk(buffer) => buffer.payload().for_each(&mut update),
        }
    }
    (hash, size)
}

/// Hashes each file and compares the digest with what is known of the file.
fn hash_files(
    entries: &[Entry],
    wants_crc64: bool,
    items: &Receiver<FileItem>,
) -> Result<Vec<Option<FileDigests>>, LayerError> {
    let mut digests = vec![None; entries.len()];
    let mut current: Option<FileHash<'_>> = None;
    for (index, last, buffer) in items {
        let hash = current.get_or_insert_with(|| FileHash::new(&entries[index], wants_crc64));
        buffer.payload().for_each(|piece| hash.update(piece));
        if last && let Some(hash) = current.take() {
            digests[index] = Some(hash.finish()?);
        }
    }
    for (digest, entry) in digests.iter_mut().zip(entries) {
        if entry.size() == 0 && matches!(entry.kind, EntryKind::Regular(_)) {
            *digest = Some(FileHash::new(entry, wants_crc64).finish()?);
        }
    }
    Ok(digests)
}

struct WrittenBlob {
    hash: Sha256,
    size: u64,
    extents: Vec<Extent>,
    chunks: Vec<Vec<WrittenChunk>>,
}

fn write_blob(
    entries: usize,
    framing: Framing,
    outlet: &mut Outlet<'_, '_>,
    items: &Receiver<BlobItem>,
) -> Result<WrittenBlob, LayerError> {
    let mut blob =
        WrittenBlob { hash: Sha256::new(), size: 0, extents: Vec::new(), chunks: vec![Vec::new(); entries] };
    for item in items {
        match item {
            BlobItem::Headers(member) => blob.member(member, outlet)?,
            BlobItem::Chunk { chunk, buffer, worked } => {
                let Ok(worked) = worked.recv() else {
                    return Err(LayerError::Write(io::Error::other("a worker stopped early")));
                };
                let (entry, offset, length) = (chunk.entry, blob.size, chunk.length as u64);
                let checksum = worked.checksum;
                match worked.made.map_err(LayerError::Compress)? {
                    Made::Member(member) => blob.member(member, outlet)?,
                    Made::Framed(buffer) => blob.stored(chunk, &buffer, checksum, framing, outlet)?,
                    Made::AsRead => {
                        if let Some(buffer) = buffer.get() {
                            blob.stored(chunk, buffer, checksum, framing, outlet)?;
                        }
                    }
                }
                let written = WrittenChunk { offset, end: blob.size, length, digest: worked.digest };
                blob.chunks[entry].push(written);
            }
        }
    }
    Ok(blob)
}

impl WrittenBlob {
    fn member(&mut self, member: Vec<u8>, outlet: &mut Outlet<'_, '_>) -> Result<(), LayerError> {
        self.hash.update(&member);
        self.size += member.len() as u64;
        outlet.record(&member);
        match &mut outlet.sink {
            Sink::Write(writer) => writer.write_all(&member).map_err(LayerError::Write),
            Sink::Keep(spool) => {
                self.extents.push(Extent::Kept(spool.store(member).map_err(LayerError::Spool)?));
                Ok(())
            }
        }
    }

    fn stored(
        &mut self,
        chunk: Chunk,
        buffer: &FramedBuffer,
        checksum: u32,
        framing: Framing,
        outlet: &mut Outlet<'_, '_>,
    ) -> Result<(), LayerError> {
        let framed = buffer.framed();
        let trailer = framing.trailer(chunk.length, checksum);
        // Known bytes, a landmark's or those of a rewritten file, are few and have no source to come from again.
        if let ChunkData::Bytes(_) = &chunk.data {
            return self.member([framed, &trailer].concat(), outlet);
        }
        if let Some(recorder) = &mut outlet.recorder {
            let Chunk { entry, offset, length, .. } = chunk;
            recorder.stored(StoredChunk { entry, offset, length, checksum });
        }
        self.size += (framed.len() + trailer.len()) as u64;
        for piece in framed.chunks(WRITE_PIECE).chain([&trailer[..]]) {
            self.hash.update(piece);
            if let Sink::Write(writer) = &mut outlet.sink {
                writer.write_all(piece).map_err(LayerError::Write)?;
            }
        }
        if let (Sink::Keep(_), ChunkData::Source { source, offset }) = (&outlet.sink, chunk.data) {
            self.extents.push(Extent::Stored { source, offset, length: chunk.length, framing, checksum });
        }
        Ok(())
    }
}
