//! Profiles attached to images: in registries with and without an API for referrers, and in layouts.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{fs, path::Path, thread};

use serde_json::{Value, json};
use starcar::{
    attach::{PROFILE_TYPE, attach_profile},
    digest::Digest,
    oci::descriptor,
    profile::Profile,
    registry::{Reference, Registry, RegistryOptions},
};
use support::{
    command::{Run, starcar},
    registry::{Effect, FakeOptions, FakeRegistry, Fault},
};

const EXAMPLE: &str = "examples/tiny-llama";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

fn registry(with_api: bool, faults: Vec<Fault>) -> FakeRegistry {
    FakeRegistry::start(FakeOptions { referrers: with_api, faults, ..FakeOptions::default() })
}

fn client() -> Registry {
    Registry::new(RegistryOptions { retries: 1, ..RegistryOptions::default() }).unwrap()
}

/// Packs the example to a place.
fn pack(place: &[&str]) -> String {
    let run = done(&[&["pack", EXAMPLE, "--base", "scratch"], place].concat());
    run.stdout.trim_end().to_owned()
}

fn done(arguments: &[&str]) -> Run {
    let run = starcar(arguments);
    assert_eq!(run.code, 0, "{arguments:?}: {}", run.stderr);
    run
}

/// A profile that reads one file of the example.
fn profile(directory: &Path, file: &str) -> String {
    let path = directory.join(format!("{file}.profile.json"));
    let document = json!({
        "version": 1,
        "accesses": [{ "path": file, "kind": "open", "at": 0.5 }],
    });
    fs::write(&path, document.to_string()).unwrap();
    path.display().to_string()
}

fn referrers(fake: &FakeRegistry, name: &str) -> Vec<Value> {
    let reference: Reference = name.parse().unwrap();
    let subject = client().pull_manifest(&reference).unwrap().digest;
    let found = client().referrers(&reference, subject, Some(PROFILE_TYPE)).unwrap();
    assert!(client().referrers(&reference, subject, Some("application/other")).unwrap().is_empty());
    assert!(fake.count("GET", "/referrers/") > 0);
    found.iter().map(|descriptor| serde_json::to_value(descriptor).unwrap()).collect()
}

#[test]
fn a_profile_that_is_attached_is_packed_by() {
    for with_api in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let fake = registry(with_api, Vec::new());
        let name = format!("{}/models/tiny:v1", fake.address());
        let image = pack(&["-t", &name, "--push"]);
        let file = profile(directory.path(), "tokenizer.json");
        let first = done(&["profile", "attach", &file, &name]);
        let again = done(&["profile", "attach", &file, &name]);
        assert_eq!(first.stdout, again.stdout);
        let found = referrers(&fake, &name);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["digest"], first.stdout.trim_end());
        let tag = image.replace(':', "-");
        let tags = fake.tags("models/tiny");
        assert_eq!(tags, if with_api { vec!["v1".to_owned()] } else { vec![tag, "v1".to_owned()] });

        let (_, artifact) = fake.manifest("models/tiny", first.stdout.trim_end()).unwrap();
        let artifact: Value = serde_json::from_slice(&artifact).unwrap();
        assert_eq!(artifact["artifactType"], PROFILE_TYPE);
        assert_eq!(artifact["subject"]["digest"], image.as_str());
        assert_eq!(artifact["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
        assert_eq!(artifact["layers"][0]["mediaType"], PROFILE_TYPE);

        let target = |name: &str| format!("oci:{}", directory.path().join(name).display());
        let by_file = pack(&["-o", &target("file"), "--profile", &file]);
        let by_image = pack(&["-o", &target("image"), "--profile", &format!("from:{name}")]);
        assert_eq!(by_file, by_image);
        assert_ne!(by_file, image);
        done(&["plan", EXAMPLE, "--base", "scratch", "--profile", &format!("from:{name}")]);
    }
}

