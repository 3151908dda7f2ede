//! The file tree that an image's layers make, one over the other. Must not know how layers store it.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{base, clean, is_below, parent};
use crate::estargz::{NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME};

/// Symbolic links that are followed to one file, as Linux has it.
const LINKS_MAX: usize = 40;
/// What a file's name begins with that takes another one away.
const WHITEOUT: &str = ".wh.";
/// A file that takes away all that lower layers have in its directory.
const OPAQUE: &str = ".wh..wh..opq";

/// A file of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Path, as [`clean`] has it.
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
        /// As [`clean`] has it.
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
        let mut left = LINKS_MAX;
        let mut rest: Vec<String> = clean(path).split('/').rev().map(str::to_owned).collect();
        let mut done: Vec<String> = Vec::new();
        while let Some(part) = rest.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            let here = done.join("/");
            let Some(NodeKind::Symlink { target }) = self.get(&here).map(|placed| &placed.node.kind) else {
                continue;
            };
            left = left.checked_sub(1)?;
            if target.starts_with('/') {
                done.clear();
            } else {
                done.pop();
            }
            rest.extend(target.split('/').rev().map(str::to_owned));
        }
        let found = done.join("/");
        self.has(&found).then_some(found)
    }

    /// The file that `path` leads to when links of both kinds are followed.
    pub(super) fn find(&self, path: &str) -> Option<&Placed> {
        let mut seen = BTreeSet::new();
        let mut path = self.resolve(path)?;
        loop {
            let placed = self.get(&path)?;
            match &placed.node.kind {
                NodeKind::Hardlink { target } if seen.insert(path.clone()) => path.clone_from(target),
                NodeKind::Hardlink { .. } => return None,
                _ => return Some(placed),
            }
        }
    }

    /// Number and bytes of the files below `directory`; a hard link counts as its target does.
    pub(super) fn count(&self, directory: &str) -> (u64, u64) {
        let mut counted = (0, 0);
        for placed in self.below(directory) {
            let size = match &placed.node.kind {
                NodeKind::Regular { size } => *size,
                NodeKind::Hardlink { target } => match self.find(target).map(|found| &found.node.kind) {
                    Some(NodeKind::Regular { size }) => *size,
                    _ => 0,
                },
                _ => continue,
            };
            counted = (counted.0 + 1, counted.1 + size);
        }
        counted
    }

    /// Where a symbolic link at `path` leads, by name alone: `None` where that is above `root`.
    pub(super) fn target_below(path: &str, target: &str, root: &str) -> Option<String> {
        let mut parts: Vec<&str> = parent(path).unwrap_or_default().split('/').collect();
        for part in target.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                    // Out and in again is out for who sees only what is inside.
                    if !is_below(&parts.join("/"), root) {
                        return None;
                    }
                }
                part => parts.push(part),
            }
        }
        Some(parts.join("/")).filter(|path| is_below(path, root))
    }
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
    }
}
