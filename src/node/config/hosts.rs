//! Registries with mirrors or without TLS, as both containerd and the snapshotter have to be told.

use std::fmt::Write as _;

use super::{ConfigFile, quoted};
use crate::node::CERTIFICATES;

/// A host that serves a registry's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Its name, with its port.
    pub host: String,
    /// Whether it is asked by plain HTTP.
    pub plain_http: bool,
}

/// A registry, and who is asked in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryHosts {
    /// The registry.
    pub registry: Mirror,
    /// Who is asked first, in this order.
    pub mirrors: Vec<Mirror>,
}

impl RegistryHosts {
    /// Reads `HOST` or `HOST=MIRROR,…`. A host is asked by plain HTTP with `http://` before it, or, where nothing is
    /// before it, if `plain_http` is set.
    ///
    /// # Errors
    /// What is no host, in words for people. The snapshotter knows no paths behind a mirror's host.
    pub fn parse(text: &str, plain_http: bool) -> Result<Self, String> {
        let (registry, mirrors) = match text.split_once('=') {
            Some((registry, mirrors)) => (registry, mirrors.split(',').collect()),
            None => (text, Vec::new()),
        };
        let registry = mirror(registry, plain_http)?;
        let mirrors = mirrors.into_iter().map(|host| mirror(host, plain_http)).collect::<Result<_, _>>()?;
        Ok(Self { registry, mirrors })
    }
}

fn mirror(text: &str, plain_http: bool) -> Result<Mirror, String> {
    let (host, plain_http) = if let Some(host) = text.strip_prefix("http://") {
        (host, true)
    } else if let Some(host) = text.strip_prefix("https://") {
        (host, false)
    } else {
        (text, plain_http)
    };
    let host = host.strip_suffix('/').unwrap_or(host);
    if host.contains('/') {
        return Err(format!("`{text}` has a path; stargz-snapshotter knows mirrors by their host alone"));
    }
    if is_host(host) {
        Ok(Mirror { host: host.to_owned(), plain_http })
    } else {
        Err(format!("`{text}` is no host: expected one as in registry.example.com:5000"))
    }
}

/// Whether a text is a name or an address, with a port or without.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        }
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
    };
    text.len() <= 255 && name.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// What a registry's own name stands for.
fn server(registry: &Mirror) -> String {
    let host = if registry.host == "docker.io" { "registry-1.docker.io" } else { &registry.host };
    address(host, registry.plain_http)
}

fn address(host: &str, plain_http: bool) -> String {
    format!("{}://{host}", if plain_http { "http" } else { "https" })
}

/// containerd's `hosts.toml` of a registry.
pub(super) fn file(hosts: &RegistryHosts) -> ConfigFile {
    let mut text = String::from(
        "# containerd asks these hosts for manifests, and for layers that are not mounted lazily. The snapshotter does not\n\
         # read this file: its config.toml names the same hosts below [resolver].\n",
    );
    let server = server(&hosts.registry);
    let _ = writeln!(text, "server = {}", quoted(&server));
    let own = hosts.mirrors.is_empty().then_some(server);
    let mirrors = hosts.mirrors.iter().map(|mirror| address(&mirror.host, mirror.plain_http));
    for host in mirrors.chain(own) {
        let _ = write!(text, "\n[host.{}]\ncapabilities = [\"pull\", \"resolve\"]\n", quoted(&host));
    }
    ConfigFile::new(format!("{CERTIFICATES}/{}/hosts.toml", hosts.registry.host), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read() {
        let of = |text: &str| RegistryHosts::parse(text, false);
        let registry = of("registry.example.com:5000=a,http://b:80,https://c/").unwrap();
        assert_eq!(registry.registry, Mirror { host: "registry.example.com:5000".into(), plain_http: false });
        let mirrors: Vec<(&str, bool)> =
            registry.mirrors.iter().map(|mirror| (mirror.host.as_str(), mirror.plain_http)).collect();
        assert_eq!(mirrors, [("a", false), ("b:80", true), ("c", false)]);
        assert!(RegistryHosts::parse("a", true).unwrap().registry.plain_http);
        assert!(!RegistryHosts::parse("https://a", true).unwrap().registry.plain_http);
        for bad in [
            "", "=", "a=", "a=,b", "a/b", "a=b/c", "a b", "a:0", "a:99999", "a:", "ftp://a", "a\"b", "a\nb",
            "..", "a..b", "[::1", "[x]:1", "[::1]x", "-a", "ä.de",
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
        assert!(of("[::1]:5000").is_ok());
    }
}
