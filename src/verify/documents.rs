//! Manifest and config: whether they are there, are what their descriptors say, and agree with each other. Must not know
//! what layers hold.

use oci_spec::image::{ImageConfiguration, ImageManifest};
use serde_json::Value;

use super::{
    finding::{Findings, Place, Rule},
    index, layer,
    media_type::{Compression, LayerType},
    rules,
};
use crate::{
    digest::Digest,
    oci::{
        DOCKER_MANIFEST, ImageSource, OciError, Platform, RootDocument, for_platform, is_index, read_document,
    },
    registry::RegistryError,
};

/// Most layers that CRI-O takes.
const LAYERS_MAX: usize = 128;
/// Media types of layers that `KServe`'s downloader unpacks; those of zstd it refuses, and all others it skips.
///
/// Source: `kserve-storage` 0.21, `_LAYER_MEDIA_TYPE_MODES`.
const FETCHED: [&str; 3] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";

/// Stands for an operating system or an architecture that a config does not state.
const UNKNOWN: &str = "unknown";

/// What could be read of an image's documents.
#[derive(Debug, Default)]
pub(super) struct Documents {
    /// Digest of the manifest.
    pub(super) digest: Option<Digest>,
    /// Documents that were asked for.
    pub(super) requests: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    pub(super) manifest: Option<ImageManifest>,
    pub(super) config: Option<ImageConfiguration>,
}

/// Reads and checks manifest and config; where `root` is an index, of the image for `platform`.
/// `is_entry` says that an index lists `root`.
///
/// # Errors
/// When the place cannot be read, or has no such image. A document that is damaged is a finding.
pub(super) fn check(
    source: &dyn ImageSource,
    root: Result<RootDocument, OciError>,
    is_entry: bool,
    platform: Option<&Platform>,
    findings: &mut Findings,
) -> Result<Documents, OciError> {
    let mut documents = Documents::default();
    let here = Place::default();
    let fallback = Platform::default();
    let wanted = platform.unwrap_or(&fallback);
    documents.requests += 1;
    if let (true, Err(error)) = (is_entry, &root)
        && let Some(rule) = index::fault(error)
    {
        findings.add(rule, here, error.to_string());
        return Ok(documents);
    }
    let Some(root) = unless_damaged(root, &rules::MANIFEST_DAMAGED, findings)? else { return Ok(documents) };
    documents.bytes += root.bytes.len() as u64;
    let from_index = is_index(&root.media_type);
    let manifest = match for_platform(source, root, wanted) {
        Err(OciError::Document { what: "index", reason, .. }) => {
            findings.add(&rules::MANIFEST_MALFORMED, here, format!("the index is none: {reason}"));
            return Ok(documents);
        }
        Err(error) if from_index && index::fault(&error).is_some() => {
            let rule = index::fault(&error).unwrap_or(&rules::INDEX_ENTRY_MISSING);
            findings.add(rule, here, error.to_string());
            return Ok(documents);
        }
        other => unless_damaged(other, &rules::MANIFEST_DAMAGED, findings)?,
    };
    let Some(root) = manifest else { return Ok(documents) };
    if from_index {
        documents.requests += 1;
        documents.bytes += root.bytes.len() as u64;
    }
    documents.digest = Some(root.digest);
    documents.manifest = manifest_of(&root, findings);
    let Some(manifest) = &documents.manifest else { return Ok(documents) };
    let asked = platform.or(from_index.then_some(wanted));
    let (config, bytes) = config_of(source, manifest, asked, findings)?;
    documents.requests += 1;
    documents.bytes += bytes;
    documents.config = config;
    Ok(documents)
}

