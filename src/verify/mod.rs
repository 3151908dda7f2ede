//! Whether an image is right, before a node finds out: read from where it is, and held against the formats' rules,
//! against what `KServe` and stargz-snapshotter do with it, and against its own words. Must not know how it is printed.

mod against;
mod caches;
mod claims;
mod deep;
mod documents;
pub mod finding;
mod image;
mod index;
mod layer;
mod layers;
pub(crate) mod media_type;
mod names;
mod plain;
mod rebuild;
pub mod rules;
mod shared;
mod tar_split;
mod toc;
mod tree;
mod verdict;
mod whole;
mod zstd_chunked;

use std::{num::NonZero, sync::Arc};

use serde::Serialize;

use self::{
    against::Against, claims::Claims, image::ImageView, layer::Traffic, shared::Shared, whole::Whole,
};
pub use self::{
    finding::{Depth, Finding, Findings, Place, Rule, Severity, Use},
    index::PlatformVerification,
    verdict::{Verdict, Works},
};
use crate::{
    blob::SourceError,
    digest::Digest,
    oci::{DEFAULT_TAG, ImageSource, OciError, Platform, RootDocument, is_index},
    pack::Packed,
    progress::Observer,
    snapshot::Snapshot,
};

/// Why an image could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The image cannot be asked for, or its place fails.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// A file of the snapshot cannot be read, or changed meanwhile.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// What an image is verified for, and how much of it is read.
#[derive(Debug, Default)]
pub struct VerifyOptions {
    /// The image of an index that is meant, all where none is given; and what the config must then say.
    pub platform: Option<Platform>,
    /// The uses that matter; empty means those that the image's own labels claim: lazy starts unless its layers are plain
    /// tar on purpose, and `KServe`'s modes.
    pub uses: Vec<Use>,
    /// Whether all of the image is read.
    pub deep: bool,
    /// The snapshot that the image's files are compared with; all of the image is read for that.
    pub against: Option<Snapshot>,
    /// Threads to use where all is read; 0 takes as many as there are processors.
    pub threads: usize,
    /// What packing the image's snapshot again made, to be compared with.
    pub rebuilt: Option<Packed>,
}

impl VerifyOptions {
    /// How much of the image is read.
    fn depth(&self) -> Depth {
        match (&self.against, self.deep) {
            (Some(_), _) => Depth::Against,
            (None, true) => Depth::Deep,
            (None, false) => Depth::Quick,
        }
    }

    fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, NonZero::get),
            threads => threads,
        }
    }
}

/// What was found out about an image.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// The image's name.
    pub image: String,
    /// Digest of its manifest; `None` if it could not be read.
    pub digest: Option<Digest>,
    /// How much was read.
    pub depth: Depth,
    /// Bytes of all layers.
    pub size: u64,
    /// Requests that were made: documents and ranges of layers.
    pub requests: u64,
    /// Bytes that they asked for.
    pub bytes: u64,
    /// The layers, the lowest first.
    pub layers: Vec<VerifiedLayer>,
    /// Whether each use of the image works.
    pub verdicts: Vec<Verdict>,
    /// How bad the worst finding is; `None` if there is none.
    pub worst: Option<Severity>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// The images of an index; the rest is then about all of them, each layer counted once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<PlatformVerification>,
}

/// A layer that was looked at.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Media type.
    pub media_type: String,
    /// What it is: `estargz`, `zstd:chunked`, `tar`, `tar+gzip`, `tar+zstd`, `broken estargz`, `broken zstd:chunked` or
    /// `unknown`.
    pub format: &'static str,
    /// Number of files, directories and links; `None` where they were not looked at.
    pub entries: Option<usize>,
}

/// Verifies the image in `source`, or all images of an index unless one is asked for; `observer` hears of the bytes of layers that are read where all are.
///
/// # Errors
/// See [`VerifyError`]. What is wrong with the image itself is a finding.
pub fn verify(
    source: &dyn ImageSource,
    options: &VerifyOptions,
    observer: &dyn Observer,
) -> Result<Verification, VerifyError> {
    match source.root_document() {
        Ok(root) if options.platform.is_none() && is_index(&root.media_type) => {
            index::verify(source, &root, options, observer)
        }
        root => verify_image(source, root, options.platform.as_ref(), options, None, observer),
    }
}

