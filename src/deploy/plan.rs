//! Everything that is decided before an object is written: names, engine, caches, GPUs, sizes and times. Must not know
//! objects' fields.

use super::{
    DeployError,
    arguments::{self, Given},
    caches::{self, CacheStep},
    engine::{Engine, Setting, engine},
    facts::{Facts, Laziness, MODEL_DIRECTORY_DEFAULT},
    gpu::{ARCHITECTURE, Gpus, gpus},
    options::{Mode, ObjectKind, Options, Pull},
    quantity::{amount, bytes, check_name, gibibytes, label_from, name_from},
};

/// User and group of the containers. KServe's modelcars run as 1010 unless told otherwise, and of two containers only
/// those with equal user and equal group see each other's files through `/proc`.
const UID_DEFAULT: u64 = 1010;
const GID_DEFAULT: u64 = 0;

/// Bytes a second that a start reads at least over a thin link (200 Mbit/s, docs/measurements.md), and from a node's
/// disk (the 125 MiB/s of a default volume, shared).
const LAZY_RATE: u64 = 20_000_000;
const DISK_RATE: u64 = 100_000_000;
/// Seconds for all that is not reading weights: imports, compilation, graph capture.
const ENGINE_SECONDS: u64 = 600;
/// Seconds between two looks at whether the engine is up.
pub(super) const PERIOD: u64 = 10;

/// Memory of an engine beside weights, and of each rank after the first.
const ENGINE_MEMORY: u64 = 8 << 30;
const RANK_MEMORY: u64 = 4 << 30;
/// Memory that ranks share: what they send each other.
const SHM_PER_GPU: u64 = 2 << 30;

/// A deployment, decided.
#[derive(Debug, Clone)]
pub(super) struct Plan<'a> {
    pub(super) facts: &'a Facts,
    pub(super) options: &'a Options,
    pub(super) mode: Mode,
    pub(super) name: String,
    pub(super) is_lazy: bool,
    pub(super) served: String,
    pub(super) engine: Option<Engine>,
    pub(super) given: Given,
    pub(super) caches: Option<CacheStep>,
    pub(super) gpus: Gpus,
    pub(super) resources: Resources,
    pub(super) startup: Startup,
    pub(super) uid: u64,
    pub(super) gid: u64,
}

/// What a pod gets.
#[derive(Debug, Clone)]
pub(super) struct Resources {
    pub(super) cpu: String,
    pub(super) cpu_limit: String,
    pub(super) memory: String,
    pub(super) memory_limit: String,
    pub(super) shm: Option<String>,
    /// How the memory was derived; empty where it was not.
    pub(super) note: String,
}

/// How long a start may take.
#[derive(Debug, Clone)]
pub(super) struct Startup {
    pub(super) failures: u64,
    pub(super) note: String,
}

