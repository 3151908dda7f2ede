//! A request that failed: the error, and whether asking again can help. Must not perform requests.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use chrono::DateTime;
use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

use super::error::{Context, RegistryError};

/// Longest time in seconds that a server may tell us to wait. A longer one is a refusal.
pub(crate) const RETRY_AFTER_MAX: u64 = 600;

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: RegistryError,
    pub(super) retry: Retry,
    /// What the server answered, if it did.
    pub(super) answer: Option<Box<Refusal>>,
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body, or the start of a long one.
    pub(super) said: String,
}

/// Whether the same request can succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    Never,
    /// After a pause that we choose.
    Later,
    /// After the pause that the server asked for.
    After(Duration),
}

impl Failure {
    /// A failure that no repetition mends.
    pub(super) fn fatal(error: RegistryError) -> Self {
        Self { error, retry: Retry::Never, answer: None }
    }

    /// A failure that may be gone the next time.
    pub(super) fn passing(error: RegistryError) -> Self {
        Self { error, retry: Retry::Later, answer: None }
    }

    /// The failure that an answer means.
    pub(super) fn of_answer(context: &Context, refusal: Refusal) -> Self {
        let status = refusal.status.as_u16();
        let mut error = context.status(status, &refusal.said);
        let passes = matches!(status, 408 | 425 | 429 | 500 | 502..=504 | 507..=599);
        let retry = if passes { retry_after(&refusal.headers, SystemTime::now()) } else { Retry::Never };
        if passes && retry == Retry::Never {
            error.add(&format!("; it asks to wait for more than {RETRY_AFTER_MAX} s"));
        }
        Self { error, retry, answer: Some(Box::new(refusal)) }
    }

    /// The failure that an error of the HTTP client means: no connection, or one that broke.
    pub(super) fn of_client(context: &Context, error: reqwest::Error) -> Self {
        let for_good = error.is_builder() || is_about_trust(&error);
        let error = context.client(error);
        let for_good = for_good || matches!(error, RegistryError::PlainHttpServer { .. });
        Self { error, retry: if for_good { Retry::Never } else { Retry::Later }, answer: None }
    }

    /// The status that the server answered with.
    pub(super) fn status(&self) -> Option<u16> {
        self.answer.as_ref().map(|answer| answer.status.as_u16())
    }

    /// Whether the server says that a blob's bytes do not have its digest.
    pub(super) fn is_wrong_digest(&self) -> bool {
        let said = self.answer.as_ref().filter(|answer| answer.status.is_client_error());
        said.is_some_and(|answer| answer.said.contains("DIGEST_INVALID"))
    }
}

/// Whether a TLS handshake failed because one side does not trust the other: the next would fail as well.
pub(crate) fn is_about_trust(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        // The error of rustls is wrapped by io::Error and two HTTP libraries; its text is what all of them keep.
        let text = error.to_string();
        if text.contains("invalid peer certificate") || text.contains("received fatal alert") {
            return true;
        }
        next = error.source();
    }
    false
}

/// The pause that a server asks for: seconds, or a date.
///
/// Source: RFC 9110, section 10.2.3.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Retry {
    let Some(text) = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()) else {
        return Retry::Later;
    };
    let seconds = text.trim().parse::<u64>().ok().or_else(|| {
        let until = SystemTime::from(DateTime::parse_from_rfc2822(text.trim()).ok()?);
        // Dates have whole seconds: one more than is left of them is late enough.
        Some(until.duration_since(now).map_or(0, |left| left.as_secs() + u64::from(left.subsec_nanos() > 0)))
    });
    match seconds {
        Some(seconds) if seconds > RETRY_AFTER_MAX => Retry::Never,
        Some(seconds) => Retry::After(Duration::from_secs(seconds)),
        None => Retry::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        [(RETRY_AFTER, text.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn pauses() {
        let now = SystemTime::from(DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap());
        let of = |text| retry_after(&headers(text), now);
        assert_eq!(of("7"), Retry::After(Duration::from_secs(7)));
        assert_eq!(of("Thu, 01 Jan 2026 00:00:30 GMT"), Retry::After(Duration::from_secs(30)));
        assert_eq!(of("Thu, 01 Jan 2015 00:00:30 GMT"), Retry::After(Duration::ZERO));
        assert_eq!(of("86400"), Retry::Never);
        assert_eq!(of("soon"), Retry::Later);
        assert_eq!(retry_after(&HeaderMap::new(), now), Retry::Later);
    }
}
