//! Images as the node would mount them: the registry, and each layer. Must not know how a registry is talked to.

use std::error::Error;

use toml::Table;

use super::{finding::Report, rules, settings::mirrors};
use crate::{
    inspect::inspect,
    node::single_range,
    oci::{ImageSource, OciError, Platform, RegistryImage},
    registry::{Reference, Registry, RegistryError},
};

/// Looks at an image; gives the sum of its layers' sizes in bytes, where it can be had. `settings` are the
/// snapshotter's, as far as they are known.
pub(super) fn look(
    registry: &Registry,
    reference: &Reference,
    plain_http: bool,
    settings: Option<&Table>,
    report: &mut Report,
) -> Option<u64> {
    let at = reference.to_string();
    let host = reference.registry();
    if let Some(settings) = settings {
        told(host, plain_http, settings, &at, report);
    }
    let source = RegistryImage::new(registry.clone(), reference.clone());
    let inspection = match inspect(&source as &dyn ImageSource, &Platform::default()) {
        Ok(inspection) => inspection,
        Err(error) => {
            let rule = if registry.ignores_ranges(reference) || is_about_ranges(&error) {
                &rules::REGISTRY_NO_RANGES
            } else {
                &rules::REGISTRY_UNREACHABLE
            };
            report.find(rule, at, causes(&error));
            return None;
        }
    };
    // A client that is sent the whole blob goes on with it; a node does not.
    if registry.ignores_ranges(reference) {
        report.find(
            &rules::REGISTRY_NO_RANGES,
            &at,
            "a request for a range was answered with the whole blob",
        );
    }
    let layers = inspection.layers.len();
    for (index, layer) in inspection.layers.iter().enumerate() {
        if let Err(reason) = &layer.lazy {
            let found = format!("layer {} of {layers} ({}): {reason}", index + 1, layer.digest);
            report.find(&rules::LAYER_NOT_LAZY, &at, found);
        }
    }
    let lazy = inspection.layers.iter().filter(|layer| layer.lazy.is_ok()).count();
    report.fact(at, format!("{lazy} of {layers} layers can be mounted before they are pulled"));
    Some(inspection.size)
}

/// What the snapshotter has to be told of a registry.
fn told(host: &str, plain_http: bool, settings: &Table, at: &str, report: &mut Report) {
    let is_told = mirrors(settings).any(|(registry, mirror)| {
        registry == host && mirror.get("insecure").and_then(toml::Value::as_bool) == Some(true)
    });
    if plain_http && !is_loopback(host) && !is_told {
        let remedy = format!(
            "add [[resolver.host.\"{host}\".mirrors]] with host = \"{host}\" and insecure = true (starcar node config --for \
             snapshotter --registry http://{host})"
        );
        report.find_with(
            &rules::REGISTRY_PLAIN_HTTP,
            at,
            format!("no mirror of {host} has insecure = true"),
            remedy,
        );
    }
    let single = settings.get("blob").and_then(|blob| blob.get("force_single_range_mode"));
    if single_range(host) && single.and_then(toml::Value::as_bool) != Some(true) {
        report.find(&rules::SEVERAL_RANGES, at, "force_single_range_mode is not set");
    }
}

/// Hosts that the snapshotter asks by plain HTTP without being told (`MatchLocalhost` of containerd).
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_about_ranges(error: &OciError) -> bool {
    let OciError::ReadBlob { cause, .. } = error else { return false };
    let error = cause.get_ref().and_then(|inner| inner.downcast_ref::<RegistryError>());
    matches!(error, Some(RegistryError::RangeIgnored { .. }))
}

/// An error and its causes, in one line.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let message = current.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = current.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::digest::Digest;

    fn codes(host: &str, plain_http: bool, settings: &str) -> Vec<&'static str> {
        let mut report = Report::default();
        told(host, plain_http, &settings.parse().unwrap(), host, &mut report);
        report.findings.iter().map(|finding| finding.rule.code).collect()
    }

    #[test]
    fn an_image_named_after_ranges_is_not_about_them() {
        let digest = Digest::of(b"");
        let about = |error: RegistryError| {
            let cause = io::Error::other(error);
            is_about_ranges(&OciError::ReadBlob { place: "arrange/range".to_owned(), digest, cause })
        };
        let reference = || "registry.example.com/arrange/range:v1".into();
        assert!(about(RegistryError::RangeIgnored { reference: reference(), digest, offset: 1, length: 1 }));
        let message = String::new();
        assert!(!about(RegistryError::NotFound {
            action: "read blob".into(),
            reference: reference(),
            message
        }));
    }

    #[test]
    fn the_snapshotter_must_be_told_of_peculiar_registries() {
        let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        assert_eq!(codes(ecr, false, ""), ["several-ranges"]);
        assert_eq!(codes("ghcr.io", false, "[blob]\nforce_single_range_mode = false"), ["several-ranges"]);
        assert_eq!(codes(ecr, false, "[blob]\nforce_single_range_mode = true"), [""; 0]);
        assert_eq!(codes("registry.example.com", false, ""), [""; 0]);
        assert_eq!(codes("registry.example.com", true, ""), ["registry-plain-http"]);
        let told = "[[resolver.host.\"registry.example.com\".mirrors]]\nhost = \"registry.example.com\"\ninsecure = ";
        assert_eq!(codes("registry.example.com", true, &format!("{told}true")), [""; 0]);
        assert_eq!(codes("registry.example.com", true, &format!("{told}false")), ["registry-plain-http"]);
        for loopback in ["localhost:5000", "127.0.0.1", "[::1]:5000"] {
            assert_eq!(codes(loopback, true, ""), [""; 0]);
        }
    }
}
