//! Reading images from wherever they are: layout, archive or registry. Manifest and config are read whole,
//! layers only in ranges.

use std::{
    collections::HashSet,
    io::{self, Write},
    sync::Arc,
};

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::{
    Archive, DOCUMENT_MAX, Layout, OciError, Platform, Selector, Target, layout::ref_name, referrers,
};
use crate::{
    blob::{BlobContent, FileRange, RangeSource},
    digest::Digest,
    registry::{Reference, Registry},
};

/// Media types of an index, OCI's and Docker's.
const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// A place that holds images.
pub trait ImageSource: Send + Sync {
    /// The bytes of the manifest or index that was asked for when the source was opened, with its media type
    /// and digest.
    fn root_document(&self) -> Result<RootDocument, OciError>;

    /// A manifest that an index of this place lists.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError>;

    /// The manifest or index of this place that has the digest.
    fn by_digest(&self, digest: Digest) -> Result<RootDocument, OciError>;

    /// What refers to a manifest of this place: all, or what is of one artifact type.
    fn referrers(&self, subject: Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, OciError>;

    /// A blob of `size` bytes, to be sent elsewhere.
    fn content(&self, digest: Digest, size: u64) -> Result<Arc<dyn BlobContent>, OciError>;

    /// The image's name, where the place is a registry.
    fn reference(&self) -> Option<&Reference> {
        None
    }

    /// Whether the place was seen to send whole blobs when it was asked for ranges.
    fn ignores_ranges(&self) -> bool {
        false
    }

    /// Ranges of a blob of `size` bytes.
    fn blob(&self, digest: Digest, size: u64) -> Result<Box<dyn RangeSource>, OciError>;

    /// Streams a blob of `size` bytes to `sink`. The digest is known to be right only when this returns
    /// without error.
    fn copy_blob(&self, digest: Digest, size: u64, sink: &mut (dyn Write + Send)) -> Result<(), OciError> {
        let read_error = |cause| OciError::ReadBlob { place: self.place(), digest, cause };
        let actual = copy_ranges(&*self.blob(digest, size)?, sink).map_err(read_error)?;
        check_digest(actual, digest, || self.place())
    }

    /// The place's name, for messages.
    fn place(&self) -> String;
}

/// The document that a name leads to.
#[derive(Debug, Clone)]
pub struct RootDocument {
    /// The document.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
}

/// An image's documents.
#[derive(Debug, Clone)]
pub struct ReadImage {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The manifest's bytes.
    pub manifest_bytes: Vec<u8>,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The config's bytes.
    pub config_bytes: Vec<u8>,
    /// The config.
    pub config: ImageConfiguration,
}

/// An image in a registry.
#[derive(Clone)]
pub struct RegistryImage {
    registry: Registry,
    reference: Reference,
}

impl RegistryImage {
    /// The image that `reference` names.
    pub fn new(registry: Registry, reference: Reference) -> Self {
        Self { registry, reference }
    }
}

/// Opens the place that `target` names, to read the image that it names.
///
/// # Errors
/// When the layout or archive is none. A registry is not asked yet.
pub fn open(
    target: &Target,
    registry: impl FnOnce() -> Result<Registry, OciError>,
) -> Result<Box<dyn ImageSource>, OciError> {
    Ok(match target {
        Target::Layout { path, selector } => Box::new((Layout::open(path)?, selector.clone())),
        Target::Archive { path, selector } => Box::new((Archive::open(path)?, selector.clone())),
        Target::Registry(reference) => Box::new(RegistryImage::new(registry()?, reference.clone())),
    })
}

/// Reads manifest and config. Of an index, the image for `platform`.
///
/// # Errors
/// When a document is missing, damaged, too large or not understood, or an index lacks the platform.
pub fn read_image(source: &dyn ImageSource, platform: &Platform) -> Result<ReadImage, OciError> {
    let root = source.root_document()?;
    let place = source.place();
    let RootDocument { bytes: manifest_bytes, digest, .. } = for_platform(source, root, platform)?;
    let manifest: ImageManifest = parse(&manifest_bytes, "manifest", &place)?;
    let config_digest = digest_of(manifest.config(), &place)?;
    let config_bytes = read_document(source, config_digest, manifest.config().size())?;
    let config = parse(&config_bytes, "config", &place).map_err(|error| match manifest.artifact_type() {
        Some(kind) => OciError::NotAnImage { place, kind: kind.to_string() },
        None => error,
    })?;
    Ok(ReadImage { digest, manifest_bytes, manifest, config_bytes, config })
}

/// Copies all bytes of `source` to `sink` and returns their digest.
fn copy_ranges(source: &dyn RangeSource, sink: &mut (dyn Write + Send)) -> io::Result<Digest> {
    /// Bytes that are in memory at a time.
    const PIECE: u64 = 1 << 20;

    let mut hash = Sha256::new();
    let mut offset = 0;
    while offset < source.size() {
        let length = PIECE.min(source.size() - offset);
        let piece = source.read_range(offset, usize::try_from(length).map_err(io::Error::other)?)?;
        hash.update(&piece);
        sink.write_all(&piece)?;
        offset += length;
    }
    Ok(Digest::finish(hash))
}

/// Reads a small blob whole and checks its digest.
pub(crate) fn read_document(
    source: &dyn ImageSource,
    digest: Digest,
    size: u64,
) -> Result<Vec<u8>, OciError> {
    let damaged = |reason: String| OciError::DamagedBlob { place: source.place(), digest, reason };
    if size > DOCUMENT_MAX {
        return Err(damaged(format!("it has {size} bytes, more than {DOCUMENT_MAX}")));
    }
    let length = usize::try_from(size).map_err(|error| damaged(error.to_string()))?;
    let read_error = |cause| OciError::ReadBlob { place: source.place(), digest, cause };
    let bytes = source.blob(digest, size)?.read_range(0, length).map_err(read_error)?;
    check_digest(Digest::of(&bytes), digest, || source.place())?;
    Ok(bytes)
}

fn check_digest(actual: Digest, expected: Digest, place: impl FnOnce() -> String) -> Result<(), OciError> {
    if actual == expected {
        return Ok(());
    }
    let reason = format!("its content has digest {actual}");
    Err(OciError::DamagedBlob { place: place(), digest: expected, reason })
}

/// Of an index, the manifest for `platform`; a manifest as it is.
///
/// # Errors
/// When the index lacks the platform or cannot be understood, or the manifest cannot be read.
pub fn for_platform(
    source: &dyn ImageSource,
    root: RootDocument,
    platform: &Platform,
) -> Result<RootDocument, OciError> {
    if !is_index(&root.media_type) {
        return Ok(root);
    }
    let place = source.place();
    let index: ImageIndex = parse(&root.bytes, "index", &place)?;
    let stated = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_some_and(|present| platform.accepts(present))
    };
    let Some(descriptor) = index.manifests().iter().find(stated) else {
        let mut present: Vec<String> = index
            .manifests()
            .iter()
            .filter_map(|descriptor| descriptor.platform().as_ref())
            .map(|platform| format!("{}/{}", platform.os(), platform.architecture()))
            .collect();
        // An image for each of several consumers is for one platform all the same.
        present.dedup();
        return Err(OciError::NoSuchPlatform { place, wanted: platform.to_string(), present: list(present) });
    };
    Ok(RootDocument {
        bytes: source.manifest(descriptor)?,
        media_type: descriptor.media_type().to_string(),
        digest: digest_of(descriptor, &place)?,
    })
}

