//! What was found out about layers, from one image of an index to the next: images that share a layer need it read once.
//! Must not know what is looked for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use oci_spec::image::Descriptor;

use super::{
    deep::{DeepLayer, LayerToRead},
    finding::Findings,
    layer::{LayerView, Table},
};
use crate::{digest::Digest, oci::canonical_json};

/// Most entries that all tables of contents and listings of an image or an index may have together: so many are held.
pub(super) const HELD_MAX: usize = 4_000_000;

/// A blob's table of contents, once it is opened.
type Slot = Arc<Mutex<Option<Table>>>;

/// The tables of contents of blobs by digest and size, whatever descriptors say of them.
#[derive(Default)]
pub(super) struct Tables {
    slots: Mutex<HashMap<(Digest, u64), Slot>>,
    held: AtomicUsize,
}

impl Tables {
    /// The place of a blob's table.
    pub(super) fn slot(&self, key: (Digest, u64)) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key).or_default())
    }

    /// Whether there is room for so many more entries, which is taken then.
    pub(super) fn take(&self, entries: usize) -> bool {
        let more = |held: usize| held.checked_add(entries).filter(|held| *held <= HELD_MAX);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// Layers that were looked at, and those that were read, by all that decides what is found.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) tables: Tables,
    /// By the digest of the descriptor: descriptors can be long.
    looked: HashMap<Digest, (LayerView, Findings)>,
    read: HashMap<String, DeepLayer>,
}

impl Shared {
    /// What a layer looked like, as the `index`th of another image.
    pub(super) fn looked(&self, index: usize, descriptor: &Descriptor) -> Option<(LayerView, Findings)> {
        let (view, findings) = self.looked.get(&Digest::of(&canonical_json(descriptor).ok()?))?;
        Some((view.clone(), findings.in_layer(index)))
    }

    /// Keeps what a layer looks like.
    pub(super) fn keep_looked(&mut self, descriptor: &Descriptor, looked: (&LayerView, &Findings)) {
        if let Ok(key) = canonical_json(descriptor) {
            self.looked.insert(Digest::of(&key), (looked.0.clone(), looked.1.clone()));
        }
    }

    /// What reading a layer gave, as one of another image.
    pub(super) fn read(&self, layer: &LayerToRead<'_>) -> Option<DeepLayer> {
        let read = self.read.get(&key(layer))?;
        Some(DeepLayer { findings: read.findings.in_layer(layer.index), ..read.clone() })
    }

    /// Keeps what reading a layer gave.
    pub(super) fn keep_read(&mut self, layer: &LayerToRead<'_>, read: &DeepLayer) {
        self.read.insert(key(layer), read.clone());
    }
}

/// All that decides what is found in a layer, but where it is.
fn key(layer: &LayerToRead<'_>) -> String {
    let toc = layer.toc.map(|reader| reader.toc_digest);
    format!(
        "{} {} {:?} {:?} {:?} {toc:?} {} {}",
        layer.content.digest(),
        layer.content.size(),
        layer.compression,
        layer.diff_id,
        layer.unpacked_size,
        layer.tar_split.is_some(),
        layer.list
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_shared() {
        let tables = Tables::default();
        assert!(tables.take(HELD_MAX - 1) && !tables.take(2) && tables.take(1) && !tables.take(1));
        assert!(!tables.take(usize::MAX));
        let key = (Digest::of(b"a"), 1);
        assert!(Arc::ptr_eq(&tables.slot(key), &tables.slot(key)));
        assert!(!Arc::ptr_eq(&tables.slot(key), &tables.slot((key.0, 2))));
    }
}
