//! `starcar record`

use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use regex::bytes::Regex;

use super::{CliError, ProgressArguments, ProgressChoice, hub, output, parse};
use crate::{
    hub::HubOptions,
    pack::PackError,
    profile::{
        AccessKind, Engine, Folded, Profile, ProfileError, Tree, directory_of,
        record::{
            CacheDirectory, Conditions, Ended, MountOptions, MountPoint, Mounts, Places, ReadyUrl,
            RecordError, Recorder, Signals, Stopped, Supervisor, Watchdog, guess_engine, guess_loader, watch,
        },
    },
    snapshot::{self, Snapshot, SnapshotOptions},
};

/// The variable by which the command finds the model.
const MODEL_VARIABLE: &str = "STARCAR_MODEL";
/// The variable that makes Python write each line at once.
const PYTHON_VARIABLE: &str = "PYTHONUNBUFFERED";
/// What stands for the model's directory in the command.
const MODEL_PLACEHOLDER: &str = "{model}";
/// Most that --read-ahead takes, in bytes.
const READ_AHEAD_MAX: u64 = 64 << 20;

/// Record what a command reads of a model
///
/// The model is mounted read-only with the files that its image will have, and the command is run. What it opens, reads
/// (through mappings, too) and looks for in vain becomes a profile, by which `starcar pack --profile` lays an image
/// out. Needs no root where fusermount3 is installed.
///
/// The command finds the model's directory in the variable STARCAR_MODEL and in place of {model} in its arguments:
///
///   starcar record org/name --until 'startup complete' -- vllm serve {model}
///
/// The exit code is the command's own, or 128 and the number of the signal that ended it; 0 where starcar stopped it
/// because a condition was met; 127 and 126 when it cannot be found or run; 7 when it ended without an error before
/// --until or --until-http was met. SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on to the command, and a second one
/// kills it; the profile is written all the same. A profile that is there is kept when nothing of the model was
/// opened.
#[derive(Debug, Args)]
pub(super) struct RecordArguments {
    /// A hub cache's repository directory, a snapshot in it, a download made with --local-dir, any other
    /// directory, a repository (org/name) in the hub cache, or `hf://org/name[@revision]`, which is downloaded into it
    snapshot: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    /// Where the profile is written
    #[arg(short, long, value_name = "FILE", default_value = "starcar-profile.json")]
    output: PathBuf,
    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,

    /// Branch, tag or commit to take from a hub cache [default: main]
    #[arg(long, value_name = "REVISION", help_heading = "Files")]
    revision: Option<String>,
    /// Show only files that match this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Files")]
    include: Vec<String>,
    /// Leave out files that match this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Files")]
    exclude: Vec<String>,

    /// Where the model is mounted: an empty directory, or one to make [default: /models where that can be had,
    /// else a temporary directory]
    #[arg(long, value_name = "DIR", help_heading = "Mounts")]
    mount: Option<PathBuf>,
    /// Record this directory, too, such as a compile cache; it is mounted read-only over itself, or over an empty
    /// MOUNT (repeatable)
    #[arg(long, value_name = "DIR[:/MOUNT]", value_parser = cache, help_heading = "Mounts")]
    cache: Vec<CacheDirectory>,
    /// Bytes that the kernel reads around a byte of a mapped file. With 0 the profile has the very pages that were
    /// touched; with 128KiB mapped reads are faster, and as coarse. More takes root
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse::bytes, help_heading = "Mounts")]
    read_ahead: u64,
    /// Let other users read; without root, /etc/fuse.conf must have `user_allow_other`
    #[arg(long, help_heading = "Mounts")]
    allow_other: bool,

    /// Stop when a line of the command's output matches. The output goes through a pipe, so PYTHONUNBUFFERED=1 is set
    /// unless it is set already; other programs may need `stdbuf -oL`
    #[arg(long, value_name = "REGEX", value_parser = Regex::new, help_heading = "End of the recording")]
    until: Option<Regex>,
    /// Stop when this address answers with a status of 200 to 299; it is asked once a second
    #[arg(long, value_name = "URL", help_heading = "End of the recording")]
    until_http: Option<ReadyUrl>,
    /// Stop after this time (90s, 10m); together with --until or --until-http, fail then
    #[arg(long, value_name = "TIME", value_parser = parse::duration, help_heading = "End of the recording")]
    timeout: Option<f64>,
    /// When a condition is met, write the profile and leave the command running; the mount stays, and so does
    /// starcar, until it ends
    #[arg(long, help_heading = "End of the recording")]
    leave_running: bool,

    /// The engine, for the profile [default: what the command says]
    #[arg(long, value_name = "NAME", help_heading = "Description")]
    engine: Option<String>,
    /// The engine's version, for the profile
    #[arg(long, value_name = "VERSION", help_heading = "Description")]
    engine_version: Option<String>,
    /// How the engine loads weights, for the profile [default: the command's --load-format]
    #[arg(long, value_name = "NAME", help_heading = "Description")]
    loader: Option<String>,
}

