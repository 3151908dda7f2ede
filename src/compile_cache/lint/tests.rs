use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use super::*;
use crate::compile_cache::{
    Kind, find,
    identity::{Attribute, Evidence},
    walk,
};

/// Writes files below `root`; a path that ends in a slash is a directory.
fn write(root: &Path, files: &[(&str, &[u8])]) {
    for (path, content) in files {
        let path = root.join(path);
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            fs::create_dir_all(&path).unwrap();
            continue;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn tree(root: &Path, kind: Kind) -> CacheTree {
    let found = find(root, Some(kind)).unwrap();
    walk(&found[0]).unwrap()
}

fn identity(facts: &[(Attribute, &str)]) -> Identity {
    let mut identity = Identity::default();
    for (attribute, value) in facts {
        let evidence = Evidence { path: "evidence".to_owned(), found: String::new(), offset: None };
        identity.add(*attribute, *value, evidence);
    }
    identity
}

fn lint_files(kind: Kind, files: &[(&str, &[u8])]) -> Vec<Finding> {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), files);
    check(lint(&tree(directory.path(), kind), &Identity::default()).unwrap())
}

fn lint_facts(kind: Kind, facts: &[(Attribute, &str)]) -> Vec<Finding> {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &[("a.txt", b"x")]);
    check(lint(&tree(directory.path(), kind), &identity(facts)).unwrap())
}

/// Every finding is of a rule of the table, and not worse than it says.
fn check(findings: Vec<Finding>) -> Vec<Finding> {
    for finding in &findings {
        let rule = RULES.iter().find(|rule| rule.name == finding.rule).unwrap();
        assert!(finding.severity <= rule.severity, "{finding:?}");
        assert!(!finding.reason.is_empty());
        assert!(finding.reason.len() < 2_000, "{finding:?}");
        assert!(finding.severity == Severity::Note || !finding.remedy.is_empty(), "{finding:?}");
    }
    assert!(findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity)));
    findings
}

fn rules_of(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.rule).collect()
}

fn the<'a>(findings: &'a [Finding], rule: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.rule == rule).unwrap_or_else(|| panic!("{findings:#?}"))
}

/// An artifact as torch writes one.
fn artifact(content: &[u8]) -> Vec<u8> {
    let header = b"CacheCompiledArtifact";
    let mut body = (header.len() as u64).to_be_bytes().to_vec();
    body.extend(header);
    body.extend((content.len() as u64).to_be_bytes());
    body.extend(content);
    let mut whole = crc32fast::hash(&body).to_be_bytes().to_vec();
    whole.extend(body);
    whole
}

const KEY: &str = "torch_compile_cache/0123456789/rank_0_0/backbone";
const AOT: &str =
    "torch_compile_cache/torch_aot_compile/0123456789012345678901234567890123456789012345678901234567891234";

const NAMES: &[u8] = b"{   ((1, 2048), 0, 'inductor_standalone'): (   'artifact_0',
                                               '/home/me/.cache/vllm/torch_compile_cache/0123456789/rank_0_0/backbone/artifact_0'),
    ((1, 2048), 1, 'inductor_standalone'): (   'artifact_1', '/home/me/.cache/vllm/torch_compile_cache/0123456789/rank_0_0/backbone/artifact_1')}";

fn entry<'a>(names: &'a mut Vec<String>, directory: &str, files: &[&str]) -> Vec<&'a str> {
    names.extend(files.iter().map(|file| format!("{directory}/{file}")));
    names.iter().map(String::as_str).collect()
}

#[test]
fn rules_are_named_once() {
    let mut names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert!(RULES.is_sorted_by_key(|rule| std::cmp::Reverse(rule.severity)));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RULES.len());
    for rule in RULES {
        assert!(rule.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", rule.name);
        assert!(!rule.description.is_empty());
    }
}

#[test]
fn strictness() {
    let mut findings = lint_facts(Kind::Vllm, &[(Attribute::DeviceIndex, "1")]);
    assert!(!has_errors(&findings));
    strict(&mut findings);
    assert!(has_errors(&findings));
}

