//! Manifests and indexes as bytes: their digests and media types. Must not know what layers they name.

use oci_client::{
    Reference,
    manifest::{
        IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
        OCI_IMAGE_MEDIA_TYPE,
    },
};
use reqwest::{
    Method,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION},
};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    error::{Context, RegistryError},
    exchange::{Ask, Body},
    session::Session,
};
use crate::digest::Digest;

/// The media types that are asked for.
const ACCEPTED: [&str; 4] = [
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

/// A manifest or index as a registry serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawManifest {
    /// The bytes exactly as served; their digest depends on every one.
    pub bytes: Vec<u8>,
    /// Media type, from the `mediaType` field; where that is absent, the OCI type that the other fields
    /// show.
    pub media_type: String,
    /// Digest of the bytes. Agrees with the reference if that has one, and with what the registry says.
    pub digest: Digest,
}

/// The fields that tell what kind of manifest a text is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

/// Fetches the manifest that `name` (a tag or digest) names in the session's repository.
pub(super) async fn pull(
    session: &Session,
    reference: &Reference,
    name: &str,
) -> Result<RawManifest, RegistryError> {
    pull_to(session, reference, name, format!("pull manifest {name}")).await
}

/// Fetches a manifest for something that errors will tell of.
pub(super) async fn pull_to(
    session: &Session,
    reference: &Reference,
    name: &str,
    action: String,
) -> Result<RawManifest, RegistryError> {
    let context = session.context(reference, action);
    let ask = Ask::new(Method::GET, session.url(&format!("manifests/{name}"), &context).await?)
        .scopes(session.pull_scopes())
        .header(ACCEPT, &ACCEPTED.join(", "));
    let (headers, bytes) = session.host().fetch(&ask, &context).await?;
    let digest = Digest::of(&bytes);
    let stated = [stated_digest(&headers), name.parse().ok()];
    if let Some(expected) = stated.into_iter().flatten().find(|expected| *expected != digest) {
        return Err(context.digest_mismatch(expected.to_string(), digest.to_string()));
    }
    let kind: Kind = serde_json::from_slice(&bytes)
        .map_err(|error| context.protocol(format!("the registry sent no manifest: {error}")))?;
    let media_type = match kind {
        Kind { media_type: Some(media_type), .. } => media_type,
        Kind { manifests: Some(_), .. } => OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned(),
        Kind { layers: Some(_), .. } => OCI_IMAGE_MEDIA_TYPE.to_owned(),
        _ => return Err(context.protocol("the registry sent neither a manifest nor an index")),
    };
    Ok(RawManifest { bytes, media_type, digest })
}

/// Stores a manifest under `name` (a tag, or its digest), and reads it back.
pub(super) async fn push(
    session: &Session,
    reference: &Reference,
    name: &str,
    media_type: &str,
    bytes: &[u8],
) -> Result<Stored, RegistryError> {
    let context = session.context(reference, format!("push manifest {name}"));
    let digest = Digest::of(bytes);
    let expected = [name.parse::<Digest>().ok(), reference.digest().and_then(|text| text.parse().ok())];
    if let Some(expected) = expected.into_iter().flatten().find(|expected| *expected != digest) {
        return Err(context.digest_mismatch(expected.to_string(), digest.to_string()));
    }
    let mut ask = Ask::new(Method::PUT, session.url(&format!("manifests/{name}"), &context).await?)
        .scopes(session.push_scopes())
        .body(Body::Bytes(bytes.to_vec().into()));
    let media_type = media_type
        .parse()
        .map_err(|_| context.protocol(format!("`{}` is no media type", media_type.escape_debug())))?;
    ask.headers.insert(CONTENT_TYPE, media_type);
    let answer = session.host().send(&ask, &context).await?;
    let headers = answer.headers();
    // Some registries (ECR) answer without a Location.
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let last = location.and_then(|location| location.split(['?', '#']).next()?.rsplit('/').next());
    let located = last.and_then(|last| last.parse::<Digest>().ok());
    for stored in [located, stated_digest(headers)].into_iter().flatten() {
        if stored != digest {
            return Err(context.digest_mismatch(digest.to_string(), stored.to_string()));
        }
    }
    let subject_is_listed = headers.contains_key("oci-subject");
    let by_digest = digest.to_string();
    confirm(session, reference, &by_digest, digest, &context).await?;
    if name != by_digest {
        confirm(session, reference, name, digest, &context).await?;
    }
    Ok(Stored { digest, subject_is_listed })
}

/// A manifest that was pushed.
pub(super) struct Stored {
    pub(super) digest: Digest,
    /// Whether the registry lists it among its subject's referrers by itself.
    ///
    /// Source: OCI distribution specification 1.1, "Pushing Manifests with Subject".
    pub(super) subject_is_listed: bool,
}

/// Reads back what was pushed: the registry must not have stored anything else. What comes has the digest that it was
/// asked for by, if it was by one, so another manifest is what a tag names.
async fn confirm(
    session: &Session,
    reference: &Reference,
    name: &str,
    digest: Digest,
    context: &Context,
) -> Result<(), RegistryError> {
    match pull(session, reference, name).await {
        Ok(stored) if stored.digest == digest => Ok(()),
        Ok(stored) => Err(context.tag_moved(digest, stored.digest)),
        // An account that may push but not pull cannot ask; the registry took the manifest all the same.
        Err(error @ (RegistryError::Unauthorized { .. } | RegistryError::Denied { .. })) => {
            tracing::warn!("{name} was pushed and could not be read back: {}", error.in_one_line());
            Ok(())
        }
        Err(RegistryError::NotFound { .. }) => Err(context.protocol(format!(
            "the registry took the manifest but does not have it as {name}; it may have rewritten it"
        ))),
        Err(error) => Err(error),
    }
}

/// The digest that an answer states, if it is a SHA-256.
fn stated_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// How a reference names its manifest.
pub(super) fn name(reference: &Reference) -> String {
    reference.digest().or(reference.tag()).unwrap_or("latest").to_owned()
}
