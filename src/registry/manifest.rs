//! Manifests and indexes as bytes: their digests and media types. Must not know what layers they name.

use oci_client::{
    Reference, RegistryOperation,
    errors::OciDistributionError,
    manifest::{
        IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
        OCI_IMAGE_MEDIA_TYPE,
    },
};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    error::{Context, RegistryError},
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

pub(super) async fn pull(session: &Session, reference: &Reference) -> Result<RawManifest, RegistryError> {
    let context = session.context(reference, format!("pull manifest {}", name(reference)));
    session.login(reference, RegistryOperation::Pull, &context).await?;
    // The client has the credential since the login; this argument would only fill an empty place.
    let auth = oci_client::secrets::RegistryAuth::Anonymous;
    let (bytes, _) = session
        .client()
        .pull_manifest_raw(reference, &auth, &ACCEPTED)
        .await
        .map_err(|error| context.translate(error))?;
    let kind: Kind = serde_json::from_slice(&bytes)
        .map_err(|error| context.protocol(format!("the registry sent no manifest: {error}")))?;
    let media_type = match kind {
        Kind { media_type: Some(media_type), .. } => media_type,
        Kind { manifests: Some(_), .. } => OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned(),
        Kind { layers: Some(_), .. } => OCI_IMAGE_MEDIA_TYPE.to_owned(),
        _ => return Err(context.protocol("the registry sent neither a manifest nor an index")),
    };
    Ok(RawManifest { digest: Digest::of(&bytes), bytes: bytes.into(), media_type })
}

pub(super) async fn push(
    session: &Session,
    reference: &Reference,
    media_type: &str,
    bytes: &[u8],
) -> Result<Digest, RegistryError> {
    let context = session.context(reference, format!("push manifest {}", name(reference)));
    let digest = Digest::of(bytes);
    if let Some(expected) = reference.digest().filter(|expected| *expected != digest.to_string()) {
        return Err(context.digest_mismatch(expected, digest.to_string()));
    }
    let content_type = media_type
        .parse()
        .map_err(|_| context.protocol(format!("`{}` is no media type", media_type.escape_debug())))?;
    session.login(reference, RegistryOperation::Push, &context).await?;

    // The client panics if it pushes by digest and the registry answers without a Location, as ECR does.
    // It does not where the digest stands in the tag's place, and the URL is the same.
    let tag = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
    let target = Reference::with_tag(reference.registry().to_owned(), reference.repository().to_owned(), tag);
    match session.client().push_manifest_raw(&target, bytes.to_vec(), content_type).await {
        Ok(location) => {
            let last = location.split(['?', '#']).next().and_then(|path| path.rsplit('/').next());
            if let Some(stored) = last.and_then(|last| last.parse::<Digest>().ok())
                && stored != digest
            {
                return Err(context.digest_mismatch(digest.to_string(), stored.to_string()));
            }
        }
        // Another success than 201; whether it was one shows below.
        Err(OciDistributionError::SpecViolationError(_)) => {}
        Err(error) => return Err(context.translate(error)),
    }
    confirm(session, reference, digest, &context).await?;
    Ok(digest)
}

/// Asks the registry for what was pushed, by its digest: it must not have stored anything else.
async fn confirm(
    session: &Session,
    reference: &Reference,
    digest: Digest,
    context: &Context,
) -> Result<(), RegistryError> {
    let pushed = reference.clone_with_digest(digest.to_string());
    let asked = match session.login(&pushed, RegistryOperation::Pull, context).await {
        Ok(()) => {
            let auth = oci_client::secrets::RegistryAuth::Anonymous;
            session
                .client()
                .fetch_manifest_digest(&pushed, &auth)
                .await
                .map_err(|error| context.translate(error))
        }
        Err(error) => Err(error),
    };
    match asked {
        Ok(stored) if stored.starts_with("sha256:") && stored != digest.to_string() => {
            Err(context.digest_mismatch(digest.to_string(), stored))
        }
        // An account that may push but not pull cannot ask; the registry took the manifest all the same.
        Ok(_) | Err(RegistryError::Unauthorized { .. } | RegistryError::Denied { .. }) => Ok(()),
        Err(RegistryError::NotFound { .. }) => Err(context.protocol(format!(
            "the registry took the manifest but does not have it as {digest}; it may have rewritten it"
        ))),
        Err(error) => Err(error),
    }
}

/// How a reference names its manifest.
fn name(reference: &Reference) -> String {
    reference.digest().or(reference.tag()).unwrap_or("latest").to_owned()
}
