//! A replay in words.

use std::fmt::Write as _;

use super::{Comparison, Ratios};
use crate::{
    cli::output::{count, size, table},
    replay::{Cause, Fetched, Replay, ReplayedLayer},
};

/// What `starcar replay` prints.
pub(super) fn replay_text(replay: &Replay) -> String {
    let mut text = table(&head(replay));
    text.push('\n');
    text.push_str(&layers(replay));
    text.push('\n');
    let mut rows = Vec::new();
    for read in &replay.slowest {
        rows.push(vec![
            format!("{:.3} s", read.seconds),
            format!("at {:.3} s", read.at),
            format!("layer {}", read.layer + 1),
            format!("{} from {}", size(read.length), read.offset),
            read.path.clone(),
        ]);
    }
    if !rows.is_empty() {
        text.push_str("slowest reads\n");
        text.push_str(&table(&indented(rows)));
    }
    for path in &replay.absent {
        let _ = write!(text, "{}", table(&[vec!["not in the image".to_owned(), path.clone()]]));
    }
    for warning in &replay.warnings {
        let _ = write!(text, "{}", table(&[vec!["warning".to_owned(), warning.clone()]]));
    }
    text
}

fn indented(mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    for row in &mut rows {
        if let Some(first) = row.first_mut() {
            first.insert_str(0, "  ");
        }
    }
    rows
}

fn head(replay: &Replay) -> Vec<Vec<String>> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let seconds = replay.seconds;
    let mut rows = vec![
        row("image", replay.image.clone()),
        row("digest", replay.digest.to_string()),
        row("all layers mounted", format!("{:.3} s", seconds.pulled)),
        row("container could run", format!("{:.3} s", seconds.running)),
    ];
    for milestone in &replay.milestones {
        let name = match milestone.name {
            "firstRead" => "first read",
            "firstWeight" => "first weight read",
            _ => "last read",
        };
        rows.push(row(name, format!("{:.3} s", milestone.seconds)));
    }
    rows.push(row(
        "waited in reads",
        format!("{:.3} s, {} of {}", replay.waited, count_of(replay.reads, "read"), size(replay.read_bytes)),
    ));
    rows.push(row("fetched until then", fetched(replay.total)));
    rows.push(row("  until it could run", fetched(replay.at_running)));
    for cause in Cause::ALL {
        let by_cause = replay.by_cause(cause);
        if by_cause.requests > 0 {
            rows.push(row(&format!("  {}", words(cause)), fetched(by_cause)));
        }
    }
    let chunks = replay.chunks;
    rows.push(row(
        "chunks read",
        format!(
            "{} prefetched, {} from the background, {} read before, {} missed",
            chunks.prefetched, chunks.background, chunks.read_before, chunks.missed
        ),
    ));
    rows
}

fn words(cause: Cause) -> &'static str {
    match cause {
        Cause::Mount => "mount",
        Cause::Prefetch => "prefetch",
        Cause::Read => "missed by reads",
        Cause::Background => "background fetch",
        Cause::Whole => "pulled whole",
    }
}

fn fetched(fetched: Fetched) -> String {
    format!("{} in {}", size(fetched.bytes), count_of(fetched.requests, "request"))
}

fn count_of(number: u64, thing: &str) -> String {
    usize::try_from(number).map_or_else(|_| format!("{number} {thing}s"), |number| count(number, thing))
}

fn layers(replay: &Replay) -> String {
    let heading = ["layer", "size", "mount", "prefetch", "missed", "background", "whole", ""];
    let rows = replay.layers.iter().enumerate().map(|(index, layer)| {
        let of = |cause: Cause| cell(layer, cause);
        let title = layer.title.clone().unwrap_or_else(|| layer.digest.to_string());
        let title = match &layer.whole {
            Some(reason) => format!("{title} (pulled whole: {reason})"),
            None => title,
        };
        let mut row = vec![(index + 1).to_string(), size(layer.size)];
        row.extend([Cause::Mount, Cause::Prefetch, Cause::Read, Cause::Background, Cause::Whole].map(of));
        row.push(title);
        row
    });
    table(&std::iter::once(heading.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>())
}

fn cell(layer: &ReplayedLayer, cause: Cause) -> String {
    layer
        .causes
        .get(&cause)
        .map_or_else(|| "-".to_owned(), |sum| format!("{} / {}", size(sum.bytes), sum.requests))
}

/// What `starcar replay --compare` prints.
pub(super) fn comparison_text(comparison: &Comparison<'_>) -> String {
    let [first, second] = comparison.replays;
    let mut text = replay_text(first);
    text.push('\n');
    text.push_str(&replay_text(second));
    text.push('\n');
    let Ratios { running, last_read, waited, bytes, requests } = comparison.ratios;
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}×"));
    let seconds = |of: fn(&Replay) -> f64| [first, second].map(|replay| format!("{:.3} s", of(replay)));
    let row = |name: &str, [a, b]: [String; 2], of: Option<f64>| vec![name.to_owned(), a, b, ratio(of)];
    let mut rows =
        vec![vec![String::new(), first.image.clone(), second.image.clone(), "first of second".to_owned()]];
    rows.push(row("container could run", seconds(|replay| replay.seconds.running), running));
    rows.push(row("last read", seconds(|replay| replay.seconds.last_read), last_read));
    rows.push(row("waited in reads", seconds(|replay| replay.waited), waited));
    rows.push(row("fetched", [first, second].map(|replay| size(replay.total.bytes)), bytes));
    rows.push(row("requests", [first, second].map(|replay| replay.total.requests.to_string()), requests));
    text.push_str(&table(&rows));
    text
}
