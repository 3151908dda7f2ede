use super::*;
use crate::{
    digest::Digest,
    estargz::{LANDMARK_CONTENT, MERGE_BUFFER_SIZE, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK},
    verify::finding::Use,
};

const TOC_OFFSET: u64 = 2_000_000_000;

fn entry(name: &str, kind: &str) -> TocEntry {
    TocEntry {
        name: name.to_owned(),
        entry_type: kind.to_owned(),
        modified: if kind == "chunk" { String::new() } else { "1970-01-01T00:00:00Z".to_owned() },
        mode: if kind == "chunk" { 0 } else { 0o644 },
        ..TocEntry::default()
    }
}

fn digest(of: &str) -> String {
    Digest::of(of.as_bytes()).to_string()
}

/// A layer with a file of two chunks and one of one, a landmark between them, links and a directory.
fn sound() -> Vec<TocEntry> {
    let file = |name: &str, size, offset, chunk_size, content: &str| TocEntry {
        size,
        offset,
        chunk_size,
        chunk_digest: digest(content),
        ..entry(name, "reg")
    };
    let chunk = |name: &str, offset, chunk_offset, chunk_size| TocEntry {
        offset,
        chunk_offset,
        chunk_size,
        chunk_digest: digest("chunk"),
        ..entry(name, "chunk")
    };
    let landmark = TocEntry {
        digest: Digest::of(&[LANDMARK_CONTENT]).to_string(),
        chunk_digest: Digest::of(&[LANDMARK_CONTENT]).to_string(),
        ..file(PREFETCH_LANDMARK, 1, 1_000, 0, "")
    };
    let link =
        |name: &str, kind: &str, target: &str| TocEntry { link_name: target.to_owned(), ..entry(name, kind) };
    vec![
        entry("models/", "dir"),
        TocEntry { digest: digest("small"), ..file("models/small", 5, 100, 0, "small") },
        landmark,
        file("models/large", 300_000, 2_000, 100_000, "first"),
        chunk("models/large", 110_000, 100_000, 150_000),
        chunk("models/large", 270_000, 250_000, 0),
        entry("models/empty", "reg"),
        link("models/link", "symlink", "small"),
        link("models/hard", "hardlink", "models/small"),
    ]
}

fn codes(entries: &[TocEntry]) -> Vec<&'static str> {
    let mut findings = Findings::default();
    check(
        TocView { entries, toc_offset: TOC_OFFSET, kind: MemberKind::Gzip, legacy: false },
        &Place::default(),
        &mut findings,
    );
    let mut codes: Vec<&str> = findings.finish(&Use::ALL).iter().map(|finding| finding.rule.code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// The codes of a sound layer after `change`.
fn after(change: impl FnOnce(&mut Vec<TocEntry>)) -> Vec<&'static str> {
    let mut entries = sound();
    change(&mut entries);
    codes(&entries)
}

#[test]
fn nothing_is_found_in_a_sound_layer() {
    assert_eq!(codes(&sound()), [] as [&str; 0]);
}

#[test]
fn entries() {
    assert_eq!(after(Vec::clear), ["toc-empty"]);
    assert_eq!(after(|e| e[7].name = "../link".to_owned()), ["entry-name", "parent-missing"]);
    assert_eq!(after(|e| e[7].name = String::new()), ["entry-name"]);
    assert_eq!(after(|e| e[7].name = "./models/link".to_owned()), ["entry-name-unclean"]);
    assert_eq!(after(|e| e[7].name = "models/empty".to_owned()), ["entry-duplicate"]);
    assert_eq!(after(|e| e[6].name = "stargz.index.json".to_owned()), ["toc-reserved-name"]);
    assert_eq!(after(|e| e[6].entry_type = "socket".to_owned()), ["entry-type"]);
    assert_eq!(after(|e| e[6].mode = 0o100_644), ["entry-mode"]);
    assert_eq!(after(|e| e[6].uid = 1 << 63), ["entry-number"]);
    assert_eq!(after(|e| e[6].modified = "yesterday".to_owned()), ["entry-time"]);
    assert_eq!(after(|e| e[7].link_name.clear()), ["entry-link"]);
    assert_eq!(after(|e| e[8].link_name.clear()), ["entry-link"]);
    let xattr = |value: &str| [("user.a".to_owned(), value.to_owned())].into();
    assert_eq!(after(|e| e[6].xattrs = xattr("YQ==")), [] as [&str; 0]);
    assert_eq!(after(|e| e[6].xattrs = xattr("a")), ["entry-xattr"]);
    for change in [
        |e: &mut Vec<TocEntry>| e[0].size = 1,
        |e: &mut Vec<TocEntry>| e[6].link_name = "x".to_owned(),
        |e: &mut Vec<TocEntry>| e[7].chunk_size = 1,
        |e: &mut Vec<TocEntry>| e[8].digest = digest("x"),
        |e: &mut Vec<TocEntry>| e[6].dev_minor = 1,
    ] {
        assert_eq!(after(change), ["entry-fields"]);
    }
}

#[test]
fn links_and_parents() {
    assert_eq!(after(|e| e[8].link_name = "models/none".to_owned()), ["hardlink-target"]);
    assert_eq!(after(|e| e[8].link_name = "models".to_owned()), ["hardlink-kind"]);
    assert_eq!(after(|e| e[8].link_name = "models/hard".to_owned()), ["hardlink-kind"]);
    let first = |e: &mut Vec<TocEntry>| {
        let link = e.remove(8);
        e.insert(1, link);
    };
    assert_eq!(after(first), ["hardlink-order"]);
    assert_eq!(after(|e| drop(e.remove(0))), ["parent-missing"]);
    assert_eq!(after(|e| e[0].entry_type = "fifo".to_owned()), ["parent-kind"]);
    assert_eq!(after(|e| e[0].entry_type = "symlink".to_owned()), ["entry-link", "parent-symlink"]);
    assert_eq!(after(|e| e[8].link_name = "models/link".to_owned()), [] as [&str; 0]);
}

