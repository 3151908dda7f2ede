//! One log, read to its end: the known lines of each start in it. Must not know how phases follow from them.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, Read},
};

use super::{
    clock::Wall,
    entry::{Entry, entry},
    lines::each_line,
    rules::{Kind, Known, known},
};

/// Starts of a log that are kept, the last ones.
const STARTS_MAX: usize = 1_000;
/// Processes of a start that are told apart.
const PROCESSES_MAX: usize = 4_096;
/// Letters of a process's name.
const PROCESS_MAX: usize = 80;
/// Letters of a line that are shown as where a number comes from.
const TEXT_MAX: usize = 120;

/// A known line.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) known: Known,
    pub(super) process: String,
    pub(super) outer: Option<Wall>,
    pub(super) header: Option<Wall>,
    /// The line has no time of its own; it has that of the line before it.
    pub(super) carried: bool,
    /// From 1.
    pub(super) line: u64,
    /// Its message, shortened.
    pub(super) text: String,
}

/// A moment of a log, on both of its clocks.
#[derive(Debug, Clone, Default)]
pub(super) struct Moment {
    pub(super) outer: Option<Wall>,
    pub(super) header: Option<Wall>,
    pub(super) line: u64,
    pub(super) text: String,
}

/// One start of an engine.
#[derive(Debug, Clone, Default)]
pub(super) struct Start {
    pub(super) events: Vec<Event>,
    /// Its first line with an engine's header.
    pub(super) first: Option<Moment>,
    /// Bytes that its events take.
    bytes: usize,
    configured: BTreeSet<String>,
    /// Processes that began to load a model.
    loaders: BTreeSet<String>,
    loading: bool,
    done: bool,
    answered: bool,
}

/// A log that was read.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) name: String,
    pub(super) lines: u64,
    /// Starts before those of `starts`, which were too many to keep.
    pub(super) forgotten: usize,
    /// The last starts.
    pub(super) starts: VecDeque<Start>,
    /// Lines of runtimes and snapshotters, the last ones; they belong to no start by themselves.
    pub(super) runtime: VecDeque<Event>,
    /// Why it ended early, if it did.
    pub(super) cut: Option<String>,
    /// Known lines that were left out because there were too many, those of forgotten starts among them.
    pub(super) left_out: u64,
}

impl Log {
    /// Reads a log. `name` is what errors and sources call it. What is kept of it takes about `bytes` bytes at most; of
    /// more, the last starts and the last lines of runtimes are kept.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub(super) fn read(name: &str, stream: impl Read, bytes: usize) -> io::Result<Self> {
        let mut reader = Reader {
            log: Self { name: name.to_owned(), ..Self::default() },
            now: Moment::default(),
            begun: None,
            // Neither of the two can push out the other.
            starts: Budget { left: bytes / 2 },
            runtime: Budget { left: bytes / 2 },
        };
        let ended = each_line(stream, |number, text| reader.line(number, text))?;
        let Reader { mut log, .. } = reader;
        log.lines = ended.lines;
        log.cut = ended.cut;
        log.starts.retain(|start| !start.events.is_empty());
        Ok(log)
    }

    /// How many starts were in it.
    pub(super) fn count(&self) -> usize {
        self.forgotten + self.starts.len()
    }

    /// A start by its number from 0, if there is one and it was kept.
    pub(super) fn start(&self, index: usize) -> Option<&Start> {
        self.starts.get(index.checked_sub(self.forgotten)?)
    }

    /// Whether nothing in it was known.
    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.runtime.is_empty()
    }
}

struct Reader {
    log: Log,
    /// The last times that were seen.
    now: Moment,
    /// Where a process began that may be a new start.
    begun: Option<Moment>,
    starts: Budget,
    runtime: Budget,
}

/// Bytes that may still be kept.
struct Budget {
    left: usize,
}

