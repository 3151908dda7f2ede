//! An OCI registry in memory, with the quirks and faults of real ones on request. It runs on a thread of
//! its own, on a free loopback port, and ends when dropped.

mod auth;
mod content;
mod faults;
mod server;
mod tls;
mod uploads;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes};
use starcar::digest::Digest;
use tokio::sync::oneshot;

use self::{auth::Tokens, tls::TlsListener, uploads::Upload};
pub use self::{
    auth::{Auth, Scopes, TokenService, base64, basic},
    content::Ranges,
    faults::{Act, Effect, Fault, Reply, When},
    tls::Authority,
    uploads::{Locations, Uploads},
};

/// How a [`FakeRegistry`] behaves.
#[derive(Debug, Clone, Default)]
pub struct FakeOptions {
    pub auth: Auth,
    pub ranges: Ranges,
    pub uploads: Uploads,
    pub faults: Vec<Fault>,
    /// Whether there is an API for referrers.
    pub referrers: bool,
    /// Whether manifests can be removed.
    pub removes: bool,
    /// Counts the bytes of blobs and throws them away, for pushes that are bigger than memory. Digests are
    /// not checked then, and pushed blobs have no bytes.
    pub discard: bool,
    /// Speaks TLS; see [`Authority::server`].
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// A request that arrived.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// When its headers had arrived, counted from the registry's start.
    pub at: Duration,
    pub method: String,
    /// Whom the client meant to talk to.
    pub host: String,
    pub path: String,
    pub query: String,
    pub range: Option<String>,
    pub content_range: Option<String>,
    pub authorization: Option<String>,
    pub content_length: Option<u64>,
    pub chunked: bool,
    /// Bytes of the body that were received.
    pub body: u64,
    /// Status of the answer; 0 if there was none.
    pub status: u16,
}

impl Seen {
    /// Whether this is a request that brings bytes of a blob.
    pub fn is_upload(&self) -> bool {
        matches!(self.method.as_str(), "PUT" | "PATCH") && self.path.contains("/blobs/uploads/")
    }
}

#[derive(Default)]
struct Store {
    /// By repository and digest.
    blobs: HashMap<(String, String), Bytes>,
    /// By repository and tag or digest: media type and bytes.
    manifests: HashMap<(String, String), (String, Bytes)>,
    /// Open upload sessions.
    uploads: HashMap<String, Upload>,
    next_upload: u64,
    tokens: Tokens,
    seen: Vec<Seen>,
}

struct Shared {
    options: FakeOptions,
    address: String,
    started: Instant,
    store: Mutex<Store>,
    /// How often each fault's requests came.
    hits: Mutex<Vec<usize>>,
}

/// A registry to test against.
pub struct FakeRegistry {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl FakeRegistry {
    /// Starts a registry that everybody may use.
    pub fn open() -> Self {
        Self::start(FakeOptions::default())
    }

