//! An OCI registry in memory, with the quirks and faults of real ones on request. It runs on a thread of
//! its own, on a free loopback port, and ends when dropped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use starcar::digest::Digest;
use tokio::sync::oneshot;

/// How the registry wants to be logged in to. Every variant but `Open` knows one account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Everybody may do everything.
    #[default]
    Open,
    /// Basic authentication, announced at `/v2/`.
    Basic { user: String, password: String },
    /// Basic authentication on repositories, while `/v2/` answers 200 to anybody.
    BasicBehindOpenPing { user: String, password: String },
    /// A token service; the account may push and pull, anybody may pull if `anonymous_pull`.
    Token { user: String, password: String, anonymous_pull: bool },
}

/// What becomes of Range requests for blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ranges {
    /// Answered with the range.
    #[default]
    Honoured,
    /// Answered with 200 and the whole blob.
    Ignored,
    /// Answered with 206 and one byte less than asked for.
    Short,
}

/// What happens to a request that a [`Fault`] picks.
#[derive(Debug, Clone)]
pub enum Effect {
    /// This status with this body instead of the right answer, after the request's body was received.
    Answer(u16, String),
    /// The same at once; the connection is closed with the request's body half sent.
    AnswerAtOnce(u16, String),
    /// The connection is closed after this many bytes of the request's body.
    CloseAfter(u64),
    /// Nothing is read or answered any more after this many bytes of the request's body.
    StallAfter(u64),
    /// The connection is closed after this many bytes of the response's body.
    CutAfter(usize),
    /// The answer's body has its first byte changed; headers stay.
    WrongBytes,
    /// The answer lacks this header.
    WithoutHeader(&'static str),
    /// The answer has this header with another value.
    WithHeader(&'static str, String),
    /// The answer has this status.
    WithStatus(u16),
}

/// A disturbance of chosen requests.
#[derive(Debug, Clone)]
pub struct Fault {
    /// `GET`, `HEAD`, `PUT`…
    pub method: &'static str,
    /// Picks requests whose path contains this.
    pub path: &'static str,
    /// So many picked requests pass undisturbed first.
    pub skip: usize,
    /// So many are disturbed then.
    pub times: usize,
    pub effect: Effect,
}

impl Fault {
    /// Disturbs every request of this kind.
    pub fn always(method: &'static str, path: &'static str, effect: Effect) -> Self {
        Self { method, path, skip: 0, times: usize::MAX, effect }
    }
}

/// How a [`FakeRegistry`] behaves.
#[derive(Debug, Clone, Default)]
pub struct FakeOptions {
    pub auth: Auth,
    pub ranges: Ranges,
    pub faults: Vec<Fault>,
    /// Counts the bytes of blobs and throws them away, for pushes that are bigger than memory. Digests are
    /// not checked then, and pushed blobs have no bytes.
    pub discard: bool,
}

/// A request that arrived.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub content_length: Option<u64>,
    pub chunked: bool,
    /// Bytes of the body that were received.
    pub body: u64,
    /// Status of the answer; 0 if the connection was closed without one.
    pub status: u16,
}

#[derive(Default)]
struct Store {
    /// By repository and digest.
    blobs: HashMap<(String, String), Bytes>,
    /// By repository and tag or digest: media type and bytes.
    manifests: HashMap<(String, String), (String, Bytes)>,
    /// Open upload sessions.
    uploads: HashMap<String, Vec<u8>>,
    next_upload: u64,
    seen: Vec<Seen>,
}

struct Shared {
    options: FakeOptions,
    address: String,
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
        let shared = Arc::new(Shared { options, address, store: Mutex::default(), hits });
        let (stop, stopped) = oneshot::channel();
        let app = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serve = async { axum::serve(listener, app).await };
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

    /// Range headers, in the order of their arrival.
    pub fn ranges(&self) -> Vec<String> {
        self.seen().into_iter().filter_map(|seen| seen.range).collect()
    }

