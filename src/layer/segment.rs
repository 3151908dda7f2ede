//! Cuts a layer's entries into segments: runs of tar headers and padding, and chunks of payload. Must not
//! know formats.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Content, Data, Entry, EntryKind, LayerError, Storage,
    tar_header::{header_blocks, padding},
};
use crate::blob::Source;

/// A run of the uncompressed tar stream that lies in the blob as one member.
#[derive(Debug)]
pub(super) enum Segment {
    /// Headers, padding and whatever else lies between payloads.
    Headers(Vec<u8>),
    /// One chunk of a regular file.
    Chunk(Chunk),
}

/// One chunk of a regular file.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Index of the file's entry in the layer.
    pub entry: usize,
    /// Whether it is the file's last chunk.
    pub last: bool,
    /// Its first byte in the file.
    pub offset: u64,
    /// Where its bytes are.
    pub data: ChunkData,
    /// Number of bytes.
    pub length: usize,
    /// How it lies in the blob.
    pub storage: Storage,
}

/// The bytes of one chunk.
#[derive(Debug, Clone)]
pub(super) enum ChunkData {
    /// Known bytes.
    Bytes(Bytes),
    /// A range of a source.
    Source { source: Arc<Source>, offset: u64 },
}

/// Cuts `entries` into segments, in order, and hands each to `emit`, one at a time: a layer of 140 GB has
/// tens of thousands. Neighbouring headers and padding form one segment.
pub(super) fn for_each_segment<E: From<LayerError>>(
    entries: &[Entry],
    mut emit: impl FnMut(Segment) -> Result<(), E>,
) -> Result<(), E> {
    let mut headers = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        headers.extend(header_blocks(entry)?);
        let EntryKind::Regular(content) = &entry.kind else { continue };
        if content.chunks.is_empty() {
            continue;
        }
        emit(Segment::Headers(std::mem::take(&mut headers)))?;
        for_each_chunk(index, entry, content, |chunk| emit(Segment::Chunk(chunk)))?;
        headers.resize(padding(content.size()), 0);
    }
    if headers.is_empty() { Ok(()) } else { emit(Segment::Headers(headers)) }
}

fn for_each_chunk<E: From<LayerError>>(
    index: usize,
    entry: &Entry,
    content: &Content,
    mut emit: impl FnMut(Chunk) -> Result<(), E>,
) -> Result<(), E> {
    let size = content.size();
    let mut start: u64 = 0;
    for length in &content.chunks {
        let length = usize::try_from(*length).ok().filter(|length| *length > 0).ok_or_else(|| {
            LayerError::Entry { path: entry.path.clone(), reason: format!("a chunk of {length} bytes") }
        })?;
        let end = start + length as u64;
        let data = match &content.data {
            Data::Bytes(bytes) => {
                let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
                let known =
                    range.filter(|(_, end)| *end <= bytes.len()).ok_or_else(|| LayerError::Entry {
                        path: entry.path.clone(),
                        reason: "its chunks are longer than its content".to_owned(),
                    })?;
                ChunkData::Bytes(bytes.slice(known.0..known.1))
            }
            Data::Source { source, offset } => {
                ChunkData::Source { source: Arc::clone(source), offset: offset + start }
            }
        };
        let last = end == size;
        emit(Chunk { entry: index, last, offset: start, data, length, storage: content.storage })?;
        start = end;
    }
    Ok(())
}
