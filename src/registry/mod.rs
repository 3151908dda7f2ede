//! Talking to OCI registries: logins, manifests, blobs, ranges, uploads. Must not know what layers contain.
//!
//! The facade is synchronous; the asynchronous runtime that the HTTP client needs is owned here and seen
//! nowhere else. `exchange` makes requests, `upload` knows how a blob gets there over a bad link.

mod credentials;
pub(crate) mod error;
mod exchange;
pub(crate) mod failure;
mod helper;
mod limits;
mod login;
mod manifest;
mod memory;
mod options;
mod preflight;
mod pull;
mod referrers;
pub(crate) mod retry;
mod session;
mod tags;
pub(crate) mod transport;
mod upload;

use std::{
    any::Any,
    collections::HashMap,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use futures_util::{
    StreamExt, TryStreamExt,
    future::{Either, select},
    stream,
};
pub use oci_client::Reference;
use tokio::{runtime::Runtime, sync::mpsc};

use self::{
    credentials::Places,
    memory::Memory,
    session::{Session, Sessions},
    transport::Transport,
    upload::{Resuming, Upload, Uploader},
};
pub use self::{
    error::RegistryError,
    limits::{KnownRegistry, LimitSource, known_registries, known_registry},
    manifest::RawManifest,
    options::{RegistryOptions, TlsOptions},
    preflight::{Finding, Preflight, Verdict},
    pull::BlobSource,
};
use crate::{blob::BlobContent, digest::Digest};

/// What happens to one blob of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushEvent {
    /// The registry has the blob already (or an earlier one of this push is the same); nothing is sent.
    AlreadyThere,
    /// The registry took the blob from another of its repositories; nothing is sent.
    Mounted,
    /// An earlier run's upload goes on after this many bytes.
    Resumed(u64),
    /// So many bytes of the blob, counted from its start, were handed to the network. A later event may
    /// carry a smaller number if the upload had to be begun again.
    Progress(u64),
    /// The registry has stored the blob.
    Done,
}

