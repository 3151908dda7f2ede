//! Parts make what one machine makes, whatever the options, and wherever they meet.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use starcar::{digest::Digest, pack::Part};

use crate::{
    harness::{Place, TAG, age, done, strings},
    support::{
        command::{starcar, starcar_in},
        hub::files_below,
        registry::{Effect, FakeOptions, FakeRegistry, Fault},
    },
};

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

/// The largest blob that a layout has.
fn largest(layout: &Path) -> PathBuf {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|blob| blob.unwrap().path());
    blobs.max_by_key(|blob| fs::metadata(blob).unwrap().len()).unwrap()
}

#[test]
fn layers_that_were_damaged_after_they_were_sent_are_found() {
    let place = Place::new();
    let to = place.oci("shared");
    place.parts(2, &[], &["-o", &to]);
    let layer = largest(&place.path("shared"));
    let good = fs::read(&layer).unwrap();
    let mut bad = good.clone();
    // Behind the header of a shard, in its bytes.
    bad[good.len() / 2] ^= 1;
    fs::write(&layer, &bad).unwrap();
    // Into another place it is not copied, with --verify or without.
    let elsewhere = place.oci("elsewhere");
    let run = starcar(&["assemble", "-q", &to, "-o", &elsewhere]);
    assert_eq!((run.code, run.stdout.as_str()), (5, ""), "{}", run.stderr);
    assert!(!place.path("elsewhere/index.json").exists() || starcar(&["inspect", &elsewhere]).code != 0);
    let archive = format!("oci-archive:{}", place.text("whole.tar"));
    let run = starcar(&["assemble", "-q", &to, "-o", &archive]);
    assert_eq!((run.code, run.stdout.as_str()), (5, ""), "{}", run.stderr);
    assert!(!place.path("whole.tar").exists());

    // Where the parts are, verifying finds what a quick look can: the end of a layer.
    let mut cut = good.clone();
    let end = cut.len() - 20;
    cut[end..].fill(0);
    fs::write(&layer, &cut).unwrap();
    let run = starcar(&["assemble", "-q", "-o", &to, "--verify"]);
    assert_eq!(run.code, 9, "{}", run.stderr);
    let index = fs::read_to_string(place.path("shared/index.json")).unwrap();
    assert!(index.contains("v1.part-1-of-2") && index.contains("v1.part-2-of-2"), "{index}");
    // The worker brings the layer again, and the image is good.
    fs::remove_file(&layer).unwrap();
    place.parts(2, &[], &["-o", &to]);
    assert_eq!(fs::read(&layer).unwrap(), good);
    let run = starcar(&["assemble", "-q", "-o", &to, "--verify"]);
    assert!([0, 10].contains(&run.code), "{}", run.stderr);
    assert!(!fs::read_to_string(place.path("shared/index.json")).unwrap().contains(".part-"));
}

#[test]
fn a_registry_that_damages_layers_is_found() {
    let place = Place::new();
    let damage = Fault::always("GET", "/models/final/blobs/", Effect::WrongBytes);
    let registry =
        FakeRegistry::start(FakeOptions { removes: true, faults: vec![damage], ..FakeOptions::default() });
    let name = |repository: &str| format!("{}/models/{repository}:{TAG}", registry.address());
    place.parts(2, &[], &["-t", &name("tiny"), "--push"]);
    let run = starcar(&["assemble", "-q", &name("tiny"), "-t", &name("final"), "--push", "--verify"]);
    assert_eq!((run.code, run.stdout.as_str()), (6, ""), "{}", run.stderr);
    assert!(run.stderr.contains("as nodes will"), "{}", run.stderr);
    assert!(registry.tags("models/final").is_empty());
    assert_eq!(registry.tags("models/tiny"), ["v1.part-1-of-2", "v1.part-2-of-2"]);
}
