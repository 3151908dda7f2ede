//! The registry client against a registry in memory.
#![allow(clippy::unwrap_used)] // also in helpers, which clippy does not take for tests

mod support;

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use starcar::{
    blob::{BlobContent, MemoryBlob, RangeSource},
    digest::Digest,
    registry::{PushEvent, Reference, Registry, RegistryError, RegistryOptions},
};
use support::{
    noise::noise,
    registry::{Act, Auth, Effect, FakeOptions, FakeRegistry, Fault, Ranges, Reply, When, base64, basic},
    words::words,
};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A client and the folder with its auth file.
struct Client {
    registry: Registry,
    dir: tempfile::TempDir,
}

impl std::ops::Deref for Client {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

/// A client that knows the credentials in `authfile`, and no others of this machine.
fn client_with(authfile: &str) -> Client {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    std::fs::write(&path, authfile).unwrap();
    let options = RegistryOptions { authfile: Some(path), retries: 1, ..RegistryOptions::default() };
    Client { registry: Registry::new(options).unwrap(), dir }
}

fn client() -> Client {
    client_with("{}")
}

/// A client with a password for `fake`.
fn client_for(fake: &FakeRegistry, user: &str, password: &str) -> Client {
    let auth = base64(format!("{user}:{password}").as_bytes());
    client_with(&serde_json::json!({ "auths": { fake.address(): { "auth": auth } } }).to_string())
}

fn reference(fake: &FakeRegistry, rest: &str) -> Reference {
    format!("{}/{rest}", fake.address()).parse().unwrap()
}

fn fake_with(fault: Fault) -> FakeRegistry {
    FakeRegistry::start(FakeOptions { faults: vec![fault], ..FakeOptions::default() })
}

fn blob(length: usize, seed: u64) -> Arc<dyn BlobContent> {
    Arc::new(MemoryBlob::new(noise(length, seed)))
}

fn push(
    client: &Registry,
    reference: &Reference,
    blobs: &[Arc<dyn BlobContent>],
) -> Result<(), RegistryError> {
    client.push_blobs(reference, blobs, &|_, _| {})
}

fn pull(
    client: &Registry,
    reference: &Reference,
    digest: Digest,
    size: u64,
) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    client.pull_blob(reference, digest, size, &mut bytes).map(|()| bytes)
}

type ReadFn = fn() -> Box<dyn Read + Send>;

/// A blob whose reader does something else than it should.
struct Odd {
    size: u64,
    digest: Digest,
    read: ReadFn,
}

impl BlobContent for Odd {
    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn reader(self: Arc<Self>, _: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok((self.read)())
    }
}

/// A reader that fails with `message`, or panics.
struct Failing {
    panics: bool,
}

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        if self.panics {
            std::panic::resume_unwind(Box::new("on request"));
        }
        Err(io::Error::other("model-1.safetensors changed while it was packed"))
    }
}

#[test]
fn an_image_goes_there_and_back() {
    let fake = FakeRegistry::open();
    let (client, target) = (client(), reference(&fake, "ns/repo:v1"));
    let blobs = [blob(5 << 20, 1), blob(0, 2), blob(17, 3), blob((1 << 20) + 1, 4), blob(17, 3)];
    let events = Mutex::new(Vec::new());
    client.push_blobs(&target, &blobs, &|index, event| events.lock().unwrap().push((index, event))).unwrap();

    let events = events.into_inner().unwrap();
    for (index, blob) in blobs.iter().enumerate() {
        let mine: Vec<PushEvent> =
            events.iter().filter(|(of, _)| *of == index).map(|(_, event)| *event).collect();
        if index == 4 {
            assert_eq!(mine, [PushEvent::AlreadyThere], "a repeated blob is sent once");
            continue;
        }
        assert_eq!(mine.last(), Some(&PushEvent::Done));
        if blob.size() > 0 {
            assert_eq!(mine[mine.len() - 2], PushEvent::Progress(blob.size()));
        }
        assert_eq!(pull(&client, &target, blob.digest(), blob.size()).unwrap(), {
            let mut bytes = Vec::new();
            Arc::clone(blob).reader(0).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        });
    }
    let puts: Vec<_> = fake.seen().into_iter().filter(|seen| seen.method == "PUT").collect();
    assert_eq!(puts.len(), 4);
    assert!(puts.iter().all(|put| !put.chunked && put.content_length == Some(put.body)));
    assert_eq!(fake.count("PATCH", ""), 0);

    let bytes = br#"{ "schemaVersion": 2, "layers": [] }"#;
    let digest = client.push_manifest(&target, MANIFEST_TYPE, bytes).unwrap();
    let pulled = client.pull_manifest(&target).unwrap();
    assert_eq!(pulled.bytes, bytes);
    assert_eq!((pulled.media_type.as_str(), pulled.digest), (MANIFEST_TYPE, digest));
    let by_digest = reference(&fake, &format!("ns/repo@{digest}"));
    assert_eq!(client.pull_manifest(&by_digest).unwrap(), pulled);
    assert_eq!(fake.manifest("ns/repo", "v1").unwrap(), (MANIFEST_TYPE.to_owned(), bytes.to_vec()));
}

