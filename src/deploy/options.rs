//! What a user can say about a deployment: one table of settings behind the flags and `--set`. Must not know images.

use super::{
    DeployError,
    quantity::{check_label, check_name, check_quantity},
    versions::Targets,
};
use crate::registry::Reference;

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// KServe's `InferenceService`.
    InferenceService,
    /// KServe's `LLMInferenceService`.
    LlmInferenceService,
    /// A Deployment and its Service.
    Deployment,
    /// A `DaemonSet` that brings the image to nodes.
    Prepull,
}

impl ObjectKind {
    /// The name that options use.
    pub fn name(self) -> &'static str {
        match self {
            Self::InferenceService => "inferenceservice",
            Self::LlmInferenceService => "llminferenceservice",
            Self::Deployment => "deployment",
            Self::Prepull => "prepull",
        }
    }

    /// Whether KServe makes the pods.
    pub fn is_kserve(self) -> bool {
        matches!(self, Self::InferenceService | Self::LlmInferenceService)
    }

    /// Longest name: KServe appends to it (`-predictor`, `-kserve-workload-svc`), and a service's name has 63 letters.
    pub fn name_max(self) -> usize {
        match self {
            Self::InferenceService => 53,
            Self::LlmInferenceService => 43,
            Self::Deployment => 63,
            Self::Prepull => 55,
        }
    }
}

/// How the model gets into the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A sidecar has it, and the engine looks through `/proc`.
    Modelcar,
    /// A volume of Kubernetes.
    Native,
    /// KServe's downloader.
    Fetch,
}

impl Mode {
    /// The name that options use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Modelcar => "modelcar",
            Self::Native => "native",
            Self::Fetch => "fetch",
        }
    }
}

/// The engine that serves the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// vLLM.
    Vllm,
    /// `SGLang`.
    Sglang,
    /// One that the user brings.
    Custom,
}

/// How the engine reads the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// What fits the mount.
    Auto,
    /// What the engine does by itself.
    Default,
    /// vLLM: mapped into memory.
    Mmap,
    /// vLLM: read ahead of their use by several threads.
    Prefetch,
    /// vLLM: each file read whole.
    Eager,
    /// Run:ai's streamer.
    RunaiStreamer,
    /// fastsafetensors.
    Fastsafetensors,
}

/// Whether nodes pull the image before they start a container of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Lazily where the image can be.
    Auto,
    /// A snapshotter mounts it.
    Lazy,
    /// It is pulled whole.
    Eager,
}

/// What a user says about a deployment.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is printed.
    pub kind: ObjectKind,
    /// How the model gets into the pod; `None` for what suits kind and image.
    pub mode: Option<Mode>,
    /// The engine.
    pub engine: EngineKind,
    /// The command of a custom engine; empty for the one of its image.
    pub engine_command: Vec<String>,
    /// More arguments of the engine; all of them for a custom one.
    pub engine_arguments: Vec<String>,
    /// Whether the engine's image has a shell.
    pub engine_shell: bool,
    /// How the engine reads the weights.
    pub load: Load,
    /// How nodes pull.
    pub pull: Pull,
    /// A `ServingRuntime` of the cluster that is used instead of an engine.
    pub runtime: Option<String>,
    /// The model format by which KServe knows that runtime.
    pub model_format: Option<String>,
    /// Whether pods are bound to nodes with the GPU that the caches are for.
    pub node_selector: bool,
    /// What the cluster runs.
    pub targets: Targets,
    /// The settings.
    pub settings: Settings,
}

impl Options {
    /// What the user asks for that has nothing to act on, because no engine of ours is started: flags and settings.
    pub(super) fn unused(&self) -> Vec<&'static str> {
        let is_prepull = self.kind == ObjectKind::Prepull;
        if !is_prepull && self.runtime.is_none() {
            return Vec::new();
        }
        let set = &self.settings;
        let of_engine = [
            ("--engine", self.engine != EngineKind::Vllm),
            ("--engine-command", !self.engine_command.is_empty()),
            ("engine-image", set.engine_image.is_some()),
            ("--no-shell", !self.engine_shell),
            ("--load", self.load != Load::Auto),
            ("port", set.port.is_some()),
            ("health-path", set.health_path.is_some()),
            ("served-model-name", set.served_model_name.is_some()),
        ];
        // A runtime's container gets these.
        let of_pod = [
            ("--engine-arg", !self.engine_arguments.is_empty()),
            ("replicas", set.replicas.is_some()),
            ("cpu", set.cpu.is_some()),
            ("cpu-limit", set.cpu_limit.is_some()),
            ("memory", set.memory.is_some()),
            ("memory-limit", set.memory_limit.is_some()),
            ("shm", set.shm.is_some()),
            ("cache-at", set.cache_at.is_some()),
        ];
        let all = of_engine.into_iter().chain(of_pod.into_iter().filter(|_| is_prepull));
        all.filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }
}

