//! The zstd:chunked layer format: eStargz's table of contents (TOC) over zstd frames, with chunks at the same places. It is
//! read by [`crate::estargz::EstargzReader`], which knows both.
//!
//! ```text
//! zstd frames: tar headers, chunks, …, end of the archive ─ skippable frame: TOC ─ skippable frame: footer
//! ```
//!
//! stargz-snapshotter mounts that. For containers-storage, which pulls in part, a tar-split lies in a skippable frame
//! behind the TOC.
//!
//! Source: stargz-snapshotter, `estargz/zstdchunked`; `go.podman.io/storage` 1.65, `pkg/chunked`; RFC 8878. Must not know
//! models, images or registries.

mod consumer;
pub mod footer;
mod split_reader;
mod table;
mod tar_split;
mod writer;

pub use self::{
    consumer::{Consumer, Consumers},
    table::Table,
    writer::ZstdChunked,
};
pub(crate) use self::{
    split_reader::{Part, SplitReader},
    table::frame_content,
};

/// Descriptor annotation: digest of the compressed TOC.
pub const MANIFEST_CHECKSUM_ANNOTATION: &str = "io.containers.zstd-chunked.manifest-checksum";

/// Descriptor annotation: where the TOC lies, as `OFFSET:COMPRESSED LENGTH:LENGTH:1`, in bytes.
pub const MANIFEST_POSITION_ANNOTATION: &str = "io.containers.zstd-chunked.manifest-position";

/// The name of an annotation of containers-storage.
macro_rules! storage_name {
    ($name:literal) => {
        concat!("io.github.containers.zstd-chunked.", $name)
    };
}

/// How the names of containers-storage's annotations begin.
pub(crate) const STORAGE_PREFIX: &str = storage_name!("");

/// What containers-storage calls [`MANIFEST_CHECKSUM_ANNOTATION`].
pub const STORAGE_CHECKSUM_ANNOTATION: &str = storage_name!("manifest-checksum");

/// What containers-storage calls [`MANIFEST_POSITION_ANNOTATION`].
pub const STORAGE_POSITION_ANNOTATION: &str = storage_name!("manifest-position");

/// Descriptor annotation for containers-storage: digest of the compressed tar-split. Only releases 1.48 to 1.54 look at
/// it; later ones take the digest from the TOC.
pub const TAR_SPLIT_CHECKSUM_ANNOTATION: &str = storage_name!("tarsplit-checksum");

/// Descriptor annotation for containers-storage: where the tar-split lies, as `OFFSET:COMPRESSED LENGTH:LENGTH`, in bytes.
pub const TAR_SPLIT_POSITION_ANNOTATION: &str = storage_name!("tarsplit-position");

/// Annotation of an index's entry: its layers are zstd. Of entries for one platform clients with containers-storage take
/// the first that has it (`go.podman.io/image`, `internal/manifest/oci_index.go`, since 5.25).
pub const ZSTD_ENTRY_ANNOTATION: (&str, &str) = ("io.github.containers.compression.zstd", "true");

/// Bytes in front of the content of a skippable frame: magic and length.
pub const SKIPPABLE_HEADER: usize = 8;

/// How the skippable frames of the format begin.
const SKIPPABLE_MAGIC: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];

/// The only known kind of TOC.
const MANIFEST_TYPE: u64 = 1;

/// A frame that decoders skip around `content`, or `None` when it is 4 GiB or longer.
fn skippable(content: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(content.len()).ok()?;
    Some([&SKIPPABLE_MAGIC[..], &length.to_le_bytes(), content].concat())
}
