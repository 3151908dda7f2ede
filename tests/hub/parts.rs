//! Workers that download an image's files by themselves: each its own share.

use std::{
    fs,
    process::{Command, Output},
};

use crate::harness::*;

const LARGE: usize = 9 << 20;

fn run(bench: &Bench, home: &str, arguments: &[&str]) -> Output {
    let home = bench.home.path().join(home);
    fs::create_dir_all(&home).unwrap();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("starcar"));
    let output = command
        .args(arguments)
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_HOME", &home)
        .env("HF_ENDPOINT", bench.hub.endpoint())
        .env("HF_TOKEN", TOKEN)
        .env("STARCAR_DIGEST_CACHE", "")
        .env("NO_COLOR", "1")
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn a_worker_downloads_its_share() {
    let mut files = model();
    files.push(("a/model.safetensors", safetensors(&noise(LARGE, 5))));
    files.push(("b/model.safetensors", safetensors(&noise(LARGE, 6))));
    let bench = Bench::new(HubOptions { files, ..HubOptions::default() });
    let layout = |name: &str| format!("oci:{}:v1", bench.home.path().join(name).display());
    let pack = |home: &str, arguments: &[&str]| {
        let fixed = ["pack", "hf://acme/tiny", "--base", "scratch", "--profile", "none", "-q"];
        run(&bench, home, &[&fixed[..], arguments].concat())
    };
    let alone = pack("alone", &["-o", &layout("one")]);
    let mut whole = Vec::new();
    for part in ["1/2", "2/2"] {
        bench.hub.forget();
        pack(part, &["--part", part, "-o", &layout("shared")]);
        let of_large = |path: &str| {
            bench.hub.blobs().iter().filter(|seen| seen.path.contains(path) && seen.range.is_none()).count()
        };
        let of_both = [of_large("a/model.safetensors"), of_large("b/model.safetensors")];
        assert_eq!(of_both.iter().sum::<usize>(), 1, "{part}: {of_both:?}");
        whole.push(of_both);
        // Half a snapshot would look whole to others: there is none.
        let cache = bench.home.path().join(part).join("hub/models--acme--tiny");
        assert!(!cache.join("snapshots").exists());
    }
    assert_ne!(whole[0], whole[1]);
    let assembled = run(&bench, "alone", &["assemble", "-q", "-o", &layout("shared")]);
    assert_eq!(assembled.stdout, alone.stdout);
    let (one, shared) = (bench.home.path().join("one"), bench.home.path().join("shared"));
    assert!(files_below(&one) == files_below(&shared));
}

#[test]
fn no_secret_of_a_private_hub_is_told() {
    let bench = Bench::new(HubOptions { files: model(), ..HubOptions::default() });
    let path = |name: &str| bench.home.path().join(name).display().to_string();
    let to = |name: &str| format!("oci:{}:v1", path(name));
    for directory in ["one", "shared"] {
        fs::create_dir(bench.home.path().join(directory)).unwrap();
    }
    let documents = |name: &str| {
        let [provenance, sbom] = ["p", "s"].map(|kind| path(&format!("{name}.{kind}.json")));
        ["--provenance".to_owned(), provenance, "--sbom".to_owned(), sbom]
    };
    let pack = |home: &str, arguments: &[&str]| {
        let fixed = ["pack", "hf://acme/tiny@main", "--base", "scratch", "-q"];
        run(&bench, home, &[&fixed[..], arguments].concat())
    };
    let of_pack = documents("alone");
    pack("alone", &[&["-o", &to("one/image")], &of_pack.each_ref().map(String::as_str)[..]].concat());
    for part in ["1/2", "2/2"] {
        pack(part, &["--part", part, "-o", &to("shared/image")]);
    }
    let of_parts = documents("shared");
    let assemble = ["assemble", "-q", "--keep-parts", "-o", &to("shared/image")];
    run(&bench, "alone", &[&assemble, &of_parts.each_ref().map(String::as_str)[..]].concat());
    let mut told = Vec::new();
    for kind in ["p", "s"] {
        let [one, shared] =
            ["alone", "shared"].map(|name| fs::read_to_string(path(&format!("{name}.{kind}.json"))).unwrap());
        assert_eq!(one, shared);
        // The commit is told, and not the public hub's address for it.
        assert!(one.contains(COMMIT) && !one.contains("hf://acme/tiny@0"), "{one}");
        told.push(one);
    }
    // A name and password in the endpoint are of no use, and told as little.
    let snapshot = bench.home.path().join("alone/hub/models--acme--tiny");
    let of_local = documents("local");
    let address = bench.hub.endpoint().trim_start_matches("http://");
    let output = Command::new(assert_cmd::cargo::cargo_bin!("starcar"))
        .args(["pack", "-q", "--base", "scratch", "-o", &to("local")])
        .arg(&snapshot)
        .args(&of_local)
        .env("HF_ENDPOINT", format!("http://jane:{TOKEN}@{address}"))
        .env("STARCAR_DIGEST_CACHE", "")
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    told.extend([&of_local[1], &of_local[3]].map(|path| fs::read_to_string(path).unwrap()));
    assert!(told[2].contains(COMMIT) && !told[2].contains("hf://"), "{}", told[2]);
    // Neither documents nor parts: those go to registries.
    let blobs = files_below(&bench.home.path().join("shared"));
    let parts = blobs.values().map(|content| String::from_utf8_lossy(content).into_owned());
    let parts: Vec<String> = parts.filter(|text| text.contains("\"madeOf\"")).collect();
    assert_eq!(parts.len(), 2);
    for text in told.iter().chain(&parts) {
        for secret in [TOKEN, "jane", address, bench.home.path().to_str().unwrap()] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}
