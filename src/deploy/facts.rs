//! What is known of an image before it is deployed, from its manifest and config alone. Must not know registries.

use std::collections::BTreeMap;

use oci_spec::image::{ImageConfiguration, ImageManifest, MediaType};

use crate::{
    compile_cache::{CacheRecord, gpu, identity::Attribute, is_plain_directory},
    digest::Digest,
    estargz::TOC_DIGEST_ANNOTATION,
    oci::{CONSUMER_ANNOTATION, Platform, STARCAR_PREFIX},
    plan::LayerKind,
};

/// Where starcar and KServe have the model in an image.
pub const MODEL_DIRECTORY_DEFAULT: &str = "/models";
/// Says how long a layer is when it is unpacked.
const UNCOMPRESSED: &str = "io.containers.estargz.uncompressed-size";

/// An image in a registry, pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedImage {
    /// Registry and repository: `registry.example.com/models/qwen3`.
    pub repository: String,
    /// The tag; `None` where the image is known by its digest alone.
    pub tag: Option<String>,
    /// Digest of what the tag names: a manifest, or an index.
    pub digest: Digest,
}

impl PinnedImage {
    /// `repository:tag@sha256:…`: the tag is for people, and the digest is what nodes pull.
    pub fn pinned(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}@{}", self.repository, self.digest),
            None => self.by_digest(),
        }
    }

    /// `repository@sha256:…`: the name that containerd's CRI service looks a pinned image up by.
    pub fn by_digest(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }
}

/// How nodes can get at an image's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Laziness {
    /// stargz-snapshotter mounts all of them without pulling them.
    Mountable,
    /// podman and CRI-O pull them in part.
    Partial,
    /// They are pulled whole.
    Whole,
}

/// What is known of an image.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its name in the registry.
    pub image: PinnedImage,
    /// The repository on the hub that the model came from.
    pub model: Option<String>,
    /// Absolute directory of the model in the image.
    pub model_directory: String,
    /// Bytes of the model when it is unpacked, as far as the image tells; else bytes of its layers.
    pub model_size: u64,
    /// Bytes of all layers, as they are pulled.
    pub pull_size: u64,
    /// How nodes can get at the layers.
    pub laziness: Laziness,
    /// Whether starcar packed it; what others pack says nothing of the model.
    pub is_packed: bool,
    /// Whether the layers are plain tar, or gzip that KServe's downloader reads, as far as the image tells.
    pub is_plain: bool,
    /// Whether there is a shell below the model: `None` where nothing tells.
    pub has_shell: Option<bool>,
    /// The platform: where the name leads to one image alone, its own, else the one that was asked for.
    pub platform: Option<Platform>,
    /// Whether the name leads to images for several platforms.
    pub is_for_several: bool,
    /// Compile caches.
    pub caches: Vec<CacheRecord>,
    /// The GPU target that the image is for.
    pub variant: Option<String>,
    /// GPU targets that have an image of their own.
    pub targets: Vec<String>,
}

