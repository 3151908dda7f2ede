//! `starcar replay`

mod text;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::text::{comparison_text, replay_text};
use super::{
    CliError, RegistryArguments, exit_code,
    image_arguments::{FROM_IMAGE, attached, open_profile},
    output::{self, size},
    parse,
    platforms::asked,
    written_files,
};
use crate::{
    oci::{self, Platform, RegistryImage, Target},
    pack::ModelDirectory,
    profile::{Profile, merge},
    replay::{NodeSettings, Replay, ReplayImage, ReplayOptions, replay, timeline},
};

/// Play a profile's reads against an image, as a node that mounts it lazily would serve them, and tell how long they take
///
/// The requests are real, and every chunk that comes is verified. No root, no FUSE, no node. docs/replay.md says what is
/// modelled and what is not. With a limit, exit code 11 says that it was passed.
#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    /// The image: a name in a registry, oci:DIR[:tag] or oci-archive:FILE[:tag]
    image: Target,
    /// What a start reads: a profile's file, a built-in profile (see `starcar help plan`), or from:IMAGE for those that are
    /// attached to an image (repeatable: several are merged)
    #[arg(long, value_name = "PROFILE", required = true)]
    profile: Vec<String>,
    /// Factor of the profile's pauses; 0 reads as fast as it goes
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    think_scale: f64,
    /// Platform to play, of an image for several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Where the model lies in the image
    #[arg(long, value_name = "PATH", default_value = "/models")]
    model_dir: ModelDirectory,
    /// Play this image too, when the first is done, and tell the differences
    #[arg(long, value_name = "IMAGE")]
    compare: Option<Target>,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = FormatArgument::Table)]
    format: FormatArgument,
    /// Write a picture of the replay to this file (SVG)
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,

    /// Fail when the last read is answered later than this, such as 30s; the replay is stopped then, and reported as far as it came
    #[arg(long, value_name = "TIME", value_parser = parse::duration, help_heading = "Limits")]
    max_seconds: Option<f64>,
    /// Fail when more than this is fetched until the last read is answered, such as 20GiB
    #[arg(long, value_name = "SIZE", value_parser = parse::bytes, help_heading = "Limits")]
    max_bytes: Option<u64>,

    #[command(flatten, next_help_heading = "Node")]
    node: NodeArguments,
    #[command(flatten, next_help_heading = "Registry")]
    registry: RegistryArguments,
}

/// The node. Options of the same names are in the snapshotter's config.toml.
#[derive(Debug, Args)]
struct NodeArguments {
    /// The node: as stargz-snapshotter comes, or configured as docs/nodes.md recommends
    #[arg(long, value_enum, default_value_t = NodesArgument::Default)]
    nodes: NodesArgument,
    /// Bytes that the node asks for at least
    #[arg(long, value_name = "SIZE", value_parser = parse_unit)]
    node_chunk_size: Option<u64>,
    /// Bytes of each request of a prefetch; 0 makes one
    #[arg(long, value_name = "SIZE", value_parser = parse::bytes)]
    node_prefetch_chunk_size: Option<u64>,
    /// A layer's prefetch of more than this is not waited for; 0 waits for all
    #[arg(long, value_name = "SIZE", value_parser = parse::bytes)]
    node_prefetch_async_size: Option<u64>,
    /// How long a container waits for prefetch
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    node_prefetch_timeout: Option<f64>,
    /// How long a request may take, its body included
    #[arg(long, value_name = "TIME", value_parser = parse::limit)]
    node_request_timeout: Option<std::time::Duration>,
    /// Requests of background fetch at a time
    #[arg(long, value_name = "N", value_parser = parse::positive)]
    node_max_concurrency: Option<usize>,
    /// Fetch nothing in the background
    #[arg(long)]
    node_no_background_fetch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NodesArgument {
    Default,
    Recommended,
}

impl NodeArguments {
    fn settings(&self) -> NodeSettings {
        let base = match self.nodes {
            NodesArgument::Default => NodeSettings::default(),
            NodesArgument::Recommended => NodeSettings::recommended(),
        };
        NodeSettings {
            chunk_size: self.node_chunk_size.unwrap_or(base.chunk_size),
            prefetch_chunk_size: self.node_prefetch_chunk_size.unwrap_or(base.prefetch_chunk_size),
            prefetch_async_size: self.node_prefetch_async_size.unwrap_or(base.prefetch_async_size),
            prefetch_timeout: self.node_prefetch_timeout.unwrap_or(base.prefetch_timeout),
            request_timeout: self
                .node_request_timeout
                .map_or(base.request_timeout, |limit| limit.as_secs_f64()),
            max_concurrency: self.node_max_concurrency.unwrap_or(base.max_concurrency).min(CONCURRENCY_MAX),
            no_background_fetch: self.node_no_background_fetch,
            ..base
        }
    }
}

/// Threads that fetch in the background.
const CONCURRENCY_MAX: usize = 256;
/// Smallest unit: less would be requests of nothing but headers.
const UNIT_MIN: u64 = 4 << 10;

fn parse_unit(text: &str) -> Result<u64, String> {
    match parse::bytes(text) {
        Ok(..UNIT_MIN) => Err("must be at least 4KiB".to_owned()),
        result => result,
    }
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (0.0..=1000.0).contains(&factor) => Ok(factor),
        _ => Err("expected a factor from 0 to 1000, as in 0.5".to_owned()),
    }
}

