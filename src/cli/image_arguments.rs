//! What is packed and how: the arguments that `pack` and `plan` share.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{
    CliError, RegistryArguments, hub, output, parse,
    platforms::{self, PlatformBase},
    provenance::is_public_hub,
};
use crate::{
    attach::attached_profiles,
    compile_cache::AT_DEFAULT,
    digest::Digest,
    hub::Outline,
    oci::{self, Platform, Target},
    pack::{
        CacheOption, CacheOptions, FormatChoice, Given, GivenCache, GivenPlatform, GivenProfile,
        ModelDirectory, MovedFile, PackOptions,
    },
    plan::{Compression, MAX_LAYERS_DEFAULT, Nodes, Prefetch},
    profile::{self, Profile, ProfileError},
    progress::Observer,
    provenance::{base_name, shown_base, shown_target},
    snapshot::SnapshotOptions,
    zstd_chunked::Consumers,
};

/// Times that RFC 3339 can say: the years 0 to 9999.
const TIMESTAMPS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// The variable that builds are given their time by.
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The value of `--profile` that means the natural order.
const NO_PROFILE: &str = "none";
/// What a value of `--profile` begins with that names an image.
pub(super) const FROM_IMAGE: &str = "from:";

#[derive(Debug, Args)]
pub(super) struct ImageArguments {
    /// A hub cache's repository directory, a snapshot in it, a download made with --local-dir, any other
    /// directory, a repository (org/name) in the hub cache, or `hf://org/name[@revision]`, which is downloaded into it
    snapshot: String,

    /// Branch, tag or commit to take from a hub cache or the hub [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Pack only files that match this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Files")]
    include: Vec<String>,
    /// Leave out files that match this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Files")]
    exclude: Vec<String>,

    /// What lies below the model: an image (of an index, the entry of each platform), oci:DIR[:tag], the path of a
    /// static busybox, or `scratch`; with OS/ARCH= for that platform alone (repeatable) [default:
    /// docker.io/library/busybox:1.37]
    #[arg(long, value_name = "[OS/ARCH=]BASE", value_parser = platforms::base, help_heading = "Image")]
    base: Vec<PlatformBase>,
    /// Platform of the image; several, with commas between them or as several options, make an index of images that
    /// share all layers of the model
    #[arg(
        long,
        value_name = "OS/ARCH",
        default_value = "linux/amd64",
        value_delimiter = ',',
        help_heading = "Image"
    )]
    platform: Vec<Platform>,
    /// Where the model lies in the image
    #[arg(long, value_name = "PATH", default_value = "/models", help_heading = "Image")]
    model_dir: ModelDirectory,
    /// Format of the layers: `estargz` and `zstd:chunked` can be pulled lazily, `tar` is for consumers that cannot read them
    #[arg(long, value_enum, default_value_t = LayerFormatArgument::Estargz, help_heading = "Image")]
    layer_format: LayerFormatArgument,
    /// Whom zstd:chunked layers are for: stargz-snapshotter (`stargz`), podman and CRI-O (`containers-storage`), or `both`,
    /// by an index of two images that share all layers [default: stargz]
    #[arg(long, value_enum, help_heading = "Image")]
    consumer: Option<ConsumerArgument>,
    /// Which files are compressed: `auto` stores weights and samples the rest
    #[arg(long, value_enum, default_value_t = CompressionArgument::Auto, help_heading = "Image")]
    compression: CompressionArgument,
    /// Compress weights too, where they shrink: bf16 by about 22 %, for thin links. The node unpacks them, at 0.1 GB/s on a
    /// core in eStargz and 0.5 in zstd:chunked; `starcar plan` says how long that takes
    #[arg(long, help_heading = "Image")]
    compress_weights: bool,
    /// Bytes of a file that a node fetches at a time [default: 4063232, in zstd:chunked 3407872]
    #[arg(long, alias = "zstdchunked-chunk-size", value_name = "SIZE", value_parser = parse::bytes, help_heading = "Image")]
    estargz_chunk_size: Option<u64>,
    /// Deflate level of compressed files in eStargz, 0 to 9 [default: 6]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(0..=9), help_heading = "Image")]
    estargz_compression_level: Option<u32>,
    /// Level of compressed files in zstd:chunked, 1 to 22 [default: 3]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..=22), help_heading = "Image")]
    zstdchunked_compression_level: Option<u32>,
    /// Largest number of layers, the base's included; weight shards share layers to keep it
    #[arg(long, value_name = "N", default_value_t = MAX_LAYERS_DEFAULT, value_parser = parse::positive, help_heading = "Image")]
    max_layers: usize,

    /// What a start reads: a profile's file, a built-in profile (see `starcar help plan`), from:IMAGE for those that
    /// are attached to an earlier image, or `none` for the natural order (repeatable: several are merged) [default:
    /// generic]
    #[arg(long, value_name = "PROFILE", help_heading = "Order")]
    profile: Vec<String>,
    /// Which files a node fetches before the container runs: `auto` what the profile shows read first and does
    /// not delay the container, `small` all but weights
    #[arg(long, value_enum, default_value_t = PrefetchArgument::Auto, help_heading = "Order")]
    prefetch: PrefetchArgument,
    /// The nodes that the image is for: as stargz-snapshotter comes, or configured as docs/nodes.md recommends,
    /// which lets `auto` prefetch weights without delaying the container
    #[arg(long, value_enum, default_value_t = NodesArgument::Default, help_heading = "Order")]
    nodes: NodesArgument,

    /// A compile cache to pack beside the model: its directory, or with KIND= (vllm, inductor, triton, flashinfer,
    /// artifacts, generic) one that is taken to be of that kind, with KIND@TARGET= for that GPU target (repeatable)
    #[arg(long, value_name = "[KIND[@TARGET]=]DIR", value_parser = parse::cache, help_heading = "Compile caches")]
    cache: Vec<CacheOption>,
    /// Where the serving side will have the compile caches; `starcar cache env` prints how
    #[arg(long, value_name = "DIR", default_value = AT_DEFAULT, value_parser = parse::plain_directory, help_heading = "Compile caches")]
    cache_at: String,
    /// Refuse compile caches that there are warnings about
    #[arg(long, help_heading = "Compile caches")]
    strict: bool,

    /// Time that the image and the model's files bear, seconds since 1970 [default: the environment's
    /// `SOURCE_DATE_EPOCH`, or 0]
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(i64).range(TIMESTAMPS),
        allow_negative_numbers = true,
        help_heading = "Image"
    )]
    timestamp: Option<i64>,

    /// Threads to use [default: all processors]
    #[arg(long, value_name = "N", value_parser = parse::positive)]
    threads: Option<usize>,
    #[command(flatten, next_help_heading = "Registry")]
    pub(super) registry: RegistryArguments,
}

