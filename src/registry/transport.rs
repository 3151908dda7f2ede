//! HTTP clients, one for each host: certificates, proxies, time limits. Must not know registries' protocol: the
//! hub is reached through them as well.

use std::{
    collections::HashMap,
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Certificate, Client, Identity, NoProxy, Proxy, Url, redirect};

use super::{
    error::RegistryError,
    options::{CertificateFiles, TlsOptions},
};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Hosts that no proxy can reach, in `NO_PROXY` notation.
const LOOPBACK_HOSTS: &str = "localhost,.localhost,127.0.0.0/8,::1";

/// Makes and keeps the clients.
pub(crate) struct Transport {
    tls: TlsOptions,
    proxies: Proxies,
    /// By `HOST:PORT`, and whether the host is a registry that was asked for: only that one is shown the client
    /// certificate that the options name.
    clients: Mutex<HashMap<(String, bool), Client>>,
}

impl Transport {
    /// Reads the files that the options name, to fail before hours of work and not after.
    pub(crate) fn new(tls: TlsOptions) -> Result<Self, RegistryError> {
        let transport = Self { tls, proxies: Proxies::of_environment(), clients: Mutex::default() };
        transport.authorities(None)?;
        if let Some((certificate, key)) = &transport.tls.client {
            identity(certificate, key)?;
        }
        Ok(transport)
    }

    /// Whether the options say something of certificates, so that TLS is meant wherever a registry is.
    pub(super) fn wants_tls(&self) -> bool {
        !self.tls.authorities.is_empty() || self.tls.client.is_some() || !self.tls.verify
    }

    /// Whether registries have to prove who they are.
    pub(super) fn verifies(&self) -> bool {
        self.tls.verify
    }

    /// Whether there is a directory with certificates for a registry.
    pub(super) fn has_directory(&self, registry: &str) -> bool {
        self.directory(registry).is_some()
    }

    /// The client for the host of `url`. It follows no redirects and has no limit but that for connecting: a
    /// read timeout would count the time in which a big upload waits for its answer, and kill it.
    pub(crate) fn client(&self, url: &Url, is_registry: bool) -> Result<Client, RegistryError> {
        let host = authority(url);
        let key = (host.clone(), is_registry);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("starcar/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(redirect::Policy::none())
            .tls_certs_merge(self.authorities(Some(&host))?)
            .tls_danger_accept_invalid_certs(!self.tls.verify);
        if let Some(identity) = self.identity(&host, is_registry)? {
            builder = builder.identity(identity);
        }
        let client = self.proxies.apply(builder)?.build().map_err(|error| setup(&error))?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn authorities(&self, host: Option<&str>) -> Result<Vec<Certificate>, RegistryError> {
        let mut files = self.tls.authorities.clone();
        if let Some(directory) = host.and_then(|host| self.directory(host)) {
            files.extend(CertificateFiles::of(&directory)?.authorities);
        }
        let mut authorities = Vec::new();
        for file in files {
            let pem = read(&file)?;
            let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if found.is_empty() {
                return Err(unusable(&file, "holds no PEM certificate"));
            }
            authorities.extend(found);
        }
        Ok(authorities)
    }

    fn identity(&self, host: &str, is_registry: bool) -> Result<Option<Identity>, RegistryError> {
        if let Some((certificate, key)) = self.tls.client.as_ref().filter(|_| is_registry) {
            return identity(certificate, key).map(Some);
        }
        let Some(directory) = self.directory(host) else { return Ok(None) };
        let client = CertificateFiles::of(&directory)?.client;
        client.map(|(certificate, key)| identity(&certificate, &key)).transpose()
    }

    /// The first directory that has certificates for a host.
    fn directory(&self, host: &str) -> Option<PathBuf> {
        // Docker names the directory without a port where the port is the usual one.
        let without_port = host.strip_suffix(":443").unwrap_or(host);
        let roots = self.tls.directories.iter();
        roots.flat_map(|root| [root.join(host), root.join(without_port)]).find(|directory| directory.is_dir())
    }
}

/// `HOST:PORT` of a URL, the port always written.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, RegistryError> {
    let mut pem = read(certificate)?;
    if key != certificate {
        pem.push(b'\n');
        pem.extend(read(key)?);
    }
    Identity::from_pem(&pem).map_err(|_| {
        unusable(certificate, &format!("is no PEM certificate for the key in {}", key.display()))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    fs::read(path).map_err(|cause| unusable(path, &format!("cannot be read: {cause}")))
}

fn unusable(path: &Path, message: &str) -> RegistryError {
    RegistryError::Certificate { path: path.to_owned(), message: message.to_owned() }
}

/// Says why the HTTP client could not be made, with all causes.
fn setup(error: &(dyn std::error::Error + 'static)) -> RegistryError {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        message = format!("{message}: {cause}");
        next = cause.source();
    }
    if message.contains("KeyMismatch") {
        message.push_str(" (the client's certificate and its key do not belong together)");
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

    fn apply(&self, mut builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, RegistryError> {
        builder = builder.no_proxy();
        let direct = NoProxy::from_string(&self.none);
        if let Some(proxy) = &self.http {
            let proxy = Proxy::http(proxy).map_err(|_| no_proxy("HTTP_PROXY"))?;
            builder = builder.proxy(proxy.no_proxy(direct.clone()));
        }
        if let Some(proxy) = &self.https {
            let proxy = Proxy::https(proxy).map_err(|_| no_proxy("HTTPS_PROXY"))?;
            builder = builder.proxy(proxy.no_proxy(direct));
        }
        Ok(builder)
    }
}

/// The error for a variable, or `ALL_PROXY` in its place, that names no proxy. It can hold a password and is not quoted.
fn no_proxy(variable: &str) -> RegistryError {
    RegistryError::Setup { message: format!("{variable} or ALL_PROXY is no URL of a proxy") }
}

/// Whether a registry (`host[:port]`) is on this machine, where nobody sets up TLS.
pub(super) fn is_loopback(registry: &str) -> bool {
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
