//! Looks into the files of a snapshot for what the planner must know: how well a sample of each compresses, and how
//! long its header is.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use flate2::{Compression as Level, write::DeflateEncoder};

use super::PackError;
use crate::{
    compile_cache::CacheFile,
    plan::{Compression, PlanFile, Sample},
    profile::FileUse,
    snapshot::{SnapshotFile, WeightFormat},
};

/// Bytes that are read at the start, in the middle and at the end of a file.
const WINDOW: u64 = 64 * 1024;

/// Describes `files` for the planner, with what the profile says of each. Samples are taken only where
/// `compression` depends on them.
pub(super) fn survey(
    files: &[SnapshotFile],
    usage: Vec<Option<FileUse>>,
    compression: Compression,
) -> Result<Vec<PlanFile>, PackError> {
    std::iter::zip(files, usage)
        .map(|(file, usage)| {
            let weights = file.weight_format.is_some();
            let size = file.stamp.size;
            let wanted = compression == Compression::Auto && !weights && size > 0;
            let sample = wanted.then(|| sample(&file.source, size)).transpose();
            let unreadable = |cause| PackError::Sample { path: file.source.clone(), cause };
            let sample = sample.map_err(unreadable)?;
            let header = match file.weight_format {
                Some(WeightFormat::Safetensors) => Some(header_length(file).map_err(unreadable)?),
                _ => None,
            };
            Ok(PlanFile { path: file.path.clone(), size, weights, header, sample, usage })
        })
        .collect()
}

/// Length in bytes of what lies before the tensors of a safetensors file: a length of 8 bytes, and as much JSON.
fn header_length(file: &SnapshotFile) -> io::Result<u64> {
    let mut length = [0; 8];
    File::open(&file.source)?.read_exact_at(&mut length, 0)?;
    Ok(u64::from_le_bytes(length).saturating_add(8))
}

/// Files of a compile cache below this size are compressed without a sample: they are code, text or tables.
const SAMPLED_MIN: u64 = 1 << 20;

/// Describes the files of a compile cache for the planner.
pub(super) fn survey_cache(
    files: &[CacheFile],
    usage: Vec<Option<FileUse>>,
    compression: Compression,
) -> Result<Vec<PlanFile>, PackError> {
    std::iter::zip(files, usage)
        .map(|(file, usage)| {
            let size = file.stamp.size;
            let sample = match compression {
                Compression::Auto if size >= SAMPLED_MIN => Some(
                    sample(&file.source, size)
                        .map_err(|cause| PackError::Sample { path: file.source.clone(), cause })?,
                ),
                _ => None,
            };
            Ok(PlanFile { path: file.path.clone(), size, weights: false, header: None, sample, usage })
        })
        .collect()
}

fn sample(path: &Path, size: u64) -> io::Result<Sample> {
    let open = File::open(path)?;
    let windows = if size <= 3 * WINDOW {
        vec![(0, size)]
    } else {
        vec![(0, WINDOW), ((size - WINDOW) / 2, WINDOW), (size - WINDOW, WINDOW)]
    };
    let mut encoder = DeflateEncoder::new(io::sink(), Level::fast());
    let mut buffer = Vec::new();
    for (offset, length) in windows {
        // At most three windows.
        buffer.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        open.read_exact_at(&mut buffer, offset)?;
        encoder.write_all(&buffer)?;
    }
    encoder.try_finish()?;
    Ok(Sample { raw: encoder.total_in(), compressed: encoder.total_out() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(content: &[u8]) -> Sample {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, content).unwrap();
        sample(&path, content.len() as u64).unwrap()
    }

    #[test]
    fn text_shrinks_and_noise_does_not() {
        let text = sampled("hello, world\n".repeat(100_000).as_bytes());
        assert_eq!(text.raw, 3 * WINDOW);
        assert!(text.percent() < 10, "{text:?}");
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..300_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect();
        assert!(sampled(&noise).percent() > 95);
    }
}
