//! What a node does with a lazy layer before anybody reads it: the mount, and the prefetch that it starts. Must not know
//! profiles.
//!
//! Source: stargz-snapshotter, `fs/fs.go` and `fs/layer/layer.go`, as `docs/snapshotter.md` tells it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    ReplayError,
    content::{Content, FileContent},
    layer::{Layer, MountReads, Shared, Stop},
    ranges::{Span, prefetch_parts},
    record::Cause,
};
use crate::{
    digest::Digest,
    estargz::{EstargzReader, ReadError},
};

/// Requests of one layer's prefetch that run at a time. A node makes all at once; more than these share one link.
const PARTS_AT_ONCE: usize = 64;

/// Reads what a mount reads. A layer that turns out to be no eStargz layer is no error but says why it is none.
pub(super) fn mount(layer: &Layer<'_>, toc: Digest, shared: &Shared<'_>) -> Result<Result<(), String>, Stop> {
    let _task = shared.tasks.prioritised();
    layer.resolve()?;
    let reads = MountReads(layer, Mutex::default());
    let content = EstargzReader::open(&reads, Some(toc)).and_then(|reader| Content::of(&reader, layer.size));
    if let Some(stop) = reads.1.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(stop);
    }
    match content {
        Ok(content) => {
            let _ = layer.content.set(content);
            Ok(Ok(()))
        }
        Err(ReadError::Read { cause, .. }) => Err(Stop::Failed(ReplayError::Temporary(cause))),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Fetches what lies before the landmark and makes all files that begin there. Releases the container when a node does.
pub(super) fn prefetch(layer: &Layer<'_>, shared: &Shared<'_>) -> Result<(), Stop> {
    let done = prefetch_inner(layer, shared);
    // A prefetch that failed ends the wait as well.
    layer.release();
    match done {
        Err(Stop::Late) => {
            shared.record.warning(format!(
                "the prefetch of layer {} was given up after {} s (request_timeout_sec)",
                layer.index + 1,
                shared.node.request_timeout
            ));
            Ok(())
        }
        other => other,
    }
}

fn prefetch_inner(layer: &Layer<'_>, shared: &Shared<'_>) -> Result<(), Stop> {
    let Some(content) = layer.content.get() else { return Ok(()) };
    let Some(length) = content.prefetch else { return Ok(()) };
    let _task = shared.tasks.prioritised();
    let node = shared.node;
    if node.prefetch_async_size > 0 && length > node.prefetch_async_size {
        layer.release();
    }
    let parts: Vec<Span> = prefetch_parts(length, node.prefetch_chunk_size, node.chunk_size).collect();
    side_by_side(&parts, PARTS_AT_ONCE, |part| layer.fetch(*part, Cause::Prefetch, None))?;
    let wanted: Vec<(&FileContent, usize)> = content
        .files
        .iter()
        .filter(|file| file.begins_before(content, length))
        .flat_map(|file| file.chunks.iter().map(move |(_, member)| (file, *member)))
        .collect();
    side_by_side(&wanted, node.processors, |(file, member)| {
        layer.make(content, file, *member, Cause::Prefetch)
    })
}

/// Does something with each item, in their order, with so many threads. Returns the first failure.
pub(super) fn side_by_side<T: Sync>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<(), Stop> + Sync,
) -> Result<(), Stop> {
    if let [item] = items {
        return work(item);
    }
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(stop) = work(item) {
                next.store(items.len(), Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(stop);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            let spawned = thread::Builder::new().name("replay-prefetch".to_owned()).spawn_scoped(scope, run);
            if let Err(cause) = spawned {
                failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(Stop::Failed(ReplayError::Thread(cause)));
                break;
            }
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
