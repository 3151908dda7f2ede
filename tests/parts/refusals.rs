//! A clear word where parts are not those of one image, or arguments make no sense.

use std::fs;

use serde_json::Value;
use starcar::digest::Digest;

use crate::{
    harness::{COPY, Place, TAG, age, done, strings},
    support::{command::starcar, hub::files_below, registry::FakeRegistry},
};

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
    fs::write(place.path("edited/config.json"), format!("{:<480}", "{\"model_type\": \"mamba\"}")).unwrap();
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
    // A source that was mistyped.
    let nowhere = place.oci("nowhere");
    let run = starcar(&["assemble", &to, &nowhere, "-o", &place.oci("out")]);
    assert_eq!(run.code, 5);
    let said = format!("{} is not an OCI layout", place.path("nowhere").display());
    assert!(run.stderr.contains(&said), "{}", run.stderr);
    // What takes images takes no part for one.
    let part = format!("{to}.part-1-of-4");
    for arguments in [
        &["inspect", part.as_str()][..],
        &["deploy", &part, "--as", "deployment", "--image", "registry.example.com/m:v1"],
        &["cache", "env", &part],
    ] {
        let run = starcar(arguments);
        assert_eq!(run.code, 5, "{}", run.stderr);
        assert!(
            run.stderr.contains("is no image") && run.stderr.contains("starcar assemble"),
            "{}",
            run.stderr
        );
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
    done(place.pack(COPY, &["--part", "2/4", "-o", &to]));
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
