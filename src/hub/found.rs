//! What of a repository is wanted, by what the hub says of it: the commit, and files whose names and digests can be
//! relied on. Must not download them.

use std::collections::BTreeMap;

use reqwest::Url;

use super::{
    HubEnvironment, HubError, HubReference,
    api::{self, Listing},
    cache::{Place, Shown, check_path, etag},
    download::{Wanted, has_content},
    net::{About, Net},
};
use crate::snapshot::{
    LeftOut, SnapshotError, SnapshotOptions, describe_left_out,
    revision::is_commit,
    select::{Selection, select},
    tree::kept_listing,
};

/// A commit of a repository, and what is wanted of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) commit: String,
    /// Sorted by path, never empty.
    pub(super) wanted: Vec<Wanted>,
    pub(super) left_out: Vec<LeftOut>,
}

/// Asks the hub for what is not known: a commit needs not be looked up, and its listing never changes.
pub(super) fn find(
    net: &Net,
    reference: &HubReference,
    files: &SnapshotOptions,
    environment: &HubEnvironment,
) -> Result<Found, HubError> {
    let place = Place::new(&environment.cache, &reference.repository);
    let asked = reference.asked();
    let commit = if is_commit(asked) { asked.to_owned() } else { api::commit_of(net, reference)? };
    let listing = match kept_listing(&place.repository(), &commit) {
        Some(kept) if kept.values().all(|file| file.digest.is_some()) => kept,
        _ => api::files_of(net, reference, &commit)?,
    };
    let selection = select(listing.iter().map(|(path, file)| (path.as_str(), file.size)), files)?;
    if selection.wanted.is_empty() {
        let left_out = describe_left_out(&selection.left_out);
        return Err(SnapshotError::Empty { path: place.snapshot(&commit), left_out }.into());
    }
    let wanted = wanted(reference, &listing, &selection)?;
    Ok(Found { place, commit, wanted, left_out: selection.left_out })
}

impl Found {
    /// The files that the snapshot in the cache lacks. Plain files in the place of links are read: nothing looks at them
    /// again unless a list of the repository's files was kept.
    pub(super) fn absent(&self) -> Vec<&Wanted> {
        let is_there =
            |file: &Wanted| match self.place.shows(&self.commit, &file.path, file.digest, file.size) {
                Shown::Nothing => false,
                Shown::Blob => true,
                Shown::File(path) => has_content(&path, file),
            };
        self.wanted.iter().filter(|file| !is_there(file)).collect()
    }

    /// What messages say of a file.
    pub(super) fn about(&self, reference: &HubReference, file: &Wanted) -> About {
        About {
            action: format!("download {} of {}", file.path, reference.repository),
            repository: reference.repository.clone(),
            revision: self.commit.clone(),
            file: Some(file.path.clone()),
        }
    }

    /// Where a file is had from.
    pub(super) fn url(&self, net: &Net, reference: &HubReference, file: &Wanted) -> Url {
        let repository = reference.repository.split('/');
        net.url(repository.chain(["resolve", &self.commit]).chain(file.path.split('/')))
    }
}

/// The files that are wanted, with names and digests that can be relied on.
fn wanted(
    reference: &HubReference,
    listing: &Listing,
    selection: &Selection,
) -> Result<Vec<Wanted>, HubError> {
    let chosen = listing.iter().filter(|(path, _)| selection.wanted.contains(*path));
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    chosen
        .map(|(path, file)| {
            check_path(path).map_err(|reason| HubError::Path {
                repository: reference.repository.clone(),
                path: path.escape_debug().to_string(),
                reason,
            })?;
            let protocol = |reason: &str| HubError::Protocol {
                action: format!("download {path} of {}", reference.repository),
                reason: reason.to_owned(),
            };
            let no_digest = "the hub lists it without a digest of its content";
            let digest = file.digest.ok_or_else(|| protocol(no_digest))?;
            if *sizes.entry(etag(digest)).or_insert(file.size) != file.size {
                return Err(protocol("the hub lists two files of one content and different sizes"));
            }
            Ok(Wanted { path: path.clone(), size: file.size, digest })
        })
        .collect()
}
