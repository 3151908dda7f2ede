//! What happened when, while a start is replayed. Must not know why.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde::Serialize;

/// Requests of which times are kept, for the picture; all are counted.
const KEPT_MAX: usize = 200_000;

/// Why something was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// To mount the layer: its size, footer and table of contents.
    Mount,
    /// It lies before the layer's landmark.
    Prefetch,
    /// Somebody read a chunk that was not there.
    Read,
    /// In the background.
    Background,
    /// The layer cannot be mounted lazily and was pulled.
    Whole,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 5] = [Self::Mount, Self::Prefetch, Self::Read, Self::Background, Self::Whole];

    pub(super) fn index(self) -> usize {
        match self {
            Self::Mount => 0,
            Self::Prefetch => 1,
            Self::Read => 2,
            Self::Background => 3,
            Self::Whole => 4,
        }
    }
}

/// Requests and the bytes that they brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// Number of requests.
    pub requests: u64,
    /// Bytes of bodies that arrived, those of cancelled requests included.
    pub bytes: u64,
}

impl Fetched {
    pub(super) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
    }
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request {
    /// Position of the layer in the image.
    pub layer: usize,
    /// Why it was made.
    pub cause: Cause,
    /// Seconds from the start of the replay until it was made, and until it was over.
    pub seconds: (f64, f64),
    /// Where in the blob the range begins, in bytes.
    pub offset: u64,
    /// Bytes that came.
    pub bytes: u64,
}

/// What was fetched until some time.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) total: Fetched,
    pub(super) documents: Fetched,
    /// By layer and cause.
    pub(super) layers: Vec<[Fetched; Cause::ALL.len()]>,
}

/// Collects.
pub(super) struct Record {
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    /// By layer and cause.
    layers: Vec<[Fetched; Cause::ALL.len()]>,
    documents: Fetched,
    warnings: Vec<String>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), state: Mutex::default() }
    }

    /// Seconds since the start of the replay.
    pub(super) fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    pub(super) fn layers(&self, count: usize) {
        self.lock().layers.resize(count, Default::default());
    }

    pub(super) fn documents(&self, bytes: &[&[u8]]) {
        for bytes in bytes {
            self.lock().documents.add(Fetched { requests: 1, bytes: bytes.len() as u64 });
        }
    }

    /// A request is made. Returns when.
    pub(super) fn asked(&self, layer: usize, cause: Cause) -> f64 {
        self.count(layer, cause, Fetched { requests: 1, bytes: 0 });
        self.now()
    }

    /// Bytes of a request came.
    pub(super) fn came(&self, layer: usize, cause: Cause, bytes: u64) {
        self.count(layer, cause, Fetched { requests: 0, bytes });
    }

    fn count(&self, layer: usize, cause: Cause, more: Fetched) {
        let mut state = self.lock();
        if let Some(fetched) = state.layers.get_mut(layer).and_then(|causes| causes.get_mut(cause.index())) {
            fetched.add(more);
        }
    }

    /// A request that was made at `from` is over.
    pub(super) fn over(&self, layer: usize, cause: Cause, from: f64, offset: u64, bytes: u64) {
        let seconds = (from, self.now());
        let mut state = self.lock();
        if state.requests.len() < KEPT_MAX {
            state.requests.push(Request { layer, cause, seconds, offset, bytes });
        }
    }

    pub(super) fn warning(&self, text: String) {
        const WARNINGS_MAX: usize = 100;
        let mut state = self.lock();
        if state.warnings.len() < WARNINGS_MAX && !state.warnings.contains(&text) {
            state.warnings.push(text);
        }
    }

    /// What was fetched so far.
    pub(super) fn tally(&self) -> Tally {
        let state = self.lock();
        let mut total = state.documents;
        state.layers.iter().flatten().for_each(|fetched| total.add(*fetched));
        Tally { total, documents: state.documents, layers: state.layers.clone() }
    }

    /// The requests, and the warnings.
    pub(super) fn finish(self) -> (Vec<Request>, Vec<String>) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        (state.requests, state.warnings)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
