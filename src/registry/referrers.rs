//! Manifests that refer to another one: listed by the registry's API, or by the index that stands in for it where there
//! is none. Must not know what they are for.
//!
//! Source: OCI distribution specification 1.1, "Listing Referrers", "Referrers Tag Schema", "Pushing Manifests with
//! Subject".

use std::time::Duration;

use oci_client::Reference;
use oci_spec::image::Descriptor;
use reqwest::{
    Method, Url,
    header::{ACCEPT, HeaderMap, LINK},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::{Registry, error::RegistryError, exchange::Ask, manifest, session::Session};
use crate::{digest::Digest, oci::canonical_json};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Pages of a list that are read.
pub(super) const PAGES_MAX: usize = 100;
/// How often an index is written before the other writers have it.
const ROUNDS_MAX: usize = 8;
/// Milliseconds to wait before the index is looked at again, and as many more as tell two writers apart. No registry
/// need refuse to write over what changed meanwhile, so only a later look shows that another writer did.
const PAUSE: u64 = 100;

/// What a manifest says of itself that an index of referrers repeats.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referring {
    subject: Option<Subject>,
    artifact_type: Option<String>,
    config: Option<Config>,
    annotations: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Subject {
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    media_type: String,
}

impl Registry {
    /// The manifests that refer to `subject` in the reference's repository, of one artifact type or of all.
    ///
    /// # Errors
    /// When the registry fails. A subject that nobody refers to, or that is not there, has none.
    pub fn referrers(
        &self,
        reference: &Reference,
        subject: Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let session = self.session(reference)?;
        self.run(list(&session, reference, subject, artifact_type))
    }

    /// Stores a manifest that refers to another, under its digest in the reference's repository, so that it is listed
    /// among the other's referrers. Returns its digest.
    ///
    /// # Errors
    /// [`RegistryError::NotListed`] when it was stored, and nothing will list it; else failed requests.
    pub fn push_referrer(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let session = self.session(reference)?;
        self.run(push(&session, reference, media_type, bytes))
    }
}

async fn list(
    session: &Session,
    reference: &Reference,
    subject: Digest,
    artifact_type: Option<&str>,
) -> Result<Vec<Descriptor>, RegistryError> {
    let found = match by_api(session, reference, subject, artifact_type).await? {
        Ok(found) => found,
        Err(why) => match manifest::pull(session, reference, &tag_of(subject)).await {
            Ok(index) => entries(&index.bytes).unwrap_or_default(),
            Err(RegistryError::NotFound { .. }) => {
                // Nothing there is no proof of nothing when the question was refused.
                if let Some(why) = why {
                    tracing::warn!("whether anything refers to {subject} is not known: {why}");
                }
                Vec::new()
            }
            Err(error) => return Err(error),
        },
    };
    let mut descriptors: Vec<Descriptor> = Vec::new();
    for entry in found {
        // Anybody may write to the index; what is no descriptor refers to nothing.
        let Ok(descriptor) = serde_json::from_value::<Descriptor>(entry) else { continue };
        let stated = descriptor.artifact_type().as_ref().map(ToString::to_string);
        let wanted = artifact_type.is_none_or(|wanted| stated.as_deref() == Some(wanted));
        if wanted && !descriptors.iter().any(|present| present.digest() == descriptor.digest()) {
            descriptors.push(descriptor);
        }
    }
    Ok(descriptors)
}

/// Asks the API. Where there is none, the inner error says what came instead, if that was more than "not found". Whether it applied the filter (`OCI-Filters-Applied`) does not matter: its
/// answer is filtered again.
async fn by_api(
    session: &Session,
    reference: &Reference,
    subject: Digest,
    artifact_type: Option<&str>,
) -> Result<Result<Vec<Value>, Option<String>>, RegistryError> {
    let context = session.context(reference, format!("list the referrers of {subject}"));
    let mut url = session.url(&format!("referrers/{subject}"), &context).await?;
    if let Some(artifact_type) = artifact_type {
        url.query_pairs_mut().append_pair("artifactType", artifact_type);
    }
    let mut found = Vec::new();
    for page in 0..PAGES_MAX {
        let ask = Ask::new(Method::GET, url.clone()).scopes(session.pull_scopes()).header(ACCEPT, INDEX_TYPE);
        let (headers, bytes) = match session.host().fetch(&ask, &context).await {
            Ok(answer) => answer,
            // 404 is what the specification wants; others find other words for a path they do not know. Whether the
            // account may read at all, the index shows.
            Err(RegistryError::NotFound { .. }) if page == 0 => return Ok(Err(None)),
            Err(
                error @ (RegistryError::Unauthorized { .. }
                | RegistryError::Denied { .. }
                | RegistryError::Server { status: 400 | 405 | 501, .. }),
            ) if page == 0 => return Ok(Err(Some(error.in_one_line()))),
            Err(error) => return Err(error),
        };
        match entries(&bytes) {
            Some(entries) => found.extend(entries),
            // A proxy's page for whatever it does not know.
            None if page == 0 => return Ok(Err(Some("the answer is no index".to_owned()))),
            None => return Err(context.protocol("a page of its list is no index")),
        }
        match next_page(&headers, &url) {
            Some(next) => url = next,
            None => return Ok(Ok(found)),
        }
    }
    Err(context.protocol(format!("its list has more than {PAGES_MAX} pages")))
}

async fn push(
    session: &Session,
    reference: &Reference,
    media_type: &str,
    bytes: &[u8],
) -> Result<Digest, RegistryError> {
    let digest = Digest::of(bytes);
    let context = session.context(reference, format!("push manifest {digest}"));
    let document: Referring = serde_json::from_slice(bytes)
        .map_err(|error| context.protocol(format!("what is to be pushed is no manifest: {error}")))?;
    let name = named(reference, digest);
    let stored = manifest::push(session, &name, &digest.to_string(), media_type, bytes).await?;
    if stored.subject_is_listed {
        return Ok(digest);
    }
    let Some(subject) = document.subject.as_ref().and_then(|subject| subject.digest.parse().ok()) else {
        return Ok(digest);
    };
    // Registries that have the API and forget to say so have listed it by now.
    let present = by_api(session, reference, subject, None).await?;
    if present.is_ok_and(|present| present.iter().any(|entry| is_of(entry, digest))) {
        return Ok(digest);
    }
    let mut entry = json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() });
    if let Some(object) = entry.as_object_mut() {
        let artifact_type = document.artifact_type.or(document.config.map(|config| config.media_type));
        object.extend(artifact_type.map(|kind| ("artifactType".to_owned(), kind.into())));
        object.extend(document.annotations.map(|all| ("annotations".to_owned(), all.into())));
    }
    add(session, reference, subject, digest, &entry).await.map_err(|source| RegistryError::NotListed {
        reference: reference.whole().into(),
        artifact: digest,
        tag: tag_of(subject),
        source: Box::new(source),
    })?;
    Ok(digest)
}

