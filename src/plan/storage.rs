//! Whether a file is compressed.

use super::{Compression, PlanFile, PlanOptions, is_weights};
use crate::layer::{self, Storage};

/// How much a sample of a file shrank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Bytes of the sample, more than zero.
    pub raw: u64,
    /// Bytes of the sample when compressed.
    pub compressed: u64,
}

/// Above this size in bytes a file must shrink to half to be compressed: a node reads it at the speed of its
/// link when stored, and at 0.1 GB/s for each core when not.
const LARGE: u64 = 8 << 20;

impl Sample {
    /// Size of the compressed sample in percent of its raw size, rounded up.
    pub fn percent(self) -> u64 {
        (self.compressed * 100).div_ceil(self.raw.max(1))
    }
}

/// How `file` is stored, and why.
pub(super) fn storage(file: &PlanFile, options: &PlanOptions) -> (Storage, String) {
    let wanted = options.compress_weights && options.compression != Compression::Store;
    match file.sample {
        Some(sample) if wanted && is_weights(&file.path, file.weights) => {
            let percent = sample.percent();
            if layer::is_worth_unpacking(sample.raw, sample.compressed) {
                (
                    Storage::EntropyCoded,
                    format!("compressed: --compress-weights, a sample shrank to {percent} %"),
                )
            } else {
                (Storage::Stored, format!("stored: a sample of these weights shrank to {percent} % only"))
            }
        }
        _ => storage_by_sample(file, options.compression),
    }
}

/// As [`storage`], where nothing is known to be weights but by content.
pub(super) fn storage_by_sample(file: &PlanFile, compression: Compression) -> (Storage, String) {
    match compression {
        Compression::Store => (Storage::Stored, "stored: --compression store".to_owned()),
        Compression::Gzip => (Storage::Compressed, "compressed: --compression gzip".to_owned()),
        Compression::Auto if file.weights => {
            (Storage::Stored, "stored: weights read faster than they unpack".to_owned())
        }
        Compression::Auto => match file.sample {
            None => (Storage::Stored, "stored: empty".to_owned()),
            Some(sample) => by_sample(file.size, sample),
        },
    }
}

/// About how many bytes `file` takes in its layer.
pub(super) fn stored_bytes(file: &PlanFile, storage: Storage) -> u64 {
    match (storage, file.sample) {
        (Storage::Compressed, Some(sample)) => scaled(file.size, sample.percent(), 100),
        (Storage::EntropyCoded, Some(sample)) => scaled(file.size, sample.compressed, sample.raw),
        _ => file.size,
    }
}

/// `size` times `part` by `whole`.
fn scaled(size: u64, part: u64, whole: u64) -> u64 {
    let scaled = u128::from(size) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn by_sample(size: u64, sample: Sample) -> (Storage, String) {
    let limit = if size > LARGE { 50 } else { 90 };
    let percent = sample.percent();
    if percent <= limit {
        (Storage::Compressed, format!("compressed: a sample shrank to {percent} %"))
    } else {
        (Storage::Stored, format!("stored: a sample shrank to {percent} %, not below {limit} %"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{CHUNK_SIZE_DEFAULT, Nodes, Prefetch};

    fn file(size: u64, weights: bool, compressed: u64) -> PlanFile {
        PlanFile {
            path: "f".into(),
            size,
            weights,
            header: None,
            sample: Some(Sample { raw: 100, compressed }),
            usage: None,
        }
    }

    #[test]
    fn weights_are_stored_whatever_their_sample_says() {
        assert_eq!(storage_by_sample(&file(1, true, 1), Compression::Auto).0, Storage::Stored);
        assert_eq!(storage_by_sample(&file(1, true, 1), Compression::Gzip).0, Storage::Compressed);
    }

    #[test]
    fn weights_are_compressed_where_that_is_asked_for_and_they_shrink() {
        let options = |compression, compress_weights| PlanOptions {
            compression,
            compress_weights,
            prefetch: Prefetch::Small,
            nodes: Nodes::Default,
            chunk_size: CHUNK_SIZE_DEFAULT,
            max_layers: 10,
            base_layers: 0,
            other_layers: 0,
            base_prefetched: 0,
        };
        let asked = |file: &PlanFile, compression| storage(file, &options(compression, true)).0;
        let of_auto = |file: &PlanFile| asked(file, Compression::Auto);
        assert_eq!(of_auto(&file(1, true, 78)), Storage::EntropyCoded);
        assert_eq!(of_auto(&file(1, true, 97)), Storage::EntropyCoded);
        assert_eq!(of_auto(&file(1, true, 98)), Storage::Stored);
        assert_eq!(asked(&file(1, true, 78), Compression::Gzip), Storage::EntropyCoded);
        assert_eq!(asked(&file(1, true, 78), Compression::Store), Storage::Stored);
        // By name, where the content says nothing; other files as ever.
        assert_eq!(of_auto(&file(1, false, 20)), Storage::Compressed);
        let named = PlanFile { path: "pytorch_model.bin".into(), ..file(1, false, 20) };
        assert_eq!(of_auto(&named), Storage::EntropyCoded);
        assert_eq!(storage(&named, &options(Compression::Auto, false)).0, Storage::Compressed);
        assert_eq!(stored_bytes(&file(1000, true, 78), Storage::EntropyCoded), 780);
    }

    #[test]
    fn large_files_must_shrink_more() {
        let auto = |size, compressed| storage_by_sample(&file(size, false, compressed), Compression::Auto).0;
        assert_eq!(auto(LARGE, 90), Storage::Compressed);
        assert_eq!(auto(LARGE, 91), Storage::Stored);
        assert_eq!(auto(LARGE + 1, 50), Storage::Compressed);
        assert_eq!(auto(LARGE + 1, 51), Storage::Stored);
        assert_eq!(storage_by_sample(&file(1, false, 1), Compression::Store).0, Storage::Stored);
    }
}