/// Unmounts what a killed recorder has left; `starcar record` starts it
#[derive(Debug, Args)]
pub(super) struct WatchdogArguments {
    /// A directory to remove
    #[arg(long)]
    created: Vec<PathBuf>,
    /// The directories that are mounted on
    points: Vec<PathBuf>,
}

pub(super) fn run_watchdog(arguments: &WatchdogArguments) {
    watch(std::io::stdin().lock(), &arguments.points, &arguments.created);
}

pub(super) fn run(arguments: &RecordArguments) -> Result<u8, CliError> {
    let conditions = conditions(arguments)?;
    let can_be_ready = conditions.line.is_some() || conditions.ready.is_some();
    check_output(&arguments.output)?;
    // Signals end this.
    let snapshot = open(arguments)?;
    // Before anything is mounted, so that no signal leaves a mount.
    let signals = Signals::catch()?;
    let places = Places::find(&snapshot, arguments.mount.as_deref(), &arguments.cache)?;
    check_apart(&arguments.output, &places)?;

    // Dropped in reverse, whatever fails: the command ends, the mounts go, and then nobody needs to watch.
    let _watchdog = watchdog(&places)?;
    let recorder = Arc::new(Recorder::default());
    let read_ahead = u32::try_from(arguments.read_ahead).unwrap_or(u32::MAX);
    let options = MountOptions { read_ahead, allow_other: arguments.allow_other };
    let mounts = places.mount(&snapshot, &recorder, options)?;
    tell_mounts(arguments, &mounts);

    let model = mounts.points().next().map(|point| point.path().to_owned()).unwrap_or_default();
    let command = command(&arguments.command, &model);
    recorder.start();
    let mut environment = vec![(MODEL_VARIABLE, model.into())];
    // Python holds lines back where its output is a pipe, so that a line would be seen late.
    if arguments.until.is_some() && std::env::var_os(PYTHON_VARIABLE).is_none() {
        environment.push((PYTHON_VARIABLE, "1".into()));
    }
    let mut running = Supervisor::start(&command, &environment, conditions, signals)?;
    let stopped = running.wait();
    let folded = recorder.finish();
    tell_stop(arguments, &stopped);
    // An engine that shall go on does so even where the profile cannot be written.
    let written = write(arguments, &snapshot, &mounts, folded, ended_early(arguments, &stopped));

    let never_ready = waits(arguments) && stopped == Stopped::Ended(Ended::Code(0));
    let code = match stopped {
        Stopped::Ended(ended) => ended.code(),
        Stopped::Timeout if can_be_ready => {
            running.stop();
            drop(running);
            mounts.unmount()?;
            written?;
            return Err(RecordError::NotReady(conditions_timeout(arguments)).into());
        }
        _ if arguments.leave_running => running.wait_for_end().code(),
        _ => {
            running.stop();
            0
        }
    };
    let code = running.signal().map_or(code, |signal| Ended::Signal(signal).code());
    drop(running);
    mounts.unmount()?;
    written?;
    if never_ready && code == 0 {
        return Err(RecordError::NotReadyAtEnd.into());
    }
    Ok(code)
}

fn conditions(arguments: &RecordArguments) -> Result<Conditions, CliError> {
    let usage = |text: &str| Err(CliError::Usage(text.to_owned()));
    let ends = arguments.until.is_some() || arguments.until_http.is_some() || arguments.timeout.is_some();
    if arguments.leave_running && !ends {
        return usage("--leave-running needs --until, --until-http or --timeout");
    }
    if arguments.engine_version.is_some()
        && arguments.engine.is_none()
        && guess_engine(&arguments.command).is_none()
    {
        return usage("--engine-version needs --engine: the command does not say what it runs");
    }
    if arguments.read_ahead > READ_AHEAD_MAX {
        return usage("--read-ahead takes 64MiB at most");
    }
    let timeout = arguments.timeout.map(|_| conditions_timeout(arguments));
    Ok(Conditions { line: arguments.until.clone(), ready: arguments.until_http.clone(), timeout })
}

fn conditions_timeout(arguments: &RecordArguments) -> Duration {
    Duration::try_from_secs_f64(arguments.timeout.unwrap_or_default()).unwrap_or_default()
}