/// Decides a deployment; what is said on the way goes to `warnings`.
pub(super) fn plan<'a>(
    facts: &'a Facts,
    options: &'a Options,
    warnings: &mut Vec<String>,
) -> Result<Plan<'a>, DeployError> {
    let kind = options.kind;
    let mode = mode(facts, options)?;
    if options.runtime.is_some() && kind != ObjectKind::InferenceService {
        return Err(DeployError::Usage("--runtime is for --as inferenceservice".to_owned()));
    }
    let unused = options.unused();
    if !unused.is_empty() && kind != ObjectKind::Prepull {
        return Err(DeployError::Usage(format!(
            "--runtime has an engine of its own: leave out {}, or --runtime",
            unused.join(", ")
        )));
    }
    if !unused.is_empty() {
        warnings.push(format!("--as prepull starts no engine: {} changes nothing", unused.join(", ")));
    }
    warnings.extend(options.targets.warnings(kind, mode, facts));
    of_name(facts, warnings);
    if !facts.is_packed {
        warnings.push(foreign(mode, kind));
    }
    let settings = &options.settings;
    let repository = facts.image.repository.rsplit('/').next().unwrap_or_default();
    let name = settings.name.clone().unwrap_or_else(|| name_from(repository, 40));
    check_name(&name, kind.name_max())
        .map_err(|reason| DeployError::Setting { key: "name".to_owned(), reason })?;
    let is_started = kind != ObjectKind::Prepull && options.runtime.is_none();
    let served = if is_started { served(facts, options, &name, warnings)? } else { name.clone() };
    let is_lazy = match options.pull {
        Pull::Lazy => true,
        Pull::Eager => false,
        Pull::Auto => {
            mode != Mode::Fetch && facts.laziness == Laziness::Mountable && options.targets.cri_o.is_none()
        }
    };
    if options.pull == Pull::Lazy && (facts.laziness != Laziness::Mountable || mode == Mode::Fetch) {
        warnings.push(
            "nodes cannot pull this image lazily: its layers have no table of contents for stargz-snapshotter, or KServe \
             downloads them"
                .to_owned(),
        );
    }
    let mut gpus = gpus(facts, options, warnings);
    let given = match kind {
        ObjectKind::Prepull => Given::default(),
        _ => arguments::given(options, gpus.count, warnings)?,
    };
    let engine = if is_started {
        let setting = Setting { gpus: gpus.count, served: &served, is_lazy, given: &given };
        Some(engine(facts, options, &setting, warnings)?)
    } else {
        None
    };
    if let Some(engine) = &engine {
        processors(facts, options, engine, &mut gpus, warnings);
    }
    let (uid, gid) = (settings.uid.unwrap_or(UID_DEFAULT), settings.gid.unwrap_or(GID_DEFAULT));
    // What only brings the image copies nothing, wherever its caches belong.
    let caches = match kind {
        ObjectKind::Prepull => None,
        _ => caches::step(facts, settings.cache_at.as_deref(), uid)?,
    };
    let resources = resources(facts, options, gpus.count)?;
    let startup = startup(facts.model_size, is_lazy);
    if kind.is_kserve() && mode == Mode::Modelcar && uid != UID_DEFAULT {
        warnings.push(format!(
            "KServe runs the engine of a modelcar as its setting uidModelcar says, {UID_DEFAULT} if nothing does: {uid} \
             has to be set there as well"
        ));
    }
    let plan = Plan {
        facts,
        options,
        mode,
        name,
        is_lazy,
        served,
        engine,
        given,
        caches,
        gpus,
        resources,
        startup,
        uid,
        gid,
    };
    if mode == Mode::Modelcar && kind.is_kserve() && plan.engine.is_some() && !plan.waits() {
        warnings.push(
            "KServe may start this engine before the model is there (kserve#3927), and without a shell and a command \
             (--engine-command) it cannot be made to wait: it has to do so itself, or will be started again"
                .to_owned(),
        );
    }
    if mode == Mode::Fetch && plan.caches.is_some() {
        warnings.push(
            "the caches are copied by a container of the image, so nodes pull it beside what KServe downloads; --mode \
             modelcar and native pull it once"
                .to_owned(),
        );
    }
    Ok(plan)
}

/// What is to be said of an image's tag and of its variants.
fn of_name(facts: &Facts, warnings: &mut Vec<String>) {
    match &facts.image.tag {
        None => warnings.push(format!(
            "{} has no tag: nodes pull it all the same, but nobody can tell which version it is; name it with its tag, or \
             give --image",
            facts.image.by_digest()
        )),
        Some(tag) if tag == "latest" => warnings.push(
            "the tag `latest` is moved by every push: the manifests stay with the digest that it has now, but say \
             `latest`; a tag of its own tells which version runs"
                .to_owned(),
        ),
        Some(_) => {}
    }
    if !facts.targets.is_empty() && facts.caches.is_empty() {
        warnings.push(format!(
            "the image has no compile caches itself; --target takes those for {}",
            facts.targets.join(", ")
        ));
    }
}

/// What nothing in an image tells that starcar did not pack.
fn foreign(mode: Mode, kind: ObjectKind) -> String {
    let shell = if mode == Mode::Modelcar || kind == ObjectKind::Prepull && mode != Mode::Native {
        ", that it has sh, ln and sleep"
    } else {
        ""
    };
    let fetch = if mode == Mode::Fetch {
        ", that each layer is one gzip member (or plain tar) whose names begin with models/, which is all that KServe's \
         downloader reads"
    } else {
        ""
    };
    let engine =
        if kind == ObjectKind::Prepull { "" } else { ", needs one GPU unless --gpus says otherwise" };
    format!(
        "starcar did not pack this image, and nothing in it tells of the model: it is assumed that the model is in \
         {MODEL_DIRECTORY_DEFAULT}{shell}{fetch}{engine} and has no compile caches"
    )
}

