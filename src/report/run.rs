//! The logs of one run on one axis of time, start by start, and what they say of the engine. Must not know how long
//! phases took.

use super::{
    CacheUse, Facts, LogFacts, ReportError, ReportOptions, Run, Source, Starts,
    clock::{Wall, Years},
    log::{Event, Log, Moment, Start},
    measure::Place,
    phases,
    rules::{Kind, setting},
};

/// A known line with its place on the axis.
#[derive(Debug, Clone)]
pub(super) struct Timed {
    pub(super) kind: Kind,
    pub(super) seconds: Option<f64>,
    pub(super) name: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) process: String,
    /// Seconds since 1970, or since another moment that all of the run's times share.
    pub(super) time: Option<f64>,
    /// What the time is exact to.
    pub(super) resolution: f64,
    /// The time is that of the line before.
    pub(super) carried: bool,
    /// The log's place in the run.
    pub(super) log: usize,
    pub(super) source: Source,
}

/// All that is known of one start.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Lines of the engine, in the order of its logs.
    pub(super) engine: Vec<Timed>,
    /// Lines of runtimes and snapshotters.
    pub(super) runtime: Vec<Timed>,
    /// The first line of the engine that has a time.
    pub(super) first: Option<Place>,
}

/// Seconds that a runtime's lines may come after the end of a start and still belong to it.
const AFTER: f64 = 5.0;

/// The runs that a run's logs give: one, or one for each start.
pub(super) fn runs(name: &str, logs: &[Log], options: &ReportOptions) -> Result<Vec<Run>, ReportError> {
    let starts = logs.iter().map(Log::count).max().unwrap_or(0);
    let chosen: Vec<Option<usize>> = match options.starts {
        Starts::Last => vec![None],
        Starts::All => {
            let kept = |index: &usize| starts == 0 || logs.iter().any(|log| log.start(*index).is_some());
            (0..starts.max(1)).filter(kept).map(Some).collect()
        }
        Starts::Number(number) => {
            if number == 0 || number > starts {
                let log = logs.iter().max_by_key(|log| log.count());
                let name = log.map_or(name, |log| log.name.as_str()).to_owned();
                return Err(ReportError::NoSuchStart { name, asked: number, starts });
            }
            vec![Some(number - 1)]
        }
    };
    let several = chosen.len() > 1;
    let runtime = Runtime::of(logs);
    Ok(chosen
        .into_iter()
        .map(|chosen| {
            let number = chosen.filter(|_| several).map(|index| index + 1);
            let name = number.map_or_else(|| name.to_owned(), |number| format!("{name} #{number}"));
            let last = chosen.is_none_or(|index| index + 1 == starts.max(1));
            one(name, &Chosen { logs, index: chosen, last }, &runtime, options)
        })
        .collect())
}

/// A start of a run's logs.
struct Chosen<'a> {
    logs: &'a [Log],
    /// From 0; `None` is the last of each log.
    index: Option<usize>,
    /// No log has a later one.
    last: bool,
}

impl Chosen<'_> {
    /// The start of a log that is reported. Where other logs have more, the last of each log are of one start.
    fn of(&self, log: &Log) -> Option<usize> {
        let last = log.count().checked_sub(1)?;
        match self.index {
            Some(index) if index <= last => Some(index),
            _ => self.last.then_some(last),
        }
    }
}

/// Lines of runtimes and snapshotters of all of a run's logs, on the axis of time.
struct Runtime {
    /// In the order of time.
    dated: Vec<(f64, Timed)>,
    /// Those without a time.
    other: Vec<Timed>,
    /// A time of the last lines, for engines' logs that have no year.
    near: Option<f64>,
}

fn dated(wall: Option<Wall>) -> Option<f64> {
    match wall {
        Some(Wall::Zoned(time) | Wall::Local(time)) => Some(time),
        _ => None,
    }
}

fn dated_in(start: &Start) -> Option<f64> {
    start.events.iter().find_map(|event| dated(event.outer).or(dated(event.header)))
}

impl Runtime {
    fn of(logs: &[Log]) -> Self {
        let near = logs.iter().find_map(|log| log.runtime.iter().rev().find_map(|event| dated(event.outer)));
        let of_engine = logs.iter().find_map(|log| log.starts.iter().find_map(dated_in));
        let all = || {
            logs.iter()
                .enumerate()
                .flat_map(|(place, log)| log.runtime.iter().map(move |event| (place, log, event)))
        };
        let mut years = Years::new(of_engine.or(near), all().filter_map(|(_, _, event)| event.outer));
        let mut runtime = Self { dated: Vec::new(), other: Vec::new(), near };
        for (place, log, event) in all() {
            let time = event.outer.map(|wall| years.resolve(wall));
            let timed = timed(event, log, place, time, 0.001);
            match time {
                Some(time) => runtime.dated.push((time, timed)),
                None => runtime.other.push(timed),
            }
        }
        runtime.dated.sort_by(|one, other| one.0.total_cmp(&other.0));
        runtime
    }

