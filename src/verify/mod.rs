//! Whether an image is right, before a node finds out: read from where it is, and held against the formats' rules,
//! against what `KServe` and stargz-snapshotter do with it, and against its own words. Must not know how it is printed.

mod against;
mod caches;
mod deep;
mod documents;
pub mod finding;
mod image;
mod layer;
mod media_type;
mod names;
mod plain;
mod rebuild;
pub mod rules;
mod toc;
mod tree;
mod verdict;
mod whole;

use std::{collections::BTreeMap, num::NonZero, sync::Arc};

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};
use rayon::iter::{IndexedParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _};
use serde::Serialize;

use self::{
    against::Against,
    image::ImageView,
    layer::{Format, LayerView, Traffic},
    media_type::Compression,
    tree::Tree,
    whole::Whole,
};
pub use self::{
    finding::{Depth, Finding, Findings, Place, Rule, Severity, Use},
    verdict::{Verdict, Works},
};
use crate::{
    blob::SourceError,
    digest::Digest,
    estargz::Files,
    oci::{DEFAULT_TAG, ImageSource, OciError, Platform, STARCAR_PREFIX},
    pack::{FormatChoice, Packed, RecordedBase, RecordedOptions},
    progress::Observer,
    snapshot::Snapshot,
};

/// Layers that are looked at at a time: what takes time is the way to the registry.
const LAYERS_AT_A_TIME: usize = 8;

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
    /// The image of an index that is meant, `linux/amd64` where none is given; and what the config must then say.
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
    /// What it is: `estargz`, `tar`, `tar+gzip`, `tar+zstd`, `broken estargz` or `unknown`.
    pub format: &'static str,
    /// Number of files, directories and links; `None` where they were not looked at.
    pub entries: Option<usize>,
}

/// Verifies the image in `source`; `observer` hears of the bytes of layers that are read where all are.
///
/// # Errors
/// See [`VerifyError`]. What is wrong with the image itself is a finding.
pub fn verify(
    source: &dyn ImageSource,
    options: &VerifyOptions,
    observer: &dyn Observer,
) -> Result<Verification, VerifyError> {
    let mut findings = Findings::default();
    let traffic = Arc::new(Traffic::default());
    let is_deep = options.deep || options.against.is_some();
    let documents = documents::check(source, options.platform.as_ref(), &mut findings)?;
    traffic.add(documents.requests, documents.bytes);
    if source.reference().is_some_and(|name| name.digest().is_none() && name.tag() == Some(DEFAULT_TAG)) {
        findings.add(&rules::TAG_LATEST, Place::default(), format!("the image is named by {DEFAULT_TAG:?}"));
    }
    let mut layers = Vec::new();
    if let Some(manifest) = &documents.manifest {
        for looked in look(source, manifest.layers(), &traffic, is_deep)? {
            let (layer, found) = looked;
            layers.push(layer);
            findings.append(found);
        }
    }
    let claims = Claims::of(documents.manifest.as_ref(), documents.config.as_ref(), &mut findings);
    let uses = if options.uses.is_empty() { claims.uses() } else { options.uses.clone() };
    let caches = caches::read(&claims.labels, claims.model_directory(), &mut findings);
    let against = options
        .against
        .as_ref()
        .map(|snapshot| Against::new(snapshot, claims.model_directory(), &caches.directories));
    let mut read = None;
    if let Some(manifest) = documents.manifest.as_ref().filter(|_| is_deep) {
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, NonZero::get),
            threads => threads,
        };
        let config = documents.config.as_ref();
        let whole = Whole { source, manifest, config, threads, against: against.as_ref(), observer };
        read = Some(whole.read(&mut layers, &traffic, &mut findings)?);
    }
    laziness(&layers, &claims, &mut findings);
    if uses.contains(&Use::Fetch) {
        fetching(&layers, &mut findings);
    }
    let mut tree = Tree::default();
    for (index, layer) in layers.iter().enumerate() {
        if let Some(nodes) = &layer.nodes {
            tree.add(index, nodes);
            continue;
        }
        tree.is_incomplete = true;
        if matches!(layer.format, Format::Plain(_)) && !is_deep {
            let place = Place::layer(index, Some(layer.digest));
            findings.add(&rules::LAYER_UNREAD, place, "the layer was not looked into");
        }
    }
    if let (Some(against), Some(read)) = (&against, read) {
        read.compare(against, &tree, &mut findings)?;
    }
    caches::check(&caches, &claims.labels, &layers, &tree, &mut findings);
    if let Some(config) = &documents.config {
        let passwd = passwd(&tree, &layers);
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
        if let Some(version) = claims.get("version").filter(|version| *version != env!("CARGO_PKG_VERSION")) {
            let message = format!("it was packed by {version}, this is {}", env!("CARGO_PKG_VERSION"));
            findings.add(&rules::REBUILD_VERSION, Place::default(), message);
        }
        rebuild::check(manifest, documents.digest, rebuilt, &mut findings);
    }
    let mut findings = findings.finish(&uses);
    let verdicts = verdict::judge(&layers, tree.is_incomplete, &findings, &uses);
    if claims.has_no_shell() && !uses.contains(&Use::Modelcar) {
        // That is what was asked for; the verdict says it.
        findings.retain(|finding| *finding.rule != rules::SHELL_MISSING);
    }
    let (requests, bytes) = traffic.so_far();
    Ok(Verification {
        image: source.place(),
        digest: documents.digest,
        depth: match (&options.rebuilt, &options.against, is_deep) {
            (_, Some(_), _) => Depth::Against,
            (_, None, true) => Depth::Deep,
            (Some(_), ..) => Depth::Rebuild,
            _ => Depth::Quick,
        },
        size: layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add),
        requests,
        bytes,
        verdicts,
        worst: findings.iter().map(|finding| finding.severity).max(),
        findings,
        layers: layers
            .into_iter()
            .map(|layer| VerifiedLayer {
                digest: layer.digest,
                size: layer.size,
                format: layer.format.name(),
                entries: layer.nodes.as_ref().map(Vec::len),
                media_type: layer.media_type,
            })
            .collect(),
    })
}

