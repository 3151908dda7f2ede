//! Whether a file is compressed.

use super::{Compression, PlanFile};
use crate::layer::Storage;

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
pub(super) fn storage(file: &PlanFile, compression: Compression) -> (Storage, String) {
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
        (Storage::Compressed, Some(sample)) => {
            let packed = u128::from(file.size) * u128::from(sample.percent()) / 100;
            u64::try_from(packed).unwrap_or(u64::MAX)
        }
        _ => file.size,
    }
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
        assert_eq!(storage(&file(1, true, 1), Compression::Auto).0, Storage::Stored);
        assert_eq!(storage(&file(1, true, 1), Compression::Gzip).0, Storage::Compressed);
    }

    #[test]
    fn large_files_must_shrink_more() {
        let auto = |size, compressed| storage(&file(size, false, compressed), Compression::Auto).0;
        assert_eq!(auto(LARGE, 90), Storage::Compressed);
        assert_eq!(auto(LARGE, 91), Storage::Stored);
        assert_eq!(auto(LARGE + 1, 50), Storage::Compressed);
        assert_eq!(auto(LARGE + 1, 51), Storage::Stored);
        assert_eq!(storage(&file(1, false, 1), Compression::Store).0, Storage::Stored);
    }
}
