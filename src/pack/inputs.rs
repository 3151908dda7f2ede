//! What went into the images of a pack: files with the digests that sealing found. Must not know documents that tell of
//! them.

use std::collections::BTreeMap;

use super::Prepared;
use crate::{
    base::BaseChoice,
    compile_cache::CacheRecord,
    digest::Digest,
    layer::{Entry, EntryKind, SealedLayer},
    oci::Platform,
};

/// Everything that the images of a pack are made of, but for the profile.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// What lies below the model, in the platforms' order.
    pub bases: Vec<InputBase>,
    /// The snapshot's files, sorted by path.
    pub model: Vec<InputFile>,
    /// The compile caches.
    pub caches: Vec<InputCache>,
}

/// The base of a platform; there is none for `scratch`.
#[derive(Debug, Clone)]
pub struct InputBase {
    /// The platform.
    pub platform: Platform,
    /// What was asked for.
    pub choice: BaseChoice,
    /// Digest of the base's manifest, or of the static binary.
    pub digest: Option<Digest>,
}

/// A file that was packed.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// Path in the snapshot or cache.
    pub path: String,
    /// SHA-256 of the file as it was given.
    pub digest: Digest,
    /// SHA-256 of the file as it is in the image: paths in compile caches are written anew.
    pub packed: Digest,
    /// Whether the snapshot's own records have a digest of the file, which was compared: then it is the one of the
    /// repository.
    pub verified: bool,
}

/// A compile cache that was packed.
#[derive(Debug, Clone)]
pub struct InputCache {
    /// What the image says of it.
    pub record: CacheRecord,
    /// Its files, sorted by path.
    pub files: Vec<InputFile>,
}

impl Prepared {
    /// What went into the layers, which are `sealed` in the order of [`Prepared`]'s.
    pub(super) fn inputs(&self, sealed: &[SealedLayer]) -> Inputs {
        let mut digests = self
            .layers
            .iter()
            .zip(sealed)
            .map(|(spec, sealed)| files(&spec.entries, &sealed.files))
            .collect::<Vec<BTreeMap<&str, Digest>>>();
        let of_caches = digests.split_off(digests.len().saturating_sub(self.caches.caches.len()));
        let bases = self.platforms.iter().filter_map(|platform| {
            let digest = match &platform.choice {
                BaseChoice::Scratch => return None,
                BaseChoice::Image(_) => platform.base.digest,
                // Its layer has no other file but the landmark, which lies in no directory.
                BaseChoice::Binary(_) => digests.get(platform.layers.start).and_then(|files| {
                    files.iter().find(|(path, _)| path.contains('/')).map(|(_, digest)| *digest)
                }),
            };
            Some(InputBase { platform: platform.platform.clone(), choice: platform.choice.clone(), digest })
        });
        let bases = bases.collect();

        let first_of_model = self.platforms.iter().map(|platform| platform.layers.end).max().unwrap_or(0);
        let of_model: BTreeMap<&str, Digest> =
            digests.into_iter().skip(first_of_model).flat_map(IntoIterator::into_iter).collect();
        let directory = self.options.model_directory.relative();
        let model = self.snapshot.files.iter().filter_map(|file| {
            let digest = *of_model.get(format!("{directory}/{}", file.path).as_str())?;
            let verified = !file.expected.is_empty();
            Some(InputFile { path: file.path.clone(), digest, packed: digest, verified })
        });
        let model = model.collect();

        let caches = self.caches.caches.iter().zip(of_caches).map(|(cache, digests)| {
            let root = format!("{directory}/{}", cache.record.directory);
            let tree = &cache.examined.tree;
            let changed: BTreeMap<usize, Digest> =
                cache.relocated.iter().map(|file| (file.index, file.original)).collect();
            let file = |(index, file): (usize, &crate::compile_cache::CacheFile)| {
                let same = cache.same.get(index).copied().flatten().and_then(|same| tree.files.get(same));
                let path = &same.unwrap_or(file).path;
                let packed = *digests.get(format!("{root}/{path}").as_str())?;
                let digest = changed.get(&index).copied().unwrap_or(packed);
                Some(InputFile { path: file.path.clone(), digest, packed, verified: false })
            };
            let mut files: Vec<InputFile> = tree.files.iter().enumerate().filter_map(file).collect();
            files.sort_by(|one, other| one.path.cmp(&other.path));
            InputCache { record: cache.record.clone(), files }
        });
        Inputs { bases, model, caches: caches.collect() }
    }
}

/// The digests of a layer's regular files by path.
fn files<'a>(entries: &'a [Entry], digests: &[Option<Digest>]) -> BTreeMap<&'a str, Digest> {
    entries
        .iter()
        .zip(digests)
        .filter(|(entry, _)| matches!(entry.kind, EntryKind::Regular(_)))
        .filter_map(|(entry, digest)| Some((entry.path.as_str(), (*digest)?)))
        .collect()
}
