//! The command below a recording: started in a process group of its own, watched, signalled, and ended. Must not know
//! what is recorded.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use regex::bytes::Regex;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};

use super::{ReadyUrl, RecordError, Signals, output, terminal::Terminal};

/// How long a command may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);
/// How long output is waited for that left-over children may yet write.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(1);
/// How often a server is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What ends a recording before its command does.
#[derive(Debug, Default)]
pub struct Conditions {
    /// A line of the command's output.
    pub line: Option<Regex>,
    /// A server that answers.
    pub ready: Option<ReadyUrl>,
    /// Time since the start.
    pub timeout: Option<Duration>,
}

/// Why a recording stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The command has ended.
    Ended(Ended),
    /// It has written this line.
    Line(String),
    /// The server answers.
    Ready,
    /// The time is over.
    Timeout,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with an exit code.
    Code(u8),
    /// By a signal.
    Signal(i32),
}

impl Ended {
    /// The exit code that shells give: 128 and the signal's number for a command that a signal ended.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => u8::try_from(number).map_or(u8::MAX, |number| number.saturating_add(128)),
        }
    }
}

/// What happens while a command runs.
#[derive(Debug)]
pub(super) enum Event {
    Ended(Ended),
    /// It was paused by this signal.
    Paused(i32),
    /// We were sent this signal.
    Signal(i32),
    Line(String),
    Ready,
}

/// A running command.
#[derive(Debug)]
pub struct Supervisor {
    process: Pid,
    started: Instant,
    timeout: Option<Duration>,
    events: Receiver<Event>,
    copies: Vec<JoinHandle<()>>,
    terminal: Terminal,
    /// The first signal that we were sent.
    signal: Option<i32>,
    /// When the command's time to end is over.
    kill_at: Option<Instant>,
    ended: Option<Ended>,
}

impl Supervisor {
    /// Starts the command, with variables added to the environment.
    pub fn start(
        command: &[OsString],
        environment: &[(&str, OsString)],
        conditions: Conditions,
        signals: Signals,
    ) -> Result<Self, RecordError> {
        let (program, arguments) = command.split_first().ok_or_else(|| RecordError::Spawn {
            program: "nothing".to_owned(),
            cause: io::ErrorKind::NotFound.into(),
        })?;
        let mut prepared = Command::new(program);
        prepared.args(arguments).process_group(0);
        prepared.envs(environment.iter().map(|(name, value)| (name, value)));
        // Going there anew leads into a cache that is mounted over what we stand on.
        if let Ok(directory) = std::env::current_dir() {
            prepared.current_dir(directory);
        }
        if conditions.line.is_some() {
            prepared.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let terminal = Terminal::open();
        let mut child = prepared
            .spawn()
            .map_err(|cause| RecordError::Spawn { program: program.to_string_lossy().into_owned(), cause })?;
        let started = Instant::now();
        let process = Pid::from_child(&child);
        let (sender, events) = mpsc::channel();
        let mut running = Self {
            process,
            started,
            timeout: conditions.timeout,
            events,
            copies: Vec::new(),
            terminal,
            signal: None,
            kill_at: None,
            ended: None,
        };
        let to_waiter = sender.clone();
        spawn("wait", move || wait(process, &to_waiter))?;
        signals.listen(sender.clone())?;
        if let Some(pattern) = conditions.line {
            let mut copy = |from: Option<Box<dyn Read + Send>>, to: Box<dyn Write + Send>| {
                let Some(from) = from else { return Ok(()) };
                let (pattern, sender) = (pattern.clone(), sender.clone());
                running.copies.push(spawn("output", move || {
                    output::copy(from, to, &pattern, |line| drop(sender.send(Event::Line(line))));
                })?);
                Ok(())
            };
            copy(child.stdout.take().map(|pipe| Box::new(pipe) as _), Box::new(io::stdout()))?;
            copy(child.stderr.take().map(|pipe| Box::new(pipe) as _), Box::new(io::stderr()))?;
        }
        if let Some(url) = conditions.ready {
            spawn("ready", move || ask(&url, &sender))?;
        }
        Ok(running)
    }

    /// Waits until a condition is met or the command has ended. A signal that starcar is sent is passed on, so that
    /// it ends the command; one that stays is killed.
    pub fn wait(&mut self) -> Stopped {
        // A time so far away that it cannot be told never comes.
        let deadline = self.timeout.and_then(|timeout| self.started.checked_add(timeout));
        self.pump(deadline, true)
    }

    /// Waits until the command has ended.
    pub fn wait_for_end(&mut self) -> Ended {
        loop {
            if let Stopped::Ended(ended) = self.pump(None, false) {
                return ended;
            }
        }
    }

    /// Asks the command and its children to end, and kills them when they do not.
    pub fn stop(&mut self) -> Ended {
        if self.ended.is_none() {
            self.send(Signal::TERM);
            // One that is paused would not notice.
            self.send(Signal::CONT);
            self.kill_at = Some(Instant::now() + GRACE);
        }
        self.wait_for_end()
    }

    /// The signal that starcar was asked with to end, if it was.
    pub fn signal(&self) -> Option<i32> {
        self.signal
    }

    fn pump(&mut self, deadline: Option<Instant>, conditions: bool) -> Stopped {
        loop {
            if let Some(ended) = self.ended {
                return Stopped::Ended(ended);
            }
            // A command that was told to end is given its time.
            let deadline = deadline.filter(|_| self.signal.is_none());
            let next = [deadline, self.kill_at].into_iter().flatten().min();
            let event = match next {
                Some(next) => self.events.recv_timeout(next.saturating_duration_since(Instant::now())),
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Ended(ended)) => self.finish(ended),
                Ok(Event::Paused(signal)) => self.terminal.command_stopped(signal, self.process),
                Ok(Event::Signal(signal)) => self.pass_on(signal),
                Ok(Event::Line(line)) if conditions && self.signal.is_none() => return Stopped::Line(line),
                Ok(Event::Ready) if conditions && self.signal.is_none() => return Stopped::Ready,
                Ok(Event::Line(_) | Event::Ready) => {}
                Err(RecvTimeoutError::Timeout) => {
                    let now = Instant::now();
                    if self.kill_at.is_some_and(|at| at <= now) {
                        self.kill_at = None;
                        self.send(Signal::KILL);
                    }
                    if deadline.is_some_and(|at| at <= now) {
                        return Stopped::Timeout;
                    }
                }
                // The waiting thread tells of the end before it ends.
                Err(RecvTimeoutError::Disconnected) => self.finish(Ended::Code(u8::MAX)),
            }
        }
    }

