//! What went into the images of a pack: files with the digests that sealing found. Must not know documents that tell of
//! them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{LayerSpec, Prepared, PreparedCache, RecordedBase, RecordedOptions, blueprint::Blueprint};
use crate::{
    base::BaseChoice,
    compile_cache::{CacheFile, CacheRecord},
    digest::Digest,
    layer::{EntryKind, SealedLayer},
    oci::Platform,
    plan::LayerKind,
    snapshot::SnapshotFile,
};

/// The annotation that has the digest of an image that is a base.
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// Everything that the images of a pack are made of, but for the profile.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// What lies below the model, in the platforms' order.
    pub bases: Vec<InputBase>,
    /// The snapshot's files, sorted by path.
    pub model: Vec<InputFile>,
    /// The compile caches.
    pub caches: Vec<InputCache>,
}

/// The base of a platform; there is none for `scratch`.
#[derive(Debug, Clone)]
pub struct InputBase {
    /// The platform.
    pub platform: Platform,
    /// What kind of base it is.
    pub kind: RecordedBase,
    /// Digest of the base's manifest, or of the static binary.
    pub digest: Option<Digest>,
}

/// A file that was packed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InputFile {
    /// Path in the snapshot or cache.
    pub path: String,
    /// SHA-256 of the file as it was given.
    pub digest: Digest,
    /// SHA-256 of the file as it is in the image, where that is another: paths in compile caches are written anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relocated: Option<Digest>,
    /// Whether the snapshot's own records have a digest of the file, which was compared: then it is the one of the
    /// repository.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verified: bool,
}

/// A compile cache that was packed.
#[derive(Debug, Clone)]
pub struct InputCache {
    /// What the image says of it.
    pub record: CacheRecord,
    /// Its files, sorted by path.
    pub files: Vec<InputFile>,
}

/// The files that went into layers, by the layers' index in the plan: the snapshot's, those of a cache as its directory
/// had them, and the binary that a base was made of.
pub(crate) type LayerInputs = BTreeMap<usize, Vec<InputFile>>;

impl InputFile {
    /// SHA-256 of the file as it is in the image.
    pub fn packed(&self) -> Digest {
        self.relocated.unwrap_or(self.digest)
    }
}

impl Prepared {
    /// What went into the layers that this has, which are `sealed` in the same order. `indices` says which of the plan's
    /// `count` layers each is.
    pub(super) fn layer_inputs(
        &self,
        indices: impl Iterator<Item = usize>,
        count: usize,
        sealed: &[SealedLayer],
    ) -> LayerInputs {
        let directory = format!("{}/", self.options.model_directory.relative());
        let of_snapshot: BTreeMap<&str, &SnapshotFile> =
            self.snapshot.files.iter().map(|file| (file.path.as_str(), file)).collect();
        let of_caches = count.saturating_sub(self.caches.caches.len());
        let mut all = LayerInputs::new();
        for (index, (spec, sealed)) in indices.zip(self.layers.iter().zip(sealed)) {
            let digests = digests(spec, sealed);
            let files: Vec<InputFile> = match spec.kind {
                LayerKind::Base => self.binary(index, &digests).into_iter().collect(),
                LayerKind::Cache => {
                    let cache = index.checked_sub(of_caches).and_then(|index| self.caches.caches.get(index));
                    cache.map(|cache| of_cache(cache, &directory, &digests)).unwrap_or_default()
                }
                _ => {
                    let file = |(path, digest): (&&str, &Digest)| {
                        let file = of_snapshot.get(path.strip_prefix(&directory)?)?;
                        let verified = !file.expected.is_empty();
                        Some(InputFile {
                            path: file.path.clone(),
                            digest: *digest,
                            relocated: None,
                            verified,
                        })
                    };
                    digests.iter().filter_map(file).collect()
                }
            };
            if !files.is_empty() {
                all.insert(index, files);
            }
        }
        all
    }

    /// The binary of the platform whose base begins with this layer.
    fn binary(&self, index: usize, digests: &BTreeMap<&str, Digest>) -> Option<InputFile> {
        let is_binary = |choice: &BaseChoice| matches!(choice, BaseChoice::Binary(_));
        self.platforms.iter().find(|one| is_binary(&one.choice) && one.layers.start == index)?;
        // Its layer has no other file but the landmark, which lies in no directory.
        let (path, digest) = digests.iter().find(|(path, _)| path.contains('/'))?;
        Some(InputFile { path: (*path).to_owned(), digest: *digest, relocated: None, verified: false })
    }
}

