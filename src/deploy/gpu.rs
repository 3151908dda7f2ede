//! Which nodes a pod is for: the GPUs that it asks for, and the labels of nodes that have the one its caches are for.
//! Must not know kinds of objects.

use super::{document::Map, facts::Facts, options::Options, quantity::label_from};
use crate::compile_cache::identity::Attribute;

/// The label of nodes that says their processor.
pub(super) const ARCHITECTURE: &str = "kubernetes.io/arch";

/// Who makes the GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vendor {
    Nvidia,
    Amd,
}

impl Vendor {
    /// The resource that the vendor's device plugin offers, and the taint of its nodes.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia.com/gpu",
            Self::Amd => "amd.com/gpu",
        }
    }
}

/// GPUs of a pod, and the nodes that have them.
#[derive(Debug, Clone)]
pub(super) struct Gpus {
    /// How many.
    pub(super) count: u64,
    /// Who makes them.
    pub(super) vendor: Vendor,
    /// Why so many, for a comment.
    pub(super) reason: &'static str,
    /// Labels that nodes must have, with words on each.
    pub(super) labels: Vec<(String, String, &'static str)>,
    /// A label that nodes should have, and its values.
    pub(super) preferred: Option<(&'static str, Vec<String>)>,
}

/// What `facts` and `options` say of GPUs.
pub(super) fn gpus(facts: &Facts, options: &Options, warnings: &mut Vec<String>) -> Gpus {
    let told = facts.tensor_parallel();
    let architecture = facts.gpu_architecture();
    let vendor = if facts.is_for_rocm() { Vendor::Amd } else { Vendor::Nvidia };
    let (count, reason) = match (options.settings.gpus, told) {
        (Some(count), told) => {
            if let Some(told) = told.filter(|told| *told != count && !facts.is_for_cpu()) {
                warnings.push(format!(
                    "the caches are for a tensor-parallel size of {told}: with {count} GPUs they will not be used"
                ));
            }
            (count, "")
        }
        (None, _) if facts.is_for_cpu() => (0, ""),
        (None, Some(count)) => (count, "As many as the compile caches are for."),
        (None, None) => (1, "Nothing in the image tells how many; --gpus N asks for others."),
    };
    let mut labels = Vec::new();
    let mut preferred = None;
    if options.node_selector {
        if let Some(platform) = &facts.platform {
            // What an image says of itself may be no label.
            let label = Some(label_from(&platform.architecture, '-')).filter(|label| !label.is_empty());
            let why = if facts.is_for_several {
                "The platform that was asked for."
            } else {
                "The image is for this platform alone."
            };
            labels.extend(label.map(|label| (ARCHITECTURE.to_owned(), label, why)));
        }
        let name = facts.agreed(Attribute::GpuName).filter(|_| count > 0);
        match vendor {
            Vendor::Nvidia if count > 0 => {
                // The last digit is the minor version: sm_100 is 10.0.
                let number = architecture.and_then(|name| name.strip_prefix("sm_"));
                if let Some((major, minor)) = number.and_then(|n| n.split_at_checked(n.len().checked_sub(1)?))
                {
                    let why =
                        "GPU feature discovery's labels: the compute capability that the caches are for.";
                    labels.push(("nvidia.com/gpu.compute.major".to_owned(), major.to_owned(), why));
                    labels.push(("nvidia.com/gpu.compute.minor".to_owned(), minor.to_owned(), ""));
                }
                let product = name.map(|name| label_from(name, '-')).filter(|label| !label.is_empty());
                // A GPU that is shared in time has another label, and runs the same code.
                let shared = |label: String| vec![label.clone(), format!("{label}-SHARED")];
                preferred = product
                    .filter(|label| label.len() <= 56)
                    .map(|label| ("nvidia.com/gpu.product", shared(label)));
            }
            Vendor::Amd if count > 0 => {
                let why = "Node feature discovery's label: the caches are for GPUs of AMD.";
                labels.push(("feature.node.kubernetes.io/amd-gpu".to_owned(), "true".to_owned(), why));
                let product = name.map(|name| label_from(name, '_')).filter(|label| !label.is_empty());
                preferred = product.map(|label| ("amd.com/gpu.product-name", vec![label]));
            }
            _ => {}
        }
    }
    Gpus { count, vendor, reason, labels, preferred }
}

impl Gpus {
    /// `nodeSelector`.
    pub(super) fn selector(&self) -> Map {
        self.labels.iter().fold(Map::new(), |map, (name, value, why)| {
            let map = if why.is_empty() { map } else { map.note(*why) };
            map.with(name.clone(), value.as_str())
        })
    }

    /// `affinity`.
    pub(super) fn affinity(&self) -> Map {
        let Some((label, values)) = &self.preferred else { return Map::new() };
        let expression = Map::new().with("key", *label).with("operator", "In").with("values", values.clone());
        let preference = Map::new().with("matchExpressions", vec![expression]);
        let term = Map::new().with("weight", 100).with("preference", preference);
        let node = Map::new().with("preferredDuringSchedulingIgnoredDuringExecution", vec![term]);
        Map::new().with("nodeAffinity", node)
    }

    /// `tolerations`.
    pub(super) fn tolerations(&self) -> Vec<Map> {
        if self.count == 0 {
            return Vec::new();
        }
        let toleration = Map::new()
            .with("key", self.vendor.resource())
            .with("operator", "Exists")
            .with("effect", "NoSchedule");
        vec![toleration]
    }
}
