//! A part's config as bytes of a stranger: read, and found to be one that images can be made of. Pure.

use std::collections::HashSet;

use super::{PartsError, check::layers};
use crate::{
    compile_cache::CacheRecord,
    oci::{DOCUMENT_MAX, OciError, canonical_json, is_tag, variant_tag},
    pack::{
        Packed, Part,
        part::{FORMAT_VERSION, PartDocument, PartPlan, PartVersions},
    },
};

/// Most images that a plan may have: one for each platform, consumer and target.
const IMAGES_MAX: usize = 1024;

/// The config of a part, which makes sense by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct PartConfig(pub(super) PartDocument);

impl PartConfig {
    /// Reads the config of the part that `name` names in errors.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(name: &str, text: &[u8]) -> Result<Self, PartsError> {
        let name = || name.to_owned();
        let not_a_part = |reason: String| PartsError::NotAPart { name: name(), reason };
        let versions: PartVersions =
            serde_json::from_slice(text).map_err(|error| not_a_part(error.to_string()))?;
        if versions.format_version != FORMAT_VERSION {
            return Err(not_a_part(format!(
                "starcar {} wrote it in version {} of the format, and this one knows {FORMAT_VERSION}",
                versions.starcar_version.escape_debug(),
                versions.format_version
            )));
        }
        let PartVersions { starcar_version: found, part, .. } = versions;
        let own = env!("CARGO_PKG_VERSION");
        // Before the rest is read, in which other versions may say more.
        if found != own {
            return Err(PartsError::Version { part, name: name(), found, own });
        }
        let document: PartDocument =
            serde_json::from_slice(text).map_err(|error| not_a_part(error.to_string()))?;
        let actual = document.plan.digest().map_err(|error| not_a_part(error.to_string()))?;
        let expected = document.plan_digest;
        if actual != expected {
            return Err(PartsError::Damaged { part, name: name(), expected, actual });
        }
        check(&document.plan).map_err(not_a_part)?;
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
        Ok(Self(document))
    }

    /// Which part it is.
    pub fn part(&self) -> Part {
        self.0.part
    }

    /// The config as it is stored.
    ///
    /// # Errors
    /// None that is known: it is numbers and text.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        canonical_json(&self.0)
    }

    /// The image that this part makes alone, if it has all layers.
    ///
    /// # Errors
    /// When a layer is not in it once, or the documents would be too large.
    pub fn image(&self) -> Result<Result<Option<Packed>, OciError>, PartsError> {
        let plan = &self.0.plan;
        let sealed = layers(plan, self.0.layers.iter())?;
        let documents = plan.image.documents(&sealed);
        Ok(documents.map(|named| plan.image.packed(&sealed, &named)))
    }
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
