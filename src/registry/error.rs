//! What can go wrong with a registry, said so that the reader can act. Translates the client library's
//! errors; must not perform requests.

use std::{error::Error, io, path::PathBuf, time::Duration};

use oci_client::{
    Reference,
    errors::{OciEnvelope, OciErrorCode},
};

use crate::digest::Digest;

/// How much of a server's answer an error quotes, in characters. A proxy's HTML page helps nobody.
const QUOTE_LIMIT: usize = 200;

/// A failed conversation with a registry.
///
/// `action` in the variants is a verb phrase such as `pull manifest v1`; `reference` is the image in
/// full. Messages never contain secrets: URLs are quoted without their query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry wants other credentials (HTTP 401, or the token service refused).
    #[error(
        "cannot {action} ({reference}): {registry} refused {credentials}{message}; \
         log in with `podman login {registry}` or `docker login {registry}`, or name a file with --authfile"
    )]
    Unauthorized {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// The registry's host, with its port.
        registry: Box<str>,
        /// Where the refused credentials come from.
        credentials: Box<str>,
        /// What the registry said, led by `: `; empty if it said nothing.
        message: String,
    },
    /// The credentials are known but do not allow this (HTTP 403).
    #[error(
        "cannot {action} ({reference}): {registry} does not allow it with {credentials}{message}; \
         the account may lack the permission, or the repository may not exist"
    )]
    Denied {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// The registry's host, with its port.
        registry: Box<str>,
        /// Where the credentials come from.
        credentials: Box<str>,
        /// What the registry said, led by `: `; empty if it said nothing.
        message: String,
    },
    /// The registry has no such repository, manifest or blob (HTTP 404).
    #[error("cannot {action} ({reference}): not found{message}")]
    NotFound {
        /// What was tried; names the manifest or blob.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// What the registry said, led by `: `; empty if it said nothing.
        message: String,
    },
    /// The registry wants fewer requests (HTTP 429).
    #[error(
        "cannot {action} ({reference}): the registry limits the rate of requests{message}; try again later"
    )]
    RateLimited {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// What the registry said, led by `: `; empty if it said nothing.
        message: String,
    },
    /// Any other answer that is no success.
    #[error("cannot {action} ({reference}): the registry answered HTTP {status}{message}")]
    Server {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// HTTP status code.
        status: u16,
        /// What the registry said, led by `: `; empty if it said nothing.
        message: String,
    },
    /// Bytes that do not have the digest they were asked for by.
    #[error(
        "cannot {action} ({reference}): expected digest {expected}, got {actual}; the registry or something before it serves wrong bytes"
    )]
    DigestMismatch {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// The digest that was asked for.
        expected: String,
        /// The digest of what came.
        actual: String,
    },
    /// A tag that was set and names another manifest right after that.
    #[error(
        "cannot {action} ({reference}): {digest} is stored, but the tag names {found} now; somebody else has moved it \
         meanwhile, or the registry shows an old state of it"
    )]
    TagMoved {
        /// What was tried; names the tag.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// The digest of the manifest that it was set to.
        digest: Box<str>,
        /// The digest of the manifest that it names.
        found: Box<str>,
    },
    /// A blob that is not as long as its descriptor says.
    #[error("cannot {action} ({reference}): expected {expected} bytes, got {}{actual}", if *.at_least { "at least " } else { "" })]
    SizeMismatch {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// Size of the descriptor, in bytes.
        expected: u64,
        /// Size of what came, in bytes.
        actual: u64,
        /// Whether reading stopped at `actual` bytes because more came than expected.
        at_least: bool,
    },
    /// The server answered a TLS handshake in plain text.
    #[error(
        "cannot {action} ({reference}): {registry} speaks plain HTTP, not HTTPS; if that is intended, pass --plain-http"
    )]
    PlainHttpServer {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// The registry's host, with its port.
        registry: Box<str>,
    },
    /// The server's certificate is not trusted.
    #[error(
        "cannot {action} ({reference}): {registry} is not trusted: {cause}; \
         name its certificate authority with --ca-file, or look who answers there"
    )]
    Untrusted {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// The registry's host, with its port.
        registry: Box<str>,
        /// What is wrong with the certificate.
        cause: String,
    },
    /// A server that moves nothing for too long.
    #[error("cannot {action} ({reference}): nothing came from or went to {registry} for {seconds} s")]
    Stalled {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// The registry's host, with its port.
        registry: Box<str>,
        /// How long was waited, in seconds.
        seconds: f64,
    },
    /// The connection could not be made, broke, or was no HTTP.
    #[error("cannot {action} ({reference}): the connection to {registry} failed: {cause}")]
    Network {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// The registry's host, with its port.
        registry: Box<str>,
        /// What the HTTP client said.
        cause: String,
    },
    /// The registry's answer breaks the distribution specification.
    #[error("cannot {action} ({reference}): {message}")]
    Protocol {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// What is wrong with the answer.
        message: String,
    },
    /// The registry, or a proxy before it, refuses requests of any length that works (HTTP 413).
    #[error(
        "cannot push blob {digest} ({reference}): {registry} refuses a request of {body} bytes as too long (HTTP 413){}; \
         raise the limit for request bodies of the registry or of the proxy before it", limits(*.size, *.piece_min)
    )]
    TooLarge {
        /// The image.
        reference: Box<str>,
        /// The registry's host, with its port.
        registry: Box<str>,
        /// The blob.
        digest: Digest,
        /// Size of the blob, in bytes.
        size: u64,
        /// Length of the shortest request that was refused, in bytes.
        body: u64,
        /// Shortest pieces that the registry says it takes, in bytes; 0 when it does not say.
        piece_min: u64,
    },
    /// A manifest that refers to another was stored, and nothing lists it.
    #[error(
        "{artifact} was stored, but nobody will find it ({reference}): the registry has no API for referrers, and the \
         index {tag} that stands in for it cannot be written"
    )]
    NotListed {
        /// The image.
        reference: Box<str>,
        /// The manifest that refers to it.
        artifact: Digest,
        /// Tag of the index.
        tag: String,
        /// Why it cannot be written.
        #[source]
        source: Box<RegistryError>,
    },
    /// The bytes to push could not be read.
    #[error("cannot push blob {digest} ({reference}): its content cannot be had from its sources")]
    Source {
        /// The image.
        reference: Box<str>,
        /// The blob.
        digest: Digest,
        /// The reader's own error; names the file where there is one.
        source: io::Error,
    },
    /// The pulled bytes could not be written.
    #[error("cannot write blob {digest} ({reference})")]
    Sink {
        /// The image.
        reference: Box<str>,
        /// The blob.
        digest: Digest,
        /// The sink's own error.
        source: io::Error,
    },
    /// The server sends the whole blob when asked for a range, and the range lies too far in to skip to.
    #[error(
        "cannot read bytes {offset}-{} of blob {digest} ({reference}): the registry ignores Range requests; pull the image first",
        offset.saturating_add(*length as u64).saturating_sub(1)
    )]
    RangeIgnored {
        /// The image.
        reference: Box<str>,
        /// The blob.
        digest: Digest,
        /// Start of the range, in bytes.
        offset: u64,
        /// Length of the range, in bytes.
        length: usize,
    },
    /// An auth file that is missing though it was named, cannot be read, or makes no sense.
    #[error("auth file {}: {message}", path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it. Never quotes its content.
        message: String,
    },
    /// A docker credential helper failed.
    #[error("credential helper docker-credential-{helper} (named in {}) failed for {registry}: {message}", path.display())]
    CredentialHelper {
        /// The helper's name, without `docker-credential-`.
        helper: String,
        /// The file that names the helper.
        path: PathBuf,
        /// The registry that it was asked about.
        registry: String,
        /// What it said.
        message: String,
    },
    /// A file of certificates that cannot be used.
    #[error("{}: {message}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The HTTP client could not be set up.
    #[error("cannot set up the registry client: {message}")]
    Setup {
        /// Why.
        message: String,
    },
    /// A defect of this program or of its client library.
    #[error("internal error while talking to a registry: {message}")]
    Internal {
        /// What is known.
        message: String,
    },
}

