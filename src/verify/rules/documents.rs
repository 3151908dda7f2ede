//! Rules about manifest, config and descriptors.

use super::{Depth, EVERY, FETCH, LAZY, NONE, Rule, Severity};

/// The rules of this table.
pub(super) const DOCUMENTS_RULES: &[&Rule] = &[
    &MANIFEST_DAMAGED,
    &MANIFEST_MALFORMED,
    &MANIFEST_MEDIA_TYPE,
    &DOCKER_MANIFEST,
    &SCHEMA_VERSION,
    &MANIFEST_NO_LAYERS,
    &DESCRIPTOR_DIGEST,
    &CONFIG_DAMAGED,
    &CONFIG_MALFORMED,
    &CONFIG_MEDIA_TYPE,
    &ROOTFS_TYPE,
    &DIFF_ID_COUNT,
    &DIFF_ID_MALFORMED,
    &HISTORY_COUNT,
    &PLATFORM_MISSING,
    &PLATFORM_DIFFERS,
    &LAYER_COUNT,
    &LAYER_MISSING,
    &LAYER_SIZE,
    &RANGES_IGNORED,
    &LAYER_DOCKER_TYPE,
    &LAYER_TYPE_SKIPPED,
    &LAYER_MEDIA_TYPE,
    &LAYER_NOT_TAR,
    &LAYER_COMPRESSION,
    &LAYER_NOT_LAZY,
    &IMAGE_NOT_LAZY,
    &LAYER_UNREAD,
    &TAR_END_UNPADDED,
    &TAG_LATEST,
];

/// A manifest that is missing, or has other bytes than its descriptor says.
pub static MANIFEST_DAMAGED: Rule = Rule {
    code: "manifest-damaged",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a manifest that is missing, or has other bytes than its descriptor says",
    consequence: "Nothing can pull the image",
    remedy: "push or copy the image again",
};

/// A manifest that is no OCI manifest.
pub static MANIFEST_MALFORMED: Rule = Rule {
    code: "manifest-malformed",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a manifest that is no OCI manifest",
    consequence: "Nothing can pull the image",
    remedy: "pack the image again; the message says where the document goes wrong",
};

/// A manifest whose media type is another one than it is stored under.
pub static MANIFEST_MEDIA_TYPE: Rule = Rule {
    code: "manifest-media-type",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a manifest whose media type is another one than it is stored under",
    consequence: "Some refuse a manifest that claims to be something else; containerd takes it",
    remedy: "push the image again with the media type that the document states",
};

/// A manifest of Docker's type.
pub static DOCKER_MANIFEST: Rule = Rule {
    code: "docker-manifest",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a manifest of Docker's type",
    consequence: "Docker's descriptors have no annotations, so no layer is mounted lazily",
    remedy: "convert the image with `skopeo copy --format oci`, or pack it with starcar",
};

/// A manifest whose schemaVersion is not 2.
pub static SCHEMA_VERSION: Rule = Rule {
    code: "schema-version",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a manifest whose schemaVersion is not 2",
    consequence: "Registries refuse it, though containerd does not look",
    remedy: "pack the image again",
};

/// A manifest without layers.
pub static MANIFEST_NO_LAYERS: Rule = Rule {
    code: "manifest-no-layers",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a manifest without layers",
    consequence: "There is no model in the image",
    remedy: "pack the image again",
};

/// A descriptor whose digest is no SHA-256 digest.
pub static DESCRIPTOR_DIGEST: Rule = Rule {
    code: "descriptor-digest",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a descriptor whose digest is no SHA-256 digest",
    consequence: "The blob cannot be asked for, or not be checked",
    remedy: "pack the image again",
};

/// A config that is missing, or has other bytes than its descriptor says.
pub static CONFIG_DAMAGED: Rule = Rule {
    code: "config-damaged",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a config that is missing, or has other bytes than its descriptor says",
    consequence: "Nothing can run the image",
    remedy: "push or copy the image again",
};

/// A config that is no OCI image config.
pub static CONFIG_MALFORMED: Rule = Rule {
    code: "config-malformed",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a config that is no OCI image config",
    consequence: "Nothing can run the image",
    remedy: "pack the image again; the message says where the document goes wrong",
};

/// A config of another media type than OCI's.
pub static CONFIG_MEDIA_TYPE: Rule = Rule {
    code: "config-media-type",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a config of another media type than OCI's",
    consequence: "Runtimes take the manifest for an artifact that is no image",
    remedy: "convert the image with `skopeo copy --format oci`, or pack it with starcar",
};

/// A config whose rootfs is not of type `layers`.
pub static ROOTFS_TYPE: Rule = Rule {
    code: "rootfs-type",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a config whose rootfs is not of type `layers`",
    consequence: "The specification knows no other; containerd does not look",
    remedy: "pack the image again",
};

/// A config that has another number of diffIDs than the manifest has layers.
pub static DIFF_ID_COUNT: Rule = Rule {
    code: "diff-id-count",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a config that has another number of diffIDs than the manifest has layers",
    consequence: "Runtimes refuse the image: they cannot tell which diffID is which layer's",
    remedy: "pack the image again",
};

/// A diffID that is no SHA-256 digest.
pub static DIFF_ID_MALFORMED: Rule = Rule {
    code: "diff-id-malformed",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a diffID that is no SHA-256 digest",
    consequence: "Runtimes cannot check the layer that they unpack",
    remedy: "pack the image again",
};

/// A history that speaks of another number of layers than there are.
pub static HISTORY_COUNT: Rule = Rule {
    code: "history-count",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a history that speaks of another number of layers than there are",
    consequence: "Builders that derive images from this one count layers by it, and fail",
    remedy: "pack the image again",
};

