//! The plan of a whole image as plain data: what all parts of it must agree on. No more than the start of a file is read
//! for it. Must not know where parts go.

use std::{collections::BTreeMap, io::IoSliceMut};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    digest::Digest,
    layer::{Content, Data, Entry, EntryKind, Expected, LayerError, Storage},
    oci::canonical_json,
    pack::{LayerSpec, PackError, Prepared, blueprint::Blueprint, seal_layers::named},
    plan::LayerKind,
};

/// Bytes at the start of a file that tell it from another of the same size: its header, and of a small file all of it. Not
/// more than an outline of a snapshot has (`hub::outline`).
const START: u64 = 64 << 10;

/// A plan that parts share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PartPlan {
    /// What the images are to be.
    pub(crate) image: Blueprint,
    /// For each layer the digest of how its entries lie in it.
    pub(crate) layouts: Vec<Digest>,
    /// The files of model and caches.
    pub(crate) files: Vec<FileFacts>,
}

/// A file, as far as parts must agree on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FileFacts {
    /// Path in the image.
    pub(crate) path: String,
    /// The cache that it is part of; `None` of the model's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<String>,
    /// Size in bytes.
    pub(crate) size: u64,
    /// Time that it bears in the image, seconds since 1970, where that is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) modified: Option<i64>,
    /// Digest of its first 64 KiB.
    pub(crate) start: Digest,
}

/// An entry of a layer, as far as its bytes depend on it.
#[derive(Serialize)]
struct Laid<'a> {
    path: &'a str,
    mode: u32,
    owner: (u64, u64, &'a str, &'a str),
    modified: i64,
    xattrs: &'a BTreeMap<String, Vec<u8>>,
    kind: &'static str,
    target: Option<&'a str>,
    device: Option<(u32, u32)>,
    storage: Option<&'static str>,
    chunks: Option<&'a [u64]>,
    start: Option<Digest>,
}

impl PartPlan {
    /// The plan of what was prepared.
    ///
    /// # Errors
    /// When the start of a file cannot be read.
    pub(crate) fn of(prepared: &Prepared) -> Result<Self, PackError> {
        let mut files = Vec::new();
        let mut layouts = Vec::new();
        for spec in &prepared.layers {
            layouts.push(layout(spec, &mut files)?);
        }
        Ok(Self { image: prepared.blueprint(), layouts, files })
    }

    /// The plan's digest: equal plans have equal ones, whoever made them.
    ///
    /// # Errors
    /// None that is known: the plan is numbers and text.
    pub(crate) fn digest(&self) -> Result<Digest, serde_json::Error> {
        canonical_json(self).map(|json| Digest::of(&json))
    }
}

/// The digest of how a layer's entries lie in it; its files are added to `files`.
fn layout(spec: &LayerSpec, files: &mut Vec<FileFacts>) -> Result<Digest, PackError> {
    let mut hash = Sha256::new();
    for entry in &spec.entries {
        let mut laid = laid(entry);
        if let EntryKind::Regular(content) = &entry.kind {
            let start = start(content, entry.size()).map_err(|error| named(spec, error))?;
            laid.start = Some(start);
            let is_file = matches!(content.data, Data::Source { .. }) && spec.kind != LayerKind::Base;
            if is_file {
                let is_cache = spec.kind == LayerKind::Cache;
                files.push(FileFacts {
                    path: entry.path.clone(),
                    cache: is_cache.then(|| spec.title.clone()),
                    size: entry.size(),
                    modified: is_cache.then_some(entry.modified),
                    start,
                });
            }
        }
        // Numbers and text can be expressed.
        let line = serde_json::to_vec(&laid).unwrap_or_default();
        hash.update((line.len() as u64).to_le_bytes());
        hash.update(line);
    }
    Ok(Digest::finish(hash))
}

fn laid(entry: &Entry) -> Laid<'_> {
    // Named one by one, so that a new field cannot be forgotten here.
    let Entry { path, mode, uid, gid, user_name, group_name, modified, xattrs, kind } = entry;
    let (name, target, device) = match kind {
        EntryKind::Directory => ("directory", None, None),
        EntryKind::Regular(_) => ("file", None, None),
        EntryKind::Symlink { target } => ("symlink", Some(target.as_str()), None),
        EntryKind::Hardlink { target } => ("hardlink", Some(target.as_str()), None),
        EntryKind::CharDevice { major, minor } => ("character device", None, Some((*major, *minor))),
        EntryKind::BlockDevice { major, minor } => ("block device", None, Some((*major, *minor))),
        EntryKind::Fifo => ("pipe", None, None),
    };
    let content = if let EntryKind::Regular(content) = kind { Some(content) } else { None };
    Laid {
        path,
        mode: *mode,
        owner: (*uid, *gid, user_name, group_name),
        modified: *modified,
        xattrs,
        kind: name,
        target,
        device,
        storage: content.map(|content| match content.storage {
            Storage::Stored => "stored",
            Storage::Compressed => "compressed",
            Storage::EntropyCoded => "entropy coded",
        }),
        chunks: content.map(|content| content.chunks.as_slice()),
        start: None,
    }
}

/// The digest of known bytes, or of the start of a file of `size` bytes.
fn start(content: &Content, size: u64) -> Result<Digest, LayerError> {
    match &content.data {
        Data::Bytes(bytes) => Ok(Digest::of(bytes)),
        Data::Source { source, offset } => {
            // At most 64 KiB.
            let mut start = vec![0; usize::try_from(size.min(START)).unwrap_or_default()];
            let open = source.open()?;
            open.read_exact_vectored(&mut [IoSliceMut::new(&mut start)], *offset)?;
            Ok(Digest::of(&start))
        }
    }
}

/// What is known of files' content from elsewhere, by their paths in the image. Not all workers need to know it.
pub(crate) fn known_digests(layers: &[LayerSpec]) -> BTreeMap<String, Vec<String>> {
    let mut known = BTreeMap::new();
    for entry in layers.iter().filter(|spec| spec.kind != LayerKind::Base).flat_map(|spec| &spec.entries) {
        let EntryKind::Regular(content) = &entry.kind else { continue };
        let mut digests: Vec<String> = content.expected.iter().map(text).collect();
        digests.sort();
        if !digests.is_empty() {
            known.insert(entry.path.clone(), digests);
        }
    }
    known
}

fn text(expected: &Expected) -> String {
    match expected {
        Expected::Sha256 { digest, .. } => digest.to_string(),
        Expected::GitSha1 { digest, .. } => format!("git:{}", hex::encode(digest)),
    }
}
