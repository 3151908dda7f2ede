//! What the hub's own variables say: where it is, who asks, where the cache lies. Must not perform requests.
//!
//! Source: `huggingface_hub` 2.4, `constants.py` and `utils/_auth.py`.

use std::{env, ffi::OsString, fs, path::PathBuf, time::Duration};

use reqwest::Url;

use super::HubError;
use crate::snapshot::locate::{cache_directory, hub_home};

/// Where the hub is unless `HF_ENDPOINT` names another.
const ENDPOINT: &str = "https://huggingface.co";
/// Longest token file in bytes; a token has 37.
const TOKEN_MAX: u64 = 4096;

/// How the hub is reached, and what is kept where.
#[derive(Clone)]
pub struct HubEnvironment {
    /// The hub's address.
    pub(super) endpoint: Url,
    /// What requests are authorised with.
    pub(super) token: Option<Token>,
    /// The variable that forbids requests, if one does.
    pub(super) offline: Option<&'static str>,
    /// The cache's directory.
    pub(super) cache: PathBuf,
    /// How long nothing may move on a connection, where `HF_HUB_DOWNLOAD_TIMEOUT` says it.
    pub(super) timeout: Option<Duration>,
}

/// What requests are authorised with.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) secret: String,
    /// Where it comes from, for messages.
    pub(super) origin: String,
}

impl HubEnvironment {
    /// Reads this process's variables: `HF_ENDPOINT`, `HF_TOKEN` (and the file that `HF_TOKEN_PATH` names, or `token` in
    /// `HF_HOME`), `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`, `HF_HUB_CACHE` and those that stand in for it, `HF_HUB_DOWNLOAD_TIMEOUT`.
    ///
    /// # Errors
    /// [`HubError::Environment`]: a variable makes no sense, or nothing tells where the cache lies.
    pub fn of_process() -> Result<Self, HubError> {
        Self::from_variables(&|name| env::var_os(name))
    }

    /// As [`Self::of_process`], of other variables.
    ///
    /// # Errors
    /// As there.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let text = |name: &'static str| {
            let value = variable(name)?.to_str().map(|value| value.trim().to_owned());
            value.filter(|value| !value.is_empty())
        };
        let wrong = |variable, reason: &str| HubError::Environment { variable, reason: reason.to_owned() };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = Url::parse(&endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some())
            .filter(|url| url.username().is_empty() && url.password().is_none())
            .ok_or_else(|| wrong("HF_ENDPOINT", "it is no address such as https://huggingface.co"))?;
        let is_true = |name: &&'static str| {
            text(name).is_some_and(|value| {
                matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
            })
        };
        let timeout = match text("HF_HUB_DOWNLOAD_TIMEOUT").map(|value| value.parse::<u32>()) {
            None => None,
            Some(Ok(seconds @ 1..)) => Some(Duration::from_secs(seconds.into())),
            Some(_) => return Err(wrong("HF_HUB_DOWNLOAD_TIMEOUT", "it is no number of seconds")),
        };
        let from_variable = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
            .into_iter()
            .find_map(|name| Some(Token { secret: text(name)?, origin: name.to_owned() }));
        let file = || {
            let named = variable("HF_TOKEN_PATH").filter(|value| !value.is_empty()).map(PathBuf::from);
            let path = named.or_else(|| Some(hub_home(variable)?.join("token")))?;
            let small = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= TOKEN_MAX);
            let secret = small.then(|| fs::read_to_string(&path).ok())??.trim().to_owned();
            (!secret.is_empty()).then(|| Token { secret, origin: path.display().to_string() })
        };
        let token = from_variable.or_else(file);
        if let Some(token) =
            token.iter().find(|token| !token.secret.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let reason = format!("the token of {} has characters that no token has", token.origin);
            return Err(HubError::Environment { variable: "HF_TOKEN", reason });
        }
        Ok(Self {
            endpoint,
            token,
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(is_true),
            cache: cache_directory(variable)
                .ok_or_else(|| wrong("HF_HUB_CACHE", "nothing tells where the hub cache lies"))?,
            timeout,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Result<HubEnvironment, HubError> {
        HubEnvironment::from_variables(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn variables_are_read() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let home = home.path().to_str().unwrap();
        let found = environment(&[("HF_HOME", home), ("HF_HUB_OFFLINE", "true")]).unwrap();
        assert_eq!(found.endpoint.as_str(), "https://huggingface.co/");
        assert_eq!(found.token.unwrap().secret, "hf_file");
        assert_eq!(found.offline, Some("HF_HUB_OFFLINE"));
        let other = environment(&[("HF_HOME", home), ("TRANSFORMERS_OFFLINE", "1")]).unwrap();
        assert_eq!(other.offline, Some("TRANSFORMERS_OFFLINE"));
        let found =
            environment(&[("HF_HOME", home), ("HF_TOKEN", " hf_own "), ("HF_HUB_DOWNLOAD_TIMEOUT", "7")]);
        let found = found.unwrap();
        assert_eq!(found.token.unwrap().secret, "hf_own");
        assert_eq!((found.timeout, found.offline), (Some(Duration::from_secs(7)), None));
    }

    #[test]
    fn variables_without_sense_are_named() {
        for (name, value) in [
            ("HF_ENDPOINT", "huggingface.co"),
            ("HF_ENDPOINT", "ftp://x"),
            ("HF_ENDPOINT", "https://user:pass@x"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
            ("HF_TOKEN", "a\u{1}b"),
        ] {
            let error = environment(&[("HOME", "/nonexistent"), (name, value)]).err().unwrap().to_string();
            assert!(error.contains(name), "{error}");
            assert!(!error.contains("pass"), "{error}");
        }
        assert!(environment(&[]).is_err());
    }
}
