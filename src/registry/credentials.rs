//! Where credentials lie on a machine: Podman's auth files, docker's config, credential helpers. Must
//! not know HTTP; never prints what it finds.
//!
//! Sources: containers-auth.json(5), docker's `config.json` reference, docker-credential-helpers.

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::{Deserialize, Serialize};

use super::{error::RegistryError, helper};

/// Docker Hub's key in docker's config, from the days of the first registry protocol.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The names that Docker Hub goes by.
const DOCKER_HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// What proves who is asking.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// Nothing does.
    Anonymous,
    /// A user name and a password (or an access token that stands for one).
    Password(String, String),
    /// An `OAuth2` refresh token, with the user name that came with it.
    IdentityToken(Option<String>, String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password(..) => "Password(…)",
            Self::IdentityToken(..) => "IdentityToken(…)",
        })
    }
}

/// A credential and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) credential: Credential,
    /// For messages: `credentials from FILE`, or what was searched in vain.
    pub(super) origin: String,
}

/// The places to look in.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// A file that the user named: it has to exist and is the only one consulted.
    pub(super) named: Option<PathBuf>,
    /// Files that may exist, in the order of their rank.
    pub(super) usual: Vec<PathBuf>,
}

impl Places {
    /// The places of this process: `authfile`, else `$REGISTRY_AUTH_FILE`, else the usual ones.
    pub(super) fn of_environment(authfile: Option<PathBuf>) -> Self {
        Self::from_variables(authfile, |name| {
            env::var_os(name).filter(|value| !value.is_empty()).map(Into::into)
        })
    }

    fn from_variables(authfile: Option<PathBuf>, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let named = authfile.or_else(|| variable("REGISTRY_AUTH_FILE"));
        let home = variable("HOME");
        let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let usual = [
            variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            variable("XDG_CONFIG_HOME")
                .or_else(|| below_home(".config"))
                .map(|dir| dir.join("containers/auth.json")),
            variable("DOCKER_CONFIG").or_else(|| below_home(".docker")).map(|dir| dir.join("config.json")),
        ];
        Self { named, usual: usual.into_iter().flatten().collect() }
    }

    /// Whether the named file, if there is one, can be used.
    pub(super) fn check(&self) -> Result<(), RegistryError> {
        self.named.as_ref().map_or(Ok(()), |path| AuthFile::read(path, true).map(drop))
    }

    /// Finds the credential for `repository` (`ns/repo`) on `registry` (`host[:port]`).
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Found, RegistryError> {
        let files: Vec<(&PathBuf, bool)> = match &self.named {
            Some(path) => vec![(path, true)],
            None => self.usual.iter().map(|path| (path, false)).collect(),
        };
        for (path, must_exist) in &files {
            let Some(file) = AuthFile::read(path, *must_exist)? else { continue };
            if let Some(credential) = file.lookup(path, registry, repository)? {
                return Ok(Found { credential, origin: format!("the credentials from {}", path.display()) });
            }
        }
        let searched: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
        Ok(Found {
            credential: Credential::Anonymous,
            origin: format!("an anonymous request (no credentials for it in {})", searched.join(", ")),
        })
    }
}

/// The parts of an auth file that matter; Podman's and docker's have the same shape.
#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

/// One registry's entry. Docker leaves empty ones behind when a helper holds the secret.
#[derive(Deserialize, Serialize, Clone, Default)]
struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(default, rename = "identitytoken", skip_serializing)]
    identity_token: Option<String>,
}

