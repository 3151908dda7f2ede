//! Manifests as users get them: whole, for each kind and mode, of images that are packed here. `tests/e2e` has
//! Kubernetes' and KServe's own judgement of them.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use support::command::{Run, starcar};

const EXAMPLE: &str = "examples/tiny-llama";
const NAME: &str = "registry.example.com/models/tiny:v1";

/// A directory with what the images are packed from.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Passes for a busybox.
        let mut bytes = vec![0; 120];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[18], bytes[32], bytes[54], bytes[56], bytes[64]) = (62, 64, 56, 1, 1);
        bytes.extend(b"\0ln\0ls\0mkdir\0sh\0sleep\0");
        fs::write(directory.path().join("busybox"), bytes).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Packs the example, with the stand-in below it unless `arguments` name a base; the layout's name.
    fn pack(&self, arguments: &[&str]) -> String {
        let image = format!("oci:{}:v1", self.path("layout").display());
        let base = self.path("busybox").display().to_string();
        let mut all = vec!["pack", EXAMPLE, "-q", "-o", &image];
        if !arguments.contains(&"--base") {
            all.extend(["--base", base.as_str()]);
        }
        all.extend(arguments);
        let run = starcar(&all);
        assert_eq!(run.code, 0, "{}", run.stderr);
        image
    }

    /// A file of a cache.
    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        File::open(&path).unwrap().set_modified(time).unwrap();
    }

    /// A Triton kernel; the argument that packs it.
    fn triton(&self, name: &str, architecture: u32) -> String {
        let kernel = format!("{name}/2KWZU5NBV7DGHTOQZNYQVHZHTW5Y7G5YTDWJ3UMSJ5OVQ5Z6YB6A");
        self.write(&format!("{kernel}/__grp__add.json"), r#"{"child_paths": {}}"#);
        self.write(
            &format!("{kernel}/add.json"),
            &format!(
                r#"{{"name": "add", "target": {{"backend": "cuda", "arch": {architecture}, "warp_size": 32}}, "triton_version": "3.9.0"}}"#
            ),
        );
        self.write(&format!("{kernel}/add.cubin"), "cubin");
        format!("triton@sm{architecture}={}", self.path(name).display())
    }

    /// A FlashInfer workspace that was built in /root; the argument that packs it.
    fn flashinfer(&self) -> String {
        let ops = "flashinfer/.cache/flashinfer/0.7.2/90a/cached_ops";
        self.write(
            &format!("{ops}/silu/build.ninja"),
            "build /root/.cache/flashinfer/0.7.2/90a/cached_ops/silu/silu.so: link x\n",
        );
        self.write(&format!("{ops}/silu/silu.so"), "so");
        format!("flashinfer={}", self.path("flashinfer").display())
    }
}

fn deploy(image: &str, arguments: &[&str]) -> Run {
    let name: &[&str] = if image.starts_with("oci") { &["--image", NAME] } else { &[] };
    starcar(&[&["deploy", image], name, arguments].concat())
}

/// What is printed, with nothing to warn of but that caches tell of no vLLM.
fn printed(image: &str, arguments: &[&str]) -> String {
    let run = deploy(image, arguments);
    let mut said = run.stderr.lines().filter(|line| !line.contains("nothing tells with which vLLM"));
    assert_eq!((run.code, said.next()), (0, None), "{arguments:?}");
    run.stdout
}

macro_rules! assert_manifests {
    ($name:literal, $text:expr) => {
        insta::with_settings!({filters => vec![(r"sha256:[0-9a-f]{64}", "sha256:[digest]")]}, {
            insta::assert_snapshot!($name, $text);
        });
    };
}

