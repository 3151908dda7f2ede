//! `starcar profile` as people and pipelines meet it: streams, files, exit codes, next steps, memory.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, io::Write as _, path::Path, process::Stdio};

const LOG: &str = "tests/data/vllm-strace.log.gz";
const EXAMPLE: &str = "examples/tiny-llama";

struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

fn starcar(arguments: &[&str], stdin: &str) -> Run {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_starcar"))
        .arg("profile")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may end before all of it is written.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn import(directory: &Path) -> String {
    let path = directory.join("vllm.json").to_str().unwrap().to_owned();
    let run = starcar(
        &[
            "import",
            LOG,
            "--cache",
            "vllm=/cache",
            "--engine",
            "vllm",
            "--engine-version",
            "0.32",
            "--loader",
            "default",
            "-o",
            &path,
        ],
        "",
    );
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""));
    path
}

#[test]
fn a_log_becomes_a_profile_a_table_and_a_picture() {
    let directory = tempfile::tempdir().unwrap();
    let profile = import(directory.path());
    insta::assert_snapshot!("table", starcar(&["show", &profile], "").stdout);
    let (svg, html) = (directory.path().join("p.svg"), directory.path().join("p.html"));
    for path in [&svg, &html] {
        assert_eq!(starcar(&["show", &profile, "-o", path.to_str().unwrap()], "").code, 0);
    }
    let svg = fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("model-00003-of-00003.safetensors"));
    assert!(fs::read_to_string(html).unwrap().contains(svg.trim_end()));
    let json: serde_json::Value =
        serde_json::from_str(&starcar(&["show", &profile, "--format", "json"], "").stdout).unwrap();
    assert_eq!(json["files"][0]["path"], "config.json");
    assert_eq!(json["recordings"][0]["source"], "strace");
}

#[test]
fn profiles_go_through_pipes() {
    let imported = starcar(&["import", "-"], "1700000001.0 open(\"/models/config.json\", O_RDONLY) = 3\n");
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    let merged = starcar(&["merge", "-"], &imported.stdout);
    assert_eq!((merged.code, &merged.stdout), (0, &imported.stdout));
    let exported = starcar(&["export", "-", "--to", "ctr-remote"], &merged.stdout);
    assert_eq!(exported.stdout, "{\"path\":\"models/config.json\"}\n");
    let again = starcar(&["import", "-"], &exported.stdout);
    assert_eq!(starcar(&["export", "-", "--to", "ctr-remote"], &again.stdout).stdout, exported.stdout);
}

#[test]
fn merging_a_profile_with_itself_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let profile = import(directory.path());
    let once = starcar(&["merge", &profile], "");
    let twice = starcar(&["merge", &profile, &profile], "");
    assert_eq!((once.code, &once.stdout), (0, &twice.stdout));
    let merged = directory.path().join("merged.json");
    fs::write(&merged, &twice.stdout).unwrap();
    let same = starcar(&["diff", &profile, merged.to_str().unwrap()], "");
    assert_eq!(same.code, 0, "{}", same.stdout);
}

#[test]
fn differences_are_told_and_have_a_code() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, accesses: &str| {
        let path = directory.path().join(name);
        fs::write(&path, format!(r#"{{"version": 1, "accesses": [{accesses}]}}"#)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let left = write(
        "left",
        r#"{"at": 0, "kind": "read", "path": "a"}, {"at": 1, "kind": "read", "path": "b", "ranges": [[0, 8]]}"#,
    );
    let right = write(
        "right",
        r#"{"at": 0, "kind": "read", "path": "a"}, {"at": 2, "kind": "read", "path": "b", "ranges": [[0, 8]]}"#,
    );
    let other = write(
        "other",
        r#"{"at": 1, "kind": "read", "path": "b", "ranges": [[0, 9]]}, {"at": 3, "kind": "read", "path": "c\u001b"}"#,
    );
    assert_eq!(starcar(&["diff", &left, &left], "").code, 0);
    let run = starcar(&["diff", &left, &right], "");
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("1.000 s -> 2.000 s (+1.000)"), "{}", run.stdout);
    assert_eq!(starcar(&["diff", &left, &right, "--ignore-times"], "").code, 0);
    let run = starcar(&["diff", &left, &other, "--ignore-times"], "");
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("8 B -> 9 B") && run.stdout.contains("c\\u{1b}"), "{}", run.stdout);
    let json: serde_json::Value =
        serde_json::from_str(&starcar(&["diff", &left, &other, "--format", "json"], "").stdout).unwrap();
    assert_eq!(json["onlyLeft"][0]["path"], "a");
}