impl AuthFile {
    /// Reads a file; `None` if there is none and there need not be one.
    fn read(path: &Path, must_exist: bool) -> Result<Option<Self>, RegistryError> {
        let broken = |message: String| RegistryError::AuthFile { path: path.to_owned(), message };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error)
                if !must_exist
                    && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(broken(format!("cannot be read: {error}"))),
        };
        // A list would pass for an object whose fields all have defaults.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(broken("is no JSON object".to_owned()));
        }
        // serde_json's messages can quote a value, which may be a secret: say only where.
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            broken(format!("is no valid auth file (line {}, column {})", error.line(), error.column()))
        })
    }

    /// The credential for a repository: the longest key that matches, helpers before stored secrets,
    /// docker's store last.
    fn lookup(
        &self,
        path: &Path,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, RegistryError> {
        for key in keys(registry, repository) {
            if let Some((name, helper)) = self.helpers.iter().flatten().find(|(name, _)| matches(name, &key))
                && !helper.is_empty()
                && let Some(credential) = helper::ask(path, helper, name)?
            {
                return Ok(Some(credential));
            }
            let entries = self.auths.iter().flatten().filter(|(name, _)| matches(name, &key));
            for (name, entry) in entries {
                if let Some(credential) = decode(path, name, entry)? {
                    return Ok(Some(credential));
                }
            }
        }
        match self.store.as_deref().filter(|store| !store.is_empty()) {
            Some(store) if DOCKER_HUB_HOSTS.contains(&registry) => helper::ask(path, store, DOCKER_HUB_KEY),
            Some(store) => helper::ask(path, store, registry),
            None => Ok(None),
        }
    }
}

/// The keys that may hold a repository's credential, longest first: `host/ns/repo`, `host/ns`, `host`.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut key = format!("{registry}/{repository}");
    let mut keys = Vec::new();
    while key.len() > registry.len() {
        keys.push(key.clone());
        key.truncate(key.rfind('/').unwrap_or(0));
    }
    keys.push(registry.to_owned());
    keys
}

/// Whether a file's key `name` means `key`. `docker login` may write URLs, of which the host counts;
/// Docker Hub has several names.
fn matches(name: &str, key: &str) -> bool {
    let plain = match name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")) {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => name,
    };
    let canonical = |key: &str| -> String {
        let (host, rest) = key.split_once('/').map_or((key, None), |(host, rest)| (host, Some(rest)));
        let host = if DOCKER_HUB_HOSTS.contains(&host) { "docker.io" } else { host };
        rest.map_or_else(|| host.to_owned(), |rest| format!("{host}/{rest}"))
    };
    canonical(plain) == canonical(key)
}

