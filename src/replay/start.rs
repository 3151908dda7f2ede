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
    content::Content,
    layer::{Layer, MountReads, Shared, Stop},
    ranges::prefetch_parts,
    record::Cause,
};
use crate::{
    digest::Digest,
    estargz::{EstargzReader, ReadError},
};

/// Requests of one layer's prefetch that run at a time, and threads of all layers' prefetch besides the layers' own. A node makes
/// all at once; more than these share one link.
pub(super) const PARTS_AT_ONCE: usize = 64;

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

/// Fetches what lies before the landmark and makes all files that begin there. Releases the container early where a node does; at the
/// end the caller does, when it has kept what failed.
pub(super) fn prefetch(layer: &Layer<'_>, shared: &Shared<'_>) -> Result<(), Stop> {
    match prefetch_inner(layer, shared) {
        Err(Stop::Late(_)) => {
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
    let parts = prefetch_parts(length, node.prefetch_chunk_size, node.chunk_size);
    side_by_side(parts, PARTS_AT_ONCE, shared, |part| layer.fetch(part, Cause::Prefetch, None))?;
    let wanted = content
        .files
        .iter()
        .filter(|file| file.begins_before(content, length))
        .flat_map(|file| file.chunks.iter().map(move |(_, member)| (file, *member)));
    side_by_side(wanted, node.processors, shared, |(file, member)| {
        layer.make(content, file, member, Cause::Prefetch)
    })
}

/// Does something with each item, in their order, with so many threads as far as they are to be had. Items are made when it is
/// their turn. Returns the first failure.
pub(super) fn side_by_side<T: Send>(
    items: impl Iterator<Item = T> + Send,
    threads: usize,
    shared: &Shared<'_>,
    work: impl Fn(T) -> Result<(), Stop> + Sync,
) -> Result<(), Stop> {
    let items = Mutex::new(Some(items.peekable()));
    let lock = || items.lock().unwrap_or_else(PoisonError::into_inner);
    let failure = Mutex::new(None);
    let next = || lock().as_mut().and_then(Iterator::next);
    let run = || {
        while let Some(item) = next() {
            if let Err(stop) = work(item) {
                *lock() = None;
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(stop);
            }
        }
    };
    let Some(first) = next() else { return Ok(()) };
    thread::scope(|scope| {
        for _ in 1..threads {
            if lock().as_mut().is_none_or(|items| items.peek().is_none()) {
                break;
            }
            let Some(helper) = Helper::new(shared) else { break };
            let help = move || {
                let _helper = helper;
                run();
            };
            let name = "replay-prefetch".to_owned();
            // Fewer threads do it as well.
            if thread::Builder::new().name(name).spawn_scoped(scope, help).is_err() {
                break;
            }
        }
        if let Err(stop) = work(first) {
            *lock() = None;
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(stop);
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// The right to have a thread more, until it is dropped.
struct Helper<'a>(&'a AtomicUsize);

impl<'a> Helper<'a> {
    fn new(shared: &'a Shared<'_>) -> Option<Self> {
        let left = &shared.helpers;
        left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).ok()?;
        Some(Self(left))
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{NodeSettings, record::Record, tasks::Tasks};

    #[test]
    fn items_are_made_when_it_is_their_turn() {
        let node = NodeSettings::default();
        let shared = Shared {
            place: "test".to_owned(),
            node: &node,
            tasks: Tasks::default(),
            record: Record::new(),
            helpers: 3.into(),
        };
        // More parts than memory holds, and more threads than there are.
        let parts = prefetch_parts(1 << 63, 2, 1);
        let done = AtomicUsize::new(0);
        let ended = side_by_side(parts, 64, &shared, |_| {
            if done.fetch_add(1, Ordering::SeqCst) >= 100 { Err(Stop::Cancelled) } else { Ok(()) }
        });
        assert!(matches!(ended, Err(Stop::Cancelled)));
        assert!((101..=104).contains(&done.into_inner()));
        assert_eq!(shared.helpers.into_inner(), 3);
    }

    #[test]
    fn each_item_has_its_turn_without_helpers() {
        let node = NodeSettings::default();
        let shared = Shared {
            place: "test".to_owned(),
            node: &node,
            tasks: Tasks::default(),
            record: Record::new(),
            helpers: 0.into(),
        };
        let seen = Mutex::new(Vec::new());
        let ended = side_by_side(0..5, 64, &shared, |item| {
            seen.lock().unwrap().push(item);
            Ok(())
        });
        assert!(ended.is_ok());
        assert_eq!(seen.into_inner().unwrap(), [0, 1, 2, 3, 4]);
    }
}
