//! The requests that an upload is made of. Must not decide what follows from their failures.

use std::sync::PoisonError;

use reqwest::{
    Method, Url,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE},
};

use super::{
    Upload,
    flow::{Part, commit_time},
};
use crate::{
    digest::Digest,
    registry::{
        error::{Context, RegistryError},
        exchange::{Answer, Ask, Body, location},
        failure::Failure,
        retry::Tries,
        session::Session,
    },
};

/// How an upload begins.
pub(super) enum Begun {
    /// The registry took the blob from another repository.
    Mounted,
    /// The upload's URL.
    At(Url),
}

/// Mounts the blob if a repository that may have it does, else opens an upload.
pub(super) async fn begin(upload: &Upload<'_>, digest: Digest) -> Result<Begun, RegistryError> {
    let session = upload.session;
    let url = session.url("blobs/uploads/", upload.context).await?;
    // A registry that does not mount opens an upload instead; it serves as well as any.
    let mut opened = None;
    let no_mounts = &session.host().no_mounts;
    for from in &upload.mount_from {
        if no_mounts.lock().unwrap_or_else(PoisonError::into_inner).contains(from) {
            continue;
        }
        let mut mount = url.clone();
        mount.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        let mut scopes = session.push_scopes();
        scopes.push(format!("repository:{from}:pull"));
        let ask = Ask::new(Method::POST, mount).scopes(scopes).header(CONTENT_LENGTH, "0");
        match session.host().once(&ask, upload.context).await {
            Ok(answer) if answer.status().as_u16() == 201 => {
                if let Some(left) = opened {
                    cancel(session, &left, upload.context).await;
                }
                return Ok(Begun::Mounted);
            }
            Ok(answer) => {
                let next = opened_at(session, &ask.url, &answer);
                if let Some(left) = next.and_then(|next| opened.replace(next)) {
                    cancel(session, &left, upload.context).await;
                }
            }
            // A repository that is not there, or not ours to read, is none that has this blob or another.
            Err(failure) => {
                tracing::info!("no mount from {from}: {}", failure.error.in_one_line());
                if matches!(failure.status(), Some(401 | 403 | 404)) {
                    no_mounts.lock().unwrap_or_else(PoisonError::into_inner).insert(from.clone());
                }
            }
        }
    }
    if let Some(url) = opened {
        return Ok(Begun::At(url));
    }
    let ask = Ask::new(Method::POST, url).scopes(session.push_scopes()).header(CONTENT_LENGTH, "0");
    let answer = session.host().send(&ask, upload.context).await?;
    opened_at(session, &ask.url, &answer).map(Begun::At).ok_or_else(|| {
        upload.context.protocol(
            "the registry opened an upload and did not say where (no Location header that can be used)",
        )
    })
}

/// Where an upload is that the answer to a request to `url` opened, and what is to be learnt from that answer.
fn opened_at(session: &Session, url: &Url, answer: &Answer) -> Option<Url> {
    if let Some(bytes) = answer.header("oci-chunk-min-length").and_then(|bytes| bytes.parse().ok()) {
        super::habits_of(session, |habits| habits.learn_min(bytes));
    }
    location(url, answer.headers())
}

/// Sends a part. `end` is the blob's digest where the part is its last.
pub(super) async fn send_part(
    upload: &Upload<'_>,
    url: &Url,
    part: Part,
    end: Option<Digest>,
) -> Result<Answer, Failure> {
    let mut url = url.clone();
    if let Some(digest) = end {
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
    }
    let method = if end.is_some() { Method::PUT } else { Method::PATCH };
    let (offset, length) = (part.offset, part.length);
    let mut ask = Ask::new(method, url)
        .scopes(upload.session.push_scopes())
        .header(CONTENT_LENGTH, &length.to_string())
        .header(CONTENT_TYPE, "application/octet-stream");
    let is_whole = end.is_some() && offset == 0;
    if length > 0 && !is_whole {
        ask = ask.header(CONTENT_RANGE, &format!("{offset}-{}", offset + length - 1));
    }
    if length > 0 {
        ask.body = Body::Flow(Box::new(move || part.flow()));
    } else if end.is_some() {
        ask.patience = commit_time(part.content.size());
    }
    upload.session.host().once(&ask, upload.context).await
}

/// What a registry says of an upload.
pub(super) enum Known {
    /// It has so many bytes, which need not be true.
    Bytes(u64),
    /// It knows the upload and does not say how far it is.
    Something,
    /// It does not know the upload, or knows no such question.
    Nothing,
}

/// Asks how far an upload got, and brings `url` to its newest address.
pub(super) async fn how_far(
    upload: &Upload<'_>,
    url: &mut Url,
    mut tries: Tries,
) -> Result<Known, RegistryError> {
    let ask = Ask::new(Method::GET, url.clone()).scopes(upload.session.push_scopes());
    let host = upload.session.host();
    let answer = loop {
        match host.once(&ask, upload.context).await {
            Ok(answer) => break answer,
            Err(failure) => match failure.status() {
                Some(400 | 404 | 405 | 409 | 410 | 416 | 501) => return Ok(Known::Nothing),
                // What lets strangers into a store behind the registry has ended.
                Some(401 | 403) if !host.is_registry(url) => return Ok(Known::Nothing),
                _ => tries.wait(failure).await?,
            },
        }
    };
    if let Some(newest) = location(url, answer.headers()) {
        *url = newest;
    }
    Ok(answer.header("range").and_then(end_of_range).map_or(Known::Something, Known::Bytes))
}

/// Ends an upload. Failing to costs the registry some space until it cleans up by itself.
pub(in crate::registry) async fn cancel(session: &Session, url: &Url, context: &Context) {
    // Scopes of their own: what the registry names for an end must not be taken for what a push needs.
    let scopes = vec![format!("repository:{}:pull,push,delete", session.repository())];
    let end = async |url: &Url| {
        let ask = Ask::new(Method::DELETE, url.clone()).scopes(scopes.clone());
        session.host().once(&ask, context).await
    };
    let Err(mut failure) = end(url).await else { return };
    // Registries that keep an upload's state in its address (distribution) take the newest one alone.
    if matches!(failure.status(), Some(400 | 409 | 416)) {
        let ask = Ask::new(Method::GET, url.clone()).scopes(session.push_scopes());
        let newest = session.host().once(&ask, context).await.ok();
        if let Some(newest) = newest.and_then(|answer| location(url, answer.headers())) {
            match end(&newest).await {
                Ok(_) => return,
                Err(again) => failure = again,
            }
        }
    }
    tracing::info!("an upload could not be ended: {}", failure.error.in_one_line());
}

/// How many bytes a `Range` header of an upload stands for. `0-0` is what registries say of an empty upload, which the
/// header has no other words for.
pub(super) fn end_of_range(text: &str) -> Option<u64> {
    let (start, end) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    let (start, end): (u64, u64) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    match (start, end) {
        (0, 0) => Some(0),
        (0, end) => end.checked_add(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_uploads() {
        for (text, bytes) in [
            ("0-0", Some(0)),
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            ("5-9", None),
            ("0-18446744073709551615", None),
            ("", None),
            ("0-", None),
            ("-", None),
            ("0-x", None),
        ] {
            assert_eq!(end_of_range(text), bytes, "{text}");
        }
    }
}
