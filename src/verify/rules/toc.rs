//! Rules about footers, and about what entries of tables of contents say of themselves.
//!
//! Source: stargz-snapshotter, `docs/estargz.md` and `estargz/zstdchunked`, and what its readers make of it.

use super::{Depth, EVERY, FETCH, LAZY, NONE, Rule, Severity};

/// The rules of this table.
pub(super) const TOC_RULES: &[&Rule] = &[
    &FOOTER_MISSING,
    &FOOTER_LEGACY,
    &FOOTER_OFFSET,
    &TOC_EXTERNAL,
    &TOC_ANNOTATION_MISSING,
    &TOC_ANNOTATION_MALFORMED,
    &TOC_DIGEST,
    &TOC_UNREADABLE,
    &TOC_NAME,
    &TOC_TRAILING,
    &TOC_FRAME,
    &TOC_LENGTH,
    &TOC_POSITION_MISSING,
    &TOC_POSITION_DIFFERS,
    &TOC_ANNOTATIONS_BOTH,
    &TAR_SPLIT_MISSING,
    &TAR_SPLIT_PLACE,
    &TAR_SPLIT_DIGEST,
    &TAR_SPLIT_DAMAGED,
    &TAR_SPLIT_FILES,
    &TOC_VERSION,
    &TOC_EMPTY,
    &TOC_RESERVED_NAME,
    &SIZE_ANNOTATION_MISSING,
    &SIZE_ANNOTATION_MALFORMED,
    &ENTRY_NAME,
    &ENTRY_NAME_UNCLEAN,
    &ENTRY_DUPLICATE,
    &ENTRY_TYPE,
    &ENTRY_NUMBER,
    &ENTRY_MODE,
    &ENTRY_TIME,
    &ENTRY_LINK,
    &ENTRY_XATTR,
    &ENTRY_DIGEST,
    &ENTRY_FIELDS,
    &HARDLINK_TARGET,
    &HARDLINK_KIND,
    &HARDLINK_ORDER,
    &PARENT_MISSING,
    &PARENT_KIND,
    &PARENT_SYMLINK,
];

/// A layer whose descriptor names a table of contents and that does not end in a footer of eStargz or zstd:chunked.
pub static FOOTER_MISSING: Rule = Rule {
    code: "footer-missing",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a layer whose descriptor names a table of contents and that does not end in a footer of eStargz or zstd:chunked",
    consequence: "The snapshotter cannot mount the layer: the blob is cut short, was compressed again, or has bytes behind its end",
    remedy: "push or copy the image again, with tools that leave blobs alone",
};

/// A layer with the footer from before eStargz.
pub static FOOTER_LEGACY: Rule = Rule {
    code: "footer-legacy",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a layer with the footer from before eStargz",
    consequence: "Newer readers understand it, others do not, and such layers have no digests of chunks",
    remedy: "convert the image again with a current tool",
};

/// A footer that places the table of contents outside the layer.
pub static FOOTER_OFFSET: Rule = Rule {
    code: "footer-offset",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a footer that places the table of contents outside the layer",
    consequence: "The snapshotter cannot mount the layer",
    remedy: "pack the image again",
};

/// A layer whose table of contents is kept in another image.
pub static TOC_EXTERNAL: Rule = Rule {
    code: "toc-external",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a layer whose table of contents is kept in another image",
    consequence: "Nodes need that image too, and a snapshotter that is configured to look for it",
    remedy: "convert the image without an external table of contents",
};

/// A layer with a table of contents whose descriptor does not name its table of contents.
pub static TOC_ANNOTATION_MISSING: Rule = Rule {
    code: "toc-annotation-missing",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "an eStargz or zstd:chunked layer whose descriptor does not name its table of contents",
    consequence: "The layer is not mounted lazily: containerd pulls it and all layers above it",
    remedy: "convert or copy the image with tools that keep annotations (Docker's types have none)",
};

/// An annotation that should hold the digest of the table of contents and does not.
pub static TOC_ANNOTATION_MALFORMED: Rule = Rule {
    code: "toc-annotation-malformed",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "an annotation that should hold the digest of the table of contents and does not",
    consequence: "The layer is not mounted lazily",
    remedy: "pack the image again",
};

