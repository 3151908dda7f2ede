//! `starcar profile diff`

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{files, show::file_json};
use crate::{
    cli::{
        CliError, exit_code,
        output::{self, size, table},
    },
    profile::{Difference, FileDifference, FileSummary, Moved, difference},
};

/// Compare two profiles: files, their order, bytes and times
///
/// The exit code is 0 when nothing differs and 1 when something does.
#[derive(Debug, Args)]
pub(super) struct DiffArguments {
    /// A profile; - is standard input
    left: String,
    /// Another profile
    right: String,
    /// Compare which files and bytes are read and in what order, not when
    #[arg(long)]
    ignore_times: bool,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = FormatArgument::Text)]
    format: FormatArgument,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Text,
    Json,
}

pub(super) fn run(arguments: &DiffArguments) -> Result<u8, CliError> {
    if arguments.left == "-" && arguments.right == "-" {
        return Err(CliError::Usage("standard input can be read once only".to_owned()));
    }
    let (left, right) = (files::load(&arguments.left)?, files::load(&arguments.right)?);
    let found = difference(&left, &right, !arguments.ignore_times);
    match arguments.format {
        FormatArgument::Text => output::data(&text(&found, &arguments.left, &arguments.right))?,
        FormatArgument::Json => output::data(&json_text(&found)?)?,
    }
    Ok(if found.is_empty() { exit_code::OK } else { exit_code::DIFFERENT })
}

fn text(found: &Difference, left: &str, right: &str) -> String {
    let mut text = String::new();
    for (files, what, name) in [
        (&found.only_left, "read by", left),
        (&found.only_right, "read by", right),
        (&found.missing_left, "looked for in vain by", left),
        (&found.missing_right, "looked for in vain by", right),
    ] {
        if files.is_empty() {
            continue;
        }
        let _ = writeln!(text, "only {what} {name}:");
        text.push_str(&table(&files.iter().map(only_row).collect::<Vec<_>>()));
    }
    if !found.changed.is_empty() {
        text.push_str("read by both:\n");
        text.push_str(&table(&found.changed.iter().map(changed_row).collect::<Vec<_>>()));
    }
    let _ = writeln!(
        text,
        "{} files alike, {} different, {} only left, {} only right",
        found.alike,
        found.changed.len(),
        found.only_left.len(),
        found.only_right.len()
    );
    text
}

fn only_row(file: &FileSummary) -> Vec<String> {
    vec![format!("  {}", file.name().escape_debug()), format!("{} s", file.first), bytes(file)]
}

fn changed_row(file: &FileDifference) -> Vec<String> {
    let moved = match file.moved {
        Some(Moved::Earlier) => "moved ahead",
        Some(Moved::Later) => "moved back",
        None => "",
    };
    let read = if file.other_bytes {
        let (left, right) = (bytes(&file.left), bytes(&file.right));
        if left == right { format!("other bytes, {left}") } else { format!("{left} -> {right}") }
    } else {
        String::new()
    };
    vec![
        format!("  {}", file.left.name().escape_debug()),
        format!("{} s -> {} s ({:+.3})", file.left.first, file.right.first, file.shift()),
        moved.to_owned(),
        read,
    ]
}

fn bytes(file: &FileSummary) -> String {
    file.bytes.map_or("all".to_owned(), size)
}

fn json_text(found: &Difference) -> Result<String, CliError> {
    let list = |files: &[FileSummary]| files.iter().map(file_json).collect::<Vec<_>>();
    let changed = found.changed.iter().map(|file| {
        json!({
            "left": file_json(&file.left),
            "right": file_json(&file.right),
            "moved": file.moved.map(|moved| match moved {
                Moved::Earlier => "earlier",
                Moved::Later => "later",
            }),
            "otherBytes": file.other_bytes,
        })
    });
    let value = json!({
        "onlyLeft": list(&found.only_left),
        "onlyRight": list(&found.only_right),
        "changed": changed.collect::<Vec<_>>(),
        "alike": found.alike,
        "missingLeft": list(&found.missing_left),
        "missingRight": list(&found.missing_right),
    });
    serde_json::to_string_pretty(&value)
        .map_err(|error| CliError::Output { what: "the answer".to_owned(), cause: error.into() })
}