/// zlib's own default.
const DEFLATE_LEVEL_DEFAULT: u32 = 6;

/// zstd's own default; docs/measurements.md says what others are worth.
const ZSTD_LEVEL_DEFAULT: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayerFormatArgument {
    Estargz,
    #[value(name = "zstd:chunked", alias = "zstdchunked")]
    ZstdChunked,
    Tar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConsumerArgument {
    Stargz,
    ContainersStorage,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompressionArgument {
    Auto,
    Store,
    #[value(alias = "zstd")]
    Gzip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrefetchArgument {
    Auto,
    All,
    Small,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NodesArgument {
    Default,
    Recommended,
}

impl ImageArguments {
    fn format(&self) -> Result<FormatChoice, CliError> {
        let consumers = self.consumer.map(|consumer| match consumer {
            ConsumerArgument::Stargz => Consumers::Stargz,
            ConsumerArgument::ContainersStorage => Consumers::ContainersStorage,
            ConsumerArgument::Both => Consumers::Both,
        });
        if consumers.is_some() && self.layer_format != LayerFormatArgument::ZstdChunked {
            let reason =
                "--consumer is for --layer-format zstd:chunked: layers of other formats are the same for all";
            return Err(CliError::Usage(reason.to_owned()));
        }
        for (level, option, format, name) in [
            (
                self.estargz_compression_level,
                "--estargz-compression-level",
                LayerFormatArgument::Estargz,
                "estargz",
            ),
            (
                self.zstdchunked_compression_level,
                "--zstdchunked-compression-level",
                LayerFormatArgument::ZstdChunked,
                "zstd:chunked",
            ),
        ] {
            if level.is_some() && self.layer_format != format {
                return Err(CliError::Usage(format!(
                    "{option} is for --layer-format {name}: layers of other formats do not have that level"
                )));
            }
        }
        Ok(match self.layer_format {
            LayerFormatArgument::Estargz => FormatChoice::Estargz {
                level: self.estargz_compression_level.unwrap_or(DEFLATE_LEVEL_DEFAULT),
            },
            LayerFormatArgument::ZstdChunked => FormatChoice::ZstdChunked {
                level: self.zstdchunked_compression_level.unwrap_or(ZSTD_LEVEL_DEFAULT),
                consumers: consumers.unwrap_or_default(),
            },
            LayerFormatArgument::Tar => FormatChoice::Tar,
        })
    }

    /// What the arguments mean for packing; reads the profiles.
    pub(super) fn options(&self) -> Result<PackOptions, CliError> {
        if self.compress_weights && self.layer_format == LayerFormatArgument::Tar {
            return Err(CliError::Usage(
                "--compress-weights goes not with --layer-format tar, which does not compress".to_owned(),
            ));
        }
        if self.compress_weights && self.compression == CompressionArgument::Store {
            return Err(CliError::Usage(
                "--compress-weights goes not with --compression store, which compresses nothing".to_owned(),
            ));
        }
        let format = self.format()?;
        let (profile, profile_is_specific) = self.profile()?;
        Ok(PackOptions {
            snapshot: self.snapshot.clone(),
            files: SnapshotOptions {
                revision: self.revision.clone(),
                include: self.include.clone(),
                exclude: self.exclude.clone(),
                ..SnapshotOptions::default()
            },
            platforms: platforms::options(&self.platform, &self.base)?,
            index: None,
            model_directory: self.model_dir.clone(),
            format,
            compression: match self.compression {
                CompressionArgument::Auto => Compression::Auto,
                CompressionArgument::Store => Compression::Store,
                CompressionArgument::Gzip => Compression::Gzip,
            },
            compress_weights: self.compress_weights,
            prefetch: match self.prefetch {
                PrefetchArgument::Auto => Prefetch::Auto,
                PrefetchArgument::All => Prefetch::All,
                PrefetchArgument::Small => Prefetch::Small,
                PrefetchArgument::None => Prefetch::None,
            },
            nodes: match self.nodes {
                NodesArgument::Default => Nodes::Default,
                NodesArgument::Recommended => Nodes::Recommended,
            },
            profile,
            profile_is_specific,
            caches: CacheOptions {
                caches: self.cache.clone(),
                at: self.cache_at.clone(),
                strict: self.strict,
            },
            chunk_size: self.estargz_chunk_size.unwrap_or(format.chunk_size_default()),
            max_layers: self.max_layers,
            threads: self
                .threads
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
            modified: match self.timestamp {
                Some(timestamp) => timestamp,
                None => source_date_epoch(std::env::var_os(SOURCE_DATE_EPOCH))?,
            },
            temporary: std::env::temp_dir(),
            digest_cache: None,
            verify_sources: false,
        })
    }

    /// Downloads the snapshot if it is one on the hub, and lets `options` mean the copy on this disk.
    pub(super) fn download(
        &self,
        options: &mut PackOptions,
        observer: &dyn Observer,
    ) -> Result<(), CliError> {
        options.snapshot = hub::local(&self.snapshot, &mut options.files, &self.registry.hub(), observer)?;
        Ok(())
    }

    /// As [`Self::download`], for what is only planned with; the outline is to be kept until the plan is made.
    pub(super) fn outline(
        &self,
        options: &mut PackOptions,
        observer: &dyn Observer,
    ) -> Result<Option<Outline>, CliError> {
        let (snapshot, outline) = hub::outlined(&self.snapshot, options, &self.registry.hub(), observer)?;
        options.snapshot = snapshot;
        Ok(outline)
    }

    /// The arguments as documents about the image tell of them; reads the profiles that are files. `options` are what the
    /// arguments mean.
    pub(super) fn given(&self, options: &PackOptions) -> Result<Given, CliError> {
        let is_path = Path::new(&self.snapshot).exists();
        let snapshot = if is_path { base_name(Path::new(&self.snapshot)) } else { self.snapshot.clone() };
        let platforms = options
            .platforms
            .iter()
            .map(|one| GivenPlatform { platform: one.platform.to_string(), base: shown_base(&one.base) });
        let caches = options.caches.caches.iter().map(|cache| GivenCache {
            path: base_name(&cache.path),
            kind: cache.kind.map(|kind| kind.name().to_owned()),
            target: cache.target.clone(),
        });
        Ok(Given {
            snapshot,
            revision: self.revision.clone(),
            platforms: platforms.collect(),
            profiles: self.profile.iter().map(|name| given_profile(name)).collect::<Result<_, CliError>>()?,
            caches: caches.collect(),
            strict: options.caches.strict,
            is_public_hub: is_public_hub(),
        })
    }

    /// Downloads what `files` of an outline stand for, and says where each lies.
    pub(super) fn complete<'a>(
        &self,
        outline: &Outline,
        files: impl Iterator<Item = &'a Path>,
        observer: &dyn Observer,
    ) -> Result<BTreeMap<PathBuf, MovedFile>, CliError> {
        hub::completed(outline, files, &self.registry.hub(), observer)
    }

    /// Whether the natural order is asked for.
    pub(super) fn has_no_profile(&self) -> bool {
        self.profile.iter().any(|name| name == NO_PROFILE)
    }

    /// The profile that the arguments name, and whether it is about one model.
    fn profile(&self) -> Result<(Option<Profile>, bool), CliError> {
        if self.has_no_profile() {
            return if self.profile.len() == 1 {
                Ok((None, false))
            } else {
                Err(CliError::Usage("--profile none goes with no other --profile".to_owned()))
            };
        }
        let default = [profile::DEFAULT.to_owned()];
        let names = if self.profile.is_empty() { default.as_slice() } else { &self.profile };
        let mut profiles = Vec::new();
        for name in names {
            match name.strip_prefix(FROM_IMAGE) {
                Some(image) => {
                    let platform = self.platform.first().cloned().unwrap_or_default();
                    profiles.extend(attached(image, &platform, &self.registry)?);
                }
                None => profiles.push(open_profile(name)?),
            }
        }
        let specific = names.iter().any(|name| profile::Profile::built_in(name).is_none());
        Ok((Some(profile::merge(profiles)?), specific))
    }
}

/// The time that the environment asks for; none, as an empty variable, is 0.
///
/// Source: <https://reproducible-builds.org/specs/source-date-epoch/>.
fn source_date_epoch(value: Option<OsString>) -> Result<i64, CliError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(0) };
    let seconds = value.to_str().and_then(|text| text.parse().ok());
    seconds.filter(|seconds| TIMESTAMPS.contains(seconds)).ok_or_else(|| {
        CliError::Usage(format!(
            "the environment has {SOURCE_DATE_EPOCH}={}, which is no time: expected seconds since 1970, before the \
             year 10000",
            value.to_string_lossy().escape_debug()
        ))
    })
}

/// A profile as documents about the image tell of it.
fn given_profile(name: &str) -> Result<GivenProfile, CliError> {
    if let Some(image) = name.strip_prefix(FROM_IMAGE) {
        let name = format!("{FROM_IMAGE}{}", shown_target(&image.parse()?));
        return Ok(GivenProfile { name, digest: None });
    }
    let path = Path::new(name);
    if name == NO_PROFILE || Profile::built_in(name).is_some() || !path.is_file() {
        // What is no regular file can be read once only.
        return Ok(GivenProfile { name: base_name(path), digest: None });
    }
    let failed = |cause| CliError::from(ProfileError::File { path: path.to_owned(), cause });
    let digest = File::open(path).and_then(|mut file| Digest::of_reader(&mut file)).map_err(failed)?;
    Ok(GivenProfile { name: base_name(path), digest: Some(digest) })
}

/// The profiles that are attached to an earlier image.
pub(super) fn attached(
    image: &str,
    platform: &Platform,
    registry: &RegistryArguments,
) -> Result<Vec<Profile>, CliError> {
    let target: Target = image.parse()?;
    let source = oci::open(&target, || registry.open())?;
    let attached = attached_profiles(&*source, platform)?;
    if attached.len() > 1 {
        let digests: Vec<String> = attached.iter().map(|one| one.digest.to_string()).collect();
        output::warning(&format!(
            "{image} has {} profiles attached, which are merged: {}; the image's name with one's digest in place of \
             the tag (NAME@sha256:…) takes that one alone",
            digests.len(),
            digests.join(", ")
        ));
    }
    Ok(attached.into_iter().map(|one| one.profile).collect())
}

/// The built-in profile of that name, or the one in the file of that name.
pub(super) fn open_profile(name: &str) -> Result<Profile, ProfileError> {
    // A file that happens to have a built-in's name is reached as ./name.
    match Profile::built_in(name) {
        Some(profile) => profile,
        None if !name.contains(['/', '.']) && !Path::new(name).exists() => {
            Err(ProfileError::Unknown { name: name.to_owned() })
        }
        None => Profile::open(Path::new(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environments_time_is_blamed_for_itself() {
        let of = |value: Option<&str>| source_date_epoch(value.map(OsString::from));
        assert_eq!(of(None).ok(), Some(0));
        assert_eq!(of(Some("")).ok(), Some(0));
        assert_eq!(of(Some("1700000000")).ok(), Some(1_700_000_000));
        for value in ["abc", " ", "1.5", "253402300800", "99999999999999999999"] {
            let error = of(Some(value)).err().map(|error| (error.exit_code(), error.to_string()));
            let (code, text) = error.unwrap_or_default();
            assert!(code == 2 && text.contains(&format!("SOURCE_DATE_EPOCH={value}")), "{code}: {text}");
        }
    }
}
