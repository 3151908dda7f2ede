//! Signals that ask starcar to end or to pause, as messages.
//!
//! They are caught, not blocked: what is blocked stays so in the command, and it could not be ended.

use std::{fs, io, sync::mpsc::Sender, thread};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP},
    iterator::Signals as Caught,
};

use super::{RecordError, command::Event};

/// Signals that are caught from now on, and kept until somebody listens.
#[derive(Debug)]
pub struct Signals(Caught);

impl Signals {
    /// Catches the signals that end a recording, by way of its command. What whoever started us has set to be ignored
    /// (`nohup`) stays ignored, by the command, too.
    pub fn catch() -> Result<Self, RecordError> {
        let ignored = ignored();
        let signals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP];
        let signals = signals.iter().filter(|signal| ignored & (1 << (**signal - 1)) == 0);
        let caught: io::Result<Caught> = Caught::new(signals);
        caught.map(Self).map_err(RecordError::system("catch signals"))
    }

    /// Sends the signals on, from a thread of its own, for as long as somebody listens.
    pub(super) fn listen(mut self, events: Sender<Event>) -> Result<(), RecordError> {
        let listen = move || {
            for signal in &mut self.0 {
                if events.send(Event::Signal(signal)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(listen);
        thread.map(drop).map_err(RecordError::system("start a thread"))
    }
}

/// The signals that this process ignores: bit 0 is signal 1.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