#[test]
fn a_whole_entry_has_notes_alone() {
    let good = artifact(b"code");
    let mut names = Vec::new();
    let paths = entry(
        &mut names,
        KEY,
        &["vllm_compile_cache.py", "artifact_0", "artifact_1", "cache_key_factors.json"],
    );
    let factors = br#"{"env": {"VLLM_API_KEY": null, "VLLM_TARGET_DEVICE": "cuda"}}"#;
    let contents: [&[u8]; 4] = [NAMES, &good, &good, factors];
    let files: Vec<(&str, &[u8])> = paths.into_iter().zip(contents).collect();
    let findings = lint_files(Kind::Vllm, &files);
    assert_eq!(rules_of(&findings), ["artifact-paths"], "{findings:#?}");
    assert!(
        findings[0].reason.contains("/home/me/.cache/vllm/torch_compile_cache/0123456789/rank_0_0/backbone"),
        "{findings:#?}"
    );
}

#[test]
fn artifacts_that_are_missing_damaged_or_empty() {
    let mut cut = artifact(b"code");
    cut.pop();
    let mut names = Vec::new();
    let paths = entry(&mut names, KEY, &["vllm_compile_cache.py", "artifact_0", "artifact_2", "artifact_3"]);
    let contents: [&[u8]; 4] = [NAMES, &cut, b"", b"an unknown form of artifact"];
    let files: Vec<(&str, &[u8])> = paths.into_iter().zip(contents).collect();
    let findings = lint_files(Kind::Vllm, &files);
    assert_eq!(rules_of(&findings)[..3], ["damaged-artifacts", "empty-files", "missing-artifacts"]);
    assert_eq!(the(&findings, "damaged-artifacts").path.as_deref(), Some(files[1].0));
    assert_eq!(the(&findings, "empty-files").path.as_deref(), Some(files[2].0));
    assert!(the(&findings, "missing-artifacts").reason.ends_with("artifact_1"));
}

#[test]
fn models_compiled_ahead_of_time() {
    for (model, damaged) in [
        (&b"PT2AOT\x01\x80\x04anything."[..], false),
        (&[&b"PT2AOT\x01\x80\x04anything.more"[..], &[b'x'; 1024]].concat(), false),
        (b"PT2AOT\x02another form.", false),
        (b"PT2AOT\x01\x80\x04", true),
        (b"PT2AOT\x01\x80", true),
        (b"PT2AOT\x01", true),
        (b"PT2AOT", true),
        (b"PT2AOT\x01\x80\x04anything", true),
        (b"PT2AOT\x01anything.", true),
        (b"\x80\x05anything.", false),
        (b"\x80\x05anything", true),
        (b"nonsense", true),
        (b"\x80.", true),
    ] {
        let path = format!("{AOT}/rank_0_0/model");
        let findings = lint_files(Kind::Vllm, &[(&path, model)]);
        assert_eq!(rules_of(&findings), if damaged { &["damaged-artifacts"][..] } else { &[] }, "{model:?}");
    }
    let inductor = format!("{AOT}/inductor_cache/ab/x.py");
    let findings = lint_files(Kind::Vllm, &[(&inductor, b"x")]);
    assert_eq!(the(&findings, "incomplete-entries").path.as_deref(), Some(AOT));
    let (model, empty) = (format!("{AOT}/rank_0_0/model"), format!("{AOT}/rank_1_0/"));
    let findings = lint_files(Kind::Vllm, &[(&model, b"\x80\x05anything."), (&empty, b"")]);
    assert_eq!(rules_of(&findings), ["incomplete-entries"]);
    // What vLLM writes beside a model that it compiled ahead of time.
    let factors = format!("{KEY}/cache_key_factors.json");
    let findings = lint_files(Kind::Vllm, &[(&model, b"\x80\x05anything."), (&factors, b"{}")]);
    assert_eq!(findings, []);
    let findings = lint_files(Kind::Vllm, &[(&factors, b"{}")]);
    assert_eq!(the(&findings, "incomplete-entries").path.as_deref(), Some(KEY));
}

