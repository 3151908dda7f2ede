//! Copying finished images from one place to another, every byte as it is: blobs first, then manifests, names last.
//! Must not know how images are made or what their layers hold.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use oci_spec::image::Descriptor;
use serde::Deserialize;

use crate::{
    blob::BlobContent,
    digest::Digest,
    naming::{Naming, check_lazy},
    oci::{
        BlobWriter, DEFAULT_TAG, ImageSource, Layout, OciError, Platform, RootDocument, STARCAR_PREFIX,
        Target, descriptor, digest_of, for_asked_platform, is_tag, variant_tag,
    },
    progress::Observer,
    push::push_blobs,
    registry::{Reference, Registry, RegistryError, RegistryOptions, known_registry},
};

/// How deep indexes may lie in indexes, and referrers refer to referrers.
const DEPTH_MAX: usize = 8;

/// Where an image is copied to.
pub enum Destination {
    /// A registry.
    Registry {
        /// The client.
        registry: Registry,
        /// The name.
        reference: Reference,
        /// What becomes of the tag.
        naming: Naming,
    },
    /// A layout.
    Layout {
        /// The layout.
        layout: Layout,
        /// The name.
        tag: String,
        /// What becomes of the tag.
        naming: Naming,
    },
}

/// What is copied, and how.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Takes the image of an index for this platform alone.
    pub platform: Option<Platform>,
    /// Whether what refers to the image (profiles, signatures) is copied, too.
    pub referrers: bool,
    /// How many blobs are written to a layout at a time; 0 counts as 1. A registry's client has its own number.
    pub concurrency: usize,
}

impl Default for CopyOptions {
    fn default() -> Self {
        let concurrency = RegistryOptions::default().concurrency;
        Self { platform: None, referrers: false, concurrency }
    }
}

/// What a manifest or index lists, and what starcar says in it.
#[derive(Deserialize)]
struct Document {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// The layers of a kind of artifacts that the specification has no more.
    #[serde(default)]
    blobs: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

/// What is to be copied, in an order in which everything comes after what it lists.
#[derive(Default)]
struct Tree {
    blobs: Vec<(Digest, u64)>,
    manifests: Vec<RootDocument>,
    seen: HashSet<Digest>,
    /// Images for one GPU target each that the manifests list; where an index lists some, its own images' are parts of them.
    variants: BTreeMap<String, Digest>,
}

struct Copy<'a> {
    source: &'a dyn ImageSource,
    to: &'a Destination,
    options: &'a CopyOptions,
    observer: &'a dyn Observer,
}

/// Copies the image or index that `source` names, and before it the variants for GPU targets that it lists, each under
/// its own tag. What the destination has is left as it is. Returns the digest of the manifest.
///
/// # Errors
/// When something of the image, or of a variant, is missing or damaged, or the destination refuses. The name is given
/// last: where there is an error, it means what it meant before.
pub fn copy(
    source: &dyn ImageSource,
    to: &Destination,
    options: &CopyOptions,
    observer: &dyn Observer,
) -> Result<Digest, OciError> {
    let copy = Copy { source, to, options, observer };
    let mut root = source.root_document()?;
    if let Some(platform) = &options.platform {
        root = for_asked_platform(source, root, platform)?;
    }
    let digest = root.digest;
    let mut tree = Tree::default();
    // The variants that the image lists are known when it was read, and have to be there before it.
    copy.collect(root, 0, &mut tree)?;
    let mut names = BTreeMap::new();
    let images = std::mem::take(&mut tree.manifests);
    for (target, variant) in std::mem::take(&mut tree.variants) {
        copy.collect(source.by_digest(variant)?, 0, &mut tree)?;
        let tag = variant_tag(copy.tag(), Some(&target));
        // Known before hours of copying, which would end in a refusal.
        if !is_tag(&tag) {
            let reason =
                format!("the image has a variant for {target}, which needs a tag that registries take");
            return Err(OciError::Target { text: tag, reason });
        }
        names.insert(variant, tag);
    }
    tree.manifests.extend(images);
    names.insert(digest, copy.tag().to_owned());

    copy.check_destination(&tree.blobs)?;
    copy.check_names(&names)?;
    copy.send(&tree.blobs)?;
    copy.check_layers(&tree.manifests)?;
    // Somebody else may have taken a tag while the layers were sent.
    copy.check_names(&names)?;
    if options.referrers {
        // What refers to an image comes after it, and the image's name after all of them.
        for manifest in &tree.manifests {
            copy.store(manifest, None)?;
        }
        let subjects: Vec<Digest> = tree.manifests.iter().map(|manifest| manifest.digest).collect();
        for subject in subjects {
            copy.referrers(subject, 0, &mut tree.seen)?;
        }
    }
    for manifest in &tree.manifests {
        let tag = names.get(&manifest.digest).map(String::as_str);
        if tag.is_some() || !options.referrers {
            copy.store(manifest, tag)?;
        }
    }
    Ok(digest)
}

