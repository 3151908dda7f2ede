//! Shows progress on standard error: bars on a terminal, lines elsewhere, nothing when asked.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{ProgressArguments, ProgressChoice, log, output};
use crate::{digest::Digest, progress::Observer};

/// Shows what it hears.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    /// Whether events are written as lines.
    lines: bool,
    /// Whether warnings are written.
    warnings: bool,
}

impl Progress {
    pub(super) fn new(arguments: &ProgressArguments) -> Self {
        let silent = arguments.quiet || arguments.progress == ProgressChoice::None;
        let bars = !silent && arguments.progress == ProgressChoice::Auto && io::stderr().is_terminal();
        let target = if bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        log::beside(&bar, arguments.quiet);
        Self { bar, lines: !silent, warnings: !arguments.quiet }
    }

    /// Ends the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Writes a line of words, above the bar if there is one.
    pub(super) fn line(&self, text: &str) {
        if self.lines {
            self.bar.suspend(|| output::words(text));
        }
    }

    fn begin(&self, total: u64, what: &str) {
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.reset();
        self.bar.set_length(total);
        self.bar.set_message(what.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }
}

impl Drop for Progress {
    /// An error must not be written over a bar.
    fn drop(&mut self) {
        self.finish();
    }
}

impl Observer for Progress {
    fn downloading(&self, source: &str, files: usize, total: u64) {
        let files = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
        self.line(&format!("downloading {} of {source}, {files}", output::size(total)));
        self.begin(total, "downloading");
    }

    fn downloaded(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn lost(&self, bytes: u64) {
        self.bar.dec(bytes);
    }

    fn download_resumed(&self, file: &str, position: u64) {
        self.line(&format!("going on with {file} after {}", output::size(position)));
    }

    fn file_done(&self, file: &str, size: u64) {
        self.line(&format!("downloaded {file} {}", output::size(size)));
    }

    fn hashing(&self, total: u64) {
        self.line(&format!("packing {}", output::size(total)));
        self.begin(total, "packing");
    }

    fn reading(&self, total: u64) {
        self.begin(total, "reading");
    }

    fn hashed(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn layer_done(&self, title: &str, digest: Digest, size: u64) {
        self.line(&format!("layer {digest} {} {title}", output::size(size)));
    }

    fn layer_known(&self, title: &str, digest: Digest, size: u64) {
        self.line(&format!("layer {digest} {} {title} (known)", output::size(size)));
    }

    fn warning(&self, text: &str) {
        if self.warnings {
            self.bar.suspend(|| output::warning(text));
        }
    }

    fn sending(&self, destination: &str, total: u64) {
        self.line(&format!("sending {} to {destination}", output::size(total)));
        self.begin(total, "sending");
    }

    fn sent(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn already_there(&self, digest: Digest) {
        self.line(&format!("{digest} is there already"));
    }

    fn elsewhere(&self, digest: Digest, url: &str) {
        self.bar.suspend(|| {
            output::warning(&format!(
                "layer {digest} is not at the source and is not copied; it is said to be at {url}"
            ));
        });
    }

    fn mounted(&self, digest: Digest) {
        self.line(&format!("the registry had {digest} in another repository"));
    }

    fn resumed(&self, digest: Digest, position: u64) {
        self.line(&format!("going on with {digest} after {}", output::size(position)));
    }
}
