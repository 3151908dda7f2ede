//! What is asked for and what lies in the cache.

use std::fs;

use starcar::{hub::HubError, snapshot::SnapshotOptions};

use crate::harness::*;

#[test]
fn a_cold_download_brings_what_the_rules_leave() {
    let bench = Bench::with(Vec::new());
    let fetched = bench.fetch().unwrap();
    assert_eq!(fetched.directory, bench.snapshot());
    bench.assert_complete();
    let left_out: Vec<&str> = fetched.left_out.iter().map(|left_out| left_out.path.as_str()).collect();
    assert_eq!(left_out, [".gitattributes", "pytorch_model.bin"]);
    assert_eq!(fs::read_to_string(bench.repository().join("refs/main")).unwrap(), COMMIT);
    for (path, up) in [(SHARD, "../../"), ("assets/notes.txt", "../../../")] {
        let target = fs::read_link(bench.snapshot().join(path)).unwrap();
        assert_eq!(target.to_str().unwrap(), format!("{up}blobs/{}", bench.hub.etag(path)));
    }
    // Two files of one content are one blob, and an empty file needs no request.
    assert_eq!(bench.hub.blobs().len(), wanted().len() - 2);
}

#[test]
fn a_warm_download_asks_for_no_file() {
    let bench = Bench::with(Vec::new());
    bench.fetch().unwrap();
    bench.hub.forget();
    bench.fetch().unwrap();
    assert_eq!(bench.hub.blobs().len(), 0);
    assert_eq!(bench.hub.seen().len(), 2);
    bench.assert_complete();
}

#[test]
fn a_blob_that_the_cache_has_is_only_linked() {
    let bench = Bench::with(Vec::new());
    let blobs = bench.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let content = model().into_iter().find(|(path, _)| *path == SHARD).unwrap().1;
    fs::write(blobs.join(bench.hub.etag(SHARD)), content).unwrap();
    bench.fetch().unwrap();
    assert!(bench.hub.blobs().iter().all(|seen| !seen.path.ends_with(SHARD)));
    bench.assert_complete();
}

#[test]
fn a_blob_of_another_length_is_downloaded_again() {
    let bench = Bench::with(Vec::new());
    bench.fetch().unwrap();
    fs::write(bench.repository().join("blobs").join(bench.hub.etag(SHARD)), "cut").unwrap();
    bench.hub.forget();
    bench.fetch().unwrap();
    assert_eq!(bench.hub.blobs().len(), 1);
    bench.assert_complete();
}

#[test]
fn a_plain_file_of_other_content_is_downloaded() {
    let bench = Bench::with(Vec::new());
    bench.fetch().unwrap();
    for (path, content) in [("config.json", "{}\n"), ("assets/notes.txt", "IN A DIRECTORY\n")] {
        fs::remove_file(bench.snapshot().join(path)).unwrap();
        fs::write(bench.snapshot().join(path), content).unwrap();
    }
    bench.fetch().unwrap();
    bench.assert_complete();
    assert!(!bench.snapshot().join("config.json").is_symlink(), "the right one is left alone");
}

#[test]
fn globs_choose_what_is_downloaded() {
    let bench = Bench::with(Vec::new());
    let files = SnapshotOptions {
        include: vec!["*.json".to_owned(), "pytorch*".to_owned()],
        exclude: vec!["same*".to_owned()],
        ..SnapshotOptions::default()
    };
    bench.fetch_as("hf://acme/tiny", &files, &[]).unwrap();
    let found: Vec<String> = files_below(&bench.snapshot()).into_keys().collect();
    assert_eq!(found, ["config.json", "pytorch_model.bin"]);
    let none = SnapshotOptions { include: vec!["*.nothing".to_owned()], ..SnapshotOptions::default() };
    let error = bench.fetch_as("hf://acme/tiny", &none, &[]).unwrap_err();
    assert!(matches!(&error, HubError::Snapshot(_)), "{error}");
    assert!(error.to_string().contains("config.json"), "{error}");
}

#[test]
fn a_listing_of_several_pages_is_read_to_its_end() {
    let bench = Bench::new(HubOptions { files: model(), page: 3, ..HubOptions::default() });
    bench.fetch().unwrap();
    bench.assert_complete();
    let pages = bench.hub.seen().iter().filter(|seen| seen.path.contains("/tree/")).count();
    assert_eq!(pages, 3);
}

#[test]
fn revisions_are_noted_as_refs() {
    let bench = Bench::with(Vec::new());
    for revision in ["v1.0", "refs/pr/1", COMMIT] {
        bench.fetch_as(&format!("hf://acme/tiny@{revision}"), &SnapshotOptions::default(), &[]).unwrap();
    }
    assert_eq!(names(&bench.repository().join("refs")), ["refs", "v1.0"]);
    assert_eq!(fs::read_to_string(bench.repository().join("refs/refs/pr/1")).unwrap(), COMMIT);
    bench.assert_complete();
}

#[test]
fn a_commit_with_a_listing_in_the_cache_needs_no_request() {
    let bench = Bench::with(Vec::new());
    bench.fetch().unwrap();
    let files: serde_json::Map<String, serde_json::Value> = model()
        .iter()
        .map(|(path, content)| {
            let etag = bench.hub.etag(path);
            let mut file = serde_json::json!({"size": content.len(), "blob_id": "1".repeat(40)});
            if etag.len() == 64 {
                file["lfs_sha256"] = etag.into();
                file["lfs_size"] = content.len().into();
            } else {
                file["blob_id"] = etag.into();
            }
            ((*path).to_owned(), file)
        })
        .collect();
    let trees = bench.repository().join("trees");
    fs::create_dir(&trees).unwrap();
    let listing = serde_json::json!({"format_version": 1, "files": files});
    fs::write(trees.join(format!("{COMMIT}.json")), listing.to_string()).unwrap();
    bench.hub.forget();
    bench.fetch_as(&format!("hf://acme/tiny@{COMMIT}"), &SnapshotOptions::default(), &[]).unwrap();
    assert_eq!(bench.hub.seen().len(), 0);
}

#[test]
fn offline_takes_what_the_cache_has() {
    let bench = Bench::with(Vec::new());
    let offline = [("HF_HUB_OFFLINE", "1")];
    let files = SnapshotOptions::default();
    let error = bench.fetch_as("hf://acme/tiny", &files, &offline).unwrap_err();
    assert!(matches!(&error, HubError::Offline { .. }), "{error}");
    assert!(
        error.to_string().contains("HF_HUB_OFFLINE") && error.to_string().contains("hf://acme/tiny"),
        "{error}"
    );
    bench.fetch().unwrap();
    bench.hub.forget();
    let fetched = bench.fetch_as("hf://acme/tiny", &files, &offline).unwrap();
    assert_eq!(fs::canonicalize(fetched.directory).unwrap(), fs::canonicalize(bench.snapshot()).unwrap());
    assert!(bench.fetch_as("hf://acme/tiny@v1.0", &files, &offline).is_err());
    assert_eq!(bench.hub.seen().len(), 0);
}
