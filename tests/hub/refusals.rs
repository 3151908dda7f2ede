//! What the hub refuses, and listings that nobody should follow.

use std::fs;

use serde_json::{Value, json};
use starcar::{hub::HubError, snapshot::SnapshotOptions};

use crate::harness::*;

fn refused(bench: &Bench, reference: &str, variables: &[(&str, &str)]) -> HubError {
    bench.fetch_as(reference, &SnapshotOptions::default(), variables).unwrap_err()
}

#[test]
fn a_gated_repository_says_where_access_is_asked_for() {
    for (status, token) in [(401, None), (403, Some(("HF_TOKEN", TOKEN)))] {
        let answer = Effect::Answer(status, vec![("x-error-code", "GatedRepo".to_owned())]);
        let bench = Bench::with(vec![Fault::always("/resolve/", answer)]);
        let variables: Vec<_> = token.into_iter().collect();
        let error = refused(&bench, "hf://acme/tiny", &variables);
        assert!(matches!(&error, HubError::Gated { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("{}/acme/tiny", bench.hub.endpoint())), "{text}");
        assert!(text.contains("HF_TOKEN") && !text.contains(TOKEN), "{text}");
    }
}

#[test]
fn a_repository_that_is_not_there_is_named() {
    let bench = Bench::with(Vec::new());
    let without = refused(&bench, "hf://acme/nothing", &[]).to_string();
    assert!(without.contains("acme/nothing") && without.contains("set HF_TOKEN"), "{without}");
    let with = refused(&bench, "hf://acme/nothing", &[("HF_TOKEN", TOKEN)]);
    assert!(matches!(&with, HubError::NoRepository { token: Some(_), .. }), "{with}");
    assert_eq!(bench.hub.seen().len(), 2, "nothing is tried again");
}

#[test]
fn a_revision_that_is_not_there_is_named() {
    let bench = Bench::with(Vec::new());
    let absent = "f".repeat(40);
    for revision in ["no-such", &absent] {
        let error = refused(&bench, &format!("hf://acme/tiny@{revision}"), &[]);
        assert!(matches!(&error, HubError::NoRevision { .. }), "{error}");
        assert!(error.to_string().contains(revision), "{error}");
    }
}

#[test]
fn a_listed_file_that_is_not_there_is_named() {
    let answer = Effect::Answer(404, vec![("x-error-code", "EntryNotFound".to_owned())]);
    let bench = Bench::with(vec![Fault::always(SHARD, answer)]);
    let error = refused(&bench, "hf://acme/tiny", &[]);
    assert!(matches!(&error, HubError::NoFile { file, .. } if file == SHARD), "{error}");
}

#[test]
fn a_token_that_is_none_is_told_from_one_that_is_not_enough() {
    let invalid = vec![("x-error-message", "Invalid credentials in Authorization header".to_owned())];
    let bench = Bench::with(vec![Fault::always("/revision/", Effect::Answer(401, invalid))]);
    let error = refused(&bench, "hf://acme/tiny", &[("HF_TOKEN", TOKEN)]);
    assert!(matches!(&error, HubError::TokenRefused { .. }), "{error}");
    let bench = Bench::with(vec![Fault::always("/revision/", Effect::Answer(403, Vec::new()))]);
    let error = refused(&bench, "hf://acme/tiny", &[("HF_TOKEN", TOKEN)]);
    assert!(matches!(&error, HubError::Forbidden { .. }), "{error}");
}

/// A hub that lists one more file, of a hostile name.
fn listing(change: fn(&mut Vec<Value>)) -> Bench {
    Bench::new(HubOptions { files: model(), listed: Some(change), ..HubOptions::default() })
}

fn added(entries: &mut Vec<Value>, path: &str) {
    entries.push(json!({"type": "file", "path": path, "size": 3, "oid": "1".repeat(40)}));
}

#[test]
fn hostile_paths_are_refused_before_anything_is_downloaded() {
    let hostile: [fn(&mut Vec<Value>); 6] = [
        |entries| added(entries, "../../../escaped.json"),
        |entries| added(entries, "/etc/escaped.json"),
        |entries| added(entries, "a/./escaped.json"),
        |entries| added(entries, "a\0b.json"),
        |entries| added(entries, &format!("{}.json", "a".repeat(300))),
        |entries| added(entries, &"a/".repeat(3000)),
    ];
    for change in hostile {
        let bench = listing(change);
        let error = refused(&bench, "hf://acme/tiny", &[]);
        assert!(matches!(&error, HubError::Path { .. }), "{error}");
        assert_eq!(bench.hub.blobs().len(), 0);
        assert!(!bench.repository().exists());
    }
}

#[test]
fn a_file_that_is_also_a_directory_leads_nowhere() {
    let bench = listing(|entries| {
        let config = entries.iter().find(|entry| entry["path"] == "config.json").unwrap().clone();
        let mut below = config;
        below["path"] = "config.json/below.json".into();
        entries.push(below);
    });
    let error = refused(&bench, "hf://acme/tiny", &[]);
    assert!(matches!(&error, HubError::Cache { .. }), "{error}");
}

#[test]
fn what_is_left_out_may_have_any_name() {
    let bench = listing(|entries| added(entries, "../escaped.json"));
    let files = SnapshotOptions { exclude: vec!["*escaped*".to_owned()], ..SnapshotOptions::default() };
    bench.fetch_as("hf://acme/tiny", &files, &[]).unwrap();
    bench.assert_complete();
}

#[test]
fn digests_that_are_none_do_not_become_names_of_blobs() {
    for change in [
        (|entries| entries[1]["oid"] = "../../escaped".into()) as fn(&mut Vec<Value>),
        |entries| entries[1]["oid"] = "".into(),
        |entries| entries[4]["lfs"]["oid"] = format!("{}/..", "1".repeat(61)).into(),
    ] {
        let error = refused(&listing(change), "hf://acme/tiny", &[]);
        assert!(matches!(&error, HubError::Protocol { .. }), "{error}");
    }
}

#[test]
fn listings_that_make_no_sense_are_refused() {
    for change in [
        (|entries| added(entries, "config.json")) as fn(&mut Vec<Value>),
        |entries| entries[1]["size"] = (-1).into(),
        |entries| entries[1]["size"] = 4.into(),
        |entries| entries[1] = json!("config.json"),
    ] {
        let error = refused(&listing(change), "hf://acme/tiny", &[]);
        assert!(matches!(&error, HubError::Protocol { .. }), "{error}");
    }
}

#[test]
fn a_list_without_end_is_not_followed_for_ever() {
    let listed: fn(&mut Vec<Value>) = |entries| {
        *entries = vec![json!({"type": "directory", "path": "a", "size": 0, "oid": "1".repeat(40)})];
    };
    let options = HubOptions { listed: Some(listed), endless: true, ..HubOptions::default() };
    let bench = Bench::new(options);
    let error = refused(&bench, "hf://acme/tiny", &[]);
    assert!(matches!(&error, HubError::Protocol { .. }), "{error}");
    assert!(error.to_string().contains("pages"), "{error}");
    assert!(bench.hub.seen().len() < 2000);
}

#[test]
fn a_disk_that_is_too_small_is_told_before_the_download() {
    let bench = listing(|entries| entries[4]["lfs"]["size"] = (1_u64 << 60).into());
    let error = refused(&bench, "hf://acme/tiny", &[]);
    assert!(matches!(&error, HubError::DiskSpace { needed, .. } if *needed > 1 << 60), "{error}");
    assert_eq!(bench.hub.blobs().len(), 0);
    assert_eq!(fs::read_dir(bench.repository().join("blobs")).unwrap().count(), 0);
}