#[test]
fn the_artifact_is_the_same_wherever_it_is_attached() {
    let directory = tempfile::tempdir().unwrap();
    let fake = registry(true, Vec::new());
    let name = format!("{}/models/tiny:v1", fake.address());
    let layout = format!("oci:{}", directory.path().join("out").display());
    pack(&["-t", &name, "--push", "-o", &layout]);
    let in_registry = done(&["profile", "attach", "vllm-default", &name]).stdout;
    let in_layout = done(&["profile", "attach", "vllm-default", &layout]).stdout;
    assert_eq!(in_registry, in_layout);
    let index = || -> Value {
        serde_json::from_slice(&fs::read(directory.path().join("out/index.json")).unwrap()).unwrap()
    };
    assert_eq!(index()["manifests"].as_array().unwrap().len(), 2);
    done(&["profile", "attach", "vllm-default", &layout]);
    assert_eq!(index()["manifests"].as_array().unwrap().len(), 2);
    let entry = &index()["manifests"][1];
    assert_eq!(entry["artifactType"], PROFILE_TYPE);
    assert!(entry.get("annotations").is_none(), "{entry}");

    // The layout's only image needs no name still.
    done(&["inspect", &layout]);
    let of = |profile: &str| done(&["plan", EXAMPLE, "--base", "scratch", "--profile", profile]).stdout;
    assert_eq!(of(&format!("from:{layout}")), of("vllm-default"));
    assert_eq!(of(&format!("from:{name}")), of("vllm-default"));
    let archive = format!("oci-archive:{}", directory.path().join("x.tar").display());
    assert_eq!(starcar(&["profile", "attach", "vllm-default", &archive]).code, 2);
}

#[test]
fn where_there_is_none_the_error_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}", directory.path().join("out").display());
    pack(&["-o", &layout]);
    let fake = registry(false, Vec::new());
    let name = format!("{}/models/tiny:v1", fake.address());
    done(&["push", &layout, &name]);
    for image in [&layout, &name] {
        let run = starcar(&["plan", EXAMPLE, "--base", "scratch", "--profile", &format!("from:{image}")]);
        assert_eq!(run.code, 7, "{}", run.stderr);
        assert!(run.stderr.contains("no profile is attached to"), "{}", run.stderr);
        assert!(run.stderr.contains("starcar profile attach"), "{}", run.stderr);
    }
    let missing = format!("from:{}/models/none:v1", fake.address());
    assert_eq!(starcar(&["plan", EXAMPLE, "--base", "scratch", "--profile", &missing]).code, 6);
}

#[test]
fn several_are_merged_and_one_can_be_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let fake = registry(false, Vec::new());
    let name = format!("{}/models/tiny:v1", fake.address());
    pack(&["-t", &name, "--push"]);
    let files = ["tokenizer.json", "config.json"].map(|file| profile(directory.path(), file));
    let digests: Vec<String> = files
        .iter()
        .map(|file| done(&["profile", "attach", file, &name]).stdout.trim_end().to_owned())
        .collect();
    let plan = |profiles: &[&str]| {
        let mut arguments = vec!["plan", EXAMPLE, "--base", "scratch", "--format", "json"];
        for profile in profiles {
            arguments.extend(["--profile", profile]);
        }
        done(&arguments)
    };
    let merged = plan(&[&format!("from:{name}")]);
    assert_eq!(merged.stdout, plan(&[&files[0], &files[1]]).stdout);
    assert!(digests.iter().all(|digest| merged.stderr.contains(digest)), "{}", merged.stderr);
    let repository = name.rsplit_once(':').unwrap().0;
    let one = plan(&[&format!("from:{repository}@{}", digests[1])]);
    assert_eq!(one.stdout, plan(&[&files[1]]).stdout);
}

#[test]
fn an_index_has_the_profiles_of_its_image_or_its_own() {
    let fake = registry(true, Vec::new());
    let name = format!("{}/models/tiny:v1", fake.address());
    let image = pack(&["-t", &name, "--push"]);
    let size = fake.manifest("models/tiny", "v1").unwrap().1.len();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [{
        "mediaType": MANIFEST_TYPE, "digest": image, "size": size,
        "platform": { "os": "linux", "architecture": "amd64" },
    }] });
    fake.put_manifest("models/tiny", "all", INDEX_TYPE, index.to_string().as_bytes());
    let all = format!("{}/models/tiny:all", fake.address());
    let of = |profile: &str| done(&["plan", EXAMPLE, "--base", "scratch", "--profile", profile]).stdout;
    done(&["profile", "attach", "sglang", &all]);
    assert_eq!(of(&format!("from:{all}")), of("sglang"));
    done(&["profile", "attach", "transformers", &all, "--platform", "linux/amd64"]);
    assert_eq!(of(&format!("from:{all}")), of("transformers"));
    assert_eq!(of(&format!("from:{name}")), of("transformers"));
}

#[test]
fn packing_attaches_the_profile_to_every_image() {
    let fake = registry(true, Vec::new());
    let name = format!("{}/models/tiny:v1", fake.address());
    pack(&["-t", &name, "--push", "--attach-profile", "--profile", "sglang"]);
    assert_eq!(referrers(&fake, &name).len(), 1);
    let of = |profile: &str| done(&["plan", EXAMPLE, "--base", "scratch", "--profile", profile]).stdout;
    assert_eq!(of(&format!("from:{name}")), of("sglang"));
    let no_profile = [
        "pack",
        EXAMPLE,
        "--base",
        "scratch",
        "-t",
        &name,
        "--push",
        "--attach-profile",
        "--profile",
        "none",
    ];
    assert_eq!(starcar(&no_profile).code, 2);
}

