//! Pushing a finished image: blobs first, the manifest last. Must not know how the blobs came about.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use oci_spec::image::MediaType;

use crate::{
    blob::{BlobContent, MemoryBlob},
    digest::Digest,
    inspect::caches_of,
    naming::{Naming, check_lazy},
    oci::{DEFAULT_TAG, Layout, OciError, Platform, Selector, digest_of, read_image, variant_tag},
    progress::Observer,
    registry::{PushEvent, Reference, Registry},
};

/// Pushes `blobs` and then `manifest` to `reference`.
///
/// # Errors
/// When the registry refuses or a source of a blob changed. Without the manifest the image does not exist.
pub fn push_image(
    registry: &Registry,
    reference: &Reference,
    blobs: &[Arc<dyn BlobContent>],
    media_type: &str,
    manifest: &[u8],
    naming: Naming,
    observer: &dyn Observer,
) -> Result<Digest, OciError> {
    let digest = Digest::of(manifest);
    naming.check(registry, reference, digest)?;
    observer.sending(&reference.to_string(), blobs.iter().map(|blob| blob.size()).sum());
    let sent: Vec<AtomicU64> = blobs.iter().map(|_| AtomicU64::new(0)).collect();
    let advance = |index: usize, position: u64| {
        let before = sent[index].fetch_max(position, Ordering::Relaxed);
        observer.sent(position.saturating_sub(before));
    };
    registry.push_blobs(reference, blobs, &|index, event| match event {
        PushEvent::Progress(position) => advance(index, position),
        PushEvent::AlreadyThere => {
            observer.already_there(blobs[index].digest());
            advance(index, blobs[index].size());
        }
        PushEvent::Mounted => {
            observer.mounted(blobs[index].digest());
            advance(index, blobs[index].size());
        }
        PushEvent::Resumed(position) => {
            observer.resumed(blobs[index].digest(), position);
            advance(index, position);
        }
        PushEvent::Done => advance(index, blobs[index].size()),
    })?;
    // Somebody else may have taken the tag while the layers were sent.
    naming.check(registry, reference, digest)?;
    let name = naming.name(reference, digest);
    registry.push_manifest(&name, media_type, manifest)?;
    check_lazy(registry, &name, manifest)?;
    Ok(digest)
}

/// Pushes the image that `selector` names in `layout`, after the variants for GPU targets that it lists, each under its
/// own tag. Returns the image's digest.
///
/// # Errors
/// When the layout's image, or one of its variants, is incomplete, or the registry refuses.
pub fn push_layout(
    layout: &Layout,
    selector: &Selector,
    registry: &Registry,
    reference: &Reference,
    naming: Naming,
    observer: &dyn Observer,
) -> Result<Digest, OciError> {
    let source = (layout.clone(), selector.clone());
    let variants = caches_of(&source, &Platform::default())?.variants;
    for (target, digest) in variants {
        let tag = variant_tag(reference.tag().unwrap_or(DEFAULT_TAG), Some(&target));
        let name =
            Reference::with_tag(reference.registry().to_owned(), reference.repository().to_owned(), tag);
        push_one(layout, &Selector::Digest(digest), registry, &name, naming, observer)?;
    }
    push_one(layout, selector, registry, reference, naming, observer)
}

fn push_one(
    layout: &Layout,
    selector: &Selector,
    registry: &Registry,
    reference: &Reference,
    naming: Naming,
    observer: &dyn Observer,
) -> Result<Digest, OciError> {
    let source = (layout.clone(), selector.clone());
    let image = read_image(&source, &Platform::default())?;
    let place = format!("oci:{}", layout.root().display());
    let mut blobs: Vec<Arc<dyn BlobContent>> = Vec::new();
    for descriptor in image.manifest.layers() {
        let digest: Digest = digest_of(descriptor, &place)?;
        blobs.push(layout.blob(digest, descriptor.size())?);
    }
    blobs.push(Arc::new(MemoryBlob::new(image.config_bytes)));
    let media_type = image.manifest.media_type().clone().unwrap_or(MediaType::ImageManifest).to_string();
    let digest =
        push_image(registry, reference, &blobs, &media_type, &image.manifest_bytes, naming, observer)?;
    if digest == image.digest {
        return Ok(digest);
    }
    let reason = format!("its content has digest {digest}");
    Err(OciError::DamagedBlob { place, digest: image.digest, reason })
}
