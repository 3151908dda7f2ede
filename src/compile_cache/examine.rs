//! Looks at a cache in all ways: finds it, lists it, identifies it and lints it. Must not know what happens with it
//! afterwards.

use std::path::Path;

use super::{
    CacheError, CacheTree, Kind, find,
    identity::{Attribute, Identity, identify},
    lint::{Finding, Severity, lint},
    walk,
};

/// A cache, and what is known of it.
#[derive(Debug, Clone)]
pub struct Examined {
    /// The cache.
    pub tree: CacheTree,
    /// What it is good for.
    pub identity: Identity,
    /// What will break elsewhere, the worst first.
    pub findings: Vec<Finding>,
}

impl Examined {
    /// The GPU target that the cache is for, as tags name it: `sm90`, `gfx942`, `cpu`. `None` where that cannot be told
    /// or where there are several.
    pub fn target(&self) -> Option<String> {
        match self.identity.only(Attribute::Backend)? {
            "cpu" => Some("cpu".to_owned()),
            _ => self.identity.only(Attribute::Architecture).map(|name| name.replace('_', "")),
        }
    }

    /// Bytes of its files.
    pub fn size(&self) -> u64 {
        self.tree.files.iter().map(|file| file.stamp.size).sum()
    }
}

/// Examines the caches that `path` is or holds. With a `kind` it is taken to be one of that kind.
///
/// # Errors
/// See [`CacheError`].
pub fn examine(path: &Path, kind: Option<Kind>) -> Result<Vec<Examined>, CacheError> {
    let found = find(path, kind)?;
    found
        .iter()
        .map(|found| {
            let tree = walk(found)?;
            let identity = identify(&tree)?;
            let mut findings = lint(&tree, &identity)?;
            findings.extend(links(&tree));
            findings.extend(found.remarks.iter().map(|remark| Finding {
                severity: Severity::Warning,
                rule: "found",
                path: None,
                files: 0,
                reason: remark.clone(),
                remedy: String::new(),
            }));
            findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
            Ok(Examined { tree, identity, findings })
        })
        .collect()
}

/// A word about symlinks that are not packed: what they lead to will be missing.
fn links(tree: &CacheTree) -> Option<Finding> {
    let mut links = tree.left_out.iter().filter(|left_out| left_out.link);
    let first = links.next()?;
    Some(Finding {
        severity: Severity::Warning,
        rule: "links",
        path: Some(first.path.clone()),
        files: 1 + links.count(),
        reason: format!("{} is left out", first.reason),
        remedy: "put a copy of what it leads to in its place, or name that directory with --cache".to_owned(),
    })
}
