//! Upload sessions. They keep what a broken connection has brought.

use axum::{
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use starcar::digest::Digest;

use super::{
    Shared,
    server::{Incoming, error, query_value, route},
};

/// What upload sessions are like.
#[derive(Debug, Clone, Default)]
pub struct Uploads {
    pub locations: Locations,
    /// Whether a session takes bytes, and is ended, only at the newest location that was given out for it.
    pub newest_location_only: bool,
    /// Whether a session that is asked for at an older location is ended, as distribution 2.8 does.
    pub old_location_ends: bool,
    /// Sessions end with the connection that breaks in the middle of a body, and are answered with 404 and
    /// this code from then on. Without it they live on.
    pub lost_when_cut: Option<&'static str>,
    /// `OCI-Chunk-Min-Length`: nothing may follow a piece that is shorter.
    pub min_piece: Option<u64>,
    /// Longer bodies are answered with 413 before they are read.
    pub max_body: Option<u64>,
    /// PATCH is answered with this status.
    pub no_patch: Option<u16>,
    /// PUT with a body is answered with this status.
    pub no_put_body: Option<u16>,
    /// Mounts are answered as if they were plain openings.
    pub no_mounts: bool,
}

/// How sessions are addressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Locations {
    /// `/v2/…`
    #[default]
    Path,
    /// `http://…`
    Url,
    /// `../uploads/…`, to be resolved against the request's own address.
    Relative,
    /// An address on another host that is good without a login, and bad with one.
    Elsewhere,
}

/// An upload session.
pub(super) struct Upload {
    repository: String,
    bytes: Vec<u8>,
    /// Of the bytes; those may have been thrown away.
    length: u64,
    /// Changes with every answer that has a location.
    state: u64,
    /// Whether a piece was shorter than allowed.
    short: bool,
}

impl Upload {
    fn is_newest(&self, query: &str) -> bool {
        query_value(query, "_state") == Some(self.state.to_string())
    }

    /// An answer that says how far the upload is and where it goes on.
    fn answer(&mut self, shared: &Shared, id: &str, status: StatusCode) -> Response {
        self.state += 1;
        // The query has to be kept by clients, as distribution's `_state` has.
        let (last, host) = (format!("{id}?_state={}", self.state), &shared.address);
        let path = format!("/v2/{}/blobs/uploads/{last}", self.repository);
        let location = match shared.options.uploads.locations {
            Locations::Path => path,
            Locations::Url => format!("{}://{host}{path}", shared.scheme()),
            Locations::Relative => format!("../uploads/{last}"),
            Locations::Elsewhere => {
                format!("{}://{}{path}&signed=1", shared.scheme(), shared.other_address())
            }
        };
        // An empty upload and one of a single byte look the same, as they do in distribution.
        let range = format!("0-{}", self.length.saturating_sub(1));
        let mut response = (status, [(header::LOCATION, location), (header::RANGE, range)]).into_response();
        if let Some(least) = shared.options.uploads.min_piece {
            response.headers_mut().insert("oci-chunk-min-length", HeaderValue::from(least));
        }
        response
    }
}

fn unknown(shared: &Shared) -> Response {
    let code = shared.options.uploads.lost_when_cut.unwrap_or("BLOB_UPLOAD_UNKNOWN");
    error(StatusCode::NOT_FOUND, code, "no such upload")
}

pub(super) fn open(shared: &Shared, repository: &str, query: &str) -> Response {
    let mut store = shared.store();
    if let (Some(digest), Some(from)) = (query_value(query, "mount"), query_value(query, "from"))
        && !shared.options.uploads.no_mounts
        && let Some(bytes) = store.blobs.get(&(from, digest.clone())).cloned()
    {
        store.blobs.insert((repository.to_owned(), digest.clone()), bytes);
        let location = format!("/v2/{repository}/blobs/{digest}");
        return (StatusCode::CREATED, [(header::LOCATION, location)]).into_response();
    }
    store.next_upload += 1;
    let id = store.next_upload.to_string();
    let repository = repository.to_owned();
    let mut upload = Upload { repository, bytes: Vec::new(), length: 0, state: 0, short: false };
    let response = upload.answer(shared, &id, StatusCode::ACCEPTED);
    store.uploads.insert(id, upload);
    response
}

pub(super) fn status(shared: &Shared, id: &str, query: &str) -> Response {
    let mut store = shared.store();
    let Some(upload) = store.uploads.get_mut(id) else { return unknown(shared) };
    if shared.options.uploads.old_location_ends && !upload.is_newest(query) {
        store.uploads.remove(id);
        return error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_INVALID", "the location is not the newest");
    }
    upload.answer(shared, id, StatusCode::NO_CONTENT)
}

pub(super) fn cancel(shared: &Shared, id: &str, query: &str) -> Response {
    let mut store = shared.store();
    let Some(upload) = store.uploads.get_mut(id) else { return unknown(shared) };
    if shared.options.uploads.newest_location_only && !upload.is_newest(query) {
        return upload.answer(shared, id, StatusCode::RANGE_NOT_SATISFIABLE);
    }
    store.uploads.remove(id);
    StatusCode::NO_CONTENT.into_response()
}

