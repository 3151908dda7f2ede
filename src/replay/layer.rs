//! A lazily mounted layer on the node: which of its units and chunks are there, and how a missing one comes. Fetched bytes
//! stay in a nameless sparse file until they are verified, never in memory. Must not know why something is wanted.
//!
//! Source: stargz-snapshotter, `fs/remote/blob.go` and `fs/reader/reader.go`, as `docs/snapshotter.md` tells it.

use std::{
    collections::HashSet,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    ReplayError,
    content::{Content, FileContent},
    node::NodeSettings,
    pump::Pump,
    ranges::{Span, SpanSet},
    record::{Cause, Record},
    tasks::Tasks,
    wire::Wire,
};
use crate::{blob::RangeSource, digest::Digest, estargz::ReadError, oci::OciError, registry::RegistryError};

/// How long a reader of a silent body sleeps before it looks whether it is still wanted.
const PATIENCE: Duration = Duration::from_millis(100);
/// What frees no page is not worth a system call.
const HOLE_MIN: u64 = 64 << 10;

/// What all layers of a replay share.
pub(super) struct Shared<'a> {
    pub(super) place: String,
    pub(super) node: &'a NodeSettings,
    pub(super) tasks: Tasks,
    pub(super) record: Record,
    /// Threads that may still be started besides those that layers have.
    pub(super) helpers: AtomicUsize,
}

/// A layer.
pub(super) struct Layer<'a> {
    pub(super) index: usize,
    pub(super) digest: Digest,
    pub(super) size: u64,
    shared: &'a Shared<'a>,
    wire: Box<dyn Wire + 'a>,
    blob: File,
    state: Mutex<State>,
    changed: Condvar,
    pub(super) content: OnceLock<Content>,
    /// Whether the layer turned out to be pulled whole.
    abandoned: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Units that are there.
    units: SpanSet,
    /// Sets of missing units that are being fetched: whoever misses the very same waits for them.
    flights: HashSet<Vec<Span>>,
    /// Members that are being verified.
    verifying: HashSet<usize>,
    /// Whether the container may start, as far as this layer is concerned.
    released: bool,
}

/// Why a fetch did not bring what was asked for.
pub(super) enum Stop {
    /// The start is over, or a prioritised task began.
    Cancelled,
    /// It took longer than a request may. Tells whether some unit came nevertheless.
    Late(bool),
    /// It failed.
    Failed(ReplayError),
}

impl From<ReplayError> for Stop {
    fn from(error: ReplayError) -> Self {
        Self::Failed(error)
    }
}

