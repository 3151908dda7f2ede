//! What sealing found out about a layer, in a form that can be kept. Must not know files or directories.

use std::{collections::BTreeMap, fs::File, sync::Arc};

use super::fields::{Fields, Reader};
use crate::{
    blob::{Extent, ExtentBlob, Source, Spooled, framing::Framing},
    digest::Digest,
    layer::{Data, Entry, EntryKind, MediaType, SealedLayer, StoredChunk},
};

/// Most bytes of kept parts that are one extent: a reader holds one in memory.
const EXTENT_MAX: u64 = 1 << 20;

/// A layer's digests and sizes, and the parts that its blob is made of. Sources are named by their entries in the
/// layer: where files lie is the business of whoever uses the recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// What the layer was made of.
    pub key: Digest,
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
    /// SHA-256 of each entry's file; `None` for entries that are no regular files.
    pub files: Vec<Option<Digest>>,
    /// The blob's parts in order.
    pub parts: Vec<Part>,
}

/// A part of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// So many bytes that are kept, after those of the parts before.
    Kept(u64),
    /// A chunk of an entry's file.
    Stored(StoredChunk),
}

impl Recipe {
    /// The recipe as bytes, without what is kept.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        for digest in [&self.key, &self.digest, &self.diff_id] {
            fields.bytes(digest.as_bytes());
        }
        fields.number(self.size);
        fields.number(self.uncompressed_size);
        fields.byte(match self.media_type {
            MediaType::Tar => b't',
            MediaType::TarGzip => b'g',
            MediaType::TarZstd => b'z',
        });
        fields.number(self.annotations.len() as u64);
        for (name, value) in &self.annotations {
            fields.text(name);
            fields.text(value);
        }
        fields.number(self.files.len() as u64);
        for file in &self.files {
            match file {
                Some(digest) => {
                    fields.byte(b'f');
                    fields.bytes(digest.as_bytes());
                }
                None => fields.byte(b'-'),
            }
        }
        fields.number(self.parts.len() as u64);
        for part in &self.parts {
            match part {
                Part::Kept(length) => {
                    fields.byte(b'k');
                    fields.number(*length);
                }
                Part::Stored(StoredChunk { entry, offset, length, checksum }) => {
                    fields.byte(b's');
                    fields.number(*entry as u64);
                    fields.number(*offset);
                    fields.number(*length as u64);
                    fields.number(u64::from(*checksum));
                }
            }
        }
        fields.finish()
    }

    /// Reads what [`Self::encode`] wrote; `None` for any other bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut digest = || Some(Digest::from_bytes(reader.bytes()?.try_into().ok()?));
        let (key, digest, diff_id) = (digest()?, digest()?, digest()?);
        let (size, uncompressed_size) = (reader.number()?, reader.number()?);
        let media_type = match reader.byte()? {
            b't' => MediaType::Tar,
            b'g' => MediaType::TarGzip,
            b'z' => MediaType::TarZstd,
            _ => return None,
        };
        let mut annotations = BTreeMap::new();
        // Each has two lengths at least.
        for _ in 0..reader.count(16)? {
            annotations.insert(reader.text()?.to_owned(), reader.text()?.to_owned());
        }
        let mut files = Vec::new();
        for _ in 0..reader.count(1)? {
            files.push(match reader.byte()? {
                b'f' => Some(Digest::from_bytes(reader.bytes()?.try_into().ok()?)),
                b'-' => None,
                _ => return None,
            });
        }
        let mut parts = Vec::new();
        for _ in 0..reader.count(9)? {
            parts.push(match reader.byte()? {
                b'k' => Part::Kept(reader.number()?),
                b's' => Part::Stored(StoredChunk {
                    entry: usize::try_from(reader.number()?).ok()?,
                    offset: reader.number()?,
                    length: usize::try_from(reader.number()?).ok()?,
                    checksum: u32::try_from(reader.number()?).ok()?,
                }),
                _ => return None,
            });
        }
        let recipe =
            Self { key, digest, size, diff_id, uncompressed_size, media_type, annotations, files, parts };
        reader.is_empty().then_some(recipe)
    }

    /// The layer that the recipe makes of `entries`, with the bytes that are kept in `file` from byte `start` to
    /// `end`; `None` when they do not belong together.
    pub(super) fn layer(
        self,
        entries: &[Entry],
        framing: Framing,
        file: &Arc<File>,
        (start, end): (u64, u64),
    ) -> Option<(SealedLayer, ExtentBlob)> {
        let mut extents = Vec::with_capacity(self.parts.len());
        let mut position = start;
        let mut size: u64 = 0;
        for part in &self.parts {
            match part {
                Part::Kept(length) => {
                    size = size.checked_add(*length)?;
                    let part_end = position.checked_add(*length).filter(|part_end| *part_end <= end)?;
                    while position < part_end {
                        let length = (part_end - position).min(EXTENT_MAX);
                        let file = Arc::clone(file);
                        extents.push(Extent::Kept(Spooled::File { file, offset: position, length }));
                        position += length;
                    }
                }
                Part::Stored(chunk) => {
                    let (source, offset) = source(entries, chunk)?;
                    size = size.checked_add(framing.framed_length(chunk.length as u64))?;
                    extents.push(Extent::Stored {
                        source: Arc::clone(source),
                        offset,
                        length: chunk.length,
                        framing,
                        checksum: chunk.checksum,
                    });
                }
            }
        }
        if position != end || size != self.size || self.files.len() != entries.len() {
            return None;
        }
        let Self { digest, size, diff_id, uncompressed_size, media_type, annotations, files, .. } = self;
        let layer = SealedLayer {
            digest,
            size,
            diff_id,
            uncompressed_size,
            media_type,
            annotations,
            files,
            blob: None,
        };
        Some((layer, ExtentBlob::new(extents, digest)))
    }
}

