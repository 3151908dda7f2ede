//! `starcar record` on a machine with FUSE; where there is none, these tests say so and pass. What real readers do is
//! held to the byte in `tests/e2e/test_record.py`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use assert_cmd::cargo::CommandCargoExt as _;
use starcar::profile::{Access, AccessKind, ByteRange, Profile, Target, difference, merge};

const EXAMPLE: &str = "examples/tiny-llama";
const SHARD: &str = "model-00001-of-00003.safetensors";

/// Whether this user can mount; the tests need root, or fusermount3.
fn can_mount() -> bool {
    let usable = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    let helper = ["/usr/bin/fusermount3", "/bin/fusermount3"].iter().any(|path| Path::new(path).exists());
    let can = usable && (helper || rustix::process::geteuid().is_root());
    if !can {
        #[expect(clippy::print_stderr, reason = "a test that does nothing must say so")]
        {
            eprintln!("nothing was tested: this machine has no FUSE for this user");
        }
    }
    can
}

fn record(directory: &Path, command: &[&str]) -> Command {
    let mut starcar = Command::cargo_bin("starcar").unwrap();
    starcar
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("NO_COLOR", "1")
        .args(["record", EXAMPLE, "--mount"])
        .arg(directory.join("model"))
        .arg("-o")
        .arg(directory.join("profile.json"))
        .arg("--")
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    starcar
}

fn run(directory: &Path, command: &[&str]) -> (Output, Profile) {
    let output = record(directory, command).output().unwrap();
    assert!(!directory.join("model").exists(), "the directory was made by starcar, which removes it");
    let profile = Profile::open(&directory.join("profile.json"));
    (output, profile.unwrap())
}

fn ranges(profile: &Profile, path: &str) -> Vec<ByteRange> {
    let of =
        |access: &&Access| access.kind == AccessKind::Read && access.target == Target::Path(path.to_owned());
    let mut ranges: Vec<ByteRange> =
        profile.accesses.iter().filter(of).flat_map(|access| access.ranges.clone()).collect();
    ranges.sort_unstable();
    ranges
}

const READER: &str = "dd if=$STARCAR_MODEL/model-00001-of-00003.safetensors bs=1000 skip=3 count=2 status=none \
    | wc -c; head -c 10 {model}/config.json; cat {model}/params.json 2>/dev/null; exit 5";

#[test]
fn the_profile_has_what_was_read_and_the_exit_code_is_the_commands() {
    if !can_mount() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (output, profile) = run(directory.path(), &["sh", "-c", READER]);
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.starts_with(b"2000\n"));
    assert_eq!(ranges(&profile, SHARD), [ByteRange { offset: 3000, length: 2000 }]);
    let missing = |access: &Access| {
        access.kind == AccessKind::Missing && access.target == Target::Path("params.json".to_owned())
    };
    assert!(profile.accesses.iter().any(missing));
    assert_eq!(profile.ended_early(), Some("exit code 5"));
}

#[test]
fn two_recordings_merge_to_one_result() {
    if !can_mount() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let profiles = [0, 1].map(|_| run(directory.path(), &["sh", "-c", READER]).1);
    let merged = |order: &[usize]| {
        merge(order.iter().map(|index| profiles[*index].clone()).collect()).expect("small profiles merge")
    };
    let both = merged(&[0, 1, 1]);
    assert_eq!(both, merged(&[1, 0, 0]));
    // No two runs take the same time; which bytes of which files in what order is the same.
    assert!(difference(&both, &profiles[0], false).is_empty());
}

#[test]
fn a_terminated_recorder_leaves_no_mount() {
    if !can_mount() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut running = record(
        directory.path(),
        &["sh", "-c", "echo > $0/ready; exec sleep 100", directory.path().to_str().unwrap()],
    );
    let running = running.spawn().unwrap();
    let since = Instant::now();
    while !directory.path().join("ready").exists() {
        assert!(since.elapsed() < Duration::from_secs(20), "the command was not started");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(mounted(directory.path()));
    let output = terminate(running);
    assert_eq!(output.status.code(), Some(143), "{:?}", output.status.signal());
    assert!(!mounted(directory.path()));
    assert!(!directory.path().join("model").exists());
    Profile::open(&directory.path().join("profile.json")).unwrap();
}

fn terminate(running: Child) -> Output {
    let process = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    running.wait_with_output().unwrap()
}

fn mounted(directory: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.contains(directory.join("model").to_str().unwrap())
}

#[test]
fn a_command_that_is_never_ready_fails_and_nothing_replaces_a_profile() {
    if !can_mount() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let start = |options: &[&str], script: &str| {
        let mut starcar = Command::cargo_bin("starcar").unwrap();
        starcar.current_dir(env!("CARGO_MANIFEST_DIR")).args(["record", EXAMPLE, "--mount"]);
        starcar.arg(directory.path().join("model")).arg("-o").arg(directory.path().join("profile.json"));
        starcar.args(options).args(["--", "sh", "-c", script]).stdin(Stdio::null()).output().unwrap()
    };
    let output = start(&["--until", "ready"], "cat $STARCAR_MODEL/config.json; echo u=$PYTHONUNBUFFERED");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{words}");
    assert!(words.contains("before it was ready"), "{words}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("u=1"));
    let profile = Profile::open(&directory.path().join("profile.json")).unwrap();
    assert!(profile.ended_early().is_some());
    let output = start(&[], "exit 3");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3));
    assert!(words.contains("was not replaced"), "{words}");
    assert_eq!(Profile::open(&directory.path().join("profile.json")).unwrap(), profile);
    let cache = directory.path().to_str().unwrap();
    let output = start(&["--cache", cache, "--cache", cache], "true");
    assert!(String::from_utf8_lossy(&output.stderr).contains("given twice"));
}