/// The session that a request brings bytes to.
fn target(request: &Incoming) -> Option<String> {
    let writes = matches!(request.method, Method::PUT | Method::PATCH);
    route(&request.path).filter(|(_, kind, _)| writes && *kind == "/blobs/uploads/").map(|(_, _, id)| id)
}

/// The answer to bytes that are not welcome, before they are read.
pub(super) fn refuse(shared: &Shared, request: &Incoming) -> Option<Response> {
    let options = &shared.options.uploads;
    let length = request.content_length().unwrap_or_default();
    if options.max_body.is_some_and(|limit| length > limit) {
        // Not an answer of the registry, but of what stands before it.
        return Some((StatusCode::PAYLOAD_TOO_LARGE, "413 Request Entity Too Large").into_response());
    }
    let id = target(request)?;
    let is_patch = request.method == Method::PATCH;
    let refused = if is_patch { options.no_patch } else { options.no_put_body.filter(|_| length > 0) };
    if let Some(status) = refused {
        let status = StatusCode::from_u16(status).unwrap();
        return Some(error(status, "UNSUPPORTED", "uploads do not work like this here"));
    }
    let mut store = shared.store();
    let Some(upload) = store.uploads.get_mut(&id) else { return Some(unknown(shared)) };
    let state = query_value(&request.query, "_state");
    if state.is_none() {
        return Some(error(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", "the location's query was lost"));
    }
    if options.newest_location_only && !upload.is_newest(&request.query) {
        return Some(error(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", "the location is not the newest"));
    }
    let mut start = None;
    if let Some(range) = request.header(header::CONTENT_RANGE) {
        let ends =
            range.split_once('-').and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
        match ends {
            Some((first, last)) if last + 1 == first + length => start = Some(first),
            _ => return Some(error(StatusCode::BAD_REQUEST, "SIZE_INVALID", "bad Content-Range")),
        }
    }
    if start.is_some_and(|start| start != upload.length) || (upload.short && length > 0) {
        return Some(upload.answer(shared, &id, StatusCode::RANGE_NOT_SATISFIABLE));
    }
    None
}

/// A session while a request brings bytes to it.
pub(super) struct Receiving<'a> {
    shared: &'a Shared,
    request: &'a Incoming,
    id: String,
    /// Whether the request came to its end.
    ended: bool,
}

impl<'a> Receiving<'a> {
    /// The session of a request that was not refused; `None` if the request brings no bytes.
    pub(super) fn begin(shared: &'a Shared, request: &'a Incoming) -> Option<Self> {
        Some(Self { shared, request, id: target(request)?, ended: false })
    }

    /// How many bytes the session has.
    pub(super) fn length(&self) -> u64 {
        self.shared.store().uploads.get(&self.id).map_or(0, |upload| upload.length)
    }

    pub(super) fn append(&self, bytes: &[u8]) {
        // Another request may have ended the session.
        if let Some(upload) = self.shared.store().uploads.get_mut(&self.id) {
            upload.length += bytes.len() as u64;
            if !self.shared.options.discard {
                upload.bytes.extend_from_slice(bytes);
            }
        }
    }

    pub(super) fn drop_last(&self) {
        if let Some(upload) = self.shared.store().uploads.get_mut(&self.id) {
            upload.length = upload.length.saturating_sub(1);
            upload.bytes.pop();
        }
    }

    /// Leaves the session as it is.
    pub(super) fn pause(mut self) {
        self.ended = true;
    }

    /// The answer to a piece that does not begin where it should.
    pub(super) fn refuse_range(mut self) -> Response {
        self.ended = true;
        match self.shared.store().uploads.get_mut(&self.id) {
            Some(upload) => upload.answer(self.shared, &self.id, StatusCode::RANGE_NOT_SATISFIABLE),
            None => unknown(self.shared),
        }
    }

    /// The answer after all bytes.
    pub(super) fn finish(mut self) -> Response {
        self.ended = true;
        let shared = self.shared;
        let mut store = shared.store();
        if self.request.method == Method::PATCH {
            let Some(upload) = store.uploads.get_mut(&self.id) else { return unknown(shared) };
            let length = self.request.content_length();
            let least = shared.options.uploads.min_piece;
            upload.short |= length.zip(least).is_some_and(|(length, least)| length < least);
            return upload.answer(shared, &self.id, StatusCode::ACCEPTED);
        }
        let Some(upload) = store.uploads.remove(&self.id) else { return unknown(shared) };
        let digest = Digest::of(&upload.bytes).to_string();
        let expected = query_value(&self.request.query, "digest").unwrap_or_default();
        let digest = if shared.options.discard { expected.clone() } else { digest };
        if expected != digest {
            return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "digest did not match content");
        }
        let location = format!("/v2/{}/blobs/{digest}", upload.repository);
        store.blobs.insert((upload.repository, digest.clone()), upload.bytes.into());
        (StatusCode::CREATED, [("location", location), ("docker-content-digest", digest)]).into_response()
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        if !self.ended
            && self.shared.options.uploads.lost_when_cut.is_some()
            && let Ok(mut store) = self.shared.store.lock()
        {
            store.uploads.remove(&self.id);
        }
    }
}
