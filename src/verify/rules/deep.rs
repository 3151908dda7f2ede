//! Rules about the bytes of layers, and about what tables of contents say of them.
//!
//! Source: OCI image specification, `layer.md` and `config.md`; stargz-snapshotter, `docs/estargz.md`.

use super::{Depth, EVERY, LAZY, NONE, Rule, Severity};

/// The rules of this table.
pub(super) const DEEP_RULES: &[&Rule] = &[
    &BLOB_DIGEST,
    &DIFF_ID,
    &SIZE_ANNOTATION_DIFFERS,
    &MEMBER_DAMAGED,
    &TAR_DAMAGED,
    &TAR_KIND,
    &TAR_SPARSE,
    &TAR_PADDING,
    &TAR_END,
    &TAR_TRAILING,
    &TOC_NOT_LAST,
    &TAR_MISSING,
    &TAR_EXTRA,
    &TAR_ORDER,
    &TAR_TYPE,
    &TAR_SIZE,
    &TAR_MODE,
    &TAR_OWNER,
    &TAR_OWNER_NAME,
    &TAR_TIME,
    &TAR_LINK,
    &TAR_DEVICE,
    &TAR_XATTR,
    &MEMBER_OFFSET,
    &CHUNK_DIGEST_DIFFERS,
    &FILE_DIGEST_DIFFERS,
    &TAR_SPLIT_DIFFERS,
];

/// A layer whose bytes have another digest than its descriptor says.
pub static BLOB_DIGEST: Rule = Rule {
    code: "blob-digest",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "a layer whose bytes have another digest than its descriptor says",
    consequence: "No runtime takes the layer: the copy is damaged",
    remedy: "copy the image again from where it is right, or pack it again",
};

/// A layer whose unpacked bytes have another digest than the config says.
pub static DIFF_ID: Rule = Rule {
    code: "diff-id",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "a layer whose unpacked bytes have another digest than the config says",
    consequence: "Nodes that pull the whole image refuse the layer",
    remedy: "build the image again with one tool: layer and config come from different ones",
};

/// An annotation of the unpacked size that is not that size.
pub static SIZE_ANNOTATION_DIFFERS: Rule = Rule {
    code: "size-annotation-differs",
    severity: Severity::Warning,
    depth: Depth::Deep,
    breaks: NONE,
    description: "an annotation of the unpacked size that is not that size",
    consequence: "Nodes plan with a wrong size",
    remedy: "convert the image again",
};

/// Compressed bytes that cannot be unpacked, or that are no compressed bytes.
pub static MEMBER_DAMAGED: Rule = Rule {
    code: "member-damaged",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "compressed bytes that cannot be unpacked, or that are no compressed bytes",
    consequence: "Reading the layer fails there, and everything behind it is lost to whoever unpacks it",
    remedy: "copy the image again from where it is right, or pack it again",
};

/// A tar header that is damaged, or a tar stream that is cut short.
pub static TAR_DAMAGED: Rule = Rule {
    code: "tar-damaged",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "a tar header that is damaged, or a tar stream that is cut short",
    consequence: "Nodes that pull the whole image cannot unpack the layer",
    remedy: "copy the image again from where it is right, or pack it again",
};

/// An entry of a kind that layers do not hold.
pub static TAR_KIND: Rule = Rule {
    code: "tar-kind",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "an entry of a kind that layers do not hold",
    consequence: "containerd refuses the layer",
    remedy: "build the layer again without it",
};

/// A file that is stored with holes.
pub static TAR_SPARSE: Rule = Rule {
    code: "tar-sparse",
    severity: Severity::Warning,
    depth: Depth::Deep,
    breaks: NONE,
    description: "a file that is stored with holes",
    consequence: "Tools disagree on what such an entry unpacks to",
    remedy: "build the layer again with a tar that is not told to keep holes",
};

/// Padding in the tar stream that is not zeros.
pub static TAR_PADDING: Rule = Rule {
    code: "tar-padding",
    severity: Severity::Note,
    depth: Depth::Deep,
    breaks: NONE,
    description: "padding in the tar stream that is not zeros",
    consequence: "Nobody reads it; it may hide something",
    remedy: "ask whoever built the layer",
};

/// A tar stream that does not end in the end-of-archive marker, 1024 zero bytes.
pub static TAR_END: Rule = Rule {
    code: "tar-end",
    severity: Severity::Warning,
    depth: Depth::Deep,
    breaks: NONE,
    description: "a tar stream that does not end in the end-of-archive marker, 1024 zero bytes",
    consequence: "Strict readers take the layer for cut short",
    remedy: "build the layer again with a tool that ends archives",
};

/// Bytes behind the end of the tar stream.
pub static TAR_TRAILING: Rule = Rule {
    code: "tar-trailing",
    severity: Severity::Warning,
    depth: Depth::Deep,
    breaks: NONE,
    description: "bytes behind the end of the tar stream",
    consequence: "Nobody reads them; they may hide something",
    remedy: "ask whoever built the layer",
};

