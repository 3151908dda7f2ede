//! Which files a node fetches before a container runs.

use super::{Nodes, PlanFile, Prefetch, storage::stored_bytes};
use crate::{layer::Storage, natural::natural_cmp};

/// What `auto` prefetches costs a node at most as much as fetching this many bytes: 16 MiB.
///
/// containerd waits for the prefetch of all layers before it runs a container. 16 MiB take 0.67 s at
/// 200 Mbit/s and 0.13 s at 1 Gbit/s.
pub const PREFETCH_BYTES_MAX: u64 = 16 << 20;

/// A layer that prefetches more than this is not waited for on nodes that are configured as `docs/nodes.md`
/// recommends (`prefetch_async_size`): 16 MiB.
pub const ASYNC_PREFETCH_MIN: u64 = 16 << 20;

/// Bytes of weights that are prefetched where nothing waits for them: 8 GiB.
///
/// All layers prefetch at the same time, and each request must be answered within the node's
/// `request_timeout_sec`: 600 s at 200 Mbit/s are 15 GB for all of them together. Half of that leaves a margin; the
/// shards that are read last are left to background fetch.
pub const ASYNC_PREFETCH_MAX: u64 = 8 << 30;

/// Bytes that a node unpacks in the time in which it fetches one: Go's gunzip writes about 0.1 GB/s, a link of
/// 200 Mbit/s brings 0.025.
const UNPACKED_PER_FETCHED: u64 = 4;

/// What is decided for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) prefetched: bool,
    pub(super) reason: &'static str,
}

/// A file as the decision sees it.
pub(super) struct Candidate<'a> {
    pub(super) file: &'a PlanFile,
    pub(super) storage: Storage,
    /// Whether it is a weight shard.
    pub(super) shard: bool,
    /// Whether a start is known not to read it.
    pub(super) unused: bool,
}

