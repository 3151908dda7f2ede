//! What can go wrong with a registry, said so that the reader can act. Translates the client library's
//! errors; must not perform requests.

use std::{error::Error, io, path::PathBuf};

use oci_client::{
    Reference,
    errors::{DigestError, OciDistributionError, OciEnvelope, OciErrorCode},
};

use crate::digest::Digest;

/// How much of a server's answer an error quotes, in characters. A proxy's HTML page helps nobody.
const QUOTE_LIMIT: usize = 300;

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
        /// HTTP status code; 400 stands for a client error whose exact code the library swallows.
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
    /// The connection could not be made, broke, or was no HTTP.
    #[error("cannot {action} ({reference}): the connection to {registry} failed")]
    Network {
        /// What was tried.
        action: Box<str>,
        /// The image.
        reference: Box<str>,
        /// The registry's host, with its port.
        registry: Box<str>,
        /// What the HTTP client said.
        source: Box<dyn Error + Send + Sync>,
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
    /// The bytes to push could not be read.
    #[error("cannot push blob {digest} ({reference}): its content could not be read")]
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
    pub(super) fn network(&self, source: Box<dyn Error + Send + Sync>) -> RegistryError {
        let Self { action, reference, registry, .. } = self.clone();
        if speaks_plain_text(source.as_ref()) {
            RegistryError::PlainHttpServer { action, reference, registry }
        } else {
            RegistryError::Network { action, reference, registry, source }
        }
    }

    /// Translates an error of the client library.
    pub(super) fn translate(&self, error: OciDistributionError) -> RegistryError {
        match error {
            OciDistributionError::RequestError(error) => match error.status() {
                Some(status) => self.status(status.as_u16(), ""),
                // A redirect to an object store carries a signature in its query: keep URLs out.
                None => self.network(Box::new(error.without_url())),
            },
            OciDistributionError::UnauthorizedError { .. } => self.status(401, ""),
            OciDistributionError::AuthenticationFailure(said) => self.status(401, &said),
            OciDistributionError::ServerError { code, message, .. } => self.status(code, &message),
            OciDistributionError::RegistryError { envelope, .. } => {
                let status = envelope.errors.first().map_or(400, |error| status_of(&error.code));
                self.status(status, &said_by(&envelope))
            }
            OciDistributionError::DigestError(DigestError::VerificationError { expected, actual }) => {
                self.digest_mismatch(expected, actual)
            }
            OciDistributionError::IoError(error) => self.io(error),
            other => self.protocol(other.to_string()),
        }
    }

    /// Translates an error of a body that was being received.
    pub(super) fn io(&self, error: io::Error) -> RegistryError {
        if let Some(DigestError::VerificationError { expected, actual }) =
            error.get_ref().and_then(|inner| inner.downcast_ref())
        {
            return self.digest_mismatch(expected, actual);
        }
        match error.downcast::<OciDistributionError>() {
            Ok(error) => self.translate(error),
            Err(error) => self.network(Box::new(Plain(cause_chain(&error)))),
        }
    }
}

/// A cause whose texts were collected, without the URLs that its parts quote.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Plain(String);

/// All causes of an error, outermost first, without URLs (their query may hold a signature).
fn cause_chain(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = without_url(&error.to_string());
        if !texts.last().is_some_and(|last| last.contains(&text)) {
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

/// Whether a TLS handshake failed because the peer does not speak TLS.
fn speaks_plain_text(error: &(dyn Error + 'static)) -> bool {
    // rustls reports the first byte of an HTTP answer as a record of unknown type. The error is wrapped
    // by io::Error and two HTTP libraries, so its text is the one thing all of them keep.
    let mut next = Some(error);
    while let Some(error) = next {
        if error.to_string().contains("InvalidContentType") {
            return true;
        }
        next = error.source();
    }
    false
}

/// The HTTP status that goes with an error code; the library drops the one that was sent.
fn status_of(code: &OciErrorCode) -> u16 {
    match code {
        OciErrorCode::Unauthorized => 401,
        OciErrorCode::Denied => 403,
        OciErrorCode::BlobUnknown
        | OciErrorCode::BlobUploadUnknown
        | OciErrorCode::ManifestUnknown
        | OciErrorCode::NameUnknown
        | OciErrorCode::NotFound => 404,
        OciErrorCode::Toomanyrequests => 429,
        _ => 400,
    }
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
