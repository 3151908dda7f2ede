//! Seals several layers side by side, the largest first, each with its own pipeline.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    LayerSpec, PackError, PackOptions,
    known::{Found, Known},
};
use crate::{
    blob::Spool,
    layer::{LayerError, LayerFormat, Recorder, SealOptions, SealedLayer, Workers, seal_recorded},
    oci::Layout,
    plan::LayerKind,
    progress::Observer,
};

/// Most layers that are sealed at once: each has a reader and three hashes.
const AT_ONCE_MAX: usize = 8;
/// Bytes of chunk buffers that all layers together may take.
const BUFFERS_MAX: u64 = 192 << 20;
/// Buffers that one layer takes.
const BUFFERS_OF_LAYER: u64 = 4;

/// What becomes of a blob while it is hashed.
#[derive(Clone, Copy)]
pub(super) enum Keep<'a> {
    /// It is written to a layout.
    In(&'a Layout),
    /// It can be made again: what its files do not have is kept.
    Spooled,
    /// Nothing: the digests are all that is wanted.
    Nothing,
}

/// Seals those of `specs` that the digest cache does not know and returns all in order.
pub(super) fn seal_layers(
    specs: &[LayerSpec],
    options: &PackOptions,
    spool: &Spool,
    keep: Keep<'_>,
    observer: &dyn Observer,
) -> Result<Vec<SealedLayer>, PackError> {
    let layout = match keep {
        Keep::In(layout) => Some(layout),
        Keep::Spooled | Keep::Nothing => None,
    };
    let workers = Workers::new(options.threads).map_err(PackError::Threads)?;
    let format = options.format.format();
    let on_bytes = |bytes| {
        observer.hashed(bytes);
        observer.sources_read(bytes);
    };
    let known = Known::new(options, observer);
    let seal_options = SealOptions { workers: &workers, spool, on_bytes: &on_bytes };

    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(payload(&specs[*index])));
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results: Vec<Mutex<Option<Result<SealedLayer, PackError>>>> =
        specs.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let spec = &specs[index];
            let result = match known.find(spec, &*format) {
                Found::Known(key, layer) => known.use_it(spec, key, layer, layout),
                Found::ToSeal(mut remembered) => {
                    let recorder = remembered.as_mut().and_then(|remembered| remembered.recording.as_mut());
                    let recorder = recorder.map(|recording| recording as &mut dyn Recorder);
                    let result = seal_one(spec, &format, &seal_options, keep, recorder, known.verifies());
                    if let Ok(sealed) = &result {
                        observer.layer_done(&spec.title, sealed.digest, sealed.size);
                        if let Some(remembered) = remembered {
                            known.keep(spec, remembered, sealed);
                        }
                    }
                    result
                }
            };
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    thread::scope(|scope| {
        for _ in 1..at_once(options).min(specs.len()) {
            scope.spawn(work);
        }
        work();
    });

    // Of several errors the first layer's is reported; layers that were not begun have no result.
    results
        .into_iter()
        .filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect()
}

fn seal_one(
    spec: &LayerSpec,
    format: &Arc<dyn LayerFormat>,
    options: &SealOptions<'_>,
    keep: Keep<'_>,
    recorder: Option<&mut dyn Recorder>,
    verify: bool,
) -> Result<SealedLayer, PackError> {
    let named = |error| named(spec, error);
    let layout = match keep {
        Keep::In(layout) => layout,
        Keep::Spooled => return seal_recorded(&spec.entries, format, options, None, recorder).map_err(named),
        Keep::Nothing => {
            let mut nowhere = io::sink();
            return seal_recorded(&spec.entries, format, options, Some(&mut nowhere), recorder)
                .map_err(named);
        }
    };
    let mut writer = layout.blob_writer()?;
    let sealed = seal_recorded(&spec.entries, format, options, Some(&mut writer), recorder).map_err(named)?;
    if verify {
        writer.commit_verified(sealed.digest)?;
    } else {
        writer.commit(sealed.digest)?;
    }
    Ok(sealed)
}

/// Why a layer could not be made. Whose file it was that changed is for the exit code.
pub(super) fn named(spec: &LayerSpec, error: LayerError) -> PackError {
    match spec.kind {
        LayerKind::Cache => PackError::CacheLayer(error),
        _ => PackError::Layer(error),
    }
}

/// Bytes of payload in a layer.
pub(super) fn payload(spec: &LayerSpec) -> u64 {
    spec.entries.iter().map(crate::layer::Entry::size).sum()
}

/// How many layers are sealed at once: enough that the end of one layer, where only its last hash still runs,
/// overlaps with another; not so many that their buffers outgrow the memory that is promised.
fn at_once(options: &PackOptions) -> usize {
    let for_threads = (options.threads.div_ceil(3) + 1).min(options.threads).clamp(1, AT_ONCE_MAX);
    let for_memory = BUFFERS_MAX / (BUFFERS_OF_LAYER * options.chunk_size.max(1));
    for_threads.min(usize::try_from(for_memory).unwrap_or(usize::MAX)).max(1)
}