/// Brings blobs of a source to a destination, but for those that are there.
///
/// # Errors
/// When one is missing or damaged, or the destination refuses.
pub(crate) fn send_blobs(
    source: &dyn ImageSource,
    to: &Destination,
    blobs: &[(Digest, u64)],
    observer: &dyn Observer,
) -> Result<(), OciError> {
    Copy { source, to, options: &CopyOptions::default(), observer }.send(blobs)
}

/// The tag that a copy of `target` gets where none is asked for.
pub fn tag_of(target: &Target) -> &str {
    match target {
        Target::Registry(reference) => reference.tag().unwrap_or(DEFAULT_TAG),
        other => other.new_tag(),
    }
}

impl Copy<'_> {
    /// The name's tag.
    fn tag(&self) -> &str {
        match self.to {
            Destination::Registry { reference, .. } => reference.tag().unwrap_or(DEFAULT_TAG),
            Destination::Layout { tag, .. } => tag,
        }
    }

    /// Makes sure that a registry takes what is to be sent, before hours of sending.
    fn check_destination(&self, blobs: &[(Digest, u64)]) -> Result<(), OciError> {
        let Destination::Registry { registry, reference, .. } = self.to else { return Ok(()) };
        let known = known_registry(reference.resolve_registry());
        if let Some((known, limit)) = known.and_then(|known| Some((known, known.blob_max?)))
            && let Some((digest, size)) = blobs.iter().find(|(_, size)| *size > limit)
        {
            let (registry, remedy) = (known.name.clone(), known.remedy.clone());
            return Err(OciError::BlobTooLarge { digest: *digest, size: *size, registry, limit, remedy });
        }
        Ok(registry.check_push(reference)?)
    }

    /// Tries whether nodes can read the layers that manifests list.
    fn check_layers(&self, manifests: &[RootDocument]) -> Result<(), OciError> {
        match self.to {
            Destination::Registry { registry, reference, .. } => {
                check_lazy(registry, reference, manifests.iter().map(|manifest| manifest.bytes.as_slice()))
            }
            Destination::Layout { .. } => Ok(()),
        }
    }

    /// Makes sure that the tags may name what is copied.
    fn check_names(&self, names: &BTreeMap<Digest, String>) -> Result<(), OciError> {
        let Destination::Registry { registry, reference, naming } = self.to else { return Ok(()) };
        names.iter().try_for_each(|(digest, tag)| naming.check(registry, &with_tag(reference, tag), *digest))
    }

    /// Finds out what belongs to a manifest or index.
    fn collect(&self, document: RootDocument, depth: usize, tree: &mut Tree) -> Result<(), OciError> {
        if !tree.seen.insert(document.digest) {
            return Ok(());
        }
        let place = self.source.place();
        let wrong = |what, reason: String| OciError::Document { what, place: place.clone(), reason };
        if depth > DEPTH_MAX {
            return Err(wrong("index", format!("it lists indexes that list indexes, {DEPTH_MAX} times")));
        }
        let listed: Document =
            serde_json::from_slice(&document.bytes).map_err(|error| wrong("manifest", error.to_string()))?;
        let annotations = listed.annotations.unwrap_or_default();
        // What an index says goes before what the images that it lists say.
        if let Some(json) = annotations.get(&format!("{STARCAR_PREFIX}variants")) {
            let variants: BTreeMap<String, Digest> =
                serde_json::from_str(json).map_err(|error| wrong("list of variants", error.to_string()))?;
            for (target, digest) in variants {
                tree.variants.entry(target).or_insert(digest);
            }
        }
        for child in &listed.manifests {
            let child = RootDocument {
                bytes: self.source.manifest(child)?,
                media_type: child.media_type().to_string(),
                digest: digest_of(child, &place)?,
            };
            self.collect(child, depth + 1, tree)?;
        }
        for blob in listed.config.iter().chain(&listed.layers).chain(&listed.blobs) {
            let digest = digest_of(blob, &place)?;
            if tree.seen.insert(digest) && self.is_served(blob, digest)? {
                tree.blobs.push((digest, blob.size()));
            }
        }
        tree.manifests.push(document);
        Ok(())
    }

    /// Whether the source has a blob. It need not have a layer whose descriptor says where else it is.
    fn is_served(&self, blob: &Descriptor, digest: Digest) -> Result<bool, OciError> {
        let Some(url) = blob.urls().as_ref().and_then(|urls| urls.first()) else { return Ok(true) };
        let cause = match self.source.blob(digest, blob.size()) {
            Ok(ranges) => ranges.read_range(0, usize::from(blob.size() > 0)).err(),
            Err(OciError::MissingBlob { .. }) => Some(io::ErrorKind::NotFound.into()),
            Err(error) => return Err(error),
        };
        let Some(cause) = cause else { return Ok(true) };
        let said = cause.get_ref().and_then(|said| said.downcast_ref::<RegistryError>());
        if cause.kind() == io::ErrorKind::NotFound || matches!(said, Some(RegistryError::NotFound { .. })) {
            self.observer.elsewhere(digest, url);
            return Ok(false);
        }
        Err(OciError::ReadBlob { place: self.source.place(), digest, cause })
    }

    fn send(&self, blobs: &[(Digest, u64)]) -> Result<(), OciError> {
        match self.to {
            Destination::Registry { registry, reference, .. } => {
                let contents: Vec<Arc<dyn BlobContent>> = blobs
                    .iter()
                    .map(|(digest, size)| self.source.content(*digest, *size))
                    .collect::<Result<_, _>>()?;
                let from = self.source.reference();
                push_blobs(registry, reference, from, &contents, self.observer).map_err(|error| match error {
                    // What lies on a disk and is not what it was is no fault of the registry.
                    OciError::Registry(RegistryError::Source { digest, source, .. }) if from.is_none() => {
                        OciError::DamagedBlob {
                            place: self.source.place(),
                            digest,
                            reason: source.to_string(),
                        }
                    }
                    error => error,
                })
            }
            Destination::Layout { layout, .. } => {
                let place = format!("oci:{}", layout.root().display());
                let total = blobs.iter().fold(0_u64, |total, (_, size)| total.saturating_add(*size));
                self.observer.sending(&place, total);
                self.write(layout, blobs)
            }
        }
    }

    /// Writes blobs to a layout, several at a time; the first error ends all.
    fn write(&self, layout: &Layout, blobs: &[(Digest, u64)]) -> Result<(), OciError> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failure = Mutex::new(None);
        let work = || {
            while let Some((digest, size)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if let Err(error) = self.write_one(layout, *digest, *size, &stop) {
                    // What others say once they were told to stop is no cause.
                    if !stop.swap(true, Ordering::Relaxed) {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.options.concurrency.min(blobs.len()) {
                scope.spawn(work);
            }
            work();
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn write_one(
        &self,
        layout: &Layout,
        digest: Digest,
        size: u64,
        stop: &AtomicBool,
    ) -> Result<(), OciError> {
        if layout.blob(digest, size).is_ok() {
            self.observer.already_there(digest);
            self.observer.sent(size);
            return Ok(());
        }
        let mut writer = layout.blob_writer()?;
        let mut sink = Sink { to: &mut writer, observer: self.observer, stop, failure: None };
        let copied = self.source.copy_blob(digest, size, &mut sink);
        // Whoever reads the source cannot tell what is wrong with the destination.
        if let Some(cause) = sink.failure.take() {
            return Err(OciError::Io { action: "write to", path: layout.root().to_owned(), cause });
        }
        copied?;
        writer.commit(digest)
    }

    /// Stores a manifest or index, under a tag if it has one.
    fn store(&self, document: &RootDocument, tag: Option<&str>) -> Result<(), OciError> {
        let RootDocument { bytes, media_type, digest } = document;
        match self.to {
            Destination::Registry { registry, reference, naming } => {
                let name = match tag {
                    Some(tag) => naming.name(&with_tag(reference, tag), *digest),
                    None => Naming::Digest.name(reference, *digest),
                };
                registry.push_manifest(&name, media_type, bytes)?;
            }
            Destination::Layout { layout, naming, .. } => {
                layout.add_blob(bytes)?;
                if let Some(tag) = tag {
                    let manifest = descriptor(*digest, bytes.len() as u64, media_type)?;
                    layout.tag(manifest, tag, *naming == Naming::Keep)?;
                }
            }
        }
        Ok(())
    }

    /// Copies what refers to `subject`, and what refers to that.
    fn referrers(&self, subject: Digest, depth: usize, seen: &mut HashSet<Digest>) -> Result<(), OciError> {
        if depth > DEPTH_MAX {
            return Ok(());
        }
        for found in self.source.referrers(subject, None)? {
            let digest = digest_of(&found, &self.source.place())?;
            let mut tree = Tree { seen: std::mem::take(seen), ..Tree::default() };
            let bytes = self.source.manifest(&found)?;
            let collected = self.collect(
                RootDocument { bytes, media_type: found.media_type().to_string(), digest },
                0,
                &mut tree,
            );
            *seen = tree.seen;
            collected?;
            let Some((artifact, listed)) = tree.manifests.split_last() else { continue };
            self.send(&tree.blobs)?;
            for manifest in listed {
                self.store(manifest, None)?;
            }
            match self.to {
                Destination::Registry { registry, reference, .. } => {
                    registry.push_referrer(reference, &artifact.media_type, &artifact.bytes)?;
                }
                Destination::Layout { layout, .. } => {
                    layout.add_blob(&artifact.bytes)?;
                    layout.list(found)?;
                }
            }
            self.referrers(digest, depth + 1, seen)?;
        }
        Ok(())
    }
}

/// The name with another tag.
fn with_tag(reference: &Reference, tag: &str) -> Reference {
    let (host, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
    Reference::with_tag(host, repository, tag.to_owned())
}

/// Counts what is written to a blob, and ends when others failed.
struct Sink<'a> {
    to: &'a mut BlobWriter,
    observer: &'a dyn Observer,
    stop: &'a AtomicBool,
    failure: Option<io::Error>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another blob failed"));
        }
        match self.to.write(bytes) {
            Ok(count) => {
                self.observer.sent(count as u64);
                Ok(count)
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => Err(cause),
            Err(cause) => {
                let told = io::Error::new(cause.kind(), cause.to_string());
                self.failure = Some(cause);
                Err(told)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
