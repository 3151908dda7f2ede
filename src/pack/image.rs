//! The documents of a pack: config and manifest of each image, and the index of those that share a name. Must not know
//! where they go.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::image::{Descriptor, MediaType};

use super::{
    Inputs, Packed, PackedBlob, PackedLayer, PackedVariant,
    blueprint::{Blueprint, ImageFacts, ImagesFacts, LayerFacts, variant_label},
};
use crate::{
    compile_cache::CacheRecord,
    digest::Digest,
    layer::SealedLayer,
    oci::{
        BuiltImage, BuiltIndex, ConfigOptions, DEFAULT_TAG, ImageLayer, IndexEntry, OciError, STARCAR_PREFIX,
        build_image, build_index, variant_tag,
    },
    registry::Reference,
    zstd_chunked::{Consumer, ZSTD_ENTRY_ANNOTATION},
};

/// An image that is built from layers that are sealed.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    platform: crate::oci::Platform,
    /// Whom it is for, where not all can read it, or there is another for others of the same layers.
    consumer: Option<Consumer>,
    pub(crate) built: BuiltImage,
    /// Indices of its layers.
    pub(crate) layers: Vec<usize>,
    records: Vec<CacheRecord>,
}

/// What a name leads to: an image, or an index of images for several platforms.
#[derive(Debug)]
pub(crate) struct Named {
    /// The GPU target whose tag it gets; `None` where it gets the tag that was asked for.
    target: Option<String>,
    /// The images in the order of their platforms, at least one; those for several consumers on one follow each other.
    pub(crate) images: Vec<Image>,
    index: Option<BuiltIndex>,
}

impl Named {
    /// The tag where the user asked for `tag`.
    pub(crate) fn tag(&self, tag: &str) -> String {
        variant_tag(tag, self.target.as_deref())
    }

    /// The reference where the user asked for `reference`.
    pub(crate) fn reference(&self, reference: &Reference) -> Reference {
        if self.target.is_none() {
            return reference.clone();
        }
        let tag = self.tag(reference.tag().unwrap_or(DEFAULT_TAG));
        Reference::with_tag(reference.registry().to_owned(), reference.repository().to_owned(), tag)
    }

    /// What the tag names.
    pub(crate) fn root(&self) -> Option<&Descriptor> {
        let index = self.index.as_ref().map(|index| &index.descriptor);
        index.or_else(|| self.images.first().map(|image| &image.built.descriptor))
    }

    /// Digest of what the tag names.
    pub(crate) fn digest(&self) -> Option<Digest> {
        let index = self.index.as_ref().map(|index| index.digest);
        index.or_else(|| self.images.first().map(|image| image.built.digest))
    }

    /// Manifests and index, each after what it lists, with their media types; what the tag names is the last.
    pub(crate) fn documents(&self) -> Vec<(MediaType, &[u8])> {
        let manifests = self.images.iter().map(|image| (MediaType::ImageManifest, &*image.built.manifest));
        let index = self.index.iter().map(|index| (MediaType::ImageIndex, &*index.bytes));
        manifests.chain(index).collect()
    }

    /// The configs, each once: images of one platform may share theirs.
    pub(crate) fn configs(&self) -> impl Iterator<Item = &[u8]> {
        let configs: BTreeSet<&[u8]> =
            self.images.iter().map(|image| image.built.config.as_slice()).collect();
        configs.into_iter()
    }

    /// Indices of the layers of all images, each once.
    pub(crate) fn layers(&self) -> impl Iterator<Item = usize> {
        let layers: BTreeSet<usize> = self.images.iter().flat_map(|image| &image.layers).copied().collect();
        layers.into_iter()
    }
}

impl Blueprint {
    /// Builds all documents of layers that are sealed: for each target, and last what gets the tag that was asked for.
    /// What that says of the others is true when it comes last.
    ///
    /// # Errors
    /// When a document cannot be expressed, or lists a layer that is not among `sealed`.
    pub(crate) fn documents(&self, sealed: &[SealedLayer]) -> Result<Vec<Named>, OciError> {
        let mut of_targets: Vec<Vec<Image>> = self.targets.iter().map(|_| Vec::new()).collect();
        let mut main = Vec::new();
        for kind in &self.images {
            let mut own: BTreeMap<&str, Digest> = BTreeMap::new();
            let mut images = Vec::new();
            for (target, facts) in self.targets.iter().zip(&kind.of_targets) {
                // One without caches of the target is the image that every GPU can use.
                let has_target = !facts.caches.is_empty();
                let image =
                    has_target.then(|| self.image(kind, facts, &BTreeMap::new(), sealed)).transpose()?;
                own.extend(image.as_ref().map(|image| (target.as_str(), image.built.digest)));
                images.push(image);
            }
            let plain = self.image(kind, &kind.plain, &own, sealed)?;
            for (of_target, image) in of_targets.iter_mut().zip(images) {
                of_target.push(image.unwrap_or_else(|| plain.clone()));
            }
            main.push(plain);
        }
        let mut all = Vec::new();
        let mut digests = BTreeMap::new();
        for (target, images) in self.targets.iter().zip(of_targets) {
            let named = self.named(Some(target), images, &BTreeMap::new())?;
            digests.extend(named.digest().map(|digest| (target.as_str(), digest)));
            all.push(named);
        }
        all.push(self.named(None, main, &digests)?);
        Ok(all)
    }

