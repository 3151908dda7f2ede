//! What a cluster can do, by the versions that it runs. Tables of facts; must not know objects.

use super::{
    facts::{Facts, Laziness},
    options::{Mode, ObjectKind},
};
pub use crate::version::Version;

const fn version(major: u32, minor: u32) -> Version {
    Version::new(major, minor, 0)
}

/// Image volumes are there, behind the gate `ImageVolume`; without `subPath`.
///
/// Source of these three: KEP-4639, and kubernetes.io, "Use an Image Volume With a Pod".
pub(super) const KUBERNETES_IMAGE_VOLUME: Version = version(1, 31);
/// Image volumes take `subPath`; the gate is off unless it is set.
pub(super) const KUBERNETES_SUB_PATH: Version = version(1, 33);
/// The gate is on.
pub(super) const KUBERNETES_GATE_ON: Version = version(1, 35);
/// containerd mounts images, and passes over `subPath` without a word (containerd#11580).
pub(super) const CONTAINERD_IMAGE_VOLUME: Version = version(2, 1);
/// containerd honours `subPath` (containerd#11578; not in 2.1.9).
pub(super) const CONTAINERD_SUB_PATH: Version = version(2, 2);
/// CRI-O mounts images.
pub(super) const CRI_O_IMAGE_VOLUME: Version = version(1, 31);
/// CRI-O honours `subPath`.
pub(super) const CRI_O_SUB_PATH: Version = version(1, 33);
/// KServe knows `oci://`.
pub(super) const KSERVE_MODELCAR: Version = version(0, 12);
/// KServe runs `modelcar-init` first, so that the engine starts when the image is there.
pub(super) const KSERVE_MODELCAR_INIT: Version = version(0, 14);
/// KServe calls deployments without Knative `Standard`; before, `RawDeployment`. It has `LLMInferenceService`.
pub(super) const KSERVE_STANDARD: Version = version(0, 16);
/// KServe has `LLMInferenceService` as v1alpha2; before, v1alpha1.
pub(super) const KSERVE_LLM_V1ALPHA2: Version = version(0, 17);
/// KServe knows `oci+native://` and `oci+fetch://` (kserve#5558).
pub(super) const KSERVE_NATIVE: Version = version(0, 20);

/// vLLM takes `--safetensors-load-strategy`, with `lazy` and `eager` (vllm#24469; 0.10.2 is the first, 0.10.1 has none).
pub(super) const VLLM_LOAD_STRATEGY: Version = version(0, 11);
/// That knows `prefetch` as well (vllm#36012; not in 0.17.1).
pub(super) const VLLM_PREFETCH: Version = version(0, 18);

/// vLLM's image is for arm64 as well (vllm#22206; 0.10.0 was not).
pub(super) const VLLM_MULTI: Version = version(0, 11);
/// vLLM's image for processors is one for amd64 and arm64 (vllm#34882); before, each has a repository.
pub(super) const VLLM_CPU_MULTI: Version = version(0, 17);

/// What a cluster runs, where the user says so.
#[derive(Debug, Clone, Copy, Default)]
pub struct Targets {
    /// Kubernetes.
    pub kubernetes: Option<Version>,
    /// KServe.
    pub kserve: Option<Version>,
    /// containerd.
    pub containerd: Option<Version>,
    /// CRI-O.
    pub cri_o: Option<Version>,
}