    /// Forgets all requests so far.
    pub fn forget(&self) {
        self.shared.store().seen.clear();
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

    /// The effect of the first fault that is due for a request.
    fn fault(&self, method: &str, path: &str) -> Option<Effect> {
        let mut hits = self.hits.lock().unwrap();
        let mut effect = None;
        for (fault, hits) in self.options.faults.iter().zip(hits.iter_mut()) {
            if fault.method == method && path.contains(fault.path) {
                let due = *hits >= fault.skip && *hits - fault.skip < fault.times;
                *hits += 1;
                if due && effect.is_none() {
                    effect = Some(fault.effect.clone());
                }
            }
        }
        effect
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Seen)) {
        // `forget` may have taken the entry.
        if let Some(seen) = self.store().seen.get_mut(index) {
            change(seen);
        }
    }
}

/// Ends the connection of the request that is being handled, without the panic's message on stderr.
fn close_connection() -> ! {
    std::panic::resume_unwind(Box::new("connection closed on request"))
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let method = parts.method.to_string();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let index = {
        let mut store = shared.store();
        store.seen.push(Seen {
            method: method.clone(),
            path: path.clone(),
            query: query.clone(),
            range: text(header::RANGE).map(str::to_owned),
            authorization: text(header::AUTHORIZATION).map(str::to_owned),
            content_length: text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            chunked: text(header::TRANSFER_ENCODING).is_some(),
            ..Seen::default()
        });
        store.seen.len() - 1
    };
    let effect = shared.fault(&method, &path);
    if let Some(Effect::AnswerAtOnce(status, said)) = &effect {
        shared.update(index, |seen| seen.status = *status);
        return (StatusCode::from_u16(*status).unwrap(), said.clone()).into_response();
    }
    if let Some(refusal) = refuse(&shared, &parts.method, &path, &query, &parts.headers) {
        shared.update(index, |seen| seen.status = refusal.status().as_u16());
        return refusal;
    }

    let mut received = Vec::new();
    let mut length = 0;
    let discard = shared.options.discard && path.contains("/blobs/uploads/");
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else { close_connection() };
        length += chunk.len() as u64;
        if !discard {
            received.extend_from_slice(&chunk);
        }
        shared.update(index, |seen| seen.body = length);
        if matches!(effect, Some(Effect::CloseAfter(limit)) if length >= limit) {
            close_connection();
        }
        if matches!(effect, Some(Effect::StallAfter(limit)) if length >= limit) {
            std::future::pending::<()>().await;
        }
    }
    let response = match effect {
        Some(Effect::Answer(status, said)) => (StatusCode::from_u16(status).unwrap(), said).into_response(),
        effect => {
            let response = answer(&shared, &parts.method, &path, &query, &parts.headers, received);
            disturb(response, effect).await
        }
    };
    shared.update(index, |seen| seen.status = response.status().as_u16());
    response
}

