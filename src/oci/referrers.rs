//! Artifacts: manifests that hold something other than an image, and refer to one. How they are made, and how they are
//! found where there is no registry to ask. Must not know what they are for.
//!
//! Source: OCI image specification 1.1, "Guidelines for Artifact Usage" and "Guidance for an Empty Descriptor".

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, MediaType};
use serde::Deserialize;
use serde_json::json;

use super::{
    DOCUMENT_MAX, ImageSource, OciError, canonical_json, digest_of, image::descriptor, layout::ref_name,
    read::is_index,
};
use crate::digest::Digest;

/// The config of an artifact that has none.
const EMPTY_CONFIG: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// An artifact of one file that refers to an image.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The manifest's bytes. They depend on the file, its name and type, and the image alone.
    pub manifest: Vec<u8>,
    /// The manifest's descriptor, with the artifact's type.
    pub descriptor: Descriptor,
    /// The manifest's digest.
    pub digest: Digest,
}

impl Artifact {
    /// The artifact that `content` is, of the type `kind`, for the image that `subject` describes.
    ///
    /// # Errors
    /// None that is known: the document is plain.
    pub fn new(kind: &str, title: &str, content: &[u8], subject: &Descriptor) -> Result<Self, OciError> {
        let unbuildable = |reason: String| OciError::Document {
            what: "manifest",
            place: format!("the artifact for {}", subject.digest()),
            reason,
        };
        let annotations = BTreeMap::from([("org.opencontainers.image.title", title)]);
        let document = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.to_string(),
            "artifactType": kind,
            "config": { "mediaType": EMPTY_TYPE, "digest": Digest::of(EMPTY_CONFIG).to_string(), "size": EMPTY_CONFIG.len() },
            "layers": [{
                "mediaType": kind,
                "digest": Digest::of(content).to_string(),
                "size": content.len(),
                "annotations": annotations,
            }],
            // Nothing but what identifies the image: an index's entry for it may say more than a tag's.
            "subject": {
                "mediaType": subject.media_type().to_string(),
                "digest": subject.digest().to_string(),
                "size": subject.size(),
            },
        });
        let manifest = canonical_json(&document).map_err(|error| unbuildable(error.to_string()))?;
        let digest = Digest::of(&manifest);
        let mut descriptor = descriptor(digest, manifest.len() as u64, MediaType::ImageManifest.as_ref())?;
        descriptor.set_artifact_type(Some(kind.into()));
        Ok(Self { manifest, descriptor, digest })
    }
}

/// The bytes of an artifact's config.
pub fn empty_config() -> &'static [u8] {
    EMPTY_CONFIG
}

/// What a manifest says of the image that it refers to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referring {
    subject: Option<Descriptor>,
    artifact_type: Option<MediaType>,
    config: Option<Descriptor>,
}

/// Those of `listed` that refer to `subject`, of one artifact type or of all.
pub(super) fn among(
    source: &dyn ImageSource,
    listed: Vec<Descriptor>,
    subject: Digest,
    artifact_type: Option<&str>,
) -> Result<Vec<Descriptor>, OciError> {
    let place = source.place();
    let mut found = Vec::new();
    for mut descriptor in listed {
        // A name is for images; what refers to one is found by the image.
        if ref_name(&descriptor).is_some()
            || descriptor.size() > DOCUMENT_MAX
            || is_index(descriptor.media_type().as_ref())
            || found.iter().any(|other: &Descriptor| other.digest() == descriptor.digest())
        {
            continue;
        }
        let bytes = source.manifest(&descriptor)?;
        // An entry may be of any kind.
        let Ok(manifest) = serde_json::from_slice::<Referring>(&bytes) else { continue };
        let Some(stated) = manifest.subject else { continue };
        let kind = manifest.artifact_type.or(manifest.config.map(|config| config.media_type().clone()));
        let wanted =
            artifact_type.is_none_or(|wanted| kind.as_ref().is_some_and(|kind| kind.as_ref() == wanted));
        if wanted && digest_of(&stated, &place)? == subject {
            descriptor.set_artifact_type(kind);
            found.push(descriptor);
        }
    }
    Ok(found)
}
