//! Whether all weights that a snapshot needs are packed: by shard indexes, by the numbers in shards' names,
//! and by the repository's listing. Must not read weights.
//!
//! A download with patterns is common and often meant, so a file of the listing that is missing is an error
//! only where the packed files show that it is needed: it is one of a series of shards of which others are
//! packed, or the weights beside a packed `config.json` in a directory without any, or there are no weights
//! at all. Any other one is a warning.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    LeftOut, LeftOutReason, SnapshotError, SnapshotFile, Warning,
    filter::{Decision, Filters, split},
    integrity::Candidate,
    names::{NamedFormat, shard_number, weight_name},
    shard_index::{self, IndexError},
    tree::Tree,
};

/// What is known besides the packed files.
pub(super) struct Surroundings<'a> {
    /// The snapshot's directory.
    pub(super) root: &'a Path,
    /// Files on disk that are left out, by path.
    pub(super) left_out: &'a BTreeMap<String, LeftOutReason>,
    /// The repository's listing.
    pub(super) tree: Option<&'a Tree>,
    /// A command that downloads what is missing.
    pub(super) command: &'a str,
}

/// Checks every shard index that is packed. An index of which every shard is left out by a default rule is
/// taken out of `candidates` and returned.
pub(super) fn check_indexes(
    candidates: &mut Vec<Candidate>,
    around: &Surroundings<'_>,
) -> Result<Vec<LeftOut>, SnapshotError> {
    let packed: BTreeSet<_> = candidates.iter().map(|candidate| candidate.path.clone()).collect();
    let mut superfluous = BTreeMap::new();
    for candidate in candidates.iter().filter(|candidate| is_shard_index(&candidate.path)) {
        let (directory, _) = split(&candidate.path);
        let shards = shard_index::shards(&candidate.file.source, directory).map_err(|error| match error {
            IndexError::Io(source) => SnapshotError::Io { path: candidate.file.source.clone(), source },
            IndexError::Malformed(problem) => {
                SnapshotError::MalformedIndex { path: around.root.join(&candidate.path), problem }
            }
        })?;
        let absent: Vec<_> = shards.iter().filter(|shard| !packed.contains(*shard)).collect();
        let by_default = |shard: &&String| {
            around.left_out.get(*shard).filter(|reason| matches!(reason, LeftOutReason::Duplicate { .. }))
        };
        if absent.len() == shards.len()
            && let Some(reason) = absent.first().and_then(by_default)
            && absent.iter().all(|shard| by_default(shard).is_some())
        {
            superfluous.insert(candidate.path.clone(), reason.clone());
            continue;
        }
        refuse_absent(&candidate.path, &absent, around)?;
    }
    let mut left_out = Vec::new();
    candidates.retain(|candidate| match superfluous.remove(&candidate.path) {
        Some(reason) => {
            let size = Some(candidate.file.stamp.size);
            left_out.push(LeftOut { path: candidate.path.clone(), size, reason });
            false
        }
        None => true,
    });
    Ok(left_out)
}

fn is_shard_index(path: &str) -> bool {
    weight_name(split(path).1).is_some_and(|name| {
        name.index && matches!(name.format, NamedFormat::Safetensors | NamedFormat::Torch)
    })
}

fn refuse_absent(named_by: &str, absent: &[&String], around: &Surroundings<'_>) -> Result<(), SnapshotError> {
    let missing: Vec<_> = absent
        .iter()
        .filter(|shard| !around.left_out.contains_key(**shard))
        .map(|shard| (*shard).clone())
        .collect();
    if !missing.is_empty() {
        return Err(SnapshotError::MissingShards {
            named_by: around.root.join(named_by),
            missing,
            command: around.command.to_owned(),
        });
    }
    match absent.first().and_then(|shard| Some((shard, around.left_out.get(*shard)?))) {
        Some((shard, reason)) => Err(SnapshotError::ShardLeftOut {
            index: around.root.join(named_by),
            shard: (*shard).clone(),
            reason: reason.to_string(),
        }),
        None => Ok(()),
    }
}

/// Checks that every packed shard that is numbered has its siblings. Where the repository's listing has the
/// shard without a sibling, the number is only part of a name.
pub(super) fn check_series(candidates: &[Candidate], around: &Surroundings<'_>) -> Result<(), SnapshotError> {
    let packed: BTreeSet<_> = candidates.iter().map(|candidate| candidate.path.as_str()).collect();
    let mut checked = BTreeSet::new();
    for path in &packed {
        let Some(number) = shard_number(path).filter(|_| is_weight(path)) else { continue };
        // Series are told apart by everything but the number itself.
        if !checked.insert((number.before, number.total, number.after)) {
            continue;
        }
        let Some(series) = number.series() else { continue };
        let listed = |name: &String| match around.tree {
            Some(tree) if tree.files.contains_key(*path) => tree.files.contains_key(name),
            _ => true,
        };
        let absent: Vec<_> = series.filter(|name| !packed.contains(name.as_str())).filter(listed).collect();
        refuse_absent(path, &absent.iter().collect::<Vec<_>>(), around)?;
    }
    Ok(())
}

fn is_weight(path: &str) -> bool {
    weight_name(split(path).1).is_some_and(|name| !name.index)
}

/// Warns of a snapshot that has no weights at all, by content or by name.
pub(super) fn check_weights(files: &[SnapshotFile], root: &Path) -> Option<Warning> {
    let none = !files.iter().any(|file| file.weight_format.is_some() || is_weight(&file.path));
    none.then(|| Warning::NoWeights { path: root.to_owned() })
}

/// Checks the repository's listing for files that the filters keep and that are not on disk.
pub(super) fn check_listing(
    candidates: &[Candidate],
    around: &Surroundings<'_>,
    filters: &Filters,
) -> Result<Option<Warning>, SnapshotError> {
    let Some(tree) = around.tree else { return Ok(None) };
    let packed: BTreeSet<_> = candidates.iter().map(|candidate| candidate.path.as_str()).collect();
    // Decided together with what is there: a missing `pytorch_model.bin` is not wanted beside safetensors.
    let union = packed.iter().copied().chain(tree.files.keys().map(String::as_str));
    let missing: Vec<_> = filters
        .decide(union)
        .into_iter()
        .filter(|(path, decision)| {
            *decision == Decision::Keep && !packed.contains(path) && !around.left_out.contains_key(*path)
        })
        .map(|(path, _)| path.to_owned())
        .collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let with_weights: BTreeSet<_> =
        packed.iter().filter(|path| is_weight(path)).map(|path| split(path).0).collect();
    let configured: BTreeSet<_> = packed
        .iter()
        .map(|path| split(path))
        .filter(|(_, name)| matches!(*name, "config.json" | "adapter_config.json"))
        .map(|(directory, _)| directory)
        .collect();
    let needed: Vec<_> = missing
        .iter()
        .filter(|path| is_weight(path))
        .filter(|path| {
            let directory = split(path).0;
            with_weights.is_empty() || (configured.contains(directory) && !with_weights.contains(directory))
        })
        .cloned()
        .collect();
    let tree: PathBuf = tree.path.clone();
    let command = around.command.to_owned();
    if needed.is_empty() {
        return Ok(Some(Warning::Incomplete { tree, missing, command }));
    }
    Err(SnapshotError::MissingWeights { tree, missing: needed, command })
}
