//! `starcar replay` as people and pipelines meet it: which requests it makes, what it finds, how it ends.
//! Nothing is timed: background fetch, which waits for five seconds of silence, is left to the end-to-end test.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;
use support::{
    command::{Run, starcar},
    noise::noise,
    registry::{Effect, FakeOptions, FakeRegistry, Fault, Seen},
};

const SHARD: &str = "model.safetensors";
/// Bytes of the shard: three chunks.
const SHARD_SIZE: usize = 9 << 20;
const QUICK: [&str; 4] = ["--think-scale", "0", "--node-no-background-fetch", "--format=json"];

/// A model of one shard and a small file, and a profile that reads all of it, and something that it lacks.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("model")).unwrap();
        let header = |data: usize| {
            let text = format!(r#"{{"w":{{"dtype":"U8","shape":[{data}],"data_offsets":[0,{data}]}}}}"#);
            [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
        };
        let data = SHARD_SIZE - header(SHARD_SIZE).len();
        let mut shard = header(data);
        shard.extend(noise(SHARD_SIZE - shard.len(), 5));
        fs::write(place.path("model").join(SHARD), shard).unwrap();
        fs::write(place.path("model/config.json"), format!("{{\"a\": \"{}\"}}", "b".repeat(500))).unwrap();
        let profile = format!(
            r#"{{"version": 1, "accesses": [
                {{"at": 0, "kind": "read", "path": "config.json"}},
                {{"at": 0.1, "kind": "read", "path": "gone.json"}},
                {{"at": 1, "kind": "read", "path": "{SHARD}", "ranges": [[0, 1000]]}},
                {{"at": 2, "until": 3, "kind": "read", "path": "{SHARD}", "ranges": [[1000, {}]]}},
                {{"at": 4, "kind": "read", "path": "config.json"}},
                {{"at": 5, "kind": "read", "cache": "vllm", "path": "kernel.py"}}
            ]}}"#,
            SHARD_SIZE - 1000
        );
        fs::write(place.path("profile.json"), profile).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn pack(&self, to: &[&str], more: &[&str]) {
        let (model, profile) = (self.text("model"), self.text("profile.json"));
        let arguments =
            ["pack", model.as_str(), "--base", "scratch", "--quiet", "--profile", profile.as_str()];
        let run = starcar(&[&arguments[..], to, more].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
    }

    fn layout(&self, more: &[&str]) -> String {
        let target = format!("oci:{}:v1", self.text("layout"));
        self.pack(&["-o", &target], more);
        target
    }

    fn replay(&self, image: &str, more: &[&str]) -> Run {
        let profile = self.text("profile.json");
        starcar(&[&["replay", image, "--profile", profile.as_str()], more].concat())
    }
}