/// What an entry holds; `None` if it is empty.
fn decode(path: &Path, key: &str, entry: &Entry) -> Result<Option<Credential>, RegistryError> {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let entry = Entry {
        auth: filled(&entry.auth),
        username: filled(&entry.username),
        password: filled(&entry.password),
        identity_token: filled(&entry.identity_token),
    };
    let identity_token = entry.identity_token.clone();
    if entry.auth.is_none() && (entry.username.is_none() || entry.password.is_none()) {
        return Ok(identity_token.map(|token| Credential::IdentityToken(entry.username.clone(), token)));
    }
    // docker_credential decodes one entry; which one is decided here, as it knows no prefixes.
    let config = serde_json::json!({ "auths": { key: entry } });
    let decoded = docker_credential::get_credential_from_reader(config.to_string().as_bytes(), key).map_err(
        |error| RegistryError::AuthFile {
            path: path.to_owned(),
            message: match error {
                CredentialRetrievalError::CredentialMismatchError => {
                    format!("the entry for {key} holds two different credentials")
                }
                _ => format!("the `auth` value for {key} is no base64 of `user:password`"),
            },
        },
    )?;
    Ok(Some(match (identity_token, decoded) {
        (Some(token), DockerCredential::UsernamePassword(user, _)) => {
            Credential::IdentityToken(Some(user).filter(|user| !user.is_empty()), token)
        }
        (_, DockerCredential::UsernamePassword(user, password)) => Credential::Password(user, password),
        (_, DockerCredential::IdentityToken(token)) => Credential::IdentityToken(None, token),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> (tempfile::TempDir, Places) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        fs::write(&path, text).unwrap();
        (dir, Places { named: Some(path), usual: Vec::new() })
    }

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password(user.to_owned(), password.to_owned())
    }

    #[test]
    fn longest_prefix_wins() {
        // base64 of `r:1`, `n:2`, `h:3`
        let (_dir, places) = named(
            r#"{"auths": {"h.io/ns/repo": {"auth": "cjox"}, "h.io/ns": {"auth": "bjoy"}, "h.io": {"auth": "aDoz"}}}"#,
        );
        let find = |repository| places.find("h.io", repository).unwrap().credential;
        assert_eq!(find("ns/repo"), password("r", "1"));
        assert_eq!(find("ns/repo/sub"), password("r", "1"));
        assert_eq!(find("ns/repository"), password("n", "2"));
        assert_eq!(find("nsx/repo"), password("h", "3"));
        assert_eq!(places.find("h.io:5000", "ns/repo").unwrap().credential, Credential::Anonymous);
    }

    #[test]
    fn docker_hub_has_many_names() {
        for name in ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "docker.io/library"] {
            let (_dir, places) = named(&format!(r#"{{"auths": {{"{name}": {{"auth": "aDoz"}}}}}}"#));
            let found = places.find("index.docker.io", "library/busybox").unwrap();
            assert_eq!(found.credential, password("h", "3"), "{name}");
        }
    }

    #[test]
    fn identity_tokens_and_plain_passwords() {
        let (_dir, places) = named(
            r#"{"auths": {
                "a.io": {"auth": "cjo=", "identitytoken": "T"},
                "b.io": {"username": "u", "password": "p"},
                "c.io": {"identitytoken": "T"},
                "d.io": {}
            }}"#,
        );
        let find = |registry| places.find(registry, "x").unwrap().credential;
        assert_eq!(find("a.io"), Credential::IdentityToken(Some("r".into()), "T".into()));
        assert_eq!(find("b.io"), password("u", "p"));
        assert_eq!(find("c.io"), Credential::IdentityToken(None, "T".into()));
        assert_eq!(find("d.io"), Credential::Anonymous);
    }

    #[test]
    fn broken_files_are_named_and_not_quoted() {
        for text in
            ["", "[]", r#"{"auths": "hunter2"}"#, r#"{"auths": {"h.io": {"auth": "hunter2!"}}}"#, "hunter2"]
        {
            let (_dir, places) = named(text);
            let error = places.find("h.io", "x").unwrap_err().to_string();
            assert!(error.contains("auth.json"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_matters_only_if_named() {
        let missing = PathBuf::from("/nonexistent/auth.json");
        let usual = Places { named: None, usual: vec![missing.clone()] };
        assert_eq!(usual.find("h.io", "x").unwrap().credential, Credential::Anonymous);
        let named = Places { named: Some(missing), usual: Vec::new() };
        assert!(named.find("h.io", "x").unwrap_err().to_string().contains("/nonexistent/auth.json"));
    }

    #[test]
    fn the_first_file_that_knows_the_registry_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("1"), dir.path().join("2"));
        fs::write(&first, r#"{"auths": {"a.io": {"auth": "cjox"}}}"#).unwrap();
        fs::write(&second, r#"{"auths": {"a.io": {"auth": "bjoy"}, "b.io": {"auth": "aDoz"}}}"#).unwrap();
        let places = Places { named: None, usual: vec![first, second] };
        assert_eq!(places.find("a.io", "x").unwrap().credential, password("r", "1"));
        assert_eq!(places.find("b.io", "x").unwrap().credential, password("h", "3"));
    }

    #[test]
    fn places_follow_the_environment() {
        let places = Places::from_variables(None, |name| match name {
            "HOME" => Some("/home/u".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/1".into()),
            _ => None,
        });
        assert_eq!(places.named, None);
        assert_eq!(
            places.usual,
            [
                "/run/user/1/containers/auth.json",
                "/home/u/.config/containers/auth.json",
                "/home/u/.docker/config.json"
            ]
            .map(PathBuf::from)
        );
        let places = Places::from_variables(None, |name| (name == "REGISTRY_AUTH_FILE").then(|| "/a".into()));
        assert_eq!(places.named, Some("/a".into()));
    }

    #[test]
    fn a_helper_that_cannot_be_run_is_named() {
        let (_dir, places) = named(r#"{"credHelpers": {"h.io": "no-such-helper-here"}}"#);
        let error = places.find("h.io", "x").unwrap_err().to_string();
        assert!(error.contains("docker-credential-no-such-helper-here"), "{error}");
    }
}