#[test]
fn a_snapshot_gives_sizes_and_files_for_patterns() {
    let profile = r#"{"version": 1, "accesses": [
        {"at": 0, "kind": "read", "path": "config.json", "ranges": [[0, 100]]},
        {"at": 1, "kind": "read", "glob": "*.safetensors"}]}"#;
    let refused = starcar(&["export", "-", "--to", "ctr-remote"], profile);
    assert_eq!(refused.code, 7);
    assert!(refused.stderr.contains("--snapshot"), "{}", refused.stderr);
    let list = starcar(&["export", "-", "--to", "prefetch-list"], profile);
    assert_eq!(list.stdout, "/models/config.json\n/models/*.safetensors\n");
    let run =
        starcar(&["export", "-", "--to", "ctr-remote", "--snapshot", EXAMPLE, "--model-dir", "/m"], profile);
    let expected = [
        "{\"path\":\"m/config.json\"}",
        "{\"path\":\"m/model-00001-of-00003.safetensors\"}",
        "{\"path\":\"m/model-00002-of-00003.safetensors\"}",
        "{\"path\":\"m/model-00003-of-00003.safetensors\"}\n",
    ]
    .join("\n");
    assert_eq!(run.stdout, expected);
    let shown = starcar(&["show", "-", "--snapshot", EXAMPLE], profile).stdout;
    assert!(shown.contains("15 %") && shown.contains("100 %"), "{shown}");
}

#[test]
fn what_is_wrong_has_a_code_and_a_next_step() {
    let directory = tempfile::tempdir().unwrap();
    let access = |members: &str| format!("{{\"version\": 1, \"accesses\": [{{{members}}}]}}");
    let nested = format!(r#""at": 0, "kind": "read", "glob": "{}a{}""#, "{".repeat(150), ",b}".repeat(150));
    let cases = [
        (vec!["show", "-"], String::new(), 7, "EOF while parsing"),
        (vec!["show", "-"], "{\"version\": 1, \"accesses\": [".to_owned(), 7, "EOF while parsing a list"),
        (vec!["show", "-"], access(r#""at": 0, "kind": "read", "path": "../x""#), 7, "`..`"),
        (vec!["show", "-"], access(r#""at": 0, "kind": "read", "path": "/x""#), 7, "absolute"),
        (vec!["show", "-"], access(r#""at": 0, "kind": "read", "path": "a\u0000""#), 7, "NUL"),
        (vec!["show", "-"], access(r#""at": true, "kind": "read", "path": "a""#), 7, "line 1"),
        (vec!["show", "-"], access(&nested), 7, "nested more than"),
        (vec!["show", "-"], "{\"version\": 9}".to_owned(), 7, "version 9"),
        (
            vec!["show", "-"],
            "{\"path\": \"a\", \"manifestDigest\": \"\"}\n{}".to_owned(),
            7,
            "profile import",
        ),
        (vec!["show", "no/such/file"], String::new(), 7, "no/such/file"),
        (vec!["show", "."], String::new(), 7, "cannot access the profile"),
        (vec!["merge", "-", "-"], String::new(), 2, "once only"),
        (vec!["merge"], String::new(), 2, "PROFILE"),
        (vec!["import", "-"], "nothing of strace\n".to_owned(), 7, "strace -f -ttt -y"),
        (vec!["import", LOG, "--root", "/elsewhere"], String::new(), 7, "--root; files were read in /models"),
        (vec!["import", LOG, "--root", "/"], String::new(), 2, "no absolute directory"),
        (vec!["import", LOG, "--cache", "x"], String::new(), 2, "NAME=DIR"),
        (vec!["import", LOG, "-o", "/no/such/directory/p.json"], String::new(), 7, "/no/such/directory"),
    ];
    for (arguments, stdin, code, words) in cases {
        let run = starcar(&arguments, &stdin);
        assert_eq!(run.code, code, "{arguments:?} {stdin:.60}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{arguments:?} {stdin:.60}: {}", run.stderr);
        assert!(run.stdout.is_empty());
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Runs the command with at most so much memory. Only Linux counts it this way.
fn limited(kilobytes: u32, arguments: &str, input: impl FnOnce(&mut dyn std::io::Write)) -> Run {
    let script = format!("ulimit -v {kilobytes}; exec \"$0\" profile {arguments}");
    let mut child = std::process::Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_starcar")])
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = std::io::BufWriter::new(child.stdin.take().unwrap());
    // Output is small unless something is wrong; the pipe holds it.
    input(&mut stdin);
    let _ = stdin.flush();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn huge_input_takes_bounded_memory() {
    // Ten million accesses are 380 MB; reading ends at the limit.
    let run = limited(400_000, "show -", |stdin| {
        let _ = stdin.write_all(b"{\"version\": 1, \"accesses\": [");
        for _ in 0..10_000_000 {
            if stdin.write_all(b"{\"at\":0,\"kind\":\"open\",\"path\":\"a\"},\n").is_err() {
                break;
            }
        }
    });
    assert_eq!(run.code, 7, "{}", run.stderr);
    assert!(run.stderr.contains("too large for a profile"), "{}", run.stderr);
    // More reads than a profile holds, all over a file, and a line without an end.
    let run = limited(400_000, "import - -o /dev/null", |stdin| {
        for line in 0_u64..300_000 {
            let offset = line * 7_919_000_001 % (1 << 40);
            let text = format!("7 1700{line:06}.0 pread64(3</models/a>, \"x\", 9, {offset}) = 9\n");
            if stdin.write_all(text.as_bytes()).is_err() {
                break;
            }
        }
        let _ = stdin.write_all(&vec![b'x'; 64 << 20]);
    });
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("1 line too long") && run.stderr.contains("count as read"), "{}", run.stderr);
}