fn report(run: &Run) -> Value {
    assert_eq!(run.code, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

/// Requests for blobs in the order of their arrival, by digest: method, or range.
fn of_blobs(seen: &[Seen]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in seen {
        if let Some((_, digest)) = one.path.split_once("/blobs/") {
            let what = one.range.clone().unwrap_or_else(|| one.method.clone());
            found.entry(digest.to_owned()).or_default().push(what);
        }
    }
    found
}

/// Length of a range.
fn length(range: &str) -> u64 {
    let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    end.parse::<u64>().unwrap() + 1 - start.parse::<u64>().unwrap()
}

fn pushed(place: &Place, more: &[&str]) -> (FakeRegistry, String) {
    let fake = FakeRegistry::open();
    let name = format!("{}/ns/model:v1", fake.address());
    place.pack(&["--push", "-t", &name], more);
    fake.forget();
    (fake, name)
}

#[test]
fn requests_are_those_of_a_node() {
    let place = Place::new();
    let (fake, name) = pushed(&place, &["--prefetch", "small"]);
    let report = report(&place.replay(&name, &QUICK));
    let seen = of_blobs(&fake.seen());
    let mut listed = Vec::new();
    for layer in report["layers"].as_array().unwrap() {
        let (digest, title) = (layer["digest"].as_str().unwrap(), layer["title"].as_str().unwrap());
        let asked = &seen[digest];
        let ranges: Vec<&String> = asked.iter().filter(|what| what.starts_with("bytes=")).collect();
        // What is told is what was asked for.
        assert_eq!(layer["total"]["requests"], asked.len(), "{title}");
        assert_eq!(layer["total"]["bytes"], ranges.iter().map(|range| length(range)).sum::<u64>(), "{title}");
        let causes = layer["causes"].as_object().unwrap();
        let causes: Vec<String> =
            causes.iter().map(|(cause, sum)| format!("{cause} {}", sum["requests"])).collect();
        let (size, causes, asked) = (&layer["size"], causes.join(", "), asked.join("\n  "));
        listed.push(format!("{title}, {size} bytes: {causes}\n  {asked}"));
    }
    insta::assert_snapshot!(listed.join("\n"));
    // The same on another node: units of 1 MiB.
    fake.forget();
    place.replay(&name, &[&QUICK[..], &["--node-chunk-size", "1MiB"]].concat());
    let mut listed = String::new();
    for (_, asked) in of_blobs(&fake.seen()).into_iter().filter(|(_, asked)| asked.len() > 3) {
        listed += &asked.join("\n");
    }
    insta::assert_snapshot!(listed);
}

#[test]
fn nothing_but_the_whole_layer_is_asked_for_when_it_is_prefetched() {
    let place = Place::new();
    let (fake, name) = pushed(&place, &["--prefetch", "all"]);
    let node = ["--nodes", "recommended", "--node-prefetch-async-size", "0"];
    let report = report(&place.replay(&name, &[&QUICK[..], &node].concat()));
    assert_eq!(report["chunks"]["missed"], 0);
    assert!(report["chunks"]["prefetched"].as_u64().unwrap() >= 4);
    let sizes: u64 =
        report["layers"].as_array().unwrap().iter().map(|layer| layer["size"].as_u64().unwrap()).sum();
    // Two bytes of each layer come twice.
    let bytes = report["total"]["bytes"].as_u64().unwrap() - report["documents"]["bytes"].as_u64().unwrap();
    assert_eq!(bytes, sizes + 2 * report["layers"].as_array().unwrap().len() as u64);
    assert_eq!(report["atRunning"], report["total"]);
    assert_eq!(fake.count("HEAD", "/blobs/"), report["layers"].as_array().unwrap().len());
}

#[test]
fn the_report_of_a_layout() {
    let place = Place::new();
    let target = place.layout(&["--prefetch", "small"]);
    let run = place.replay(&target, &QUICK);
    let text = run.stdout.replace(place.directory.path().to_str().unwrap(), "DIR");
    insta::with_settings!({filters => vec![
        (r#"("(?:pulled|running|lastRead|waited|at|seconds)": )[0-9.]+(,?)"#, "${1}TIME${2}"),
        (r#"("processors": )[0-9]+"#, "${1}N"),
        // Whether a read is slow enough to be listed is a matter of time.
        (r#"(?s)"slowest": \[(?:\]|.*?\n  \]),"#, r#""slowest": [],"#),
    ]}, {
        insta::assert_snapshot!(text);
    });
    let table = place.replay(&target, &["--think-scale", "0", "--node-no-background-fetch"]);
    for words in
        ["container could run", "first weight read", "missed by reads", "gone.json", "compile caches"]
    {
        assert!(table.stdout.contains(words), "{words}\n{}", table.stdout);
    }
}

#[test]
fn a_damaged_chunk_is_named() {
    let place = Place::new();
    let target = place.layout(&["--prefetch", "small"]);
    // The shard's second chunk: its bytes are stored, so that one byte is one byte.
    let blobs = fs::read_dir(place.path("layout/blobs/sha256")).unwrap();
    let shard =
        blobs.map(|blob| blob.unwrap().path()).max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    damage(&shard, 5 << 20);
    let run = place.replay(&target, &QUICK);
    assert_eq!((run.code, run.stdout.as_str()), (5, ""), "{}", run.stderr);
    assert!(
        run.stderr.contains(r#""models/model.safetensors" is damaged at byte 4194304"#),
        "{}",
        run.stderr
    );
    // What is prefetched is verified, too, read or not.
    let target = place.layout(&["--prefetch", "all"]);
    let blobs = fs::read_dir(place.path("layout/blobs/sha256")).unwrap();
    for blob in blobs.map(|blob| blob.unwrap().path()).filter(|blob| blob.metadata().unwrap().len() > 1 << 20)
    {
        damage(&blob, 5 << 20);
    }
    fs::write(place.path("profile.json"), r#"{"version": 1, "accesses": []}"#).unwrap();
    let run = place.replay(&target, &QUICK);
    assert_eq!(run.code, 5, "{}", run.stderr);
    assert!(run.stderr.contains("is damaged at byte"), "{}", run.stderr);
}

#[test]
fn layers_of_zstd_are_mounted_as_others_are() {
    let place = Place::new();
    let zstd = ["--layer-format", "zstd:chunked"];
    let (_fake, name) = pushed(&place, &[&zstd[..], &["--prefetch", "small"]].concat());
    let told = report(&place.replay(&name, &QUICK));
    for layer in told["layers"].as_array().unwrap() {
        assert!(layer.get("whole").is_none(), "{layer}");
    }
    assert_eq!((&told["reads"], &told["absent"]), (&4.into(), &serde_json::json!(["gone.json"])));
    assert!(told["chunks"]["missed"].as_u64().unwrap() >= 3, "{told}");
    // Raw blocks have no checksum: what is damaged is seen by the chunk's digest.
    let target = place.layout(&zstd);
    let blobs = fs::read_dir(place.path("layout/blobs/sha256")).unwrap();
    let shard =
        blobs.map(|blob| blob.unwrap().path()).max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    damage(&shard, 5 << 20);
    let run = place.replay(&target, &QUICK);
    assert_eq!((run.code, run.stdout.as_str()), (5, ""), "{}", run.stderr);
    assert!(run.stderr.contains("its chunk has digest"), "{}", run.stderr);
}

fn damage(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn limits_end_a_pipeline() {
    let place = Place::new();
    let target = place.layout(&["--prefetch", "small"]);
    let run = place.replay(&target, &[&QUICK[..], &["--max-bytes", "1MiB"]].concat());
    assert_eq!(run.code, 11, "{}", run.stderr);
    // The report is there all the same.
    assert!(
        serde_json::from_str::<Value>(&run.stdout).unwrap()["total"]["bytes"].as_u64().unwrap() > 1 << 20
    );
    assert!(run.stderr.contains("--max-bytes allows"), "{}", run.stderr);
    let run = place.replay(&target, &[&QUICK[..], &["--max-seconds", "0s"]].concat());
    assert_eq!(run.code, 11, "{}", run.stderr);
    let told = serde_json::from_str::<Value>(&run.stdout).unwrap();
    assert_eq!((&told["stopped"], &told["reads"]), (&true.into(), &0.into()));
    assert!(run.stderr.contains("--max-seconds allows"), "{}", run.stderr);
    let run =
        place.replay(&target, &[&QUICK[..], &["--max-bytes", "1GiB", "--max-seconds", "1000s"]].concat());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    // A gate that tested nothing is none.
    let elsewhere = [&QUICK[..], &["--model-dir", "/nowhere"]].concat();
    let run = place.replay(&target, &elsewhere);
    assert_eq!(run.code, 0);
    assert!(run.stderr.contains("nothing was played"), "{}", run.stderr);
    assert_eq!(place.replay(&target, &[&elsewhere[..], &["--max-seconds", "9s"]].concat()).code, 7);
}

#[test]
fn two_images_are_compared() {
    let place = Place::new();
    let target = place.layout(&["--prefetch", "small"]);
    let picture = place.text("picture.svg");
    let arguments = ["--compare", target.as_str(), "--timeline", picture.as_str()];
    let told = report(&place.replay(&target, &[&QUICK[..], &arguments].concat()));
    assert_eq!(told["replays"].as_array().unwrap().len(), 2);
    assert_eq!((&told["ratios"]["bytes"], &told["ratios"]["requests"]), (&1.0.into(), &1.0.into()));
    assert_eq!(told["replays"][0]["total"], told["replays"][1]["total"]);
    let svg = fs::read_to_string(picture).unwrap();
    assert!(
        svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("missed by a read"),
        "{svg}"
    );
    let table =
        place.replay(&target, &["--think-scale=0", "--node-no-background-fetch", "--compare", &target]);
    assert!(table.stdout.contains("first of second") && table.stdout.contains("1.00×"), "{}", table.stdout);
}

#[test]
fn what_cannot_be_mounted_is_pulled() {
    let place = Place::new();
    let (fake, name) = pushed(&place, &["--layer-format", "tar"]);
    let told = report(&place.replay(&name, &QUICK));
    let seen = of_blobs(&fake.seen());
    for layer in told["layers"].as_array().unwrap() {
        assert!(layer["whole"].is_string(), "{layer}");
        assert_eq!(layer["causes"]["whole"]["bytes"], layer["size"]);
        assert_eq!(seen[layer["digest"].as_str().unwrap()], ["GET"]);
    }
    assert_eq!(told["reads"], 0);
}

/// The shard's second request stalls, in the midst of its body.
fn stalling(times: usize) -> FakeRegistry {
    let fault =
        Fault { skip: 0, times, ..Fault::always("GET", "/blobs/", Effect::StallAnswerAfter(100_000)) };
    FakeRegistry::start(FakeOptions { faults: vec![fault], ..FakeOptions::default() })
}

#[test]
fn a_registry_that_falls_silent_ends_at_the_limit() {
    let place = Place::new();
    let fake = stalling(usize::MAX);
    let name = format!("{}/ns/model:v1", fake.address());
    place.pack(&["--push", "-t", &name], &["--prefetch", "small"]);
    let run = place.replay(&name, &[&QUICK[..], &["--max-seconds", "2s"]].concat());
    assert_eq!(run.code, 11, "{}", run.stderr);
    let told = serde_json::from_str::<Value>(&run.stdout).unwrap();
    assert_eq!(told["stopped"], true);
    assert!(told["total"]["bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_read_that_gets_nothing_is_given_up() {
    let place = Place::new();
    let fake = stalling(usize::MAX);
    let name = format!("{}/ns/model:v1", fake.address());
    place.pack(&["--push", "-t", &name], &["--prefetch", "small"]);
    // Units that are larger than what comes of the shard; what else is there is smaller.
    let node = ["--node-chunk-size", "1MiB", "--node-request-timeout", "1s"];
    let run = place.replay(&name, &[&QUICK[..], &node].concat());
    assert_eq!(run.stdout, "", "{}", run.stdout);
    assert_ne!(run.code, 0);
    assert!(
        run.stderr.contains("models/model.safetensors") && run.stderr.contains("3 requests in a row"),
        "{}",
        run.stderr
    );
}

#[test]
fn wrong_arguments_are_refused() {
    for arguments in [
        &["replay", "oci:nowhere"][..],
        &["replay", "oci:nowhere", "--profile", "nobody"],
        &["replay", "oci:nowhere", "--profile", "generic", "--think-scale", "-1"],
        &["replay", "oci:nowhere", "--profile", "generic", "--node-chunk-size", "1"],
    ] {
        assert_eq!(starcar(arguments).code, 2, "{arguments:?}");
    }
    let run = starcar(&["replay", "oci:nowhere", "--profile", "generic"]);
    assert_eq!((run.code, run.stdout.as_str()), (5, ""), "{}", run.stderr);
}
