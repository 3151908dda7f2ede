//! `starcar pack`

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{
    CliError, ProgressArguments, RegistryArguments, output, parse, plan::plan_text, progress::Progress,
};
use crate::{
    base::{BASE_DEFAULT, BaseChoice},
    oci::{DEFAULT_TAG, Platform, Selector, Target},
    pack::{Destination, FormatChoice, ModelDirectory, PackOptions, Packed, prepare},
    plan::{CHUNK_SIZE_DEFAULT, Compression, MAX_LAYERS_DEFAULT, Prefetch},
    registry::Reference,
    snapshot::SnapshotOptions,
};

/// Times that RFC 3339 can say: the years 0 to 9999.
const TIMESTAMPS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// Pack a model snapshot into an image, and write or push it
///
/// The manifest's digest is the last line on standard output; with --format json the JSON document has it.
#[derive(Debug, Args)]
pub(super) struct PackArguments {
    /// A hub cache's repository directory, a snapshot in it, a download made with --local-dir, any other
    /// directory, or a repository (org/name) in the hub cache
    snapshot: String,

    /// Branch, tag or commit to take from a hub cache [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Pack only files that match this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Files")]
    include: Vec<String>,
    /// Leave out files that match this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Files")]
    exclude: Vec<String>,

    /// Write the image: oci:DIR[:tag] or oci-archive:FILE[:tag] (repeatable)
    #[arg(short, long, value_name = "TARGET", help_heading = "Destination")]
    output: Vec<Target>,
    /// Name of the image in a registry
    #[arg(short, long, value_name = "REFERENCE", help_heading = "Destination")]
    tag: Option<String>,
    /// Push the image to the registry that --tag names
    #[arg(long, requires = "tag", help_heading = "Destination")]
    push: bool,
    /// Print the plan and do nothing
    #[arg(long, help_heading = "Destination")]
    dry_run: bool,
    /// Write digest, sizes and layers to this file as JSON
    #[arg(long, value_name = "FILE", help_heading = "Destination")]
    metadata_file: Option<PathBuf>,

    /// What lies below the model: an image, oci:DIR[:tag], the path of a static busybox, or `scratch`
    #[arg(long, value_name = "BASE", default_value = BASE_DEFAULT, help_heading = "Image")]
    base: BaseChoice,
    /// Platform of the image
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64", help_heading = "Image")]
    platform: Platform,
    /// Where the model lies in the image
    #[arg(long, value_name = "PATH", default_value = "/models", help_heading = "Image")]
    model_dir: ModelDirectory,
    /// Format of the layers: `estargz` can be pulled lazily, `tar` is for consumers that cannot read it
    #[arg(long, value_enum, default_value_t = LayerFormatArgument::Estargz, help_heading = "Image")]
    layer_format: LayerFormatArgument,
    /// Which files are compressed: `auto` stores weights and samples the rest
    #[arg(long, value_enum, default_value_t = CompressionArgument::Auto, help_heading = "Image")]
    compression: CompressionArgument,
    /// Which files a node fetches before the container runs: `small` is all but weights
    #[arg(long, value_enum, default_value_t = PrefetchArgument::Small, help_heading = "Image")]
    prefetch: PrefetchArgument,
    /// Bytes of a file that a node fetches at a time
    #[arg(long, value_name = "SIZE", default_value_t = CHUNK_SIZE_DEFAULT, value_parser = parse::bytes, help_heading = "Image")]
    estargz_chunk_size: u64,
    /// Deflate level of compressed files, 0 to 9
    #[arg(long, value_name = "LEVEL", default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=9), help_heading = "Image")]
    estargz_compression_level: u32,
    /// Largest number of layers, the base's included; weight shards share layers to keep it
    #[arg(long, value_name = "N", default_value_t = MAX_LAYERS_DEFAULT, value_parser = parse::positive, help_heading = "Image")]
    max_layers: usize,

