//! From facts about an image to manifests that serve it: objects of Kubernetes and KServe, as YAML or JSON. Pure: must
//! not know registries, files or printing.

mod arguments;
mod caches;
mod document;
mod engine;
mod facts;
mod gpu;
mod kserve;
mod options;
mod plain;
mod plan;
mod pod;
mod quantity;
#[cfg(test)]
mod tests;
mod versions;

pub use self::{
    document::{Document, Map, Node, list, yaml},
    facts::{Facts, Laziness, MODEL_DIRECTORY_DEFAULT, PinnedImage},
    options::{EngineKind, Load, Mode, ObjectKind, Options, Pull, SETTINGS, Setting, Settings},
    versions::{Targets, Version},
};

/// Why nothing can be printed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A setting that there is not, or a value that it does not take.
    #[error("{key}: {reason}")]
    Setting {
        /// Its key.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A mode that does not work with the kind of object, or the image.
    #[error("--mode {mode} does not work with --as {kind}: {reason}")]
    Mode {
        /// The mode.
        mode: &'static str,
        /// The kind of object.
        kind: &'static str,
        /// Why, and what works.
        reason: String,
    },
    /// A cache that was packed for a directory that cannot be a volume.
    #[error(
        "the {cache} cache was packed for {place}, where no volume can be mounted without hiding what the engine needs; \
         add --set cache-at=/tmp/compile-cache (FlashInfer's must be built elsewhere instead)"
    )]
    CachePlace {
        /// Its name.
        cache: String,
        /// The directory.
        place: String,
    },
    /// Arguments that contradict each other.
    #[error("{0}")]
    Usage(String),
}

/// Manifests.
#[derive(Debug, Clone)]
pub struct Manifests {
    /// The objects, in the order in which they are applied.
    pub documents: Vec<Document>,
    /// What the user should know that no comment says to them in time.
    pub warnings: Vec<String>,
}

/// The manifests that serve an image.
///
/// # Errors
/// When what is asked for cannot work.
pub fn manifests(facts: &Facts, options: &Options) -> Result<Manifests, DeployError> {
    let mut warnings = Vec::new();
    let facts = &caches::usable(facts, options, &mut warnings);
    let plan = plan::plan(facts, options, &mut warnings)?;
    let documents = match options.kind {
        ObjectKind::InferenceService => kserve::inference_service(&plan),
        ObjectKind::LlmInferenceService => kserve::llm_inference_service(&plan),
        ObjectKind::Deployment => plain::deployment(&plan),
        ObjectKind::Prepull => plain::prepull(&plan),
    };
    Ok(Manifests { documents, warnings })
}

/// A shell script that brings an image to the node that it runs on, and what the user should know.
///
/// # Errors
/// As [`manifests`].
pub fn prepull_script(facts: &Facts, options: &Options) -> Result<(String, Vec<String>), DeployError> {
    let mut warnings = Vec::new();
    let plan = plan::plan(facts, options, &mut warnings)?;
    Ok((plain::script(&plan), warnings))
}
