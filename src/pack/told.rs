//! What documents about an image tell of it and its layers do not: how it was asked for, and the licence. Plain data, which
//! parts carry. There is no directory and no secret in it.

use serde::{Deserialize, Serialize};

use super::{RecordedOptions, blueprint::Blueprint, recorded_profile};
use crate::{digest::Digest, oci::STARCAR_PREFIX, provenance::Licence};

/// What only whoever packs knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Told {
    /// How it was asked for.
    pub given: Given,
    /// The model's licence, where its model card names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<Licence>,
}

/// Options as they were given, without directories and secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Given {
    /// The snapshot: a name on the hub, or the last part of a path.
    pub snapshot: String,
    /// The revision that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The platforms, each with its base, in their order.
    pub platforms: Vec<GivenPlatform>,
    /// The profiles in their order; empty for the one that is used without any.
    pub profiles: Vec<GivenProfile>,
    /// The compile caches in their order.
    pub caches: Vec<GivenCache>,
    /// Whether compile caches that there are warnings about were refused.
    pub strict: bool,
    /// Whether the hub is the public one, whose addresses are known.
    pub is_public_hub: bool,
}

/// A platform as it was given, or by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GivenPlatform {
    /// The platform.
    pub platform: String,
    /// Its base: `scratch`, an image's name, or the last part of a path.
    pub base: String,
}

/// A profile as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GivenProfile {
    /// Its name: a built-in's, an image's, or the last part of a path.
    pub name: String,
    /// SHA-256 of the file, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// A compile cache as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GivenCache {
    /// The last part of its path.
    pub path: String,
    /// What kind it was said to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The GPU target that it was said to be for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What images of a pack say of themselves, as far as documents about them tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Time that they bear, seconds since 1970.
    pub created: i64,
    /// The options that decide their bytes. The base is left out, which platforms have each of their own.
    pub options: Option<RecordedOptions>,
    /// Format of the layers.
    pub layer_format: Option<String>,
    /// Where the model lies.
    pub model_directory: Option<String>,
    /// The model, `org/name`, where it is known.
    pub repository: Option<String>,
    /// Its commit, where it is known.
    pub revision: Option<String>,
    /// Digest of the profile that they are laid out by.
    pub profile: Option<Digest>,
}

impl Blueprint {
    /// What the images say of themselves.
    pub(crate) fn described(&self) -> Described {
        // What an index says is what all of its images say.
        let label = |name: &str| self.index_annotations.get(&format!("{STARCAR_PREFIX}{name}")).cloned();
        let annotations = self.images.first().map(|images| &images.plain.annotations);
        let options = annotations.and_then(|all| RecordedOptions::read(all).ok().flatten());
        Described {
            created: self.created,
            options: options.map(RecordedOptions::without_base),
            layer_format: label("layer-format"),
            model_directory: label("model.directory"),
            repository: label("model.repository"),
            revision: label("model.revision"),
            profile: recorded_profile(&self.index_annotations),
        }
    }
}
