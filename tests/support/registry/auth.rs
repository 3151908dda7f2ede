//! Logins: passwords, and tokens that allow some things for some time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use axum::{
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use starcar::digest::Digest;

use super::{
    Shared,
    server::{Incoming, error, query_value, query_values, route},
};

/// How the registry wants to be logged in to. Every variant but `Open` knows one account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Everybody may do everything.
    #[default]
    Open,
    /// Basic authentication, announced at `/v2/`.
    Basic { user: String, password: String },
    /// Basic authentication on repositories, while `/v2/` answers 200 to anybody.
    BasicBehindOpenPing { user: String, password: String },
    /// A token service; the account may push and pull, anybody may pull if `anonymous_pull`. The password is
    /// taken as an identity token, too.
    Token { user: String, password: String, anonymous_pull: bool },
    /// A token service with all its peculiarities.
    Service(TokenService),
}

/// A token service, at `/token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenService {
    pub user: String,
    pub password: String,
    /// What `grant_type=refresh_token` is answered for.
    pub identity_token: Option<String>,
    /// Whether tokens that only allow pulling are given to anybody.
    pub anonymous_pull: bool,
    /// How long a token is good. It counts when a request begins.
    pub lifetime: Duration,
    /// What is said of that, in seconds.
    pub expires_in: Option<u64>,
    /// Whether tokens look like JSON Web Tokens.
    pub jwt: bool,
    pub scopes: Scopes,
    /// Whether `/v2/` answers 200 to anybody.
    pub open_ping: bool,
    /// Repositories that the account may do nothing with. Tokens are given all the same.
    pub forbidden: Vec<String>,
}

/// What challenges say of scopes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scopes {
    /// Nothing.
    #[default]
    Unsaid,
    /// What the request needs.
    Said,
    /// This, and only tokens for exactly this are good.
    Own(String),
}

impl Default for TokenService {
    /// `ann` with the password `s3cret`, opaque tokens for 300 s.
    fn default() -> Self {
        Self {
            user: "ann".into(),
            password: "s3cret".into(),
            identity_token: None,
            anonymous_pull: false,
            lifetime: Duration::from_mins(5),
            expires_in: Some(300),
            jwt: false,
            scopes: Scopes::Unsaid,
            open_ping: false,
            forbidden: Vec::new(),
        }
    }
}

impl Auth {
    fn service(&self) -> Option<TokenService> {
        match self {
            Self::Token { user, password, anonymous_pull } => Some(TokenService {
                user: user.clone(),
                password: password.clone(),
                identity_token: Some(password.clone()),
                anonymous_pull: *anonymous_pull,
                ..TokenService::default()
            }),
            Self::Service(service) => Some(service.clone()),
            _ => None,
        }
    }
}

/// The tokens that were given out: what they allow, and until when.
#[derive(Default)]
pub(super) struct Tokens(HashMap<String, (Grant, Instant)>);

#[derive(PartialEq, Eq)]
enum Grant {
    Everything,
    /// Repositories and what may be done with them.
    These(Vec<(String, String)>),
}

impl Grant {
    fn allows(&self, (repository, action): &(String, &str)) -> bool {
        match self {
            Self::Everything => true,
            Self::These(grants) => grants.iter().any(|(of, may)| of == repository && may == action),
        }
    }
}

/// What a request needs to be allowed: repositories and actions.
fn needs(request: &Incoming) -> Vec<(String, &'static str)> {
    let Some((repository, _, _)) = route(&request.path) else { return Vec::new() };
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    // Where an upload is, is asked by those who may push.
    let action = if reads && !request.path.contains("/blobs/uploads/") { "pull" } else { "push" };
    let mut needs = vec![(repository, action)];
    if let Some(from) = query_value(&request.query, "from").filter(|_| request.method == Method::POST) {
        needs.push((from, "pull"));
    }
    needs
}