#[test]
fn ranks_that_are_missing() {
    let rank = |entry: &str, rank: &str| format!("torch_compile_cache/{entry}/rank_{rank}/backbone/x.txt");
    for (ranks, expected) in [
        (&[("0123456789", "0_0"), ("0123456789", "1_0")][..], ""),
        (&[("0123456789", "0_0"), ("0123456789", "2_0")], "rank_1_0"),
        (&[("0123456789", "1_0")], "rank_0_0"),
        (&[("0123456789", "0_0"), ("0123456789", "0_1")], ""),
        (&[("0123456789", "0_0"), ("0123456789", "1_0"), ("0123456789", "0_1")], "rank_1_1"),
        (&[("0123456789", "0_0"), ("0123456789", "1_0"), ("abcdefabcd", "0_0")], "1 of 2"),
        (&[("0123456789", "18446744073709551615_18446744073709551615")], "rank_0_0"),
    ] {
        let paths: Vec<String> = ranks.iter().map(|(entry, name)| rank(entry, name)).collect();
        let files: Vec<(&str, &[u8])> = paths.iter().map(|path| (path.as_str(), &b"x"[..])).collect();
        let findings = lint_files(Kind::Vllm, &files);
        match expected {
            "" => assert_eq!(findings, []),
            expected => assert!(the(&findings, "missing-ranks").reason.contains(expected), "{findings:#?}"),
        }
    }
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &[(&rank("0123456789", "0_0"), b"x")]);
    let tree = tree(directory.path(), Kind::Vllm);
    let findings = lint(&tree, &identity(&[(Attribute::TensorParallel, "2")])).unwrap();
    assert!(the(&findings, "missing-ranks").reason.contains("rank_1_0"));
}

#[test]
fn triton_groups() {
    let group = |names: &[&str]| {
        let children: Vec<String> =
            names.iter().map(|name| format!("\"{name}\": \"/root/.triton/cache/KEY/{name}\"")).collect();
        format!("{{\"child_paths\": {{{}}}}}", children.join(", ")).into_bytes()
    };
    let whole = group(&["k.json", "k.cubin"]);
    let findings = lint_files(
        Kind::Triton,
        &[
            ("KEY/__grp__k.json", &whole),
            ("KEY/k.json", b"{}"),
            ("KEY/k.cubin", b"x"),
            ("KEY/k.autotune.json", b"{}"),
        ],
    );
    assert_eq!(rules_of(&findings), ["group-paths"]);
    assert!(findings[0].reason.contains("(/root/.triton/cache)"), "{findings:#?}");
    let findings = lint_files(Kind::Triton, &[("KEY/__grp__k.json", &whole), ("KEY/k.json", b"{}")]);
    assert_eq!(rules_of(&findings), ["group-missing", "incomplete-kernels"]);
    assert!(findings[0].reason.ends_with(": k"), "{findings:#?}");
    let findings =
        lint_files(Kind::Triton, &[("KEY/k.ttir", b"x"), ("KEY/k.json", b"{}"), ("KEY/k.cubin", b"x")]);
    assert_eq!(rules_of(&findings), ["incomplete-kernels"]);
    for damaged in [
        &b"{"[..],
        b"[]",
        b"{}",
        b"{\"child_paths\": 1}",
        b"{\"child_paths\": {\"a\": 1}}",
        b"\xff\xfe",
        "[".repeat(100_000).as_bytes(),
        format!("{{\"child_paths\": {{\"a\": {}", "{\"a\":".repeat(100_000)).as_bytes(),
    ] {
        let findings = lint_files(Kind::Triton, &[("KEY/__grp__k.json", damaged)]);
        assert_eq!(rules_of(&findings), ["group-damaged"]);
    }
}

#[test]
fn libraries_that_were_not_built() {
    let findings = lint_files(
        Kind::Inductor,
        &[("ab/x.main.cpp", b"x"), ("ab/y.main.cpp", b"x"), ("ab/y.main.so", b"x"), ("ab/z.cpp", b"x")],
    );
    assert_eq!(rules_of(&findings), ["missing-libraries"]);
    assert_eq!(findings[0].path.as_deref(), Some("ab/x.main.cpp"));
    assert_eq!(findings[0].files, 1);
}

