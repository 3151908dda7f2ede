//! One request and its answer: login, redirects, stalls, repetition. Must not know what requests are for.
//!
//! The client library under oci-client is used here directly, because oci-client shows no `Retry-After`, cannot
//! present a client certificate, asks token services for scopes of its own making, and waits for a silent server
//! forever; see `docs/architecture.md`.

use std::{
    collections::HashSet,
    io,
    sync::atomic::{AtomicBool, Ordering},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE},
};
use tokio::{sync::OnceCell, time::timeout};

use super::{
    credentials::Found,
    error::{Context, RegistryError},
    failure::{Failure, Refusal, Retry},
    login::Login,
    options::RegistryOptions,
    retry::Tries,
    transport::{Transport, authority, is_loopback},
    upload::{Flow, Habits},
};

/// Redirects that one request follows.
const REDIRECTS_MAX: usize = 5;
/// Bytes of an error's body that are read.
const REFUSAL_MAX: usize = 64 << 10;
/// Bytes of a document that are read: a manifest's limit in distribution is 4 MiB.
const DOCUMENT_MAX: usize = 32 << 20;
/// Retries before a registry has answered for the first time: its name may be wrong.
const FIRST_RETRIES: u32 = 3;
/// How often a request logs in anew: once for a token that ended, once for the scope that the registry names.
const LOGINS_MAX: usize = 2;

/// A registry, with one credential.
pub(super) struct Host {
    registry: String,
    plain_http: bool,
    transport: Arc<Transport>,
    login: Login,
    retries: u32,
    stall: Duration,
    /// `SCHEME://HOST/v2/`, once the registry answered there.
    base: OnceCell<Url>,
    answered: AtomicBool,
    /// What was learnt of how the registry takes uploads.
    pub(super) habits: Mutex<Habits>,
    /// Repositories that nothing can be mounted from.
    pub(super) no_mounts: Mutex<HashSet<String>>,
    /// Whether it was said that ranges are ignored.
    pub(super) ignores_ranges: AtomicBool,
}

/// A request that can be made any number of times.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// What the request needs to be allowed, in the token service's words.
    pub(super) scopes: Vec<String>,
    /// How long the answer may take beside the limit for stalls, because there is work to be done for it.
    pub(super) patience: Duration,
}

/// A request's body.
pub(super) enum Body {
    Empty,
    Bytes(Bytes),
    /// Holds credentials: sent to the host that was asked, and to no other.
    Secret(Bytes),
    /// Read while it is sent. A request with such a body is not repeated by itself: whoever made it knows how
    /// to go on.
    Flow(Box<dyn Fn() -> Flow + Send + Sync>),
}

/// An answer that is a success.
pub(super) struct Answer {
    response: Response,
    stall: Duration,
}

impl Ask {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Body::Empty,
            scopes: Vec::new(),
            patience: Duration::ZERO,
        }
    }

    pub(super) fn scopes(mut self, scopes: Vec<String>) -> Self {
        self.scopes = scopes;
        self
    }

    pub(super) fn header(mut self, name: reqwest::header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
}

impl Host {
    pub(super) fn new(
        registry: &str,
        found: Found,
        transport: Arc<Transport>,
        options: &RegistryOptions,
    ) -> Self {
        Self {
            registry: registry.to_owned(),
            plain_http: options.plain_http,
            transport,
            login: Login::new(found),
            retries: options.retries,
            stall: options.stall,
            base: OnceCell::new(),
            answered: AtomicBool::new(false),
            habits: Mutex::new(Habits::new(options.chunk, registry)),
            no_mounts: Mutex::default(),
            ignores_ranges: AtomicBool::new(false),
        }
    }

    /// Where the credentials come from, for messages.
    pub(super) fn credentials(&self) -> &str {
        self.login.origin()
    }

    /// Whether there are no credentials to show.
    pub(super) fn is_anonymous(&self) -> bool {
        self.login.is_anonymous()
    }

    /// Whether the credentials were refused, as opposed to not being enough for something.
    pub(super) fn is_refused(&self) -> bool {
        self.login.is_refused()
    }

    /// A fresh count of tries.
    pub(super) fn tries(&self) -> Tries {
        let met = self.answered.load(Ordering::Relaxed);
        Tries::new(if met { self.retries } else { self.retries.min(FIRST_RETRIES) })
    }