#[test]
fn a_second_push_sends_nothing() {
    let fake = FakeRegistry::open();
    let (client, target) = (client(), reference(&fake, "repo:v1"));
    let blobs = [blob(3 << 20, 1), blob(9, 2)];
    push(&client, &target, &blobs).unwrap();
    assert!(client.blob_exists(&target, blobs[0].digest()).unwrap());
    assert!(!client.blob_exists(&target, Digest::of(b"else")).unwrap());
    fake.forget();
    let events = Mutex::new(Vec::new());
    client.push_blobs(&target, &blobs, &|_, event| events.lock().unwrap().push(event)).unwrap();
    assert_eq!(events.into_inner().unwrap(), [PushEvent::AlreadyThere; 2]);
    assert_eq!((fake.count("POST", ""), fake.count("PUT", "")), (0, 0));
}

#[test]
fn ranges_are_read_as_asked() {
    let fake = FakeRegistry::open();
    let bytes = noise(100_000, 1);
    let digest = fake.put_blob("repo", bytes.clone());
    let client = client();
    let source = client.blob_source(&reference(&fake, "repo:v1"), digest, 100_000);
    assert_eq!(source.read_range(0, 10).unwrap(), &bytes[..10]);
    assert_eq!(source.read_range(99_990, 10).unwrap(), &bytes[99_990..]);
    assert_eq!(source.read_range(0, 100_000).unwrap(), bytes);
    assert_eq!(source.read_range(5, 0).unwrap(), b"");
    assert_eq!(fake.ranges(), ["bytes=0-9", "bytes=99990-99999", "bytes=0-99999"]);
    for (offset, length) in [(99_991, 10), (100_001, 0), (u64::MAX, 1), (0, usize::MAX)] {
        assert_eq!(source.read_range(offset, length).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
    assert_eq!(fake.ranges().len(), 3, "a range beyond the end is refused without a request");
}

#[test]
fn ranges_are_read_by_many_threads() {
    let fake = FakeRegistry::open();
    let bytes = noise(100_000, 1);
    let digest = fake.put_blob("repo", bytes.clone());
    let client = client();
    let source = client.blob_source(&reference(&fake, "repo:v1"), digest, 100_000);
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let (source, bytes) = (&source, &bytes);
            scope.spawn(move || {
                for step in 0..10 {
                    let offset = thread * 10_000 + step * 1000;
                    let range = source.read_range(offset as u64, 1000).unwrap();
                    assert_eq!(range, &bytes[offset..offset + 1000]);
                }
            });
        }
    });
}

#[test]
fn a_server_that_ignores_ranges_serves_small_blobs_only() {
    let fake = FakeRegistry::start(FakeOptions { ranges: Ranges::Ignored, ..FakeOptions::default() });
    let bytes = noise(20 << 20, 1);
    let digest = fake.put_blob("repo", bytes.clone());
    let client = client();
    let source = client.blob_source(&reference(&fake, "repo:v1"), digest, 20 << 20);
    assert_eq!(source.read_range(3 << 20, 1000).unwrap(), &bytes[3 << 20..(3 << 20) + 1000]);
    let error = source.read_range(18 << 20, 1000).unwrap_err();
    assert!(words(&error).contains("ignores Range requests"), "{}", words(&error));
}

