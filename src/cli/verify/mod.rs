//! `starcar verify`

mod packed;
mod rebuild;
mod sarif;
mod text;

use std::path::Path;

use clap::{Args, ValueEnum};

pub(super) use self::packed::verify_packed;

use super::{
    CliError, ProgressArguments, ProgressChoice, RegistryArguments, exit_code, hub, output, parse,
    progress::Progress,
};
use crate::{
    oci::{self, ImageSource, Platform, Target, first_platform, read_image},
    pack::{PackError, RecordedOptions},
    snapshot::{self, Snapshot, SnapshotOptions},
    verify::{Severity, Use, Verification, VerifyOptions, verify},
};

/// Check an image against the rules of its formats and what KServe and stargz-snapshotter do with it
///
/// Without --deep no weights are read: manifest, config, and each layer's footer and table of contents. The exit code is
/// 9 when an error is found, 10 when nothing worse than a warning is, and 0 otherwise (see --fail-on). docs/verify.md
/// lists all that can be found.
#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// The image: a name in a registry, oci:DIR[:tag] or oci-archive:FILE[:tag]
    image: Target,
    /// Platform of the image: the one to look at of several, and what the image must then be for [default: all of
    /// several, any of one]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Uses that must work; what breaks others alone is a note [default: lazy,modelcar,native, or what the image's
    /// labels say it is made for]
    #[arg(long = "for", value_enum, value_name = "USE", value_delimiter = ',')]
    uses: Vec<UseArgument>,
    /// Read every byte of the image, once
    #[arg(long)]
    deep: bool,
    /// Compare the image's files with this snapshot's, by the digests of the hub where they are known; reads all of the
    /// image
    #[arg(long, value_name = "SNAPSHOT")]
    against: Option<String>,
    #[command(flatten)]
    rebuild: rebuild::RebuildArguments,
    /// The least that makes the exit code tell
    #[arg(long, value_enum, default_value_t = FailArgument::Warning)]
    fail_on: FailArgument,
    /// Threads to use where all is read [default: all processors]
    #[arg(long, value_name = "N", value_parser = parse::positive)]
    threads: Option<usize>,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = FormatArgument::Table)]
    format: FormatArgument,
    /// How progress is shown where all is read: `auto` draws a bar on a terminal
    #[arg(long, value_enum, default_value_t = ProgressChoice::Auto)]
    progress: ProgressChoice,
    #[command(flatten, next_help_heading = "Registry")]
    registry: RegistryArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum UseArgument {
    /// stargz-snapshotter: containers start before the image is pulled
    Lazy,
    /// KServe's oci://
    Modelcar,
    /// KServe's oci+native://
    Native,
    /// KServe's oci+fetch://
    Fetch,
}

impl From<UseArgument> for Use {
    fn from(argument: UseArgument) -> Self {
        match argument {
            UseArgument::Lazy => Self::Lazy,
            UseArgument::Modelcar => Self::Modelcar,
            UseArgument::Native => Self::Native,
            UseArgument::Fetch => Self::Fetch,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailArgument {
    /// Errors
    Error,
    /// Warnings and errors
    Warning,
    /// Anything that is found
    Note,
    /// Nothing: the exit code is 0 whatever is found
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    /// Words and tables
    Table,
    /// One JSON document
    Json,
    /// SARIF 2.1.0, which code hosts show beside a change
    Sarif,
}

/// Verifies, and returns the exit code.
pub(super) fn run(arguments: &VerifyArguments) -> Result<u8, CliError> {
    let source = oci::open(&arguments.image, || arguments.registry.open())?;
    let fetch = |snapshot: &str, files: &mut SnapshotOptions| {
        let shown = ProgressArguments { progress: arguments.progress, quiet: false };
        hub::local_shown(snapshot, files, &arguments.registry.hub(), &shown)
    };
    let rebuilt = arguments.rebuild.run(
        &*source,
        arguments.image.path(),
        arguments.platform.as_ref(),
        &fetch,
        || arguments.registry.open(),
    )?;
    let against = arguments.against.as_ref().map(|path| against(path, &*source, arguments));
    let options = VerifyOptions {
        platform: arguments.platform.clone(),
        deep: arguments.deep,
        against: against.transpose()?,
        threads: arguments.threads.unwrap_or_default(),
        rebuilt,
        uses: arguments.uses.iter().copied().map(Use::from).collect(),
    };
    let progress = Progress::new(&ProgressArguments { progress: arguments.progress, quiet: false });
    let verification = verify(&*source, &options, &progress)?;
    progress.finish();
    match arguments.format {
        FormatArgument::Table => output::data(&text::text(&verification))?,
        FormatArgument::Json => output::json(&verification)?,
        FormatArgument::Sarif => output::json(&sarif::log(&verification))?,
    }
    Ok(code(&verification, arguments.fail_on))
}

/// Opens the snapshot, with the files that were asked for when the image was packed.
fn against(path: &str, source: &dyn ImageSource, arguments: &VerifyArguments) -> Result<Snapshot, CliError> {
    // What is wrong with the image's documents is a finding; images of one index are packed from the same files.
    let first =
        || source.root_document().and_then(|root| first_platform(&root, &source.place())).ok().flatten();
    let platform = arguments.platform.clone().or_else(first).unwrap_or_default();
    let image = read_image(source, &platform).ok();
    let annotations = image.and_then(|image| image.manifest.annotations().clone()).unwrap_or_default();
    let annotations = annotations.into_iter().collect();
    let recorded = RecordedOptions::read(&annotations).ok().flatten();
    let (include, exclude) = recorded.map(|options| (options.include, options.exclude)).unwrap_or_default();
    let revision = rebuild::revision(path, &annotations);
    let own_places = arguments.image.path().map(Path::to_owned).into_iter().collect();
    let mut options =
        SnapshotOptions { revision, include, exclude, own_places, ..SnapshotOptions::default() };
    let shown = ProgressArguments { progress: arguments.progress, quiet: false };
    let path = hub::local_shown(path, &mut options, &arguments.registry.hub(), &shown)?;
    Ok(snapshot::open(&path, &options).map_err(PackError::from)?)
}

fn code(verification: &Verification, fail_on: FailArgument) -> u8 {
    let least = match fail_on {
        FailArgument::Error => Severity::Error,
        FailArgument::Warning => Severity::Warning,
        FailArgument::Note => Severity::Note,
        FailArgument::Never => return exit_code::OK,
    };
    match verification.worst.filter(|worst| *worst >= least) {
        None => exit_code::OK,
        Some(Severity::Error) => exit_code::FOUND_ERRORS,
        Some(_) => exit_code::FOUND_WARNINGS,
    }
}
