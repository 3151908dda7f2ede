//! OCI images: names, config, manifest, layouts on disk, archives. Must not know models.

mod archive;
mod canonical;
mod error;
mod image;
mod index;
mod layout;
mod platform;
mod read;
mod referrers;
mod target;

pub(crate) use self::read::read_document;
pub use self::{
    archive::{Archive, write_archive},
    canonical::canonical_json,
    error::OciError,
    image::{BuiltImage, ConfigOptions, ImageLayer, build_image, descriptor},
    index::{BuiltIndex, IndexEntry, LISTED_MAX, ListedImage, build_index, first_platform, listed_images},
    layout::{BlobWriter, Layout},
    platform::Platform,
    read::{
        ImageSource, ReadImage, RegistryImage, RootDocument, digest_of, for_asked_platform, for_platform,
        is_index, open, read_image,
    },
    referrers::{Artifact, empty_config},
    target::{DEFAULT_TAG, Selector, Target, is_tag, variant_tag},
};

/// Annotation of an index entry that names a tag.
pub const REF_NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// Prefix of all annotations and labels that are starcar's own.
pub const STARCAR_PREFIX: &str = "dev.starcar.";

/// Label with the records of an image's compile caches, as JSON.
pub const CACHES_LABEL: &str = "dev.starcar.caches";

/// Longest label of a config, name and value together, in bytes: containerd makes no container of an image with a longer one,
/// because it gives containers the labels of their images.
///
/// Source: containerd, `pkg/labels/validate.go`.
pub const LABEL_MAX: usize = 4_096;

/// Annotation of a manifest that says whom an image is for that not all can read in part.
pub const CONSUMER_ANNOTATION: &str = "dev.starcar.consumer";

/// Media type of Docker's manifests.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Largest manifest, index or config that is read, in bytes: what registries take.
pub const DOCUMENT_MAX: u64 = 4 << 20;