#[test]
fn flashinfer_workspaces() {
    const OPS: &str = ".cache/flashinfer/0.7.2/90a/cached_ops/norm";
    let ninja = format!("build /root/{OPS}/norm.so: link /root/{OPS}/a.o\n");
    let mut names = Vec::new();
    let paths = entry(&mut names, OPS, &["build.ninja", "norm.so", ".ninja_log", ".ninja_deps"]);
    let contents: [&[u8]; 4] = [ninja.as_bytes(), b"x", b"x", b"x"];
    let files: Vec<(&str, &[u8])> = paths.into_iter().zip(contents).collect();
    let findings = lint_files(Kind::FlashInfer, &files);
    assert_eq!(rules_of(&findings), ["flashinfer-path"]);
    assert!(findings[0].remedy.contains("FLASHINFER_WORKSPACE_BASE=/root,"), "{findings:#?}");
    assert_eq!(rules_of(&lint_files(Kind::FlashInfer, &files[..3])), ["ninja-records", "flashinfer-path"]);
    assert_eq!(
        rules_of(&lint_files(Kind::FlashInfer, &files[..1])),
        ["missing-libraries", "flashinfer-path"]
    );
}

#[test]
fn devices_and_mixtures() {
    for (facts, expected) in [
        (&[(Attribute::DeviceIndex, "0")][..], &[][..]),
        (&[(Attribute::DeviceIndex, "0"), (Attribute::DeviceIndex, "1")], &["device-index"]),
        (
            &[(Attribute::Backend, "cuda"), (Attribute::Backend, "cpu"), (Attribute::GpuName, "NVIDIA L4")],
            &[],
        ),
        (&[(Attribute::Backend, "cuda"), (Attribute::Backend, "cpu")], &["unknown-gpu"]),
        (&[(Attribute::Backend, "cpu")], &[]),
        (&[(Attribute::Architecture, "sm_90"), (Attribute::Architecture, "sm_90a")], &[]),
        (&[(Attribute::Architecture, "sm_90"), (Attribute::Architecture, "x86_64")], &[]),
        (&[(Attribute::Architecture, "sm_90"), (Attribute::Architecture, "sm_80")], &["mixed"]),
        (&[(Attribute::GpuName, "NVIDIA L4"), (Attribute::GpuName, "NVIDIA L40S")], &["mixed"]),
        (&[(Attribute::Python, "3.12"), (Attribute::Python, "3.12.4")], &[]),
        (
            &[(Attribute::Python, "3.12"), (Attribute::Python, "3.12.4"), (Attribute::Python, "3.12.5")],
            &["mixed"],
        ),
        (&[(Attribute::Python, "3.1"), (Attribute::Python, "3.12")], &["mixed"]),
        (&[(Attribute::Torch, "2.14.1"), (Attribute::Torch, "2.14.1+cu130")], &[]),
        (&[(Attribute::Torch, "2.14.1+cu129"), (Attribute::Torch, "2.14.1+cu130")], &["mixed"]),
        (&[(Attribute::Key, "a"), (Attribute::Key, "b")], &[]),
    ] {
        assert_eq!(rules_of(&lint_facts(Kind::Vllm, facts)), expected, "{facts:?}");
    }
    let many = [(Attribute::Architecture, "sm_80"), (Attribute::Architecture, "sm_90")];
    assert_eq!(lint_facts(Kind::FlashInfer, &many), []);
    // With two ranks, the second has the second GPU.
    let directory = tempfile::tempdir().unwrap();
    let path = |rank: &str| format!("torch_compile_cache/0123456789/rank_{rank}/backbone/x.txt");
    write(directory.path(), &[(&path("0_0"), b"x"), (&path("1_0"), b"x")]);
    let tree = tree(directory.path(), Kind::Vllm);
    let facts = |index| identity(&[(Attribute::DeviceIndex, index)]);
    assert_eq!(lint(&tree, &facts("1")).unwrap(), []);
    assert_eq!(rules_of(&lint(&tree, &facts("2")).unwrap()), ["device-index"]);
}

