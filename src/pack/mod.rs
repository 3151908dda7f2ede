//! Packing: ties snapshot, base, plan, layers, image and destination together, in that order. The one place
//! that knows them all, and that decides nothing that one of them could.

mod assign;
pub(crate) mod blueprint;
pub(crate) mod cache_labels;
mod caches;
mod entries;
mod error;
pub(crate) mod image;
pub(crate) mod inputs;
mod known;
mod model_directory;
mod packed;
pub(crate) mod part;
mod platforms;
mod recorded;
mod room;
mod seal_layers;
pub(crate) mod survey;
mod told;
pub(crate) mod write;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use self::platforms::{BaseRoom, PlatformBase, read_bases};
pub use self::{
    caches::{CacheOption, CacheOptions, Caches, PreparedCache},
    error::PackError,
    inputs::{InputBase, InputCache, InputFile, Inputs},
    model_directory::ModelDirectory,
    packed::{Packed, PackedBlob, PackedLayer, PackedVariant},
    part::{MovedFile, PART_TYPE, PARTS_MAX, PackedPart, Part, PreparedPart},
    platforms::PlatformOptions,
    recorded::{RecordedBase, RecordedIndex, RecordedOptions, recorded_profile},
    room::CompressedWeights,
    told::{Described, Given, GivenCache, GivenPlatform, GivenProfile, Told},
    write::Destination,
};
use crate::{
    blob::Spool,
    compile_cache::CacheRecord,
    digest_cache::DigestCache,
    estargz::Estargz,
    layer::{Entry, EntryKind, LayerFormat, PlainTar, Storage},
    oci::{OciError, Platform},
    plan::{
        CHUNK_SIZE_DEFAULT, Compression, LayerKind, Nodes, Plan, PlanFile, PlanOptions, PlannedLayer,
        Prefetch, ZSTD_CHUNK_SIZE_DEFAULT, plan,
    },
    profile::{FileUse, Profile, Recording, Resolution, Source, Tree, resolve},
    registry::Registry,
    snapshot::{self, Snapshot, SnapshotOptions},
    zstd_chunked::{Consumer, Consumers, ZstdChunked},
};

/// Compressed members that are kept in memory before a temporary file takes the rest, in bytes.
const SPOOL_MEMORY: usize = 32 << 20;

/// Files that a warning names before it only counts.
const ABSENT_SHOWN: usize = 5;

/// What is packed, and how.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Path of the snapshot, or a repository in the hub cache.
    pub snapshot: String,
    /// Which of its files.
    pub files: SnapshotOptions,
    /// The platforms, at least one, each with what lies below the model there; of several, an index lists the images in
    /// this order.
    pub platforms: Vec<PlatformOptions>,
    /// What other images of the same index need, where those are not packed now.
    pub index: Option<RecordedIndex>,
    /// Where the model lies in the image.
    pub model_directory: ModelDirectory,
    /// Format of all layers.
    pub format: FormatChoice,
    /// Which files are compressed.
    pub compression: Compression,
    /// Whether weights are compressed too, by the frequency of their bytes: fewer bytes on the link for more work on the
    /// node. Plain tar does not compress.
    pub compress_weights: bool,
    /// Which files a node fetches before a container runs.
    pub prefetch: Prefetch,
    /// The nodes that the image is for.
    pub nodes: Nodes,
    /// What a start reads; `None` lays the files out in natural order.
    pub profile: Option<Profile>,
    /// Whether the profile is about this model, so that a path in it that the snapshot lacks is worth a word.
    pub profile_is_specific: bool,
    /// Compile caches to pack.
    pub caches: CacheOptions,
    /// Largest length of a chunk in bytes.
    pub chunk_size: u64,
    /// Largest number of layers.
    pub max_layers: usize,
    /// Threads to use.
    pub threads: usize,
    /// Time that the image and the model's files bear, seconds since 1970.
    pub modified: i64,
    /// Where temporary files go.
    pub temporary: PathBuf,
    /// Keeps what sealing layers finds out from one run to the next; `None` keeps nothing.
    pub digest_cache: Option<DigestCache>,
    /// Whether all sources are read, whatever the digest cache knows, and layers that a layout has already are looked
    /// at.
    pub verify_sources: bool,
}

/// Format of an image's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatChoice {
    /// eStargz, compressed at a deflate level from 0 to 9.
    Estargz {
        /// The level.
        level: u32,
    },
    /// zstd:chunked, compressed at a zstd level from 1 to 22.
    ZstdChunked {
        /// The level.
        level: u32,
        /// Whom the layers are for.
        consumers: Consumers,
    },
    /// Plain tar.
    Tar,
}