/// Applies the effects that need the right answer first.
async fn disturb(mut response: Response, effect: Option<Effect>) -> Response {
    match effect {
        Some(Effect::WrongBytes) => {
            let (parts, body) = response.into_parts();
            let mut bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
            if let Some(first) = bytes.first_mut() {
                *first ^= 1;
            }
            return Response::from_parts(parts, Body::from(bytes));
        }
        Some(Effect::CutAfter(length)) => {
            let (mut parts, body) = response.into_parts();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
            let start = Ok(bytes.slice(..length.min(bytes.len())));
            let end = Err(std::io::Error::other("cut"));
            return Response::from_parts(parts, Body::from_stream(futures_util::stream::iter([start, end])));
        }
        Some(Effect::WithoutHeader(name)) => drop(response.headers_mut().remove(name)),
        Some(Effect::WithHeader(name, value)) => {
            response.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
        }
        Some(Effect::WithStatus(status)) => *response.status_mut() = StatusCode::from_u16(status).unwrap(),
        _ => {}
    }
    response
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// The answer to a request that is not (well enough) authenticated.
fn refuse(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
) -> Option<Response> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let challenge = |challenge: String| {
        let mut response = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
        Some(response)
    };
    match &shared.options.auth {
        Auth::Open => None,
        Auth::BasicBehindOpenPing { .. } if path == "/v2/" => None,
        Auth::Basic { user, password } | Auth::BasicBehindOpenPing { user, password } => {
            if given == Some(basic(user, password).as_str()) {
                return None;
            }
            challenge("Basic realm=\"fake\"".to_owned())
        }
        Auth::Token { user, password, anonymous_pull } if path == "/token" => {
            let scope = query_value(query, "scope").unwrap_or_default();
            let known = given == Some(basic(user, password).as_str());
            let anonymous = given.is_none() && *anonymous_pull && !scope.contains("push");
            if !known && !anonymous {
                return Some(error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "wrong user or password"));
            }
            let token = serde_json::json!({ "token": token(&scope), "expires_in": 300 });
            Some(token.to_string().into_response())
        }
        Auth::Token { .. } => {
            let repository = route(path).map_or(String::new(), |(repository, _, _)| repository);
            let push = token(&format!("repository:{repository}:pull,push"));
            let pull = token(&format!("repository:{repository}:pull"));
            let read = matches!(*method, Method::GET | Method::HEAD);
            let bearer = given.and_then(|given| given.strip_prefix("Bearer "));
            if path != "/v2/" && (bearer == Some(&push) || (read && bearer == Some(&pull))) {
                return None;
            }
            challenge(format!("Bearer realm=\"http://{}/token\",service=\"fake\"", shared.address))
        }
    }
}

/// The token that stands for a scope.
fn token(scope: &str) -> String {
    format!("scope-{}", Digest::of(scope.as_bytes()).hex())
}

/// The Authorization header of an account.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

/// Base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().enumerate().fold(0, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize] as char;
            text.push(if i <= group.len() { digit } else { '=' });
        }
    }
    text
}

/// A query parameter, percent-decoded.
fn query_value(query: &str, name: &str) -> Option<String> {
    let raw = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = Vec::new();
    let mut rest = raw.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let hex = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
                rest = tail;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Splits `/v2/NAME/KIND/REST` into its parts.
fn route(path: &str) -> Option<(String, &'static str, String)> {
    let path = path.strip_prefix("/v2/")?;
    ["/blobs/uploads/", "/blobs/", "/manifests/"].into_iter().find_map(|kind| {
        let (name, rest) = path.split_once(kind)?;
        Some((name.to_owned(), kind, rest.to_owned()))
    })
}

fn answer(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: Vec<u8>,
) -> Response {
    if path == "/v2/" {
        return StatusCode::OK.into_response();
    }
    let Some((repository, kind, rest)) = route(path) else {
        return error(StatusCode::NOT_FOUND, "UNSUPPORTED", "no such endpoint");
    };
    match (method.as_str(), kind) {
        ("POST", "/blobs/uploads/") => open_upload(shared, &repository, query),
        ("GET", "/blobs/uploads/") => match shared.store().uploads.get(&rest) {
            Some(bytes) => upload_state(StatusCode::NO_CONTENT, path, bytes.len()),
            None => error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "no such upload"),
        },
        ("PATCH" | "PUT", "/blobs/uploads/") => {
            write_upload(shared, &repository, &rest, method, path, query, headers, &body)
        }
        ("GET" | "HEAD", "/blobs/") => get_blob(shared, repository, rest, headers),
        ("GET" | "HEAD", "/manifests/") => match shared.store().manifests.get(&(repository, rest)) {
            Some((media_type, bytes)) => {
                let digest = Digest::of(bytes).to_string();
                let headers = [("content-type", media_type.clone()), ("docker-content-digest", digest)];
                (headers, bytes.clone()).into_response()
            }
            None => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown"),
        },
        ("PUT", "/manifests/") => put_manifest(shared, &repository, rest, headers, body),
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "no such method"),
    }
}

