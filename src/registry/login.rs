//! Proving who asks: a registry's challenges, the token service, tokens and when they end. Must not know what
//! is asked for; never prints a secret.
//!
//! Sources: RFC 7235 and 7617; distribution's "Token Authentication Specification" and "`OAuth2` Token
//! Authentication".

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Method, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use super::{
    credentials::{Credential, Found},
    error::Context,
    exchange::{Ask, Body, Host},
    failure::Failure,
    transport::{authority, is_loopback},
};

/// The user name that goes with an identity token without one; Azure's registries, which hand out nearly
/// all such tokens, expect it.
const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";
/// Life of a token whose service does not say, in seconds (distribution's specification).
const LIFE_DEFAULT: u64 = 60;
/// A token is renewed when less than this is left of its life, or a fifth of it if that is less: a request must
/// arrive while it is good.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// What one credential needs to log in to one registry.
pub(super) struct Login {
    found: Found,
    state: Mutex<State>,
    /// What the token service said, by what was asked for. Held while it is asked, so that requests side by side
    /// share the answer.
    tokens: tokio::sync::Mutex<HashMap<Vec<String>, Grant>>,
    /// Held by the request that shows name and password first: if they are wrong, one request has to find out.
    first: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    /// What the registry wants to be asked for, by what we would ask for.
    scopes: HashMap<Vec<String>, Vec<String>>,
    /// What was said when the credentials were refused: they are not shown again, as accounts are locked after some
    /// failures.
    refused: Option<String>,
    /// Whether the registry took name and password: what it refuses after that, it refuses for another reason.
    accepted: bool,
}

/// How a registry wants to be logged in to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// What the token service says to a list of scopes.
enum Grant {
    Token(Token),
    /// No, with these words. It is not asked again.
    Refused(String),
}

struct Token {
    header: HeaderValue,
    renew: Instant,
}

/// How a request shows who asks.
pub(super) struct Proof<'a> {
    pub(super) header: Option<HeaderValue>,
    /// Makes others wait while it is not known whether name and password are right.
    _first: Option<tokio::sync::MutexGuard<'a, ()>>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    /// A number, in most services.
    expires_in: Option<serde_json::Value>,
}

impl Login {
    pub(super) fn new(found: Found) -> Self {
        Self {
            found,
            state: Mutex::default(),
            tokens: tokio::sync::Mutex::default(),
            first: tokio::sync::Mutex::default(),
        }
    }

    /// Where the credentials come from, for messages.
    pub(super) fn origin(&self) -> &str {
        &self.found.origin
    }

    /// Whether there are no credentials to show.
    pub(super) fn is_anonymous(&self) -> bool {
        self.found.credential == Credential::Anonymous
    }