    /// The lines after one time, up to another.
    fn between(&self, after: f64, until: f64) -> &[(f64, Timed)] {
        let from = self.dated.partition_point(|(time, _)| *time <= after);
        let until = self.dated.partition_point(|(time, _)| *time <= until);
        self.dated.get(from..until).unwrap_or_default()
    }
}

fn one(name: String, chosen: &Chosen<'_>, runtime: &Runtime, options: &ReportOptions) -> Run {
    let mut notes = Vec::new();
    let mut facts_of_logs = Vec::new();
    for log in chosen.logs {
        let index = chosen.of(log);
        let starts = log.count();
        facts_of_logs.push(LogFacts {
            path: log.name.clone(),
            lines: log.lines,
            starts,
            start: index.map(|index| index + 1),
        });
        if starts > 1 && chosen.index.is_none() {
            notes.push(format!("{} has {starts} starts; this is the last one", log.name));
        }
        if let (None, Some(asked)) = (index, chosen.index.filter(|_| starts > 0)) {
            notes.push(format!("{} has no start {}: it has {starts}", log.name, asked + 1));
        }
        if let Some(index) = index.filter(|index| log.start(*index).is_none()) {
            notes.push(format!(
                "{} has too many starts to keep them all; start {} is one of the first {}, of which nothing is told",
                log.name,
                index + 1,
                log.forgotten
            ));
        }
        if let Some(cut) = &log.cut {
            notes.push(format!("{} ends early: {cut}", log.name));
        }
        if log.left_out > 0 {
            notes.push(format!("{}: {} known lines were too many and were left out", log.name, log.left_out));
        }
    }
    let known = on_one_axis(chosen, runtime, &mut notes);
    let facts = facts(&known);
    phases::run(name, facts_of_logs, facts, &known, options, notes)
}

fn walls(start: &Start) -> impl Iterator<Item = Wall> + '_ {
    start.events.iter().filter_map(|event| event.header)
}

/// Brings the lines of all logs onto one axis.
fn on_one_axis(chosen: &Chosen<'_>, runtime: &Runtime, notes: &mut Vec<String>) -> Known {
    let picked: Vec<(usize, &Log, usize, &Start)> = chosen
        .logs
        .iter()
        .enumerate()
        .filter_map(|(place, log)| {
            let index = chosen.of(log)?;
            Some((place, log, index, log.start(index)?))
        })
        .collect();
    // A log without years takes them from one that has them.
    let near = picked.iter().find_map(|(_, _, _, start)| dated_in(start)).or(runtime.near);
    let mut known = Known::default();
    let (mut zoned, mut local) = (false, false);
    let (mut after, mut until) = (f64::NEG_INFINITY, f64::INFINITY);
    for (place, log, index, start) in picked {
        // A few lines with a runtime's time do not make a log of a runtime: those between them would have none.
        let outer = start.events.iter().filter(|event| event.outer.is_some()).count();
        let header = start.events.iter().filter(|event| event.header.is_some()).count();
        let runtime_clock = outer > 0 && outer * 2 >= start.events.len().max(header);
        zoned |= runtime_clock;
        local |= !runtime_clock && header > 0;
        let resolution = if runtime_clock { 0.001 } else { 1.0 };
        let mut years = Years::new(near, walls(start));
        let mut at = |outer: Option<Wall>, header: Option<Wall>| {
            let wall = if runtime_clock { outer } else { header }?;
            Some(years.resolve(wall))
        };
        if let Some(Moment { outer, header, line, text }) = &start.first
            && let Some(time) = at(*outer, *header)
        {
            let source = Source { log: log.name.clone(), line: *line, text: text.clone() };
            if known.first.as_ref().is_none_or(|first| time < first.time) {
                known.first = Some(Place { time, resolution, source });
            }
        }
        for event in &start.events {
            let time = at(event.outer, event.header);
            let mut timed = timed(event, log, place, time, resolution);
            timed.carried = event.carried && !runtime_clock;
            known.engine.push(timed);
        }
        let mut edge = |other: Option<&Start>, last: bool| {
            let event = other.and_then(|start| if last { start.events.last() } else { start.events.first() });
            event.and_then(|event| at(event.outer, event.header))
        };
        if let Some(before) = index.checked_sub(1).and_then(|before| edge(log.start(before), true)) {
            after = after.max(before);
        }
        if edge(log.start(index + 1), false).is_some() {
            let last = known.engine.iter().filter_map(|event| event.time).fold(f64::NEG_INFINITY, f64::max);
            until = until.min(last + AFTER);
        }
    }
    // Without times nothing says which of several starts these lines belong to: they go to the last.
    let dateless = known.engine.iter().all(|event| event.time.is_none());
    if !dateless || chosen.last {
        known.runtime.extend(runtime.between(after, until).iter().map(|(_, timed)| timed.clone()));
        zoned |= !known.runtime.is_empty();
    }
    if chosen.last {
        known.runtime.extend(runtime.other.iter().cloned());
    }
    if zoned && local {
        notes.push(
            "the engine's times have no zone and are taken as UTC, beside lines of a runtime that have one"
                .to_owned(),
        );
    }
    known
}

