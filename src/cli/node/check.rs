//! `starcar node check`

use std::{fmt::Write as _, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{CliError, RegistryArguments, exit_code, output, parse, version};
use crate::{
    node::{
        Version,
        check::{CheckOptions, CheckedImage, Finding, Report, Runtime, Severity, check},
    },
    oci::Target,
};

/// Say what a node lacks to start containers before images are pulled
///
/// Run it on the node, as root, or in a pod with the node's root mounted (--root /host). It changes nothing. What it may not
/// look at is unknown, never fine. Exit code 12 when an error is found (see --fail-on). docs/nodes.md lists all that can
/// be found.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// An image that the node shall run, looked at as the node would (repeatable): the registry, ranges, each layer
    #[arg(long = "registry", value_name = "IMAGE")]
    images: Vec<String>,
    /// The model that the node shall run, for the room that it needs: a size, as in 15GiB, or an image, as with --registry
    #[arg(long, value_name = "SIZE|IMAGE")]
    for_model: Option<String>,
    /// Where the node's root is mounted; all paths are the node's own, below it
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// What starts the node's containers [default: what is found]
    #[arg(long = "for", value_enum, value_name = "RUNTIME")]
    runtime: Option<RuntimeArgument>,
    /// containerd's settings [default: those of its process, else /etc/containerd/config.toml]
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    containerd_config: Option<String>,
    /// containerd's socket [default: that of its process, else /run/containerd/containerd.sock]
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    containerd_socket: Option<String>,
    /// Version of containerd [default: what it says]
    #[arg(long, value_name = "VERSION", value_parser = version)]
    containerd_version: Option<Version>,
    /// The snapshotter's settings [default: those of its process, else /etc/containerd-stargz-grpc/config.toml]
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    snapshotter_config: Option<String>,
    /// The snapshotter's socket [default: that of its process, else
    /// /run/containerd-stargz-grpc/containerd-stargz-grpc.sock]
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    snapshotter_socket: Option<String>,
    /// Where the snapshotter keeps layers [default: that of its process, else /var/lib/containerd-stargz-grpc]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    snapshotter_root: Option<String>,
    /// Version of the snapshotter, to find settings that it does not have: it does not tell it
    #[arg(long, value_name = "VERSION", value_parser = version)]
    snapshotter_version: Option<Version>,
    /// The least that makes the exit code 12
    #[arg(long, value_enum, default_value_t = FailArgument::Error)]
    fail_on: FailArgument,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = FormatArgument::Text)]
    format: FormatArgument,
    #[command(flatten, next_help_heading = "Registry")]
    registry_arguments: RegistryArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RuntimeArgument {
    Containerd,
    Crio,
    Podman,
}

impl From<RuntimeArgument> for Runtime {
    fn from(argument: RuntimeArgument) -> Self {
        match argument {
            RuntimeArgument::Containerd => Self::Containerd,
            RuntimeArgument::Crio => Self::Crio,
            RuntimeArgument::Podman => Self::Podman,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailArgument {
    /// Errors
    Error,
    /// Warnings and errors
    Warning,
    /// Those, and what could not be looked at
    Unknown,
    /// Nothing: the exit code is 0 whatever is found
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    /// Words
    Text,
    /// One JSON document
    Json,
}

/// A path on the node.
fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("expected an absolute path of the node".to_owned())
    }
}

pub(super) fn run(arguments: &CheckArguments) -> Result<u8, CliError> {
    if !arguments.root.is_dir() {
        return Err(CliError::Usage(format!("--root: {} is no directory", arguments.root.display())));
    }
    let image = |name: &String, is_model| -> Result<CheckedImage, CliError> {
        let Target::Registry(reference) = name.parse::<Target>()? else {
            return Err(CliError::Usage(format!("`{name}` is no name in a registry")));
        };
        Ok(CheckedImage { reference, plain_http: arguments.registry_arguments.plain_http, is_model })
    };
    let mut images: Vec<CheckedImage> =
        arguments.images.iter().map(|name| image(name, false)).collect::<Result<_, _>>()?;
    let model = match &arguments.for_model {
        None => None,
        Some(text) if text.starts_with(|first: char| first.is_ascii_digit()) && !text.contains('/') => Some(
            parse::bytes(text)
                .map_err(|message| CliError::Usage(format!("--for-model {text}: {message}")))?,
        ),
        Some(name) => {
            images.push(image(name, true)?);
            Some(0)
        }
    };
    let registry = if images.is_empty() { None } else { Some(arguments.registry_arguments.open()?) };
    let options = CheckOptions {
        root: arguments.root.clone(),
        runtime: arguments.runtime.map(Runtime::from),
        containerd_config: arguments.containerd_config.clone(),
        containerd_socket: arguments.containerd_socket.clone(),
        containerd_version: arguments.containerd_version,
        snapshotter_config: arguments.snapshotter_config.clone(),
        snapshotter_socket: arguments.snapshotter_socket.clone(),
        snapshotter_root: arguments.snapshotter_root.clone(),
        snapshotter_version: arguments.snapshotter_version,
        model,
    };
    let report = check(&options, registry.as_ref(), &images);
    match arguments.format {
        FormatArgument::Text => output::data(&text(&report))?,
        FormatArgument::Json => output::json(&report)?,
    }
    Ok(code(&report, arguments.fail_on))
}

fn code(report: &Report, fail_on: FailArgument) -> u8 {
    let fails = match fail_on {
        FailArgument::Error => report.worst >= Some(Severity::Error),
        FailArgument::Warning => report.worst >= Some(Severity::Warning),
        FailArgument::Unknown => report.worst >= Some(Severity::Warning) || !report.unknown.is_empty(),
        FailArgument::Never => false,
    };
    if fails { exit_code::NODE_LACKS } else { exit_code::OK }
}

fn text(report: &Report) -> String {
    let facts: Vec<Vec<String>> =
        report.facts.iter().map(|fact| vec![fact.looked_at.clone(), fact.found.clone()]).collect();
    let mut text = output::table(&facts);
    for finding in &report.findings {
        text.push('\n');
        text.push_str(&finding_text(finding));
    }
    for unknown in &report.unknown {
        let _ = write!(
            text,
            "\nunknown: {}\n  looked at: {}\n  why: {}\n",
            output::escaped(&unknown.unknown),
            output::escaped(&unknown.looked_at),
            output::escaped(&unknown.why)
        );
    }
    text.push('\n');
    text.push_str(&summary(report));
    text
}

fn finding_text(finding: &Finding) -> String {
    format!(
        "{}[{}] {}\n  looked at: {}\n  found: {}\n  breaks: {}\n  do: {}\n",
        finding.severity.name(),
        finding.rule.code,
        finding.rule.description,
        output::escaped(&finding.looked_at),
        output::escaped(&finding.found),
        finding.breaks,
        output::escaped(&finding.remedy)
    )
}

fn summary(report: &Report) -> String {
    let count =
        |wanted: Severity| report.findings.iter().filter(|finding| finding.severity == wanted).count();
    let counts = [
        (count(Severity::Error), "error"),
        (count(Severity::Warning), "warning"),
        (count(Severity::Note), "note"),
    ];
    let mut parts: Vec<String> = counts
        .iter()
        .filter(|(found, _)| *found > 0)
        .map(|(found, name)| output::count(*found, name))
        .collect();
    if !report.unknown.is_empty() {
        parts.push(format!("{} unknown", report.unknown.len()));
    }
    if parts.is_empty() { "nothing is missing".to_owned() } else { parts.join(", ") }
}
