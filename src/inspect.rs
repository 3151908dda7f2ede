//! What an image is made of, read without a weight: manifest, config, footers and tables of contents. Must
//! not know how it is printed.

use std::collections::{BTreeMap, HashMap};

use oci_spec::image::{ImageIndex, ImageManifest};
use serde::Serialize;

use crate::{
    compile_cache::CacheRecord,
    digest::Digest,
    estargz::{
        EstargzReader, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, ReadError, TOC_DIGEST_ANNOTATION,
        toc::TocEntry,
    },
    oci::{
        CACHES_LABEL, ImageSource, OciError, Platform, STARCAR_PREFIX, digest_of, is_index, listed_images,
        read_image,
    },
    registry::RegistryError,
};

/// An image, inspected.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Name that was asked for.
    pub name: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// The platform.
    pub platform: String,
    /// Sum of the layers' sizes in bytes.
    pub size: u64,
    /// User that commands run as.
    pub user: Option<String>,
    /// Entrypoint; KServe wants none.
    pub entrypoint: Option<Vec<String>>,
    /// Command.
    pub cmd: Option<Vec<String>>,
    /// Labels of the config.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The layers, lowest first.
    pub layers: Vec<InspectedLayer>,
}

/// A layer, inspected.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Media type.
    pub media_type: String,
    /// What the layer is for, where its annotations say so.
    pub kind: Option<String>,
    /// What the layer holds, where its annotations say so.
    pub title: Option<String>,
    /// Whether a node can mount it without pulling it; if not, why.
    pub lazy: Result<LazyLayer, String>,
}

/// What the table of contents of a lazily mountable layer says.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LazyLayer {
    /// Digest of the TOC.
    pub toc_digest: Digest,
    /// Where the TOC begins in the blob, in bytes.
    pub toc_offset: u64,
    /// The prefetch landmark.
    pub landmark: Option<Landmark>,
    /// Number of chunks.
    pub chunks: usize,
    /// Entries in physical order.
    pub entries: Vec<InspectedEntry>,
}

/// A prefetch landmark.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Landmark {
    /// Whether the files before it are prefetched.
    pub prefetch: bool,
    /// Where it lies in the blob, in bytes: so many bytes are fetched at mount if `prefetch` is set.
    pub offset: u64,
}

/// An entry of a layer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedEntry {
    /// Path in the image; directories end in a slash.
    pub path: String,
    /// Type, in the TOC's words.
    #[serde(rename = "type")]
    pub entry_type: String,
    /// Size in bytes.
    pub size: u64,
    /// Where its first chunk lies in the blob, in bytes; `None` when it has none.
    pub offset: Option<u64>,
    /// Number of chunks.
    pub chunks: usize,
    /// Length of each chunk in bytes.
    pub chunk_sizes: Vec<u64>,
    /// Whether it lies before a prefetch landmark.
    pub prefetched: bool,
}

