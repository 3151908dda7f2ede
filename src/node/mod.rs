//! Nodes that start containers from images before they are pulled: the settings to write there (`config`), and whether
//! a node has what it takes (`check`). Must not know how either is printed, nor how images are packed.

pub mod check;
pub mod config;
mod keys;

pub use crate::version::Version;

use crate::registry::known_registry;

/// Where stargz-snapshotter reads its settings.
pub const SNAPSHOTTER_CONFIG: &str = "/etc/containerd-stargz-grpc/config.toml";
/// Where stargz-snapshotter listens.
pub const SNAPSHOTTER_SOCKET: &str = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock";
/// Where stargz-snapshotter keeps layers.
pub const SNAPSHOTTER_ROOT: &str = "/var/lib/containerd-stargz-grpc";
/// Where containerd reads its settings.
pub const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
/// Where containerd listens.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Where podman and CRI-O read how images are kept.
pub const STORAGE_CONFIG: &str = "/etc/containers/storage.conf";
/// Where stargz-store shows layers to podman and CRI-O.
pub const STORE_MOUNT: &str = "/var/lib/stargz-store/store";
/// Where containerd looks for registries' `hosts.toml`.
const CERTIFICATES: &str = "/etc/containerd/certs.d";

/// The recommended settings; docs/measurements.md says what they bring.
mod recommended {
    /// Bytes of prefetch above which a container does not wait for it.
    pub(super) const PREFETCH_ASYNC_SIZE: i64 = 16 << 20;
    /// Tasks of background fetch at a time.
    pub(super) const MAX_CONCURRENCY: i64 = 4;
    /// Bytes of a unit.
    pub(super) const CHUNK_SIZE: i64 = 4 << 20;
    /// Bytes of a part of a prefetch.
    pub(super) const PREFETCH_CHUNK_SIZE: i64 = 64 << 20;
    /// Seconds that a request may take.
    pub(super) const REQUEST_TIMEOUT_SEC: i64 = 600;
}

/// Whether a registry is known not to answer requests for several ranges. The snapshotter finds that out by itself only
/// where the answer is 400 (`fs/remote/resolver.go`).
fn single_range(host: &str) -> bool {
    known_registry(host).is_some_and(|known| known.many_ranges == Some(false))
}
