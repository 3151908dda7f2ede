//! The terminal, which starcar and its command share. Must not know what is recorded.
//!
//! The command runs in a process group of its own, so that all of it can be ended. It is then no part of the
//! terminal's foreground group: it may write, but the kernel stops it when it reads. That is when it gets the
//! terminal. A command that never reads leaves it to starcar, and with it Ctrl-C, which starcar passes on.

use std::fs::File;

use nix::sys::signal::{SigSet, Signal as Named};
use rustix::{
    process::{Pid, Signal, getpgrp, getpid, kill_process, kill_process_group},
    termios::{tcgetpgrp, tcsetpgrp},
};

/// The controlling terminal, if there is one.
#[derive(Debug)]
pub(super) struct Terminal {
    file: Option<File>,
    /// Whether the command has it.
    lent: bool,
}

impl Terminal {
    pub(super) fn open() -> Self {
        Self { file: File::options().read(true).write(true).open("/dev/tty").ok(), lent: false }
    }

    /// The command was stopped by a signal: lends it the terminal if it is that what it wants, and else stops, too,
    /// until the shell continues us.
    pub(super) fn command_stopped(&mut self, signal: i32, command: Pid) {
        let Some(file) = &self.file else {
            // Nobody's shell waits for us. Who stopped the command will continue it.
            return;
        };
        let wants = [Signal::TTIN, Signal::TTOU].map(Signal::as_raw).contains(&signal);
        if wants && tcgetpgrp(file).is_ok_and(|group| group == getpgrp()) {
            self.lent = give(file, command);
        } else {
            let was_lent = self.lent;
            self.take_back();
            let _ = kill_process(getpid(), Signal::STOP);
            // Continued. In the background the command will be stopped again when it reads.
            if was_lent && let Some(file) = &self.file {
                self.lent = tcgetpgrp(file).is_ok_and(|group| group == getpgrp()) && give(file, command);
            }
        }
        let _ = kill_process_group(command, Signal::CONT);
    }

    pub(super) fn take_back(&mut self) {
        if let Some(file) = &self.file
            && self.lent
        {
            // The terminal may be gone.
            give(file, getpgrp());
            self.lent = false;
        }
    }
}

/// Gives the terminal to a process group, from the background, too: the signal that this brings about is blocked.
fn give(file: &File, group: Pid) -> bool {
    let signal: SigSet = [Named::SIGTTOU].into_iter().collect();
    let blocked = signal.thread_block().is_ok();
    let given = tcsetpgrp(file, group).is_ok();
    if blocked {
        let _ = signal.thread_unblock();
    }
    given
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take_back();
    }
}
