//! An image of parts that several workers made: finds them, makes sure that they are one image's, and writes the documents
//! that one machine would have written, the name last. Must not know how layers are made.

mod check;
mod config;
mod differences;
mod error;
mod find;
mod read;
mod sound;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use oci_spec::image::MediaType;

use self::{
    check::{Agreed, Said, agree},
    find::find,
    read::FoundPart,
    sound::Sound,
    told::told,
};
pub use self::{
    config::PartConfig,
    error::{AssembleError, PartsError},
};
use crate::{
    blob::BlobContent,
    copy::{self, send_blobs},
    naming::Naming,
    oci::{DEFAULT_TAG, Layout, OciError, Target, is_tag, variant_tag},
    pack::{
        Described, Destination, Inputs, PackError, Packed, Part, Told,
        image::Named,
        part::{PartLabel, part_reference, stem},
        write::{add, archive, memory},
    },
    progress::Observer,
    push::push_image,
    registry::{Reference, Registry, RegistryError},
};

/// What is assembled, and where it goes.
pub struct AssembleOptions<'a> {
    /// Where parts are: layouts and names of images, or parts themselves; if none is named, where the image goes.
    pub sources: &'a [Target],
    /// Where the image goes.
    pub destinations: &'a [Destination],
    /// How many parts there are, where that is known.
    pub parts: Option<u16>,
    /// Whether the parts have to tell what they were made of.
    pub told: bool,
}

/// An image that was assembled.
pub struct Assembled {
    /// The image, as packing it on one machine would tell of it.
    pub packed: Packed,
    /// What documents about it tell beside, if that was asked for.
    pub told: Option<(Told, Described)>,
    /// What it was made of.
    parts: Vec<FoundPart>,
}

/// Assembles an image. Parts stay where they are ([`Assembled::remove_parts`]).
///
/// # Errors
/// See [`AssembleError`]. A destination that fails has no image under its name.
pub fn assemble(
    options: &AssembleOptions<'_>,
    registry: &dyn Fn() -> Result<Registry, OciError>,
    observer: &dyn Observer,
) -> Result<Assembled, AssembleError> {
    let found = find(options.sources, options.destinations, options.parts, options.told, registry)?;
    let said = Said { place: &found.place, make: &found.make };
    let agreed = agree(&found.parts, &found.seen.plans, options.parts, &said)
        .map_err(|problem| AssembleError::Parts { problem, remote: found.remote })?;
    let blueprint = &agreed.plan.image;
    let (told, inputs) = if options.told {
        let (told, inputs) =
            told(&agreed).map_err(|problem| AssembleError::Parts { problem, remote: found.remote })?;
        (Some((told, blueprint.described())), inputs)
    } else {
        (None, Inputs::default())
    };
    let named = blueprint.documents(&agreed.sealed)?;
    check_names(options.destinations, &blueprint.targets, &named)?;
    let mut packed = None;
    for destination in options.destinations {
        deliver(destination, &agreed, &named, observer)?;
        packed = blueprint.packed(&agreed.sealed, &named);
    }
    let packed = Packed { inputs, ..packed.ok_or(PackError::NoPlatform)? };
    Ok(Assembled { packed, told, parts: found.parts })
}

impl Assembled {
    /// Removes the parts from where the image is now: those that it was made of, if they lie there, and the same ones
    /// under the names that parts of this image have there. All others are left alone. Returns which could not be
    /// removed, and why.
    pub fn remove_parts(&self, destinations: &[Destination]) -> Vec<(String, String)> {
        let mut failed = BTreeMap::new();
        for destination in destinations {
            for part in &self.parts {
                match destination {
                    Destination::Layout { path, tag, .. } => {
                        if let Err(error) = untag(path, tag, part) {
                            failed.insert(part.name.clone(), error.to_string());
                        }
                    }
                    Destination::Registry { registry, reference, .. } => {
                        if let Err((name, reason)) = remove(registry, reference, part) {
                            failed.insert(name, reason);
                        }
                    }
                    Destination::Archive { .. } => {}
                }
            }
        }
        failed.into_iter().collect()
    }
}

