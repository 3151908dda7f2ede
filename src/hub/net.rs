//! One request to the hub and its answer: the token, redirects, stalls, repetition, and what a refusal means. The
//! client is the registries' own (`registry::transport`). Must not know what requests are for, nor the cache.

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::{Either, select};
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE},
};
use tokio::{runtime::Runtime, sync::watch, time::timeout};

use super::{
    HubError,
    environment::{HubEnvironment, Token},
};
use crate::registry::{
    RegistryError, TlsOptions,
    error::cause,
    failure::{RETRY_AFTER_MAX, Retry, is_about_trust, retry_after},
    retry::Tries,
    transport::{Transport, authority},
};

/// Redirects that one request follows: a renamed repository, the store, and one to spare.
const REDIRECTS_MAX: usize = 5;
/// Bytes of a refusal's body that are read.
const REFUSAL_MAX: usize = 16 << 10;
/// How much of what the hub said a message quotes, in characters.
const QUOTE_MAX: usize = 200;
/// Why what was under way failed after something else did.
const ENDED: &str = "it was ended";
/// How long nothing may move where nothing says otherwise.
pub(super) const STALL: Duration = Duration::from_mins(1);

/// The hub, as one process sees it. All methods block.
pub(super) struct Net {
    runtime: Runtime,
    transport: Transport,
    pub(super) endpoint: Url,
    token: Option<Token>,
    stall: Duration,
    retries: u32,
    /// Whether all requests are to end, because one failed for good.
    stop: watch::Sender<bool>,
}

/// What a request is about, for messages.
#[derive(Debug, Clone)]
pub(super) struct About {
    /// What is tried, a verb phrase such as `download config.json of a/b`.
    pub(super) action: String,
    pub(super) repository: String,
    pub(super) revision: String,
    /// The file, where there is one.
    pub(super) file: Option<String>,
}

/// A request that failed once.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Box<HubError>,
    pub(super) retry: Retry,
    /// The answer's status, if there was one.
    pub(super) status: Option<StatusCode>,
}

impl Failure {
    pub(super) fn fatal(error: HubError) -> Self {
        Self { error: Box::new(error), retry: Retry::Never, status: None }
    }

    pub(super) fn passing(error: HubError) -> Self {
        Self { error: Box::new(error), retry: Retry::Later, status: None }
    }
}

/// An answer that is a success, its body still to be read.
pub(super) struct Answer<'a> {
    net: &'a Net,
    response: Response,
    about: &'a About,
}

impl Net {
    pub(super) fn new(environment: &HubEnvironment, stall: Duration, retries: u32) -> Result<Self, HubError> {
        // An error says that a provider is installed already, by this function or by the program.
        rustls::crypto::ring::default_provider().install_default().ok();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("starcar-hub")
            .enable_all()
            .build()
            .map_err(|error| HubError::Setup(error.to_string()))?;
        Ok(Self {
            runtime,
            transport: Transport::new(TlsOptions::default())?,
            endpoint: environment.endpoint.clone(),
            token: environment.token.clone(),
            stall: environment.timeout.unwrap_or(stall),
            retries,
            stop: watch::Sender::new(false),
        })
    }

