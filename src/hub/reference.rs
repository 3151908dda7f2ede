//! `hf://org/name[@revision]`: which repository and which revision of it. Must not know where either is.

use std::fmt;

use super::HubError;
use crate::snapshot::{locate::is_repository_name, revision::check_revision_name};

/// What a repository on the hub is named by.
pub const SCHEME: &str = "hf://";
/// The revision that is meant when none is named.
pub(super) const DEFAULT_REVISION: &str = "main";

/// A repository on the hub, and perhaps a revision of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubReference {
    /// `org/name`, or a bare `name`.
    pub repository: String,
    /// Branch, tag, `refs/pr/N` or commit; `None` is `main`.
    pub revision: Option<String>,
}

impl HubReference {
    /// Reads `hf://org/name[@revision]`; `None` for a text that does not begin with [`SCHEME`]. `revision` is one that
    /// is named elsewhere (`--revision`).
    ///
    /// # Errors
    /// [`HubError::Reference`]: the text names no repository of a model, or another revision than `revision`.
    pub fn parse(text: &str, revision: Option<&str>) -> Result<Option<Self>, HubError> {
        let Some(rest) = text.strip_prefix(SCHEME) else { return Ok(None) };
        let wrong =
            |reason: String| HubError::Reference { reference: text.escape_debug().to_string(), reason };
        let (repository, own) = match rest.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (rest, None),
        };
        let repository = repository.strip_suffix('/').unwrap_or(repository);
        if let Some((kind @ ("datasets" | "spaces" | "buckets"), _)) = repository.split_once('/') {
            return Err(wrong(format!("`{kind}/` is no model")));
        }
        if !is_repository_name(repository) {
            return Err(wrong(format!("write {SCHEME}ORG/NAME or {SCHEME}ORG/NAME@REVISION")));
        }
        if let (Some(own), Some(other)) = (own, revision)
            && own != other
        {
            return Err(wrong(format!("--revision {} names another revision", other.escape_debug())));
        }
        let revision = own.or(revision);
        if let Some(revision) = revision {
            check_revision_name(revision)
                .map_err(|_| wrong("the revision is no branch, tag or commit".to_owned()))?;
        }
        Ok(Some(Self { repository: repository.to_owned(), revision: revision.map(str::to_owned) }))
    }

    /// The revision to ask for.
    pub(super) fn asked(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }
}

impl fmt::Display for HubReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.repository)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, revision: Option<&str>) -> Option<(String, Option<String>)> {
        HubReference::parse(text, revision).ok()?.map(|found| (found.repository, found.revision))
    }

    #[test]
    fn references_name_repository_and_revision() {
        for (text, option, repository, revision) in [
            ("hf://gpt2", None, "gpt2", None),
            ("hf://a/b", None, "a/b", None),
            ("hf://a/b/", Some("v1"), "a/b", Some("v1")),
            ("hf://a/b@refs/pr/7", None, "a/b", Some("refs/pr/7")),
            ("hf://a/b@v1", Some("v1"), "a/b", Some("v1")),
        ] {
            let expected = (repository.to_owned(), revision.map(str::to_owned));
            assert_eq!(parsed(text, option), Some(expected), "{text}");
        }
        assert!(matches!(HubReference::parse("a/b", None), Ok(None)));
    }

    #[test]
    fn what_names_no_model_is_refused() {
        for text in [
            "hf://",
            "hf:///",
            "hf://../b",
            "hf://a/b/c",
            "hf://datasets/a/b",
            "hf://datasets/a",
            "hf://a/b@",
            "hf://a/b@../x",
            "hf://a/b@x\ny",
            "hf://a b",
        ] {
            assert!(matches!(HubReference::parse(text, None), Err(HubError::Reference { .. })), "{text}");
        }
        let error = HubReference::parse("hf://a/b@v1", Some("v2")).unwrap_err().to_string();
        assert!(error.contains("--revision v2"), "{error}");
    }
}
