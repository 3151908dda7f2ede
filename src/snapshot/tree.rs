//! The listing of a repository's files that `huggingface_hub` 2.x keeps beside a download. Must not know
//! which files are packed.
//!
//! Source: `huggingface_hub` 2.4, `_tree_cache.py`: `<repository>/trees/<commit>.json` in a hub cache,
//! `<directory>/.cache/huggingface/trees/<commit>.json` in a `--local-dir` download.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    locate::{LOCAL_DIR_RECORDS, Layout, Located},
    report::{ExpectedDigest, Warning},
};

/// The only version there is (`TREE_CACHE_FORMAT_VERSION`).
const FORMAT_VERSION: u64 = 1;
/// Longest listing in bytes; an entry has about 300.
const MAX_TREE_LENGTH: u64 = 64 << 20;

/// A listing.
#[derive(Debug)]
pub(super) struct Tree {
    /// Where it was read.
    pub(super) path: PathBuf,
    /// Its files by their path inside the snapshot.
    pub(super) files: BTreeMap<String, ListedFile>,
}

/// A file of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedFile {
    /// Size in bytes.
    pub(crate) size: u64,
    /// Digest of the content, where the listing has a valid one.
    pub(crate) digest: Option<ExpectedDigest>,
}

#[derive(Deserialize)]
struct RawTree {
    format_version: u64,
    #[serde(default)]
    files: serde_json::Value,
}

#[derive(Deserialize)]
struct RawFile {
    size: u64,
    blob_id: String,
    lfs_sha256: Option<String>,
    lfs_size: Option<u64>,
}

/// Reads the listing of `commit`. There may be none (`Ok(None)`); one that cannot be used is a warning, as
/// for `huggingface_hub` itself, because nothing depends on it.
pub(super) fn read(located: &Located, commit: &str) -> Result<Option<Tree>, Warning> {
    let base = match &located.layout {
        Layout::HubCache { repository } => repository.clone(),
        Layout::LocalDir => located.root.join(LOCAL_DIR_RECORDS),
        Layout::Plain => return Ok(None),
    };
    let path = base.join("trees").join(format!("{commit}.json"));
    match read_files(&path) {
        Ok(files) => Ok(Some(Tree { path, files })),
        Err(Unusable::Absent) => Ok(None),
        Err(Unusable::Because(problem)) => Err(Warning::UnusableTree { path, problem }),
    }
}

/// The listing of `commit` that the directory of a repository in a hub cache keeps, if there is one that can be used.
pub(crate) fn kept_listing(repository: &Path, commit: &str) -> Option<BTreeMap<String, ListedFile>> {
    read_files(&repository.join("trees").join(format!("{commit}.json"))).ok()
}

enum Unusable {
    Absent,
    Because(String),
}

fn read_files(path: &Path) -> Result<BTreeMap<String, ListedFile>, Unusable> {
    let bytes = super::read::read_small(path, MAX_TREE_LENGTH).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unusable::Absent,
        _ => Unusable::Because(error.to_string()),
    })?;
    parse(&bytes).map_err(Unusable::Because)
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, ListedFile>, String> {
    let tree: RawTree = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    // Looked at before the files, whose shape another version may change.
    if tree.format_version != FORMAT_VERSION {
        return Err(format!("its format version is {}, not {FORMAT_VERSION}", tree.format_version));
    }
    let files: BTreeMap<String, RawFile> =
        serde_json::from_value(tree.files).map_err(|error| error.to_string())?;
    Ok(files.into_iter().map(|(path, file)| (path, file.into())).collect())
}

impl From<RawFile> for ListedFile {
    fn from(raw: RawFile) -> Self {
        // For a file in LFS `blob_id` is the id of the pointer, not of the content.
        let digest = raw.lfs_sha256.as_ref().unwrap_or(&raw.blob_id);
        Self { size: raw.lfs_size.unwrap_or(raw.size), digest: ExpectedDigest::from_etag(digest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read() {
        let (git, sha) = ("1".repeat(40), "2".repeat(64));
        let text = format!(
            r#"{{"format_version":1,"files":{{
                "config.json":{{"size":519,"blob_id":"{git}"}},
                "m.safetensors":{{"size":5,"blob_id":"{git}","lfs_sha256":"{sha}","lfs_size":5,"xet_hash":"{sha}"}}
            }}}}"#
        );
        let files = parse(text.as_bytes()).unwrap();
        let listed = |size, etag: &str| ListedFile { size, digest: ExpectedDigest::from_etag(etag) };
        assert_eq!(files["config.json"], listed(519, &git));
        assert_eq!(files["m.safetensors"], listed(5, &sha));
    }

    #[test]
    fn other_listings_are_not_used() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"format_version":2,"files":{}}"#,
            r#"{"format_version":1}"#,
            r#"{"format_version":1,"files":{"a":{"size":-1,"blob_id":""}}}"#,
            r#"{"format_version":1,"files":{"a":{"blob_id":""}}}"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
