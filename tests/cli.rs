//! The command as users and pipelines meet it: output, exit codes, destinations, refusals. The bundled
//! example is packed; a busybox is not needed, a stand-in of a few hundred bytes passes for one.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use support::{
    command::{Run, starcar},
    registry::{Act, Effect, FakeOptions, FakeRegistry, Fault, Ranges, Reply, When},
};

const EXAMPLE: &str = "examples/tiny-llama";

fn pack(arguments: &[&str]) -> Run {
    starcar(&[&["pack"], arguments].concat())
}

fn target(directory: &Path, name: &str) -> String {
    format!("oci:{}", directory.join(name).display())
}

fn layers(run: &Run) -> Vec<String> {
    let value: Value = serde_json::from_str(&run.stdout).unwrap();
    let layers = value["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

fn copy_example(to: &Path) -> PathBuf {
    let copy = to.join("model");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

/// The golden digests of the example: as in `tests/layers.rs`, a promise.
#[test]
fn the_example_has_the_digests_of_earlier_versions() {
    let directory = tempfile::tempdir().unwrap();
    for (format, expected) in [
        ("estargz", include_str!("golden/example.estargz")),
        ("zstd:chunked", include_str!("golden/example.zstd-chunked")),
        ("tar", include_str!("golden/example.tar")),
    ] {
        for threads in ["1", "2", "5"] {
            let out = target(directory.path(), &format!("{}-{threads}", format.replace(':', "-")));
            let arguments = [EXAMPLE, "--base", "scratch", "-o", &out, "--layer-format", format];
            let run = pack(&[&arguments[..], &["--format", "json", "--threads", threads]].concat());
            assert_eq!(run.code, 0, "{}", run.stderr);
            assert_eq!(layers(&run).join("\n"), expected.trim_end(), "{format}");
        }
    }
}

#[test]
fn the_digest_is_all_that_a_quiet_pack_says() {
    let directory = tempfile::tempdir().unwrap();
    let metadata = directory.path().join("metadata.json");
    let out = target(directory.path(), "out:v1");
    let run = pack(&[
        EXAMPLE,
        "--base",
        "scratch",
        "-o",
        &out,
        "--quiet",
        "--metadata-file",
        metadata.to_str().unwrap(),
    ]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    assert_eq!(run.stdout.trim_end(), metadata["containerimage.digest"].as_str().unwrap());
    let index: Value =
        serde_json::from_slice(&fs::read(directory.path().join("out/index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], metadata["digest"]);
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "v1");
}

#[test]
fn a_dry_run_explains_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let out = target(directory.path(), "out");
    let run = pack(&[EXAMPLE, "--base", "scratch", "-o", &out, "--dry-run", "--max-layers", "3"]);
    assert_eq!(run.code, 0);
    insta::assert_snapshot!(run.stdout);
    assert!(!directory.path().join("out").exists());
}

#[test]
fn layouts_archives_and_registries_hold_the_same_image() {
    let directory = tempfile::tempdir().unwrap();
    let registry = FakeRegistry::open();
    let (out, archive) = (
        target(directory.path(), "out"),
        format!("oci-archive:{}", directory.path().join("image.tar").display()),
    );
    let name = format!("{}/models/tiny:v1", registry.address());
    let both = pack(&[EXAMPLE, "--base", "scratch", "-o", &out, "-o", &archive, "-t", &name, "--push"]);
    assert_eq!(both.code, 0, "{}", both.stderr);

    let other = format!("{}/models/other:v1", registry.address());
    let direct = pack(&[EXAMPLE, "--base", "scratch", "-t", &other, "--push"]);
    assert_eq!((direct.code, &direct.stdout), (0, &both.stdout), "{}", direct.stderr);
    let third = format!("{}/models/third:v1", registry.address());
    let pushed = starcar(&["push", &out, &third]);
    assert_eq!((pushed.code, &pushed.stdout), (0, &both.stdout), "{}", pushed.stderr);

    let digest = both.stdout.trim_end();
    for image in [&out, &archive, &name, &other, &third] {
        let inspected = starcar(&["inspect", image, "--format", "json"]);
        let value: Value = serde_json::from_str(&inspected.stdout).unwrap();
        assert_eq!(value["digest"], digest, "{image}");
        let layers = value["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 4);
        for layer in layers {
            assert!(layer["lazy"]["Ok"]["chunks"].as_u64().unwrap() >= 2, "{image}: {layer}");
        }
    }
    // Inspecting through a registry reads tables of contents, not weights.
    assert!(starcar(&["inspect", &name]).stdout.contains("models/model-00001-of-00003.safetensors"));
}

#[test]
fn a_push_of_zstd_layers_goes_on_in_the_middle_of_a_blob() {
    let fault = Fault { times: 4, ..Fault::always("PUT", "/uploads/", Effect::CloseAfter(50_000)) };
    let fake = FakeRegistry::start(FakeOptions { faults: vec![fault], ..FakeOptions::default() });
    let name = format!("{}/models/tiny:v1", fake.address());
    let run = pack(&[EXAMPLE, "--base", "scratch", "-t", &name, "--push", "--layer-format", "zstd:chunked"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let inspected = starcar(&["inspect", &name, "--format", "json"]);
    let value: Value = serde_json::from_str(&inspected.stdout).unwrap();
    let size = value["size"].as_u64().unwrap();
    assert!(value["layers"].as_array().unwrap().iter().all(|layer| layer["lazy"].is_object()), "{value}");
    // A layer has more bytes than its first connection took; none is sent twice.
    let pieces = fake.seen().iter().filter(|seen| seen.is_upload() && seen.body == 50_000).count();
    assert!(pieces >= 1 && fake.uploaded() < size + size / 10, "{pieces} {} {size}", fake.uploaded());
    let run = starcar(&["verify", "--deep", &name]);
    assert!(run.code == 0 && run.stdout.contains("nothing found"), "{}", run.stdout);
}

#[test]
fn layers_that_nodes_cannot_read_are_found_before_the_name_is_given() {
    let push = |effect: Effect| {
        let fake = FakeRegistry::start(FakeOptions {
            faults: vec![Fault::always("GET", "/blobs/sha256", effect)],
            ..FakeOptions::default()
        });
        let name = format!("{}/models/tiny:v1", fake.address());
        let run = pack(&[EXAMPLE, "--base", "scratch", "-t", &name, "--push"]);
        (run, fake.tags("models/tiny"))
    };
    // All layers are in the way of the first one's failure, which must not make the others wait.
    let (run, tags) = push(Effect::WrongBytes);
    assert_eq!((run.code, tags.len()), (6, 0), "{}", run.stderr);
    assert!(run.stderr.contains("sha256:"), "{}", run.stderr);
    let (run, tags) = push(Effect::At(When::BeforeBody, Act::Reply(Reply::status(403))));
    assert_eq!((run.code, tags.len()), (0, 1), "{}", run.stderr);
    assert!(run.stderr.contains("warning: whether nodes can mount"), "{}", run.stderr);
    // Told before anything is hashed.
    let fake = FakeRegistry::start(FakeOptions { ranges: Ranges::Ignored, ..FakeOptions::default() });
    let run = pack(&[EXAMPLE, "--base", "scratch", "-t", &format!("{}/tiny:v1", fake.address()), "--push"]);
    let warning = run.stderr.find("ranges are ignored: nodes have to pull the whole image");
    assert!(run.code == 0 && warning < run.stderr.find("packing") && warning.is_some(), "{}", run.stderr);
}

#[test]
fn a_second_pack_adds_to_a_layout() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = || fs::read_dir(directory.path().join("out/blobs/sha256")).unwrap().count();
    let (one, two) = (target(directory.path(), "out:v1"), target(directory.path(), "out:v2"));
    assert_eq!(pack(&[EXAMPLE, "--base", "scratch", "-o", &one]).code, 0);
    let first = blobs();
    assert_eq!(pack(&[EXAMPLE, "--base", "scratch", "-o", &one]).code, 0);
    assert_eq!(blobs(), first);
    assert_eq!(pack(&[EXAMPLE, "--base", "scratch", "-o", &two, "--exclude", "chat_template.jinja"]).code, 0);
    // The small files' layer, the config and the manifest are new; the shards' layers are shared.
    assert_eq!(blobs(), first + 3);
}

#[test]
fn tags_of_layouts_are_given_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let out = target(directory.path(), "images");
    let index = directory.path().join("images/index.json");
    let tagged = |arguments: &[&str]| {
        let run = pack(&[&[EXAMPLE, "--base", "scratch", "-o", &out], arguments].concat());
        (run.code, run.stderr, fs::read_to_string(&index).unwrap())
    };
    let names = ["-t", "registry.example.com/a:one", "-t", "registry.example.com/a:two"];
    let (code, stderr, first) = tagged(&names);
    assert!(code == 0 && first.contains("\"one\"") && first.contains("\"two\""), "{stderr}{first}");
    let (code, _, again) = tagged(&[&names[..], &["--no-clobber"]].concat());
    assert_eq!((code, &again), (0, &first), "the same image is no change");
    let other = ["--layer-format", "tar", "--no-clobber"];
    let (code, stderr, kept) = tagged(&[&names[..], &other].concat());
    assert_eq!((code, &kept), (6, &first));
    assert!(stderr.contains("images:one names sha256:") && stderr.contains("--force"), "{stderr}");
    let (code, _, moved) = tagged(&[&names[..], &other, &["--force"]].concat());
    assert!(code == 0 && moved != first, "{moved}");
}

#[test]
fn damage_is_refused_and_leaves_no_image() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_example(directory.path());
    let shard = model.join("model-00002-of-00003.safetensors");
    let out = target(directory.path(), "out");
    let bytes = fs::read(&shard).unwrap();
    for damage in ["truncated", "missing"] {
        match damage {
            "truncated" => fs::write(&shard, &bytes[..bytes.len() - 1]).unwrap(),
            _ => fs::remove_file(&shard).unwrap(),
        }
        let run = pack(&[model.to_str().unwrap(), "--base", "scratch", "-o", &out]);
        assert_eq!(run.code, 3, "{}", run.stderr);
        assert!(run.stderr.contains("model-00002-of-00003.safetensors"), "{}", run.stderr);
        assert!(run.stdout.is_empty());
        assert!(!directory.path().join("out/index.json").exists());
    }
}

/// What packing a snapshot into itself gives, run by run.
fn packed_into_itself(model: &Path, outputs: &[&str]) -> Vec<(String, String)> {
    let digest = |output: &&str| {
        let run = pack(&[model.to_str().unwrap(), "--base", "scratch", "-o", output]);
        assert_eq!(run.code, 0, "{output}: {}", run.stderr);
        (run.stdout.trim_end().to_owned(), run.stderr)
    };
    outputs.iter().map(digest).collect()
}

#[test]
fn an_image_inside_the_snapshot_is_no_part_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_example(directory.path());
    let expected = packed_into_itself(&model, &[&target(directory.path(), "elsewhere:v1")])[0].0.clone();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&model, &link).unwrap();
    let archive = |name: &str| format!("oci-archive:{}", model.join(name).display());
    let (layout, linked) = (target(&model, "image:v1"), target(&link, "image:v2"));
    let outputs = [layout.as_str(), &layout, &linked, &archive("a.tar"), &archive("a.tar")];
    let runs = packed_into_itself(&model, &outputs);
    for (output, (digest, said)) in outputs.iter().zip(&runs) {
        assert_eq!(digest, &expected, "{output}: {said}");
    }
    assert!(!runs[0].1.contains("left out image"), "{}", runs[0].1);
    // So are documents about it.
    let document = |name: &str| model.join(name).display().to_string();
    for _ in 0..2 {
        let run = pack(&[
            model.to_str().unwrap(),
            "--base",
            "scratch",
            "-o",
            &layout,
            "-o",
            &archive("a.tar"),
            "--metadata-file",
            &document("m.json"),
            "--provenance",
            &document("p.json"),
            "--sbom",
            &document("s.json"),
        ]);
        assert_eq!((run.code, run.stdout.trim_end()), (0, expected.as_str()), "{}", run.stderr);
    }
    for name in ["m.json", "p.json", "s.json"] {
        fs::remove_file(document(name)).unwrap();
    }
    for run in &runs[1..3] {
        assert!(run.1.contains("left out image/: this command itself writes"), "{}", run.1);
    }
    // A layout that this run does not name is one all the same.
    assert!(runs[4].1.contains("left out image/ (") && runs[4].1.contains("an OCI layout"), "{}", runs[4].1);
    let size = fs::metadata(model.join("a.tar")).unwrap().len();
    let said = format!("left out a.tar ({size} bytes): this command itself writes");
    assert!(runs[4].1.contains(&said), "{}", runs[4].1);

    // A plan shows what a pack would hold; who names a layout gets it, but never the place of the image itself.
    let model = model.to_str().unwrap();
    let plan = |more: &[&str]| {
        let run = pack(&[&[model, "--base", "scratch", "--dry-run"], more].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout
    };
    assert!(!plan(&["-o", &layout, "-o", &archive("a.tar")]).contains("blobs"));
    assert!(plan(&["--include", "image/*"]).contains("image/blobs"));
    let run = pack(&[model, "--base", "scratch", "-o", &layout, "--include", "image/*"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    let run = starcar(&["verify", &archive("a.tar"), "--against", model]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let run = starcar(&["verify", &archive("a.tar"), "--rebuild", model, "--base", "scratch"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}

#[test]
fn what_no_engine_can_start_from_is_refused_or_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_example(directory.path());
    let model = model.to_str().unwrap();
    let out = target(directory.path(), "out");
    for (config, words) in [("", "it is empty"), ("404: Not Found", "no JSON object"), ("{\"a\": ", "EOF")] {
        fs::write(format!("{model}/config.json"), config).unwrap();
        for arguments in [&["-o", &out][..], &["--dry-run"]] {
            let run = pack(&[&[model, "--base", "scratch"], arguments].concat());
            assert_eq!(run.code, 3, "{config}: {}", run.stderr);
            let said = run.stderr.contains("config.json` is no model's configuration");
            assert!(said && run.stderr.contains(words), "{}", run.stderr);
        }
    }
    let weightless = "has no weights to pack";
    let run = pack(&[model, "--base", "scratch", "-o", &out, "--exclude", "config.json"]);
    assert!(run.code == 0 && !run.stderr.contains(weightless), "{}", run.stderr);
    let run = pack(&[model, "--base", "scratch", "-o", &out, "--include", "tokenizer*"]);
    assert!(run.code == 0 && run.stderr.contains(weightless), "{}", run.stderr);
}

#[test]
fn names_that_would_delete_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_example(directory.path());
    fs::write(model.join(".wh.config.json"), "").unwrap();
    let out = target(directory.path(), "out");
    let run = pack(&[model.to_str().unwrap(), "--base", "scratch", "-o", &out]);
    assert_eq!(run.code, 3);
    assert!(run.stderr.contains(".wh.config.json"), "{}", run.stderr);
}

#[test]
fn wrong_arguments_say_what_would_be_right() {
    let cases: [(&[&str], i32, &str); 15] = [
        (&["pack", EXAMPLE], 2, "--output oci:DIR"),
        (&["pack", EXAMPLE, "--push"], 2, "--tag"),
        (&["pack", EXAMPLE, "-o", "registry.example.com/a:b"], 2, "--push"),
        (&["pack", EXAMPLE, "-o", "oci:a", "-o", "oci:b"], 2, "one oci: directory"),
        (&["pack", EXAMPLE, "-t", "a@sha256:0", "--push"], 2, "names no image"),
        (&["pack", EXAMPLE, "-o", "oci:a", "--model-dir", "/"], 2, "/models"),
        (
            &["pack", EXAMPLE, "-o", "oci:a", "--base", "scratch", "--estargz-chunk-size", "1"],
            2,
            "chunk size",
        ),
        (&["pack", "no/such/model/here", "-o", "oci:a", "--base", "scratch"], 3, "no/such/model/here"),
        (&["pack", EXAMPLE, "-o", "oci:a", "--metadata-file", "/no/such/m.json"], 2, "/no/such"),
        (&["pack", EXAMPLE, "-o", "oci:a", "--timestamp", "253402300800"], 2, "253402300800"),
        (&["pack", EXAMPLE, "-o", "oci:a", "--model-dir", "/dev/shm/model"], 2, "its own /dev"),
        (&["pack", EXAMPLE, "-o", "oci:a", "--platform", "windows/amd64"], 2, "containers of Linux"),
        (&["cache", "inspect", "/nonexistent/cache"], 8, "`/nonexistent/cache` does not exist"),
        (&["cache", "check", "nothing-here", "--gpu", "h100"], 8, "no directory or file `nothing-here`"),
        (&["inspect", "oci:Cargo.toml"], 5, "not an OCI layout"),
    ];
    for (arguments, code, words) in cases {
        let run = starcar(arguments);
        assert_eq!(run.code, code, "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{arguments:?}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_unreachable_registry_has_its_own_code() {
    // Port 9 of the loopback address is closed wherever nobody runs `discard`.
    let run = pack(&[EXAMPLE, "--base", "scratch", "-t", "127.0.0.1:9/a:v1", "--push"]);
    assert_eq!(run.code, 6, "{}", run.stderr);
    assert!(run.stderr.contains("127.0.0.1:9"), "{}", run.stderr);
    let run = pack(&[EXAMPLE, "--base", "127.0.0.1:9/base:v1", "-o", "oci:unused"]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert!(run.stderr.contains("--base"), "{}", run.stderr);
}

#[test]
fn help_lists_the_exit_codes() {
    let run = starcar(&["--help"]);
    assert_eq!(run.code, 0);
    assert!(run.stdout.contains("Exit codes") && run.stdout.contains("pack"));
}

#[test]
fn exit_codes_say_whose_fault_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let out = target(directory.path(), "out");
    let missing = format!("oci:{}", directory.path().join("missing").display());
    for (code, arguments) in [
        (2, vec![EXAMPLE, "--base", "scratch", "-o", &out, "--include", "["]),
        (2, vec![EXAMPLE, "--base", "scratch", "-o", &out, "--profile", "nonsense"]),
        (3, vec!["/missing", "--base", "scratch", "-o", &out]),
        (4, vec![EXAMPLE, "--base", &missing, "-o", &out]),
        (7, vec![EXAMPLE, "--base", "scratch", "-o", &out, "--profile", "./Cargo.toml"]),
    ] {
        let run = pack(&arguments);
        assert_eq!(run.code, code, "{arguments:?}: {}", run.stderr);
    }
    assert!(!directory.path().join("out").exists());
}
