//! An image's config and manifest, as KServe's modelcar wants them.
//!
//! Source: OCI image specification, "Image Manifest" and "Image Configuration"; KServe's storage initializer,
//! which runs `sh -c …` as arguments, so that an entrypoint would be prepended to it. Must not know models.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, SecondsFormat};
use oci_spec::image::{
    Config, Descriptor, DescriptorBuilder, HistoryBuilder, ImageConfiguration, ImageManifestBuilder,
    MediaType, RootFsBuilder,
};

use super::{OciError, Platform, canonical_json};
use crate::{digest::Digest, layer::SealedLayer};

/// User and group that the image's commands run as: KServe's own user for modelcars, and a number, so that a
/// policy that forbids root can tell; group 0, which every image's unknown user has.
const USER: &str = "1010:0";
/// Search path when the base states none that holds `/bin`.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A layer as the image lists it.
#[derive(Debug)]
pub struct ImageLayer<'a> {
    /// The layer.
    pub sealed: &'a SealedLayer,
    /// What made it, for the history.
    pub created_by: String,
    /// Annotations of the descriptor: those of the layer's format that readers of this image want, and others.
    pub annotations: BTreeMap<String, String>,
}

/// What the config says besides the layers.
#[derive(Debug, Clone, Default)]
pub struct ConfigOptions {
    /// The platform.
    pub platform: Platform,
    /// Environment of the base, as `NAME=value`.
    pub environment: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Time of creation, seconds since 1970.
    pub created: i64,
}

/// An image's documents, ready to be stored.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The manifest's descriptor.
    pub descriptor: Descriptor,
    /// The manifest's digest.
    pub digest: Digest,
}

/// Builds config and manifest of the image that consists of `layers`, the lowest first.
///
/// # Errors
/// When the documents cannot be expressed, as with a time that is out of range.
pub fn build_image(layers: &[ImageLayer<'_>], options: &ConfigOptions) -> Result<BuiltImage, OciError> {
    let config = canonical_json(&config(layers, options)?).map_err(|error| unbuildable("config", &error))?;
    let descriptors: Vec<Descriptor> = layers
        .iter()
        .map(|layer| {
            let annotations: HashMap<String, String> = layer.annotations.clone().into_iter().collect();
            let mut descriptor = descriptor(
                layer.sealed.digest,
                layer.sealed.size,
                layer.sealed.media_type.to_string().as_str(),
            )?;
            descriptor.set_annotations((!annotations.is_empty()).then_some(annotations));
            Ok(descriptor)
        })
        .collect::<Result<_, OciError>>()?;
    let config_type = MediaType::ImageConfig.to_string();
    let mut manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(Digest::of(&config), config.len() as u64, &config_type)?)
        .layers(descriptors)
        .build()
        .map_err(|error| unbuildable("manifest", &error))?;
    if !options.annotations.is_empty() {
        manifest.set_annotations(Some(options.annotations.clone().into_iter().collect()));
    }
    let manifest = canonical_json(&manifest).map_err(|error| unbuildable("manifest", &error))?;
    let digest = Digest::of(&manifest);
    let manifest_type = MediaType::ImageManifest.to_string();
    let descriptor = descriptor(digest, manifest.len() as u64, &manifest_type)?;
    Ok(BuiltImage { config, manifest, descriptor, digest })
}