/// Adds an entry to the index that stands in for the API, unless it is there, and stays until it is seen there.
async fn add(
    session: &Session,
    reference: &Reference,
    subject: Digest,
    digest: Digest,
    entry: &Value,
) -> Result<(), RegistryError> {
    let tag = tag_of(subject);
    let context = session.context(reference, format!("push manifest {tag}"));
    let name =
        Reference::with_tag(reference.registry().to_owned(), reference.repository().to_owned(), tag.clone());
    // Writers that lose to each other should not meet again.
    let pause = PAUSE + digest.hex().get(..2).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    for _ in 0..ROUNDS_MAX {
        let mut index = match manifest::pull(session, &name, &tag).await {
            Ok(present) => serde_json::from_slice(&present.bytes)
                .map_err(|error| context.protocol(format!("what has the tag is no index: {error}")))?,
            Err(RegistryError::NotFound { .. }) => {
                json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [] })
            }
            Err(error) => return Err(error),
        };
        // Kept as JSON: other programs' fields are theirs.
        let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(context.protocol("what has the tag is no index"));
        };
        if manifests.iter().any(|present| is_of(present, digest)) {
            return Ok(());
        }
        manifests.push(entry.clone());
        let bytes = canonical_json(&index).map_err(|error| context.protocol(error.to_string()))?;
        match manifest::push(session, &name, &tag, INDEX_TYPE, &bytes).await {
            // The tag names another writer's, which the next round adds to.
            Ok(_) | Err(RegistryError::TagMoved { .. }) => sleep(Duration::from_millis(pause)).await,
            Err(error) => return Err(error),
        }
    }
    Err(context.protocol("other writers replace it again and again"))
}

fn is_of(entry: &Value, digest: Digest) -> bool {
    entry.get("digest").and_then(Value::as_str) == Some(digest.to_string().as_str())
}

/// The entries of an index; `None` if it is none.
fn entries(bytes: &[u8]) -> Option<Vec<Value>> {
    match serde_json::from_slice::<Value>(bytes).ok()?.get_mut("manifests")? {
        Value::Array(entries) => Some(std::mem::take(entries)),
        // What Go's programs make of an empty list.
        Value::Null => Some(Vec::new()),
        _ => None,
    }
}

/// The tag of the index that stands in for the API.
fn tag_of(subject: Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// The reference of a manifest in the same repository.
fn named(reference: &Reference, digest: Digest) -> Reference {
    Reference::with_digest(
        reference.registry().to_owned(),
        reference.repository().to_owned(),
        digest.to_string(),
    )
}

/// Where the next page of an answer is.
///
/// Source: RFC 8288, section 3.
pub(super) fn next_page(headers: &HeaderMap, url: &Url) -> Option<Url> {
    for value in headers.get_all(LINK) {
        let mut rest = value.to_str().ok()?;
        while let Some((target, tail)) = rest.split_once('<').and_then(|(_, after)| after.split_once('>')) {
            let parameters = tail.split('<').next().unwrap_or_default();
            if parameters.contains("rel=\"next\"") || parameters.contains("rel=next") {
                return url.join(target).ok();
            }
            rest = tail;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_next_page() {
        let url: Url = "https://example.com/v2/a/referrers/sha256:1?artifactType=x".parse().unwrap();
        let next = |link: &str| {
            let headers: HeaderMap = [(LINK, link.parse().unwrap())].into_iter().collect();
            next_page(&headers, &url).map(|url| url.to_string())
        };
        assert_eq!(
            next("</v2/a/referrers/sha256:1?n=2&last=b,c>; rel=\"next\"").as_deref(),
            Some("https://example.com/v2/a/referrers/sha256:1?n=2&last=b,c")
        );
        assert_eq!(
            next("<?p=0>; rel=prev, <?p=2>; rel=next").as_deref(),
            Some("https://example.com/v2/a/referrers/sha256:1?p=2")
        );
        assert_eq!(next("</x>; rel=\"prev\""), None);
        assert_eq!(next("nonsense"), None);
        assert_eq!(next_page(&HeaderMap::new(), &url), None);
    }
}
