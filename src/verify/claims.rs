//! What an image says of itself: labels, annotations, and what follows from how it was packed. Must not know whether it
//! is true.

use std::collections::BTreeMap;

use oci_spec::image::{ImageConfiguration, ImageManifest};

use super::{
    finding::{Findings, Place, Use},
    layer::{ESTARGZ, ZSTD_CHUNKED},
    names, rules,
    tree::Tree,
};
use crate::{
    oci::{CONSUMER_ANNOTATION, STARCAR_PREFIX},
    pack::{FormatChoice, RecordedBase, RecordedOptions, cache_labels},
    zstd_chunked::Consumer,
};

/// What an image says of itself.
pub(super) struct Claims {
    pub(super) labels: BTreeMap<String, String>,
    /// How starcar packed it.
    recorded: Option<RecordedOptions>,
    /// Whether it is for containers-storage alone.
    pub(super) is_for_storage: bool,
}

impl Claims {
    /// Reads labels and annotations, which should not contradict each other.
    pub(super) fn of(
        manifest: Option<&ImageManifest>,
        config: Option<&ImageConfiguration>,
        findings: &mut Findings,
    ) -> Self {
        let labels =
            config.and_then(|config| config.config().as_ref()).and_then(|config| config.labels().clone());
        let mut labels: BTreeMap<String, String> = labels.unwrap_or_default().into_iter().collect();
        let annotations = manifest.and_then(|manifest| manifest.annotations().clone()).unwrap_or_default();
        let annotations: BTreeMap<String, String> = annotations.into_iter().collect();
        for (name, label) in &labels {
            let other = annotations.get(name).filter(|annotation| *annotation != label);
            if let Some(annotation) = other.filter(|_| name.starts_with(STARCAR_PREFIX)) {
                let message = format!("the label {name} is {label:?}, the annotation {annotation:?}");
                findings.add(&rules::LABEL_DIFFERS, Place::default(), message);
            }
        }
        for (name, value) in
            annotations.iter().filter(|(name, value)| cache_labels::is_annotation(name, value))
        {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let recorded = RecordedOptions::read(&annotations).unwrap_or_else(|reason| {
            let message = format!("how the image was packed cannot be understood: {reason}");
            findings.add(&rules::OPTIONS_MALFORMED, Place::default(), message);
            None
        });
        let consumer = annotations.get(CONSUMER_ANNOTATION);
        let is_for_storage = consumer.map(String::as_str) == Some(Consumer::ContainersStorage.name());
        Self { labels, recorded, is_for_storage }
    }

    /// A label under starcar's prefix.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.labels.get(&format!("{STARCAR_PREFIX}{name}")).map(String::as_str)
    }

    /// Whether it was packed as plain tar, on purpose.
    pub(super) fn is_tar(&self) -> bool {
        self.get("layer-format") == Some(FormatChoice::Tar.name())
    }

    /// What the label says that is no format.
    pub(super) fn unknown_format(&self) -> Option<&str> {
        let known = [ESTARGZ, ZSTD_CHUNKED, FormatChoice::Tar.name()];
        self.get("layer-format").filter(|format| !known.contains(format))
    }

    /// Compares what it says with the files that there are.
    pub(super) fn check(&self, tree: &Tree, findings: &mut Findings) {
        let directory = self.model_directory();
        // What is wrong with /models is told by others.
        if directory != names::MODELS && !tree.is_incomplete && !tree.has(directory) {
            let message = format!("the label says that the model is at {directory:?}, where nothing is");
            findings.add(&rules::MODEL_LABEL, Place::default(), message);
        }
    }

    /// The model's directory, as layers name it.
    pub(super) fn model_directory(&self) -> &str {
        self.get("model.directory").map_or(names::MODELS, |path| path.trim_start_matches('/'))
    }

    /// What the image is meant for.
    pub(super) fn uses(&self) -> Vec<Use> {
        let format = if self.is_tar() { Use::Fetch } else { Use::Lazy };
        // No node mounts what is for containers-storage; an index may have another image for those that would.
        let format = (!self.is_for_storage).then_some(format);
        // `KServe` knows one place.
        if self.model_directory() != names::MODELS {
            return format.into_iter().collect();
        }
        // Without a shell no container is meant to run.
        let modelcar = (!self.has_no_shell()).then_some(Use::Modelcar);
        format.into_iter().chain(modelcar).chain([Use::Native]).collect()
    }

    /// Whether it was packed on no base.
    pub(super) fn has_no_shell(&self) -> bool {
        self.recorded.as_ref().is_some_and(|options| options.base == RecordedBase::Scratch)
    }
}
