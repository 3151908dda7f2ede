//! Which file goes to which layer.

use std::{cmp::Ordering, collections::BTreeSet};

use super::{
    CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, LayerKind, Plan, PlanError, PlanFile, PlanOptions, PlannedFile,
    PlannedLayer,
    chunks::{Cuts, chunk_lengths, chunks_with_cuts},
    prefetch::{Candidate, decide},
    storage::{storage, stored_bytes},
};
use crate::{layer::Storage, natural::natural_cmp};

/// A file of at least this many bytes gets a layer of its own even if nobody knows what it holds.
const LARGE_FILE: u64 = 64 << 20;

/// Unused files share a layer until it would pass this many bytes: 10 GiB, what the strictest of the common
/// registries takes.
const UNUSED_LAYER_MAX: u64 = 10 << 30;

/// Endings of files that hold weights in formats that are not recognised by content.
const WEIGHT_ENDINGS: [&str; 12] = [
    ".safetensors",
    ".gguf",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".onnx",
    ".onnx_data",
    ".h5",
    ".msgpack",
    ".npz",
    ".tensors",
];

/// Lays out `files`: those that a start reads and that are not weights in one layer, in the order in which they
/// are read, then one layer for each weight shard in that order, then what a start does not read. When that makes
/// more layers than are allowed, neighbouring shards share one, as evenly as can be.
///
/// Where no file has a [`PlanFile::usage`], the order is natural and no file counts as unused.
///
/// # Errors
/// See [`PlanError`].
pub fn plan(files: &[PlanFile], options: &PlanOptions) -> Result<Plan, PlanError> {
    if !(CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&options.chunk_size) {
        return Err(PlanError::ChunkSize {
            size: options.chunk_size,
            minimum: CHUNK_SIZE_MIN,
            maximum: CHUNK_SIZE_MAX,
        });
    }
    let (taken, max_layers) = (options.base_layers + options.other_layers, options.max_layers);
    let budget = max_layers.saturating_sub(taken);
    if budget == 0 {
        return Err(PlanError::NoLayerLeft { taken, max_layers });
    }

    let drafts = draft(files, options);
    let mut indices: Vec<usize> = (0..files.len()).collect();
    indices.sort_by(|a, b| read_order(&files[*a], &files[*b]));
    let of_group = |group| indices.iter().copied().filter(|index| drafts[*index].group == group).collect();
    let (small, shards, unused): (Vec<usize>, Vec<usize>, Vec<usize>) =
        (of_group(Group::Small), of_group(Group::Shard), of_group(Group::Unused));

    let mut runs: Vec<(LayerKind, Vec<usize>)> = Vec::new();
    let needed = usize::from(!small.is_empty()) + usize::from(!shards.is_empty());
    if budget < needed {
        // One layer for everything: the small files lie first, as they would in a layer of their own.
        runs.push((LayerKind::Weights, [small, shards, unused].concat()));
    } else {
        if !small.is_empty() {
            runs.push((LayerKind::Small, small));
        }
        let mut unused = split_unused(&unused, files);
        // Unused files give up their layers first.
        let spare = budget - needed;
        if unused.len() > spare {
            let excess = unused.split_off(spare).concat();
            match unused.last_mut() {
                Some(last) => last.extend(excess),
                None => unused.push(excess),
            }
        }
        let for_unused = unused.len().min(spare);
        let groups = shards.len().min(budget - runs.len() - for_unused);
        for group in groups_of(&shards, groups) {
            runs.push((LayerKind::Weights, group.to_vec()));
        }
        for group in unused {
            match runs.last_mut() {
                // No layer is left for them: they lie behind what is read.
                Some((_, last)) if for_unused == 0 => last.extend(group),
                _ => runs.push((LayerKind::Unused, group)),
            }
        }
    }
    Ok(Plan { layers: runs.into_iter().map(|(kind, group)| layer(kind, &group, &drafts)).collect() })
}

/// Which sort of layer a file goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Small,
    Shard,
    Unused,
}

/// What is decided for a file apart from its layer.
struct Draft {
    group: Group,
    prefetched: bool,
    planned: PlannedFile,
}

