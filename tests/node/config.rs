//! `starcar node config`.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{
    harness::{CONTAINERD, tree},
    support::command::starcar,
};

#[test]
fn files_are_written_whole_and_not_over_others() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().to_str().unwrap();
    let arguments = ["node", "config", "--registry", "r.example.com=http://m:80", "--output", output];
    let run = starcar(&arguments);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    let config = directory.path().join(CONTAINERD);
    let printed = starcar(&["node", "config", "--registry", "r.example.com=http://m:80"]).stdout;
    let written = fs::read_to_string(&config).unwrap();
    assert!(printed.contains(&written));
    assert!(directory.path().join("etc/containerd/certs.d/r.example.com/hosts.toml").exists());
    assert_eq!(config.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    let before = tree(directory.path());
    let again = starcar(&arguments);
    assert_eq!(again.code, 2);
    assert!(
        again.stderr.contains("--force") && again.stderr.contains("config.toml is there"),
        "{}",
        again.stderr
    );
    assert_eq!(tree(directory.path()), before);
    fs::write(&config, "mine").unwrap();
    assert_eq!(starcar(&[&arguments[..], &["--force"]].concat()).code, 0);
    assert_eq!(fs::read_to_string(&config).unwrap(), written);
}

#[test]
fn wrong_arguments_are_refused() {
    for arguments in [
        &["config", "--snapshotter-version", "new"][..],
        &["config", "--registry", "a/b"],
        &["config", "--registry", "a", "--registry", "A=b"],
        &["config", "--root", "relative"],
        &["config", "--root", "/a b"],
        &["config", "--for", "docker"],
        &["config", "--plain-http"],
        &["config", "--force"],
        &["check", "--root", "/none"],
        &["check", "--for-model", "12parsecs"],
        &["check", "--for-model", "1.5GiB"],
        &["check", "--containerd-config", "relative"],
        &["check", "--registry", "oci:directory"],
    ] {
        let run = starcar(&[&["node"], arguments].concat());
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn a_release_may_be_named_by_its_number_alone() {
    let of = |version: &str| {
        let run = starcar(&["node", "config", "--for", "containerd", "--containerd-version", version]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout
    };
    for same in ["2", "v2", "2.0.0", "2.0.5+unknown"] {
        assert_eq!(of(same), of("2.x"), "{same}");
    }
    assert_eq!(of("1"), of("1.6"));
}