#[test]
fn chunks() {
    assert_eq!(after(|e| e[4].name = "models/other".to_owned()), ["chunk-missing", "chunk-orphan"]);
    assert_eq!(after(|e| drop(e.remove(4))), ["chunk-gap"]);
    assert_eq!(after(|e| drop(e.remove(5))), ["chunk-missing"]);
    assert_eq!(after(|e| e[4].chunk_offset = 100_001), ["chunk-gap", "chunk-overlap"]);
    assert_eq!(after(|e| e[4].chunk_size = 150_001), ["chunk-overlap"]);
    assert_eq!(
        after(|e| e.swap(4, 5)),
        ["chunk-empty", "chunk-gap", "chunk-missing", "chunk-overlap", "data-order"]
    );
    assert_eq!(after(|e| e[4].chunk_size = 0), ["chunk-empty", "chunk-gap"]);
    assert_eq!(after(|e| e[5].chunk_size = 50_001), ["chunk-beyond-end"]);
    assert_eq!(after(|e| e[5].chunk_size = 49_999), ["chunk-missing"]);
    assert_eq!(after(|e| e[4].chunk_digest.clear()), ["chunk-digest-missing"]);
    assert_eq!(after(|e| e[4].chunk_digest = "sha256:0".to_owned()), ["chunk-digest-malformed"]);
    assert_eq!(after(|e| e[1].digest = "sha512:0".to_owned()), ["entry-digest"]);
    assert_eq!(after(|e| e[1].digest = digest("other")), ["entry-digest"]);
    assert_eq!(after(|e| e[3].digest = digest("of three chunks")), [] as [&str; 0]);
    assert_eq!(
        after(|e| {
            e[3].chunk_size = 50_000;
            e[4].chunk_offset = 50_000;
            e[4].chunk_size = 200_000;
        }),
        ["chunk-first-small"]
    );
}

#[test]
fn places_in_the_layer() {
    assert_eq!(after(|e| e[4].offset = TOC_OFFSET), ["data-offset"]);
    assert_eq!(after(|e| e[1].offset = 0), ["data-offset"]);
    assert_eq!(after(|e| e[4].offset = 1_500), ["data-order"]);
    assert_eq!(after(|e| e[4].offset = 2_000), ["data-overlap"]);
    assert_eq!(
        after(|e| {
            e[4].offset = 2_000;
            e[4].inner_offset = 100_000;
        }),
        ["inner-offset"]
    );
    // 100 bytes of deflate make 103,200 at the most.
    assert_eq!(after(|e| e[4].offset = 270_000 - 100), ["data-size"]);
    assert_eq!(after(|e| e[4].offset = 270_000 - 146), [] as [&str; 0]);
}

#[test]
fn merge_buffers() {
    let large = |e: &mut Vec<TocEntry>, cut: u64| {
        e[3].size = MERGE_BUFFER_SIZE + 500_000;
        e[3].chunk_size = 100_000;
        e[4].chunk_size = cut - 100_000;
        e[4].offset = 110_000;
        e[5].chunk_offset = cut;
        e[5].offset = 1_000_000_000;
    };
    assert_eq!(after(|e| large(e, MERGE_BUFFER_SIZE)), [] as [&str; 0]);
    assert_eq!(after(|e| large(e, MERGE_BUFFER_SIZE - 1)), ["chunk-merge-buffer"]);
    assert_eq!(after(|e| large(e, MERGE_BUFFER_SIZE + 1)), ["chunk-merge-buffer"]);
}

#[test]
fn landmarks() {
    assert_eq!(after(|e| drop(e.remove(2))), ["landmark-missing"]);
    assert_eq!(after(|e| e[2].name = NO_PREFETCH_LANDMARK.to_owned()), ["landmark-misplaced"]);
    assert_eq!(
        after(|e| e[2].name = format!("models/{PREFETCH_LANDMARK}")),
        ["landmark-misplaced", "landmark-missing"]
    );
    let moved = |e: &mut Vec<TocEntry>, name: &str| {
        let mut landmark = e.remove(2);
        landmark.name = name.to_owned();
        landmark.offset = 50;
        e.insert(1, landmark);
    };
    assert_eq!(after(|e| moved(e, PREFETCH_LANDMARK)), ["landmark-misplaced"]);
    assert_eq!(after(|e| moved(e, NO_PREFETCH_LANDMARK)), [] as [&str; 0]);
    let both = |e: &mut Vec<TocEntry>| {
        let mut second = e[2].clone();
        second.name = NO_PREFETCH_LANDMARK.to_owned();
        second.offset = 1_500;
        e.insert(3, second);
    };
    assert_eq!(after(both), ["landmark-both"]);
    assert_eq!(after(|e| e[2].size = 2), ["landmark-content"]);
    assert_eq!(
        after(|e| {
            e[2].digest = digest("x");
            e[2].chunk_digest = digest("x");
        }),
        ["landmark-content"]
    );
}

#[test]
fn older_layers_have_no_digests_and_no_landmarks() {
    let mut entries = sound();
    entries.remove(2);
    for entry in &mut entries {
        entry.chunk_digest.clear();
    }
    let mut findings = Findings::default();
    let toc = TocView { entries: &entries, toc_offset: TOC_OFFSET, kind: MemberKind::Gzip, legacy: true };
    check(toc, &Place::default(), &mut findings);
    assert_eq!(findings.finish(&Use::ALL), []);
}