    /// Takes out of a server's words what was shown to it, in `headers` or in a body.
    pub(super) fn mask<'a>(&self, said: &mut String, headers: impl Iterator<Item = &'a HeaderValue>) {
        let pair = |user: &str, secret: &str| STANDARD.encode(format!("{user}:{secret}"));
        let mut secrets = match &self.found.credential {
            Credential::Anonymous => Vec::new(),
            Credential::Password(user, password) => vec![password.clone(), pair(user, password)],
            Credential::IdentityToken(_, token) => vec![token.clone()],
        };
        secrets.extend(headers.filter_map(|header| {
            let (_, secret) = header.to_str().ok()?.split_once(' ')?;
            Some(secret.to_owned())
        }));
        // The longest first: one can be a part of another. What is shorter than a word would tear words apart.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in secrets.iter().filter(|secret| secret.len() >= 4) {
            if said.contains(secret.as_str()) {
                *said = said.replace(secret.as_str(), "…");
            }
        }
    }

    /// Learns from an answer how to log in for `scopes`. Returns whether a way to log in is known then.
    pub(super) fn learn(&self, headers: &HeaderMap, scopes: &[String]) -> bool {
        let Some((challenge, scope)) = parse(headers) else { return self.state().challenge.is_some() };
        let mut state = self.state();
        state.challenge = Some(challenge);
        let wanted: Vec<String> =
            scope.iter().flat_map(|scope| scope.split_whitespace()).map(str::to_owned).collect();
        if !scopes.is_empty() && !wanted.is_empty() {
            state.scopes.insert(scopes.to_owned(), wanted);
        }
        true
    }

    /// Takes note that a request with `proof`, or without one, was refused. Returns whether the next would show
    /// something else: a token that others renewed meanwhile is as good as one that is yet to be fetched.
    pub(super) async fn refused(&self, proof: Option<&HeaderValue>, said: &str) -> bool {
        let challenge = self.state().challenge.clone();
        match (challenge, proof) {
            (None, _) => false,
            (Some(Challenge::Basic), None) => !self.is_anonymous(),
            (Some(Challenge::Basic), Some(_)) => {
                let mut state = self.state();
                if !state.accepted {
                    state.refused = Some(said.to_owned());
                }
                false
            }
            (Some(Challenge::Bearer { .. }), proof) => {
                if let Some(proof) = proof {
                    let is_it = |grant: &Grant| matches!(grant, Grant::Token(token) if token.header == proof);
                    self.tokens.lock().await.retain(|_, grant| !is_it(grant));
                }
                true
            }
        }
    }

    /// The request that showed name and password was not refused for them.
    pub(super) fn accepted(&self) {
        self.state().accepted = true;
    }

    /// What proves who asks for `scopes`; no header where nobody has to or nothing is there to do it with.
    /// `can_repeat` is whether the request may be made once to hear which scopes the registry names for it.
    pub(super) async fn proof(
        &self,
        host: &Host,
        scopes: &[String],
        can_repeat: bool,
        context: &Context,
    ) -> Result<Proof<'_>, Failure> {
        let (challenge, wanted, accepted) = {
            let state = self.state();
            let own = state.scopes.get(scopes).cloned();
            // A registry that names scopes of its own is asked for them first.
            let unknown = own.is_none() && !state.scopes.is_empty() && can_repeat;
            let challenge = state.challenge.clone().filter(|_| !unknown);
            (challenge, own.unwrap_or_else(|| scopes.to_owned()), state.accepted)
        };
        let with = |header| Proof { header, _first: None };
        match challenge {
            None => Ok(with(None)),
            Some(Challenge::Basic) => {
                let first =
                    if accepted || self.is_anonymous() { None } else { Some(self.first.lock().await) };
                self.check_refused(context)?;
                // Others may have found out while this one waited.
                let first = first.filter(|_| !self.state().accepted);
                Ok(Proof { header: self.basic(), _first: first })
            }
            Some(Challenge::Bearer { realm, service }) => {
                let mut tokens = self.tokens.lock().await;
                self.check_refused(context)?;
                match tokens.get(&wanted) {
                    Some(Grant::Token(token)) if token.renew > Instant::now() => {
                        return Ok(with(Some(token.header.clone())));
                    }
                    Some(Grant::Refused(said)) => return Err(Failure::fatal(context.status(401, said))),
                    _ => {}
                }
                match self.fetch(host, &realm, service.as_deref(), &wanted, context).await {
                    Ok(token) => {
                        let header = token.header.clone();
                        tokens.insert(wanted, Grant::Token(token));
                        Ok(with(Some(header)))
                    }
                    Err(mut failure) => {
                        // Whoever asked must not take this answer for the registry's.
                        if let Some(answer) = failure.answer.take()
                            && is_refusal(answer.status)
                        {
                            tokens.insert(wanted, Grant::Refused(answer.said));
                        }
                        Err(failure)
                    }
                }
            }
        }
    }

    /// Whether the credentials were refused, as opposed to not being enough for something.
    pub(super) fn is_refused(&self) -> bool {
        self.state().refused.is_some()
    }

    fn check_refused(&self, context: &Context) -> Result<(), Failure> {
        match &self.state().refused {
            None => Ok(()),
            Some(said) => Err(Failure::fatal(context.status(401, said))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn basic(&self) -> Option<HeaderValue> {
        let (user, secret) = match &self.found.credential {
            Credential::Anonymous => return None,
            Credential::Password(user, password) => (user.as_str(), password),
            Credential::IdentityToken(user, token) => (user.as_deref().unwrap_or(TOKEN_USER), token),
        };
        secret_header(&format!("Basic {}", STANDARD.encode(format!("{user}:{secret}"))))
    }

    async fn fetch(
        &self,
        host: &Host,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
        context: &Context,
    ) -> Result<Token, Failure> {
        let protocol = |message: String| Failure::fatal(context.protocol(message));
        let realm: Url = realm
            .parse()
            .ok()
            .filter(|url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                // Anything may stand there, at any length.
                let start: String = realm.chars().take(100).collect();
                protocol(format!(
                    "the registry names the token service `{}` (the realm of its Bearer challenge), which is no URL of \
                     http or https",
                    start.escape_debug()
                ))
            })?;
        let has_secret = !self.is_anonymous();
        if has_secret && host.is_https() && realm.scheme() != "https" {
            let name = realm.host_str().unwrap_or_default();
            if !is_loopback(name) {
                return Err(protocol(format!(
                    "its token service {name} is reached by plain HTTP, which would show the credentials to anybody"
                )));
            }
        }
        let begun = Instant::now();
        let answer = match &self.found.credential {
            Credential::IdentityToken(_, token) => {
                match self.post(host, &realm, service, scopes, token, context).await {
                    // Services without OAuth2 take the token as a password.
                    Err(failure) if matches!(failure.status(), Some(400..=405 | 501)) => {
                        self.get(host, realm, service, scopes, context).await
                    }
                    answer => answer,
                }
            }
            _ => self.get(host, realm, service, scopes, context).await,
        };
        let answer = answer.inspect_err(|failure| {
            let refusal = failure.answer.as_ref().filter(|answer| answer.status == StatusCode::UNAUTHORIZED);
            let mut state = self.state();
            if let Some(refusal) = refusal.filter(|_| has_secret && !state.accepted) {
                state.refused = Some(refusal.said.clone());
            }
        })?;
        self.accepted();
        // The body may hold a token; its parser's message could quote it.
        let answer: TokenAnswer = serde_json::from_slice(&answer)
            .map_err(|_| protocol("the token service's answer is no JSON with a token".to_owned()))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| protocol("the token service sent no token".to_owned()))?;
        let header = secret_header(&format!("Bearer {token}"))
            .ok_or_else(|| protocol("the token service's token holds forbidden characters".to_owned()))?;
        let life = answer.expires_in.as_ref().and_then(seconds).unwrap_or(LIFE_DEFAULT);
        let life = Duration::from_secs(life.clamp(1, 86_400));
        let good_for = life.saturating_sub(RENEW_BEFORE.min(life / 5));
        Ok(Token { header, renew: begun + good_for })
    }

    async fn get(
        &self,
        host: &Host,
        mut realm: Url,
        service: Option<&str>,
        scopes: &[String],
        context: &Context,
    ) -> Result<Vec<u8>, Failure> {
        {
            let mut query = realm.query_pairs_mut();
            query.extend_pairs(service.map(|service| ("service", service)));
            query.extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
            if let Credential::Password(user, _) = &self.found.credential {
                query.append_pair("account", user);
            }
        }
        let mut ask = Ask::new(Method::GET, realm);
        if let Some(header) = self.basic() {
            ask.headers.insert(reqwest::header::AUTHORIZATION, header);
        }
        self.ask(host, ask, context).await
    }

    async fn post(
        &self,
        host: &Host,
        realm: &Url,
        service: Option<&str>,
        scopes: &[String],
        token: &str,
        context: &Context,
    ) -> Result<Vec<u8>, Failure> {
        let scope = scopes.join(" ");
        let form = reqwest::Url::parse_with_params(
            "http://form/",
            [
                ("grant_type", "refresh_token"),
                ("client_id", "starcar"),
                ("service", service.unwrap_or_default()),
                ("scope", &scope),
                ("refresh_token", token),
            ],
        );
        let form = form.map_err(|error| Failure::fatal(context.protocol(error.to_string())))?;
        let mut ask = Ask::new(Method::POST, realm.clone());
        ask.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        ask.body = Body::Secret(form.query().unwrap_or_default().to_owned().into());
        self.ask(host, ask, context).await
    }

    async fn ask(&self, host: &Host, ask: Ask, context: &Context) -> Result<Vec<u8>, Failure> {
        let service = authority(&ask.url);
        let context = context.at_token_service(&service);
        match host.bare(&ask, &context.at_host(&service)).await {
            Ok(answer) => answer.bytes(&context).await,
            Err(mut failure) => {
                // A token service that says no says it of the credentials, whatever it calls it.
                match &failure.answer {
                    Some(answer) if is_refusal(answer.status) => {
                        failure.error = context.status(401, &answer.said);
                    }
                    // Not found is the token service, and not what was to be asked for.
                    Some(answer) if answer.status == StatusCode::NOT_FOUND => {
                        failure.error =
                            context.protocol("there is no token service at that address (HTTP 404)");
                    }
                    _ => {}
                }
                Err(failure)
            }
        }
    }
}