impl Targets {
    /// What of `kind` in `mode` will not work on the cluster, and what to do instead.
    pub fn warnings(&self, kind: ObjectKind, mode: Mode, facts: &Facts) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |text: String| warnings.push(text);
        if mode == Mode::Native {
            match self.kubernetes {
                Some(have) if have < KUBERNETES_IMAGE_VOLUME => warn(format!(
                    "Kubernetes {have} has no image volumes: {KUBERNETES_SUB_PATH} does; --mode modelcar works there"
                )),
                Some(have) if have < KUBERNETES_SUB_PATH => warn(format!(
                    "Kubernetes {have} takes no subPath of an image volume: {KUBERNETES_SUB_PATH} does; --mode modelcar \
                     works there"
                )),
                Some(have) if have < KUBERNETES_GATE_ON => warn(format!(
                    "Kubernetes {have} has image volumes turned off: set --feature-gates=ImageVolume=true for \
                     kube-apiserver and kubelet, or take {KUBERNETES_GATE_ON}, where they are on"
                )),
                _ => {}
            }
            match self.containerd {
                Some(have) if have < CONTAINERD_IMAGE_VOLUME => warn(format!(
                    "containerd {have} has no image volumes: {CONTAINERD_SUB_PATH} does; --mode modelcar works there"
                )),
                Some(have) if have < CONTAINERD_SUB_PATH => warn(format!(
                    "containerd {have} passes over subPath without a word and mounts the image's root, so that the model \
                     is at /mnt/models{}: {CONTAINERD_SUB_PATH} honours it; --mode modelcar works there",
                    facts.model_directory
                )),
                _ => {}
            }
            match self.cri_o {
                Some(have) if have < CRI_O_IMAGE_VOLUME => {
                    warn(format!(
                        "CRI-O {have} has no image volumes: {CRI_O_SUB_PATH} does; --mode modelcar works there"
                    ));
                }
                Some(have) if have < CRI_O_SUB_PATH => warn(format!(
                    "CRI-O {have} takes no subPath of an image volume: {CRI_O_SUB_PATH} does; --mode modelcar works there"
                )),
                _ => {}
            }
        }
        if kind.is_kserve()
            && let Some(have) = self.kserve
        {
            let needed = match (kind, mode) {
                (_, Mode::Native | Mode::Fetch) => KSERVE_NATIVE,
                (ObjectKind::LlmInferenceService, _) => KSERVE_STANDARD,
                _ => KSERVE_MODELCAR,
            };
            if have < needed {
                let other = match (kind, mode) {
                    (_, Mode::Native | Mode::Fetch) => "; --mode modelcar works there",
                    (ObjectKind::LlmInferenceService, _) => "; --as inferenceservice works there",
                    _ => "",
                };
                let what = match (kind, mode) {
                    (_, Mode::Native) => "does not know oci+native://",
                    (_, Mode::Fetch) => "does not know oci+fetch://",
                    (ObjectKind::LlmInferenceService, _) => "has no LLMInferenceService",
                    _ => "does not know oci://",
                };
                warn(format!("KServe {have} {what}: {needed} does{other}"));
            } else if mode == Mode::Modelcar && have < KSERVE_MODELCAR_INIT {
                warn(format!(
                    "KServe {have} starts the engine while the image is still being pulled; it waits for /mnt/models"
                ));
            }
        }
        if self.cri_o.is_some() && facts.laziness == Laziness::Mountable {
            warn(
                "CRI-O has no lazy mounts: it pulls the image whole; `starcar pack --layer-format zstd:chunked --consumer \
                 both` makes one that it pulls in part"
                    .to_owned(),
            );
        }
        if self.containerd.is_some() && facts.laziness == Laziness::Partial {
            warn(
                "the image is for podman and CRI-O alone: containerd pulls it whole; `starcar pack --consumer both` makes \
                 one for each"
                    .to_owned(),
            );
        }
        warnings
    }

    /// What `kind` in `mode` needs, in words for a comment.
    pub fn needs(kind: ObjectKind, mode: Mode) -> String {
        let volumes = format!(
            "Kubernetes {KUBERNETES_SUB_PATH} (with the feature gate ImageVolume before {KUBERNETES_GATE_ON}), and \
             containerd {CONTAINERD_SUB_PATH} or CRI-O {CRI_O_SUB_PATH}"
        );
        match (kind, mode) {
            (ObjectKind::InferenceService | ObjectKind::LlmInferenceService, Mode::Native) => {
                format!("KServe {KSERVE_NATIVE}, {volumes}")
            }
            (ObjectKind::InferenceService | ObjectKind::LlmInferenceService, Mode::Fetch) => {
                format!("KServe {KSERVE_NATIVE}")
            }
            (ObjectKind::InferenceService, Mode::Modelcar) => {
                format!("KServe {KSERVE_STANDARD} (with --kserve, an older one), modelcars enabled there")
            }
            (ObjectKind::LlmInferenceService, Mode::Modelcar) => {
                format!(
                    "KServe {KSERVE_LLM_V1ALPHA2} (with --kserve, {KSERVE_STANDARD}), modelcars enabled there"
                )
            }
            (ObjectKind::Deployment | ObjectKind::Prepull, Mode::Native) => volumes,
            (ObjectKind::Deployment | ObjectKind::Prepull, _) => "any Kubernetes and any runtime".to_owned(),
        }
    }
}
