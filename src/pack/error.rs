//! Why a pack did not finish.

use std::{io, path::PathBuf};

use crate::{
    base::BaseError,
    compile_cache::{CacheError, Kind, lint::Finding},
    digest::Digest,
    layer::LayerError,
    oci::{OciError, Platform},
    plan::PlanError,
    snapshot::SnapshotError,
};

/// Why a snapshot was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The snapshot is not fit to be packed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The base cannot be used.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// There is no platform to pack for.
    #[error("no platform is given to pack for")]
    NoPlatform,
    /// One of several platforms has no base.
    #[error("there is no base for {platform}")]
    PlatformBase {
        /// The platform.
        platform: Platform,
        /// Why its base cannot be used.
        source: Box<BaseError>,
    },
    /// A compile cache has code for processors that no image is for.
    #[error("the compile cache {} is for {processors}, and the image is for {platforms}", path.display())]
    CachePlatform {
        /// The cache's directory.
        path: PathBuf,
        /// The processors that it is for.
        processors: String,
        /// The platforms that are packed.
        platforms: String,
    },
    /// The options allow no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A layer could not be made.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The image could not be written or pushed.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// A compile cache cannot be read or packed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A compile cache must not be shipped.
    #[error("the compile cache {} must not be shipped as it is{}", path.display(), listed(findings))]
    CacheFindings {
        /// The cache's directory.
        path: PathBuf,
        /// What is wrong with it, more than nothing.
        findings: Vec<Finding>,
    },
    /// Two compile caches would be in one image where an engine reads one.
    #[error(
        "{} and {} are both caches of {kind}{}; an image has room for one: merge them, or say which GPUs they are for \
         with --cache {kind}@TARGET=DIR",
        first.display(),
        second.display(),
        target.as_ref().map(|target| format!(" for {target}")).unwrap_or_default()
    )]
    CacheClash {
        /// What made them.
        kind: Kind,
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// The target that both are for; `None` where neither tells.
        target: Option<String>,
    },
    /// A compile cache would be packed as part of the model, too.
    #[error(
        "the compile cache {} is part of the snapshot; leave it out of the model with --exclude, or move it",
        path.display()
    )]
    CacheInSnapshot {
        /// The cache's directory.
        path: PathBuf,
    },
    /// A compile cache could not be made a layer.
    #[error(transparent)]
    CacheLayer(LayerError),
    /// A variant's tag is longer than registries take.
    #[error("the tag `{tag}` of the variant for {target} has more than 128 characters; choose a shorter one")]
    VariantTag {
        /// The tag.
        tag: String,
        /// The target.
        target: String,
    },
    /// The snapshot has something where the compile caches go.
    #[error("the snapshot has {path}, where compile caches go; leave it out with --exclude")]
    CacheDirectory {
        /// The file's path in the snapshot.
        path: String,
    },
    /// A file of the snapshot cannot be looked into.
    #[error("cannot read {}", path.display())]
    Sample {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// The place for the model in the image cannot be used.
    #[error("`{path}` cannot hold the model: {reason}")]
    ModelDirectory {
        /// The directory in the image.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A file's name means something else in a layer.
    #[error(
        "{path} cannot be packed: a name that begins with `.wh.` deletes a file when the image is unpacked; \
         rename it or leave it out with --exclude"
    )]
    Whiteout {
        /// The file's path in the snapshot.
        path: String,
    },
    /// The destination is too small.
    #[error(
        "{} has {available} bytes free and the image needs about {needed}; \
         free some space or push without a copy (--push without --output)",
        path.display()
    )]
    DiskSpace {
        /// The destination.
        path: PathBuf,
        /// Bytes that are free.
        available: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// There is no room for what is compressed.
    #[error(
        "{} has {available} bytes free and packing with compressed weights keeps about {needed} there; \
         set TMPDIR to another place, or write into a layout (--output oci:DIR), which needs no copy",
        path.display()
    )]
    SpoolSpace {
        /// Where temporary files go.
        path: PathBuf,
        /// Bytes that are free.
        available: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// A layer is larger than its registry takes.
    #[error("the layer of {title} has {size} bytes, and {registry} is known to take {limit} at most")]
    LayerTooLarge {
        /// What the layer holds.
        title: String,
        /// Its size in bytes, or about as many where weights are compressed and nothing was read yet.
        size: u64,
        /// The registry.
        registry: String,
        /// The most bytes that a layer may have there.
        limit: u64,
        /// What helps.
        remedy: String,
    },
    /// What the digest cache keeps of a layer is wrong. It is forgotten by now.
    #[error(
        "the digest cache knew the layer of {title} as {expected}, but its files give {actual}; the cache has forgotten \
         the layer: pack again, with --verify-sources to have all others looked at as well"
    )]
    KnownLayer {
        /// What the layer holds.
        title: String,
        /// The digest in the cache.
        expected: Digest,
        /// The digest of what the files give.
        actual: Digest,
    },
    /// The tag that a part would get names something else.
    #[error("{name} is the name that the part gets, and names something that is no part; choose another tag")]
    NotAPart {
        /// The name.
        name: String,
    },
    /// A part was to be written to an archive.
    #[error("a part cannot be written to the archive {}", path.display())]
    PartInArchive {
        /// The archive.
        path: PathBuf,
    },
    /// Threads could not be started.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
}

/// A line for each finding.
fn listed(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |text, finding| text + "\n  " + &finding.to_string())
}
