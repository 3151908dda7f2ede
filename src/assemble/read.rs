//! Reads a part, wherever it lies, and believes nothing of it. Must not know where parts are looked for.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::Descriptor;
use serde::Deserialize;

use super::{AssembleError, PartsError};
use crate::{
    compile_cache::CacheRecord,
    digest::Digest,
    oci::{DOCUMENT_MAX, ImageSource, digest_of, is_tag, variant_tag},
    pack::{
        Part,
        part::{CONFIG_MAX, FORMAT_VERSION, PartDocument, PartLayer, PartPlan, PartVersions, is_part},
    },
    registry::Reference,
};

/// Most images that a plan may have: one for each platform, consumer and target.
const IMAGES_MAX: usize = 1024;

/// Most bytes of all parts' configs together that are read: of as many parts as there can be, 4 MiB each.
const CONFIGS_MAX: u64 = 4 << 30;
/// Most bytes that are remembered of all parts together, besides plans.
const REMEMBERED_MAX: u64 = 256 << 20;
/// What a text costs beside its bytes.
const TEXT_COST: u64 = 64;

/// What was read of parts by now.
#[derive(Default)]
pub(super) struct Seen {
    /// Plans by digest. Two tell that something is wrong, and how they differ; more are not kept.
    pub(super) plans: BTreeMap<Digest, PartPlan>,
    /// Bytes of configs.
    configs: u64,
    /// Bytes that are remembered of them.
    remembered: u64,
}

/// A part that was found.
pub(super) struct FoundPart {
    pub(super) source: Arc<dyn ImageSource>,
    pub(super) place: Place,
    /// Its name, for messages.
    pub(super) name: String,
    pub(super) part: Part,
    /// What the tag of its image is in the tag that it was made with.
    pub(super) image_tag: String,
    pub(super) manifest: Digest,
    pub(super) config: Digest,
    pub(super) plan_digest: Digest,
    pub(super) known_digests: BTreeMap<String, Vec<String>>,
    /// Its layers, each of which can be listed.
    pub(super) layers: Vec<PartLayer>,
}

