//! An index: what a name leads to that stands for several images, each with what a client chooses it by. Must not know
//! how the images are made, or why there are several.
//!
//! Source: OCI image specification, "Image Index".

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, MediaType};

use super::{
    DOCKER_MANIFEST, OciError, Platform, RootDocument, canonical_json, descriptor,
    read::{is_index, parse},
};
use crate::digest::Digest;

/// Most images of an index that are looked at; known ones list some dozens.
pub const LISTED_MAX: usize = 256;

/// An entry of an index. Several may be for one platform: clients then choose by annotations, or take the first.
#[derive(Debug, Clone)]
pub struct IndexEntry {
    /// The platform that the image is for.
    pub platform: Platform,
    /// Annotations of the descriptor.
    pub annotations: BTreeMap<String, String>,
    /// The image's manifest, or whatever else is listed.
    pub manifest: Descriptor,
}

/// An index, ready to be stored.
#[derive(Debug, Clone)]
pub struct BuiltIndex {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// Its digest.
    pub digest: Digest,
}

/// Builds the index of `entries`, in their order, with `annotations` of its own.
///
/// # Errors
/// When the document cannot be expressed.
pub fn build_index(
    entries: &[IndexEntry],
    annotations: &BTreeMap<String, String>,
) -> Result<BuiltIndex, OciError> {
    let unbuildable = |reason: String| OciError::Document {
        what: "index",
        place: "the image that is packed".to_owned(),
        reason,
    };
    let listed: Vec<Descriptor> = entries
        .iter()
        .map(|entry| {
            let mut listed = entry.manifest.clone();
            listed.set_platform(Some(entry.platform.of_descriptor()?));
            let own = listed.annotations().clone().unwrap_or_default();
            let all: std::collections::HashMap<String, String> =
                own.into_iter().chain(entry.annotations.clone()).collect();
            listed.set_annotations((!all.is_empty()).then_some(all));
            Ok(listed)
        })
        .collect::<Result<_, OciError>>()?;
    let mut index = ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests(listed)
        .build()
        .map_err(|error| unbuildable(error.to_string()))?;
    if !annotations.is_empty() {
        index.set_annotations(Some(annotations.clone().into_iter().collect()));
    }
    let bytes = canonical_json(&index).map_err(|error| unbuildable(error.to_string()))?;
    let digest = Digest::of(&bytes);
    let descriptor = descriptor(digest, bytes.len() as u64, MediaType::ImageIndex.as_ref())?;
    Ok(BuiltIndex { bytes, descriptor, digest })
}

/// What an index of any program lists.
#[derive(Debug, Clone)]
pub struct ListedImage {
    /// The platform; `None` where the index does not state one.
    pub platform: Option<Platform>,
    /// The entry.
    pub descriptor: Descriptor,
}

impl ListedImage {
    /// The platform, or the digest where the index does not state one.
    pub fn name(&self) -> String {
        self.platform.as_ref().map_or_else(|| self.descriptor.digest().to_string(), ToString::to_string)
    }

    /// Whether it is a manifest, and not an index or something else.
    pub fn is_image(&self) -> bool {
        [MediaType::ImageManifest.to_string().as_str(), DOCKER_MANIFEST]
            .contains(&self.descriptor.media_type().to_string().as_str())
    }
}

/// What the index in `root` lists, but for what lies beside images and is not for running, as BuildKit's attestations
/// are: their platform is `unknown/unknown`. `place` is its name, for messages.
///
/// # Errors
/// When it cannot be understood, or lists more than [`LISTED_MAX`].
pub fn listed_images(root: &RootDocument, place: &str) -> Result<Vec<ListedImage>, OciError> {
    let index: ImageIndex = parse(&root.bytes, "index", place)?;
    if index.manifests().len() > LISTED_MAX {
        return Err(OciError::Document {
            what: "index",
            place: place.to_owned(),
            reason: format!(
                "it lists {} images, {LISTED_MAX} at most are looked at",
                index.manifests().len()
            ),
        });
    }
    Ok(index
        .manifests()
        .iter()
        .map(|descriptor| ListedImage {
            platform: descriptor.platform().as_ref().map(|platform| Platform {
                os: platform.os().to_string(),
                architecture: platform.architecture().to_string(),
                variant: platform.variant().clone(),
            }),
            descriptor: descriptor.clone(),
        })
        .filter(|listed| listed.platform.as_ref().is_none_or(|platform| platform.os != "unknown"))
        .collect())
}

/// The platform that an index lists first; `None` where `root` is no index, or states none.
///
/// # Errors
/// When the index cannot be understood.
pub fn first_platform(root: &RootDocument, place: &str) -> Result<Option<Platform>, OciError> {
    if !is_index(&root.media_type) {
        return Ok(None);
    }
    Ok(listed_images(root, place)?.into_iter().find_map(|listed| listed.platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_order_and_may_share_a_platform() {
        let entry = |platform: &str, annotation: &str, content: &[u8]| IndexEntry {
            platform: platform.parse().unwrap(),
            annotations: BTreeMap::from([("for".to_owned(), annotation.to_owned())]),
            manifest: descriptor(Digest::of(content), 1, "application/vnd.oci.image.manifest.v1+json")
                .unwrap(),
        };
        let entries = [
            entry("linux/arm64/v8", "one", b"a"),
            entry("linux/amd64", "one", b"b"),
            entry("linux/amd64", "other", b"c"),
        ];
        let built = build_index(&entries, &BTreeMap::new()).unwrap();
        assert_eq!(built.digest, Digest::of(&built.bytes));
        let value: serde_json::Value = serde_json::from_slice(&built.bytes).unwrap();
        let listed: Vec<String> = value["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                let text = |value: &serde_json::Value| value.as_str().unwrap_or("none").to_owned();
                let platform = &entry["platform"];
                format!(
                    "{} {} {}",
                    text(&platform["architecture"]),
                    text(&platform["variant"]),
                    text(&entry["annotations"]["for"])
                )
            })
            .collect();
        assert_eq!(listed, ["arm64 v8 one", "amd64 none one", "amd64 none other"]);
        assert!(value.get("annotations").is_none());
    }
}
