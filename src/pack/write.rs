//! Brings a prepared pack to its destinations: layers first, then config and manifest, the name last.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, SecondsFormat};
use oci_spec::image::{ImageIndexBuilder, MediaType};
use serde::Serialize;

use super::{LayerSpec, PackError, Prepared, RecordedOptions, cache_labels, known, seal_layers};
use crate::{
    blob::{BlobContent, MemoryBlob},
    compile_cache::{CacheRecord, MOUNTED_AT_DEFAULT},
    digest::Digest,
    layer::SealedLayer,
    naming::Naming,
    oci::{
        BuiltImage, ConfigOptions, DEFAULT_TAG, ImageLayer, Layout, OciError, REF_NAME_ANNOTATION,
        STARCAR_PREFIX, build_image, variant_tag, write_archive,
    },
    progress::Observer,
    push::push_image,
    registry::{Reference, Registry, known_registry},
};

/// Longest tag, in bytes (OCI distribution specification, "Pulling manifests").
const TAG_MAX: usize = 128;

/// Where an image goes.
pub enum Destination {
    /// Into a layout, under a tag.
    Layout {
        /// The layout's directory.
        path: PathBuf,
        /// The tag.
        tag: String,
        /// What becomes of the tag; an image in a layout has one in any case.
        naming: Naming,
    },
    /// Into an archive of its own, under a tag.
    Archive {
        /// The archive.
        path: PathBuf,
        /// The tag.
        tag: String,
    },
    /// To a registry.
    Registry {
        /// The client.
        registry: Registry,
        /// The name.
        reference: Reference,
        /// What becomes of the tag.
        naming: Naming,
    },
}

/// An image that was packed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Packed {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Media type of the manifest.
    pub media_type: String,
    /// Size of the manifest in bytes.
    pub size: u64,
    /// Digest of the config.
    pub config: PackedBlob,
    /// The platform.
    pub platform: String,
    /// The layers, lowest first.
    pub layers: Vec<PackedLayer>,
    /// The compile caches in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<CacheRecord>,
    /// Images with the compile caches of one GPU target each, sorted by target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<PackedVariant>,
}

/// An image with the compile caches of one GPU target.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackedVariant {
    /// The target.
    pub target: String,
    /// The image.
    #[serde(flatten)]
    pub image: Packed,
}

/// A blob without meaning.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackedBlob {
    /// Digest.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// A layer that was packed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackedLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the uncompressed tar stream.
    pub diff_id: Digest,
    /// Size of the uncompressed tar stream in bytes.
    pub uncompressed_size: u64,
    /// Media type.
    pub media_type: String,
    /// What the layer is for.
    pub kind: &'static str,
    /// Paths in the image of the model's files in it, in physical order.
    pub files: Vec<String>,
}

impl Prepared {
    /// Bytes of payload that will be read.
    pub fn payload(&self) -> u64 {
        self.layers.iter().map(seal_layers::payload).sum()
    }

