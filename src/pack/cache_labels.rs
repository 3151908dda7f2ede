//! What an image says of its compile caches: starcar's own record, and the labels of Model Cache Vault, which KServe's
//! kernel caches read.
//!
//! Source of the latter: GKM, `mcv/docs` (labels) and `mcv/pkg/cacheplan` (what is read from them).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    compile_cache::{
        CacheRecord, Contract, Kind,
        identity::{Attribute, Evidence, Fact, Identity},
    },
    oci::{CACHES_LABEL, LABEL_MAX, STARCAR_PREFIX},
};

/// Labels of the config, and annotations of the manifest those that are too long for a label.
pub(crate) fn labels(records: &[CacheRecord]) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    if records.is_empty() {
        return labels;
    }
    let brief: Vec<CacheRecord> = records
        .iter()
        .map(|record| CacheRecord { identity: brief(&record.identity), ..record.clone() })
        .collect();
    labels.insert(CACHES_LABEL.to_owned(), json(&brief));
    for record in records {
        match record.kind {
            Kind::Vllm | Kind::Triton => labels.extend(of_class(record)),
            _ => {}
        }
    }
    if let Some(vllm) = records.iter().find(|record| record.kind == Kind::Vllm) {
        labels.extend(of_mount(vllm, records));
    }
    labels
}

/// Whether the manifest has this among its annotations, as the config cannot have it.
pub(crate) fn is_annotation(name: &str, value: &str) -> bool {
    name.len().saturating_add(value.len()) > LABEL_MAX
}

/// Annotations of the manifest: what the serving side must do.
pub(super) fn annotations(records: &[CacheRecord], mounted_at: &str, name: &str) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    if records.is_empty() {
        return annotations;
    }
    let contract = Contract { records, mounted_at, at: None };
    let environment: BTreeMap<&str, String> =
        contract.variables().into_iter().map(|variable| (variable.name, variable.value)).collect();
    annotations.insert(format!("{STARCAR_PREFIX}cache.env"), json(&environment));
    annotations.insert(format!("{STARCAR_PREFIX}cache.setup"), contract.shell(name));
    annotations
}

/// One place for each value is enough in a label.
fn brief(identity: &Identity) -> Identity {
    let mut brief = Identity::default();
    for (attribute, facts) in identity.iter() {
        for Fact { value, evidence } in facts {
            let first = evidence.first().cloned();
            let none = Evidence { path: String::new(), found: String::new(), offset: None };
            brief.add(attribute, value.clone(), first.unwrap_or(none));
        }
    }
    brief
}

/// A GPU of `cache.*.image/summary`.
#[derive(Serialize)]
struct Target {
    backend: String,
    arch: String,
    warp_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ptx_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cuda_version: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    targets: Vec<Target>,
}

/// `cache.vllm.image/*`, `cache.triton.image/*`.
fn of_class(record: &CacheRecord) -> BTreeMap<String, String> {
    let identity = &record.identity;
    let prefix = format!("cache.{}.image/", record.kind);
    let mut labels = BTreeMap::from([
        (format!("{prefix}entry-count"), record.entries.to_string()),
        (format!("{prefix}cache-size-bytes"), record.size.to_string()),
        (format!("{prefix}summary"), json(&summary(record))),
    ]);
    if let (Kind::Vllm, Some(format)) = (record.kind, identity.facts(Attribute::Format).first()) {
        labels.insert(format!("{prefix}format"), format.value.clone());
    }
    labels
}

fn summary(record: &CacheRecord) -> Summary {
    let identity = &record.identity;
    let backend = identity.only(Attribute::Backend).unwrap_or("unknown");
    // Model Cache Vault writes Triton's number as it is, and names what vLLM has.
    let architecture = |name: &str| match record.kind {
        Kind::Triton => name.trim_start_matches("sm_").to_owned(),
        _ => name.to_owned(),
    };
    let warp_size = identity.only(Attribute::WarpSize).and_then(|size| size.parse().ok());
    let ptx = identity.only(Attribute::Ptx).and_then(|version| version.replace('.', "").parse().ok());
    let target = |name: &str| Target {
        backend: backend.to_owned(),
        arch: architecture(name),
        warp_size: warp_size.unwrap_or(if backend == "rocm" { 64 } else { 32 }),
        ptx_version: ptx,
        cuda_version: identity.only(Attribute::Cuda).map(str::to_owned),
    };
    let is_gpu = matches!(backend, "cuda" | "rocm");
    let architectures = identity.facts(Attribute::Architecture).iter().filter(|_| is_gpu);
    Summary { targets: architectures.map(|fact| target(&fact.value)).collect() }
}

/// A tree besides vLLM's, in `io.kserve.km/cache-mounts`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount<'a> {
    sub_path: &'a str,
    abs_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<&'static str>,
    requires_writable: bool,
}

/// `io.kserve.km/*`, which describe vLLM's cache and the trees beside it.
fn of_mount(vllm: &CacheRecord, records: &[CacheRecord]) -> BTreeMap<String, String> {
    let is_aot = vllm.keys.iter().any(|key| key.len() == 64);
    let subpath = if is_aot { "torch_compile_cache/torch_aot_compile" } else { "torch_compile_cache" };
    let label = |name: &str, value: String| (format!("io.kserve.km/{name}"), value);
    let mut labels = BTreeMap::from([
        label("framework", "vllm".to_owned()),
        label("cache-type", "torch-compile".to_owned()),
        label("cache-mount-subpath", subpath.to_owned()),
        label("cache-root-env", format!("VLLM_CACHE_ROOT={}", vllm.at)),
    ]);
    if !vllm.keys.is_empty() {
        labels.extend([label("cache-hash", vllm.keys.join(","))]);
    }
    let mounts: Vec<Mount<'_>> = records
        .iter()
        .filter(|record| record.kind != Kind::Vllm && record.kind.variable().is_some())
        .map(|record| Mount {
            sub_path: &record.name,
            abs_path: &record.at,
            env: record.kind.variable(),
            requires_writable: true,
        })
        .collect();
    if !mounts.is_empty() {
        labels.extend([label("cache-mounts", json(&mounts))]);
    }
    labels
}

/// Maps with text keys and structs of text and numbers can be expressed.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
