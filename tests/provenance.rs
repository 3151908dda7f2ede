//! `starcar pack --provenance` and `--sbom`: what they say is true, and the same on every machine.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use starcar::digest::Digest;
use support::command::{Run, starcar, starcar_in};

const EXAMPLE: &str = "examples/tiny-llama";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn oci(&self, name: &str) -> String {
        format!("oci:{}", self.text(name))
    }

    /// A static binary of nobody's, with the names of tools in it.
    fn busybox(&self) -> String {
        let mut bytes = vec![0; 120];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[18], bytes[32], bytes[54], bytes[56], bytes[64]) = (62, 64, 56, 1, 1);
        bytes.extend(b"\0ln\0ls\0mkdir\0sh\0sleep\0");
        fs::write(self.path("busybox"), bytes).unwrap();
        self.text("busybox")
    }

    /// Packs with both documents; they are beside the layout `out`.
    fn pack(&self, arguments: &[&str]) -> Run {
        let (out, provenance, sbom) = (self.oci("out:v1"), self.text("p.json"), self.text("s.json"));
        let more = ["-o", &out, "--provenance", &provenance, "--sbom", &sbom];
        starcar(&[&["pack"], arguments, &more].concat())
    }

    fn packed(&self, arguments: &[&str]) -> (String, Value, Value) {
        let run = self.pack(arguments);
        assert_eq!(run.code, 0, "{}", run.stderr);
        (run.stdout.lines().last().unwrap().to_owned(), self.json("p.json"), self.json("s.json"))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }
}

fn sha256(path: &Path) -> String {
    Digest::of(&fs::read(path).unwrap()).hex()
}

/// The digests of a statement's dependencies by name.
fn dependencies(statement: &Value) -> BTreeMap<String, String> {
    let all = statement["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    let of = |one: &Value| {
        let digest = one["digest"].as_object().unwrap().values().next().unwrap();
        (one["name"].as_str().unwrap().to_owned(), digest.as_str().unwrap().to_owned())
    };
    let named: BTreeMap<String, String> = all.iter().map(of).collect();
    assert_eq!(named.len(), all.len(), "two of a name in {all:?}");
    named
}

fn packages(sbom: &Value) -> BTreeMap<String, Value> {
    let all = sbom["packages"].as_array().unwrap();
    all.iter().map(|one| (one["SPDXID"].as_str().unwrap().to_owned(), one.clone())).collect()
}

/// Pairs of identifiers that are related in one way.
fn related(sbom: &Value, kind: &str) -> Vec<(String, String)> {
    let all = sbom["relationships"].as_array().unwrap().iter();
    let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
    all.filter(|one| one["relationshipType"] == kind)
        .map(|one| (text(one, "spdxElementId"), text(one, "relatedSpdxElement")))
        .collect()
}

/// A model that was downloaded by nobody.
fn model(directory: &Path, card: &str) {
    fs::create_dir_all(directory.join("sub dir")).unwrap();
    fs::write(directory.join("config.json"), "{}").unwrap();
    fs::write(directory.join("sub dir/\u{e4}.json"), "{\"a\":1}").unwrap();
    fs::write(directory.join("empty.txt"), "").unwrap();
    fs::write(directory.join("README.md"), card).unwrap();
}

