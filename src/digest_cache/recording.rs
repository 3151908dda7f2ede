//! Recipes as files: written while a layer is sealed, and read back. Must not know where the files lie, nor when one
//! is believed.
//!
//! ```text
//! magic | kept bytes, as they come | recipe | length of the recipe, u64 | SHA-256 of all before
//! ```
//!
//! The recipe comes last because it is known last: nothing is held in memory but the list of parts.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::recipe::{Part, Recipe};
use crate::{
    digest::Digest,
    layer::{Recorder, SealedLayer, StoredChunk},
    pending::PendingFile,
};

const MAGIC: &[u8; 16] = b"starcar recipe\x002";
/// Bytes behind the recipe.
const TRAILER: u64 = 8 + 32;
/// Longest recipe that is read: 33 bytes for each chunk, so this is for a layer of 8 TB.
const RECIPE_MAX: u64 = 64 << 20;

/// A layer that is being recorded.
#[derive(Debug)]
pub struct Recording {
    key: Digest,
    state: io::Result<Writing>,
    parts: Vec<Part>,
    /// Most bytes that are kept.
    bound: u64,
    kept: u64,
}

#[derive(Debug)]
struct Writing {
    file: BufWriter<PendingFile>,
    hash: Sha256,
}

impl Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }
}

impl Recording {
    /// Begins a file that will be named in `directory`. A layer that is made of more than `bound` bytes that have to
    /// be kept is given up.
    pub(super) fn begin(key: Digest, directory: &Path, bound: u64) -> io::Result<Self> {
        // Names of models and what is in them are nobody else's business.
        let file = BufWriter::new(PendingFile::private(directory)?);
        let mut writing = Writing { file, hash: Sha256::new() };
        writing.write(MAGIC)?;
        Ok(Self { key, state: Ok(writing), parts: Vec::new(), bound, kept: 0 })
    }

    /// What the recording is of.
    pub(super) fn key(&self) -> Digest {
        self.key
    }

    /// Ends the file; `None` when the layer was given up because it is too large.
    pub(super) fn finish(self, layer: &SealedLayer) -> io::Result<Option<PendingFile>> {
        if self.kept > self.bound {
            return Ok(None);
        }
        let mut writing = self.state?;
        let recipe = Recipe {
            key: self.key,
            digest: layer.digest,
            size: layer.size,
            diff_id: layer.diff_id,
            uncompressed_size: layer.uncompressed_size,
            media_type: layer.media_type,
            annotations: layer.annotations.clone(),
            files: layer.files.clone(),
            parts: self.parts,
        };
        let bytes = recipe.encode();
        writing.write(&bytes)?;
        writing.write(&(bytes.len() as u64).to_le_bytes())?;
        let checksum = Digest::finish(writing.hash);
        writing.file.write_all(checksum.as_bytes())?;
        let file = writing.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Some(file))
    }
}

impl Recorder for Recording {
    fn kept(&mut self, bytes: &[u8]) {
        self.kept = self.kept.saturating_add(bytes.len() as u64);
        if self.kept > self.bound {
            // What was written until now need not take place any longer.
            self.state = Err(io::ErrorKind::FileTooLarge.into());
            self.parts = Vec::new();
            return;
        }
        if let Ok(writing) = &mut self.state
            && let Err(cause) = writing.write(bytes)
        {
            // The file goes with it, and its place on the disk.
            self.state = Err(cause);
        }
        match self.parts.last_mut() {
            Some(Part::Kept(length)) => *length += bytes.len() as u64,
            _ => self.parts.push(Part::Kept(bytes.len() as u64)),
        }
    }

    fn stored(&mut self, chunk: StoredChunk) {
        if self.kept <= self.bound && self.state.is_ok() {
            self.parts.push(Part::Stored(chunk));
        }
    }
}

