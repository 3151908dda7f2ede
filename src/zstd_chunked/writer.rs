//! How zstd:chunked frames, compresses and ends a layer.

use std::{collections::BTreeMap, io};

use super::{
    Consumers, MANIFEST_CHECKSUM_ANNOTATION, MANIFEST_POSITION_ANNOTATION, MANIFEST_TYPE, SKIPPABLE_HEADER,
    STORAGE_CHECKSUM_ANNOTATION, STORAGE_POSITION_ANNOTATION, TAR_SPLIT_CHECKSUM_ANNOTATION,
    TAR_SPLIT_POSITION_ANNOTATION,
    footer::{Footer, Span},
    skippable, tar_split,
};
use crate::{
    blob::framing::Framing,
    digest::Digest,
    estargz::{TOC_DIGEST_ANNOTATION, UNCOMPRESSED_SIZE_ANNOTATION, toc::Toc},
    layer::{LayerError, LayerFormat, MediaType, Tail, WrittenEntry, tar_tail},
};

/// The level for weights: the fastest that codes literals by their frequency. It gives up soon where it finds no
/// repetitions, and takes as much off them as any other (docs/measurements.md). Below 1 literals are left as they are.
const ENTROPY_LEVEL: i32 = 1;

/// The zstd:chunked format with its settings.
#[derive(Debug, Clone, Copy)]
pub struct ZstdChunked {
    level: i32,
    consumers: Consumers,
}

impl ZstdChunked {
    /// Compresses with zstd `level` 1 (fastest) to 22 (smallest); less counts as 1, more as 22. Layers are for
    /// stargz-snapshotter.
    pub fn new(level: u32) -> Self {
        let level = i32::try_from(level.clamp(1, 22)).unwrap_or(1);
        Self { level, consumers: Consumers::default() }
    }

    /// The same with layers that have what `consumers` need, and annotations for all of them.
    #[must_use]
    pub fn for_consumers(self, consumers: Consumers) -> Self {
        Self { consumers, ..self }
    }

    /// One frame, without a checksum: readers have the chunk's digest.
    fn frame(self, payload: &[u8]) -> io::Result<Vec<u8>> {
        zstd::bulk::compress(payload, self.level)
    }

    /// The tar-split in one frame, and its length.
    fn tar_split(self, entries: &[WrittenEntry<'_>], end: &[u8]) -> Result<(Vec<u8>, u64), LayerError> {
        let encoder = zstd::Encoder::new(Vec::new(), self.level).map_err(LayerError::Compress)?;
        // A base of many files has a long one: it is compressed while it is made.
        let mut counted = Counted { inner: encoder, length: 0 };
        tar_split::write(entries, end, &mut counted)?;
        Ok((counted.inner.finish().map_err(LayerError::Compress)?, counted.length))
    }
}

impl LayerFormat for ZstdChunked {
    fn media_type(&self) -> MediaType {
        MediaType::TarZstd
    }

    fn fingerprint(&self) -> String {
        let level = self.level;
        match self.consumers {
            Consumers::Stargz => format!("zstd:chunked level {level}"),
            Consumers::ContainersStorage => format!("zstd:chunked level {level} for containers-storage"),
            Consumers::Both => format!("zstd:chunked level {level} for both"),
        }
    }

    fn framing(&self) -> Framing {
        Framing::StoredZstd
    }

    fn compress(&self, payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.frame(payload).map(Some)
    }

    fn entropy_code(&self, payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
        zstd::bulk::compress(payload, ENTROPY_LEVEL).map(Some)
    }

    fn uncompressed_size_annotation(&self) -> Option<&'static str> {
        Some(UNCOMPRESSED_SIZE_ANNOTATION)
    }

    fn wants_crc64(&self) -> bool {
        self.consumers.has_storage()
    }

    fn finish(&self, entries: &[WrittenEntry<'_>], offset: u64) -> Result<Tail, LayerError> {
        let tar = tar_tail(None)?;
        let mut blob = self.frame(&tar).map_err(LayerError::Compress)?;
        let split = self.consumers.has_storage().then(|| self.tar_split(entries, &tar)).transpose()?;
        let split_digest = split.as_ref().map(|(compressed, _)| Digest::of(compressed));
        let json = Toc::json(entries, split_digest)?;
        let compressed = self.frame(&json).map_err(LayerError::Compress)?;

        // Containers-storage asks for both in this order by one request, and reads on from the first to the second.
        let toc = append(&mut blob, offset, &compressed, json.len() as u64)?;
        let tar_split =
            split.map(|(compressed, length)| append(&mut blob, offset, &compressed, length)).transpose()?;
        // Containers-storage needs no footer; stargz-snapshotter knows only that without the tar-split.
        let is_for_storage = self.consumers == Consumers::ContainersStorage;
        blob.extend(Footer::of(toc, tar_split.filter(|_| is_for_storage)).encode());

        let checksum = Digest::of(&compressed).to_string();
        let position = format!("{}:{MANIFEST_TYPE}", toc.position());
        let mut annotations = BTreeMap::new();
        if let Some((tar_split, digest)) = tar_split.zip(split_digest) {
            annotations.extend([
                (TAR_SPLIT_CHECKSUM_ANNOTATION.to_owned(), digest.to_string()),
                (STORAGE_CHECKSUM_ANNOTATION.to_owned(), checksum.clone()),
                (STORAGE_POSITION_ANNOTATION.to_owned(), position.clone()),
                (TAR_SPLIT_POSITION_ANNOTATION.to_owned(), tar_split.position()),
            ]);
        }
        if !is_for_storage {
            annotations.extend([
                (TOC_DIGEST_ANNOTATION.to_owned(), Digest::of(&json).to_string()),
                (MANIFEST_CHECKSUM_ANNOTATION.to_owned(), checksum),
                (MANIFEST_POSITION_ANNOTATION.to_owned(), position),
            ]);
        }
        Ok(Tail { tar, blob, annotations })
    }
}

/// Appends `compressed` in a skippable frame to a blob's last bytes, which begin at `offset` of the blob.
fn append(blob: &mut Vec<u8>, offset: u64, compressed: &[u8], length: u64) -> Result<Span, LayerError> {
    let at = offset + (blob.len() + SKIPPABLE_HEADER) as u64;
    blob.extend(skippable(compressed).ok_or_else(|| too_long(compressed.len()))?);
    Ok(Span { offset: at, compressed: compressed.len() as u64, uncompressed: length })
}

fn too_long(length: usize) -> LayerError {
    LayerError::Compress(io::Error::other(format!(
        "the list of the layer's files takes {length} bytes, more than a frame can have; --estargz-chunk-size makes it shorter"
    )))
}

/// Counts what goes into an encoder.
struct Counted {
    inner: zstd::Encoder<'static, Vec<u8>>,
    length: u64,
}

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
