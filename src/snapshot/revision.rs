//! Which commit a revision means: branches, tags, pull requests and abbreviated commits. Must not know what a
//! snapshot holds.
//!
//! Source: `huggingface_hub` 2.4, `file_download.py` (`_cache_commit_hash_for_specific_revision`,
//! `REGEX_COMMIT_HASH`).

use std::path::Path;

use super::{error::SnapshotError, locate::download_command, read::read_small};

/// Hexadecimal digits of a commit.
const COMMIT_LENGTH: usize = 40;
/// Fewest digits of an abbreviated commit, as git itself shows by default.
const SHORTEST_COMMIT: usize = 7;
/// Longest ref file in bytes; it holds 40 digits.
const MAX_REF_LENGTH: u64 = 1024;

/// The commit that a branch, tag or `refs/pr/1` stands for; `None` where there is no such ref.
pub(super) fn read_ref(
    repository: &Path,
    name: &str,
    repository_name: Option<&str>,
) -> Result<Option<String>, SnapshotError> {
    // The hub stores `refs/pr/1` as `refs/refs/pr/1`; whoever names the file itself is understood, too.
    let short = name.strip_prefix("refs/");
    for name in std::iter::once(name).chain(short) {
        let path = repository.join("refs").join(name);
        if !path.is_file() {
            continue;
        }
        let bytes = read_small(&path, MAX_REF_LENGTH).map_err(SnapshotError::io(&path))?;
        return match std::str::from_utf8(&bytes).map(str::trim) {
            Ok(commit) if is_commit(commit) => Ok(Some(commit.to_owned())),
            _ => Err(SnapshotError::MalformedRef {
                path,
                command: download_command(repository_name, Some(name), None),
            }),
        };
    }
    Ok(None)
}

pub(super) fn commit_like(
    repository: &Path,
    asked: &str,
    commits: &[String],
) -> Result<Option<String>, SnapshotError> {
    let fitting: Vec<_> = commits.iter().filter(|commit| is_abbreviation(asked, commit)).cloned().collect();
    if fitting.len() > 1 {
        return Err(SnapshotError::AmbiguousRevision {
            path: repository.to_owned(),
            revision: asked.to_owned(),
            commits: fitting,
        });
    }
    Ok(fitting.into_iter().next())
}

/// Whether `asked` is a commit or at least [`SHORTEST_COMMIT`] digits of its start.
pub(super) fn is_abbreviation(asked: &str, commit: &str) -> bool {
    asked.len() >= SHORTEST_COMMIT && commit.starts_with(&asked.to_ascii_lowercase())
}

/// Whether `text` is a whole commit as the hub writes it.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == COMMIT_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Revisions become paths below `refs/`, so they must not climb out of it.
pub(crate) fn check_revision_name(revision: &str) -> Result<(), SnapshotError> {
    let climbs = revision.split('/').any(|part| matches!(part, "" | "." | ".."));
    if climbs || revision.chars().any(char::is_control) {
        return Err(SnapshotError::InvalidRevision { revision: revision.escape_debug().to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_cannot_climb() {
        for revision in ["main", "refs/pr/1", "v1.0", "a..b"] {
            assert!(check_revision_name(revision).is_ok(), "{revision}");
        }
        for revision in ["", "/main", "../x", "a/../b", "a//b", ".", "a\nb"] {
            assert!(check_revision_name(revision).is_err(), "{revision}");
        }
    }
}