/// Looks at all layers, several at a time.
fn look(
    source: &dyn ImageSource,
    descriptors: &[Descriptor],
    traffic: &Arc<Traffic>,
    is_deep: bool,
) -> Result<Vec<(LayerView, Findings)>, OciError> {
    let look = || {
        let layers = descriptors.par_iter().enumerate();
        layers.map(|(index, descriptor)| layer::look(source, index, descriptor, traffic, is_deep)).collect()
    };
    match rayon::ThreadPoolBuilder::new().num_threads(LAYERS_AT_A_TIME).build() {
        Ok(pool) => pool.install(look),
        // Fewer threads than that are left to this user: those that there are do it.
        Err(_) => look(),
    }
}

/// What an image says of itself.
struct Claims {
    labels: BTreeMap<String, String>,
    /// How starcar packed it.
    recorded: Option<RecordedOptions>,
}

impl Claims {
    fn of(
        manifest: Option<&ImageManifest>,
        config: Option<&ImageConfiguration>,
        findings: &mut Findings,
    ) -> Self {
        let labels =
            config.and_then(|config| config.config().as_ref()).and_then(|config| config.labels().clone());
        let labels: BTreeMap<String, String> = labels.unwrap_or_default().into_iter().collect();
        let annotations = manifest.and_then(|manifest| manifest.annotations().clone()).unwrap_or_default();
        let annotations: BTreeMap<String, String> = annotations.into_iter().collect();
        for (name, label) in &labels {
            let other = annotations.get(name).filter(|annotation| *annotation != label);
            if let Some(annotation) = other.filter(|_| name.starts_with(STARCAR_PREFIX)) {
                let message = format!("the label {name} is {label:?}, the annotation {annotation:?}");
                findings.add(&rules::LABEL_DIFFERS, Place::default(), message);
            }
        }
        let recorded = RecordedOptions::read(&annotations).ok().flatten();
        Self { labels, recorded }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.labels.get(&format!("{STARCAR_PREFIX}{name}")).map(String::as_str)
    }

    fn is_tar(&self) -> bool {
        self.get("layer-format") == Some(FormatChoice::Tar.name())
    }

    /// The model's directory, as layers name it.
    fn model_directory(&self) -> &str {
        self.get("model.directory").map_or(names::MODELS, |path| path.trim_start_matches('/'))
    }

    /// What the image is meant for.
    fn uses(&self) -> Vec<Use> {
        let format = if self.is_tar() { Use::Fetch } else { Use::Lazy };
        // `KServe` knows one place.
        if self.model_directory() != names::MODELS {
            return vec![format];
        }
        // Without a shell no container is meant to run.
        let modelcar = (!self.has_no_shell()).then_some(Use::Modelcar);
        [format].into_iter().chain(modelcar).chain([Use::Native]).collect()
    }

    /// Whether it was packed on no base.
    fn has_no_shell(&self) -> bool {
        self.recorded.as_ref().is_some_and(|options| options.base == RecordedBase::Scratch)
    }
}

/// Which layers keep others from being mounted lazily.
fn laziness(layers: &[LayerView], claims: &Claims, findings: &mut Findings) {
    let plain = |layer: &&LayerView| matches!(layer.format, Format::Plain(_));
    let count = layers.iter().filter(plain).count();
    if claims.is_tar() {
        for (index, layer) in layers.iter().enumerate() {
            if !matches!(layer.format, Format::Plain(Compression::None) | Format::Unknown) {
                let message = format!("the label says tar, the layer is {}", layer.format.name());
                findings.add(&rules::FORMAT_LABEL, Place::layer(index, Some(layer.digest)), message);
            }
        }
        return;
    }
    if count == layers.len() {
        if count > 0 {
            let message = format!("the layers are {}", layer::formats(layers));
            findings.add(&rules::IMAGE_NOT_LAZY, Place::default(), message);
        }
        return;
    }
    for (index, layer) in layers.iter().enumerate().filter(|(_, layer)| plain(layer)) {
        let above = layers.len() - index - 1;
        let message = format!(
            "the layer is {}: it and the {above} above it are pulled before a container starts",
            layer.format.name()
        );
        findings.add(&rules::LAYER_NOT_LAZY, Place::layer(index, Some(layer.digest)), message);
    }
}

/// What `KServe`'s downloader cannot unpack, where it is to be used.
fn fetching(layers: &[LayerView], findings: &mut Findings) {
    if let Some(reason) = verdict::not_fetched(layers) {
        let zstd = layers.iter().all(|layer| matches!(layer.format, Format::Plain(_)) && layer.members < 2);
        let rule = if zstd { &rules::FETCH_ZSTD } else { &rules::FETCH_GZIP };
        findings.add(rule, Place::default(), reason);
    }
}

/// The image's password file, where it can be read.
fn passwd(tree: &Tree, layers: &[LayerView]) -> Option<String> {
    let found = tree.find(plain::PASSWD)?;
    let layer = layers.get(found.layer)?;
    if let Some(bytes) = &layer.passwd {
        return Some(String::from_utf8_lossy(bytes).into_owned());
    }
    let (reader, blob) = (layer.format.reader()?, layer.blob.as_ref()?);
    let files = Files::of(reader).ok()?;
    let size = files.get(&found.node.path)?.size.min(plain::PASSWD_MAX);
    let bytes = files.read(&**blob, &found.node.path, 0, usize::try_from(size).ok()?).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
