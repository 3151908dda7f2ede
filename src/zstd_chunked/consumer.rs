//! Who reads the layers of an image, and what their descriptors say to whom. Must not know layers' bytes.
//!
//! stargz-snapshotter and containers-storage read one table of contents, and one blob can have what both want. Their
//! annotations cannot be on one descriptor: containers-storage refuses a layer that has stargz-snapshotter's digest
//! beside its own (`go.podman.io/storage/pkg/chunked/toc`, `GetTOCDigest`).

use serde::{Deserialize, Serialize};

use super::STORAGE_PREFIX;
use crate::estargz::TOC_DIGEST_ANNOTATION;

/// How the names of stargz-snapshotter's annotations begin, but for that of the digest.
const STARGZ_PREFIX: &str = "io.containers.zstd-chunked.";

/// A program that reads layers in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consumer {
    /// stargz-snapshotter, which mounts them.
    Stargz,
    /// containers-storage, the library by which podman, CRI-O and buildah pull.
    ContainersStorage,
}

impl Consumer {
    /// The name that options use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stargz => "stargz",
            Self::ContainersStorage => "containers-storage",
        }
    }

    /// Whether a descriptor for this consumer carries `annotation`, of all that a layer has.
    pub fn takes(self, annotation: &str) -> bool {
        match self {
            Self::Stargz => !annotation.starts_with(STORAGE_PREFIX),
            Self::ContainersStorage => {
                annotation != TOC_DIGEST_ANNOTATION && !annotation.starts_with(STARGZ_PREFIX)
            }
        }
    }
}

/// Whom zstd:chunked layers are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consumers {
    /// stargz-snapshotter alone.
    #[default]
    Stargz,
    /// containers-storage alone.
    ContainersStorage,
    /// Both, with one blob and a manifest for each. An index lists stargz-snapshotter's first: clients that take the
    /// first entry mount lazily where they can, and newer releases of containers-storage's clients look for theirs.
    Both,
}

impl Consumers {
    /// Whether containers-storage is among them.
    pub fn has_storage(self) -> bool {
        self != Self::Stargz
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_annotation_is_for_nobody() {
        for (annotation, stargz, storage) in [
            (TOC_DIGEST_ANNOTATION, true, false),
            ("io.containers.zstd-chunked.manifest-position", true, false),
            ("io.github.containers.zstd-chunked.manifest-position", false, true),
            ("io.containers.estargz.uncompressed-size", true, true),
        ] {
            assert_eq!(Consumer::Stargz.takes(annotation), stargz, "{annotation}");
            assert_eq!(Consumer::ContainersStorage.takes(annotation), storage, "{annotation}");
        }
    }
}
