//! Pushing a finished image: blobs first, the manifest last. Must not know how the blobs came about.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use oci_spec::image::MediaType;

use crate::{
    blob::BlobContent,
    digest::Digest,
    naming::{Naming, check_lazy},
    oci::OciError,
    progress::Observer,
    registry::{PushEvent, Reference, Registry},
};

/// Pushes `blobs`, tries whether nodes can read them as they will, and then pushes `documents`, manifests and perhaps an
/// index, each after what it lists. The last of them is what `reference` then names; the others have no name.
///
/// # Errors
/// When the registry refuses or a source of a blob changed. Without the last document the image does not exist.
pub fn push_image(
    registry: &Registry,
    reference: &Reference,
    blobs: &[Arc<dyn BlobContent>],
    documents: &[(MediaType, &[u8])],
    naming: Naming,
    observer: &dyn Observer,
) -> Result<(), OciError> {
    let Some(((media_type, root), listed)) = documents.split_last() else { return Ok(()) };
    let digest = Digest::of(root);
    naming.check(registry, reference, digest)?;
    let name = naming.name(reference, digest);
    push_blobs(registry, &name, None, blobs, observer)?;
    check_lazy(registry, &name, documents.iter().map(|(_, document)| *document))?;
    for (media_type, manifest) in listed {
        let name = Naming::Digest.name(reference, Digest::of(manifest));
        registry.push_manifest(&name, media_type.as_ref(), manifest)?;
    }
    // Somebody else may have taken the tag while the layers were sent.
    naming.check(registry, reference, digest)?;
    registry.push_manifest(&name, media_type.as_ref(), root)?;
    Ok(())
}

/// Pushes `blobs`, which lie in the repository of `from` if that is given, to the reference's repository.
///
/// # Errors
/// As [`push_image`].
pub fn push_blobs(
    registry: &Registry,
    reference: &Reference,
    from: Option<&Reference>,
    blobs: &[Arc<dyn BlobContent>],
    observer: &dyn Observer,
) -> Result<(), OciError> {
    let total = blobs.iter().fold(0_u64, |total, blob| total.saturating_add(blob.size()));
    observer.sending(&reference.to_string(), total);
    let sent: Vec<AtomicU64> = blobs.iter().map(|_| AtomicU64::new(0)).collect();
    let advance = |index: usize, position: u64| {
        let before = sent[index].fetch_max(position, Ordering::Relaxed);
        observer.sent(position.saturating_sub(before));
    };
    registry.push_blobs_from(reference, from, blobs, &|index, event| match event {
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
    Ok(())
}