    fn named(
        &self,
        target: Option<&String>,
        images: Vec<Image>,
        variants: &BTreeMap<&str, Digest>,
    ) -> Result<Named, OciError> {
        let index = if images.len() == 1 {
            None
        } else {
            let mut annotations = self.index_annotations.clone();
            annotations.extend(variant_label(target));
            annotations.extend(variants_annotation(variants));
            let entries: Vec<IndexEntry> = images
                .iter()
                .map(|image| IndexEntry {
                    platform: image.platform.clone(),
                    annotations: entry_annotations(image.consumer),
                    manifest: image.built.descriptor.clone(),
                })
                .collect();
            Some(build_index(&entries, &annotations)?)
        };
        Ok(Named { target: target.cloned(), images, index })
    }

    /// The image that `facts` describe; the one without a target lists its variants.
    fn image(
        &self,
        kind: &ImagesFacts,
        facts: &ImageFacts,
        variants: &BTreeMap<&str, Digest>,
        sealed: &[SealedLayer],
    ) -> Result<Image, OciError> {
        let consumer = kind.consumer;
        let listed: Vec<ImageLayer<'_>> = facts
            .layers
            .iter()
            .map(|index| {
                let (layer, sealed) = self.layer(*index, sealed)?;
                let mut annotations = sealed.annotations.clone();
                annotations.retain(|name, _| consumer.is_none_or(|consumer| consumer.takes(name)));
                annotations.extend([
                    (format!("{STARCAR_PREFIX}layer.kind"), layer.kind.name().to_owned()),
                    (format!("{STARCAR_PREFIX}layer.title"), layer.title.clone()),
                ]);
                Ok(ImageLayer { sealed, created_by: layer.created_by.clone(), annotations })
            })
            .collect::<Result<_, OciError>>()?;
        let mut annotations = facts.annotations.clone();
        annotations.extend(variants_annotation(variants));
        let options = ConfigOptions {
            platform: kind.platform.clone(),
            environment: kind.environment.clone(),
            labels: facts.labels.clone(),
            annotations,
            created: self.created,
        };
        Ok(Image {
            platform: kind.platform.clone(),
            consumer,
            built: build_image(&listed, &options)?,
            layers: facts.layers.clone(),
            records: facts.caches.clone(),
        })
    }

    /// A layer: what is known of it, and what sealing it found out.
    fn layer<'a>(
        &'a self,
        index: usize,
        sealed: &'a [SealedLayer],
    ) -> Result<(&'a LayerFacts, &'a SealedLayer), OciError> {
        self.layers.get(index).zip(sealed.get(index)).ok_or_else(|| OciError::Document {
            what: "manifest",
            place: "the image that is packed".to_owned(),
            reason: format!("it lists layer {index}, and there are {}", self.layers.len()),
        })
    }

    /// What was packed, as [`Self::documents`] built it.
    pub(crate) fn packed(&self, sealed: &[SealedLayer], named: &[Named]) -> Option<Packed> {
        let (main, variants) = named.split_last()?;
        let mut packed = self.packed_name(sealed, main)?;
        packed.variants = variants
            .iter()
            .filter_map(|variant| {
                let target = variant.target.clone()?;
                Some(PackedVariant { target, image: self.packed_name(sealed, variant)? })
            })
            .collect();
        Some(packed)
    }

    fn packed_name(&self, sealed: &[SealedLayer], named: &Named) -> Option<Packed> {
        let images = named.images.iter().map(|image| self.packed_image(sealed, image));
        let Some(index) = &named.index else { return images.into_iter().next() };
        Some(Packed {
            digest: index.digest,
            media_type: MediaType::ImageIndex.to_string(),
            size: index.bytes.len() as u64,
            config: None,
            platform: None,
            consumer: None,
            layers: Vec::new(),
            caches: Vec::new(),
            platforms: images.collect(),
            variants: Vec::new(),
            inputs: Inputs::default(),
        })
    }

    fn packed_image(&self, sealed: &[SealedLayer], image: &Image) -> Packed {
        let Image { built, layers, records, .. } = image;
        Packed {
            digest: built.digest,
            media_type: MediaType::ImageManifest.to_string(),
            size: built.manifest.len() as u64,
            config: Some(PackedBlob { digest: Digest::of(&built.config), size: built.config.len() as u64 }),
            platform: Some(image.platform.to_string()),
            consumer: image.consumer.map(Consumer::name),
            layers: layers
                .iter()
                .filter_map(|index| self.layer(*index, sealed).ok())
                .map(|(layer, sealed)| packed_layer(layer, sealed))
                .collect(),
            caches: records.clone(),
            platforms: Vec::new(),
            variants: Vec::new(),
            inputs: Inputs::default(),
        }
    }
}

/// What an index's entry says of an image for a consumer.
fn entry_annotations(consumer: Option<Consumer>) -> BTreeMap<String, String> {
    let (name, value) = ZSTD_ENTRY_ANNOTATION;
    let is_for_storage = consumer == Some(Consumer::ContainersStorage);
    is_for_storage.then(|| (name.to_owned(), value.to_owned())).into_iter().collect()
}

/// The digests of the variants by target.
fn variants_annotation(variants: &BTreeMap<&str, Digest>) -> Option<(String, String)> {
    let digests: BTreeMap<&str, String> =
        variants.iter().map(|(target, digest)| (*target, digest.to_string())).collect();
    let json = serde_json::to_string(&digests).ok().filter(|_| !digests.is_empty())?;
    Some((format!("{STARCAR_PREFIX}variants"), json))
}

pub(crate) fn packed_layer(layer: &LayerFacts, sealed: &SealedLayer) -> PackedLayer {
    PackedLayer {
        digest: sealed.digest,
        size: sealed.size,
        diff_id: sealed.diff_id,
        uncompressed_size: sealed.uncompressed_size,
        media_type: sealed.media_type.to_string(),
        kind: layer.kind.name(),
        files: layer.files.clone(),
    }
}
