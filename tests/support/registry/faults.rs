//! Disturbances of chosen requests.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::Shared;

/// When something happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Nothing of the body was read. After an answer the rest of the body is read for a moment and thrown
    /// away, as nginx does: a client that is told before it has sent everything should be able to hear it.
    BeforeBody,
    /// The body was received, and thrown away.
    AfterBody,
    /// The bytes of an upload were kept; a blob was not made of them.
    Kept,
    /// What was asked for was done.
    Done,
}

/// What happens to a request instead of the right answer.
#[derive(Debug, Clone)]
pub enum Act {
    Reply(Reply),
    /// The connection is closed.
    Close,
    /// Nothing is read or answered any more.
    Stall,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Reply {
    /// An answer without headers and body.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn response(self) -> Response {
        let mut response = (StatusCode::from_u16(self.status).unwrap(), self.body).into_response();
        for (name, value) in self.headers {
            response.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        response
    }
}

/// What happens to a request that a [`Fault`] picks.
#[derive(Debug, Clone)]
pub enum Effect {
    /// This, then.
    At(When, Act),
    /// This status with this body instead of the right answer, after the request's body was received.
    Answer(u16, String),
    /// The same at once, with the request's body half sent.
    AnswerAtOnce(u16, String),
    /// The connection is closed after exactly this many bytes of the request's body, which are kept.
    CloseAfter(u64),
    /// The connection is closed when the upload session has exactly this many bytes in all.
    CloseAt(u64),
    /// Nothing is read or answered any more after this many bytes of the request's body, which are kept.
    StallAfter(u64),
    /// Reading pauses for so long after this many bytes of the request's body.
    PauseAfter(u64, Duration),
    /// The connection is closed after this many bytes of the response's body.
    CutAfter(usize),
    /// The response's body goes no further after this many bytes.
    StallAnswerAfter(usize),
    /// The last byte of the request's body is lost on its way to the store.
    DropLastByte,
    /// The body is thrown away, and answered with 416 and how far the upload is.
    RefuseRange,
    /// This status and the same path on another host, at once. The address is good without a login, and
    /// bad with one, as signed ones of object stores are.
    Redirect(u16),
    /// The answer's body has its first byte changed; headers stay.
    WrongBytes,
    /// The answer lacks this header.
    WithoutHeader(&'static str),
    /// The answer has this header with another value.
    WithHeader(&'static str, String),
    /// The answer has this status.
    WithStatus(u16),
}

impl Effect {
    /// What happens at a time, if anything.
    pub(super) fn at(&self, when: When) -> Option<Act> {
        let reply = |status: u16, body: &str| {
            Act::Reply(Reply { status, headers: Vec::new(), body: body.to_owned() })
        };
        match self {
            Self::At(then, act) if *then == when => Some(act.clone()),
            Self::Answer(status, body) if when == When::AfterBody => Some(reply(*status, body)),
            Self::AnswerAtOnce(status, body) if when == When::BeforeBody => Some(reply(*status, body)),
            _ => None,
        }
    }

    /// Whether the bytes of an upload are lost.
    pub(super) fn discards(&self) -> bool {
        matches!(self, Self::RefuseRange) || self.at(When::AfterBody).is_some()
    }
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

    /// Disturbs the first request of this kind.
    pub fn once(method: &'static str, path: &'static str, effect: Effect) -> Self {
        Self { times: 1, ..Self::always(method, path, effect) }
    }
}

impl Shared {
    /// The effects of the faults that are due for a request.
    pub(super) fn effects(&self, method: &str, path: &str) -> Vec<Effect> {
        let mut hits = self.hits.lock().unwrap();
        let mut effects = Vec::new();
        for (fault, hits) in self.options.faults.iter().zip(hits.iter_mut()) {
            if fault.method == method && path.contains(fault.path) {
                if *hits >= fault.skip && *hits - fault.skip < fault.times {
                    effects.push(fault.effect.clone());
                }
                *hits += 1;
            }
        }
        effects
    }
}

/// Ends the connection of the request that is being handled, without the panic's message on stderr.
pub(super) fn close_connection() -> ! {
    std::panic::resume_unwind(Box::new("connection closed on request"))
}

/// Does what the effects have for this time; the answer if it is one.
pub(super) async fn act(effects: &[Effect], when: When) -> Option<Response> {
    match effects.iter().find_map(|effect| effect.at(when))? {
        Act::Reply(reply) => Some(reply.response()),
        Act::Close => close_connection(),
        Act::Stall => std::future::pending().await,
    }
}

/// Applies an effect that needs the right answer first.
pub(super) async fn disturb(mut response: Response, effect: Effect) -> Response {
    match effect {
        Effect::WrongBytes => {
            let (parts, body) = response.into_parts();
            let mut bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
            if let Some(first) = bytes.first_mut() {
                *first ^= 1;
            }
            return Response::from_parts(parts, Body::from(bytes));
        }
        Effect::CutAfter(length) | Effect::StallAnswerAfter(length) => {
            let (mut parts, body) = response.into_parts();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
            let start = bytes.slice(..length.min(bytes.len()));
            let stalls = matches!(effect, Effect::StallAnswerAfter(_));
            let stream = futures_util::stream::unfold(Some(start), move |start| async move {
                match start {
                    Some(start) => Some((Ok(start), None)),
                    None if stalls => std::future::pending().await,
                    None => {
                        // What came before would be thrown away with the connection.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        Some((Err(std::io::Error::other("cut")), None))
                    }
                }
            });
            return Response::from_parts(parts, Body::from_stream(stream));
        }
        Effect::WithoutHeader(name) => drop(response.headers_mut().remove(name)),
        Effect::WithHeader(name, value) => {
            response.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
        }
        Effect::WithStatus(status) => *response.status_mut() = StatusCode::from_u16(status).unwrap(),
        _ => {}
    }
    response
}