impl FormatChoice {
    fn format(self) -> Arc<dyn LayerFormat> {
        match self {
            Self::Estargz { level } => Arc::new(Estargz::new(level)),
            Self::ZstdChunked { level, consumers } => {
                Arc::new(ZstdChunked::new(level).for_consumers(consumers))
            }
            Self::Tar => Arc::new(PlainTar),
        }
    }

    /// Bytes per second that one core of a node unpacks of entropy coded weights: Go's gunzip and klauspost's zstd, which
    /// stargz-snapshotter uses. Source: docs/measurements.md.
    pub fn unpack_speed(self) -> Option<f64> {
        match self {
            Self::Estargz { .. } => Some(0.1e9),
            Self::ZstdChunked { .. } => Some(0.5e9),
            Self::Tar => None,
        }
    }

    /// Largest length of a chunk in bytes, where the user says nothing of it.
    pub fn chunk_size_default(self) -> u64 {
        match self {
            Self::ZstdChunked { .. } => ZSTD_CHUNK_SIZE_DEFAULT,
            Self::Estargz { .. } | Self::Tar => CHUNK_SIZE_DEFAULT,
        }
    }

    /// The name that labels and options use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Estargz { .. } => "estargz",
            Self::ZstdChunked { .. } => "zstd:chunked",
            Self::Tar => "tar",
        }
    }

    /// The consumers who get an image of their own of the same layers, or one `None` where one image is for all who can
    /// read it.
    fn consumers(self) -> &'static [Option<Consumer>] {
        match self {
            Self::ZstdChunked { consumers: Consumers::ContainersStorage, .. } => {
                &[Some(Consumer::ContainersStorage)]
            }
            Self::ZstdChunked { consumers: Consumers::Both, .. } => {
                &[Some(Consumer::Stargz), Some(Consumer::ContainersStorage)]
            }
            Self::Estargz { .. } | Self::ZstdChunked { .. } | Self::Tar => &[None],
        }
    }

    /// Whether layers of this format have prefetch landmarks.
    fn has_landmarks(self) -> bool {
        matches!(self, Self::Estargz { .. } | Self::ZstdChunked { .. })
    }
}

/// A layer that can be sealed.
#[derive(Debug)]
pub(crate) struct LayerSpec {
    pub kind: LayerKind,
    /// What the layer holds, in a few words.
    pub title: String,
    pub created_by: String,
    pub entries: Vec<Entry>,
    /// Paths in the image of the snapshot's files in the layer.
    pub files: Vec<String>,
    /// About how many bytes those of its files take that are entropy coded.
    pub entropy_coded: u64,
}

impl LayerSpec {
    /// Bytes of payload that lie in the layer as they are, and about how many entropy coded ones.
    fn bulk(&self) -> u64 {
        self.stored_payload() + self.entropy_coded
    }

    /// Bytes of payload that lie in the layer as they are.
    fn stored_payload(&self) -> u64 {
        let stored = |entry: &&Entry| matches!(&entry.kind, EntryKind::Regular(content) if content.storage == Storage::Stored);
        self.entries.iter().filter(stored).map(Entry::size).sum()
    }
}

/// Everything that is known before a weight is read.
#[derive(Debug)]
pub struct Prepared {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// What the planner was given.
    pub files: Vec<PlanFile>,
    /// The plan.
    pub plan: Plan,
    /// How it was planned.
    pub plan_options: PlanOptions,
    /// The compile caches.
    pub caches: Caches,
    /// What the user should know.
    pub warnings: Vec<String>,
    options: PackOptions,
    /// The layers of each platform's base, then those of the model, which all images have, and then one for each compile
    /// cache.
    layers: Vec<LayerSpec>,
    /// The platforms in the order that was asked for.
    platforms: Vec<PlatformBase>,
    spool: Spool,
}

impl Prepared {
    /// The planned layers above the base, each with what the planner was given for it, and what the image says of a
    /// compile cache.
    pub fn planned(&self) -> impl Iterator<Item = (&PlannedLayer, &[PlanFile], Option<&CacheRecord>)> {
        let of_model = self.plan.layers.iter().map(|layer| (layer, self.files.as_slice(), None));
        let of_caches = self
            .caches
            .caches
            .iter()
            .map(|cache| (&cache.planned, cache.files.as_slice(), Some(&cache.record)));
        of_model.chain(of_caches)
    }