/// Inspects the image in `source`; of an index, the image for `platform`.
///
/// # Errors
/// When the documents cannot be read. A layer that cannot be read as eStargz is part of the answer.
pub fn inspect(source: &dyn ImageSource, platform: &Platform) -> Result<Inspection, OciError> {
    let image = read_image(source, platform)?;
    let place = source.place();
    let mut layers = Vec::new();
    for descriptor in image.manifest.layers() {
        let digest = digest_of(descriptor, &place)?;
        let annotation = |name: &str| descriptor.annotations().as_ref()?.get(name).cloned();
        let lazy = match annotation(TOC_DIGEST_ANNOTATION).map(|text| text.parse::<Digest>()) {
            None => Err("its descriptor names no table of contents".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(toc)) => {
                let blob = source.blob(digest, descriptor.size())?;
                match EstargzReader::open(&*blob, Some(toc)) {
                    Ok(reader) => Ok(lazy_layer(&reader)),
                    // A range that cannot be read says nothing about the layer.
                    Err(ReadError::Read { cause, .. }) => {
                        return Err(OciError::ReadBlob { place, digest, cause });
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
        };
        layers.push(InspectedLayer {
            digest,
            size: descriptor.size(),
            media_type: descriptor.media_type().to_string(),
            kind: annotation(&format!("{STARCAR_PREFIX}layer.kind")),
            title: annotation(&format!("{STARCAR_PREFIX}layer.title")),
            lazy,
        });
    }
    let config = image.config.config().clone().unwrap_or_default();
    Ok(Inspection {
        name: place,
        digest: image.digest,
        platform: Platform::of_config(&image.config).to_string(),
        size: layers.iter().map(|layer| layer.size).sum(),
        user: config.user().clone(),
        entrypoint: config.entrypoint().clone(),
        cmd: config.cmd().clone(),
        labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
        annotations: image.manifest.annotations().clone().unwrap_or_default().into_iter().collect(),
        layers,
    })
}

fn lazy_layer(reader: &EstargzReader) -> LazyLayer {
    let toc = &reader.toc.entries;
    let landmark = toc
        .iter()
        .find(|entry| [PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK].contains(&entry.name.as_str()))
        .map(|entry| Landmark { prefetch: entry.name == PREFETCH_LANDMARK, offset: entry.offset });
    let prefetched_before =
        landmark.as_ref().filter(|landmark| landmark.prefetch).map(|landmark| landmark.offset);
    let has_chunk = |entry: &TocEntry| !entry.chunk_digest.is_empty();
    let mut entries: Vec<InspectedEntry> = Vec::new();
    for entry in toc {
        if entry.entry_type == "chunk" {
            if let Some(file) = entries.last_mut() {
                file.chunks += 1;
                file.chunk_sizes.push(chunk_length(entry, file.size));
            }
            continue;
        }
        let offset = has_chunk(entry).then_some(entry.offset);
        entries.push(InspectedEntry {
            path: entry.name.clone(),
            entry_type: entry.entry_type.clone(),
            size: entry.size,
            offset,
            chunks: usize::from(offset.is_some()),
            chunk_sizes: offset.map(|_| chunk_length(entry, entry.size)).into_iter().collect(),
            prefetched: offset.zip(prefetched_before).is_some_and(|(offset, end)| offset < end),
        });
    }
    LazyLayer {
        toc_digest: reader.toc_digest,
        toc_offset: reader.toc_offset,
        landmark,
        chunks: toc.iter().filter(|entry| has_chunk(entry)).count(),
        entries,
    }
}

/// Length in bytes of the chunk that a TOC entry describes, of a file of `size` bytes: the last chunk states none.
fn chunk_length(entry: &TocEntry, size: u64) -> u64 {
    if entry.chunk_size == 0 { size.saturating_sub(entry.chunk_offset) } else { entry.chunk_size }
}

/// An index, inspected.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexInspection {
    /// Name that was asked for.
    pub name: String,
    /// Digest of the index.
    pub digest: Digest,
    /// Media type of the index.
    pub media_type: String,
    /// Sum of the sizes in bytes of all layers, each counted once.
    pub size: u64,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
    /// The images, in the index's order.
    pub images: Vec<IndexedImage>,
    /// The layers of all images, each once.
    pub layers: Vec<IndexedLayer>,
}

impl IndexInspection {
    /// Number of the layers that all images have, of those that are there.
    pub fn shared(&self) -> usize {
        let images = self.images.iter().filter(|image| !image.absent).count();
        self.layers.iter().filter(|layer| layer.platforms.len() == images).count()
    }
}

/// An image of an index.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexedImage {
    /// The platform, where the index states one.
    pub platform: Option<String>,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Sum of the layers' sizes in bytes.
    pub size: u64,
    /// Annotations of the index's entry.
    pub annotations: BTreeMap<String, String>,
    /// Digests of the layers, lowest first.
    pub layers: Vec<Digest>,
    /// Whether the manifest is not there, as where one platform alone was copied; its layers are not known then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
}

/// A layer of some images of an index.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexedLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// What the layer is for, where its annotations say so.
    pub kind: Option<String>,
    /// What the layer holds, where its annotations say so.
    pub title: Option<String>,
    /// The platform of each image that has it; a digest where the index states none.
    pub platforms: Vec<String>,
}

