//! `starcar completions`

use clap::{Args, Command, CommandFactory as _, ValueEnum as _};
use clap_complete::Shell;

use super::{Cli, CliError, output};

/// Print what completes this command's options in a shell
///
/// For bash: `starcar completions bash > /etc/bash_completion.d/starcar`. For zsh a file `_starcar` in a directory of
/// `$fpath`; for fish `~/.config/fish/completions/starcar.fish`; PowerShell and elvish evaluate it in their profile.
#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// The shell
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(["bash", "elvish", "fish", "powershell", "zsh"]))]
    shell: String,
}

pub(super) fn run(arguments: &CompletionsArguments) -> Result<(), CliError> {
    let shell = Shell::from_str(&arguments.shell, false).map_err(CliError::Usage)?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(&Cli::command()), "starcar", &mut script);
    output::data(&String::from_utf8_lossy(&script))
}

/// The command without those below it that are hidden: what generates completions does not leave them out. Help and
/// descriptions of the command itself are in no completion.
fn visible(command: &Command) -> Command {
    Command::new("starcar")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .args(command.get_arguments().cloned())
        .subcommands(command.get_subcommands().filter(|below| !below.is_hide_set()).cloned())
}