fn config(layers: &[ImageLayer<'_>], options: &ConfigOptions) -> Result<ImageConfiguration, OciError> {
    let created = DateTime::from_timestamp(options.created, 0)
        .map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
        .ok_or_else(|| unbuildable("config", &"the time of creation is out of range"))?;
    let mut history = Vec::new();
    for layer in layers {
        let entry = HistoryBuilder::default()
            .created(created.clone())
            .created_by(layer.created_by.clone())
            .build()
            .map_err(|error| unbuildable("config", &error))?;
        history.push(entry);
    }
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(layers.iter().map(|layer| layer.sealed.diff_id.to_string()).collect::<Vec<_>>())
        .build()
        .map_err(|error| unbuildable("config", &error))?;

    let mut execution = Config::default();
    execution.set_user(Some(USER.to_owned()));
    execution.set_env(Some(environment(&options.environment)));
    execution.set_cmd(Some(vec!["sh".to_owned()]));
    execution.set_working_dir(Some("/".to_owned()));
    if !options.labels.is_empty() {
        execution.set_labels(Some(options.labels.clone().into_iter().collect()));
    }

    let mut config = ImageConfiguration::default();
    options.platform.apply(&mut config);
    config.set_created(Some(created));
    config.set_config(Some(execution));
    config.set_rootfs(rootfs);
    config.set_history(Some(history));
    Ok(config)
}

/// The base's environment, with a `PATH` that finds `/bin/sh`.
fn environment(base: &[String]) -> Vec<String> {
    let finds_bin = |variable: &String| {
        variable.strip_prefix("PATH=").is_some_and(|path| path.split(':').any(|place| place == "/bin"))
    };
    if base.iter().any(finds_bin) {
        return base.to_vec();
    }
    let others = base.iter().filter(|variable| !variable.starts_with("PATH=")).cloned();
    std::iter::once(PATH.to_owned()).chain(others).collect()
}

/// A descriptor without annotations.
///
/// # Errors
/// None that is known: a digest is always one.
pub fn descriptor(digest: Digest, size: u64, media_type: &str) -> Result<Descriptor, OciError> {
    let parsed: oci_spec::image::Digest =
        digest.to_string().parse().map_err(|error| unbuildable("descriptor", &error))?;
    DescriptorBuilder::default()
        .media_type(MediaType::from(media_type))
        .digest(parsed)
        .size(size)
        .build()
        .map_err(|error| unbuildable("descriptor", &error))
}

fn unbuildable(what: &'static str, reason: &impl ToString) -> OciError {
    OciError::Document { what, place: "the new image".to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::MediaType as LayerMediaType;

    fn sealed() -> SealedLayer {
        SealedLayer {
            digest: Digest::of(b"blob"),
            size: 4,
            diff_id: Digest::of(b"stream"),
            uncompressed_size: 6,
            media_type: LayerMediaType::TarGzip,
            annotations: BTreeMap::from([("b".to_owned(), "2".to_owned())]),
            files: Vec::new(),
            blob: None,
        }
    }

    fn pretty(json: &[u8]) -> String {
        let value: serde_json::Value = serde_json::from_slice(json).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    }

    #[test]
    fn documents_are_what_kserve_wants() {
        let sealed = sealed();
        let layer = ImageLayer {
            sealed: &sealed,
            created_by: "starcar pack config.json".to_owned(),
            annotations: BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]),
        };
        let options = ConfigOptions {
            environment: vec!["LANG=C".to_owned(), "PATH=/opt/bin".to_owned()],
            labels: BTreeMap::from([("y".to_owned(), "2".to_owned()), ("x".to_owned(), "1".to_owned())]),
            annotations: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            ..ConfigOptions::default()
        };
        let image = build_image(&[layer], &options).unwrap();
        insta::assert_snapshot!(pretty(&image.config), @r#"
        {
          "architecture": "amd64",
          "config": {
            "Cmd": [
              "sh"
            ],
            "Env": [
              "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
              "LANG=C"
            ],
            "Labels": {
              "x": "1",
              "y": "2"
            },
            "User": "1010:0",
            "WorkingDir": "/"
          },
          "created": "1970-01-01T00:00:00Z",
          "history": [
            {
              "created": "1970-01-01T00:00:00Z",
              "created_by": "starcar pack config.json"
            }
          ],
          "os": "linux",
          "rootfs": {
            "diff_ids": [
              "sha256:dca83e717b1f64eb141057a7415a330ad1361f51703efa2e4776f40047898a04"
            ],
            "type": "layers"
          }
        }
        "#);
        insta::assert_snapshot!(pretty(&image.manifest), @r#"
        {
          "annotations": {
            "k": "v"
          },
          "config": {
            "digest": "sha256:9e356479a7ce676c316d31f577963a7f4925eb98dead24528e42808a7a34f05c",
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "size": 440
          },
          "layers": [
            {
              "annotations": {
                "a": "1",
                "b": "2"
              },
              "digest": "sha256:fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8",
              "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
              "size": 4
            }
          ],
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "schemaVersion": 2
        }
        "#);
    }

    #[test]
    fn a_path_that_finds_bin_is_kept() {
        let base = ["PATH=/usr/bin:/bin".to_owned(), "A=b".to_owned()];
        assert_eq!(environment(&base), base);
        assert_eq!(environment(&[]), [PATH]);
    }
}