    /// Seals the layers and brings the image to all `destinations`. With a layout among them, layers are
    /// written there while they are hashed and other destinations are served from it; without, nothing but
    /// compressed members is kept, and sources are read again for every destination.
    ///
    /// # Errors
    /// See [`PackError`]. A destination that fails has no image under its name.
    pub fn write(&self, destinations: &[Destination], observer: &dyn Observer) -> Result<Packed, PackError> {
        // Hours of packing should not end in a name that cannot be.
        for destination in destinations {
            let tag = match destination {
                Destination::Layout { tag, .. } | Destination::Archive { tag, .. } => tag.as_str(),
                Destination::Registry { registry, reference, .. } => {
                    self.check_sizes(reference)?;
                    if let Some(missing) = registry.check_for_nodes(reference).map_err(OciError::from)? {
                        tracing::warn!("{}: {}", reference.registry(), missing.detail);
                    }
                    reference.tag().unwrap_or(DEFAULT_TAG)
                }
            };
            for target in &self.caches.targets {
                let tag = variant_tag(tag, Some(target));
                if tag.len() > TAG_MAX {
                    return Err(PackError::VariantTag { tag, target: target.clone() });
                }
            }
        }
        let layout = destinations
            .iter()
            .find_map(|destination| match destination {
                Destination::Layout { path, .. } => Some(self.create_layout(path)),
                _ => None,
            })
            .transpose()?;
        observer.hashing(self.payload());
        let sealed =
            seal_layers::seal_layers(&self.layers, &self.options, &self.spool, layout.as_ref(), observer)?;
        let variants: Vec<Image> = self
            .caches
            .targets
            .iter()
            .map(|target| self.image(Some(target), &[], &sealed))
            .collect::<Result<_, _>>()?;
        let main = self.image(None, &variants, &sealed)?;
        // The image that has the tag as it was given comes last: what it says of its variants is true by then.
        let images: Vec<&Image> = variants.iter().chain([&main]).collect();
        for destination in destinations {
            if let Destination::Registry { registry, reference, naming } = destination {
                for image in &images {
                    naming.check(registry, &image.reference(reference), image.built.digest)?;
                }
            }
        }
        let mut named = Vec::new();
        for destination in destinations {
            if let Destination::Archive { path, tag } = destination {
                let blobs = blobs(0..self.layers.len(), &sealed, layout.as_ref())?;
                archive(path, tag, &images, blobs)?;
                continue;
            }
            for image in &images {
                let built = &image.built;
                match destination {
                    Destination::Layout { tag, naming, .. } => {
                        if let Some(layout) = &layout {
                            layout.add_blob(&built.config)?;
                            layout.add_blob(&built.manifest)?;
                            let keep = *naming == Naming::Keep;
                            layout.tag(built.descriptor.clone(), &image.tag(tag), keep)?;
                        }
                    }
                    Destination::Archive { .. } => {}
                    Destination::Registry { registry, reference, naming } => {
                        let mut blobs = blobs(image.layers.iter().copied(), &sealed, layout.as_ref())?;
                        blobs.push(Arc::new(MemoryBlob::new(built.config.clone())));
                        let media_type = MediaType::ImageManifest;
                        let reference = image.reference(reference);
                        push_image(
                            registry,
                            &reference,
                            &blobs,
                            media_type.as_ref(),
                            &built.manifest,
                            *naming,
                            observer,
                        )
                        .inspect_err(|_| {
                            for name in &named {
                                tracing::warn!("{name} is pushed already");
                            }
                        })?;
                        named.push(reference);
                    }
                }
            }
        }
        let mut packed = self.packed(&sealed, &main);
        packed.variants = std::iter::zip(&self.caches.targets, &variants)
            .map(|(target, image)| PackedVariant {
                target: target.clone(),
                image: self.packed(&sealed, image),
            })
            .collect();
        Ok(packed)
    }

    /// Refuses layers that are known to be too large for a registry.
    ///
    /// # Errors
    /// [`PackError::LayerTooLarge`].
    pub fn check_sizes(&self, reference: &Reference) -> Result<(), PackError> {
        let host = reference.resolve_registry();
        let Some(known) = known_registry(host) else { return Ok(()) };
        let Some(limit) = known.blob_max else { return Ok(()) };
        match self.layers.iter().find(|layer| layer.stored_payload() > limit) {
            None => Ok(()),
            Some(layer) => Err(PackError::LayerTooLarge {
                title: layer.title.clone(),
                size: layer.stored_payload(),
                registry: known.name.clone(),
                limit,
                remedy: known.remedy.clone(),
            }),
        }
    }