/// A client for OCI registries. Clones share connections and logins.
///
/// The methods block. They must not be called from asynchronous code (they return an error there).
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` only while being dropped.
    runtime: Option<Runtime>,
    sessions: Sessions,
    uploader: Box<dyn Uploader>,
    memory: Option<Arc<Memory>>,
    mount_from: Vec<String>,
    /// Repositories that got blobs, by registry and digest.
    pushed: Mutex<HashMap<(String, Digest), Vec<String>>>,
    concurrency: usize,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The plain drop would wait for readers of abandoned uploads and panics in asynchronous code.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Registry {
    /// Starts a client. No request is made yet. An auth file that was named is read, to fail before hours
    /// of work and not after; credentials are looked up when a registry is first used.
    ///
    /// # Errors
    /// The named auth file is missing or broken, or the threads could not be started.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let places = Places::of_environment(options.authfile.clone());
        places.check()?;
        // An error says that a provider is installed already, by this function or by the program.
        rustls::crypto::ring::default_provider().install_default().ok();
        let transport = Transport::new(options.tls.clone())?;
        let concurrency = options.concurrency.max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(concurrency.clamp(2, 16))
            .thread_name("starcar-network")
            .enable_all()
            .build()
            .map_err(|error| RegistryError::Setup { message: error.to_string() })?;
        let memory = options.memory.as_deref().map(Memory::open).map(Arc::new);
        Ok(Self {
            inner: Arc::new(Inner {
                runtime: Some(runtime),
                uploader: Box::new(Resuming { memory: memory.clone() }),
                memory,
                mount_from: options.mount_from.clone(),
                pushed: Mutex::default(),
                concurrency,
                sessions: Sessions::new(places, transport, options),
            }),
        })
    }

    /// Fetches a manifest or index, exactly as served, and verifies its digest against the reference's (if
    /// it has one) and the registry's own statement.
    ///
    /// # Errors
    /// Failed requests; there is no such manifest; what came is none, or has another digest.
    pub fn pull_manifest(&self, reference: &Reference) -> Result<RawManifest, RegistryError> {
        let session = self.session(reference)?;
        self.run(manifest::pull(&session, reference, &manifest::name(reference)))
    }

    /// Stores a manifest or index under the reference's tag, or under its digest if the reference has no
    /// tag, and verifies that the registry has it under the digest that is returned.
    ///
    /// # Errors
    /// Besides failed requests: the reference has a digest and it is not that of `bytes`.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let session = self.session(reference)?;
        let name = reference.tag().map_or_else(|| Digest::of(bytes).to_string(), str::to_owned);
        self.run(manifest::push(&session, reference, &name, media_type, bytes)).map(|stored| stored.digest)
    }

    /// Streams a blob of `size` bytes to `sink`, which is written to on the calling thread. The digest is
    /// known to be right only when this returns without error.
    ///
    /// # Errors
    /// Failed requests, after as many tries as the options allow; there is no such blob; what came has another digest
    /// or size; `sink` fails.
    pub fn pull_blob(
        &self,
        reference: &Reference,
        digest: Digest,
        size: u64,
        sink: &mut (dyn Write + Send),
    ) -> Result<(), RegistryError> {
        self.blob_source(reference, digest, size).copy_to(sink)
    }

    /// A blob of `size` bytes to read ranges of. No request is made yet.
    pub fn blob_source(&self, reference: &Reference, digest: Digest, size: u64) -> BlobSource {
        BlobSource { registry: self.clone(), reference: reference.clone(), digest, size }
    }

    /// Whether the reference's repository has a blob.
    ///
    /// # Errors
    /// Failed requests.
    pub fn blob_exists(&self, reference: &Reference, digest: Digest) -> Result<bool, RegistryError> {
        let session = self.session(reference)?;
        let context = session.context(reference, format!("look for blob {digest}"));
        self.run(session.blob_size(digest, &context)).map(|found| found.is_some())
    }

    /// The digest of the manifest that a reference names; `None` if it names none.
    ///
    /// # Errors
    /// Those of [`Self::pull_manifest`], but for a manifest that is not there.
    pub fn manifest_digest(&self, reference: &Reference) -> Result<Option<Digest>, RegistryError> {
        let session = self.session(reference)?;
        let name = manifest::name(reference);
        let action = format!("find out what {name} names now");
        match self.run(manifest::pull_to(&session, reference, &name, action)) {
            Ok(manifest) => Ok(Some(manifest.digest)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that the reference's repository can be pushed to, by an upload that is opened and ended. Nothing
    /// stays behind.
    ///
    /// # Errors
    /// What a push would fail with, before its first byte.
    pub fn check_push(&self, reference: &Reference) -> Result<(), RegistryError> {
        let session = self.session(reference)?;
        self.run(preflight::check_push(&session, reference))
    }

    /// As [`Self::check_push`], and makes sure that nodes will be able to read parts of what is pushed, by a blob of a few
    /// bytes. What was found good is not tried again for a week, where there is a memory. Returns what was found if nodes will
    /// not be able to.
    ///
    /// # Errors
    /// What a push would fail with.
    pub fn check_for_nodes(&self, reference: &Reference) -> Result<Option<Finding>, RegistryError> {
        let session = self.session(reference)?;
        let registry = session.registry();
        if self.inner.memory.as_ref().is_some_and(|memory| memory.was_checked(registry)) {
            self.check_push(reference)?;
            return Ok(None);
        }
        let missing = self.run(preflight::check_for_nodes(self, &session, reference))?;
        if let Some(memory) = self.inner.memory.as_ref().filter(|_| missing.is_none()) {
            memory.checked(registry);
        }
        Ok(missing)
    }

    /// Finds out what a registry can do that pushes and lazy pulls need; see [`Preflight`]. A blob of a few bytes is
    /// pushed for that and removed again, where the registry removes blobs.
    ///
    /// # Errors
    /// The registry cannot be reached. All else is part of the answer.
    pub fn preflight(&self, reference: &Reference) -> Result<Preflight, RegistryError> {
        let session = self.session(reference)?;
        self.run(preflight::preflight(self, &session, reference))
    }

    /// Pushes blobs that the reference's repository does not have, several at a time. Returns when all are
    /// stored, or with the first error, after which uploads in progress are abandoned.
    ///
    /// `on_event` is told what happens to which blob (index into `blobs`), on the calling thread; it must
    /// not call this client.
    ///
    /// # Errors
    /// Requests that failed until no tries were left, or for good; a blob that cannot be read or is not what it is said
    /// to be; one that the registry stores otherwise or takes in no way.
    pub fn push_blobs(
        &self,
        reference: &Reference,
        blobs: &[Arc<dyn BlobContent>],
        on_event: &(dyn Fn(usize, PushEvent) + Send + Sync),
    ) -> Result<(), RegistryError> {
        self.push_blobs_from(reference, None, blobs, on_event)
    }

    /// As [`Self::push_blobs`], of blobs that lie in the repository of `from`: where that is one of the same registry,
    /// the registry is asked to take them from there.
    ///
    /// # Errors
    /// Those of [`Self::push_blobs`].
    pub fn push_blobs_from(
        &self,
        reference: &Reference,
        from: Option<&Reference>,
        blobs: &[Arc<dyn BlobContent>],
        on_event: &(dyn Fn(usize, PushEvent) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let from = from.filter(|from| from.resolve_registry() == reference.resolve_registry());
        let from = from.map(Reference::repository);
        // Equal blobs (layers of the same content) are sent once.
        let mut first_of: HashMap<Digest, usize> = HashMap::new();
        let (unique, repeated): (Vec<usize>, Vec<usize>) =
            (0..blobs.len()).partition(|&index| match blobs.get(index) {
                Some(blob) => *first_of.entry(blob.digest()).or_insert(index) == index,
                None => false,
            });
        let session = self.session(reference)?;
        self.run(async {
            stream::iter(unique.into_iter().filter_map(|index| Some((index, blobs.get(index)?))))
                .map(|(index, blob)| {
                    self.push_blob(&session, reference, from, blob, move |event| on_event(index, event))
                })
                .buffer_unordered(self.inner.concurrency)
                .try_collect::<()>()
                .await
        })?;
        for index in repeated {
            on_event(index, PushEvent::AlreadyThere);
        }
        Ok(())
    }

    async fn push_blob(
        &self,
        session: &Session,
        reference: &Reference,
        from: Option<&str>,
        blob: &Arc<dyn BlobContent>,
        on_event: impl Fn(PushEvent),
    ) -> Result<(), RegistryError> {
        let digest = blob.digest();
        if self.pushed(session, digest).iter().any(|repository| repository == session.repository()) {
            on_event(PushEvent::AlreadyThere);
            return Ok(());
        }
        let context = session.context(reference, format!("look for blob {digest}"));
        match session.blob_size(digest, &context).await {
            Ok(Some(found)) => {
                context.check_size(blob.size(), found)?;
                on_event(PushEvent::AlreadyThere);
                if let Some(memory) = &self.inner.memory {
                    memory.forget_upload(session.registry(), session.repository(), digest);
                }
                self.remember(session, digest);
                return Ok(());
            }
            // An account that may push but not pull cannot ask. If it may not push either, opening the
            // upload says so before any byte is sent.
            Ok(None) => {}
            Err(RegistryError::Unauthorized { .. } | RegistryError::Denied { .. })
                if !session.host().is_refused() => {}
            Err(error) => return Err(error),
        }
        let context = session.context(reference, format!("push blob {digest}"));
        let (events, mut reports) = mpsc::unbounded_channel();
        let content = Arc::clone(blob);
        let mount_from = self.mount_candidates(session, from, digest);
        let upload = Upload { session, context: &context, content, mount_from, events };
        let mut upload = self.inner.uploader.upload(upload);
        // Reports come from the network's threads; the caller's function runs here, on the caller's.
        let result = loop {
            match select(upload, Box::pin(reports.recv())).await {
                Either::Left((result, _)) => break result,
                Either::Right((Some(event), rest)) => {
                    upload = rest;
                    on_event(event);
                }
                Either::Right((None, rest)) => break rest.await,
            }
        };
        while let Ok(event) = reports.try_recv() {
            on_event(event);
        }
        result?;
        self.remember(session, digest);
        on_event(PushEvent::Done);
        Ok(())
    }

    /// Pushes a blob that is there only to try things with.
    async fn push_probe(
        &self,
        session: &Session,
        reference: &Reference,
        probe: &Arc<dyn BlobContent>,
    ) -> Result<(), RegistryError> {
        let context = session.context(reference, format!("push to {}", session.repository()));
        let (events, _reports) = mpsc::unbounded_channel();
        let content = Arc::clone(probe);
        let upload = Upload { session, context: &context, content, mount_from: Vec::new(), events };
        self.inner.uploader.upload(upload).await
    }

    /// Repositories that may have a blob: the one it comes from, those that the user names, then those that it was
    /// pushed to before.
    fn mount_candidates(&self, session: &Session, from: Option<&str>, digest: Digest) -> Vec<String> {
        /// More would cost more requests than they can save.
        const CANDIDATES_MAX: usize = 3;

        let known =
            self.inner.memory.iter().flat_map(|memory| memory.repositories(session.registry(), digest));
        // The name with the registry before it means the same.
        let prefix = format!("{}/", session.registry());
        let named = self.inner.mount_from.iter();
        let named = named.map(|name| name.strip_prefix(&prefix).unwrap_or(name).to_owned());
        let named: Vec<String> = from.map(str::to_owned).into_iter().chain(named).collect();
        // Whatever is named is asked.
        let most = CANDIDATES_MAX.max(named.len());
        let mut candidates: Vec<String> = Vec::new();
        for repository in named.into_iter().chain(self.pushed(session, digest)).chain(known) {
            if repository != session.repository() && !candidates.contains(&repository) {
                candidates.push(repository);
            }
        }
        candidates.truncate(most);
        candidates
    }

    /// Repositories that this client knows to have a blob.
    fn pushed(&self, session: &Session, digest: Digest) -> Vec<String> {
        let pushed = self.inner.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        pushed.get(&(session.registry().to_owned(), digest)).cloned().unwrap_or_default()
    }

    fn remember(&self, session: &Session, digest: Digest) {
        let key = (session.registry().to_owned(), digest);
        let mut pushed = self.inner.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        pushed.entry(key).or_default().push(session.repository().to_owned());
        drop(pushed);
        if let Some(memory) = &self.inner.memory {
            memory.has(session.registry(), session.repository(), digest);
        }
    }

    /// Whether the registry of `reference` was seen to send whole blobs when it was asked for ranges.
    pub fn ignores_ranges(&self, reference: &Reference) -> bool {
        let session = self.session(reference);
        session.is_ok_and(|session| session.host().ignores_ranges.load(Ordering::Relaxed))
    }

    fn session(&self, reference: &Reference) -> Result<Arc<Session>, RegistryError> {
        self.inner.sessions.get(reference)
    }

    /// Runs a conversation to its end. The client library has panics that a server can reach; they are
    /// errors here.
    fn run<T>(
        &self,
        conversation: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let Some(runtime) = &self.inner.runtime else {
            return Err(RegistryError::Internal { message: "the client was shut down".to_owned() });
        };
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(conversation)))
            .unwrap_or_else(|panic| Err(RegistryError::Internal { message: panic_message(panic.as_ref()) }))
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
