//! Blobs on their way from a registry.

use std::{io::Read as _, sync::Arc, time::Duration};

use starcar::{
    blob::{BlobContent as _, RangeSource},
    digest::Digest,
    registry::{Registry, RegistryError, RegistryOptions},
};

use crate::harness::*;

/// A registry that has the blob.
fn trial(ranges: Ranges, faults: Vec<Fault>) -> Trial {
    let trial = Trial::new(FakeOptions { ranges, faults, ..FakeOptions::default() });
    trial.fake.put_blob(REPOSITORY, &BYTES[..]);
    trial
}

fn pull(trial: &Trial) -> Result<Vec<u8>, RegistryError> {
    trial.in_time(|client, target| {
        let mut bytes = Vec::new();
        client.pull_blob(target, digest(), SIZE, &mut bytes).map(|()| bytes)
    })
}

#[track_caller]
fn comes(trial: &Trial) {
    match pull(trial) {
        Ok(bytes) => assert!(bytes == **BYTES, "{}", trial.log()),
        Err(error) => panic!("{}\n{}", trial.said(&error), trial.log()),
    }
}

fn quick(options: &mut RegistryOptions) {
    options.stall = Duration::from_millis(300);
}

const HALF: usize = 1_000_000;

#[test]
fn pull_cut() {
    let trial = trial(Ranges::Honoured, vec![Fault::once("GET", "/blobs/", Effect::CutAfter(HALF))]);
    comes(&trial);
    let asked = trial.fake.ranges();
    assert_eq!(asked.len(), 1, "{}", trial.log());
    let start = asked[0].strip_prefix("bytes=").unwrap().split('-').next().unwrap();
    assert!(start.parse::<usize>().unwrap() > 0, "{}", trial.log());
}

#[test]
fn pull_cut_without_ranges() {
    // Beyond 16 MiB, too, which single reads of ranges do not skip.
    for size in [2_000_000, 17 << 20] {
        let cut =
            Fault { skip: 0, times: 2, ..Fault::always("GET", "/blobs/", Effect::CutAfter(size - HALF)) };
        let trial = trial(Ranges::Ignored, vec![cut]);
        let bytes = noise(size, 2);
        let digest = trial.fake.put_blob(REPOSITORY, bytes.clone());
        let [whole, tail] = trial.in_time(move |client, target| {
            let source = client.blob_source(target, digest, size as u64);
            let (mut whole, mut tail) = (Vec::new(), Vec::new());
            client.pull_blob(target, digest, size as u64, &mut whole).unwrap();
            // As an upload reads a blob that goes on where it was cut.
            let offset = (size - HALF / 2) as u64;
            Arc::new(source).reader(offset).unwrap().read_to_end(&mut tail).unwrap();
            [whole, tail]
        });
        assert!(whole == bytes && tail == bytes[size - HALF / 2..], "{}", trial.log());
        assert_eq!(Digest::of(&whole), digest);
    }
}

#[test]
fn pull_cut_after_each_byte() {
    let trial = trial(Ranges::Honoured, vec![Fault::always("GET", "/blobs/", Effect::CutAfter(1))]);
    let error = pull(&trial).unwrap_err();
    assert!(matches!(error, RegistryError::Network { .. }), "{error:?}");
    assert_eq!(trial.fake.count("GET", "/blobs/"), 4, "{}", trial.log());
}

#[test]
fn pull_cut_again_and_again() {
    let cut = Effect::CutAfter(300_000);
    comes(&trial(Ranges::Honoured, vec![Fault { times: 6, ..Fault::always("GET", "/blobs/", cut) }]));
}

#[test]
fn pull_cut_for_ever() {
    let trial = trial(Ranges::Honoured, vec![Fault::always("GET", "/blobs/", Effect::CutAfter(0))]);
    let error = pull(&trial).unwrap_err();
    let said = trial.said(&error);
    assert!(said.starts_with("cannot pull blob DIGEST (REGISTRY/ns/repo:v1): "), "{said}");
    assert_eq!(trial.fake.count("GET", "/blobs/"), 4, "{}", trial.log());
}

#[test]
fn pull_stalls() {
    for effect in [Effect::StallAnswerAfter(HALF), Effect::At(When::BeforeBody, Act::Stall)] {
        comes(&trial(Ranges::Honoured, vec![Fault::once("GET", "/blobs/", effect)]).with(quick));
    }
}

#[test]
fn pull_while_busy() {
    let busy = Effect::At(When::BeforeBody, Act::Reply(Reply::status(503)));
    comes(&trial(Ranges::Honoured, vec![Fault::once("GET", "/blobs/", busy)]));
}

#[test]
fn pull_of_wrong_bytes() {
    let trial = trial(Ranges::Honoured, vec![Fault::always("GET", "/blobs/", Effect::WrongBytes)]);
    let error = pull(&trial).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
}

#[test]
fn range_that_is_another() {
    for start in [0, 900] {
        let other = Effect::WithHeader("content-range", format!("bytes {start}-{}/{SIZE}", start + 999));
        let trial = trial(Ranges::Honoured, vec![Fault::always("GET", "/blobs/", other)]);
        let read =
            trial.in_time(|client, target| client.blob_source(target, digest(), SIZE).read_range(1000, 1000));
        let said = read.unwrap_err().to_string();
        assert!(said.contains(&format!("it sent the bytes from {start} when asked")), "{said}");
    }
}

#[test]
fn range_disturbed() {
    let busy = Effect::At(When::BeforeBody, Act::Reply(Reply::status(503)));
    for effect in [busy, Effect::CutAfter(100), Effect::StallAnswerAfter(100)] {
        let trial = trial(Ranges::Honoured, vec![Fault::once("GET", "/blobs/", effect)]).with(quick);
        let read = trial.in_time(|client, target| {
            client.blob_source(target, digest(), SIZE).read_range(5000, 1000).unwrap()
        });
        assert_eq!(read, &BYTES[5000..6000]);
    }
}

#[test]
fn manifest_pull_disturbed() {
    let busy = Effect::At(When::BeforeBody, Act::Reply(Reply::status(503)));
    for effect in [busy, Effect::CutAfter(10), Effect::At(When::BeforeBody, Act::Stall)] {
        let trial = trial(Ranges::Honoured, vec![Fault::once("GET", "/manifests/", effect)]).with(quick);
        trial.fake.put_manifest(REPOSITORY, "v1", MANIFEST_TYPE, MANIFEST);
        let pulled = trial.in_time(Registry::pull_manifest);
        assert_eq!(pulled.unwrap().bytes, MANIFEST);
    }
}
