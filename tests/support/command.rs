//! The command as users run it.

use std::{ffi::OsStr, process::Output};

use assert_cmd::Command;

/// What a run of the command came to.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the command in the repository's root, without a digest cache: what one test packed must not be known to
/// another, nor to whoever runs the tests.
pub fn starcar(arguments: &[&str]) -> Run {
    starcar_in(OsStr::new(""), arguments)
}

/// As [`starcar`], with a digest cache.
pub fn starcar_in(digest_cache: &OsStr, arguments: &[&str]) -> Run {
    let output: Output = Command::cargo_bin("starcar")
        .unwrap()
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("SOURCE_DATE_EPOCH")
        .env("NO_COLOR", "1")
        .env("STARCAR_DIGEST_CACHE", digest_cache)
        .env_remove("STARCAR_DIGEST_CACHE_LIMIT")
        .env("STARCAR_REGISTRY_MEMORY", "")
        .env_remove("STARCAR_NO_CLOBBER")
        .output()
        .unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
