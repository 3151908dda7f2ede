//! Compile caches: what torch.compile, vLLM, Triton and FlashInfer leave on disk so that the next start need not
//! compile again. Finds them, tells what they are good for without running or unpickling anything, says what will
//! not survive a move, and mends what can be mended. Must not know layers or OCI.

mod error;
mod find;
pub mod identity;
mod kind;
pub mod lint;
mod rules;
mod tree;
mod walk;

pub use self::{
    error::CacheError,
    find::{Found, find},
    kind::Kind,
    rules::{LEFT_OUT, LeaveOutRule},
    tree::{CacheDirectory, CacheFile, CacheTree, LeftOut},
    walk::walk,
};