#[test]
fn every_file_is_there_with_its_digest() {
    let place = Place::new();
    let base = place.busybox();
    let (digest, statement, sbom) = place.packed(&[EXAMPLE, "--base", &base]);
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let subject = statement["subject"].as_array().unwrap();
    assert_eq!(subject.len(), 1);
    assert_eq!(subject[0]["name"], "oci:out:v1");
    assert_eq!(format!("sha256:{}", subject[0]["digest"]["sha256"].as_str().unwrap()), digest);

    let found = dependencies(&statement);
    let packages = packages(&sbom);
    let of_model: Vec<&Value> = related(&sbom, "CONTAINS")
        .iter()
        .filter(|(from, _)| from == "SPDXRef-Model")
        .map(|(_, to)| &packages[to])
        .collect();
    let mut files = 0;
    for file in fs::read_dir(EXAMPLE).unwrap().map(|file| file.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if !file.is_file() || name.starts_with('.') || !found.contains_key(name) {
            continue;
        }
        files += 1;
        assert_eq!(found[name], sha256(&file), "{name}");
        let listed = of_model.iter().find(|one| one["name"] == *name).unwrap();
        assert_eq!(listed["checksums"][0]["checksumValue"], sha256(&file), "{name}");
        assert_eq!(listed["primaryPackagePurpose"], "FILE");
    }
    assert!(files >= 4, "{found:?}");
    assert_eq!(of_model.len(), files);
    assert_eq!(found["busybox"], sha256(Path::new(&base)));
    // The profile is the one that the image says it is laid out by.
    let manifest = place.path("out/blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!(manifest["annotations"]["dev.starcar.profile.digest"], format!("sha256:{}", found["profile"]));
    assert_eq!(found.len(), files + 2);
    assert_eq!(related(&sbom, "DESCRIBES"), [("SPDXRef-DOCUMENT".to_owned(), "SPDXRef-Image".to_owned())]);
    assert_eq!(packages["SPDXRef-Image"]["checksums"][0]["checksumValue"], digest[7..]);
}

#[test]
fn nothing_of_this_machine_is_in_them() {
    let place = Place::new();
    let model_directory = place.path("secret-place/my model");
    model(&model_directory, "---\nlicense: llama3\n---\n");
    let model = model_directory.to_str().unwrap();
    let base = place.busybox();
    let arguments =
        [model, "--base", &base, "--builder-id", "https://ci.example.com/x", "--invocation-id", "run/7"];
    let (_, statement, _) = place.packed(&arguments);
    let (one, bill) = (fs::read(place.path("p.json")).unwrap(), fs::read(place.path("s.json")).unwrap());
    let directory = place.0.path().to_str().unwrap();
    for text in [&one, &bill] {
        let text = String::from_utf8_lossy(text);
        assert!(!text.contains(directory) && !text.contains("secret-place"), "{text}");
    }
    let run = &statement["predicate"]["runDetails"];
    assert_eq!(run["builder"]["id"], "https://ci.example.com/x");
    assert_eq!(run["metadata"]["invocationId"], "run/7");
    assert_eq!(statement["predicate"]["buildDefinition"]["externalParameters"]["snapshot"], "my model");
    // Odd names are names, and URIs are only given where something is known of the hub.
    assert!(dependencies(&statement).contains_key("sub dir/\u{e4}.json"));
    assert!(!String::from_utf8_lossy(&one).contains("hf://"));

    // The same from another directory with other threads, and with everything known.
    let elsewhere = Place::new();
    let other = elsewhere.path("elsewhere/my model");
    fs::create_dir_all(elsewhere.path("elsewhere")).unwrap();
    fs::rename(&model_directory, &other).unwrap();
    let base = elsewhere.busybox();
    let cache = elsewhere.text("cache");
    for _ in 0..2 {
        let (out, provenance, sbom) =
            (elsewhere.oci("out:v1"), elsewhere.text("p.json"), elsewhere.text("s.json"));
        let _ = fs::remove_dir_all(elsewhere.path("out"));
        let mut arguments =
            vec!["pack", other.to_str().unwrap(), "--base", &base, "--threads", "1", "-o", &out];
        arguments.extend(["--provenance", &provenance, "--sbom", &sbom]);
        arguments.extend(&["--builder-id", "https://ci.example.com/x", "--invocation-id", "run/7"]);
        let run = starcar_in(cache.as_ref(), &arguments);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(fs::read(elsewhere.path("p.json")).unwrap(), one);
        assert_eq!(fs::read(elsewhere.path("s.json")).unwrap(), bill);
    }
}

#[test]
fn what_the_digest_cache_knows_is_not_read_again() {
    let place = Place::new();
    let directory = place.path("model");
    model(&directory, "");
    let cache = place.text("cache");
    for format in ["estargz", "zstd:chunked", "tar"] {
        let pack = |file: &str| {
            let (out, provenance) =
                (place.oci(&format!("out-{format}:v1").replace("zstd:", "")), place.text(file));
            let model = directory.to_str().unwrap();
            let arguments = ["pack", model, "--base", "scratch", "--layer-format", format, "-o", &out];
            starcar_in(cache.as_ref(), &[&arguments[..], &["--provenance", &provenance]].concat())
        };
        // A file is kept when its stamp cannot be the one of a change that is still to come.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let run = pack("first.json");
        assert_eq!((run.code, run.stderr.matches("(known)").count()), (0, 0), "{}", run.stderr);
        let first = fs::read(place.path("first.json")).unwrap();
        let second = pack("second.json");
        assert_eq!(second.code, 0);
        assert_eq!(second.stderr.matches("(known)").count(), 2, "{}", second.stderr);
        assert_eq!(fs::read(place.path("second.json")).unwrap(), first, "{format}");
        assert_eq!(
            dependencies(&place.json("second.json"))["config.json"],
            sha256(&directory.join("config.json"))
        );
    }
}

#[test]
fn licences_are_the_model_cards() {
    for (card, declared, extracted) in [
        ("---\nlicense: apache-2.0\n---\n", "Apache-2.0", 0),
        ("---\nlicense: other\nlicense_name: Mine\nlicense_link: LICENSE\n---\n", "LicenseRef-Mine", 1),
        ("no front matter", "NOASSERTION", 0),
    ] {
        let place = Place::new();
        model(&place.path("m"), card);
        let (_, _, sbom) = place.packed(&[&place.text("m"), "--base", "scratch"]);
        assert_eq!(packages(&sbom)["SPDXRef-Model"]["licenseDeclared"], declared);
        let infos = sbom["hasExtractedLicensingInfos"].as_array().map_or(0, Vec::len);
        assert_eq!(infos, extracted, "{sbom}");
    }
}

#[test]
fn compile_caches_indexes_and_variants() {
    let place = Place::new();
    let base = place.busybox();
    // A group of Triton's, whose paths are written anew, and two files that are the same.
    for (target, arch) in [("sm90", 90), ("sm80", 80)] {
        let directory = place.path(&format!("{target}/triton/KEY{arch}"));
        fs::create_dir_all(&directory).unwrap();
        let child = directory.join("k.json");
        fs::write(
            &child,
            format!("{{\"target\":{{\"backend\":\"cuda\",\"arch\":{arch},\"warp_size\":32}}}}"),
        )
        .unwrap();
        fs::write(directory.join("k.cubin"), [1; 5_000]).unwrap();
        fs::write(directory.join("again.cubin"), [1; 5_000]).unwrap();
        let group = format!("{{\"child_paths\":{{\"k.json\":\"/old/place/KEY{arch}/k.json\"}}}}");
        fs::write(directory.join("__grp__k.json"), group).unwrap();
    }
    let caches: Vec<String> = ["sm90", "sm80"]
        .map(|target| format!("triton@{target}={}", place.text(&format!("{target}/triton"))))
        .to_vec();
    let amd64 = format!("linux/amd64={base}");
    let arguments = [
        EXAMPLE,
        "--platform",
        "linux/amd64,linux/arm64",
        "--base",
        &amd64,
        "--base",
        "linux/arm64=scratch",
        "--cache",
        &caches[0],
        "--cache",
        &caches[1],
    ];
    let (digest, statement, sbom) = place.packed(&arguments);
    let subject = statement["subject"].as_array().unwrap();
    let names: Vec<&str> = subject.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["oci:out:v1", "oci:out:v1-sm80", "oci:out:v1-sm90"]);
    let index: Value = place.json("out/index.json");
    for one in subject {
        let tag = one["name"].as_str().unwrap().rsplit(':').next().unwrap();
        let listed = index["manifests"].as_array().unwrap();
        let listed =
            listed.iter().find(|one| one["annotations"]["org.opencontainers.image.ref.name"] == tag).unwrap();
        assert_eq!(listed["digest"], format!("sha256:{}", one["digest"]["sha256"].as_str().unwrap()));
    }
    assert_eq!(format!("sha256:{}", subject[0]["digest"]["sha256"].as_str().unwrap()), digest);
    let all = statement["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    for (target, arch) in [("sm90", 90), ("sm80", 80)] {
        for name in ["k.json", "k.cubin", "again.cubin", "__grp__k.json"] {
            let wanted = sha256(&place.path(&format!("{target}/triton/KEY{arch}/{name}")));
            let suffix = format!("/KEY{arch}/{name}");
            let found = all.iter().find(|one| one["name"].as_str().unwrap().ends_with(&suffix)).unwrap();
            assert_eq!(found["digest"]["sha256"], wanted, "{suffix}");
        }
    }
    let packages = packages(&sbom);
    // What is in the image is the group with its new paths.
    let groups: Vec<&Value> =
        packages.values().filter(|one| one["name"].as_str().unwrap().ends_with("__grp__k.json")).collect();
    assert_eq!(groups.len(), 2);
    assert!(groups.iter().all(|one| one["comment"].as_str().unwrap().contains("SHA256")));
    assert_eq!(related(&sbom, "VARIANT_OF").len(), 2);
    let ids: Vec<&String> = packages.keys().collect();
    for (from, to) in related(&sbom, "CONTAINS") {
        assert!(ids.contains(&&from) && ids.contains(&&to), "{from} {to}");
    }
    assert_eq!(packages.len(), sbom["packages"].as_array().unwrap().len());
    // Each cache lies in the images of its target alone.
    let of_cache = |id: &str| related(&sbom, "CONTAINS").iter().filter(|(_, to)| to == id).count();
    assert_eq!((of_cache("SPDXRef-Cache-1"), of_cache("SPDXRef-Cache-2")), (2, 2));
}