/// The answer to a request that is not (well enough) authenticated.
pub(super) fn refuse(shared: &Shared, request: &Incoming) -> Option<Response> {
    let given = request.header(header::AUTHORIZATION);
    if request.is_signed() {
        return given.map(|_| error(StatusCode::BAD_REQUEST, "UNSUPPORTED", "two ways to log in at once"));
    }
    let challenge = |challenge: String| {
        let mut response = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
        Some(response)
    };
    let auth = &shared.options.auth;
    let is_ping = request.path == "/v2/";
    match auth {
        Auth::Open => return None,
        Auth::BasicBehindOpenPing { .. } if is_ping => return None,
        Auth::Basic { user, password } | Auth::BasicBehindOpenPing { user, password } => {
            if given == Some(basic(user, password).as_str()) {
                return None;
            }
            return challenge("Basic realm=\"fake\"".to_owned());
        }
        Auth::Token { .. } | Auth::Service(_) => {}
    }
    let service = auth.service()?;
    if request.path == "/token" || (is_ping && service.open_ping) {
        return None;
    }
    let needs = needs(request);
    let bearer = given.and_then(|given| given.strip_prefix("Bearer "));
    if let Some((grant, end)) = shared.store().tokens.0.get(bearer.unwrap_or_default())
        && *end > Instant::now()
        && !is_ping
        && needs.iter().all(|need| grant.allows(need))
    {
        return None;
    }
    let scope = match service.scopes {
        Scopes::Unsaid => String::new(),
        Scopes::Said if needs.is_empty() => String::new(),
        Scopes::Said => {
            let actions = |action: &str| if action == "push" { "pull,push" } else { "pull" }.to_owned();
            let scopes = needs.iter().map(|(name, action)| format!("repository:{name}:{}", actions(action)));
            format!(",scope=\"{}\"", scopes.collect::<Vec<_>>().join(" "))
        }
        Scopes::Own(scope) => format!(",scope=\"{scope}\""),
    };
    let realm = format!("{}://{}/token", shared.scheme(), shared.address);
    challenge(format!("Bearer realm=\"{realm}\",service=\"fake\"{scope}"))
}

/// The token service's answer.
pub(super) fn token(shared: &Shared, request: &Incoming, body: &[u8]) -> Response {
    let Some(service) = shared.options.auth.service() else {
        return error(StatusCode::NOT_FOUND, "UNSUPPORTED", "no such endpoint");
    };
    let refused = |why| error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", why);
    let form = String::from_utf8_lossy(body);
    let is_post = request.method == Method::POST;
    let text = if is_post { form.as_ref() } else { request.query.as_str() };
    let scopes: Vec<String> = query_values(text, "scope")
        .iter()
        .flat_map(|scopes| scopes.split(' '))
        .filter(|scope| !scope.is_empty())
        .map(str::to_owned)
        .collect();
    let known = if is_post {
        let field = |name| query_value(&form, name);
        match field("grant_type").as_deref() {
            Some("refresh_token") => {
                service.identity_token.is_some() && field("refresh_token") == service.identity_token
            }
            Some("password") => {
                field("username") == Some(service.user) && field("password") == Some(service.password)
            }
            _ => false,
        }
    } else {
        match request.header(header::AUTHORIZATION) {
            Some(given) if given == basic(&service.user, &service.password) => true,
            Some(_) => return refused("wrong user or password"),
            None => false,
        }
    };
    let pushes = scopes.iter().any(|scope| scope.contains("push"));
    if !known && (is_post || pushes || !service.anonymous_pull) {
        return refused("wrong user or password");
    }
    let grant = match &service.scopes {
        Scopes::Own(own) if *own == scopes.join(" ") => Grant::Everything,
        Scopes::Own(_) => Grant::These(Vec::new()),
        Scopes::Unsaid | Scopes::Said => Grant::These(granted(&scopes, &service.forbidden)),
    };
    let mut tokens = shared.store();
    let number = tokens.tokens.0.len();
    let token = if service.jwt {
        let part = |json: serde_json::Value| {
            base64(json.to_string().as_bytes()).replace('+', "-").replace('/', "_").replace('=', "")
        };
        let claims = serde_json::json!({ "iss": "fake", "jti": number.to_string(), "aud": "fake" });
        format!("{}.{}.c2lnbmF0dXJl", part(serde_json::json!({ "alg": "none", "typ": "JWT" })), part(claims))
    } else {
        format!("token-{}", Digest::of(format!("{number} {scopes:?}").as_bytes()).hex())
    };
    tokens.tokens.0.insert(token.clone(), (grant, Instant::now() + service.lifetime));
    let mut answer = serde_json::json!({ if is_post { "access_token" } else { "token" }: token });
    if let Some(seconds) = service.expires_in {
        answer["expires_in"] = seconds.into();
    }
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

/// What is granted of `repository:NAME:ACTION,…`.
fn granted(scopes: &[String], forbidden: &[String]) -> Vec<(String, String)> {
    let mut grants = Vec::new();
    for scope in scopes {
        let Some((name, actions)) =
            scope.strip_prefix("repository:").and_then(|scope| scope.rsplit_once(':'))
        else {
            continue;
        };
        if forbidden.iter().all(|forbidden| forbidden != name) {
            grants.extend(actions.split(',').map(|action| (name.to_owned(), action.to_owned())));
        }
    }
    grants
}

/// The Authorization header of an account.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

/// Base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().enumerate().fold(0, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize] as char;
            text.push(if i <= group.len() { digit } else { '=' });
        }
    }
    text
}
