//! containerd's settings in several files, of one version and of two.

use std::collections::BTreeSet;

use crate::harness::{CONTAINERD, Checked, Node, SMALL};

const DROP_IN: &str = "etc/containerd/conf.d/stargz.toml";
const PROXY: &str = "[proxy_plugins.stargz]\ntype = \"snapshot\"\n\
                     address = \"/run/containerd-stargz-grpc/containerd-stargz-grpc.sock\"\n";
/// Settings of version 2 as distributions ship them, with runtimes.
const TWO: &str = "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"stargz\"\n\
                   disable_snapshot_annotations = false\n\
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
                   runtime_type = \"io.containerd.runc.v2\"\n";
const THREE: &str = "[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"stargz\"\n\
                     disable_snapshot_annotations = false\n";
/// What neither names the snapshotter nor contradicts who does.
const OTHER_TWO: &str = "[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_selinux = true\n";
const OTHER_THREE: &str = "[plugins.\"io.containerd.cri.v1.runtime\"]\nenable_selinux = true\n";

fn check(containerd: &str, main: &str, drop_in: &str) -> Checked {
    let node = Node::new("2.x");
    let (version, main) = main.split_at(main.find('\n').unwrap() + 1);
    node.write(CONTAINERD, &format!("{version}imports = [\"conf.d/*.toml\"]\n{PROXY}{main}"));
    node.write(DROP_IN, drop_in);
    let told = ["--containerd-version", containerd];
    node.check(&[&SMALL[..], if containerd.is_empty() { &[] } else { &told }].concat())
}

#[test]
fn files_of_two_versions_are_read_as_the_release_reads_them() {
    let (two, three) = (format!("version = 2\n{TWO}"), format!("version = 3\n{THREE}"));
    let (other_two, other_three) =
        (format!("version = 2\n{OTHER_TWO}"), format!("version = 3\n{OTHER_THREE}"));
    let none = &[][..];
    for (main, drop_in, expected) in [
        // The main file of version 2 names the snapshotter, and a drop-in has version 3, as NVIDIA's toolkit writes one.
        (
            &two,
            &other_three,
            [
                ("1.7.35", &["containerd-config-new", "cri-misplaced"][..]),
                ("2.0.5", &["cri-misplaced"]),
                ("2.2.9", &["cri-misplaced"]),
                ("2.3.4", &["containerd-import-newer"]),
                ("2.3.5", none),
                ("2.4.2", none),
            ],
        ),
        // The same, and the drop-in names the snapshotter.
        (
            &other_two,
            &three,
            [
                ("1.7.35", &["containerd-config-new"]),
                ("2.0.5", none),
                ("2.2.9", none),
                ("2.3.4", &["containerd-import-newer"]),
                ("2.3.5", none),
                ("2.4.2", none),
            ],
        ),
        // The main file has version 3, the drop-in version 2.
        (
            &three,
            &other_two,
            [
                ("1.7.35", &["cri-misplaced"]),
                ("2.0.5", none),
                ("2.2.9", none),
                ("2.3.4", none),
                ("2.3.5", none),
                ("2.4.2", none),
            ],
        ),
        (
            &other_three,
            &two,
            [
                ("1.7.35", none),
                ("2.0.5", none),
                ("2.2.9", none),
                ("2.3.4", none),
                ("2.3.5", none),
                ("2.4.2", none),
            ],
        ),
    ] {
        for (containerd, codes) in expected {
            let checked = check(containerd, main, drop_in);
            let found = checked.codes();
            assert_eq!(
                found,
                codes.iter().copied().collect::<BTreeSet<_>>(),
                "{containerd}\n{main}\n{drop_in}"
            );
            assert_eq!(checked.unknown(), [""; 0]);
        }
    }
}

#[test]
fn without_containerds_version_it_is_not_known_what_two_versions_mean() {
    let (two, three) = (format!("version = 2\n{TWO}"), format!("version = 3\n{THREE}"));
    for (main, drop_in) in [(&two, &three), (&three, &two)] {
        let node = Node::new("2.x");
        node.serve(crate::harness::CONTAINERD_SOCKET, "unknown", &["stargz"]);
        node.write(CONTAINERD, &format!("imports = [\"/etc/containerd/a.toml\", \"/{DROP_IN}\"]\n{PROXY}"));
        node.write("etc/containerd/a.toml", main);
        node.write(DROP_IN, drop_in);
        let checked = node.check(&SMALL);
        assert_eq!(checked.codes(), BTreeSet::new(), "{}", checked.run.stdout);
        assert_eq!(checked.unknown(), ["what containerd makes of its files together"]);
    }
}

#[test]
fn version_2_is_moved_by_containerd_2_where_runtimes_stand_beside_it() {
    let lone = TWO.split("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes").next().unwrap();
    let (lone, two) = (format!("version = 2\n{lone}"), format!("version = 2\n{TWO}"));
    let other = format!("version = 2\n{OTHER_TWO}");
    for (containerd, main, drop_in, codes) in [
        ("1.7.35", &lone, "", &[][..]),
        ("2.2.9", &lone, "", &["cri-left-behind"]),
        ("2.4.2", &lone, "", &["cri-left-behind"]),
        ("2.2.9", &two, "", &[]),
        ("2.4.2", &two, "", &[]),
        // Files are merged before they are moved, or after.
        ("2.2.9", &other, two.as_str(), &[]),
        ("2.4.2", &other, two.as_str(), &[]),
    ] {
        let checked = check(containerd, main, drop_in);
        assert_eq!(checked.codes(), codes.iter().copied().collect(), "{containerd} {}", checked.run.stdout);
    }
    // What the file says is told by the name that it has there.
    let checked = check("2.4.2", &two.replace("\"stargz\"", "\"overlayfs\""), "");
    assert_eq!(checked.codes(), BTreeSet::from(["cri-snapshotter"]));
    let found = checked.json["findings"][0]["found"].as_str().unwrap();
    assert!(found.contains("io.containerd.grpc.v1.cri"), "{found}");
}

#[test]
fn later_files_say_the_last_word_and_imports_come_after_all_that_name_them() {
    let three = |name: &str| format!("version = 3\n{}", THREE.replace("\"stargz\"", &format!("\"{name}\"")));
    let node = Node::new("2.x");
    node.write(
        CONTAINERD,
        &format!("version = 3\nimports = [\"a.toml\", \"./b.toml\", \"x/../b.toml\"]\n{PROXY}"),
    );
    // a.toml imports c.toml, which comes after b.toml.
    node.write("etc/containerd/a.toml", &format!("imports = [\"c.toml\", \"config.toml\"]\n{}", three("a")));
    node.write("etc/containerd/b.toml", &three("overlayfs"));
    node.write("etc/containerd/c.toml", &three("stargz"));
    assert_eq!(node.check(&SMALL).codes(), BTreeSet::new());
    node.write("etc/containerd/c.toml", "");
    let checked = node.check(&SMALL);
    assert_eq!(checked.codes(), BTreeSet::from(["cri-snapshotter"]), "{}", checked.run.stdout);
    assert!(checked.run.stdout.contains("overlayfs"));
    // What one file says of a proxy takes the place of all that another said.
    node.write("etc/containerd/b.toml", "[proxy_plugins.stargz]\naddress = \"/other.sock\"");
    node.write("etc/containerd/c.toml", &three("stargz"));
    assert_eq!(node.check(&SMALL).codes(), BTreeSet::from(["proxy-address"]));
}