/// The name by which clients ask for the model.
fn served(
    facts: &Facts,
    options: &Options,
    name: &str,
    warnings: &mut Vec<String>,
) -> Result<String, DeployError> {
    if let Some(served) = &options.settings.served_model_name {
        if options.kind == ObjectKind::LlmInferenceService && served.contains("{{") {
            return Err(DeployError::Setting {
                key: "served-model-name".to_owned(),
                reason:
                    "KServe takes an LLMInferenceService for a template, in which a name cannot have `{{`"
                        .to_owned(),
            });
        }
        return Ok(served.clone());
    }
    // What an image says of itself may hold anything: Kubernetes expands dollars, and KServe braces.
    let is_name = |name: &String| {
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:@".contains(letter);
        !name.is_empty() && name.len() <= 256 && name.chars().all(fits)
    };
    match &facts.model {
        Some(model) if is_name(model) => Ok(model.clone()),
        Some(model) => {
            warnings.push(format!(
                "the image calls its model `{}`, which is no name of a repository: it is served as {name}; --set \
                 served-model-name=NAME gives it another",
                model.chars().take(256).collect::<String>().escape_debug()
            ));
            Ok(name.to_owned())
        }
        None => Ok(name.to_owned()),
    }
}

/// Binds pods to the processors that the engine's image is for, and says where there are none that suit both images.
fn processors(
    facts: &Facts,
    options: &Options,
    engine: &Engine,
    gpus: &mut Gpus,
    warnings: &mut Vec<String>,
) {
    match (&facts.platform, engine.architectures) {
        (Some(platform), known) if !known.is_empty() && !known.contains(&platform.architecture.as_str()) => {
            warnings.push(format!(
                "{} is for {} alone, and the model's image for {}: name an image of the engine for that with \
                 --engine-image",
                engine.image,
                known.join(" and "),
                platform.architecture.escape_debug()
            ));
        }
        (None, [only]) if options.node_selector => {
            let why = "The engine's image is for these processors alone.";
            gpus.labels.insert(0, (ARCHITECTURE.to_owned(), (*only).to_owned(), why));
        }
        _ => {}
    }
}

/// How the model gets into the pod, if it can.
fn mode(facts: &Facts, options: &Options) -> Result<Mode, DeployError> {
    let kind = options.kind;
    let has_shell = facts.has_shell != Some(false);
    let preferred = if kind == ObjectKind::Deployment || !has_shell { Mode::Native } else { Mode::Modelcar };
    let mode = options.mode.unwrap_or(preferred);
    let refused =
        |text: &str| Err(DeployError::Mode { mode: mode.name(), kind: kind.name(), reason: text.to_owned() });
    if mode == Mode::Modelcar && !has_shell {
        return refused(
            "the image was packed with --base scratch and has no shell, ln and sleep, which a modelcar runs; take --mode \
             native, or pack it with a base",
        );
    }
    if kind.is_kserve() && facts.model_directory != MODEL_DIRECTORY_DEFAULT {
        return refused(&format!(
            "KServe looks for the model in {MODEL_DIRECTORY_DEFAULT} and the image has it in {}; pack it without \
             --model-directory, or take --as deployment",
            facts.model_directory
        ));
    }
    if mode == Mode::Fetch {
        return match kind {
            ObjectKind::InferenceService if !facts.is_plain && !facts.is_packed => refused(
                "KServe's downloader reads layers of the types application/vnd.oci.image.layer.v1.tar and tar+gzip, the \
                 latter of one member, and this image has others; take --mode modelcar or native",
            ),
            ObjectKind::InferenceService if !facts.is_plain => refused(
                "KServe's downloader reads the first gzip member of a layer and takes it for all, so that layers of many \
                 members, as eStargz has them, fail with `unexpected end of data`, and it reads no zstd; pack the image \
                 with --layer-format tar, or take --mode modelcar or native",
            ),
            ObjectKind::InferenceService => Ok(mode),
            ObjectKind::LlmInferenceService => refused(
                "KServe refuses oci+fetch:// there (`unsupported schema`), and its setting `ociModelMode: fetch` falls back \
                 to modelcars; take --mode modelcar or native",
            ),
            _ => {
                refused("KServe's downloader is part of its InferenceService; take --mode modelcar or native")
            }
        };
    }
    Ok(mode)
}

