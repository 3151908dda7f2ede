//! Room for a model, and images as the node would mount them.

use std::collections::BTreeSet;

use crate::{
    harness::Node,
    support::{
        command::starcar,
        registry::{FakeOptions, FakeRegistry, Ranges},
    },
};

#[test]
fn room_and_registries_are_looked_at() {
    let node = Node::new("2.x");
    let checked = node.check(&["--for-model", "9000000GiB"]);
    assert!(checked.codes().contains("cache-room"), "{}", checked.run.stdout);
    assert_eq!(checked.run.code, 12);
    let image = "registry.invalid/models/none:v1";
    let checked = node.check(&["--for-model", "1MiB", "--registry", image, "--retries", "0"]);
    assert_eq!(checked.codes(), BTreeSet::from(["registry-unreachable"]), "{}", checked.run.stdout);
    let checked = node.check(&["--for-model", "1MiB", "--registry", image, "--retries", "0", "--plain-http"]);
    assert_eq!(checked.codes(), BTreeSet::from(["registry-plain-http", "registry-unreachable"]));
}

#[test]
fn images_are_looked_at_as_nodes_mount_them() {
    for (ranges, format, expected) in [
        (Ranges::Honoured, "estargz", &[][..]),
        (Ranges::Ignored, "estargz", &["registry-no-ranges"]),
        (Ranges::Honoured, "tar", &["layer-not-lazy"]),
    ] {
        let fake = FakeRegistry::start(FakeOptions { ranges, ..FakeOptions::default() });
        let image = format!("{}/models/tiny:v1", fake.address());
        let packed = [
            "pack",
            "examples/tiny-llama",
            "--base",
            "scratch",
            "--layer-format",
            format,
            "-t",
            &image,
            "--push",
        ];
        assert_eq!(starcar(&packed).code, 0);
        let node = Node::new("2.x");
        let before = fake.seen().len();
        let checked = node.check(&["--for-model", &image]);
        assert_eq!(checked.codes(), expected.iter().copied().collect(), "{}", checked.run.stdout);
        assert_eq!(checked.run.code, if expected.is_empty() { 0 } else { 12 });
        let asked: BTreeSet<String> = fake.seen().into_iter().skip(before).map(|seen| seen.method).collect();
        assert!(asked.iter().all(|method| method == "GET" || method == "HEAD"), "{asked:?}");
    }
}
