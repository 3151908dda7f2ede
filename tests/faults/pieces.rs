//! Registries that want blobs in pieces, and what can happen to pieces.

use std::{sync::Arc, time::Duration};

use starcar::blob::{BlobContent, MemoryBlob};

use crate::harness::*;

const PIECE: u64 = SIZE / 4;

fn trial(uploads: Uploads, faults: Vec<Fault>) -> Trial {
    Trial::new(FakeOptions { uploads, faults, ..FakeOptions::default() })
}

/// The lengths of the pieces that were taken.
fn pieces(trial: &Trial) -> Vec<u64> {
    let seen = trial.fake.seen();
    seen.iter().filter(|seen| seen.method == "PATCH" && seen.status == 202).map(|seen| seen.body).collect()
}

#[test]
fn too_large() {
    // The pieces that are tried are halved until they fit.
    let trial = trial(Uploads { max_body: Some(1 << 20), ..Uploads::default() }, Vec::new());
    trial.arrives(ONCE);
    assert!(pieces(&trial).iter().all(|piece| *piece <= 1 << 20), "{}", trial.log());
    assert!(pieces(&trial).len() <= 4, "{}", trial.log());
}

#[test]
fn too_large_in_one_request() {
    let trial = trial(Uploads { no_put_body: Some(413), ..Uploads::default() }, Vec::new());
    trial.arrives(ONCE);
    assert_eq!(pieces(&trial), [SIZE], "{}", trial.log());
}

#[test]
fn too_large_for_ever() {
    let uploads = Uploads { max_body: Some(1 << 20), min_piece: Some(3 << 19), ..Uploads::default() };
    let trial = trial(uploads, Vec::new());
    let said = trial.fails();
    assert!(said.starts_with("cannot push blob DIGEST (REGISTRY/ns/repo:v1): "), "{said}");
    assert!(said.contains("413"), "{said}");
    assert!(trial.fake.count("PATCH", "") <= 8, "{}", trial.log());
}

#[test]
fn too_large_and_no_pieces() {
    for status in [405, 501] {
        let uploads = Uploads { max_body: Some(1 << 20), no_patch: Some(status), ..Uploads::default() };
        let trial = trial(uploads, Vec::new());
        let said = trial.fails();
        assert!(said.starts_with("cannot push blob DIGEST (REGISTRY/ns/repo:v1): "), "{said}");
        assert!(trial.fake.count("PATCH", "") <= 8, "{}", trial.log());
    }
}

#[test]
fn refused_for_many_blobs() {
    // All are refused at once: one refusal changes the way, the others follow and do not change it further.
    let uploads = [
        Uploads { max_body: Some(SIZE / 2), ..Uploads::default() },
        Uploads { no_put_body: Some(413), ..Uploads::default() },
        Uploads { no_put_body: Some(405), ..Uploads::default() },
    ];
    for uploads in uploads {
        let trial = trial(uploads, Vec::new()).with(|options| options.concurrency = 12);
        if let Err(error) = trial.push_many(12) {
            panic!("{}\n{}", trial.said(&error), trial.log());
        }
        assert_eq!(trial.fake.blobs(), 12);
        assert!(pieces(&trial).iter().all(|piece| *piece >= SIZE / 5), "{}", trial.log());
    }
}

#[test]
fn pieces_that_are_not_told() {
    // As ECR does: the end of the first piece for ever.
    let range = Effect::WithHeader("range", format!("0-{}", PIECE - 1));
    let trial = trial(Uploads::default(), vec![Fault::always("PATCH", "", range)]);
    trial.with(|options| options.chunk = Some(PIECE)).arrives(SIZE);
}

#[test]
fn end_of_pieces_slow() {
    // A registry reads the blob once more, or copies it, before it says that it has it.
    const LONG: usize = 64 << 20;
    let fault = Fault::once("PUT", "/uploads/", Effect::PauseAfter(0, Duration::from_millis(1500)));
    let trial = Trial::new(FakeOptions { discard: true, faults: vec![fault], ..FakeOptions::default() });
    let trial = trial.with(|options| {
        options.chunk = Some(LONG as u64);
        options.stall = Duration::from_secs(1);
        options.retries = 0;
    });
    trial.in_time(|client, target| {
        let blob: Arc<dyn BlobContent> = Arc::new(MemoryBlob::new(vec![1; LONG]));
        client.push_blobs(target, &[blob], &|_, _| {}).unwrap();
    });
}

#[test]
fn pieces_on_request() {
    let trial = trial(Uploads::default(), Vec::new()).with(|options| options.chunk = Some(PIECE));
    trial.arrives(SIZE);
    assert!(trial.fake.seen().iter().all(|seen| seen.body <= PIECE), "{}", trial.log());
}

#[test]
fn pieces_of_a_least_length() {
    let uploads = Uploads { min_piece: Some(PIECE), ..Uploads::default() };
    let trial = trial(uploads, Vec::new()).with(|options| options.chunk = Some(PIECE / 4));
    trial.arrives(SIZE);
    assert!(!pieces(&trial).is_empty(), "{}", trial.log());
}

#[test]
fn piece_cut() {
    let cut = |at| {
        let fault = Fault { skip: 1, ..Fault::once("PATCH", "", Effect::CloseAfter(at)) };
        trial(Uploads::default(), vec![fault]).with(|options| options.chunk = Some(PIECE))
    };
    for at in [0, 1, PIECE / 2, PIECE] {
        let trial = cut(at);
        trial.arrives(ONCE);
        assert!(!pieces(&trial).is_empty(), "{}", trial.log());
    }
}

#[test]
fn piece_refused() {
    let fault = Fault { skip: 1, ..Fault::once("PATCH", "", Effect::RefuseRange) };
    let trial = trial(Uploads::default(), vec![fault]).with(|options| options.chunk = Some(PIECE));
    trial.arrives(SIZE + PIECE);
    assert!(!pieces(&trial).is_empty(), "{}", trial.log());
}

#[test]
fn piece_taken_and_answer_lost() {
    for act in [Act::Close, Act::Reply(Reply::status(500))] {
        let fault = Fault { skip: 1, ..Fault::once("PATCH", "", Effect::At(When::Done, act)) };
        let trial = trial(Uploads::default(), vec![fault]).with(|options| options.chunk = Some(PIECE));
        trial.arrives(ONCE);
        assert!(!pieces(&trial).is_empty(), "{}", trial.log());
    }
}

#[test]
fn end_of_pieces_lost() {
    for when in [When::BeforeBody, When::Done] {
        for act in [Act::Close, Act::Reply(Reply::status(503))] {
            let fault = Fault::once("PUT", "/uploads/", Effect::At(when, act));
            let trial = trial(Uploads::default(), vec![fault]).with(|options| options.chunk = Some(PIECE));
            trial.arrives(ONCE);
        }
    }
}
