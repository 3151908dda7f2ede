//! Copies between registries, layouts and archives: every byte, nothing twice, and no name for what is damaged.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use starcar::digest::Digest;
use support::{
    command::{Run, starcar},
    noise::noise,
    registry::{Auth, Effect, FakeOptions, FakeRegistry, Fault, base64},
};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn fake(faults: Vec<Fault>) -> FakeRegistry {
    FakeRegistry::start(FakeOptions { referrers: true, faults, ..FakeOptions::default() })
}

fn done(arguments: &[&str]) -> Run {
    let run = starcar(arguments);
    assert_eq!(run.code, 0, "{arguments:?}: {}", run.stderr);
    run
}

fn copy(source: &str, destination: &str) -> String {
    done(&["copy", source, destination, "--quiet"]).stdout.trim_end().to_owned()
}

fn described(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len() })
}

/// Stores an image of some layers, and returns its manifest.
fn image(
    fake: &FakeRegistry,
    tag: &str,
    layers: &[Vec<u8>],
    annotations: &BTreeMap<&str, String>,
) -> Vec<u8> {
    let rootfs = json!({ "type": "layers", "diff_ids": [] });
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": rootfs, "made": tag });
    let config = config.to_string().into_bytes();
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            fake.put_blob("models/a", layer.clone());
            described(LAYER_TYPE, layer)
        })
        .collect();
    // White space and order that no program would write again like this.
    let manifest = format!(
        "{{\"schemaVersion\": 2,\n \"mediaType\":\"{MANIFEST_TYPE}\", \"layers\": {},\"config\":{},\n\"annotations\":{}, \"new\": 1}}\n",
        json!(layers),
        described("application/vnd.oci.image.config.v1+json", &config),
        json!(annotations),
    );
    fake.put_blob("models/a", config);
    fake.put_manifest("models/a", tag, MANIFEST_TYPE, manifest.as_bytes());
    manifest.into_bytes()
}

fn name(fake: &FakeRegistry, rest: &str) -> String {
    format!("{}/{rest}", fake.address())
}

fn layout(directory: &Path, rest: &str) -> String {
    format!("oci:{}", directory.join(rest).display())
}

fn blob_file(directory: &Path, layout: &str, digest: Digest) -> PathBuf {
    directory.join(layout).join("blobs/sha256").join(digest.hex())
}

/// An image with a variant for a GPU target.
fn with_variant(fake: &FakeRegistry) -> (Vec<u8>, Vec<u8>) {
    let weights = noise(300_000, 1);
    let variant = image(fake, "v1-sm90", &[weights.clone(), noise(5000, 2)], &BTreeMap::new());
    let variants = json!({ "sm90": Digest::of(&variant).to_string() }).to_string();
    (image(fake, "v1", &[weights], &BTreeMap::from([("dev.starcar.variants", variants)])), variant)
}

#[test]
fn every_place_gets_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let source = fake(Vec::new());
    let (main, variant) = with_variant(&source);
    let digest = Digest::of(&main).to_string();

    let other = fake(Vec::new());
    assert_eq!(copy(&name(&source, "models/a:v1"), &name(&other, "team/b:v2")), digest);
    assert_eq!(other.manifest("team/b", "v2").unwrap().1, main);
    assert_eq!(other.manifest("team/b", "v2-sm90").unwrap().1, variant);
    assert_eq!(other.tags("team/b"), ["v2", "v2-sm90"]);

    let out = layout(directory.path(), "out");
    assert_eq!(copy(&name(&other, "team/b:v2"), &out), digest);
    assert_eq!(fs::read(blob_file(directory.path(), "out", Digest::of(&variant))).unwrap(), variant);
    let again = layout(directory.path(), "again:v3");
    assert_eq!(copy(&format!("{out}:v2"), &again), digest);
    let third = fake(Vec::new());
    assert_eq!(copy(&again, &name(&third, "c:v4")), digest);
    assert_eq!(third.manifest("c", "v4").unwrap().1, main);
    let config: Value = serde_json::from_slice(&main).unwrap();
    let config: Digest = config["config"]["digest"].as_str().unwrap().parse().unwrap();
    assert_eq!(third.blob("c", config), source.blob("models/a", config));
    assert_eq!(third.tags("c"), ["v4", "v4-sm90"]);

    // What is there is not sent again, whatever it is called.
    third.forget();
    assert_eq!(copy(&again, &name(&third, "c:v5")), digest);
    // One upload is opened and ended, to know beforehand that pushing is allowed.
    assert_eq!((third.uploaded(), third.count("POST", "/blobs/uploads/")), (0, 1));
    assert_eq!(third.open_uploads(), 0);
}