#[test]
fn short_and_cut_ranges_are_errors() {
    let fake = FakeRegistry::start(FakeOptions { ranges: Ranges::Short, ..FakeOptions::default() });
    let digest = fake.put_blob("repo", noise(1000, 1));
    let client = client();
    let source = client.blob_source(&reference(&fake, "repo:v1"), digest, 1000);
    let error = source.read_range(10, 100).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("expected 100 bytes, got 99"), "{error}");

    // Two tries bring less than the range.
    let fake = fake_with(Fault::always("GET", "/blobs/", Effect::CutAfter(20)));
    let digest = fake.put_blob("repo", noise(1000, 1));
    let source = client.blob_source(&reference(&fake, "repo:v1"), digest, 1000);
    assert!(matches!(registry_error(source.read_range(10, 100)), RegistryError::Network { .. }));
}

fn registry_error<T: std::fmt::Debug>(result: io::Result<T>) -> RegistryError {
    *result.unwrap_err().into_inner().unwrap().downcast().unwrap()
}

#[test]
fn wrong_bytes_do_not_pass() {
    let fake = FakeRegistry::start(FakeOptions {
        faults: vec![
            Fault::always("GET", "/blobs/", Effect::WrongBytes),
            Fault::always("GET", "/manifests/wrong", Effect::WrongBytes),
        ],
        ..FakeOptions::default()
    });
    let (client, target) = (client(), reference(&fake, "repo:wrong"));
    let digest = fake.put_blob("repo", noise(1000, 1));
    let error = pull(&client, &target, digest, 1000).unwrap_err();
    assert!(
        matches!(&error, RegistryError::DigestMismatch { expected, .. } if *expected == digest.to_string())
    );
    for size in [999, 1001] {
        let error = pull(&client, &target, digest, size).unwrap_err();
        assert!(matches!(error, RegistryError::SizeMismatch { .. }), "{error}");
    }
    fake.put_manifest("repo", "wrong", MANIFEST_TYPE, br#"{"layers":[]}"#);
    let error = client.pull_manifest(&target).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let fake = FakeRegistry::open();
    let (client, target) = (client(), reference(&fake, "ns/repo:v1"));
    let error = client.pull_manifest(&target).unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }));
    let said = words(&error);
    assert!(
        said.contains("manifest v1") && said.contains("ns/repo:v1") && said.contains("MANIFEST_UNKNOWN"),
        "{said}"
    );
    let digest = Digest::of(b"missing");
    let said = words(&pull(&client, &target, digest, 7).unwrap_err());
    assert!(said.contains(&digest.to_string()) && said.contains("BLOB_UNKNOWN"), "{said}");
}

