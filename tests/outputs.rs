//! What commands write, and to whom: no file replaces what is read or another output, and who stops reading standard
//! output changes neither the exit code nor what else is done.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use support::command::starcar;

const EXAMPLE: &str = "examples/tiny-llama";
const COLD: &str = "tests/data/report/vllm-gpu-cold.log";

/// The exit code of a run whose standard output nobody reads.
fn unread(arguments: &[&str]) -> i32 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_starcar"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("STARCAR_DIGEST_CACHE", "")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    child.wait().unwrap().code().unwrap()
}

fn packed(directory: &Path) -> String {
    let image = format!("oci:{}:v1", directory.join("image").display());
    let run = starcar(&["pack", EXAMPLE, "--base", "scratch", "-q", "-o", &image]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    image
}

#[test]
fn gates_answer_when_nobody_reads_them() {
    let directory = tempfile::tempdir().unwrap();
    let image = packed(directory.path());
    assert_eq!(unread(&["verify", &image]), starcar(&["verify", &image]).code);
    assert_eq!(unread(&["report", COLD]), 0);
    assert_eq!(unread(&["report", COLD, "--max-seconds", "compile=3s"]), 11);
    assert_eq!(
        unread(&["profile", "diff", "generic", "sglang"]),
        starcar(&["profile", "diff", "generic", "sglang"]).code
    );
    // Not of this machine: a root without anything lacks all that lazy pulls need.
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    assert_eq!(unread(&["node", "check", "--root", root.to_str().unwrap()]), 12);
    // The largest blob of the layout loses a byte.
    let blobs = directory.path().join("image/blobs/sha256");
    let largest = fs::read_dir(blobs)
        .unwrap()
        .map(|entry| entry.unwrap())
        .max_by_key(|entry| entry.metadata().unwrap().len());
    let largest = largest.unwrap().path();
    let bytes = fs::read(&largest).unwrap();
    fs::write(&largest, &bytes[1..]).unwrap();
    assert_eq!(unread(&["verify", &image]), 9);
}

#[test]
fn a_pack_that_nobody_reads_writes_its_documents() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (image, metadata, provenance, sbom) =
        (format!("oci:{}", path("image")), path("m.json"), path("p.json"), path("s.json"));
    let documents = ["--metadata-file", &metadata, "--provenance", &provenance, "--sbom", &sbom];
    let arguments = [&["pack", EXAMPLE, "--base", "scratch", "-o", &image], &documents[..]].concat();
    assert_eq!(unread(&arguments), 0);
    for document in [metadata, provenance, sbom] {
        assert!(fs::metadata(&document).unwrap().len() > 100, "{document}");
    }
}

#[test]
fn no_output_replaces_what_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (log, profile, strace, link) = (path("c.log"), path("s.json"), path("strace.log.gz"), path("link"));
    fs::copy(COLD, &log).unwrap();
    fs::copy("profiles/sglang.json", &profile).unwrap();
    fs::copy("tests/data/vllm-strace.log.gz", &strace).unwrap();
    std::os::unix::fs::symlink(&profile, &link).unwrap();
    let image = packed(directory.path());
    let other = path("./s.json");
    for arguments in [
        &["report", &log, "--format", "html", "--output", &log][..],
        &["report", "--run", &format!("a={COLD},{log}"), "--output", &log],
        &["profile", "import", &strace, "-o", &strace],
        &["profile", "show", &profile, "-o", &other],
        &["profile", "export", &profile, "--to", "ctr-remote", "-o", &link],
        &["replay", &image, "--profile", &profile, "--timeline", &profile],
    ] {
        let before = [&log, &profile, &strace].map(|path| fs::read(path).unwrap());
        let run = starcar(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains("would replace"), "{arguments:?}: {}", run.stderr);
        assert_eq!(before, [&log, &profile, &strace].map(|path| fs::read(path).unwrap()), "{arguments:?}");
    }
    // Merging into one of the profiles is what some do on purpose, and what is no file is not replaced.
    let run = starcar(&["profile", "merge", &profile, "generic", "-o", &profile]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(starcar(&["profile", "show", &profile, "-o", "/dev/null"]).code, 0);
}

#[test]
fn no_document_replaces_the_image() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    for (output, document) in [("oci-archive:", "a.tar"), ("oci:", "layout/index.json")] {
        let output = format!("{output}{}", path(document.trim_end_matches("/index.json")));
        for option in ["--metadata-file", "--provenance", "--sbom"] {
            fs::create_dir_all(directory.path().join("layout")).unwrap();
            let run =
                starcar(&["pack", EXAMPLE, "--base", "scratch", "-o", &output, option, &path(document)]);
            assert_eq!(run.code, 2, "{}", run.stderr);
            assert!(
                run.stderr.contains(&format!("--output and {option} name the same file")),
                "{}",
                run.stderr
            );
            assert!(!Path::new(&path(document)).exists());
        }
    }
}
