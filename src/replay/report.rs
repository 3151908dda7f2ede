//! What a replay tells. Plain data; must not know how it came about or how it is shown.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{
    node::NodeSettings,
    record::{Cause, Fetched, Request},
};
use crate::{digest::Digest, profile::Seconds};

/// How a start went.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// The image's name.
    pub image: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Names of the profiles, as they were given.
    pub profile: Vec<String>,
    /// Factor of the profile's pauses.
    pub think_scale: f64,
    /// The node.
    pub node: NodeSettings,
    /// Seconds from the beginning of the pull.
    pub seconds: Times,
    /// When the profile's milestones were reached.
    pub milestones: Vec<Milestone>,
    /// Seconds that reads took, in all.
    #[serde(serialize_with = "rounded")]
    pub waited: f64,
    /// Number of reads that were played.
    pub reads: u64,
    /// Bytes that they read.
    pub read_bytes: u64,
    /// What was fetched until the last read was answered.
    pub total: Fetched,
    /// What was fetched until the container could be created.
    pub at_running: Fetched,
    /// What was fetched for manifest and config.
    pub documents: Fetched,
    /// Where the chunks that were read came from.
    pub chunks: Chunks,
    /// The layers, lowest first.
    pub layers: Vec<ReplayedLayer>,
    /// The reads that took longest, the longest first.
    pub slowest: Vec<SlowRead>,
    /// Paths that the profile reads and no lazily mounted layer has.
    pub absent: Vec<String>,
    /// Whether the replay was stopped at [`super::ReplayOptions::max_seconds`], before its last read was answered. Times that it
    /// did not reach are then the time at which it stopped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// What makes the figures worth less.
    pub warnings: Vec<String>,
    /// All requests, for pictures.
    #[serde(skip)]
    pub requests: Vec<Request>,
    /// When reads waited: position of the layer, and seconds from the beginning of the pull.
    #[serde(skip)]
    pub waits: Vec<(usize, f64, f64)>,
}

/// Points in time, in seconds from the beginning of the pull.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    /// All layers were mounted, or unpacked.
    #[serde(serialize_with = "rounded")]
    pub pulled: f64,
    /// The container could be created: nothing waited for prefetch any more.
    #[serde(serialize_with = "rounded")]
    pub running: f64,
    /// The profile's last read was answered.
    #[serde(serialize_with = "rounded")]
    pub last_read: f64,
}

/// A point of the profile, and when the replay reached it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Milestone {
    /// `firstRead`, `firstWeight` or `lastRead`: a read was answered.
    pub name: &'static str,
    /// When that was in the profile.
    pub profile: Seconds,
    /// Seconds from the beginning of the pull.
    #[serde(serialize_with = "rounded")]
    pub seconds: f64,
}

/// Where chunks came from when they were read; a chunk counts for each read that touches it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chunks {
    /// Prefetch had brought them.
    pub prefetched: u64,
    /// Background fetch had brought them.
    pub background: u64,
    /// An earlier read had brought them.
    pub read_before: u64,
    /// They were not there.
    pub missed: u64,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayedLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// What the layer holds, where its annotations say so.
    pub title: Option<String>,
    /// Why it was pulled whole; absent where it was mounted lazily.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
    /// What was fetched of it.
    pub total: Fetched,
    /// The same, by cause; what caused nothing is left out.
    pub causes: BTreeMap<Cause, Fetched>,
}

/// A read that took long.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowRead {
    /// Path in the image.
    pub path: String,
    /// First byte, and number of bytes.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// Position of the layer, from 0.
    pub layer: usize,
    /// When it began, in seconds from the beginning of the pull.
    #[serde(serialize_with = "rounded")]
    pub at: f64,
    /// How long it took, in seconds.
    #[serde(serialize_with = "rounded")]
    pub seconds: f64,
}

impl Replay {
    /// What was fetched for a reason, of all layers.
    pub fn by_cause(&self, cause: Cause) -> Fetched {
        let mut sum = Fetched::default();
        self.layers.iter().filter_map(|layer| layer.causes.get(&cause)).for_each(|fetched| sum.add(*fetched));
        sum
    }
}

/// Seconds to the millisecond.
// The signature that serde asks for.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn rounded<S: Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((seconds * 1e3).round() / 1e3)
}