#[test]
fn what_cannot_be_written_is_refused_first_or_told_with_the_digest() {
    let place = Place::new();
    let directory = place.text("none/p.json");
    let pack = |more: &[&str]| {
        let out = place.oci("out:v1");
        starcar(&[&["pack", EXAMPLE, "--base", "scratch", "-o", &out][..], more].concat())
    };
    let same = place.text("same.json");
    let again = place.text("./same.json");
    for (arguments, word) in [
        (&["--provenance", directory.as_str()][..], "is no directory"),
        (&["--sbom", place.0.path().to_str().unwrap()], "is a directory"),
        // Nobody may write there, not even root.
        (&["--provenance", "/proc/provenance.json"], "no file can be made in /proc"),
        (&["--metadata-file", "/proc/metadata.json"], "no file can be made in /proc"),
        (&["--metadata-file", "/proc"], "is a directory"),
        (&["--sbom", "/dev/null"], "is no regular file"),
        (&["--provenance", &same, "--sbom", &same], "the same file"),
        (&["--provenance", &same, "--sbom", &again], "the same file"),
        (&["--provenance", &same, "--metadata-file", &again], "the same file"),
        (&["--provenance", &same, "--dry-run"], "cannot be used with"),
        (&["--builder-id", "https://example.com"], "--provenance"),
        (&["--provenance", &same, "--builder-id", "me"], "expected a URI"),
        (&["--provenance", &same, "--builder-id", "https://a b"], "expected a URI"),
        (&["--provenance", &same, "--invocation-id", ""], "on one line"),
    ] {
        let run = pack(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(word), "{arguments:?}: {}", run.stderr);
        assert!(!place.path("out").exists() && !place.path("same.json").exists());
    }
    // One that fails takes neither the digest along nor the others.
    let run = pack(&["--metadata-file", "/dev/full", "--provenance", &same]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stdout.starts_with("sha256:"), "{}", run.stdout);
    assert!(run.stderr.contains("cannot write /dev/full"), "{}", run.stderr);
    assert!(place.path("out/index.json").exists() && place.path("same.json").exists());
}
