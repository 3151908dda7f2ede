//! A process that outlives a killed recorder and unmounts what that has left.
//!
//! The recorder holds the writing end of its standard input. The end of that without a word means that the recorder is
//! dead, however it died.

use std::{
    fs,
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::{RecordError, SOURCE, mount::detach, mount_table};

const DONE: &[u8] = b"done";

/// A watching process.
#[derive(Debug)]
pub struct Watchdog(Child);

impl Watchdog {
    /// Starts `command`, which must call [`watch`].
    pub fn start(mut command: Command) -> Result<Self, RecordError> {
        // A group of its own: what is typed on the terminal does not reach it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        command.current_dir("/");
        command.spawn().map(Self).map_err(RecordError::system("start the process that unmounts after a kill"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(mut input) = self.0.stdin.take() {
            let _ = input.write_all(DONE);
        }
        let _ = self.0.wait();
    }
}

/// Waits for the recorder's end. Unless that was in order, unmounts `points` and removes the directories `created`.
pub fn watch(mut input: impl Read, points: &[PathBuf], created: &[PathBuf]) {
    let mut words = Vec::new();
    if input.read_to_end(&mut words).is_ok() && words == DONE {
        return;
    }
    points.iter().filter(|point| mount_table::has(SOURCE, point)).for_each(|point| detach(point));
    for directory in created {
        // Only an empty one can be removed.
        let _ = fs::remove_dir(directory);
    }
}
