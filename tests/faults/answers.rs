//! Answers that are no success, or that are wrong.

use std::{thread, time::Duration};

use crate::harness::*;

fn at_once(reply: Reply) -> Effect {
    Effect::At(When::BeforeBody, Act::Reply(reply))
}

/// The requests of a push.
const STEPS: [(&str, &str); 3] = [("HEAD", "/blobs/"), ("POST", "/uploads/"), ("PUT", "/uploads/")];

#[test]
fn busy_for_a_moment() {
    thread::scope(|scope| {
        for status in [408, 429, 500, 502, 503, 504] {
            scope.spawn(move || {
                let faults =
                    STEPS.map(|(method, path)| Fault::once(method, path, at_once(Reply::status(status))));
                Trial::faults(faults).arrives(ONCE);
            });
        }
    });
}

#[test]
fn busy_until_later() {
    thread::scope(|scope| {
        for (status, (method, path)) in [429, 503].into_iter().flat_map(|of| STEPS.map(|step| (of, step))) {
            scope.spawn(move || {
                let reply = Reply::status(status).with("retry-after", "1");
                let trial = Trial::faults([Fault::once(method, path, at_once(reply))]);
                trial.arrives(ONCE);
                let seen = trial.fake.seen();
                let refused = seen.iter().position(|seen| seen.status == status).unwrap();
                let wait = seen[refused + 1].at.saturating_sub(seen[refused].at);
                assert!(wait >= Duration::from_secs(1), "{}", trial.log());
                assert!(wait < Duration::from_secs(4), "{}", trial.log());
            });
        }
    });
}

#[test]
fn busy_for_long() {
    // Longer than anybody waits; what was sent is not given up for it.
    let busy = Reply::status(503).with("retry-after", "3600");
    let faults = vec![
        Fault::once("PUT", "/uploads/", Effect::CloseAfter(SIZE / 2)),
        Fault { skip: 1, ..Fault::once("PUT", "/uploads/", Effect::At(When::BeforeBody, Act::Reply(busy))) },
    ];
    let trial = Trial::faults(faults);
    let memory = trial.dir.path().join("memory");
    let trial = trial.with(|options| options.memory = Some(memory));
    trial.fails();
    trial.arrives(ONCE);
}

#[test]
fn busy_for_ever() {
    for status in [429, 503] {
        let trial = Trial::faults([Fault::always("POST", "", at_once(Reply::status(status)))]);
        let said = trial.fails();
        let reason = match status {
            429 => "the registry limits the rate of requests; try again later",
            _ => "the registry answered HTTP 503",
        };
        assert_eq!(said, format!("cannot push blob DIGEST (REGISTRY/ns/repo:v1): {reason}"));
        assert_eq!(trial.fake.count("POST", ""), 4, "{}", trial.log());
    }
}

#[test]
fn refused_for_good() {
    let denied = r#"{"errors":[{"code":"DENIED","message":"go away"}]}"#;
    let reply = Reply { body: denied.to_owned(), ..Reply::status(403) };
    let trial = Trial::faults([Fault::always("POST", "", at_once(reply))]);
    insta::assert_snapshot!(trial.fails(), @"cannot push blob DIGEST (REGISTRY/ns/repo:v1): REGISTRY does not allow it with an anonymous request (no credentials for it in DIR/auth.json): DENIED go away; the account may lack the permission, or the repository may not exist");
    assert_eq!(trial.fake.count("POST", ""), 1, "{}", trial.log());
}

#[test]
fn failed_after_the_body() {
    let failed = Effect::At(When::AfterBody, Act::Reply(Reply::status(500)));
    Trial::faults([Fault::once("PUT", "/uploads/", failed)]).arrives(TWICE);
}

#[test]
fn failed_with_the_body_kept() {
    let failed = Effect::At(When::Kept, Act::Reply(Reply::status(500)));
    Trial::faults([Fault::once("PUT", "/uploads/", failed)]).arrives(ONCE);
}

#[test]
fn failed_though_stored() {
    let failed = Effect::At(When::Done, Act::Reply(Reply::status(500)));
    Trial::faults([Fault::once("PUT", "/uploads/", failed)]).arrives(ONCE);
}

#[test]
fn answers_cut_short() {
    // The status says it all; what is cut off is an error's explanation.
    let busy = Effect::At(
        When::BeforeBody,
        Act::Reply(Reply { body: "the disk is full".into(), ..Reply::status(503) }),
    );
    let faults = STEPS.into_iter().flat_map(|(method, path)| {
        [Fault::once(method, path, busy.clone()), Fault::once(method, path, Effect::CutAfter(3))]
    });
    Trial::faults(faults.collect::<Vec<_>>()).arrives(ONCE);
}

#[test]
fn last_byte_dropped() {
    let trial = Trial::faults([Fault::always("PUT", "/uploads/", Effect::DropLastByte)]);
    let said = trial.fails();
    assert!(said.starts_with("cannot push blob DIGEST (REGISTRY/ns/repo:v1): "), "{said}");
    assert!(said.contains("DIGEST_INVALID"), "{said}");
    assert!(trial.fake.count("PUT", "") <= 4, "{}", trial.log());
    assert_eq!(trial.fake.open_uploads(), 0, "{}", trial.log());
}

#[test]
fn stored_short() {
    let shorter = Effect::WithHeader("content-length", "1999999".to_owned());
    let trial = Trial::faults([Fault { skip: 1, ..Fault::always("HEAD", "/blobs/", shorter) }]);
    let error = trial.push().unwrap_err();
    insta::assert_snapshot!(trial.said(&error), @"cannot push blob DIGEST (REGISTRY/ns/repo:v1): expected 2000000 bytes, got 1999999");
}

#[test]
fn manifest_while_busy() {
    let reply = Reply::status(503).with("retry-after", "1");
    let trial = Trial::faults([Fault::once("PUT", "/manifests/", at_once(reply))]);
    trial.client().push_manifest(&trial.target(), MANIFEST_TYPE, MANIFEST).unwrap();
    assert_eq!(trial.fake.tags(REPOSITORY), ["v1"]);
}

#[test]
fn manifest_without_location() {
    let trial = Trial::faults([Fault::always("PUT", "/manifests/", Effect::WithoutHeader("location"))]);
    trial.client().push_manifest(&trial.target(), MANIFEST_TYPE, MANIFEST).unwrap();
    assert_eq!(trial.fake.tags(REPOSITORY), ["v1"]);
}

#[test]
fn manifest_refused() {
    let reply = Reply { body: "no such blob".into(), ..Reply::status(400) };
    let trial = Trial::faults([Fault::always("PUT", "/manifests/", at_once(reply))]);
    let error = trial.client().push_manifest(&trial.target(), MANIFEST_TYPE, MANIFEST).unwrap_err();
    insta::assert_snapshot!(trial.said(&error), @"cannot push manifest v1 (REGISTRY/ns/repo:v1): the registry answered HTTP 400: no such blob");
    assert_eq!((trial.fake.count("PUT", ""), trial.fake.tags(REPOSITORY).len()), (1, 0));
}
