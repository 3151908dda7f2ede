//! What a registry serves: blobs and ranges of them, manifests, referrers.

use axum::{
    body::Bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use starcar::digest::Digest;

use super::{
    Shared,
    server::{Incoming, error, query_value},
};

/// What becomes of Range requests for blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ranges {
    /// Answered with the range, or with a part for each of several.
    #[default]
    Honoured,
    /// Answered with 200 and the whole blob.
    Ignored,
    /// Answered with 206 and one byte less than asked for.
    Short,
    /// One is honoured; several in a request are answered with 501.
    SeveralRefused,
    /// One is honoured; several in a request are answered with 200 and the whole blob.
    SeveralIgnored,
}

const BOUNDARY: &str = "a-boundary";

/// The ranges of a header as half-open intervals within `size` bytes.
fn intervals(header: &str, size: usize) -> Option<Vec<(usize, usize)>> {
    let one = |range: &str| {
        let (start, end) = range.trim().split_once('-')?;
        let end = if end.is_empty() { size } else { end.parse::<usize>().ok()?.saturating_add(1).min(size) };
        Some((start.parse().ok()?, end))
    };
    header.strip_prefix("bytes=")?.split(',').map(one).collect()
}

pub(super) fn get_blob(shared: &Shared, repository: String, digest: String, request: &Incoming) -> Response {
    let Some(bytes) = shared.store().blobs.get(&(repository, digest.clone())).cloned() else {
        return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    if shared.options.discard {
        // Whatever the size was, nobody kept it: an answer without a length says nothing wrong.
        let nothing = futures_util::stream::empty::<std::io::Result<Bytes>>();
        return axum::body::Body::from_stream(nothing).into_response();
    }
    let size = bytes.len();
    let asked = request.header(header::RANGE).and_then(|range| intervals(range, size)).unwrap_or_default();
    let digest = ("docker-content-digest", digest);
    let content_range = |start: usize, end: usize| format!("bytes {start}-{}/{size}", end.saturating_sub(1));
    if asked.iter().any(|(start, end)| start >= end) {
        return error(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", "no such range");
    }
    match (asked.as_slice(), shared.options.ranges) {
        ([], _) | (_, Ranges::Ignored) | ([_, _, ..], Ranges::SeveralIgnored) => {
            ([digest], bytes).into_response()
        }
        ([_, _, ..], Ranges::SeveralRefused) => StatusCode::NOT_IMPLEMENTED.into_response(),
        ([(start, end)], ranges) => {
            let end = if ranges == Ranges::Short { end - 1 } else { *end };
            let range = ("content-range", content_range(*start, end));
            (StatusCode::PARTIAL_CONTENT, [digest, range], bytes.slice(*start..end)).into_response()
        }
        (several, _) => {
            let mut body = Vec::new();
            for (start, end) in several {
                let range = content_range(*start, *end);
                body.extend(format!("\r\n--{BOUNDARY}\r\nContent-Range: {range}\r\n\r\n").into_bytes());
                body.extend_from_slice(&bytes[*start..*end]);
            }
            body.extend(format!("\r\n--{BOUNDARY}--\r\n").into_bytes());
            let kind = ("content-type", format!("multipart/byteranges; boundary={BOUNDARY}"));
            (StatusCode::PARTIAL_CONTENT, [digest, kind], body).into_response()
        }
    }
}

pub(super) fn get_manifest(shared: &Shared, repository: String, name: String) -> Response {
    match shared.store().manifests.get(&(repository, name)) {
        Some((media_type, bytes)) => {
            let digest = Digest::of(bytes).to_string();
            let headers = [("content-type", media_type.clone()), ("docker-content-digest", digest)];
            (headers, bytes.clone()).into_response()
        }
        None => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

/// The tags of a repository, two on a page.
pub(super) fn tags(shared: &Shared, repository: &str, query: &str) -> Response {
    const PAGE: usize = 2;

    let last = super::server::query_value(query, "last").unwrap_or_default();
    let store = shared.store();
    let of_repository = store.manifests.keys().filter(|(of, name)| of == repository && !name.contains(':'));
    let mut tags: Vec<String> = of_repository.map(|(_, tag)| tag.clone()).collect();
    if tags.is_empty() {
        return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "repository name not known to registry");
    }
    tags.sort();
    tags.retain(|tag| *tag > last);
    let more = tags.len() > PAGE;
    tags.truncate(PAGE);
    let body = serde_json::json!({ "name": repository, "tags": tags }).to_string();
    let mut response = body.into_response();
    if let Some(tag) = tags.last().filter(|_| more) {
        let link = format!("</v2/{repository}/tags/list?last={tag}>; rel=\"next\"");
        response.headers_mut().insert("link", link.parse().unwrap());
    }
    response
}

/// Removes a manifest with all of its tags.
pub(super) fn remove_manifest(shared: &Shared, repository: &str, digest: &str) -> Response {
    let mut store = shared.store();
    let before = store.manifests.len();
    store.manifests.retain(|(of, _), (_, bytes)| of != repository || Digest::of(bytes).to_string() != digest);
    if store.manifests.len() == before {
        return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown");
    }
    StatusCode::ACCEPTED.into_response()
}

/// The digest that a manifest refers to.
fn subject(manifest: &[u8]) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    Some(manifest["subject"]["digest"].as_str()?.to_owned())
}

pub(super) fn put_manifest(
    shared: &Shared,
    repository: &str,
    name: String,
    request: &Incoming,
    body: Vec<u8>,
) -> Response {
    let digest = Digest::of(&body).to_string();
    if name.starts_with("sha256:") && name != digest {
        return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "digest did not match content");
    }
    let media_type = request.header(header::CONTENT_TYPE).unwrap_or_default();
    let subject = subject(&body).filter(|_| shared.options.referrers);
    let value = (media_type.to_owned(), Bytes::from(body));
    let mut store = shared.store();
    for name in [name, digest.clone()] {
        store.manifests.insert((repository.to_owned(), name), value.clone());
    }
    let location = format!("/v2/{repository}/manifests/{digest}");
    let headers = [("location", location), ("docker-content-digest", digest)];
    let mut response = (StatusCode::CREATED, headers).into_response();
    if let Some(subject) = subject {
        response.headers_mut().insert("oci-subject", subject.parse().unwrap());
    }
    response
}

/// The manifests that refer to a digest, as an index.
pub(super) fn referrers(shared: &Shared, repository: &str, digest: &str, query: &str) -> Response {
    let wanted = query_value(query, "artifactType");
    let mut manifests = Vec::new();
    for ((of, name), (media_type, bytes)) in &shared.store().manifests {
        if of != repository || !name.contains(':') || subject(bytes).as_deref() != Some(digest) {
            continue;
        }
        let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let field = |name: &str| manifest.get(name).cloned().unwrap_or_default();
        let mut artifact_type = field("artifactType");
        if artifact_type.is_null() {
            artifact_type = manifest["config"]["mediaType"].clone();
        }
        if wanted.as_deref().is_none_or(|wanted| artifact_type == wanted) {
            manifests.push(serde_json::json!({
                "mediaType": media_type, "digest": name, "size": bytes.len(),
                "artifactType": artifact_type, "annotations": field("annotations"),
            }));
        }
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    let mut response = ([(header::CONTENT_TYPE, media_type)], index.to_string()).into_response();
    if wanted.is_some() {
        response.headers_mut().insert("oci-filters-applied", "artifactType".parse().unwrap());
    }
    response
}