/// Inspects the index in `source`; `None` where it is no index.
///
/// # Errors
/// When a document cannot be read or understood.
pub fn inspect_index(source: &dyn ImageSource) -> Result<Option<IndexInspection>, OciError> {
    let root = source.root_document()?;
    if !is_index(&root.media_type) {
        return Ok(None);
    }
    let place = source.place();
    let document = |what, error: &serde_json::Error| OciError::Document {
        what,
        place: place.clone(),
        reason: error.to_string(),
    };
    let listed = listed_images(&root, &place)?;
    let index: ImageIndex = serde_json::from_slice(&root.bytes).map_err(|error| document("index", &error))?;
    let (mut images, mut layers) = (Vec::new(), Vec::<IndexedLayer>::new());
    // Where each layer is listed, and the image that had it last.
    let mut known: HashMap<Digest, (usize, usize)> = HashMap::new();
    for image in listed.iter().filter(|image| image.is_image()) {
        let annotations = image.descriptor.annotations().clone().unwrap_or_default();
        let mut listed = IndexedImage {
            platform: image.platform.as_ref().map(ToString::to_string),
            digest: digest_of(&image.descriptor, &place)?,
            size: 0,
            annotations: annotations.into_iter().collect(),
            layers: Vec::new(),
            absent: true,
        };
        let bytes = match source.manifest(&image.descriptor) {
            Err(OciError::MissingBlob { .. } | OciError::Registry(RegistryError::NotFound { .. })) => {
                images.push(listed);
                continue;
            }
            other => other?,
        };
        let manifest: ImageManifest =
            serde_json::from_slice(&bytes).map_err(|error| document("manifest", &error))?;
        for descriptor in manifest.layers() {
            let digest = digest_of(descriptor, &place)?;
            listed.layers.push(digest);
            let annotation = |name: &str| {
                descriptor.annotations().as_ref()?.get(&format!("{STARCAR_PREFIX}{name}")).cloned()
            };
            let known = known.entry(digest).or_insert((layers.len(), usize::MAX));
            if known.0 == layers.len() {
                layers.push(IndexedLayer {
                    digest,
                    size: descriptor.size(),
                    kind: annotation("layer.kind"),
                    title: annotation("layer.title"),
                    platforms: Vec::new(),
                });
            }
            if let Some(layer) = layers.get_mut(known.0).filter(|_| known.1 != images.len()) {
                known.1 = images.len();
                layer.platforms.push(image.name());
            }
        }
        listed.size = manifest.layers().iter().fold(0, |sum, layer| sum.saturating_add(layer.size()));
        listed.absent = false;
        images.push(listed);
    }
    Ok(Some(IndexInspection {
        name: place,
        digest: root.digest,
        media_type: root.media_type,
        size: layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size)),
        annotations: index.annotations().clone().unwrap_or_default().into_iter().collect(),
        images,
        layers,
    }))
}

/// What an image says of its compile caches.
#[derive(Debug, Clone, Default)]
pub struct ImageCaches {
    /// The caches; none where the image has none, or starcar did not pack it.
    pub records: Vec<CacheRecord>,
    /// The GPU target that the image is for.
    pub variant: Option<String>,
    /// Variants of the image: the digests of their manifests by GPU target.
    pub variants: BTreeMap<String, Digest>,
}

/// Reads what an image says of its compile caches.
///
/// # Errors
/// When the image cannot be read, or says something that starcar does not say.
pub fn caches_of(source: &dyn ImageSource, platform: &Platform) -> Result<ImageCaches, OciError> {
    let image = read_image(source, platform)?;
    let damaged = |reason: String| OciError::Document {
        what: "record of compile caches",
        place: source.place(),
        reason,
    };
    let labels =
        image.config.config().as_ref().and_then(|config| config.labels().clone()).unwrap_or_default();
    let annotations = image.manifest.annotations().clone().unwrap_or_default();
    let variants: BTreeMap<String, Digest> = match annotations.get(&format!("{STARCAR_PREFIX}variants")) {
        Some(json) => serde_json::from_str(json).map_err(|error| damaged(error.to_string()))?,
        None => BTreeMap::new(),
    };
    Ok(ImageCaches {
        records: match labels.get(CACHES_LABEL).or_else(|| annotations.get(CACHES_LABEL)) {
            Some(json) => CacheRecord::parse_all(json).map_err(damaged)?,
            None => Vec::new(),
        },
        variant: labels.get(&format!("{STARCAR_PREFIX}variant")).cloned(),
        variants,
    })
}