impl Budget {
    /// Whether there was room.
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// About what an event takes: it is copied once, with the log's name, when its run is made.
fn cost(event: &Event, name: &str) -> usize {
    let known = &event.known;
    let texts = [known.name.as_ref(), known.detail.as_ref(), Some(&event.process), Some(&event.text)];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    (size_of::<Event>() + texts) * 2 + name.len()
}

fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(TEXT_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn of_runtime(kind: Kind) -> bool {
    kind >= Kind::PullBegin
}

impl Reader {
    fn line(&mut self, number: u64, text: &str) {
        let mut entry = entry(text);
        if let Some((at, _)) = entry.process.char_indices().nth(PROCESS_MAX) {
            entry.process.truncate(at);
        }
        if entry.header.is_some() {
            self.now.header = entry.header;
        }
        if entry.outer.is_some() {
            self.now.outer = entry.outer;
        }
        let known = known(&entry);
        let moment = || Moment {
            outer: entry.outer,
            header: entry.header,
            line: number,
            text: shortened(&entry.message),
        };
        if known.as_ref().is_some_and(|known| of_runtime(known.kind)) {
            if let Some(known) = known {
                self.runtime(known, entry, number);
            }
            return;
        }
        if let Some(known) = &known {
            if self.begins(known.kind, &entry.process) {
                if self.log.starts.len() >= STARTS_MAX {
                    self.forget();
                }
                let first = self.begun.take();
                self.log.starts.push_back(Start { first, ..Start::default() });
            }
            if known.kind == Kind::Platform && self.log.starts.back().is_some_and(|start| start.done) {
                self.begun = Some(moment());
                return;
            }
        }
        if known.is_none() && entry.header.is_none() {
            return;
        }
        if self.log.starts.is_empty() {
            self.log.starts.push_back(Start::default());
        }
        let Some(start) = self.log.starts.back_mut() else { return };
        if start.first.is_none() && entry.header.is_some() {
            start.first = Some(moment());
        }
        let Some(known) = known else { return };
        match known.kind {
            Kind::Config | Kind::ServerArguments if start.configured.len() < PROCESSES_MAX => {
                start.configured.insert(entry.process.clone());
            }
            Kind::LoadBegin | Kind::WeightsBegin | Kind::WeightsTook | Kind::WeightsEnd => {
                start.loading = true;
                if matches!(known.kind, Kind::LoadBegin | Kind::WeightsBegin)
                    && start.loaders.len() < PROCESSES_MAX
                {
                    start.loaders.insert(entry.process.clone());
                }
            }
            Kind::EngineTook
            | Kind::MaxTokens
            | Kind::StartupComplete
            | Kind::FiredUp
            | Kind::Listening
            | Kind::Failed => {
                start.done = true;
                start.answered = false;
            }
            // A server answers for days: the first is enough.
            Kind::Answered | Kind::PromptsDone => {
                if start.answered {
                    return;
                }
                start.answered = true;
            }
            _ => {}
        }
        let carried = entry.header.is_none() && entry.outer.is_none();
        let event = Event {
            text: shortened(&entry.message),
            known,
            outer: entry.outer.or(if carried { self.now.outer } else { None }),
            header: entry.header.or(self.now.header),
            carried: entry.header.is_none(),
            process: entry.process,
            line: number,
        };
        self.keep(event);
    }

    /// Keeps a line of the last start. Where there is no room, older starts go, and then the line itself.
    fn keep(&mut self, event: Event) {
        let bytes = cost(&event, &self.log.name);
        while !self.starts.take(bytes) {
            if self.log.starts.len() < 2 {
                self.log.left_out += 1;
                return;
            }
            self.forget();
        }
        if let Some(start) = self.log.starts.back_mut() {
            start.bytes += bytes;
            start.events.push(event);
        }
    }

    /// Forgets the oldest start.
    fn forget(&mut self) {
        if let Some(start) = self.log.starts.pop_front() {
            self.starts.left += start.bytes;
            self.log.left_out += start.events.len() as u64;
            self.log.forgotten += 1;
        }
    }

    /// Whether a line is the first of another start than the one so far.
    fn begins(&self, kind: Kind, process: &str) -> bool {
        let Some(start) = self.log.starts.back() else { return false };
        match kind {
            Kind::ApiVersion | Kind::Arguments => !start.configured.is_empty() || start.loading || start.done,
            // Each of several engines side by side has a name of its own.
            Kind::Config | Kind::ServerArguments => {
                start.done || (start.loading && start.configured.contains(process))
            }
            // The log may lack the lines before; another engine's workers may still begin.
            Kind::LoadBegin | Kind::WeightsBegin => start.done && start.loaders.contains(process),
            _ => false,
        }
    }

    fn runtime(&mut self, known: Known, entry: Entry, line: u64) {
        let event = Event {
            text: shortened(&entry.message),
            known,
            process: entry.process,
            outer: entry.outer,
            header: None,
            carried: false,
            line,
        };
        let bytes = cost(&event, &self.log.name);
        while !self.runtime.take(bytes) {
            self.log.left_out += 1;
            let Some(oldest) = self.log.runtime.pop_front() else { return };
            self.runtime.left += cost(&oldest, &self.log.name);
        }
        self.log.runtime.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(text: &str) -> Vec<Vec<Kind>> {
        let log = Log::read("a", text.as_bytes(), 1 << 20).unwrap();
        log.starts.iter().map(|start| start.events.iter().map(|event| event.known.kind).collect()).collect()
    }

    const CONFIG: &str =
        "INFO 11-21 10:00:01 [core.py:1] Initializing a V1 LLM engine (v0.9.1) with config: model='m'\n";
    const VERSION: &str = "INFO 11-21 10:00:00 [api.py:1] vLLM API server version 0.9.1\n";
    const TOOK: &str = "INFO 11-21 10:00:09 [core.py:1] Loading weights took 3.00 seconds\n";

    #[test]
    fn restarts_are_starts() {
        use Kind::{ApiVersion, Config, WeightsTook};
        let once = format!("{VERSION}{CONFIG}{TOOK}");
        assert_eq!(starts(&once), [vec![ApiVersion, Config, WeightsTook]]);
        assert_eq!(starts(&once.repeat(3)).len(), 3);
        // It died before it loaded anything.
        assert_eq!(starts(&format!("{VERSION}{CONFIG}{once}")).len(), 2);
        // Without a server there is the engine's line alone.
        assert_eq!(starts(&format!("{CONFIG}{TOOK}{CONFIG}{TOOK}")).len(), 2);
        // Without even that.
        let load = "INFO 11-21 10:00:05 [x.py:1] Starting to load model m...\n";
        let bare = format!("{load}{TOOK}INFO:     Application startup complete.\n");
        assert_eq!(starts(&bare.repeat(2)).len(), 2);
        // A draft model follows the model.
        assert_eq!(starts(&format!("{load}{load}{TOOK}")).len(), 1);
        // Two engines of one start.
        let two: String = [0, 1].map(|rank| format!("(EngineCore_DP{rank} pid=1) {CONFIG}{TOOK}")).concat();
        assert_eq!(starts(&two).len(), 1);
    }

    #[test]
    fn answers_are_kept_once() {
        let answer = "INFO:     1.2.3.4:5 - \"POST /v1/completions HTTP/1.1\" 200 OK\n";
        let text = format!("{CONFIG}INFO:     Application startup complete.\n{}", answer.repeat(1000));
        assert_eq!(starts(&text), [vec![Kind::Config, Kind::StartupComplete, Kind::Answered]]);
        assert!(starts("nothing\nat all\n").is_empty());
    }

    #[test]
    fn the_last_starts_are_kept_of_too_many() {
        let pull = "time=\"2026-11-21T10:00:00Z\" level=info msg=\"PullImage \\\"a:1\\\"\"\n";
        let once = format!("{VERSION}{CONFIG}{TOOK}{pull}");
        let bytes = 16 << 10;
        let log = Log::read("a", once.repeat(2000).as_bytes(), bytes).unwrap();
        assert_eq!(log.count(), 2000);
        assert!(log.start(0).is_none());
        assert_eq!(log.start(1999).unwrap().events.len(), 3);
        assert_eq!(log.runtime.back().unwrap().line, 8000);
        let kept = log.starts.iter().flat_map(|start| &start.events).chain(&log.runtime);
        let (kept, taken) = kept.fold((0, 0), |(kept, taken), event| (kept + 1, taken + cost(event, "a")));
        assert!(taken <= bytes, "{taken}");
        assert_eq!(log.left_out + kept, 8000);
        // One start with too many lines keeps its first ones.
        let log = Log::read("a", format!("{CONFIG}{}", TOOK.repeat(2000)).as_bytes(), bytes).unwrap();
        assert_eq!((log.count(), log.start(0).unwrap().events[0].known.kind), (1, Kind::Config));
        assert_eq!(log.left_out + log.starts[0].events.len() as u64, 2001);
        // However many there is room for.
        let log = Log::read("a", once.repeat(STARTS_MAX + 5).as_bytes(), 1 << 30).unwrap();
        assert_eq!((log.starts.len(), log.count()), (STARTS_MAX, STARTS_MAX + 5));
    }
}