#[test]
fn an_image_without_caches() {
    let place = Place::new();
    let image = place.pack(&[]);
    assert_manifests!("inferenceservice_modelcar", printed(&image, &["--as", "inferenceservice"]));
    let native = &["--as", "inferenceservice", "--mode", "native", "--engine", "sglang"];
    assert_manifests!("inferenceservice_native_sglang", printed(&image, native));
    assert_manifests!("llminferenceservice_modelcar", printed(&image, &["--as", "llminferenceservice"]));
    let native = &["--as", "llminferenceservice", "--mode", "native", "--gpus", "2"];
    assert_manifests!("llminferenceservice_native", printed(&image, native));
    assert_manifests!("deployment_native", printed(&image, &["--as", "deployment"]));
    assert_manifests!("prepull", printed(&image, &["--as", "prepull"]));
    assert_manifests!("prepull_script", printed(&image, &["--as", "prepull", "--script"]));
    let runtime = &["--as", "inferenceservice", "--runtime", "kserve-huggingfaceserver"];
    assert_manifests!("inferenceservice_runtime", printed(&image, runtime));
}

#[test]
fn an_image_with_caches() {
    let place = Place::new();
    let (triton, flashinfer) = (place.triton("triton", 90), place.flashinfer());
    let triton = triton.replace("@sm90", "");
    let image = place.pack(&["--cache", &triton, "--cache", &flashinfer]);
    assert_manifests!("caches_inferenceservice", printed(&image, &["--as", "inferenceservice"]));
    let modelcar = &["--as", "deployment", "--mode", "modelcar"];
    assert_manifests!("caches_deployment_modelcar", printed(&image, modelcar));
    let llm = &["--as", "llminferenceservice", "--mode", "native", "--set", "cache-at=/var/cache/c"];
    assert_manifests!("caches_llminferenceservice_moved", printed(&image, llm));
}

