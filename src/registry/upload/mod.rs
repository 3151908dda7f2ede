//! Sending one blob, to the end: take an upload up again or begin one, send what is missing, ask how far it got when
//! something fails, go on from there. Must not know which blobs there are or why they are sent.
//!
//! Source: OCI distribution specification 1.1, "Pushing blobs".

mod flow;
mod habits;
mod requests;

use std::{
    io,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures_util::future::BoxFuture;
use reqwest::Url;
use tokio::sync::mpsc;

pub(super) use self::{
    flow::Flow,
    habits::{Habits, Strategy},
    requests::cancel,
};
use self::{
    flow::{Part, SourceFailure},
    requests::{Begun, Known, begin, how_far, send_part},
};
use super::{
    PushEvent,
    error::{Context, RegistryError},
    exchange::location,
    failure::{Failure, Retry},
    memory::{Claim, Memory},
    retry::{PROGRESS_MIN, Tries},
    session::Session,
};
use crate::{blob::BlobContent, digest::Digest};

/// Retries when an upload of an earlier run is asked for: there is another way on.
const TAKE_UP_RETRIES: u32 = 2;

/// One blob to be sent.
pub(super) struct Upload<'a> {
    /// The repository to push to.
    pub(super) session: &'a Session,
    /// What errors have to tell.
    pub(super) context: &'a Context,
    /// The bytes.
    pub(super) content: Arc<dyn BlobContent>,
    /// Repositories of the same registry that may have the blob.
    pub(super) mount_from: Vec<String>,
    /// Takes what happens.
    pub(super) events: mpsc::UnboundedSender<PushEvent>,
}

/// A way to send a blob that the registry does not have.
pub(super) trait Uploader: Send + Sync {
    /// Sends the blob. When this returns without error, the registry has verified and stored it. Dropping
    /// the future abandons the upload.
    fn upload<'a>(&'a self, upload: Upload<'a>) -> BoxFuture<'a, Result<(), RegistryError>>;
}

/// Sends a blob and, after whatever ends a request, goes on at the byte that the registry has.
pub(super) struct Resuming {
    /// Where uploads are remembered for later runs.
    pub(super) memory: Option<Arc<Memory>>,
}

/// Where an upload stands.
struct Place {
    /// Where its next request goes.
    url: Url,
    /// Bytes that the registry has.
    offset: u64,
    /// How far into the blob bytes were sent: the registry cannot have more. The whole blob where an earlier run sent
    /// some.
    sent: u64,
}

/// An upload that is being made.
struct Running<'a> {
    upload: Upload<'a>,
    claim: Option<Claim>,
    size: u64,
    digest: Digest,
    failure: SourceFailure,
    sent: Arc<AtomicU64>,
    starving: Arc<AtomicBool>,
    tries: Tries,
    /// How the last request sent, and how many bytes.
    used: (Strategy, u64),
    /// The most bytes that the registry ever had: more than that is progress.
    most: u64,
    /// Whether parts of several requests were joined on the registry's word.
    joined: bool,
    /// Whether the registry's word for how far it got is still taken.
    trusted: bool,
    /// How often the registry found another digest.
    wrong: u32,
    /// Where the registry refused a piece that it should have taken.
    refused_at: Option<u64>,
}

/// What became of one request.
enum Step {
    Stored,
    More,
}

impl Uploader for Resuming {
    fn upload<'a>(&'a self, upload: Upload<'a>) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move {
            let (size, digest) = (upload.content.size(), upload.content.digest());
            let session = upload.session;
            let claim = self
                .memory
                .as_ref()
                .and_then(|memory| memory.claim(session.registry(), session.repository(), digest));
            let tries = session.host().tries();
            let running = Running {
                upload,
                claim,
                size,
                digest,
                failure: SourceFailure::default(),
                sent: Arc::default(),
                starving: Arc::default(),
                tries,
                used: (Strategy::Whole, 0),
                most: 0,
                joined: false,
                trusted: true,
                wrong: 0,
                refused_at: None,
            };
            running.run().await
        })
    }
}

