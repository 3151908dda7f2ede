//! Repositories that are talked to, each with the credential for it. Must not know what is pushed or pulled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use oci_client::Reference;
use reqwest::{Method, Url};

use super::{
    credentials::{Credential, Places},
    error::{Context, RegistryError},
    exchange::{Ask, Host},
    options::RegistryOptions,
    transport::Transport,
};
use crate::digest::Digest;

/// A repository of a registry.
pub(super) struct Session {
    host: Arc<Host>,
    registry: String,
    repository: String,
}

impl Session {
    /// The registry.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// The registry's `host[:port]`.
    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path in the registry.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// What errors of an action have to tell.
    pub(super) fn context(&self, reference: &Reference, action: impl Into<Box<str>>) -> Context {
        Context::new(reference, self.host.credentials(), action)
    }

    /// The URL of something in the repository.
    pub(super) async fn url(&self, path: &str, context: &Context) -> Result<Url, RegistryError> {
        self.host.url(&format!("{}/{path}", self.repository), context).await
    }

    /// What is needed to read.
    pub(super) fn pull_scopes(&self) -> Vec<String> {
        vec![format!("repository:{}:pull", self.repository)]
    }

    /// What is needed to write.
    pub(super) fn push_scopes(&self) -> Vec<String> {
        vec![format!("repository:{}:pull,push", self.repository)]
    }

    /// The size in bytes of a blob, as the registry says it; `None` if the repository does not have it.
    pub(super) async fn blob_size(
        &self,
        digest: Digest,
        context: &Context,
    ) -> Result<Option<Option<u64>>, RegistryError> {
        let url = self.url(&format!("blobs/{digest}"), context).await?;
        let ask = Ask::new(Method::HEAD, url).scopes(self.pull_scopes());
        match self.host.send(&ask, context).await {
            Ok(answer) => Ok(Some(answer.length())),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The sessions of a process, made when first needed.
pub(super) struct Sessions {
    places: Places,
    transport: Arc<Transport>,
    options: RegistryOptions,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// By registry and repository: Podman's auth files can hold a credential for each repository.
    sessions: HashMap<(String, String), Arc<Session>>,
    /// Repositories that share registry and credential share what is known of the registry.
    hosts: Vec<(String, Credential, Arc<Host>)>,
}

impl Sessions {
    pub(super) fn new(places: Places, transport: Transport, options: RegistryOptions) -> Self {
        Self { places, transport: Arc::new(transport), options, cache: Mutex::default() }
    }

    /// The session for a reference's repository. May run a credential helper.
    pub(super) fn get(&self, reference: &Reference) -> Result<Arc<Session>, RegistryError> {
        let registry = reference.resolve_registry();
        let repository = reference.repository();
        let key = (registry.to_owned(), repository.to_owned());
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = cache.sessions.get(&key) {
            return Ok(Arc::clone(session));
        }
        let found = self.places.find(registry, repository)?;
        let known = cache.hosts.iter().find(|(host, with, _)| host == registry && *with == found.credential);
        let host = if let Some((_, _, host)) = known {
            Arc::clone(host)
        } else {
            let credential = found.credential.clone();
            let host = Arc::new(Host::new(registry, found, Arc::clone(&self.transport), &self.options));
            cache.hosts.push((registry.to_owned(), credential, Arc::clone(&host)));
            host
        };
        let session =
            Arc::new(Session { host, registry: registry.to_owned(), repository: repository.to_owned() });
        cache.sessions.insert(key, Arc::clone(&session));
        Ok(session)
    }
}
