//! Engines: their images, commands and arguments, and how they read weights. Must not know objects.

use super::{
    DeployError,
    arguments::{Given, verbatim},
    facts::Facts,
    options::{EngineKind, Load, ObjectKind, Options},
    versions::{KSERVE_LLM_V1ALPHA2, VLLM_CPU_MULTI, VLLM_LOAD_STRATEGY, VLLM_MULTI, VLLM_PREFETCH, Version},
};
use crate::compile_cache::{MOUNTED_AT_DEFAULT, identity::Attribute};

/// Versions that are taken where no cache names one. `SGLang`'s images are for both processors since 0.5.3 (sglang#11268).
const VLLM_DEFAULT: &str = "0.33.0";
const SGLANG_DEFAULT: &str = "0.5.23";

/// Where KServe's `LLMInferenceService` has the certificate with which the router expects engines to answer.
///
/// Source: KServe's `config-llm-template.yaml`.
const TLS: &str = "/var/run/kserve/tls";

/// An engine, ready to be run.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    /// Its image.
    pub(super) image: String,
    /// Processors that the image is for; empty where nobody knows.
    pub(super) architectures: &'static [&'static str],
    /// Its command; empty for the image's own.
    pub(super) command: Vec<String>,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// What is to be said about them.
    pub(super) note: String,
    /// The port that it listens on.
    pub(super) port: u64,
    /// The path that answers when it is ready; `None` for one of which only the port is known.
    pub(super) health: Option<String>,
    /// Whether it answers with TLS.
    pub(super) tls: bool,
}

/// What the pod gives an engine, and the user.
pub(super) struct Setting<'a> {
    pub(super) gpus: u64,
    pub(super) served: &'a str,
    pub(super) is_lazy: bool,
    pub(super) given: &'a Given,
}

/// The engine that `options` ask for.
pub(super) fn engine(
    facts: &Facts,
    options: &Options,
    setting: &Setting<'_>,
    warnings: &mut Vec<String>,
) -> Result<Engine, DeployError> {
    let is_llm = options.kind == ObjectKind::LlmInferenceService;
    let settings = &options.settings;
    // KServe's router for LLMInferenceService knows no other port.
    let port = match settings.port {
        Some(port) if is_llm && port != 8000 => {
            return Err(DeployError::Usage(
                "KServe's LLMInferenceService asks engines at port 8000; leave `port` out".to_owned(),
            ));
        }
        port => port.unwrap_or(if is_llm { 8000 } else { 8080 }),
    };
    // Older templates mount no certificates there, and ask by plain HTTP.
    let expects_tls = is_llm && options.targets.kserve.is_none_or(|have| have >= KSERVE_LLM_V1ALPHA2);
    let given = setting.given;
    let has_certificates = expects_tls && options.engine == EngineKind::Vllm;
    let tls = has_certificates || given.has("--ssl-certfile");
    if expects_tls && !tls {
        warnings.push(
            "KServe's router expects LLMInferenceService's engines to answer with TLS, and this one is started without: \
             turn TLS off there (enableLLMInferenceServiceTLS), or give the engine its certificates"
                .to_owned(),
        );
    }
    if is_llm && options.engine == EngineKind::Custom && settings.health_path.is_none() {
        return Err(DeployError::Usage(
            "KServe's LLMInferenceService asks engines by HTTP whether they are ready: say where, with --set health-path=/…"
                .to_owned(),
        ));
    }
    let (image, architectures) = match &settings.engine_image {
        Some(image) => (image.clone(), &[][..]),
        None => default_image(facts, options.engine, setting.gpus, warnings)?,
    };
    let version = version(facts, options, &image);
    let (load, reason) = if given.has("--load-format") {
        (vec![], "Weights are read as the engine's arguments say.".to_owned())
    } else {
        load(options, setting.is_lazy, version, warnings)?
    };
    let verbatim = |word: &str| verbatim(word, is_llm);
    let served = verbatim(setting.served);
    let mut arguments = vec!["--model".to_owned(), MOUNTED_AT_DEFAULT.to_owned()];
    // Of what the user gives, the last counts: what is said once is not to be read twice.
    let mut add = |words: &[&str]| {
        if words.first().is_some_and(|name| !given.has(name)) {
            arguments.extend(words.iter().map(|word| (*word).to_owned()));
        }
    };
    let (gpus, port_text) = (setting.gpus.to_string(), port.to_string());
    let is_parallel = setting.gpus > 1 && !given.has_ranks();
    let command: &[&str] = match options.engine {
        EngineKind::Vllm => {
            add(&["--served-model-name", &served]);
            add(&["--port", &port_text]);
            if is_parallel {
                add(&["--tensor-parallel-size", &gpus]);
            }
            add(&load);
            if has_certificates {
                let (certificate, key) = (format!("{TLS}/tls.crt"), format!("{TLS}/tls.key"));
                add(&["--enable-ssl-refresh"]);
                add(&["--ssl-certfile", &certificate]);
                add(&["--ssl-keyfile", &key]);
            }
            // `vllm serve` takes --model with a warning; the module takes it as it is.
            &["python3", "-m", "vllm.entrypoints.openai.api_server"]
        }
        EngineKind::Sglang => {
            add(&["--served-model-name", &served]);
            add(&["--host", "0.0.0.0"]);
            add(&["--port", &port_text]);
            if is_parallel {
                add(&["--tp-size", &gpus]);
            }
            add(&load);
            &["python3", "-m", "sglang.launch_server"]
        }
        EngineKind::Custom => {
            if !options.engine_arguments.is_empty() {
                arguments.clear();
            }
            &[]
        }
    };
    arguments.extend(options.engine_arguments.iter().map(|word| verbatim(word)));
    let known = options.engine != EngineKind::Custom;
    Ok(Engine {
        image,
        architectures,
        command: if known {
            command.iter().map(|word| (*word).to_owned()).collect()
        } else {
            options.engine_command.iter().map(|word| verbatim(word)).collect()
        },
        arguments,
        note: reason,
        port,
        health: match &settings.health_path {
            // No dollar is expanded in a probe.
            Some(path) if is_llm => Some(super::arguments::templated(path)),
            Some(path) => Some(path.clone()),
            None => known.then(|| "/health".to_owned()),
        },
        tls,
    })
}

