//! Signals that ask starcar to end or to pause, as messages.

use std::{io, sync::mpsc::Sender, thread};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::SignalFd,
};

use super::{RecordError, command::Event};

/// Signals that end a recording, by way of its command.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Signals that are held back from now on, until somebody listens.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Holds the signals back in this thread and in those that it starts: to be called first. A command that is
    /// started gets them as ever.
    pub fn hold() -> Result<Self, RecordError> {
        let cannot = |cause: nix::errno::Errno| RecordError::System {
            what: "hold back signals",
            cause: io::Error::from(cause),
        };
        let mut signals: SigSet = ENDING.into_iter().collect();
        signals.add(Signal::SIGTSTP);
        // Not listened to: blocked, it lets us take the terminal back from the background.
        let mut blocked = signals;
        blocked.add(Signal::SIGTTOU);
        blocked.thread_block().map_err(cannot)?;
        Ok(Self(SignalFd::new(&signals).map_err(cannot)?))
    }

    /// Sends the signals on, from a thread of its own, for as long as somebody listens.
    pub(super) fn listen(self, events: Sender<Event>) -> Result<(), RecordError> {
        let listen = move || {
            loop {
                match self.0.read_signal() {
                    Ok(Some(signal)) => {
                        let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
                        if events.send(Event::Signal(number)).is_err() {
                            return;
                        }
                    }
                    Ok(None) | Err(nix::errno::Errno::EINTR) => {}
                    Err(_) => return,
                }
            }
        };
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(listen);
        thread.map(drop).map_err(RecordError::system("start a thread"))
    }
}
