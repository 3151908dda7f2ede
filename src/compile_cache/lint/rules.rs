//! The rules: a table, so that documentation can quote it. Must not know how they are checked.

use super::Severity;

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its name, as in [`super::Finding::rule`].
    pub name: &'static str,
    /// How bad what it finds is at the worst.
    pub severity: Severity,
    /// What it finds, in one line.
    pub description: &'static str,
}

const fn rule(name: &'static str, severity: Severity, description: &'static str) -> Rule {
    Rule { name, severity, description }
}

pub(super) const CHANGED: &str = "changed";
pub(super) const SECRETS: &str = "secrets";
pub(super) const DAMAGED: &str = "damaged-artifacts";
pub(super) const EMPTY: &str = "empty-files";
pub(super) const MISSING: &str = "missing-artifacts";
pub(super) const INCOMPLETE: &str = "incomplete-entries";
pub(super) const RANKS: &str = "missing-ranks";
pub(super) const DEVICE: &str = "device-index";
pub(super) const MIXED: &str = "mixed";
pub(super) const GROUP_MISSING: &str = "group-missing";
pub(super) const GROUP_DAMAGED: &str = "group-damaged";
pub(super) const KERNELS: &str = "incomplete-kernels";
pub(super) const LIBRARIES: &str = "missing-libraries";
pub(super) const NINJA: &str = "ninja-records";
pub(super) const FLASHINFER: &str = "flashinfer-path";
pub(super) const GROUP_PATHS: &str = "group-paths";
pub(super) const ARTIFACT_PATHS: &str = "artifact-paths";
pub(super) const PYTHON: &str = "python-path";
pub(super) const HOST_PATHS: &str = "host-paths";
pub(super) const GPU: &str = "unknown-gpu";
pub(super) const UNREAD: &str = "not-all-read";

/// All rules, the worst first.
pub const RULES: &[Rule] = &[
    rule(CHANGED, Severity::Error, "files that changed or vanished since the cache was first looked at"),
    rule(
        SECRETS,
        Severity::Error,
        "tokens, keys and passwords: in cache_key_factors.json, environment dumps and text",
    ),
    rule(
        DAMAGED,
        Severity::Error,
        "vLLM's artifacts whose checksum is wrong, and AOT models that are cut short",
    ),
    rule(EMPTY, Severity::Error, "compiled files of zero bytes"),
    rule(MISSING, Severity::Error, "artifacts that vllm_compile_cache.py names and the cache does not have"),
    rule(INCOMPLETE, Severity::Warning, "vLLM's entries that hold nothing compiled"),
    rule(RANKS, Severity::Warning, "ranks that are missing between others, or that another entry has"),
    rule(DEVICE, Severity::Warning, "code for a GPU other than the first where there is one rank"),
    rule(MIXED, Severity::Warning, "several GPUs, architectures or versions in one cache"),
    rule(
        GROUP_MISSING,
        Severity::Warning,
        "Triton's __grp__ files that name a file that the cache does not have",
    ),
    rule(GROUP_DAMAGED, Severity::Warning, "Triton's __grp__ files that cannot be read as such"),
    rule(KERNELS, Severity::Warning, "Triton's kernels without a binary or without their __grp__ file"),
    rule(LIBRARIES, Severity::Warning, "C++ and FlashInfer sources whose library was not built"),
    rule(NINJA, Severity::Warning, "FlashInfer's directories without ninja's records: all is built again"),
    rule(UNREAD, Severity::Warning, "files that a rule did not read because there are too many"),
    rule(FLASHINFER, Severity::Note, "where a FlashInfer workspace must lie to be used again"),
    rule(GROUP_PATHS, Severity::Note, "absolute paths in Triton's __grp__ files; rewritten while packing"),
    rule(ARTIFACT_PATHS, Severity::Note, "absolute paths in vllm_compile_cache.py; rewritten while packing"),
    rule(
        PYTHON,
        Severity::Note,
        "where Python's packages must lie: vLLM's key has the paths of their sources",
    ),
    rule(
        HOST_PATHS,
        Severity::Note,
        "other directories of the host that made the cache; harmless, but they tell its names",
    ),
    rule(GPU, Severity::Note, "a cache for GPUs that does not tell which GPU it is for"),
];
