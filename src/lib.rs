//! starcar packs Hugging Face model snapshots into KServe-style OCI *modelcar* images whose layers are
//! seekable eStargz, so that a node can start from them before it has pulled them.

pub mod base;
pub mod blob;
pub mod digest;
pub mod estargz;
pub mod layer;
pub mod oci;
pub mod plan;
pub mod registry;
pub mod snapshot;