/// As [`for_platform`], for a platform that somebody asked for: an image that is in no index has to be for it, too.
///
/// # Errors
/// As [`for_platform`], and where the image cannot be read.
pub fn for_asked_platform(
    source: &dyn ImageSource,
    root: RootDocument,
    platform: &Platform,
) -> Result<RootDocument, OciError> {
    if is_index(&root.media_type) {
        return for_platform(source, root, platform);
    }
    let present = Platform::of_config(&read_image(source, platform)?.config);
    // What states none may be for any.
    let is_stated =
        ![&present.os, &present.architecture].iter().any(|part| matches!(part.as_str(), "" | "unknown"));
    if is_stated && !platform.admits(&present) {
        let (wanted, present) = (platform.to_string(), present.to_string());
        return Err(OciError::NoSuchPlatform { place: source.place(), wanted, present });
    }
    Ok(root)
}

/// Whether a document of that media type is an index.
pub fn is_index(media_type: &str) -> bool {
    INDEX_TYPES.contains(&media_type)
}

/// The entry of a layout's index that `selector` names.
pub(super) fn find_in_index(
    index: &ImageIndex,
    selector: &Selector,
    place: &str,
) -> Result<Descriptor, OciError> {
    let manifests = index.manifests();
    let found = match selector {
        Selector::Tag(tag) => manifests.iter().find(|descriptor| ref_name(descriptor) == Some(tag)),
        Selector::Digest(digest) => {
            manifests.iter().find(|descriptor| descriptor.digest().as_ref() == digest.to_string())
        }
        Selector::Only => {
            let mut images = manifests.iter().filter(|descriptor| is_image(descriptor));
            let first = images.next();
            first.filter(|first| images.all(|other| other.digest() == first.digest()))
        }
    };
    found.cloned().ok_or_else(|| OciError::NoSuchImage {
        place: place.to_owned(),
        wanted: match selector {
            Selector::Tag(tag) => format!("with tag {tag}"),
            Selector::Digest(digest) => format!("with digest {digest}"),
            Selector::Only => "that could be meant without a tag".to_owned(),
        },
        present: list(
            manifests
                .iter()
                .filter(|descriptor| is_image(descriptor))
                .map(|descriptor| ref_name(descriptor).unwrap_or(descriptor.digest().as_ref()).to_owned()),
        ),
    })
}