/// The source of a chunk, and its first byte in there.
fn source<'a>(entries: &'a [Entry], chunk: &StoredChunk) -> Option<(&'a Arc<Source>, u64)> {
    let EntryKind::Regular(content) = &entries.get(chunk.entry)?.kind else { return None };
    let Data::Source { source, offset } = &content.data else { return None };
    let end = chunk.offset.checked_add(chunk.length as u64)?;
    (end <= content.size()).then_some((source, offset.checked_add(chunk.offset)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            any::<u64>().prop_map(Part::Kept),
            (any::<usize>(), any::<u64>(), any::<usize>(), any::<u32>()).prop_map(
                |(entry, offset, length, checksum)| Part::Stored(StoredChunk {
                    entry,
                    offset,
                    length,
                    checksum
                })
            ),
        ]
    }

    fn recipe() -> impl Strategy<Value = Recipe> {
        let digests = any::<[[u8; 32]; 3]>();
        let annotations = proptest::collection::btree_map(".*", ".*", 0..4);
        let parts = proptest::collection::vec(part(), 0..20);
        let files = proptest::collection::vec(any::<Option<[u8; 32]>>(), 0..3);
        (digests, any::<(u64, u64, bool)>(), annotations, files, parts).prop_map(
            |([key, digest, diff_id], (size, uncompressed_size, gzip), annotations, files, parts)| Recipe {
                key: Digest::from_bytes(key),
                digest: Digest::from_bytes(digest),
                size,
                diff_id: Digest::from_bytes(diff_id),
                uncompressed_size,
                media_type: if gzip { MediaType::TarGzip } else { MediaType::Tar },
                annotations,
                files: files.into_iter().map(|file| file.map(Digest::from_bytes)).collect(),
                parts,
            },
        )
    }

    /// Makes a layer of whatever it is given.
    fn make(recipe: Recipe, kept: u64) -> Option<u64> {
        let file = Arc::new(File::open("/dev/null").unwrap());
        let entries = [Entry::new("d", 0o755, 0, EntryKind::Directory)];
        let (layer, blob) = recipe.layer(&entries, Framing::StoredGzip, &file, (16, 16 + kept))?;
        assert_eq!(layer.size, crate::blob::BlobContent::size(&blob));
        Some(layer.size)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(recipe in recipe()) {
            prop_assert_eq!(Recipe::decode(&recipe.encode()), Some(recipe));
        }

        #[test]
        fn any_bytes_are_a_recipe_or_none(
            recipe in recipe(),
            cuts in any::<(prop::sample::Index, prop::sample::Index, u8)>(),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Recipe::decode(&noise);
            let mut bytes = recipe.encode();
            let position = cuts.0.index(bytes.len());
            bytes[position] = cuts.2;
            if let Some(other) = Recipe::decode(&bytes) {
                prop_assert_eq!(Recipe::decode(&other.encode()), Some(other.clone()));
                let _ = make(other, 100);
            }
            bytes.truncate(cuts.1.index(bytes.len()));
            prop_assert_eq!(Recipe::decode(&bytes), None);
        }

        #[test]
        fn parts_must_be_all_of_what_is_kept(lengths in proptest::collection::vec(0_u64..3_000_000, 1..5)) {
            let size: u64 = lengths.iter().sum();
            let nothing = Digest::of(b"");
            let recipe = |size| Recipe {
                key: nothing,
                digest: nothing,
                size,
                diff_id: nothing,
                uncompressed_size: 0,
                media_type: MediaType::Tar,
                annotations: BTreeMap::new(),
                files: vec![None],
                parts: lengths.iter().copied().map(Part::Kept).collect(),
            };
            prop_assert_eq!(make(recipe(size), size), Some(size));
            prop_assert_eq!(make(recipe(size + 1), size), None);
            prop_assert_eq!(make(recipe(size), size + 1), None);
            prop_assert_eq!(size == 0 || make(recipe(size), size - 1).is_none(), true);
        }
    }
}
