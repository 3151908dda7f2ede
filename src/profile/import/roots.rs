//! Where the trees of a start lay in the machine that was recorded, and what else was read there.

use std::{borrow::Cow, collections::HashMap};

use crate::profile::{Tree, format::check_path};

/// The directory of a model in a KServe modelcar.
const MODEL_ROOT: &str = "/models";
/// Directories that are remembered for the hint.
const DIRECTORIES_MAX: usize = 1000;
/// Where no model lies.
const SYSTEM: [&str; 10] =
    ["/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/var/lib"];

/// A directory that was read, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    directory: String,
    tree: Tree,
}

/// Why a directory is no root.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no absolute directory below /")]
pub struct RootError(String);

impl Root {
    /// The tree that lay in `directory`, an absolute path; a leading `/` may be left out.
    ///
    /// # Errors
    /// [`RootError`]: the path is empty or `/`.
    pub fn new(directory: &str, tree: Tree) -> Result<Self, RootError> {
        let directory = normal(&format!("/{directory}")).into_owned();
        if directory == "/" { Err(RootError(directory)) } else { Ok(Self { directory, tree }) }
    }
}

/// All roots.
pub(super) struct Roots {
    roots: Vec<Root>,
}

impl Roots {
    pub(super) fn new(roots: &[Root]) -> Self {
        let mut roots = roots.to_vec();
        if roots.iter().all(|root| root.tree != Tree::Model) {
            roots.push(Root { directory: MODEL_ROOT.to_owned(), tree: Tree::Model });
        }
        // A root in a root, such as a cache below the model, is the one that counts.
        roots.sort_by(|a, b| b.directory.len().cmp(&a.directory.len()).then_with(|| a.tree.cmp(&b.tree)));
        Self { roots }
    }

    /// The tree and the path in it of an absolute path, if it lies below a root.
    pub(super) fn find<'p>(&self, path: &'p str) -> Option<(&Tree, &'p str)> {
        self.roots.iter().find_map(|root| {
            let below = path.strip_prefix(root.directory.as_str())?.strip_prefix('/')?;
            check_path(below).ok().map(|()| (&root.tree, below))
        })
    }

    /// The roots, for people.
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.roots.iter().rev().map(|root| root.directory.as_str()).collect();
        names.join(", ")
    }
}

/// Directories that were read outside the roots, for the hint when nothing lies below them.
#[derive(Default)]
pub(super) struct Elsewhere {
    counts: HashMap<String, u64>,
}

impl Elsewhere {
    /// Notes a file that was opened.
    pub(super) fn note(&mut self, path: &str) {
        let name = path.rsplit('/').next().unwrap_or_default();
        let (directory, weight) = if name == "config.json" || name.ends_with(".safetensors") {
            // This is where a model lies; it counts more than any number of other files.
            (path.rsplit_once('/').map_or("/", |(directory, _)| directory), 1 << 32)
        } else {
            let end = path.match_indices('/').nth(2).map_or(path.len(), |(at, _)| at);
            (&path[..end], 1)
        };
        let is_system = SYSTEM.iter().any(|known| {
            directory.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if directory.len() > 200 || is_system {
            return;
        }
        if let Some(count) = self.counts.get_mut(directory) {
            *count = count.saturating_add(weight);
        } else if self.counts.len() < DIRECTORIES_MAX || weight > 1 && self.counts.len() < 2 * DIRECTORIES_MAX
        {
            self.counts.insert(directory.to_owned(), weight);
        }
    }

    /// The directories that were read most, at most five, the likeliest first.
    pub(super) fn likeliest(&self) -> Vec<&str> {
        let mut directories: Vec<(&String, &u64)> = self.counts.iter().collect();
        directories.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        directories.into_iter().take(5).map(|(directory, _)| directory.as_str()).collect()
    }
}

/// An absolute path without `.`, `..`, and double slashes, as far as that can be told without looking at links.
pub(super) fn normal(path: &str) -> Cow<'_, str> {
    if path.starts_with('/')
        && path.len() > 1
        && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."))
    {
        return Cow::Borrowed(path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    Cow::Owned(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_root_counts() {
        let roots = Roots::new(&[
            Root::new("/srv/m/", Tree::Model).unwrap(),
            Root::new("srv/m/cache", Tree::Cache("c".into())).unwrap(),
        ]);
        assert_eq!(roots.find("/srv/m/config.json"), Some((&Tree::Model, "config.json")));
        assert_eq!(roots.find("/srv/m/cache/a/b"), Some((&Tree::Cache("c".into()), "a/b")));
        for outside in ["/srv/m", "/srv/m/", "/srv/mm/a", "/a", "", "/srv/m/a\0b"] {
            assert_eq!(roots.find(outside), None, "{outside}");
        }
        assert!(Root::new("/", Tree::Model).is_err() && Root::new("", Tree::Model).is_err());
    }

    #[test]
    fn paths_become_plain() {
        for (path, expected) in
            [("/a/b", "/a/b"), ("/a/./b//c/../d", "/a/b/d"), ("/../..", "/"), ("a", "/a"), ("/a/", "/a")]
        {
            assert_eq!(normal(path), expected);
        }
    }

    #[test]
    fn the_models_directory_is_guessed() {
        let mut elsewhere = Elsewhere::default();
        (0..50).for_each(|file| elsewhere.note(&format!("/opt/venv/lib/{file}.py")));
        elsewhere.note("/usr/lib/x.so");
        elsewhere.note("/data/m/config.json");
        assert_eq!(elsewhere.likeliest(), ["/data/m", "/opt/venv"]);
    }
}
