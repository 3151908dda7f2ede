//! The phases of a start: which lines tell each, and which counts where several are at once. Must not know how lines look.

use super::{
    CacheUse, Facts, LogFacts, Measured, Part, Phase, PhaseName, ReportOptions, Run,
    measure::{
        Free, Measure, Place, between, first, last, length, longest, numbers, pairs, slowest_first, sums,
    },
    rules::Kind,
    run::{Known, Timed},
};

mod pull;

/// What a phase came to, before it is known what counts.
#[derive(Debug, Default)]
struct Told {
    measure: Option<Measure>,
    parts: Vec<Part>,
    note: Option<String>,
}

impl From<Option<Measure>> for Told {
    fn from(measure: Option<Measure>) -> Self {
        Self { measure, ..Self::default() }
    }
}

/// Lines that say that requests can come, the best first.
const READY: [Kind; 3] = [Kind::FiredUp, Kind::StartupComplete, Kind::Listening];
const ANSWERS: [Kind; 2] = [Kind::Answered, Kind::PromptsDone];
const CONFIGURED: [Kind; 3] = [Kind::Config, Kind::DistributedBegin, Kind::ServerArguments];

/// Makes a run of what is known.
pub(super) fn run(
    name: String,
    logs: Vec<LogFacts>,
    mut facts: Facts,
    known: &Known,
    options: &ReportOptions,
    mut notes: Vec<String>,
) -> Run {
    let ready = READY.iter().find_map(|kind| first(&known.engine, &[*kind]));
    let pulled = pull::pulls(known, options, &mut notes);
    facts.images.clone_from(&pulled.images);
    (facts.lazy_layers, facts.whole_layers) = (pulled.lazy_layers, pulled.whole_layers);
    facts.prefetch = pulled.prefetch;
    let end = ready.clone().or_else(|| {
        let start = |event: &&Timed| !ANSWERS.contains(&event.kind) && event.kind != Kind::Failed;
        let places = known.engine.iter().filter(start).filter_map(Place::of);
        places.max_by(|one, other| one.time.total_cmp(&other.time))
    });
    let end = end.or_else(|| last(&known.runtime, &[Kind::ContainerStarted])).or_else(|| pulled.last.clone());
    let engine_begin = known.first.clone().or_else(|| {
        let places = known.engine.iter().filter_map(Place::of);
        places.min_by(|one, other| one.time.total_cmp(&other.time))
    });
    let begin = [pulled.first.clone(), pulled.running.clone(), engine_begin.clone()];
    let begin = begin.into_iter().flatten().min_by(|one, other| one.time.total_cmp(&other.time));

    let mut told: Vec<(PhaseName, Told)> = Vec::new();
    let events = &known.engine;
    let running = pulled.running.clone();
    told.push((PhaseName::Pull, Told { measure: pulled.measure, parts: pulled.parts, note: pulled.note }));
    told.push((PhaseName::Container, between(pulled.last, running.clone(), true).into()));
    let from = running.or(engine_begin);
    let configured = CONFIGURED.iter().find_map(|kind| first(events, &[*kind]));
    told.push((PhaseName::EngineStart, between(from, configured.clone(), true).into()));
    let loading = slowest_first(events, &[Kind::LoadBegin, Kind::WeightsBegin]);
    told.push((PhaseName::Workers, between(configured, loading, true).into()));
    let downloaded = numbers(events, &[Kind::Downloaded]).or_else(|| longest(events, Kind::BarDownload));
    told.push((PhaseName::Download, downloaded.into()));
    told.push((PhaseName::Weights, weights(events).into()));
    told.push((PhaseName::Model, model(events)));
    told.push((PhaseName::Compile, compile(events, &facts)));
    told.push((PhaseName::Profile, profile(events)));
    told.push((PhaseName::Graphs, graphs(events, &facts)));
    let init = numbers(events, &[Kind::EngineTook]).or_else(|| {
        between(last(events, &[Kind::WeightsEnd]), last(events, &[Kind::MaxTokens, Kind::GraphsEnd]), false)
    });
    told.push((PhaseName::EngineInit, init.into()));
    let initialised = last(events, &[Kind::EngineTook, Kind::MaxTokens, Kind::GraphsEnd, Kind::GraphsTook]);
    told.push((PhaseName::Server, between(initialised, ready.clone(), true).into()));
    told.push((PhaseName::FirstToken, first_token(events, end.as_ref(), ready.is_some())));

    if events.iter().any(|event| event.kind == Kind::Failed) {
        notes.push("the engine failed in this start".to_owned());
    }
    let axis = begin.zip(end).filter(|(begin, end)| end.time >= begin.time);
    let resolution = axis.as_ref().map(|(begin, end)| begin.resolution.max(end.resolution));
    let (from, total, unaccounted, phases) = account(told, axis);
    if total.is_none() {
        notes.push(
            "no line has a time of day: there is no total, and only numbers of the engine's own".to_owned(),
        );
    } else if ready.is_none() {
        notes.push(
            "no line says that a server is ready: the total ends with the last line of the start".to_owned(),
        );
    }
    Run { name, logs, facts, total, resolution, ready: ready.is_some(), from, phases, unaccounted, notes }
}

