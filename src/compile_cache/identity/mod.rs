//! What a cache is good for: backend, GPU, versions, ranks and keys, each with where it was found. Bytes are
//! scanned; nothing is unpickled, imported or run, and no length in a file is trusted. Must not know what is
//! wrong with a cache ([`super::lint`]) or what a host has.

mod budget;
mod excerpt;
mod key_factors;
mod names;
mod patterns;
mod pickle;
mod read;
mod scan;
mod settle;
mod system_info;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::{read::Reader, settle::Sightings};
use super::{CacheError, CacheTree};

/// Something that decides whether a cache is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attribute {
    /// `cuda`, `rocm` or `cpu`.
    Backend,
    /// Architecture: `sm_75`, `gfx942`, or a processor's (`x86_64`) where the backend is `cpu`. `sm_90a` stands
    /// there only where nothing says `sm_90`: the letter is about code, and the GPU is the same.
    Architecture,
    /// Architecture of the processor that libraries in the cache are for: `x86_64`, `aarch64`.
    Processor,
    /// The GPU's name, as its driver gives it.
    GpuName,
    /// Number of the GPU's multiprocessors.
    Multiprocessors,
    /// Threads of a warp.
    WarpSize,
    /// Version of the PTX instruction set.
    Ptx,
    /// Version of CUDA.
    Cuda,
    /// Version of `ROCm`.
    Rocm,
    /// Version of Python, as exactly as it is known: `3.12` or `3.12.3`.
    Python,
    /// Version of torch.
    Torch,
    /// Version of Triton.
    Triton,
    /// The engine: `vllm`.
    Engine,
    /// Version of the engine.
    EngineVersion,
    /// Version of FlashInfer.
    FlashInfer,
    /// Ranks, as vLLM writes them: `0_0` is tensor-parallel rank 0 of data-parallel rank 0.
    Rank,
    /// Tensor-parallel size.
    TensorParallel,
    /// Data-parallel size.
    DataParallel,
    /// Index of the device that generated code names: `0` in `cuda:0`.
    DeviceIndex,
    /// The `model` argument.
    Model,
    /// The cache's keys: names of its hash directories.
    Key,
    /// What a key was made from, as far as a cache tells: `config_hash=2a3882727d`. Settings among them are what
    /// the engine was set to, not what it ran on: vLLM writes `VLLM_MAIN_CUDA_VERSION=12.9` on CUDA 12.8.
    KeyFactor,
    /// Format of the artifacts: `binary`, `unpacked` or `aot`.
    Format,
    /// Instruction set that a processor must have: `avx2`, `avx512`.
    InstructionSet,
}

/// What is known of a cache: for each attribute its values, several where a cache holds several, none where
/// nothing tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity {
    facts: BTreeMap<Attribute, Vec<Fact>>,
}

/// A value, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The value.
    pub value: String,
    /// Where it was found, at most [`EVIDENCE_MAX`] places.
    pub evidence: Vec<Evidence>,
}

impl Fact {
    fn support(&mut self, evidence: Evidence) {
        let known = self.evidence.iter().any(|known| known.path == evidence.path);
        if !known && self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push(evidence);
        }
    }
}

/// Where something was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Path in the cache.
    pub path: String,
    /// What was found there: a few words of the file, or what was derived from its name.
    pub found: String,
    /// Place in the file in bytes; `None` where the name or the whole file says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// Most places that are kept for one value.
pub const EVIDENCE_MAX: usize = 3;
/// Most values that are kept for one attribute: a hostile cache can name any number.
pub const VALUES_MAX: usize = 16;

impl Identity {
    /// Adds a value with its evidence, unless there are enough of either. A file is evidence once for a value.
    pub fn add(&mut self, attribute: Attribute, value: impl Into<String>, evidence: Evidence) {
        let value = value.into();
        let facts = self.facts.entry(attribute).or_default();
        match facts.iter().position(|fact| fact.value == value) {
            Some(known) => facts[known].support(evidence),
            None if facts.len() < VALUES_MAX => facts.push(Fact { value, evidence: vec![evidence] }),
            _ => {}
        }
    }

    /// The values of an attribute, in the order in which they were found; empty where nothing tells.
    pub fn facts(&self, attribute: Attribute) -> &[Fact] {
        self.facts.get(&attribute).map_or(&[], Vec::as_slice)
    }

    /// The value of an attribute that has exactly one.
    pub fn only(&self, attribute: Attribute) -> Option<&str> {
        match self.facts(attribute) {
            [fact] => Some(&fact.value),
            _ => None,
        }
    }

    /// All attributes that have a value.
    pub fn iter(&self) -> impl Iterator<Item = (Attribute, &[Fact])> {
        self.facts.iter().map(|(attribute, facts)| (*attribute, facts.as_slice()))
    }
}

/// Identifies a cache from the names of its files and from what stands in them. At most 256 MiB of a file and 2 GiB
/// of a cache are read; of larger ones the head and the tail of each file. Whatever damages a file leaves things
/// unknown; it is no error.
///
/// # Errors
/// [`CacheError::Read`] when a file cannot be read, [`CacheError::Changed`] when one changes meanwhile.
pub fn identify(tree: &CacheTree) -> Result<Identity, CacheError> {
    let mut sightings = Sightings::default();
    names::look(tree, &mut sightings);
    let allowance = budget::allowance(&tree.files.iter().map(|file| file.stamp.size));
    let mut reader = Reader::new(allowance);
    for file in tree.files.iter().filter(|file| read::worth_reading(tree.kind, file)) {
        reader.look(file, &mut sightings)?;
    }
    Ok(settle::settle(sightings))
}