/// A word about the name of an image.
fn check_name(source: &dyn ImageSource, findings: &mut Findings) {
    if source.reference().is_some_and(|name| name.digest().is_none() && name.tag() == Some(DEFAULT_TAG)) {
        findings.add(&rules::TAG_LATEST, Place::default(), format!("the image is named by {DEFAULT_TAG:?}"));
    }
}

/// Verifies one image: the one whose manifest is `root`, or that of an index for `platform`. What it has in common with
/// others of the same index is taken from `shared`.
fn verify_image(
    source: &dyn ImageSource,
    root: Result<RootDocument, OciError>,
    platform: Option<&Platform>,
    options: &VerifyOptions,
    mut shared: Option<&mut Shared>,
    observer: &dyn Observer,
) -> Result<Verification, VerifyError> {
    let mut findings = Findings::default();
    let traffic = Arc::new(Traffic::default());
    let is_deep = options.depth() >= Depth::Deep;
    let documents = documents::check(source, root, shared.is_some(), platform, &mut findings)?;
    traffic.add(documents.requests, documents.bytes);
    if shared.is_none() {
        check_name(source, &mut findings);
    }
    let descriptors = documents.manifest.as_ref().map(|manifest| manifest.layers().as_slice());
    let descriptors = descriptors.unwrap_or_default();
    let mut layers =
        layers::look(source, descriptors, &traffic, is_deep, shared.as_deref_mut(), &mut findings)?;
    let claims = Claims::of(documents.manifest.as_ref(), documents.config.as_ref(), &mut findings);
    let uses = if options.uses.is_empty() { claims.uses() } else { options.uses.clone() };
    let caches = caches::read(&claims.labels, claims.model_directory(), &mut findings);
    let against = options
        .against
        .as_ref()
        .map(|snapshot| Against::new(snapshot, claims.model_directory(), &caches.directories));
    let mut read = None;
    if let Some(manifest) = documents.manifest.as_ref().filter(|_| is_deep) {
        let config = documents.config.as_ref();
        let threads = options.threads();
        let whole = Whole { source, manifest, config, threads, against: against.as_ref(), observer };
        read = Some(whole.read(&mut layers, &traffic, shared, &mut findings)?);
    }
    layers::laziness(&layers, &claims, uses.contains(&Use::Lazy), &mut findings);
    if uses.contains(&Use::Fetch) {
        layers::fetching(&layers, &mut findings);
    }
    let tree = layers::tree(&layers, is_deep, &mut findings);
    if let (Some(against), Some(read)) = (&against, read) {
        read.compare(against, &tree, &mut findings)?;
    }
    claims.check(&tree, &mut findings);
    caches::check(&caches, &claims.labels, &layers, &tree, &mut findings);
    if let Some(config) = &documents.config {
        let passwd = layers::passwd(&tree, &layers, &mut findings);
        let image = ImageView {
            config,
            layers: &layers,
            tree: &tree,
            passwd: passwd.as_deref(),
            caches: &caches.directories,
        };
        image::check(&image, &mut findings);
    }
    if let (Some(rebuilt), Some(manifest)) = (&options.rebuilt, &documents.manifest) {
        rebuild::check(manifest, documents.digest, claims.get("version"), rebuilt, &mut findings);
    }
    let is_not_meant = claims.is_for_storage && !uses.contains(&Use::Lazy);
    if is_not_meant {
        // Its descriptors are as containers-storage wants them.
        findings = findings.without(&[&rules::TOC_ANNOTATION_MISSING]);
    }
    let mut findings = findings.finish(&uses);
    let mut verdicts = verdict::judge(&layers, tree.is_incomplete, is_deep, &findings, &uses);
    if is_not_meant {
        verdict::not_meant(&mut verdicts, &findings);
    }
    if claims.has_no_shell() && !uses.contains(&Use::Modelcar) {
        // That is what was asked for; the verdict says it.
        findings.retain(|finding| *finding.rule != rules::SHELL_MISSING);
    }
    let (requests, bytes) = traffic.so_far();
    Ok(Verification {
        image: source.place(),
        digest: documents.digest,
        depth: options.depth(),
        size: layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add),
        requests,
        bytes,
        verdicts,
        worst: findings.iter().map(|finding| finding.severity).max(),
        findings,
        platforms: Vec::new(),
        layers: layers
            .into_iter()
            .map(|layer| VerifiedLayer {
                digest: layer.digest,
                size: layer.size,
                format: layer.format.name(),
                entries: layer.nodes.as_ref().map(|nodes| nodes.len()),
                media_type: layer.media_type,
            })
            .collect(),
    })
}