/// The recipe in a file of `size` bytes, and where its kept bytes end and begin; `None` when the file is damaged.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn read(file: &File, size: u64) -> io::Result<Option<(Recipe, (u64, u64))>> {
    let start = MAGIC.len() as u64;
    let Some(checked) = size.checked_sub(32).filter(|checked| *checked >= start + 8) else { return Ok(None) };
    let mut hash = Sha256::new();
    let mut content = file.take(checked);
    let mut buffer = vec![0; 256 << 10];
    let mut is_ours = None;
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                // Whatever else lies under the name need not be read to its end.
                if !*is_ours.get_or_insert_with(|| buffer[..length].starts_with(MAGIC)) {
                    return Ok(None);
                }
                hash.update(&buffer[..length]);
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    let mut trailer = [0; 40];
    if file.read_exact_at(&mut trailer, size - TRAILER).is_err() {
        return Ok(None);
    }
    let (length, checksum) = trailer.split_at(8);
    let length = length.try_into().map_or(u64::MAX, u64::from_le_bytes);
    let end = (size - TRAILER).checked_sub(length).filter(|end| *end >= start && length <= RECIPE_MAX);
    let (Some(end), true) = (end, Digest::finish(hash).as_bytes() == checksum) else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, end)?;
    Ok(Recipe::decode(&bytes).map(|recipe| (recipe, (start, end))))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _};

    use proptest::prelude::*;

    use super::*;
    use crate::layer::MediaType;

    const CHUNK: StoredChunk = StoredChunk { entry: 3, offset: 5, length: 7, checksum: 9 };

    fn layer() -> SealedLayer {
        SealedLayer {
            digest: Digest::of(b"digest"),
            size: 1,
            diff_id: Digest::of(b"diff id"),
            uncompressed_size: 2,
            media_type: MediaType::TarGzip,
            annotations: BTreeMap::from([("a".into(), "b".into())]),
            files: vec![Some(Digest::of(b"file")), None],
            blob: None,
        }
    }

    /// A file with the kept bytes `headtail` around a chunk, or none when `bound` is less.
    fn recorded(directory: &Path, bound: u64) -> Option<Vec<u8>> {
        let mut recording = Recording::begin(Digest::of(b"key"), directory, bound).unwrap();
        recording.kept(b"he");
        recording.kept(b"ad");
        recording.stored(CHUNK);
        recording.kept(b"tail");
        let file = recording.finish(&layer()).unwrap()?;
        file.replace_unsynced("recipe").unwrap();
        let path = directory.join("recipe");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        Some(fs::read(path).unwrap())
    }

    fn read_bytes(bytes: &[u8]) -> Option<(Recipe, (u64, u64))> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        read(&file, bytes.len() as u64).unwrap()
    }

    #[test]
    fn what_is_recorded_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = recorded(directory.path(), 8).unwrap();
        let (recipe, kept) = read_bytes(&bytes).unwrap();
        assert_eq!(recipe.parts, [Part::Kept(4), Part::Stored(CHUNK), Part::Kept(4)]);
        assert_eq!((recipe.key, recipe.digest), (Digest::of(b"key"), Digest::of(b"digest")));
        assert_eq!((recipe.diff_id, recipe.annotations), (Digest::of(b"diff id"), layer().annotations));
        assert_eq!((kept, &bytes[16..24]), ((16, 24), &b"headtail"[..]));
    }

    #[test]
    fn a_layer_with_too_much_to_keep_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(recorded(directory.path(), 7), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_damage_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = recorded(directory.path(), 8).unwrap();
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            assert!(read_bytes(&damaged).is_none(), "byte {position}");
            assert!(read_bytes(&bytes[..position]).is_none(), "cut to {position}");
        }
        assert!(read_bytes(&[&bytes[..], b"x"].concat()).is_none());
    }

    proptest! {
        #[test]
        fn bytes_with_a_right_checksum_are_survived(
            noise in proptest::collection::vec(any::<u8>(), 0..300),
            length in 0_u64..400,
        ) {
            let mut bytes = [&MAGIC[..], &noise, &length.to_le_bytes()].concat();
            let checksum = Digest::of(&bytes);
            bytes.extend(checksum.as_bytes());
            let _ = read_bytes(&bytes);
            let _ = read_bytes(&noise);
        }
    }
}
