//! What breaks on the way, and what becomes of it.

use std::fs;

use starcar::{hub::HubError, snapshot::SnapshotOptions};

use crate::harness::*;

/// Where the tests cut a shard.
const CUT: usize = 100_000;

#[test]
fn a_cut_connection_goes_on_at_its_byte() {
    let bench = Bench::with(vec![Fault::first(SHARD, 1, Effect::CutAfter(CUT))]);
    bench.fetch().unwrap();
    bench.assert_complete();
    let ranges: Vec<_> = bench
        .hub
        .blobs()
        .into_iter()
        .filter(|seen| seen.path.ends_with(SHARD))
        .map(|seen| seen.range)
        .collect();
    let size = model().into_iter().find(|(path, _)| *path == SHARD).unwrap().1.len();
    assert_eq!(ranges, [None, Some(format!("bytes={CUT}-{}", size - 1))]);
}

#[test]
fn a_server_that_falls_silent_is_asked_again_at_its_byte() {
    let bench = Bench::with(vec![Fault::first(SHARD, 1, Effect::StallAfter(CUT))]);
    let files = SnapshotOptions::default();
    bench.fetch_as("hf://acme/tiny", &files, &[("HF_HUB_DOWNLOAD_TIMEOUT", "1")]).unwrap();
    bench.assert_complete();
    let mut of_shard = bench.hub.blobs().into_iter().filter(|seen| seen.path.ends_with(SHARD));
    let last = of_shard.next_back().unwrap().range.unwrap();
    assert!(last.starts_with(&format!("bytes={CUT}-")), "{last}");
}

#[test]
fn a_cut_download_that_was_given_up_goes_on_in_the_next_run() {
    let bench = Bench::with(vec![
        Fault::first(SHARD, 1, Effect::CutAfter(CUT)),
        Fault { path: SHARD, skip: 1, times: 3, effect: Effect::Answer(503, Vec::new()) },
    ]);
    let error = bench.fetch().unwrap_err();
    assert!(matches!(&error, HubError::Server { status: 503, .. }), "{error}");
    assert_eq!(fs::metadata(bench.partial(SHARD)).unwrap().len(), CUT as u64);
    assert!(!bench.snapshot().exists(), "a snapshot shows nothing before all of it is there");
    bench.hub.forget();
    bench.fetch().unwrap();
    bench.assert_complete();
    let first = bench.hub.blobs().into_iter().find(|seen| seen.path.ends_with(SHARD)).unwrap();
    assert!(first.range.unwrap().starts_with(&format!("bytes={CUT}-")));
}

#[test]
fn what_another_program_left_is_gone_on_with() {
    let bench = Bench::with(Vec::new());
    let content = model().into_iter().find(|(path, _)| *path == SHARD).unwrap().1;
    fs::create_dir_all(bench.repository().join("blobs")).unwrap();
    fs::write(bench.partial(SHARD), &content).unwrap();
    fs::write(bench.partial(OTHER_SHARD), vec![0; content.len() + 1]).unwrap();
    bench.fetch().unwrap();
    bench.assert_complete();
    let blobs = bench.hub.blobs();
    assert!(blobs.iter().all(|seen| !seen.path.ends_with(&format!("/{SHARD}"))), "{blobs:?}");
    assert!(blobs.iter().any(|seen| seen.path.ends_with(OTHER_SHARD) && seen.range.is_none()), "{blobs:?}");
}

#[test]
fn a_server_that_knows_no_ranges_sends_all_again() {
    let bench = Bench::with(vec![
        Fault::first(SHARD, 1, Effect::CutAfter(CUT)),
        Fault { path: SHARD, skip: 1, times: 1, effect: Effect::IgnoreRange },
    ]);
    bench.fetch().unwrap();
    bench.assert_complete();
}

#[test]
fn a_wrong_beginning_is_downloaded_again() {
    let bench = Bench::with(Vec::new());
    fs::create_dir_all(bench.repository().join("blobs")).unwrap();
    fs::write(bench.partial(SHARD), vec![0; CUT]).unwrap();
    bench.fetch().unwrap();
    bench.assert_complete();
}

#[test]
fn a_failure_is_told_while_a_lock_is_waited_for() {
    let answer = Effect::Answer(404, vec![("x-error-code", "EntryNotFound".to_owned())]);
    let bench = Bench::with(vec![Fault::always(OTHER_SHARD, answer)]);
    let locks = bench.home.path().join("hub/.locks/models--acme--tiny");
    fs::create_dir_all(&locks).unwrap();
    let held = fs::File::create(locks.join(format!("{}.lock", bench.hub.etag(SHARD)))).unwrap();
    held.lock().unwrap();
    let error = bench.fetch().unwrap_err();
    assert!(matches!(&error, HubError::NoFile { file, .. } if file == OTHER_SHARD), "{error}");
}

