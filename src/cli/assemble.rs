//! `starcar assemble`

use clap::Args;

use super::{
    CliError, ProgressArguments, RegistryArguments,
    destinations::DestinationArguments,
    exit_code, output,
    pack::{ResultArguments, report, say_caches},
    progress::Progress,
    provenance::ProvenanceArguments,
    verify::verify_packed,
};
use crate::{
    assemble::{AssembleOptions, Assembled, assemble, has_tag},
    oci::Target,
    pack::{Destination, PARTS_MAX},
};

/// Make an image of the parts that `starcar pack --part` brought to where it goes
///
/// Config, manifest, index and tags are those that `starcar pack` would have written on one machine, byte for byte, and so
/// is what is printed, and what --provenance and --sbom write.
#[derive(Debug, Args)]
pub(super) struct AssembleArguments {
    /// Where parts are: oci:DIR[:tag] or the image's name in a registry for all of its parts that are there, or the name of
    /// a part; if nothing is named, parts are looked for where the image goes
    source: Vec<Target>,

    #[command(flatten)]
    destination: DestinationArguments,
    /// How many parts there are [default: as many as the parts say]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(PARTS_MAX)))]
    parts: Option<u16>,
    /// Leave the parts where they are; else those that lie where the image goes are removed once it is there
    #[arg(long)]
    keep_parts: bool,
    /// Verify the image where it was brought to, as `starcar verify` does, and let the exit code tell
    #[arg(long, help_heading = "Destination")]
    verify: bool,
    #[command(flatten)]
    result: ResultArguments,
    #[command(flatten)]
    provenance: ProvenanceArguments,
    #[command(flatten)]
    progress: ProgressArguments,
    #[command(flatten, next_help_heading = "Registry")]
    registry: RegistryArguments,
}

/// Removes the parts of an image that is there; that some stay is no error.
fn remove_parts(assembled: &Assembled, destinations: &[Destination], quiet: bool) {
    let left = assembled.remove_parts(destinations);
    if let Some((name, reason)) = left.first().filter(|_| !quiet) {
        output::words(&format!(
            "the parts stay, and can be removed: {name}{}: {reason}",
            match left.len() {
                1 => String::new(),
                more => format!(" and {} more", more - 1),
            }
        ));
    }
}

/// Assembles, and returns the exit code.
pub(super) fn run(arguments: &AssembleArguments) -> Result<u8, CliError> {
    let usage = |text: &str| CliError::Usage(text.to_owned());
    let to = &arguments.destination;
    let references = to.references()?;
    to.check_any()?;
    to.check_outputs()?;
    arguments.provenance.check(arguments.result.metadata_file.as_deref(), &to.output)?;
    let progress = Progress::new(&arguments.progress);
    let open = arguments.registry.shared();
    let destinations = to.destinations(&references, to.naming.naming(), &open)?;
    if arguments.source.is_empty() && !destinations.iter().any(has_tag) {
        return Err(usage(
            "parts are found by tags, and the image goes where it has none: name them, as oci:DIR or REGISTRY/REPOSITORY:TAG",
        ));
    }
    let options = AssembleOptions {
        sources: &arguments.source,
        destinations: &destinations,
        parts: arguments.parts,
        told: arguments.provenance.is_wanted(),
    };
    let assembled = assemble(&options, &open, &progress)?;
    progress.finish();
    if !arguments.progress.quiet {
        say_caches(&destinations, &assembled.packed);
    }
    let reported = report(&arguments.result, &to.tag, &assembled.packed);
    let documented = assembled.told.as_ref().map_or(Ok(()), |(told, described)| {
        arguments.provenance.write(told, described, &assembled.packed, &destinations)
    });
    reported.and(documented)?;
    let code = if arguments.verify {
        verify_packed(&destinations, &assembled.packed, &open, arguments.progress.quiet)?
    } else {
        exit_code::OK
    };
    // An image that is wrong has to be assembled again.
    if !arguments.keep_parts && code != exit_code::FOUND_ERRORS {
        remove_parts(&assembled, &destinations, arguments.progress.quiet);
    }
    Ok(code)
}
