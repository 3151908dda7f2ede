//! What becomes of names when images are pushed, and whether what was pushed can be mounted. Must not know how images
//! are made.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use oci_spec::image::{Descriptor, ImageManifest};

use crate::{
    digest::Digest,
    estargz::{EstargzReader, ReadError, TOC_DIGEST_ANNOTATION},
    oci::{OciError, digest_of},
    registry::{Reference, Registry, RegistryError},
};

/// Layers that are looked at side by side: two requests each, of which a far registry lets one wait.
const AT_ONCE: usize = 8;

/// What a push does to the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The tag names the new image, whatever it named before.
    Move,
    /// The tag names the new image, unless it names another one.
    Keep,
    /// There is no tag: the image is pushed under its digest alone.
    Digest,
}

impl Naming {
    /// The name that a manifest is pushed under.
    pub fn name(self, reference: &Reference, digest: Digest) -> Reference {
        match self {
            Self::Move | Self::Keep => reference.clone(),
            Self::Digest => Reference::with_digest(
                reference.registry().to_owned(),
                reference.repository().to_owned(),
                digest.to_string(),
            ),
        }
    }

    /// Makes sure that the tag may name the image.
    ///
    /// # Errors
    /// [`OciError::TagTaken`] when it has to be kept for another.
    pub fn check(self, registry: &Registry, reference: &Reference, digest: Digest) -> Result<(), OciError> {
        if self != Self::Keep {
            return Ok(());
        }
        match registry.manifest_digest(reference)? {
            Some(present) if present != digest => {
                Err(OciError::TagTaken { name: reference.to_string(), present, wanted: digest })
            }
            _ => Ok(()),
        }
    }
}

/// Tries once what nodes will do with images whose layers are pushed: reads the footer and the table of contents of each
/// eStargz layer of `manifests` by Range requests.
///
/// # Errors
/// A layer that is there and is not what its descriptor says. A registry that ignores Range requests, lets this account
/// only push, or fails just now is worth a warning: the image can be pulled.
pub fn check_lazy<'a>(
    registry: &Registry,
    reference: &Reference,
    manifests: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(), OciError> {
    let place = reference.to_string();
    // What else may be pushed (an index, an artifact) has no layers to mount.
    let manifests =
        manifests.into_iter().filter_map(|manifest| serde_json::from_slice::<ImageManifest>(manifest).ok());
    let mut layers: Vec<Descriptor> = manifests.flat_map(|manifest| manifest.layers().clone()).collect();
    // Images of an index share most of their layers.
    let mut seen = HashSet::new();
    layers.retain(|layer| seen.insert(layer.digest().to_string()));
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = check_layer(registry, reference, layer, &place) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                next.store(usize::MAX / 2, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(layers.len()) {
            scope.spawn(work);
        }
        work();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Ok(()),
        Some(OciError::Registry(error)) if !tells_of_the_layer(&error) => {
            tracing::warn!("whether nodes can mount {place} without pulling it is not known: {error}");
            Ok(())
        }
        Some(error) => Err(error),
    }
}

/// Whether an error says that what the registry serves is wrong, and not that it does not serve it.
fn tells_of_the_layer(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::SizeMismatch { .. }
            | RegistryError::DigestMismatch { .. }
            | RegistryError::Protocol { .. }
    )
}

fn check_layer(
    registry: &Registry,
    reference: &Reference,
    layer: &Descriptor,
    place: &str,
) -> Result<(), OciError> {
    let annotation = layer.annotations().as_ref().and_then(|all| all.get(TOC_DIGEST_ANNOTATION));
    let Some(toc) = annotation.and_then(|text| text.parse::<Digest>().ok()) else { return Ok(()) };
    let digest = digest_of(layer, place)?;
    let blob = registry.blob_source(reference, digest, layer.size());
    match EstargzReader::open(&blob, Some(toc)) {
        Ok(_) => Ok(()),
        Err(ReadError::Read { cause, .. }) => Err(match cause.downcast::<RegistryError>() {
            Ok(error) => error.into(),
            Err(cause) => OciError::ReadBlob { place: place.to_owned(), digest, cause },
        }),
        Err(error) => Err(OciError::Registry(RegistryError::Protocol {
            action: format!("read layer {digest} as nodes will").into(),
            reference: place.into(),
            message: format!("{error}; the registry or something before it serves wrong bytes"),
        })),
    }
}
