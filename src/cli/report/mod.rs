//! `starcar report`

mod text;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

use self::text::{markdown, report_text, side_by_side};
use super::{CliError, exit_code, output, parse, written_files};
use crate::report::{CacheUse, PhaseName, Report, ReportOptions, Run, RunLogs, Starts, picture, report};

/// Tell from an engine's logs how long each phase of its start took, and what changed between starts
///
/// Logs of vLLM and `SGLang`, and of containerd, the kubelet and stargz-snapshotter beside them; plain or gzip. Each LOG is
/// a run of its own; --run joins several logs of one. docs/report.md says which lines count. With a limit, exit code 11 says that
/// it was passed.
#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// Logs, each of one run; - reads standard input. The first run is what others are compared with
    #[arg(required_unless_present = "run", value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// A run with its name and its logs, as in cold=engine.log,containerd.log,snapshotter.log (repeatable; these runs
    /// come after those of LOG)
    #[arg(long, value_name = "NAME=LOG,…", value_parser = named)]
    run: Vec<RunLogs>,
    /// Which start of a log that has several: last, all, or its number from 1
    #[arg(long, value_name = "WHICH", default_value = "last", value_parser = starts)]
    start: Starts,
    /// Count only pulls of images whose reference has this text
    #[arg(long, value_name = "TEXT")]
    image: Option<String>,
    /// How the report is printed
    #[arg(long, value_enum, default_value_t = FormatArgument::Text)]
    format: FormatArgument,
    /// Write to this file, whole or not at all, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Fail when a phase of any run, or `total`, took longer, as in compile=10s (repeatable)
    #[arg(long, value_name = "PHASE=TIME", value_parser = limit, help_heading = "Limits")]
    max_seconds: Vec<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Text,
    Json,
    Svg,
    Html,
    Markdown,
}

/// A limit for a phase, or for the total.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limit {
    phase: Option<PhaseName>,
    seconds: f64,
}

impl Limit {
    fn name(self) -> &'static str {
        self.phase.map_or("total", PhaseName::id)
    }
}

fn named(text: &str) -> Result<RunLogs, String> {
    let (name, logs) =
        text.split_once('=').ok_or("expected NAME=LOG, as in cold=engine.log,containerd.log")?;
    let logs: Vec<PathBuf> = logs.split(',').map(PathBuf::from).collect();
    if name.is_empty() || logs.iter().any(|log| log.as_os_str().is_empty()) {
        return Err("expected NAME=LOG, as in cold=engine.log,containerd.log".to_owned());
    }
    Ok(RunLogs { name: Some(name.to_owned()), logs })
}

fn starts(text: &str) -> Result<Starts, String> {
    match text {
        "last" => Ok(Starts::Last),
        "all" => Ok(Starts::All),
        number => match number.parse() {
            Ok(number @ 1..) => Ok(Starts::Number(number)),
            _ => Err("expected last, all, or a number from 1".to_owned()),
        },
    }
}

fn limit(text: &str) -> Result<Limit, String> {
    let names = || {
        let names: Vec<&str> = PhaseName::ALL.into_iter().map(PhaseName::id).collect();
        format!("expected PHASE=TIME, as in compile=10s, with one of total, {}", names.join(", "))
    };
    let (name, time) = text.split_once('=').ok_or_else(names)?;
    let phase = match name {
        "total" => None,
        name => Some(PhaseName::ALL.into_iter().find(|phase| phase.id() == name).ok_or_else(names)?),
    };
    // A bare number is seconds, as in the option's name.
    let seconds = match time.parse::<f64>() {
        Ok(seconds) if (0.0..1e9).contains(&seconds) => seconds,
        _ => parse::duration(time)?,
    };
    Ok(Limit { phase, seconds })
}

