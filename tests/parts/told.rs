//! Documents about an image of parts are those that one machine writes, or none.

use std::fs;

use serde_json::Value;

use crate::{
    harness::{COPY, Place, done, strings},
    strangers::replace_config,
    support::{
        command::{Run, starcar},
        registry::FakeRegistry,
    },
};

/// Where the documents of a run go.
fn documents(place: &Place, name: &str) -> [String; 4] {
    let path = |kind: &str| place.text(&format!("{name}.{kind}.json"));
    ["--provenance".to_owned(), path("p"), "--sbom".to_owned(), path("s")]
}

fn read(place: &Place, name: &str) -> [String; 2] {
    ["p", "s"].map(|kind| fs::read_to_string(place.path(&format!("{name}.{kind}.json"))).unwrap())
}

#[test]
fn parts_tell_what_one_machine_tells() {
    let place = Place::new();
    let (caches, platforms) = (place.caches(), place.platforms());
    let busybox = place.text("amd64/busybox");
    let profile = place.text("recorded.json");
    let built_in = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/generic.json");
    fs::copy(built_in, &profile).unwrap();
    let both = ["--layer-format", "zstd:chunked", "--consumer", "both"];
    let cases: [(&str, u16, Vec<&str>); 5] = [
        ("plain", 2, vec!["--timestamp", "1700000000"]),
        ("binary", 3, vec!["--base", &busybox, "--profile", &profile, "--exclude", "tokenizer.json"]),
        ("tar", 9, vec!["--layer-format", "tar", "--profile", "none"]),
        ("variants", 3, [strings(&caches), strings(&platforms)].concat()),
        ("consumers", 4, [&strings(&caches)[..], &strings(&platforms), &both].concat()),
    ];
    for (name, count, arguments) in cases {
        let wanted = documents(&place, "alone");
        let image = |run: &str| format!("oci:{}/{name}:v1", place.text(run));
        for run in ["alone", "parts"] {
            fs::create_dir_all(place.path(run)).unwrap();
        }
        let to = image("alone");
        done(place.pack("model", &[&arguments[..], &["-o", &to], &strings(&wanted)].concat()));
        let to = image("parts");
        place.parts(count, &arguments, &["-o", &to]);
        let wanted = documents(&place, "parts");
        let run = starcar(&[&["assemble", "-q", "-o", &to][..], &strings(&wanted)].concat());
        done(run);
        let (alone, parts) = (read(&place, "alone"), read(&place, "parts"));
        assert_eq!(alone[0], parts[0], "{name}");
        assert_eq!(alone[1], parts[1], "{name}");
        let mut names: Vec<String> = images(&parts[1]);
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "{name}: {names:?}");
        assert!(parts[1].contains("LicenseRef-Mine"), "{}", parts[1]);
        assert!(!parts[0].contains(place.directory.path().to_str().unwrap()), "{}", parts[0]);
    }
}

/// Names of a bill's images, not those of bases.
fn images(bill: &str) -> Vec<String> {
    let bill: Value = serde_json::from_str(bill).unwrap();
    let all = bill["packages"].as_array().unwrap().iter();
    let images = all.filter(|one| {
        let id = one["SPDXID"].as_str().unwrap();
        id.starts_with("SPDXRef-Image") || id.starts_with("SPDXRef-Variant")
    });
    images.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_parts_do_not_tell_is_not_made_up() {
    let place = Place::new();
    place.model("renamed", 0);
    let (one, two) = (place.oci("one"), place.oci("two"));
    let wanted = documents(&place, "parts");
    let assemble = |arguments: &[&str]| -> Run {
        let out = place.oci("out");
        starcar(&[&["assemble", "-q", &one, &two, "-o", &out][..], arguments].concat())
    };
    done(place.pack("model", &["--part", "1/2", "-o", &one]));
    // One machine is asked in one way. The image is the same all the same.
    done(place.pack("renamed", &["--part", "2/2", "-o", &two]));
    let run = assemble(&strings(&wanted));
    assert_eq!((run.code, run.stdout.as_str()), (5, ""), "{}", run.stderr);
    assert!(run.stderr.contains("snapshot: \"renamed\", not \"model\""), "{}", run.stderr);
    assert!(run.stderr.contains("without --provenance"), "{}", run.stderr);
    assert!(!place.path("out").exists() && !place.path("parts.p.json").exists());
    done(place.pack(COPY, &["--part", "2/2", "-o", &two]));

    // A part that says nothing, or not all, of what it was made of.
    let layers = |config: &Value| config["layers"].as_array().unwrap().len();
    for change in [
        &(|config: &mut Value| drop(config.as_object_mut().unwrap().remove("madeOf"))) as &dyn Fn(&mut Value),
        &|config| {
            assert!(layers(config) > 0);
            let files = config["madeOf"]["files"].as_object_mut().unwrap();
            let first = files.values_mut().next().unwrap().as_array_mut().unwrap();
            first.pop();
        },
    ] {
        replace_config(&place.path("two"), change, true);
        let run = assemble(&strings(&wanted));
        assert_eq!(run.code, 5, "{}", run.stderr);
        assert!(run.stderr.contains("part 2/2") && run.stderr.contains("does not tell"), "{}", run.stderr);
        done(assemble(&[]));
        done(place.pack("model", &["--part", "2/2", "-o", &two]));
    }
    done(assemble(&strings(&wanted)));
    assert!(place.path("parts.s.json").exists());
}

#[test]
fn documents_of_parts_are_refused_first() {
    let place = Place::new();
    let to = place.oci("shared");
    place.parts(1, &[], &["-o", &to]);
    let (none, twice) = (place.text("none/p.json"), place.text("p.json"));
    for (arguments, said) in [
        (vec!["--provenance", none.as_str()], "is no directory"),
        (vec!["--provenance", &twice, "--sbom", &twice], "the same file"),
        (vec!["--builder-id", "https://example.com"], "--provenance"),
    ] {
        let run = starcar(&[&["assemble", "-o", &to][..], &arguments].concat());
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(run.stderr.contains(said), "{}", run.stderr);
    }
    let index = fs::read_to_string(place.path("shared/index.json")).unwrap();
    assert!(!index.contains("\"v1\""), "{index}");
}

#[test]
fn caches_are_said_of_images_that_are_there() {
    let place = Place::new();
    let registry = FakeRegistry::open();
    let (model, caches) = (place.text("model"), place.caches());
    let name = format!("{}/models/tiny", registry.address());
    let layout = format!("oci:{}", place.text("out"));
    let tagged = format!("{name}:v1");
    for (to, expected) in [
        (vec!["-t", &name, "--push", "--push-by-digest"], vec![]),
        (vec!["-t", &tagged, "--push"], vec![format!("{name}:v1-sm75"), format!("{name}:v1-sm90")]),
        // It has a name in a registry, and is not there.
        (vec!["-t", &tagged, "-o", &layout], vec![format!("{layout}:v1-sm75"), format!("{layout}:v1-sm90")]),
    ] {
        let pack = ["pack", &model, "--base", "scratch"];
        let run = done(starcar(&[&pack[..], &strings(&caches), &to].concat()));
        let digests = run.stdout.lines().filter_map(|line| line.split_once(' '));
        let of_digests = digests.map(|(_, digest)| format!("{name}@{digest}"));
        let expected = if expected.is_empty() { of_digests.collect() } else { expected };
        assert_eq!(expected.len(), 2);
        for name in expected {
            assert!(run.stderr.contains(&name), "{name}: {}", run.stderr);
        }
        assert!(!run.stderr.contains("latest"), "{}", run.stderr);
    }
}