fn timed(event: &Event, log: &Log, place: usize, time: Option<f64>, resolution: f64) -> Timed {
    Timed {
        kind: event.known.kind,
        seconds: event.known.seconds,
        name: event.known.name.clone(),
        detail: event.known.detail.clone(),
        process: event.process.clone(),
        time,
        resolution,
        carried: event.carried,
        log: place,
        source: Source { log: log.name.clone(), line: event.line, text: event.text.clone() },
    }
}

/// What the lines say of the engine and the model.
fn facts(known: &Known) -> Facts {
    let mut facts = Facts::default();
    let (mut hits, mut misses) = (0_u32, 0_u32);
    for event in &known.engine {
        let name = event.name.clone();
        match event.kind {
            Kind::ApiVersion => {
                facts.engine = Some("vLLM");
                facts.version = name;
            }
            Kind::Config | Kind::ServerArguments => {
                of_configuration(&mut facts, event);
            }
            Kind::LoadBegin => facts.model = facts.model.take().or(name),
            Kind::WeightsBegin => facts.engine = facts.engine.or(Some("SGLang")),
            Kind::ModelTook | Kind::WeightsEnd => {
                facts.model_memory = facts.model_memory.take().or(event.detail.clone());
            }
            Kind::KvTokens | Kind::KvAllocated | Kind::MaxTokens => {
                let tokens = name.and_then(|name| name.replace(',', "").parse().ok());
                facts.kv_cache_tokens = facts.kv_cache_tokens.or(tokens);
            }
            Kind::KvMemory => facts.kv_cache_memory = name.and_then(|name| name.parse().ok()),
            Kind::GpuMemory => facts.gpu_memory = name.and_then(|name| name.parse().ok()),
            Kind::GraphFromCache | Kind::AotLoaded => hits += 1,
            Kind::GraphCompiled | Kind::GraphStored | Kind::AotSaved => misses += 1,
            _ => {}
        }
        if matches!(event.kind, Kind::CacheDirectory | Kind::AotLoaded | Kind::AotSaved) {
            let path = event.name.clone().filter(|path| !facts.compile_cache_paths.contains(path));
            // One for each rank and model part; a log has no more.
            if facts.compile_cache_paths.len() < 64 {
                facts.compile_cache_paths.extend(path);
            }
        }
    }
    facts.compile_cache = match (hits, misses) {
        (0, 0) => None,
        (_, 0) => Some(CacheUse::Hit),
        (0, _) => Some(CacheUse::Miss),
        _ => Some(CacheUse::Partly),
    };
    facts
}

fn of_configuration(facts: &mut Facts, event: &Timed) {
    let config = event.detail.as_deref().unwrap_or_default();
    let vllm = event.kind == Kind::Config;
    facts.engine = Some(if vllm { "vLLM" } else { "SGLang" });
    if vllm {
        facts.version = event.name.clone().or(facts.version.take());
    }
    facts.model = setting(config, if vllm { "model" } else { "model_path" }).or(facts.model.take());
    facts.load_format = setting(config, "load_format")
        .map(|format| format.strip_prefix("LoadFormat.").unwrap_or(&format).to_ascii_lowercase());
    facts.tensor_parallel = setting(config, if vllm { "tensor_parallel_size" } else { "tp_size" })
        .and_then(|size| size.parse().ok());
    facts.dtype = setting(config, "dtype");
    facts.quantization = setting(config, "quantization");
    facts.enforce_eager = setting(config, if vllm { "enforce_eager" } else { "disable_cuda_graph" })
        .and_then(|value| value.to_ascii_lowercase().parse().ok());
}
