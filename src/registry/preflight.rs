//! Finding out what a registry can do before anything is at stake. Must not know what images hold.

use std::{
    fmt, process,
    sync::{Arc, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use oci_client::Reference;
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE},
};
use serde::Serialize;

use super::{
    Registry,
    error::{Context, RegistryError},
    exchange::{Ask, location},
    failure::Retry,
    limits::{KnownRegistry, known_registry},
    pull::interval,
    session::Session,
    upload::cancel,
};
use crate::{
    blob::{BlobContent, MemoryBlob},
    digest::Digest,
};

/// Longest answer to a request for several ranges that is looked at, in bytes: the probe has 64.
const PARTS_MAX: usize = 4 << 10;
/// The several ranges that are asked for at once: first and last bytes. Both lie in what all probes have in common.
const RANGES: [(usize, usize); 2] = [(0, 3), (16, 19)];

/// The blob that is pushed to try things with, of 64 bytes. It is nobody else's, so that it can be removed: not even
/// another check's that runs on the repository at the same time, which would find its blob gone.
struct Probe {
    bytes: Vec<u8>,
    digest: Digest,
}

impl Probe {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        // In containers many processes have the same number, so the time tells them apart.
        let own = Digest::of(format!("{} {now}", process::id()).as_bytes());
        let bytes = format!("starcar registry check: a probe, to be removed. {:.16}", own.hex()).into_bytes();
        Self { digest: Digest::of(&bytes), bytes }
    }
}

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
    /// What was found, in the order in which it was tried. When no registry answers, nothing else is tried.
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
    let ask = Ask::new(Method::POST, session.url("blobs/uploads/", &context).await?)
        .scopes(session.push_scopes())
        .header(CONTENT_LENGTH, "0");
    let answer = session.host().send(&ask, &context).await?;
    let Some(url) = location(&ask.url, answer.headers()) else {
        return Err(context.protocol("it opens uploads and does not say where (no Location header)"));
    };
    cancel(session, &url, &context).await;
    Ok(())
}

