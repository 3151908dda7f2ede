//! Finding out what a registry can do before anything is at stake. Must not know what images hold.

use std::{fmt, sync::Arc, time::Instant};

use futures_util::future::BoxFuture;
use oci_client::Reference;
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_LENGTH, RANGE},
};
use serde::Serialize;

use super::{
    Registry,
    error::{Context, RegistryError},
    exchange::{Ask, location},
    limits::{KnownRegistry, known_registry},
    session::Session,
    upload::cancel,
};
use crate::{blob::MemoryBlob, digest::Digest};

/// The blob that is pushed to try things with. It is nobody else's, so that it can be removed.
const PROBE: &[u8] = b"starcar registry check: a probe, to be removed. 0123456789abcdef";

/// What a registry can do.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Preflight {
    /// The registry's host, with its port.
    pub registry: String,
    /// The repository that was tried.
    pub repository: String,
    /// What is known of the registry beforehand.
    pub known: Option<KnownRegistry>,
    /// What was found, in the order in which it was tried.
    pub findings: Vec<Finding>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Finding {
    /// What was tried: `reach`, `pull`, `push`, `range`, `ranges`, `mount`, `referrers`, `pieces`, `blob size`.
    pub what: &'static str,
    /// What needs it.
    pub needed_for: &'static str,
    /// Whether pushing, or mounting without pulling, does not work without it.
    pub required: bool,
    /// How it went.
    pub verdict: Verdict,
    /// What was seen, or what follows from it.
    pub detail: String,
}

/// How something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is there.
    Yes,
    /// It is not.
    No,
    /// It could not be tried.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        })
    }
}

impl Preflight {
    /// What is required and not there.
    pub fn missing(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.required && finding.verdict == Verdict::No)
    }
}

/// Opens an upload and ends it.
pub(super) async fn check_push(session: &Session, reference: &Reference) -> Result<(), RegistryError> {
    let context = session.context(reference, format!("push to {}", session.repository()));
    open_upload(session, &context).await.map(drop)
}

/// Opens an upload, ends it, and returns the shortest pieces in bytes that the registry says it takes.
async fn open_upload(session: &Session, context: &Context) -> Result<Option<u64>, RegistryError> {
    let ask = Ask::new(Method::POST, session.url("blobs/uploads/", context).await?)
        .scopes(session.push_scopes())
        .header(CONTENT_LENGTH, "0");
    let answer = session.host().send(&ask, context).await?;
    let minimum = answer.header("oci-chunk-min-length").and_then(|bytes| bytes.parse().ok());
    match location(&ask.url, answer.headers()) {
        Some(url) => cancel(session, &url, context).await,
        None => return Err(context.protocol("it opens uploads and does not say where (no Location header)")),
    }
    Ok(minimum)
}

/// Tries all things.
pub(super) fn preflight<'a>(
    registry: &'a Registry,
    session: &'a Session,
    reference: &'a Reference,
) -> BoxFuture<'a, Result<Preflight, RegistryError>> {
    Box::pin(async move {
        let known = known_registry(session.registry());
        let context = |action: &str| session.context(reference, action);
        let mut findings = vec![reach(session, &context("reach the registry")).await?];
        findings.push(pull(session, &context("pull")).await?);
        let (push, probe) = push(registry, session, reference).await;
        let can_push = push.verdict == Verdict::Yes;
        findings.push(push);
        findings.push(range(session, probe, &context("read a range")).await);
        findings.push(ranges(session, probe, known, &context("read several ranges")).await);
        findings.push(mount(session, probe, &context("mount a blob")).await);
        findings.push(referrers(session, probe, known, &context("list referrers")).await);
        findings.push(pieces(session, can_push, known, &context("open an upload")).await);
        findings.push(blob_size(known));
        if let Some(probe) = probe {
            remove(session, probe, &context("remove a blob")).await;
        }
        Ok(Preflight {
            registry: session.registry().to_owned(),
            repository: session.repository().to_owned(),
            known: known.cloned(),
            findings,
        })
    })
}

fn finding(
    what: &'static str,
    needed_for: &'static str,
    verdict: Verdict,
    detail: impl Into<String>,
) -> Finding {
    let required = matches!(what, "reach" | "pull" | "push" | "range");
    Finding { what, needed_for, required, verdict, detail: detail.into() }
}

fn not_tried(what: &'static str, needed_for: &'static str) -> Finding {
    finding(what, needed_for, Verdict::Unknown, "not tried: it takes a blob, which could not be pushed")
}

