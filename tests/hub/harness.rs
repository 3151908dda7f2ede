//! A repository, a cache, and a download from one into the other.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use starcar::{
    hub::{Fetched, HubEnvironment, HubError, HubOptions as Options, HubReference, fetch},
    progress::Unobserved,
    snapshot::SnapshotOptions,
};
use tempfile::TempDir;

pub(crate) use crate::support::{hub::*, noise::noise};

pub(crate) const TOKEN: &str = "hf_secret";
pub(crate) const SHARD: &str = "model-00001-of-00002.safetensors";
pub(crate) const OTHER_SHARD: &str = "model-00002-of-00002.safetensors";
/// Bytes of a shard's tensor.
pub(crate) const TENSOR: usize = 300_000;

/// A model of two shards, with a copy of its weights in another format.
pub(crate) fn model() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (".gitattributes", b"*.safetensors filter=lfs\n".to_vec()),
        ("config.json", b"{}\n".to_vec()),
        ("assets/notes.txt", b"in a directory\n".to_vec()),
        ("empty.txt", Vec::new()),
        (SHARD, safetensors(&noise(TENSOR, 1))),
        (OTHER_SHARD, safetensors(&noise(TENSOR, 2))),
        ("pytorch_model.bin", noise(1000, 3)),
        ("same-as-config.json", b"{}\n".to_vec()),
    ]
}

/// What of [`model`] is downloaded when nothing else is said.
pub(crate) fn wanted() -> Vec<(&'static str, Vec<u8>)> {
    let left_out = [".gitattributes", "pytorch_model.bin"];
    model().into_iter().filter(|(path, _)| !left_out.contains(path)).collect()
}

/// A hub and a cache.
pub(crate) struct Bench {
    pub(crate) hub: FakeHub,
    pub(crate) home: TempDir,
}

impl Bench {
    pub(crate) fn new(options: HubOptions) -> Self {
        Self { hub: FakeHub::start(options), home: tempfile::tempdir().unwrap() }
    }

    /// A hub that has [`model`], with faults.
    pub(crate) fn with(faults: Vec<Fault>) -> Self {
        Self::new(HubOptions { files: model(), faults, ..HubOptions::default() })
    }

    /// The directory of the repository in the cache.
    pub(crate) fn repository(&self) -> PathBuf {
        self.home.path().join("hub/models--acme--tiny")
    }

    pub(crate) fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT)
    }

    pub(crate) fn partial(&self, path: &str) -> PathBuf {
        self.repository().join("blobs").join(format!("{}.incomplete", self.hub.etag(path)))
    }

    pub(crate) fn fetch(&self) -> Result<Fetched, HubError> {
        self.fetch_as("hf://acme/tiny", &SnapshotOptions::default(), &[])
    }

    /// Downloads with more variables than those that lead to the hub and the cache.
    pub(crate) fn fetch_as(
        &self,
        reference: &str,
        files: &SnapshotOptions,
        variables: &[(&str, &str)],
    ) -> Result<Fetched, HubError> {
        let environment = HubEnvironment::from_variables(&|name| {
            let set = variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            set.or_else(|| match name {
                "HF_HOME" => Some(self.home.path().into()),
                "HF_ENDPOINT" => Some(self.hub.endpoint().into()),
                _ => None,
            })
        })?;
        let reference = HubReference::parse(reference, None)?.unwrap();
        let options = Options { concurrency: 3, retries: 2, stall: Duration::from_secs(20) };
        fetch(&reference, files, &environment, &options, &Unobserved)
    }

    /// Asserts that the cache has what is wanted of [`model`], and nothing unfinished.
    pub(crate) fn assert_complete(&self) {
        let found = files_below(&self.snapshot());
        let expected = wanted().into_iter().map(|(path, content)| (path.to_owned(), content)).collect();
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            std::collections::BTreeMap::keys(&expected).collect::<Vec<_>>()
        );
        assert!(found == expected, "the contents differ");
        assert_eq!(self.unfinished(), Vec::<String>::new());
    }

    /// The names of blobs that are not whole.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let names = names(&self.repository().join("blobs"));
        names.into_iter().filter(|name| name.ends_with(".incomplete")).collect()
    }
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
