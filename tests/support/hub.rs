//! A Hugging Face hub on a loopback address, with a store on another that it redirects to, and what can go wrong there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    thread::JoinHandle,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

/// The repository that [`FakeHub`] has.
pub const REPOSITORY: &str = "acme/tiny";
/// The commit of its branch `main`.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub has and how it behaves.
#[derive(Default)]
pub struct HubOptions {
    /// Path and content; safetensors are LFS files.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Files of a page of the listing; 0 is all.
    pub page: usize,
    /// Whether each page of the listing has all entries and names a next one.
    pub endless: bool,
    /// Whether LFS files are sent from the other address.
    pub store: bool,
    /// What requests go wrong.
    pub faults: Vec<Fault>,
    /// Changes the listing's JSON entries.
    pub listed: Option<fn(&mut Vec<serde_json::Value>)>,
}

/// What becomes of requests whose path holds a text.
#[derive(Clone)]
pub struct Fault {
    /// Part of the path.
    pub path: &'static str,
    /// Requests that it is left alone for.
    pub skip: usize,
    /// Requests that it happens to after that.
    pub times: usize,
    pub effect: Effect,
}

#[derive(Clone)]
pub enum Effect {
    /// This answer in place of the right one.
    Answer(u16, Vec<(&'static str, String)>),
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// Nothing comes after so many bytes of the body.
    StallAfter(usize),
    /// A byte of the body is another.
    WrongByte,
    /// The range that was asked for is ignored.
    IgnoreRange,
}

impl Fault {
    /// A fault of every request.
    pub fn always(path: &'static str, effect: Effect) -> Self {
        Self { path, skip: 0, times: usize::MAX, effect }
    }

    /// A fault of the first requests.
    pub fn first(path: &'static str, times: usize, effect: Effect) -> Self {
        Self { path, skip: 0, times, effect }
    }
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub path: String,
    pub query: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    /// Whether it came to the store and not to the hub.
    pub at_store: bool,
}

struct File {
    path: String,
    content: Bytes,
    git: String,
    lfs: Option<String>,
}

struct Shared {
    options: HubOptions,
    files: Vec<File>,
    hub: String,
    store: String,
    seen: Mutex<Vec<Seen>>,
    hits: Mutex<Vec<usize>>,
}

/// A running hub; it ends when this is dropped.
pub struct FakeHub {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeHub {
    pub fn start(options: HubOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bind = || runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let (hub, store) = (bind(), bind());
        let address =
            |listener: &tokio::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let files = options.files.iter().map(|(path, content)| file(path, content)).collect();
        let shared = Arc::new(Shared {
            hits: Mutex::new(vec![0; options.faults.len()]),
            files,
            options,
            hub: address(&hub),
            store: address(&store),
            seen: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let app = |at_store| {
            let shared = Arc::clone(&shared);
            Router::new().fallback(handle).with_state((shared, at_store))
        };
        let (hub_app, store_app) = (app(false), app(true));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::spawn(async { axum::serve(hub, hub_app).await.unwrap() });
                tokio::spawn(async { axum::serve(store, store_app).await.unwrap() });
                stopped.await.ok();
            });
        });
        Self { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// The hub's address.
    pub fn endpoint(&self) -> &str {
        &self.shared.hub
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen().clone()
    }

    /// The requests so far for the bytes of files, but for those that were only told to ask elsewhere.
    pub fn blobs(&self) -> Vec<Seen> {
        let to_blobs =
            |seen: &Seen| seen.path.contains("/resolve/") && (seen.at_store || !self.redirects(&seen.path));
        self.seen().into_iter().filter(to_blobs).collect()
    }

    fn redirects(&self, path: &str) -> bool {
        self.shared.options.store && path.ends_with(".safetensors")
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.seen().clear();
    }

    /// The name of a file's blob.
    pub fn etag(&self, path: &str) -> String {
        let file = self.shared.files.iter().find(|file| file.path == path).unwrap();
        file.lfs.as_ref().unwrap_or(&file.git).clone()
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap()
    }

    fn effect(&self, path: &str) -> Option<Effect> {
        let mut hits = self.hits.lock().unwrap();
        let mut found = None;
        for (fault, hits) in self.options.faults.iter().zip(hits.iter_mut()) {
            if path.contains(fault.path) {
                if (fault.skip..fault.skip.saturating_add(fault.times)).contains(hits) {
                    found = found.or_else(|| Some(fault.effect.clone()));
                }
                *hits += 1;
            }
        }
        found
    }
}

fn file(path: &str, content: &[u8]) -> File {
    let git = Sha1::new().chain_update(format!("blob {}\0", content.len())).chain_update(content).finalize();
    let lfs = path.ends_with(".safetensors").then(|| hex::encode(Sha256::digest(content)));
    File { path: path.to_owned(), content: Bytes::copy_from_slice(content), git: hex::encode(git), lfs }
}

async fn handle(State((shared, at_store)): State<(Arc<Shared>, bool)>, request: Request) -> Response {
    // The body would keep a reference to the request from being sent to another thread.
    let request = request.into_parts().0;
    let text = |name: HeaderName| request.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let seen = Seen {
        path: request.uri.path().to_owned(),
        query: request.uri.query().unwrap_or_default().to_owned(),
        range: text(header::RANGE),
        authorization: text(header::AUTHORIZATION),
        at_store,
    };
    shared.seen().push(seen.clone());
    // Of a file that is stored elsewhere, what happens happens there.
    let is_redirected = !at_store && shared.options.store && seen.path.ends_with(".safetensors");
    let effect = if is_redirected { None } else { shared.effect(&seen.path) };
    if let Some(Effect::Answer(status, headers)) = &effect {
        let mut response = StatusCode::from_u16(*status).unwrap().into_response();
        for (name, value) in headers {
            let name = HeaderName::from_static(name);
            response.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        return response;
    }
    let parts: Vec<&str> = seen.path.trim_start_matches('/').split('/').collect();
    let response = match parts.as_slice() {
        ["api", "models", org, name, rest @ ..] if format!("{org}/{name}") == REPOSITORY => {
            about_repository(&shared, rest, &seen)
        }
        [org, name, "resolve", COMMIT, path @ ..] if format!("{org}/{name}") == REPOSITORY => {
            let path = path.join("/");
            match shared.files.iter().find(|file| file.path == path) {
                None => refusal(404, "EntryNotFound"),
                Some(_) if is_redirected => {
                    let location = format!("{}{}?signature=secret", shared.store, seen.path);
                    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
                }
                Some(file) => content(file, &seen, effect.as_ref()),
            }
        }
        // What the hub says of repositories that do not exist, or that it does not show.
        _ => refusal(401, "RepoNotFound"),
    };
    disturb(response, effect).await
}

fn refusal(status: u16, code: &'static str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("x-error-code", code), ("x-error-message", "no such thing")]).into_response()
}

fn about_repository(shared: &Shared, rest: &[&str], seen: &Seen) -> Response {
    let known = |revision: &str| matches!(revision, "main" | "v1.0" | "refs%2Fpr%2F1" | COMMIT);
    match rest {
        ["revision", revision] if known(revision) => {
            axum_json(&serde_json::json!({"id": REPOSITORY, "sha": COMMIT})).into_response()
        }
        ["tree", revision] if known(revision) => tree(shared, seen),
        _ => refusal(404, "RevisionNotFound"),
    }
}

fn tree(shared: &Shared, seen: &Seen) -> Response {
    let mut entries: Vec<serde_json::Value> = shared
        .files
        .iter()
        .map(|file| {
            let mut entry = serde_json::json!({
                "type": "file", "path": file.path, "size": file.content.len(), "oid": file.git,
            });
            if let Some(lfs) = &file.lfs {
                entry["lfs"] =
                    serde_json::json!({"oid": lfs, "size": file.content.len(), "pointerSize": 130});
            }
            entry
        })
        .collect();
    if let Some(change) = shared.options.listed {
        change(&mut entries);
    }
    let page = if shared.options.page == 0 { usize::MAX } else { shared.options.page };
    let cursor = seen.query.split('&').find_map(|pair| pair.strip_prefix("cursor="));
    let start: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
    let (first, end) = if shared.options.endless {
        (0, start + 1)
    } else {
        (start, start.saturating_add(page).min(entries.len()))
    };
    let mut response = axum_json(&serde_json::json!(entries[first..end.min(entries.len())])).into_response();
    if shared.options.endless || end < entries.len() {
        let next = format!("<{}{}?recursive=true&cursor={end}>; rel=\"next\"", shared.hub, seen.path);
        response.headers_mut().insert(header::LINK, HeaderValue::from_str(&next).unwrap());
    }
    response
}

fn axum_json(value: &serde_json::Value) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string())
}

fn content(file: &File, seen: &Seen, effect: Option<&Effect>) -> Response {
    let length = file.content.len();
    let etag = [(header::ETAG, format!("\"{}\"", file.lfs.as_ref().unwrap_or(&file.git)))];
    let range = seen.range.as_ref().filter(|_| !matches!(effect, Some(Effect::IgnoreRange)));
    let Some(range) = range else { return (etag, file.content.clone()).into_response() };
    let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
    assert!(start <= end && end < length, "{range} of {length}");
    let headers = [(header::CONTENT_RANGE, format!("bytes {start}-{end}/{length}"))];
    (StatusCode::PARTIAL_CONTENT, etag, headers, file.content.slice(start..=end)).into_response()
}

async fn disturb(response: Response, effect: Option<Effect>) -> Response {
    let (length, stalls) = match effect {
        Some(Effect::CutAfter(length)) => (length, false),
        Some(Effect::StallAfter(length)) => (length, true),
        Some(Effect::WrongByte) => {
            let (parts, body) = response.into_parts();
            let mut bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
            bytes[0] ^= 1;
            return Response::from_parts(parts, Body::from(bytes));
        }
        _ => return response,
    };
    let (mut parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    let stream = futures_util::stream::unfold(Some(bytes.slice(..length)), move |start| async move {
        match start {
            Some(start) => Some((Ok(start), None)),
            None if stalls => std::future::pending().await,
            None => {
                // What came before would be thrown away with the connection.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                Some((Err(std::io::Error::other("cut")), None))
            }
        }
    });
    Response::from_parts(parts, Body::from_stream(stream))
}

/// The smallest valid safetensors file with a tensor of so many bytes.
pub fn safetensors(tensor: &[u8]) -> Vec<u8> {
    let length = tensor.len();
    let header =
        serde_json::json!({"t": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(tensor);
    bytes
}

/// The files below a directory by their path, with their content; symlinks are followed.
pub fn files_below(root: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let below = files_below(&path);
            found.extend(below.into_iter().map(|(path, content)| (format!("{name}/{path}"), content)));
        } else {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}