    /// Whether the registry is reached by HTTPS.
    pub(super) fn is_https(&self) -> bool {
        self.base.get().is_none_or(|base| base.scheme() == "https")
    }

    /// The URL of `path` below `/v2/`.
    pub(super) async fn url(&self, path: &str, context: &Context) -> Result<Url, RegistryError> {
        let base = self.base.get_or_try_init(|| self.meet(context)).await?;
        base.join(path).map_err(|error| context.protocol(format!("`{path}` makes no URL: {error}")))
    }

    /// Makes a request until it succeeds, fails for good, or was tried often enough.
    pub(super) async fn send(&self, ask: &Ask, context: &Context) -> Result<Answer, RegistryError> {
        let mut tries = self.tries();
        loop {
            match self.once(ask, context).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.wait(failure).await?,
            }
        }
    }

    /// Makes a request and reads the whole answer, as [`Self::send`] does.
    pub(super) async fn fetch(
        &self,
        ask: &Ask,
        context: &Context,
    ) -> Result<(HeaderMap, Vec<u8>), RegistryError> {
        let mut tries = self.tries();
        loop {
            let failure = match self.once(ask, context).await {
                Ok(answer) => {
                    let headers = answer.headers().clone();
                    match answer.bytes(context).await {
                        Ok(bytes) => return Ok((headers, bytes)),
                        Err(failure) => failure,
                    }
                }
                Err(failure) => failure,
            };
            tries.wait(failure).await?;
        }
    }

    /// Makes a request once, but for logging in.
    pub(super) async fn once(&self, ask: &Ask, context: &Context) -> Result<Answer, Failure> {
        let mut logins = 0;
        loop {
            let is_registry = self.is_registry(&ask.url);
            let can_repeat = !matches!(ask.body, Body::Flow(_));
            let proof = if is_registry {
                Some(self.login.proof(self, &ask.scopes, can_repeat, context).await?)
            } else {
                None
            };
            let header = proof.as_ref().and_then(|proof| proof.header.as_ref());
            // Where bytes are stored behind the registry, it is not the registry that answers.
            let elsewhere =
                (!is_registry && self.base.get().is_some()).then(|| context.at_host(&authority(&ask.url)));
            let result = self.exchange(ask, header, elsewhere.as_ref().unwrap_or(context)).await;
            let status = match &result {
                Ok(answer) => Some(answer.status()),
                Err(failure) => failure.answer.as_ref().map(|answer| answer.status),
            };
            // A server that is busy has not looked.
            let has_looked = |status: StatusCode| {
                status.is_success() || matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
            };
            if header.is_some() && status.is_some_and(has_looked) {
                self.login.accepted();
            }
            let mut failure = match result {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let refused = failure.answer.as_ref().filter(|answer| answer.status == StatusCode::UNAUTHORIZED);
            let Some(refused) = refused.filter(|_| is_registry && logins < LOGINS_MAX) else {
                return Err(failure);
            };
            // Without credentials, those are what is missing, whatever the kind.
            if !self.login.learn(&refused.headers, &ask.scopes) && !self.login.is_anonymous() {
                return Err(Failure::fatal(context.protocol(unknown_login(&refused.headers))));
            }
            if !self.login.refused(header, &refused.said).await {
                return Err(failure);
            }
            if !can_repeat {
                failure.retry = Retry::Later;
                return Err(failure);
            }
            logins += 1;
        }
    }

    /// Makes a request once, without logging in to the registry.
    pub(super) async fn bare(&self, ask: &Ask, context: &Context) -> Result<Answer, Failure> {
        self.exchange(ask, None, context).await
    }

    /// Finds out how the registry is reached and how it wants to be logged in to.
    async fn meet(&self, context: &Context) -> Result<Url, RegistryError> {
        let mut schemes = self.schemes().iter().peekable();
        while let Some(scheme) = schemes.next() {
            let url: Url = format!("{scheme}://{}/v2/", self.registry)
                .parse()
                .map_err(|error| context.protocol(format!("`{}` is no host: {error}", self.registry)))?;
            let ask = Ask::new(Method::GET, url.clone());
            let mut tries = self.tries();
            let is_met = loop {
                let Err(failure) = self.bare(&ask, context).await else { break true };
                if schemes.peek().is_some() && speaks_otherwise(scheme, &failure) {
                    break false;
                }
                match &failure.answer {
                    Some(answer) if failure.retry == Retry::Never => {
                        self.login.learn(&answer.headers, &[]);
                        break true;
                    }
                    _ => tries.wait(failure).await?,
                }
            };
            if is_met {
                return Ok(url);
            }
        }
        Err(context.protocol("it is reached neither by HTTPS nor by plain HTTP"))
    }

    /// The schemes to try.
    fn schemes(&self) -> &'static [&'static str] {
        if self.plain_http {
            return &["http"];
        }
        let wants_tls = self.transport.wants_tls() || self.transport.has_directory(&self.registry);
        match (is_loopback(&self.registry), wants_tls) {
            // Nobody sets up TLS on his own machine, but for tests.
            (true, false) => &["http", "https"],
            // `--tls-verify=false` is what other tools take to mean "or plain HTTP".
            _ if !self.transport.verifies() => &["https", "http"],
            _ => &["https"],
        }
    }

    /// Whether `url` is the registry's own, and not that of a store behind it.
    pub(super) fn is_registry(&self, url: &Url) -> bool {
        let base = self.base.get();
        base.is_some_and(|base| base.scheme() == url.scheme() && authority(base) == authority(url))
    }

    async fn exchange(
        &self,
        ask: &Ask,
        proof: Option<&HeaderValue>,
        context: &Context,
    ) -> Result<Answer, Failure> {
        let mut url = ask.url.clone();
        let mut method = ask.method.clone();
        for _ in 0..=REDIRECTS_MAX {
            let same_host = url.scheme() == ask.url.scheme() && authority(&url) == authority(&ask.url);
            let elsewhere = (!same_host).then(|| context.at_host(&authority(&url)));
            let context = elsewhere.as_ref().unwrap_or(context);
            // Until the registry was met, nothing but itself is asked.
            let is_registry = self.is_registry(&url) || (self.base.get().is_none() && same_host);
            let client = self.transport.client(&url, is_registry).map_err(Failure::fatal)?;
            let mut headers = ask.headers.clone();
            // Whatever proves who we are is for the host that was asked, and for no other.
            if !same_host {
                headers.remove(AUTHORIZATION);
            }
            if let Some(proof) = proof.filter(|_| same_host) {
                headers.insert(AUTHORIZATION, proof.clone());
            }
            let mut request = client.request(method.clone(), url.clone()).headers(headers);
            let begun = Instant::now();
            let patience = self.stall.saturating_add(ask.patience);
            let sent = match &ask.body {
                Body::Empty => timeout(patience, request.send()).await.ok(),
                Body::Bytes(bytes) | Body::Secret(bytes) => {
                    request = request.body(bytes.clone());
                    timeout(patience, request.send()).await.ok()
                }
                Body::Flow(make) => {
                    let mut flow = make();
                    let body = flow.take_body();
                    flow.watch(request.body(body).send(), self.stall).await
                }
            };
            let Some(sent) = sent else {
                tracing::info!("{method} {}{} no answer", authority(&url), url.path());
                return Err(Failure::passing(context.stalled(self.stall)));
            };
            let response = sent.map_err(|error| Failure::of_client(context, error))?;
            self.answered.store(true, Ordering::Relaxed);
            let status = response.status();
            tracing::info!(
                "{method} {}{} {} in {} ms",
                authority(&url),
                url.path(),
                status.as_u16(),
                begun.elapsed().as_millis()
            );
            let answer = Answer { response, stall: self.stall };
            if status.is_success() {
                return Ok(answer);
            }
            let next = resolve(&url, answer.headers()).filter(|_| status.is_redirection());
            let Some(next) = next else {
                let mut refusal = answer.refusal().await;
                // Some servers answer what they were shown.
                let shown = [proof, ask.headers.get(AUTHORIZATION)];
                self.login.mask(&mut refusal.said, shown.into_iter().flatten());
                return Err(Failure::of_answer(context, refusal));
            };
            if url.scheme() == "https" && next.scheme() == "http" {
                let host = next.host_str().unwrap_or_default();
                return Err(Failure::fatal(
                    context.protocol(format!("it redirects to {host} by plain HTTP, which is not followed")),
                ));
            }
            if matches!(ask.body, Body::Secret(_)) && authority(&next) != authority(&ask.url) {
                let host = next.host_str().unwrap_or_default();
                return Err(Failure::fatal(context.protocol(format!(
                    "it redirects to {host}, which would get the credentials; this is not followed"
                ))));
            }
            if status == StatusCode::SEE_OTHER && method != Method::HEAD {
                method = Method::GET;
            }
            url = next;
        }
        Err(Failure::fatal(context.protocol(format!("it redirects more than {REDIRECTS_MAX} times"))))
    }
}

