//! What follows when a cache and a host differ: read from torch's `SystemInfo.check_compatibility` and cache keys,
//! vLLM's `decorators.py` and `backends.py`, Triton's and FlashInfer's caches. Must not know how values compare.

use serde::Serialize;

use super::Cache;
use crate::compile_cache::{Kind, identity::Attribute};

/// What follows from a difference, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consequence {
    /// Nothing compares it.
    Harmless,
    /// Another key: the cache is not found, and the engine compiles again without a word.
    SilentRecompile,
    /// vLLM does not find the entry or torch refuses it; vLLM compiles again, and fails where
    /// `VLLM_FORCE_AOT_LOAD=1`.
    Refused,
    /// The code is found and does not run, or not rightly.
    Crash,
}

/// The attributes that decide whether a cache is used.
pub(super) fn attributes(cache: Cache) -> &'static [Attribute] {
    use Attribute as A;
    match (cache.kind, cache.processor) {
        (Kind::Vllm, false) => &[
            A::Backend,
            A::Architecture,
            A::GpuName,
            A::Cuda,
            A::Rocm,
            A::Python,
            A::Torch,
            A::Triton,
            A::EngineVersion,
            A::Model,
            A::TensorParallel,
            A::DataParallel,
            A::Rank,
        ],
        (Kind::Vllm, true) => &[
            A::Backend,
            A::Architecture,
            A::InstructionSet,
            A::Python,
            A::Torch,
            A::EngineVersion,
            A::Model,
            A::TensorParallel,
            A::DataParallel,
            A::Rank,
        ],
        (Kind::Inductor | Kind::Artifacts, false) => {
            &[A::Backend, A::Architecture, A::GpuName, A::Cuda, A::Rocm, A::Python, A::Torch, A::Triton]
        }
        (Kind::Inductor | Kind::Artifacts, true) => {
            &[A::Backend, A::Architecture, A::InstructionSet, A::Python, A::Torch]
        }
        (Kind::Triton, _) => &[A::Backend, A::Architecture, A::Triton],
        (Kind::FlashInfer, _) => &[A::Architecture, A::FlashInfer, A::Cuda, A::Python],
        (Kind::Generic, _) => &[
            A::Backend,
            A::Architecture,
            A::GpuName,
            A::InstructionSet,
            A::Cuda,
            A::Rocm,
            A::Python,
            A::Torch,
            A::Triton,
            A::EngineVersion,
            A::FlashInfer,
        ],
    }
}

/// What follows when `attribute` differs.
pub(super) fn consequence(cache: Cache, attribute: Attribute, values: &[&str], host: &str) -> Consequence {
    use Attribute as A;
    let same_release = || values.iter().any(|value| release(value) == release(host));
    match attribute {
        // A key of Inductor does not name the processor; it finds code that was made for other vectors.
        A::Architecture | A::InstructionSet if cache.processor => Consequence::Crash,
        A::DeviceIndex => Consequence::Crash,
        // The key has the packages' directory, which names Python's release, and nothing else of Python.
        A::Python if !cache.aot && same_release() => Consequence::Harmless,
        // Torch compares the release; the rest is in a key, and that only in part of vLLM's.
        A::Triton if cache.aot && same_release() => Consequence::SilentRecompile,
        A::Architecture | A::GpuName | A::Python | A::Torch | A::Triton | A::Cuda | A::Rocm if cache.aot => {
            Consequence::Refused
        }
        _ => Consequence::SilentRecompile,
    }
}

impl Consequence {
    /// What happens, in words.
    pub(super) fn text(self, cache: Cache) -> &'static str {
        match (self, cache.kind) {
            (Self::Harmless, _) => "nothing compares it",
            (Self::SilentRecompile, Kind::Vllm) => {
                "vLLM looks for another key and compiles again; on a read-only mount it crashes"
            }
            (Self::SilentRecompile, Kind::FlashInfer) => {
                "FlashInfer builds again, which takes minutes and needs nvcc and ninja"
            }
            (Self::SilentRecompile, Kind::Generic) => "the cache is probably not used",
            (Self::SilentRecompile, _) => "another key is looked for, and all is compiled again",
            (Self::Refused, _) => {
                "the entry is not found or torch refuses it, and vLLM compiles again; with \
                 VLLM_FORCE_AOT_LOAD=1, and on a read-only mount, it crashes"
            }
            (Self::Crash, _) => "the code is found and may not run here, or give wrong results",
        }
    }
}

/// What to do about a difference.
pub(super) fn remedy(cache: Cache, attribute: Attribute, host: &str) -> String {
    match attribute {
        Attribute::Architecture | Attribute::InstructionSet if cache.processor => {
            "make the cache on a processor like the host's".to_owned()
        }
        Attribute::Backend => format!("make the cache for {host}"),
        Attribute::Architecture => format!("make the cache on a GPU of {host}"),
        Attribute::GpuName => format!("make the cache on {host}"),
        Attribute::Model => format!("make the cache with --model {host}, or serve it under the cache's name"),
        Attribute::TensorParallel => format!("make the cache with --tensor-parallel-size {host}"),
        Attribute::DataParallel => format!("make the cache with --data-parallel-size {host}"),
        Attribute::DeviceIndex => {
            "make the cache on the first GPU: CUDA_VISIBLE_DEVICES chooses it".to_owned()
        }
        _ => "make the cache with the image that will run it".to_owned(),
    }
}

/// The first two numbers of a version: `3.12` of `3.12.4`.
pub(super) fn release(version: &str) -> (&str, &str) {
    let mut numbers = version.split(['.', '+']);
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}