impl Running<'_> {
    async fn run(mut self) -> Result<(), RegistryError> {
        let mut place = match self.take_up().await? {
            Some(place) => {
                self.joined = true;
                self.event(PushEvent::Resumed(place.offset));
                place
            }
            None => match self.begin().await? {
                Some(place) => place,
                None if !self.is_missing().await => return self.confirm().await,
                None => {
                    tracing::warn!(
                        "the registry says that it mounted blob {} and does not have it",
                        self.digest
                    );
                    self.upload.mount_from.clear();
                    match self.begin().await? {
                        Some(place) => place,
                        None => return self.confirm().await,
                    }
                }
            },
        };
        self.most = place.offset;
        loop {
            let result = self.step(&mut place).await;
            if let Some(source) = self.failure.take() {
                if !can_be_read_later(&source) {
                    self.cancel(&place).await;
                }
                let reference = self.upload.context.reference.clone();
                return Err(RegistryError::Source { reference, digest: self.digest, source });
            }
            match result {
                Ok(Step::Stored) => break,
                Ok(Step::More) => {}
                Err(failure) => {
                    if !self.recover(failure, &mut place).await? {
                        break;
                    }
                }
            }
            if place.offset >= self.most + PROGRESS_MIN {
                self.most = place.offset;
                self.tries.moved();
            }
        }
        if let Some(claim) = self.claim.take() {
            claim.forget();
        }
        self.confirm().await
    }

    fn event(&self, event: PushEvent) {
        self.upload.events.send(event).ok();
    }

    /// The upload that an earlier run left, if the registry still has it.
    async fn take_up(&mut self) -> Result<Option<Place>, RegistryError> {
        let Some(mut url) = self.claim.as_ref().and_then(Claim::url) else { return Ok(None) };
        // The registry must be met before it is known that the remembered URL is one of its own.
        let own = self.upload.session.url("", self.upload.context).await?;
        if own.scheme() == "https" && url.scheme() != "https" {
            return Ok(None);
        }
        match how_far(&self.upload, &mut url, Tries::new(TAKE_UP_RETRIES)).await {
            Ok(Known::Bytes(offset)) if (1..=self.size).contains(&offset) => {
                Ok(Some(self.at(url, offset, self.size)))
            }
            Ok(Known::Nothing) => Ok(None),
            Ok(Known::Bytes(_) | Known::Something) => {
                cancel(self.upload.session, &url, self.upload.context).await;
                Ok(None)
            }
            // It is only a hint: what cannot be gone on with must not be in the way of what can be begun.
            Err(error) => {
                tracing::info!("an earlier upload cannot be taken up: {}", error.in_one_line());
                Ok(None)
            }
        }
    }

    /// A place, whose address is remembered: some registries take no older one.
    fn at(&mut self, url: Url, offset: u64, sent: u64) -> Place {
        if let Some(claim) = &mut self.claim {
            claim.remember(&url);
        }
        Place { url, offset, sent }
    }

    fn moved(&mut self, place: &mut Place, url: Url) {
        if url != place.url {
            *place = self.at(url, place.offset, place.sent);
        }
    }

    /// Opens an upload; `None` when the blob was mounted instead.
    async fn begin(&mut self) -> Result<Option<Place>, RegistryError> {
        match begin(&self.upload, self.digest).await? {
            Begun::Mounted => {
                self.event(PushEvent::Mounted);
                if let Some(claim) = self.claim.take() {
                    claim.forget();
                }
                Ok(None)
            }
            Begun::At(url) => Ok(Some(self.at(url, 0, 0))),
        }
    }

    /// Begins again in place of an upload that is of no use any more. Returns whether there is something to send.
    async fn begin_again(&mut self, place: &mut Place) -> Result<bool, RegistryError> {
        // What an earlier run sent may be made a blob of just now, which leaves no upload to go on with.
        if place.sent == self.size && self.is_there().await? {
            return Ok(false);
        }
        self.joined = false;
        match self.begin().await? {
            Some(next) => {
                *place = next;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Makes the next request.
    async fn step(&mut self, place: &mut Place) -> Result<Step, Failure> {
        let strategy = self.habits(|habits| habits.strategy());
        let left = self.size - place.offset;
        let length = match strategy {
            Strategy::Whole => left,
            Strategy::Pieces(length) => length.min(left),
        };
        self.used = (strategy, length);
        let ends = strategy == Strategy::Whole || left == 0;
        let part = Part {
            content: Arc::clone(&self.upload.content),
            offset: place.offset,
            length,
            events: self.upload.events.clone(),
            failure: self.failure.clone(),
            sent: Arc::clone(&self.sent),
            starving: Arc::clone(&self.starving),
        };
        let sent = send_part(&self.upload, &place.url, part, ends.then_some(self.digest)).await;
        place.sent = place.sent.max(self.sent.load(Ordering::Relaxed));
        let answer = sent?;
        if ends {
            return Ok(Step::Stored);
        }
        let expected = place.offset + length;
        // A registry that took a piece has more than before: one that names no more (ECR names the end of the first
        // piece for ever) does not count.
        let said = answer.header("range").and_then(requests::end_of_range);
        let has = said.filter(|has| *has > place.offset).unwrap_or(expected);
        if has > expected {
            let said = format!("it says to have {has} bytes where {expected} were sent");
            return Err(Failure::passing(self.upload.context.protocol(said)));
        }
        self.joined = true;
        if let Some(url) = location(&place.url, answer.headers()) {
            self.moved(place, url);
        }
        place.offset = has;
        Ok(Step::More)
    }

    /// Decides how to go on after a request that failed, and brings `place` there. Returns whether anything is left to
    /// be sent.
    async fn recover(&mut self, mut failure: Failure, place: &mut Place) -> Result<bool, RegistryError> {
        let (used, asked) = self.used;
        let before = place.offset;
        match failure.status() {
            _ if failure.is_wrong_digest() => return self.another_digest(failure, place).await,
            Some(413) if self.habits(|habits| habits.too_long(used, asked)) => {}
            Some(413) => {
                self.cancel(place).await;
                let minimum = self.habits(|habits| habits.piece_min());
                return Err(self.upload.context.too_large(self.digest, self.size, asked, minimum));
            }
            // Out of step, or longer than the registry takes: which of them, its state shows.
            Some(416) => {}
            Some(400 | 405 | 501) if self.habits(|habits| habits.other_way(used, place.offset == 0)) => {}
            Some(404 | 410) => {
                failure.retry = Retry::Later;
                self.tries.wait(failure).await?;
                self.lost(place);
                return self.begin_again(place).await;
            }
            _ => {
                if failure.retry == Retry::Never {
                    // After a new login, or when the registry has time again, there is something to go on with.
                    let passes = |status| matches!(status, 401 | 408 | 425 | 429 | 500 | 502..600);
                    if failure.status().is_some_and(|status| !passes(status)) {
                        self.cancel(place).await;
                    }
                    return Err(failure.error);
                }
                self.tries.wait(failure).await?;
                // The answer may have been lost, or be an error though the blob was stored.
                if place.sent == self.size && self.is_there().await? {
                    return Ok(false);
                }
                return self.synchronize(place).await;
            }
        }
        let refused = failure.status() == Some(416);
        let left = self.synchronize(place).await?;
        if left && refused && place.offset <= before {
            if place.offset == before && self.habits(|habits| habits.too_long(used, asked)) {
                return Ok(true);
            }
            failure.retry = Retry::Later;
            self.tries.wait(failure).await?;
            // Once may be chance.
            if self.refused_at.replace(before) == Some(before) {
                self.cancel_session(place).await;
                return self.begin_again(place).await;
            }
        }
        Ok(left)
    }

    /// Asks how far the upload got, and begins again where the registry lost it or cannot be believed.
    async fn synchronize(&mut self, place: &mut Place) -> Result<bool, RegistryError> {
        let sent = place.sent;
        let mut url = place.url.clone();
        let known = if self.trusted {
            how_far(&self.upload, &mut url, self.upload.session.host().tries()).await?
        } else {
            Known::Something
        };
        self.moved(place, url);
        match known {
            // Nothing, or one byte: the header has the same words for both.
            Known::Bytes(offset) if offset <= sent && (offset > 0 || sent == 0) => {
                place.offset = offset;
                self.joined |= offset > 0;
                return Ok(true);
            }
            Known::Bytes(offset) => {
                if offset > 0 {
                    tracing::warn!(
                        "the registry says to have {offset} bytes of blob {}, of which {sent} were sent; it is sent \
                         anew",
                        self.digest
                    );
                }
                self.cancel_session(place).await;
            }
            Known::Something => self.cancel_session(place).await,
            Known::Nothing => self.lost(place),
        }
        self.begin_again(place).await
    }

    fn lost(&self, place: &Place) {
        if place.sent > 0 {
            tracing::warn!("the registry lost the upload of blob {}; it is sent anew", self.digest);
            self.habits(|habits| habits.lost(self.used.0));
        }
    }

    /// The registry computed another digest: because parts were joined wrongly, because bytes changed on the way, or
    /// because the content is not what it is said to be.
    async fn another_digest(
        &mut self,
        mut failure: Failure,
        place: &mut Place,
    ) -> Result<bool, RegistryError> {
        self.wrong += 1;
        if !self.joined {
            self.check_content().await?;
        }
        if self.wrong > 2 {
            self.cancel(place).await;
            return Err(failure.error);
        }
        self.trusted &= !self.joined;
        failure.retry = Retry::Later;
        self.tries.wait(failure).await?;
        self.cancel_session(place).await;
        self.begin_again(place).await
    }

    /// Reads the content again, to tell whose fault a wrong digest is.
    async fn check_content(&self) -> Result<(), RegistryError> {
        let content = Arc::clone(&self.upload.content);
        let read = tokio::task::spawn_blocking(move || Digest::of_reader(&mut content.reader(0)?)).await;
        let source = match read {
            Ok(Ok(actual)) if actual == self.digest => return Ok(()),
            Ok(Ok(actual)) => std::io::Error::other(format!("its content has digest {actual}")),
            Ok(Err(error)) => error,
            Err(panic) => std::io::Error::other(panic),
        };
        let reference = self.upload.context.reference.clone();
        Err(RegistryError::Source { reference, digest: self.digest, source })
    }

    async fn is_there(&self) -> Result<bool, RegistryError> {
        match self.upload.session.blob_size(self.digest, self.upload.context).await {
            Ok(found) => Ok(found.is_some()),
            // An account that may push but not pull cannot ask.
            Err(RegistryError::Unauthorized { .. } | RegistryError::Denied { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the registry says that it does not have the blob.
    async fn is_missing(&self) -> bool {
        matches!(self.upload.session.blob_size(self.digest, self.upload.context).await, Ok(None))
    }

    /// Asks for the blob's size: an answer to an upload is no proof that the blob is there.
    async fn confirm(&self) -> Result<(), RegistryError> {
        match self.upload.session.blob_size(self.digest, self.upload.context).await {
            Ok(Some(found)) => self.upload.context.check_size(self.size, found),
            Ok(None) => Err(self.upload.context.protocol("the registry took the blob and does not have it")),
            Err(RegistryError::Unauthorized { .. } | RegistryError::Denied { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends an upload that will not be taken up again, so that nothing is left on the registry.
    async fn cancel(&mut self, place: &Place) {
        if let Some(claim) = self.claim.take() {
            claim.forget();
        }
        self.cancel_session(place).await;
    }

    async fn cancel_session(&self, place: &Place) {
        cancel(self.upload.session, &place.url, self.upload.context).await;
    }

    fn habits<T>(&self, with: impl FnOnce(&mut Habits) -> T) -> T {
        habits_of(self.upload.session, with)
    }
}

/// Whether a source that failed may be read when it is tried again: one in a registry that is out of reach. A file that
/// cannot be read now has changed, or its disk is broken.
fn can_be_read_later(source: &io::Error) -> bool {
    let cause = source.get_ref().and_then(|cause| cause.downcast_ref::<RegistryError>());
    cause.is_some_and(|cause| {
        !matches!(cause, RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. })
    })
}

fn habits_of<T>(session: &Session, with: impl FnOnce(&mut Habits) -> T) -> T {
    with(&mut session.host().habits.lock().unwrap_or_else(PoisonError::into_inner))
}
