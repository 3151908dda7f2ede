//! `starcar deploy`

use clap::{Args, ValueEnum};

use super::{CliError, RegistryArguments, output, platforms::asked};
use crate::{
    deploy::{
        DeployError, EngineKind, Facts, Load, Mode, ObjectKind, Options, PinnedImage, Pull, SETTINGS,
        Settings, Targets, Version, list, manifests, prepull_script, yaml,
    },
    inspect::caches_of,
    oci::{self, Platform, Selector, Target, is_index, listed_images, read_image, variant_tag},
    registry::Reference,
};

/// Print manifests that serve an image
///
/// What can be read from the image is: its digest, sizes, compile caches and the GPU that they are for. Manifests go to
/// standard output, warnings to standard error.
#[derive(Debug, Args)]
#[command(after_help = settings_help())]
pub(super) struct DeployArguments {
    /// The image: a name in a registry, oci:DIR[:tag] or oci-archive:FILE[:tag]
    image: Target,
    /// What is printed
    #[arg(long = "as", value_enum, value_name = "KIND")]
    kind: KindArgument,
    /// How the model gets into the pod [default: modelcar for KServe, native for a deployment; native where the image
    /// has no shell]
    #[arg(long, value_enum)]
    mode: Option<ModeArgument>,
    /// The image's name in the registry that nodes pull from; needed for a layout or an archive
    #[arg(long = "image", value_name = "REGISTRY/REPO:TAG")]
    name_in_registry: Option<String>,
    /// Take the image for this GPU target, as in sm90
    #[arg(long)]
    target: Option<String>,
    /// Platform to serve on, of an image for several [default: any; linux/amd64 is looked at]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// How the answer is printed; `json` is a list of Kubernetes
    #[arg(long, value_enum, default_value_t = FormatArgument::Yaml)]
    format: FormatArgument,
    /// With --as prepull: a shell script for a node, instead of a `DaemonSet`
    #[arg(long)]
    script: bool,
    #[command(flatten, next_help_heading = "Objects")]
    objects: ObjectArguments,
    #[command(flatten, next_help_heading = "Engine")]
    engine: EngineArguments,
    #[command(flatten, next_help_heading = "Cluster")]
    cluster: ClusterArguments,
    #[command(flatten, next_help_heading = "Registry")]
    registry: RegistryArguments,
}

#[derive(Debug, Args)]
struct ObjectArguments {
    /// Name of the objects [default: the repository's last part]
    #[arg(long)]
    name: Option<String>,
    /// Their namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Pods [default: 1]
    #[arg(long, value_name = "N")]
    replicas: Option<String>,
    /// GPUs of a pod [default: as many as the compile caches are for, else 1]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    gpus: Option<String>,
    /// Secret with a login for the registry (repeatable)
    #[arg(long, value_name = "NAME")]
    pull_secret: Vec<String>,
    /// A setting; see below (repeatable, the last one counts)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Bind pods to no nodes: by default to those with the GPU that the compile caches are for
    #[arg(long)]
    no_node_selector: bool,
}