/// Where an answer's `Location` leads from `url`; `None` without one, or where it leads out of TLS.
pub(super) fn location(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let next = resolve(url, headers)?;
    if url.scheme() == "https" && next.scheme() != "https" {
        tracing::warn!(
            "{} names an address at {} without TLS, which is not used",
            authority(url),
            authority(&next)
        );
        return None;
    }
    Some(next)
}

fn resolve(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok())?;
    let mut next = url.join(location).ok()?;
    // Registries behind a proxy that ends TLS often believe to be reached by plain HTTP.
    if url.scheme() == "https"
        && next.scheme() == "http"
        && next.host_str() == url.host_str()
        && matches!(next.port(), None | Some(443))
    {
        next.set_scheme("https").ok()?;
    }
    Some(next)
}

/// What is wrong with an answer that wants a login and names none that can be made.
fn unknown_login(headers: &HeaderMap) -> String {
    let kinds: Vec<&str> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok()?.split_whitespace().next())
        .collect();
    match kinds.as_slice() {
        [] => "it wants a login and does not say which (HTTP 401 without WWW-Authenticate)".to_owned(),
        kinds => format!("it wants a login of a kind that starcar does not know ({})", kinds.join(", ")),
    }
}

/// Whether a failure means that the server does not speak `scheme`.
fn speaks_otherwise(scheme: &str, failure: &Failure) -> bool {
    match &failure.answer {
        // What Go's and nginx's servers say to plain HTTP on a port for TLS.
        Some(answer) => {
            scheme == "http" && answer.status == StatusCode::BAD_REQUEST && answer.said.contains("HTTPS")
        }
        None => matches!(failure.error, RegistryError::PlainHttpServer { .. }),
    }
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// A header's value, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The size of the body that the server announces.
    pub(super) fn length(&self) -> Option<u64> {
        // Of a HEAD's answer the library knows only that it has no body.
        self.header("content-length").and_then(|length| length.parse().ok())
    }

    /// The next piece of the body; `None` at its end.
    pub(super) async fn piece(&mut self, context: &Context) -> Result<Option<Bytes>, Failure> {
        match timeout(self.stall, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(Failure::of_client(context, error)),
            Err(_) => Err(Failure::passing(context.stalled(self.stall))),
        }
    }

    /// The whole body, which must be a document.
    pub(super) async fn bytes(mut self, context: &Context) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(context).await? {
            if bytes.len() + piece.len() > DOCUMENT_MAX {
                let message = format!("its answer is longer than {DOCUMENT_MAX} bytes");
                return Err(Failure::fatal(context.protocol(message)));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// What the server said no with. A body that cannot be read is as good as none.
    async fn refusal(mut self) -> Refusal {
        let (status, headers) = (self.status(), self.headers().clone());
        let mut said = Vec::new();
        let read = async {
            while said.len() < REFUSAL_MAX
                && let Ok(Some(piece)) = self.response.chunk().await
            {
                said.extend_from_slice(&piece);
            }
        };
        timeout(self.stall.min(Duration::from_secs(5)), read).await.ok();
        said.truncate(REFUSAL_MAX);
        Refusal { status, headers, said: String::from_utf8_lossy(&said).into_owned() }
    }
}

/// An I/O error that wraps an error of a registry.
pub(super) fn io_error(error: RegistryError) -> io::Error {
    match error {
        RegistryError::SizeMismatch { .. } => io::Error::new(io::ErrorKind::UnexpectedEof, error),
        error => io::Error::other(error),
    }
}