/// A table of contents that is not the last entry of the tar stream, or that entries follow.
pub static TOC_NOT_LAST: Rule = Rule {
    code: "toc-not-last",
    severity: Severity::Warning,
    depth: Depth::Deep,
    breaks: NONE,
    description: "a table of contents that is not the last entry of the tar stream, or in zstd:chunked lies in front of entries",
    consequence: "Tools that look for it at the end find something else, and chunks behind it are out of their reach",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// An entry of the table of contents that the tar stream does not have.
pub static TAR_MISSING: Rule = Rule {
    code: "tar-missing",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "an entry of the table of contents that the tar stream does not have",
    consequence: "The file is there where the image is mounted lazily, and missing where it is pulled",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// An entry of the tar stream that the table of contents does not list.
pub static TAR_EXTRA: Rule = Rule {
    code: "tar-extra",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: LAZY,
    description: "an entry of the tar stream that the table of contents does not list",
    consequence: "The file is missing where the image is mounted lazily",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// Entries that the table of contents lists in another order than the tar stream has them.
pub static TAR_ORDER: Rule = Rule {
    code: "tar-order",
    severity: Severity::Warning,
    depth: Depth::Deep,
    breaks: NONE,
    description: "entries that the table of contents lists in another order than the tar stream has them",
    consequence: "Prefetching takes other files than the landmark says",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// An entry that is of another type in the table of contents than in the tar stream.
pub static TAR_TYPE: Rule = Rule {
    code: "tar-type",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "an entry that is of another type in the table of contents than in the tar stream",
    consequence: "What the file is depends on how the image is pulled",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// A file that has another size in the table of contents than in the tar stream.
pub static TAR_SIZE: Rule = Rule {
    code: "tar-size",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "a file that has another size in the table of contents than in the tar stream",
    consequence: "What the file holds depends on how the image is pulled",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// An entry that has another mode in the table of contents than in the tar stream.
pub static TAR_MODE: Rule = Rule {
    code: "tar-mode",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "an entry that has another mode in the table of contents than in the tar stream",
    consequence: "Who may read the file depends on how the image is pulled",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// An entry that has another owner in the table of contents than in the tar stream.
pub static TAR_OWNER: Rule = Rule {
    code: "tar-owner",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "an entry that has another owner in the table of contents than in the tar stream",
    consequence: "Who may read the file depends on how the image is pulled",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// An entry whose owner has another name in the table of contents than in the tar stream.
pub static TAR_OWNER_NAME: Rule = Rule {
    code: "tar-owner-name",
    severity: Severity::Note,
    depth: Depth::Deep,
    breaks: NONE,
    description: "an entry whose owner has another name in the table of contents than in the tar stream",
    consequence: "Nobody reads the names of owners",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// An entry that has another time in the table of contents than in the tar stream.
pub static TAR_TIME: Rule = Rule {
    code: "tar-time",
    severity: Severity::Warning,
    depth: Depth::Deep,
    breaks: NONE,
    description: "an entry that has another time in the table of contents than in the tar stream",
    consequence: "Tools that compare times, as ninja does in compile caches, behave differently by how the image is pulled",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// A link that has another target in the table of contents than in the tar stream.
pub static TAR_LINK: Rule = Rule {
    code: "tar-link",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "a link that has another target in the table of contents than in the tar stream",
    consequence: "What the link leads to depends on how the image is pulled",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// A device that has another number in the table of contents than in the tar stream.
pub static TAR_DEVICE: Rule = Rule {
    code: "tar-device",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "a device that has another number in the table of contents than in the tar stream",
    consequence: "What the device is depends on how the image is pulled",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// An entry that has other extended attributes in the table of contents than in the tar stream.
pub static TAR_XATTR: Rule = Rule {
    code: "tar-xattr",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: EVERY,
    description: "an entry that has other extended attributes in the table of contents than in the tar stream",
    consequence: "Capabilities and labels depend on how the image is pulled",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// A chunk that is not where the table of contents says.
pub static MEMBER_OFFSET: Rule = Rule {
    code: "member-offset",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: LAZY,
    description: "a chunk that is not where the table of contents says",
    consequence: "Reading the file from a lazily mounted image fails, or gives other bytes",
    remedy: "convert the image again: a table of contents has to be made from the stream that it describes",
};

/// A chunk whose bytes have another digest than the table of contents says.
pub static CHUNK_DIGEST_DIFFERS: Rule = Rule {
    code: "chunk-digest-differs",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: LAZY,
    description: "a chunk whose bytes have another digest than the table of contents says",
    consequence: "Reading the chunk from a lazily mounted image fails: what is there is not what was packed",
    remedy: "copy the image again from where it is right, or pack it again",
};

/// A file whose bytes have another digest than the table of contents says.
pub static FILE_DIGEST_DIFFERS: Rule = Rule {
    code: "file-digest-differs",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: NONE,
    description: "a file whose bytes have another digest than the table of contents says",
    consequence: "The file is not what was packed, or the table of contents is wrong about it",
    remedy: "copy the image again from where it is right, or pack it again",
};

/// A tar-split that makes another tar stream than the layer's.
pub static TAR_SPLIT_DIFFERS: Rule = Rule {
    code: "tar-split-differs",
    severity: Severity::Error,
    depth: Depth::Deep,
    breaks: NONE,
    description: "a tar-split that makes another tar stream than the layer's",
    consequence: "podman and CRI-O refuse the layer where they pull in part: what they put together has not the digest that the config says",
    remedy: "pack the image again",
};
