//! Profiles beside images: attached as artifacts that refer to the image, and found by the image's name. Must not know
//! what a profile says.

use std::sync::Arc;

use oci_spec::image::Descriptor;

use crate::{
    blob::MemoryBlob,
    digest::Digest,
    oci::{
        Artifact, ImageSource, Layout, OciError, Platform, descriptor, digest_of, empty_config,
        for_asked_platform, for_platform,
    },
    profile::{BYTES_MAX, Profile, ProfileError},
    progress::Unobserved,
    push::push_blobs,
    registry::{Reference, Registry},
};

/// Type of the artifact and of its one layer.
pub const PROFILE_TYPE: &str = "application/vnd.starcar.profile.v1+json";
/// The layer's name, for tools that write an artifact's layers to files.
const TITLE: &str = "profile.json";

/// Why profiles cannot be attached or found.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The image, or the artifact, cannot be read or written.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// What is attached is no profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Nothing is attached.
    #[error("no profile is attached to {image} ({digest})")]
    None {
        /// The image.
        image: String,
        /// Digest of its manifest.
        digest: Digest,
    },
}

/// A profile that is attached to an image.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Digest of the artifact's manifest.
    pub digest: Digest,
    /// The profile.
    pub profile: Profile,
}

/// Attaches a profile to the image that `image` describes, in the reference's repository. Doing so again changes
/// nothing. Returns the digest of the artifact's manifest.
///
/// # Errors
/// When the registry refuses, or will list the artifact nowhere.
pub fn attach_profile(
    registry: &Registry,
    reference: &Reference,
    image: &Descriptor,
    profile: &Profile,
) -> Result<Digest, OciError> {
    let content = profile.to_json().into_bytes();
    let artifact = Artifact::new(PROFILE_TYPE, TITLE, &content, image)?;
    let config = MemoryBlob::new(empty_config());
    push_blobs(
        registry,
        reference,
        None,
        &[Arc::new(config), Arc::new(MemoryBlob::new(content))],
        &Unobserved,
    )?;
    let media_type = artifact.descriptor.media_type().to_string();
    Ok(registry.push_referrer(reference, &media_type, &artifact.manifest)?)
}

/// Attaches a profile to the image of a layout that `image` describes. Doing so again changes nothing. Returns the
/// digest of the artifact's manifest.
///
/// # Errors
/// When the layout cannot be written to.
pub fn attach_profile_in_layout(
    layout: &Layout,
    image: &Descriptor,
    profile: &Profile,
) -> Result<Digest, OciError> {
    let content = profile.to_json().into_bytes();
    let artifact = Artifact::new(PROFILE_TYPE, TITLE, &content, image)?;
    for blob in [empty_config(), &content, &artifact.manifest] {
        layout.add_blob(blob)?;
    }
    layout.list(artifact.descriptor)?;
    Ok(artifact.digest)
}

/// Describes the image or index that a source names; with a platform, the image of an index for it.
///
/// # Errors
/// When it cannot be read, or lacks the platform.
pub fn describe(source: &dyn ImageSource, platform: Option<&Platform>) -> Result<Descriptor, OciError> {
    let mut document = source.root_document()?;
    if let Some(platform) = platform {
        document = for_asked_platform(source, document, platform)?;
    }
    descriptor(document.digest, document.bytes.len() as u64, &document.media_type)
}

/// The profiles that are attached to an image, sorted by digest; of an index, those of the image for `platform`, and
/// where that has none, the index's own. A source that names an attached profile itself has that one.
///
/// # Errors
/// [`AttachError::None`] where there are none; else what cannot be read.
pub fn attached_profiles(
    source: &dyn ImageSource,
    platform: &Platform,
) -> Result<Vec<Attached>, AttachError> {
    let root = source.root_document()?;
    let document: Document = understood(source, "manifest", &root.bytes)?;
    if document.artifact_type.as_deref() == Some(PROFILE_TYPE) {
        return Ok(vec![Attached {
            digest: root.digest,
            profile: profile_of(source, root.digest, &document)?,
        }]);
    }
    let index = root.digest;
    let image = match for_platform(source, root, platform) {
        Ok(image) => image.digest,
        // An index may be for other platforms, and its profile for all of them.
        Err(OciError::NoSuchPlatform { .. }) => index,
        Err(error) => return Err(error.into()),
    };
    let mut found = source.referrers(image, Some(PROFILE_TYPE))?;
    if found.is_empty() && index != image {
        found = source.referrers(index, Some(PROFILE_TYPE))?;
    }
    let mut profiles: Vec<Attached> = Vec::new();
    for artifact in found {
        let digest = digest_of(&artifact, &source.place())?;
        let document: Document = understood(source, "manifest", &source.manifest(&artifact)?)?;
        profiles.push(Attached { digest, profile: profile_of(source, digest, &document)? });
    }
    if profiles.is_empty() {
        return Err(AttachError::None { image: source.place(), digest: image });
    }
    profiles.sort_by_key(|attached| attached.digest);
    Ok(profiles)
}

/// What is read of an artifact's manifest.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    artifact_type: Option<String>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

fn understood<T: serde::de::DeserializeOwned>(
    source: &dyn ImageSource,
    what: &'static str,
    bytes: &[u8],
) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|error| OciError::Document {
        what,
        place: source.place(),
        reason: error.to_string(),
    })
}

/// Reads the profile that an artifact holds.
fn profile_of(source: &dyn ImageSource, digest: Digest, document: &Document) -> Result<Profile, AttachError> {
    let name = format!("{digest}, attached to {},", source.place());
    let wrong = |reason: &str| ProfileError::Format { name: name.clone(), reason: reason.to_owned() };
    let [layer] = document.layers.as_slice() else {
        return Err(wrong("its artifact has not one layer").into());
    };
    if layer.size() > BYTES_MAX as u64 {
        let reason = format!("it has {} bytes, more than {BYTES_MAX}", layer.size());
        return Err(ProfileError::TooLarge { name, reason }.into());
    }
    let mut text = Vec::new();
    source.copy_blob(digest_of(layer, &source.place())?, layer.size(), &mut text)?;
    Ok(Profile::parse(&name, &text)?)
}