#[test]
fn wrong_bytes_are_downloaded_twice_and_refused() {
    for (path, digest) in [(SHARD, "sha256:"), ("config.json", "git blob ")] {
        let bench = Bench::with(vec![Fault::always(path, Effect::WrongByte)]);
        let error = bench.fetch().unwrap_err();
        let HubError::WrongDigest { file, expected, actual, .. } = &error else { panic!("{error}") };
        assert_eq!(file, path);
        assert!(expected.starts_with(&format!("{digest}{}", bench.hub.etag(path))), "{error}");
        assert!(actual.starts_with(digest) && !actual.contains(&bench.hub.etag(path)), "{error}");
        assert_eq!(bench.hub.blobs().iter().filter(|seen| seen.path.ends_with(path)).count(), 2);
        assert!(!bench.partial(path).exists());
        assert!(!bench.repository().join("blobs").join(bench.hub.etag(path)).exists());
    }
}

#[test]
fn bytes_that_are_wrong_once_do_no_harm() {
    let bench = Bench::with(vec![Fault::first(SHARD, 1, Effect::WrongByte)]);
    bench.fetch().unwrap();
    bench.assert_complete();
}

#[test]
fn a_longer_file_than_is_listed_is_refused() {
    let shorter: fn(&mut Vec<serde_json::Value>) = |entries| {
        for entry in entries.iter_mut().filter(|entry| entry["path"] == "assets/notes.txt") {
            entry["size"] = 1.into();
        }
    };
    let bench = Bench::new(HubOptions { files: model(), listed: Some(shorter), ..HubOptions::default() });
    let error = bench.fetch().unwrap_err().to_string();
    assert!(error.contains("notes.txt") && error.contains("more than 1 bytes"), "{error}");
}

#[test]
fn a_limited_rate_is_waited_for() {
    for header in [("retry-after", "0"), ("retry-after", "Thu, 01 Jan 2015 00:00:30 GMT")] {
        let answer = Effect::Answer(429, vec![(header.0, header.1.to_owned())]);
        let bench =
            Bench::with(vec![Fault::first("/tree/", 1, answer.clone()), Fault::first(SHARD, 1, answer)]);
        bench.fetch().unwrap();
        bench.assert_complete();
    }
}

#[test]
fn a_rate_that_stays_limited_is_an_error() {
    let answer = Effect::Answer(429, vec![("retry-after", "0".to_owned())]);
    let bench = Bench::with(vec![Fault::always("/revision/", answer)]);
    let error = bench.fetch().unwrap_err();
    assert!(matches!(&error, HubError::RateLimited { .. }), "{error}");
    assert_eq!(bench.hub.seen().len(), 3, "one try and two retries");
    // Longer than anybody waits.
    for header in [("retry-after", "86400"), ("ratelimit", "\"api\";r=0;t=86400")] {
        let answer = Effect::Answer(429, vec![(header.0, header.1.to_owned())]);
        let bench = Bench::with(vec![Fault::always("/revision/", answer)]);
        assert!(matches!(bench.fetch(), Err(HubError::RateLimited { .. })));
        assert_eq!(bench.hub.seen().len(), 1);
    }
}

#[test]
fn a_redirect_takes_no_token_along() {
    let bench = Bench::new(HubOptions { files: model(), store: true, ..HubOptions::default() });
    bench.fetch_as("hf://acme/tiny", &SnapshotOptions::default(), &[("HF_TOKEN", TOKEN)]).unwrap();
    bench.assert_complete();
    let (store, hub): (Vec<Seen>, Vec<Seen>) = bench.hub.seen().into_iter().partition(|seen| seen.at_store);
    assert_eq!(store.len(), 2);
    assert!(store.iter().all(|seen| seen.authorization.is_none() && seen.query == "signature=secret"));
    assert!(hub.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer hf_secret")));
}

#[test]
fn a_signed_address_that_ended_is_asked_for_again() {
    let ended = Fault::first(SHARD, 1, Effect::Answer(403, Vec::new()));
    let options = HubOptions { files: model(), store: true, faults: vec![ended], ..HubOptions::default() };
    let bench = Bench::new(options);
    bench.fetch().unwrap();
    bench.assert_complete();
}