impl<'a> Layer<'a> {
    pub(super) fn new(
        index: usize,
        (digest, size): (Digest, u64),
        wire: Box<dyn Wire + 'a>,
        blob: File,
        shared: &'a Shared<'a>,
    ) -> Self {
        Self {
            index,
            digest,
            size,
            shared,
            wire,
            blob,
            state: Mutex::default(),
            changed: Condvar::new(),
            content: OnceLock::new(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// The requests before a mount reads the footer: two bytes, to follow a redirect, and the size.
    pub(super) fn resolve(&self) -> Result<(), Stop> {
        let two = Span::new(0, self.size.min(2));
        if two.len() > 0 {
            self.request(two, Cause::Mount, None, false)?;
        }
        let from = self.shared.record.asked(self.index, Cause::Mount);
        let asked = self.wire.ask_size();
        self.shared.record.over(self.index, Cause::Mount, from, 0, 0);
        asked.map_err(|cause| Stop::Failed(self.unreadable(cause)))
    }

    /// Brings the units that hold `span`. A background task has the number that it began with.
    pub(super) fn fetch(&self, span: Span, cause: Cause, background: Option<u64>) -> Result<(), Stop> {
        let wide = span.widened(self.shared.node.chunk_size, self.size);
        loop {
            let mut state = self.lock();
            let missing = state.units.missing(wide);
            if missing.is_empty() {
                return Ok(());
            }
            if state.flights.contains(&missing) {
                drop(self.changed.wait_timeout(state, Duration::from_millis(100)));
                self.stopped(background)?;
                continue;
            }
            state.flights.insert(missing.clone());
            drop(state);
            let fetched = missing.iter().enumerate().try_for_each(|(before, run)| {
                let came = self.request(*run, cause, background, true);
                came.map_err(
                    |stop| if let Stop::Late(some) = stop { Stop::Late(some || before > 0) } else { stop },
                )
            });
            self.lock().flights.remove(&missing);
            self.changed.notify_all();
            return fetched;
        }
    }

    /// Makes a request and keeps what it brings.
    fn request(&self, span: Span, cause: Cause, background: Option<u64>, keep: bool) -> Result<(), Stop> {
        let record = &self.shared.record;
        let from = record.asked(self.index, cause);
        let mut came = 0;
        let result = self.receive(span, background, keep, &mut |bytes| {
            came += bytes;
            record.came(self.index, cause, bytes);
        });
        record.over(self.index, cause, from, span.start, came);
        result
    }

    fn receive(
        &self,
        span: Span,
        background: Option<u64>,
        keep: bool,
        came: &mut dyn FnMut(u64),
    ) -> Result<(), Stop> {
        let unit = self.shared.node.chunk_size;
        let deadline = Duration::try_from_secs_f64(self.shared.node.request_timeout).unwrap_or(Duration::MAX);
        let begun = Instant::now();
        let failed = |cause| Stop::Failed(self.unreadable(cause));
        let body = self.wire.range(span).map_err(failed)?;
        let body = Pump::start(body).map_err(|cause| Stop::Failed(ReplayError::Thread(cause)))?;
        let (mut at, mut kept) = (span.start, span.start);
        while at < span.end {
            self.stopped(background)?;
            let Some(left) = deadline.checked_sub(begun.elapsed()) else {
                return Err(Stop::Late(kept > span.start));
            };
            let Some(bytes) = body.next(left.min(PATIENCE)).map_err(failed)? else { continue };
            if bytes.is_empty() {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            came(bytes.len() as u64);
            if !keep {
                at += bytes.len() as u64;
                continue;
            }
            self.blob
                .write_all_at(&bytes, at)
                .map_err(|cause| Stop::Failed(ReplayError::Temporary(cause)))?;
            at += bytes.len() as u64;
            // A unit is there when all of it is.
            let whole = if at >= span.end { span.end } else { at - at % unit };
            if whole > kept {
                self.lock().units.insert(Span::new(kept, whole));
                kept = whole;
            }
        }
        Ok(())
    }

    fn stopped(&self, background: Option<u64>) -> Result<(), Stop> {
        let tasks = &self.shared.tasks;
        if tasks.is_over()
            || self.is_abandoned()
            || background.is_some_and(|number| tasks.is_cancelled(number))
        {
            return Err(Stop::Cancelled);
        }
        Ok(())
    }

    /// Brings a member into the second cache for a file, as a prioritised task.
    pub(super) fn make(
        &self,
        content: &Content,
        file: &FileContent,
        member: usize,
        cause: Cause,
    ) -> Result<(), Stop> {
        if content.members.get(member).is_none_or(|member| member.made_by().is_some()) {
            return Ok(());
        }
        // What is there already is not worth the time of verifying it when the start is over.
        self.stopped(None)?;
        for piece in content.pieces(file, member) {
            let _task = self.shared.tasks.prioritised();
            self.fetch(piece, cause, None)?;
        }
        self.verify(content, member, cause)
    }

    /// Verifies a member whose units are there, and forgets its bytes.
    pub(super) fn verify(&self, content: &Content, index: usize, cause: Cause) -> Result<(), Stop> {
        let Some(member) = content.members.get(index) else { return Ok(()) };
        let mut state = self.lock();
        while state.verifying.contains(&index) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if member.made_by().is_some() {
            return Ok(());
        }
        state.verifying.insert(index);
        drop(state);
        let verified = content.verify(member, &self.blob);
        if verified.is_ok() {
            member.set_made(cause);
            self.forget(member.span);
        }
        self.lock().verifying.remove(&index);
        self.changed.notify_all();
        verified.map_err(|cause| Stop::Failed(self.damaged(cause)))
    }

    /// Gives the disk's blocks back: what was verified is not read again.
    fn forget(&self, span: Span) {
        if span.len() >= HOLE_MIN {
            let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
            // Not every file system has holes; then the bytes stay until the end.
            let _ = rustix::fs::fallocate(&self.blob, flags, span.start, span.len());
        }
    }

    /// Lets the container start, as far as this layer is concerned.
    pub(super) fn release(&self) {
        self.lock().released = true;
        self.changed.notify_all();
    }

    /// The layer is pulled whole: nothing more is fetched lazily, and nobody waits for it.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        self.release();
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// Waits until the layer lets the container start, at most until `deadline`. Says whether it does.
    pub(super) fn wait_released(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.released {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.tasks.is_over() {
                return false;
            }
            let pause = left.min(Duration::from_millis(50));
            state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn unreadable(&self, cause: io::Error) -> ReplayError {
        match cause.downcast::<RegistryError>() {
            Ok(error) => OciError::Registry(error).into(),
            Err(cause) => {
                OciError::ReadBlob { place: self.shared.place.clone(), digest: self.digest, cause }.into()
            }
        }
    }

    pub(super) fn damaged(&self, cause: ReadError) -> ReplayError {
        ReplayError::Damaged { place: self.shared.place.clone(), digest: self.digest, cause: Box::new(cause) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The layer as a mount reads it: footer and table of contents.
pub(super) struct MountReads<'a, 'b>(pub(super) &'a Layer<'b>, pub(super) Mutex<Option<Stop>>);

impl RangeSource for MountReads<'_, '_> {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn read_range(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let layer = self.0;
        let span = Span::new(offset, offset.saturating_add(length as u64));
        let _task = layer.shared.tasks.prioritised();
        if let Err(stop) = layer.fetch(span, Cause::Mount, None) {
            *self.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop);
            return Err(io::Error::other("the layer could not be read"));
        }
        let mut bytes = vec![0; length];
        layer.blob.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// Layers that threads share.
pub(super) type Layers<'a> = Vec<Arc<Layer<'a>>>;