#[test]
fn secrets_are_named_and_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let factors = br#"{"env": {"VLLM_API_KEY": "hunter22hunter22", "S3_SECRET_ACCESS_KEY": "swordfish99"}}"#;
    let token = format!("# hf_{}\n", "b".repeat(34));
    write(
        directory.path(),
        &[(&format!("{KEY}/cache_key_factors.json"), factors), ("ab/x.py", token.as_bytes())],
    );
    let findings = lint(&tree(directory.path(), Kind::Vllm), &Identity::default()).unwrap();
    let finding = the(&findings, "secrets");
    assert_eq!((finding.severity, finding.files), (Severity::Error, 2));
    for name in ["VLLM_API_KEY", "S3_SECRET_ACCESS_KEY", "a token of Hugging Face"] {
        assert!(finding.reason.contains(name), "{finding:?}");
    }
    let all = serde_json::to_string(&findings).unwrap();
    assert!(!["hunter22", "swordfish", "bbbb"].iter().any(|secret| all.contains(secret)), "{all}");
}

#[test]
fn paths_of_the_host() {
    let comment =
        b"# File: /opt/env/lib/python3.12/site-packages/vllm/x.py:1\n# /tmp/torchinductor_me/ab/x.py\n";
    let findings = lint_files(Kind::Inductor, &[("ab/x.py", comment)]);
    assert_eq!(rules_of(&findings), ["host-paths"]);
    assert!(findings[0].reason.contains("/tmp/torchinductor_me;"), "{findings:#?}");
    let (graph, code) = (format!("{KEY}/computation_graph.py"), format!("{KEY}/artifact_0"));
    let findings = lint_files(Kind::Vllm, &[(&graph, comment), (&code, &artifact(b"x"))]);
    assert!(
        the(&findings, "python-path").reason.contains("/opt/env/lib/python3.12/site-packages"),
        "{findings:#?}"
    );
}

#[test]
fn files_that_change() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &[("a.json", b"{}"), ("b.json", b"{}"), ("c.json", b"{}"), ("d.json", b"{}")]);
    let tree = tree(directory.path(), Kind::Generic);
    fs::write(directory.path().join("a.json"), "{\"HF_TOKEN\": \"hunter22\"}").unwrap();
    fs::remove_file(directory.path().join("b.json")).unwrap();
    fs::remove_file(directory.path().join("c.json")).unwrap();
    symlink("/dev/zero", directory.path().join("c.json")).unwrap();
    let findings = check(lint(&tree, &Identity::default()).unwrap());
    assert_eq!(rules_of(&findings), ["changed"]);
    assert_eq!(findings[0].files, 3);
}

