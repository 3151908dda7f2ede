//! The platforms that an image is packed for, and what lies below the model on each. Layers of the model and of compile
//! caches are the same on all of them.

use std::ops::Range;

use super::{ModelDirectory, PackError, entries, recorded::RecordedIndex};
use crate::{
    base::{Base, BaseChoice, BaseError},
    blob::Spool,
    compile_cache::{
        Examined,
        identity::{Attribute, Identity},
    },
    layer::EntryKind,
    oci::{self, OciError, Platform},
    registry::Registry,
};

/// A platform, and what lies below the model there.
#[derive(Debug, Clone)]
pub struct PlatformOptions {
    /// The platform.
    pub platform: Platform,
    /// What lies below the model.
    pub base: BaseChoice,
}

/// The image of one platform, as far as it is no other's.
#[derive(Debug)]
pub(super) struct PlatformBase {
    pub(super) platform: Platform,
    pub(super) choice: BaseChoice,
    pub(super) base: Base,
    /// Indices of the base's layers among all that are sealed.
    pub(super) layers: Range<usize>,
}

/// What a plan has to leave room for, whatever platform a node has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BaseRoom {
    /// Layers of the base that has most.
    pub(super) layers: usize,
    /// Bytes that a node prefetches of the base of which it prefetches most.
    pub(super) prefetched: u64,
}

impl BaseRoom {
    /// What the bases of `platforms` need, and those of the images that are packed elsewhere.
    pub(super) fn of(platforms: &[PlatformBase], elsewhere: Option<&RecordedIndex>) -> Self {
        let mut room = elsewhere
            .map(|index| Self { layers: index.base_layers, prefetched: index.base_prefetched })
            .unwrap_or_default();
        for platform in platforms {
            let layers = &platform.base.layers;
            let prefetched = layers.iter().map(|layer| entries::base_prefetched(&layer.entries)).sum();
            room.layers = room.layers.max(layers.len());
            room.prefetched = room.prefetched.max(prefetched);
        }
        room
    }
}

/// Reads the bases. `registry` is asked for only when one is in a registry.
///
/// # Errors
/// See [`BaseError`]; of several platforms the error says which has no base.
pub(super) fn read_bases(
    platforms: &[PlatformOptions],
    directory: &ModelDirectory,
    modified: i64,
    spool: &Spool,
    registry: impl Fn() -> Result<Registry, OciError>,
) -> Result<Vec<PlatformBase>, PackError> {
    let mut bases = Vec::new();
    for PlatformOptions { platform, base: choice } in platforms {
        let base = read(choice, platform, modified, spool, &registry).map_err(|error| {
            if platforms.len() == 1 {
                return error.into();
            }
            PackError::PlatformBase { platform: platform.clone(), source: Box::new(error) }
        })?;
        check_base(&base, directory)?;
        bases.push(PlatformBase { platform: platform.clone(), choice: choice.clone(), base, layers: 0..0 });
    }
    Ok(bases)
}

fn read(
    choice: &BaseChoice,
    platform: &Platform,
    modified: i64,
    spool: &Spool,
    registry: impl FnOnce() -> Result<Registry, OciError>,
) -> Result<Base, BaseError> {
    match choice {
        BaseChoice::Scratch => Ok(Base::default()),
        BaseChoice::Binary(path) => Base::from_binary(path, platform, modified),
        BaseChoice::Image(target) => {
            let source = oci::open(target, registry)?;
            Base::from_image(&*source, platform, spool)
        }
    }
}

/// The model must not be hidden by what the base has in its place.
fn check_base(base: &Base, directory: &ModelDirectory) -> Result<(), PackError> {
    let path = directory.relative();
    let in_the_way = base.layers.iter().flat_map(|layer| &layer.entries).find(|entry| {
        let above =
            path == entry.path || path.strip_prefix(&entry.path).is_some_and(|rest| rest.starts_with('/'));
        above && !matches!(entry.kind, EntryKind::Directory)
    });
    match in_the_way {
        None => Ok(()),
        Some(entry) => Err(PackError::ModelDirectory {
            path: directory.absolute().to_owned(),
            reason: format!(
                "/{} is no directory in the base; choose another base or --model-dir",
                entry.path
            ),
        }),
    }
}

/// Whether a cache is of use on a platform: what it has for processors is for that one's, or it has nothing that tells.
/// Code for GPUs is the same whatever processor launches it.
pub(super) fn suits(examined: &Examined, platform: &Platform) -> bool {
    let processors = processors(&examined.identity);
    processors.is_empty() || processors.iter().any(|name| platform.runs(name))
}

/// The processors that a cache has code for, in ELF's words.
pub(super) fn processors(identity: &Identity) -> Vec<&str> {
    let of_cpu = identity.only(Attribute::Backend) == Some("cpu");
    let architectures = identity.facts(Attribute::Architecture).iter().filter(|_| of_cpu);
    let facts = identity.facts(Attribute::Processor).iter().chain(architectures);
    let mut names: Vec<&str> = facts.map(|fact| fact.value.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Platforms as a message names them.
pub(super) fn list(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
