//! The plan: which file goes to which layer, in what order, cut where, stored or compressed, and why.
//! Pure: no I/O, no clock, no environment; the same input gives the same plan. Must not know bytes or HTTP.

mod cache;
mod chunks;
mod error;
mod estimate;
mod layers;
mod prefetch;
mod storage;

use serde::{Deserialize, Serialize};

pub use self::{
    cache::plan_cache,
    chunks::{CHUNK_SIZE_DEFAULT, CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, ZSTD_CHUNK_SIZE_DEFAULT, chunk_lengths},
    error::PlanError,
    estimate::{Estimate, Link, Node, estimate_eager, estimate_lazy},
    layers::{is_weights, plan},
    prefetch::{ASYNC_PREFETCH_MAX, ASYNC_PREFETCH_MIN, PREFETCH_BYTES_MAX},
    storage::Sample,
};
use crate::{layer::Storage, profile::FileUse};

/// Number of layers of an image that every known consumer takes: CRI-O fails above 128, and a derived image
/// needs a few of its own.
pub const MAX_LAYERS_DEFAULT: usize = 100;

/// A file to be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanFile {
    /// Path in the snapshot, `/` between its parts.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether the content is known to be model weights (a safetensors header, a GGUF magic).
    pub weights: bool,
    /// Length in bytes of the header before the weights, where the format has one.
    pub header: Option<u64>,
    /// How a sample of the content compressed, of weights by the frequency of their bytes alone; `None` when none was
    /// taken.
    pub sample: Option<Sample>,
    /// What a start does with the file; `None` when the profile does not have it, or when there is no profile.
    pub usage: Option<FileUse>,
}

/// How files are laid out.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Which files are compressed.
    pub compression: Compression,
    /// Whether weights are compressed, where a sample says that they shrink.
    pub compress_weights: bool,
    /// Which files a node fetches before a container runs.
    pub prefetch: Prefetch,
    /// The nodes that the image is for.
    pub nodes: Nodes,
    /// Length of a chunk in bytes; chunks end earlier where the profile shows that they should.
    pub chunk_size: u64,
    /// Largest number of layers of the image.
    pub max_layers: usize,
    /// Layers that the base takes of those.
    pub base_layers: usize,
    /// Layers that come on top, of compile caches.
    pub other_layers: usize,
    /// Bytes of the base that a node fetches before a container runs.
    pub base_prefetched: u64,
}

/// Which files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Weights are stored; other files are compressed where a sample says that it pays.
    #[default]
    Auto,
    /// Nothing is compressed.
    Store,
    /// Everything is compressed.
    Gzip,
}

/// Which files lie before the prefetch landmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefetch {
    /// What the profile shows read first, as long as it does not delay the container; see
    /// [`PREFETCH_BYTES_MAX`].
    #[default]
    Auto,
    /// The files that a start reads, but for weights.
    Small,
    /// Every file.
    All,
    /// No file.
    None,
}

/// How the nodes are configured that an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nodes {
    /// As stargz-snapshotter comes: a container waits for everything that is prefetched.
    #[default]
    Default,
    /// As `docs/nodes.md` recommends: a container does not wait for a layer that prefetches more than
    /// [`ASYNC_PREFETCH_MIN`] bytes.
    Recommended,
}

/// The layers of a snapshot, from the lowest to the topmost, base layers not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The layers.
    pub layers: Vec<PlannedLayer>,
}

/// A layer of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedLayer {
    /// What the layer is for.
    pub kind: LayerKind,
    /// Files in physical order.
    pub files: Vec<PlannedFile>,
    /// How many of the files, counted from the first, lie before the prefetch landmark.
    pub prioritized: usize,
}

/// What a layer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerKind {
    /// The base image.
    Base,
    /// Everything but weights.
    Small,
    /// One or more weight shards.
    Weights,
    /// Files that a start does not read.
    Unused,
    /// A compile cache.
    Cache,
}

impl LayerKind {
    /// The name that annotations and outputs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Small => "small",
            Self::Weights => "weights",
            Self::Unused => "unused",
            Self::Cache => "cache",
        }
    }
}

/// A file of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// Index of the file in the planner's input.
    pub index: usize,
    /// How its chunks lie in the layer.
    pub storage: Storage,
    /// Lengths of its chunks in bytes.
    pub chunks: Vec<u64>,
    /// About how many bytes it takes in the layer; a sample tells how well it compresses.
    pub stored: u64,
    /// Why it is stored or compressed and lies where it lies, in words for the user.
    pub reason: String,
}