pub(super) fn run(arguments: &ReportArguments) -> Result<u8, CliError> {
    let logs = arguments.logs.iter().map(|log| RunLogs { name: None, logs: vec![log.clone()] });
    let runs: Vec<RunLogs> = logs.chain(arguments.run.iter().cloned()).collect();
    let stdin = runs.iter().flat_map(|run| &run.logs).filter(|log| log.as_os_str() == "-").count();
    if stdin > 1 {
        return Err(CliError::Usage("only one log can come from standard input".to_owned()));
    }
    let logs = runs.iter().flat_map(|run| &run.logs).map(|log| ("a log that is read", log.as_path()));
    written_files::spare("--output", arguments.output.as_deref(), logs)?;
    let options = ReportOptions { starts: arguments.start, image: arguments.image.clone() };
    let mut report = report(&runs, &options)?;
    tell_apart(&mut report);
    let title = format!("Start-up: {}", names(&report));
    let text = match arguments.format {
        FormatArgument::Text => report_text(&report),
        FormatArgument::Json => serde_json::to_string_pretty(&report)
            .map_err(|error| CliError::Output { what: "the report".to_owned(), cause: error.into() })?,
        FormatArgument::Svg => picture::svg(&title, &report),
        FormatArgument::Html => picture::html(&title, &report, &side_by_side(&report)),
        FormatArgument::Markdown => markdown(&title, &report),
    };
    written_files::write_or_print(arguments.output.as_deref(), &text)?;
    Ok(gate(&report, &arguments.max_seconds))
}

fn names(report: &Report) -> String {
    let names: Vec<&str> = report.runs.iter().map(|run| run.name.as_str()).collect();
    names.join(", ")
}

/// Gives runs of the same name numbers.
fn tell_apart(report: &mut Report) {
    let mut seen: HashSet<String> = HashSet::new();
    let mut next: HashMap<String, usize> = HashMap::new();
    for run in &mut report.runs {
        let base = run.name.clone();
        while !seen.insert(run.name.clone()) {
            let number = next.entry(base.clone()).or_insert(2);
            run.name = format!("{base} ({number})");
            *number += 1;
        }
    }
}

/// Says which limits were passed, and returns the exit code.
fn gate(report: &Report, limits: &[Limit]) -> u8 {
    let mut code = exit_code::OK;
    for run in &report.runs {
        for limit in limits {
            match seconds(run, *limit) {
                Some(seconds) if seconds > limit.seconds => {
                    output::words(&format!(
                        "over the limit: {} took {seconds:.2} s in {}, {:.2} s more than --max-seconds allows",
                        limit.name(),
                        run.name,
                        seconds - limit.seconds
                    ));
                    code = exit_code::OVER_LIMIT;
                }
                Some(_) => {}
                // A gate that tested nothing is none.
                None => {
                    output::words(&format!(
                        "the limit for {} tested nothing: {} has no such phase in its log",
                        limit.name(),
                        run.name
                    ));
                    if code == exit_code::OK {
                        code = exit_code::FAILURE;
                    }
                }
            }
        }
    }
    code
}

fn seconds(run: &Run, limit: Limit) -> Option<f64> {
    let Some(phase) = limit.phase else { return run.total };
    let gone = phase == PhaseName::Compile && run.facts.compile_cache == Some(CacheUse::Hit);
    run.seconds(phase).or(gone.then_some(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(limit("compile=10s"), Ok(Limit { phase: Some(PhaseName::Compile), seconds: 10.0 }));
        assert_eq!(limit("total=2m"), Ok(Limit { phase: None, seconds: 120.0 }));
        assert_eq!(limit("graphs=1.5"), Ok(Limit { phase: Some(PhaseName::Graphs), seconds: 1.5 }));
        for bad in ["", "compile", "x=1s", "compile=", "compile=-1", "compile=NaN", "=3"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
        assert_eq!(starts("2"), Ok(Starts::Number(2)));
        for bad in ["0", "-1", "", "first"] {
            assert!(starts(bad).is_err(), "{bad}");
        }
        assert_eq!(named("a=b,c").map(|run| run.logs.len()), Ok(2));
        for bad in ["a", "=b", "a=", "a=b,,c"] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
