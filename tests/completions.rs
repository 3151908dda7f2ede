//! `starcar completions`, `starcar man` and docs/cli.md: all of them are made of the command's own arguments.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{fs, path::Path, process::Command};

use support::command::starcar;

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];
const HIDDEN: &str = "record-watchdog";

fn completions(shell: &str) -> String {
    let run = starcar(&["completions", shell]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    run.stdout
}

#[test]
fn every_shell_completes_what_is_not_hidden() {
    for shell in SHELLS {
        let script = completions(shell);
        assert!(script.contains("digest-cache") && script.contains("compress-weights"), "{shell}");
        assert!(!script.contains(HIDDEN), "{shell}");
        assert_eq!(script, completions(shell));
    }
    let run = starcar(&["completions", "tcsh"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("powershell"), "{}", run.stderr);
}

/// What bash offers after `line`, in a shell of its own that sources the script.
fn offered(script: &Path, words: &[&str]) -> Vec<String> {
    let last = words.len() - 1;
    let code = format!(
        "source {} && COMP_WORDS=({}) COMP_CWORD={last} && _starcar starcar '{}' '{}' && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        words.join(" "),
        words[last],
        words[last - 1],
    );
    let output = Command::new("bash").args(["--norc", "--noprofile", "-c", &code]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("starcar");
    fs::write(&script, completions("bash")).unwrap();
    // The shell knows the function by the command's name.
    let code = format!("source {} && complete -p starcar", script.display());
    let output = Command::new("bash").args(["--norc", "--noprofile", "-c", &code]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("-F _starcar"));

    assert_eq!(offered(&script, &["starcar", "pac"]), ["pack"]);
    assert!(!offered(&script, &["starcar", "rec"]).contains(&HIDDEN.to_owned()));
    assert_eq!(offered(&script, &["starcar", "pack", "--prov"]), ["--provenance"]);
    assert_eq!(offered(&script, &["starcar", "cache", "en"]), ["env"]);
    assert_eq!(offered(&script, &["starcar", "pack", "--layer-format", "est"]), ["estargz"]);
}

#[test]
fn manual_pages_are_whole_and_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let pages = |name: &str| {
        let output = directory.path().join(name);
        let run = starcar(&["man", "--output", output.to_str().unwrap()]);
        assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""));
        let mut pages: Vec<(String, String)> = fs::read_dir(output)
            .unwrap()
            .map(|page| page.unwrap())
            .map(|page| (page.file_name().into_string().unwrap(), fs::read_to_string(page.path()).unwrap()))
            .collect();
        pages.sort();
        pages
    };
    let first = pages("a/b");
    assert_eq!(first, pages("a/b"), "written over themselves");
    assert_eq!(first, pages("other"));
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["starcar.1", "starcar-pack.1", "starcar-cache-env.1", "starcar-profile-merge.1"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(!names.iter().any(|name| name.contains(HIDDEN) || name.contains("help")), "{names:?}");
    for (name, page) in &first {
        let title = name.trim_end_matches(".1");
        assert!(page.contains(&format!(".TH {title} 1 \"\" \"starcar ")), "{name}: {page}");
        for section in [".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n", ".SH OPTIONS\n"] {
            assert!(page.contains(section), "{name} lacks {section}");
        }
        // A line that begins with a dot is a request; none but those that pages are made of may be there.
        for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
            let request = line.split(' ').next().unwrap();
            assert!(
                [".TH", ".SH", ".TP", ".RS", ".RE", ".br", ".ie", ".el", ".IP", ".PP", ".nf", ".fi", ".SS"]
                    .contains(&request),
                "{name}: {line}"
            );
        }
        assert!(!page.contains(HIDDEN), "{name}");
        // References lead to pages that are there.
        for reference in page.split_whitespace().filter(|word| word.ends_with("(1)")) {
            let reference = reference.replace('\\', "").replace("(1)", ".1");
            assert!(names.contains(&reference.as_str()), "{name}: {reference}");
        }
    }
    let printed = starcar(&["man"]);
    assert_eq!(printed.stdout, first.iter().find(|(name, _)| name == "starcar.1").unwrap().1);
    let run = starcar(&["man", "--output", "/proc/man"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
}

#[test]
fn the_reference_is_what_help_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let reference = starcar::cli::reference();
    if std::env::var_os("STARCAR_UPDATE_DOCS").is_some() {
        fs::write(&path, &reference).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let line = written.lines().zip(reference.lines()).position(|(one, other)| one != other);
    assert!(
        written == reference,
        "docs/cli.md is not what the options are (line {line:?}): STARCAR_UPDATE_DOCS=1 cargo test --test completions"
    );
    assert!(!reference.contains(HIDDEN));
}
