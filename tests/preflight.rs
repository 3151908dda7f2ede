//! What `starcar registry check` finds out about registries of all kinds.
#![allow(clippy::unwrap_used, missing_docs)] // also in helpers, which clippy does not take for tests

mod support;

use starcar::registry::{Finding, Preflight, Reference, Registry, RegistryOptions, Verdict};
use support::registry::{Act, Auth, Effect, FakeOptions, FakeRegistry, Fault, Ranges, Reply, When, base64};

fn reply(reply: Reply) -> Effect {
    Effect::At(When::BeforeBody, Act::Reply(reply))
}

fn check(fake: &FakeRegistry) -> Preflight {
    let dir = tempfile::tempdir().unwrap();
    let authfile = dir.path().join("auth.json");
    let auth = base64(b"ann:s3cret");
    let entry = serde_json::json!({ "auths": { fake.address(): { "auth": auth } } });
    std::fs::write(&authfile, entry.to_string()).unwrap();
    let options = RegistryOptions { authfile: Some(authfile), retries: 1, ..RegistryOptions::default() };
    let reference: Reference = format!("{}/ns/repo:v1", fake.address()).parse().unwrap();
    Registry::new(options).unwrap().preflight(&reference).unwrap()
}

fn of<'a>(preflight: &'a Preflight, what: &str) -> &'a Finding {
    preflight.findings.iter().find(|finding| finding.what == what).unwrap()
}

#[test]
fn registries_are_reached_with_and_without_a_login() {
    for auth in [
        Auth::Open,
        Auth::Basic { user: "ann".into(), password: "s3cret".into() },
        Auth::Token { user: "ann".into(), password: "s3cret".into(), anonymous_pull: false },
    ] {
        let fake = FakeRegistry::start(FakeOptions { auth: auth.clone(), ..FakeOptions::default() });
        let found = check(&fake);
        for what in ["reach", "pull", "push", "range", "ranges", "mount"] {
            assert_eq!(of(&found, what).verdict, Verdict::Yes, "{auth:?}: {:?}", of(&found, what));
        }
        assert_eq!(fake.open_uploads(), 0);
        assert_eq!(found.missing().count(), 0);
    }
}

#[test]
fn what_is_no_registry_is_told_and_gets_nothing() {
    let page = Reply { body: "<html>log in</html>".into(), ..Reply::status(200) }
        .with("content-type", "text/html; charset=utf-8");
    for (answer, says) in [(page, "a web page"), (Reply::status(404), "HTTP 404")] {
        let faults = vec![Fault::always("GET", "/v2/", reply(answer))];
        let fake = FakeRegistry::start(FakeOptions { faults, ..FakeOptions::default() });
        let found = check(&fake);
        assert_eq!(found.missing().map(|finding| finding.what).collect::<Vec<_>>(), ["reach"]);
        assert!(of(&found, "reach").detail.contains(says), "{:?}", of(&found, "reach"));
        assert!(fake.seen().iter().all(|seen| seen.method == "GET" && seen.path == "/v2/"));
        assert_eq!(fake.authorizations(), [""; 0], "a password is for registries");
    }
}

#[test]
fn several_ranges_must_all_come() {
    let of_part = |part: &'static str, bytes: &'static [u8]| {
        let body = String::from_utf8(bytes.to_vec()).unwrap();
        reply(Reply { body, ..Reply::status(206) }.with("content-range", format!("bytes {part}/64")))
    };
    let probe = b"starcar registry check: a probe, ";
    for (effect, verdict) in
        [(of_part("0-3", &probe[..4]), Verdict::No), (of_part("0-19", &probe[..20]), Verdict::Yes)]
    {
        // The first request for the blob is for one range.
        let faults = vec![Fault { skip: 1, ..Fault::always("GET", "/blobs/sha256", effect) }];
        let fake = FakeRegistry::start(FakeOptions { faults, ..FakeOptions::default() });
        let found = check(&fake);
        assert_eq!((of(&found, "range").verdict, of(&found, "ranges").verdict), (Verdict::Yes, verdict));
    }
    for ranges in [Ranges::SeveralIgnored, Ranges::SeveralRefused, Ranges::Ignored] {
        let fake = FakeRegistry::start(FakeOptions { ranges, ..FakeOptions::default() });
        assert_eq!(of(&check(&fake), "ranges").verdict, Verdict::No, "{ranges:?}");
    }
}

#[test]
fn checks_side_by_side_do_not_meet() {
    let fake = FakeRegistry::open();
    check(&fake);
    check(&fake);
    let asked = |method: &str| -> Vec<String> {
        let seen = fake.seen().into_iter();
        let blobs = seen.filter(|seen| seen.method == method && seen.path.contains("/blobs/sha256"));
        blobs.map(|seen| seen.path).collect()
    };
    let removed = asked("DELETE");
    assert!(removed.len() == 2 && removed[0] != removed[1], "{removed:?}");
}

#[test]
fn the_least_length_of_pieces_is_told() {
    let least = Effect::WithHeader("oci-chunk-min-length", "5242880".into());
    let faults = vec![Fault::always("POST", "/uploads/", least)];
    let fake = FakeRegistry::start(FakeOptions { faults, ..FakeOptions::default() });
    let found = check(&fake);
    let pieces = of(&found, "pieces");
    assert_eq!((pieces.verdict, pieces.detail.as_str()), (Verdict::Yes, "at least 5242880 bytes (it says)"));
    assert_eq!(of(&check(&FakeRegistry::open()), "pieces").verdict, Verdict::Unknown);
}
