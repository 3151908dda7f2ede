//! Runs a program for its answer: not longer than a limit, and not more of its output than a limit. Must not know
//! what is asked.

use std::{
    ffi::OsStr,
    io::{self, Read as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// Most that is read of an answer, in bytes.
const ANSWER_MAX: u64 = 64 << 10;
/// How often a program whose output has ended is asked whether it has ended too.
const PAUSE: Duration = Duration::from_millis(5);

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    /// It cannot be run.
    #[error("it cannot be run")]
    NotRunnable(#[source] io::Error),
    /// It took too long.
    #[error("it gave no answer within {} s", .0.as_secs_f32())]
    Slow(Duration),
    /// It failed.
    #[error("it failed ({0})")]
    Failed(ExitStatus),
}

/// What `program` writes to its standard output, at most 64 KiB of it.
pub(super) fn ask(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    limit: Duration,
) -> Result<String, Silence> {
    let until = Instant::now() + limit;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // A group of its own, so that what it starts can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(Silence::NotRunnable)?;
    let answer = read(&mut child, until).and_then(|answer| Some((answer, wait(&mut child, until)?)));
    match answer {
        Some((answer, status)) if status.success() => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Some((_, status)) => Err(Silence::Failed(status)),
        None => {
            end(&mut child);
            Err(Silence::Slow(limit))
        }
    }
}

fn read(child: &mut Child, until: Instant) -> Option<Vec<u8>> {
    let output = child.stdout.take()?;
    let (sender, answer) = mpsc::channel();
    // Not waited for: what the program has started may hold the pipe open for ever.
    thread::Builder::new()
        .name("answer".to_owned())
        .spawn(move || {
            let mut bytes = Vec::new();
            let mut output = output.take(ANSWER_MAX);
            if output.read_to_end(&mut bytes).is_ok() {
                // Nobody may listen any more.
                let _ = sender.send(bytes);
            }
        })
        .ok()?;
    answer.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
}

fn wait(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().ok()? {
            return Some(status);
        }
        if Instant::now() >= until {
            return None;
        }
        thread::sleep(PAUSE);
    }
}

fn end(child: &mut Child) {
    // Fails only if it has ended already.
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<String, Silence> {
        ask(Path::new("/bin/sh"), &["-c", script], limit)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn an_answer() {
        assert_eq!(shell("echo one; echo two >&2", LONG).unwrap(), "one\n");
    }

    #[test]
    fn failures() {
        assert!(matches!(shell("echo one; exit 3", LONG), Err(Silence::Failed(_))));
        assert!(matches!(ask(Path::new("/does/not/exist"), &["x"], LONG), Err(Silence::NotRunnable(_))));
    }

    #[test]
    fn slow_and_endless_programs_are_ended() {
        let started = Instant::now();
        let limit = Duration::from_millis(200);
        assert!(matches!(shell("sleep 60", limit), Err(Silence::Slow(_))));
        assert!(matches!(shell("echo one; sleep 60 & exec sleep 60", limit), Err(Silence::Slow(_))));
        // Its pipe closes at the limit of the answer, and that ends it.
        assert!(shell("exec yes", LONG).is_err());
        assert!(started.elapsed() < LONG);
    }
}
