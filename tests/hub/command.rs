//! The command as users run it.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use starcar::snapshot::SnapshotOptions;

use crate::harness::*;

fn command(bench: &Bench) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("starcar"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("HF_") || name.starts_with("HUGGING")) {
            command.env_remove(name);
        }
    }
    command
        .env("HF_HOME", bench.home.path())
        .env("HF_ENDPOINT", bench.hub.endpoint())
        .env("STARCAR_DIGEST_CACHE", "")
        .env("STARCAR_REGISTRY_MEMORY", "")
        .env("NO_COLOR", "1")
        .env_remove("SOURCE_DATE_EPOCH");
    command
}

fn pack(bench: &Bench, snapshot: &str, image: &Path) -> Command {
    let mut command = command(bench);
    command
        .args(["pack", snapshot, "--base", "scratch", "--retries", "1", "-o"])
        .arg(format!("oci:{}", image.display()));
    command
}

fn code_and_words(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn an_image_is_that_of_the_snapshot_in_the_cache() {
    let bench = Bench::with(Vec::new());
    let image = bench.home.path().join("image");
    let from_hub = pack(&bench, "hf://acme/tiny", &image).output().unwrap();
    let (code, words) = code_and_words(&from_hub);
    assert_eq!(code, 0, "{words}");
    for expected in [
        "downloading ",
        "of hf://acme/tiny, 5 files",
        "downloaded config.json 3 B",
        "left out pytorch_model.bin",
    ] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    bench.assert_complete();
    bench.hub.forget();
    let snapshot = bench.snapshot();
    let from_directory = pack(&bench, snapshot.to_str().unwrap(), &image).output().unwrap();
    assert_eq!(from_directory.stdout, from_hub.stdout);
    assert_eq!(bench.hub.seen().len(), 0);
    let again = pack(&bench, "hf://acme/tiny@main", &image).arg("--revision=main").output().unwrap();
    assert_eq!(again.stdout, from_hub.stdout);
    assert_eq!(bench.hub.blobs().len(), 0);
    // The globs match files that nobody downloaded, and that is no mistake.
    let words = code_and_words(
        &pack(&bench, "hf://acme/tiny", &image).args(["--exclude", "*.bin"]).output().unwrap(),
    )
    .1;
    assert!(!words.contains("warning"), "{words}");
}

#[test]
fn a_plan_needs_no_weights() {
    const LARGE: usize = 9 << 20;
    let mut files = model();
    files.push(("large/model.safetensors", safetensors(&vec![1; LARGE])));
    files.push(("speakers.pth", noise(LARGE, 4)));
    let bench = Bench::new(HubOptions { files, ..HubOptions::default() });
    let temporary = bench.home.path().join("temporary");
    fs::create_dir(&temporary).unwrap();
    let plan = |snapshot: &str| {
        let mut command = command(&bench);
        command.env("TMPDIR", &temporary).args(["plan", snapshot, "--base", "scratch", "--format", "json"]);
        let output = command.output().unwrap();
        let (code, words) = code_and_words(&output);
        assert_eq!(code, 0, "{words}");
        assert!(words.contains("left out pytorch_model.bin"), "{words}");
        String::from_utf8(output.stdout).unwrap()
    };
    let from_hub = plan("hf://acme/tiny");
    let large = |seen: &Seen| seen.path.contains("large/") || seen.path.ends_with("speakers.pth");
    let of_large: Vec<Seen> = bench.hub.blobs().into_iter().filter(large).collect();
    assert_eq!(of_large.len(), 5, "{of_large:?}");
    for seen in of_large {
        let range = seen.range.unwrap();
        let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (start, end): (u64, u64) = (start.parse().unwrap(), end.parse().unwrap());
        assert!(end - start < 64 << 10, "{range}");
    }
    assert!(!bench.snapshot().exists());
    assert_eq!(names(&temporary), Vec::<String>::new());
    // The same plan as that of the files themselves, whether some of them are in the cache or all.
    fs::rename(bench.repository().join("blobs").join(bench.hub.etag(SHARD)), bench.partial(SHARD)).unwrap();
    bench.fetch().unwrap();
    bench.hub.forget();
    assert_eq!(plan("hf://acme/tiny"), from_hub);
    assert_eq!(bench.hub.blobs().len(), 0);
    fs::remove_file(bench.snapshot().join("config.json")).unwrap();
    assert_eq!(plan("hf://acme/tiny"), from_hub);
    assert_eq!(bench.hub.blobs().len(), 0);
}

#[test]
fn a_plan_of_compressed_weights_has_their_samples() {
    const LARGE: usize = 9 << 20;
    // Half of it shrinks, and neither the holes of a stand-in nor the three samples of other files say how well.
    let large: Vec<u8> =
        (0..LARGE).zip(noise(LARGE, 5)).map(|(at, byte)| if at % 2 == 0 { byte } else { 0 }).collect();
    let mut files = model();
    files.push(("large/model.safetensors", safetensors(&large)));
    files.push(("large/same.bin", safetensors(&large)));
    files.push(("speakers.pth", large));
    let bench = Bench::new(HubOptions { files, ..HubOptions::default() });
    let plan = || {
        let mut command = command(&bench);
        command.args([
            "plan",
            "hf://acme/tiny",
            "--base",
            "scratch",
            "--format",
            "json",
            "--compress-weights",
        ]);
        let output = command.args(["--include", "*"]).output().unwrap();
        let (code, words) = code_and_words(&output);
        assert_eq!(code, 0, "{words}");
        String::from_utf8(output.stdout).unwrap()
    };
    let from_hub = plan();
    assert!(!bench.snapshot().exists());
    let all = SnapshotOptions { include: vec!["*".to_owned()], ..SnapshotOptions::default() };
    bench.fetch_as("hf://acme/tiny", &all, &[]).unwrap();
    bench.hub.forget();
    assert_eq!(plan(), from_hub);
    assert_eq!(bench.hub.blobs().len(), 0);
}

#[test]
fn a_killed_download_goes_on_at_its_byte() {
    const CUT: usize = 100_000;
    let bench = Bench::with(vec![Fault::first(SHARD, 1, Effect::StallAfter(CUT))]);
    let image = bench.home.path().join("image");
    let mut killed = pack(&bench, "hf://acme/tiny", &image).stderr(Stdio::null()).spawn().unwrap();
    let length = || fs::metadata(bench.partial(SHARD)).map_or(0, |found| found.len());
    while length() < CUT as u64 {
        assert!(killed.try_wait().unwrap().is_none(), "it ended by itself");
        sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!bench.snapshot().exists());
    bench.hub.forget();
    let (code, words) = code_and_words(&pack(&bench, "hf://acme/tiny", &image).output().unwrap());
    assert_eq!(code, 0, "{words}");
    assert!(words.contains(&format!("going on with {SHARD} after 97.6 KiB")), "{words}");
    let ranges: Vec<_> = bench
        .hub
        .blobs()
        .into_iter()
        .filter(|seen| seen.path.ends_with(SHARD))
        .map(|seen| seen.range)
        .collect();
    assert_eq!(ranges.len(), 1);
    assert!(ranges[0].as_ref().unwrap().starts_with(&format!("bytes={CUT}-")), "{ranges:?}");
    bench.assert_complete();
}

#[test]
fn errors_have_codes_and_next_steps() {
    let gated = Effect::Answer(403, vec![("x-error-code", "GatedRepo".to_owned())]);
    let limited = Effect::Answer(429, vec![("retry-after", "0".to_owned())]);
    for (fault, snapshot, code, says) in [
        (None, "hf://acme/nothing", 3, "set HF_TOKEN"),
        (None, "hf://acme/tiny@nothing", 3, "no revision `nothing`"),
        (None, "hf://acme/tiny/nothing", 2, "hint: "),
        (Some(Fault::always("/resolve/", gated)), "hf://acme/tiny", 3, "ask for access at http://"),
        (Some(Fault::always("/tree/", limited)), "hf://acme/tiny", 3, "hint: run the same command again"),
        (Some(Fault::always(SHARD, Effect::WrongByte)), "hf://acme/tiny", 3, "expected sha256:"),
    ] {
        let bench = Bench::with(fault.into_iter().collect());
        let output = pack(&bench, snapshot, &bench.home.path().join("image")).output().unwrap();
        let (found, words) = code_and_words(&output);
        assert_eq!(found, code, "{words}");
        assert!(words.contains(says), "{says}: {words}");
        assert!(output.stdout.is_empty());
    }
    let bench = Bench::with(Vec::new());
    let mut both = pack(&bench, "hf://acme/tiny@main", &bench.home.path().join("image"));
    let (code, words) = code_and_words(&both.args(["--revision", "v1.0"]).output().unwrap());
    assert!(code == 2 && words.contains("--revision v1.0"), "{words}");
    let mut offline = pack(&bench, "hf://acme/tiny", &bench.home.path().join("image"));
    let (code, words) = code_and_words(&offline.env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert!(code == 3 && words.contains("HF_HUB_OFFLINE"), "{words}");
    let files = SnapshotOptions { include: vec!["*.json".to_owned()], ..SnapshotOptions::default() };
    bench.fetch_as("hf://acme/tiny", &files, &[]).unwrap();
    let (code, words) = code_and_words(&offline.output().unwrap());
    assert!(code == 0 && words.contains("no weights"), "{words}");
}
