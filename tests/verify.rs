//! `starcar verify` as users and pipelines meet it. What each rule finds is tested beside the rules and, on broken
//! images with their real consumers beside it, in tests/e2e.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{fs, path::Path};

use serde_json::Value;

use support::command::{Run, starcar};

const EXAMPLE: &str = "examples/tiny-llama";

/// Packs the example on no base, and returns the image's name.
fn packed(directory: &Path, arguments: &[&str]) -> String {
    let name = format!("oci:{}", directory.join("image").display());
    let run = starcar(&[&["pack", EXAMPLE, "--base", "scratch", "-o", &name][..], arguments].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    name
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", run.stdout, run.stderr))
}

fn codes(run: &Run) -> Vec<String> {
    let value = json(run);
    let findings = value["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

/// Replaces a text in the image's manifest or config, and makes everything else agree with it.
fn change(image: &str, which: &str, from: &str, to: &str) {
    let root = Path::new(image.strip_prefix("oci:").unwrap());
    let blob = |digest: &str| root.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let digest_of = |bytes: &[u8]| starcar::digest::Digest::of(bytes).to_string();
    let index_path = root.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&index_path).unwrap()).unwrap();
    let manifest_digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let mut manifest = fs::read_to_string(blob(&manifest_digest)).unwrap();
    if which == "config" {
        let value: Value = serde_json::from_str(&manifest).unwrap();
        let old = value["config"]["digest"].as_str().unwrap();
        let text = fs::read_to_string(blob(old)).unwrap();
        assert!(text.contains(from), "{text} lacks {from}");
        let config = text.replacen(from, to, 1);
        let new = digest_of(config.as_bytes());
        fs::write(blob(&new), &config).unwrap();
        let mut value = value.clone();
        value["config"]["digest"] = new.into();
        value["config"]["size"] = config.len().into();
        manifest = value.to_string();
    } else {
        assert!(manifest.contains(from), "{manifest} lacks {from}");
        manifest = manifest.replacen(from, to, 1);
    }
    let new = digest_of(manifest.as_bytes());
    fs::write(blob(&new), &manifest).unwrap();
    index["manifests"][0]["digest"] = new.into();
    index["manifests"][0]["size"] = manifest.len().into();
    fs::write(index_path, index.to_string()).unwrap();
}

#[test]
fn a_good_image_has_no_findings() {
    let directory = tempfile::tempdir().unwrap();
    let image = packed(directory.path(), &[]);
    let run = starcar(&["verify", &image]);
    assert_eq!(run.code, 0, "{}", run.stdout);
    insta::with_settings!({ filters => [(r"oci:\S+", "oci:IMAGE"), (r"sha256:[0-9a-f]{64}", "sha256:DIGEST")] }, {
        insta::assert_snapshot!(run.stdout);
    });
    let value = json(&starcar(&["verify", &image, "--format", "json"]));
    assert_eq!(value["findings"], Value::Array(Vec::new()));
    assert_eq!(value["depth"], "quick");
    assert_eq!(value["layers"].as_array().unwrap().len(), 4);
    // Manifest and config; footer and table of contents of each layer.
    assert_eq!(value["requests"], 2 + 2 * 4);
    let verdicts: Vec<(&str, &str)> = value["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|verdict| (verdict["use"].as_str().unwrap(), verdict["works"].as_str().unwrap()))
        .collect();
    assert_eq!(verdicts, [("lazy", "yes"), ("modelcar", "no"), ("native", "yes"), ("fetch", "no")]);
}

#[test]
fn an_image_of_zstd_chunked_is_good_in_every_mode() {
    let directory = tempfile::tempdir().unwrap();
    let image = packed(directory.path(), &["--layer-format", "zstd:chunked"]);
    for mode in [&[][..], &["--deep"], &["--against", EXAMPLE], &["--rebuild", EXAMPLE]] {
        let run = starcar(&[&["verify", &image, "--format", "json"], mode].concat());
        let value = json(&run);
        assert_eq!((run.code, &value["findings"]), (0, &Value::Array(Vec::new())), "{mode:?} {}", run.stderr);
        assert!(
            value["layers"].as_array().unwrap().iter().all(|layer| layer["format"] == "zstd:chunked"),
            "{value}"
        );
    }
    let fetch = starcar(&["verify", &image, "--for", "fetch", "--format", "json"]);
    assert_eq!((fetch.code, codes(&fetch)), (9, vec!["fetch-zstd".to_owned()]), "{}", fetch.stdout);
}

#[test]
fn images_of_plain_tar_are_judged_by_what_they_are_for() {
    let directory = tempfile::tempdir().unwrap();
    let image = packed(directory.path(), &["--layer-format", "tar"]);
    let run = starcar(&["verify", &image]);
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(run.stdout.contains("nothing found"), "{}", run.stdout);
    let lazy = starcar(&["verify", &image, "--for", "lazy", "--format", "json"]);
    assert_eq!((lazy.code, codes(&lazy)), (10, vec!["image-not-lazy".to_owned()]), "{}", lazy.stdout);
    assert_eq!(json(&lazy)["verdicts"][0]["works"], "no");
}

#[test]
fn the_exit_code_tells_the_worst() {
    let directory = tempfile::tempdir().unwrap();
    let image = packed(directory.path(), &[]);
    change(&image, "config", r#""User":"1010:0""#, r#""User":"model""#);
    let code = |arguments: &[&str]| starcar(&[&["verify", &image], arguments].concat()).code;
    // Without a shell no modelcar is meant to run, and a user is nothing to a volume.
    assert_eq!(code(&[]), 0);
    assert_eq!(code(&["--fail-on", "note"]), 10);
    assert_eq!(code(&["--for", "modelcar"]), 9);
    assert_eq!(code(&["--for", "modelcar", "--fail-on", "never"]), 0);
    change(&image, "config", r#""Cmd""#, r#""Entrypoint":["/bin/serve"],"Cmd""#);
    assert_eq!(codes(&starcar(&["verify", &image, "--format", "json"])), ["entrypoint-set", "user-name"]);
    change(&image, "manifest", "toc.digest", "toc.digested");
    assert_eq!(code(&[]), 10);
    assert_eq!(code(&["--fail-on", "error"]), 0);
    assert_eq!(code(&["--for", "native"]), 0);
}

#[test]
fn findings_are_told_with_what_follows_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let image = packed(directory.path(), &[]);
    change(&image, "config", r#""Cmd""#, r#""Entrypoint":["/bin/\u001b[2Jserve"],"Cmd""#);
    let run = starcar(&["verify", &image, "--for", "modelcar"]);
    assert_eq!(run.code, 9, "{}", run.stdout);
    insta::with_settings!({ filters => [(r"oci:\S+", "oci:IMAGE"), (r"sha256:[0-9a-f]{64}", "sha256:DIGEST")] }, {
        insta::assert_snapshot!(run.stdout);
    });
}

#[test]
fn sarif_names_rules_and_places() {
    let directory = tempfile::tempdir().unwrap();
    let image = packed(directory.path(), &[]);
    change(&image, "manifest", "toc.digest", "toc.digested");
    let log = json(&starcar(&["verify", &image, "--format", "sarif"]));
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let result = &run["results"][0];
    assert_eq!(result["ruleId"], "toc-annotation-missing");
    assert_eq!(result["level"], "warning");
    let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
    assert_eq!(run["tool"]["driver"]["rules"][index]["id"], "toc-annotation-missing");
    assert_eq!(result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"], "layer 1");
    assert!(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].is_string());
}

#[test]
fn a_pack_can_verify_what_it_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let image = format!("oci:{}", directory.path().join("image").display());
    let run = starcar(&["pack", EXAMPLE, "--base", "scratch", "-o", &image, "--verify"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains(": nothing found"), "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 1);
}

#[test]
fn packing_again_gives_the_same_image() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        ["--estargz-chunk-size", "64KiB", "--prefetch", "small", "--timestamp", "7", "--exclude", "*.txt"];
    let image = packed(directory.path(), &options);
    let rebuild = |snapshot: &str| starcar(&["verify", &image, "--rebuild", snapshot, "--format", "json"]);
    let run = rebuild(EXAMPLE);
    assert_eq!((run.code, codes(&run)), (0, Vec::new()), "{}", run.stderr);

    let copy = directory.path().join("model");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(EXAMPLE).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    fs::write(copy.join("config.json"), "{}").unwrap();
    let run = rebuild(copy.to_str().unwrap());
    assert_eq!((run.code, codes(&run)), (9, vec!["rebuild-layer".to_owned()]), "{}", run.stderr);

    change(&image, "manifest", "pack.options", "pack.opinions");
    let run = rebuild(EXAMPLE);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("does not say how it was packed"), "{}", run.stderr);
}

#[test]
fn what_is_not_there_is_an_error_and_no_finding() {
    let directory = tempfile::tempdir().unwrap();
    let image = packed(directory.path(), &[]);
    assert_eq!(starcar(&["verify", "oci:/nonexistent"]).code, 5);
    assert_eq!(starcar(&["verify", &format!("{image}:v9")]).code, 5);
    assert_eq!(starcar(&["verify", &image, "--for", "nothing"]).code, 2);
    assert_eq!(starcar(&["verify", &image, "--base", "scratch"]).code, 2);
}

#[test]
fn every_byte_is_read_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let image = packed(directory.path(), &[]);
    let run = starcar(&["verify", &image, "--deep", "--format", "json"]);
    let value = json(&run);
    assert_eq!((run.code, codes(&run)), (0, Vec::new()));
    assert_eq!(value["depth"], "deep");
    assert!(value["bytes"].as_u64() > value["size"].as_u64());

    // One byte of the largest layer, far from what quick looks at.
    let blobs = Path::new(image.strip_prefix("oci:").unwrap()).join("blobs/sha256");
    let blobs = fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap().path());
    let largest = blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    assert_eq!(starcar(&["verify", &image]).code, 0);
    let run = starcar(&["verify", &image, "--deep", "--format", "json"]);
    assert_eq!(run.code, 9);
    assert!(codes(&run).contains(&"blob-digest".to_owned()), "{}", run.stdout);
}

#[test]
fn images_are_compared_with_their_snapshots() {
    let directory = tempfile::tempdir().unwrap();
    let image = packed(directory.path(), &["--exclude", "README.md"]);
    let against = |snapshot: &Path| {
        starcar(&["verify", &image, "--against", snapshot.to_str().unwrap(), "--format", "json"])
    };
    let run = against(Path::new(EXAMPLE));
    assert_eq!((run.code, codes(&run)), (0, Vec::new()), "{}", run.stdout);
    let copy = directory.path().join("model");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(EXAMPLE).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let same_size = vec![b' '; fs::read(copy.join("config.json")).unwrap().len()];
    fs::write(copy.join("config.json"), same_size).unwrap();
    fs::write(copy.join("new.json"), "{}").unwrap();
    fs::remove_file(copy.join("tokenizer_config.json")).unwrap();
    let run = against(&copy);
    let mut found = codes(&run);
    found.sort_unstable();
    assert_eq!(
        (run.code, found.as_slice()),
        (9, &["source-differs", "source-extra", "source-missing"].map(String::from)[..])
    );
    assert_eq!(against(&directory.path().join("none")).code, 3);
}
