//! The file tree that an image's layers make, one over the other. Must not know how layers store it.

use std::collections::BTreeMap;

use super::names::{base, is_below, parent};
use crate::estargz::{NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME};

/// Links that are followed to one file, as Linux has it for symbolic ones.
const LINKS_MAX: usize = 40;
/// Longest path or target of a link, in bytes, as Linux has it: it counts a zero byte at the end.
const PATH_MAX: usize = 4095;
/// Most parts of paths that are looked at to find one file. Every part is looked up, so this bounds the time.
const PARTS_MAX: usize = 1024;
/// What a file's name begins with that takes another one away.
const WHITEOUT: &str = ".wh.";
/// A file that takes away all that lower layers have in its directory.
const OPAQUE: &str = ".wh..wh..opq";

/// A file of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Path, as `names::clean` has it.
    pub(super) path: String,
    pub(super) kind: NodeKind,
    /// Permissions.
    pub(super) mode: u64,
    pub(super) uid: u64,
    pub(super) gid: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeKind {
    Directory,
    Regular {
        /// In bytes.
        size: u64,
    },
    Symlink {
        target: String,
    },
    Hardlink {
        /// As `names::clean` has it.
        target: String,
    },
    Special,
}

/// A file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    /// Index of its layer.
    pub(super) layer: usize,
    pub(super) node: Node,
}

/// The files of an image, by path.
#[derive(Debug, Default)]
pub(super) struct Tree {
    files: BTreeMap<String, Placed>,
    /// Whether there are layers of which is not known what they hold.
    pub(super) is_incomplete: bool,
}

impl Tree {
    /// Lays the files of a layer over what there is.
    pub(super) fn add(&mut self, layer: usize, nodes: &[Node]) {
        // What a layer takes away it takes from the layers below it, wherever it says so.
        for node in nodes {
            let directory = parent(&node.path);
            let name = base(&node.path);
            if name == OPAQUE {
                self.remove_below(directory.unwrap_or_default());
            } else if let Some(gone) = name.strip_prefix(WHITEOUT) {
                let path =
                    directory.map_or_else(|| gone.to_owned(), |directory| format!("{directory}/{gone}"));
                self.remove_below(&path);
                self.files.remove(&path);
            }
        }
        for node in nodes {
            let is_format = [TOC_NAME, PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK].contains(&node.path.as_str());
            if is_format || node.path.is_empty() || base(&node.path).starts_with(WHITEOUT) {
                continue;
            }
            let was_directory =
                self.files.get(&node.path).is_some_and(|placed| placed.node.kind == NodeKind::Directory);
            if was_directory && node.kind != NodeKind::Directory {
                self.remove_below(&node.path);
            }
            self.files.insert(node.path.clone(), Placed { layer, node: node.clone() });
        }
    }

    fn remove_below(&mut self, directory: &str) {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let gone: Vec<String> = self
            .files
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.starts_with(&prefix))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.files.remove(&path);
        }
    }

    /// The file at `path` itself, a link not followed.
    pub(super) fn get(&self, path: &str) -> Option<&Placed> {
        self.files.get(path)
    }

    /// Whether something lies at `path`, or below it: directories need not be listed.
    pub(super) fn has(&self, path: &str) -> bool {
        path.is_empty() || self.files.contains_key(path) || self.below(path).next().is_some()
    }

    /// All that lies below `directory`.
    pub(super) fn below(&self, directory: &str) -> impl Iterator<Item = &Placed> {
        let prefix = format!("{directory}/");
        let inside = prefix.clone();
        self.files
            .range(prefix..)
            .take_while(move |(path, _)| path.starts_with(&inside))
            .map(|(_, placed)| placed)
    }

    /// The path that `path` leads to when symbolic links are followed, as far as the root; `None` where they lead
    /// nowhere or in a circle. What it leads to need not be listed.
    pub(super) fn resolve(&self, path: &str) -> Option<String> {
        let (mut links_left, mut parts_left) = (LINKS_MAX, PARTS_MAX);
        let mut rest: Vec<&str> = parts(path)?.rev().collect();
        let mut here = String::new();
        while let Some(part) = rest.pop() {
            parts_left = parts_left.checked_sub(1)?;
            if part == ".." {
                leave(&mut here);
                continue;
            }
            enter(&mut here, part);
            let Some(NodeKind::Symlink { target }) = self.get(&here).map(|placed| &placed.node.kind) else {
                continue;
            };
            links_left = links_left.checked_sub(1)?;
            if target.starts_with('/') {
                here.clear();
            } else {
                leave(&mut here);
            }
            rest.extend(parts(target)?.rev());
        }
        self.has(&here).then_some(here)
    }

    /// The file that `path` leads to when links of both kinds are followed.
    pub(super) fn find(&self, path: &str) -> Option<&Placed> {
        let mut path = path;
        // Writers name the file itself; whoever makes long chains of links wants to keep readers busy.
        for _ in 0..=LINKS_MAX {
            let placed = self.get(&self.resolve(path)?)?;
            match &placed.node.kind {
                NodeKind::Hardlink { target } => path = target,
                _ => return Some(placed),
            }
        }
        None
    }

    /// Number and bytes of the files below `directory`; a hard link counts as its target does.
    pub(super) fn count(&self, directory: &str) -> (u64, u64) {
        let mut counted = (0_u64, 0_u64);
        for placed in self.below(directory) {
            let size = match &placed.node.kind {
                NodeKind::Regular { size } => *size,
                NodeKind::Hardlink { target } => match self.find(target).map(|found| &found.node.kind) {
                    Some(NodeKind::Regular { size }) => *size,
                    _ => 0,
                },
                _ => continue,
            };
            counted = (counted.0.saturating_add(1), counted.1.saturating_add(size));
        }
        counted
    }

    /// Where a symbolic link at `path` leads, by name alone: `None` where that is above `root`.
    pub(super) fn target_below(path: &str, target: &str, root: &str) -> Option<String> {
        let mut here = parent(path).unwrap_or_default().to_owned();
        for part in parts(target)? {
            if part == ".." {
                leave(&mut here);
                // Out and in again is out for who sees only what is inside.
                if !is_below(&here, root) {
                    return None;
                }
            } else {
                enter(&mut here, part);
            }
        }
        Some(here).filter(|path| is_below(path, root))
    }
}

