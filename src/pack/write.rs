//! Brings a prepared pack to its destinations: layers first, then config and manifest, the name last.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::{ImageIndexBuilder, MediaType};

use super::{LayerSpec, PackError, Packed, Prepared, image::Named, seal_layers};
use crate::{
    blob::{BlobContent, MemoryBlob},
    layer::SealedLayer,
    naming::Naming,
    oci::{DEFAULT_TAG, Layout, OciError, REF_NAME_ANNOTATION, variant_tag, write_archive},
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
        let keep = self.keep(layout.as_ref(), destinations)?;
        observer.hashing(self.payload());
        let sealed = seal_layers::seal_layers(&self.layers, &self.options, &self.spool, keep, observer)?;
        let blueprint = self.blueprint();
        let named = blueprint.documents(&sealed)?;
        for destination in destinations {
            if let Destination::Registry { registry, reference, naming } = destination {
                let sizes = sealed.iter().map(|layer| layer.size);
                self.refuse_too_large(reference, sizes)?;
                for (named, digest) in named.iter().filter_map(|named| Some((named, named.digest()?))) {
                    naming.check(registry, &named.reference(reference), digest)?;
                }
            }
        }
        let mut pushed = Vec::new();
        for destination in destinations {
            match destination {
                Destination::Layout { tag, naming, .. } => {
                    if let Some(layout) = &layout {
                        named.iter().try_for_each(|named| add(layout, named, tag, *naming))?;
                    }
                }
                Destination::Archive { path, tag } => {
                    let blobs = blobs(0..self.layers.len(), &sealed, layout.as_ref())?;
                    archive(path, tag, &named, blobs)?;
                }
                Destination::Registry { registry, reference, naming } => {
                    for named in &named {
                        let mut blobs = blobs(named.layers(), &sealed, layout.as_ref())?;
                        blobs.extend(named.configs().map(memory));
                        let reference = named.reference(reference);
                        let documents = named.documents();
                        push_image(registry, &reference, &blobs, &documents, *naming, observer).inspect_err(
                            |_| {
                                for name in &pushed {
                                    tracing::warn!("{name} is pushed already");
                                }
                            },
                        )?;
                        pushed.push(reference);
                    }
                }
            }
        }
        // There is an image for each platform, and there is a platform.
        let packed = blueprint.packed(&sealed, &named).ok_or(PackError::NoPlatform)?;
        let count = self.layers.len();
        let inputs = blueprint.inputs(self.layer_inputs(0..count, count, &sealed));
        Ok(Packed { inputs, ..packed })
    }

    /// Refuses layers that are known to be too large for a registry, or are likely to be where their weights are compressed.
    ///
    /// # Errors
    /// [`PackError::LayerTooLarge`].
    pub fn check_sizes(&self, reference: &Reference) -> Result<(), PackError> {
        self.refuse_too_large(reference, self.layers.iter().map(LayerSpec::bulk))
    }

    /// Refuses layers of these sizes, in their order, that are too large for a registry.
    fn refuse_too_large(
        &self,
        reference: &Reference,
        sizes: impl Iterator<Item = u64>,
    ) -> Result<(), PackError> {
        let host = reference.resolve_registry();
        let Some(known) = known_registry(host) else { return Ok(()) };
        let Some(limit) = known.blob_max else { return Ok(()) };
        match self.layers.iter().zip(sizes).find(|(_, size)| *size > limit) {
            None => Ok(()),
            Some((layer, size)) => Err(PackError::LayerTooLarge {
                title: layer.title.clone(),
                size,
                registry: known.name.clone(),
                limit,
                remedy: known.remedy.clone(),
            }),
        }
    }
}

/// The content of some layers.
pub(super) fn blobs(
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

pub(crate) fn memory(bytes: &[u8]) -> Arc<dyn BlobContent> {
    Arc::new(MemoryBlob::new(bytes.to_vec()))
}

/// Adds the documents to a layout, and names them.
pub(crate) fn add(layout: &Layout, named: &Named, tag: &str, naming: Naming) -> Result<(), OciError> {
    for config in named.configs() {
        layout.add_blob(config)?;
    }
    for (_, document) in named.documents() {
        layout.add_blob(document)?;
    }
    let Some(root) = named.root() else { return Ok(()) };
    layout.tag(root.clone(), &named.tag(tag), naming == Naming::Keep)
}

pub(crate) fn archive(
    path: &Path,
    tag: &str,
    all: &[Named],
    mut blobs: Vec<Arc<dyn BlobContent>>,
) -> Result<(), PackError> {
    let mut listed = Vec::new();
    for named in all {
        if let Some(root) = named.root() {
            let mut descriptor = root.clone();
            descriptor.set_annotations(Some([(REF_NAME_ANNOTATION.to_owned(), named.tag(tag))].into()));
            listed.push(descriptor);
        }
        for (config, (_, manifest)) in named.configs().zip(named.documents()) {
            blobs.extend([memory(config), memory(manifest)]);
        }
        blobs.extend(named.documents().into_iter().skip(named.images.len()).map(|(_, index)| memory(index)));
    }
    let index = ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests(listed)
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
