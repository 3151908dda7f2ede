//! Parts of strangers, who may write anything.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use starcar::digest::Digest;

use crate::{
    harness::{Place, done},
    support::{command::starcar, hub::files_below},
};

pub(crate) type Change<'a> = &'a dyn Fn(&mut Value);

/// Puts another config into the only part of a layout.
pub(crate) fn replace_config(layout: &Path, change: Change<'_>, keep_layers: bool) {
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

/// Makes a directory that has these files alone.
fn write_files(directory: &Path, files: &BTreeMap<String, Vec<u8>>) {
    fs::remove_dir_all(directory).ok();
    for (path, content) in files {
        fs::create_dir_all(directory.join(path).parent().unwrap()).unwrap();
        fs::write(directory.join(path), content).unwrap();
    }
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
        write_files(&layout, &good);
        replace_config(&layout, change, keep_layers);
        let run = starcar(&["assemble", &place.oci("changed"), "-o", &place.oci("out")]);
        assert_eq!(run.code, 5, "{said}: {}", run.stderr);
        assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
    }
}

#[test]
fn large_and_deep_configs_are_refused() {
    let place = Place::new();
    let cache = format!("triton={}", place.text("new"));
    done(place.pack("model", &["--cache", &cache, "--part", "1/1", "-o", &place.oci("good")]));
    let good: BTreeMap<String, Vec<u8>> = files_below(&place.path("good"));
    let deep = |config: &mut Value| {
        let nested = (0..1000).fold(json!(1), |inner, _| json!([inner]));
        config["madeOf"]["told"]["given"]["snapshot"] = nested;
    };
    // One layer says much, and many images have it.
    let repeated = |config: &mut Value| {
        config["plan"]["image"]["layers"][0]["title"] = json!("x".repeat(1 << 20));
        config["plan"]["image"]["images"] = json!(vec![&config["plan"]["image"]["images"][0]; 300]);
    };
    let annotated = |config: &mut Value| {
        config["layers"][0]["annotations"] = json!({ "x": "y".repeat(5 << 20) });
    };
    let padded = |config: &mut Value| {
        config["knownDigests"] = json!({ "x": ["y".repeat(64 << 20)] });
    };
    let changes: [(Change<'_>, &str); 4] = [
        (&deep, "is no part of an image"),
        (&repeated, "documents of the images would have"),
        (&annotated, "annotations of its layers have 524"),
        (&padded, "more than 67108864"),
    ];
    for (change, said) in changes {
        let layout = place.path("changed");
        write_files(&layout, &good);
        replace_config(&layout, change, false);
        let to = place.oci("out");
        // Nor does it take much memory to say so: the largest is some 64 MiB, and read as text and as a document.
        let command = format!("ulimit -v 1500000; exec \"$0\" assemble {} -o {to}", place.oci("changed"));
        let program = assert_cmd::cargo::cargo_bin!("starcar");
        let run = Command::new("sh").arg("-c").arg(&command).arg(program).output().unwrap();
        let text = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(5), "{said}: {text}");
        assert!(text.contains(said) && text.len() < 10_000, "{said}: {text}");
        assert!(!place.path("out").exists());
    }
}
