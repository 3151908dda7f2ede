//! How an image was packed, as it says itself: enough to pack it again and to get the same digests. Must not know images'
//! documents, or who asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FormatChoice, PackOptions};
use crate::{
    base::BaseChoice,
    digest::Digest,
    oci::{Platform, STARCAR_PREFIX},
    plan::{Compression, Nodes, Prefetch},
    zstd_chunked::Consumers,
};

/// Name of the annotation behind the prefix.
const ANNOTATION: &str = "pack.options";

/// The options that decide an image's bytes, but for what other annotations say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedOptions {
    /// What lies below the model.
    pub base: RecordedBase,
    /// Where the serving side will have compile caches.
    pub cache_at: String,
    /// Largest length of a chunk in bytes.
    pub chunk_size: u64,
    /// Whether weights are compressed too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub compress_weights: bool,
    /// Which files are compressed.
    pub compression: Compression,
    /// Whom zstd:chunked layers are for; `None` where that is stargz-snapshotter alone, or in other formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumers: Option<Consumers>,
    /// Globs of files that are left out.
    pub exclude: Vec<String>,
    /// Globs of files that are packed alone.
    pub include: Vec<String>,
    /// Deflate level; `None` in images of other formats.
    pub level: Option<u32>,
    /// What the image shares its plan with; `None` where it is no part of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<RecordedIndex>,
    /// Largest number of layers.
    pub max_layers: usize,
    /// The nodes that the image is for.
    pub nodes: Nodes,
    /// Which files a node fetches before a container runs.
    pub prefetch: Prefetch,
    /// Time that the image and the model's files bear, seconds since 1970.
    pub timestamp: i64,
    /// Zstd level; `None` in images that are not zstd:chunked. With neither level layers are plain tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zstd_level: Option<u32>,
}

/// Whether an option is off, as in images of versions that did not have it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(option: &bool) -> bool {
    !option
}

/// What images of one index share their plan with: each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedIndex {
    /// Layers of the base that has most.
    pub base_layers: usize,
    /// Bytes that a node prefetches of the base of which it prefetches most.
    pub base_prefetched: u64,
    /// All of their platforms, in the order that was asked for.
    pub platforms: Vec<String>,
}

impl RecordedIndex {
    /// The platforms that can be understood: an image of another program may say anything.
    pub fn platforms(&self) -> impl Iterator<Item = Platform> {
        self.platforms.iter().filter_map(|text| text.parse().ok())
    }
}

/// What kind of base was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordedBase {
    /// None.
    Scratch,
    /// A static binary.
    Binary,
    /// An image; its name and digest are annotations of their own.
    Image,
}

impl RecordedOptions {
    /// What `options` say of an image on `base`, which may be one of an index.
    pub fn of(options: &PackOptions, base: &BaseChoice, index: Option<RecordedIndex>) -> Self {
        Self {
            base: match base {
                BaseChoice::Scratch => RecordedBase::Scratch,
                BaseChoice::Binary(_) => RecordedBase::Binary,
                BaseChoice::Image(_) => RecordedBase::Image,
            },
            cache_at: options.caches.at.clone(),
            chunk_size: options.chunk_size,
            compress_weights: options.compress_weights,
            compression: options.compression,
            consumers: match options.format {
                FormatChoice::ZstdChunked { consumers, .. } => {
                    Some(consumers).filter(|consumers| *consumers != Consumers::default())
                }
                FormatChoice::Estargz { .. } | FormatChoice::Tar => None,
            },
            exclude: options.files.exclude.clone(),
            include: options.files.include.clone(),
            level: match options.format {
                FormatChoice::Estargz { level } => Some(level),
                FormatChoice::ZstdChunked { .. } | FormatChoice::Tar => None,
            },
            index,
            max_layers: options.max_layers,
            nodes: options.nodes,
            prefetch: options.prefetch,
            timestamp: options.modified,
            zstd_level: match options.format {
                FormatChoice::ZstdChunked { level, .. } => Some(level),
                FormatChoice::Estargz { .. } | FormatChoice::Tar => None,
            },
        }
    }

    /// The name and the value of the annotation that keeps them.
    pub(super) fn annotation(&self) -> Option<(String, String)> {
        // A struct of numbers and text can be expressed.
        Some((format!("{STARCAR_PREFIX}{ANNOTATION}"), serde_json::to_string(self).ok()?))
    }

    /// What an image's annotations say; `None` where they say nothing, as in images that starcar did not pack.
    ///
    /// # Errors
    /// What is wrong with the annotation.
    pub fn read(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, String> {
        let text = annotations.get(&format!("{STARCAR_PREFIX}{ANNOTATION}"));
        text.map(|text| serde_json::from_str(text).map_err(|error| error.to_string())).transpose()
    }

    /// The options that all images of a pack have, whatever lies below the model.
    pub(super) fn without_base(self) -> Self {
        Self { base: RecordedBase::Scratch, index: None, ..self }
    }

    /// Sets all of them in `options`, but for the base, of which only the kind is known.
    pub fn apply(&self, options: &mut PackOptions) {
        options.caches.at.clone_from(&self.cache_at);
        options.chunk_size = self.chunk_size;
        options.compress_weights = self.compress_weights;
        options.compression = self.compression;
        options.files.exclude.clone_from(&self.exclude);
        options.files.include.clone_from(&self.include);
        options.format = match (self.level, self.zstd_level) {
            (_, Some(level)) => {
                FormatChoice::ZstdChunked { level, consumers: self.consumers.unwrap_or_default() }
            }
            (Some(level), None) => FormatChoice::Estargz { level },
            (None, None) => FormatChoice::Tar,
        };
        options.index.clone_from(&self.index);
        options.max_layers = self.max_layers;
        options.nodes = self.nodes;
        options.prefetch = self.prefetch;
        options.modified = self.timestamp;
    }
}

/// Digest that an image's annotations give of the profile that it is laid out by; `None` where there is none.
pub fn recorded_profile(annotations: &BTreeMap<String, String>) -> Option<Digest> {
    annotations.get(&format!("{STARCAR_PREFIX}profile.digest"))?.parse().ok()
}
