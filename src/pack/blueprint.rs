//! What an image is to be, but for the digests of its layers: labels, annotations, and which layer is in which image. It
//! is plain data, so that whoever knows the layers' digests can make the documents, on whatever machine. Must not know
//! how layers are made, or where images go.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

use super::{
    LayerSpec, Prepared, RecordedIndex, RecordedOptions, cache_labels,
    platforms::{BaseRoom, PlatformBase},
};
use crate::{
    compile_cache::{CacheRecord, MOUNTED_AT_DEFAULT},
    digest::Digest,
    oci::{CONSUMER_ANNOTATION, Platform, STARCAR_PREFIX},
    plan::LayerKind,
    zstd_chunked::Consumer,
};

/// All images of a pack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Blueprint {
    /// Time that the images bear, seconds since 1970.
    pub(crate) created: i64,
    /// The layers of all images.
    pub(crate) layers: Vec<LayerFacts>,
    /// GPU targets that have an image of their own, sorted.
    pub(crate) targets: Vec<String>,
    /// Annotations of an index, but for those that are about its target.
    pub(crate) index_annotations: BTreeMap<String, String>,
    /// The images of each platform and consumer, in the order in which an index lists them.
    pub(crate) images: Vec<ImagesFacts>,
}

/// What documents say of a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LayerFacts {
    pub(crate) kind: LayerKind,
    pub(crate) title: String,
    pub(crate) created_by: String,
    /// Paths in the image of the model's or cache's files in it.
    pub(crate) files: Vec<String>,
}

/// The images of a platform, for a consumer if they are for one alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ImagesFacts {
    #[serde(with = "as_text")]
    pub(crate) platform: Platform,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) consumer: Option<Consumer>,
    /// Environment of the base, as `NAME=value`.
    pub(crate) environment: Vec<String>,
    /// The image without a target.
    pub(crate) plain: ImageFacts,
    /// The image for each target. One without caches is the one without a target.
    pub(crate) of_targets: Vec<ImageFacts>,
}

/// What an image says of itself, but for the digests of its variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ImageFacts {
    /// Indices of its layers, the lowest first.
    pub(crate) layers: Vec<usize>,
    /// Labels of the config.
    pub(crate) labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Its compile caches.
    pub(crate) caches: Vec<CacheRecord>,
}

impl From<&LayerSpec> for LayerFacts {
    fn from(spec: &LayerSpec) -> Self {
        Self {
            kind: spec.kind,
            title: spec.title.clone(),
            created_by: spec.created_by.clone(),
            files: spec.files.clone(),
        }
    }
}

impl Prepared {
    /// What the images are to be.
    pub(super) fn blueprint(&self) -> Blueprint {
        let consumers = self.options.format.consumers();
        let all =
            self.platforms.iter().flat_map(|platform| consumers.iter().map(move |one| (platform, *one)));
        let images = all.map(|(platform, consumer)| ImagesFacts {
            platform: platform.platform.clone(),
            consumer,
            environment: platform.base.environment.clone(),
            plain: self.image_facts(platform, consumer, None),
            of_targets: self
                .caches
                .targets
                .iter()
                .map(|target| self.image_facts(platform, consumer, Some(target)))
                .collect(),
        });
        let mut index_annotations = self.labels();
        index_annotations.extend(self.standard_annotations());
        Blueprint {
            created: self.options.modified,
            layers: self.layers.iter().map(LayerFacts::from).collect(),
            targets: self.caches.targets.clone(),
            index_annotations,
            images: images.collect(),
        }
    }

    fn image_facts(
        &self,
        platform: &PlatformBase,
        consumer: Option<Consumer>,
        target: Option<&String>,
    ) -> ImageFacts {
        let of_caches = self.layers.len() - self.caches.caches.len();
        let of_model = of_caches - self.plan.layers.len();
        let caches = self.caches.of_image(target.map(String::as_str), &platform.platform);
        let layers: Vec<usize> = platform
            .layers
            .clone()
            .chain(of_model..of_caches)
            .chain(caches.iter().map(|index| of_caches + index))
            .collect();
        let records: Vec<CacheRecord> =
            caches.iter().map(|index| self.caches.caches[*index].record.clone()).collect();
        let mut labels = self.labels();
        labels.extend(variant_label(target));
        let mut annotations = self.annotations(platform, &labels);
        let consumer_name = consumer.map(|consumer| consumer.name().to_owned());
        annotations.extend(consumer_name.map(|name| (CONSUMER_ANNOTATION.to_owned(), name)));
        let (long, short): (BTreeMap<_, _>, _) = cache_labels::labels(&records)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(name, value)| cache_labels::is_annotation(name, value));
        labels.extend(short);
        annotations.extend(long);
        let name = self.snapshot.repository.as_deref().unwrap_or("this image");
        annotations.extend(cache_labels::annotations(&records, MOUNTED_AT_DEFAULT, name));
        ImageFacts { layers, labels, annotations, caches: records }
    }

    /// What the image says of itself under starcar's own prefix.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                labels.insert(format!("{STARCAR_PREFIX}{name}"), value.to_owned());
            }
        };
        add("version", Some(env!("CARGO_PKG_VERSION")));
        add("layer-format", Some(self.options.format.name()));
        add("model.directory", Some(self.options.model_directory.absolute()));
        add("model.repository", self.snapshot.repository.as_deref());
        add("model.revision", self.snapshot.revision.as_deref());
        let profile = self.options.profile.as_ref().map(|profile| Digest::of(profile.to_json().as_bytes()));
        add("profile.digest", profile.map(|digest| digest.to_string()).as_deref());
        labels
    }

    /// What images and indexes say of themselves in OCI's words.
    fn standard_annotations(&self) -> BTreeMap<String, String> {
        let created = DateTime::from_timestamp(self.options.modified, 0);
        let created = created.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
        standard([
            ("created", created),
            ("title", self.snapshot.repository.clone()),
            ("revision", self.snapshot.revision.clone()),
        ])
        .collect()
    }

    fn annotations(
        &self,
        platform: &PlatformBase,
        labels: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut annotations = labels.clone();
        annotations.extend(self.standard_annotations());
        annotations.extend(standard([
            ("base.name", platform.base.name.clone()),
            ("base.digest", platform.base.digest.map(|digest| digest.to_string())),
        ]));
        let recorded = RecordedOptions::of(&self.options, &platform.choice, self.recorded_index());
        annotations.extend(recorded.annotation());
        annotations
    }

    /// What each image says of the index that it is part of.
    fn recorded_index(&self) -> Option<RecordedIndex> {
        if self.options.index.is_some() {
            return self.options.index.clone();
        }
        if self.platforms.len() == 1 {
            return None;
        }
        let room =
            BaseRoom { layers: self.plan_options.base_layers, prefetched: self.plan_options.base_prefetched };
        let platforms = self.platforms.iter().map(|platform| platform.platform.to_string()).collect();
        Some(RecordedIndex { base_layers: room.layers, base_prefetched: room.prefetched, platforms })
    }
}

/// Annotations of OCI's prefix that have a value.
fn standard<const N: usize>(
    values: [(&str, Option<String>); N],
) -> impl Iterator<Item = (String, String)> + use<'_, N> {
    values.into_iter().filter_map(|(name, value)| Some((format!("org.opencontainers.image.{name}"), value?)))
}

/// What says which target an image or index is for.
pub(super) fn variant_label(target: Option<&String>) -> Option<(String, String)> {
    target.map(|target| (format!("{STARCAR_PREFIX}variant"), target.clone()))
}

/// Values that are text in documents.
mod as_text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
