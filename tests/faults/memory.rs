//! Uploads that outlive the process that began them.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::harness::*;

/// A trial that remembers uploads, and whose upload does not get beyond the blob's middle at first.
fn trial(effect: Effect) -> Trial {
    let trial = Trial::faults([Fault::once("PUT", "/uploads/", effect)]);
    let memory = trial.dir.path().join("memory");
    trial.with(|options| options.memory = Some(memory))
}

/// Pushes in another process, until the registry has half of the blob and so many requests with bytes have come, and kills it.
fn killed(test: &str, trial: &Trial, requests: usize) {
    let arguments = format!("{} {}", trial.fake.address(), trial.dir.path().display());
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(INSIDE, arguments)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    // The last request is the one that stalls. A process that is killed before it has asked leaves the stall to the next one.
    let sent =
        || trial.fake.seen().iter().filter(|seen| ["PATCH", "PUT"].contains(&seen.method.as_str())).count();
    while (trial.fake.uploaded() < SIZE / 2 || sent() < requests) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(trial.fake.uploaded(), SIZE / 2, "{}", trial.log());
}

/// Says to a test that it is the process to be killed.
const INSIDE: &str = "STARCAR_TEST_KILLED";

/// In the process to be killed: pushes as the test of this name would.
fn is_inside(pieces: bool) -> bool {
    let Ok(arguments) = std::env::var(INSIDE) else { return false };
    let (address, dir) = arguments.split_once(' ').unwrap();
    let dir = std::path::Path::new(dir);
    let options = starcar::registry::RegistryOptions {
        authfile: Some(dir.join("auth.json")),
        memory: Some(dir.join("memory")),
        chunk: pieces.then_some(SIZE / 4),
        ..starcar::registry::RegistryOptions::default()
    };
    let blob: std::sync::Arc<dyn starcar::blob::BlobContent> =
        std::sync::Arc::new(starcar::blob::MemoryBlob::new(std::sync::Arc::clone(&BYTES)));
    let target = format!("{address}/{REPOSITORY}:v1").parse().unwrap();
    let client = starcar::registry::Registry::new(options).unwrap();
    client.push_blobs(&target, &[blob], &|_, _| {}).unwrap();
    true
}

#[test]
fn killed_and_run_again() {
    if is_inside(false) {
        return;
    }
    let trial = trial(Effect::StallAfter(SIZE / 2));
    killed("memory::killed_and_run_again", &trial, 1);
    trial.arrives(ONCE);
    assert_eq!(trial.fake.open_uploads(), 0);
}

#[test]
fn killed_in_pieces() {
    if is_inside(true) {
        return;
    }
    // A registry that ends an upload when it is asked for at an address that is not the newest.
    let uploads = Uploads { newest_location_only: true, old_location_ends: true, ..Uploads::default() };
    let stall = Fault { skip: 2, ..Fault::once("PATCH", "/uploads/", Effect::StallAfter(0)) };
    let trial = Trial::new(FakeOptions { uploads, faults: vec![stall], ..FakeOptions::default() });
    let memory = trial.dir.path().join("memory");
    let trial = trial.with(|options| {
        options.memory = Some(memory);
        options.chunk = Some(SIZE / 4);
    });
    killed("memory::killed_in_pieces", &trial, 3);
    trial.arrives(ONCE);
}

#[test]
fn remembered_upload_refused() {
    for status in [400, 403, 404, 500] {
        let refusal = Effect::At(When::BeforeBody, Act::Reply(Reply::status(status)));
        let faults = vec![
            Fault::once("PUT", "/uploads/", Effect::CloseAfter(SIZE / 2)),
            Fault::always("GET", "/uploads/1", refusal),
        ];
        let trial = Trial::faults(faults);
        let memory = trial.dir.path().join("memory");
        let trial = trial.with(|options| {
            options.memory = Some(memory);
            options.retries = 0;
        });
        trial.fails();
        trial.arrives(HALF_AGAIN);
    }
}

#[test]
fn killed_and_session_lost() {
    if is_inside(false) {
        return;
    }
    let trial = trial(Effect::StallAfter(SIZE / 2));
    killed("memory::killed_and_session_lost", &trial, 1);
    trial.fake.end_uploads();
    trial.arrives(HALF_AGAIN);
}

#[test]
fn failed_and_run_again() {
    let trial = trial(Effect::CloseAfter(SIZE / 2)).with(|options| options.retries = 0);
    trial.fails();
    trial.arrives(ONCE);
}

#[test]
fn memory_that_cannot_be_read() {
    let trial = trial(Effect::CloseAfter(SIZE / 2)).with(|options| options.retries = 0);
    trial.fails();
    let memory = trial.options.memory.clone().unwrap();
    for entry in walkdir::WalkDir::new(&memory).into_iter().filter_map(Result::ok) {
        if entry.file_type().is_file() {
            std::fs::write(entry.path(), "{ \"half").unwrap();
        }
    }
    trial.arrives(HALF_AGAIN);
}