    fn create_layout(&self, path: &Path) -> Result<Layout, PackError> {
        let layout = Layout::create(path)?;
        // A file system that cannot say how much is free is no reason to stop.
        if let Ok(free) = rustix::fs::statvfs(path) {
            let available = free.f_bavail.saturating_mul(free.f_frsize);
            let mut needed = self.stored_payload();
            if needed > available {
                // What is there already takes no more space; to find that out takes time.
                needed = needed.saturating_sub(known::stored_there(&self.layers, &self.options, &layout));
            }
            if needed > available {
                return Err(PackError::DiskSpace { path: path.to_owned(), available, needed });
            }
        }
        Ok(layout)
    }

    /// Bytes of payload that lie in the image as they are.
    fn stored_payload(&self) -> u64 {
        let planned = self.plan.layers.iter().flat_map(|layer| &layer.files);
        planned
            .filter(|file| file.storage == crate::layer::Storage::Stored)
            .map(|file| self.files[file.index].size)
            .sum()
    }

    /// The image for a target, or the one without, which lists its variants.
    fn image(
        &self,
        target: Option<&String>,
        variants: &[Image],
        sealed: &[SealedLayer],
    ) -> Result<Image, PackError> {
        let of_model = self.layers.len() - self.caches.caches.len();
        let caches = self.caches.of_image(target.map(String::as_str));
        let layers: Vec<usize> = (0..of_model).chain(caches.iter().map(|index| of_model + index)).collect();
        let records: Vec<CacheRecord> =
            caches.iter().map(|index| self.caches.caches[*index].record.clone()).collect();
        let listed: Vec<ImageLayer<'_>> = layers
            .iter()
            .map(|index| {
                let spec = &self.layers[*index];
                ImageLayer {
                    sealed: &sealed[*index],
                    created_by: spec.created_by.clone(),
                    annotations: BTreeMap::from([
                        (format!("{STARCAR_PREFIX}layer.kind"), spec.kind.name().to_owned()),
                        (format!("{STARCAR_PREFIX}layer.title"), spec.title.clone()),
                    ]),
                }
            })
            .collect();
        let mut labels = self.labels();
        labels.extend(target.map(|target| (format!("{STARCAR_PREFIX}variant"), target.clone())));
        let mut annotations = self.annotations(&labels);
        annotations.extend(variants_annotation(variants));
        labels.extend(cache_labels::labels(&records));
        let name = self.snapshot.repository.as_deref().unwrap_or("this image");
        annotations.extend(cache_labels::annotations(&records, MOUNTED_AT_DEFAULT, name));
        let options = ConfigOptions {
            platform: self.options.platform.clone(),
            environment: self.base.environment.clone(),
            labels,
            annotations,
            created: self.options.modified,
        };
        let built = build_image(&listed, &options)?;
        Ok(Image { target: target.cloned(), built, layers, records })
    }

    /// What the image says of itself under starcar's own prefix.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                labels.insert(format!("{STARCAR_PREFIX}{name}"), value.to_owned());
            }
        };
        add("version", Some(env!("CARGO_PKG_VERSION")));
        add("layer-format", Some(self.options.format.name()));
        add("model.directory", Some(self.options.model_directory.absolute()));
        add("model.repository", self.snapshot.repository.as_deref());
        add("model.revision", self.snapshot.revision.as_deref());
        let profile = self.options.profile.as_ref().map(|profile| Digest::of(profile.to_json().as_bytes()));
        add("profile.digest", profile.map(|digest| digest.to_string()).as_deref());
        labels
    }

    fn annotations(&self, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut annotations = labels.clone();
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                annotations.insert(format!("org.opencontainers.image.{name}"), value);
            }
        };
        let created = DateTime::from_timestamp(self.options.modified, 0);
        add("created", created.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)));
        add("title", self.snapshot.repository.clone());
        add("revision", self.snapshot.revision.clone());
        add("base.name", self.base.name.clone());
        add("base.digest", self.base.digest.map(|digest| digest.to_string()));
        annotations.extend(RecordedOptions::of(&self.options).annotation());
        annotations
    }

    fn packed(&self, sealed: &[SealedLayer], image: &Image) -> Packed {
        let Image { built, layers, records, .. } = image;
        Packed {
            digest: built.digest,
            media_type: MediaType::ImageManifest.to_string(),
            size: built.manifest.len() as u64,
            config: PackedBlob { digest: Digest::of(&built.config), size: built.config.len() as u64 },
            platform: self.options.platform.to_string(),
            layers: layers.iter().map(|index| packed_layer(&self.layers[*index], &sealed[*index])).collect(),
            caches: records.clone(),
            variants: Vec::new(),
        }
    }
}