/// The parts of a path that lead anywhere; `None` if it is longer than Linux takes.
fn parts(path: &str) -> Option<impl DoubleEndedIterator<Item = &str>> {
    let is_part = |part: &&str| !part.is_empty() && *part != ".";
    (path.len() <= PATH_MAX).then(|| path.split('/').filter(is_part))
}

fn enter(directory: &mut String, part: &str) {
    if !directory.is_empty() {
        directory.push('/');
    }
    directory.push_str(part);
}

fn leave(directory: &mut String) {
    directory.truncate(directory.rfind('/').unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, kind: NodeKind) -> Node {
        Node { path: path.to_owned(), kind, mode: 0o755, uid: 0, gid: 0 }
    }

    fn file(path: &str) -> Node {
        node(path, NodeKind::Regular { size: 3 })
    }

    fn link(path: &str, target: &str) -> Node {
        node(path, NodeKind::Symlink { target: target.to_owned() })
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.files.keys().map(String::as_str).collect()
    }

    #[test]
    fn upper_layers_win_and_take_away() {
        let mut tree = Tree::default();
        tree.add(
            0,
            &[file("a/x"), file("a/y"), file("b/x"), file("c"), node("d", NodeKind::Directory), file("d/x")],
        );
        tree.add(
            1,
            &[file("a/.wh.x"), file("b/.wh..wh..opq"), file("b/z"), file("d"), file(PREFETCH_LANDMARK)],
        );
        assert_eq!(paths(&tree), ["a/y", "b/z", "c", "d"]);
        assert_eq!(tree.get("d").unwrap().layer, 1);
        tree.add(2, &[file(".wh..wh..opq")]);
        assert!(paths(&tree).is_empty());
    }

    #[test]
    fn links_are_followed_but_not_for_ever() {
        let mut tree = Tree::default();
        let hard = node("bin/ash", NodeKind::Hardlink { target: "usr/bin/busybox".to_owned() });
        tree.add(
            0,
            &[
                file("usr/bin/busybox"),
                link("bin", "usr/bin"),
                link("usr/bin/sh", "/bin/busybox"),
                link("l", "l"),
                hard,
            ],
        );
        assert_eq!(tree.find("bin/sh").unwrap().node.path, "usr/bin/busybox");
        assert_eq!(tree.find("usr/../bin/./sh").unwrap().node.path, "usr/bin/busybox");
        assert_eq!(tree.find("l"), None);
        assert_eq!(tree.find("bin/ls"), None);
        assert!(tree.has("usr"));
    }

    #[test]
    fn links_out_of_a_directory_are_told_by_name() {
        let below = |path: &str, target: &str| Tree::target_below(path, target, "models");
        assert_eq!(below("models/a/b", "../c").as_deref(), Some("models/c"));
        assert_eq!(below("models/b", "../models/c"), None);
        assert_eq!(below("models/b", "../../etc/passwd"), None);
        assert_eq!(below("models/b", "blobs/x").as_deref(), Some("models/blobs/x"));
    }

    #[test]
    fn hard_links_count_as_their_targets() {
        let mut tree = Tree::default();
        tree.add(
            0,
            &[file("m/a"), node("m/b", NodeKind::Hardlink { target: "m/a".to_owned() }), link("m/c", "a")],
        );
        assert_eq!(tree.count("m"), (2, 6));
        let huge = node("m/d", NodeKind::Regular { size: u64::MAX });
        tree.add(1, &[huge]);
        assert_eq!(tree.count("m"), (3, u64::MAX));
    }

    #[test]
    fn hostile_links_end_soon() {
        let mut tree = Tree::default();
        let hard = |number: usize| {
            let target = format!("h/{}", number - 1);
            node(&format!("h/{number}"), NodeKind::Hardlink { target })
        };
        let mut nodes = vec![file("h/0"), file("a/a")];
        nodes.extend((1..100).map(hard));
        nodes.push(link("most", &"./".repeat(PATH_MAX / 2)));
        nodes.push(link("long", &"./".repeat(PATH_MAX)));
        nodes.push(link("parts", &"a/../".repeat(PARTS_MAX / 2)));
        tree.add(0, &nodes);
        assert!(tree.find(&format!("h/{LINKS_MAX}")).is_some());
        assert_eq!(tree.find(&format!("h/{}", LINKS_MAX + 1)), None);
        assert_eq!(tree.count("h"), (100, 3 * 42));
        assert_eq!(tree.resolve("most/a/a").as_deref(), Some("a/a"));
        assert_eq!(tree.resolve("long/a/a"), None);
        assert_eq!(tree.resolve("parts/a/a"), None);
        assert_eq!(tree.resolve(&"a/../".repeat(1 << 20)), None);
        assert_eq!(Tree::target_below("models/b", &"./".repeat(PATH_MAX), "models"), None);
    }
}
