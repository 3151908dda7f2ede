//! What is left out by default, and why: tables, so that documentation and messages can quote them. Must not
//! know how they are applied.

/// A default rule about files that tools leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HousekeepingRule {
    /// Glob for one part of a path, at any depth; a trailing `/` restricts it to directories.
    pub pattern: &'static str,
    /// What such files are, in words.
    pub why: &'static str,
}

/// Files and directories that are never part of a model.
pub const HOUSEKEEPING: &[HousekeepingRule] = &[
    HousekeepingRule { pattern: ".cache/", why: "download records of huggingface_hub" },
    HousekeepingRule { pattern: ".git*", why: "git's own files" },
    HousekeepingRule { pattern: ".no_exist", why: "the hub cache's list of absent files" },
    HousekeepingRule { pattern: ".locks/", why: "the hub cache's locks" },
    HousekeepingRule { pattern: "xet/", why: "chunk cache of hf-xet" },
    HousekeepingRule { pattern: "lost+found/", why: "the file system's own directory" },
    HousekeepingRule { pattern: "*.lock", why: "a lock" },
    HousekeepingRule { pattern: "*.incomplete", why: "an unfinished download" },
    HousekeepingRule { pattern: "*~", why: "an editor's backup" },
    HousekeepingRule { pattern: ".*.sw[op]", why: "an editor's swap file" },
    HousekeepingRule { pattern: ".DS_Store", why: "a file manager's notes" },
    HousekeepingRule { pattern: "Thumbs.db", why: "a file manager's notes" },
    HousekeepingRule { pattern: ".idea/", why: "an editor's settings" },
    HousekeepingRule { pattern: ".vscode/", why: "an editor's settings" },
    HousekeepingRule { pattern: ".ipynb_checkpoints/", why: "a notebook's checkpoints" },
    HousekeepingRule { pattern: "__pycache__/", why: "compiled Python of the machine that ran it" },
];

/// What must be packed for a file to be a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Original {
    /// Safetensors of the same set of weights and variant in the same directory: `pytorch_model.fp16.bin`
    /// has `model.fp16.safetensors`.
    SameSet,
    /// Safetensors named `model*` in the same directory.
    Model,
    /// Safetensors of a model's main weights (`model*`, `*_model*` other than adapters, `consolidated*`) in
    /// the same directory, or for a directory in the one that holds it.
    MainWeights,
}

/// A default rule about weights that are there in another format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuplicateRule {
    /// Glob for a file's name, or with a trailing `/` for the name of a directory.
    pub pattern: &'static str,
    /// What must be packed for the rule to apply.
    pub original: Original,
    /// What such files are, in words.
    pub why: &'static str,
}

/// Copies of weights that are left out. Torch files (`*.bin` and so on) are copies only where their own set
/// is there as safetensors: a lone `speakers.pth` beside `model.safetensors` is not.
pub const DUPLICATES: &[DuplicateRule] = &[
    rule("consolidated*.pth", Original::MainWeights, "the same weights in the original authors' format"),
    rule("consolidated*.safetensors", Original::Model, "the same weights in Mistral's naming"),
    rule("consolidated*.safetensors.index*.json", Original::Model, "index of weights that are left out"),
    rule("flax_model*", Original::MainWeights, "the same weights for Flax"),
    rule("tf_model*", Original::MainWeights, "the same weights for TensorFlow"),
    rule("*.h5", Original::MainWeights, "the same weights for TensorFlow"),
    rule("*.msgpack", Original::MainWeights, "the same weights for Flax"),
    rule("*.ot", Original::MainWeights, "the same weights for rust-bert"),
    rule("*.gguf", Original::MainWeights, "the same weights for llama.cpp"),
    rule("openvino_model*", Original::MainWeights, "the same weights for OpenVINO"),
    rule("*.bin", Original::SameSet, "the same weights as pickled torch tensors"),
    rule("*.pth", Original::SameSet, "the same weights as pickled torch tensors"),
    rule("*.pt", Original::SameSet, "the same weights as pickled torch tensors"),
    rule("*.ckpt", Original::SameSet, "the same weights as pickled torch tensors"),
    rule("*.bin.index*.json", Original::SameSet, "index of weights that are left out"),
    rule("original/", Original::MainWeights, "the same weights in the original authors' format"),
    rule("onnx/", Original::MainWeights, "the same weights for ONNX"),
    rule("openvino/", Original::MainWeights, "the same weights for OpenVINO"),
];

const fn rule(pattern: &'static str, original: Original, why: &'static str) -> DuplicateRule {
    DuplicateRule { pattern, original, why }
}
