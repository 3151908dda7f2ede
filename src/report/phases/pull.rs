//! When images came to the node and the container began to run.

use std::collections::BTreeSet;

use super::super::{
    Measured, Part, ReportOptions,
    measure::{Free, Measure, Place, between, first, last, length},
    rules::Kind,
    run::{Known, Timed},
};

/// A pull that ended this long before what follows it belongs to another start.
const APART: f64 = 120.0;
/// Images that are named.
const IMAGES_MAX: usize = 32;
/// Seconds by which an engine's clock, which tells whole seconds, may be behind.
const BEHIND: f64 = 2.0;

/// What is known of a start before its engine.
#[derive(Debug, Default)]
pub(super) struct Pulled {
    pub(super) measure: Option<Measure>,
    pub(super) parts: Vec<Part>,
    pub(super) note: Option<String>,
    /// When the first pull began.
    pub(super) first: Option<Place>,
    /// When the last one ended.
    pub(super) last: Option<Place>,
    /// When the engine's container ran.
    pub(super) running: Option<Place>,
    pub(super) images: Vec<String>,
    /// Layers that the snapshotter mounted lazily, and those that it could not.
    pub(super) lazy_layers: Option<u64>,
    pub(super) whole_layers: Option<u64>,
    /// Seconds of the longest prefetch of a layer.
    pub(super) prefetch: Option<f64>,
}

/// One pull of an image.
struct Pull<'a> {
    image: &'a str,
    seconds: f64,
    exact: bool,
    /// Absent where the line has no time of day.
    span: Option<(f64, f64)>,
    lines: Vec<&'a Timed>,
}

/// What runtimes and the snapshotter say.
pub(super) fn pulls(known: &Known, options: &ReportOptions, notes: &mut Vec<String>) -> Pulled {
    let wanted = |event: &&Timed| match (&options.image, &event.name) {
        (Some(wanted), Some(name)) => name.contains(wanted.as_str()),
        _ => true,
    };
    let lines: Vec<&Timed> = known.runtime.iter().filter(wanted).collect();
    let engine = known.engine.iter().filter_map(|event| event.time).fold(f64::INFINITY, f64::min);
    let engine = known.first.as_ref().map_or(engine, |first| first.time.min(engine));
    let running = known
        .runtime
        .iter()
        .filter(|event| event.kind == Kind::ContainerStarted)
        .filter(|event| {
            let close = |time| engine == f64::INFINITY || time > engine - APART * 5.0;
            event.time.is_some_and(|time| time <= engine + BEHIND && close(time))
        })
        .filter_map(Place::of)
        .max_by(|one, other| one.time.total_cmp(&other.time));
    let mut pulls = found(&lines);
    let before = running.as_ref().map_or(engine, |place| place.time.min(engine)) + BEHIND;
    let mut mounts: Vec<&Timed> =
        lines.iter().copied().filter(|line| matches!(line.kind, Kind::MountBegin | Kind::Prepared)).collect();
    let last = known.engine.iter().filter_map(|event| event.time).fold(f64::NEG_INFINITY, f64::max);
    let mut prefetches: Vec<&Timed> =
        lines.iter().copied().filter(|line| line.kind == Kind::PrefetchTook).collect();
    let (all_pulls, all_mounts) = (pulls.len(), mounts.len());
    let earliest = earliest(&pulls, &mounts, before);
    let within =
        |from: Option<f64>, until: Option<f64>, end: f64| from >= Some(earliest) && until <= Some(end);
    pulls.retain(|pull| pull.span.is_none_or(|(from, until)| within(Some(from), Some(until), before)));
    mounts.retain(|line| line.time.is_none() || within(line.time, line.time, before));
    // A layer may be prefetched while the engine starts.
    let end = if last.is_finite() { last + APART } else { f64::INFINITY };
    prefetches.retain(|line| line.time.is_none() || within(line.time, line.time, end));
    left_out(known, &pulls, &[&mounts, &prefetches], running.as_ref(), notes);
    if pulls.len() < all_pulls {
        notes.push(format!(
            "{} of {all_pulls} pulls end more than {APART:.0} s before this start, or after its engine began, and are left out",
            all_pulls - pulls.len()
        ));
    }
    if mounts.len() < all_mounts {
        notes.push(format!(
            "{} of {all_mounts} lines about mounts are of more than {APART:.0} s before this start, or of after its engine began, and are left out",
            all_mounts - mounts.len()
        ));
    }
    let mut pulled = Pulled { running, ..Pulled::default() };
    let count = |prepared: &str| {
        let layers = mounts
            .iter()
            .filter(|line| line.kind == Kind::Prepared && line.name.as_deref() == Some(prepared));
        Some(layers.count() as u64).filter(|count| *count > 0)
    };
    (pulled.lazy_layers, pulled.whole_layers) = (count("true"), count("false"));
    pulled.prefetch = prefetches.iter().filter_map(|line| line.seconds).max_by(f64::total_cmp);
    if pulls.is_empty() {
        return without_pulls(&lines, &mounts, pulled);
    }
    of_pulls(&pulls, &mut pulled);
    let prefetch = pulled.prefetch.map(|seconds| Part { name: "longest prefetch of a layer", seconds });
    pulled.parts.extend(prefetch);
    pulled
}

