//! `starcar plan`

use std::borrow::Cow;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    CliError, ProgressArguments, ProgressChoice, image_arguments::ImageArguments, output, pack::say, parse,
    plan_text::plan_text, progress::Progress,
};
use crate::{
    layer::Storage,
    pack::{Prepared, prepare},
    plan::{Estimate, Link, Node, PlanFile, estimate_eager, estimate_lazy, plan},
    profile::{self, Profile, Tree, resolve},
};

/// Show how a snapshot would be laid out: each layer and file, and why it is where it is
///
/// Built-in profiles: generic, vllm-default, vllm-runai-streamer, sglang, transformers.
#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    image: ImageArguments,
    /// Estimate a start over a link of this bandwidth, such as 1Gbit or 200Mbit
    #[arg(long, value_name = "BANDWIDTH", value_parser = parse::bandwidth, help_heading = "Estimate")]
    bandwidth: Option<f64>,
    /// Round-trip time of the link [default: 1ms]
    #[arg(long, value_name = "TIME", value_parser = parse::duration, requires = "bandwidth", help_heading = "Estimate")]
    rtt: Option<f64>,
    /// How the plan is printed
    #[arg(long, value_enum, default_value_t = FormatArgument::Text)]
    format: FormatArgument,
    /// Say nothing but errors; print the plan alone
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Text,
    Json,
}

/// Round-trip time in seconds when none is given.
const ROUND_TRIP_DEFAULT: f64 = 0.001;

pub(super) fn run(arguments: &PlanArguments) -> Result<(), CliError> {
    let progress =
        Progress::new(&ProgressArguments { progress: ProgressChoice::Auto, quiet: arguments.quiet });
    let mut options = arguments.image.options()?;
    let _outline = arguments.image.outline(&mut options, &progress)?;
    progress.finish();
    let prepared = prepare(options, || arguments.image.registry.open())?;
    if !arguments.quiet {
        say(&prepared, output::words);
    }
    let link = arguments
        .bandwidth
        .map(|bandwidth| Link { bandwidth, round_trip: arguments.rtt.unwrap_or(ROUND_TRIP_DEFAULT) });
    if link.is_some() && !arguments.quiet && !prepared.is_recorded() {
        output::words(
            "the profile is written, not recorded: its pauses are not those of your engine, so compare the \
             estimates with each other only",
        );
    }
    let estimates = link.map(|link| estimates(&prepared, link)).transpose()?.unwrap_or_default();
    match arguments.format {
        FormatArgument::Text => output::data(&(plan_text(&prepared) + &estimates_text(&estimates))),
        FormatArgument::Json => output::data(&json(&prepared, &estimates)?),
    }
}

/// A way to start, and how long it takes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EstimateRow {
    what: &'static str,
    /// Seconds until the container runs.
    running: f64,
    /// Seconds until the last read of the profile is answered.
    last_read: f64,
    /// Bytes fetched by then.
    fetched: u64,
}

fn estimates(prepared: &Prepared, link: Link) -> Result<Vec<EstimateRow>, CliError> {
    let files = &replayed(&prepared.files)?;
    let base = prepared.plan_options.base_prefetched;
    // The same start, of an image that nobody laid out for it.
    let without: Vec<PlanFile> = files.iter().map(|file| PlanFile { usage: None, ..file.clone() }).collect();
    let natural = plan(&without, &prepared.plan_options).map_err(crate::pack::PackError::from)?;
    let unpack_speed =
        |node: Node| Node { unpack_speed: prepared.unpack_speed().unwrap_or(node.unpack_speed), ..node };
    let (node, tuned) = (unpack_speed(Node::default()), unpack_speed(Node::recommended()));
    let row = |what, estimate: Estimate| EstimateRow {
        what,
        running: rounded(estimate.running),
        last_read: rounded(estimate.last_read),
        // Never negative, and far below 2^64.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        fetched: estimate.fetched.round() as u64,
    };
    Ok(vec![
        row("this plan", estimate_lazy(&prepared.plan, files, base, link, node)),
        row("this plan, recommended node", estimate_lazy(&prepared.plan, files, base, link, tuned)),
        row("natural order", estimate_lazy(&natural, files, base, link, node)),
        row("eager pull", estimate_eager(&prepared.plan, files, base, link, node)),
    ])
}

