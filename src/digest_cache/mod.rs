//! What sealing layers found out, kept from one run to the next, so that a layer whose files are the same is neither
//! read nor hashed again. Must not know models, images or registries.
//!
//! A layer is known by its [key](LayerKey): everything that decides its bytes, files by their stamps. Kept under it
//! are its digests and what its blob is made of. Nothing that is wrong here makes a wrong image: every byte of a blob
//! that is made from a recipe is compared with a checksum.

mod fields;
mod key;
mod racy;
mod recipe;
mod recording;
mod store;

use std::{fs, io, path::PathBuf, sync::Arc, time::SystemTime};

pub use self::{
    recipe::{Part, Recipe},
    recording::Recording,
    store::{DigestCache, Usage},
};
use crate::{
    blob::{FileStamp, Source},
    digest::Digest,
    layer::{Data, Entry, EntryKind, LayerFormat, SealedLayer},
};

/// Bytes that a cache takes when nobody says how many: the recipes of some thousand layers of weights (33 bytes for
/// each chunk of 4 MiB), or of a few dozen large compile caches, whose compressed bytes are all kept.
pub const LIMIT_DEFAULT: u64 = 1 << 30;

/// No layer may keep more than this part of a cache's limit: one large compile cache should not drive out everything
/// else.
const LAYER_PART: u64 = 4;

/// What a layer is made of, as one digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerKey(Digest);

impl LayerKey {
    /// The key of the layer that `entries` form in `format`; `None` when it cannot be known again, because some of its
    /// bytes lie in a temporary file.
    pub fn of(entries: &[Entry], format: &dyn LayerFormat) -> Option<Self> {
        key::key(entries, format).map(Self)
    }
}

impl DigestCache {
    /// The layer that is kept under `key`, which must be that of `entries` and `format`. It has a blob that is made
    /// of the entries' sources; when one of them turns out to hold something else, the layer is forgotten. `None` when
    /// nothing is kept, or what is kept is damaged.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn find(
        &self,
        key: LayerKey,
        entries: &[Entry],
        format: &dyn LayerFormat,
    ) -> io::Result<Option<SealedLayer>> {
        let Some((file, size)) = self.open(key.0)? else { return Ok(None) };
        let Some((recipe, kept)) = recording::read(&file, size)? else { return Ok(None) };
        // A file that somebody gave another name.
        if recipe.key != key.0 || recipe.media_type != format.media_type() {
            return Ok(None);
        }
        let file = Arc::new(file);
        let Some((mut layer, blob)) = recipe.layer(entries, format.framing(), &file, kept) else {
            return Ok(None);
        };
        // The one that was not used for the longest time goes first. Who may not set the time loses only that.
        let _ = file.set_modified(SystemTime::now());
        let cache = self.clone();
        layer.blob = Some(Arc::new(blob.on_other_content(move || {
            let _ = cache.forget(key);
        })));
        Ok(Some(layer))
    }

    /// Begins to record a layer that is about to be hashed. `None` when it must not be kept: a file was written so
    /// short a time ago that its stamp would not change if it were written again.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn record(&self, key: LayerKey, entries: &[Entry]) -> io::Result<Option<Recording>> {
        let now = SystemTime::now();
        let bound = self.limit() / LAYER_PART;
        if bound == 0 || sources(entries).any(|(_, stamp)| racy::is_racy(stamp, now)) {
            return Ok(None);
        }
        self.create()?;
        Recording::begin(key.0, self.directory(), bound).map(Some)
    }

    /// Keeps a layer that was recorded. Returns whether it did: not, when a file changed meanwhile or the layer takes
    /// too much.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn keep(&self, recording: Recording, entries: &[Entry], layer: &SealedLayer) -> io::Result<bool> {
        // From the first look at the files until now nothing may have happened to them. Whether something happened
        // between the first look and the first read, their times would tell.
        let unchanged = |(path, stamp): (&PathBuf, &FileStamp)| {
            fs::metadata(path).is_ok_and(|metadata| FileStamp::of(&metadata) == *stamp)
        };
        if !sources(entries).all(unchanged) {
            return Ok(false);
        }
        let key = recording.key();
        let Some(file) = recording.finish(layer)? else { return Ok(false) };
        self.put(key, file)?;
        Ok(true)
    }

    /// Forgets the layer that is kept under `key`, if there is one.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn forget(&self, key: LayerKey) -> io::Result<()> {
        self.remove(key.0)
    }
}

/// The files that entries take bytes from.
fn sources(entries: &[Entry]) -> impl Iterator<Item = (&PathBuf, &FileStamp)> {
    entries.iter().filter_map(|entry| match &entry.kind {
        EntryKind::Regular(content) => match &content.data {
            Data::Source { source, .. } => match &**source {
                Source::Path { path, stamp } => Some((path, stamp)),
                Source::Spool(_) => None,
            },
            Data::Bytes(_) => None,
        },
        _ => None,
    })
}
