//! `starcar pack --part`

use super::PackArguments;
use crate::{
    cli::{CliError, exit_code, output, plan_text::plan_text, progress::Progress, provenance::told},
    hub::Outline,
    naming::Naming,
    oci::{OciError, Target},
    pack::{Given, PackedPart, PreparedPart},
    registry::{Reference, Registry},
};

/// Makes a part, and returns the exit code.
pub(super) fn run(
    arguments: &PackArguments,
    mut part: PreparedPart,
    given: Option<Given>,
    outline: Option<&Outline>,
    references: &[Reference],
    open: impl Fn() -> Result<Registry, OciError>,
    progress: &Progress,
) -> Result<u8, CliError> {
    let share: Vec<(String, u64)> = part.layers().map(|(title, size)| (title.to_owned(), size)).collect();
    let summary = format!(
        "part {}: {} of {}, {}",
        part.part(),
        share.len(),
        output::count(part.layers_of_all(), "layer"),
        output::size(share.iter().map(|(_, size)| size).sum())
    );
    if arguments.dry_run {
        references.iter().try_for_each(|reference| part.prepared().check_sizes(reference))?;
        let lines = share
            .iter()
            .fold(summary, |text, (title, size)| text + "\n  " + title + ", " + &output::size(*size));
        let text = format!("{}\n{lines}", plan_text(part.prepared()));
        return output::data(&text).map(|()| exit_code::OK);
    }
    if let Some(path) =
        arguments.destination.output.iter().find(|target| matches!(target, Target::Archive { .. }))
    {
        return Err(CliError::Usage(format!(
            "--part goes not to {path}: parts share a layout (oci:DIR) or a repository; `starcar assemble` writes archives"
        )));
    }
    if !arguments.progress.quiet {
        progress.line(&summary);
    }
    if let Some(outline) = outline {
        let moved = arguments.image.complete(outline, part.files(), progress)?;
        part.take_from(&moved)?;
    }
    let destinations = arguments.destination.destinations(references, Naming::Move, open)?;
    let told = given.map(|given| told(given, part.prepared()));
    let packed = part.write(&destinations, told, progress)?;
    progress.finish();
    report(arguments, &packed)?;
    Ok(exit_code::OK)
}

fn report(arguments: &PackArguments, packed: &PackedPart) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(packed)
        .map_err(|error| CliError::Output { what: "metadata".to_owned(), cause: error.into() })?;
    arguments.result.tell(&packed.digest.to_string(), &(json + "\n"))
}
