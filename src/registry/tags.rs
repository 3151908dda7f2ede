//! The tags of a repository, and manifests that are removed from it. Must not know what they name.
//!
//! Source: OCI distribution specification 1.1, "Listing Tags", "Deleting Manifests".

use oci_client::Reference;
use reqwest::Method;
use serde::Deserialize;

use super::{
    Registry,
    error::RegistryError,
    exchange::Ask,
    referrers::{PAGES_MAX, next_page},
    session::Session,
};
use crate::digest::Digest;

#[derive(Deserialize)]
struct Page {
    /// Go's programs make `null` of an empty list.
    tags: Option<Vec<String>>,
}

impl Registry {
    /// Those tags of the reference's repository that are `wanted`. A repository that is not there has none.
    ///
    /// # Errors
    /// Failed requests; a list without end.
    pub fn tags(
        &self,
        reference: &Reference,
        wanted: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Vec<String>, RegistryError> {
        let session = self.session(reference)?;
        self.run(list(&session, reference, wanted))
    }

    /// Removes a manifest, and with it all tags that name it, from the reference's repository. Registries need not let
    /// anybody do so.
    ///
    /// # Errors
    /// Failed requests, tried once: whoever removes something can go on without.
    pub fn remove_manifest(&self, reference: &Reference, digest: Digest) -> Result<(), RegistryError> {
        let session = self.session(reference)?;
        self.run(remove(&session, reference, digest))
    }
}

async fn list(
    session: &Session,
    reference: &Reference,
    wanted: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Vec<String>, RegistryError> {
    let context = session.context(reference, format!("list the tags of {}", session.repository()));
    let mut url = session.url("tags/list", &context).await?;
    let mut found = Vec::new();
    for _ in 0..PAGES_MAX {
        let ask = Ask::new(Method::GET, url.clone()).scopes(session.pull_scopes());
        let (headers, bytes) = match session.host().fetch(&ask, &context).await {
            Ok(answer) => answer,
            Err(RegistryError::NotFound { .. }) => return Ok(found),
            Err(error) => return Err(error),
        };
        let page: Page = serde_json::from_slice(&bytes)
            .map_err(|error| context.protocol(format!("the answer is no list of tags: {error}")))?;
        found.extend(page.tags.unwrap_or_default().into_iter().filter(|tag| wanted(tag)));
        match next_page(&headers, &url) {
            Some(next) => url = next,
            None => return Ok(found),
        }
    }
    Err(context.protocol(format!("its list has more than {PAGES_MAX} pages")))
}

async fn remove(session: &Session, reference: &Reference, digest: Digest) -> Result<(), RegistryError> {
    let context = session.context(reference, format!("remove manifest {digest}"));
    let url = session.url(&format!("manifests/{digest}"), &context).await?;
    let mut scopes = session.push_scopes();
    scopes.push(format!("repository:{}:delete", session.repository()));
    let ask = Ask::new(Method::DELETE, url).scopes(scopes);
    session.host().once(&ask, &context).await.map(|_| ()).map_err(|failure| failure.error)
}
