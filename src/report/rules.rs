//! The lines of engines, runtimes and snapshotters that tell something about a start, by their words. Every rule is
//! anchored at the message's beginning: a text that only quotes such words is none. Must not know what follows from a line.
//!
//! The words are those of vLLM 0.6 to 0.33, `SGLang` 0.4 to 0.5, `huggingface_hub`, containerd 1.6 to 2.x, kubelet's events
//! and stargz-snapshotter 0.9 to 0.19, taken from their sources and from logs that people published.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

use super::clock::{bar_clock, go_duration};
use super::entry::Entry;

/// What a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    // vLLM
    ApiVersion,
    Arguments,
    Platform,
    Config,
    LoadBegin,
    ModelInit,
    Downloaded,
    WeightsTook,
    ModelTook,
    CacheDirectory,
    Dynamo,
    GraphFromCache,
    GraphCompiled,
    GraphStored,
    AotLoaded,
    AotSaved,
    AotFailed,
    CompileTook,
    CompileAndProfileTook,
    ProfileTook,
    MemoryProfiled,
    WarmBegin,
    WarmEnd,
    KvTokens,
    KvMemory,
    KvBlocks,
    GpuMemory,
    GraphsTook,
    EngineTook,
    Listening,
    // SGLang
    ServerArguments,
    DistributedBegin,
    DistributedEnd,
    WeightsBegin,
    WeightsEnd,
    KvAllocated,
    PoolEnd,
    GraphsBegin,
    GraphsEnd,
    MaxTokens,
    FiredUp,
    // both, and their libraries
    Failed,
    StartupComplete,
    Answered,
    PromptsDone,
    BarDownload,
    BarShards,
    Streamed,
    // runtimes
    PullBegin,
    PullEnd,
    PullReturned,
    Present,
    ContainerStarted,
    // stargz-snapshotter
    MountBegin,
    Prepared,
    PrefetchTook,
    BackgroundDone,
}

/// A line that tells something.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub(super) kind: Kind,
    /// The number of seconds that the line tells.
    pub(super) seconds: Option<f64>,
    /// What it names: a version, a model, a directory, an image.
    pub(super) name: Option<String>,
    /// What it says beside that.
    pub(super) detail: Option<String>,
}