/// An image that is built from layers that are sealed.
struct Image {
    target: Option<String>,
    built: BuiltImage,
    /// Indices of its layers.
    layers: Vec<usize>,
    records: Vec<CacheRecord>,
}

impl Image {
    /// The image's tag where the user asked for `tag`.
    fn tag(&self, tag: &str) -> String {
        variant_tag(tag, self.target.as_deref())
    }

    fn reference(&self, reference: &Reference) -> Reference {
        if self.target.is_none() {
            return reference.clone();
        }
        let tag = self.tag(reference.tag().unwrap_or(DEFAULT_TAG));
        Reference::with_tag(reference.registry().to_owned(), reference.repository().to_owned(), tag)
    }
}

/// The digests of the variants' manifests by target.
fn variants_annotation(variants: &[Image]) -> Option<(String, String)> {
    let digests: BTreeMap<&str, String> = variants
        .iter()
        .filter_map(|image| Some((image.target.as_deref()?, image.built.digest.to_string())))
        .collect();
    let json = serde_json::to_string(&digests).ok().filter(|_| !digests.is_empty())?;
    Some((format!("{STARCAR_PREFIX}variants"), json))
}

fn packed_layer(spec: &LayerSpec, sealed: &SealedLayer) -> PackedLayer {
    PackedLayer {
        digest: sealed.digest,
        size: sealed.size,
        diff_id: sealed.diff_id,
        uncompressed_size: sealed.uncompressed_size,
        media_type: sealed.media_type.to_string(),
        kind: spec.kind.name(),
        files: spec.files.clone(),
    }
}

/// The content of some layers.
fn blobs(
    layers: impl Iterator<Item = usize>,
    sealed: &[SealedLayer],
    layout: Option<&Layout>,
) -> Result<Vec<Arc<dyn BlobContent>>, PackError> {
    let mut blobs: Vec<Arc<dyn BlobContent>> = Vec::new();
    for layer in layers.map(|index| &sealed[index]) {
        // A layer that was not kept was written to the layout.
        if let Some(blob) = &layer.blob {
            blobs.push(Arc::clone(blob) as Arc<dyn BlobContent>);
        } else if let Some(layout) = layout {
            blobs.push(layout.blob(layer.digest, layer.size)?);
        }
    }
    Ok(blobs)
}

fn archive(
    path: &Path,
    tag: &str,
    images: &[&Image],
    mut blobs: Vec<Arc<dyn BlobContent>>,
) -> Result<(), PackError> {
    let mut manifests = Vec::new();
    for image in images {
        let mut descriptor = image.built.descriptor.clone();
        descriptor.set_annotations(Some([(REF_NAME_ANNOTATION.to_owned(), image.tag(tag))].into()));
        manifests.push(descriptor);
        blobs.push(Arc::new(MemoryBlob::new(image.built.config.clone())));
        blobs.push(Arc::new(MemoryBlob::new(image.built.manifest.clone())));
    }
    let index = ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()
        .map_err(|error| OciError::Document {
            what: "index",
            place: format!("oci-archive:{}", path.display()),
            reason: error.to_string(),
        })?;
    // One copy of equal layers is enough, and tar would keep both.
    let mut seen = std::collections::HashSet::new();
    blobs.retain(|blob| seen.insert(blob.digest()));
    Ok(write_archive(path, &index, &blobs)?)
}
