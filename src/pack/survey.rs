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
    layer::LayerFormat,
    plan::{Compression, PlanFile, Sample, is_weights},
    profile::FileUse,
    snapshot::{SnapshotFile, WeightFormat},
};

/// Bytes that are read at the start, in the middle and at the end of a file.
const WINDOW: u64 = 64 * 1024;

/// Windows of a file of weights that are read for a sample, as far from each other as can be, and their bytes. Tensors
/// of several types may lie in one file.
const WEIGHT_WINDOWS: u64 = 8;
const WEIGHT_WINDOW: u64 = 128 * 1024;

/// Describes `files` for the planner, with what the profile says of each. Samples are taken only where
/// `compression` depends on them; `weights_format` is the format that weights are to be compressed in, if they are.
pub(super) fn survey(
    files: &[SnapshotFile],
    usage: Vec<Option<FileUse>>,
    compression: Compression,
    weights_format: Option<&dyn LayerFormat>,
) -> Result<Vec<PlanFile>, PackError> {
    std::iter::zip(files, usage)
        .map(|(file, usage)| {
            let weights = file.weight_format.is_some();
            let size = file.stamp.size;
            let unreadable = |cause| PackError::Sample { path: file.source.clone(), cause };
            let look = look(&file.path, size, weights, compression, weights_format.is_some());
            let sample = match (look, weights_format) {
                (Look::Weights, Some(format)) => weights_sample(&file.source, size, format).map(Some),
                (Look::Sample, _) => sample(&file.source, size).map(Some),
                _ => Ok(None),
            };
            let sample = sample.map_err(unreadable)?;
            let header = match file.weight_format {
                Some(WeightFormat::Safetensors) => Some(header_length(file).map_err(unreadable)?),
                _ => None,
            };
            Ok(PlanFile { path: file.path.clone(), size, weights, header, sample, usage })
        })
        .collect()
}

/// What a file is sampled for.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// Nothing depends on a sample.
    Not,
    /// Whether it is worth compressing.
    Sample,
    /// Whether it is worth entropy coding.
    Weights,
}

fn look(path: &str, size: u64, weights: bool, compression: Compression, compress_weights: bool) -> Look {
    if size == 0 {
        Look::Not
    } else if compress_weights && is_weights(path, weights) {
        Look::Weights
    } else if compression == Compression::Auto && !weights {
        Look::Sample
    } else {
        Look::Not
    }
}

/// Offsets and lengths, in bytes, of what [`survey`] reads of a file, but for its header. `weights` says whether its
/// content is that of weights, whatever it is called.
pub(crate) fn sampled(
    path: &str,
    size: u64,
    weights: bool,
    compression: Compression,
    compress_weights: bool,
) -> Vec<(u64, u64)> {
    match look(path, size, weights, compression, compress_weights) {
        Look::Not => Vec::new(),
        Look::Sample => windows(size),
        Look::Weights => weight_windows(size),
    }
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

/// The windows of a file of that size: offsets and lengths in bytes.
fn windows(size: u64) -> Vec<(u64, u64)> {
    if size <= 3 * WINDOW {
        vec![(0, size)]
    } else {
        vec![(0, WINDOW), ((size - WINDOW) / 2, WINDOW), (size - WINDOW, WINDOW)]
    }
}

fn sample(path: &Path, size: u64) -> io::Result<Sample> {
    let open = File::open(path)?;
    let windows = windows(size);
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

/// The windows of a file of weights of that size: offsets and lengths in bytes. Small files are all window.
fn weight_windows(size: u64) -> Vec<(u64, u64)> {
    let length = size.clamp(1, WEIGHT_WINDOW);
    let between = size.saturating_sub(length) / (WEIGHT_WINDOWS - 1);
    let (count, step) =
        if between < length { (size.div_ceil(length), length) } else { (WEIGHT_WINDOWS, between) };
    (0..count).map(|window| (window * step, length.min(size - window * step))).collect()
}

/// How windows of weights shrink in `format`, each on its own as a chunk is.
fn weights_sample(path: &Path, size: u64, format: &dyn LayerFormat) -> io::Result<Sample> {
    let open = File::open(path)?;
    let mut sample = Sample { raw: 0, compressed: 0 };
    let mut buffer = Vec::new();
    for (offset, length) in weight_windows(size) {
        buffer.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        open.read_exact_at(&mut buffer, offset)?;
        let raw = buffer.len() as u64;
        let coded = format.entropy_code(&buffer)?.map_or(raw, |member| member.len() as u64);
        sample.raw += raw;
        sample.compressed += coded.min(raw);
    }
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estargz::Estargz;

    fn sample_of(content: &[u8]) -> Sample {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, content).unwrap();
        sample(&path, content.len() as u64).unwrap()
    }

    #[test]
    fn weights_are_sampled_in_windows_or_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let window = WEIGHT_WINDOW;
        for (size, raw) in [
            (1, 1),
            (window, window),
            (window + 1, window + 1),
            (7 * window + 5, 7 * window + 5),
            (8 * window, 8 * window),
            (100 * window, 8 * window),
        ] {
            // Half of the bytes are zero, and the others are not.
            let content: Vec<u8> = (0..=255_u8)
                .flat_map(|byte| [0, byte])
                .cycle()
                .take(usize::try_from(size).unwrap())
                .collect();
            std::fs::write(&path, content).unwrap();
            let sample = weights_sample(&path, size, &Estargz::new(6)).unwrap();
            assert_eq!(sample.raw, raw);
            assert!(size < window || (60..66).contains(&sample.percent()), "{sample:?}");
        }
    }

    #[test]
    fn text_shrinks_and_noise_does_not() {
        let text = sample_of("hello, world\n".repeat(100_000).as_bytes());
        assert_eq!(text.raw, 3 * WINDOW);
        assert!(text.percent() < 10, "{text:?}");
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..300_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect();
        assert!(sample_of(&noise).percent() > 95);
    }
}