#[test]
fn an_image_without_a_shell() {
    let place = Place::new();
    let triton = place.triton("triton", 90).replace("@sm90", "");
    let image = place.pack(&["--base", "scratch", "--cache", &triton]);
    assert_manifests!("scratch_inferenceservice", printed(&image, &["--as", "inferenceservice"]));
    assert_manifests!("scratch_prepull", printed(&image, &["--as", "prepull", "--pull", "eager"]));
    let refused = deploy(&image, &["--as", "inferenceservice", "--mode", "modelcar"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--base scratch"), "{}", refused.stderr);
}

#[test]
fn a_cache_of_vllm() {
    let place = Place::new();
    place.write("vllm/modelinfos/a.json", "{}");
    let cache = format!("vllm={}", place.path("vllm").display());
    let image = place.pack(&["--cache", &cache]);
    let text = printed(&image, &["--as", "deployment"]);
    for line in [
        "- name: VLLM_CACHE_ROOT\n          value: /tmp/compile-cache/vllm",
        "cp -Rpf /models/compile-cache/vllm/. /tmp/compile-cache/vllm/",
        "image: docker.io/vllm/vllm-openai:v",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn variants_are_chosen_by_their_target() {
    let place = Place::new();
    let (old, new) = (place.triton("old", 75), place.triton("new", 90));
    let image = place.pack(&["--cache", &old, "--cache", &new]);
    let plain = deploy(&image, &["--as", "deployment"]);
    assert!(plain.stderr.contains("--target takes those for sm75, sm90"), "{}", plain.stderr);
    assert!(plain.stdout.contains("registry.example.com/models/tiny:v1@sha256:"));
    assert!(!plain.stdout.contains("initContainers"), "{}", plain.stdout);
    let chosen = printed(&image, &["--as", "deployment", "--target", "sm90"]);
    assert!(chosen.contains("registry.example.com/models/tiny:v1-sm90@sha256:"), "{chosen}");
    assert!(chosen.contains("nvidia.com/gpu.compute.major: \"9\"") && chosen.contains("TRITON_CACHE_DIR"));
    let listed = starcar(&["inspect", &image, "--format", "json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let variants: Value =
        serde_json::from_str(listed["annotations"]["dev.starcar.variants"].as_str().unwrap()).unwrap();
    assert!(chosen.contains(variants["sm90"].as_str().unwrap()), "pinned to the variant's digest");
    // The image lists the digest; a tag that was moved since changes nothing.
    let root = listed["digest"].as_str().unwrap();
    let by_digest = format!("{NAME}@{root}");
    let run = starcar(&["deploy", &image, "--image", &by_digest, "--as", "deployment", "--target", "sm90"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, chosen.as_str()), "{}", run.stderr);
    let none = deploy(&image, &["--as", "deployment", "--target", "sm80"]);
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("there are sm75, sm90"), "{}", none.stderr);
}

#[test]
fn json_is_a_list_of_the_same_objects() {
    let place = Place::new();
    let image = place.pack(&[]);
    let json: Value =
        serde_json::from_str(&printed(&image, &["--as", "deployment", "--format", "json"])).unwrap();
    assert_eq!((&json["apiVersion"], &json["kind"]), (&"v1".into(), &"List".into()));
    let kinds: Vec<&str> =
        json["items"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Deployment", "Service"]);
    let yaml = printed(&image, &["--as", "deployment"]);
    assert_eq!(yaml.matches("\nkind: ").count(), 2);
    assert_eq!(yaml.matches("---\n").count(), 2);
}

#[test]
fn flags_and_settings_are_one_table() {
    let place = Place::new();
    let image = place.pack(&[]);
    let of = |arguments: &[&str]| printed(&image, &[&["--as", "deployment"], arguments].concat());
    let flags =
        of(&["--name", "a", "--namespace", "b", "--replicas", "3", "--gpus", "0", "--engine-image", "e:v1"]);
    let settings = of(&[
        "--set",
        "name=a",
        "--set",
        "namespace=b",
        "--set",
        "replicas=3",
        "--set",
        "gpus=0",
        "--set",
        "engine-image=e:v1",
    ]);
    assert_eq!(flags, settings);
    assert!(flags.contains("  name: a\n  namespace: b\n") && !flags.contains("nvidia.com/gpu"), "{flags}");
    let odd = of(&[
        "--set",
        "served-model-name=1e3",
        "--set",
        "namespace=0",
        "--",
        "--seed",
        "0x1f",
        "on",
        "no",
        "~",
    ]);
    for quoted in ["- \"1e3\"", "namespace: \"0\"", "- \"0x1f\"", "- \"on\"", "- \"no\"", "- \"~\""] {
        assert!(odd.contains(quoted), "{quoted}: {odd}");
    }
    for (arguments, word) in [
        (&["--name", "Not_A_Name"][..], "as in not-a-name"),
        (&["--set", "colour=red"], "engine-image"),
        (&["--set", "colour"], "KEY=VALUE"),
        (&["--set", "memory=16 GB"], "16Gi"),
        (&["--gpus", "-1"], "0 to 64"),
        (&["--engine", "custom"], "--engine-image"),
        (&["--engine-command", "x"], "--engine custom"),
        (&["--script"], "--as prepull"),
        (&["--mode", "fetch"], "InferenceService"),
        (&["--kubernetes", "new"], "1.33"),
        (&["--set", "pull-secret=A"], "small letters"),
        (&["--name", &"a".repeat(64)], "at most 63"),
    ] {
        let run = deploy(&image, &[&["--as", "deployment"], arguments].concat());
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.stdout);
        assert!(run.stderr.contains(word), "{arguments:?}: {}", run.stderr);
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn images_need_a_name_that_nodes_know() {
    let place = Place::new();
    let image = place.pack(&[]);
    let run = starcar(&["deploy", &image, "--as", "deployment"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("--image REGISTRY/REPO:TAG"), "{}", run.stderr);
    for bad in ["registry.example.com/tiny", "A B", "http://x/y:v1"] {
        let run = starcar(&["deploy", &image, "--image", bad, "--as", "deployment"]);
        assert_eq!(run.code, 2, "{bad}");
        assert!(run.stderr.contains("models/qwen3:v1"), "{}", run.stderr);
    }
    let digest = format!("{NAME}@sha256:{}", "0".repeat(64));
    let run = starcar(&["deploy", &image, "--image", &digest, "--as", "deployment"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("has the digest"), "{}", run.stderr);
    let nowhere = format!("oci:{}:v1", Path::new("/nowhere").display());
    assert_eq!(deploy(&nowhere, &["--as", "deployment"]).code, 5);
}

#[test]
fn an_index_is_served_on_the_platform_that_is_asked_for() {
    let place = Place::new();
    let several = place.pack(&["--platform", "linux/amd64,linux/arm64", "--base", "scratch"]);
    let of = |arguments: &[&str]| printed(&several, &[&["--as", "deployment"], arguments].concat());
    assert!(!of(&[]).contains("kubernetes.io/arch"));
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        let text = of(&["--platform", &platform, "--gpus", "0"]);
        let selector = format!("kubernetes.io/arch: {architecture}\n");
        assert!(text.contains(&selector) && text.contains("vllm-openai-cpu:v"), "{text}");
        assert!(!of(&["--platform", &platform, "--no-node-selector"]).contains("kubernetes.io/arch"));
    }
    let place = Place::new();
    let one = place.pack(&["--platform", "linux/arm64", "--base", "scratch"]);
    let text = printed(&one, &["--as", "deployment"]);
    assert!(text.contains("kubernetes.io/arch: arm64\n"), "{text}");
}

/// An image as other programs make them: the name of a layout with it.
fn foreign(place: &Place, name: &str, layer_type: &str) -> String {
    let root = place.path(name);
    let put = |bytes: &[u8]| {
        let digest = starcar::digest::Digest::of(bytes).to_string();
        let path = root.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        (digest, bytes.len())
    };
    let described = |media_type: &str, (digest, size): (String, usize)| json!({ "mediaType": media_type, "digest": digest, "size": size });
    let layer = put(b"a layer");
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [layer.0] }
    });
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": described("application/vnd.oci.image.config.v1+json", put(config.to_string().as_bytes())),
        "layers": [described(layer_type, layer)],
    });
    let mut entry = described(manifest_type, put(manifest.to_string().as_bytes()));
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(root.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())
        .unwrap();
    format!("oci:{}:v1", root.display())
}

#[test]
fn an_image_that_starcar_did_not_pack() {
    let place = Place::new();
    let plain = foreign(&place, "plain", "application/vnd.oci.image.layer.v1.tar+gzip");
    let fetch = ["--as", "inferenceservice", "--mode", "fetch"];
    for arguments in [&["--as", "deployment"][..], &fetch] {
        let run = deploy(&plain, arguments);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains("starcar did not pack this image"), "{}", run.stderr);
        assert!(run.stdout.contains("kubernetes.io/arch: amd64\n"), "{}", run.stdout);
    }
    for other in
        ["application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.docker.image.rootfs.diff.tar.gzip"]
    {
        let run = deploy(&foreign(&place, "other", other), &fetch);
        assert_eq!(run.code, 2, "{other}: {}", run.stdout);
        assert!(run.stderr.contains("this image has others"), "{}", run.stderr);
    }
}

#[test]
fn arguments_that_contradict_the_manifest_are_refused() {
    let place = Place::new();
    let image = place.pack(&[]);
    for (arguments, word) in [
        (&["--engine-arg=--port=9000"][..], "--set port=PORT"),
        (&["--engine-arg", "--port", "--engine-arg", "9000"], "--set port=PORT"),
        (&["--", "--model", "/x"], "/mnt/models"),
        (&["--", "--tensor-parallel-size", "2"], "say --gpus 2"),
        (&["--load", "mmap", "--", "--load-format", "dummy"], "leave out one"),
    ] {
        let run = deploy(&image, &[&["--as", "deployment"], arguments].concat());
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(run.stderr.contains(word), "{arguments:?}: {}", run.stderr);
    }
    let own = printed(&image, &["--as", "deployment", "--", "--load-format", "dummy"]);
    assert!(!own.contains("--safetensors-load-strategy") && own.contains("- dummy\n"), "{own}");
}