/// Says which logs have nothing of this start.
fn left_out(
    known: &Known,
    pulls: &[Pull<'_>],
    others: &[&[&Timed]],
    running: Option<&Place>,
    notes: &mut Vec<String>,
) {
    let kept: BTreeSet<&str> = pulls
        .iter()
        .flat_map(|pull| &pull.lines)
        .chain(others.iter().copied().flatten())
        .map(|line| line.source.log.as_str())
        .chain(running.map(|place| place.source.log.as_str()))
        .collect();
    let known = known.runtime.iter().filter(|line| line.kind != Kind::BackgroundDone);
    let logs: BTreeSet<&str> =
        known.filter(|line| line.time.is_some()).map(|line| line.source.log.as_str()).collect();
    for log in logs.difference(&kept) {
        notes.push(format!(
            "{log}: its lines of a runtime are of another time than this start, and none of them counts"
        ));
    }
}

/// The pulls that lines tell, each once.
fn found<'a>(lines: &[&'a Timed]) -> Vec<Pull<'a>> {
    let mut open: Vec<&Timed> = Vec::new();
    let mut pulls: Vec<Pull<'a>> = Vec::new();
    for line in lines {
        let image = line.name.as_deref().unwrap_or_default();
        match line.kind {
            // Hundreds of pulls at once are no start.
            Kind::PullBegin if open.len() < 256 => open.push(line),
            Kind::PullEnd | Kind::PullReturned => {
                let begun = open
                    .iter()
                    .position(|event| event.log == line.log && event.name == line.name)
                    .map(|at| open.remove(at));
                let between = begun.and_then(|begun| begun.time).zip(line.time);
                let (seconds, exact) = match (line.seconds, between) {
                    (Some(seconds), _) => (seconds, true),
                    (None, Some((from, until))) if until >= from => (until - from, false),
                    _ => continue,
                };
                let span = line.time.map(|time| (time - seconds, time));
                let lines = begun.into_iter().filter(|_| !exact).chain([*line]).collect();
                pulls.push(Pull { image, seconds, exact, span, lines });
            }
            _ => {}
        }
    }
    pulls
}

/// When the first began of the pulls and mounts that follow each other closely, back from the engine.
fn earliest(pulls: &[Pull<'_>], mounts: &[&Timed], before: f64) -> f64 {
    let mounts = mounts.iter().filter_map(|line| line.time).map(|time| (time, time));
    let mut ends: Vec<(f64, f64)> = pulls
        .iter()
        .filter_map(|pull| pull.span)
        .chain(mounts)
        .filter(|(_, until)| *until <= before)
        .collect();
    ends.sort_by(|one, other| other.1.total_cmp(&one.1));
    let mut earliest = if before.is_finite() { before } else { ends.first().map_or(before, |end| end.1) };
    for (from, until) in ends {
        if until < earliest - APART {
            break;
        }
        earliest = earliest.min(from);
    }
    earliest
}

fn of_pulls(pulls: &[Pull<'_>], pulled: &mut Pulled) {
    let spans: Vec<(f64, f64)> = pulls.iter().filter_map(|pull| pull.span).collect();
    let timed = !spans.is_empty();
    let (mut from, mut until) = (f64::INFINITY, f64::NEG_INFINITY);
    for span in &spans {
        (from, until) = (from.min(span.0), until.max(span.1));
    }
    let seconds = if timed {
        // Pulls side by side take no longer than the longest.
        length(&Free::new(from, until).take(&spans))
    } else {
        pulls.iter().map(|pull| pull.seconds).sum()
    };
    let exact = pulls.iter().all(|pull| pull.exact);
    let lines = pulls.iter().flat_map(|pull| &pull.lines);
    pulled.measure = Some(Measure {
        seconds,
        resolution: if exact { 0.01 } else { 0.001 },
        measured: if exact { Measured::Engine } else { Measured::Timestamps },
        process: None,
        spans,
        from: lines.take(6).map(|line| line.source.clone()).collect(),
        rest: false,
    });
    let place = |time: f64, line: Option<&&Timed>| {
        line.map(|line| Place { time, resolution: 0.001, source: line.source.clone() })
    };
    let mut ending = pulls.iter().filter(|pull| pull.span.is_some_and(|span| span.1 >= until));
    pulled.last = ending.find_map(|pull| place(until, pull.lines.last()));
    let mut beginning = pulls.iter().filter(|pull| pull.span.is_some_and(|span| span.0 <= from));
    pulled.first = beginning.find_map(|pull| place(from, pull.lines.first()));
    if !timed {
        pulled.note = Some("its lines have no time of day: no part of the total".to_owned());
    }
    let mut named: BTreeSet<&str> =
        pulls.iter().map(|pull| pull.image).filter(|image| !image.is_empty()).collect();
    // As they came, and each once.
    let images = pulls.iter().filter(|pull| named.remove(pull.image)).map(|pull| pull.image.to_owned());
    pulled.images.extend(images.take(IMAGES_MAX));
}

/// Layers that were mounted are as good as pulled; an image that was there needed neither.
fn without_pulls(lines: &[&Timed], mounts: &[&Timed], mut pulled: Pulled) -> Pulled {
    let owned: Vec<Timed> = mounts.iter().map(|line| (*line).clone()).collect();
    let (begun, ended) =
        (first(&owned, &[Kind::MountBegin, Kind::Prepared]), last(&owned, &[Kind::Prepared]));
    pulled.first.clone_from(&begun);
    pulled.last.clone_from(&ended);
    pulled.measure = between(begun, ended, false);
    if pulled.measure.is_some() {
        pulled.note = Some("layers were mounted; the log has no pull".to_owned());
    } else if let Some(line) = lines.iter().find(|line| line.kind == Kind::Present) {
        pulled.note = Some("the image was on the node already".to_owned());
        pulled.images.extend(line.name.clone());
    }
    pulled
}
