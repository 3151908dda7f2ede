//! The plain tar layer format: uncompressed, for consumers that read a single gzip member at most (KServe's
//! fetch mode). It cannot be pulled lazily.

use std::{collections::BTreeMap, io};

use super::{LayerError, LayerFormat, MediaType, Tail, WrittenEntry, tar_tail};
use crate::blob::framing::Framing;

/// The plain tar format.
#[derive(Debug, Clone, Copy)]
pub struct PlainTar;

impl LayerFormat for PlainTar {
    fn media_type(&self) -> MediaType {
        MediaType::Tar
    }

    fn fingerprint(&self) -> String {
        "tar".to_owned()
    }

    fn framing(&self) -> Framing {
        Framing::Raw
    }

    fn compress(&self, _payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn entropy_code(&self, _payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn finish(&self, _entries: &[WrittenEntry<'_>], _offset: u64) -> Result<Tail, LayerError> {
        let tar = tar_tail(None)?;
        Ok(Tail { blob: tar.clone(), tar, annotations: BTreeMap::new() })
    }
}
