//! `starcar man`, and the reference of all commands that `docs/cli.md` is.

use std::{fmt::Write as _, fs, io, path::PathBuf};

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, CliError, output};
use crate::profile::write_whole;

/// Columns of help in the reference.
const REFERENCE_WIDTH: usize = 100;

/// Write manual pages, one for each command
///
/// Without --output the page of `starcar` itself is printed, as `man -l -` reads it.
#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// Write all pages into this directory, which is made if it is not there
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(super) fn run(arguments: &ManArguments) -> Result<(), CliError> {
    let command = built();
    let Some(directory) = &arguments.output else {
        let page = page(&command).map_err(CliError::stdout)?;
        return output::data(&page);
    };
    let failed = |cause| CliError::Output { what: directory.display().to_string(), cause };
    fs::create_dir_all(directory).map_err(failed)?;
    for command in all(&command) {
        let path = directory.join(format!("{}.1", name(command)));
        page(command).and_then(|page| write_whole(&path, &page)).map_err(failed)?;
    }
    Ok(())
}

/// The command, with all that its subcommands inherit.
fn built() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// A command and all below it that are not hidden, each before its own.
fn all(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set()).flat_map(all);
    std::iter::once(command).chain(below).collect()
}

/// `starcar-cache-env`
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// The page of a command, without a date: it is the same whenever it is written.
fn page(command: &Command) -> io::Result<String> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .source(concat!("starcar ", env!("CARGO_PKG_VERSION")))
        .manual("starcar")
        .render(&mut page)?;
    // The writer leaves empty words out, and the next would be taken for the date.
    let title = format!(".TH {} 1 ", name(command));
    let page = String::from_utf8_lossy(&page);
    Ok(page.replacen(&format!("{title} "), &format!("{title}\"\" "), 1))
}

/// The reference of all commands and options, in Markdown: what `--help` prints for each.
pub fn reference() -> String {
    let command = built();
    let mut text = "\
# Commands

What `starcar COMMAND --help` prints, for every command. This file is generated; after a change of the options
`STARCAR_UPDATE_DOCS=1 cargo test --test completions` writes it anew.
"
    .to_owned();
    for command in all(&command) {
        let bin_name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
        let help = command.clone().term_width(REFERENCE_WIDTH).render_long_help().to_string();
        // Writing to a string cannot fail.
        let _ = write!(text, "\n## {bin_name}\n\n```text\n");
        for line in help.trim_end().lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text.push_str("```\n");
    }
    text
}