    /// Time that the image and the model's files bear, seconds since 1970
    #[arg(
        long,
        value_name = "SECONDS",
        env = "SOURCE_DATE_EPOCH",
        hide_env_values = true,
        default_value_t = 0, value_parser = clap::value_parser!(i64).range(TIMESTAMPS),
        allow_negative_numbers = true,
        help_heading = "Image"
    )]
    timestamp: i64,

    /// Threads to use [default: all processors]
    #[arg(long, value_name = "N", value_parser = parse::positive)]
    threads: Option<usize>,
    /// How the result is printed: `text` is the digest alone, `json` is what --metadata-file holds
    #[arg(long, value_enum, default_value_t = FormatArgument::Text)]
    format: FormatArgument,
    #[command(flatten)]
    progress: ProgressArguments,
    #[command(flatten, next_help_heading = "Registry")]
    registry: RegistryArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayerFormatArgument {
    Estargz,
    Tar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompressionArgument {
    Auto,
    Store,
    Gzip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrefetchArgument {
    Small,
    All,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Text,
    Json,
}

pub(super) fn run(arguments: &PackArguments) -> Result<(), CliError> {
    let reference = arguments.tag.as_deref().map(reference).transpose()?;
    check_destinations(arguments, reference.as_ref())?;
    let progress = Progress::new(&arguments.progress);
    let prepared = prepare(options(arguments), || arguments.registry.open())?;
    if !arguments.progress.quiet {
        for left_out in &prepared.snapshot.left_out {
            progress.line(&format!("left out {left_out}"));
        }
        prepared.warnings.iter().for_each(|warning| output::warning(warning));
    }
    if arguments.dry_run {
        return output::data(&plan_text(&prepared));
    }

    let mut destinations = Vec::new();
    for target in &arguments.output {
        let tag = match target {
            Target::Layout { selector: Selector::Only, .. }
            | Target::Archive { selector: Selector::Only, .. } => {
                reference.as_ref().and_then(Reference::tag).unwrap_or(DEFAULT_TAG)
            }
            named => named.new_tag(),
        };
        match target {
            Target::Layout { path, .. } => {
                destinations.push(Destination::Layout { path: path.clone(), tag: tag.to_owned() });
            }
            Target::Archive { path, .. } => {
                destinations.push(Destination::Archive { path: path.clone(), tag: tag.to_owned() });
            }
            Target::Registry(_) => {}
        }
    }
    if let Some(reference) = reference.filter(|_| arguments.push) {
        destinations.push(Destination::Registry { registry: arguments.registry.open()?, reference });
    }
    let packed = prepared.write(&destinations, &progress)?;
    progress.finish();
    report(arguments, &packed)
}

fn report(arguments: &PackArguments, packed: &Packed) -> Result<(), CliError> {
    let as_json = || -> Result<String, CliError> {
        let json_error =
            |error: serde_json::Error| CliError::Output { what: "metadata".to_owned(), cause: error.into() };
        let mut value = serde_json::to_value(packed).map_err(json_error)?;
        // The names that build tools read from BuildKit's metadata file.
        value["containerimage.digest"] = packed.digest.to_string().into();
        if let Some(tag) = &arguments.tag {
            value["image.name"] = tag.as_str().into();
        }
        let mut text = serde_json::to_string_pretty(&value).map_err(json_error)?;
        text.push('\n');
        Ok(text)
    };
    if let Some(path) = &arguments.metadata_file {
        fs::write(path, as_json()?)
            .map_err(|cause| CliError::Output { what: path.display().to_string(), cause })?;
    }
    match arguments.format {
        FormatArgument::Text => output::data(&packed.digest.to_string()),
        FormatArgument::Json => output::data(&as_json()?),
    }
}

fn options(arguments: &PackArguments) -> PackOptions {
    PackOptions {
        snapshot: arguments.snapshot.clone(),
        files: SnapshotOptions {
            revision: arguments.revision.clone(),
            include: arguments.include.clone(),
            exclude: arguments.exclude.clone(),
        },
        base: arguments.base.clone(),
        platform: arguments.platform.clone(),
        model_directory: arguments.model_dir.clone(),
        format: match arguments.layer_format {
            LayerFormatArgument::Estargz => {
                FormatChoice::Estargz { level: arguments.estargz_compression_level }
            }
            LayerFormatArgument::Tar => FormatChoice::Tar,
        },
        compression: match arguments.compression {
            CompressionArgument::Auto => Compression::Auto,
            CompressionArgument::Store => Compression::Store,
            CompressionArgument::Gzip => Compression::Gzip,
        },
        prefetch: match arguments.prefetch {
            PrefetchArgument::Small => Prefetch::Small,
            PrefetchArgument::All => Prefetch::All,
            PrefetchArgument::None => Prefetch::None,
        },
        chunk_size: arguments.estargz_chunk_size,
        max_layers: arguments.max_layers,
        threads: arguments
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
        modified: arguments.timestamp,
        temporary: std::env::temp_dir(),
    }
}

/// Parses the name of an image to push.
pub(super) fn reference(text: &str) -> Result<Reference, CliError> {
    match text.parse::<Target>()? {
        Target::Registry(reference) if reference.digest().is_some() => Err(CliError::Usage(format!(
            "`{text}` names a digest; an image that is made or pushed needs a tag"
        ))),
        Target::Registry(reference) => Ok(reference),
        _ => Err(CliError::Usage(format!("`{text}` is no name in a registry"))),
    }
}

fn check_destinations(arguments: &PackArguments, reference: Option<&Reference>) -> Result<(), CliError> {
    let usage = |text: &str| Err(CliError::Usage(text.to_owned()));
    if arguments.output.is_empty() && !arguments.push && !arguments.dry_run {
        return usage("nowhere to put the image: add --output oci:DIR, or --tag REFERENCE --push");
    }
    if arguments.dry_run && (arguments.format == FormatArgument::Json || arguments.metadata_file.is_some()) {
        return usage("--dry-run prints the plan as text; leave out --format json and --metadata-file");
    }
    let layouts = arguments.output.iter().filter(|target| matches!(target, Target::Layout { .. })).count();
    if layouts > 1 {
        return usage("--output takes one oci: directory; copy it, or add an oci-archive:");
    }
    for target in &arguments.output {
        match target {
            Target::Registry(_) => {
                return Err(CliError::Usage(format!(
                    "--output takes oci:DIR or oci-archive:FILE; to push, use --tag {target} --push"
                )));
            }
            Target::Layout { selector: Selector::Digest(_), .. }
            | Target::Archive { selector: Selector::Digest(_), .. } => {
                return usage("--output takes a tag, not a digest");
            }
            _ => {}
        }
    }
    // Hours of packing should not end in a name that cannot be written.
    let parent = arguments.metadata_file.as_deref().and_then(Path::parent);
    if let Some(parent) = parent.filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        return Err(CliError::Usage(format!("--metadata-file: {} is no directory", parent.display())));
    }
    let is_latest = reference.is_some_and(|reference| matches!(reference.tag(), None | Some("latest")));
    if arguments.push && is_latest && !arguments.progress.quiet {
        output::warning(
            "without a tag, or with `latest`, Kubernetes asks the registry at every start; name a version",
        );
    }
    Ok(())
}
