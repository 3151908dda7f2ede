//! A start of an engine, told from its logs: which phase took how long, and where the log says so. Logs of vLLM and `SGLang`,
//! of containerd and the kubelet, and of stargz-snapshotter; several of them make one run. Must not know how a report is
//! printed.

mod clock;
mod compare;
mod entry;
mod lines;
mod log;
mod measure;
mod model;
mod phases;
pub mod picture;
mod rules;
mod run;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use self::log::Log;
pub use self::{
    compare::shown,
    model::{CacheUse, Change, Facts, LogFacts, Measured, Part, Phase, PhaseName, Report, Run, Source},
};

/// The version of the report's JSON. It grows when a member changes its meaning or goes away, not when one is added.
pub const SCHEMA: u32 = 1;
/// Logs of one run.
const LOGS_MAX: usize = 64;
/// Bytes that the known lines of a run's logs may take in memory, about, all of them together.
const BYTES_MAX: usize = 128 << 20;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A log could not be read.
    #[error("cannot read the log {name}")]
    Read {
        /// Its path, or `standard input`.
        name: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// Nothing in the logs of a run was known.
    #[error("no line of a start in {names}: none of {lines} lines is one that is understood")]
    Nothing {
        /// The logs.
        names: String,
        /// Their lines.
        lines: u64,
    },
    /// A start was asked for that the log does not have.
    #[error("{name} has no start {asked}: it has {starts}")]
    NoSuchStart {
        /// The log.
        name: String,
        /// What was asked for, from 1.
        asked: usize,
        /// Starts that it has.
        starts: usize,
    },
    /// More logs than one run can have.
    #[error("the run {0} has more than {LOGS_MAX} logs")]
    TooManyLogs(String),
}

/// Which starts of a log are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Starts {
    /// The last one.
    #[default]
    Last,
    /// Each of them, as a run of its own.
    All,
    /// The one of that number, from 1.
    Number(usize),
}

/// Where the logs of a run are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLogs {
    /// What the run is called; `None` takes the name of its first log.
    pub name: Option<String>,
    /// Paths of logs; `-` is standard input.
    pub logs: Vec<PathBuf>,
}

/// How logs are read.
#[derive(Debug, Clone, Default)]
pub struct ReportOptions {
    /// Which starts are reported.
    pub starts: Starts,
    /// Only pulls of images whose reference has this text count.
    pub image: Option<String>,
}

/// Reads the logs of runs. Logs are streamed: what is kept of those of one run is bounded, whatever their size; where that is
/// too little, the last starts are kept and a note says so.
///
/// # Errors
/// When a log cannot be read, when a run's logs have no line that is understood, and when a start is asked for that is
/// not there.
pub fn report(runs: &[RunLogs], options: &ReportOptions) -> Result<Report, ReportError> {
    let mut told = Vec::new();
    for run in runs {
        let name = run.name.clone().unwrap_or_else(|| {
            let first = run.logs.first().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
            if first == "-" { STDIN.to_owned() } else { file_name(&first) }
        });
        if run.logs.len() > LOGS_MAX {
            return Err(ReportError::TooManyLogs(name));
        }
        let bytes = BYTES_MAX / run.logs.len().max(1);
        let logs =
            run.logs.iter().map(|path| open(path, bytes)).collect::<Result<Vec<Log>, ReportError>>()?;
        if logs.iter().all(Log::is_empty) {
            let names: Vec<&str> = logs.iter().map(|log| log.name.as_str()).collect();
            let lines = logs.iter().map(|log| log.lines).sum();
            return Err(ReportError::Nothing { names: names.join(", "), lines });
        }
        told.extend(run::runs(&name, &logs, options)?);
    }
    let changes = compare::changes(&told);
    Ok(Report { schema: SCHEMA, runs: told, changes })
}

/// What errors call standard input.
const STDIN: &str = "standard input";

fn file_name(path: &str) -> String {
    let name = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path);
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.strip_suffix(".log").unwrap_or(name).to_owned()
}

fn open(path: &Path, bytes: usize) -> Result<Log, ReportError> {
    let stdin = path.as_os_str() == "-";
    let name = if stdin { STDIN.to_owned() } else { path.to_string_lossy().into_owned() };
    let stream: io::Result<Box<dyn Read>> = if stdin {
        Ok(Box::new(io::stdin().lock()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    stream
        .and_then(|stream| Log::read(&name, stream, bytes))
        .map_err(|cause| ReportError::Read { name, cause })
}

/// Makes a report of texts, as [`report`] does of files: each is the only log of a run, with its name.
///
/// # Errors
/// As [`report`].
pub fn report_of_texts(texts: &[(&str, &[u8])], options: &ReportOptions) -> Result<Report, ReportError> {
    let mut told = Vec::new();
    for (name, text) in texts {
        let log = Log::read(name, *text, BYTES_MAX)
            .map_err(|cause| ReportError::Read { name: (*name).to_owned(), cause })?;
        if log.is_empty() {
            return Err(ReportError::Nothing { names: (*name).to_owned(), lines: log.lines });
        }
        told.extend(run::runs(name, &[log], options)?);
    }
    let changes = compare::changes(&told);
    Ok(Report { schema: SCHEMA, runs: told, changes })
}