/// The files, with the reads that are replayed: the profile's, or the default profile's where there are none.
fn replayed(files: &[PlanFile]) -> Result<Cow<'_, [PlanFile]>, CliError> {
    if files.iter().any(|file| file.usage.is_some()) {
        return Ok(Cow::Borrowed(files));
    }
    let Some(profile) = Profile::built_in(profile::DEFAULT).transpose()? else {
        return Ok(Cow::Borrowed(files));
    };
    let names: Vec<(&str, u64)> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    let uses = resolve(&profile, &Tree::Model, &names).uses;
    Ok(files.iter().zip(uses).map(|(file, usage)| PlanFile { usage, ..file.clone() }).collect())
}

/// To the millisecond: more would claim more than a model can.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

fn estimates_text(rows: &[EstimateRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let heading = ["estimate", "container runs", "last read", "fetched by then"];
    let table: Vec<Vec<String>> = std::iter::once(heading.map(str::to_owned).to_vec())
        .chain(rows.iter().map(|row| {
            vec![
                row.what.to_owned(),
                format!("{:.1} s", row.running),
                format!("{:.1} s", row.last_read),
                output::size(row.fetched),
            ]
        }))
        .collect();
    format!("\n{}", output::table(&table))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlanDocument<'a> {
    /// Those of the base that has most.
    base_layers: usize,
    /// The layers of each platform's base, where there are several platforms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    platforms: Vec<PlatformDocument>,
    layers: Vec<LayerDocument<'a>>,
    /// What compressing weights saves and costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    compressed_weights: Option<CompressedDocument>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    estimates: &'a [EstimateRow],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CompressedDocument {
    size: u64,
    estimated_size: u64,
    /// Seconds that one core of a node takes to unpack them.
    unpack_seconds: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlatformDocument {
    platform: String,
    base_layers: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LayerDocument<'a> {
    kind: &'static str,
    /// Name of the compile cache in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'a str>,
    /// The GPU target whose image has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    /// Number of files before the prefetch landmark.
    prioritized: usize,
    files: Vec<FileDocument<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileDocument<'a> {
    path: Cow<'a, str>,
    size: u64,
    compressed: bool,
    /// Lengths in bytes.
    chunks: &'a [u64],
    reason: &'a str,
}

fn json(prepared: &Prepared, estimates: &[EstimateRow]) -> Result<String, CliError> {
    let layers = prepared.planned().map(|(layer, files, cache)| LayerDocument {
        kind: layer.kind.name(),
        cache: cache.map(|cache| cache.name.as_str()),
        target: cache.and_then(|cache| cache.target.as_deref()),
        prioritized: layer.prioritized,
        files: layer
            .files
            .iter()
            .map(|file| FileDocument {
                path: match cache {
                    Some(cache) => Cow::Owned(format!("{}/{}", cache.directory, files[file.index].path)),
                    None => Cow::Borrowed(&files[file.index].path),
                },
                size: files[file.index].size,
                compressed: file.storage != Storage::Stored,
                chunks: &file.chunks,
                reason: &file.reason,
            })
            .collect(),
    });
    let compressed_weights = prepared.compressed_weights().map(|weights| CompressedDocument {
        size: weights.size,
        estimated_size: weights.estimated,
        unpack_seconds: rounded(weights.unpack_seconds()),
    });
    let mut platforms: Vec<PlatformDocument> = prepared
        .platforms()
        .map(|(platform, base_layers)| PlatformDocument { platform: platform.to_string(), base_layers })
        .collect();
    if platforms.len() == 1 {
        platforms.clear();
    }
    let document = PlanDocument {
        base_layers: prepared.plan_options.base_layers,
        platforms,
        layers: layers.collect(),
        compressed_weights,
        estimates,
    };
    serde_json::to_string_pretty(&document)
        .map_err(|error| CliError::Output { what: "the plan".to_owned(), cause: error.into() })
}