/// Decides for each file. `base` is the number of bytes of the base that are prefetched anyway.
pub(super) fn decide(files: &[Candidate<'_>], prefetch: Prefetch, nodes: Nodes, base: u64) -> Vec<Decision> {
    let mut decisions: Vec<Decision> = files.iter().map(|file| fixed(file, prefetch)).collect();
    if prefetch == Prefetch::Auto {
        let mut order: Vec<usize> = (0..files.len()).filter(|index| !files[*index].unused).collect();
        // Small files before weights where nobody knows better.
        let place = |index: usize| files[index].file.usage.as_ref().map_or(usize::MAX, |usage| usage.place);
        order.sort_by(|a, b| {
            (place(*a), files[*a].shard)
                .cmp(&(place(*b), files[*b].shard))
                .then_with(|| natural_cmp(&files[*a].file.path, &files[*b].file.path))
        });
        let mut left = PREFETCH_BYTES_MAX.saturating_sub(base);
        let mut left_async = if nodes == Nodes::Recommended { ASYNC_PREFETCH_MAX } else { 0 };
        for index in order {
            let cost = cost(&files[index]);
            let shard = files[index].shard;
            let alone = shard && cost > ASYNC_PREFETCH_MIN && mostly_read(files[index].file);
            let reason = if alone && cost <= left_async {
                left_async -= cost;
                "prefetched: nodes fetch it while the container starts"
            } else if cost <= left {
                left -= cost;
                if shard {
                    "prefetched: small enough to be there when the container starts"
                } else if files[index].file.usage.is_some() {
                    "prefetched: among the first files that are read"
                } else {
                    "prefetched: small"
                }
            } else {
                if nodes == Nodes::Recommended && shard {
                    decisions[index].reason = if alone {
                        "read on demand: what comes before it is prefetched"
                    } else if cost > ASYNC_PREFETCH_MIN {
                        "read on demand: a start reads less than half of it"
                    } else {
                        "read on demand: nodes wait for the prefetch of a layer of 16 MiB and less"
                    };
                }
                continue;
            };
            decisions[index] = Decision { prefetched: true, reason };
        }
    }
    decisions
}

fn fixed(file: &Candidate<'_>, prefetch: Prefetch) -> Decision {
    let (prefetched, reason) = match prefetch {
        Prefetch::All => (true, "prefetched: --prefetch all"),
        Prefetch::None => (false, "read on demand: --prefetch none"),
        Prefetch::Auto | Prefetch::Small if file.unused => {
            (false, "read on demand: a start does not read it")
        }
        Prefetch::Auto | Prefetch::Small if file.shard => {
            (false, "read on demand: fetched in the background while the engine starts")
        }
        Prefetch::Small => (true, "prefetched: --prefetch small"),
        Prefetch::Auto => (false, "read on demand: prefetching it would delay the container"),
    };
    Decision { prefetched, reason }
}

/// Whether a start reads at least half of the file, as far as is known: what is prefetched is fetched whole.
fn mostly_read(file: &PlanFile) -> bool {
    let Some(usage) = &file.usage else { return true };
    let mut ranges: Vec<(u64, u64)> =
        usage.reads.iter().map(|read| (read.range.offset, read.range.end())).collect();
    ranges.sort_unstable();
    let (mut covered, mut end) = (0, 0);
    for (start, to) in ranges {
        covered += to.saturating_sub(start.max(end));
        end = end.max(to);
    }
    covered >= file.size / 2
}

/// What prefetching the file costs a node, in bytes that it could fetch in that time.
fn cost(file: &Candidate<'_>) -> u64 {
    let unpacking = match file.storage {
        Storage::Stored => 0,
        Storage::Compressed | Storage::EntropyCoded => file.file.size / UNPACKED_PER_FETCHED,
    };
    stored_bytes(file.file, file.storage).saturating_add(unpacking)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::Sample,
        profile::{ByteRange, FileUse, Seconds, TimedRange},
    };

    fn file(path: &str, size: u64, place: Option<usize>) -> PlanFile {
        PlanFile {
            path: path.into(),
            size,
            weights: false,
            header: None,
            sample: Some(Sample { raw: 100, compressed: 25 }),
            usage: place.map(|place| {
                let (at, range) = (Seconds::ZERO, ByteRange { offset: 0, length: size });
                FileUse { place, first: at, reads: vec![TimedRange { at, until: at, range }] }
            }),
        }
    }

    fn prefetched(files: &[(PlanFile, Storage, bool)], prefetch: Prefetch, base: u64) -> Vec<bool> {
        let candidates: Vec<Candidate<'_>> = files
            .iter()
            .map(|(file, storage, shard)| Candidate { file, storage: *storage, shard: *shard, unused: false })
            .collect();
        decide(&candidates, prefetch, Nodes::Default, base)
            .into_iter()
            .map(|decision| decision.prefetched)
            .collect()
    }

    #[test]
    fn auto_takes_files_in_their_order_until_the_container_would_wait() {
        let files = [
            (file("late", 2 << 20, Some(3)), Storage::Stored, false),
            (file("large", 15 << 20, Some(1)), Storage::Stored, false),
            (file("first", 1 << 20, Some(0)), Storage::Stored, false),
            (file("shard", 1, Some(2)), Storage::Stored, true),
        ];
        // first + large fill the budget, so that neither shard nor late is left any of it.
        assert_eq!(prefetched(&files, Prefetch::Auto, 0), [false, true, true, false]);
        // With a base in front, large does not fit and those behind it do.
        assert_eq!(prefetched(&files, Prefetch::Auto, 1 << 20), [true, false, true, true]);
        assert_eq!(prefetched(&files, Prefetch::Small, 0), [true, true, true, false]);
        assert_eq!(prefetched(&files, Prefetch::None, 0), [false; 4]);
        assert_eq!(prefetched(&files, Prefetch::All, 0), [true; 4]);
    }

    #[test]
    fn unpacking_counts() {
        // A quarter on the wire, and a quarter for unpacking.
        let files = [(file("a", 32 << 20, Some(0)), Storage::Compressed, false)];
        assert_eq!(prefetched(&files, Prefetch::Auto, 0), [true]);
        assert_eq!(prefetched(&files, Prefetch::Auto, 1), [false]);
    }

    #[test]
    fn large_shards_are_prefetched_where_nothing_waits_for_them() {
        let shard = |size, place| (file("s", size, Some(place)), Storage::Stored, true);
        let files = [shard(5 << 30, 1), shard(4 << 30, 2), shard(2 << 30, 3), shard(10 << 20, 4)];
        let candidates: Vec<Candidate<'_>> = files
            .iter()
            .map(|(file, storage, shard)| Candidate { file, storage: *storage, shard: *shard, unused: false })
            .collect();
        let prefetched = |nodes| -> Vec<bool> {
            decide(&candidates, Prefetch::Auto, nodes, 0).into_iter().map(|one| one.prefetched).collect()
        };
        assert_eq!(prefetched(Nodes::Recommended), [true, false, true, true]);
        assert_eq!(prefetched(Nodes::Default), [false, false, false, true]);

        // A node fetches the whole of what it prefetches.
        let mut part = file("s", 40 << 20, Some(0));
        part.usage.as_mut().unwrap().reads[0].range.length = 5000;
        let candidate = Candidate { file: &part, storage: Storage::Stored, shard: true, unused: false };
        assert!(!decide(&[candidate], Prefetch::Auto, Nodes::Recommended, 0)[0].prefetched);
    }
}