/// Which phase counts where several are at once: what stands first takes its time, what follows has the rest.
fn precedence(name: PhaseName, measure: &Measure) -> usize {
    let exact = measure.measured == Measured::Engine;
    match name {
        PhaseName::Download => 0,
        PhaseName::Weights => 1,
        PhaseName::Compile if exact => 2,
        PhaseName::Graphs => 3,
        PhaseName::Compile => 4,
        PhaseName::Profile => 5,
        PhaseName::Model => 6,
        PhaseName::EngineInit => 7,
        PhaseName::Pull => 8,
        PhaseName::Container => 9,
        PhaseName::Workers => 10,
        PhaseName::EngineStart => 11,
        PhaseName::Server => 12,
        PhaseName::FirstToken => 13,
    }
}

type Accounted = (Vec<super::Source>, Option<f64>, Option<f64>, Vec<Phase>);

/// Counts every moment of the total for one phase.
fn account(told: Vec<(PhaseName, Told)>, axis: Option<(Place, Place)>) -> Accounted {
    let mut free = axis.as_ref().map(|(begin, end)| Free::new(begin.time, end.time));
    let zero = axis.as_ref().map_or(0.0, |(begin, _)| begin.time);
    let mut order: Vec<usize> = (0..told.len()).collect();
    order.sort_by_key(|index| match told.get(*index) {
        Some((name, Told { measure: Some(measure), .. })) => precedence(*name, measure),
        _ => usize::MAX,
    });
    let mut counted: Vec<Option<Vec<(f64, f64)>>> = vec![None; told.len()];
    for index in order {
        let Some((name, Told { measure: Some(measure), .. })) = told.get(index) else { continue };
        // The first token comes after the total.
        if *name == PhaseName::FirstToken || measure.spans.is_empty() {
            continue;
        }
        let taken = free.as_mut().map(|free| free.take(&measure.spans));
        if let Some(slot) = counted.get_mut(index) {
            *slot = taken;
        }
    }
    let phases = told
        .into_iter()
        .zip(counted)
        .map(|((name, told), counted)| phase(name, told, counted.as_deref(), zero))
        .collect();
    let unaccounted = free.map(|free| rounded(free.seconds()));
    let total = axis.as_ref().map(|(begin, end)| rounded(end.time - begin.time));
    let from = axis.map(|(begin, end)| vec![begin.source, end.source]).unwrap_or_default();
    (from, total, unaccounted, phases)
}

fn phase(name: PhaseName, told: Told, counted: Option<&[(f64, f64)]>, zero: f64) -> Phase {
    let Told { measure, parts, note } = told;
    let spans = counted.unwrap_or_default();
    let alone = counted.map(|counted| rounded(length(counted)));
    let mut phase = Phase {
        phase: name,
        label: name.label(),
        seconds: None,
        counted: alone,
        resolution: None,
        measured: None,
        process: None,
        spans: spans.iter().map(|(from, until)| [rounded(from - zero), rounded(until - zero)]).collect(),
        from: Vec::new(),
        parts,
        note,
    };
    if let Some(measure) = measure {
        let seconds = if measure.rest { alone.unwrap_or(measure.seconds) } else { measure.seconds };
        phase.seconds = Some(rounded(seconds));
        phase.resolution = Some(measure.resolution);
        phase.measured = Some(measure.measured);
        phase.process = measure.process;
        phase.from = measure.from;
    }
    phase
}

/// To the microsecond, which is what engines write.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

fn weights(events: &[Timed]) -> Option<Measure> {
    numbers(events, &[Kind::WeightsTook])
        .or_else(|| numbers(events, &[Kind::WeightsEnd]))
        .or_else(|| pairs(events, Kind::WeightsBegin, &[Kind::WeightsEnd]))
        .or_else(|| numbers(events, &[Kind::Streamed]))
        .or_else(|| numbers(events, &[Kind::BarShards]))
        .or_else(|| pairs(events, Kind::LoadBegin, &[Kind::ModelTook]))
}

fn model(events: &[Timed]) -> Told {
    let whole = numbers(events, &[Kind::ModelTook]);
    let note = whole.as_ref().map(|_| "the engine's number has the weights in it".to_owned());
    let measure = whole.or_else(|| numbers(events, &[Kind::ModelInit]));
    Told { measure, note, ..Told::default() }
}

