//! What is never part of a cache, and why: a table, so that documentation and messages can quote it. Must not know
//! how it is applied.

use super::Kind;

/// A rule about names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaveOutRule {
    /// The kind of cache it is about; `None` is all kinds.
    pub kind: Option<Kind>,
    /// Glob for one part of a path; a trailing `/` restricts it to directories.
    pub pattern: &'static str,
    /// What such files are, in words.
    pub why: &'static str,
}

/// Locks, temporary files, logs and files about one host.
pub const LEFT_OUT: &[LeaveOutRule] = &[
    rule(None, "*.lock", "a lock"),
    rule(None, "*.tmp", "a temporary file"),
    rule(None, "tmp.pid_*", "a temporary file"),
    rule(None, "*.pid", "a process id"),
    rule(None, "*.log", "a log"),
    rule(None, ".nfs*", "a file that NFS has yet to delete"),
    rule(None, "*~", "an editor's backup"),
    rule(None, ".*.sw[op]", "an editor's swap file"),
    rule(None, ".DS_Store", "a file manager's notes"),
    rule(None, "lost+found/", "the file system's own directory"),
    rule(Some(Kind::Vllm), "locks/", "Inductor's locks"),
    rule(Some(Kind::Vllm), "lock", "Triton's lock"),
    rule(Some(Kind::Vllm), "gpu_p2p_access_cache_for_*", "which GPUs of one host reach each other"),
    rule(Some(Kind::Vllm), "assets", "downloads, not compiled code"),
    rule(Some(Kind::Vllm), "media_cache", "downloads, not compiled code"),
    rule(Some(Kind::Inductor), "locks/", "Inductor's locks"),
    rule(Some(Kind::Inductor), "lock", "Triton's lock"),
    rule(Some(Kind::Triton), "lock", "Triton's lock"),
    rule(Some(Kind::FlashInfer), "tmp/", "FlashInfer's locks"),
    rule(Some(Kind::FlashInfer), ".ninja_lock", "ninja's lock"),
];

const fn rule(kind: Option<Kind>, pattern: &'static str, why: &'static str) -> LeaveOutRule {
    LeaveOutRule { kind, pattern, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile_cache::lint::RULES;

    #[test]
    fn the_documentation_names_every_rule() {
        let text = include_str!("../../docs/compile-caches.md");
        for rule in LEFT_OUT {
            assert!(text.contains(&format!("| `{}` |", rule.pattern)), "{}", rule.pattern);
        }
        for rule in RULES {
            assert!(
                text.contains(&format!("| `{}` | {:?} |", rule.name, rule.severity).to_lowercase()),
                "{}",
                rule.name
            );
        }
    }
}