    /// The hub's address with `segments` behind it, each escaped.
    pub(super) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Fresh tries of something.
    pub(super) fn tries(&self) -> Tries {
        Tries::new(self.retries)
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The failure's own, when there is to be no next try.
    pub(super) fn wait(&self, tries: &mut Tries, failure: Failure) -> Result<(), HubError> {
        let asked = match failure.retry {
            Retry::Never => return Err(*failure.error),
            Retry::Later => Duration::ZERO,
            Retry::After(pause) => pause,
        };
        match tries.pause(&failure.error.in_one_line(), asked) {
            Some(pause) if !self.pause(pause) => Ok(()),
            _ => Err(*failure.error),
        }
    }

    /// Waits for something else than an answer.
    ///
    /// # Errors
    /// All is to end.
    pub(super) fn rest(&self, pause: Duration, about: &About) -> Result<(), HubError> {
        if !self.pause(pause) {
            return Ok(());
        }
        let (action, host) = (about.action.clone(), authority(&self.endpoint));
        Err(HubError::Network { action, host, cause: ENDED.to_owned() })
    }

    /// Waits, and says whether all is to end.
    fn pause(&self, pause: Duration) -> bool {
        let mut stop = self.stop.subscribe();
        self.runtime.block_on(async { timeout(pause, stop.wait_for(|stop| *stop)).await }).is_ok()
    }

    /// Ends all requests that are under way.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether all is to end.
    pub(super) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Asks once for `url`, from byte `range.0` up to byte `range.1` (inclusive) if that is given.
    pub(super) fn get<'a>(
        &'a self,
        url: &Url,
        range: Option<(u64, u64)>,
        about: &'a About,
    ) -> Result<Answer<'a>, Failure> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut headers = HeaderMap::new();
            // Sizes and digests are those of the file, not of what a server makes of it.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if let Some((start, end)) = range
                && let Ok(value) = HeaderValue::from_str(&format!("bytes={start}-{end}"))
            {
                headers.insert(RANGE, value);
            }
            let is_hub = is_same_origin(&url, &self.endpoint);
            if let Some(token) = self.token.as_ref().filter(|_| is_hub)
                && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", token.secret))
            {
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            let client = self
                .transport
                .client(&url, false)
                .map_err(|error: RegistryError| Failure::fatal(error.into()))?;
            tracing::debug!("GET {}{}", authority(&url), url.path());
            let response = self.patiently(&url, about, client.get(url.clone()).headers(headers).send())?;
            let status = response.status();
            tracing::debug!("{} answered {status}", authority(&url));
            if status.is_success() {
                return Ok(Answer { net: self, response, about });
            }
            if !status.is_redirection() {
                return Err(self.refused(&url, is_hub, response, about));
            }
            url = Self::redirected(&url, &response, about)?;
        }
        Err(Failure::fatal(about.protocol(format!("more than {REDIRECTS_MAX} redirects"))))
    }

    /// All of a document of `limit` bytes at most, with the headers that came with it. Asks again after what passes.
    pub(super) fn document(
        &self,
        url: &Url,
        limit: usize,
        about: &About,
    ) -> Result<(HeaderMap, Vec<u8>), HubError> {
        let mut tries = self.tries();
        loop {
            let result = self.get(url, None, about).and_then(|mut answer| {
                let headers = answer.headers().clone();
                let mut body = Vec::new();
                while let Some(chunk) = answer.chunk()? {
                    if body.len().saturating_add(chunk.len()) > limit {
                        let reason = format!("the answer has more than {limit} bytes");
                        return Err(Failure::fatal(about.protocol(reason)));
                    }
                    body.extend_from_slice(&chunk);
                }
                Ok((headers, body))
            });
            match result {
                Ok(found) => return Ok(found),
                Err(failure) => self.wait(&mut tries, failure)?,
            }
        }
    }

    /// Where a redirect leads. HTTPS is never left.
    fn redirected(from: &Url, response: &Response, about: &About) -> Result<Url, Failure> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let target = location.and_then(|location| from.join(location).ok());
        let wrong = |reason: &str| Failure::fatal(about.protocol(format!("{} {reason}", authority(from))));
        match target {
            Some(target) if !matches!(target.scheme(), "http" | "https") || target.host_str().is_none() => {
                Err(wrong("redirects to what is no web address"))
            }
            Some(target) if from.scheme() == "https" && target.scheme() != "https" => {
                Err(wrong("redirects from HTTPS to plain HTTP, which is not followed"))
            }
            Some(target) => Ok(target),
            None => Err(wrong(&format!("answered HTTP {} without an address", response.status().as_u16()))),
        }
    }

    /// Waits for a step of a conversation, as long as the limit for stalls allows.
    fn patiently<T>(
        &self,
        url: &Url,
        about: &About,
        step: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, Failure> {
        let failed = |cause| HubError::Network { action: about.action.clone(), host: authority(url), cause };
        let mut stop = self.stop.subscribe();
        let limited = async {
            let stopped = std::pin::pin!(stop.wait_for(|stop| *stop));
            match select(std::pin::pin!(timeout(self.stall, step)), stopped).await {
                Either::Left((outcome, _)) => Some(outcome),
                Either::Right(_) => None,
            }
        };
        let Some(outcome) = self.runtime.block_on(limited) else {
            return Err(Failure::fatal(failed(ENDED.to_owned())));
        };
        match outcome {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                let for_good = error.is_builder() || is_about_trust(&error);
                // A redirect to a store carries a signature in its query: URLs are kept out.
                let error = failed(cause(&error.without_url()));
                Err(if for_good { Failure::fatal(error) } else { Failure::passing(error) })
            }
            Err(_) => {
                let cause = format!("nothing came for {} s", self.stall.as_secs_f64());
                Err(Failure::passing(failed(cause)))
            }
        }
    }

    /// What an answer means that is no success.
    fn refused(&self, url: &Url, is_hub: bool, response: Response, about: &About) -> Failure {
        let (status, headers) = (response.status(), response.headers().clone());
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (code, message) = (header("x-error-code"), header("x-error-message"));
        let said = if message.is_empty() { quote(&self.body_of(response)) } else { quote(message) };
        let About { action, repository, .. } = about.clone();
        let token = self.token.as_ref().map(|token| token.origin.clone());
        let server = |said| HubError::Server {
            action: about.action.clone(),
            host: authority(url),
            status: status.as_u16(),
            said,
        };
        let error = match (status.as_u16(), code) {
            (401 | 403, "GatedRepo") => HubError::Gated { page: self.page(&repository), repository, token },
            (404, "RevisionNotFound") => HubError::NoRevision {
                page: format!("{}/refs", self.page(&repository)),
                repository,
                revision: about.revision.clone(),
            },
            (404, "EntryNotFound") if about.file.is_some() => HubError::NoFile {
                repository,
                file: about.file.clone().unwrap_or_default(),
                commit: about.revision.clone(),
            },
            (401, _) if is_hub && message.starts_with("Invalid") && token.is_some() => {
                HubError::TokenRefused {
                    token: token.unwrap_or_default(),
                    page: self.url(["settings", "tokens"]).to_string(),
                }
            }
            (401 | 404, "RepoNotFound") | (401, _) if is_hub => {
                HubError::NoRepository { repository, endpoint: authority(&self.endpoint), token }
            }
            (403, _) if is_hub => HubError::Forbidden { action, said },
            (429, _) => HubError::RateLimited { action, said },
            _ => server(said),
        };
        // A store's address is signed for a while; the hub gives a new one.
        let signature_ended = !is_hub && matches!(status.as_u16(), 400 | 401 | 403);
        let passes = matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502..=504 | 507..=599);
        let retry = match pause(&headers) {
            _ if signature_ended => Retry::Later,
            asked if passes => asked,
            _ => Retry::Never,
        };
        Failure { error: Box::new(error), retry, status: Some(status) }
    }

    /// The start of a body, as text: what comes of it within the limit for stalls.
    fn body_of(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        let mut stop = self.stop.subscribe();
        let reading = async {
            while body.len() < REFUSAL_MAX
                && let Ok(Some(chunk)) = response.chunk().await
            {
                body.extend_from_slice(&chunk);
            }
        };
        let limited = async {
            let stopped = std::pin::pin!(stop.wait_for(|stop| *stop));
            timeout(self.stall, select(std::pin::pin!(reading), stopped)).await.ok();
        };
        self.runtime.block_on(limited);
        body.truncate(REFUSAL_MAX);
        String::from_utf8_lossy(&body).into_owned()
    }

    fn page(&self, repository: &str) -> String {
        self.url(repository.split('/')).to_string()
    }

    /// Whether `url` is on the hub itself.
    pub(super) fn is_hub(&self, url: &Url) -> bool {
        is_same_origin(url, &self.endpoint)
    }
}

