//! `starcar registry check`

use clap::{Args, Subcommand, ValueEnum};

use super::{CliError, exit_code, naming::reference, output, registry_arguments::RegistryArguments};
use crate::{
    naming::Naming,
    oci::OciError,
    registry::{Finding, Preflight, Verdict},
};

/// Find out about registries
#[derive(Debug, Args)]
pub(super) struct RegistryCommand {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    Check(CheckArguments),
}

/// Try what pushing to a repository and mounting from it without pulling need
///
/// A blob of a few bytes is pushed and removed again, where the registry removes blobs. Exit code 6 when something is
/// missing that pushing or mounting does not work without.
#[derive(Debug, Args)]
struct CheckArguments {
    /// The repository, with or without a tag
    reference: String,
    /// How the findings are printed
    #[arg(long, value_enum, default_value_t = FormatArgument::Text)]
    format: FormatArgument,
    #[command(flatten, next_help_heading = "Registry")]
    registry: RegistryArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Text,
    Json,
}

pub(super) fn run(arguments: &RegistryCommand) -> Result<u8, CliError> {
    let Subcommands::Check(arguments) = &arguments.command;
    let name = &arguments.reference;
    if !name.contains('/') && (name.contains(['.', ':']) || name == "localhost") {
        return Err(CliError::Usage(format!("`{name}` is a registry; name a repository of it: {name}/NAME")));
    }
    let reference = reference(name, Naming::Move)?;
    let registry = arguments.registry.open()?;
    let preflight = registry.preflight(&reference).map_err(OciError::from)?;
    match arguments.format {
        FormatArgument::Text => output::data(&text(&preflight))?,
        FormatArgument::Json => output::json(&preflight)?,
    }
    Ok(if preflight.missing().next().is_some() { exit_code::REGISTRY } else { exit_code::OK })
}

fn text(preflight: &Preflight) -> String {
    let Preflight { registry, repository, known, findings, .. } = preflight;
    let name = known.as_ref().map(|known| format!(" ({})", known.name)).unwrap_or_default();
    let mut rows: Vec<Vec<String>> = vec![["", "", "needed for", ""].map(str::to_owned).to_vec()];
    rows.extend(findings.iter().map(row));
    let mut text = format!("{registry}{name}, repository {repository}\n\n{}", output::table(&rows));
    if let Some(known) = known {
        text = text + "\n" + &output::escaped(&known.notes) + "\n";
    }
    text += match preflight.missing().count() {
        0 if findings.iter().any(|finding| finding.required && finding.verdict == Verdict::Unknown) => {
            "\nNot all that is required could be tried.\n"
        }
        0 => "\nImages can be pushed, and mounted without pulling.\n",
        _ => "\nSomething is missing that pushing, or mounting without pulling, does not work without.\n",
    };
    text
}

fn row(finding: &Finding) -> Vec<String> {
    let mark = if finding.required { "required" } else { "" };
    let verdict = match (finding.verdict, mark) {
        (Verdict::No, "required") => "NO".to_owned(),
        (verdict, _) => verdict.to_string(),
    };
    vec![finding.what.to_owned(), verdict, finding.needed_for.to_owned(), finding.detail.clone()]
}