/// A table of contents that has another digest than its descriptor says.
pub static TOC_DIGEST: Rule = Rule {
    code: "toc-digest",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a table of contents that has another digest than its descriptor says",
    consequence: "The snapshotter refuses the layer",
    remedy: "push or copy the image again; if it stays, the layer was changed after it was packed",
};

/// A table of contents that is not JSON, packed as the format has it.
pub static TOC_UNREADABLE: Rule = Rule {
    code: "toc-unreadable",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a table of contents that is not JSON in a tar entry in a gzip member, or in zstd:chunked in a zstd frame",
    consequence: "The snapshotter cannot mount the layer; a JSON reader as lax as Go's takes some that strict ones refuse (null, -1, no UTF-8)",
    remedy: "pack the image again",
};

/// A table of contents whose tar entry has another name than stargz.index.json.
pub static TOC_NAME: Rule = Rule {
    code: "toc-name",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a table of contents whose tar entry has another name than stargz.index.json",
    consequence: "The snapshotter cannot mount the layer",
    remedy: "pack the image again",
};

/// Bytes behind the JSON in the table of contents' entry or frame.
pub static TOC_TRAILING: Rule = Rule {
    code: "toc-trailing",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "bytes behind the JSON in the table of contents' entry or frame",
    consequence: "Readers differ in whether they take them",
    remedy: "pack the image again",
};

/// A table of contents of zstd:chunked that does not lie in a skippable frame.
pub static TOC_FRAME: Rule = Rule {
    code: "toc-frame",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a table of contents of zstd:chunked that is not in a skippable frame, or not all of it",
    consequence: "Decoders cannot skip it: whoever unpacks the layer fails there; stargz-snapshotter goes by the footer and does not look",
    remedy: "pack the image again",
};

/// A footer of zstd:chunked that states another length of the table of contents' JSON than it has.
pub static TOC_LENGTH: Rule = Rule {
    code: "toc-length",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a footer of zstd:chunked that states another length of the table of contents' JSON than it has",
    consequence: "stargz-snapshotter does not look; readers that unpack it into so many bytes fail",
    remedy: "pack the image again",
};

/// A `zstd:chunked` layer whose descriptor does not say where its table of contents lies, or of what digest that is.
pub static TOC_POSITION_MISSING: Rule = Rule {
    code: "toc-position-missing",
    severity: Severity::Note,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a zstd:chunked layer whose descriptor does not say where its table of contents lies, or which digest that has compressed",
    consequence: "stargz-snapshotter does not ask; stargz-store reads footer and table one after the other in place of at once",
    remedy: "convert or copy the image with tools that keep annotations",
};

/// An annotation of the place or the compressed digest of a table of contents that is not right.
pub static TOC_POSITION_DIFFERS: Rule = Rule {
    code: "toc-position-differs",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an annotation of a zstd:chunked layer that gives another place or compressed digest of the table of contents",
    consequence: "stargz-snapshotter does not look; stargz-store refuses a place behind the layer's end and reads too much from others, and containers/storage refuses the table",
    remedy: "pack the image again",
};

/// A descriptor with the annotations of stargz-snapshotter and of containers/storage.
pub static TOC_ANNOTATIONS_BOTH: Rule = Rule {
    code: "toc-annotations-both",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a descriptor that names a table of contents both to stargz-snapshotter and to containers/storage",
    consequence: "podman and CRI-O refuse the layer: they take it for two formats at once",
    remedy: "push one manifest for each of them: they can share the blob",
};

/// A layer for containers-storage whose descriptor does not say where its tar-split lies, or whose table of contents does not give its digest.
pub static TAR_SPLIT_MISSING: Rule = Rule {
    code: "tar-split-missing",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a layer for containers-storage whose descriptor does not say where its tar-split lies, or whose table of contents does not give its digest",
    consequence: "podman and CRI-O pull the layer whole: without a tar-split they cannot tell that what they pull in part is the same",
    remedy: "convert or copy the image with tools that keep annotations, or pack it again",
};