#[derive(Debug, Args)]
struct EngineArguments {
    /// The engine
    #[arg(long, value_enum, default_value_t = EngineArgument::Vllm)]
    engine: EngineArgument,
    /// Its image [default: the engine's own, of the version that the compile caches are from]
    #[arg(long, value_name = "IMAGE")]
    engine_image: Option<String>,
    /// With --engine custom: a word of its command [default: the image's command] (repeatable)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    engine_command: Vec<String>,
    /// An argument more for the engine, as in --engine-arg=--max-model-len=8192 (repeatable)
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    engine_arg: Vec<String>,
    /// The engine's image has no shell: it is started by itself
    #[arg(long)]
    no_shell: bool,
    /// How it reads the weights; `auto` is what fits the mount
    #[arg(long, value_enum, default_value_t = LoadArgument::Auto)]
    load: LoadArgument,
    /// With --as inferenceservice: a `ServingRuntime` of the cluster, instead of an engine's container
    #[arg(long, value_name = "NAME", conflicts_with_all = ["engine", "engine_image", "engine_command"])]
    runtime: Option<String>,
    /// The model format by which the runtime is known [default: huggingface or vLLM, by the runtime's name]
    #[arg(long, value_name = "NAME", requires = "runtime")]
    model_format: Option<String>,
    /// More arguments for the engine; for a custom one, all of them
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

#[derive(Debug, Args)]
struct ClusterArguments {
    /// Whether nodes pull lazily; with --as prepull, `eager` reads every file as well
    #[arg(long, value_enum, default_value_t = PullArgument::Auto)]
    pull: PullArgument,
    /// Version of Kubernetes, as in 1.33: warns of what it cannot do, as the next three
    #[arg(long, value_name = "VERSION")]
    kubernetes: Option<Version>,
    /// Version of KServe, as in 0.20
    #[arg(long, value_name = "VERSION")]
    kserve: Option<Version>,
    /// Version of containerd, as in 2.2
    #[arg(long, value_name = "VERSION")]
    containerd: Option<Version>,
    /// Version of CRI-O, as in 1.33
    #[arg(long, value_name = "VERSION")]
    cri_o: Option<Version>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindArgument {
    #[value(name = "inferenceservice", alias = "isvc")]
    InferenceService,
    #[value(name = "llminferenceservice", alias = "llmisvc")]
    LlmInferenceService,
    Deployment,
    Prepull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeArgument {
    /// A sidecar has the model (oci://)
    Modelcar,
    /// An image volume of Kubernetes (oci+native://)
    Native,
    /// KServe downloads it (oci+fetch://)
    Fetch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineArgument {
    Vllm,
    Sglang,
    Custom,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LoadArgument {
    Auto,
    Default,
    Mmap,
    Prefetch,
    Eager,
    RunaiStreamer,
    Fastsafetensors,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PullArgument {
    Auto,
    Lazy,
    Eager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Yaml,
    Json,
}

fn settings_help() -> String {
    let lines: Vec<String> =
        SETTINGS.iter().map(|setting| format!("  {:<18} {}", setting.key, setting.help)).collect();
    format!("Settings (--set KEY=VALUE):\n{}", lines.join("\n"))
}

pub(super) fn run(arguments: &DeployArguments) -> Result<(), CliError> {
    let options = options(arguments).map_err(|error| of_deploy(&error))?;
    if arguments.script && options.kind != ObjectKind::Prepull {
        return Err(CliError::Usage("--script is for --as prepull".to_owned()));
    }
    if arguments.script && arguments.format == FormatArgument::Json {
        return Err(CliError::Usage("--script prints a shell script, and --format json none".to_owned()));
    }
    let facts = facts(arguments)?;
    let (text, warnings) = if arguments.script {
        prepull_script(&facts, &options).map_err(|error| of_deploy(&error))?
    } else {
        let printed = manifests(&facts, &options).map_err(|error| of_deploy(&error))?;
        let failed = |error: String| CliError::Output {
            what: "the manifests".to_owned(),
            cause: std::io::Error::other(error),
        };
        let text = match arguments.format {
            FormatArgument::Yaml => yaml(&printed.documents).map_err(|error| failed(error.to_string()))?,
            FormatArgument::Json => serde_json::to_string_pretty(&list(printed.documents))
                .map_err(|error| failed(error.to_string()))?,
        };
        (text, printed.warnings)
    };
    for warning in &warnings {
        output::words(&format!("warning: {warning}"));
    }
    output::data(&text)
}

fn of_deploy(error: &DeployError) -> CliError {
    CliError::Usage(error.to_string())
}

fn options(arguments: &DeployArguments) -> Result<Options, DeployError> {
    let DeployArguments { objects, engine, cluster, .. } = arguments;
    let custom = engine.engine == EngineArgument::Custom;
    if !custom && !engine.engine_command.is_empty() {
        return Err(DeployError::Usage("--engine-command is for --engine custom".to_owned()));
    }
    let mut settings = Settings::default();
    for text in &objects.set {
        let Some((key, value)) = text.split_once('=') else {
            return Err(DeployError::Usage(format!("--set {}: expected KEY=VALUE", text.escape_debug())));
        };
        settings.set(key, value)?;
    }
    // The plain flags say more than --set, which may come from a file.
    let flags = [
        ("name", &objects.name),
        ("namespace", &objects.namespace),
        ("replicas", &objects.replicas),
        ("gpus", &objects.gpus),
        ("engine-image", &engine.engine_image),
    ];
    for (key, value) in flags {
        if let Some(value) = value {
            settings.set(key, value)?;
        }
    }
    objects.pull_secret.iter().try_for_each(|name| settings.set("pull-secret", name))?;
    Ok(Options {
        kind: match arguments.kind {
            KindArgument::InferenceService => ObjectKind::InferenceService,
            KindArgument::LlmInferenceService => ObjectKind::LlmInferenceService,
            KindArgument::Deployment => ObjectKind::Deployment,
            KindArgument::Prepull => ObjectKind::Prepull,
        },
        mode: arguments.mode.map(|mode| match mode {
            ModeArgument::Modelcar => Mode::Modelcar,
            ModeArgument::Native => Mode::Native,
            ModeArgument::Fetch => Mode::Fetch,
        }),
        engine: match engine.engine {
            EngineArgument::Vllm => EngineKind::Vllm,
            EngineArgument::Sglang => EngineKind::Sglang,
            EngineArgument::Custom => EngineKind::Custom,
        },
        engine_command: engine.engine_command.clone(),
        engine_arguments: engine.engine_arg.iter().chain(&engine.arguments).cloned().collect(),
        engine_shell: !engine.no_shell,
        load: match engine.load {
            LoadArgument::Auto => Load::Auto,
            LoadArgument::Default => Load::Default,
            LoadArgument::Mmap => Load::Mmap,
            LoadArgument::Prefetch => Load::Prefetch,
            LoadArgument::Eager => Load::Eager,
            LoadArgument::RunaiStreamer => Load::RunaiStreamer,
            LoadArgument::Fastsafetensors => Load::Fastsafetensors,
        },
        pull: match cluster.pull {
            PullArgument::Auto => Pull::Auto,
            PullArgument::Lazy => Pull::Lazy,
            PullArgument::Eager => Pull::Eager,
        },
        runtime: engine.runtime.clone(),
        model_format: engine.model_format.clone(),
        node_selector: !objects.no_node_selector,
        targets: Targets {
            kubernetes: cluster.kubernetes,
            kserve: cluster.kserve,
            containerd: cluster.containerd,
            cri_o: cluster.cri_o,
        },
        settings,
    })
}

/// Reads the image, or the one of its variants that is asked for.
fn facts(arguments: &DeployArguments) -> Result<Facts, CliError> {
    let mut name = registry_name(arguments)?;
    let mut target = arguments.image.clone();
    let mut source = oci::open(&target, || arguments.registry.open())?;
    let looked_at = asked(&*source, arguments.platform.as_ref())?;
    let mut caches = caches_of(&*source, &looked_at)?;
    let named = source.root_document()?.digest;
    if let Some(wanted) = &arguments.target
        && caches.variant.as_ref() != Some(wanted)
    {
        let Some(digest) = caches.variants.get(wanted) else {
            let known: Vec<&str> = caches.variants.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(CliError::Usage(format!(
                "{target} has no variant for `{wanted}`; there are {known}"
            )));
        };
        // The tag of the variant may have been moved since: the image says which one is its own.
        target = by_digest(&target, *digest);
        name.1 = name.1.map(|tag| variant_tag(&tag, Some(wanted)));
        source = oci::open(&target, || arguments.registry.open())?;
        caches = caches_of(&*source, &looked_at)?;
    }
    let root = source.root_document()?;
    let image = read_image(&*source, &looked_at)?;
    // With a target, --image may have the digest of the image that lists it.
    if let Some(given) =
        name.2.filter(|given| ![named, root.digest].iter().any(|digest| *given == digest.to_string()))
    {
        return Err(CliError::Usage(format!(
            "--image has the digest {given}, and {} has {named}",
            arguments.image
        )));
    }
    let pinned = PinnedImage { repository: name.0, tag: name.1, digest: root.digest };
    // An index may list several images for one platform.
    let is_for_several = is_index(&root.media_type)
        && listed_images(&root, &source.place())?.iter().any(|listed| {
            listed.platform.as_ref().is_none_or(|platform| platform.architecture != looked_at.architecture)
        });
    Ok(Facts::of(pinned, &image.manifest, &image.config, caches, is_for_several, arguments.platform.as_ref()))
}

/// Repository and tag by which nodes pull, and the digest if the user gave one with them.
fn registry_name(arguments: &DeployArguments) -> Result<(String, Option<String>, Option<String>), CliError> {
    let repository = |reference: &Reference| format!("{}/{}", reference.registry(), reference.repository());
    if let Some(text) = &arguments.name_in_registry {
        let usage = |reason: &str| {
            CliError::Usage(format!(
                "--image {}: {reason}, as in registry.example.com/models/qwen3:v1",
                text.escape_debug()
            ))
        };
        let reference: Reference = text.parse().map_err(|_| usage("expected a name in a registry"))?;
        let path = text.split('@').next().unwrap_or_default();
        if !path.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            return Err(usage("expected a name with its tag"));
        }
        let (tag, digest) = (reference.tag().map(str::to_owned), reference.digest().map(str::to_owned));
        return Ok((repository(&reference), tag, digest));
    }
    match &arguments.image {
        Target::Registry(reference) => Ok((repository(reference), reference.tag().map(str::to_owned), None)),
        Target::Layout { .. } | Target::Archive { .. } => Err(CliError::Usage(format!(
            "{} is on this disk, and nodes pull from a registry; add --image REGISTRY/REPO:TAG, the name under which \
             `starcar push` sends it",
            arguments.image
        ))),
    }
}

/// The image with `digest` in the place of `target`.
fn by_digest(target: &Target, digest: crate::digest::Digest) -> Target {
    match target {
        Target::Layout { path, .. } => {
            Target::Layout { path: path.clone(), selector: Selector::Digest(digest) }
        }
        Target::Archive { path, .. } => {
            Target::Archive { path: path.clone(), selector: Selector::Digest(digest) }
        }
        Target::Registry(reference) => Target::Registry(Reference::with_digest(
            reference.registry().to_owned(),
            reference.repository().to_owned(),
            digest.to_string(),
        )),
    }
}