#[test]
fn one_registry_mounts() {
    let registry = fake(Vec::new());
    let (main, _) = with_variant(&registry);
    let digest = copy(&name(&registry, "models/a:v1"), &name(&registry, "team/b:v1"));
    assert_eq!(registry.uploaded(), 0);
    assert_eq!(registry.count("GET", "/blobs/sha256"), 0);
    assert_eq!(registry.manifest("team/b", &digest).unwrap().1, main);
    assert!(registry.seen().iter().any(|seen| seen.query.contains("from=models%2Fa")));
}

#[test]
fn a_mount_asks_for_leave_to_read_the_source() {
    let directory = tempfile::tempdir().unwrap();
    let auth = Auth::Token { user: "u".to_owned(), password: "p".to_owned(), anonymous_pull: false };
    let registry = FakeRegistry::start(FakeOptions { auth, ..FakeOptions::default() });
    image(&registry, "v1", &[noise(1000, 1)], &BTreeMap::new());
    let file = directory.path().join("auth.json");
    let known = json!({ "auths": { registry.address(): { "auth": base64(b"u:p") } } });
    fs::write(&file, known.to_string()).unwrap();
    let (from, to) = (name(&registry, "models/a:v1"), name(&registry, "team/b:v1"));
    done(&["copy", &from, &to, "--authfile", file.to_str().unwrap()]);
    assert_eq!((registry.uploaded(), registry.tags("team/b")), (0, vec!["v1".to_owned()]));
    fs::write(&file, "{}").unwrap();
    assert_eq!(starcar(&["copy", &from, &to, "--authfile", file.to_str().unwrap()]).code, 6);
}

#[test]
fn a_variant_whose_tag_would_be_too_long_is_told_at_once() {
    let source = fake(Vec::new());
    with_variant(&source);
    let target = fake(Vec::new());
    let run =
        starcar(&["copy", &name(&source, "models/a:v1"), &name(&target, &format!("b:{}", "x".repeat(125)))]);
    assert_eq!((run.code, target.seen().len()), (2, 0), "{}", run.stderr);
    assert!(run.stderr.contains("-sm90"), "{}", run.stderr);
}

#[test]
fn archives_are_copied_from() {
    let directory = tempfile::tempdir().unwrap();
    let archive = format!("oci-archive:{}", directory.path().join("image.tar").display());
    let packed = done(&["pack", "examples/tiny-llama", "--base", "scratch", "-o", &archive]);
    let registry = fake(Vec::new());
    let digest = copy(&archive, &name(&registry, "models/tiny:v1"));
    assert_eq!(digest, packed.stdout.trim_end());
    let out = layout(directory.path(), "out:x");
    assert_eq!(copy(&archive, &out), digest);
    done(&["inspect", &out]);
    assert_eq!(starcar(&["copy", &out, &archive]).code, 2);
    assert_eq!(starcar(&["copy", &out, &format!("{}@{digest}", name(&registry, "models/tiny"))]).code, 2);
}

#[test]
fn a_copy_survives_broken_connections_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let layer = noise(3 << 20, 3);
    let faults = || {
        let path: &'static str = Box::leak(format!("/blobs/{}", Digest::of(&layer)).into_boxed_str());
        vec![Fault { times: 2, ..Fault::always("GET", path, Effect::CutAfter(1 << 20)) }]
    };
    let source = fake(faults());
    let main = image(&source, "v1", std::slice::from_ref(&layer), &BTreeMap::new());
    let digest = Digest::of(&main).to_string();
    assert_eq!(copy(&name(&source, "models/a:v1"), &layout(directory.path(), "out")), digest);
    assert_eq!(fs::read(blob_file(directory.path(), "out", Digest::of(&layer))).unwrap(), layer);
    assert!(source.ranges().iter().any(|range| range.starts_with("bytes=1048576-")), "{:?}", source.ranges());

    let source = fake(faults());
    image(&source, "v1", std::slice::from_ref(&layer), &BTreeMap::new());
    let breaks = Fault::once("PUT", "/blobs/uploads/", Effect::CloseAfter(1_500_000));
    let target = fake(vec![breaks]);
    assert_eq!(copy(&name(&source, "models/a:v1"), &name(&target, "b:v1")), digest);
    assert_eq!(target.blob("b", Digest::of(&layer)).unwrap(), layer);
}

