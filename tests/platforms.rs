//! Images for several platforms: one index, the model's layers once. Bases are stand-ins of a few hundred bytes;
//! `tests/e2e` has real ones, real registries and real runtimes.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use starcar::digest::Digest;
use support::{
    command::{Run, starcar},
    registry::{FakeOptions, FakeRegistry, Seen},
};

const EXAMPLE: &str = "examples/tiny-llama";
const BOTH: &str = "linux/amd64,linux/arm64";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The smallest files that pass for static multi-call binaries of two processors, and a place for images.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, machine) in [("amd64", 62_u8), ("arm64", 183)] {
            let mut bytes = vec![0; 120];
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            (bytes[18], bytes[32], bytes[54], bytes[56], bytes[64]) = (machine, 64, 56, 1, 1);
            bytes.extend(b"\0ln\0ls\0mkdir\0sh\0sleep\0");
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("busybox"), bytes).unwrap();
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn oci(&self, name: &str) -> String {
        format!("oci:{}", self.path(name).display())
    }

    fn base(&self, platform: &str) -> String {
        let name = platform.rsplit('/').next().unwrap();
        format!("{platform}={}", self.path(name).join("busybox").display())
    }

    /// Packs for both platforms; the metadata.
    fn pack(&self, arguments: &[&str]) -> Value {
        let run = self.run(arguments);
        assert_eq!(run.code, 0, "{}", run.stderr);
        json(&run)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let (amd64, arm64) = (self.base("linux/amd64"), self.base("linux/arm64"));
        let bases = ["pack", EXAMPLE, "--platform", BOTH, "--base", &amd64, "--base", &arm64];
        starcar(&[&bases[..], &["--format", "json"], arguments].concat())
    }

    fn document(&self, layout: &str, digest: &str) -> Value {
        serde_json::from_slice(&fs::read(blob(&self.path(layout), digest)).unwrap()).unwrap()
    }
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", run.stdout, run.stderr))
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn digests(image: &Value, kinds: &[&str]) -> Vec<String> {
    let layers = image["layers"].as_array().unwrap().iter();
    let of_kind = layers.filter(|layer| kinds.is_empty() || kinds.contains(&layer["kind"].as_str().unwrap()));
    of_kind.map(|layer| text(&layer["digest"])).collect()
}

fn codes(run: &Run) -> Vec<(String, Value)> {
    let value = json(run);
    let findings = value["findings"].as_array().unwrap().clone();
    findings.into_iter().map(|finding| (text(&finding["code"]), finding["platforms"].clone())).collect()
}

/// A document and what it lists, with this version's name taken out, so that its digest is one of the format.
fn versionless(layout: &Path, digest: &str) -> String {
    let mut text = fs::read_to_string(blob(layout, digest)).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let version = format!("\"dev.starcar.version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    text = text.replace(&version, "\"dev.starcar.version\":\"0\"");
    let config = value.get("config").filter(|config| config.get("digest").is_some());
    for listed in value["manifests"].as_array().into_iter().flatten().chain(config) {
        let (listed, size) = (self::text(&listed["digest"]), listed["size"].as_u64().unwrap());
        let again = versionless(layout, &listed);
        let old = format!("\"digest\":\"{listed}\"");
        assert!(text.contains(&old), "{text}");
        let start = text.find(&old).unwrap();
        let (before, after) = text.split_at(start);
        let after = after.replacen(&old, &format!("\"digest\":\"{}\"", Digest::of(again.as_bytes())), 1);
        let after = after.replacen(&format!("\"size\":{size}"), &format!("\"size\":{}", again.len()), 1);
        text = format!("{before}{after}");
    }
    text
}

