//! How long something took, from an engine's numbers or from the time between lines, of the slowest process. Must not know which
//! phase it is.

use std::collections::BTreeMap;

use super::{Measured, Source, rules::Kind, run::Timed};

/// Lines that are named as the source of one number.
const SOURCES_MAX: usize = 6;

/// How long something took.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measure {
    pub(super) seconds: f64,
    pub(super) resolution: f64,
    pub(super) measured: Measured,
    pub(super) process: Option<String>,
    /// When it was, where lines have times.
    pub(super) spans: Vec<(f64, f64)>,
    pub(super) from: Vec<Source>,
    /// The seconds are those that no other phase counts: the time between lines has others' in it.
    pub(super) rest: bool,
}

impl Measure {
    fn empty(measured: Measured, resolution: f64) -> Self {
        Self {
            seconds: 0.0,
            resolution,
            measured,
            process: None,
            spans: Vec::new(),
            from: Vec::new(),
            rest: false,
        }
    }

    fn source(&mut self, source: &Source) {
        if self.from.len() < SOURCES_MAX && !self.from.contains(source) {
            self.from.push(source.clone());
        }
    }
}

/// What a number is exact to: vLLM tells graphs in whole seconds, all else in hundredths or better.
fn exact_to(kind: Kind) -> f64 {
    match kind {
        Kind::GraphsTook | Kind::BarDownload | Kind::BarShards => 1.0,
        _ => 0.01,
    }
}

/// The lines of some kinds, by process. Ranks of several logs are apart.
fn by_process<'a>(events: &'a [Timed], kinds: &[Kind]) -> BTreeMap<(usize, &'a str), Vec<&'a Timed>> {
    let mut processes: BTreeMap<(usize, &str), Vec<&Timed>> = BTreeMap::new();
    for event in events.iter().filter(|event| kinds.contains(&event.kind)) {
        processes.entry((event.log, event.process.as_str())).or_default().push(event);
    }
    processes
}

fn named(process: &str) -> Option<String> {
    (!process.is_empty()).then(|| process.to_owned())
}

fn slower(best: Option<Measure>, other: Measure) -> Measure {
    match best {
        Some(best) if best.seconds >= other.seconds => best,
        _ => other,
    }
}

/// The numbers of lines of some kinds: added up in each process, of the process where that gives most.
pub(super) fn numbers(events: &[Timed], kinds: &[Kind]) -> Option<Measure> {
    let mut best = None;
    for ((_, process), lines) in by_process(events, kinds) {
        let told = lines.into_iter().filter_map(|line| Some((line, line.seconds?)));
        let mut measure = Measure::empty(Measured::Engine, 0.0);
        let mut some = false;
        for (line, seconds) in told {
            some = true;
            measure.seconds += seconds;
            measure.resolution = measure.resolution.max(exact_to(line.kind));
            measure.source(&line.source);
            measure.spans.extend(line.time.map(|time| (time - seconds, time)));
        }
        if some {
            measure.process = named(process);
            best = Some(slower(best, measure));
        }
    }
    best
}

/// As [`numbers`], where each line tells the sum so far: the largest of each process.
pub(super) fn sums(events: &[Timed], kind: Kind) -> Option<Measure> {
    let mut best = None;
    for lines in by_process(events, &[kind]).into_values() {
        let most = lines.into_iter().filter(|line| line.seconds.is_some());
        let most =
            most.max_by(|one, other| one.seconds.unwrap_or(0.0).total_cmp(&other.seconds.unwrap_or(0.0)));
        if let Some(measure) = most.and_then(|line| numbers(std::slice::from_ref(line), &[kind])) {
            best = Some(slower(best, measure));
        }
    }
    best
}

/// As [`numbers`], of the longest line alone: downloads run side by side.
pub(super) fn longest(events: &[Timed], kind: Kind) -> Option<Measure> {
    let lines = events.iter().filter(|event| event.kind == kind);
    let (line, seconds) = lines
        .filter_map(|line| Some((line, line.seconds?)))
        .max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    let mut measure = Measure::empty(Measured::Engine, exact_to(kind));
    measure.seconds = seconds;
    measure.source(&line.source);
    measure.spans.extend(line.time.map(|time| (time - seconds, time)));
    measure.process = named(&line.process);
    Some(measure)
}

/// The time from each line of one kind to the next line of another of the same process, added up; of the slowest process.
pub(super) fn pairs(events: &[Timed], begin: Kind, end: &[Kind]) -> Option<Measure> {
    let kinds: Vec<Kind> = [&[begin], end].concat();
    let mut best = None;
    for ((_, process), lines) in by_process(events, &kinds) {
        let mut measure = Measure::empty(Measured::Timestamps, 0.0);
        let mut open: Option<&Timed> = None;
        for line in lines {
            if line.kind == begin {
                open = open.or(Some(line));
            } else if let Some(first) = open.take()
                && let Some(span) = span(first.time, line.time)
            {
                measure.seconds += span.1 - span.0;
                measure.resolution = measure.resolution.max(line.resolution);
                measure.spans.push(span);
                measure.source(&first.source);
                measure.source(&line.source);
            }
        }
        if !measure.spans.is_empty() {
            measure.process = named(process);
            best = Some(slower(best, measure));
        }
    }
    best
}

/// From one time to another, if it is not before.
fn span(from: Option<f64>, until: Option<f64>) -> Option<(f64, f64)> {
    let (from, until) = (from?, until?);
    (until >= from).then_some((from, until))
}

/// A place on the axis, with its line.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) time: f64,
    pub(super) resolution: f64,
    pub(super) source: Source,
}

