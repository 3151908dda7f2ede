//! Layers: entries of a tar stream in physical order, and the pipeline that turns them into a blob in one
//! pass over the sources, whatever the blob's format. Must not know models, images or registries.

mod entry;
mod error;
mod file_hash;
mod format;
mod pax;
mod pipeline;
mod plain_tar;
mod recorder;
mod seal;
mod segment;
mod tar_header;
pub mod tar_reader;
mod work;

pub use self::{
    entry::{Content, Data, Entry, EntryKind, Expected, Storage},
    error::LayerError,
    format::{LayerFormat, MediaType, Tail, WrittenChunk, WrittenEntry},
    plain_tar::PlainTar,
    recorder::{Recorder, StoredChunk},
    seal::{SealOptions, SealedLayer, Workers, seal, seal_recorded},
};
pub(crate) use self::{
    tar_header::{header_blocks, padding, tar_name, tar_tail},
    work::is_worth_unpacking,
};
