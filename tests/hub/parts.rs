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