fn open(arguments: &RecordArguments) -> Result<Snapshot, CliError> {
    let mut options = SnapshotOptions {
        revision: arguments.revision.clone(),
        include: arguments.include.clone(),
        exclude: arguments.exclude.clone(),
        ..SnapshotOptions::default()
    };
    let shown = ProgressArguments { progress: ProgressChoice::Auto, quiet: arguments.quiet };
    let local = hub::local_shown(&arguments.snapshot, &mut options, &HubOptions::default(), &shown)?;
    let snapshot = snapshot::open(&local, &options).map_err(PackError::Snapshot)?;
    if !arguments.quiet {
        snapshot.warnings.iter().for_each(|warning| output::warning(&warning.to_string()));
    }
    Ok(snapshot)
}

fn cache(text: &str) -> Result<CacheDirectory, String> {
    // A directory may have a colon in its name.
    let split = text.rfind(":/").filter(|_| !Path::new(text).is_dir());
    let (directory, mount) = match split {
        Some(colon) => (&text[..colon], Some(PathBuf::from(&text[colon + 1..]))),
        None => (text, None),
    };
    if directory.is_empty() {
        return Err("expected a directory".to_owned());
    }
    Ok(CacheDirectory { directory: directory.into(), mount })
}

/// Finds out before hours of recording what would spoil their end.
fn check_output(path: &Path) -> Result<(), CliError> {
    let usage = |text: String| Err(CliError::Usage(format!("--output: {text}")));
    if path.as_os_str() == "-" {
        return usage("standard output is the command's; name a file".to_owned());
    }
    let parent = directory_of(path);
    if rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_err() || !parent.is_dir() {
        return usage(format!("cannot write in {}", parent.display()));
    }
    match path.metadata() {
        Ok(found) if !found.is_file() => usage(format!("{} is no file", path.display())),
        Ok(found) if found.len() > 0 && Profile::open(path).is_err() => {
            usage(format!("{} is no profile and will not be replaced; remove it first", path.display()))
        }
        _ => Ok(()),
    }
}

fn check_apart(output: &Path, places: &Places) -> Result<(), CliError> {
    let absolute = std::path::absolute(output).unwrap_or_else(|_| output.to_owned());
    let parent = absolute.parent().and_then(|parent| parent.canonicalize().ok()).unwrap_or(absolute);
    match places.points().find(|point| parent.starts_with(point.path())) {
        Some(point) => Err(CliError::Usage(format!(
            "--output: {} is mounted read-only; choose another directory",
            point.path().display()
        ))),
        None => Ok(()),
    }
}

fn watchdog(places: &Places) -> Result<Watchdog, CliError> {
    // This very program, whatever was installed since in its place.
    let mut command = process::Command::new("/proc/self/exe");
    command.arg("record-watchdog");
    for point in places.points().filter(|point| point.created()) {
        command.arg("--created").arg(point.path());
    }
    command.arg("--").args(places.points().map(MountPoint::path));
    Ok(Watchdog::start(command)?)
}

fn command(words: &[OsString], model: &Path) -> Vec<OsString> {
    let replace = |word: &OsString| match (word.to_str(), model.to_str()) {
        (Some(word), Some(model)) => word.replace(MODEL_PLACEHOLDER, model).into(),
        _ => word.clone(),
    };
    words.iter().map(replace).collect()
}

fn tell_mounts(arguments: &RecordArguments, mounts: &Mounts) {
    if arguments.quiet {
        return;
    }
    let points: Vec<String> = mounts.points().map(|point| point.path().display().to_string()).collect();
    output::words(&format!("recording; mounted: {}", points.join(" ")));
    if u64::from(mounts.read_ahead()) < arguments.read_ahead {
        output::warning(&format!(
            "the kernel grants a read-ahead of {} only",
            output::size(mounts.read_ahead().into())
        ));
    }
    if !mounts.exact() {
        output::warning("this kernel is older than 6.6: calls of read() are recorded in pages, not bytes");
    }
}

fn tell_stop(arguments: &RecordArguments, stopped: &Stopped) {
    if arguments.quiet {
        return;
    }
    match stopped {
        Stopped::Ended(ended) => {
            if waits(arguments) && *ended != Ended::Code(0) {
                output::warning("the command ended before it was ready");
            }
            let how = match ended {
                Ended::Code(0) => return,
                Ended::Code(code) => format!("with exit code {code}"),
                Ended::Signal(signal) => format!("by signal {signal}"),
            };
            output::warning(&format!("the command ended {how}; the profile has what it read until then"));
        }
        Stopped::Line(line) => output::words(&format!("recorded until: {}", line.escape_debug())),
        Stopped::Ready => output::words("recorded until the server answered"),
        Stopped::Timeout => output::words("recorded until the time was over"),
    }
}