/// Makes sure that all names can be given, before anything is sent.
fn check_names(
    destinations: &[Destination],
    targets: &[String],
    named: &[Named],
) -> Result<(), AssembleError> {
    for destination in destinations {
        let tag = match destination {
            Destination::Layout { tag, .. } | Destination::Archive { tag, .. } => tag.as_str(),
            Destination::Registry { registry, reference, naming } => {
                registry.check_push(reference).map_err(OciError::from)?;
                for (named, digest) in named.iter().filter_map(|named| Some((named, named.digest()?))) {
                    naming.check(registry, &named.reference(reference), digest)?;
                }
                reference.tag().unwrap_or(DEFAULT_TAG)
            }
        };
        for target in targets {
            let tag = variant_tag(tag, Some(target));
            if !is_tag(&tag) {
                return Err(PackError::VariantTag { tag, target: target.clone() }.into());
            }
        }
    }
    Ok(())
}

/// Brings the image to a destination: what it lacks of the layers, documents, names.
fn deliver(
    destination: &Destination,
    agreed: &Agreed<'_>,
    named: &[Named],
    observer: &dyn Observer,
) -> Result<(), AssembleError> {
    let send = |to: &copy::Destination| {
        agreed.parts.iter().try_for_each(|part| send_blobs(&*part.source, to, &part.blobs(), observer))
    };
    match destination {
        Destination::Layout { path, tag, naming } => {
            let layout = Layout::create(path)?;
            send(&copy::Destination::Layout { layout: layout.clone(), tag: tag.clone(), naming: *naming })?;
            named.iter().try_for_each(|named| add(&layout, named, tag, *naming))?;
        }
        Destination::Registry { registry, reference, naming } => {
            let (registry, naming) = (registry.clone(), *naming);
            send(&copy::Destination::Registry {
                registry: registry.clone(),
                reference: reference.clone(),
                naming,
            })?;
            for named in named {
                let configs: Vec<_> = named.configs().map(memory).collect();
                let documents: Vec<(MediaType, &[u8])> = named.documents();
                push_image(&registry, &named.reference(reference), &configs, &documents, naming, observer)?;
            }
        }
        Destination::Archive { path, tag } => {
            // In the plan's order, as whoever packs alone writes them.
            let of_part =
                |part: &&'_ FoundPart, digest| part.layers.iter().any(|layer| layer.digest == digest);
            let mut blobs = Vec::new();
            for layer in &agreed.sealed {
                let part = agreed.parts.iter().find(|part| of_part(part, layer.digest));
                let content = part.map(|part| part.source.content(layer.digest, layer.size)).transpose()?;
                blobs.extend(content.map(|content| Arc::new(Sound(content)) as Arc<dyn BlobContent>));
            }
            archive(path, tag, named, blobs)?;
        }
    }
    Ok(())
}

/// Removes a part from a layout.
fn untag(path: &Path, tag: &str, part: &FoundPart) -> Result<(), OciError> {
    let layout = Layout::open(path)?;
    let mut tags = BTreeSet::from([part.part.tag(tag)]);
    tags.extend(part.place.tag_in(path));
    tags.iter().try_for_each(|tag| layout.untag(tag, part.manifest, &[part.manifest, part.config]))
}

/// Removes a part from a repository. Registries remove a manifest with all tags that name it, so it must be that of a part
/// that was made under this very tag. Returns the name of one that stays, and why.
fn remove(registry: &Registry, reference: &Reference, part: &FoundPart) -> Result<(), (String, String)> {
    let gone = |removed| match removed {
        Ok(()) | Err(RegistryError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    let own = part_reference(reference, part.part);
    if let Some(tag) = part.place.part_tag_in(reference) {
        if Part::of_tag(tag).is_some_and(|(image_tag, _)| image_tag == part.image_tag) {
            gone(registry.remove_manifest(reference, part.manifest))
                .map_err(|reason| (part.name.clone(), reason))?;
        } else {
            let reason = format!("it was made as a part of {}", part.image_tag.escape_debug());
            return Err((part.name.clone(), reason));
        }
        if Some(tag) == own.tag() {
            return Ok(());
        }
    }
    // The workers may have brought it here as well as to where it was read.
    let label = PartLabel {
        part: part.part.to_string(),
        plan: part.plan_digest.to_string(),
        image_tag: stem(reference.tag().unwrap_or(DEFAULT_TAG)),
    };
    match registry.pull_manifest(&own) {
        Ok(present) if PartLabel::of(&present.bytes) == Some(label) => {
            gone(registry.remove_manifest(&own, present.digest)).map_err(|reason| (own.to_string(), reason))
        }
        // What is not there, or not this part, or not for us to see, does no harm.
        _ => Ok(()),
    }
}

/// Whether a name is left to find parts by.
pub(crate) fn has_tag(destination: &Destination) -> bool {
    !matches!(destination, Destination::Registry { naming: Naming::Digest, .. } | Destination::Archive { .. })
}