#[test]
fn passwords_reach_registries_of_all_kinds() {
    let account = || ("ann".to_owned(), "s3cret".to_owned());
    let ((user, password), (u2, p2), (u3, p3)) = (account(), account(), account());
    for auth in [
        Auth::Basic { user, password },
        Auth::BasicBehindOpenPing { user: u2, password: p2 },
        Auth::Token { user: u3, password: p3, anonymous_pull: false },
    ] {
        let fake = FakeRegistry::start(FakeOptions { auth: auth.clone(), ..FakeOptions::default() });
        let target = reference(&fake, "ns/repo:v1");
        let right = client_for(&fake, "ann", "s3cret");
        let blobs = [blob(100, 1)];
        push(&right, &target, &blobs).unwrap_or_else(|error| panic!("{auth:?}: {}", words(&error)));
        right.push_manifest(&target, MANIFEST_TYPE, br#"{"layers":[]}"#).unwrap();
        right.pull_manifest(&target).unwrap();
        assert_eq!(right.blob_source(&target, blobs[0].digest(), 100).read_range(1, 9).unwrap().len(), 9);
        let sent = basic("ann", "s3cret");
        assert!(fake.seen().iter().any(|seen| seen.authorization.as_deref() == Some(&sent)), "{auth:?}");

        for (wrong, says) in [(client_for(&fake, "ann", "hunter2"), "auth.json"), (client(), "anonymous")] {
            let path = wrong.dir.path().join("auth.json").display().to_string();
            for error in [
                wrong.pull_manifest(&target).unwrap_err(),
                push(&wrong, &target, &[blob(50, 9)]).unwrap_err(),
                wrong.push_manifest(&target, MANIFEST_TYPE, b"{}").unwrap_err(),
            ] {
                assert!(matches!(error, RegistryError::Unauthorized { .. }), "{auth:?}: {error:?}");
                let said = words(&error);
                assert!(said.contains(says) && said.contains(&path), "{said}");
                assert!(said.contains("podman login") && said.contains(fake.address()), "{said}");
                assert!(!said.contains("hunter2"), "{said}");
            }
        }
    }
}

#[test]
fn anonymous_pulls_use_the_token_service() {
    let auth = Auth::Token { user: "ann".into(), password: "x".into(), anonymous_pull: true };
    let fake = FakeRegistry::start(FakeOptions { auth, ..FakeOptions::default() });
    fake.put_manifest("repo", "v1", MANIFEST_TYPE, br#"{"layers":[]}"#);
    let (client, target) = (client(), reference(&fake, "repo:v1"));
    client.pull_manifest(&target).unwrap();
    client.pull_manifest(&target).unwrap();
    assert_eq!(fake.count("GET", "/token"), 1, "a token is used until it expires");
    let error = push(&client, &target, &[blob(50, 9)]).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
    assert_eq!(fake.bytes("PUT", ""), 0, "a refused push sends no blob");
}

#[test]
fn repositories_have_their_own_credentials() {
    let auth = Auth::Basic { user: "ann".into(), password: "right".into() };
    let fake = FakeRegistry::start(FakeOptions { auth, ..FakeOptions::default() });
    let [right, wrong] = ["ann:right", "ann:wrong"].map(|account| base64(account.as_bytes()));
    let (host, other) = (fake.address().to_owned(), format!("{}/mine", fake.address()));
    let auths = serde_json::json!({ "auths": { host: { "auth": wrong }, other: { "auth": right } } });
    let client = client_with(&auths.to_string());
    let blobs = [blob(10, 1)];
    assert!(push(&client, &reference(&fake, "theirs/a:v1"), &blobs).is_err());
    push(&client, &reference(&fake, "mine/a:v1"), &blobs).unwrap();
}

#[test]
fn auth_files_that_cannot_be_used_are_errors() {
    let target: Reference = "127.0.0.1:1/repo:v1".parse().unwrap();
    let client = client_with("{}");
    let path = client.dir.path().join("auth.json");
    std::fs::write(&path, "{").unwrap();
    let error = client.pull_manifest(&target).unwrap_err();
    assert!(error.to_string().contains("auth.json"), "{error}");
    for path in [path, PathBuf::from("/nonexistent/auth.json")] {
        let options = RegistryOptions { authfile: Some(path), retries: 1, ..RegistryOptions::default() };
        let error = Registry::new(options).map(drop).unwrap_err();
        assert!(matches!(error, RegistryError::AuthFile { .. }), "{error:?}");
    }
}

#[test]
fn statuses_become_errors_that_say_what_to_do() {
    type Is = fn(&RegistryError) -> bool;
    let denied = r#"{"errors":[{"code":"DENIED","message":"go away"}]}"#;
    let cases: [(u16, &str, Is, &str); 5] = [
        (401, "", |error| matches!(error, RegistryError::Unauthorized { .. }), "podman login"),
        (403, denied, |error| matches!(error, RegistryError::Denied { .. }), "go away"),
        (404, "", |error| matches!(error, RegistryError::NotFound { .. }), "not found"),
        (429, "slow down", |error| matches!(error, RegistryError::RateLimited { .. }), "slow down"),
        (
            500,
            "<html>oops</html>",
            |error| matches!(error, RegistryError::Server { status: 500, .. }),
            "HTTP 500",
        ),
    ];
    for (status, body, is, says) in cases {
        for (method, path) in
            [("GET", "/manifests/"), ("GET", "/blobs/"), ("POST", "/uploads/"), ("PUT", "/uploads/")]
        {
            let fake = fake_with(Fault::always(method, path, Effect::Answer(status, body.to_owned())));
            let (client, target) = (client(), reference(&fake, "ns/repo:v1"));
            let digest = fake.put_blob("ns/repo", noise(10, 5));
            let error = match path {
                "/manifests/" => client.pull_manifest(&target).unwrap_err(),
                "/blobs/" => pull(&client, &target, digest, 10).unwrap_err(),
                _ => push(&client, &target, &[blob(3 << 20, 1)]).unwrap_err(),
            };
            assert!(is(&error), "{method} {path} {status}: {error:?}");
            let said = words(&error);
            assert!(said.contains(says) && said.contains("ns/repo:v1"), "{said}");
        }
    }
}

#[test]
fn tls_to_a_plain_server_hints_at_the_option() {
    let fake = FakeRegistry::open();
    let target: Reference = format!("{}/repo:v1", fake.foreign_address()).parse().unwrap();
    let error = client().pull_manifest(&target).unwrap_err();
    assert!(matches!(error, RegistryError::PlainHttpServer { .. }), "{error:?}");
    assert!(error.to_string().contains("--plain-http"));

    fake.put_manifest("repo", "v1", MANIFEST_TYPE, br#"{"layers":[]}"#);
    let client = client();
    let options = RegistryOptions {
        plain_http: true,
        authfile: Some(client.dir.path().join("auth.json")),
        ..RegistryOptions::default()
    };
    Registry::new(options).unwrap().pull_manifest(&target).unwrap();
}

#[test]
fn nobody_listens() {
    let target: Reference = "127.0.0.1:1/repo:v1".parse().unwrap();
    let error = client().pull_manifest(&target).unwrap_err();
    assert!(matches!(error, RegistryError::Network { .. }), "{error:?}");
    let said = words(&error);
    assert!(said.contains("127.0.0.1:1") && said.contains("refused"), "{said}");
}

#[test]
fn a_source_that_fails_is_told_as_such() {
    let fake = FakeRegistry::open();
    let (client, target) = (client(), reference(&fake, "repo:v1"));
    let cases: [(u64, ReadFn, &str); 4] = [
        (
            4 << 20,
            || Box::new(io::repeat(1).take(2 << 20).chain(Failing { panics: false })),
            "model-1.safetensors changed",
        ),
        (4 << 20, || Box::new(io::repeat(1).take(3 << 20)), "ended after 3145728 of 4194304 bytes"),
        (4 << 20, || Box::new(io::repeat(1)), "goes on after its 4194304 bytes"),
        (
            4 << 20,
            || Box::new(io::repeat(1).take(1 << 20).chain(Failing { panics: true })),
            "reading stopped",
        ),
    ];
    for (size, read, says) in cases {
        let odd: Arc<dyn BlobContent> = Arc::new(Odd { size, digest: Digest::of(says.as_bytes()), read });
        let error = push(&client, &target, &[odd]).unwrap_err();
        assert!(matches!(error, RegistryError::Source { .. }), "{says}: {error:?}");
        assert!(words(&error).contains(says), "{}", words(&error));
    }
    assert!(fake.blob("repo", Digest::of(b"model")).is_none());
    // The client still works.
    push(&client, &target, &[blob(100, 1)]).unwrap();
}

#[test]
fn big_blobs_need_little_memory() {
    // In a process of its own: the other tests' memory would count, too.
    const INSIDE: &str = "STARCAR_TEST_MEMORY";
    if std::env::var(INSIDE).is_err() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "big_blobs_need_little_memory"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let fake = FakeRegistry::start(FakeOptions { discard: true, ..FakeOptions::default() });
    let size = 256 << 20;
    let blobs: Vec<Arc<dyn BlobContent>> = (0..3_u8)
        .map(|index| {
            let read: ReadFn = || Box::new(io::repeat(1).take(256 << 20));
            Arc::new(Odd { size, digest: Digest::of(&[index]), read }) as Arc<dyn BlobContent>
        })
        .collect();
    let client = client();
    push(&client, &reference(&fake, "repo:v1"), &blobs[..1]).unwrap();
    push(&client, &reference(&fake, "repo:v1"), &blobs).unwrap();
    assert_eq!(fake.bytes("PUT", "/uploads/"), 3 * size);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    let peak: u64 = peak.unwrap().parse().unwrap();
    assert!(peak < 128 << 10, "{peak} KiB");
}

#[test]
fn wrong_content_is_told_from_a_wrong_way() {
    let fake = FakeRegistry::open();
    let odd: Arc<dyn BlobContent> =
        Arc::new(Odd { size: 10, digest: Digest::of(b"x"), read: || Box::new(io::repeat(1).take(10)) });
    let error = push(&client(), &reference(&fake, "repo:v1"), &[odd]).unwrap_err();
    assert!(matches!(error, RegistryError::Source { .. }), "{error:?}");
    assert!(words(&error).contains("its content has digest"), "{}", words(&error));
}

#[test]
fn connections_that_close_early_end_a_push_that_does_not_move() {
    let blobs = [blob(16 << 20, 1), blob(16 << 20, 2), blob(16 << 20, 3)];
    let fake = fake_with(Fault::always("PUT", "/uploads/", Effect::CloseAfter(1)));
    let error = push(&client(), &reference(&fake, "repo:v1"), &blobs).unwrap_err();
    assert!(matches!(error, RegistryError::Network { .. }), "{error:?}");
    // Each brings some bytes along, so the push gets there.
    let fake = fake_with(Fault::always("PUT", "/uploads/", Effect::CloseAfter(5 << 20)));
    push(&client(), &reference(&fake, "repo:v1"), &blobs).unwrap();
}

#[test]
fn an_answer_before_the_body_ends_the_upload() {
    // The server answers at once and reads nothing; an endless reader must not be read on.
    let refusal = |method| Fault::always(method, "/uploads/", Effect::AnswerAtOnce(413, "too big".into()));
    let faults = vec![refusal("PUT"), refusal("PATCH")];
    let fake = FakeRegistry::start(FakeOptions { faults, ..FakeOptions::default() });
    let odd: Arc<dyn BlobContent> =
        Arc::new(Odd { size: 1 << 40, digest: Digest::of(b"x"), read: || Box::new(io::repeat(1)) });
    let begun = Instant::now();
    let error = push(&client(), &reference(&fake, "repo:v1"), &[odd]).unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. } | RegistryError::Network { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_failed_blob_ends_the_push_though_another_stalls() {
    let fake = FakeRegistry::start(FakeOptions {
        faults: vec![
            Fault { times: 1, ..Fault::always("PUT", "/uploads/", Effect::StallAfter(1)) },
            Fault { skip: 1, ..Fault::always("PUT", "/uploads/", Effect::Answer(500, "full".into())) },
        ],
        ..FakeOptions::default()
    });
    let begun = Instant::now();
    let client = client();
    let error =
        push(&client, &reference(&fake, "repo:v1"), &[blob(16 << 20, 1), blob(16 << 20, 2)]).unwrap_err();
    assert!(matches!(error, RegistryError::Server { status: 500, .. }), "{error:?}");
    drop(client);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn identity_tokens_reach_the_token_service() {
    let user = "00000000-0000-0000-0000-000000000000".to_owned();
    let auth = Auth::Token { user, password: "refresh".into(), anonymous_pull: false };
    let fake = FakeRegistry::start(FakeOptions { auth, ..FakeOptions::default() });
    let entry = serde_json::json!({ "auths": { fake.address(): { "identitytoken": "refresh" } } });
    push(&client_with(&entry.to_string()), &reference(&fake, "repo:v1"), &[blob(10, 1)]).unwrap();
}

#[test]
fn helpers_and_proxies_come_from_the_environment() {
    use std::os::unix::fs::PermissionsExt;

    // A process cannot change its environment safely, so this test runs itself in another.
    const ADDRESS: &str = "STARCAR_TEST_REGISTRY";
    if let Ok(address) = std::env::var(ADDRESS) {
        let client = Registry::new(RegistryOptions::default()).unwrap();
        let target = format!("{address}/repo:v1").parse().unwrap();
        push(&client, &target, &[blob(10, 1)]).unwrap();
        return;
    }
    let auth = Auth::Basic { user: "ann".into(), password: "s3cret".into() };
    let fake = FakeRegistry::start(FakeOptions { auth, ..FakeOptions::default() });
    let dir = tempfile::tempdir().unwrap();
    let config = serde_json::json!({ "credsStore": "fake", "auths": { fake.address(): {} } });
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let script = format!(
        "#!/bin/sh\nread server\n[ \"$server\" = {} ] || exit 1\necho '{{\"Username\":\"ann\",\"Secret\":\"s3cret\"}}'\n",
        fake.address()
    );
    let helper = dir.path().join("docker-credential-fake");
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helpers_and_proxies_come_from_the_environment"])
        .env_remove("REGISTRY_AUTH_FILE")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .envs([("PATH", path.as_str()), (ADDRESS, fake.address())])
        .envs([("HTTP_PROXY", "http://127.0.0.1:9"), ("ALL_PROXY", "http://127.0.0.1:9")])
        .env("DOCKER_CONFIG", dir.path())
        .env("XDG_CONFIG_HOME", dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(fake.count("PUT", "/uploads/"), 1);
}

#[test]
fn manifests_without_a_location_are_stored() {
    // ECR answers so; the client library panics over it when pushing by digest.
    let fake = fake_with(Fault::always("PUT", "/manifests/", Effect::WithoutHeader("location")));
    let client = client();
    let bytes = br#"{"layers":[]}"#;
    let digest = Digest::of(bytes);
    for name in ["repo:v1".to_owned(), format!("repo@{digest}"), format!("repo:v2@{digest}")] {
        assert_eq!(client.push_manifest(&reference(&fake, &name), MANIFEST_TYPE, bytes).unwrap(), digest);
    }
    assert!(fake.manifest("repo", "v2").is_some(), "a tag beside a digest is set");
}

#[test]
fn blobs_without_a_location_are_stored() {
    for effect in [Effect::WithoutHeader("location"), Effect::WithStatus(202)] {
        let fake = fake_with(Fault::always("PUT", "/uploads/", effect));
        push(&client(), &reference(&fake, "repo:v1"), &[blob(10, 1)]).unwrap();
    }
}

#[test]
fn manifests_that_arrive_as_something_else_are_errors() {
    let client = client();
    let bytes = br#"{"layers":[]}"#;
    let other = Digest::of(b"other").to_string();

    let location = Effect::WithHeader("location", format!("/v2/repo/manifests/{other}"));
    let fake = fake_with(Fault::always("PUT", "/manifests/", location));
    let error = client.push_manifest(&reference(&fake, "repo:v1"), MANIFEST_TYPE, bytes).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");

    let header = Effect::WithHeader("docker-content-digest", other.clone());
    let fake = fake_with(Fault::always("GET", "/manifests/", header));
    let error = client.push_manifest(&reference(&fake, "repo:v1"), MANIFEST_TYPE, bytes).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");

    let fake = FakeRegistry::open();
    let wrong = reference(&fake, &format!("repo@{other}"));
    let error = client.push_manifest(&wrong, MANIFEST_TYPE, bytes).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    assert_eq!(fake.count("PUT", ""), 0);

    let error = client.push_manifest(&reference(&fake, "repo:v1"), "no\ntype", bytes).unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error:?}");
}

#[test]
fn a_tag_that_somebody_else_moved_is_told_as_such() {
    let other = r#"{"layers":[],"other":true}"#;
    let reply = Reply { body: other.to_owned(), ..Reply::status(200) };
    let fake =
        fake_with(Fault::always("GET", "/manifests/v1", Effect::At(When::BeforeBody, Act::Reply(reply))));
    let error =
        client().push_manifest(&reference(&fake, "repo:v1"), MANIFEST_TYPE, br#"{"layers":[]}"#).unwrap_err();
    let moved_to = Digest::of(other.as_bytes()).to_string();
    assert!(
        matches!(&error, RegistryError::TagMoved { found, .. } if **found == *moved_to),
        "{}",
        words(&error)
    );
}

#[test]
fn manifests_are_read_back_once_by_each_name() {
    let fake = FakeRegistry::open();
    let client = client();
    let bytes = br#"{"layers":[]}"#;
    for (name, times) in [(format!("repo@{}", Digest::of(bytes)), 1), ("repo:v1".to_owned(), 2)] {
        fake.forget();
        client.push_manifest(&reference(&fake, &name), MANIFEST_TYPE, bytes).unwrap();
        assert_eq!(fake.count("GET", "/manifests/"), times, "{name}");
    }
}

#[test]
fn every_repository_that_is_named_is_asked_for_a_mount() {
    let fake = FakeRegistry::open();
    let dir = tempfile::tempdir().unwrap();
    let authfile = dir.path().join("auth.json");
    std::fs::write(&authfile, "{}").unwrap();
    let named = ["one", "two", "three"];
    let options = RegistryOptions {
        authfile: Some(authfile),
        mount_from: named.map(str::to_owned).to_vec(),
        ..RegistryOptions::default()
    };
    let client = Registry::new(options).unwrap();
    let from = reference(&fake, "source:v1");
    client.push_blobs_from(&reference(&fake, "repo:v1"), Some(&from), &[blob(10, 1)], &|_, _| {}).unwrap();
    let queries: Vec<String> = fake.seen().into_iter().map(|seen| seen.query).collect();
    for name in ["source", "one", "two", "three"] {
        let asked = format!("from={name}");
        assert!(queries.iter().any(|query| query.contains(&asked)), "{name}: {queries:?}");
    }
}

#[test]
fn manifests_that_are_none_are_errors() {
    let fake = FakeRegistry::open();
    let client = client();
    for (tag, bytes) in [("html", "<html>"), ("list", "[]"), ("empty", "{}"), ("nothing", "")] {
        fake.put_manifest("repo", tag, "text/html", bytes.as_bytes());
        let error = client.pull_manifest(&reference(&fake, &format!("repo:{tag}"))).unwrap_err();
        assert!(matches!(error, RegistryError::Protocol { .. }), "{tag}: {error:?}");
    }
    fake.put_manifest("repo", "index", "x", br#"{"manifests":[]}"#);
    let index = client.pull_manifest(&reference(&fake, "repo:index")).unwrap();
    assert_eq!(index.media_type, "application/vnd.oci.image.index.v1+json");
}

#[test]
fn an_account_that_may_only_push_can() {
    let fake = FakeRegistry::start(FakeOptions {
        faults: vec![
            Fault::always("HEAD", "", Effect::Answer(403, String::new())),
            Fault::always("GET", "/manifests/", Effect::Answer(403, String::new())),
        ],
        ..FakeOptions::default()
    });
    let (client, target) = (client(), reference(&fake, "repo:v1"));
    push(&client, &target, &[blob(10, 1)]).unwrap();
    client.push_manifest(&target, MANIFEST_TYPE, br#"{"layers":[]}"#).unwrap();
}

#[test]
fn a_sink_that_fails_is_told_as_such() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::other("no space left"))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let fake = FakeRegistry::open();
    let digest = fake.put_blob("repo", noise(1000, 1));
    let error = client().pull_blob(&reference(&fake, "repo:v1"), digest, 1000, &mut Full).unwrap_err();
    assert!(matches!(error, RegistryError::Sink { .. }), "{error:?}");
    assert!(words(&error).contains("no space left"));
}

#[test]
fn asynchronous_callers_get_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(async {
        let target: Reference = "127.0.0.1:1/repo:v1".parse().unwrap();
        client().pull_manifest(&target).unwrap_err()
    });
    assert!(matches!(error, RegistryError::Internal { .. }), "{error:?}");
}

#[test]
fn a_realm_that_is_no_url_is_named() {
    for realm in ["token", "/token", "oauth:token", "file:///etc/passwd", "http://"] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"fake\"");
        let refusal = Reply::status(401).with("www-authenticate", challenge);
        let effect = Effect::At(When::BeforeBody, Act::Reply(refusal));
        let fake = fake_with(Fault::always("GET", "/v2/", effect));
        let error = client().pull_manifest(&reference(&fake, "repo:v1")).unwrap_err().to_string();
        let said =
            format!("names the token service `{realm}` (the realm of its Bearer challenge), which is no URL");
        assert!(error.contains(&said) && !error.contains("  "), "{error}");
    }
}
