//! A part as an artifact: a manifest whose layers are the part's, so that a registry keeps them, and a config that says
//! all that assembling the image takes. Must not know who made it, or where it lies.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, MediaType};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{PartPlan, number::Part};
use crate::{
    digest::Digest,
    layer::{self, SealedLayer},
    oci::{OciError, STARCAR_PREFIX, canonical_json, descriptor},
    pack::{Told, inputs::LayerInputs},
};

/// Type of the artifact, and of its config.
pub const PART_TYPE: &str = "application/vnd.starcar.part.v1+json";
/// Version of the config. What changes its meaning takes another.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Largest config that is read, in bytes: that of a part with a cache of 100,000 files has some 55 MiB.
pub(crate) const CONFIG_MAX: u64 = 64 << 20;

/// Names of annotations of the manifest, behind the common prefix.
const PART: &str = "part";
const PLAN: &str = "part.plan";
const IMAGE_TAG: &str = "part.image-tag";

/// The config of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PartDocument {
    /// [`FORMAT_VERSION`].
    pub(crate) format_version: u32,
    /// Version of the starcar that made it.
    pub(crate) starcar_version: String,
    /// Which part it is.
    pub(crate) part: Part,
    /// What the tag of its image is in its own tag (`number::stem`): equal parts of two images are two manifests, so that
    /// removing the one leaves the other.
    pub(crate) image_tag: String,
    /// Digest of `plan`.
    pub(crate) plan_digest: Digest,
    /// The plan of the whole image.
    pub(crate) plan: PartPlan,
    /// What is known of the content of files, by path.
    pub(crate) known_digests: BTreeMap<String, Vec<String>>,
    /// The part's layers, ascending.
    pub(crate) layers: Vec<PartLayer>,
    /// What documents about the image tell beside all that; `None` where the part's maker did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) made_of: Option<MadeOf>,
}

/// What a worker knows of what its part was made of, and how it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MadeOf {
    /// What all workers were told alike.
    pub(crate) told: Told,
    /// The files that went into the part's layers.
    pub(crate) files: LayerInputs,
}

/// A layer of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PartLayer {
    /// Which layer of the plan it is.
    pub(crate) index: usize,
    /// Digest of the blob.
    pub(crate) digest: Digest,
    /// Size of the blob in bytes.
    pub(crate) size: u64,
    /// Digest of the uncompressed tar stream.
    pub(crate) diff_id: Digest,
    /// Size of the uncompressed tar stream in bytes.
    pub(crate) uncompressed_size: u64,
    /// Media type.
    pub(crate) media_type: String,
    /// Annotations of the descriptor for all consumers together.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What the annotations of a part's manifest say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PartLabel {
    /// Which part it is.
    pub(crate) part: String,
    /// Digest of its plan.
    pub(crate) plan: String,
    /// [`PartDocument::image_tag`].
    pub(crate) image_tag: String,
}

/// What tells whether the rest of a config is understood.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartVersions {
    pub(crate) format_version: u32,
    pub(crate) starcar_version: String,
    pub(crate) part: Part,
}

/// The documents of a part, ready to be stored.
pub(super) struct BuiltPart {
    pub(super) config: Vec<u8>,
    pub(super) manifest: Vec<u8>,
    pub(super) descriptor: Descriptor,
    pub(super) digest: Digest,
}

impl PartLayer {
    pub(super) fn of(index: usize, sealed: &SealedLayer) -> Self {
        Self {
            index,
            digest: sealed.digest,
            size: sealed.size,
            diff_id: sealed.diff_id,
            uncompressed_size: sealed.uncompressed_size,
            media_type: sealed.media_type.to_string(),
            annotations: sealed.annotations.clone(),
        }
    }

    /// The layer as if it had been sealed here, but without its bytes; `None` where its media type is none of a layer.
    pub(crate) fn sealed(&self) -> Option<SealedLayer> {
        let types = [layer::MediaType::Tar, layer::MediaType::TarGzip, layer::MediaType::TarZstd];
        Some(SealedLayer {
            digest: self.digest,
            size: self.size,
            diff_id: self.diff_id,
            uncompressed_size: self.uncompressed_size,
            media_type: types.into_iter().find(|one| one.to_string() == self.media_type)?,
            annotations: self.annotations.clone(),
            files: Vec::new(),
            blob: None,
        })
    }
}

impl PartLabel {
    /// What a part's manifest says of itself; `None` of any other manifest.
    pub(crate) fn of(manifest: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Labelled {
            artifact_type: String,
            annotations: BTreeMap<String, String>,
        }
        let mut found = serde_json::from_slice::<Labelled>(manifest).ok()?;
        let mut take = |name: &str| found.annotations.remove(&format!("{STARCAR_PREFIX}{name}"));
        let (part, plan, image_tag) = (take(PART)?, take(PLAN)?, take(IMAGE_TAG)?);
        (found.artifact_type == PART_TYPE).then_some(Self { part, plan, image_tag })
    }
}

impl PartDocument {
    /// The artifact. It has no time in it: a part that is made twice is the same twice.
    pub(super) fn build(&self) -> Result<BuiltPart, OciError> {
        let wrong = |error: serde_json::Error| OciError::Document {
            what: "config",
            place: format!("part {}", self.part),
            reason: error.to_string(),
        };
        let config = canonical_json(self).map_err(wrong)?;
        let mut layers: Vec<serde_json::Value> = self
            .layers
            .iter()
            .map(|layer| {
                json!({
                    "mediaType": layer.media_type,
                    "digest": layer.digest.to_string(),
                    "size": layer.size,
                    "annotations": layer.annotations,
                })
            })
            .collect();
        let described = json!({
            "mediaType": PART_TYPE,
            "digest": Digest::of(&config).to_string(),
            "size": config.len(),
        });
        if layers.is_empty() {
            // A manifest should list something (OCI image specification, "Image Manifest").
            layers.push(described.clone());
        }
        let manifest = canonical_json(&json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.to_string(),
            "artifactType": PART_TYPE,
            "config": described,
            "layers": layers,
            "annotations": {
                (format!("{STARCAR_PREFIX}{PART}")): self.part.to_string(),
                (format!("{STARCAR_PREFIX}{PLAN}")): self.plan_digest.to_string(),
                (format!("{STARCAR_PREFIX}{IMAGE_TAG}")): self.image_tag,
            },
        }))
        .map_err(wrong)?;
        let digest = Digest::of(&manifest);
        let mut descriptor = descriptor(digest, manifest.len() as u64, MediaType::ImageManifest.as_ref())?;
        descriptor.set_artifact_type(Some(PART_TYPE.into()));
        Ok(BuiltPart { config, manifest, descriptor, digest })
    }
}
