//! An image that several workers make: the same as one machine's, whatever the options, and a clear word where the parts
//! are not those of one image.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use starcar::{digest::Digest, pack::Part};
use support::{
    command::{Run, starcar, starcar_in},
    hub::{files_below, safetensors},
    noise::noise,
    registry::{FakeOptions, FakeRegistry},
};

const TAG: &str = "v1";

/// A model of some shards, copies of it, and places for images.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["model", "copy"] {
            place.model(name, 0);
        }
        // Two of the smallest files that pass for static multi-call binaries.
        for (name, machine) in [("amd64", 62_u8), ("arm64", 183)] {
            let mut bytes = vec![0; 120];
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            (bytes[18], bytes[32], bytes[54], bytes[56], bytes[64]) = (machine, 64, 56, 1, 1);
            bytes.extend(b"\0ln\0ls\0mkdir\0sh\0sleep\0");
            fs::create_dir(place.path(name)).unwrap();
            fs::write(place.path(name).join("busybox"), bytes).unwrap();
        }
        for (name, architecture) in [("old", 75), ("new", 90)] {
            place.cache(name, architecture);
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn oci(&self, name: &str) -> String {
        format!("oci:{}:{TAG}", self.path(name).display())
    }

    /// A model whose files were written just now: three shards that begin alike for all seeds.
    fn model(&self, name: &str, seed: u64) {
        let model = self.path(name);
        fs::create_dir_all(&model).unwrap();
        fs::write(model.join("config.json"), "{\"model_type\": \"llama\"}\n".repeat(20)).unwrap();
        fs::write(model.join("tokenizer.json"), "[0, 1, 2]".repeat(500)).unwrap();
        for shard in 1..4_u64 {
            let mut tensor = vec![7; 70_000];
            // Half of the bytes say nothing, so that weights are worth compressing.
            tensor.extend(
                noise(30_000 * usize::try_from(shard).unwrap(), seed + shard)
                    .iter()
                    .flat_map(|byte| [0, *byte]),
            );
            let content = safetensors(&tensor);
            fs::write(model.join(format!("model-0000{shard}-of-00003.safetensors")), content).unwrap();
        }
    }

    /// Triton's cache for an architecture, whose files have the same times in all copies.
    fn cache(&self, name: &str, architecture: u32) {
        let kernel = self.path(name).join("2KWZU5NBV7DGHTOQZNYQVHZHTW5Y7G5YTDWJ3UMSJ5OVQ5Z6YB6A");
        fs::create_dir_all(&kernel).unwrap();
        let json = format!(
            r#"{{"name": "add", "target": {{"backend": "cuda", "arch": {architecture}, "warp_size": 32}}}}"#
        );
        fs::write(kernel.join("add.json"), json).unwrap();
        fs::write(kernel.join("add.cubin"), "cubin").unwrap();
        age(&self.path(name), 1_700_000_000);
    }

    /// `--cache` for the targets.
    fn caches(&self) -> [String; 4] {
        let cache = |target: &str, name: &str| format!("triton@{target}={}", self.path(name).display());
        ["--cache".into(), cache("sm75", "old"), "--cache".into(), cache("sm90", "new")]
    }

    /// `--platform` with a base for each.
    fn platforms(&self) -> Vec<String> {
        let base = |name: &str| format!("linux/{name}={}", self.path(name).join("busybox").display());
        ["--platform", "linux/amd64,linux/arm64", "--base", &base("amd64"), "--base", &base("arm64")]
            .map(str::to_owned)
            .to_vec()
    }

    fn pack(&self, model: &str, arguments: &[&str]) -> Run {
        let model = self.text(model);
        // Options of the test come last, where they win.
        let has_base = arguments.contains(&"--base");
        let base: &[&str] = if has_base { &[] } else { &["--base", "scratch"] };
        starcar(&[&["pack", model.as_str(), "-q"], base, arguments].concat())
    }

    /// Makes parts of what `arguments` say into `to`, by workers that have copies of their own.
    fn parts(&self, of: u16, arguments: &[&str], to: &[&str]) {
        for index in (1..=of).rev() {
            let part = format!("{index}/{of}");
            let (model, threads) = if index % 2 == 0 { ("model", "1") } else { ("copy", "3") };
            let own = ["--part", &part, "--threads", threads];
            let run = done(self.pack(model, &[arguments, &own, to].concat()));
            assert!(run.stdout.starts_with("sha256:"), "{}", run.stdout);
        }
    }
}