    fn pass_on(&mut self, number: i32) {
        let Some(signal) = Signal::from_named_raw(number) else { return };
        if signal == Signal::TSTP {
            // When the command has paused, we do.
            self.send(signal);
        } else if self.signal.is_some() {
            // Whoever asks twice is in a hurry.
            self.send(Signal::KILL);
        } else {
            self.signal = Some(number);
            self.kill_at = Some(Instant::now() + GRACE);
            self.send(signal);
            self.send(Signal::CONT);
        }
    }

    /// Signals the command and all of its children that have not left its group.
    fn send(&self, signal: Signal) {
        if self.ended.is_none() {
            // It may have ended just now.
            let _ = kill_process_group(self.process, signal);
        }
    }

    fn finish(&mut self, ended: Ended) {
        self.ended = Some(ended);
        self.kill_at = None;
        self.terminal.take_back();
        let until = Instant::now() + OUTPUT_PATIENCE;
        while self.copies.iter().any(|copy| !copy.is_finished()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Supervisor {
    /// No command stays behind when something else fails.
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.stop();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, RecordError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(RecordError::system("start a thread"))
}

fn wait(process: Pid, events: &Sender<Event>) {
    loop {
        let status = match waitpid(Some(process), WaitOptions::UNTRACED) {
            Ok(Some((_, status))) => status,
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            Err(_) => {
                let _ = events.send(Event::Ended(Ended::Code(u8::MAX)));
                return;
            }
        };
        let event = if let Some(signal) = status.stopping_signal() {
            Event::Paused(signal)
        } else if let Some(signal) = status.terminating_signal() {
            Event::Ended(Ended::Signal(signal))
        } else {
            let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
            Event::Ended(Ended::Code(code.unwrap_or(u8::MAX)))
        };
        let last = matches!(event, Event::Ended(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}

fn ask(url: &ReadyUrl, events: &Sender<Event>) {
    while !url.answers() {
        thread::sleep(ASK_EVERY);
    }
    let _ = events.send(Event::Ready);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_shells() {
        assert_eq!(Ended::Code(3).code(), 3);
        assert_eq!(Ended::Signal(15).code(), 143);
        assert_eq!(Ended::Signal(i32::MAX).code(), 255);
    }
}
