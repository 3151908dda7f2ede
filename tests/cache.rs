//! Compile caches as users and pipelines meet them: packed, shared between images, looked at. The trees are made
//! here; `tests/e2e` has those of real compilers.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::Value;

use support::{command::starcar, registry::FakeRegistry};

const EXAMPLE: &str = "examples/tiny-llama";
/// Time of change of every file, in seconds since 1970.
const MODIFIED: u64 = 1_700_000_000;

/// Packs the example with further arguments; the metadata.
fn packed(arguments: &[&str]) -> Value {
    let run = starcar(&[&["pack", EXAMPLE, "--base", "scratch", "--format", "json"], arguments].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

fn digests(image: &Value, kind: &str) -> Vec<String> {
    let layers = image["layers"].as_array().unwrap().iter();
    let of_kind = layers.filter(|layer| kind.is_empty() || layer["kind"] == kind);
    of_kind.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

/// Entries of a gzip layer in a layout: type, mode, time of change and, for links, target, by path, in order.
fn entries(layout: &Path, digest: &str) -> Vec<(String, (tar::EntryType, u32, u64, String))> {
    let blob = File::open(layout.join("blobs/sha256").join(&digest[7..])).unwrap();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(blob));
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            let link = entry.link_name().unwrap().map(|path| path.display().to_string()).unwrap_or_default();
            let facts = (header.entry_type(), header.mode().unwrap(), header.mtime().unwrap(), link);
            (entry.path().unwrap().display().to_string(), facts)
        })
        .collect()
}

fn content(layout: &Path, digest: &str, path: &str) -> String {
    let blob = File::open(layout.join("blobs/sha256").join(&digest[7..])).unwrap();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(blob));
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.path().unwrap() == Path::new(path)).unwrap();
    let mut text = String::new();
    entry.read_to_string(&mut text).unwrap();
    text
}

fn write(root: &Path, files: &[(&str, &str)]) -> PathBuf {
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        if path.extension().is_some_and(|extension| extension == "sh") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
    age(root);
    root.to_owned()
}

/// Gives everything below `root` the same time of change.
fn age(root: &Path) {
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let entry = entry.unwrap();
        if entry.file_type().is_symlink() {
            continue;
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED);
        File::open(entry.path()).unwrap().set_modified(time).unwrap();
    }
}

/// A Triton kernel whose group names the place where it was made.
fn triton(root: &Path, architecture: u32) -> PathBuf {
    let kernel = "2KWZU5NBV7DGHTOQZNYQVHZHTW5Y7G5YTDWJ3UMSJ5OVQ5Z6YB6A";
    let group = format!(
        r#"{{"child_paths": {{"add.cubin": "/home/u/.triton/cache/{kernel}/add.cubin", "add.json": "/home/u/.triton/cache/{kernel}/add.json"}}}}"#
    );
    let json = format!(
        r#"{{"name": "add", "target": {{"backend": "cuda", "arch": {architecture}, "warp_size": 32}}, "triton_version": "3.9.0"}}"#
    );
    write(
        root,
        &[
            (&format!("{kernel}/__grp__add.json"), &group),
            (&format!("{kernel}/add.json"), &json),
            (&format!("{kernel}/add.cubin"), "cubin"),
            (&format!("{kernel}/lock"), ""),
        ],
    )
}

fn oci(path: &Path) -> String {
    format!("oci:{}", path.display())
}