/// What else there is to say of a blob that is too large.
fn limits(size: u64, piece_min: u64) -> String {
    match piece_min {
        0 => format!(", in pieces as well (the blob has {size})"),
        minimum => format!(", and takes no pieces of less than {minimum} (the blob has {size})"),
    }
}

impl RegistryError {
    /// Adds to what the server said.
    pub(super) fn add(&mut self, words: &str) {
        if let Self::RateLimited { message, .. } | Self::Server { message, .. } = self {
            message.push_str(words);
        }
    }

    /// The message without advice, for a line of a log.
    pub(super) fn in_one_line(&self) -> String {
        let text = self.to_string();
        text.split("; ").next().unwrap_or_default().to_owned()
    }
}

/// What an error has to tell besides its cause.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) action: Box<str>,
    pub(super) reference: Box<str>,
    pub(super) registry: Box<str>,
    /// Description of the credentials in use.
    pub(super) credentials: Box<str>,
}

impl Context {
    pub(super) fn new(reference: &Reference, credentials: &str, action: impl Into<Box<str>>) -> Self {
        Self {
            action: action.into(),
            reference: reference.whole().into(),
            registry: reference.resolve_registry().into(),
            credentials: credentials.into(),
        }
    }

    /// The error for an HTTP status that is no success.
    pub(super) fn status(&self, status: u16, said: &str) -> RegistryError {
        let message = quote(said);
        let Self { action, reference, registry, credentials } = self.clone();
        match status {
            401 => RegistryError::Unauthorized { action, reference, registry, credentials, message },
            403 => RegistryError::Denied { action, reference, registry, credentials, message },
            404 => RegistryError::NotFound { action, reference, message },
            429 => RegistryError::RateLimited { action, reference, message },
            _ => RegistryError::Server { action, reference, status, message },
        }
    }