/// Two replays, and how the second relates to the first.
#[derive(Debug, Serialize)]
struct Comparison<'a> {
    replays: [&'a Replay; 2],
    /// What the first image takes of what the second does; `null` where the second takes nothing.
    ratios: Ratios,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ratios {
    running: Option<f64>,
    last_read: Option<f64>,
    waited: Option<f64>,
    bytes: Option<f64>,
    requests: Option<f64>,
}

impl Ratios {
    fn of([first, second]: [&Replay; 2]) -> Self {
        let ratio = |of: fn(&Replay) -> f64| {
            let (first, second) = (of(first), of(second));
            (second > 0.0).then(|| (first / second * 1e3).round() / 1e3)
        };
        Self {
            running: ratio(|replay| replay.seconds.running),
            last_read: ratio(|replay| replay.seconds.last_read),
            waited: ratio(|replay| replay.waited),
            bytes: ratio(|replay| number(replay.total.bytes)),
            requests: ratio(|replay| number(replay.total.requests)),
        }
    }
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "a ratio does not need the 53rd bit")]
fn number(count: u64) -> f64 {
    count as f64
}

pub(super) fn run(arguments: &ReplayArguments) -> Result<u8, CliError> {
    let read = arguments.profile.iter().map(|profile| ("a profile that is read", Path::new(profile)));
    written_files::spare("--timeline", arguments.timeline.as_deref(), read)?;
    let platform = arguments.platform.clone().unwrap_or_else(Platform::of_host);
    let mut profiles: Vec<Profile> = Vec::new();
    for name in &arguments.profile {
        match name.strip_prefix(FROM_IMAGE) {
            Some(image) => profiles.extend(attached(image, &platform, &arguments.registry)?),
            None => profiles.push(open_profile(name)?),
        }
    }
    // Merging keeps the first access to each byte alone, so that one profile is played as it is.
    let profile = match profiles.len() {
        1 => profiles.swap_remove(0),
        _ => merge(profiles)?,
    };
    let options = ReplayOptions {
        node: arguments.node.settings(),
        platform,
        model_directory: arguments.model_dir.relative().to_owned(),
        profile_names: arguments.profile.clone(),
        think_scale: arguments.think_scale,
        max_seconds: arguments.max_seconds,
        temporary: std::env::temp_dir(),
    };
    let first = play(&arguments.image, &profile, &options, arguments)?;
    if let Some(path) = &arguments.timeline {
        let title = format!("A start from {}", first.image);
        written_files::write(path, &timeline(&title, &first))?;
    }
    // Limits are for the first.
    let options = ReplayOptions { max_seconds: None, ..options };
    let second =
        arguments.compare.as_ref().map(|image| play(image, &profile, &options, arguments)).transpose()?;
    match (arguments.format, &second) {
        (FormatArgument::Table, None) => output::data(&replay_text(&first))?,
        (FormatArgument::Json, None) => output::json(&first)?,
        (format, Some(second)) => {
            let replays = [&first, second];
            let comparison = Comparison { replays, ratios: Ratios::of(replays) };
            match format {
                FormatArgument::Table => output::data(&comparison_text(&comparison))?,
                FormatArgument::Json => output::json(&comparison)?,
            }
        }
    }
    if over_limits(&first, arguments) {
        return Ok(exit_code::OVER_LIMIT);
    }
    if first.reads == 0 && !first.stopped {
        let directory = arguments.model_dir.absolute();
        if first.layers.iter().any(|layer| layer.whole.is_some()) {
            output::warning(&format!(
                "no read was played: what is below {directory} is pulled whole before the container starts, and the \
                 seconds and bytes are those of that"
            ));
            return Ok(exit_code::OK);
        }
        output::warning(&format!(
            "nothing was played: the image has no file below {directory} that the profile reads"
        ));
        // A gate that tested nothing is none.
        if arguments.max_seconds.is_some() || arguments.max_bytes.is_some() {
            return Ok(exit_code::PROFILE);
        }
    }
    Ok(exit_code::OK)
}

/// Replays one image with connections and logins of its own: nothing of one replay helps the next.
fn play(
    image: &Target,
    profile: &Profile,
    options: &ReplayOptions,
    arguments: &ReplayArguments,
) -> Result<Replay, CliError> {
    if arguments.platform.is_some() {
        let source = oci::open(image, || arguments.registry.open())?;
        asked(&*source, arguments.platform.as_ref())?;
    }
    Ok(if let Target::Registry(reference) = image {
        let registry = arguments.registry.open()?;
        let source = RegistryImage::new(registry.clone(), reference.clone());
        replay(ReplayImage { source: &source, registry: Some((&registry, reference)) }, profile, options)?
    } else {
        let source = oci::open(image, || arguments.registry.open())?;
        replay(ReplayImage { source: &*source, registry: None }, profile, options)?
    })
}

/// Says which limits were passed, and by how much.
fn over_limits(replay: &Replay, arguments: &ReplayArguments) -> bool {
    let mut over = false;
    let took = replay.seconds.last_read;
    if replay.stopped {
        output::words(&format!(
            "over the limit: the replay was stopped after {took:.3} s with {} reads answered, as --max-seconds allows no more",
            replay.reads
        ));
        over = true;
    } else if let Some(limit) = arguments.max_seconds.filter(|limit| took > *limit) {
        output::words(&format!(
            "over the limit: the last read was answered after {took:.3} s, {:.3} s more than --max-seconds allows",
            took - limit
        ));
        over = true;
    }
    let bytes = replay.total.bytes;
    if let Some(limit) = arguments.max_bytes.filter(|limit| bytes > *limit) {
        output::words(&format!(
            "over the limit: {bytes} bytes were fetched, {} more than --max-bytes allows",
            size(bytes - limit)
        ));
        over = true;
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(factor("0"), Ok(0.0));
        assert_eq!(factor("0.45"), Ok(0.45));
        for bad in ["", "-1", "NaN", "inf", "1001", "x"] {
            assert!(factor(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_unit("4KiB"), Ok(4096));
        assert!(parse_unit("4095").is_err() && parse_unit("0").is_err());
    }
}