async fn reach(session: &Session, context: &Context) -> Result<Finding, RegistryError> {
    let begun = Instant::now();
    let url = session.url("", context).await?;
    let detail = format!(
        "{}, answered in {} ms, {}",
        url.scheme(),
        begun.elapsed().as_millis(),
        match session.host().is_anonymous() {
            true => "without credentials",
            false => session.host().credentials(),
        }
    );
    Ok(finding("reach", "everything", Verdict::Yes, detail))
}

/// Whether images can be read. An error when the credentials are refused: nothing else can be found out then.
async fn pull(session: &Session, context: &Context) -> Result<Finding, RegistryError> {
    let need = "nodes, and the check after a push";
    let asked = async {
        let ask =
            Ask::new(Method::GET, session.url("tags/list?n=1", context).await?).scopes(session.pull_scopes());
        session.host().send(&ask, context).await
    };
    match asked.await {
        Ok(_) => Ok(finding("pull", need, Verdict::Yes, "the repository is there")),
        Err(RegistryError::NotFound { .. }) => {
            Ok(finding("pull", need, Verdict::Yes, "the repository is not there yet"))
        }
        Err(error) if session.host().is_refused() => Err(error),
        Err(error) => Ok(finding("pull", need, Verdict::No, error.in_one_line())),
    }
}

/// Whether blobs can be written; the digest of the one that was.
async fn push(registry: &Registry, session: &Session, reference: &Reference) -> (Finding, Option<Digest>) {
    let probe: Arc<dyn crate::blob::BlobContent> = Arc::new(MemoryBlob::new(PROBE));
    let digest = probe.digest();
    match registry.push_probe(session, reference, &probe).await {
        Ok(()) => (finding("push", "pushes", Verdict::Yes, "a blob was pushed"), Some(digest)),
        Err(error) => (finding("push", "pushes", Verdict::No, error.in_one_line()), None),
    }
}

async fn range(session: &Session, probe: Option<Digest>, context: &Context) -> Finding {
    let need = "mounting without pulling";
    let Some(probe) = probe else { return not_tried("range", need) };
    match get(session, probe, "bytes=16-31", context).await {
        Ok((StatusCode::PARTIAL_CONTENT, bytes)) if Some(bytes.as_slice()) == PROBE.get(16..32) => {
            finding("range", need, Verdict::Yes, "a range is answered with its bytes")
        }
        Ok((StatusCode::PARTIAL_CONTENT, _)) => {
            finding("range", need, Verdict::No, "a range is answered with other bytes")
        }
        Ok(_) => finding(
            "range",
            need,
            Verdict::No,
            "ranges are ignored: nodes have to pull the whole image; look for a proxy before the registry",
        ),
        Err(error) => finding("range", need, Verdict::No, error.in_one_line()),
    }
}

async fn ranges(
    session: &Session,
    probe: Option<Digest>,
    known: Option<&KnownRegistry>,
    context: &Context,
) -> Finding {
    let need = "fewer requests of nodes";
    let advice = "set force_single_range_mode on the nodes (docs/nodes.md)";
    let Some(probe) = probe else {
        return match known.and_then(|known| known.many_ranges) {
            Some(false) => finding("ranges", need, Verdict::No, format!("known of this registry; {advice}")),
            _ => not_tried("ranges", need),
        };
    };
    match get(session, probe, "bytes=0-3,16-19", context).await {
        // Several parts, or one range that covers all: not the blob from its start to its end.
        Ok((StatusCode::PARTIAL_CONTENT, bytes)) if bytes != PROBE => {
            finding("ranges", need, Verdict::Yes, "several ranges are answered at once")
        }
        Ok(_) => finding("ranges", need, Verdict::No, format!("the whole blob comes instead; {advice}")),
        Err(error) => finding("ranges", need, Verdict::No, format!("{}; {advice}", error.in_one_line())),
    }
}

async fn get(
    session: &Session,
    probe: Digest,
    range: &str,
    context: &Context,
) -> Result<(StatusCode, Vec<u8>), RegistryError> {
    let url = session.url(&format!("blobs/{probe}"), context).await?;
    let ask = Ask::new(Method::GET, url).scopes(session.pull_scopes()).header(RANGE, range);
    let answer = session.host().send(&ask, context).await?;
    let status = answer.status();
    let bytes = answer.bytes(context).await.map_err(|failure| failure.error)?;
    Ok((status, bytes))
}