#[test]
fn damaged_blobs_get_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let source = fake(vec![Fault::always("GET", "/blobs/sha256:", Effect::WrongBytes)]);
    image(&source, "v1", &[noise(100_000, 4), noise(50_000, 5)], &BTreeMap::new());
    let target = fake(Vec::new());
    let run = starcar(&["copy", &name(&source, "models/a:v1"), &name(&target, "b:v1")]);
    assert_eq!(run.code, 6, "{}", run.stderr);
    assert_eq!((target.tags("b").len(), target.blobs()), (0, 0));

    let run = starcar(&["copy", &name(&source, "models/a:v1"), &layout(directory.path(), "out")]);
    assert_eq!(run.code, 6, "{}", run.stderr);
    assert!(run.stderr.contains("digest"), "{}", run.stderr);
    assert!(!directory.path().join("out/index.json").exists());
    assert_eq!(fs::read_dir(directory.path().join("out/blobs/sha256")).unwrap().count(), 0);

    // The same on disk.
    let good = fake(Vec::new());
    let layer = noise(100_000, 4);
    image(&good, "v1", std::slice::from_ref(&layer), &BTreeMap::new());
    copy(&name(&good, "models/a:v1"), &layout(directory.path(), "good"));
    let mut bytes = layer.clone();
    bytes[77] ^= 1;
    fs::write(blob_file(directory.path(), "good", Digest::of(&layer)), bytes).unwrap();
    for to in [name(&target, "b:v1"), layout(directory.path(), "third")] {
        let run = starcar(&["copy", &layout(directory.path(), "good"), &to]);
        assert!(matches!(run.code, 5 | 6), "{}", run.stderr);
        assert!(run.stderr.contains(&Digest::of(&layer).to_string()), "{}", run.stderr);
    }
    assert_eq!(target.tags("b").len(), 0);
    assert!(!directory.path().join("third/index.json").exists());
}

#[test]
fn images_for_another_platform_are_refused() {
    let (source, target) = (fake(Vec::new()), fake(Vec::new()));
    image(&source, "v1", &[noise(1000, 1)], &BTreeMap::new());
    let (from, to) = (name(&source, "models/a:v1"), name(&target, "b:v1"));
    let run = starcar(&["copy", &from, &to, "--platform", "linux/arm64"]);
    assert_eq!((run.code, target.tags("b").len()), (2, 0), "{}", run.stderr);
    assert!(run.stderr.contains("no image for linux/arm64; it has linux/amd64"), "{}", run.stderr);
    done(&["copy", &from, &to, "--platform", "linux/amd64"]);
}

#[test]
fn blobs_over_a_known_limit_are_refused_before_anything_is_sent() {
    let source = fake(Vec::new());
    let mut manifest: Value =
        serde_json::from_slice(&image(&source, "v1", &[noise(1000, 1)], &BTreeMap::new())).unwrap();
    manifest["layers"][0]["size"] = 10_000_000_001_u64.into();
    source.put_manifest("models/a", "v2", MANIFEST_TYPE, manifest.to_string().as_bytes());
    let run = starcar(&["copy", &name(&source, "models/a:v2"), "ghcr.io/nobody/here:v2"]);
    assert_eq!(run.code, 6, "{}", run.stderr);
    assert!(run.stderr.contains("GitHub Container Registry is known to take"), "{}", run.stderr);
    assert!(run.stderr.contains("hint: Save the weights again in shards"), "{}", run.stderr);
}