/// Where a part lies, to be removed from there.
#[derive(Clone)]
pub(super) enum Place {
    /// In a layout, under a tag.
    Layout { path: PathBuf, tag: String },
    /// In a registry.
    Registry(Reference),
    /// Where nothing is removed.
    Other,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Seen {
    /// Whether enough was read to tell that the parts make no image. The plans of most are known by then, so that the odd
    /// one can be told, unless configs are very large.
    pub(super) fn is_enough(&self) -> bool {
        self.plans.len() > 1 && self.configs > CONFIG_MAX
    }

    /// Counts a config of `size` bytes that is to be read.
    fn count(&mut self, size: u64) -> Result<(), String> {
        self.configs = self.configs.saturating_add(size);
        if self.configs > CONFIGS_MAX {
            return Err(format!("with it, the configs of all parts have more than {CONFIGS_MAX} bytes"));
        }
        Ok(())
    }

    /// Counts what is remembered of a part.
    fn remember(&mut self, document: &PartDocument) -> Result<(), String> {
        let cost = |text: &String| text.len() as u64 + TEXT_COST;
        let known = document.known_digests.iter();
        let known: u64 = known.map(|(path, all)| cost(path) + all.iter().map(cost).sum::<u64>()).sum();
        let layer = |layer: &PartLayer| {
            let said = layer.annotations.iter().map(|(name, value)| cost(name) + cost(value));
            said.sum::<u64>() + size_of::<PartLayer>() as u64
        };
        let layers: u64 = document.layers.iter().map(layer).sum();
        self.remembered = self.remembered.saturating_add(known).saturating_add(layers);
        if self.remembered > REMEMBERED_MAX {
            return Err(format!("with it, all parts say more than {REMEMBERED_MAX} bytes of their files"));
        }
        Ok(())
    }
}

/// Reads the part that `source` names. Its plan goes to `seen` unless it is there.
pub(super) fn read(
    source: Arc<dyn ImageSource>,
    place: Place,
    seen: &mut Seen,
) -> Result<FoundPart, AssembleError> {
    let name = source.place();
    let remote = source.reference().is_some();
    let not_a_part = |reason: String| AssembleError::Parts {
        problem: PartsError::NotAPart { name: name.clone(), reason },
        remote,
    };
    let root = source.root_document()?;
    if !is_part(&root.bytes) {
        return Err(not_a_part(
            "its manifest has another type; parts are made by `starcar pack --part`".to_owned(),
        ));
    }
    let manifest: Manifest =
        serde_json::from_slice(&root.bytes).map_err(|error| not_a_part(error.to_string()))?;
    let config = digest_of(&manifest.config, &name)?;
    let size = manifest.config.size();
    if size > CONFIG_MAX {
        return Err(not_a_part(format!("its config has {size} bytes, more than {CONFIG_MAX}")));
    }
    seen.count(size).map_err(&not_a_part)?;
    let mut text = Vec::new();
    source.copy_blob(config, size, &mut text)?;
    let versions: PartVersions =
        serde_json::from_slice(&text).map_err(|error| not_a_part(error.to_string()))?;
    if versions.format_version != FORMAT_VERSION {
        return Err(not_a_part(format!(
            "starcar {} wrote it in version {} of the format, and this one knows {FORMAT_VERSION}",
            versions.starcar_version.escape_debug(),
            versions.format_version
        )));
    }
    let document: PartDocument =
        serde_json::from_slice(&text).map_err(|error| not_a_part(error.to_string()))?;
    drop(text);
    let part = document.part;
    let wrong = |problem| AssembleError::Parts { problem, remote };
    let own = env!("CARGO_PKG_VERSION");
    if document.starcar_version != own {
        let found = document.starcar_version;
        return Err(wrong(PartsError::Version { part, name, found, own }));
    }
    let actual = document.plan.digest().map_err(|error| not_a_part(error.to_string()))?;
    let expected = document.plan_digest;
    if actual != expected {
        return Err(wrong(PartsError::Damaged { part, name, expected, actual }));
    }
    seen.remember(&document).map_err(&not_a_part)?;
    let has_room = seen.plans.len() < 2;
    if let Entry::Vacant(vacant) = seen.plans.entry(actual) {
        check(&document.plan).map_err(&not_a_part)?;
        if has_room {
            vacant.insert(document.plan);
        }
    }
    if let Some(odd) = document.layers.iter().find(|layer| layer.sealed().is_none()) {
        return Err(not_a_part(format!("layer {} has no layer's media type", odd.index)));
    }
    let said = document.layers.iter().flat_map(|layer| &layer.annotations);
    let said = said.map(|(name, value)| name.len() + value.len()).fold(0, usize::saturating_add);
    if said as u64 > DOCUMENT_MAX {
        return Err(not_a_part(format!(
            "annotations of its layers have {said} bytes, more than {DOCUMENT_MAX}"
        )));
    }
    if !lists(&manifest, &document.layers) {
        return Err(wrong(PartsError::OtherLayers { part, name }));
    }
    Ok(FoundPart {
        source,
        place,
        name,
        part,
        image_tag: document.image_tag,
        manifest: root.digest,
        config,
        plan_digest: actual,
        known_digests: document.known_digests,
        layers: document.layers,
    })
}

/// Whether a manifest lists these layers: a registry keeps what manifests list. One without layers lists its config.
fn lists(manifest: &Manifest, layers: &[PartLayer]) -> bool {
    let listed = |one: &Descriptor| (one.digest().to_string(), one.size(), one.media_type().to_string());
    if layers.is_empty() {
        return manifest.layers.iter().all(|one| listed(one) == listed(&manifest.config));
    }
    let told = layers.iter().map(|layer| (layer.digest.to_string(), layer.size, layer.media_type.clone()));
    manifest.layers.iter().map(listed).eq(told)
}

/// What makes a plan one that images can be made of.
fn check(plan: &PartPlan) -> Result<(), String> {
    let image = &plan.image;
    let count = image.layers.len();
    if plan.layouts.len() != count {
        return Err(format!("its plan has {count} layers, and digests of {}", plan.layouts.len()));
    }
    if image.images.is_empty() {
        return Err("its plan is for no platform".to_owned());
    }
    // Documents are made for each image, so that their number and length have to be bounded.
    let images = image.images.len().saturating_mul(image.targets.len().saturating_add(1));
    if images > IMAGES_MAX {
        return Err(format!("its plan has {images} images, more than {IMAGES_MAX}"));
    }
    if let Some(target) = image.targets.iter().find(|target| !is_tag(&variant_tag("_", Some(target)))) {
        return Err(format!("`{}` makes no tag", target.escape_debug()));
    }
    for images in &image.images {
        if images.of_targets.len() != image.targets.len() {
            return Err("its plan lacks the image of a target".to_owned());
        }
        for facts in images.of_targets.iter().chain([&images.plain]) {
            if let Some(index) = facts.layers.iter().find(|index| **index >= count) {
                return Err(format!("its plan lists layer {index} of {count}"));
            }
            let distinct: HashSet<usize> = facts.layers.iter().copied().collect();
            if distinct.len() != facts.layers.len() {
                return Err("its plan lists a layer twice in an image".to_owned());
            }
            // What is said of caches is printed as commands of a shell.
            let records = serde_json::to_string(&facts.caches).map_err(|error| error.to_string())?;
            CacheRecord::parse_all(&records)?;
        }
    }
    Ok(())
}

impl FoundPart {
    /// Digests and sizes of its layers.
    pub(super) fn blobs(&self) -> Vec<(Digest, u64)> {
        let mut seen = HashSet::new();
        let all = self.layers.iter().map(|layer| (layer.digest, layer.size));
        all.filter(|(digest, _)| seen.insert(*digest)).collect()
    }
}

impl Place {
    /// The part's tag, if this is the layout in `path`.
    pub(super) fn tag_in(&self, path: &Path) -> Option<String> {
        let Self::Layout { path: own, tag } = self else { return None };
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        (real(own).is_some() && real(own) == real(path)).then(|| tag.clone())
    }

    /// The part's tag, if this is in the reference's repository; empty where it was named by its digest.
    pub(super) fn part_tag_in(&self, reference: &Reference) -> Option<&str> {
        let Self::Registry(own) = self else { return None };
        let is_in = own.resolve_registry() == reference.resolve_registry()
            && own.repository() == reference.repository();
        is_in.then(|| own.tag().unwrap_or_default())
    }
}