/// `None` and a finding of `rule` where the bytes are not those that were asked for.
fn unless_damaged<T>(
    result: Result<T, OciError>,
    rule: &'static Rule,
    findings: &mut Findings,
) -> Result<Option<T>, OciError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(
            error @ (OciError::MissingBlob { .. }
            | OciError::DamagedBlob { .. }
            | OciError::Document { .. }
            | OciError::Registry(
                RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. },
            )),
        ) => {
            findings.add(rule, Place::default(), error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn manifest_of(root: &RootDocument, findings: &mut Findings) -> Option<ImageManifest> {
    let here = Place::default;
    let value: Value = match serde_json::from_slice(&root.bytes) {
        Ok(value) => value,
        Err(error) => {
            findings.add(&rules::MANIFEST_MALFORMED, here(), format!("the manifest is no JSON: {error}"));
            return None;
        }
    };
    let stated = value.get("mediaType").and_then(Value::as_str);
    if let Some(stated) = stated.filter(|stated| *stated != root.media_type) {
        let message =
            format!("the manifest says that it is {stated:?}, it is stored as {:?}", root.media_type);
        findings.add(&rules::MANIFEST_MEDIA_TYPE, here(), message);
    }
    match stated.unwrap_or(&root.media_type) {
        MANIFEST_TYPE => {}
        DOCKER_MANIFEST => {
            findings.add(&rules::DOCKER_MANIFEST, here(), format!("the manifest is {DOCKER_MANIFEST:?}"));
        }
        other => {
            findings.add(&rules::MANIFEST_MALFORMED, here(), format!("the manifest is {other:?}"));
            return None;
        }
    }
    if value.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        let stated = value.get("schemaVersion").unwrap_or(&Value::Null);
        findings.add(&rules::SCHEMA_VERSION, here(), format!("its schemaVersion is {stated}"));
    }
    if !digests_are_sound(&value, findings) {
        return None;
    }
    let manifest: ImageManifest = match serde_json::from_value(value) {
        Ok(manifest) => manifest,
        Err(error) => {
            findings.add(&rules::MANIFEST_MALFORMED, here(), format!("the manifest is none: {error}"));
            return None;
        }
    };
    let layers = manifest.layers().len();
    if layers == 0 {
        findings.add(&rules::MANIFEST_NO_LAYERS, here(), "the manifest lists no layers");
    }
    if layers > LAYERS_MAX {
        findings.add(&rules::LAYER_COUNT, here(), format!("the image has {layers} layers"));
    }
    for (index, descriptor) in manifest.layers().iter().enumerate() {
        let place = || Place::layer(index, descriptor.digest().as_ref().parse().ok());
        let name = descriptor.media_type().to_string();
        if LayerType::of(&name).is_some_and(|kind| kind.is_docker) {
            findings.add(&rules::LAYER_DOCKER_TYPE, place(), format!("the layer is {name:?}"));
        }
        match LayerType::of(&name) {
            None => {
                let message = format!("the layer is {name:?}");
                findings.add(&rules::LAYER_MEDIA_TYPE, place(), message);
            }
            Some(kind) if kind.compression != Compression::Zstd && !FETCHED.contains(&name.as_str()) => {
                let message = format!("the layer is {name:?}");
                findings.add(&rules::LAYER_TYPE_SKIPPED, place(), message);
            }
            Some(_) => {}
        }
    }
    Some(manifest)
}

/// Whether all descriptors have digests that blobs can be asked for by.
fn digests_are_sound(manifest: &Value, findings: &mut Findings) -> bool {
    let layers = manifest.get("layers").and_then(Value::as_array).into_iter().flatten();
    let layers = layers.enumerate().map(|(index, layer)| (Place::layer(index, None), layer));
    let config = manifest.get("config").map(|config| (Place::default(), config));
    let mut sound = true;
    for (place, descriptor) in config.into_iter().chain(layers) {
        let Some(digest) = descriptor.get("digest").and_then(Value::as_str) else { continue };
        if digest.parse::<Digest>().is_err() {
            let what = if place.layer.is_some() { "the layer" } else { "the config" };
            findings.add(&rules::DESCRIPTOR_DIGEST, place, format!("{what} has the digest {digest:?}"));
            sound = false;
        }
    }
    sound
}

/// The config, and how many bytes were read of it.
fn config_of(
    source: &dyn ImageSource,
    manifest: &ImageManifest,
    asked: Option<&Platform>,
    findings: &mut Findings,
) -> Result<(Option<ImageConfiguration>, u64), OciError> {
    let here = Place::default;
    let descriptor = manifest.config();
    let media_type = descriptor.media_type().to_string();
    if ![CONFIG_TYPE, DOCKER_CONFIG_TYPE].contains(&media_type.as_str()) {
        findings.add(&rules::CONFIG_MEDIA_TYPE, here(), format!("the config is {media_type:?}"));
    }
    let digest = crate::oci::digest_of(descriptor, &source.place())?;
    let bytes = match read_document(source, digest, descriptor.size()) {
        Err(OciError::ReadBlob { cause, .. }) if layer::fault(&cause).is_some() => {
            findings.add(&rules::CONFIG_DAMAGED, here(), format!("the config cannot be had: {cause}"));
            None
        }
        other => unless_damaged(other, &rules::CONFIG_DAMAGED, findings)?,
    };
    let Some(bytes) = bytes else { return Ok((None, 0)) };
    let read = bytes.len() as u64;
    let mut value: Value = match serde_json::from_slice(&bytes) {
        Ok(value) => value,
        Err(error) => {
            findings.add(&rules::CONFIG_MALFORMED, here(), format!("the config is no JSON: {error}"));
            return Ok((None, read));
        }
    };
    let lacks = |name: &&str| value.get(name).and_then(Value::as_str).is_none_or(str::is_empty);
    let missing: Vec<&str> = ["os", "architecture"].into_iter().filter(lacks).collect();
    if !missing.is_empty() {
        let message = format!("the config states no {}", missing.join(" and no "));
        findings.add(&rules::PLATFORM_MISSING, here(), message);
        // The rest of the config can be looked at all the same.
        for name in missing {
            if let Some(fields) = value.as_object_mut() {
                fields.insert(name.to_owned(), Value::from(UNKNOWN));
            }
        }
    }
    let config: ImageConfiguration = match serde_json::from_value(value) {
        Ok(config) => config,
        Err(error) => {
            findings.add(&rules::CONFIG_MALFORMED, here(), format!("the config is none: {error}"));
            return Ok((None, read));
        }
    };
    agreement(manifest, &config, asked, findings);
    Ok((Some(config), read))
}

/// What config and manifest both speak of.
fn agreement(
    manifest: &ImageManifest,
    config: &ImageConfiguration,
    asked: Option<&Platform>,
    findings: &mut Findings,
) {
    let here = Place::default;
    let stated = Platform::of_config(config);
    let is_stated = ![&stated.os, &stated.architecture].iter().any(|part| *part == UNKNOWN);
    if let Some(asked) = asked.filter(|asked| is_stated && !asked.covers(&stated)) {
        findings.add(
            &rules::PLATFORM_DIFFERS,
            here(),
            format!("the config is for {stated}, not for {asked}"),
        );
    }
    if config.rootfs().typ() != "layers" {
        let message = format!("its rootfs is of type {:?}", config.rootfs().typ());
        findings.add(&rules::ROOTFS_TYPE, here(), message);
    }
    let (layers, diff_ids) = (manifest.layers().len(), config.rootfs().diff_ids());
    if diff_ids.len() != layers {
        let message = format!("the config has {} diffIDs, the manifest {layers} layers", diff_ids.len());
        findings.add(&rules::DIFF_ID_COUNT, here(), message);
    }
    for (index, text) in diff_ids.iter().enumerate() {
        if text.parse::<Digest>().is_err() {
            let message = format!("the layer's diffID is {text:?}");
            findings.add(&rules::DIFF_ID_MALFORMED, Place::layer(index, None), message);
        }
    }
    let Some(history) = config.history() else { return };
    let told = history.iter().filter(|entry| entry.empty_layer() != Some(true)).count();
    if !history.is_empty() && told != layers {
        let message = format!("the history speaks of {told} layers, the manifest has {layers}");
        findings.add(&rules::HISTORY_COUNT, here(), message);
    }
}