impl Answer<'_> {
    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The next bytes; `None` at the end.
    pub(super) fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let url = self.response.url().clone();
        self.net.patiently(&url, self.about, self.response.chunk())
    }
}

impl About {
    pub(super) fn protocol(&self, reason: impl Into<String>) -> HubError {
        HubError::Protocol { action: self.action.clone(), reason: reason.into() }
    }
}

fn is_same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme() && authority(one) == authority(other)
}

/// How long the hub asks to wait: `Retry-After`, or the rest of the window of a used-up `RateLimit`.
///
/// Source: draft-ietf-httpapi-ratelimit-headers-09 (`"api";r=0;t=55`), as `huggingface_hub` 2.4 reads it
/// (`utils/_http.py`).
fn pause(headers: &HeaderMap) -> Retry {
    let asked = retry_after(headers, SystemTime::now());
    let limit = headers.get("ratelimit").and_then(|value| value.to_str().ok());
    match limit.and_then(window_rest) {
        Some(seconds) if asked == Retry::Later && seconds <= RETRY_AFTER_MAX => {
            Retry::After(Duration::from_secs(seconds))
        }
        Some(_) if asked == Retry::Later => Retry::Never,
        _ => asked,
    }
}

/// Seconds until a used-up limit is renewed.
fn window_rest(limit: &str) -> Option<u64> {
    let value = |key: &str| {
        let found = limit.split(';').find_map(|part| part.trim().strip_prefix(key)?.strip_prefix('='))?;
        found.split(',').next()?.trim().parse::<u64>().ok()
    };
    // The clock of a window has whole seconds.
    (value("r")? == 0).then(|| value("t")).flatten().map(|seconds| seconds.saturating_add(1))
}