/// Why the recording does not show a whole start, where it does not.
fn ended_early(arguments: &RecordArguments, stopped: &Stopped) -> Option<String> {
    match stopped {
        Stopped::Ended(Ended::Code(0)) if !waits(arguments) => None,
        Stopped::Ended(Ended::Code(0)) => Some("the command ended before it was ready".to_owned()),
        Stopped::Ended(Ended::Code(code)) => Some(format!("exit code {code}")),
        Stopped::Ended(Ended::Signal(signal)) => Some(format!("signal {signal}")),
        Stopped::Timeout => Some("--timeout".to_owned()),
        Stopped::Line(_) | Stopped::Ready => None,
    }
}

/// Whether the recording ends when the command is ready.
fn waits(arguments: &RecordArguments) -> bool {
    arguments.until.is_some() || arguments.until_http.is_some()
}

fn write(
    arguments: &RecordArguments,
    snapshot: &Snapshot,
    mounts: &Mounts,
    folded: Folded,
    ended_early: Option<String>,
) -> Result<(), CliError> {
    let mut recording = mounts.describe(snapshot);
    recording.ended_early = ended_early;
    let engine = arguments.engine.clone().or_else(|| guess_engine(&arguments.command).map(str::to_owned));
    recording.engine =
        engine.map(|name| Engine { name, version: arguments.engine_version.clone(), ..Engine::default() });
    recording.loader = arguments.loader.clone().or_else(|| guess_loader(&arguments.command));
    let Folded { accesses, tolerance, dropped } = folded;
    let profile = Profile { recordings: vec![recording], accesses, ..Profile::default() };
    let of_model =
        |access: &crate::profile::Access| access.tree == Tree::Model && access.kind != AccessKind::Missing;
    let opened = profile.accesses.iter().any(of_model);
    // It was looked at before the recording: what is there and not empty is a profile.
    let kept = !opened && arguments.output.metadata().is_ok_and(|found| found.len() > 0);
    if !kept {
        save(&profile, &arguments.output)?;
    }
    if arguments.quiet {
        return Ok(());
    }
    if tolerance > 0 {
        output::warning(&format!(
            "there were too many reads to list: ranges may cover gaps of up to {}",
            output::size(tolerance)
        ));
    }
    if dropped > 0 {
        output::warning(&format!("{dropped} accesses of further files are not listed"));
    }
    if !opened {
        output::warning(&format!(
            "the command opened nothing of the model; pass it {MODEL_PLACEHOLDER}, or ${MODEL_VARIABLE}"
        ));
    }
    if kept {
        output::warning(&format!(
            "{} was not replaced: this recording has nothing of the model",
            arguments.output.display()
        ));
        return Ok(());
    }
    let read: u64 = profile.accesses.iter().flat_map(|access| &access.ranges).map(|range| range.length).sum();
    output::words(&format!(
        "wrote {}: {}, {} read",
        arguments.output.display(),
        if profile.accesses.len() == 1 {
            "1 access".to_owned()
        } else {
            format!("{} accesses", profile.accesses.len())
        },
        output::size(read)
    ));
    Ok(())
}

/// Writes a profile, and where that fails into the directory of temporary files: the start may have taken hours.
fn save(profile: &Profile, path: &Path) -> Result<(), CliError> {
    let (path, cause) = match profile.save(path) {
        Err(ProfileError::Write { path, cause }) => (path, cause),
        saved => return Ok(saved?),
    };
    let elsewhere = tempfile::Builder::new().prefix("starcar-profile-").suffix(".json").tempfile();
    let saved = elsewhere.and_then(|mut file| {
        file.write_all(profile.to_json().as_bytes())?;
        Ok(file.keep()?.1)
    });
    Err(match saved {
        Ok(saved) => RecordError::WrittenElsewhere { path, saved, cause }.into(),
        Err(_) => ProfileError::Write { path, cause }.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_and_commands() {
        let of = |text: &str| cache(text).unwrap();
        assert_eq!(of("/a:/b"), CacheDirectory { directory: "/a".into(), mount: Some("/b".into()) });
        assert_eq!(of("a:b"), CacheDirectory { directory: "a:b".into(), mount: None });
        assert!(cache("").is_err() && cache(":/b").is_err());
        let words = ["vllm", "--model={model}", "{model}/x"].map(OsString::from);
        assert_eq!(command(&words, Path::new("/models")), ["vllm", "--model=/models", "/models/x"]);
    }
}