/// The settings: what flags and `--set` share.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Name of the objects.
    pub name: Option<String>,
    /// Their namespace.
    pub namespace: Option<String>,
    /// Image of the engine.
    pub engine_image: Option<String>,
    /// GPUs of a pod.
    pub gpus: Option<u64>,
    /// Pods.
    pub replicas: Option<u64>,
    /// CPUs that a pod asks for.
    pub cpu: Option<String>,
    /// CPUs that a pod gets at most.
    pub cpu_limit: Option<String>,
    /// Memory that a pod asks for.
    pub memory: Option<String>,
    /// Memory that a pod gets at most.
    pub memory_limit: Option<String>,
    /// Shared memory of the engine's processes.
    pub shm: Option<String>,
    /// The engine's port.
    pub port: Option<u64>,
    /// Path that answers when the engine is ready.
    pub health_path: Option<String>,
    /// Name by which clients ask for the model.
    pub served_model_name: Option<String>,
    /// Account of the pods.
    pub service_account: Option<String>,
    /// Secrets with logins for registries.
    pub pull_secrets: Vec<String>,
    /// Directory to which caches are copied instead of the one that they were packed for.
    pub cache_at: Option<String>,
    /// Image with a shell, where the model's has none.
    pub tools_image: Option<String>,
    /// User of the containers.
    pub uid: Option<u64>,
    /// Group of the containers.
    pub gid: Option<u64>,
}

/// A setting: its key, what it is for, and what takes its value.
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// What it is for.
    pub help: &'static str,
    take: fn(&mut Settings, &str) -> Result<(), String>,
}

/// All settings.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    Setting { key: "name", help: "name of the objects", take: |to, text| keep(&mut to.name, text, |name| check_name(name, 63)) },
    Setting { key: "namespace", help: "their namespace", take: |to, text| keep(&mut to.namespace, text, |name| check_label(name, false)) },
    Setting { key: "engine-image", help: "image of the engine, with a tag or digest", take: |to, text| keep(&mut to.engine_image, text, check_image) },
    Setting { key: "gpus", help: "GPUs of a pod; 0 for none", take: |to, text| number(&mut to.gpus, text, 0, 64) },
    Setting { key: "replicas", help: "pods", take: |to, text| number(&mut to.replicas, text, 0, 10_000) },
    Setting { key: "cpu", help: "CPUs that a pod asks for, as in 4 or 500m", take: |to, text| keep(&mut to.cpu, text, check_quantity) },
    Setting { key: "cpu-limit", help: "CPUs that a pod gets at most", take: |to, text| keep(&mut to.cpu_limit, text, check_quantity) },
    Setting { key: "memory", help: "memory that a pod asks for, as in 16Gi", take: |to, text| keep(&mut to.memory, text, check_quantity) },
    Setting { key: "memory-limit", help: "memory that a pod gets at most", take: |to, text| keep(&mut to.memory_limit, text, check_quantity) },
    Setting { key: "shm", help: "shared memory of the engine's processes; 0 for none", take: |to, text| keep(&mut to.shm, text, check_quantity) },
    Setting { key: "port", help: "port that the engine listens on", take: |to, text| number(&mut to.port, text, 1, 65_535) },
    Setting { key: "health-path", help: "path that answers when the engine is ready", take: |to, text| keep(&mut to.health_path, text, check_path) },
    Setting { key: "served-model-name", help: "name by which clients ask for the model", take: |to, text| keep(&mut to.served_model_name, text, check_text) },
    Setting { key: "service-account", help: "account of the pods", take: |to, text| keep(&mut to.service_account, text, |name| check_label(name, true)) },
    Setting { key: "pull-secret", help: "secret with a login for the registry (repeatable)", take: |to, text| {
        check_label(text, true)?;
        if !to.pull_secrets.iter().any(|known| known == text) {
            to.pull_secrets.push(text.to_owned());
        }
        Ok(())
    } },
    Setting { key: "cache-at", help: "directory to which caches are copied", take: |to, text| keep(&mut to.cache_at, text, check_directory) },
    Setting { key: "tools-image", help: "image with a shell, where the model's has none", take: |to, text| keep(&mut to.tools_image, text, check_image) },
    Setting { key: "uid", help: "user of the containers", take: |to, text| number(&mut to.uid, text, 0, 2_147_483_647) },
    Setting { key: "gid", help: "group of the containers", take: |to, text| number(&mut to.gid, text, 0, 2_147_483_647) },
];