/// Whether a token service means that whoever asks gets no token.
fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST)
}

/// The seconds that a token service wrote as a number or, as some do, as text.
fn seconds(value: &serde_json::Value) -> Option<u64> {
    let seconds = value.as_str().map_or_else(|| value.as_f64(), |text| text.trim().parse().ok())?;
    Duration::try_from_secs_f64(seconds.clamp(0.0, 86_400.0)).ok().map(|life| life.as_secs())
}

/// A header value that is kept out of debug output; `None` if it holds characters that headers may not have.
fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The challenge that we can meet, and the scope that it names. Bearer is preferred.
fn parse(headers: &HeaderMap) -> Option<(Challenge, Option<String>)> {
    let mut basic = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(challenges) = value.to_str().map(http_auth::parse_challenges) else { continue };
        for challenge in challenges.unwrap_or_default() {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                let challenge = Challenge::Bearer { realm, service: parameter("service") };
                return Some((challenge, parameter("scope")));
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some((Challenge::Basic, None));
            }
        }
    }
    basic
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<(Challenge, Option<String>)> {
        parse(&values.iter().map(|value| (WWW_AUTHENTICATE, value.parse().unwrap())).collect())
    }

    #[test]
    fn challenges() {
        let bearer = |service: Option<&str>| Challenge::Bearer {
            realm: "https://auth.example.com/token".into(),
            service: service.map(str::to_owned),
        };
        let full = "Bearer realm=\"https://auth.example.com/token\",service=\"r, 1\",scope=\"repository:a/b:pull,push\"";
        assert_eq!(of(&[full]), Some((bearer(Some("r, 1")), Some("repository:a/b:pull,push".into()))));
        assert_eq!(of(&["bearer realm=https://auth.example.com/token"]), None, "a URL needs quotes");
        assert_eq!(of(&["BEARER realm=\"https://auth.example.com/token\""]), Some((bearer(None), None)));
        assert_eq!(
            of(&["Basic realm=\"x\", Bearer realm=\"https://auth.example.com/token\""]).unwrap().0,
            bearer(None)
        );
        assert_eq!(of(&["Basic realm=\"x\""]), Some((Challenge::Basic, None)));
        assert_eq!(of(&["Negotiate"]), None);
        assert_eq!(of(&[]), None);
    }
}