/// Whether an index's entry is an image, and not something that lies beside one.
fn is_image(descriptor: &Descriptor) -> bool {
    descriptor.artifact_type().is_none() || ref_name(descriptor).is_some()
}

fn list(names: impl IntoIterator<Item = String>) -> String {
    let names: Vec<String> = names.into_iter().collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A descriptor's digest, which must be SHA-256. `place` is the image's name, for the message.
///
/// # Errors
/// When it is none.
pub fn digest_of(descriptor: &Descriptor, place: &str) -> Result<Digest, OciError> {
    descriptor.digest().as_ref().parse().map_err(|error| OciError::Document {
        what: "descriptor",
        place: place.to_owned(),
        reason: format!("{error}"),
    })
}

/// Parses a document.
pub(super) fn parse<T: DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
    place: &str,
) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|error| OciError::Document {
        what,
        place: place.to_owned(),
        reason: error.to_string(),
    })
}

/// The root document of a place that lists descriptors itself.
fn listed_document(source: &dyn ImageSource, descriptor: &Descriptor) -> Result<RootDocument, OciError> {
    let digest = digest_of(descriptor, &source.place())?;
    let bytes = read_document(source, digest, descriptor.size())?;
    Ok(RootDocument { bytes, media_type: descriptor.media_type().to_string(), digest })
}

/// What layouts and archives have in common: an index that lists images, and blobs that lie in files.
trait Files: Send + Sync {
    fn find(&self, selector: &Selector) -> Result<Descriptor, OciError>;
    fn manifests(&self) -> Result<Vec<Descriptor>, OciError>;
    fn content(&self, digest: Digest, size: u64) -> Result<Arc<dyn BlobContent>, OciError>;
    fn ranges(&self, digest: Digest, size: u64) -> Result<FileRange, OciError>;
    fn target(&self, selector: &Selector) -> Target;

    /// As [`Self::find`]; a digest may also be that of what an index lists that is listed itself.
    fn find_listed(&self, selector: &Selector) -> Result<Descriptor, OciError> {
        let found = self.find(selector);
        let (Err(OciError::NoSuchImage { .. }), Selector::Digest(digest)) = (&found, selector) else {
            return found;
        };
        let wanted = digest.to_string();
        let mut seen = HashSet::new();
        for index in self.manifests()?.iter().filter(|listed| is_index(listed.media_type().as_ref())) {
            if !seen.insert(index.digest().to_string()) {
                continue;
            }
            // An index that cannot be read is another image's trouble.
            let Ok(listed) = self.listed_by(index) else { continue };
            if let Some(descriptor) = listed.into_iter().find(|listed| listed.digest().as_ref() == wanted) {
                return Ok(descriptor);
            }
        }
        found
    }

    /// What an index lists.
    fn listed_by(&self, index: &Descriptor) -> Result<Vec<Descriptor>, OciError> {
        let place = self.target(&Selector::Only).to_string();
        let digest = digest_of(index, &place)?;
        if index.size() > DOCUMENT_MAX {
            let reason = format!("it has {} bytes, more than {DOCUMENT_MAX}", index.size());
            return Err(OciError::DamagedBlob { place, digest, reason });
        }
        let mut bytes = Vec::new();
        copy_ranges(&self.ranges(digest, index.size())?, &mut bytes).map_err(|cause| OciError::ReadBlob {
            place: place.clone(),
            digest,
            cause,
        })?;
        Ok(parse::<ImageIndex>(&bytes, "index", &place)?.manifests().clone())
    }
}