/// A tar-split that is not in a skippable frame between table of contents and footer where the annotation says, or not of that length.
pub static TAR_SPLIT_PLACE: Rule = Rule {
    code: "tar-split-place",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a tar-split that is not in a skippable frame between table of contents and footer where the annotation says, or not of that length",
    consequence: "podman and CRI-O read other bytes in its place and refuse the layer where they pull in part",
    remedy: "pack the image again",
};

/// A tar-split that has another digest than the table of contents or the annotation says.
pub static TAR_SPLIT_DIGEST: Rule = Rule {
    code: "tar-split-digest",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a tar-split that has another digest than the table of contents or the annotation says",
    consequence: "podman and CRI-O refuse the layer where they pull in part",
    remedy: "pack the image again",
};

/// A tar-split that cannot be unpacked or understood, or that has another length than the annotation says.
pub static TAR_SPLIT_DAMAGED: Rule = Rule {
    code: "tar-split-damaged",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a tar-split that cannot be unpacked or understood, or that has another length than the annotation says",
    consequence: "podman and CRI-O refuse the layer where they pull in part",
    remedy: "pack the image again",
};

/// A tar-split that has other files or sizes than the table of contents.
pub static TAR_SPLIT_FILES: Rule = Rule {
    code: "tar-split-files",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a tar-split that has other files or sizes than the table of contents",
    consequence: "podman and CRI-O refuse the layer where they pull in part: the two have to say the same",
    remedy: "pack the image again",
};

/// A table of contents of another version than 1.
pub static TOC_VERSION: Rule = Rule {
    code: "toc-version",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a table of contents of another version than 1",
    consequence: "Its entries may mean something else; stargz-snapshotter does not look, starcar does not read on",
    remedy: "convert the image with a current tool",
};

/// A table of contents without entries.
pub static TOC_EMPTY: Rule = Rule {
    code: "toc-empty",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a table of contents without entries",
    consequence: "The layer adds nothing to the image",
    remedy: "leave the layer out",
};

/// An entry that has the table of contents' own name.
pub static TOC_RESERVED_NAME: Rule = Rule {
    code: "toc-reserved-name",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an entry that has the table of contents' own name",
    consequence: "Readers take it for the table of contents and hide it",
    remedy: "pack the image again, without such a file",
};

/// A layer with a table of contents whose descriptor does not state its unpacked size.
pub static SIZE_ANNOTATION_MISSING: Rule = Rule {
    code: "size-annotation-missing",
    severity: Severity::Note,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an eStargz or zstd:chunked layer whose descriptor does not state its unpacked size",
    consequence: "containers/storage asks for it; containerd does not",
    remedy: "convert the image with a current tool",
};

/// An annotation of the unpacked size that is no number, or less than the files in the layer.
pub static SIZE_ANNOTATION_MALFORMED: Rule = Rule {
    code: "size-annotation-malformed",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an annotation of the unpacked size that is no number, or less than the files in the layer",
    consequence: "containers/storage refuses the layer",
    remedy: "pack the image again",
};

/// An entry whose name is empty, leads outside, or holds a zero byte.
pub static ENTRY_NAME: Rule = Rule {
    code: "entry-name",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "an entry whose name is empty, leads outside, or holds a zero byte",
    consequence: "Readers drop the entry, or put the file elsewhere",
    remedy: "pack the image again",
};

/// An entry whose name begins with `./` or `/`, or has empty parts.
pub static ENTRY_NAME_UNCLEAN: Rule = Rule {
    code: "entry-name-unclean",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: FETCH,
    description: "an entry below `models/` whose name begins with `./` or `/`, or has empty parts",
    consequence: "KServe's downloader takes names that begin with `models/` only and skips all others",
    remedy: "write names without `./` (tar: name the directory, not `.`)",
};

/// Two entries of one name.
pub static ENTRY_DUPLICATE: Rule = Rule {
    code: "entry-duplicate",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "two entries of one name",
    consequence: "Readers keep one of them, and not all the same one",
    remedy: "pack the image again; base layers are rid of such entries",
};

