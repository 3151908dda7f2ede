//! Seals several layers side by side, the largest first, each with its own pipeline.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::{LayerSpec, PackError, PackOptions};
use crate::{
    blob::Spool,
    layer::{LayerFormat, SealOptions, SealedLayer, Workers, seal},
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

/// Seals `specs` and returns them in order. With a `layout`, blobs are written there as they are hashed.
pub(super) fn seal_layers(
    specs: &[LayerSpec],
    options: &PackOptions,
    spool: &Spool,
    layout: Option<&Layout>,
    observer: &dyn Observer,
) -> Result<Vec<SealedLayer>, PackError> {
    let workers = Workers::new(options.threads).map_err(PackError::Threads)?;
    let format = options.format.format();
    let on_bytes = |bytes| observer.hashed(bytes);
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
            let result = seal_one(&specs[index], &format, &seal_options, layout);
            match &result {
                Ok(sealed) => observer.layer_done(&specs[index].title, sealed.digest, sealed.size),
                Err(_) => failed.store(true, Ordering::Relaxed),
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
    layout: Option<&Layout>,
) -> Result<SealedLayer, PackError> {
    // Whose file it was that changed is for the exit code.
    let named = |error| match spec.kind {
        LayerKind::Cache => PackError::CacheLayer(error),
        _ => PackError::Layer(error),
    };
    let Some(layout) = layout else { return seal(&spec.entries, format, options, None).map_err(named) };
    let mut writer = layout.blob_writer()?;
    let sealed = seal(&spec.entries, format, options, Some(&mut writer)).map_err(named)?;
    writer.commit(sealed.digest)?;
    Ok(sealed)
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
