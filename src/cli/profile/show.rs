//! `starcar profile show`

use std::{collections::HashMap, fmt::Write as _, path::PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::files;
use crate::{
    cli::{
        CliError,
        output::{count, size, table},
    },
    profile::{FileSummary, Profile, Recording, Summary, html, summary, svg, with_files},
};

/// Look-ups in vain that the table lists.
const MISSING_MAX: usize = 50;

/// Show what a profile says: a table, JSON, or a picture for a browser
///
/// The picture has a row for each file, in the order of first accesses, and time from left to right.
#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// The profile; - is standard input
    profile: String,
    /// How it is shown [default: by the ending of --output, otherwise table]
    #[arg(long, value_enum)]
    format: Option<FormatArgument>,
    /// Take sizes from this snapshot, and its files for patterns
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Write to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Table,
    Json,
    Svg,
    Html,
}

pub(super) fn run(arguments: &ShowArguments) -> Result<(), CliError> {
    files::spare(&arguments.profile, arguments.output.as_deref())?;
    let mut profile = files::load(&arguments.profile)?;
    let snapshot = arguments.snapshot.as_deref().map(files::snapshot_files).transpose()?;
    let mut sizes: HashMap<&str, u64> = HashMap::new();
    if let Some(snapshot) = &snapshot {
        let snapshot = files::borrowed(snapshot);
        profile = with_files(&profile, &snapshot);
        sizes = snapshot.into_iter().collect();
    }
    let summary = summary(&profile, &|path| sizes.get(path).copied());
    let title = format!("{}: {}", files::name(&arguments.profile), recordings(&profile.recordings));
    let ending = arguments.output.as_ref().and_then(|path| path.extension()?.to_str());
    let format = arguments.format.unwrap_or(match ending {
        Some("json") => FormatArgument::Json,
        Some("svg") => FormatArgument::Svg,
        Some("html" | "htm") => FormatArgument::Html,
        _ => FormatArgument::Table,
    });
    let text = match format {
        FormatArgument::Table => table_text(&profile, &summary),
        FormatArgument::Json => json_text(&profile, &summary)?,
        FormatArgument::Svg => svg(&title, &profile, &summary),
        FormatArgument::Html => html(&title, &profile, &summary),
    };
    files::write(&text, arguments.output.as_deref())
}

/// What was recorded, in a line.
fn recordings(recordings: &[Recording]) -> String {
    let names: Vec<String> = recordings
        .iter()
        .take(3)
        .map(|recording| {
            let engine = recording.engine.as_ref().map(|engine| {
                [Some(engine.name.as_str()), engine.version.as_deref()]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(" ")
            });
            let model = recording.model.as_ref().and_then(|model| model.repository.clone());
            let loader = recording.loader.as_ref().map(|loader| format!("loader {loader}"));
            let parts: Vec<String> = [engine, loader, model].into_iter().flatten().collect();
            if parts.is_empty() { "an unnamed program".to_owned() } else { parts.join(", ") }
        })
        .collect();
    let more = recordings.len().saturating_sub(3);
    match (names.is_empty(), more) {
        (true, _) => "no recording".to_owned(),
        (false, 0) => names.join("; "),
        (false, more) => format!("{}; and {more} more", names.join("; ")),
    }
}

fn table_text(profile: &Profile, summary: &Summary) -> String {
    let mut rows =
        vec![["place", "first s", "last s", "read", "of file", "ranges", "file"].map(str::to_owned).to_vec()];
    rows.extend(summary.files.iter().map(|file| {
        vec![
            (file.place + 1).to_string(),
            file.first.to_string(),
            file.last.to_string(),
            file.bytes.map_or("all".to_owned(), size),
            percent(file),
            if file.whole { "-".to_owned() } else { file.ranges.to_string() },
            file.name().escape_debug().to_string(),
        ]
    }));
    let mut text = table(&rows);
    if !summary.missing.is_empty() {
        text.push_str("\nlooked for, not there:\n");
        let rows: Vec<Vec<String>> = summary
            .missing
            .iter()
            .take(MISSING_MAX)
            .map(|file| vec![format!("  {}", file.first), file.name().escape_debug().to_string()])
            .collect();
        text.push_str(&table(&rows));
        if summary.missing.len() > MISSING_MAX {
            let _ = writeln!(text, "  and {} more", summary.missing.len() - MISSING_MAX);
        }
    }
    let _ = writeln!(
        text,
        "\n{}: {}, {} read within {} s, {} not there",
        recordings(&profile.recordings).escape_debug(),
        count(summary.files.len(), "file"),
        read_text(summary),
        summary.end,
        count(summary.missing.len(), "name")
    );
    text
}

/// `5.7 MiB`, `all of 3 files`, `5.7 MiB and all of 3 files`: sizes of files that are read whole may not be known.
fn read_text(summary: &Summary) -> String {
    let whole = summary.files.iter().filter(|file| file.bytes.is_none()).count();
    match (summary.bytes, whole) {
        (bytes, 0) => size(bytes),
        (0, whole) => format!("all of {}", count(whole, "file")),
        (bytes, whole) => format!("{} and all of {}", size(bytes), count(whole, "file")),
    }
}

fn percent(file: &FileSummary) -> String {
    match (file.bytes, file.size) {
        (_, Some(0) | None) | (None, _) => "-".to_owned(),
        (Some(bytes), Some(size)) => format!("{} %", u128::from(bytes) * 100 / u128::from(size)),
    }
}

fn json_text(profile: &Profile, summary: &Summary) -> Result<String, CliError> {
    let value = json!({
        "recordings": profile.recordings,
        "bytes": summary.bytes,
        "end": summary.end,
        "files": summary.files.iter().map(file_json).collect::<Vec<_>>(),
        "missing": summary.missing.iter().map(file_json).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&value)
        .map_err(|error| CliError::Output { what: "the answer".to_owned(), cause: error.into() })
}

/// What `--format json` says of a file.
pub(super) fn file_json(file: &FileSummary) -> Value {
    json!({
        "place": file.place + 1,
        "cache": files::cache_name(&file.tree),
        "path": file.target.text(),
        "pattern": matches!(file.target, crate::profile::Target::Glob(_)),
        "first": file.first,
        "last": file.last,
        "bytes": file.bytes,
        "ranges": file.ranges,
        "size": file.size,
    })
}