fn of_cache(cache: &PreparedCache, directory: &str, digests: &BTreeMap<&str, Digest>) -> Vec<InputFile> {
    let root = format!("{directory}{}", cache.record.directory);
    let tree = &cache.examined.tree;
    let changed: BTreeMap<usize, Digest> =
        cache.relocated.iter().map(|file| (file.index, file.original)).collect();
    let file = |(index, file): (usize, &CacheFile)| {
        let same = cache.same.get(index).copied().flatten().and_then(|same| tree.files.get(same));
        let path = &same.unwrap_or(file).path;
        let packed = *digests.get(format!("{root}/{path}").as_str())?;
        let digest = changed.get(&index).copied().unwrap_or(packed);
        let relocated = (packed != digest).then_some(packed);
        Some(InputFile { path: file.path.clone(), digest, relocated, verified: false })
    };
    let mut files: Vec<InputFile> = tree.files.iter().enumerate().filter_map(file).collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

/// The digests of a layer's regular files by path.
fn digests<'a>(spec: &'a LayerSpec, sealed: &SealedLayer) -> BTreeMap<&'a str, Digest> {
    spec.entries
        .iter()
        .zip(&sealed.files)
        .filter(|(entry, _)| matches!(entry.kind, EntryKind::Regular(_)))
        .filter_map(|(entry, digest)| Some((entry.path.as_str(), (*digest)?)))
        .collect()
}

impl Blueprint {
    /// What went into the images, by what went into their layers, whoever sealed them.
    pub(crate) fn inputs(&self, mut layers: LayerInputs) -> Inputs {
        let mut inputs = Inputs { bases: self.bases(&layers), ..Inputs::default() };
        let records = self.cache_records();
        for (index, layer) in self.layers.iter().enumerate() {
            let files = layers.remove(&index).unwrap_or_default();
            match (layer.kind, records.get(&index)) {
                (LayerKind::Base, _) | (LayerKind::Cache, None) => {}
                (LayerKind::Cache, Some(record)) => {
                    inputs.caches.push(InputCache { record: (*record).clone(), files });
                }
                _ => inputs.model.extend(files),
            }
        }
        inputs.model.sort_by(|one, other| one.path.cmp(&other.path));
        inputs
    }

    /// Whether `layers` tells of all files that the images list in a layer, and of no others of the model.
    pub(crate) fn are_told(&self, index: usize, layers: &LayerInputs) -> bool {
        let Some(layer) = self.layers.get(index) else { return false };
        let files = layers.get(&index).map(Vec::as_slice).unwrap_or_default();
        let told: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        match layer.kind {
            // That a binary was not told of is seen by its digest.
            LayerKind::Base => true,
            // Files that are the same are listed once.
            LayerKind::Cache => told.len() >= layer.files.len(),
            _ => {
                let directory = self.described().model_directory.unwrap_or_default();
                let root = format!("{}/", directory.trim_start_matches('/'));
                let listed: BTreeSet<&str> =
                    layer.files.iter().filter_map(|path| path.strip_prefix(&root)).collect();
                told == listed
            }
        }
    }

    /// Whether a layer has files of the snapshot.
    pub(crate) fn is_of_model(&self, index: usize) -> bool {
        let kind = self.layers.get(index).map(|layer| layer.kind);
        kind.is_some_and(|kind| !matches!(kind, LayerKind::Base | LayerKind::Cache))
    }

    fn bases(&self, layers: &LayerInputs) -> Vec<InputBase> {
        let mut bases: Vec<InputBase> = Vec::new();
        for images in &self.images {
            // Two consumers of a platform have the same base.
            if bases.iter().any(|base| base.platform == images.platform) {
                continue;
            }
            let annotations = &images.plain.annotations;
            let recorded = RecordedOptions::read(annotations).ok().flatten();
            let Some(kind) = recorded.map(|options| options.base) else { continue };
            let digest = match kind {
                RecordedBase::Scratch => continue,
                RecordedBase::Image => annotations.get(BASE_DIGEST).and_then(|text| text.parse().ok()),
                RecordedBase::Binary => {
                    let files = images.plain.layers.first().and_then(|index| layers.get(index));
                    files.and_then(|files| files.first()).map(|file| file.digest)
                }
            };
            bases.push(InputBase { platform: images.platform.clone(), kind, digest });
        }
        bases
    }

    /// What images say of the compile caches, by their layers: those are the last ones of an image.
    fn cache_records(&self) -> BTreeMap<usize, &CacheRecord> {
        let mut records = BTreeMap::new();
        for images in &self.images {
            for facts in images.of_targets.iter().chain([&images.plain]) {
                let first = facts.layers.len().saturating_sub(facts.caches.len());
                records.extend(facts.layers.iter().skip(first).copied().zip(&facts.caches));
            }
        }
        records
    }
}
