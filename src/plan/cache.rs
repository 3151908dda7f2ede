//! How the files of a compile cache lie in a layer of their own.

use super::{
    Compression, LayerKind, PlanFile, PlanOptions, PlannedFile, PlannedLayer, Prefetch,
    chunks::chunk_lengths,
    storage::{storage_by_sample, stored_bytes},
};
use crate::{layer::Storage, natural::natural_cmp};

/// Lays out a compile cache: in the order of the profile, then by name. Its files are compressed where that makes
/// them smaller and, but for [`Prefetch::None`], prefetched.
///
/// What is prefetched is not limited as it is for the model, nor to what the profile names: the first thing that is
/// done with a cache is to copy all of it to where it can be written, and one read after the other takes longer than a
/// prefetch.
pub fn plan_cache(files: &[PlanFile], options: &PlanOptions) -> PlannedLayer {
    let mut order: Vec<usize> = (0..files.len()).collect();
    let place = |index: usize| files[index].usage.as_ref().map_or(usize::MAX, |usage| usage.place);
    order.sort_by(|a, b| {
        place(*a).cmp(&place(*b)).then_with(|| natural_cmp(&files[*a].path, &files[*b].path))
    });
    let (prioritized, why) = match options.prefetch {
        Prefetch::None => (0, "read on demand: --prefetch none"),
        Prefetch::All => (files.len(), "prefetched: --prefetch all"),
        Prefetch::Auto | Prefetch::Small => {
            (files.len(), "prefetched: the whole cache is copied before the engine starts")
        }
    };
    let planned = order.into_iter().map(|index| {
        let file = &files[index];
        let (storage, how) = match (options.compression, file.sample) {
            // Not worth a sample: compiled code and text shrink.
            (Compression::Auto, None) if file.size > 0 => {
                (Storage::Compressed, "compressed: a small file of a cache".to_owned())
            }
            _ => storage_by_sample(file, options.compression),
        };
        PlannedFile {
            index,
            storage,
            chunks: chunk_lengths(file.size, options.chunk_size),
            stored: stored_bytes(file, storage),
            reason: format!("{how}; {why}"),
        }
    });
    PlannedLayer { kind: LayerKind::Cache, files: planned.collect(), prioritized }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{CHUNK_SIZE_DEFAULT, Nodes, Sample},
        profile::{FileUse, Seconds},
    };

    fn file(path: &str, place: Option<usize>) -> PlanFile {
        let usage = place.map(|place| FileUse { place, first: Seconds::from_micros(0), reads: Vec::new() });
        let sample = Some(Sample { raw: 100, compressed: 20 });
        PlanFile { path: path.into(), size: 1000, weights: false, header: None, sample, usage }
    }

    fn planned(files: &[PlanFile], prefetch: Prefetch) -> (Vec<&str>, usize) {
        let options = PlanOptions {
            compression: Compression::Auto,
            compress_weights: false,
            prefetch,
            nodes: Nodes::Default,
            chunk_size: CHUNK_SIZE_DEFAULT,
            max_layers: 10,
            base_layers: 0,
            other_layers: 0,
            base_prefetched: 0,
        };
        let layer = plan_cache(files, &options);
        assert!(layer.files.iter().all(|file| file.storage == Storage::Compressed && file.stored == 200));
        (layer.files.iter().map(|file| files[file.index].path.as_str()).collect(), layer.prioritized)
    }

    #[test]
    fn without_a_profile_all_is_prefetched() {
        let files = [file("b", None), file("a10", None), file("a9", None)];
        assert_eq!(planned(&files, Prefetch::Auto), (vec!["a9", "a10", "b"], 3));
        assert_eq!(planned(&files, Prefetch::None).1, 0);
    }

    #[test]
    fn what_the_profile_names_comes_first() {
        let files = [file("a", None), file("b", Some(1)), file("c", Some(0))];
        assert_eq!(planned(&files, Prefetch::Auto), (vec!["c", "b", "a"], 3));
        assert_eq!(planned(&files, Prefetch::All).1, 3);
    }
}