fn compile(events: &[Timed], facts: &Facts) -> Told {
    let part = |name, kind| numbers(events, &[kind]).map(|measure| Part { name, seconds: measure.seconds });
    let parts: Vec<Part> = [
        part("Dynamo", Kind::Dynamo),
        part("Inductor", Kind::GraphCompiled),
        part("loading from the cache", Kind::GraphFromCache),
    ]
    .into_iter()
    .flatten()
    .map(|part| Part { seconds: rounded(part.seconds), ..part })
    .collect();
    // Up to 0.10, vLLM's sum left out what loading took; from 0.17 on it has more in it than these parts.
    let total = sums(events, Kind::CompileTook).or_else(|| numbers(events, &[Kind::CompileAndProfileTook]));
    let sum = numbers(events, &[Kind::Dynamo, Kind::GraphCompiled, Kind::GraphFromCache]);
    let both = match (total, sum) {
        (Some(total), Some(sum)) if sum.seconds > total.seconds + 0.05 => Some(sum),
        (None, sum) => sum,
        (total, _) => total,
    };
    let measure = both
        .or_else(|| {
            let told = |event: &Timed| event.detail.as_deref().and_then(|text| text.parse::<f64>().ok());
            let lines =
                events.iter().filter(|event| event.kind == Kind::EngineTook && told(event) > Some(0.0));
            let of: Vec<Timed> = lines.map(|event| Timed { seconds: told(event), ..event.clone() }).collect();
            let mut measure = numbers(&of, &[Kind::EngineTook])?;
            // It was somewhere before that line.
            measure.spans.clear();
            Some(measure)
        })
        .or_else(|| pairs(events, Kind::WarmBegin, &[Kind::WarmEnd]));
    let failed = events.iter().find(|event| event.kind == Kind::AotFailed);
    let mut note = match facts.compile_cache {
        Some(CacheUse::Hit) => Some("loaded from the cache".to_owned()),
        Some(CacheUse::Partly) => Some("partly loaded from the cache".to_owned()),
        Some(CacheUse::Miss) => Some("compiled, nothing came from a cache".to_owned()),
        None if measure.is_some() => Some("the log does not say whether a cache was used".to_owned()),
        None if facts.engine == Some("vLLM") && facts.enforce_eager == Some(true) => {
            Some("off: enforce_eager".to_owned())
        }
        None => None,
    };
    if let Some(path) = failed.and_then(|event| event.name.as_deref()) {
        note = Some(format!("what was cached in {path} could not be loaded"));
    }
    if measure.as_ref().is_some_and(|measure| measure.measured == Measured::Timestamps) {
        let known = note.take().unwrap_or_default();
        note = Some(format!("with the warm-up run around it; {known}"));
    }
    Told { measure, parts, note }
}

fn profile(events: &[Timed]) -> Told {
    if let Some(measure) = numbers(events, &[Kind::ProfileTook]) {
        return Some(measure).into();
    }
    if let Some(measure) = numbers(events, &[Kind::MemoryProfiled]) {
        let note = Some("the engine's number may have the compile in it".to_owned());
        return Told { measure: Some(measure), note, ..Told::default() };
    }
    let loaded = last(events, &[Kind::ModelTook, Kind::WeightsTook, Kind::WeightsEnd]);
    let sized = last(events, &[Kind::KvTokens, Kind::KvBlocks, Kind::PoolEnd, Kind::KvAllocated]);
    between(loaded, sized, true).into()
}

fn graphs(events: &[Timed], facts: &Facts) -> Told {
    let measure = numbers(events, &[Kind::GraphsTook])
        .or_else(|| numbers(events, &[Kind::GraphsEnd]))
        .or_else(|| pairs(events, Kind::GraphsBegin, &[Kind::GraphsEnd]));
    let note = (measure.is_none() && facts.enforce_eager == Some(true)).then(|| {
        let setting = if facts.engine == Some("SGLang") { "disable_cuda_graph" } else { "enforce_eager" };
        format!("off: {setting}")
    });
    Told { measure, note, ..Told::default() }
}

fn first_token(events: &[Timed], end: Option<&Place>, ready: bool) -> Told {
    let Some(end) = end else { return Told::default() };
    let after = |event: &&Timed| {
        ANSWERS.contains(&event.kind)
            && event.time.is_some_and(|time| time >= end.time)
            // Times are in whole seconds: SGLang's own first request ends within that of its last line.
            && (event.source.log != end.source.log || event.source.line > end.source.line)
    };
    let Some(event) = events.iter().find(after) else { return Told::default() };
    let measure = between(Some(end.clone()), Place::of(event), false);
    let note = match (ready, event.carried) {
        (true, false) => "after ready; until somebody asked, too",
        (true, true) => "after ready, by the line before; until somebody asked, too",
        (false, _) => "after the start's last line, by the line before",
    };
    Told { note: measure.as_ref().map(|_| note.to_owned()), measure, parts: Vec::new() }
}
