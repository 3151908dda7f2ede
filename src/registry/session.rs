//! A client for one registry with one credential: protocol, proxies, logins. Must not know what is
//! pushed or pulled.

use std::{
    collections::{BTreeSet, HashMap},
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use oci_client::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    secrets::RegistryAuth,
    token_cache::RegistryTokenType,
};

use super::{
    credentials::{Credential, Places},
    error::{Context, RegistryError},
};

/// How long making a connection may take. Nothing else is timed: a read timeout counts the time in which
/// a big upload waits for its answer, and kills it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Hosts that no proxy can reach, in `NO_PROXY` notation.
const LOOPBACK_HOSTS: &str = "localhost,.localhost,127.0.0.0/8,::1";
/// The user name that goes with an identity token without one; Azure's registries, which hand out nearly
/// all such tokens, expect it.
const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";

/// A client that is ready for one repository.
pub(super) struct Session {
    client: Client,
    auth: RegistryAuth,
    /// Where the credentials come from, for messages.
    credentials: String,
    /// What was logged in for. Held over the login, so that concurrent requests share one.
    logins: tokio::sync::Mutex<BTreeSet<RegistryOperation>>,
}

impl Session {
    /// The client. Call [`Self::login`] before its methods.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What errors of an action have to tell.
    pub(super) fn context(&self, reference: &Reference, action: impl Into<Box<str>>) -> Context {
        Context::new(reference, &self.credentials, action)
    }

    /// Logs in once per operation; the client renews expired tokens itself.
    ///
    /// The client would log in by itself, too, but it swallows the token service's errors, and where
    /// `GET /v2/` needs no login it never sends a user's name and password anywhere: a registry that
    /// guards only its repositories would refuse us as anonymous. So the login is made here, and without
    /// a challenge the credential is put where the client looks for it.
    pub(super) async fn login(
        &self,
        reference: &Reference,
        operation: RegistryOperation,
        context: &Context,
    ) -> Result<(), RegistryError> {
        let mut logins = self.logins.lock().await;
        if logins.contains(&operation) {
            return Ok(());
        }
        let token = self
            .client
            .auth(reference, &self.auth, operation)
            .await
            .map_err(|error| context.translate(error))?;
        match (token, &self.auth) {
            // The client panics on a token that fits into no header.
            (Some(token), _) if !token.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
                return Err(context.protocol("the token service's token holds forbidden characters"));
            }
            (None, RegistryAuth::Basic(user, password)) => {
                let token = RegistryTokenType::Basic(user.clone(), password.clone());
                self.client.tokens.insert(reference, operation, token).await;
            }
            _ => {}
        }
        logins.insert(operation);
        Ok(())
    }
}

/// The sessions of a process, made when first needed.
pub(super) struct Sessions {
    places: Places,
    plain_http: bool,
    proxies: Proxies,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// By registry and repository: Podman's auth files can hold a credential for each repository.
    sessions: HashMap<(String, String), Arc<Session>>,
    /// Clients hold connections, so repositories that share registry and credential share a client. A
    /// client remembers one credential per registry, so others must not.
    clients: Vec<(String, RegistryAuth, Client)>,
}

impl Sessions {
    pub(super) fn new(places: Places, plain_http: bool) -> Self {
        Self { places, plain_http, proxies: Proxies::of_environment(), cache: Mutex::default() }
    }

    /// The session for a reference's repository. May run a credential helper.
    pub(super) fn get(&self, reference: &Reference) -> Result<Arc<Session>, RegistryError> {
        let registry = reference.resolve_registry();
        let key = (registry.to_owned(), reference.repository().to_owned());
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = cache.sessions.get(&key) {
            return Ok(Arc::clone(session));
        }
        let found = self.places.find(registry, reference.repository())?;
        let auth = match found.credential {
            Credential::Anonymous => RegistryAuth::Anonymous,
            Credential::Password(user, password) => RegistryAuth::Basic(user, password),
            Credential::IdentityToken(user, token) => {
                RegistryAuth::Basic(user.unwrap_or_else(|| TOKEN_USER.to_owned()), token)
            }
        };
        let known = cache.clients.iter().find(|(host, with, _)| host == registry && *with == auth);
        let client = if let Some((_, _, client)) = known {
            client.clone()
        } else {
            let client = self.client(registry)?;
            cache.clients.push((registry.to_owned(), auth.clone(), client.clone()));
            client
        };
        let session = Arc::new(Session {
            client,
            auth,
            credentials: found.origin,
            logins: tokio::sync::Mutex::default(),
        });
        cache.sessions.insert(key, Arc::clone(&session));
        Ok(session)
    }