/// A config that states no operating system or no architecture.
pub static PLATFORM_MISSING: Rule = Rule {
    code: "platform-missing",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a config that states no operating system or no architecture",
    consequence: "Nodes cannot tell whether the image is for them, and take it all the same",
    remedy: "pack the image again with --platform",
};

/// A config for another platform than the index lists the image for, or than was asked for.
pub static PLATFORM_DIFFERS: Rule = Rule {
    code: "platform-differs",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a config for another platform than the index lists the image for, or than was asked for",
    consequence: "Nodes pull an image whose programs they cannot run",
    remedy: "pack the image again with --platform",
};

/// More than 128 layers.
pub static LAYER_COUNT: Rule = Rule {
    code: "layer-count",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "more than 128 layers",
    consequence: "CRI-O refuses images of more than 128 layers, and overlayfs ends near there",
    remedy: "pack with a smaller --max-layers: shards then share layers",
};

/// A layer that is not where the image is.
pub static LAYER_MISSING: Rule = Rule {
    code: "layer-missing",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a layer that is not where the image is",
    consequence: "The pull fails",
    remedy: "push or copy the image again",
};

/// A layer of another size than its descriptor says.
pub static LAYER_SIZE: Rule = Rule {
    code: "layer-size",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a layer of another size than its descriptor says",
    consequence: "The pull fails; footer and table of contents are not found",
    remedy: "push or copy the image again",
};

/// A registry that sends whole blobs whatever range is asked for.
pub static RANGES_IGNORED: Rule = Rule {
    code: "ranges-ignored",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a registry that sends whole blobs whatever range is asked for",
    consequence: "Nodes cannot read parts of a layer, so nothing is mounted lazily, and what the layer holds is not known",
    remedy: "serve the image from another registry (`starcar registry check` tries it), or take the proxy away that does this",
};

/// A layer of Docker's media type.
pub static LAYER_DOCKER_TYPE: Rule = Rule {
    code: "layer-docker-type",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a layer of Docker's media type",
    consequence: "Tools that convert between the types lose annotations, and with them lazy mounts",
    remedy: "convert the image with `skopeo copy --format oci`, or pack it with starcar",
};

/// A layer of a media type that `KServe`'s downloader does not know.
pub static LAYER_TYPE_SKIPPED: Rule = Rule {
    code: "layer-type-skipped",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: FETCH,
    description: "a layer of a media type that runtimes know and KServe's downloader does not",
    consequence: "The downloader skips it without a word: the model lacks its files",
    remedy: "give the layer OCI's media type: `skopeo copy --format oci`",
};

/// A layer of a media type that runtimes do not know.
pub static LAYER_MEDIA_TYPE: Rule = Rule {
    code: "layer-media-type",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a layer of a media type that runtimes do not know",
    consequence: "Runtimes refuse it, and KServe's downloader skips it without a word: the model lacks its files",
    remedy: "pack the image again",
};

/// A compressed layer whose media type is that of a tar archive.
pub static LAYER_NOT_TAR: Rule = Rule {
    code: "layer-not-tar",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a compressed layer whose media type is that of a tar archive",
    consequence: "Runtimes unpack it as it is, and fail",
    remedy: "pack the image again",
};

/// A layer that is compressed in another way than its media type says.
pub static LAYER_COMPRESSION: Rule = Rule {
    code: "layer-compression",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: FETCH,
    description: "a layer that is compressed in another way than its media type says",
    consequence: "containerd goes by the first bytes; KServe's downloader and others go by the media type and fail",
    remedy: "pack the image again",
};

/// A layer that cannot be mounted lazily beside some that can.
pub static LAYER_NOT_LAZY: Rule = Rule {
    code: "layer-not-lazy",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a layer that is neither eStargz nor zstd:chunked beside some that are",
    consequence: "containerd pulls this layer, and all above it, before a container starts: only layers below it are mounted lazily",
    remedy: "pack with starcar, which writes the base's layers anew, or convert with `ctr-remote image optimize`",
};

/// An image of which no layer can be mounted lazily.
pub static IMAGE_NOT_LAZY: Rule = Rule {
    code: "image-not-lazy",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "an image of which no layer is eStargz or zstd:chunked",
    consequence: "A container starts when all of the image is pulled and unpacked",
    remedy: "pack with starcar (without --layer-format tar), or convert with `ctr-remote image optimize`",
};

/// A layer without a table of contents that is too large to be looked into, or cannot be unpacked.
pub static LAYER_UNREAD: Rule = Rule {
    code: "layer-unread",
    severity: Severity::Note,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a layer without a table of contents that is too large to be looked into, or cannot be unpacked",
    consequence: "What it holds is not known, so nothing is said of it",
    remedy: "--deep reads it",
};

/// A layer without a table of contents whose tar stream ends within the padding of its last file.
pub static TAR_END_UNPADDED: Rule = Rule {
    code: "tar-end-unpadded",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: FETCH,
    description: "a layer without a table of contents whose tar stream ends within the padding of its last file",
    consequence: "containerd takes it, KServe's downloader fails on it",
    remedy: "build the layer with a tool that ends archives (umoci 0.4 does not)",
};

/// An image that is named by the tag `latest`.
pub static TAG_LATEST: Rule = Rule {
    code: "tag-latest",
    severity: Severity::Note,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an image that is named by the tag `latest`",
    consequence: "Kubernetes then asks the registry at every start (imagePullPolicy Always)",
    remedy: "name the image by a tag of its own, or by digest",
};
