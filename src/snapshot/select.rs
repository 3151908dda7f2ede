//! What would be packed of a repository that is not on disk yet, by its list of files. Must not know where the list
//! comes from.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    LeftOut, SnapshotError, SnapshotOptions,
    filter::{Decision, Filters},
};

/// The files of a repository, parted by the rules that [`super::open`] follows.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Paths of the files that are wanted.
    pub(crate) wanted: BTreeSet<String>,
    /// The others, sorted by path; a directory that is left out as a whole is one of them.
    pub(crate) left_out: Vec<LeftOut>,
}

/// Parts files (`/`-separated path and size in bytes) by the options' globs and the default rules.
///
/// # Errors
/// A glob cannot be understood.
pub(crate) fn select<'a>(
    files: impl Iterator<Item = (&'a str, u64)> + Clone,
    options: &SnapshotOptions,
) -> Result<Selection, SnapshotError> {
    let filters = Filters::new(options)?;
    let decisions = filters.decide(files.clone().map(|(path, _)| path));
    let sizes: BTreeMap<&str, u64> = files.collect();
    let mut wanted = BTreeSet::new();
    let mut left_out: BTreeMap<String, LeftOut> = BTreeMap::new();
    for (path, decision) in decisions {
        let (name, reason) = match decision {
            Decision::Keep => {
                wanted.insert(path.to_owned());
                continue;
            }
            Decision::LeaveOut(reason) => (path.to_owned(), reason),
            Decision::LeaveOutDirectory(directory, reason) => (format!("{directory}/"), reason),
        };
        let size = sizes.get(path).copied().unwrap_or_default();
        let whole = left_out.entry(name.clone()).or_insert(LeftOut { path: name, size: Some(0), reason });
        whole.size = whole.size.map(|sum| sum.saturating_add(size));
    }
    Ok(Selection { wanted, left_out: left_out.into_values().collect() })
}