fn draft(files: &[PlanFile], options: &PlanOptions) -> Vec<Draft> {
    let shards: Vec<bool> = files.iter().map(is_shard).collect();
    let profiled = files.iter().any(|file| file.usage.is_some());
    let read_from: BTreeSet<&str> = std::iter::zip(files, &shards)
        .filter(|(file, shard)| **shard && file.usage.is_some())
        .map(|(file, _)| directory(&file.path))
        .collect();
    // A profile of another model may name no weights of this one, or only a module's. That does not make the
    // others unused: a shard is unused when weights beside it, or in a directory above, are read.
    let other_weights = |path: &str| {
        read_from.iter().any(|read| {
            let below = directory(path).strip_prefix(read);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || read.is_empty())
        })
    };
    let group = |index: usize| match (files[index].usage.is_some(), shards[index]) {
        (false, true) if other_weights(&files[index].path) => Group::Unused,
        (false, false) if profiled => Group::Unused,
        (_, true) => Group::Shard,
        (_, false) => Group::Small,
    };
    let stored: Vec<(Storage, String)> = files.iter().map(|file| storage(file, options)).collect();
    let candidates: Vec<Candidate<'_>> = files
        .iter()
        .enumerate()
        .map(|(index, file)| Candidate {
            file,
            storage: stored[index].0,
            shard: shards[index],
            unused: group(index) == Group::Unused,
        })
        .collect();
    let decisions = decide(&candidates, options.prefetch, options.nodes, options.base_prefetched);
    std::iter::zip(stored, decisions)
        .enumerate()
        .map(|(index, ((storage, how), decision))| {
            let file = &files[index];
            let cuts = match &file.usage {
                Some(usage) if shards[index] => Cuts::new(file.size, file.header, &usage.reads),
                _ => Cuts::default(),
            };
            let chunks = chunks_with_cuts(file.size, options.chunk_size, &cuts);
            let plain = chunks == chunk_lengths(file.size, options.chunk_size);
            let cut = if plain { "" } else { "; cut where the profile's reads end" };
            let when = match &file.usage {
                Some(usage) => format!("; first read at {} s", usage.first),
                None => String::new(),
            };
            Draft {
                group: group(index),
                prefetched: decision.prefetched,
                planned: PlannedFile {
                    index,
                    storage,
                    chunks,
                    stored: stored_bytes(file, storage),
                    reason: format!("{how}; {}{when}{cut}", decision.reason),
                },
            }
        })
        .collect()
}

/// Files in the order of their first access, then those without one in natural order.
fn read_order(a: &PlanFile, b: &PlanFile) -> Ordering {
    let place = |file: &PlanFile| file.usage.as_ref().map_or(usize::MAX, |usage| usage.place);
    place(a).cmp(&place(b)).then_with(|| natural_cmp(&a.path, &b.path))
}

/// The directory of a path; empty for the root.
fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn is_shard(file: &PlanFile) -> bool {
    file.size >= LARGE_FILE || is_weights(&file.path, file.weights)
}

/// Whether a file holds weights: its content is `recognized`, or the name of `path` says so.
pub fn is_weights(path: &str, recognized: bool) -> bool {
    let lower = path.to_ascii_lowercase();
    recognized || WEIGHT_ENDINGS.iter().any(|ending| lower.ends_with(ending))
}

/// Runs of unused files, none with more than [`UNUSED_LAYER_MAX`] bytes unless it is one file.
fn split_unused(unused: &[usize], files: &[PlanFile]) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let mut bytes = 0;
    for &index in unused {
        let size = files[index].size;
        match runs.last_mut() {
            Some(run) if bytes + size <= UNUSED_LAYER_MAX => {
                bytes += size;
                run.push(index);
            }
            _ => {
                bytes = size;
                runs.push(vec![index]);
            }
        }
    }
    runs
}

/// Cuts `shards` into `count` runs of neighbours whose lengths differ by one at most.
fn groups_of(shards: &[usize], count: usize) -> impl Iterator<Item = &[usize]> {
    (0..count).map(move |group| {
        let start = group * shards.len() / count;
        let end = (group + 1) * shards.len() / count;
        &shards[start..end]
    })
}