    /// Starts a registry; it answers when this returns.
    pub fn start(options: FakeOptions) -> Self {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let hits = Mutex::new(vec![0; options.faults.len()]);
        let address = format!("127.0.0.1:{port}");
        let tls = options.tls.clone();
        let shared =
            Arc::new(Shared { options, address, started: Instant::now(), store: Mutex::default(), hits });
        let (stop, stopped) = oneshot::channel();
        let app = Router::new().fallback(server::handle).with_state(Arc::clone(&shared));
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serve = async {
                    match tls {
                        Some(config) => axum::serve(TlsListener::new(listener, config), app).await,
                        None => axum::serve(listener, app).await,
                    }
                };
                futures_util::future::select(Box::pin(serve), stopped).await;
            });
            runtime.shutdown_background();
        });
        Self { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// `127.0.0.1:PORT`, for references.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// `0.0.0.0:PORT`: the same server under a name that is not taken for loopback.
    pub fn foreign_address(&self) -> String {
        self.shared.address.replace("127.0.0.1", "0.0.0.0")
    }

    /// `127.0.0.2:PORT`: the same server under the name that [`Effect::Redirect`] and
    /// [`Locations::Elsewhere`] lead to.
    pub fn other_address(&self) -> String {
        self.shared.other_address()
    }

    /// All requests so far, in the order of their arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.store().seen.clone()
    }

    /// How many requests with this method and a path that contains `path` arrived.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.method == method && seen.path.contains(path)).count()
    }

    /// Bytes received in bodies of such requests.
    pub fn bytes(&self, method: &str, path: &str) -> u64 {
        self.seen()
            .iter()
            .filter(|seen| seen.method == method && seen.path.contains(path))
            .map(|seen| seen.body)
            .sum()
    }

    /// Bytes received for blobs in all, whatever became of them.
    pub fn uploaded(&self) -> u64 {
        self.seen().iter().filter(|seen| seen.is_upload()).map(|seen| seen.body).sum()
    }

    /// Bytes received in upload sessions whose client said at some time that they are for this blob.
    pub fn uploaded_for(&self, digest: Digest) -> u64 {
        let seen = self.seen();
        let names = |one: &Seen| server::query_value(&one.query, "digest") == Some(digest.to_string());
        let sessions: Vec<&str> =
            seen.iter().filter(|one| one.is_upload() && names(one)).map(|one| one.path.as_str()).collect();
        seen.iter()
            .filter(|one| one.is_upload() && sessions.contains(&one.path.as_str()))
            .map(|one| one.body)
            .sum()
    }

    /// How many tokens were asked for, in vain or not.
    pub fn token_requests(&self) -> usize {
        self.seen().iter().filter(|seen| seen.path == "/token").count()
    }

    /// Authorization headers, in the order of their arrival.
    pub fn authorizations(&self) -> Vec<String> {
        self.seen().into_iter().filter_map(|seen| seen.authorization).collect()
    }

    /// Range headers, in the order of their arrival.
    pub fn ranges(&self) -> Vec<String> {
        self.seen().into_iter().filter_map(|seen| seen.range).collect()
    }

    /// Forgets all requests so far.
    pub fn forget(&self) {
        self.shared.store().seen.clear();
    }

    /// How many upload sessions are open.
    pub fn open_uploads(&self) -> usize {
        self.shared.store().uploads.len()
    }

    /// Ends all upload sessions.
    pub fn end_uploads(&self) {
        self.shared.store().uploads.clear();
    }

    /// How many blobs are stored, in all repositories.
    pub fn blobs(&self) -> usize {
        self.shared.store().blobs.len()
    }

    /// The tags of a repository, sorted.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let store = self.shared.store();
        let mut tags: Vec<String> = store
            .manifests
            .keys()
            .filter(|(of, name)| of == repository && !name.contains(':'))
            .map(|(_, tag)| tag.clone())
            .collect();
        tags.sort();
        tags
    }

    /// A stored blob.
    pub fn blob(&self, repository: &str, digest: Digest) -> Option<Vec<u8>> {
        let key = (repository.to_owned(), digest.to_string());
        self.shared.store().blobs.get(&key).map(|bytes| bytes.to_vec())
    }

    /// A stored manifest's media type and bytes, by tag or digest.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<(String, Vec<u8>)> {
        let key = (repository.to_owned(), name.to_owned());
        self.shared.store().manifests.get(&key).map(|(kind, bytes)| (kind.clone(), bytes.to_vec()))
    }

    /// Stores a blob without a request.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Vec<u8>>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.shared.store().blobs.insert((repository.to_owned(), digest.to_string()), bytes.into());
        digest
    }

    /// Stores a manifest without a request, under its digest and a tag.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        for name in [tag.to_owned(), digest.to_string()] {
            let value = (media_type.to_owned(), Bytes::copy_from_slice(bytes));
            self.shared.store().manifests.insert((repository.to_owned(), name), value);
        }
        digest
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    fn scheme(&self) -> &'static str {
        if self.options.tls.is_some() { "https" } else { "http" }
    }

    fn other_address(&self) -> String {
        self.address.replace("127.0.0.1", "127.0.0.2")
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Seen)) {
        // `forget` may have taken the entry.
        if let Some(seen) = self.store().seen.get_mut(index) {
            change(seen);
        }
    }
}
