//! `starcar cache env`

use clap::{Args, ValueEnum};

use super::source::SourceArguments;
use crate::{
    cli::{CliError, output, parse},
    compile_cache::{Contract, MOUNTED_AT_DEFAULT},
};

/// Print what the serving side must do so that an image's compile caches are used
///
/// The default is a snippet for sh, busybox's too, that copies the caches to where engines can write to them and
/// exports the variables that point engines there: put it before the engine's command, or into
/// `eval "$(starcar cache env IMAGE)"`.
#[derive(Debug, Args)]
#[command(mut_arg("source", |argument| argument.value_name("IMAGE").help("A name in a registry, oci:DIR[:tag] or oci-archive:FILE[:tag]")))]
pub(super) struct EnvArguments {
    #[command(flatten)]
    source: SourceArguments,
    /// Where the engine sees the model
    #[arg(long, value_name = "DIR", default_value = MOUNTED_AT_DEFAULT, value_parser = parse::plain_directory)]
    mounted_at: String,
    /// Copy the caches below this directory instead of the one that they were packed for
    #[arg(long, value_name = "DIR", value_parser = parse::plain_directory)]
    at: Option<String>,
    /// How the answer is printed: `env` has the variables alone, NAME=VALUE
    #[arg(long, value_enum, default_value_t = FormatArgument::Shell)]
    format: FormatArgument,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Shell,
    Env,
    Json,
}

pub(super) fn run(arguments: &EnvArguments) -> Result<(), CliError> {
    let (name, records) = arguments.source.records()?;
    let contract =
        Contract { records: &records, mounted_at: &arguments.mounted_at, at: arguments.at.as_deref() };
    match arguments.format {
        FormatArgument::Shell => output::data(&contract.shell(&name)),
        FormatArgument::Env => {
            let lines = contract.variables().into_iter();
            let lines: Vec<String> = lines.map(|set| format!("{}={}", set.name, set.value)).collect();
            output::data(&lines.join("\n"))
        }
        FormatArgument::Json => {
            let copies: Vec<_> = records
                .iter()
                .map(|record| {
                    serde_json::json!({
                        "name": record.name,
                        "from": contract.source(record),
                        "to": contract.place(record),
                    })
                })
                .collect();
            let environment: serde_json::Map<String, serde_json::Value> = contract
                .variables()
                .into_iter()
                .map(|variable| (variable.name.to_owned(), variable.value.into()))
                .collect();
            output::json(&serde_json::json!({
                "image": name,
                "model": arguments.mounted_at,
                "environment": environment,
                "copies": copies,
                "shell": contract.shell(&name),
            }))
        }
    }
}