#[test]
fn an_index_shares_all_but_base_and_config() {
    let place = Place::new();
    let packed = place.pack(&["-o", &place.oci("out:v1")]);
    assert_eq!(packed["mediaType"], INDEX_TYPE);
    assert!(packed.get("layers").is_none() && packed.get("platform").is_none(), "{packed}");
    let images = packed["platforms"].as_array().unwrap();
    let platforms: Vec<String> = images.iter().map(|image| text(&image["platform"])).collect();
    assert_eq!(platforms.join(","), BOTH);
    let model = ["small", "weights"];
    assert_eq!(digests(&images[0], &model), digests(&images[1], &model));
    assert_eq!(digests(&images[0], &model).len(), 4);
    assert_ne!(digests(&images[0], &["base"]), digests(&images[1], &["base"]));
    assert_ne!(images[0]["config"], images[1]["config"]);

    let root: Value = serde_json::from_slice(&fs::read(place.path("out/index.json")).unwrap()).unwrap();
    assert_eq!(root["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(root["manifests"][0]["digest"], packed["digest"]);
    let index = place.document("out", &text(&packed["digest"]));
    for (listed, image) in index["manifests"].as_array().unwrap().iter().zip(images) {
        assert_eq!(listed["digest"], image["digest"]);
        let platform =
            format!("{}/{}", text(&listed["platform"]["os"]), text(&listed["platform"]["architecture"]));
        assert_eq!(image["platform"], platform.as_str());
        let config = place.document("out", &text(&image["config"]["digest"]));
        assert_eq!(config["architecture"], listed["platform"]["architecture"]);
    }
    // Two bases, four layers of the model, and an index, two manifests and two configs.
    assert_eq!(fs::read_dir(place.path("out/blobs/sha256")).unwrap().count(), 2 + 4 + 5);

    // The same again, into an archive, on another number of threads and in another order of options.
    let archive = format!("oci-archive:{}:v1", place.path("out.tar").display());
    let again = starcar(&[
        "pack",
        EXAMPLE,
        "--platform",
        "linux/amd64",
        "--base",
        &place.base("linux/arm64"),
        "--platform",
        "linux/arm64",
        "--base",
        place.path("amd64/busybox").to_str().unwrap(),
        "--threads",
        "1",
        "-o",
        &archive,
        "--verify",
    ]);
    assert_eq!(
        (again.code, again.stdout.trim_end()),
        (0, packed["digest"].as_str().unwrap()),
        "{}",
        again.stderr
    );
    let golden = Digest::of(versionless(&place.path("out"), &text(&packed["digest"])).as_bytes());
    assert_eq!(golden.to_string(), include_str!("golden/example.platforms").trim_end());
}

#[test]
fn the_order_is_the_one_asked_for_and_variants_are_kept() {
    let place = Place::new();
    let run = starcar(&[
        "pack",
        EXAMPLE,
        "--base",
        "scratch",
        "--platform",
        "linux/arm64/v8,linux/amd64",
        "-o",
        &place.oci("out"),
        "-q",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let index = place.document("out", run.stdout.trim_end());
    let platforms: Vec<&Value> =
        index["manifests"].as_array().unwrap().iter().map(|one| &one["platform"]).collect();
    assert_eq!(*platforms[0], serde_json::json!({ "architecture": "arm64", "os": "linux", "variant": "v8" }));
    assert_eq!(*platforms[1], serde_json::json!({ "architecture": "amd64", "os": "linux" }));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let place = Place::new();
    let out = place.oci("out");
    let busybox = place.path("amd64/busybox").display().to_string();
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let run = starcar(&[&["pack", EXAMPLE, "-o", &out], arguments].concat());
        assert!(run.code == code && run.stderr.contains(words), "{}: {}", run.code, run.stderr);
    };
    refused(&["--platform", "linux/amd64,linux/amd64"], 2, "names linux/amd64 twice");
    refused(&["--platform", BOTH, "--base", "linux/arm64=scratch"], 2, "linux/amd64 has no base");
    refused(&["--platform", BOTH, "--base", &busybox], 4, "there is no base for linux/arm64");
    refused(&["--platform", BOTH, "--base", &busybox], 4, "--base linux/arm64=BASE");
    assert!(!place.path("out").exists());
    // A base that is an index gives each platform its own.
    place.pack(&["-o", &place.oci("base:v1")]);
    let base = place.oci("base:v1");
    refused(&["--platform", "linux/amd64,linux/riscv64", "--base", &base], 4, "no base for linux/riscv64");
    let run = starcar(&["pack", EXAMPLE, "--platform", BOTH, "--base", &base, "-o", &out, "-q"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let index = place.document("out", run.stdout.trim_end());
    for entry in index["manifests"].as_array().unwrap() {
        let manifest = place.document("out", &text(&entry["digest"]));
        let config = place.document("out", &text(&manifest["config"]["digest"]));
        assert_eq!(config["architecture"], entry["platform"]["architecture"]);
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 9, "the base's five, and the model's");
    }
}

#[test]
fn each_blob_is_sent_once_and_the_name_comes_last() {
    let place = Place::new();
    let fake = FakeRegistry::start(FakeOptions { referrers: true, ..FakeOptions::default() });
    let name = format!("{}/models/a:v1", fake.address());
    let packed = place.pack(&["-t", &name, "-t", &format!("{name}-again"), "--push", "--verify"]);
    let images = packed["platforms"].as_array().unwrap();
    for digest in images.iter().flat_map(|image| digests(image, &[])) {
        let digest: Digest = digest.parse().unwrap();
        let size = fake.blob("models/a", digest).unwrap().len() as u64;
        assert_eq!(fake.uploaded_for(digest), size, "{digest} once");
    }
    let seen = fake.seen();
    let puts: Vec<&Seen> =
        seen.iter().filter(|seen| seen.method == "PUT" && seen.path.contains("/manifests/")).collect();
    let names: Vec<&str> = puts.iter().map(|seen| seen.path.rsplit('/').next().unwrap()).collect();
    let children = [text(&images[0]["digest"]), text(&images[1]["digest"])];
    assert_eq!(names[..3], [children[0].as_str(), &children[1], "v1"], "{names:?}");
    assert_eq!(names.last(), Some(&"v1-again"));
    let last_blob = seen.iter().rposition(Seen::is_upload).unwrap();
    assert!(seen.iter().position(|seen| seen.path.contains(&children[0])).unwrap() > last_blob);
    let (media_type, index) = fake.manifest("models/a", "v1").unwrap();
    assert_eq!((media_type.as_str(), Digest::of(&index).to_string()), (INDEX_TYPE, text(&packed["digest"])));

    // Nothing is sent again, and a tag of another index is kept when asked.
    fake.forget();
    let again = place.pack(&["-t", &name, "--push", "--no-clobber"]);
    assert_eq!(again["digest"], packed["digest"]);
    let uploads = fake.seen().into_iter().filter(Seen::is_upload);
    // But for the 64 bytes that ranges are tried with.
    assert_eq!(uploads.map(|seen| seen.body).filter(|length| *length > 64).sum::<u64>(), 0);
    let run = place.run(&["-t", &name, "--push", "--no-clobber", "--timestamp", "7"]);
    assert!(run.code == 6 && run.stderr.contains("names sha256:"), "{}: {}", run.code, run.stderr);
    assert_eq!(fake.manifest("models/a", "v1").unwrap().1, index);
    // Under its digest alone.
    let bare = format!("{}/models/b", fake.address());
    let packed = place.pack(&["-t", &bare, "--push", "--push-by-digest"]);
    assert_eq!(fake.tags("models/b"), [""; 0]);
    assert!(fake.manifest("models/b", &text(&packed["digest"])).is_some());
}

#[test]
fn an_index_is_copied_whole_or_one_platform_of_it() {
    let place = Place::new();
    let fake = FakeRegistry::start(FakeOptions { referrers: true, ..FakeOptions::default() });
    let packed = place.pack(&["-o", &place.oci("out:v1")]);
    let name = format!("{}/models/a:v1", fake.address());
    let run = starcar(&["push", &place.oci("out:v1"), &name, "-q"]);
    assert_eq!((run.code, run.stdout.trim_end()), (0, packed["digest"].as_str().unwrap()), "{}", run.stderr);
    let weights: Digest = digests(&packed["platforms"][0], &["weights"])[0].parse().unwrap();
    assert_eq!(fake.uploaded_for(weights), fake.blob("models/a", weights).unwrap().len() as u64);
    let one = starcar(&["copy", &name, &place.oci("one:v1"), "--platform", "linux/arm64", "-q"]);
    assert_eq!(one.stdout.trim_end(), packed["platforms"][1]["digest"].as_str().unwrap(), "{}", one.stderr);
    let verified = starcar(&["verify", &place.oci("one:v1"), "--platform", "linux/arm64"]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
    // By the digest of what an index lists, too.
    let listed = format!("{}@{}", place.oci("out"), text(&packed["platforms"][1]["digest"]));
    let inspected = json(&starcar(&["inspect", &listed, "--format", "json"]));
    assert_eq!(inspected["platform"], "linux/arm64");
    let missing = starcar(&["copy", &name, &place.oci("one:v1"), "--platform", "linux/riscv64", "-q"]);
    assert!(missing.stderr.contains("it has linux/amd64, linux/arm64"), "{}", missing.stderr);
}

#[test]
fn inspecting_an_index_lists_its_images() {
    let place = Place::new();
    let packed = place.pack(&["-o", &place.oci("out:v1")]);
    let table = starcar(&["inspect", &place.oci("out:v1")]);
    let place_name = place.directory.path().display().to_string();
    let lines: Vec<String> = table
        .stdout
        .replace(&place_name, "DIR")
        .replace(env!("CARGO_PKG_VERSION"), "VERSION")
        .lines()
        .map(|line| {
            line.split(' ')
                .map(|word| if word.starts_with("sha256:") { "DIGEST" } else { word })
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
    let value = json(&starcar(&["inspect", &place.oci("out:v1"), "--format", "json"]));
    assert_eq!(value["digest"], packed["digest"]);
    let platforms: Vec<String> =
        value["images"].as_array().unwrap().iter().map(|image| text(&image["platform"])).collect();
    assert_eq!(platforms.join(","), BOTH);
    let one =
        json(&starcar(&["inspect", &place.oci("out:v1"), "--platform", "linux/arm64", "--format", "json"]));
    assert_eq!(
        (&one["platform"], &one["digest"]),
        (&"linux/arm64".into(), &packed["platforms"][1]["digest"])
    );
    // What was not copied is listed all the same.
    fs::remove_file(blob(&place.path("out"), &text(&packed["platforms"][1]["digest"]))).unwrap();
    let sparse = json(&starcar(&["inspect", &place.oci("out:v1"), "--format", "json"]));
    let images = sparse["images"].as_array().unwrap();
    assert_eq!((images[0].get("absent"), &images[1]["absent"]), (None, &true.into()));
    assert_eq!(images[0], value["images"][0]);
    assert!(starcar(&["inspect", &place.oci("out:v1")]).stdout.contains("  absent\n"));
}

#[test]
fn verifying_an_index_reads_shared_layers_once() {
    let place = Place::new();
    let fake = FakeRegistry::start(FakeOptions { referrers: true, ..FakeOptions::default() });
    let name = format!("{}/models/a:v1", fake.address());
    let packed = place.pack(&["-t", &name, "--push"]);
    fake.forget();
    let run = starcar(&["verify", &name, "--deep", "--format", "json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let value = json(&run);
    assert_eq!((&value["digest"], value["layers"].as_array().unwrap().len()), (&packed["digest"], 6));
    assert_eq!(value["platforms"].as_array().unwrap().len(), 2);
    // Whole reads are those without a range.
    for digest in digests(&packed["platforms"][0], &["small", "weights"]) {
        let whole =
            |seen: &&Seen| seen.method == "GET" && seen.path.contains(&digest) && seen.range.is_none();
        assert_eq!(fake.seen().iter().filter(whole).count(), 1, "{digest}");
    }
    let one = json(&starcar(&["verify", &name, "--platform", "linux/arm64", "--format", "json"]));
    assert_eq!(one["digest"], packed["platforms"][1]["digest"]);
}

#[test]
fn findings_name_their_platforms() {
    let place = Place::new();
    let packed = place.pack(&["-o", &place.oci("out:v1")]);
    let verify = || starcar(&["verify", &place.oci("out:v1"), "--format", "json"]);
    let arm = text(&packed["platforms"][1]["digest"]);
    let manifest = blob(&place.path("out"), &arm);
    let bytes = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    let run = verify();
    let arm64 = serde_json::json!(["linux/arm64"]);
    assert_eq!((run.code, codes(&run)), (9, vec![("index-entry-missing".to_owned(), arm64.clone())]));
    let lazy = &json(&run)["verdicts"][0];
    assert_eq!((&lazy["use"], &lazy["works"]), (&"lazy".into(), &"partly".into()));
    fs::write(&manifest, [&bytes[..], b"\n"].concat()).unwrap();
    assert_eq!(codes(&verify()), [("index-entry-damaged".to_owned(), arm64)]);
    fs::write(&manifest, &bytes).unwrap();
    // A layer that both have is told of once.
    let layer = &digests(&packed["platforms"][0], &["weights"])[0];
    fs::remove_file(blob(&place.path("out"), layer)).unwrap();
    let both = serde_json::json!(["linux/amd64", "linux/arm64"]);
    assert_eq!(codes(&verify())[0], ("layer-missing".to_owned(), both));
    let table = starcar(&["verify", &place.oci("out:v1")]);
    assert!(table.stdout.contains("linux/amd64 and linux/arm64, layer 3"), "{}", table.stdout);
}

#[test]
fn an_image_of_an_index_is_packed_again() {
    let place = Place::new();
    place.pack(&["-o", &place.oci("out:v1"), "--max-layers", "4"]);
    for platform in BOTH.split(',') {
        let base = place.path(platform.rsplit('/').next().unwrap()).join("busybox").display().to_string();
        let rebuild = ["verify", &place.oci("out:v1"), "--rebuild", EXAMPLE, "--base", &base];
        let run = starcar(&[&rebuild[..], &["--platform", platform]].concat());
        assert_eq!(run.code, 0, "{platform}: {}{}", run.stdout, run.stderr);
        let run = starcar(&rebuild);
        assert!(run.code == 2 && run.stderr.contains("name its --platform"), "{}", run.stderr);
    }
}

/// A Triton cache with a library for a processor.
fn triton(root: &Path, processor: &str) -> String {
    let kernel = root.join("2KWZU5NBV7DGHTOQZNYQVHZHTW5Y7G5YTDWJ3UMSJ5OVQ5Z6YB6A");
    fs::create_dir_all(&kernel).unwrap();
    let json = r#"{"name": "add", "target": {"backend": "cuda", "arch": 90, "warp_size": 32}, "triton_version": "3.9.0"}"#;
    fs::write(kernel.join("add.json"), json).unwrap();
    fs::write(kernel.join("add.cubin"), "cubin").unwrap();
    if !processor.is_empty() {
        fs::write(kernel.join(format!("cuda_utils.cpython-312-{processor}-linux-gnu.so")), "x").unwrap();
    }
    root.display().to_string()
}

#[test]
fn caches_go_to_the_platforms_that_they_are_for() {
    let place = Place::new();
    let of = |name: &str| triton(&place.path(name), name);
    let kinds = |image: &Value| digests(image, &["cache"]).len();
    // One for each platform: no clash, no variants.
    let packed = place.pack(&[
        "-o",
        &place.oci("each"),
        "--cache",
        &format!("triton={}", of("x86_64")),
        "--cache",
        &format!("triton={}", of("aarch64")),
    ]);
    let images = packed["platforms"].as_array().unwrap();
    assert!(packed.get("variants").is_none());
    assert_eq!(images.iter().map(kinds).collect::<Vec<_>>(), [1, 1]);
    assert_ne!(digests(&images[0], &["cache"]), digests(&images[1], &["cache"]));
    // One that tells of no processor is every platform's, and the same layer.
    let any = format!("triton={}", triton(&place.path("any"), ""));
    let packed = place.pack(&["-o", &place.oci("any-out"), "--cache", &any]);
    let images = packed["platforms"].as_array().unwrap();
    assert_eq!(digests(&images[0], &["cache"]), digests(&images[1], &["cache"]));
    // One for neither is refused.
    let run = starcar(&[
        "pack",
        EXAMPLE,
        "--base",
        "scratch",
        "--platform",
        "linux/arm64",
        "-o",
        &place.oci("none"),
        "--cache",
        &format!("triton={}", of("x86_64")),
    ]);
    assert!(
        run.code == 2 && run.stderr.contains("is for x86_64, and the image is for linux/arm64"),
        "{}",
        run.stderr
    );
}

#[test]
fn targets_are_indexes_as_well() {
    let place = Place::new();
    let fake = FakeRegistry::start(FakeOptions { referrers: true, ..FakeOptions::default() });
    let cache = format!("triton@sm90={}", triton(&place.path("x86_64"), "x86_64"));
    let run = place.run(&["-o", &place.oci("out:v1"), "--cache", &cache]);
    let warning = "none of the compile caches for sm90 is for linux/arm64";
    assert!(run.code == 0 && run.stderr.contains(warning), "{}", run.stderr);
    let packed = json(&run);
    let variant = &packed["variants"][0];
    assert_eq!((&variant["target"], &variant["mediaType"]), (&"sm90".into(), &INDEX_TYPE.into()));
    let (main, of_target) = (&packed["platforms"], &variant["platforms"]);
    assert_ne!(main[0]["digest"], of_target[0]["digest"]);
    assert_eq!(digests(&of_target[0], &["cache"]).len(), 1);
    // The other platform's is the image that every GPU can use.
    assert_eq!(main[1]["digest"], of_target[1]["digest"]);

    let name = format!("{}/models/a:v2", fake.address());
    let run = starcar(&["push", &place.oci("out:v1"), &name, "-q"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(fake.tags("models/a"), ["v2", "v2-sm90"]);
    assert_eq!(
        Digest::of(&fake.manifest("models/a", "v2-sm90").unwrap().1).to_string(),
        text(&variant["digest"])
    );
    let env = starcar(&["cache", "env", &format!("{name}-sm90"), "--format", "env"]);
    assert_eq!(env.stdout, "TRITON_CACHE_DIR=/tmp/compile-cache/triton\n", "{}", env.stderr);
    // One platform's image brings its own variant along.
    let one = starcar(&["copy", &name, &place.oci("one:v1"), "--platform", "linux/amd64", "-q"]);
    assert_eq!(one.stdout.trim_end(), text(&main[0]["digest"]), "{}", one.stderr);
    let inspected = json(&starcar(&["inspect", &place.oci("one:v1-sm90"), "--format", "json"]));
    assert_eq!(inspected["digest"], of_target[0]["digest"]);
    let rebuilt = starcar(&[
        "verify",
        &place.oci("out:v1-sm90"),
        "--platform",
        "linux/amd64",
        "--rebuild",
        EXAMPLE,
        "--cache",
        &cache,
        "--base",
        place.path("amd64/busybox").to_str().unwrap(),
        "--fail-on",
        "error",
    ]);
    assert_eq!(rebuilt.code, 0, "{}{}", rebuilt.stdout, rebuilt.stderr);
}

#[test]
fn a_plan_tells_each_platforms_base() {
    let place = Place::new();
    let arm64 = place.base("linux/arm64");
    let arguments = [EXAMPLE, "--platform", BOTH, "--base", "scratch", "--base", &arm64];
    let text = starcar(&[&["pack", "--dry-run"][..], &arguments].concat()).stdout;
    assert!(
        text.starts_with("base for linux/amd64: 0 layers\nbase for linux/arm64: 1 layer\nlayer 2: "),
        "{text}"
    );
    let plan = json(&starcar(&[&["plan", "--format", "json"][..], &arguments].concat()));
    assert_eq!(plan["platforms"][1], serde_json::json!({ "platform": "linux/arm64", "baseLayers": 1 }));
}

#[test]
fn a_profile_is_attached_to_the_index() {
    let place = Place::new();
    let fake = FakeRegistry::start(FakeOptions { referrers: true, ..FakeOptions::default() });
    let name = format!("{}/models/a:v1", fake.address());
    let first = place.pack(&["-t", &name, "--push", "--attach-profile", "--profile", "vllm-default"]);
    let from = format!("from:{name}");
    let again = place.pack(&["-o", &place.oci("out"), "--profile", &from]);
    let model = |packed: &Value| digests(&packed["platforms"][0], &["small", "weights"]);
    assert_eq!(model(&first), model(&again));
}

#[test]
fn a_replay_plays_the_platform_that_is_asked_for() {
    let place = Place::new();
    place.pack(&["-o", &place.oci("out:v1")]);
    for platform in BOTH.split(',') {
        let arguments = ["replay", &place.oci("out:v1"), "--profile", "vllm-default", "--think-scale", "0"];
        let run = starcar(&[&arguments[..], &["--platform", platform, "--format", "json"]].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(json(&run)["reads"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_platform_that_an_image_lacks_is_a_wrong_argument_wherever_the_image_lies() {
    let place = Place::new();
    let fake = FakeRegistry::start(FakeOptions { referrers: true, ..FakeOptions::default() });
    let name = |tag: &str| format!("{}/models/a:{tag}", fake.address());
    place.pack(&["-o", &place.oci("out:index"), "-t", &name("index"), "--push"]);
    let one = ["pack", EXAMPLE, "--base", "scratch", "--platform", "linux/arm64/v8", "-o"];
    let run = starcar(&[&one[..], &[&place.oci("out:one"), "-t", &name("one"), "--push", "-q"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);

    let of = |image: &str, platform: &str, code: i32| {
        let (copied, in_registry) = (place.oci("copied:v1"), format!("{}/b:v1", fake.address()));
        let commands: [&[&str]; 8] = [
            &["inspect", image],
            &["copy", image, &copied],
            &["copy", image, &in_registry],
            &["deploy", image, "--as", "deployment", "--image", "registry.example.com/a:v1"],
            &["replay", image, "--profile", "generic", "--think-scale", "0"],
            &["cache", "inspect", image],
            &["cache", "env", image],
            &["cache", "check", image, "--gpu", "h100"],
        ];
        for command in commands {
            let run = starcar(&[command, &["--platform", platform]].concat());
            // The example has no compile caches, which is the other thing to say.
            let expected = if code == 0 && command[0] == "cache" { 8 } else { code };
            assert_eq!(run.code, expected, "{command:?} {platform}: {}", run.stderr);
            let says = run.stderr.contains(&format!("has no image for {platform}; it has linux/"));
            assert_eq!(says, code != 0, "{command:?} {platform}: {}", run.stderr);
        }
    };
    for place in [place.oci("out"), format!("{}/models/a", fake.address())] {
        of(&format!("{place}:index"), "linux/s390x", 2);
        of(&format!("{place}:one"), "linux/amd64", 2);
        of(&format!("{place}:one"), "linux/arm64", 0);
        let verify = |tag: &str| starcar(&["verify", &format!("{place}:{tag}"), "--platform", "linux/s390x"]);
        assert_eq!(verify("index").code, 2);
        // What the image states beside what was asked for is one of its findings.
        assert_eq!(
            codes(&starcar(&[
                "verify",
                &format!("{place}:one"),
                "--platform",
                "linux/amd64",
                "--format",
                "json"
            ]))[0]
                .0,
            "platform-differs"
        );
        // Nobody asks for the default: the one image that there is, is meant.
        for command in ["inspect", "replay --profile generic --think-scale 0"] {
            let words: Vec<&str> = command.split(' ').collect();
            let run = starcar(&[&[words[0], &format!("{place}:one")], &words[1..]].concat());
            assert_eq!(run.code, 0, "{command}: {}", run.stderr);
        }
    }
}
