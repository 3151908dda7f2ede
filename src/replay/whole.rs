//! Layers that cannot be mounted lazily, and those above one: pulled whole and unpacked, as containerd does. Nothing is
//! written but the packed layer, to a nameless file. Must not know profiles.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _, Write},
    sync::{Mutex, PoisonError},
};

use super::{
    ReplayError,
    layer::{Shared, Stop},
    record::Cause,
    start::side_by_side,
};
use crate::{blob::Spool, digest::Digest, oci::ImageSource, verify::media_type::Compression};

/// Layers that are downloaded at a time (containerd, `max_concurrent_downloads`).
const DOWNLOADS: usize = 3;

/// A layer that is pulled whole.
pub(super) struct WholeLayer {
    pub(super) index: usize,
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Digest of the unpacked layer, where the image's config says it.
    pub(super) diff_id: Option<Digest>,
}

/// Downloads the layers side by side, then unpacks them one after another.
pub(super) fn pull(
    source: &dyn ImageSource,
    layers: &[WholeLayer],
    spool: &Spool,
    shared: &Shared<'_>,
) -> Result<(), Stop> {
    let files: Vec<Mutex<Option<File>>> = layers.iter().map(|_| Mutex::new(None)).collect();
    let pairs: Vec<(&WholeLayer, &Mutex<Option<File>>)> = layers.iter().zip(&files).collect();
    side_by_side(pairs.into_iter(), DOWNLOADS, shared, |(layer, place)| {
        let file = spool.temporary_file().map_err(ReplayError::Temporary)?;
        let from = shared.record.asked(layer.index, Cause::Whole);
        let mut sink = Counted { file, layer: layer.index, bytes: 0, shared };
        let pulled = source.copy_blob(layer.digest, layer.size, &mut sink);
        shared.record.over(layer.index, Cause::Whole, from, 0, sink.bytes);
        if shared.tasks.is_over() {
            return Err(Stop::Cancelled);
        }
        pulled.map_err(ReplayError::from)?;
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink.file);
        Ok(())
    })?;
    for (layer, file) in layers.iter().zip(files) {
        if shared.tasks.is_over() {
            return Err(Stop::Cancelled);
        }
        let Some(file) = file.into_inner().unwrap_or_else(PoisonError::into_inner) else { continue };
        let unpack = |reason: String| ReplayError::Unpack {
            place: shared.place.clone(),
            digest: layer.digest,
            reason,
        };
        let actual = unpacked(file).map_err(|error| unpack(error.to_string()))?;
        if let Some(expected) = layer.diff_id.filter(|expected| *expected != actual) {
            return Err(unpack(format!("it has diffID {actual}, the image's config says {expected}")).into());
        }
    }
    Ok(())
}

/// SHA-256 of what a layer unpacks to.
fn unpacked(mut packed: File) -> io::Result<Digest> {
    packed.rewind()?;
    let mut magic = Vec::new();
    Read::take(&mut packed, 4).read_to_end(&mut magic)?;
    packed.rewind()?;
    let packed = BufReader::with_capacity(1 << 18, packed);
    match Compression::of(&magic) {
        Compression::Gzip => Digest::of_reader(&mut flate2::bufread::MultiGzDecoder::new(packed)),
        Compression::Zstd => Digest::of_reader(&mut zstd::Decoder::with_buffer(packed)?),
        Compression::None => {
            let mut packed = packed;
            Digest::of_reader(&mut packed)
        }
    }
}

/// A file that counts what is written to it, and takes no more when the start is over.
struct Counted<'a, 'b> {
    file: File,
    layer: usize,
    bytes: u64,
    shared: &'a Shared<'b>,
}

impl Write for Counted<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.shared.tasks.is_over() {
            return Err(io::Error::other("the replay is over"));
        }
        let count = self.file.write(bytes)?;
        self.bytes += count as u64;
        self.shared.record.came(self.layer, Cause::Whole, count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_are_skipped_begin_zstd() {
        let frame = zstd::encode_all(&b"content"[..], 3).unwrap();
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &frame].concat();
        for bytes in [frame.as_slice(), skipped.as_slice(), b"content"] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            assert_eq!(unpacked(file).unwrap(), Digest::of(b"content"));
        }
    }
}
