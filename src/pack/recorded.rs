//! How an image was packed, as it says itself: enough to pack it again and to get the same digests. Must not know images'
//! documents, or who asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FormatChoice, PackOptions};
use crate::{
    base::BaseChoice,
    digest::Digest,
    oci::STARCAR_PREFIX,
    plan::{Compression, Nodes, Prefetch},
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
    /// Which files are compressed.
    pub compression: Compression,
    /// Globs of files that are left out.
    pub exclude: Vec<String>,
    /// Globs of files that are packed alone.
    pub include: Vec<String>,
    /// Deflate level; `None` in images of plain tar.
    pub level: Option<u32>,
    /// Largest number of layers.
    pub max_layers: usize,
    /// The nodes that the image is for.
    pub nodes: Nodes,
    /// Which files a node fetches before a container runs.
    pub prefetch: Prefetch,
    /// Time that the image and the model's files bear, seconds since 1970.
    pub timestamp: i64,
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
    /// What `options` say.
    pub fn of(options: &PackOptions) -> Self {
        Self {
            base: match options.base {
                BaseChoice::Scratch => RecordedBase::Scratch,
                BaseChoice::Binary(_) => RecordedBase::Binary,
                BaseChoice::Image(_) => RecordedBase::Image,
            },
            cache_at: options.caches.at.clone(),
            chunk_size: options.chunk_size,
            compression: options.compression,
            exclude: options.files.exclude.clone(),
            include: options.files.include.clone(),
            level: match options.format {
                FormatChoice::Estargz { level } => Some(level),
                FormatChoice::Tar => None,
            },
            max_layers: options.max_layers,
            nodes: options.nodes,
            prefetch: options.prefetch,
            timestamp: options.modified,
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

    /// Sets all of them in `options`, but for the base, of which only the kind is known.
    pub fn apply(&self, options: &mut PackOptions) {
        options.caches.at.clone_from(&self.cache_at);
        options.chunk_size = self.chunk_size;
        options.compression = self.compression;
        options.files.exclude.clone_from(&self.exclude);
        options.files.include.clone_from(&self.include);
        options.format = self.level.map_or(FormatChoice::Tar, |level| FormatChoice::Estargz { level });
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
