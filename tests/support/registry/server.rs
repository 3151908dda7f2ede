//! The way of a request: noted, perhaps refused or disturbed, answered.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;

use super::{
    Seen, Shared, auth, content,
    faults::{Effect, When, act, close_connection, disturb},
    uploads,
};

/// How long the body of a request that was answered early is read and thrown away.
const LINGER: Duration = Duration::from_secs(1);

/// A request without its body.
pub(super) struct Incoming {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
}

impl Incoming {
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn content_length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.parse().ok()
    }

    /// Whether the address stands for a login.
    pub(super) fn is_signed(&self) -> bool {
        query_value(&self.query, "signed").is_some()
    }
}

pub(super) async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let request = Incoming {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
    };
    let index = note(&shared, &request);
    let effects = shared.effects(request.method.as_str(), &request.path);
    let response = match early(&shared, &request, &effects).await {
        Some(response) => {
            tokio::spawn(tokio::time::timeout(LINGER, async move {
                let mut chunks = body.into_data_stream();
                while let Some(Ok(_)) = chunks.next().await {}
            }));
            response
        }
        None => late(&shared, &request, index, body, effects).await,
    };
    shared.update(index, |seen| seen.status = response.status().as_u16());
    response
}

fn note(shared: &Shared, request: &Incoming) -> usize {
    let text = |name| request.header(name).map(str::to_owned);
    let mut store = shared.store();
    store.seen.push(Seen {
        at: shared.started.elapsed(),
        method: request.method.to_string(),
        host: text(header::HOST).unwrap_or_default(),
        path: request.path.clone(),
        query: request.query.clone(),
        range: text(header::RANGE),
        content_range: text(header::CONTENT_RANGE),
        authorization: text(header::AUTHORIZATION),
        content_length: request.content_length(),
        chunked: request.headers.contains_key(header::TRANSFER_ENCODING),
        ..Seen::default()
    });
    store.seen.len() - 1
}

/// The answer that a request gets before its body is read, if it gets one.
async fn early(shared: &Shared, request: &Incoming, effects: &[Effect]) -> Option<Response> {
    if let Some(response) = act(effects, When::BeforeBody).await {
        return Some(response);
    }
    if let Some(Effect::Redirect(status)) = effects.iter().find(|it| matches!(it, Effect::Redirect(_)))
        && !request.is_signed()
    {
        let sign = if request.query.is_empty() { "?" } else { "&" };
        let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
        let host = shared.other_address();
        let location = format!("{}://{host}{}{query}{sign}signed=1", shared.scheme(), request.path);
        return Some(
            (StatusCode::from_u16(*status).unwrap(), [(header::LOCATION, location)]).into_response(),
        );
    }
    if let Some(refusal) = auth::refuse(shared, request) {
        return Some(refusal);
    }
    uploads::refuse(shared, request)
}

/// What happens in the middle of a body.
#[derive(Clone, Copy)]
enum Stop {
    Close,
    Stall,
    Pause(Duration),
}

