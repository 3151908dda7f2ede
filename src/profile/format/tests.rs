use proptest::prelude::*;

use super::*;
use crate::profile::{Engine, Seconds, Source};

fn parse(text: &str) -> Result<Profile, ProfileError> {
    Profile::parse("p.json", text.as_bytes())
}

#[test]
fn fields_of_later_versions_survive() {
    let text = r#"{
  "version": 1,
  "comment": "c",
  "evidence": [
    "e"
  ],
  "later": {"a": [1, 2.50]},
  "recordings": [
    {"source":"new-kind","engine":{"name":"vllm","version":"0.32","build":7},"host":{"kernel":"6.18","cpus":2},"x":1}
  ],
  "accesses": [
    {"at": 0, "kind": "open", "path": "config.json", "note": {"k": 1}},
    {"at": 0.5, "until": 1.25, "kind": "read", "cache": "vllm", "glob": "**/*.so", "ranges": [[0, 8], [64, 1]], "comment": "c"}
  ]
}
"#;
    assert_eq!(parse(text).unwrap().to_json(), text);
}

#[test]
fn what_is_wrong_is_said() {
    let access = |members: &str| format!("{{\"version\": 1,\n\"accesses\": [\n{{{members}}}]}}");
    let deep =
        format!("{{\"version\": 1, \"accesses\": [], \"x\": {}1{}}}", "[".repeat(5000), "]".repeat(5000));
    // What is kept as text may be nested as it likes.
    assert!(parse(&deep).is_ok());
    for (text, expected) in [
        (String::new(), "EOF while parsing a value at line 1 column 0"),
        ("{\"version\": 1, \"accesses\": [".to_owned(), "EOF while parsing a list at line 1 column 28"),
        ("[]".to_owned(), "invalid type: sequence, expected an object at line 1 column 0"),
        ("{\"version\": 1}".to_owned(), "it has no `accesses`"),
        ("{\"accesses\": []}".to_owned(), "it has no `version`"),
        ("{\"version\": 1, \"accesses\": {}}".to_owned(), "`accesses`: it is no array"),
        ("{\"version\": 1, \"version\": 1}".to_owned(), "an object has a member twice at line 1 column"),
        ("{\"version\": 1, \"accesses\": [], \"recordings\": [1]}".to_owned(), "`recordings`: invalid type"),
        (access(r#""kind": "read", "path": "a""#), "the access at line 3: it has no `at`"),
        (access(r#""at": -1, "kind": "read", "path": "a""#), "-1 seconds are not between 0 and 10^9"),
        (access(r#""at": "0", "kind": "read", "path": "a""#), "`at`: invalid type: string"),
        (access(r#""at": 0, "kind": "write", "path": "a""#), "`kind` is \"write\""),
        (access(r#""at": 0, "kind": "read""#), "it must have either `path` or `glob`"),
        (access(r#""at": 0, "kind": "read", "path": "../a""#), "has an empty part, `.` or `..`"),
        (access(r#""at": 0, "kind": "read", "path": "/a""#), "is absolute"),
        (access(r#""at": 0, "kind": "read", "path": "a\u0000b""#), "contains a NUL"),
        (access(r#""at": 0, "kind": "read", "glob": "[""#), "unclosed character class"),
        (access(r#""at": 0, "kind": "open", "path": "a", "ranges": [[0, 1]]"#), "only a read has `ranges`"),
        (
            access(r#""at": 0, "kind": "read", "path": "a", "ranges": [[0, 0]]"#),
            "[0, 0] is no part of a file",
        ),
        (
            access(r#""at": 0, "kind": "read", "path": "a", "ranges": [[18446744073709551615, 2]]"#),
            "is no part of a file",
        ),
        (access(r#""at": 2, "until": 1, "kind": "read", "path": "a""#), "`until` is before `at`"),
        (
            r#"{"path": "a", "manifestDigest": "sha256:"} {"#.to_owned(),
            "it looks like a record of ctr-remote",
        ),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(matches!(error, ProfileError::Format { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{text}\n{error}");
    }
    assert!(matches!(parse("{\"version\": 2, \"accesses\": 7}"), Err(ProfileError::Version { .. })));
    assert!(matches!(Profile::parse("p", b"\xff"), Err(ProfileError::Format { .. })));
}

#[test]
fn size_is_bounded() {
    let many = |count: usize, item: &str| {
        format!("{{\"version\": 1, \"accesses\": [{}]}}", vec![item; count].join(","))
    };
    for text in [
        many(ACCESSES_MAX + 1, "1"),
        many(GLOBS_MAX + 1, r#"{"at": 0, "kind": "read", "glob": "*"}"#),
        " ".repeat(BYTES_MAX + 1),
    ] {
        assert!(matches!(parse(&text), Err(ProfileError::TooLarge { .. })));
    }
}

fn any_access() -> impl Strategy<Value = Access> {
    let range = (0_u64..10_000, 1_u64..10_000).prop_map(|(offset, length)| ByteRange { offset, length });
    (
        0_u64..5_000_000,
        0_u64..3_000_000,
        0..3_usize,
        prop::option::of("[a-z]{1,4}"),
        "[a-zäé \"\\\\]{1,6}(/[a-z]{1,3})?",
        prop::collection::vec(range, 0..4),
        prop::option::of("[a-z\n]{0,5}"),
    )
        .prop_map(|(at, pause, kind, cache, path, ranges, comment)| {
            let kind = [AccessKind::Open, AccessKind::Missing, AccessKind::Read][kind];
            Access {
                at: Seconds::from_micros(at),
                until: (pause > 1_500_000).then(|| Seconds::from_micros(at + pause)),
                kind,
                tree: cache.map_or(Tree::Model, Tree::Cache),
                target: Target::Path(path),
                ranges: if kind == AccessKind::Read { ranges } else { Vec::new() },
                comment,
                unknown: Unknown::new(),
            }
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read(accesses in prop::collection::vec(any_access(), 0..20)) {
        let mut profile = Profile {
            recordings: vec![Recording {
                source: Some(Source::Record),
                engine: Some(Engine { name: "e".into(), ..Engine::default() }),
                ..Recording::default()
            }],
            accesses,
            ..Profile::default()
        };
        profile.accesses.sort_by_key(|access| access.at);
        let text = profile.to_json();
        prop_assert_eq!(parse(&text).unwrap(), profile);
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..400, flip in 0_usize..400) {
        let _ = Profile::parse("p", &bytes);
        let mut text = br#"{"version": 1, "recordings": [{"source": "record"}], "accesses": [{"at": 0.5, "until": 1, "kind": "read", "path": "a", "ranges": [[0, 8]]}]}"#.to_vec();
        let length = text.len();
        text[flip % length] ^= 1 << (cut % 8);
        text.truncate(cut.max(1));
        let _ = Profile::parse("p", &text);
    }
}
