//! Talking to OCI registries: authentication, manifests, blobs, ranges, uploads. Must not know what
//! layers contain.
//!
//! The facade is synchronous; the asynchronous runtime that the HTTP client needs is owned here and seen
//! nowhere else. Requests that fail are not repeated yet: an error of one blob ends a push, and a second
//! push skips the blobs that arrived.

mod credentials;
mod error;
mod manifest;
mod options;
mod range;
mod session;
mod upload;

use std::{
    any::Any,
    collections::HashMap,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures_util::{
    StreamExt, TryStreamExt,
    future::{Either, select},
    stream,
};
pub use oci_client::Reference;
use oci_client::RegistryOperation;
use tokio::{runtime::Runtime, sync::mpsc};

use self::{
    credentials::Places,
    session::{Session, Sessions},
    upload::{SinglePut, Upload, Uploader},
};
pub use self::{
    error::RegistryError,
    manifest::RawManifest,
    options::{RegistryOptions, TlsOptions},
    range::BlobSource,
};
use crate::{blob::BlobContent, digest::Digest};

/// What happens to one blob of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushEvent {
    /// The registry has the blob already (or an earlier one of this push is the same); nothing is sent.
    AlreadyThere,
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
        let RegistryOptions { plain_http, authfile, concurrency, .. } = options;
        let places = Places::of_environment(authfile);
        places.check()?;
        // An error says that a provider is installed already, by this function or by the program.
        rustls::crypto::ring::default_provider().install_default().ok();
        let concurrency = concurrency.max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(concurrency.clamp(2, 16))
            .thread_name("starcar-network")
            .enable_all()
            .build()
            .map_err(|error| RegistryError::Setup { message: error.to_string() })?;
        Ok(Self {
            inner: Arc::new(Inner {
                runtime: Some(runtime),
                sessions: Sessions::new(places, plain_http),
                uploader: Box::new(SinglePut),
                concurrency,
            }),
        })
    }

    /// Fetches a manifest or index, exactly as served, and verifies its digest against the reference's (if
    /// it has one) and the registry's own statement.
    pub fn pull_manifest(&self, reference: &Reference) -> Result<RawManifest, RegistryError> {
        let session = self.session(reference)?;
        self.run(manifest::pull(&session, reference))
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
        self.run(manifest::push(&session, reference, media_type, bytes))
    }

    /// Streams a blob of `size` bytes to `sink`, which is written to on the calling thread. The digest is
    /// known to be right only when this returns without error.
    pub fn pull_blob(
        &self,
        reference: &Reference,
        digest: Digest,
        size: u64,
        sink: &mut (dyn Write + Send),
    ) -> Result<(), RegistryError> {
        let session = self.session(reference)?;
        self.run(async {
            let context = session.context(reference, format!("pull blob {digest}"));
            let sink_error =
                |source| RegistryError::Sink { reference: reference.whole().into(), digest, source };
            session.login(reference, RegistryOperation::Pull, &context).await?;
            let name = digest.to_string();
            let mut stream = session
                .client()
                .pull_blob_stream(reference, name.as_str())
                .await
                .map_err(|error| context.translate(error))?;
            if let Some(announced) = stream.content_length.filter(|announced| *announced != size) {
                return Err(context.size_mismatch(size, announced));
            }
            let mut received = 0;
            loop {
                // The stream verifies the digest at its end, so it is read to its end.
                match stream.try_next().await {
                    Ok(Some(chunk)) => {
                        received += chunk.len() as u64;
                        if received > size {
                            return Err(context.size_mismatch(size, received));
                        }
                        sink.write_all(&chunk).map_err(sink_error)?;
                    }
                    Ok(None) if received == size => break,
                    Ok(None) => return Err(context.size_mismatch(size, received)),
                    Err(error) => return Err(context.io(error)),
                }
            }
            sink.flush().map_err(sink_error)
        })
    }

    /// A blob of `size` bytes to read ranges of. No request is made yet.
    pub fn blob_source(&self, reference: &Reference, digest: Digest, size: u64) -> BlobSource {
        BlobSource { registry: self.clone(), reference: reference.clone(), digest, size }
    }

    /// Whether the reference's repository has a blob.
    pub fn blob_exists(&self, reference: &Reference, digest: Digest) -> Result<bool, RegistryError> {
        let session = self.session(reference)?;
        self.run(exists(&session, reference, digest))
    }

    /// Pushes blobs that the reference's repository does not have, several at a time. Returns when all are
    /// stored, or with the first error, after which uploads in progress are abandoned.
    ///
    /// `on_event` is told what happens to which blob (index into `blobs`), on the calling thread; it must
    /// not call this client.
    pub fn push_blobs(
        &self,
        reference: &Reference,
        blobs: &[Arc<dyn BlobContent>],
        on_event: &(dyn Fn(usize, PushEvent) + Send + Sync),
    ) -> Result<(), RegistryError> {
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
                    self.push_blob(&session, reference, blob, move |event| on_event(index, event))
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
        blob: &Arc<dyn BlobContent>,
        on_event: impl Fn(PushEvent),
    ) -> Result<(), RegistryError> {
        let digest = blob.digest();
        match exists(session, reference, digest).await {
            Ok(true) => {
                on_event(PushEvent::AlreadyThere);
                return Ok(());
            }
            // An account that may push but not pull cannot ask. If it may not push either, opening the
            // upload says so before any byte is sent.
            Ok(false) | Err(RegistryError::Unauthorized { .. } | RegistryError::Denied { .. }) => {}
            Err(error) => return Err(error),
        }
        let context = session.context(reference, format!("push blob {digest}"));
        session.login(reference, RegistryOperation::Push, &context).await?;
        let (progress, mut reports) = mpsc::unbounded_channel();
        let upload = Upload {
            client: session.client(),
            reference,
            context: &context,
            content: Arc::clone(blob),
            progress,
        };
        let mut upload = self.inner.uploader.upload(upload);
        // Reports come from the network's threads; the caller's function runs here, on the caller's.
        let result = loop {
            match select(upload, Box::pin(reports.recv())).await {
                Either::Left((result, _)) => break result,
                Either::Right((Some(sent), rest)) => {
                    upload = rest;
                    on_event(PushEvent::Progress(sent));
                }
                Either::Right((None, rest)) => break rest.await,
            }
        };
        while let Ok(sent) = reports.try_recv() {
            on_event(PushEvent::Progress(sent));
        }
        result?;
        on_event(PushEvent::Done);
        Ok(())
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

async fn exists(session: &Session, reference: &Reference, digest: Digest) -> Result<bool, RegistryError> {
    let context = session.context(reference, format!("look for blob {digest}"));
    session.login(reference, RegistryOperation::Pull, &context).await?;
    session
        .client()
        .blob_exists(reference, &digest.to_string())
        .await
        .map_err(|error| context.translate(error))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