    /// The platforms, in the order that was asked for, each with the number of its base's layers.
    pub fn platforms(&self) -> impl Iterator<Item = (&Platform, usize)> {
        self.platforms.iter().map(|platform| (&platform.platform, platform.layers.len()))
    }

    /// Whether the layers will have prefetch landmarks: plain tar has none.
    pub fn has_landmarks(&self) -> bool {
        self.options.format.has_landmarks()
    }

    /// What is packed, and how.
    pub fn options(&self) -> &PackOptions {
        &self.options
    }

    /// What the images say of themselves.
    pub fn described(&self) -> Described {
        self.blueprint().described()
    }

    /// The profile that the image is laid out by.
    pub fn profile(&self) -> Option<&Profile> {
        self.options.profile.as_ref()
    }

    /// Whether somebody recorded the profile, so that its times are those of a real start.
    pub fn is_recorded(&self) -> bool {
        let recorded =
            |recording: &Recording| matches!(recording.source, Some(Source::Record | Source::Strace));
        self.options.profile.as_ref().is_some_and(|profile| profile.recordings.iter().any(recorded))
    }
}

/// Reads snapshot and base, and plans. `registry` is asked for only when the base is in one.
///
/// # Errors
/// See [`PackError`].
pub fn prepare(
    options: PackOptions,
    registry: impl Fn() -> Result<Registry, OciError>,
) -> Result<Prepared, PackError> {
    if options.platforms.is_empty() {
        return Err(PackError::NoPlatform);
    }
    let snapshot = open_snapshot(&options)?;
    let elsewhere = options.index.iter().flat_map(RecordedIndex::platforms);
    let of_index: Vec<Platform> =
        options.platforms.iter().map(|one| one.platform.clone()).chain(elsewhere).collect();
    let caches = assign::examine_all(&options.caches, &of_index)?;
    let in_the_way = format!("{}/", caches::CACHE_DIRECTORY);
    if let Some(file) = snapshot.files.iter().find(|file| format!("{}/", file.path).starts_with(&in_the_way))
        && !caches.caches.is_empty()
    {
        return Err(PackError::CacheDirectory { path: file.path.clone() });
    }
    let mut roots = caches.caches.iter().map(|cache| &cache.examined.tree.origin);
    if let Some(root) = roots.find(|root| snapshot.files.iter().any(|file| file.source.starts_with(root))) {
        return Err(PackError::CacheInSnapshot { path: root.clone() });
    }
    let spool = Spool::new(&options.temporary, SPOOL_MEMORY);
    let directory = &options.model_directory;
    let mut platforms = read_bases(&options.platforms, directory, options.modified, &spool, registry)?;
    let room = BaseRoom::of(&platforms, options.index.as_ref());

    let no_weights = snapshot.check_weights();
    let mut warnings: Vec<String> =
        snapshot.warnings.iter().chain(&no_weights).map(ToString::to_string).collect();
    let usage = usage(&snapshot, &options, &mut warnings);
    let format = options.compress_weights.then(|| options.format.format());
    let files = survey::survey(&snapshot.files, usage, options.compression, format.as_deref())?;
    let plan_options = PlanOptions {
        compression: options.compression,
        compress_weights: options.compress_weights,
        prefetch: options.prefetch,
        nodes: options.nodes,
        chunk_size: options.chunk_size,
        max_layers: options.max_layers,
        base_layers: room.layers,
        other_layers: caches.layers(&of_index),
        base_prefetched: room.prefetched,
    };
    let plan = plan(&files, &plan_options)?;
    warnings.extend(unread_shards(&plan, &files));
    let caches = caches::prepare(caches, &options, &of_index, &plan_options)?;
    warnings.extend(caches::unknown_to(options.profile.as_ref(), &caches));
    let own: Vec<Platform> = options.platforms.iter().map(|one| one.platform.clone()).collect();
    warnings.extend(caches.without(&own));
    let landmarks = options.format.has_landmarks();
    let mut layers: Vec<LayerSpec> = Vec::new();
    for platform in &mut platforms {
        let start = layers.len();
        layers.extend(std::mem::take(&mut platform.base.layers).into_iter().map(|layer| LayerSpec {
            kind: LayerKind::Base,
            title: layer.created_by.clone(),
            created_by: layer.created_by,
            entries: entries::of_base(layer.entries, options.modified, landmarks),
            files: Vec::new(),
            entropy_coded: 0,
        }));
        platform.layers = start..layers.len();
    }
    for planned in &plan.layers {
        let paths: Vec<String> = planned
            .files
            .iter()
            .map(|file| format!("{}/{}", directory.relative(), snapshot.files[file.index].path))
            .collect();
        let title = title(&paths);
        layers.push(LayerSpec {
            kind: planned.kind,
            created_by: format!("starcar pack: {title}"),
            title,
            entries: entries::of_planned(planned, &snapshot.files, directory, options.modified, landmarks),
            files: paths,
            entropy_coded: room::entropy_coded(planned),
        });
    }
    for cache in &caches.caches {
        let root = format!("{}/{}", options.model_directory.relative(), cache.record.directory);
        let title = match &cache.record.target {
            Some(target) => format!("{} cache for {target}", cache.record.name),
            None => format!("{} cache", cache.record.name),
        };
        layers.push(LayerSpec {
            kind: LayerKind::Cache,
            created_by: format!("starcar pack: {title}"),
            title,
            entries: entries::of_cache(cache, &options.model_directory, options.modified, landmarks),
            files: cache
                .planned
                .files
                .iter()
                .map(|file| format!("{root}/{}", cache.files[file.index].path))
                .collect(),
            entropy_coded: 0,
        });
    }
    Ok(Prepared { snapshot, files, plan, plan_options, caches, warnings, options, layers, platforms, spool })
}

