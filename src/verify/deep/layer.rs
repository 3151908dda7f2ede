//! One layer, read once: a thread reads and hashes the blob, one decompresses it and goes through the tar stream, and
//! one each hashes that stream, chunks and files. Must not know other layers.
//!
//! ```text
//! reader: SHA-256 of the blob ─► decompression, tar ─┬─► SHA-256 of the tar stream (diffID)
//!                                                    ├─► each chunk's SHA-256
//!                                                    └─► each file's
//! ```

use std::{
    io::{self, Read},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use sha2::{Digest as _, Sha256};

use super::{
    DeepLayer, LayerToRead, Wanted, hashes,
    pieces::{PIECE, Piece, PieceReader, Pool},
    split::Rebuild,
    walk::{Hashers, Walk, Walked},
};
use crate::{
    digest::Digest,
    members::{Member, MemberError, MemberKind, Members, Step},
    verify::{
        finding::{Place, Rule},
        media_type::Compression,
        plain::Lister,
        rules,
    },
};

/// Buffers of compressed and of decompressed bytes of one layer. Few, so that what a thread hashes is still in the
/// processor's cache when the last one comes to it.
const COMPRESSED: usize = 6;
const DECOMPRESSED: usize = 10;
/// Parts that may wait for a hash. Bytes are bounded by the buffers; small files are many parts of one.
const QUEUE: usize = 256;

/// Reads a layer to its end.
pub(super) fn read(
    layer: &LayerToRead<'_>,
    wanted: &(dyn Fn(&str) -> Wanted + Sync),
    on_bytes: &(dyn Fn(u64) + Sync),
) -> io::Result<DeepLayer> {
    let place = Place::layer(layer.index, Some(layer.content.digest()));
    let mut reader = Arc::clone(&layer.content).reader(0)?;
    // A layer that is not compressed is its own tar stream: one hash serves both.
    let is_compressed = layer.compression != Compression::None;
    let (blob, stream, tar, chunks, files) = thread::scope(|scope| {
        let (to_decoder, pieces) = sync_channel(COMPRESSED);
        let (to_tar, tar) = sync_channel(DECOMPRESSED);
        let (to_chunks, chunks) = sync_channel(QUEUE);
        let (to_files, files) = sync_channel(QUEUE);
        let split = layer.tar_split.and_then(Rebuild::new);
        let tar = is_compressed.then(|| scope.spawn(move || hash_stream(&tar, split)));
        let place = &place;
        let chunks = scope.spawn(move || hashes::run(&chunks, place));
        let files = scope.spawn(move || hashes::run(&files, place));
        let mut walk = Walk::new(place, layer.toc, wanted, Hashers { chunks: to_chunks, files: to_files });
        walk.lister = layer.list.then(Lister::default);
        let decoder = Decoder { walk, pool: Pool::new(DECOMPRESSED), to_tar, place, members: 0 };
        let compression = layer.compression;
        let stream = scope.spawn(move || decoder.run(PieceReader::new(pieces), compression));
        let blob = read_blob(&mut *reader, to_decoder, on_bytes);
        (blob, join(stream), tar.map(join), join(chunks), join(files))
    });
    let blob = blob?;
    let Stream { walked, is_whole, members } = stream;
    let mut layer_read = DeepLayer {
        findings: walked.findings,
        files: chunks.files,
        links: walked.links,
        members,
        lister: walked.lister,
    };
    layer_read.files.extend(files.files);
    layer_read.findings.append(chunks.findings);
    layer_read.findings.append(files.findings);
    let findings = &mut layer_read.findings;
    let mut differ = |rule: &'static Rule, message: String| findings.add(rule, place.clone(), message);
    let expected = layer.content.digest();
    if blob.digest != expected {
        differ(&rules::BLOB_DIGEST, format!("its {} bytes have digest {}", blob.size, blob.digest));
    }
    if is_whole {
        let (tar, rebuilt) = tar.unwrap_or((Hashed { digest: blob.digest, size: blob.size }, None));
        if let Some(message) = rebuilt {
            differ(&rules::TAR_SPLIT_DIFFERS, message);
        }
        if let Some(diff_id) = layer.diff_id.filter(|diff_id| *diff_id != tar.digest) {
            differ(&rules::DIFF_ID, format!("it unpacks to {}, the config says {diff_id}", tar.digest));
        }
        if let Some(size) = layer.unpacked_size.filter(|size| *size != tar.size) {
            let message = format!("it unpacks to {} bytes, the annotation says {size}", tar.size);
            differ(&rules::SIZE_ANNOTATION_DIFFERS, message);
        }
    }
    Ok(layer_read)
}

/// A thread's result; a panic in it goes on in the caller.
fn join<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What the hash of a whole stream gave.
struct Hashed {
    digest: Digest,
    size: u64,
}

/// Reads the blob to its end, and hashes it while the pieces are still at hand.
fn read_blob(
    reader: &mut dyn Read,
    to_decoder: SyncSender<Arc<Piece>>,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> io::Result<Hashed> {
    let pool = Pool::new(COMPRESSED);
    let mut to_decoder = Some(to_decoder);
    let (mut hash, mut size) = (Sha256::new(), 0_u64);
    loop {
        let mut buffer = pool.take();
        let count = fill(reader, &mut buffer)?;
        if count == 0 {
            return Ok(Hashed { digest: Digest::finish(hash), size });
        }
        let piece = pool.share(buffer, count);
        // A decoder that came upon damage has gone; the blob's digest is wanted all the same.
        to_decoder = to_decoder.filter(|to_decoder| to_decoder.send(Arc::clone(&piece)).is_ok());
        hash.update(piece.bytes());
        size += count as u64;
        on_bytes(count as u64);
    }
}

/// Fills `buffer` as far as there are bytes.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Hashes a tar stream, and says how what `split` makes differs from it.
fn hash_stream(pieces: &Receiver<Arc<Piece>>, mut split: Option<Rebuild<'_>>) -> (Hashed, Option<String>) {
    let (mut hash, mut size) = (Sha256::new(), 0);
    for piece in pieces {
        hash.update(piece.bytes());
        if let Some(split) = &mut split {
            split.bytes(piece.bytes());
        }
        size += piece.bytes().len() as u64;
    }
    (Hashed { digest: Digest::finish(hash), size }, split.and_then(Rebuild::finish))
}

/// What going through the decompressed stream gave.
struct Stream {
    walked: Walked,
    /// Whether all of it could be decompressed.
    is_whole: bool,
    /// Gzip members that have ended.
    members: usize,
}

struct Decoder<'a> {
    walk: Walk<'a>,
    pool: Pool,
    to_tar: SyncSender<Arc<Piece>>,
    place: &'a Place,
    members: usize,
}

impl Decoder<'_> {
    fn run(mut self, mut pieces: PieceReader, compression: Compression) -> Stream {
        let done = match compression {
            Compression::None => {
                while let Some(piece) = pieces.next() {
                    self.walk.bytes(&piece, 0..piece.bytes().len());
                }
                Ok(())
            }
            Compression::Gzip => self.members(MemberKind::Gzip, pieces),
            Compression::Zstd => self.members(MemberKind::Zstd, pieces),
        };
        if let Err((offset, message)) = &done {
            let message = match self.walk.open_file() {
                Some(file) => format!("{message}; it holds bytes of {}", file.escape_debug()),
                None => message.clone(),
            };
            let place = self.place.clone();
            let place = offset.map_or_else(|| place.clone(), |offset| place.clone().at(offset));
            self.walk.findings.add(&rules::MEMBER_DAMAGED, place, message);
        }
        let is_whole = done.is_ok();
        Stream { walked: self.walk.finish(is_whole), is_whole, members: self.members }
    }

    fn members(&mut self, kind: MemberKind, pieces: PieceReader) -> Result<(), (Option<u64>, String)> {
        let mut members = Members::new(kind, pieces);
        let mut buffer = self.pool.take();
        let mut filled = 0;
        // Where in the buffer the bytes of each member begin.
        let mut begins: Vec<(usize, Member)> = Vec::new();
        loop {
            let member = members.member();
            let step = members.read(buffer.get_mut(filled..).unwrap_or_default());
            if let Ok(Step::Bytes(count)) = step {
                if begins.last().is_none_or(|(_, last)| *last != member) {
                    begins.push((filled, member));
                }
                filled += count;
                if filled < PIECE {
                    continue;
                }
            } else if let Ok(Step::MemberEnd(_)) = step {
                self.members += usize::from(kind == MemberKind::Gzip);
                continue;
            }
            // The buffer is full, or this is the end.
            self.piece(buffer, filled, &begins);
            match step {
                Ok(Step::End) => return Ok(()),
                Err(error) => return Err(told(&error)),
                Ok(_) => {}
            }
            (buffer, filled) = (self.pool.take(), 0);
            begins.clear();
        }
    }

    /// Hands on a buffer of decompressed bytes.
    fn piece(&mut self, buffer: Vec<u8>, filled: usize, begins: &[(usize, Member)]) {
        if filled == 0 {
            return;
        }
        let piece = self.pool.share(buffer, filled);
        let _ = self.to_tar.send(Arc::clone(&piece));
        let ends = begins.iter().skip(1).map(|(begin, _)| *begin).chain([filled]);
        for ((begin, member), end) in begins.iter().zip(ends) {
            self.walk.begin(*member);
            self.walk.bytes(&piece, *begin..end);
        }
    }
}

fn told(error: &MemberError) -> (Option<u64>, String) {
    (error.offset(), error.to_string())
}