#[test]
fn an_index_that_cannot_be_written_is_told() {
    let refusal =
        Effect::Answer(403, r#"{"errors":[{"code":"DENIED","message":"tags are immutable"}]}"#.into());
    let fake = registry(false, vec![Fault::always("PUT", "/manifests/sha256-", refusal)]);
    let name = format!("{}/models/tiny:v1", fake.address());
    pack(&["-t", &name, "--push"]);
    let run = starcar(&["profile", "attach", "sglang", &name]);
    assert_eq!(run.code, 6, "{}", run.stderr);
    for words in ["no API for referrers", "sha256-", "tags are immutable"] {
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
}

#[test]
fn a_list_is_read_to_its_last_page() {
    let next = Effect::WithHeader("link", "<?page=2>; rel=\"next\"".to_owned());
    let fake = registry(true, vec![Fault::once("GET", "/referrers/", next)]);
    let name = format!("{}/models/tiny:v1", fake.address());
    let reference: Reference = name.parse().unwrap();
    let subject = fake.put_manifest("models/tiny", "v1", MANIFEST_TYPE, b"{}");
    let image = descriptor(subject, 2, MANIFEST_TYPE).unwrap();
    attach_profile(&client(), &reference, &image, &Profile::default()).unwrap();
    let found = client().referrers(&reference, subject, None).unwrap();
    assert_eq!((found.len(), fake.count("GET", "/referrers/")), (1, 2));
    assert!(fake.seen().iter().any(|seen| seen.query == "page=2"));

    let endless = Effect::WithHeader("link", "<?page=2>; rel=\"next\"".to_owned());
    let fake = registry(true, vec![Fault::always("GET", "/referrers/", endless)]);
    let reference: Reference = format!("{}/models/tiny:v1", fake.address()).parse().unwrap();
    let error = client().referrers(&reference, Digest::of(b"x"), None).unwrap_err().to_string();
    assert!(error.contains("pages"), "{error}");
}

#[test]
fn whatever_a_registry_says_instead_of_not_found_leads_to_the_index() {
    for status in [400, 403, 405, 501, 200] {
        let says = Effect::Answer(status, "<html>no</html>".to_owned());
        let fake = registry(false, vec![Fault::always("GET", "/referrers/", says)]);
        let reference: Reference = format!("{}/models/tiny:v1", fake.address()).parse().unwrap();
        let subject = fake.put_manifest("models/tiny", "v1", MANIFEST_TYPE, b"{}");
        let image = descriptor(subject, 2, MANIFEST_TYPE).unwrap();
        attach_profile(&client(), &reference, &image, &Profile::default()).unwrap();
        assert_eq!(client().referrers(&reference, subject, None).unwrap().len(), 1, "{status}");
        assert_eq!(fake.tags("models/tiny").len(), 2);
    }
}

#[test]
fn other_writers_of_the_index_lose_nothing() {
    let fake = registry(false, Vec::new());
    let reference: Reference = format!("{}/models/tiny:v1", fake.address()).parse().unwrap();
    let subject = fake.put_manifest("models/tiny", "v1", MANIFEST_TYPE, b"{}");
    let image = descriptor(subject, 2, MANIFEST_TYPE).unwrap();
    // What another program wrote there, in words that starcar does not know.
    let foreign = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "note": 7, "manifests": [
        { "mediaType": MANIFEST_TYPE, "digest": Digest::of(b"y").to_string(), "size": 1, "newField": true },
    ] });
    let tag = format!("sha256-{}", subject.hex());
    fake.put_manifest("models/tiny", &tag, INDEX_TYPE, foreign.to_string().as_bytes());
    thread::scope(|scope| {
        for writer in 0..4 {
            let (reference, image) = (&reference, &image);
            scope.spawn(move || {
                let profile = Profile { comment: Some(format!("writer {writer}")), ..Profile::default() };
                attach_profile(&client(), reference, image, &profile).unwrap();
            });
        }
    });
    assert_eq!(client().referrers(&reference, subject, Some(PROFILE_TYPE)).unwrap().len(), 4);
    let (_, index) = fake.manifest("models/tiny", &tag).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    assert_eq!((&index["note"], &index["manifests"][0]["newField"]), (&json!(7), &json!(true)));
}