/// An entry of a type that the format does not have.
pub static ENTRY_TYPE: Rule = Rule {
    code: "entry-type",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "an entry of a type that the format does not have",
    consequence: "Readers leave it out, or refuse the layer",
    remedy: "pack the image again",
};

/// An entry with a number of more than 63 bits.
pub static ENTRY_NUMBER: Rule = Rule {
    code: "entry-number",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "an entry with a number of more than 63 bits",
    consequence: "Readers written in Go refuse the whole table of contents, the snapshotter's among them",
    remedy: "pack the image again",
};

/// An entry whose mode has bits that are no permissions.
pub static ENTRY_MODE: Rule = Rule {
    code: "entry-mode",
    severity: Severity::Note,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an entry whose mode has bits that are no permissions",
    consequence: "None that is known: readers take the permissions of it",
    remedy: "pack the image again",
};

/// An entry whose time is not RFC 3339.
pub static ENTRY_TIME: Rule = Rule {
    code: "entry-time",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an entry whose time is not RFC 3339",
    consequence: "Readers show the year 1 in its place",
    remedy: "pack the image again",
};

/// A link without a target.
pub static ENTRY_LINK: Rule = Rule {
    code: "entry-link",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a link without a target",
    consequence: "Readers show a link to nowhere; on a hard link without a target stargz-snapshotter itself dies, and all lazy mounts of the node with it",
    remedy: "pack the image again",
};

/// An extended attribute that is not base64.
pub static ENTRY_XATTR: Rule = Rule {
    code: "entry-xattr",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "an extended attribute that is not base64",
    consequence: "Readers refuse the table of contents",
    remedy: "pack the image again",
};

/// An entry whose file digest is no SHA-256 digest, or is not that of its only chunk.
pub static ENTRY_DIGEST: Rule = Rule {
    code: "entry-digest",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "an entry whose file digest is no SHA-256 digest, or is not that of its only chunk",
    consequence: "The file cannot be checked",
    remedy: "pack the image again",
};

/// An entry with fields that its type does not have.
pub static ENTRY_FIELDS: Rule = Rule {
    code: "entry-fields",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an entry with fields that its type does not have",
    consequence: "It is not what it seems: readers ignore them, and so would whoever looks for the bytes",
    remedy: "pack the image again",
};

/// A hard link to a file that the layer does not have.
pub static HARDLINK_TARGET: Rule = Rule {
    code: "hardlink-target",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a hard link to a file that the layer does not have",
    consequence: "Unpacking the layer fails, and readers of it fail on the link",
    remedy: "pack the image again",
};

/// A hard link to something that is no file.
pub static HARDLINK_KIND: Rule = Rule {
    code: "hardlink-kind",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a hard link to a directory, or to itself",
    consequence: "Unpacking the layer fails, whatever lazy readers make of it",
    remedy: "pack the image again",
};

/// A hard link that comes before its target.
pub static HARDLINK_ORDER: Rule = Rule {
    code: "hardlink-order",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "a hard link that comes before its target",
    consequence: "Unpacking the layer fails, and the snapshotter's store in a database refuses it",
    remedy: "pack the image again: targets come first",
};

/// An entry whose directory the layer does not list.
pub static PARENT_MISSING: Rule = Rule {
    code: "parent-missing",
    severity: Severity::Note,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an entry whose directory the layer does not list",
    consequence: "Readers make one of their own, 0755 and of root, whatever a lower layer says",
    remedy: "pack the image again: directories are listed before what they hold",
};

/// An entry below something that is no directory.
pub static PARENT_KIND: Rule = Rule {
    code: "parent-kind",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "an entry below something that is no directory and no link to one",
    consequence: "Unpacking the layer fails, whatever lazy readers make of it",
    remedy: "pack the image again",
};

/// An entry below a symbolic link.
pub static PARENT_SYMLINK: Rule = Rule {
    code: "parent-symlink",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "an entry below a symbolic link of the same layer",
    consequence: "Unpacking puts it where the link leads, a lazy mount does not show it there",
    remedy: "pack the image again with the file at its own place",
};