fn open_upload(shared: &Shared, repository: &str, query: &str) -> Response {
    let mut store = shared.store();
    if let (Some(digest), Some(from)) = (query_value(query, "mount"), query_value(query, "from"))
        && let Some(bytes) = store.blobs.get(&(from, digest.clone())).cloned()
    {
        store.blobs.insert((repository.to_owned(), digest.clone()), bytes);
        let location = format!("/v2/{repository}/blobs/{digest}");
        return (StatusCode::CREATED, [(header::LOCATION, location)]).into_response();
    }
    store.next_upload += 1;
    let id = store.next_upload.to_string();
    store.uploads.insert(id.clone(), Vec::new());
    // The query has to be kept by clients, as distribution's `_state` has.
    upload_state(StatusCode::ACCEPTED, &format!("/v2/{repository}/blobs/uploads/{id}?_state=s"), 0)
}

fn upload_state(status: StatusCode, location: &str, received: usize) -> Response {
    let headers = [
        (header::LOCATION, location.to_owned()),
        (header::RANGE, format!("0-{}", received.saturating_sub(1))),
    ];
    (status, headers).into_response()
}

#[allow(clippy::too_many_arguments)]
fn write_upload(
    shared: &Shared,
    repository: &str,
    id: &str,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    if query_value(query, "_state").is_none() {
        return error(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", "the location's query was lost");
    }
    let mut store = shared.store();
    let Some(mut bytes) = store.uploads.remove(id) else {
        return error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "no such upload");
    };
    let start = headers
        .get(header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok()?.split('-').next()?.parse::<usize>().ok());
    if start.is_some_and(|start| start != bytes.len()) {
        let response = upload_state(StatusCode::RANGE_NOT_SATISFIABLE, path, bytes.len());
        store.uploads.insert(id.to_owned(), bytes);
        return response;
    }
    bytes.extend_from_slice(body);
    if method == Method::PATCH {
        let response = upload_state(StatusCode::ACCEPTED, &format!("{path}?_state=s"), bytes.len());
        store.uploads.insert(id.to_owned(), bytes);
        return response;
    }
    let digest = Digest::of(&bytes).to_string();
    let expected = query_value(query, "digest").unwrap_or_default();
    let digest = if shared.options.discard { expected.clone() } else { digest };
    if expected != digest {
        return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "digest did not match content");
    }
    store.blobs.insert((repository.to_owned(), digest.clone()), bytes.into());
    let location = format!("/v2/{repository}/blobs/{digest}");
    (StatusCode::CREATED, [("location", location), ("docker-content-digest", digest)]).into_response()
}

fn get_blob(shared: &Shared, repository: String, digest: String, headers: &HeaderMap) -> Response {
    let Some(bytes) = shared.store().blobs.get(&(repository, digest.clone())).cloned() else {
        return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let size = bytes.len();
    let range = headers.get(header::RANGE).and_then(|range| {
        let (start, end) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
        let end = end.parse().map_or(size, |end: usize| (end + 1).min(size));
        Some((start.parse::<usize>().ok()?, end))
    });
    let digest = ("docker-content-digest", digest);
    match (range, shared.options.ranges) {
        (None, _) | (_, Ranges::Ignored) => ([digest], bytes).into_response(),
        (Some((start, end)), _) if start >= end => {
            error(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", "no such range")
        }
        (Some((start, end)), ranges) => {
            let end = if ranges == Ranges::Short { end - 1 } else { end };
            let range = ("content-range", format!("bytes {start}-{}/{size}", end.saturating_sub(1)));
            (StatusCode::PARTIAL_CONTENT, [digest, range], bytes.slice(start..end)).into_response()
        }
    }
}

fn put_manifest(
    shared: &Shared,
    repository: &str,
    name: String,
    headers: &HeaderMap,
    body: Vec<u8>,
) -> Response {
    let digest = Digest::of(&body).to_string();
    if name.starts_with("sha256:") && name != digest {
        return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "digest did not match content");
    }
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let value = (media_type.unwrap_or_default().to_owned(), Bytes::from(body));
    let mut store = shared.store();
    for name in [name, digest.clone()] {
        store.manifests.insert((repository.to_owned(), name), value.clone());
    }
    let location = format!("/v2/{repository}/manifests/{digest}");
    (StatusCode::CREATED, [("location", location), ("docker-content-digest", digest)]).into_response()
}
