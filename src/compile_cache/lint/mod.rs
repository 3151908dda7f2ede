//! What will break elsewhere: paths of the host that made a cache, incomplete entries, mixed versions, secrets.
//! Files are read up to limits, and nothing is unpickled or run. Must not know the host where the cache will be
//! used; that is `check`'s.

mod artifacts;
mod changed;
mod entries;
mod flashinfer;
mod hits;
mod mixed;
mod paths;
mod ranks;
mod reader;
mod rules;
mod secrets;
mod triton;
mod view;
mod vllm;

use std::fmt;

use serde::Serialize;

pub use self::rules::{RULES, Rule};
use self::view::View;
use super::{CacheError, CacheTree, identity::Identity};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// The cache may not be used, or not safely.
    Warning,
    /// The cache must not be shipped as it is.
    Error,
}

/// Something that was found in a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The rule that found it, a short name such as `group-paths`.
    pub rule: &'static str,
    /// The first file that it was found in; `None` where it is about the whole cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How many files it was found in.
    pub files: usize,
    /// What is wrong and what follows.
    pub reason: String,
    /// What to do; empty where nothing need be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        match (&self.path, self.files) {
            (Some(path), 0 | 1) => write!(f, " ({path})")?,
            (Some(path), files) => write!(f, " ({path} and {} more)", files - 1)?,
            (None, _) => {}
        }
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Looks for what will break elsewhere, the worst first.
///
/// # Errors
/// [`CacheError::Read`] when a file cannot be read.
pub fn lint(tree: &CacheTree, identity: &Identity) -> Result<Vec<Finding>, CacheError> {
    let view = View::of(tree, identity);
    let mut findings = Vec::new();
    artifacts::lint(&view, &mut findings)?;
    vllm::lint(&view, &mut findings)?;
    entries::lint(&view, &mut findings);
    ranks::lint(&view, &mut findings);
    triton::lint(&view, &mut findings)?;
    flashinfer::lint(&view, &mut findings)?;
    secrets::lint(&view, &mut findings)?;
    paths::lint(&view, &mut findings)?;
    mixed::lint(&view, &mut findings);
    // Last, so that it covers the time that the others took.
    changed::lint(&view, &mut findings)?;
    // After all the others: they name files.
    secrets::redact(&mut findings);
    // Stable: findings of one severity stay in the order above.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

/// Makes errors of warnings: what `--strict` does.
pub fn strict(findings: &mut [Finding]) {
    for finding in findings {
        if finding.severity == Severity::Warning {
            finding.severity = Severity::Error;
        }
    }
}

/// Whether the cache must not be shipped as it is.
pub fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

#[cfg(test)]
mod tests;