impl Settings {
    /// Takes the value of the setting `key`; the last one counts.
    ///
    /// # Errors
    /// [`DeployError::Setting`] when there is no such setting, or it does not take the value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), DeployError> {
        let error = |reason: String| DeployError::Setting { key: key.escape_debug().to_string(), reason };
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
            let keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
            return Err(error(format!("there is no such setting; there are {}", keys.join(", "))));
        };
        (setting.take)(self, value).map_err(error)
    }
}

fn keep(
    place: &mut Option<String>,
    text: &str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<(), String> {
    check(text)?;
    *place = Some(text.to_owned());
    Ok(())
}

fn number(place: &mut Option<u64>, text: &str, least: u64, most: u64) -> Result<(), String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => {
            *place = Some(number);
            Ok(())
        }
        _ => Err(format!("`{}` is no whole number from {least} to {most}", text.escape_debug())),
    }
}

/// Whether `text` names an image with a tag or a digest.
fn check_image(text: &str) -> Result<(), String> {
    let odd = |reason: &str| {
        Err(format!("`{}` {reason}, as in docker.io/vllm/vllm-openai:v0.33.0", text.escape_debug()))
    };
    let Ok(reference) = text.parse::<Reference>() else {
        return odd("is no name of an image: expected one with its tag");
    };
    let has_tag = text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if reference.digest().is_none() && !has_tag {
        return odd("has no tag, and what `latest` is changes from pull to pull: expected one with its tag");
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), String> {
    if text.is_empty()
        || text.len() > 256
        || text.chars().any(|letter| letter.is_control() || letter.is_whitespace())
    {
        return Err(format!(
            "`{}` is no name: expected up to 256 letters without spaces",
            text.escape_debug()
        ));
    }
    Ok(())
}

fn check_path(text: &str) -> Result<(), String> {
    if text.starts_with('/') && check_text(text).is_ok() {
        return Ok(());
    }
    Err(format!("`{}` is no path: expected one as in /health", text.escape_debug()))
}

fn check_directory(text: &str) -> Result<(), String> {
    if crate::compile_cache::is_plain_directory(text) {
        return Ok(());
    }
    Err(format!(
        "`{}` is no directory: expected an absolute one of letters, digits and `._-+@`, as in /tmp/compile-cache",
        text.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let mut settings = Settings::default();
        for (key, value) in [
            ("name", "a"),
            ("namespace", "1a"),
            ("engine-image", "localhost:5000/e:v1"),
            ("engine-image", "vllm/vllm-openai:v0.33.0"),
            ("gpus", "0"),
            ("replicas", "3"),
            ("cpu", "500m"),
            ("memory", "16Gi"),
            ("port", "8000"),
            ("pull-secret", "a"),
            ("pull-secret", "b"),
            ("pull-secret", "a"),
        ] {
            settings.set(key, value).unwrap();
        }
        assert_eq!(settings.pull_secrets, ["a", "b"]);
        assert_eq!(settings.engine_image.as_deref(), Some("vllm/vllm-openai:v0.33.0"));
        for (key, value, word) in [
            ("colour", "red", "engine-image"),
            ("name", "Not_A_Name", "as in not-a-name"),
            ("namespace", "a.b", "small letters"),
            ("engine-image", "vllm", "no tag"),
            ("engine-image", "localhost:5000/vllm", "no tag"),
            ("engine-image", "A B", "no name of an image"),
            ("gpus", "-1", "from 0 to 64"),
            ("gpus", "one", "from 0 to 64"),
            ("port", "0", "from 1 to 65535"),
            ("port", "99999999999999999999", "from 1 to 65535"),
            ("memory", "16 GB", "as in 4, 500m or 16Gi"),
            ("health-path", "health", "as in /health"),
            ("served-model-name", "a b", "without spaces"),
            ("cache-at", "tmp;x", "absolute"),
            ("", "", "there is no such setting"),
        ] {
            let error = settings.set(key, value).unwrap_err().to_string();
            assert!(error.contains(word), "{key}={value}: {error}");
        }
    }
}