impl Place {
    pub(super) fn of(event: &Timed) -> Option<Self> {
        Some(Self { time: event.time?, resolution: event.resolution, source: event.source.clone() })
    }
}

/// The first line of some kinds.
pub(super) fn first(events: &[Timed], kinds: &[Kind]) -> Option<Place> {
    let places = events.iter().filter(|event| kinds.contains(&event.kind)).filter_map(Place::of);
    places.min_by(|one, other| one.time.total_cmp(&other.time))
}

/// The last line of some kinds.
pub(super) fn last(events: &[Timed], kinds: &[Kind]) -> Option<Place> {
    let places = events.iter().filter(|event| kinds.contains(&event.kind)).filter_map(Place::of);
    places.max_by(|one, other| one.time.total_cmp(&other.time))
}

/// The first line of a kind of the process where that came last.
pub(super) fn slowest_first(events: &[Timed], kinds: &[Kind]) -> Option<Place> {
    by_process(events, kinds)
        .into_values()
        .filter_map(|lines| lines.into_iter().find_map(Place::of))
        .max_by(|one, other| one.time.total_cmp(&other.time))
}

/// The time between two places; `rest` says that only what no other phase counts is meant.
pub(super) fn between(from: Option<Place>, until: Option<Place>, rest: bool) -> Option<Measure> {
    let (from, until) = (from?, until?);
    let span = span(Some(from.time), Some(until.time))?;
    if from.source == until.source {
        return None;
    }
    let mut measure = Measure::empty(Measured::Timestamps, from.resolution.max(until.resolution));
    measure.seconds = span.1 - span.0;
    measure.spans.push(span);
    measure.source(&from.source);
    measure.source(&until.source);
    measure.rest = rest;
    Some(measure)
}

/// Time that is not yet counted for anything.
#[derive(Debug)]
pub(super) struct Free(Vec<(f64, f64)>);

impl Free {
    pub(super) fn new(from: f64, until: f64) -> Self {
        Self(if until > from { vec![(from, until)] } else { Vec::new() })
    }

    /// Takes what is free of some spans, and returns it in the order of time. Spans may overlap.
    pub(super) fn take(&mut self, spans: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let wanted = merged(spans);
        let mut wanted = wanted.iter().peekable();
        let (mut taken, mut left) = (Vec::new(), Vec::with_capacity(self.0.len()));
        // Both are in order and without overlaps: one pass.
        for &(mut begin, end) in &self.0 {
            while let Some(&&(from, until)) = wanted.peek() {
                if from >= end {
                    break;
                }
                let (inner, outer) = (from.max(begin), until.min(end));
                if inner < outer {
                    left.extend((begin < inner).then_some((begin, inner)));
                    taken.push((inner, outer));
                    begin = outer;
                }
                if until > end {
                    break;
                }
                wanted.next();
            }
            left.extend((begin < end).then_some((begin, end)));
        }
        self.0 = left;
        taken
    }

    /// Seconds that are left.
    pub(super) fn seconds(&self) -> f64 {
        length(&self.0)
    }
}

/// Spans in the order of time, with those that overlap or meet as one.
fn merged(spans: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted: Vec<(f64, f64)> = spans.iter().copied().filter(|(from, until)| from < until).collect();
    sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
    sorted.dedup_by(|next, kept| {
        let meet = next.0 <= kept.1;
        if meet {
            kept.1 = kept.1.max(next.1);
        }
        meet
    });
    sorted
}

/// Seconds of spans that do not overlap.
pub(super) fn length(spans: &[(f64, f64)]) -> f64 {
    // An empty sum of floats is -0.
    spans.iter().fold(0.0, |seconds, (from, until)| seconds + (until - from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_once() {
        let mut free = Free::new(0.0, 10.0);
        assert_eq!(free.take(&[(3.0, 5.0), (2.0, 4.0), (2.5, 2.5)]), [(2.0, 5.0)]);
        assert_eq!(free.take(&[(0.0, 10.0)]), [(0.0, 2.0), (5.0, 10.0)]);
        assert!(free.take(&[(-5.0, 50.0)]).is_empty());
        assert!(free.seconds() < 1e-9);
        assert!(Free::new(3.0, 3.0).take(&[(0.0, 9.0)]).is_empty());
        let mut free = Free::new(0.0, 10.0);
        assert_eq!(free.take(&[(1.0, 2.0), (4.0, 5.0), (7.0, 8.0)]).len(), 3);
        let rest = [(0.5, 1.0), (2.0, 4.0), (5.0, 7.0), (8.0, 8.5)];
        assert_eq!(free.take(&[(0.5, 4.5), (4.5, 8.5)]), rest);
        assert_eq!(free.take(&[(0.0, 99.0)]), [(0.0, 0.5), (8.5, 10.0)]);
    }
}