#[test]
fn indexes_are_copied_whole_or_for_one_platform() {
    let directory = tempfile::tempdir().unwrap();
    let source = fake(Vec::new());
    let images = ["amd64", "arm64"].map(|architecture| {
        let manifest = image(&source, architecture, &[noise(1000, 6), noise(1000, 7)], &BTreeMap::new());
        let mut entry = described(MANIFEST_TYPE, &manifest);
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        (manifest, entry)
    });
    let index =
        json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [images[0].1, images[1].1] });
    let index = index.to_string().into_bytes();
    source.put_manifest("models/a", "all", INDEX_TYPE, &index);
    let target = fake(Vec::new());
    let digest = copy(&name(&source, "models/a:all"), &name(&target, "b:all"));
    assert_eq!(digest, Digest::of(&index).to_string());
    assert_eq!(target.manifest("b", "all").unwrap(), (INDEX_TYPE.to_owned(), index.clone()));
    for (manifest, _) in &images {
        assert_eq!(&target.manifest("b", &Digest::of(manifest).to_string()).unwrap().1, manifest);
    }
    assert_eq!(target.tags("b"), ["all"]);
    let out = layout(directory.path(), "out:all");
    assert_eq!(copy(&name(&target, "b:all"), &out), digest);
    let third = fake(Vec::new());
    assert_eq!(copy(&out, &name(&third, "c:all")), digest);

    let one = done(&["copy", &out, &name(&third, "c:arm"), "--platform", "linux/arm64"]);
    assert_eq!(one.stdout.trim_end(), Digest::of(&images[1].0).to_string());
    assert_eq!(third.manifest("c", "arm").unwrap().1, images[1].0);
    assert_eq!(starcar(&["copy", &out, &name(&third, "c:x"), "--platform", "linux/s390x"]).code, 2);
}

#[test]
fn layers_that_lie_elsewhere_stay_there_unless_they_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let source = fake(Vec::new());
    let manifest = |layer: &[u8], tag: &str| {
        let config = b"{}".to_vec();
        let mut entry = described("application/vnd.oci.image.layer.nondistributable.v1.tar", layer);
        entry["urls"] = json!(["https://example.com/layer"]);
        let config_entry = described("application/vnd.oci.image.config.v1+json", &config);
        let text = json!({ "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config_entry, "layers": [entry] });
        source.put_blob("models/a", config);
        source.put_manifest("models/a", tag, MANIFEST_TYPE, text.to_string().as_bytes());
    };
    let (served, absent) = (noise(1000, 9), noise(1000, 11));
    source.put_blob("models/a", served.clone());
    manifest(&served, "served");
    manifest(&absent, "absent");
    let target = fake(Vec::new());
    done(&["copy", &name(&source, "models/a:served"), &name(&target, "b:served")]);
    assert_eq!(target.blob("b", Digest::of(&served)).unwrap(), served);
    for to in [name(&target, "b:absent"), layout(directory.path(), "out")] {
        let run = done(&["copy", &name(&source, "models/a:absent"), &to]);
        assert!(run.stderr.contains("https://example.com/layer"), "{}", run.stderr);
    }
    let run = done(&["copy", &layout(directory.path(), "out"), &layout(directory.path(), "next")]);
    assert!(run.stderr.contains("https://example.com/layer"), "{}", run.stderr);
}

#[test]
fn what_refers_to_an_image_comes_along_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let source = fake(Vec::new());
    with_variant(&source);
    let from = name(&source, "models/a:v1");
    let attached = done(&["profile", "attach", "sglang", &from]).stdout;
    done(&["profile", "attach", "sglang", &name(&source, "models/a:v1-sm90")]);
    let target = fake(Vec::new());
    copy(&from, &name(&target, "b:v1"));
    assert_eq!(target.manifest("b", attached.trim_end()), None);
    let out = layout(directory.path(), "out");
    done(&["copy", &from, &out, "--referrers"]);
    done(&["copy", &format!("{out}:v1"), &name(&target, "b:v1"), "--referrers"]);
    assert_eq!(target.manifest("b", attached.trim_end()), source.manifest("models/a", attached.trim_end()));
    for image in [&format!("{out}:v1-sm90"), &name(&target, "b:v1"), &name(&target, "b:v1-sm90")] {
        let profile = format!("from:{image}");
        done(&["plan", "examples/tiny-llama", "--base", "scratch", "--profile", &profile, "--quiet"]);
    }
}

#[test]
fn a_variant_that_is_missing_is_an_error() {
    let source = fake(Vec::new());
    let variants = json!({ "sm90": Digest::of(b"gone").to_string() }).to_string();
    image(&source, "v1", &[noise(10, 1)], &BTreeMap::from([("dev.starcar.variants", variants)]));
    let target = fake(Vec::new());
    let run = starcar(&["copy", &name(&source, "models/a:v1"), &name(&target, "b:v1")]);
    assert_eq!((run.code, target.tags("b").len()), (6, 0), "{}", run.stderr);
    assert!(run.stderr.contains(&Digest::of(b"gone").to_string()), "{}", run.stderr);
}