    /// The error for an answer that breaks the specification.
    pub(super) fn protocol(&self, message: impl Into<String>) -> RegistryError {
        RegistryError::Protocol {
            action: self.action.clone(),
            reference: self.reference.clone(),
            message: message.into(),
        }
    }

    /// The error for bytes with another digest than `expected`.
    pub(super) fn digest_mismatch(
        &self,
        expected: impl Into<String>,
        actual: impl Into<String>,
    ) -> RegistryError {
        RegistryError::DigestMismatch {
            action: self.action.clone(),
            reference: self.reference.clone(),
            expected: expected.into(),
            actual: actual.into(),
        }
    }

    /// The error for a tag that was set to `digest` and names `found`.
    pub(super) fn tag_moved(&self, digest: Digest, found: Digest) -> RegistryError {
        let Self { action, reference, .. } = self.clone();
        let [digest, found] = [digest, found].map(|digest| digest.to_string().into());
        RegistryError::TagMoved { action, reference, digest, found }
    }

    /// The error for a blob of another size than `expected`.
    pub(super) fn size_mismatch(&self, expected: u64, actual: u64) -> RegistryError {
        RegistryError::SizeMismatch {
            action: self.action.clone(),
            reference: self.reference.clone(),
            expected,
            actual,
            at_least: actual > expected,
        }
    }

