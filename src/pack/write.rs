//! Brings a prepared pack to its destinations: layers first, then config and manifest, the name last.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, SecondsFormat};
use oci_spec::image::{ImageIndexBuilder, MediaType};
use serde::Serialize;

use super::{LayerSpec, PackError, Prepared, seal_layers};
use crate::{
    blob::{BlobContent, MemoryBlob},
    digest::Digest,
    layer::SealedLayer,
    oci::{
        BuiltImage, ConfigOptions, ImageLayer, Layout, OciError, REF_NAME_ANNOTATION, STARCAR_PREFIX,
        build_image, write_archive,
    },
    progress::Observer,
    push::push_image,
    registry::{Reference, Registry},
};

/// Where an image goes.
pub enum Destination {
    /// Into a layout, under a tag.
    Layout {
        /// The layout's directory.
        path: PathBuf,
        /// The tag.
        tag: String,
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
        let image = self.build(&sealed)?;
        let mut blobs: Vec<Arc<dyn BlobContent>> = Vec::new();
        for layer in &sealed {
            // A layer that was not kept was written to the layout.
            if let Some(blob) = &layer.blob {
                blobs.push(Arc::clone(blob) as Arc<dyn BlobContent>);
            } else if let Some(layout) = &layout {
                blobs.push(layout.blob(layer.digest, layer.size)?);
            }
        }
        blobs.push(Arc::new(MemoryBlob::new(image.config.clone())));
        for destination in destinations {
            match destination {
                Destination::Layout { tag, .. } => {
                    if let Some(layout) = &layout {
                        layout.add_blob(&image.config)?;
                        layout.add_blob(&image.manifest)?;
                        layout.tag(image.descriptor.clone(), tag)?;
                    }
                }
                Destination::Archive { path, tag } => archive(path, tag, &image, &blobs)?,
                Destination::Registry { registry, reference } => {
                    push_image(
                        registry,
                        reference,
                        &blobs,
                        MediaType::ImageManifest.as_ref(),
                        &image.manifest,
                        observer,
                    )?;
                }
            }
        }
        Ok(self.packed(&sealed, &image))
    }

    fn create_layout(&self, path: &Path) -> Result<Layout, PackError> {
        let layout = Layout::create(path)?;
        // A file system that cannot say how much is free is no reason to stop.
        if let Ok(free) = rustix::fs::statvfs(path) {
            let available = free.f_bavail.saturating_mul(free.f_frsize);
            let needed = self.stored_payload();
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

    fn build(&self, sealed: &[SealedLayer]) -> Result<BuiltImage, PackError> {
        let layers: Vec<ImageLayer<'_>> = self
            .layers
            .iter()
            .zip(sealed)
            .map(|(spec, sealed)| ImageLayer {
                sealed,
                created_by: spec.created_by.clone(),
                annotations: BTreeMap::from([
                    (format!("{STARCAR_PREFIX}layer.kind"), spec.kind.name().to_owned()),
                    (format!("{STARCAR_PREFIX}layer.title"), spec.title.clone()),
                ]),
            })
            .collect();
        let options = ConfigOptions {
            platform: self.options.platform.clone(),
            environment: self.base.environment.clone(),
            labels: self.labels(),
            annotations: self.annotations(),
            created: self.options.modified,
        };
        Ok(build_image(&layers, &options)?)
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

    fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = self.labels();
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
        annotations
    }

    fn packed(&self, sealed: &[SealedLayer], image: &BuiltImage) -> Packed {
        Packed {
            digest: image.digest,
            media_type: MediaType::ImageManifest.to_string(),
            size: image.manifest.len() as u64,
            config: PackedBlob { digest: Digest::of(&image.config), size: image.config.len() as u64 },
            platform: self.options.platform.to_string(),
            layers: self.layers.iter().zip(sealed).map(|(spec, sealed)| packed_layer(spec, sealed)).collect(),
        }
    }
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

fn archive(
    path: &Path,
    tag: &str,
    image: &BuiltImage,
    blobs: &[Arc<dyn BlobContent>],
) -> Result<(), PackError> {
    let mut descriptor = image.descriptor.clone();
    descriptor.set_annotations(Some([(REF_NAME_ANNOTATION.to_owned(), tag.to_owned())].into()));
    let index = ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests(vec![descriptor])
        .build()
        .map_err(|error| OciError::Document {
            what: "index",
            place: format!("oci-archive:{}", path.display()),
            reason: error.to_string(),
        })?;
    let mut blobs = blobs.to_vec();
    blobs.push(Arc::new(MemoryBlob::new(image.manifest.clone())));
    // One copy of equal layers is enough, and tar would keep both.
    let mut seen = std::collections::HashSet::new();
    blobs.retain(|blob| seen.insert(blob.digest()));
    Ok(write_archive(path, &index, &blobs)?)
}