/// Processors that images are for.
const AMD64: &[&str] = &["amd64"];
const ARM64: &[&str] = &["arm64"];
const BOTH: &[&str] = &["amd64", "arm64"];

/// The image of an engine, of the version that the caches are from, and the processors that it is for.
fn default_image(
    facts: &Facts,
    engine: EngineKind,
    gpus: u64,
    warnings: &mut Vec<String>,
) -> Result<(String, &'static [&'static str]), DeployError> {
    let is_rocm = facts.is_for_rocm();
    let is_arm = facts.platform.as_ref().is_some_and(|platform| platform.architecture == "arm64");
    match engine {
        EngineKind::Vllm => {
            let told = match facts.agreed(Attribute::Engine) {
                Some("vllm") | None => facts.agreed(Attribute::EngineVersion),
                Some(_) => None,
            };
            let is_release = |version: &&str| {
                version.len() <= 32
                    && version.starts_with(|first: char| first.is_ascii_digit())
                    && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
            };
            if let Some(odd) = told.filter(|version| !is_release(version)) {
                warnings.push(format!(
                    "the caches are of vLLM {}, which is no release: name the image with --engine-image, or they will \
                     not be used",
                    odd.escape_debug()
                ));
            }
            if told.is_none() {
                guessed("vLLM", VLLM_DEFAULT, facts, warnings);
            }
            let version = told.filter(is_release).unwrap_or(VLLM_DEFAULT);
            let is_before = |first: Version| version.parse().is_ok_and(|version: Version| version < first);
            Ok(match (is_rocm, gpus, is_arm) {
                (true, ..) => (format!("docker.io/vllm/vllm-openai-rocm:v{version}"), AMD64),
                (false, 0, false) if is_before(VLLM_CPU_MULTI) => {
                    (format!("public.ecr.aws/q9t5s3a7/vllm-cpu-release-repo:v{version}"), AMD64)
                }
                (false, 0, true) if is_before(VLLM_CPU_MULTI) => {
                    (format!("public.ecr.aws/q9t5s3a7/vllm-arm64-cpu-release-repo:v{version}"), ARM64)
                }
                (false, 0, _) => (format!("docker.io/vllm/vllm-openai-cpu:v{version}"), BOTH),
                _ => {
                    let image = format!("docker.io/vllm/vllm-openai:v{version}");
                    (image, if is_before(VLLM_MULTI) { AMD64 } else { BOTH })
                }
            })
        }
        EngineKind::Sglang if is_rocm || gpus == 0 => Err(DeployError::Usage(
            "SGLang's images for processors and for AMD's GPUs are named by hardware: name one with --engine-image"
                .to_owned(),
        )),
        EngineKind::Sglang => {
            guessed("SGLang", SGLANG_DEFAULT, facts, warnings);
            Ok((format!("docker.io/lmsysorg/sglang:v{SGLANG_DEFAULT}"), BOTH))
        }
        EngineKind::Custom => {
            Err(DeployError::Usage("--engine custom needs its image: add --engine-image IMAGE".to_owned()))
        }
    }
}

