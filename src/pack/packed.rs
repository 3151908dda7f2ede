//! What a pack came to, as programs are told. Must not know how it came about.

use serde::Serialize;

use super::Inputs;
use crate::{compile_cache::CacheRecord, digest::Digest};

/// What was packed: an image, or an index of images for several platforms.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Packed {
    /// Digest of the manifest, or of the index.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// The config; an index has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PackedBlob>,
    /// The platform; an index is for those of its images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Who reads the image, where not all can, or there is another for others of the same layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<&'static str>,
    /// The layers, lowest first; those of an index are its images'.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<PackedLayer>,
    /// The compile caches in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<CacheRecord>,
    /// The images of an index, one for each platform, or each consumer on it, in the order that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Packed>,
    /// Images, or indexes, with the compile caches of one GPU target each, sorted by target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<PackedVariant>,
    /// What went into all of it; empty in the images of an index, in variants, and in what was assembled of parts that were
    /// not asked for it. Metadata does not list it.
    #[serde(skip)]
    pub inputs: Inputs,
}

/// An image, or an index, with the compile caches of one GPU target.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackedVariant {
    /// The target.
    pub target: String,
    /// The image.
    #[serde(flatten)]
    pub image: Packed,
}

/// A blob without meaning.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackedBlob {
    /// Digest.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// A layer that was packed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackedLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the uncompressed tar stream.
    pub diff_id: Digest,
    /// Size of the uncompressed tar stream in bytes.
    pub uncompressed_size: u64,
    /// Media type.
    pub media_type: String,
    /// What the layer is for.
    pub kind: &'static str,
    /// Paths in the image of the model's files in it, in physical order.
    pub files: Vec<String>,
}

impl Packed {
    /// The images: those of an index, or the image itself.
    pub fn images(&self) -> impl Iterator<Item = &Self> {
        let own = self.platforms.is_empty().then_some(self);
        own.into_iter().chain(&self.platforms)
    }
}
