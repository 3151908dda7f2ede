//! Replaying a start: a profile's reads are played against a real image as a node with stargz-snapshotter would serve them, by
//! the same requests in the same order, without a mount. What is modelled and what is not is told in `docs/replay.md`.
//! Must not know how the outcome is printed.

mod background;
mod content;
mod error;
mod layer;
mod node;
mod picture;
mod player;
mod pump;
mod ranges;
mod record;
mod report;
mod session;
mod start;
mod tasks;
mod whole;
mod wire;

use std::path::PathBuf;

pub use self::{
    error::ReplayError,
    node::NodeSettings,
    picture::timeline,
    record::{Cause, Fetched, Request},
    report::{Chunks, Milestone, Replay, ReplayedLayer, SlowRead, Times},
    session::replay,
    wire::ReplayImage,
};
use crate::oci::Platform;

/// Layers of an image that is replayed; overlayfs takes no more.
const LAYERS_MAX: usize = 500;

/// How a start is replayed.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The node.
    pub node: NodeSettings,
    /// Platform of the image, of an index.
    pub platform: Platform,
    /// Where the model lies in the image, without slashes at its ends.
    pub model_directory: String,
    /// Names of the profiles, for the report.
    pub profile_names: Vec<String>,
    /// Factor of the profile's pauses, not negative.
    pub think_scale: f64,
    /// Seconds after which the replay is stopped and reported as far as it came; it goes on to the end without.
    pub max_seconds: Option<f64>,
    /// Where fetched bytes are kept until they are verified.
    pub temporary: PathBuf,
}
