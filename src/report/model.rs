//! What a report says. Must not know where it comes from.

use serde::Serialize;

/// What a part of a start is called. Their order is that of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PhaseName {
    /// The image is pulled, or its layers are mounted.
    Pull,
    /// From the image's arrival until the container runs.
    Container,
    /// Imports and arguments, until the engine tells its configuration.
    EngineStart,
    /// From there until the workers begin to load the model.
    Workers,
    /// Weights come from a hub.
    Download,
    /// Weights are read into memory.
    Weights,
    /// The model is built and its weights are brought into shape; where the engine's number has the weights in it, so has this.
    Model,
    /// `torch.compile`: Dynamo, Inductor, or loading what they made.
    Compile,
    /// A run that finds out how much memory there is for the KV cache, and the KV cache.
    Profile,
    /// CUDA graphs are captured.
    Graphs,
    /// The engine's own number for all of its initialisation after the model is loaded.
    EngineInit,
    /// From there until the server answers.
    Server,
    /// From ready until the first answer.
    FirstToken,
}

impl PhaseName {
    /// All phases in the order of a start.
    pub const ALL: [Self; 13] = [
        Self::Pull,
        Self::Container,
        Self::EngineStart,
        Self::Workers,
        Self::Download,
        Self::Weights,
        Self::Model,
        Self::Compile,
        Self::Profile,
        Self::Graphs,
        Self::EngineInit,
        Self::Server,
        Self::FirstToken,
    ];

    /// The phase's name in JSON and on the command line.
    pub fn id(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Container => "container",
            Self::EngineStart => "engineStart",
            Self::Workers => "workers",
            Self::Download => "download",
            Self::Weights => "weights",
            Self::Model => "model",
            Self::Compile => "compile",
            Self::Profile => "profile",
            Self::Graphs => "graphs",
            Self::EngineInit => "engineInit",
            Self::Server => "server",
            Self::FirstToken => "firstToken",
        }
    }

    /// What people call the phase.
    pub fn label(self) -> &'static str {
        match self {
            Self::Pull => "image pull",
            Self::Container => "container start",
            Self::EngineStart => "engine start (imports)",
            Self::Workers => "worker start",
            Self::Download => "weights download",
            Self::Weights => "weights loading",
            Self::Model => "model set-up",
            Self::Compile => "compile",
            Self::Profile => "profiling, KV cache",
            Self::Graphs => "graph capture",
            Self::EngineInit => "engine init",
            Self::Server => "server start",
            Self::FirstToken => "first token",
        }
    }
}

/// Where a number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Measured {
    /// The line has the number.
    Engine,
    /// It is the time between lines.
    Timestamps,
}

/// A line that a number comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The log.
    pub log: String,
    /// From 1.
    pub line: u64,
    /// The line's message, shortened.
    pub text: String,
}

/// A part of a phase's seconds that the log tells apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// What it is: `Dynamo`, `Inductor`, `loading from the cache`.
    pub name: &'static str,
    /// How long it took.
    pub seconds: f64,
}

/// A phase of a run. What the log does not tell has no seconds, never zero.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    /// Which one.
    pub phase: PhaseName,
    /// What people call it.
    pub label: &'static str,
    /// How long it took, that of the slowest process; `None` is not in this log.
    pub seconds: Option<f64>,
    /// Seconds of the total that count for this phase alone; those of all phases and `unaccounted` make the total.
    pub counted: Option<f64>,
    /// What the seconds are exact to.
    pub resolution: Option<f64>,
    /// Where the seconds come from.
    pub measured: Option<Measured>,
    /// The process that was slowest, where the log names processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// When it was, in seconds since the run's beginning; what counts for another phase is left out.
    pub spans: Vec<[f64; 2]>,
    /// The lines that say so.
    pub from: Vec<Source>,
    /// What it is made of, where the log tells.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// What else there is to know, or why it is not in this log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What the log says of the compile cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CacheUse {
    /// All was loaded from it.
    Hit,
    /// Some was loaded, some was compiled.
    Partly,
    /// All was compiled.
    Miss,
}

/// What the log says of the engine and the model. `None` is not in this log.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// `vLLM` or `SGLang`.
    pub engine: Option<&'static str>,
    /// The engine's version.
    pub version: Option<String>,
    /// The model's name or path.
    pub model: Option<String>,
    /// How weights are loaded.
    pub load_format: Option<String>,
    /// Size of tensor parallelism.
    pub tensor_parallel: Option<u32>,
    /// `auto`, `torch.bfloat16`.
    pub dtype: Option<String>,
    /// Method of quantization.
    pub quantization: Option<String>,
    /// Whether compiling and graphs are off.
    pub enforce_eager: Option<bool>,
    /// Memory of the model on each device, as the engine writes it.
    pub model_memory: Option<String>,
    /// GiB of memory of a GPU.
    pub gpu_memory: Option<f64>,
    /// GiB of the KV cache.
    pub kv_cache_memory: Option<f64>,
    /// Tokens that the KV cache has room for.
    pub kv_cache_tokens: Option<u64>,
    /// What the log says of the compile cache.
    pub compile_cache: Option<CacheUse>,
    /// Directories and files of the compile cache that were used.
    pub compile_cache_paths: Vec<String>,
    /// Images that were pulled.
    pub images: Vec<String>,
    /// Layers that the snapshotter mounted lazily.
    pub lazy_layers: Option<u64>,
    /// Layers that it could not mount.
    pub whole_layers: Option<u64>,
    /// Seconds of the longest prefetch of a layer.
    pub prefetch: Option<f64>,
}

/// A log of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogFacts {
    /// Its path.
    pub path: String,
    /// Its lines.
    pub lines: u64,
    /// Starts of an engine in it.
    pub starts: usize,
    /// The start that is reported, from 1.
    pub start: Option<usize>,
}

/// One start.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// What it is called.
    pub name: String,
    /// Where it was read from.
    pub logs: Vec<LogFacts>,
    /// What the log says of the engine and the model.
    pub facts: Facts,
    /// Seconds from the first known line until the server was ready, or until the last line of a start where nothing says
    /// ready; `None` where the log has no times of day.
    pub total: Option<f64>,
    /// What the total is exact to.
    pub resolution: Option<f64>,
    /// Whether the log says that the server was ready.
    pub ready: bool,
    /// The lines at which the total begins and ends.
    pub from: Vec<Source>,
    /// All phases, also those that are not in the log.
    pub phases: Vec<Phase>,
    /// Seconds of the total that no phase counts.
    pub unaccounted: Option<f64>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

impl Run {
    /// A phase of the run.
    pub fn phase(&self, name: PhaseName) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.phase == name)
    }

    /// A phase's seconds, if the log has them.
    pub fn seconds(&self, name: PhaseName) -> Option<f64> {
        self.phase(name)?.seconds
    }
}

/// How a run relates to the first one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The run's place, from 0.
    pub run: usize,
    /// The phase; `None` is the total.
    pub phase: Option<PhaseName>,
    /// Seconds more than in the first run; negative is faster.
    pub difference: Option<f64>,
    /// The run's seconds as a part of the first's.
    pub ratio: Option<f64>,
    /// A sentence for people.
    pub text: String,
}

/// One or more starts side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`](super::SCHEMA).
    pub schema: u32,
    /// The runs.
    pub runs: Vec<Run>,
    /// What changed from the first run to each other.
    pub changes: Vec<Change>,
}
