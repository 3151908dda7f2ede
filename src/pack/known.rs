//! Layers that the digest cache knows: finds them before they are sealed, brings them to a layout, and keeps those that
//! were sealed. The cache may fail; packing goes on without it. Must not know what the cache keeps.

use std::{
    io::{self, Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sha2::{Digest as _, Sha256};

use super::{LayerSpec, PackError, PackOptions};
use crate::{
    blob::{BlobContent as _, SourceError},
    digest::Digest,
    digest_cache::{DigestCache, LayerKey, Recording},
    layer::{LayerError, LayerFormat, SealedLayer},
    oci::Layout,
    progress::{Observer, Unobserved},
};

/// Bytes that are read, hashed and written at a time.
const PIECE: usize = 256 << 10;

/// The digest cache of one pack.
pub(super) struct Known<'a> {
    cache: Option<&'a DigestCache>,
    verify: bool,
    observer: &'a dyn Observer,
    /// Whether a failure was told: it will be the same for each layer.
    told: AtomicBool,
}

/// What is to be done about a layer.
pub(super) enum Found {
    /// The cache knows it and is to be believed.
    Known(LayerKey, SealedLayer),
    /// It is to be sealed, and then the cache wants to hear of it if this is something.
    ToSeal(Option<Box<Remembered>>),
}

/// What the cache has to do with a layer that is sealed.
pub(super) struct Remembered {
    key: LayerKey,
    /// What it knew, when that is only there to be compared with.
    known: Option<SealedLayer>,
    /// What will be kept.
    pub recording: Option<Recording>,
}

/// What the cache says of a layer.
struct LookedUp<'a> {
    cache: &'a DigestCache,
    key: LayerKey,
    layer: Option<SealedLayer>,
}

/// `bytes` of all layers that are known and that `layout`, if there is one, has already.
pub(super) fn known_bytes(
    specs: &[LayerSpec],
    options: &PackOptions,
    layout: Option<&Layout>,
    bytes: impl Fn(&LayerSpec) -> u64,
) -> u64 {
    let format = options.format.format();
    let known = Known::new(options, &Unobserved);
    let is_there = |spec: &&LayerSpec| {
        let layer = known.look_up(spec, &*format).and_then(|looked_up| looked_up.layer);
        let in_layout =
            |layer: &SealedLayer| layout.is_none_or(|layout| layout.has_blob(layer.digest, layer.size));
        !known.verifies() && layer.is_some_and(|layer| in_layout(&layer))
    };
    specs.iter().filter(is_there).map(bytes).sum()
}

impl<'a> Known<'a> {
    pub(super) fn new(options: &'a PackOptions, observer: &'a dyn Observer) -> Self {
        let (cache, verify) = (options.digest_cache.as_ref(), options.verify_sources);
        Self { cache, verify, observer, told: AtomicBool::new(false) }
    }

    /// Whether everything is looked at, whatever is known of it.
    pub(super) fn verifies(&self) -> bool {
        self.verify
    }

    /// Looks for a layer, and changes nothing. `None` when there is no cache, or none for this layer.
    fn look_up(&self, spec: &LayerSpec, format: &dyn LayerFormat) -> Option<LookedUp<'a>> {
        let cache = self.cache?;
        let key = LayerKey::of(&spec.entries, format)?;
        let layer = self.tell(cache.find(key, &spec.entries, format)).flatten();
        Some(LookedUp { cache, key, layer })
    }

    /// Looks for a layer, and begins to record one that will be sealed.
    pub(super) fn find(&self, spec: &LayerSpec, format: &dyn LayerFormat) -> Found {
        match self.look_up(spec, format) {
            None => Found::ToSeal(None),
            Some(LookedUp { key, layer: Some(layer), .. }) if !self.verify => Found::Known(key, layer),
            Some(LookedUp { cache, key, layer: known }) => {
                let recording = self.tell(cache.record(key, &spec.entries)).flatten();
                Found::ToSeal(Some(Box::new(Remembered { key, known, recording })))
            }
        }
    }

    /// Keeps what was found out about a layer.
    pub(super) fn keep(&self, spec: &LayerSpec, remembered: Box<Remembered>, sealed: &SealedLayer) {
        let Some(cache) = self.cache else { return };
        if let Some(known) = remembered.known
            && (known.digest, known.diff_id, &known.annotations)
                != (sealed.digest, sealed.diff_id, &sealed.annotations)
        {
            self.observer.warning(&format!(
                "the digest cache was wrong: it knew the layer of {} as {}, and its files give {}",
                spec.title, known.digest, sealed.digest
            ));
            self.tell(cache.forget(remembered.key));
        }
        if let Some(recording) = remembered.recording {
            self.tell(cache.keep(recording, &spec.entries, sealed));
        }
    }

    /// Has a layer that is known ready for the image's destinations: in the layout, if there is one.
    pub(super) fn use_it(
        &self,
        spec: &LayerSpec,
        key: LayerKey,
        mut layer: SealedLayer,
        layout: Option<&Layout>,
    ) -> Result<SealedLayer, PackError> {
        let payload = super::seal_layers::payload(spec);
        let mut hashed = 0;
        if let Some(layout) = layout {
            // Blobs appear in a layout whole; whether one was damaged later is asked with --verify-sources.
            if !layout.has_blob(layer.digest, layer.size) {
                self.write(spec, key, &layer, layout, &mut |bytes| {
                    let bytes = bytes.min(payload - hashed);
                    hashed += bytes;
                    self.observer.hashed(bytes);
                    self.observer.sources_read(bytes);
                })?;
            }
            layer.blob = None;
        }
        self.observer.hashed(payload - hashed);
        self.observer.layer_known(&spec.title, layer.digest, layer.size);
        Ok(layer)
    }

    fn write(
        &self,
        spec: &LayerSpec,
        key: LayerKey,
        layer: &SealedLayer,
        layout: &Layout,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(), PackError> {
        let Some(blob) = &layer.blob else { return Ok(()) };
        let failed = |cause: io::Error| {
            let error = match cause.downcast::<SourceError>() {
                Ok(error) => LayerError::Source(error),
                Err(cause) => LayerError::Write(cause),
            };
            super::seal_layers::named(spec, error)
        };
        let mut reader = Arc::clone(blob).reader(0).map_err(failed)?;
        let mut writer = layout.blob_writer()?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; PIECE];
        loop {
            let length = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(failed(cause)),
            };
            hash.update(&buffer[..length]);
            writer.write_all(&buffer[..length]).map_err(failed)?;
            on_bytes(length as u64);
        }
        let actual = Digest::finish(hash);
        if actual == layer.digest {
            return Ok(writer.commit(actual)?);
        }
        if let Some(cache) = self.cache {
            self.tell(cache.forget(key));
        }
        Err(PackError::KnownLayer { title: spec.title.clone(), expected: layer.digest, actual })
    }

    /// Says once that the cache cannot be used.
    fn tell<T>(&self, result: io::Result<T>) -> Option<T> {
        match (result, self.cache) {
            (Ok(value), _) => Some(value),
            (Err(cause), Some(cache)) if !self.told.swap(true, Ordering::Relaxed) => {
                let directory = cache.directory().display();
                self.observer.warning(&format!(
                    "the digest cache in {directory} cannot be used, so the next pack may read again what this one \
                     reads: {cause}"
                ));
                None
            }
            (Err(_), _) => None,
        }
    }
}
