//! Compile caches: what torch.compile, vLLM, Triton and FlashInfer leave on disk so that the next start need not
//! compile again. Finds them, tells what they are good for without running or unpickling anything, says what will
//! not survive a move, and mends what can be mended. Must not know layers or OCI.

pub mod check;
mod contract;
mod error;
mod examine;
mod find;
pub mod gpu;
pub mod host;
mod identical;
pub mod identity;
mod kind;
pub mod lint;
mod relocate;
mod rules;
mod tree;
mod walk;

pub use self::{
    contract::{AT_DEFAULT, CacheRecord, Contract, MOUNTED_AT_DEFAULT, Variable},
    error::CacheError,
    examine::{Examined, examine},
    find::{Found, find},
    identical::identical,
    kind::Kind,
    relocate::{Relocated, directories_to_create, flashinfer_base, is_plain_directory, relocate},
    rules::{LEFT_OUT, LeaveOutRule},
    tree::{CacheDirectory, CacheFile, CacheTree, LeftOut},
    walk::walk,
};