#[test]
fn a_cache_is_a_layer_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let cache = write(
        &root.path().join("cache"),
        &[("a/one", "same"), ("a/two", "same"), ("b/kernel.so", "x"), ("b/run.sh", "x"), ("b/x.lock", "")],
    );
    fs::create_dir(cache.join("empty")).unwrap();
    age(&cache);
    let layout = root.path().join("layout");
    let without = packed(&["-o", &oci(&layout)]);
    let argument = format!("inductor={}", cache.display());
    let with = packed(&["-o", &oci(&layout), "--cache", &argument]);
    let layers = digests(&with, "");
    assert_eq!(layers[..layers.len() - 1], digests(&without, ""), "the model's layers are the same");
    assert_eq!(with["layers"].as_array().unwrap().last().unwrap()["kind"], "cache");

    let entries = entries(&layout, layers.last().unwrap());
    let paths: Vec<&str> = entries.iter().map(|(path, _)| path.trim_end_matches('/')).collect();
    let place = "models/compile-cache/inductor";
    let own = |name: &str| format!("{place}/{name}");
    assert_eq!(
        paths,
        [
            "models",
            "models/compile-cache",
            place,
            &own("a"),
            &own("b"),
            &own("empty"),
            &own("a/one"),
            &own("b/kernel.so"),
            &own("b/run.sh"),
            ".prefetch.landmark",
            &own("a/two"),
            "stargz.index.json",
        ]
    );
    let facts: BTreeMap<&str, &(tar::EntryType, u32, u64, String)> =
        entries.iter().map(|(path, facts)| (path.trim_end_matches('/'), facts)).collect();
    let of = |name: &str| facts[own(name).as_str()].clone();
    let (file, directory, link) = (tar::EntryType::Regular, tar::EntryType::Directory, tar::EntryType::Link);
    assert_eq!(of("a/one"), (file, 0o644, MODIFIED, String::new()));
    assert_eq!(of("b/kernel.so"), (file, 0o755, MODIFIED, String::new()));
    assert_eq!(of("b/run.sh"), (file, 0o755, MODIFIED, String::new()));
    assert_eq!(of("empty"), (directory, 0o755, MODIFIED, String::new()));
    assert_eq!(of("a/two").0, link);
    assert_eq!(of("a/two").3, own("a/one"));
}

/// KServe's fetch mode reads plain tar layers and no hard links.
#[test]
fn plain_tar_layers_have_no_links() {
    let root = tempfile::tempdir().unwrap();
    let cache = write(&root.path().join("cache"), &[("one", "same"), ("two", "same")]);
    let layout = root.path().join("layout");
    let argument = format!("triton={}", cache.display());
    let image = packed(&["-o", &oci(&layout), "--cache", &argument, "--layer-format", "tar"]);
    let digest = digests(&image, "cache").remove(0);
    let blob = File::open(layout.join("blobs/sha256").join(&digest[7..])).unwrap();
    let mut archive = tar::Archive::new(blob);
    let kinds: Vec<tar::EntryType> =
        archive.entries().unwrap().map(|entry| entry.unwrap().header().entry_type()).collect();
    assert!(!kinds.contains(&tar::EntryType::Link), "{kinds:?}");
}

