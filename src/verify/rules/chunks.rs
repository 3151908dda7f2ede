//! Rules about where tables of contents say that the bytes of files are, and about landmarks.
//!
//! Source: stargz-snapshotter, `docs/estargz.md`, and what its readers make of it.

use super::{Depth, LAZY, NONE, Rule, Severity};

/// The rules of this table.
pub(super) const CHUNK_RULES: &[&Rule] = &[
    &DATA_OFFSET,
    &DATA_ORDER,
    &DATA_OVERLAP,
    &DATA_SIZE,
    &INNER_OFFSET,
    &CHUNK_ORPHAN,
    &CHUNK_GAP,
    &CHUNK_OVERLAP,
    &CHUNK_EMPTY,
    &CHUNK_BEYOND_END,
    &CHUNK_MISSING,
    &CHUNK_DIGEST_MISSING,
    &CHUNK_DIGEST_MALFORMED,
    &CHUNK_MERGE_BUFFER,
    &CHUNK_FIRST_SMALL,
    &LANDMARK_MISSING,
    &LANDMARK_BOTH,
    &LANDMARK_MISPLACED,
    &LANDMARK_CONTENT,
];

/// An entry whose bytes would lie outside the layer's payloads.
pub static DATA_OFFSET: Rule = Rule {
    code: "data-offset",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "an entry whose bytes would lie outside the layer's payloads",
    consequence: "The snapshotter reads something else, and its check of the chunk fails",
    remedy: "pack the image again",
};

/// An entry whose bytes would lie before those of the entry in front of it.
pub static DATA_ORDER: Rule = Rule {
    code: "data-order",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "an entry whose bytes would lie before those of the entry in front of it",
    consequence: "Prefetch and readers take the order of entries for that of bytes: the end of one chunk is the start of the next",
    remedy: "pack the image again",
};

/// Two entries whose bytes would lie in the same place.
pub static DATA_OVERLAP: Rule = Rule {
    code: "data-overlap",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "two entries whose bytes would lie in the same place",
    consequence: "One of them is read as the other, and the check of its chunk fails",
    remedy: "pack the image again",
};

/// A chunk that is larger than what its place in the layer could unpack to.
pub static DATA_SIZE: Rule = Rule {
    code: "data-size",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a chunk that is larger than what its place in the layer could unpack to",
    consequence: "The chunk cannot be read",
    remedy: "pack the image again",
};

/// Chunks that share a gzip member or a zstd frame.
pub static INNER_OFFSET: Rule = Rule {
    code: "inner-offset",
    severity: Severity::Note,
    depth: Depth::Quick,
    breaks: NONE,
    description: "chunks that share a gzip member or a zstd frame",
    consequence: "Snapshotters before 0.13 cannot read them",
    remedy: "convert the image without a smallest chunk size, if such nodes are left",
};

/// A chunk that follows no file.
pub static CHUNK_ORPHAN: Rule = Rule {
    code: "chunk-orphan",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a chunk that follows no file",
    consequence: "Readers leave the chunk out, and the file it belongs to lacks its bytes",
    remedy: "pack the image again",
};

/// Chunks of a file that leave a gap.
pub static CHUNK_GAP: Rule = Rule {
    code: "chunk-gap",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "chunks of a file that leave a gap",
    consequence: "A read of the gap fails",
    remedy: "pack the image again",
};

/// Chunks of a file that overlap, or are not in order.
pub static CHUNK_OVERLAP: Rule = Rule {
    code: "chunk-overlap",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "chunks of a file that overlap, or are not in order",
    consequence: "A read gives other bytes than the file's, or fails",
    remedy: "pack the image again",
};

/// A chunk of no bytes, which readers take for all of the rest.
pub static CHUNK_EMPTY: Rule = Rule {
    code: "chunk-empty",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a chunk of no bytes, which readers take for all of the rest",
    consequence: "Reads of the file never get to its other chunks",
    remedy: "pack the image again",
};

/// A chunk that reaches beyond the end of its file.
pub static CHUNK_BEYOND_END: Rule = Rule {
    code: "chunk-beyond-end",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a chunk that reaches beyond the end of its file",
    consequence: "A read of the file's end fails",
    remedy: "pack the image again",
};

/// A file whose chunks end before it does.
pub static CHUNK_MISSING: Rule = Rule {
    code: "chunk-missing",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a file whose chunks end before it does",
    consequence: "A read of the file's end fails",
    remedy: "pack the image again",
};

/// A chunk without a digest.
pub static CHUNK_DIGEST_MISSING: Rule = Rule {
    code: "chunk-digest-missing",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a chunk without a digest",
    consequence: "The snapshotter refuses the layer: it mounts only what it can check",
    remedy: "convert the image with a current tool",
};

/// A chunk whose digest is no SHA-256 digest.
pub static CHUNK_DIGEST_MALFORMED: Rule = Rule {
    code: "chunk-digest-malformed",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: LAZY,
    description: "a chunk whose digest is no SHA-256 digest",
    consequence: "The snapshotter refuses the layer",
    remedy: "pack the image again",
};

/// A chunk that lies across a multiple of 419,430,400 bytes of its file.
pub static CHUNK_MERGE_BUFFER: Rule = Rule {
    code: "chunk-merge-buffer",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a chunk that lies across a multiple of 419,430,400 bytes of its file",
    consequence: "Nodes in passthrough mode panic when the file is opened (stargz-snapshotter#2068)",
    remedy: "pack with starcar, or with chunks of a power of two",
};

/// A large file whose first chunk is smaller than 64 KiB.
pub static CHUNK_FIRST_SMALL: Rule = Rule {
    code: "chunk-first-small",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a large file whose first chunk is smaller than 64 KiB",
    consequence: "The snapshotter allocates memory by it when the file is opened: gigabytes, for a large file",
    remedy: "pack with starcar, or with larger chunks",
};

/// A layer without a landmark.
pub static LANDMARK_MISSING: Rule = Rule {
    code: "landmark-missing",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a layer without a landmark",
    consequence: "The snapshotter prefetches by its own configuration, maybe all of the layer, and a container waits for it",
    remedy: "convert the image with a current tool",
};

/// A layer with both landmarks.
pub static LANDMARK_BOTH: Rule = Rule {
    code: "landmark-both",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a layer with both landmarks",
    consequence: "Which of them counts depends on the reader",
    remedy: "pack the image again",
};

/// A landmark that is not where it means something: not at the root, or not first or behind prioritised files.
pub static LANDMARK_MISPLACED: Rule = Rule {
    code: "landmark-misplaced",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a landmark that is not where it means something: not at the root, or not first or behind prioritised files",
    consequence: "It is an ordinary file, or prefetch brings nothing, or more than was meant",
    remedy: "pack the image again",
};

/// A landmark that is not a file with the one byte 0x0f.
pub static LANDMARK_CONTENT: Rule = Rule {
    code: "landmark-content",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a landmark that is not a file with the one byte 0x0f",
    consequence: "Readers that look closely do not take it for one",
    remedy: "pack the image again",
};
