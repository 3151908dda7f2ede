//! Which file goes to which layer.

use super::{
    CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, LayerKind, Plan, PlanError, PlanFile, PlanOptions, PlannedFile,
    PlannedLayer, Prefetch, chunk_lengths,
    order::{for_people, rank},
    storage::storage,
};
use crate::natural::natural_cmp;

/// A file of at least this many bytes gets a layer of its own even if nobody knows what it holds.
const LARGE_FILE: u64 = 64 << 20;

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

/// Lays out `files`: small files in one layer, in the order in which engines read them, then one layer for
/// each weight shard in natural order. When that makes more layers than are allowed, neighbouring shards
/// share one, as evenly as can be.
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
    let (base_layers, max_layers) = (options.base_layers, options.max_layers);
    let budget = max_layers.saturating_sub(base_layers);
    if budget == 0 {
        return Err(PlanError::NoLayerLeft { base_layers, max_layers });
    }

    let (mut shards, mut small): (Vec<usize>, Vec<usize>) =
        (0..files.len()).partition(|index| is_shard(&files[*index]));
    shards.sort_by(|a, b| natural_cmp(&files[*a].path, &files[*b].path));
    small.sort_by(|a, b| {
        let (a, b) = (&files[*a].path, &files[*b].path);
        rank(a).cmp(&rank(b)).then_with(|| natural_cmp(a, b))
    });

    let mut layers = Vec::new();
    if budget == 1 {
        // One layer for everything: the small files lie first, as they would in a layer of their own.
        let kind = if shards.is_empty() { LayerKind::Small } else { LayerKind::Weights };
        layers.push(layer(kind, small.iter().chain(&shards), files, options));
    } else {
        if !small.is_empty() {
            layers.push(layer(LayerKind::Small, &small, files, options));
        }
        let groups = shards.len().min(budget - layers.len());
        for group in groups_of(&shards, groups) {
            layers.push(layer(LayerKind::Weights, group, files, options));
        }
    }
    Ok(Plan { layers })
}

fn is_shard(file: &PlanFile) -> bool {
    let lower = file.path.to_ascii_lowercase();
    file.weights || file.size >= LARGE_FILE || WEIGHT_ENDINGS.iter().any(|ending| lower.ends_with(ending))
}

/// Cuts `shards` into `count` runs of neighbours whose lengths differ by one at most.
fn groups_of(shards: &[usize], count: usize) -> impl Iterator<Item = &[usize]> {
    (0..count).map(move |group| {
        let start = group * shards.len() / count;
        let end = (group + 1) * shards.len() / count;
        &shards[start..end]
    })
}

fn layer<'a>(
    kind: LayerKind,
    indices: impl IntoIterator<Item = &'a usize>,
    files: &[PlanFile],
    options: &PlanOptions,
) -> PlannedLayer {
    let mut first = Vec::new();
    let mut rest = Vec::new();
    for &index in indices {
        let file = &files[index];
        let (prioritized, why) = priority(file, options.prefetch);
        let (storage, stored) = storage(file, options.compression);
        let planned = PlannedFile {
            index,
            storage,
            chunks: chunk_lengths(file.size, options.chunk_size),
            reason: format!("{stored}; {why}"),
        };
        if prioritized { first.push(planned) } else { rest.push(planned) }
    }
    let prioritized = first.len();
    first.append(&mut rest);
    PlannedLayer { kind, files: first, prioritized }
}

fn priority(file: &PlanFile, prefetch: Prefetch) -> (bool, &'static str) {
    match prefetch {
        Prefetch::All => (true, "prefetched: --prefetch all"),
        Prefetch::None => (false, "read on demand: --prefetch none"),
        Prefetch::Small if is_shard(file) => (false, "read on demand: fetched while the engine loads"),
        Prefetch::Small if for_people(&file.path) => (false, "read on demand: engines do not read it"),
        Prefetch::Small => (true, "prefetched: read before the first weight"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{CHUNK_SIZE_DEFAULT, Compression};

    fn options(max_layers: usize) -> PlanOptions {
        PlanOptions {
            compression: Compression::Auto,
            prefetch: Prefetch::Small,
            chunk_size: CHUNK_SIZE_DEFAULT,
            max_layers,
            base_layers: 1,
        }
    }

    fn file(path: &str) -> PlanFile {
        PlanFile { path: path.into(), size: 10, weights: path.ends_with(".safetensors"), sample: None }
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
            ["small 1 config.json README.md", "weights 0 m-2.safetensors", "weights 0 m-10.safetensors"]
        );
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
        ) {
            let files: Vec<PlanFile> = paths.iter().map(|path| file(path)).collect();
            let plan = plan(&files, &options(max_layers)).unwrap();
            prop_assert!(plan.layers.len() < max_layers);
            prop_assert!(plan.layers.iter().all(|layer| !layer.files.is_empty()));
            let mut indices: Vec<usize> =
                plan.layers.iter().flat_map(|layer| &layer.files).map(|planned| planned.index).collect();
            indices.sort_unstable();
            prop_assert_eq!(indices, (0..files.len()).collect::<Vec<_>>());
        }
    }
}
