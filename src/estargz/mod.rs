//! The eStargz layer format: writing it and reading it through ranges.
//!
//! Source: stargz-snapshotter, `docs/estargz.md`. Must not know models, images or registries.
//!
//! A layer is read through anything that gives ranges of it: a file, a registry's blob, memory.
//!
//! ```no_run
//! use starcar::{
//!     blob::FileRange,
//!     estargz::{EstargzReader, Files},
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let path = std::path::Path::new("layer.esgz");
//! let layer = FileRange::open(path, 0, path.metadata()?.len())?;
//! let reader = EstargzReader::open(&layer, None)?;
//! let files = Files::of(&reader)?;
//! for (path, file) in files.iter() {
//!     println!("{path}: {} bytes in {} chunks", file.size, file.chunks.len());
//! }
//! let header = files.read(&layer, "models/model.safetensors", 0, 8)?;
//! files.verify(&layer, "models/config.json")?;
//! # drop(header);
//! # Ok(())
//! # }
//! ```

mod files;
pub mod footer;
mod reader;
pub mod toc;
mod writer;

pub(crate) use self::files::clean;
pub use self::{
    files::{Chunk, File, Files},
    reader::{EstargzReader, ReadError},
    writer::Estargz,
};

/// Name of the tar entry that holds the table of contents (TOC).
pub const TOC_NAME: &str = "stargz.index.json";

/// Name of the entry that ends the prioritised files: a node fetches everything before it at mount.
pub const PREFETCH_LANDMARK: &str = ".prefetch.landmark";

/// Name of the entry that says that nothing in the layer is prioritised.
pub const NO_PREFETCH_LANDMARK: &str = ".no.prefetch.landmark";

/// The one byte that a landmark holds.
pub const LANDMARK_CONTENT: u8 = 0x0f;

/// Descriptor annotation: digest of the uncompressed TOC JSON. A layer without it is not mounted lazily.
pub const TOC_DIGEST_ANNOTATION: &str = "containerd.io/snapshot/stargz/toc.digest";

/// Descriptor annotation: size in bytes of the uncompressed tar stream, in decimal.
pub const UNCOMPRESSED_SIZE_ANNOTATION: &str = "io.containers.estargz.uncompressed-size";

/// Every multiple of this many bytes of a file must begin a chunk: stargz-snapshotter in passthrough mode
/// merges a file in buffers of this size and panics on a chunk that straddles two (stargz-snapshotter#2068).
pub const MERGE_BUFFER_SIZE: u64 = 419_430_400;

/// A file's first chunk is at least this many bytes, if the file is: the snapshotter allocates a pointer for
/// every `size / first chunk size`.
pub const FIRST_CHUNK_MIN: u64 = 64 * 1024;