#[test]
fn large_and_hostile_trees_take_little_time() {
    const COUNT: usize = 30_000;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let large = fs::File::create(root.join("large.txt")).unwrap();
    large.set_len(1 << 30).unwrap();
    let lines = "HF_TOKEN=\n".repeat(5 << 20);
    write(
        root,
        &[
            ("lines.env", lines.as_bytes()),
            ("binary.py", &[0xff; 4096]),
            ("deep.json", "[".repeat(1 << 20).as_bytes()),
        ],
    );
    for number in 0..100 {
        fs::create_dir(root.join(format!("{number}"))).unwrap();
    }
    for number in 0..COUNT {
        let path = root.join(format!("{}/__grp__k{number}.json", number % 100));
        fs::write(path, r#"{"child_paths": {"a": "/x/a"}}"#).unwrap();
    }
    let tree = tree(root, Kind::Triton);
    let started = Instant::now();
    let findings = check(lint(&tree, &Identity::default()).unwrap());
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
    let missing = the(&findings, "group-missing");
    assert!(missing.files < COUNT && missing.reason.ends_with("and others"), "{missing:?}");
    let unread = |what: &str| {
        let of = |finding: &&Finding| finding.rule == "not-all-read" && finding.reason.starts_with(what);
        findings.iter().find(of).unwrap_or_else(|| panic!("{findings:#?}"))
    };
    assert_eq!(missing.files + unread("Triton's groups").files, COUNT);
    let texts = unread("the text files");
    assert_eq!((texts.severity, texts.path.as_deref()), (Severity::Warning, Some("large.txt")));
}

#[test]
fn paths_are_shown_without_control_characters() {
    let group = br#"{"child_paths": {"k.cubin": "/x\u001b[31m/K/k.cubin"}}"#;
    let findings = lint_files(Kind::Triton, &[("K/__grp__k.json", group), ("K/k.cubin", b"x")]);
    assert!(the(&findings, "group-paths").reason.contains("(/x?[31m)"), "{findings:?}");
}

#[test]
fn secrets_far_inside_and_in_binaries() {
    let token = format!("hf_{}", "Ab3".repeat(12));
    let mut text = vec![b'x'; 5 << 20];
    text.extend(format!(" {token}\n").as_bytes());
    // Across the end of what is read at once.
    let mut across = vec![b' '; (4 << 20) - 10];
    across.extend(token.as_bytes());
    across.resize(5 << 20, b' ');
    let mut binary = vec![0; 70 << 10];
    binary.extend(token.as_bytes());
    binary.extend(b"\0redis://:pw@host\0");
    for (path, content) in [("a.txt", &text), ("a.txt", &across), ("a.so", &binary), ("fxgraph/a", &binary)] {
        let findings = lint_files(Kind::Generic, &[(path, content)]);
        let finding = the(&findings, "secrets");
        assert!(finding.reason.ends_with(": a token of Hugging Face"), "{finding:?}");
        assert_eq!(finding.path.as_deref(), Some(path));
    }
}

#[test]
fn secrets_in_names_are_not_shown() {
    let token = format!("hf_{}", "Ab3".repeat(12));
    let (file, inside) = (format!("ab/{token}.so"), format!("{token}/b.cubin"));
    let findings = lint_files(Kind::Inductor, &[(&file, b""), (&inside, b"")]);
    let finding = the(&findings, "secrets");
    assert_eq!((finding.path.as_deref(), finding.files), (None, 2));
    assert!(finding.reason.contains("a token of Hugging Face in a file's name"), "{finding:?}");
    assert!(finding.reason.contains("in a directory's name"), "{finding:?}");
    assert_eq!(the(&findings, "empty-files").files, 2);
    let all = serde_json::to_string(&findings).unwrap() + &format!("{findings:?}");
    assert!(!all.contains(&token), "{all}");
}

#[test]
fn files_of_logins() {
    let findings = lint_files(Kind::Generic, &[(".netrc", b"machine x\npassword xyz\n")]);
    assert!(the(&findings, "secrets").reason.ends_with(": a password of .netrc"), "{findings:?}");
}

#[test]
fn paths_of_artifacts_that_packing_leaves() {
    let good = artifact(b"code");
    let (names, code) = (format!("{KEY}/vllm_compile_cache.py"), format!("{KEY}/artifact_0"));
    let elsewhere = b"{((1, 2), 0, 'x'): ('artifact_0', '/home/me/torch_compile_cache/other/artifact_0')}";
    let findings = lint_files(Kind::Vllm, &[(&names, elsewhere), (&code, &good)]);
    assert_eq!(rules_of(&findings), ["missing-artifacts"], "{findings:#?}");
    assert_eq!(findings[0].severity, Severity::Warning);
    assert!(findings[0].reason.contains("(/home/me/torch_compile_cache/other)"), "{findings:#?}");
}

#[test]
fn paths_of_groups_that_lead_elsewhere() {
    let group = br#"{"child_paths": {"k.cubin": "/x/OTHER/k.cubin", "k.json": "k.json"}}"#;
    let files: [(&str, &[u8]); 3] =
        [("KEY/__grp__k.json", group), ("KEY/k.cubin", b"x"), ("KEY/k.json", b"{}")];
    assert_eq!(lint_files(Kind::Triton, &files), []);
}

#[test]
fn files_that_may_be_empty() {
    for (path, severity) in [
        ("ab/x.so", Some(Severity::Error)),
        ("ab/x.cubin", Some(Severity::Error)),
        ("ab/x.py", Some(Severity::Warning)),
        ("ab/x.json", Some(Severity::Warning)),
        ("ab/z.cpp", Some(Severity::Warning)),
        ("ab/__init__.py", None),
        ("ab/x.so.load_ok", None),
        ("ab/x.txt", None),
    ] {
        let findings = lint_files(Kind::Inductor, &[(path, b"")]);
        let empty = findings.iter().find(|finding| finding.rule == "empty-files");
        assert_eq!(empty.map(|finding| finding.severity), severity, "{path}");
    }
    assert_eq!(lint_files(Kind::Generic, &[("ab/x.py", b"")]), []);
}
