//! What is known of public registries before they are asked: sizes that they refuse and requests that they answer
//! badly, with sources, from `limits.json`. Preflights tell it, uploads choose by it whether and in what pieces a blob
//! goes, and packs with layers that are too large are refused by it; where a registry answers something else, that
//! counts more. Must not perform requests.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// What is known of a registry. Where nothing is known, nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct KnownRegistry {
    /// Its name, for people.
    pub name: String,
    /// Hosts without ports that are it; `*` stands for one or more characters. Empty for software that runs
    /// anywhere, which [`known_registry`] cannot find.
    pub hosts: Vec<String>,
    /// Length in bytes of the largest layer that is known to go.
    pub blob_max: Option<u64>,
    /// Length in bytes that each piece but the last must have.
    pub piece_min: Option<u64>,
    /// Length in bytes of the largest piece (the body of a `PATCH`) that is known to go.
    pub piece_max: Option<u64>,
    /// Whether blobs are known to go in one request only, never in pieces.
    pub whole_only: bool,
    /// Whether a `GET` may ask for several ranges of a blob at once.
    pub many_ranges: Option<bool>,
    /// Whether there is a referrers API.
    pub referrers: Option<bool>,
    /// What else there is to know, in sentences for people: how figures are to be read, versions.
    pub notes: String,
    /// What to do with a layer that is too large, in a sentence for people.
    pub remedy: String,
    /// Where all this comes from.
    pub sources: Vec<LimitSource>,
}

/// Where something that is known of a registry comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct LimitSource {
    /// The page.
    pub url: String,
    /// What it says, in our words.
    pub says: String,
}

/// Empty should the text not be readable, which a test rules out.
static KNOWN: LazyLock<Vec<KnownRegistry>> =
    LazyLock::new(|| serde_json::from_str(include_str!("limits.json")).unwrap_or_default());

/// All registries that something is known of.
pub fn known_registries() -> &'static [KnownRegistry] {
    &KNOWN
}

/// What is known of the registry at `host`, which may have a port.
pub fn known_registry(host: &str) -> Option<&'static KnownRegistry> {
    let host = without_port(host).to_ascii_lowercase();
    known_registries().iter().find(|known| known.hosts.iter().any(|pattern| matches(pattern, &host)))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether `host` is what `pattern` describes: each `*` stands for one or more characters but `/`.
fn matches(pattern: &str, host: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == host;
    };
    let Some(rest) = host.strip_prefix(head) else {
        return false;
    };
    rest.char_indices()
        .take_while(|(_, character)| *character != '/')
        .any(|(at, character)| rest.get(at + character.len_utf8()..).is_some_and(|rest| matches(tail, rest)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn name_of(host: &str) -> Option<&'static str> {
        known_registry(host).map(|known| known.name.as_str())
    }

    #[test]
    fn the_file_is_readable_and_says_where_it_has_things_from() {
        let read: Vec<KnownRegistry> = serde_json::from_str(include_str!("limits.json")).unwrap();
        assert_eq!(read, known_registries());
        assert!(!read.is_empty());
        for known in &read {
            let name = &known.name;
            assert!(!known.notes.is_empty(), "{name}");
            assert!(!known.sources.is_empty(), "{name}");
            for source in &known.sources {
                assert!(source.url.starts_with("https://") && !source.says.is_empty(), "{name}: {source:?}");
            }
            assert!(known.blob_max.is_none() || !known.remedy.is_empty(), "{name}");
            assert!(known.blob_max != Some(0) && known.piece_max != Some(0), "{name}");
            assert!(!known.whole_only || (known.piece_min, known.piece_max) == (None, None), "{name}");
            assert!(known.piece_min != Some(0), "{name}");
            let (least, most) = (known.piece_min.unwrap_or(1), known.piece_max.unwrap_or(u64::MAX));
            assert!(least <= most, "{name}");
        }
    }

    #[test]
    fn names_and_hosts_are_there_once_and_in_small_letters() {
        let mut seen = HashSet::new();
        for known in known_registries() {
            assert!(seen.insert(known.name.as_str()), "{}", known.name);
            for host in &known.hosts {
                assert!(seen.insert(host.as_str()), "{host}");
                assert!(!host.contains([':', '/']) && *host == host.to_ascii_lowercase(), "{host}");
            }
        }
    }

    #[test]
    fn hosts_are_found() {
        for (host, name) in [
            ("ghcr.io", "GitHub Container Registry"),
            ("GHCR.io:443", "GitHub Container Registry"),
            ("docker.io", "Docker Hub"),
            ("index.docker.io", "Docker Hub"),
            ("registry-1.docker.io", "Docker Hub"),
            ("quay.io", "Quay.io"),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "Amazon ECR"),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "Amazon ECR"),
            ("public.ecr.aws", "Amazon ECR Public"),
            ("models.azurecr.io", "Azure Container Registry"),
            ("europe-west4-docker.pkg.dev", "Google Artifact Registry"),
            ("eu.gcr.io", "Google gcr.io"),
            ("acme.jfrog.io", "JFrog Artifactory"),
            ("registry.gitlab.com", "GitLab Container Registry"),
        ] {
            assert_eq!(name_of(host), Some(name), "{host}");
        }
    }

    #[test]
    fn look_alikes_are_not() {
        for host in [
            "",
            ":443",
            "ghcr.io.evil.com",
            "notghcr.io",
            "ghcr.io.",
            "ghcr.io:",
            "ghcr.io:evil",
            "evil.com/ghcr.io",
            "evil.com/models.azurecr.io",
            "evil.com/1.dkr.ecr.eu-west-1.amazonaws.com",
            "models.azurecr.io.evil.com",
            ".azurecr.io",
            "azurecr.io",
            "-docker.pkg.dev",
            "1.dkr.ecr..amazonaws.com",
            "1.dkr.ecr.amazonaws.com",
            "1.dkr.ecr.eu-west-1.amazonaws.com.evil.com",
            "localhost:5000",
            "[::1]:5000",
        ] {
            assert_eq!(name_of(host), None, "{host}");
        }
    }

    #[test]
    fn stars_take_as_much_as_they_need() {
        for (pattern, host, expected) in [
            ("a*c", "abc", true),
            ("a*c", "abcc", true),
            ("a*c", "ac", false),
            ("a*b*c", "a.b.b.c", true),
            ("a*b*c", "abc", false),
            ("*", "ü", true),
            ("*", "", false),
            ("*.io", "a/b.io", false),
        ] {
            assert_eq!(matches(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn figures_are_as_documented() {
        let ghcr = known_registry("ghcr.io").unwrap();
        assert_eq!((ghcr.blob_max, ghcr.piece_max), (Some(10_000_000_000), Some(4 << 20)));
        let ecr = known_registry("1.dkr.ecr.us-east-1.amazonaws.com").unwrap();
        assert_eq!((ecr.blob_max, ecr.piece_min), (Some(52_000 << 20), Some(5 << 20)));
        assert_eq!(known_registry("public.ecr.aws").unwrap().blob_max, Some(10_000 << 20));
        assert_eq!(known_registry("a.azurecr.io").unwrap().blob_max, Some(200 << 30));
        assert!(known_registry("us-docker.pkg.dev").unwrap().whole_only);
    }
}