    fn client(&self, registry: &str) -> Result<Client, RegistryError> {
        let plain = self.plain_http || is_loopback(registry);
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            // One PUT with Content-Length: chunks halve the speed, and some registries refuse them.
            use_monolithic_push: true,
            connect_timeout: Some(CONNECT_TIMEOUT),
            user_agent: concat!("starcar/", env!("CARGO_PKG_VERSION")),
            http_proxy: self.proxies.http.clone(),
            https_proxy: self.proxies.https.clone(),
            no_proxy: Some(self.proxies.none.clone()),
            ..ClientConfig::default()
        };
        // The library builds a default client on the side and panics where that fails.
        match catch_unwind(AssertUnwindSafe(|| Client::try_from(config))) {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(setup(&error)),
            Err(_) => Err(RegistryError::Setup { message: "the HTTP client could not be made".to_owned() }),
        }
    }
}

/// Says why the HTTP client could not be made, with all causes.
fn setup(error: &(dyn std::error::Error + 'static)) -> RegistryError {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        message = format!("{message}: {cause}");
        next = cause.source();
    }
    if message.contains("No CA certificates") {
        message.push_str(
            " (install the ca-certificates package, or point SSL_CERT_FILE to a file of certificates)",
        );
    }
    RegistryError::Setup { message }
}

/// The proxies of the environment. They are read here and not left to the HTTP client, as that would
/// send requests for loopback registries to them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Proxies {
    http: Option<String>,
    https: Option<String>,
    /// Hosts that are reached without.
    none: String,
}

impl Proxies {
    fn of_environment() -> Self {
        Self::from_variables(|name| env::var(name).ok())
    }

    /// The same variables, in the same order, as the HTTP client and curl read.
    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&str; 2]| {
            names
                .into_iter()
                .find_map(&variable)
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let all = first(["ALL_PROXY", "all_proxy"]);
        // Below a CGI server anybody can set HTTP_PROXY with a request's `Proxy` header.
        let http =
            if variable("REQUEST_METHOD").is_some() { None } else { first(["HTTP_PROXY", "http_proxy"]) };
        let none = match first(["NO_PROXY", "no_proxy"]) {
            Some(hosts) => format!("{hosts},{LOOPBACK_HOSTS}"),
            None => LOOPBACK_HOSTS.to_owned(),
        };
        Self {
            http: http.or_else(|| all.clone()),
            https: first(["HTTPS_PROXY", "https_proxy"]).or(all),
            none,
        }
    }
}

/// Whether a registry (`host[:port]`) is on this machine, where nobody sets up TLS.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => registry.rsplit_once(':').map_or(registry, |(host, _)| host),
    };
    if host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost") {
        return true;
    }
    match host.parse() {
        Ok(IpAddr::V4(address)) => Ipv4Addr::is_loopback(&address),
        Ok(IpAddr::V6(address)) => Ipv6Addr::is_loopback(&address),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts() {
        for host in [
            "localhost",
            "LOCALHOST:5000",
            "a.b.localhost:1",
            "127.0.0.1",
            "127.9.9.9:5000",
            "[::1]:5000",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "example.com:5000", "128.0.0.1", "[::2]:5000", "0.0.0.0:1", ""]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn proxies_never_see_loopback() {
        assert_eq!(
            Proxies::from_variables(|_| None),
            Proxies { http: None, https: None, none: LOOPBACK_HOSTS.to_owned() }
        );
        let proxies = Proxies::from_variables(|name| match name {
            "https_proxy" => Some("http://p:1".into()),
            "ALL_PROXY" => Some("http://a:1".into()),
            "NO_PROXY" => Some("example.com".into()),
            _ => None,
        });
        assert_eq!(proxies.https.as_deref(), Some("http://p:1"));
        assert_eq!(proxies.http.as_deref(), Some("http://a:1"));
        assert_eq!(proxies.none, format!("example.com,{LOOPBACK_HOSTS}"));
    }
}