/// Pushes something and reads a part of it, as nodes do. Returns what was found if it does not work.
pub(super) async fn check_for_nodes(
    registry: &Registry,
    session: &Session,
    reference: &Reference,
) -> Result<Option<Finding>, RegistryError> {
    let probe = Probe::new();
    let blob: Arc<dyn BlobContent> = Arc::new(MemoryBlob::new(probe.bytes.clone()));
    registry.push_probe(session, reference, &blob).await?;
    let context = session.context(reference, "read a range");
    let found = range(session, Some(&probe), &context).await;
    remove(session, &probe, &context).await;
    Ok(Some(found).filter(|found| found.verdict == Verdict::No))
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
        let found = |findings| Preflight {
            registry: session.registry().to_owned(),
            repository: session.repository().to_owned(),
            known: known.cloned(),
            findings,
        };
        let reached = reach(session, &context("reach the registry")).await?;
        let is_registry = reached.verdict == Verdict::Yes;
        let mut findings = vec![reached];
        if !is_registry {
            return Ok(found(findings));
        }
        findings.push(pull(session, &context("pull")).await?);
        let probe = Probe::new();
        let push = push(registry, session, reference, &probe).await;
        let probe = Some(&probe).filter(|_| push.verdict == Verdict::Yes);
        findings.push(push);
        findings.push(range(session, probe, &context("read a range")).await);
        findings.push(ranges(session, probe, known, &context("read several ranges")).await);
        findings.push(mount(session, probe, &context("mount a blob")).await);
        findings.push(referrers(session, probe, known, &context("list referrers")).await);
        findings.push(pieces(session, probe.is_some(), known));
        findings.push(blob_size(known));
        if let Some(probe) = probe {
            remove(session, probe, &context("remove a blob")).await;
        }
        Ok(found(findings))
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

/// Whether a registry answers, as opposed to a web server or the login page of a network.
async fn reach(session: &Session, context: &Context) -> Result<Finding, RegistryError> {
    let host = session.host();
    let mut tries = host.tries();
    let (answer, time) = loop {
        let url = host.url("", context).await?;
        let begun = Instant::now();
        // Without logging in: a registry shows itself by asking for that, too.
        match host.bare(&Ask::new(Method::GET, url), context).await {
            Ok(answer) => break ((answer.status(), answer.headers().clone()), begun.elapsed()),
            Err(mut failure) => match failure.answer.take() {
                Some(refusal) if failure.retry == Retry::Never => {
                    break ((refusal.status, refusal.headers), begun.elapsed());
                }
                _ => tries.wait(failure).await?,
            },
        }
    };
    let (status, headers) = answer;
    if let Some(instead) = no_registry(status, &headers) {
        let detail =
            format!("what answers at /v2/ is no registry: {instead}; look at the name and for a proxy");
        return Ok(finding("reach", "everything", Verdict::No, detail));
    }
    let detail = format!(
        "{}, answered in {} ms, {}",
        if host.is_https() { "https" } else { "http" },
        time.as_millis(),
        if host.is_anonymous() { "without credentials" } else { host.credentials() }
    );
    Ok(finding("reach", "everything", Verdict::Yes, detail))
}

/// What an answer to `/v2/` is when it is not a registry's.
///
/// Source: OCI distribution specification 1.1, "Determining Support": 200, or 401 where one has to log in. The header
/// is that of Docker's registries, which not all have.
fn no_registry(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_page = kind.trim_start().to_ascii_lowercase().starts_with("text/html");
    match status {
        _ if headers.contains_key("docker-distribution-api-version") => None,
        StatusCode::OK if is_page => Some("a web page comes".to_owned()),
        // Proxies that ask for a password before a registry do so with a page.
        StatusCode::OK | StatusCode::UNAUTHORIZED => None,
        status => Some(format!("HTTP {}", status.as_u16())),
    }
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

/// Whether blobs can be written.
async fn push(registry: &Registry, session: &Session, reference: &Reference, probe: &Probe) -> Finding {
    let blob: Arc<dyn BlobContent> = Arc::new(MemoryBlob::new(probe.bytes.clone()));
    match registry.push_probe(session, reference, &blob).await {
        Ok(()) => finding("push", "pushes", Verdict::Yes, "a blob was pushed"),
        Err(error) => finding("push", "pushes", Verdict::No, error.in_one_line()),
    }
}

async fn range(session: &Session, probe: Option<&Probe>, context: &Context) -> Finding {
    let need = "mounting without pulling";
    let Some(probe) = probe else { return not_tried("range", need) };
    match get(session, probe, "bytes=16-31", context).await {
        Ok((StatusCode::PARTIAL_CONTENT, _, bytes)) if Some(&*bytes) == probe.bytes.get(16..32) => {
            finding("range", need, Verdict::Yes, "a range is answered with its bytes")
        }
        Ok((StatusCode::PARTIAL_CONTENT, ..)) => {
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
    probe: Option<&Probe>,
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
    let asked = RANGES.map(|(first, last)| format!("{first}-{last}")).join(",");
    match get(session, probe, &format!("bytes={asked}"), context).await {
        Ok((StatusCode::PARTIAL_CONTENT, headers, bytes)) if bytes != probe.bytes => {
            if holds_ranges(&headers, &bytes, &probe.bytes) {
                finding("ranges", need, Verdict::Yes, "several ranges are answered at once")
            } else {
                let detail = format!("of several ranges not all come; {advice}");
                finding("ranges", need, Verdict::No, detail)
            }
        }
        Ok(_) => finding("ranges", need, Verdict::No, format!("the whole blob comes instead; {advice}")),
        Err(error) => finding("ranges", need, Verdict::No, format!("{}; {advice}", error.in_one_line())),
    }
}

/// Whether an answer to a request for several ranges has them all: each in a part of its own, or one part around them.
fn holds_ranges(headers: &HeaderMap, body: &[u8], probe: &[u8]) -> bool {
    let parts = parts(headers, body);
    RANGES.iter().all(|&(first, last)| {
        parts.iter().any(|&(start, bytes)| {
            let (Some(from), Some(to)) = (first.checked_sub(start), last.checked_sub(start)) else {
                return false;
            };
            bytes.get(from..=to).is_some_and(|bytes| probe.get(first..=last) == Some(bytes))
        })
    })
}

/// The parts of an answer to a request for ranges, and where in the blob each begins.
///
/// Source: RFC 9110, section 14.6.
fn parts<'a>(headers: &HeaderMap, body: &'a [u8]) -> Vec<(usize, &'a [u8])> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let part = |range: &str, bytes: &'a [u8]| {
        let (first, last) = interval(range)?;
        let length = usize::try_from(last.checked_sub(first)?).ok()?.checked_add(1)?;
        Some((usize::try_from(first).ok()?, bytes.get(..length)?))
    };
    let kind = text(CONTENT_TYPE);
    if !kind.to_ascii_lowercase().starts_with("multipart/byteranges") {
        return part(text(CONTENT_RANGE), body).into_iter().collect();
    }
    let boundary = kind.split_once("boundary=").and_then(|(_, rest)| rest.split(';').next());
    let Some(boundary) = boundary.map(|boundary| boundary.trim().trim_matches('"')) else {
        return Vec::new();
    };
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut rest = body.get(..PARTS_MAX).unwrap_or(body);
    while let Some((_, behind)) = split(rest, delimiter.as_bytes()) {
        rest = behind;
        let Some((head, bytes)) = split(rest, b"\r\n\r\n") else { break };
        let head = String::from_utf8_lossy(head);
        let ranges = head.lines().filter_map(|line| line.split_once(':'));
        let range = ranges.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("content-range"));
        parts.extend(range.and_then(|(_, range)| part(range, bytes)));
    }
    parts
}

/// What comes before and behind the first `separator`.
fn split<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((bytes.get(..at)?, bytes.get(at + separator.len()..)?))
}

async fn get(
    session: &Session,
    probe: &Probe,
    range: &str,
    context: &Context,
) -> Result<(StatusCode, HeaderMap, Vec<u8>), RegistryError> {
    let url = session.url(&format!("blobs/{}", probe.digest), context).await?;
    let ask = Ask::new(Method::GET, url).scopes(session.pull_scopes()).header(RANGE, range);
    let answer = session.host().send(&ask, context).await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let bytes = answer.bytes(context).await.map_err(|failure| failure.error)?;
    Ok((status, headers, bytes))
}

/// A repository may mount from itself, which shows whether the registry mounts at all.
async fn mount(session: &Session, probe: Option<&Probe>, context: &Context) -> Finding {
    let need = "sending layers once for several repositories";
    let Some(probe) = probe else { return not_tried("mount", need) };
    let asked = async {
        let mut url = session.url("blobs/uploads/", context).await?;
        url.query_pairs_mut()
            .append_pair("mount", &probe.digest.to_string())
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
    probe: Option<&Probe>,
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
        let url = session.url(&format!("referrers/{}", probe.digest), context).await?;
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

/// What is known of the shortest and longest pieces. The probe's upload has learnt what the registry says of it.
fn pieces(session: &Session, can_push: bool, known: Option<&KnownRegistry>) -> Finding {
    let need = "pushes through proxies that refuse long requests";
    if known.is_some_and(|known| known.whole_only) {
        return finding("pieces", need, Verdict::No, "known of this registry: blobs go in one request only");
    }
    if !can_push {
        return not_tried("pieces", need);
    }
    let known_min = known.and_then(|known| known.piece_min).unwrap_or(0);
    let least = session.host().habits.lock().unwrap_or_else(PoisonError::into_inner).piece_min();
    let least = match least.max(known_min) {
        0 => None,
        least if least > known_min => Some(format!("at least {least} bytes (it says)")),
        least => Some(format!("at least {least} bytes (known of this registry)")),
    };
    let most = known.and_then(|known| known.piece_max);
    let most = most.map(|bytes| format!("at most {bytes} bytes (known of this registry)"));
    let verdict = if least.is_some() { Verdict::Yes } else { Verdict::Unknown };
    let rules: Vec<String> = [least, most].into_iter().flatten().collect();
    if rules.is_empty() {
        return finding("pieces", need, verdict, "no limit is stated; blobs go in one request first");
    }
    finding("pieces", need, verdict, rules.join(", "))
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
async fn remove(session: &Session, probe: &Probe, context: &Context) {
    let removed = async {
        let url = session.url(&format!("blobs/{}", probe.digest), context).await?;
        let mut scopes = session.push_scopes();
        scopes.push(format!("repository:{}:delete", session.repository()));
        let ask = Ask::new(Method::DELETE, url).scopes(scopes);
        session.host().once(&ask, context).await.map_err(|failure| failure.error)
    };
    if let Err(error) = removed.await {
        tracing::info!("the probe stays until the registry collects unused blobs: {}", error.in_one_line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &'static str, range: &'static str) -> HeaderMap {
        let all = [(CONTENT_TYPE, kind), (CONTENT_RANGE, range)];
        all.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
    }

    #[test]
    fn probes_are_alike_and_never_the_same() {
        let (one, other) = (Probe::new(), Probe::new());
        assert_ne!(one.digest, other.digest);
        assert_eq!((one.bytes.len(), &one.bytes[..48]), (64, &other.bytes[..48]));
    }

    #[test]
    fn answers_to_several_ranges() {
        let probe = Probe::new().bytes;
        let single = "application/octet-stream";
        let holds = |kind, range, body: &[u8]| holds_ranges(&headers(kind, range), body, &probe);
        assert!(holds(single, "bytes 0-19/64", &probe[..20]));
        assert!(!holds(single, "bytes 0-3/64", &probe[..4]), "the first range alone");
        assert!(!holds(single, "bytes 16-19/64", &probe[16..20]));
        assert!(!holds(single, "bytes 0-19/64", &probe[..19]), "less than it says");
        assert!(!holds(single, "bytes 0-19/64", &probe[1..21]), "other bytes");
        assert!(!holds(single, "", &probe[..20]));

        let part = |range: &str, bytes: &[u8]| {
            let head = format!("\r\n--b\r\nContent-Type: x/y\r\ncontent-range: bytes {range}/64\r\n\r\n");
            [head.as_bytes(), bytes].concat()
        };
        let (first, second) = (part("0-3", &probe[..4]), part("16-19", &probe[16..20]));
        let end = b"\r\n--b--\r\n";
        for kind in ["multipart/byteranges; boundary=b", "Multipart/ByteRanges; boundary=\"b\"; x=y"] {
            assert!(holds(kind, "", &[&first[..], &second, end].concat()));
            assert!(holds(kind, "", &[&second[..], &first, end].concat()));
            assert!(!holds(kind, "", &[&first[..], end].concat()));
            assert!(!holds(kind, "", &[&first[..], &part("16-19", &probe[..4]), end].concat()));
            assert!(!holds(kind, "", b"\r\n--b"));
        }
        assert!(!holds("multipart/byteranges", "", &[&first[..], &second, end].concat()));
    }

    #[test]
    fn what_is_no_registry() {
        let said = |status: u16, kind| no_registry(StatusCode::from_u16(status).unwrap(), &headers(kind, ""));
        assert_eq!(said(200, "application/json"), None);
        assert_eq!(said(401, "text/html"), None);
        assert_eq!(said(200, "text/html; charset=utf-8").unwrap(), "a web page comes");
        assert_eq!(said(404, "application/json").unwrap(), "HTTP 404");
        let mut headers = headers("text/html", "");
        headers.insert("docker-distribution-api-version", "registry/2.0".parse().unwrap());
        assert_eq!(no_registry(StatusCode::NOT_FOUND, &headers), None);
    }
}