fn resources(facts: &Facts, options: &Options, gpus: u64) -> Result<Resources, DeployError> {
    let settings = &options.settings;
    let ranks = gpus.saturating_sub(1);
    // A volume in memory counts as the pod's memory.
    let shm = match &settings.shm {
        Some(size) => bytes(size),
        None if gpus > 1 => SHM_PER_GPU.saturating_mul(gpus),
        None => 0,
    };
    let engine = ENGINE_MEMORY.saturating_add(RANK_MEMORY.saturating_mul(ranks)).saturating_add(shm);
    // Without a GPU the weights stay in memory.
    let least = if gpus == 0 { engine.saturating_add(facts.model_size) } else { engine };
    let most = engine.saturating_add(facts.model_size);
    let cpus = 2 + 2 * gpus.max(1);
    // Only what is derived is explained.
    let mut notes = Vec::new();
    if settings.memory.is_none() {
        notes.push(format!(
            "The engine takes 8Gi and 4Gi for each further GPU{}",
            if shm > 0 { ", and its shared memory" } else { "" }
        ));
        if settings.memory_limit.is_none() {
            notes.push(format!(
                "the limit adds the model ({}), because pages of files that are read count as the pod's",
                gibibytes(facts.model_size)
            ));
        }
    }
    let note = if notes.is_empty() { String::new() } else { format!("{}.", notes.join("; ")) };
    let or = |given: &Option<String>, own: String| given.clone().unwrap_or(own);
    // What is asked for by hand bounds what is given, unless that is said as well.
    let limit = |limit: &Option<String>, asked: &Option<String>, own: String| {
        limit.clone().or_else(|| asked.clone()).unwrap_or(own)
    };
    // What is asked for by default is no more than a limit that is given.
    let asked = |asked: &Option<String>, limit: &Option<String>, own: String| match (asked, limit) {
        (None, Some(limit)) if amount(limit) < amount(&own) => limit.clone(),
        _ => or(asked, own),
    };
    for (name, asked, limit) in
        [("cpu", &settings.cpu, &settings.cpu_limit), ("memory", &settings.memory, &settings.memory_limit)]
    {
        if let (Some(asked), Some(limit)) = (asked, limit)
            && amount(limit) < amount(asked)
        {
            return Err(DeployError::Usage(format!(
                "`{name}-limit` is {limit}, less than `{name}`, {asked}: Kubernetes refuses that"
            )));
        }
    }
    Ok(Resources {
        cpu: asked(&settings.cpu, &settings.cpu_limit, cpus.to_string()),
        cpu_limit: limit(&settings.cpu_limit, &settings.cpu, (2 * cpus).to_string()),
        memory: asked(&settings.memory, &settings.memory_limit, gibibytes(least)),
        memory_limit: limit(&settings.memory_limit, &settings.memory, gibibytes(most)),
        shm: (shm > 0).then(|| settings.shm.clone().unwrap_or_else(|| gibibytes(shm))),
        note,
    })
}

fn startup(size: u64, is_lazy: bool) -> Startup {
    let (rate, from) =
        if is_lazy { (LAZY_RATE, "over a link of 200 Mbit/s") } else { (DISK_RATE, "from the node's disk") };
    let reading = size.div_ceil(rate);
    let failures = ENGINE_SECONDS.saturating_add(reading).div_ceil(PERIOD).min(i32::MAX as u64);
    let note = format!(
        "A cold start: {size} bytes at {} MB/s ({from}) are {reading} s; {ENGINE_SECONDS} s for imports, compilation and \
         graphs. {failures} times {PERIOD} s.",
        rate / 1_000_000
    );
    Startup { failures, note }
}

impl Plan<'_> {
    /// Whether the engine's container waits for the model, through a shell.
    pub(super) fn waits(&self) -> bool {
        let has_command = self.engine.as_ref().is_some_and(|engine| !engine.command.is_empty());
        self.mode == Mode::Modelcar && self.options.engine_shell && has_command
    }

    /// The version label: the image's tag.
    pub(super) fn version(&self) -> Option<String> {
        let tag = self.facts.image.tag.as_deref()?;
        Some(label_from(tag, '-')).filter(|label| !label.is_empty())
    }
}
