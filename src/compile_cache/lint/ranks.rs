//! Ranks that are missing: vLLM keeps what each GPU needs in a directory `rank_RANK_REPLICA` of its own. Must not
//! know what lies in them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Finding, Severity,
    hits::Hits,
    rules::RANKS,
    view::{View, split},
};
use crate::compile_cache::{Kind, find::is_rank, identity::Attribute};

/// Largest tensor-parallel size that is believed.
const SIZE_MAX: u64 = 1_024;
/// Most missing ranks of an entry that are looked for: a name can pretend any number.
const MISSING_MAX: usize = 6;

pub(super) fn lint(view: &View<'_>, findings: &mut Vec<Finding>) {
    if view.tree.kind != Kind::Vllm {
        return;
    }
    let mut entries: BTreeMap<&str, BTreeSet<(u64, u64)>> = BTreeMap::new();
    for directory in view.all_directories() {
        let (entry, name) = split(directory);
        if let Some(rank) = parse(name) {
            entries.entry(entry).or_default().insert(rank);
        }
    }
    let size = view.identity.only(Attribute::TensorParallel).and_then(|size| size.parse::<u64>().ok());
    let size = size.filter(|size| *size <= SIZE_MAX).unwrap_or(1);
    let (mut gaps, mut fewer) = (Hits::default(), Hits::default());
    let most = entries.values().map(BTreeSet::len).max().unwrap_or_default();
    for (entry, ranks) in &entries {
        let missing = missing(ranks, size);
        if !missing.is_empty() {
            gaps.add(entry);
            for (rank, replica) in missing {
                gaps.name(&format!("rank_{rank}_{replica}"));
            }
        } else if ranks.len() < most {
            fewer.add(entry);
            fewer.name(&format!("{} of {most}", ranks.len()));
        }
    }
    gaps.report(
        findings,
        Severity::Warning,
        RANKS,
        |hits| format!("ranks are missing, which compile again: {}", hits.names()),
        "collect the caches of all nodes and GPUs in one directory before packing",
    );
    fewer.report(
        findings,
        Severity::Warning,
        RANKS,
        |hits| format!("this entry has fewer ranks than another ({})", hits.names()),
        "nothing, where it is of an engine with fewer GPUs; otherwise collect the caches of all GPUs",
    );
}

/// How many GPUs a replica has, as far as the directories tell; at least one.
pub(super) fn devices(view: &View<'_>) -> u64 {
    let ranks = view.all_directories().into_iter().filter_map(|directory| parse(split(directory).1));
    ranks.map(|(rank, _)| rank.saturating_add(1)).max().unwrap_or(1)
}

/// Rank and replica of a directory.
fn parse(name: &str) -> Option<(u64, u64)> {
    let (rank, replica) = name.strip_prefix("rank_").filter(|_| is_rank(name))?.split_once('_')?;
    Some((rank.parse().ok()?, replica.parse().ok()?))
}

/// The first ranks that are not there, of all up to the highest or to `size`.
fn missing(ranks: &BTreeSet<(u64, u64)>, size: u64) -> Vec<(u64, u64)> {
    let rank = ranks.iter().map(|(rank, _)| *rank).max().unwrap_or_default().max(size.saturating_sub(1));
    let replica = ranks.iter().map(|(_, replica)| *replica).max().unwrap_or_default();
    (0..=replica)
        .flat_map(|replica| (0..=rank).map(move |rank| (rank, replica)))
        .filter(|pair| !ranks.contains(pair))
        .take(MISSING_MAX)
        .collect()
}