/// Opens the snapshot, if it is one that an image can hold and an engine start from.
fn open_snapshot(options: &PackOptions) -> Result<Snapshot, PackError> {
    let snapshot = snapshot::open(&options.snapshot, &options.files)?;
    snapshot.check_config()?;
    if let Some(file) =
        snapshot.files.iter().find(|file| file.path.split('/').any(|part| part.starts_with(".wh.")))
    {
        return Err(PackError::Whiteout { path: file.path.clone() });
    }
    Ok(snapshot)
}

/// What the profile says of each of the snapshot's files, and what the user should know of the profile.
fn usage(snapshot: &Snapshot, options: &PackOptions, warnings: &mut Vec<String>) -> Vec<Option<FileUse>> {
    let files: Vec<(&str, u64)> =
        snapshot.files.iter().map(|file| (file.path.as_str(), file.stamp.size)).collect();
    let Some(profile) = &options.profile else { return vec![None; files.len()] };
    let Resolution { uses, absent } = resolve(profile, &Tree::Model, &files);
    if let Some(reason) = profile.ended_early() {
        warnings.push(format!("the profile's recording ended early ({reason}): later reads are not in it"));
    }
    if uses.iter().all(Option::is_none) {
        warnings
            .push("the profile has none of the snapshot's files; they are laid out in natural order".into());
    } else if options.profile_is_specific && !absent.is_empty() {
        let shown: Vec<&str> = absent.iter().take(ABSENT_SHOWN).map(String::as_str).collect();
        let more = absent.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        warnings.push(format!("the profile has files that the snapshot lacks: {}{more}", shown.join(", ")));
    }
    uses
}

/// A word about safetensors shards that the profile leaves unread while it reads others beside them: engines read
/// all of a model's shards, so the recording may not have seen the end.
fn unread_shards(plan: &Plan, files: &[PlanFile]) -> Option<String> {
    let directory = |path: &str| path.rsplit_once('/').map_or(String::new(), |(start, _)| start.to_owned());
    let shards = |kind| {
        let of_kind = plan.layers.iter().filter(move |layer| layer.kind == kind);
        of_kind
            .flat_map(|layer| &layer.files)
            .map(|planned| files[planned.index].path.as_str())
            .filter(|path| path.ends_with(".safetensors"))
    };
    let read: BTreeSet<String> = shards(LayerKind::Weights).map(directory).collect();
    let unread: Vec<&str> =
        shards(LayerKind::Unused).filter(|path| read.contains(&directory(path))).collect();
    let first = unread.first()?;
    let more = if unread.len() > 1 { format!(" and {} more", unread.len() - 1) } else { String::new() };
    Some(format!(
        "the profile reads some shards and not {first}{more}; if an engine reads them all, record to the end of \
         its start"
    ))
}

/// What a layer holds: its one file, or how many and the first.
fn title(paths: &[String]) -> String {
    match paths {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_directories() {
        for (text, relative) in [("/models", "models"), ("/mnt/models/", "mnt/models")] {
            assert_eq!(text.parse::<ModelDirectory>().unwrap().relative(), relative);
        }
        for text in ["", "/", "models", "/a//b", "/a/../b", "/.", "/.wh.a", "/a\nb", "/stargz.index.json"] {
            assert!(text.parse::<ModelDirectory>().is_err(), "{text}");
        }
    }
}
