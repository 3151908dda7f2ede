//! The settings of stargz-snapshotter, and which version brought each. Must not know which values are good.
//!
//! Source: the configuration types of stargz-snapshotter (`fs/config`, `service`, `service/resolver`, `fusemanager`,
//! `cmd/containerd-stargz-grpc`), compared from one release to the next: 0.9.0, 0.10.1, 0.11.4, 0.12.1, 0.13.0, 0.14.3,
//! 0.15.1, 0.16.3, 0.17.0, 0.18.1, 0.18.2, 0.19.0 and 0.19.1. Others were not to be had.

use super::Version;

/// What a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Integer,
    Text,
}

impl Kind {
    /// Whether a value is of this kind.
    pub(super) fn fits(self, value: &toml::Value) -> bool {
        match self {
            Self::Bool => value.is_bool(),
            Self::Integer => value.is_integer(),
            Self::Text => value.is_str(),
        }
    }

    /// What outputs call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Integer => "a whole number",
            Self::Text => "a text",
        }
    }
}

/// A setting.
#[derive(Debug)]
pub(super) struct Key {
    /// Its table and name, as `blob.chunk_size`.
    pub(super) path: &'static str,
    /// What it holds.
    pub(super) kind: Kind,
    /// The first version that has it; `None` where the oldest of the source has it.
    pub(super) since: Option<Version>,
}

const fn old(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, since: None }
}

const fn new(path: &'static str, kind: Kind, major: u32, minor: u32, patch: u32) -> Key {
    Key { path, kind, since: Some(Version::new(major, minor, patch)) }
}

/// All settings but those of registries, which have names of their own in them ([`MIRROR_KEYS`]).
pub(super) const KEYS: &[Key] = &[
    old("http_cache_type", Kind::Text),
    old("filesystem_cache_type", Kind::Text),
    new("resolve_result_entry_ttl_sec", Kind::Integer, 0, 11, 0),
    old("resolve_result_entry", Kind::Integer),
    old("prefetch_size", Kind::Integer),
    old("prefetch_timeout_sec", Kind::Integer),
    new("prefetch_async_size", Kind::Integer, 0, 18, 2),
    old("noprefetch", Kind::Bool),
    old("no_background_fetch", Kind::Bool),
    old("debug", Kind::Bool),
    old("allow_no_verification", Kind::Bool),
    old("disable_verification", Kind::Bool),
    old("max_concurrency", Kind::Integer),
    old("no_prometheus", Kind::Bool),
    new("log_file_access", Kind::Bool, 0, 18, 2),
    new("metadata_store", Kind::Text, 0, 10, 0),
    old("metrics_address", Kind::Text),
    old("debug_address", Kind::Text),
    old("ipfs", Kind::Bool),
    new("cri_containerd_address", Kind::Text, 0, 19, 0),
    new("cri_containerd_namespace", Kind::Text, 0, 19, 0),
    new("cri_listen_path", Kind::Text, 0, 19, 0),
    new("stargz_snapshotter_address", Kind::Text, 0, 19, 0),
    old("blob.valid_interval", Kind::Integer),
    old("blob.check_always", Kind::Bool),
    old("blob.chunk_size", Kind::Integer),
    old("blob.fetching_timeout_sec", Kind::Integer),
    old("blob.force_single_range_mode", Kind::Bool),
    old("blob.prefetch_chunk_size", Kind::Integer),
    new("blob.max_retries", Kind::Integer, 0, 10, 0),
    new("blob.min_wait_msec", Kind::Integer, 0, 10, 0),
    new("blob.max_wait_msec", Kind::Integer, 0, 10, 0),
    old("directory_cache.max_lru_cache_entry", Kind::Integer),
    old("directory_cache.max_cache_fds", Kind::Integer),
    old("directory_cache.sync_add", Kind::Bool),
    old("directory_cache.direct", Kind::Bool),
    new("directory_cache.fadv_dontneed", Kind::Bool, 0, 18, 1),
    old("fuse.attr_timeout", Kind::Integer),
    old("fuse.entry_timeout", Kind::Integer),
    new("fuse.passthrough", Kind::Bool, 0, 17, 0),
    new("fuse.merge_buffer_size", Kind::Integer, 0, 17, 0),
    new("fuse.merge_worker_count", Kind::Integer, 0, 17, 0),
    new("fuse_manager.enable", Kind::Bool, 0, 17, 0),
    new("fuse_manager.address", Kind::Text, 0, 17, 0),
    new("fuse_manager.path", Kind::Text, 0, 17, 0),
    old("kubeconfig_keychain.enable_keychain", Kind::Bool),
    old("kubeconfig_keychain.kubeconfig_path", Kind::Text),
    old("cri_keychain.enable_keychain", Kind::Bool),
    old("cri_keychain.image_service_path", Kind::Text),
    new("cri_keychain.listen_path", Kind::Text, 0, 17, 0),
    new("snapshotter.allow_invalid_mounts_on_restart", Kind::Bool, 0, 12, 1),
    new("resolver.request_timeout_sec", Kind::Integer, 0, 18, 2),
];

/// Settings of an entry of `resolver.host."HOST".mirrors`; `header` is a table beside them, since 0.13.0.
pub(super) const MIRROR_KEYS: &[Key] =
    &[old("host", Kind::Text), old("insecure", Kind::Bool), old("request_timeout_sec", Kind::Integer)];

/// The setting of a table and a name.
pub(super) fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether a version has a setting.
pub(super) fn knows(version: Version, path: &str) -> bool {
    key(path).is_some_and(|key| key.since.is_none_or(|since| version >= since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_with_versions() {
        assert!(knows(Version::new(0, 18, 2), "prefetch_async_size"));
        assert!(!knows(Version::new(0, 18, 1), "prefetch_async_size"));
        assert!(!knows(Version::new(0, 18, 1), "resolver.request_timeout_sec"));
        assert!(knows(Version::new(0, 9, 0), "blob.chunk_size"));
        assert!(!knows(Version::new(9, 9, 9), "blob.chunksize"));
    }
}
