//! Reads a part, wherever it lies, and believes nothing of it. Must not know where parts are looked for.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::Descriptor;
use serde::Deserialize;

use super::{AssembleError, PartConfig, PartsError};
use crate::{
    digest::Digest,
    oci::{ImageSource, digest_of},
    pack::{
        InputFile, Part,
        part::{CONFIG_MAX, MadeOf, PartDocument, PartLayer, PartPlan, is_part},
    },
    registry::Reference,
};

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
    /// Whether what parts were made of is wanted.
    wants_inputs: bool,
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
    /// What it was made of, where that is wanted and the part says it.
    pub(super) made_of: Option<MadeOf>,
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
    /// Nothing was read yet.
    pub(super) fn new(wants_inputs: bool) -> Self {
        Self { wants_inputs, ..Self::default() }
    }

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
        let files = document.made_of.iter().flat_map(|made_of| made_of.files.values().flatten());
        let files: u64 = files.map(|file| cost(&file.path) + size_of::<InputFile>() as u64).sum();
        self.remembered = [known, layers, files].into_iter().fold(self.remembered, u64::saturating_add);
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
    let wrong = |problem| AssembleError::Parts { problem, remote };
    let PartConfig(mut document) = PartConfig::read(&name, &text).map_err(wrong)?;
    drop(text);
    if !seen.wants_inputs {
        document.made_of = None;
    }
    let part = document.part;
    seen.remember(&document).map_err(&not_a_part)?;
    let has_room = seen.plans.len() < 2;
    if let Entry::Vacant(vacant) = seen.plans.entry(document.plan_digest)
        && has_room
    {
        vacant.insert(document.plan);
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
        plan_digest: document.plan_digest,
        known_digests: document.known_digests,
        layers: document.layers,
        made_of: document.made_of,
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
