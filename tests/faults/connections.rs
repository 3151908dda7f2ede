//! Connections that break or stand still.

use std::{thread, time::Duration};

use crate::harness::*;

fn put(effect: Effect) -> Fault {
    Fault::once("PUT", "/uploads/", effect)
}

#[test]
fn cut_in_a_blob() {
    thread::scope(|scope| {
        for tenth in 1..10 {
            scope.spawn(move || {
                Trial::faults([put(Effect::CloseAfter(SIZE / 10 * tenth))]).arrives(ONCE);
            });
        }
    });
}

#[test]
fn cut_again_and_again() {
    // More often than there are tries without progress.
    let cuts = (1..10_u64).map(|tenth| {
        let skip = usize::try_from(tenth - 1).unwrap();
        Fault { skip, ..put(Effect::CloseAt(SIZE / 10 * tenth)) }
    });
    Trial::faults(cuts.collect::<Vec<_>>()).arrives(ONCE);
}

#[test]
fn cut_at_the_start() {
    // Registries say `0-0` of an upload that has nothing, and of one that has a byte.
    for at in [0, 1, 2] {
        Trial::faults([put(Effect::CloseAfter(at))]).arrives(ONCE);
    }
}

#[test]
fn cut_at_the_end() {
    for at in [SIZE - 1, SIZE] {
        Trial::faults([put(Effect::CloseAfter(at))]).arrives(ONCE);
    }
}

#[test]
fn cut_after_storing() {
    let trial = Trial::faults([put(Effect::At(When::Done, Act::Close))]);
    trial.arrives(ONCE);
    assert_eq!(trial.fake.count("POST", ""), 1, "{}", trial.log());
}

#[test]
fn cut_for_ever() {
    let trial = Trial::faults([Fault::always("PUT", "/uploads/", Effect::CloseAfter(0))]);
    let said = trial.fails();
    assert!(said.starts_with("cannot push blob DIGEST (REGISTRY/ns/repo:v1): "), "{said}");
    assert!(said.contains("connection to REGISTRY"), "{said}");
    assert_eq!(trial.fake.count("PUT", ""), 4, "{}", trial.log());
}

#[test]
fn cut_in_other_requests() {
    for (method, path) in [("HEAD", "/blobs/"), ("POST", "/uploads/"), ("GET", "/uploads/")] {
        let trial = Trial::faults([
            Fault::once(method, path, Effect::At(When::BeforeBody, Act::Close)),
            put(Effect::CloseAfter(SIZE / 2)),
        ]);
        trial.arrives(ONCE);
    }
}

#[test]
fn cut_in_a_manifest() {
    for when in [When::BeforeBody, When::AfterBody, When::Done] {
        let trial = Trial::faults([Fault::once("PUT", "/manifests/", Effect::At(when, Act::Close))]);
        if let Err(error) = trial.client().push_manifest(&trial.target(), MANIFEST_TYPE, MANIFEST) {
            panic!("{}\n{}", trial.said(&error), trial.log());
        }
        assert_eq!(trial.fake.tags(REPOSITORY), ["v1"]);
    }
}

#[test]
fn session_lost() {
    for code in ["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"] {
        let uploads = Uploads { lost_when_cut: Some(code), ..Uploads::default() };
        let faults = vec![put(Effect::CloseAfter(SIZE / 2))];
        let trial = Trial::new(FakeOptions { uploads, faults, ..FakeOptions::default() });
        trial.arrives(HALF_AGAIN);
        assert_eq!(trial.fake.open_uploads(), 0);
    }
}

#[test]
fn session_lost_for_ever() {
    let uploads = Uploads { lost_when_cut: Some("BLOB_UPLOAD_UNKNOWN"), ..Uploads::default() };
    let cut = |method| Fault::always(method, "/uploads/", Effect::CloseAfter(SIZE / 2));
    let faults = vec![cut("PUT"), cut("PATCH")];
    let trial = Trial::new(FakeOptions { uploads, faults, ..FakeOptions::default() });
    let said = trial.fails();
    assert!(said.starts_with("cannot push blob DIGEST (REGISTRY/ns/repo:v1): "), "{said}");
    let sent = |method| trial.fake.count(method, "");
    assert!(sent("PUT") + sent("PATCH") <= 4, "{}", trial.log());
}

#[test]
fn session_lost_in_long_requests() {
    // What ends long requests may let short ones through.
    let uploads = Uploads { lost_when_cut: Some("BLOB_UPLOAD_UNKNOWN"), ..Uploads::default() };
    let faults = vec![Fault::always("PUT", "/uploads/", Effect::CloseAfter(SIZE / 2))];
    let trial = Trial::new(FakeOptions { uploads, faults, ..FakeOptions::default() });
    trial.arrives(TWICE);
}

#[test]
fn stalls() {
    let effects = [
        Effect::At(When::BeforeBody, Act::Stall),
        Effect::StallAfter(SIZE / 2),
        Effect::At(When::Kept, Act::Stall),
        Effect::At(When::Done, Act::Stall),
    ];
    thread::scope(|scope| {
        for effect in effects {
            scope.spawn(|| {
                let trial = Trial::faults([put(effect)]);
                trial.with(|options| options.stall = Duration::from_millis(300)).arrives(ONCE);
            });
        }
    });
}

#[test]
fn stalls_in_other_requests() {
    thread::scope(|scope| {
        for (method, path) in [("HEAD", "/blobs/"), ("POST", "/uploads/"), ("GET", "/uploads/")] {
            scope.spawn(move || {
                let trial = Trial::faults([
                    Fault::once(method, path, Effect::At(When::BeforeBody, Act::Stall)),
                    put(Effect::CloseAfter(SIZE / 2)),
                ]);
                trial.with(|options| options.stall = Duration::from_millis(300)).arrives(ONCE);
            });
        }
    });
}

#[test]
fn stalls_for_ever() {
    let trial = Trial::faults([Fault::always("PUT", "/uploads/", Effect::At(When::BeforeBody, Act::Stall))]);
    let trial = trial.with(|options| {
        options.stall = Duration::from_millis(300);
        options.retries = 1;
    });
    let said = trial.fails();
    assert!(said.starts_with("cannot push blob DIGEST (REGISTRY/ns/repo:v1): "), "{said}");
    assert_eq!(trial.fake.count("PUT", ""), 2, "{}", trial.log());
}

#[test]
fn slow_but_moving() {
    // Longer in all than may pass without a byte.
    let pauses = (1..10).map(|tenth| {
        let pause = Effect::PauseAfter(SIZE / 10 * tenth, Duration::from_millis(100));
        put(pause)
    });
    let trial = Trial::faults(pauses.collect::<Vec<_>>());
    let trial = trial.with(|options| options.stall = Duration::from_millis(500));
    trial.arrives(SIZE);
    assert_eq!(trial.fake.count("PUT", ""), 1, "{}", trial.log());
}
