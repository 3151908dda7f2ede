//! A part of an image: the layers that one of several workers seals and sends, with all that is needed to make the image
//! of them where no worker's files are. Every worker plans the whole image. Must not know how parts are put together.

mod document;
mod facts;
mod number;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::MediaType;
use serde::Serialize;

pub use self::{
    document::PART_TYPE,
    number::{PARTS_MAX, Part},
};
pub(crate) use self::{
    document::{CONFIG_MAX, FORMAT_VERSION, MadeOf, PartDocument, PartLabel, PartLayer, PartVersions},
    facts::{FileFacts, PartPlan},
    number::stem,
};
use super::{
    Destination, PackError, PackedLayer, Prepared, Told,
    blueprint::LayerFacts,
    image::packed_layer,
    seal_layers,
    write::{blobs, memory},
};
use crate::{
    blob::{FileStamp, Source, SourceError},
    digest::Digest,
    layer::{Data, EntryKind, Expected, LayerError},
    naming::Naming,
    oci::{DEFAULT_TAG, Layout, OciError, Selector},
    progress::Observer,
    push::push_image,
    registry::{Reference, Registry, RegistryError},
};

/// A part that can be sealed. What was prepared has its layers alone by now.
#[derive(Debug)]
pub struct PreparedPart {
    prepared: Prepared,
    part: Part,
    plan: PartPlan,
    plan_digest: Digest,
    known_digests: BTreeMap<String, Vec<String>>,
    /// Which layers of the plan are the part's.
    indices: Vec<usize>,
}

/// A file of a part that lies elsewhere than where it was planned.
#[derive(Debug, Clone)]
pub struct MovedFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What its content must have.
    pub expected: Expected,
}

/// A part that was made.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackedPart {
    /// Which part it is.
    pub part: Part,
    /// Digest of the part's manifest, of the first destination's where images have several tags.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Digest of the plan that all parts share.
    pub plan: Digest,
    /// The part's layers, in their order in the plan.
    pub layers: Vec<PackedLayer>,
}

impl Prepared {
    /// The part of what was prepared that one worker makes.
    ///
    /// # Errors
    /// When the start of a file cannot be read.
    pub fn part(mut self, part: Part) -> Result<PreparedPart, PackError> {
        let plan = PartPlan::of(&self)?;
        let plan_digest = plan.digest().map_err(|error| OciError::Document {
            what: "config",
            place: format!("part {part}"),
            reason: error.to_string(),
        })?;
        let known_digests = facts::known_digests(&self.layers);
        let sizes: Vec<u64> = self.layers.iter().map(seal_layers::payload).collect();
        let indices = part.share(&sizes);
        let mut index = 0;
        self.layers.retain(|_| {
            index += 1;
            indices.binary_search(&(index - 1)).is_ok()
        });
        Ok(PreparedPart { prepared: self, part, plan, plan_digest, known_digests, indices })
    }
}

impl PreparedPart {
    /// Which part it is.
    pub fn part(&self) -> Part {
        self.part
    }