impl Facts {
    /// What manifest and config say. `caches` were read from them; `is_for_several` says whether the image's name leads
    /// to images for several platforms, and `asked` which of them the user wants.
    pub fn of(
        image: PinnedImage,
        manifest: &ImageManifest,
        config: &ImageConfiguration,
        caches: crate::inspect::ImageCaches,
        is_for_several: bool,
        asked: Option<&Platform>,
    ) -> Self {
        let labels: BTreeMap<String, String> = config
            .config()
            .as_ref()
            .and_then(|config| config.labels().clone())
            .unwrap_or_default()
            .into_iter()
            .collect();
        let label = |name: &str| labels.get(&format!("{STARCAR_PREFIX}{name}")).cloned();
        let mut facts = Self {
            image,
            model: label("model.repository"),
            model_directory: label("model.directory")
                // It ends up in a shell's input.
                .filter(|directory| is_plain_directory(directory))
                .unwrap_or_else(|| MODEL_DIRECTORY_DEFAULT.to_owned()),
            model_size: 0,
            pull_size: 0,
            laziness: Laziness::Mountable,
            is_packed: false,
            is_plain: false,
            has_shell: None,
            platform: if is_for_several { asked.cloned() } else { Some(Platform::of_config(config)) },
            is_for_several,
            caches: caches.records,
            variant: caches.variant,
            targets: caches.variants.into_keys().collect(),
        };
        facts.is_packed = label("version").is_some();
        // Of other packers' layers, only their types and annotations tell.
        facts.is_plain = !facts.is_packed || label("layer-format").as_deref() == Some("tar");
        let mut has_base = false;
        for layer in manifest.layers() {
            let annotation = |name: &str| layer.annotations().as_ref().and_then(|all| all.get(name).cloned());
            let kind = annotation(&format!("{STARCAR_PREFIX}layer.kind"));
            let is = |wanted: LayerKind| kind.as_deref() == Some(wanted.name());
            has_base |= is(LayerKind::Base);
            facts.pull_size = facts.pull_size.saturating_add(layer.size());
            if !is(LayerKind::Base) && !is(LayerKind::Cache) {
                let unpacked = annotation(UNCOMPRESSED).and_then(|text| text.parse().ok());
                // What an annotation says is only believed within what compression can do.
                let unpacked: u64 = unpacked.unwrap_or(0);
                let size = unpacked.clamp(layer.size(), layer.size().saturating_mul(1000));
                facts.model_size = facts.model_size.saturating_add(size);
            }
            let is_lazy = annotation(TOC_DIGEST_ANNOTATION).is_some();
            if !is_lazy {
                facts.laziness = Laziness::Whole;
            }
            if !facts.is_packed {
                facts.is_plain &= !is_lazy
                    && matches!(layer.media_type(), MediaType::ImageLayer | MediaType::ImageLayerGzip);
            }
        }
        let consumer =
            manifest.annotations().as_ref().and_then(|all| all.get(CONSUMER_ANNOTATION)).map(String::as_str);
        if facts.laziness == Laziness::Whole && consumer == Some("containers-storage") {
            facts.laziness = Laziness::Partial;
        }
        facts.has_shell = facts.is_packed.then_some(has_base);
        facts
    }

    /// What all caches that tell it agree on.
    pub fn agreed(&self, attribute: Attribute) -> Option<&str> {
        let mut values = self.caches.iter().flat_map(|cache| cache.identity.facts(attribute));
        let first = values.next()?;
        values.all(|fact| fact.value == first.value).then_some(first.value.as_str())
    }

    /// The tensor-parallel size that the caches are for, as told, or as many ranks as there are: vLLM's caches have a
    /// directory `rank_<tensor>_<data>` for each.
    pub fn tensor_parallel(&self) -> Option<u64> {
        let told = self.agreed(Attribute::TensorParallel).and_then(|text| text.parse::<u64>().ok());
        let ranks = self.caches.iter().flat_map(|cache| cache.identity.facts(Attribute::Rank));
        let last = ranks.filter_map(|rank| rank.value.split('_').next()?.parse::<u64>().ok()).max();
        told.or_else(|| last?.checked_add(1)).filter(|count| (1..=64).contains(count))
    }

    /// The architecture of the GPUs that the caches are for: `sm_90`, `gfx942`.
    pub fn gpu_architecture(&self) -> Option<&'static str> {
        // FlashInfer says `sm_90a` where Triton says `sm_90`: the GPU is the same.
        let facts = self.caches.iter().flat_map(|cache| cache.identity.facts(Attribute::Architecture));
        let mut known = facts.filter_map(|fact| gpu::architecture_of(&fact.value));
        let told = known.next().filter(|first| known.all(|other| other == *first));
        // `sm90-nvidia-h200` begins with the architecture.
        let target = || self.variant.as_deref()?.split('-').next().and_then(gpu::architecture_of);
        told.or_else(target)
    }

    /// Whether the caches are for GPUs of AMD.
    pub fn is_for_rocm(&self) -> bool {
        self.gpu_architecture().is_some_and(|name| name.starts_with("gfx"))
            || self.agreed(Attribute::Backend) == Some("rocm")
    }

    /// Whether the caches are for processors.
    pub fn is_for_cpu(&self) -> bool {
        self.variant.as_deref() == Some("cpu") || self.agreed(Attribute::Backend) == Some("cpu")
    }
}
