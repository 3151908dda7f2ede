//! The kinds of compile caches.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What made a cache, and so how it is laid out and found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// vLLM's cache root (`VLLM_CACHE_ROOT`), or the `torch_compile_cache` of one.
    Vllm,
    /// torch Inductor's cache (`TORCHINDUCTOR_CACHE_DIR`), for GPUs or processors.
    Inductor,
    /// Triton's cache (`TRITON_CACHE_DIR`).
    Triton,
    /// FlashInfer's workspace (`FLASHINFER_WORKSPACE_BASE`).
    FlashInfer,
    /// A file that `torch.compiler.save_cache_artifacts` gave.
    Artifacts,
    /// Whatever the user says is a cache.
    Generic,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Vllm, Self::Inductor, Self::Triton, Self::FlashInfer, Self::Artifacts, Self::Generic];

    /// The name that options, labels and directories in the image use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Inductor => "inductor",
            Self::Triton => "triton",
            Self::FlashInfer => "flashinfer",
            Self::Artifacts => "artifacts",
            Self::Generic => "generic",
        }
    }

    /// The environment variable that points an engine to the cache; `None` where there is none.
    pub fn variable(self) -> Option<&'static str> {
        match self {
            Self::Vllm => Some("VLLM_CACHE_ROOT"),
            Self::Inductor => Some("TORCHINDUCTOR_CACHE_DIR"),
            Self::Triton => Some("TRITON_CACHE_DIR"),
            Self::FlashInfer => Some("FLASHINFER_WORKSPACE_BASE"),
            Self::Artifacts | Self::Generic => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("`{text}` is no kind of cache; the kinds are {}", names.join(", "))
        })
    }
}
