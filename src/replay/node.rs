//! The node that a start is replayed on: the snapshotter's configuration. Must not know images.

use serde::Serialize;

use crate::plan::Node;

/// A node's configuration, by the names that stargz-snapshotter's `config.toml` has for it. `docs/snapshotter.md` says what
/// each value does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSettings {
    /// Bytes that are asked for at least and kept as one unit (`[blob] chunk_size`), more than 0.
    pub chunk_size: u64,
    /// Bytes of each request of a prefetch (`[blob] prefetch_chunk_size`); up to `chunk_size`, it is one request.
    pub prefetch_chunk_size: u64,
    /// A layer's prefetch of more bytes than this is not waited for (`prefetch_async_size`); 0 waits for all.
    pub prefetch_async_size: u64,
    /// Seconds that a container waits for prefetch (`prefetch_timeout_sec`).
    pub prefetch_timeout: f64,
    /// Seconds after which a request is given up, its body included (`[resolver] request_timeout_sec`).
    pub request_timeout: f64,
    /// Requests of background fetch at a time, over all layers (`max_concurrency`), more than 0.
    pub max_concurrency: usize,
    /// Whether nothing is fetched in the background (`no_background_fetch`).
    pub no_background_fetch: bool,
    /// Processors: so many chunks of a layer are unpacked and verified at a time, more than 0.
    pub processors: usize,
}

impl Default for NodeSettings {
    /// The snapshotter as it comes, on a machine like this one.
    fn default() -> Self {
        Self::of(&Node::default(), 0, 2)
    }
}

impl NodeSettings {
    /// The configuration that `docs/nodes.md` recommends.
    pub fn recommended() -> Self {
        Self::of(&Node::recommended(), 64 << 20, 4)
    }

    fn of(node: &Node, prefetch_chunk_size: u64, max_concurrency: usize) -> Self {
        Self {
            chunk_size: node.unit,
            prefetch_chunk_size,
            prefetch_async_size: node.prefetch_async_size,
            prefetch_timeout: node.prefetch_timeout,
            request_timeout: node.request_timeout,
            max_concurrency,
            no_background_fetch: false,
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that `docs/nodes.md` names.
    #[test]
    fn recommended_is_what_the_docs_recommend() {
        let text = include_str!("../../docs/nodes.md");
        let node = NodeSettings::recommended();
        for line in [
            format!("\nprefetch_async_size = {}\n", node.prefetch_async_size),
            format!("\nmax_concurrency = {}\n", node.max_concurrency),
            format!("\nchunk_size = {}\n", node.chunk_size),
            format!("\nprefetch_chunk_size = {}\n", node.prefetch_chunk_size),
            format!("\nrequest_timeout_sec = {}\n", node.request_timeout),
        ] {
            assert!(text.contains(&line), "{line}");
        }
    }
}