/// A layer of files in their order, those that are prefetched before the others.
fn layer(kind: LayerKind, indices: &[usize], drafts: &[Draft]) -> PlannedLayer {
    let (first, rest): (Vec<&Draft>, Vec<&Draft>) =
        indices.iter().map(|index| &drafts[*index]).partition(|draft| draft.prefetched);
    let prioritized = first.len();
    let files = first.into_iter().chain(rest).map(|draft| draft.planned.clone()).collect();
    PlannedLayer { kind, files, prioritized }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        plan::{CHUNK_SIZE_DEFAULT, Compression, Nodes, Prefetch},
        profile::{FileUse, Seconds},
    };

    fn options(max_layers: usize) -> PlanOptions {
        PlanOptions {
            compression: Compression::Auto,
            compress_weights: false,
            prefetch: Prefetch::Small,
            nodes: Nodes::Default,
            chunk_size: CHUNK_SIZE_DEFAULT,
            max_layers,
            base_layers: 1,
            other_layers: 0,
            base_prefetched: 0,
        }
    }

    fn file(path: &str) -> PlanFile {
        PlanFile {
            path: path.into(),
            size: 10,
            weights: path.ends_with(".safetensors"),
            header: None,
            sample: None,
            usage: None,
        }
    }

    fn used(path: &str, place: usize) -> PlanFile {
        let first = Seconds::from_micros(place as u64);
        PlanFile { usage: Some(FileUse { place, first, reads: Vec::new() }), ..file(path) }
    }

    fn names(plan: &Plan, files: &[PlanFile]) -> Vec<String> {
        plan.layers
            .iter()
            .map(|layer| {
                let paths: Vec<&str> =
                    layer.files.iter().map(|planned| files[planned.index].path.as_str()).collect();
                format!("{} {} {}", layer.kind.name(), layer.prioritized, paths.join(" "))
            })
            .collect()
    }

    #[test]
    fn small_files_then_a_layer_for_each_shard() {
        let files = ["README.md", "m-10.safetensors", "m-2.safetensors", "config.json"].map(file);
        assert_eq!(
            names(&plan(&files, &options(100)).unwrap(), &files),
            ["small 2 README.md config.json", "weights 0 m-2.safetensors", "weights 0 m-10.safetensors"]
        );
    }

    #[test]
    fn a_profile_gives_the_order_and_what_is_unused() {
        let files = [
            file("LICENSE"),
            used("config.json", 1),
            used("m-1.safetensors", 3),
            used("m-2.safetensors", 2),
            file("original/a.pth"),
            used("tokenizer.json", 0),
        ];
        assert_eq!(
            names(&plan(&files, &options(100)).unwrap(), &files),
            [
                "small 2 tokenizer.json config.json",
                "weights 0 m-2.safetensors",
                "weights 0 m-1.safetensors",
                "unused 0 LICENSE original/a.pth",
            ]
        );
        // Unused files give up their layer first, then shards share one, then all do.
        assert_eq!(
            names(&plan(&files, &options(4)).unwrap(), &files)[1..],
            ["weights 0 m-2.safetensors m-1.safetensors", "unused 0 LICENSE original/a.pth"]
        );
        assert_eq!(
            names(&plan(&files, &options(3)).unwrap(), &files)[1..],
            ["weights 0 m-2.safetensors m-1.safetensors LICENSE original/a.pth"]
        );
        assert_eq!(
            names(&plan(&files, &options(2)).unwrap(), &files),
            ["weights 2 tokenizer.json config.json m-2.safetensors m-1.safetensors LICENSE original/a.pth"]
        );
    }

    #[test]
    fn a_profile_without_these_weights_does_not_make_them_unused() {
        let kinds = |files: &[PlanFile]| -> Vec<LayerKind> {
            plan(files, &options(100)).unwrap().layers.iter().map(|layer| layer.kind).collect()
        };
        let (small, weights, unused) = (LayerKind::Small, LayerKind::Weights, LayerKind::Unused);
        let none = [used("config.json", 0), file("a.safetensors"), file("b.safetensors")];
        assert_eq!(kinds(&none), [small, weights, weights]);
        let module = [file("model.bin"), used("1_Dense/a.safetensors", 0), file("1_Dense/a.bin")];
        assert_eq!(kinds(&module), [weights, weights, unused]);
        let below = [used("a.safetensors", 0), file("original/a.pth"), file("a.bin")];
        assert_eq!(kinds(&below), [weights, unused]);
    }

    #[test]
    fn shards_share_layers_when_there_are_too_many() {
        let files: Vec<PlanFile> =
            (0..7).map(|shard| file(&format!("{shard}.safetensors"))).chain([file("config.json")]).collect();
        let plan = plan(&files, &options(5)).unwrap();
        let sizes: Vec<usize> = plan.layers.iter().map(|layer| layer.files.len()).collect();
        assert_eq!(sizes, [1, 2, 2, 3]);
        let one = super::plan(&files, &options(2)).unwrap();
        assert_eq!((one.layers.len(), one.layers[0].prioritized), (1, 1));
    }

    #[test]
    fn impossible_limits_are_errors() {
        assert!(matches!(plan(&[file("a")], &options(1)), Err(PlanError::NoLayerLeft { .. })));
        let mut tiny = options(9);
        tiny.chunk_size = 1;
        assert!(matches!(plan(&[file("a")], &tiny), Err(PlanError::ChunkSize { .. })));
    }

    proptest! {
        #[test]
        fn every_file_is_in_one_layer_and_the_limit_holds(
            paths in prop::collection::btree_set("[a-c]{1,2}(/[a-c]{1,2})?(\\.safetensors|\\.json|\\.md)", 1..40),
            max_layers in 2_usize..12,
            used_mask in any::<u64>(),
        ) {
            let files: Vec<PlanFile> = paths
                .iter()
                .enumerate()
                .map(|(place, path)| if used_mask >> (place % 64) & 1 == 1 { used(path, place) } else { file(path) })
                .collect();
            let plan = plan(&files, &options(max_layers)).unwrap();
            prop_assert!((1..max_layers).contains(&plan.layers.len()));
            prop_assert!(plan.layers.iter().all(|layer| !layer.files.is_empty()));
            let mut indices: Vec<usize> =
                plan.layers.iter().flat_map(|layer| &layer.files).map(|planned| planned.index).collect();
            indices.sort_unstable();
            prop_assert_eq!(indices, (0..files.len()).collect::<Vec<_>>());
        }
    }
}