/// Groups of the patterns: `s` seconds, `g` a duration as Go writes it, `c` a progress bar's clock, `m` milliseconds, `n` a name,
/// `d` a detail.
const RULES: &[(Kind, &str)] = &[
    (Kind::ApiVersion, r"^vLLM (?:API )?server version v?(?P<n>\S+)"),
    (Kind::Arguments, r"^(?:non-default )?args: "),
    (Kind::Platform, r"^Automatically detected platform \w+"),
    (Kind::Config, r"^Initializing an? (?:V\d )?LLM engine \(v?(?P<n>[^)\s]*)\) with config: (?P<d>.*)"),
    (Kind::LoadBegin, r"^Starting to load model (?P<n>.+?)\.\.\."),
    (Kind::ModelInit, r"^Initializing model took (?P<s>[\d.]+) s"),
    (Kind::Downloaded, r"^Time spent downloading weights for .+: (?P<s>[\d.]+) s"),
    (Kind::WeightsTook, r"^Loading weights took (?P<s>[\d.]+) s"),
    (
        Kind::ModelTook,
        r"^(?:Model loading|Loading model weights) took (?P<d>[\d.]+ (?:GiB|GB))(?: memory)?(?: and (?P<s>[\d.]+) s)?",
    ),
    (Kind::CacheDirectory, r"^Using cache directory: (?P<n>.+?) for vLLM's torch\.compile"),
    (Kind::Dynamo, r"^Dynamo bytecode transform time: (?P<s>[\d.]+) s"),
    (
        Kind::GraphFromCache,
        r"^Directly (?:load|lookup) the (?:compiled )?graph(?:\(s\))? for .*? from the cache(?:, took (?P<s>[\d.]+) s)?",
    ),
    (Kind::GraphCompiled, r"^Compiling a graph for .*? takes (?P<s>[\d.]+) s"),
    (Kind::GraphStored, r"^Cache the graph .* for later use"),
    (Kind::AotLoaded, r"^(?:\[[^\]]*\] )?Directly load AOT compilation from path (?P<n>.+)"),
    (Kind::AotSaved, r"^(?:\[[^\]]*\] )?saved AOT compiled function to (?P<n>.+)"),
    (
        Kind::AotFailed,
        r"^(?:\[[^\]]*\] )?(?:Cannot load aot compilation from path|Compiling model again due to a load failure from) (?P<n>[^\s,]+)",
    ),
    (Kind::CompileTook, r"^(?:\[[^\]]*\] )?torch\.compile (?:took|takes) (?P<s>[\d.]+) s in total"),
    (
        Kind::CompileAndProfileTook,
        r"^(?:\[[^\]]*\] )?torch\.compile and initial profiling/warmup run together took (?P<s>[\d.]+) s",
    ),
    (Kind::ProfileTook, r"^(?:\[[^\]]*\] )?Initial profiling/warmup run took (?P<s>[\d.]+) s"),
    (Kind::MemoryProfiled, r"^Memory profiling (?:takes|took) (?P<s>[\d.]+) s"),
    (Kind::WarmBegin, r"^Warming up model for the compilation"),
    (Kind::WarmEnd, r"^Warming up done"),
    (Kind::KvTokens, r"^\w+ KV cache size: (?P<n>[\d,]+) tokens"),
    (
        Kind::KvMemory,
        r"^(?:Available KV cache memory: |Explicitly set \()(?P<n>[\d.]+)(?: GiB|/[\d.]+\) GiB for KV cache)",
    ),
    (Kind::KvBlocks, r"^# \w+ blocks: (?P<n>\d+)"),
    (
        Kind::GpuMemory,
        r"^(?:Free memory on device(?: \S+)? \([\d.]+/|the current vLLM instance can use total_gpu_memory \()(?P<n>[\d.]+) ?GiB",
    ),
    (Kind::GraphsTook, r"^Graph capturing finished in (?P<s>[\d.]+) sec"),
    (
        Kind::EngineTook,
        r"^init engine \(.*?\) took (?P<s>[\d.]+) s(?:econds)?(?: \(compilation: (?P<d>[\d.]+) s)?",
    ),
    (Kind::Listening, r"^Starting vLLM (?:API )?server (?:\d+ )?on "),
    (Kind::ServerArguments, r"^server_args=ServerArgs\((?P<d>.*)"),
    (Kind::DistributedBegin, r"^Init torch distributed begin"),
    (Kind::DistributedEnd, r"^Init torch distributed ends"),
    (Kind::WeightsBegin, r"^Load weight begin\."),
    (
        Kind::WeightsEnd,
        r"^Load weight end\.(?: elapsed=(?P<s>[\d.]+) s,?)?(?:.*?mem usage=(?P<d>-?[\d.]+ GB))?",
    ),
    (Kind::KvAllocated, r"^KV Cache is allocated\..*?#tokens: (?P<n>\d+)"),
    (Kind::PoolEnd, r"^Memory pool end"),
    (Kind::GraphsBegin, r"(?i)^Capture (?:[\w-]+ )*graph begin"),
    (
        Kind::GraphsEnd,
        r"(?i)^Capture (?:[\w-]+ )*graph end\.(?: (?:Time elapsed: |elapsed=)(?P<s>[\d.]+) s)?",
    ),
    (Kind::MaxTokens, r"^max_total_num_tokens=(?P<n>\d+)"),
    (Kind::FiredUp, r"^The server is fired up and ready to roll!"),
    (
        Kind::Failed,
        r"^(?:EngineCore failed to start|Engine core initialization failed|RuntimeError: Engine core initialization failed|Received sigquit from a child process)",
    ),
    (Kind::StartupComplete, r"^(?:INFO:\s+)?Application startup complete"),
    (
        Kind::Answered,
        r#"^(?:INFO:\s+)?\S+:\d+ - "POST (?P<n>/(?:v1/(?:chat/completions|completions|responses|messages|embeddings|score|rerank)|generate|encode))[^"]*" 200"#,
    ),
    (Kind::PromptsDone, r"^Processed prompts:.*100%\|"),
    (
        Kind::BarDownload,
        r"^(?:Fetching \d+ files|(?P<n>[^\s:]+)):\s+100%\|[^|]*\|\s*\S+/\S+ \[(?P<c>[\d:]+)<[^\]]*(?:B/s|it/s|s/it)",
    ),
    (
        Kind::BarShards,
        r"^Loading (?:safetensors|pt) checkpoint shards: 100% Completed \| \d+/\d+ \[(?P<c>[\d:]+)<",
    ),
    (
        Kind::Streamed,
        r"^\[RunAI Streamer\] Overall time to stream (?P<d>[\d.]+ \w+) of all files.*?: (?P<s>[\d.]+) ?s",
    ),
    (Kind::PullBegin, r#"^(?:PullImage|Pulling image) "(?P<n>[^"]+)"$"#),
    (
        Kind::PullEnd,
        r#"^(?:Pulled|Successfully pulled) image "(?P<n>[^"]+)"(?:.*? in (?P<g>(?:[\d.]+(?:h|m|s|ms|µs|us|ns))+)(?: |$))?"#,
    ),
    (Kind::PullReturned, r#"^PullImage "(?P<n>[^"]+)" returns image reference"#),
    (Kind::Present, r#"^Container image "(?P<n>[^"]+)" already present on machine"#),
    (
        Kind::ContainerStarted,
        r#"^(?:StartContainer for "[^"]+" returns successfully|Started container|Container started)"#,
    ),
    (Kind::MountBegin, r"^preparing filesystem mount at mountpoint="),
    (Kind::BackgroundDone, r"^completed to fetch all layer data in background"),
];

static SET: LazyLock<Option<RegexSet>> =
    LazyLock::new(|| RegexSet::new(RULES.iter().map(|(_, pattern)| *pattern)).ok());
static EACH: LazyLock<Vec<Option<Regex>>> =
    LazyLock::new(|| RULES.iter().map(|(_, pattern)| Regex::new(pattern).ok()).collect());

/// Longest detail that is kept of a line: an engine's configuration.
const DETAIL_MAX: usize = 16 << 10;
/// Longest detail of other lines: a number with its unit.
const NUMBER_MAX: usize = 64;
/// Letters of a name: a directory, a reference.
const NAME_MAX: usize = 1 << 10;
/// Seconds that no start takes: a number above is of something else, or damaged.
const SECONDS_MAX: f64 = 1e7;

/// What a line tells, if it is a known one.
pub(super) fn known(entry: &Entry) -> Option<Known> {
    if let Some(known) = of_fields(entry) {
        return Some(known);
    }
    let message = entry.message.trim_start();
    let index = SET.as_ref()?.matches(message).iter().next()?;
    let (kind, _) = RULES.get(index)?;
    let captures = EACH.get(index)?.as_ref()?.captures(message)?;
    let text = |name: &str| captures.name(name).map(|group| group.as_str());
    let seconds = text("s")
        .and_then(|text| text.trim_end_matches('.').parse().ok())
        .or_else(|| text("g").and_then(go_duration))
        .or_else(|| text("c").and_then(bar_clock))
        .filter(|seconds| (0.0..SECONDS_MAX).contains(seconds));
    let kept = |name: &str, most: usize| text(name).map(|text| text.chars().take(most).collect());
    let configuration = matches!(kind, Kind::Config | Kind::ServerArguments);
    let detail = kept("d", if configuration { DETAIL_MAX } else { NUMBER_MAX });
    Some(Known { kind: *kind, seconds, name: kept("n", NAME_MAX), detail })
}

/// What stargz-snapshotter tells in fields.
fn of_fields(entry: &Entry) -> Option<Known> {
    let of = |kind, seconds, name| Some(Known { kind, seconds, name, detail: None });
    if let Some(prepared) = &entry.fields.prepared {
        return of(Kind::Prepared, None, Some(prepared.chars().take(NUMBER_MAX).collect()));
    }
    if entry.fields.operation.as_deref() == Some("prefetch_total") {
        let value = entry.message.strip_prefix("value=")?.split_whitespace().next()?;
        let milliseconds = value.parse::<f64>().ok().filter(|value| (0.0..SECONDS_MAX).contains(value))?;
        return of(Kind::PrefetchTook, Some(milliseconds / 1e3), None);
    }
    None
}

/// The value of `name=` in a configuration that Python printed: `'/srv/tiny'`, `auto`, `LoadFormat.AUTO`.
pub(super) fn setting(config: &str, name: &str) -> Option<String> {
    let mut at = 0;
    loop {
        let found = config.get(at..)?.find(name)? + at;
        let before = config.get(..found)?.chars().next_back();
        let rest = config.get(found + name.len()..)?;
        at = found + name.len();
        if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
            continue;
        }
        let Some(value) = rest.strip_prefix('=') else { continue };
        let text: String = match value.strip_prefix(['\'', '"']) {
            Some(quoted) => quoted.chars().take_while(|letter| !matches!(letter, '\'' | '"')).collect(),
            None => value.chars().take_while(|letter| !matches!(letter, ',' | ')' | ' ')).collect(),
        };
        return (!text.is_empty() && text != "None").then_some(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::entry;
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert!(SET.is_some());
        assert!(EACH.iter().all(Option::is_some));
    }

    #[test]
    fn settings() {
        let config =
            "model='/srv/tiny', served_model_name=x, load_format=LoadFormat.AUTO, tensor_parallel_size=2) y";
        assert_eq!(setting(config, "model").as_deref(), Some("/srv/tiny"));
        assert_eq!(setting(config, "load_format").as_deref(), Some("LoadFormat.AUTO"));
        assert_eq!(setting(config, "tensor_parallel_size").as_deref(), Some("2"));
        assert_eq!(setting(config, "size"), None);
        assert_eq!(setting("model=None", "model"), None);
        assert_eq!(setting("model", "model"), None);
    }

    /// Lines as people published them, with the second of each that matters here.
    #[test]
    fn lines_of_many_versions() {
        let header = "INFO 11-21 10:00:01 [x.py:1] ";
        for (kind, seconds, message) in [
            (
                Kind::Config,
                None,
                "Initializing an LLM engine (v0.6.1.dev238+ge2c6e0a82) with config: model='m'",
            ),
            (Kind::Config, None, "Initializing a V1 LLM engine (v0.32.0) with config: model='m'"),
            (Kind::ModelTook, None, "Loading model weights took 6.1138 GB"),
            (Kind::ModelTook, Some(0.902_026), "Model loading took 3.4213 GiB and 0.902026 seconds"),
            (Kind::ModelTook, Some(31.657_031), "Model loading took 12.66 GiB memory and 31.657031 seconds"),
            (
                Kind::Downloaded,
                Some(20.850_118),
                "Time spent downloading weights for gpt2: 20.850118 seconds",
            ),
            (Kind::GraphFromCache, None, "Directly load the compiled graph for shape None from the cache"),
            (
                Kind::GraphFromCache,
                Some(1.803),
                "Directly load the compiled graph(s) for compile range (1, 8192) from the cache, took 1.803 s",
            ),
            (Kind::GraphCompiled, Some(16.87), "Compiling a graph for dynamic shape takes 16.87 s"),
            (Kind::CompileTook, Some(7.51), "torch.compile takes 7.51 s in total"),
            (Kind::CompileTook, Some(9.34), "torch.compile took 9.34 s in total"),
            (Kind::ProfileTook, Some(0.08), "[backbone] Initial profiling/warmup run took 0.08 s"),
            (Kind::MemoryProfiled, Some(34.26), "Memory profiling takes 34.26 seconds"),
            (Kind::GraphsTook, Some(17.0), "Graph capturing finished in 17 secs, took 0.48 GiB"),
            (Kind::GraphsTook, Some(32.0), "Graph capturing finished in 32 secs."),
            (
                Kind::EngineTook,
                Some(107.64),
                "init engine (profile, create kv cache, warmup model) took 107.64 seconds",
            ),
            (
                Kind::EngineTook,
                Some(212.68),
                "init engine (profile, create kv cache, warmup model) took 212.68 s (compilation: 13.01 s)",
            ),
            (
                Kind::WeightsEnd,
                None,
                "Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=28.91 GB, mem usage=15.09 GB.",
            ),
            (
                Kind::WeightsEnd,
                Some(228.09),
                "Load weight end. elapsed=228.09 s, type=GlmMoeDsaForCausalLM, avail mem=194.04 GB, mem usage=89.58 GB.",
            ),
            (Kind::GraphsEnd, Some(12.96), "Capture cuda graph end. Time elapsed: 12.96 s"),
            (
                Kind::GraphsEnd,
                Some(1.61),
                "Capture target verify CUDA graph end. elapsed=1.61 s, mem usage=0.11 GB",
            ),
            (Kind::KvTokens, None, "CPU KV cache size: 524,288 tokens, Maximum concurrency"),
        ] {
            let known = known(&entry(&format!("{header}{message}"))).unwrap_or_else(|| panic!("{message}"));
            assert_eq!((known.kind, known.seconds), (kind, seconds), "{message}");
        }
        for (kind, seconds, line) in [
            (
                Kind::BarDownload,
                Some(167.0),
                "model-00001-of-00002.safetensors: 100%|████| 5.00G/5.00G [02:47<00:00, 29.8MB/s]",
            ),
            (
                Kind::BarShards,
                Some(29.0),
                "Loading safetensors checkpoint shards: 100% Completed | 9/9 [00:29<00:00,  3.28s/it]",
            ),
            (
                Kind::PullEnd,
                Some(514.073_429_831),
                r#"time="2023-08-09T14:41:11.281884785Z" level=info msg="Pulled image \"a/b:latest\" with image id \"sha256:e4\", repo tag \"a/b:latest\", repo digest \"a/b@sha256:44\", size \"24787252196\" in 8m34.073429831s""#,
            ),
            (
                Kind::PullEnd,
                Some(27.88),
                r#"  Normal  Pulled     2s    kubelet            Successfully pulled image "nginx" in 27.88s (27.88s including waiting). Image size: 68507108 bytes."#,
            ),
            (
                Kind::Answered,
                None,
                r#"INFO:     127.0.0.1:32978 - "POST /v1/chat/completions HTTP/1.1" 200 OK"#,
            ),
            (Kind::StartupComplete, None, "[2025-03-12 08:52:40] INFO:     Application startup complete."),
            (
                Kind::PrefetchTook,
                Some(0.25),
                r#"{"layer_sha":"sha256:55","level":"info","metrics":"latency","msg":"value=250 milliseconds; prefetch_size=0 bytes","operation":"prefetch_total","time":"2022-11-09T06:39:24.151143409Z"}"#,
            ),
        ] {
            let known = known(&entry(line)).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((known.kind, known.seconds), (kind, seconds), "{line}");
        }
    }

    #[test]
    fn words_elsewhere_are_nothing() {
        for line in [
            "INFO 11-21 10:00:01 [x.py:1] see: Loading weights took 3 seconds",
            "a user wrote: init engine (x) took 5 s",
            "Loading weights took many seconds",
        ] {
            assert_eq!(known(&entry(line)), None, "{line}");
        }
    }
}