impl Files for Layout {
    fn find(&self, selector: &Selector) -> Result<Descriptor, OciError> {
        Self::find(self, selector)
    }

    fn manifests(&self) -> Result<Vec<Descriptor>, OciError> {
        Self::manifests(self)
    }

    fn content(&self, digest: Digest, size: u64) -> Result<Arc<dyn BlobContent>, OciError> {
        Self::blob(self, digest, size)
    }

    fn ranges(&self, digest: Digest, size: u64) -> Result<FileRange, OciError> {
        Self::ranges(self, digest, size)
    }

    fn target(&self, selector: &Selector) -> Target {
        Target::Layout { path: self.root().to_owned(), selector: selector.clone() }
    }
}

impl Files for Archive {
    fn find(&self, selector: &Selector) -> Result<Descriptor, OciError> {
        Self::find(self, selector)
    }

    fn manifests(&self) -> Result<Vec<Descriptor>, OciError> {
        Ok(Self::manifests(self).to_vec())
    }

    fn content(&self, digest: Digest, size: u64) -> Result<Arc<dyn BlobContent>, OciError> {
        Self::blob(self, digest, size)
    }

    fn ranges(&self, digest: Digest, size: u64) -> Result<FileRange, OciError> {
        Self::ranges(self, digest, size)
    }

    fn target(&self, selector: &Selector) -> Target {
        Target::Archive { path: self.path().to_owned(), selector: selector.clone() }
    }
}

impl<T: Files> ImageSource for (T, Selector) {
    fn root_document(&self) -> Result<RootDocument, OciError> {
        listed_document(self, &self.0.find_listed(&self.1)?)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        Ok(listed_document(self, descriptor)?.bytes)
    }

    fn by_digest(&self, digest: Digest) -> Result<RootDocument, OciError> {
        listed_document(self, &self.0.find_listed(&Selector::Digest(digest))?)
    }

    fn referrers(&self, subject: Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, OciError> {
        referrers::among(self, self.0.manifests()?, subject, artifact_type)
    }

    fn content(&self, digest: Digest, size: u64) -> Result<Arc<dyn BlobContent>, OciError> {
        self.0.content(digest, size)
    }

    fn blob(&self, digest: Digest, size: u64) -> Result<Box<dyn RangeSource>, OciError> {
        Ok(Box::new(self.0.ranges(digest, size)?))
    }

    fn place(&self) -> String {
        self.0.target(&self.1).to_string()
    }
}

impl ImageSource for RegistryImage {
    fn root_document(&self) -> Result<RootDocument, OciError> {
        pull(&self.registry, &self.reference)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        let digest = digest_of(descriptor, &self.place())?;
        let reference = self.reference.clone_with_digest(digest.to_string());
        Ok(pull(&self.registry, &reference)?.bytes)
    }

    fn by_digest(&self, digest: Digest) -> Result<RootDocument, OciError> {
        pull(&self.registry, &self.reference.clone_with_digest(digest.to_string()))
    }

    fn referrers(&self, subject: Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, OciError> {
        Ok(self.registry.referrers(&self.reference, subject, artifact_type)?)
    }

    fn content(&self, digest: Digest, size: u64) -> Result<Arc<dyn BlobContent>, OciError> {
        Ok(Arc::new(self.registry.blob_source(&self.reference, digest, size)))
    }

    fn reference(&self) -> Option<&Reference> {
        Some(&self.reference)
    }

    fn ignores_ranges(&self) -> bool {
        self.registry.ignores_ranges(&self.reference)
    }

    fn blob(&self, digest: Digest, size: u64) -> Result<Box<dyn RangeSource>, OciError> {
        Ok(Box::new(self.registry.blob_source(&self.reference, digest, size)))
    }

    fn copy_blob(&self, digest: Digest, size: u64, sink: &mut (dyn Write + Send)) -> Result<(), OciError> {
        Ok(self.registry.pull_blob(&self.reference, digest, size, sink)?)
    }

    fn place(&self) -> String {
        self.reference.to_string()
    }
}

fn pull(registry: &Registry, reference: &Reference) -> Result<RootDocument, OciError> {
    let manifest = registry.pull_manifest(reference)?;
    Ok(RootDocument { bytes: manifest.bytes, media_type: manifest.media_type, digest: manifest.digest })
}