    /// The error for a connection that failed with `source`.
    fn network(&self, source: &(dyn Error + 'static)) -> RegistryError {
        let Self { action, reference, registry, .. } = self.clone();
        let cause = cause(source);
        if cause.contains("InvalidContentType") {
            RegistryError::PlainHttpServer { action, reference, registry }
        } else if cause.contains("CaUsedAsEndEntity") {
            let cause = "it shows an authority's certificate as its own, which TLS does not allow; \
                         make one with basicConstraints=CA:FALSE";
            RegistryError::Network { action, reference, registry, cause: cause.to_owned() }
        } else if cause.contains("invalid peer certificate") {
            RegistryError::Untrusted { action, reference, registry, cause }
        } else if cause.contains("tunnel error") {
            let cause =
                format!("the proxy that HTTPS_PROXY or ALL_PROXY names does not let it through: {cause}");
            RegistryError::Network { action, reference, registry, cause }
        } else if cause.contains("CertificateRequired") {
            let cause = format!("it wants a certificate of the client; name one with --client-cert: {cause}");
            RegistryError::Network { action, reference, registry, cause }
        } else {
            RegistryError::Network { action, reference, registry, cause }
        }
    }

    /// Compares a blob's size with what the registry says of it, if it says anything.
    pub(super) fn check_size(&self, expected: u64, actual: Option<u64>) -> Result<(), RegistryError> {
        match actual.filter(|actual| *actual != expected) {
            None => Ok(()),
            Some(actual) => Err(self.size_mismatch(expected, actual)),
        }
    }

    /// The error for a blob that the registry takes in no way, because of its length.
    pub(super) fn too_large(&self, digest: Digest, size: u64, body: u64, piece_min: u64) -> RegistryError {
        RegistryError::TooLarge {
            reference: self.reference.clone(),
            registry: self.registry.clone(),
            digest,
            size,
            body,
            piece_min,
        }
    }

    /// The error for a server that moves nothing for `limit`.
    pub(super) fn stalled(&self, limit: Duration) -> RegistryError {
        let Self { action, reference, registry, .. } = self.clone();
        RegistryError::Stalled { action, reference, registry, seconds: limit.as_secs_f64() }
    }

    /// The error for one of the HTTP client.
    pub(super) fn client(&self, error: reqwest::Error) -> RegistryError {
        // A redirect to an object store carries a signature in its query: keep URLs out.
        self.network(&error.without_url())
    }

    /// The same, of a request to a token service.
    pub(super) fn at_token_service(&self, service: &str) -> Self {
        let action = format!("{}, for which {service} is asked for a token", self.action);
        Self { action: action.into(), ..self.clone() }
    }

    /// The same, of a request to another host that the registry names.
    pub(super) fn at_host(&self, host: &str) -> Self {
        Self {
            registry: host.into(),
            credentials: format!("a request without a login, to which {} referred", self.registry).into(),
            ..self.clone()
        }
    }
}

/// The innermost causes of an error of the HTTP client, whose own layers say nothing (`error sending request`, `client
/// error (Connect)`); without URLs, whose query may hold a signature.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = without_url(&error.to_string());
        let says_nothing = text.starts_with("client error (") || text == "error sending request";
        if !says_nothing && !texts.last().is_some_and(|last| last.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

/// Cuts ` for url (…)`, as the HTTP client writes it, from a text.
fn without_url(text: &str) -> String {
    text.split(" for url (").next().unwrap_or_default().to_owned()
}

/// Codes and messages of all errors of an answer.
fn said_by(envelope: &OciEnvelope) -> String {
    let parts: Vec<String> = envelope
        .errors
        .iter()
        .map(|error| format!("{} {}", code_name(&error.code), error.message).trim().to_owned())
        .collect();
    parts.join("; ")
}

/// An error code as registries write it.
fn code_name(code: &OciErrorCode) -> String {
    serde_json::to_value(code).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// `: ` and what a server said, in one short line; empty if it said nothing.
fn quote(said: &str) -> String {
    // An error envelope says more in fewer words than its JSON.
    let said =
        serde_json::from_str::<OciEnvelope>(said).map_or_else(|_| said.to_owned(), |all| said_by(&all));
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    // Control characters could play with the reader's terminal.
    let line: String = line.chars().filter(|char| !char.is_control()).collect();
    match line.char_indices().nth(QUOTE_LIMIT) {
        None if line.is_empty() => String::new(),
        None => format!(": {line}"),
        Some((end, _)) => format!(": {}…", line.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_short_single_lines() {
        assert_eq!(quote(" \n"), "");
        assert_eq!(quote("no\n such\u{1b}[31m thing"), ": no such[31m thing");
        assert_eq!(
            quote(r#"{"errors":[{"code":"DENIED","message":"go away","detail":{}}]}"#),
            ": DENIED go away"
        );
        assert_eq!(quote(&"ä".repeat(1000)).chars().count(), QUOTE_LIMIT + 3);
    }

    #[test]
    fn urls_are_cut() {
        assert_eq!(
            without_url("error decoding body for url (https://s3/?X-Sig=secret)"),
            "error decoding body"
        );
    }
}
