//! `starcar plan`

use clap::Args;

use super::{CliError, image_arguments::ImageArguments, output, pack::say, plan_text::plan_text};
use crate::pack::prepare;

/// Show how a snapshot would be laid out: each layer and file, and why it is where it is
#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    image: ImageArguments,
    /// Say nothing but errors; print the plan alone
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(arguments: &PlanArguments) -> Result<(), CliError> {
    let prepared = prepare(arguments.image.options()?, || arguments.image.registry.open())?;
    if !arguments.quiet {
        say(&prepared, output::words);
    }
    output::data(&plan_text(&prepared))
}