    /// The part's layers: what each holds, and its bytes of payload.
    pub fn layers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.prepared.layers.iter().map(|spec| (spec.title.as_str(), seal_layers::payload(spec)))
    }

    /// The number of layers of all parts.
    pub fn layers_of_all(&self) -> usize {
        self.plan.image.layers.len()
    }

    /// What was prepared, with the layers of this part alone.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Where the files lie that the part's layers take bytes from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let entries = self.prepared.layers.iter().flat_map(|spec| &spec.entries);
        entries.filter_map(|entry| match &entry.kind {
            EntryKind::Regular(content) => match &content.data {
                Data::Source { source, .. } => match &**source {
                    Source::Path { path, .. } => Some(path.as_path()),
                    Source::Spool(_) => None,
                },
                Data::Bytes(_) => None,
            },
            _ => None,
        })
    }

    /// Takes files of the part from where they lie now, by where they were planned.
    ///
    /// # Errors
    /// When one is not there.
    pub fn take_from(&mut self, moved: &BTreeMap<PathBuf, MovedFile>) -> Result<(), PackError> {
        for entry in self.prepared.layers.iter_mut().flat_map(|spec| &mut spec.entries) {
            let EntryKind::Regular(content) = &mut entry.kind else { continue };
            let Data::Source { source, .. } = &mut content.data else { continue };
            let Source::Path { path, .. } = &**source else { continue };
            let Some(found) = moved.get(path) else { continue };
            let metadata = std::fs::metadata(&found.path)
                .map_err(|cause| LayerError::Source(SourceError::Open { path: found.path.clone(), cause }))?;
            let stamp = FileStamp::of(&metadata);
            *source = Arc::new(Source::Path { path: found.path.clone(), stamp });
            content.expected = vec![found.expected.clone()];
        }
        Ok(())
    }

    /// Seals the part's layers and brings them to all `destinations`, each of which then has the part under a tag of its
    /// own beside that of the image. The part tells what was `told`, for documents about the image.
    ///
    /// # Errors
    /// See [`PackError`].
    pub fn write(
        &self,
        destinations: &[Destination],
        told: Option<Told>,
        observer: &dyn Observer,
    ) -> Result<PackedPart, PackError> {
        let prepared = &self.prepared;
        // Hours of packing should not end in a name that cannot be.
        for destination in destinations {
            if let Destination::Registry { registry, reference, .. } = destination {
                prepared.check_sizes(reference)?;
                if let Some(missing) = registry.check_for_nodes(reference).map_err(OciError::from)? {
                    tracing::warn!("{}: {}", reference.registry(), missing.detail);
                }
                check_registry(registry, &self.reference(reference))?;
            }
        }
        let layout = destinations
            .iter()
            .find_map(|destination| match destination {
                Destination::Layout { path, .. } => Some(prepared.create_layout(path)),
                _ => None,
            })
            .transpose()?;
        for destination in destinations {
            if let (Destination::Layout { tag, .. }, Some(layout)) = (destination, &layout) {
                check_layout(layout, &self.part.tag(tag))?;
            }
        }
        let keep = prepared.keep(layout.as_ref(), destinations)?;
        observer.hashing(prepared.payload());
        let sealed =
            seal_layers::seal_layers(&prepared.layers, &prepared.options, &prepared.spool, keep, observer)?;
        let files =
            prepared.layer_inputs(self.indices.iter().copied(), self.plan.image.layers.len(), &sealed);
        let mut document = PartDocument {
            format_version: FORMAT_VERSION,
            starcar_version: env!("CARGO_PKG_VERSION").to_owned(),
            part: self.part,
            image_tag: String::new(),
            plan_digest: self.plan_digest,
            plan: self.plan.clone(),
            known_digests: self.known_digests.clone(),
            layers: self
                .indices
                .iter()
                .zip(&sealed)
                .map(|(index, layer)| PartLayer::of(*index, layer))
                .collect(),
            made_of: told.map(|told| MadeOf { told, files }),
        };
        let mut first = None;
        for destination in destinations {
            document.image_tag = stem(match destination {
                Destination::Layout { tag, .. } | Destination::Archive { tag, .. } => tag,
                Destination::Registry { reference, .. } => reference.tag().unwrap_or(DEFAULT_TAG),
            });
            let built = document.build()?;
            match destination {
                Destination::Layout { tag, .. } => {
                    let Some(layout) = &layout else { continue };
                    let documents: [&[u8]; 2] = [&built.config, &built.manifest];
                    layout.tag_with(built.descriptor.clone(), &self.part.tag(tag), &documents)?;
                }
                Destination::Registry { registry, reference, .. } => {
                    let mut blobs = blobs(0..sealed.len(), &sealed, layout.as_ref())?;
                    blobs.push(memory(&built.config));
                    let name = self.reference(reference);
                    let manifest = (MediaType::ImageManifest, built.manifest.as_slice());
                    push_image(registry, &name, &blobs, &[manifest], Naming::Move, observer)?;
                }
                Destination::Archive { path, .. } => {
                    return Err(PackError::PartInArchive { path: path.clone() });
                }
            }
            first.get_or_insert((built.digest, built.manifest.len() as u64));
        }
        let (digest, size) = match first {
            Some(first) => first,
            None => document.build().map(|built| (built.digest, built.manifest.len() as u64))?,
        };
        let facts: Vec<LayerFacts> = prepared.layers.iter().map(LayerFacts::from).collect();
        Ok(PackedPart {
            part: self.part,
            digest,
            size,
            plan: self.plan_digest,
            layers: facts.iter().zip(&sealed).map(|(facts, sealed)| packed_layer(facts, sealed)).collect(),
        })
    }

    /// The name of the part of the image that gets `reference`.
    fn reference(&self, reference: &Reference) -> Reference {
        part_reference(reference, self.part)
    }
}

/// The name of a part of the image that gets `reference`.
pub(crate) fn part_reference(reference: &Reference, part: Part) -> Reference {
    let (host, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
    Reference::with_tag(host, repository, part.tag(reference.tag().unwrap_or(DEFAULT_TAG)))
}

/// Whether a manifest is that of a part.
pub(crate) fn is_part(manifest: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        artifact_type: Option<String>,
    }
    let typed = serde_json::from_slice::<Typed>(manifest).ok();
    typed.and_then(|typed| typed.artifact_type).as_deref() == Some(PART_TYPE)
}

/// Makes sure that a part's tag names nothing but a part, which may be of an earlier attempt.
fn check_registry(registry: &Registry, name: &Reference) -> Result<(), PackError> {
    match registry.pull_manifest(name) {
        Ok(present) if !is_part(&present.bytes) => Err(PackError::NotAPart { name: name.to_string() }),
        // Who may push and not pull cannot ask.
        Ok(_)
        | Err(
            RegistryError::NotFound { .. }
            | RegistryError::Unauthorized { .. }
            | RegistryError::Denied { .. },
        ) => Ok(()),
        Err(error) => Err(OciError::from(error).into()),
    }
}

/// As [`check_registry`], in a layout.
fn check_layout(layout: &Layout, tag: &str) -> Result<(), PackError> {
    // A layout that nothing was added to has no index yet.
    let Ok(present) = layout.find(&Selector::Tag(tag.to_owned())) else { return Ok(()) };
    let kind = present.artifact_type().as_ref().map(ToString::to_string);
    if kind.as_deref() == Some(PART_TYPE) {
        return Ok(());
    }
    Err(PackError::NotAPart { name: format!("oci:{}:{tag}", layout.root().display()) })
}
