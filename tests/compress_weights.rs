//! `--compress-weights`: images whose weights are entropy coded unpack to the same files, have the digests that earlier
//! versions gave them, and are the same however they are brought to where they go.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use serde_json::Value;
use support::{
    command::{Run, starcar},
    noise::noise,
    registry::FakeRegistry,
};

const FORMATS: [&str; 2] = ["estargz", "zstd:chunked"];

/// Numbers in bf16, as weights are: nearly normal, N(0, 0.02).
fn weights(numbers: usize, seed: u64) -> Vec<u8> {
    let number = |twelve: &[u8]| {
        let sum: u16 = twelve.iter().map(|byte| u16::from(*byte)).sum();
        (f32::from(sum) - 1530.0) / 256.0 * 0.02
    };
    let bytes = noise(numbers * 12, seed);
    bytes.chunks_exact(12).flat_map(|twelve| number(twelve).to_bits().to_le_bytes()[2..].to_vec()).collect()
}

fn safetensors(data: &[u8]) -> Vec<u8> {
    let length = data.len();
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A model: weights that shrink, weights that do not, and a file of both.
fn model(directory: &Path) -> PathBuf {
    let model = directory.join("model");
    fs::create_dir(&model).unwrap();
    let random = noise(200_000, 3);
    for (name, data) in [
        ("model-00001-of-00003", weights(150_000, 1)),
        ("model-00002-of-00003", random.clone()),
        ("model-00003-of-00003", [weights(300_000, 2), random].concat()),
    ] {
        fs::write(model.join(format!("{name}.safetensors")), safetensors(&data)).unwrap();
    }
    fs::write(model.join("config.json"), format!("{:<480}", "{\"model_type\": \"llama\"}")).unwrap();
    model
}

fn pack(model: &Path, format: &str, more: &[&str]) -> Run {
    let model = model.to_str().unwrap();
    let arguments =
        ["pack", model, "--base", "scratch", "--layer-format", format, "--estargz-chunk-size", "131072"];
    starcar(&[&arguments[..], more].concat())
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

type Files = BTreeMap<String, Vec<u8>>;

/// The model's files in a layout's image, unpacked by other libraries, and the digests and sizes of its layers.
fn unpacked(layout: &Path) -> (Files, Vec<(String, u64)>) {
    let blob = |digest: &Value| layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let index = read_json(&layout.join("index.json"));
    let manifest = read_json(&blob(&index["manifests"][0]["digest"]));
    let mut files = Files::new();
    let mut layers = Vec::new();
    for layer in manifest["layers"].as_array().unwrap() {
        layers.push((layer["digest"].as_str().unwrap().to_owned(), layer["size"].as_u64().unwrap()));
        let bytes = fs::read(blob(&layer["digest"])).unwrap();
        let mut stream = Vec::new();
        if layer["mediaType"].as_str().unwrap().ends_with("gzip") {
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut stream).unwrap();
        } else {
            zstd::stream::read::Decoder::new(&bytes[..]).unwrap().read_to_end(&mut stream).unwrap();
        }
        for entry in tar::Archive::new(&stream[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            if let Some(name) = path.strip_prefix("models/").filter(|name| !name.is_empty()) {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                files.insert(name.to_owned(), content);
            }
        }
    }
    (files, layers)
}

/// What verifying finds, as codes.
fn codes(layout: &Path, more: &[&str]) -> String {
    let target = format!("oci:{}", layout.display());
    let run = starcar(&[&["verify", &target, "--format", "json"][..], more].concat());
    let verdict: Value =
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}", run.stderr));
    let findings = verdict["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["code"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn weights_come_back_from_fewer_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let model = model(directory.path());
    let mut digests = Vec::new();
    for format in FORMATS {
        let image = |name: &str, more: &[&str]| {
            let layout = directory.path().join(format!("{name} {format}").replace(':', "-"));
            let target = format!("oci:{}", layout.display());
            let run = pack(&model, format, &[&["-o", &target], more].concat());
            assert_eq!(run.code, 0, "{}", run.stderr);
            (layout, run.stdout.trim_end().to_owned())
        };
        let (stored, _) = image("stored", &[]);
        let (compressed, digest) = image("compressed", &["--compress-weights"]);
        // Read whole there is nothing to say of one that cannot be said of the other, and it can be made again.
        assert_eq!(codes(&compressed, &["--deep"]), codes(&stored, &["--deep"]));
        let rebuilt = codes(&compressed, &["--rebuild", model.to_str().unwrap()]);
        assert!(!rebuilt.contains("rebuild-"), "{rebuilt}");

        let (files, layers) = unpacked(&compressed);
        for file in fs::read_dir(&model).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            assert!(files[&name] == fs::read(file.path()).unwrap(), "{name} of {format}");
        }
        let (_, stored) = unpacked(&stored);
        // Of the layers of weights the first shrinks as its entropy says, the second not at all, the third in part.
        let percent: Vec<u64> = std::iter::zip(&layers, &stored)
            .skip(1)
            .map(|(layer, stored)| layer.1 * 100 / stored.1)
            .collect();
        assert!(matches!(percent[..], [76..=81, 100, 80..=88]), "{format}: {percent:?}");
        assert_eq!(layers[2], stored[2]);

        // Kept in memory or a temporary file until it is sent.
        let registry = FakeRegistry::open();
        let name = format!("{}/models/one:v1", registry.address());
        let run = pack(&model, format, &["--compress-weights", "-t", &name, "--push"]);
        assert_eq!((run.code, run.stdout.trim_end()), (0, digest.as_str()), "{}", run.stderr);
        digests.extend(layers.iter().map(|(digest, _)| format!("{format} {digest}")));
    }
    insta::assert_snapshot!(digests.join("\n"), @r#"
    estargz sha256:dac258166cb05484ea7ab2af1576049c7287348bc29f34bdebf3da1c457ec647
    estargz sha256:4f959f43eabc4eac8f70ccfc142de4c71178c037e09771a57f3acb0b5f1d7665
    estargz sha256:a7a88b374eed65ca09b51716e0656e23c4a312a3006e846557b14ddbfac474a9
    estargz sha256:4111b13e98df11df874e0c05a4d916f0f7928444f46c5eebffdf22bda581e3bf
    zstd:chunked sha256:648dd4348c6cd0cde1747a00daf60fc56a275001115d46e83f7604f49bdb504e
    zstd:chunked sha256:a5ceedcf68a91e73751b87a4ef214acedd8295ab61501784b9ec03c6445bbe15
    zstd:chunked sha256:98ebbea169e1646e9481de52737b8a9ea91f6ef86c769f6b4d038a752ca232a5
    zstd:chunked sha256:2c52ede5a75524faacb292736c6a298e7387d791632ca12d6edda291a8dbb8e3
    "#);
}

#[test]
fn a_plan_says_what_compressing_weights_saves_and_costs() {
    let directory = tempfile::tempdir().unwrap();
    let model = model(directory.path());
    let model = model.to_str().unwrap();
    let run = starcar(&["plan", model, "--base", "scratch", "--profile", "none", "--compress-weights"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    insta::assert_snapshot!(run.stdout, @r#"
    layer 1: small files, 1 file, 480 B; prefetched
      config.json  480 B  compressed  1 chunk  compressed: a sample shrank to 7 %; prefetched: small
    layer 2: weights, 1 file, 293.0 KiB; prefetched
      model-00001-of-00003.safetensors  293.0 KiB  compressed  1 chunk  compressed: --compress-weights, a sample shrank to 77 %; prefetched: small enough to be there when the container starts
    layer 3: weights, 1 file, 195.3 KiB; prefetched
      model-00002-of-00003.safetensors  195.3 KiB  stored  1 chunk  stored: a sample of these weights shrank to 100 % only; prefetched: small enough to be there when the container starts
    layer 4: weights, 1 file, 781.3 KiB; prefetched
      model-00003-of-00003.safetensors  781.3 KiB  compressed  1 chunk  compressed: --compress-weights, a sample shrank to 83 %; prefetched: small enough to be there when the container starts
    4 files, 1.2 MiB
    compressed weights: 1.0 MiB to about 871.5 KiB; a node's core unpacks them in 0.0 s; packing keeps as much as they shrink to in TMPDIR, if there is no oci: output
    "#);
    let json = |more: &[&str]| {
        let run = starcar(&[&["plan", model, "--base", "scratch", "--format", "json"][..], more].concat());
        serde_json::from_str::<Value>(&run.stdout).unwrap()["compressedWeights"].clone()
    };
    let gzip = json(&["--compress-weights"]);
    let zstd = json(&["--compress-weights", "--layer-format", "zstd:chunked"]);
    assert_eq!(gzip["size"], zstd["size"]);
    let seconds = |value: &Value| value["unpackSeconds"].as_f64().unwrap();
    assert!(seconds(&gzip) > seconds(&zstd), "{gzip} {zstd}");
    assert_eq!(json(&[]), Value::Null);
}

#[test]
fn what_cannot_compress_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let model = model(directory.path());
    for more in [["--layer-format", "tar"], ["--compression", "store"]] {
        let model = model.to_str().unwrap();
        let run = starcar(&[&["plan", model, "--compress-weights"][..], &more].concat());
        assert_eq!(run.code, 2);
        assert!(run.stderr.contains("--compress-weights goes not with"), "{}", run.stderr);
    }
}

#[test]
fn a_level_of_another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let model = model(directory.path());
    let model = model.to_str().unwrap();
    for (format, level, code) in [
        ("estargz", "--estargz-compression-level", 0),
        ("estargz", "--zstdchunked-compression-level", 2),
        ("zstd:chunked", "--zstdchunked-compression-level", 0),
        ("zstd:chunked", "--estargz-compression-level", 2),
        ("tar", "--estargz-compression-level", 2),
    ] {
        let run = starcar(&["plan", model, "--base", "scratch", "--layer-format", format, level, "1"]);
        assert_eq!(run.code, code, "{format} {level}: {}", run.stderr);
    }
}

#[test]
fn a_pack_without_room_for_its_temporary_file_does_not_begin() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("config.json"), "{}").unwrap();
    // 1 GiB that takes no place on the disk, and shrinks to an eighth.
    let file = fs::File::create(model.join("model.gguf")).unwrap();
    std::io::Write::write_all(&mut &file, b"GGUF").unwrap();
    file.set_len(1 << 30).unwrap();
    let archive = format!("oci-archive:{}", directory.path().join("image.tar").display());
    let mut command = Command::cargo_bin("starcar").unwrap();
    // The file system of processes has no room.
    let output = command
        .args(["pack", model.to_str().unwrap(), "--base", "scratch", "--compress-weights", "-o", &archive])
        .env("TMPDIR", "/proc")
        .env("STARCAR_DIGEST_CACHE", "")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("/proc has 0 bytes free") && said.contains("TMPDIR"), "{said}");
}
