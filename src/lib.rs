//! starcar packs Hugging Face model snapshots into KServe-style OCI *modelcar* images whose layers are
//! seekable eStargz or zstd:chunked, so that a node can start from them before it has pulled them.

pub mod assemble;
pub mod attach;
pub mod base;
pub mod blob;
pub mod cli;
pub mod compile_cache;
pub mod copy;
pub mod deploy;
pub mod digest;
pub mod digest_cache;
pub mod estargz;
pub mod glob;
pub mod hub;
pub mod inspect;
pub mod layer;
pub mod literal_deflate;
pub mod members;
pub mod naming;
pub mod natural;
pub mod node;
pub mod oci;
mod own_file;
pub mod pack;
pub mod pending;
pub mod plan;
pub mod profile;
pub mod progress;
pub mod provenance;
pub mod push;
pub mod registry;
pub mod replay;
pub mod report;
pub mod snapshot;
pub mod verify;
pub mod version;
pub mod zstd_chunked;
