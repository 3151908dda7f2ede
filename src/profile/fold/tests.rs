use proptest::prelude::*;

use super::*;

fn read(folder: &mut Folder, millis: u64, path: &str, offset: u64, length: u64) {
    folder.event(&Event {
        at: Seconds::from_micros(millis * 1000),
        tree: &Tree::Model,
        path,
        kind: EventKind::Read(ByteRange { offset, length }),
    });
}

fn text(result: &Folded) -> Vec<String> {
    result
        .accesses
        .iter()
        .map(|access| {
            let ranges: Vec<String> =
                access.ranges.iter().map(|range| format!("{}+{}", range.offset, range.length)).collect();
            let until = access.until.unwrap_or(access.at);
            format!("{}..{} {} {} {}", access.at, until, access.kind.name(), access.target, ranges.join(" "))
        })
        .collect()
}

#[test]
fn runs_are_joined_and_repeats_are_not_counted() {
    let mut folder = Folder::new();
    read(&mut folder, 0, "a", 0, 100);
    read(&mut folder, 50, "a", 100, 100);
    read(&mut folder, 60, "a", 0, 250);
    read(&mut folder, 1000, "a", 250, 50);
    read(&mut folder, 1010, "a", 400, 50);
    read(&mut folder, 70, "b", 0, 8);
    assert_eq!(
        text(&folder.finish()),
        [
            "0.000..0.060 read a 0+250",
            "0.070..0.070 read b 0+8",
            "1.000..1.000 read a 250+50",
            "1.010..1.010 read a 400+50",
        ]
    );
}

#[test]
fn too_many_runs_become_coarse_and_say_so() {
    let mut folder = Folder::with_limit(100, 1 << 20);
    for block in 0..10_000 {
        read(&mut folder, block, "a", block * 8192, 100);
    }
    let result = folder.finish();
    assert!(result.accesses.len() <= 100, "{}", result.accesses.len());
    assert!(result.tolerance > 0);
    let covered: u64 = result.accesses.iter().flat_map(|access| &access.ranges).map(|r| r.length).sum();
    assert!(covered >= 1_000_000);

    let mut folder = Folder::with_limit(100, 1 << 20);
    for file in 0..1000 {
        read(&mut folder, file, &file.to_string(), 0, 1);
    }
    let result = folder.finish();
    assert_eq!((result.accesses.len(), result.dropped), (50, 950));
}

#[test]
fn what_comes_out_fits_into_a_profile() {
    let mut folder = Folder::with_limit(1000, 20_000);
    let name = "\u{1}".repeat(1000);
    for file in 0..100_u64 {
        let path = format!("{name}{file}");
        for kind in [
            EventKind::Open,
            EventKind::Missing,
            EventKind::Read(ByteRange { offset: file, length: 1 }),
            EventKind::Read(ByteRange { offset: file << 30, length: 1 }),
        ] {
            let at = Seconds::from_micros(file);
            folder.event(&Event { at, tree: &Tree::Model, path: &path, kind });
        }
    }
    let result = folder.finish();
    assert!(result.dropped > 300);
    let accesses = result.accesses.clone();
    let text = crate::profile::Profile { accesses, ..crate::profile::Profile::default() }.to_json();
    assert!(!result.accesses.is_empty() && text.len() <= 40_100, "{}", text.len());
}

#[test]
fn memory_does_not_grow_with_scattered_reads() {
    let mut folder = Folder::with_limit(100, 1 << 20);
    for block in 0..100_000 {
        read(&mut folder, block, "a", (block * 7_919_u64) % 100_000 * 1_000_000, 1);
    }
    let file = &folder.trees[&Tree::Model]["a"];
    assert!(file.seen.iter().count() <= 200 && file.runs.len() <= 100);
}

proptest! {
    #[test]
    fn ranges_cover_exactly_what_was_read(
        reads in prop::collection::vec((0_u64..400, 0_u64..2, 0_u64..60, 1_u64..20), 0..60),
    ) {
        let mut folder = Folder::new();
        let mut bytes = std::collections::BTreeSet::new();
        for (millis, file, offset, length) in reads {
            read(&mut folder, millis, &file.to_string(), offset, length);
            bytes.extend((offset..offset + length).map(|byte| (file.to_string(), byte)));
        }
        let result = folder.finish();
        let mut covered = Vec::new();
        for access in &result.accesses {
            for range in &access.ranges {
                covered.extend((range.offset..range.end()).map(|byte| (access.target.to_string(), byte)));
            }
        }
        covered.sort();
        prop_assert_eq!(covered, bytes.into_iter().collect::<Vec<_>>());
    }
}