/// Warns that nothing tells which engine the caches are from: another one compiles again.
fn guessed(engine: &str, version: &str, facts: &Facts, warnings: &mut Vec<String>) {
    if facts.caches.is_empty() {
        return;
    }
    let torch = facts.agreed(Attribute::Torch).filter(|version| version.len() <= 32);
    let torch =
        torch.map(|version| format!(" (they are of torch {})", version.escape_debug())).unwrap_or_default();
    warnings.push(format!(
        "nothing tells with which {engine} the caches were made{torch}, and {version} is a guess: another one does not use \
         them and compiles again; name the image that made them with --engine-image"
    ));
}

/// vLLM's version: what the tag of its own images says, else that of the caches, which no other uses.
fn version(facts: &Facts, options: &Options, image: &str) -> Option<Version> {
    if options.engine != EngineKind::Vllm {
        return None;
    }
    let last = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').filter(|(name, _)| name.starts_with("vllm-")).map(|(_, tag)| tag);
    let told = || facts.agreed(Attribute::EngineVersion)?.parse().ok();
    tag.and_then(|tag| tag.parse().ok()).or_else(told)
}

/// The arguments by which the engine reads the weights, and why. `version` is vLLM's, where it is known.
fn load(
    options: &Options,
    is_lazy: bool,
    version: Option<Version>,
    warnings: &mut Vec<String>,
) -> Result<(Vec<&'static str>, String), DeployError> {
    if options.engine == EngineKind::Vllm
        && let Some(have) = version
    {
        let (name, since) = match options.load {
            Load::Mmap => ("mmap", VLLM_LOAD_STRATEGY),
            Load::Eager => ("eager", VLLM_LOAD_STRATEGY),
            Load::Prefetch => ("prefetch", VLLM_PREFETCH),
            Load::Auto if is_lazy => ("auto", VLLM_PREFETCH),
            _ => ("", have),
        };
        if have < since {
            if options.load != Load::Auto {
                warnings.push(format!(
                    "vLLM {have} cannot read weights as --load {name} asks for, {since} can: it reads them as it does by \
                     itself"
                ));
            }
            let note = format!(
                "vLLM {have} maps weights into memory; {VLLM_PREFETCH} is the first that can read ahead."
            );
            return Ok((vec![], note));
        }
    }
    let refused = |name: &str| {
        Err(DeployError::Usage(format!(
            "--load is for vLLM and, with runai-streamer, SGLang; pass {name}'s own arguments after --"
        )))
    };
    let strategy = |name| vec!["--safetensors-load-strategy", name];
    let chosen = "As --load asks for.".to_owned();
    Ok(match (options.engine, options.load) {
        (EngineKind::Custom, Load::Auto | Load::Default) => (vec![], String::new()),
        (_, Load::Default) => (vec![], "Weights are read as the engine reads them by itself.".to_owned()),
        (EngineKind::Vllm, Load::Auto) if is_lazy => (
            strategy("prefetch"),
            "The weights lie on a mount that fetches what is read: several threads that read ahead keep the link busy, \
             mapped pages fault in one by one. (vLLM does this by itself on NFS and Lustre only.)"
                .to_owned(),
        ),
        (EngineKind::Vllm, Load::Auto) => (
            vec![],
            "The weights are on the node's disk when the engine starts: mapped into memory, which is vLLM's default."
                .to_owned(),
        ),
        (EngineKind::Sglang, Load::Auto) => {
            (vec![], "SGLang reads eight shards at a time by itself, which suits local and lazy mounts.".to_owned())
        }
        (EngineKind::Vllm, Load::Mmap) => (strategy("lazy"), chosen),
        (EngineKind::Vllm, Load::Prefetch) => (strategy("prefetch"), chosen),
        (EngineKind::Vllm, Load::Eager) => (strategy("eager"), chosen),
        (EngineKind::Vllm | EngineKind::Sglang, Load::RunaiStreamer) => {
            (vec!["--load-format", "runai_streamer"], chosen)
        }
        (EngineKind::Vllm, Load::Fastsafetensors) => (vec!["--load-format", "fastsafetensors"], chosen),
        (EngineKind::Sglang, _) => return refused("SGLang"),
        (EngineKind::Custom, _) => return refused("the engine"),
    })
}