/// `: ` and what a server said, in one short line; empty if it said nothing.
fn quote(said: &str) -> String {
    let error = serde_json::from_str::<serde_json::Value>(said)
        .ok()
        .and_then(|value| value.get("error")?.as_str().map(str::to_owned));
    let line = error.as_deref().unwrap_or(said).split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|letter| !letter.is_control()).take(QUOTE_MAX).collect();
    // A page for browsers says nothing in so few letters.
    if line.is_empty() || line.starts_with('<') { String::new() } else { format!(": {line}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&'static str, &'static str)]) -> Retry {
        pause(&pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect())
    }

    #[test]
    fn limits_say_how_long_to_wait() {
        let after = |seconds| Retry::After(Duration::from_secs(seconds));
        assert_eq!(asked(&[("ratelimit", "\"api\";r=0;t=55")]), after(56));
        assert_eq!(asked(&[("ratelimit", "\"api\";r=3;t=55")]), Retry::Later);
        assert_eq!(asked(&[("ratelimit", "\"api\";r=0;t=55"), ("retry-after", "3")]), after(3));
        assert_eq!(asked(&[("ratelimit", "\"api\";r=0;t=99999")]), Retry::Never);
        assert_eq!(asked(&[("retry-after", "99999")]), Retry::Never);
        for text in ["", "r", "r=0", "r=;t=", "r=0;t=x", ";;;=,"] {
            assert_eq!(window_rest(text), None, "{text}");
        }
    }

    #[test]
    fn quotes_are_short_and_plain() {
        assert_eq!(quote(r#"{"error":"no\n such"}"#), ": no such");
        assert_eq!(quote("<html>"), "");
        assert_eq!(quote(&"ä".repeat(1000)).chars().count(), QUOTE_MAX + 2);
    }

    #[test]
    fn the_token_stays_on_its_origin() {
        let origin = |one: &str, other: &str| is_same_origin(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(origin("https://hub.example/a", "https://hub.example:443/b"));
        for other in ["http://hub.example/", "https://hub.example:8443/", "https://cdn.hub.example/"] {
            assert!(!origin("https://hub.example/", other), "{other}");
        }
    }
}