/// A repository may mount from itself, which shows whether the registry mounts at all.
async fn mount(session: &Session, probe: Option<Digest>, context: &Context) -> Finding {
    let need = "sending layers once for several repositories";
    let Some(probe) = probe else { return not_tried("mount", need) };
    let asked = async {
        let mut url = session.url("blobs/uploads/", context).await?;
        url.query_pairs_mut()
            .append_pair("mount", &probe.to_string())
            .append_pair("from", session.repository());
        let ask = Ask::new(Method::POST, url).scopes(session.push_scopes()).header(CONTENT_LENGTH, "0");
        let answer = session.host().send(&ask, context).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(true);
        }
        if let Some(url) = location(&ask.url, answer.headers()) {
            cancel(session, &url, context).await;
        }
        Ok::<bool, RegistryError>(false)
    };
    match asked.await {
        Ok(true) => finding("mount", need, Verdict::Yes, "blobs are mounted"),
        Ok(false) => {
            finding("mount", need, Verdict::No, "an upload is opened instead: layers are sent again")
        }
        Err(error) => finding("mount", need, Verdict::No, error.in_one_line()),
    }
}

async fn referrers(
    session: &Session,
    probe: Option<Digest>,
    known: Option<&KnownRegistry>,
    context: &Context,
) -> Finding {
    let need = "profiles beside images";
    let instead = "artifacts are listed under a tag (sha256-…) instead";
    let Some(probe) = probe else {
        return match known.and_then(|known| known.referrers) {
            Some(true) => finding("referrers", need, Verdict::Yes, "known of this registry"),
            Some(false) => {
                finding("referrers", need, Verdict::No, format!("known of this registry; {instead}"))
            }
            None => not_tried("referrers", need),
        };
    };
    let asked = async {
        let url = session.url(&format!("referrers/{probe}"), context).await?;
        let ask = Ask::new(Method::GET, url).scopes(session.pull_scopes());
        session.host().fetch(&ask, context).await
    };
    match asked.await {
        Ok((headers, _)) => {
            let is_index = headers
                .get("content-type")
                .and_then(|kind| kind.to_str().ok())
                .is_some_and(|kind| kind.starts_with("application/vnd.oci.image.index"));
            if is_index {
                finding("referrers", need, Verdict::Yes, "the referrers API answers")
            } else {
                finding("referrers", need, Verdict::No, format!("the answer is no index; {instead}"))
            }
        }
        Err(RegistryError::NotFound { .. }) => {
            finding("referrers", need, Verdict::No, format!("there is no referrers API; {instead}"))
        }
        Err(error) => finding("referrers", need, Verdict::No, format!("{}; {instead}", error.in_one_line())),
    }
}

async fn pieces(
    session: &Session,
    can_push: bool,
    known: Option<&KnownRegistry>,
    context: &Context,
) -> Finding {
    let need = "pushes through proxies that refuse long requests";
    if known.is_some_and(|known| known.whole_only) {
        return finding("pieces", need, Verdict::No, "known of this registry: blobs go in one request only");
    }
    if !can_push {
        return not_tried("pieces", need);
    }
    let most = known.and_then(|known| known.piece_max);
    let most = most.map(|bytes| format!("at most {bytes} bytes (known of this registry)"));
    match open_upload(session, context).await {
        Ok(Some(least)) => {
            let rules = [Some(format!("at least {least} bytes (it says)")), most];
            let rules: Vec<String> = rules.into_iter().flatten().collect();
            finding("pieces", need, Verdict::Yes, rules.join(", "))
        }
        Ok(None) => {
            let detail =
                most.unwrap_or_else(|| "no limit is stated; blobs go in one request first".to_owned());
            finding("pieces", need, Verdict::Unknown, detail)
        }
        Err(error) => finding("pieces", need, Verdict::No, error.in_one_line()),
    }
}

fn blob_size(known: Option<&KnownRegistry>) -> Finding {
    let need = "large shards";
    match known.and_then(|known| Some((known, known.blob_max?))) {
        Some((known, limit)) => {
            finding("blob size", need, Verdict::Yes, format!("{}: layers of {limit} bytes go", known.name))
        }
        None => finding("blob size", need, Verdict::Unknown, "no limit is known; the registry does not say"),
    }
}

/// Most registries let nobody remove blobs; then it lies there until unused blobs are collected.
async fn remove(session: &Session, probe: Digest, context: &Context) {
    let removed = async {
        let url = session.url(&format!("blobs/{probe}"), context).await?;
        let mut scopes = session.push_scopes();
        scopes.push(format!("repository:{}:delete", session.repository()));
        let ask = Ask::new(Method::DELETE, url).scopes(scopes);
        session.host().once(&ask, context).await.map_err(|failure| failure.error)
    };
    if let Err(error) = removed.await {
        tracing::info!("the probe stays until the registry collects unused blobs: {}", error.in_one_line());
    }
}