fn age(root: &Path, seconds: u64) {
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::open(entry.unwrap().path()).unwrap().set_modified(time).unwrap();
    }
}

fn done(run: Run) -> Run {
    assert_eq!(run.code, 0, "{}", run.stderr);
    run
}

fn strings(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

#[test]
fn parts_make_what_one_machine_makes() {
    let place = Place::new();
    let (caches, platforms) = (place.caches(), place.platforms());
    let both = [caches.to_vec(), platforms.clone()].concat();
    let cases: [(&str, &[u16], Vec<&str>); 8] = [
        ("plain", &[1, 2, 5], vec![]),
        ("for two consumers", &[2], vec!["--layer-format", "zstd:chunked", "--consumer", "both"]),
        ("tar", &[2], vec!["--layer-format", "tar"]),
        ("few layers", &[3], vec!["--compress-weights", "--max-layers", "3", "--nodes", "recommended"]),
        ("compressed zstd", &[2], vec!["--layer-format", "zstd:chunked", "--compress-weights"]),
        ("natural order", &[2], vec!["--profile", "none", "--prefetch", "all", "--timestamp", "1700000000"]),
        ("two platforms", &[2], strings(&platforms)),
        ("variants on two platforms", &[3], strings(&both)),
    ];
    for (name, counts, arguments) in cases {
        let metadata = |name: &str| place.text(&format!("{name}.json"));
        let (one, other) = (metadata("one"), metadata("other"));
        let alone = place.oci(&format!("alone {name}"));
        let whole =
            done(place.pack("model", &[&arguments[..], &["-o", &alone, "--metadata-file", &one]].concat()));
        let expected = files_below(&place.path(&format!("alone {name}")));
        for count in counts {
            let shared = format!("shared {count} {name}");
            place.parts(*count, &arguments, &["-o", &place.oci(&shared)]);
            let run = starcar(&[
                "assemble",
                "-q",
                "-o",
                &place.oci(&shared),
                "--metadata-file",
                &other,
                "--verify",
            ]);
            // What verify finds it finds of both.
            assert!([0, 10].contains(&run.code), "{name}: {}", run.stderr);
            assert_eq!(run.stdout, whole.stdout, "{name}");
            assert!(fs::read(&one).unwrap() == fs::read(&other).unwrap(), "{name}: the metadata differ");
            let found = files_below(&place.path(&shared));
            assert_eq!(
                found.keys().collect::<Vec<_>>(),
                expected.keys().collect::<Vec<_>>(),
                "{name} of {count} parts"
            );
            assert!(found == expected, "{name} of {count} parts: a file differs");
        }
    }
}

#[test]
fn a_worker_reads_no_more_than_its_share() {
    let place = Place::new();
    let whole = done(place.pack("model", &["-o", &place.oci("alone")]));
    for index in 1..=2 {
        let part: Part = format!("{index}/2").parse().unwrap();
        let dry = done(place.pack("model", &["--part", &part.to_string(), "--dry-run"])).stdout;
        let (_, share) = dry.split_once(&format!("\npart {part}: ")).unwrap();
        // What lies behind the start of others' shards is another worker's business.
        let model = format!("worker {index}");
        place.model(&model, 0);
        let mut foreign = 0;
        for shard in 1..4 {
            let name = format!("model-0000{shard}-of-00003.safetensors");
            if !share.contains(&name) {
                foreign += 1;
                let file = File::options().write(true).open(place.path(&model).join(&name)).unwrap();
                file.write_all_at(&vec![0; 20_000], 100_000).unwrap();
            }
        }
        assert!(foreign > 0, "{share}");
        let to = place.oci(&format!("part {index}"));
        done(place.pack(&model, &["--part", &part.to_string(), "-o", &to]));
    }
    let (one, two) = (place.text("part 1"), place.text("part 2"));
    let sources = [format!("oci:{two}"), format!("oci:{one}:{TAG}")];
    let to = place.oci("whole");
    let run = done(starcar(&["assemble", "-q", &sources[0], &sources[1], "-o", &to]));
    assert_eq!(run.stdout, whole.stdout);
    assert!(files_below(&place.path("whole")) == files_below(&place.path("alone")));
    // Parts that lie elsewhere are left alone, and can be named one by one, and twice.
    let single = format!("oci:{one}:{TAG}.part-1-of-2");
    let archive = format!("oci-archive:{}:{TAG}", place.text("whole.tar"));
    let run = done(starcar(&["assemble", "-q", &single, &sources[0], &sources[1], "-o", &archive]));
    assert_eq!(run.stdout, whole.stdout);
    done(place.pack("model", &["-o", &format!("oci-archive:{}:{TAG}", place.text("alone.tar"))]));
    assert!(fs::read(place.path("whole.tar")).unwrap() == fs::read(place.path("alone.tar")).unwrap());
}

#[test]
fn parts_meet_in_a_repository() {
    for removes in [true, false] {
        let place = Place::new();
        let registry = FakeRegistry::start(FakeOptions { removes, ..FakeOptions::default() });
        let caches = place.caches();
        let caches = strings(&caches);
        let alone = format!("{}/models/alone:{TAG}", registry.address());
        let whole = done(place.pack("model", &[&caches[..], &["-t", &alone, "--push"]].concat()));
        let name = format!("{}/models/tiny:{TAG}", registry.address());
        let second = format!("{}/models/other:{TAG}", registry.address());
        let to = ["-t", &name, "-t", &second, "--push"];
        place.parts(3, &caches, &to);
        // The pod of a worker was ended and began again.
        let again = done(place.pack("model", &[&caches[..], &["--part", "2/3"], &to].concat()));
        let part = registry.manifest("models/tiny", "v1.part-2-of-3").unwrap().1;
        assert_eq!(again.stdout.trim_end(), Digest::of(&part).to_string());
        registry.forget();
        let run = done(starcar(&[&["assemble"], &to[..]].concat()));
        assert_eq!(run.stdout, whole.stdout, "{}", run.stderr);
        assert_eq!(registry.seen().iter().filter(|seen| seen.path.ends_with("/list")).count(), 2);
        let layers: Vec<u64> =
            registry.seen().iter().filter(|seen| seen.is_upload()).map(|seen| seen.body).collect();
        assert!(layers.iter().sum::<u64>() < 20_000, "layers were sent again: {layers:?}");
        for repository in ["models/tiny", "models/other"] {
            for tag in ["v1", "v1-sm75", "v1-sm90"] {
                assert_eq!(
                    registry.manifest(repository, tag),
                    registry.manifest("models/alone", tag),
                    "{tag}"
                );
            }
            let parts = registry.tags(repository).iter().filter(|tag| tag.contains(".part-")).count();
            assert_eq!(parts, if removes { 0 } else { 3 });
        }
        assert_eq!(run.stderr.contains("the parts stay"), !removes, "{}", run.stderr);

        // Where the image's name has to stay, it does, whatever the parts are.
        if !removes {
            place.parts(2, &["--max-layers", "2"], &["-t", &name, "--push"]);
            let counts = starcar(&["assemble", "-t", &name, "--push"]);
            assert_eq!(counts.code, 6);
            assert!(counts.stderr.contains("into 2 and into 3"), "{}", counts.stderr);
            let kept = starcar(&["assemble", "-t", &name, "--push", "--parts", "2", "--no-clobber"]);
            assert_eq!(kept.code, 6, "{}", kept.stderr);
            assert_eq!(registry.manifest("models/tiny", "v1"), registry.manifest("models/alone", "v1"));
            let moved = starcar(&["assemble", "-t", &name, "--push", "--parts", "2"]);
            assert_eq!(moved.code, 0, "{}", moved.stderr);
        }
    }
}

#[test]
fn parts_of_other_images_stay() {
    let place = Place::new();
    let registry = FakeRegistry::start(FakeOptions { removes: true, ..FakeOptions::default() });
    let name = |tag: &str| format!("{}/models/tiny:{tag}", registry.address());
    let layout = |tag: &str| format!("oci:{}:{tag}", place.text("shared"));
    for tag in ["v1", "v2"] {
        place.parts(2, &[], &["-t", &name(tag), "--push", "-o", &layout(tag)]);
    }
    let left = |tag: &str| {
        let index = fs::read_to_string(place.path("shared/index.json")).unwrap();
        let tags = registry.tags("models/tiny");
        let part = format!("{tag}.part-1-of-2");
        (tags.contains(&part), index.contains(&part))
    };
    // An image that goes elsewhere takes no parts away.
    done(starcar(&["assemble", "-q", &name("v1"), "-o", &place.oci("elsewhere")]));
    assert_eq!((left("v1"), left("v2")), ((true, true), (true, true)));
    let first = done(starcar(&["assemble", "-q", "-t", &name("v1"), "--push"]));
    assert_eq!((left("v1"), left("v2")), ((false, true), (true, true)));
    done(starcar(&["assemble", "-q", "-o", &layout("v1")]));
    assert_eq!((left("v1"), left("v2")), ((false, false), (true, true)));
    // Parts that were read from the layout go from the registry as well, where they are this image's.
    let second = done(starcar(&["assemble", "-q", "-t", &name("v2"), "--push", "-o", &layout("v2")]));
    assert_eq!(left("v2"), (false, false));
    assert_eq!(first.stdout, second.stdout);
}

#[test]
fn what_is_known_is_not_read_again() {
    let place = Place::new();
    let known = place.path("known");
    let pack = |arguments: &[&str]| {
        let model = place.text("model");
        let run = starcar_in(
            known.as_os_str(),
            &[&["pack", &model, "--base", "scratch", "--progress", "plain"], arguments].concat(),
        );
        done(run)
    };
    age(&place.path("model"), 1_700_000_000);
    // A file that changed this very moment is not believed to be known.
    std::thread::sleep(Duration::from_millis(50));
    let whole = pack(&["-o", &place.oci("alone")]);
    for part in ["1/2", "2/2"] {
        let run = pack(&["--part", part, "-o", &place.oci("shared")]);
        assert!(!run.stderr.contains("MiB models") || run.stderr.contains("(known)"), "{}", run.stderr);
    }
    let run = done(starcar(&["assemble", "-q", "-o", &place.oci("shared")]));
    assert_eq!(run.stdout, whole.stdout);
}

#[test]
fn what_is_missing_or_of_another_plan_is_named() {
    let place = Place::new();
    let to = place.oci("shared");
    let assemble = |arguments: &[&str]| starcar(&[&["assemble", "-q", "-o", &to], arguments].concat());
    let nothing = assemble(&[]);
    assert_eq!(nothing.code, 5);
    assert!(nothing.stderr.contains("has no part"), "{}", nothing.stderr);
    place.parts(4, &[], &["-o", &to]);
    let index = place.path("shared/index.json");
    let all = fs::read(&index).unwrap();
    let without = |tags: &[&str]| {
        let mut index: Value = serde_json::from_slice(&all).unwrap();
        let manifests = index["manifests"].as_array_mut().unwrap();
        manifests.retain(|one| {
            let tag = one["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
            !tags.contains(&tag)
        });
        serde_json::to_vec(&index).unwrap()
    };
    for (tags, said) in [
        (vec!["v1.part-3-of-4"], "part 3 of 4 is missing"),
        (vec!["v1.part-2-of-4", "v1.part-4-of-4"], "parts 2 and 4 of 4 are missing"),
    ] {
        fs::write(&index, without(&tags)).unwrap();
        let run = assemble(&[]);
        assert_eq!((run.code, run.stdout.as_str()), (5, ""));
        let make = format!("--part {}/4 -o {to}", &tags[0][8..9]);
        assert!(run.stderr.contains(said) && run.stderr.contains(&make), "{}", run.stderr);
    }
    fs::write(&index, &all).unwrap();
    assert!(assemble(&["--parts", "5"]).stderr.contains("parts 1, 2, 3, 4 and 5 of 5 are missing"));

    // One worker with other options, other files, or another starcar.
    place.model("larger", 0);
    fs::write(place.path("larger/config.json"), "{}").unwrap();
    place.model("edited", 0);
    fs::write(place.path("edited/config.json"), "{\"model_type\": \"mamba\"}\n".repeat(20)).unwrap();
    for (model, arguments, said) in [
        ("model", vec!["--max-layers", "2"], "option maxLayers: 2, not 100"),
        ("model", vec!["--profile", "none"], "profile.digest: not set, not sha256:"),
        ("model", vec!["--model-dir", "/m"], "model.directory: /m, not /models"),
        ("larger", vec![], "size of models/config.json: 2, not 480"),
        ("edited", vec![], "content of models/config.json"),
    ] {
        fs::write(&index, &all).unwrap();
        done(place.pack(model, &[&arguments[..], &["--part", "2/4", "-o", &to]].concat()));
        let run = assemble(&[]);
        assert_eq!((run.code, run.stdout.as_str()), (5, ""), "{}", run.stderr);
        let parts = "part 2/4 at oci:";
        assert!(run.stderr.contains(parts) && run.stderr.contains(said), "{}", run.stderr);
        assert!(run.stderr.contains("hint: `starcar pack SNAPSHOT … --part 2/4`"), "{}", run.stderr);
    }
    // A cache bears its files' times.
    let caches = place.caches();
    let caches = strings(&caches);
    let (one, two) = (place.oci("one"), place.oci("two"));
    done(place.pack("model", &[&caches[..], &["--part", "1/2", "-o", &one]].concat()));
    age(&place.path("new"), 1_700_000_001);
    done(place.pack("model", &[&caches[..], &["--part", "2/2", "-o", &two]].concat()));
    let run = starcar(&["assemble", &one, &two, "-o", &place.oci("out")]);
    assert_eq!(run.code, 5);
    assert!(run.stderr.contains("add.json: 1700000001, not 1700000000"), "{}", run.stderr);

    // The part is made again.
    fs::write(&index, &all).unwrap();
    done(place.pack("copy", &["--part", "2/4", "-o", &to]));
    done(assemble(&["--keep-parts"]));
    let kept = fs::read_to_string(&index).unwrap();
    assert!(kept.contains("v1.part-4-of-4") && kept.contains("\"v1\""), "{kept}");
}

#[test]
fn workers_that_know_other_digests_are_told_apart() {
    let place = Place::new();
    // Two downloads whose files have the same sizes and starts.
    for (name, seed) in [("one", 0), ("two", 10)] {
        let files = format!("files of {name}");
        place.model(&files, seed);
        let repository = place.path(name).join("models--acme--tiny");
        let snapshot = repository.join("snapshots").join("0".repeat(40));
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir(repository.join("blobs")).unwrap();
        for (path, content) in files_below(&place.path(&files)) {
            let blob = Digest::of(&content).hex();
            fs::write(repository.join("blobs").join(&blob), content).unwrap();
            std::os::unix::fs::symlink(format!("../../blobs/{blob}"), snapshot.join(path)).unwrap();
        }
        let part = if name == "one" { "1/2" } else { "2/2" };
        let model = format!("{name}/models--acme--tiny");
        done(place.pack(&model, &["--part", part, "-o", &place.oci("shared")]));
    }
    let run = starcar(&["assemble", "-o", &place.oci("shared")]);
    assert_eq!(run.code, 5, "{}", run.stderr);
    let said = "models/model-00001-of-00003.safetensors should be sha256:";
    assert!(run.stderr.contains(said) && run.stderr.contains("the same revision"), "{}", run.stderr);
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let place = Place::new();
    let registry = FakeRegistry::open();
    let name = format!("{}/models/tiny:{TAG}", registry.address());
    let to = place.oci("out");
    for (arguments, said) in [
        (vec!["--part", "0/4", "-o", &to], "counted from 1"),
        (vec!["--part", "5/4", "-o", &to], "JOB_COMPLETION_INDEX"),
        (vec!["--part", "two", "-o", &to], "2/4"),
        (vec!["--part", "1/2", "-o", &to, "--verify"], "--verify"),
        (vec!["--part", "1/2", "-t", &name, "--push", "--attach-profile"], "--attach-profile"),
        (vec!["--part", "1/2", "-t", &name, "--push", "--push-by-digest"], "--push-by-digest"),
        (vec!["--part", "1/2", "-o", "oci-archive:/tmp/none/x.tar"], "no directory"),
        (vec!["--part", "1/2", "-o", "oci-archive:parts.tar"], "archives"),
        (vec!["--part", "1/2"], "nowhere"),
        (vec!["--part", "1/2", "-t", &name, "--push", "--no-clobber"], "--no-clobber"),
    ] {
        let run = place.pack("model", &arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(said), "{arguments:?}: {}", run.stderr);
    }
    let untagged = format!("{}/models/tiny", registry.address());
    for arguments in [
        vec!["assemble"],
        vec!["assemble", "-t", &name],
        vec!["assemble", "--push"],
        vec!["assemble", "-t", &untagged, "--push", "--push-by-digest"],
        vec!["assemble", "-o", "oci-archive:parts.tar"],
        vec!["assemble", "-o", &to, "--parts", "0"],
    ] {
        let run = starcar(&arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.stderr);
    }
    // A part takes the name of nothing but a part.
    done(place.pack("model", &["-o", &format!("{to}.part-1-of-2")]));
    let run = place.pack("model", &["--part", "1/2", "-o", &to]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("names something that is no part"), "{}", run.stderr);
    let run = starcar(&["assemble", "-o", &to]);
    assert!(run.code == 5 && run.stderr.contains("is no part of an image"), "{}", run.stderr);
    let taken = format!("{name}.part-1-of-2");
    done(place.pack("model", &["-t", &taken, "--push"]));
    let run = place.pack("model", &["--part", "1/2", "-t", &name, "--push"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
}

type Change<'a> = &'a dyn Fn(&mut Value);

/// Puts another config into the only part of a layout.
fn replace_config(layout: &Path, change: Change<'_>, keep_layers: bool) {
    let blob = |digest: &Value| layout.join("blobs/sha256").join(&digest.as_str().unwrap()[7..]);
    let read = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let write = |value: &Value| {
        let bytes = serde_json::to_vec(value).unwrap();
        let digest = Digest::of(&bytes);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
        json!({ "digest": digest.to_string(), "size": bytes.len() })
    };
    let mut index = read(layout.join("index.json"));
    let mut manifest = read(blob(&index["manifests"][0]["digest"]));
    let mut config = read(blob(&manifest["config"]["digest"]));
    change(&mut config);
    // A plan that was changed with care has its own digest.
    let plan = serde_json::to_vec(&config["plan"]).unwrap();
    let is_wrong = config["planDigest"] == "wrong";
    config["planDigest"] = json!(Digest::of(if is_wrong { b"another" } else { &plan }).to_string());
    if !keep_layers {
        let layer = |layer: &Value| json!({ "mediaType": layer["mediaType"], "digest": layer["digest"], "size": layer["size"] });
        manifest["layers"] = config["layers"].as_array().unwrap().iter().map(layer).collect();
    }
    let with = write(&config);
    manifest["config"]["digest"] = with["digest"].clone();
    manifest["config"]["size"] = with["size"].clone();
    let with = write(&manifest);
    index["manifests"][0]["digest"] = with["digest"].clone();
    index["manifests"][0]["size"] = with["size"].clone();
    fs::write(layout.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

#[test]
fn parts_of_strangers_are_not_believed() {
    let place = Place::new();
    let cache = format!("triton={}", place.text("new"));
    done(place.pack("model", &["--cache", &cache, "--part", "1/1", "-o", &place.oci("good")]));
    let good: BTreeMap<String, Vec<u8>> = files_below(&place.path("good"));
    let changes: [(Change<'_>, &str); 16] = [
        (&|config| config["formatVersion"] = json!(2), "version 2 of the format"),
        (&|config| config["starcarVersion"] = json!("0.0.1"), "made by starcar 0.0.1"),
        (&|config| config["planDigest"] = json!("wrong"), "damaged"),
        (&|config| config["part"] = json!("3/2"), "counted from 1"),
        (&|config| config["part"] = json!("1/2"), "part 2 of 2 is missing"),
        (&|config| config["more"] = json!(1), "unknown field"),
        (&|config| drop(config["layers"].as_array_mut().unwrap().pop()), "is in none of the parts"),
        (&|config| config["layers"][0]["index"] = json!(1), "the parts"),
        (&|config| config["layers"][0]["index"] = json!(u64::MAX), "the parts"),
        (&|config| config["layers"][0]["mediaType"] = json!("text/plain"), "media type"),
        (&|config| config["layers"][0]["digest"] = json!(Digest::of(b"?").to_string()), "lacks blob"),
        (&|config| config["plan"]["image"]["images"] = json!([]), "for no platform"),
        (
            &|config| config["plan"]["image"]["images"][0]["plain"]["layers"] = json!([0, 77]),
            "lists layer 77",
        ),
        (&|config| config["plan"]["image"]["images"][0]["plain"]["layers"] = json!([0, 0]), "a layer twice"),
        (
            &|config| {
                config["plan"]["image"]["images"] = json!(vec![&config["plan"]["image"]["images"][0]; 1025]);
            },
            "1025 images",
        ),
        (
            &|config| config["plan"]["image"]["images"][0]["plain"]["caches"][0]["at"] = json!("/tmp/$(id)"),
            "no plain path",
        ),
    ];
    let unlisted: (Change<'_>, &str) =
        (&|config| config["layers"][0]["size"] = json!(1), "lists other layers than its config");
    let all = changes.into_iter().map(|change| (change, false)).chain([(unlisted, true)]);
    for ((change, said), keep_layers) in all {
        let layout = place.path("changed");
        fs::remove_dir_all(&layout).ok();
        for (path, content) in &good {
            fs::create_dir_all(layout.join(path).parent().unwrap()).unwrap();
            fs::write(layout.join(path), content).unwrap();
        }
        replace_config(&layout, change, keep_layers);
        let run = starcar(&["assemble", &place.oci("changed"), "-o", &place.oci("out")]);
        assert_eq!(run.code, 5, "{said}: {}", run.stderr);
        assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
    }
}
