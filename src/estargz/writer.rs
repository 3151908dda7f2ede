//! How eStargz frames, compresses and ends a layer.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use flate2::{Compression, GzBuilder};

use super::{TOC_DIGEST_ANNOTATION, TOC_NAME, UNCOMPRESSED_SIZE_ANNOTATION, footer, toc::Toc};
use crate::{
    blob::framing::Framing,
    digest::Digest,
    layer::{
        Content, Entry, EntryKind, LayerError, LayerFormat, MediaType, Storage, Tail, WrittenEntry, tar_tail,
    },
    literal_deflate,
};

/// Largest deflate level.
const LEVEL_MAX: u32 = 9;

/// The eStargz format with its one setting.
#[derive(Debug, Clone, Copy)]
pub struct Estargz {
    level: u32,
}

impl Estargz {
    /// Compresses with deflate `level` 0 (stored) to 9 (smallest); more counts as 9.
    pub fn new(level: u32) -> Self {
        Self { level: level.min(LEVEL_MAX) }
    }

    fn gzip(self, payload: &[u8]) -> io::Result<Vec<u8>> {
        // No time, no name, "unknown" system: the bytes depend on the payload alone.
        let mut encoder =
            GzBuilder::new().operating_system(0xff).write(Vec::new(), Compression::new(self.level));
        encoder.write_all(payload)?;
        encoder.finish()
    }
}

impl LayerFormat for Estargz {
    fn media_type(&self) -> MediaType {
        MediaType::TarGzip
    }

    fn fingerprint(&self) -> String {
        format!("estargz level {}", self.level)
    }

    fn framing(&self) -> Framing {
        Framing::StoredGzip
    }

    fn compress(&self, payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.gzip(payload).map(Some)
    }

    fn entropy_code(&self, payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(Some(literal_deflate::gzip(payload)))
    }

    fn uncompressed_size_annotation(&self) -> Option<&'static str> {
        Some(UNCOMPRESSED_SIZE_ANNOTATION)
    }

    fn finish(&self, entries: &[WrittenEntry<'_>], offset: u64) -> Result<Tail, LayerError> {
        let json = Toc::json(entries, None)?;
        let digest = Digest::of(&json);
        let content = Content::bytes(json, Storage::Compressed);
        let tar = tar_tail(Some(&Entry::new(TOC_NAME, 0o444, 0, EntryKind::Regular(content))))?;
        let mut blob = self.gzip(&tar).map_err(LayerError::Compress)?;
        blob.extend(footer::encode(offset));
        let annotations = BTreeMap::from([(TOC_DIGEST_ANNOTATION.to_owned(), digest.to_string())]);
        Ok(Tail { tar, blob, annotations })
    }
}