/// Reads a request's body and answers.
async fn late(
    shared: &Shared,
    request: &Incoming,
    index: usize,
    body: Body,
    effects: Vec<Effect>,
) -> Response {
    let upload = uploads::Receiving::begin(shared, request);
    let before = upload.as_ref().map_or(0, uploads::Receiving::length);
    let mut stops: Vec<(u64, Stop)> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::CloseAfter(at) => Some((*at, Stop::Close)),
            Effect::CloseAt(total) => Some((total.checked_sub(before)?, Stop::Close)),
            Effect::StallAfter(at) => Some((*at, Stop::Stall)),
            Effect::PauseAfter(at, time) => Some((*at, Stop::Pause(*time))),
            _ => None,
        })
        .collect();
    stops.sort_by_key(|(at, _)| *at);
    let mut stops = stops.into_iter().peekable();

    let discards = effects.iter().any(Effect::discards);
    let mut received = Vec::new();
    let mut length = 0;
    let mut take = |bytes: Bytes| {
        length += bytes.len() as u64;
        match &upload {
            Some(upload) if !discards => upload.append(&bytes),
            Some(_) => {}
            None => received.extend_from_slice(&bytes),
        }
        shared.update(index, |seen| seen.body = length);
        length
    };
    let mut chunks = body.into_data_stream();
    let mut so_far = 0;
    loop {
        let next = chunks.next().await;
        let ended = next.is_none();
        let Ok(mut chunk) = next.unwrap_or(Ok(Bytes::new())) else { close_connection() };
        while let Some((at, stop)) = stops.next_if(|(at, _)| *at <= so_far + chunk.len() as u64) {
            so_far = take(chunk.split_to(usize::try_from(at - so_far).unwrap()));
            match stop {
                Stop::Close => close_connection(),
                Stop::Stall => std::future::pending().await,
                Stop::Pause(time) => tokio::time::sleep(time).await,
            }
        }
        so_far = take(chunk);
        if ended {
            break;
        }
    }

    if effects.iter().any(|effect| matches!(effect, Effect::DropLastByte)) {
        match &upload {
            Some(upload) => upload.drop_last(),
            None => drop(received.pop()),
        }
    }
    for when in [When::AfterBody, When::Kept] {
        if let Some(response) = act(&effects, when).await {
            if let Some(upload) = upload {
                upload.pause();
            }
            return response;
        }
    }
    let refused = effects.iter().any(|effect| matches!(effect, Effect::RefuseRange));
    let mut response = match upload {
        Some(upload) if refused => upload.refuse_range(),
        Some(upload) => upload.finish(),
        None => answer(shared, request, received),
    };
    if let Some(instead) = act(&effects, When::Done).await {
        response = instead;
    }
    for effect in effects {
        response = disturb(response, effect).await;
    }
    response
}

fn answer(shared: &Shared, request: &Incoming, body: Vec<u8>) -> Response {
    match request.path.as_str() {
        "/v2/" => return StatusCode::OK.into_response(),
        "/token" => return auth::token(shared, request, &body),
        _ => {}
    }
    let Some((repository, kind, rest)) = route(&request.path) else {
        return error(StatusCode::NOT_FOUND, "UNSUPPORTED", "no such endpoint");
    };
    match (request.method.as_str(), kind) {
        ("POST", "/blobs/uploads/") => uploads::open(shared, &repository, &request.query),
        ("GET", "/blobs/uploads/") => uploads::status(shared, &rest, &request.query),
        ("DELETE", "/blobs/uploads/") => uploads::cancel(shared, &rest, &request.query),
        ("GET" | "HEAD", "/blobs/") => content::get_blob(shared, repository, rest, request),
        ("GET" | "HEAD", "/manifests/") => content::get_manifest(shared, repository, rest),
        ("DELETE", "/manifests/") if shared.options.removes => {
            content::remove_manifest(shared, &repository, &rest)
        }
        ("GET", "/tags/") => content::tags(shared, &repository, &request.query),
        ("PUT", "/manifests/") => content::put_manifest(shared, &repository, rest, request, body),
        ("GET", "/referrers/") if shared.options.referrers => {
            content::referrers(shared, &repository, &rest, &request.query)
        }
        ("GET", "/referrers/") => error(StatusCode::NOT_FOUND, "UNSUPPORTED", "no such endpoint"),
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "no such method"),
    }
}

pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// Splits `/v2/NAME/KIND/REST` into its parts.
pub(super) fn route(path: &str) -> Option<(String, &'static str, String)> {
    let path = path.strip_prefix("/v2/")?;
    ["/blobs/uploads/", "/blobs/", "/manifests/", "/referrers/", "/tags/"].into_iter().find_map(|kind| {
        let (name, rest) = path.split_once(kind)?;
        Some((name.to_owned(), kind, rest.to_owned()))
    })
}

/// The first parameter of a query or form with this name, decoded.
pub(super) fn query_value(query: &str, name: &str) -> Option<String> {
    query_values(query, name).into_iter().next()
}

/// All parameters of a query or form with this name, decoded.
pub(super) fn query_values(query: &str, name: &str) -> Vec<String> {
    query
        .split('&')
        .filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        .filter_map(|raw| {
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
                    (b'+', _) => bytes.push(b' '),
                    _ => bytes.push(*first),
                }
            }
            String::from_utf8(bytes).ok()
        })
        .collect()
}
