use super::*;
use crate::profile::summary;

#[test]
fn names_cannot_leave_their_place() {
    let text = r#"{"version": 1, "accesses": [
        {"at": 0, "kind": "missing", "path": "</title><script>alert(2)</script>"},
        {"at": 1, "until": 2, "kind": "read", "path": "<script>alert(1)</script>\u0001\"'&", "ranges": [[0, 9000000], [9900000, 1]]},
        {"at": 9, "kind": "read", "cache": "<b>", "path": "x"}]}"#;
    let profile = Profile::parse("p", text.as_bytes()).unwrap();
    for picture in [
        svg("a<b", &profile, &summary(&profile, &|_| None)),
        html("a<b", &profile, &summary(&profile, &|_| None)),
    ] {
        assert!(!picture.contains("<script") && !picture.contains("<b>") && !picture.contains('\u{1}'));
        assert!(picture.contains("nothing read for 7.0 s"), "{picture}");
    }
}

#[test]
fn many_files_and_many_reads_stay_a_picture() {
    let accesses: Vec<String> = (0..1000)
        .map(|n| format!(r#"{{"at": {n}, "kind": "read", "path": "f{n}", "ranges": [[0, 10]]}}"#))
        .chain((0..20_000).map(|n| {
            let at = f64::from(n) / 1e6;
            format!(r#"{{"at": {at}, "kind": "read", "path": "f0", "ranges": [[{}, 1]]}}"#, n * 100 + 50)
        }))
        .collect();
    let text = format!(r#"{{"version": 1, "accesses": [{}]}}"#, accesses.join(","));
    let profile = Profile::parse("p", text.as_bytes()).unwrap();
    let picture = svg("many", &profile, &summary(&profile, &|_| None));
    assert!(picture.contains("and 700 more files"));
    assert!(picture.len() < 400_000, "{}", picture.len());
    let nothing = Profile::default();
    assert!(svg("none", &nothing, &summary(&nothing, &|_| None)).contains("0 files"));
}

#[test]
fn a_bar_of_several_ranges_tells_of_all_of_them() {
    let text = r#"{"version": 1, "accesses": [
        {"at": 1, "kind": "read", "path": "a", "ranges": [[0, 10], [90, 10]]},
        {"at": 2, "kind": "read", "path": "b"}]}"#;
    let profile = Profile::parse("p", text.as_bytes()).unwrap();
    let picture = svg("p", &profile, &summary(&profile, &|_| None));
    assert!(picture.contains("20 B in 2 ranges, ") && !picture.contains("0 ranges"), "{picture}");
}