#[test]
fn groups_name_the_place_at_run_time() {
    let root = tempfile::tempdir().unwrap();
    let cache = triton(&root.path().join("cache"), 90);
    let layout = root.path().join("layout");
    let image = packed(&[
        "-o",
        &oci(&layout),
        "--cache",
        cache.to_str().unwrap(),
        "--cache-at",
        "/var/cache/starcar",
    ]);
    let path = "models/compile-cache/triton/2KWZU5NBV7DGHTOQZNYQVHZHTW5Y7G5YTDWJ3UMSJ5OVQ5Z6YB6A";
    let group = content(&layout, &digests(&image, "cache")[0], &format!("{path}/__grp__add.json"));
    let group: Value = serde_json::from_str(&group).unwrap();
    let child = "/var/cache/starcar/triton/2KWZU5NBV7DGHTOQZNYQVHZHTW5Y7G5YTDWJ3UMSJ5OVQ5Z6YB6A/add.cubin";
    assert_eq!(group["child_paths"]["add.cubin"], child);

    let env = starcar(&["cache", "env", &oci(&layout), "--format", "env"]);
    assert_eq!(env.stdout, "TRITON_CACHE_DIR=/var/cache/starcar/triton\n");
    let json = starcar(&["cache", "env", &oci(&layout), "--format", "json", "--at", "/c"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["environment"]["TRITON_CACHE_DIR"], "/c/triton");
    assert_eq!(json["copies"][0]["from"], "/mnt/models/compile-cache/triton");
}

#[test]
fn caches_of_several_gpus_make_variants() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (triton(&root.path().join("old"), 75), triton(&root.path().join("new"), 90));
    let (old, new) = (format!("triton@sm75={}", old.display()), format!("triton@sm90={}", new.display()));
    let layout = root.path().join("layout");
    let out = format!("{}:v1", oci(&layout));
    let image = packed(&["-o", &out, "--cache", &old, "--cache", &new]);
    assert_eq!(digests(&image, "cache"), [""; 0]);
    let variants = image["variants"].as_array().unwrap();
    let targets: Vec<&str> = variants.iter().map(|variant| variant["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["sm75", "sm90"]);
    let model = digests(&image, "");
    for variant in variants {
        let layers = digests(variant, "");
        assert_eq!(layers[..layers.len() - 1], model, "the model's layers are shared");
        assert_eq!(digests(variant, "cache").len(), 1);
    }
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let tags: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| manifest["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap())
        .collect();
    assert_eq!(tags, ["v1-sm75", "v1-sm90", "v1"]);

    let inspection = starcar(&["inspect", &out, "--format", "json"]);
    let inspection: Value = serde_json::from_str(&inspection.stdout).unwrap();
    let listed: Value =
        serde_json::from_str(inspection["annotations"]["dev.starcar.variants"].as_str().unwrap()).unwrap();
    assert_eq!(listed["sm90"], variants[1]["digest"]);

    let text =
        starcar(&["pack", EXAMPLE, "--base", "scratch", "-q", "-o", &out, "--cache", &old, "--cache", &new]);
    let lines: Vec<&str> = text.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("sm75 sha256:") && lines[2].starts_with("sha256:"), "{lines:?}");

    let refused = starcar(&["cache", "env", &out]);
    assert_eq!(refused.code, 8);
    assert!(refused.stderr.contains("sm75, sm90"), "{}", refused.stderr);
    assert_eq!(starcar(&["cache", "env", &format!("{out}-sm90")]).code, 0);
}

#[test]
fn only_the_cache_is_sent_again() {
    let root = tempfile::tempdir().unwrap();
    let registry = FakeRegistry::open();
    let cache = triton(&root.path().join("cache"), 90);
    let reference = format!("{}/models/tiny:v1", registry.address());
    let push = || {
        let arguments = ["--cache", cache.to_str().unwrap(), "-t", &reference, "--push"];
        let run = starcar(
            &[&["pack", EXAMPLE, "--base", "scratch", "--progress", "plain"], &arguments[..]].concat(),
        );
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stderr
    };
    push();
    write(&cache, &[("3KWZU5NBV7DGHTOQZNYQVHZHTW5Y7G5YTDWJ3UMSJ5OVQ5Z6YB6A/more", "kernel")]);
    let before = registry.count("PUT", "/blobs/uploads");
    push();
    // The cache's layer, the config, and the probe of a client that remembers nothing of registries.
    assert_eq!(registry.count("PUT", "/blobs/uploads") - before, 3);
}

#[test]
fn unknown_and_hostile_trees_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let out = oci(&root.path().join("layout"));
    let refused = |argument: &str, code: i32, word: &str| {
        let run = starcar(&["pack", EXAMPLE, "--base", "scratch", "-o", &out, "--cache", argument]);
        assert_eq!(run.code, code, "{}", run.stderr);
        assert!(run.stderr.contains(word), "{}", run.stderr);
        assert!(!root.path().join("layout").exists(), "nothing is written");
    };
    let unknown = write(&root.path().join("unknown"), &[("a/b.txt", "x")]);
    refused(unknown.to_str().unwrap(), 8, "generic");
    refused("/nowhere", 8, "/nowhere");
    refused("cuda=/tmp", 2, "no kind of cache");
    let loops = root.path().join("loops");
    fs::create_dir(&loops).unwrap();
    symlink("loop", loops.join("loop")).unwrap();
    refused(&format!("triton={}", loops.display()), 8, "no file");
    let large = write(&root.path().join("large"), &[("x/fxgraph/a", "")]);
    File::create(large.join("x/fxgraph/a")).unwrap().set_len(5 << 30).unwrap();
    refused(&format!("inductor={}", large.display()), 8, "generic=DIR");
    let (first, second) = (triton(&root.path().join("first"), 90), triton(&root.path().join("second"), 90));
    let (first, second) =
        (format!("triton@sm90={}", first.display()), format!("triton@sm90={}", second.display()));
    let arguments = ["pack", EXAMPLE, "--base", "scratch", "-o", &out, "--cache", &first, "--cache"];
    let run = starcar(&[&arguments[..], &[&second]].concat());
    assert_eq!(run.code, 2, "{}", run.stderr);
    let run = starcar(&[&arguments[..], &[&first]].concat());
    assert_eq!(run.code, 0, "the same cache is packed once: {}", run.stderr);
}

#[test]
fn a_snapshot_may_not_have_what_caches_need() {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("model");
    write(&model, &[("config.json", "{}"), ("compile-cache/x", "x")]);
    let cache = triton(&root.path().join("cache"), 90);
    let out = oci(&root.path().join("layout"));
    let model = model.to_str().unwrap();
    let run = starcar(&["pack", model, "--base", "scratch", "-o", &out, "--cache", cache.to_str().unwrap()]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    let run = starcar(&["pack", model, "--base", "scratch", "-o", &out]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn the_profile_orders_a_cache() {
    let root = tempfile::tempdir().unwrap();
    let cache =
        write(&root.path().join("vllm-cache"), &[("modelinfos/a.json", "{}"), ("modelinfos/b.json", "[]")]);
    let profile = root.path().join("profile.json");
    let accesses = r#"[{"at": 1, "kind": "read", "cache": "vllm-cache", "path": "modelinfos/b.json"}]"#;
    fs::write(&profile, format!(r#"{{"version": 1, "accesses": {accesses}}}"#)).unwrap();
    let run = starcar(&[
        "plan",
        EXAMPLE,
        "--base",
        "scratch",
        "--format",
        "json",
        "--profile",
        profile.to_str().unwrap(),
        "--cache",
        cache.to_str().unwrap(),
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let plan: Value = serde_json::from_str(&run.stdout).unwrap();
    let layer = plan["layers"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((layer["kind"].as_str(), layer["prioritized"].as_u64()), (Some("cache"), Some(2)));
    assert_eq!(layer["files"][0]["path"], "compile-cache/vllm/modelinfos/b.json");
}

#[test]
fn a_cache_inside_the_snapshot_is_not_shipped_twice() {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("model");
    write(&model, &[("config.json", "{}")]);
    let cache = triton(&model.join("kernels"), 90);
    let out = oci(&root.path().join("layout"));
    let arguments = ["pack", model.to_str().unwrap(), "--base", "scratch", "-o", &out, "--cache"];
    let run = starcar(&[&arguments[..], &[cache.to_str().unwrap()]].concat());
    assert_eq!(run.code, 2, "{}", run.stderr);
    let run = starcar(&[&arguments[..], &[cache.to_str().unwrap(), "--exclude", "kernels/*"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn forced_kinds_and_links() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path().join("home");
    triton(&home.join(".triton/cache"), 90);
    let elsewhere = write(&root.path().join("elsewhere"), &[("modelinfos/a.json", "{}")]);
    fs::create_dir(home.join(".cache")).unwrap();
    symlink(&elsewhere, home.join(".cache/vllm")).unwrap();
    let inspected = |arguments: &[&str]| {
        let run = starcar(&[&["cache", "inspect", "--format", "json"], arguments].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        serde_json::from_str::<Value>(&run.stdout).unwrap()
    };
    let forced = inspected(&["--kind", "triton", home.to_str().unwrap()]);
    assert!(forced["caches"][0]["place"].as_str().unwrap().ends_with(".triton/cache"), "{forced}");
    let rules: Vec<&str> = forced["caches"][0]["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["rule"].as_str().unwrap())
        .collect();
    assert!(rules.contains(&"found"), "the link is named: {rules:?}");
    let useless = inspected(&["--kind", "vllm", home.join(".triton").to_str().unwrap()]);
    assert!(useless.to_string().contains("no name in it"), "{useless}");
}

#[test]
fn a_layout_is_pushed_with_its_variants() {
    let root = tempfile::tempdir().unwrap();
    let registry = FakeRegistry::open();
    let cache = triton(&root.path().join("cache"), 90);
    let layout = oci(&root.path().join("layout"));
    let named = format!("triton@sm90={}", cache.display());
    let long = format!("{layout}:{}", "x".repeat(126));
    let run = starcar(&["pack", EXAMPLE, "--base", "scratch", "-o", &long, "--cache", &named]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    let image = packed(&["-o", &format!("{layout}:v1"), "--cache", &named]);
    let reference = format!("{}/models/tiny:v2", registry.address());
    let run = starcar(&["push", &format!("{layout}:v1"), &reference]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stdout.trim_end(), image["digest"]);
    for tag in ["v2", "v2-sm90"] {
        assert!(registry.manifest("models/tiny", tag).is_some(), "{tag}");
    }
}

/// A target may be any word; what nobody names goes to every image.
#[test]
fn named_targets_share_what_is_not_named() {
    let root = tempfile::tempdir().unwrap();
    let vllm = |name: &str| {
        let path = write(&root.path().join(name), &[("modelinfos/a.json", name)]);
        format!("vllm@{name}={}", path.display())
    };
    let (old, new) = (vllm("h100"), vllm("h200"));
    let kernels = triton(&root.path().join("kernels"), 90);
    let out = oci(&root.path().join("layout"));
    let image = packed(&["-o", &out, "--cache", &old, "--cache", &new, "--cache", kernels.to_str().unwrap()]);
    let variants = image["variants"].as_array().unwrap();
    let caches: Vec<(&str, usize)> = variants
        .iter()
        .map(|variant| (variant["target"].as_str().unwrap(), digests(variant, "cache").len()))
        .collect();
    assert_eq!(caches, [("h100", 2), ("h200", 2)]);
}

/// The snippet runs as it is printed: twice, under `set -eu`, and without a source.
#[test]
fn the_snippet_runs() {
    let root = tempfile::tempdir().unwrap();
    let cache = triton(&root.path().join("cache"), 90);
    let layout = oci(&root.path().join("layout"));
    packed(&["-o", &layout, "--cache", cache.to_str().unwrap()]);
    let (mounted, at) = (root.path().join("mounted"), root.path().join("at"));
    let copy = mounted.join("compile-cache/triton/K");
    fs::create_dir_all(&copy).unwrap();
    let group = r#"{"child_paths": {"a": "/tmp/compile-cache/triton/K/a"}}"#;
    fs::write(copy.join("__grp__a.json"), group).unwrap();
    let (mounted, at) = (mounted.to_str().unwrap(), at.to_str().unwrap());
    let env = starcar(&["cache", "env", &layout, "--mounted-at", mounted, "--at", at]);
    assert_eq!(env.code, 0, "{}", env.stderr);
    let script = format!("set -eu\n{0}{0}echo $TRITON_CACHE_DIR\n", env.stdout);
    let run = || std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let output = run();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{at}/triton\n"));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let group = fs::read_to_string(root.path().join("at/triton/K/__grp__a.json")).unwrap();
    assert!(group.contains(&format!("{at}/triton/K/a")), "{group}");

    fs::remove_dir_all(root.path().join("mounted")).unwrap();
    let output = run();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("was not copied whole"));
}

#[test]
fn what_is_too_long_for_a_label_is_an_annotation() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("vllm");
    let keys: Vec<String> = (0..450).map(|key| format!("{key:010x}")).collect();
    for key in &keys {
        let graph = format!("torch_compile_cache/{key}/rank_0_0/backbone/computation_graph.py");
        write(&cache, &[(&graph, "x = 1\n")]);
    }
    let out = directory.path().join("out");
    let image = packed(&["--cache", &format!("vllm={}", cache.display()), "-o", &oci(&out)]);
    let document = |digest: &Value| -> Value {
        let path = out.join("blobs/sha256").join(&digest.as_str().unwrap()[7..]);
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let labels = &document(&image["config"]["digest"])["config"]["Labels"];
    for (name, value) in labels.as_object().unwrap() {
        assert!(name.len() + value.as_str().unwrap().len() <= 4096, "{name}");
    }
    let annotations = &document(&image["digest"])["annotations"];
    assert!(annotations["dev.starcar.caches"].as_str().unwrap().len() > 4096);
    assert_eq!(annotations["io.kserve.km/cache-hash"], keys.join(","));

    let shown = starcar(&["cache", "env", &oci(&out)]);
    assert!(shown.stdout.contains("VLLM_CACHE_ROOT"), "{} {}", shown.stdout, shown.stderr);
    let verified = starcar(&["verify", &oci(&out), "--format", "json"]);
    assert!(!verified.stdout.contains("cache-"), "{}", verified.stdout);
}
