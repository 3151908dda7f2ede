//! What is changed in a cache so that it is found where it will be at run time: absolute paths that its owner reads
//! back, and directories that it wants to exist. Everything else is packed as it is. Must not know images.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
};

use regex::Regex;
use serde_json::Value;

use super::{
    CacheDirectory, CacheError, CacheFile, CacheTree, Kind,
    find::{is_aot_key, is_legacy_key, is_rank},
};
use crate::{blob::FileStamp, digest::Digest};

/// Largest file that is rewritten, in bytes; the real ones have a few kilobytes.
const FILE_MAX: u64 = 16 << 20;
/// Most bytes of rewritten files that are kept: they lie in memory until they are packed.
const TOTAL_MAX: usize = 256 << 20;

/// A file whose content changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relocated {
    /// Index of the file in [`CacheTree::files`].
    pub index: usize,
    /// Its new content.
    pub content: Vec<u8>,
    /// SHA-256 of what it was.
    pub original: Digest,
}

/// Rewrites what would not be found below `at`, the absolute directory that the cache will have at run time, without
/// a slash at its end:
///
/// - `child_paths` in Triton's `__grp__*.json`: Triton takes a group with a child that does not exist for a miss
///   (`triton/runtime/cache.py`, `get_group`);
/// - paths in vLLM's `vllm_compile_cache.py`, which older versions open as they are written there
///   (`vllm/compilation/backends.py`).
///
/// Files that are not what their names say stay as they are.
///
/// # Errors
/// [`CacheError::Read`] and [`CacheError::Changed`] when a file cannot be read as it was found.
pub fn relocate(tree: &CacheTree, at: &str) -> Result<Vec<Relocated>, CacheError> {
    let paths = tree.files.iter().map(|file| file.path.as_str()).collect::<BTreeSet<_>>();
    let mut relocated = Vec::new();
    let mut total = 0;
    for (index, file) in tree.files.iter().enumerate() {
        let (directory, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let is_group = name.starts_with("__grp__");
        if !(is_group || name == "vllm_compile_cache.py") || file.stamp.size > FILE_MAX {
            continue;
        }
        let content = read(file)?;
        let new = if is_group {
            group(&content, directory, &paths, at)
        } else {
            compile_cache(&content, directory, at)
        };
        let Some(new) = new.filter(|new| *new != content) else { continue };
        total += new.len();
        if total > TOTAL_MAX {
            return Err(CacheError::TooLarge {
                path: tree.origin.clone(),
                reason: format!("files with paths to rewrite have more than {TOTAL_MAX} bytes"),
            });
        }
        relocated.push(Relocated { index, content: new, original: Digest::of(&content) });
    }
    Ok(relocated)
}

/// Directories that vLLM makes when it loads a cache, and fails to make where it may not write: `dummy_cache`
/// (`vllm/compilation/caching.py`) and, for graphs compiled ahead of time, `inductor_cache` beside the ranks
/// (`vllm/compilation/decorators.py`); for others `inductor_cache` and `triton_cache` in each rank
/// (`vllm/compilation/compiler_interface.py`).
pub fn directories_to_create(tree: &CacheTree) -> Vec<CacheDirectory> {
    if tree.kind != Kind::Vllm {
        return Vec::new();
    }
    let mut wanted = BTreeSet::from(["dummy_cache".to_owned()]);
    for directory in &tree.directories {
        let parts: Vec<&str> = directory.path.split('/').collect();
        match parts.as_slice() {
            ["torch_compile_cache", "torch_aot_compile", key] if is_aot_key(key) => {
                wanted.insert(format!("{}/inductor_cache", directory.path));
            }
            ["torch_compile_cache", key, rank] if is_legacy_key(key) && is_rank(rank) => {
                wanted.insert(format!("{}/inductor_cache", directory.path));
                wanted.insert(format!("{}/triton_cache", directory.path));
            }
            _ => {}
        }
    }
    let known: BTreeSet<&str> = tree.directories.iter().map(|directory| directory.path.as_str()).collect();
    let missing = wanted.into_iter().filter(|path| !known.contains(path.as_str()));
    missing.map(|path| CacheDirectory { path, modified: None }).collect()
}

/// The workspace base of which a FlashInfer cache was made, read from the first `build.ninja` that tells.
///
/// FlashInfer writes absolute paths of outputs there (`flashinfer/jit/cpp_ext.py`) and ninja's own records name them
/// too: at another place everything is built again.
///
/// # Errors
/// [`CacheError::Read`] and [`CacheError::Changed`] when a file cannot be read as it was found.
pub fn flashinfer_base(tree: &CacheTree) -> Result<Option<String>, CacheError> {
    if tree.kind != Kind::FlashInfer {
        return Ok(None);
    }
    let files = tree.files.iter().filter(|file| {
        file.path.ends_with("/build.ninja") && file.stamp.size > 0 && file.stamp.size <= FILE_MAX
    });
    for file in files.take(8) {
        let content = read(file)?;
        let text = String::from_utf8_lossy(&content);
        let mut outputs = text.lines().filter_map(|line| line.strip_prefix("build "));
        let base = outputs.find_map(|output| output.split_once("/.cache/flashinfer/")).map(|(base, _)| base);
        if let Some(base) = base.filter(|base| is_plain_directory(base)) {
            return Ok(Some(base.to_owned()));
        }
    }
    Ok(None)
}

/// Whether a text is an absolute directory, not the root, that a shell and a `sed` expression take as it is.
pub fn is_plain_directory(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-' | b'+' | b'@');
    text.len() <= 1024
        && text.bytes().all(plain)
        && text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

/// A group file with its children below `at`; `None` when it is none.
fn group(content: &[u8], directory: &str, paths: &BTreeSet<&str>, at: &str) -> Option<Vec<u8>> {
    let mut json: Value = serde_json::from_slice(content).ok()?;
    let children = json.get_mut("child_paths")?.as_object_mut()?;
    let separator = if directory.is_empty() { "" } else { "/" };
    for path in children.values_mut() {
        let Some(name) = path.as_str().and_then(|path| path.rsplit('/').next()) else { continue };
        let own = format!("{directory}{separator}{name}");
        // A child that lies elsewhere stays what it is: a miss.
        if paths.contains(own.as_str()) {
            *path = Value::String(format!("{at}/{own}"));
        }
    }
    serde_json::to_vec(&json).ok()
}

/// `vllm_compile_cache.py` with the paths of its own artifacts below `at`; `None` when it is no text.
fn compile_cache(content: &[u8], directory: &str, at: &str) -> Option<Vec<u8>> {
    let text = str::from_utf8(content).ok()?;
    // A Python string that is an absolute path to this very directory.
    let own = Regex::new(&format!(r#"(['"])/[^'"\n]*?/{}/"#, regex::escape(directory))).ok()?;
    let new = own.replace_all(text, |found: &regex::Captures<'_>| format!("{}{at}/{directory}/", &found[1]));
    Some(new.into_owned().into_bytes())
}

fn read(file: &CacheFile) -> Result<Vec<u8>, CacheError> {
    let error = |cause: io::Error| CacheError::Read { path: file.source.clone(), cause };
    let open = File::open(&file.source).map_err(error)?;
    let mut content = Vec::new();
    (&open).take(file.stamp.size).read_to_end(&mut content).map_err(error)?;
    if !FileStamp::of(&open.metadata().map_err(error)?).is_unchanged_since(&file.stamp) {
        return Err(CacheError::Changed { path: file.source.clone() });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::compile_cache::{Found, walk};

    fn tree(root: &Path, kind: Kind, inner: &str, files: &[(&str, &str)]) -> CacheTree {
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        walk(&Found {
            kind,
            origin: fs::canonicalize(root).unwrap(),
            inner: inner.into(),
            remarks: Vec::new(),
        })
        .unwrap()
    }

    fn text(relocated: &[Relocated]) -> Vec<&str> {
        relocated.iter().map(|file| str::from_utf8(&file.content).unwrap()).collect()
    }

    #[test]
    fn groups_point_to_where_the_cache_will_be() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            (
                "K/__grp__add.json",
                r#"{"child_paths": {"add.json": "/old/K/add.json", "gone": "/old/K/gone"}}"#,
            ),
            ("K/add.json", "{}"),
            ("L/__grp__broken.json", "{"),
            ("M/__grp__other.json", r#"{"child_paths": [1]}"#),
        ];
        let tree = tree(root.path(), Kind::Triton, "", &files);
        let relocated = relocate(&tree, "/new").unwrap();
        assert_eq!(
            text(&relocated),
            [r#"{"child_paths":{"add.json":"/new/K/add.json","gone":"/old/K/gone"}}"#]
        );
        assert_eq!(tree.files[relocated[0].index].path, "K/__grp__add.json");
    }

    #[test]
    fn vllm_finds_its_artifacts() {
        let root = tempfile::tempdir().unwrap();
        let path = "0123456789/rank_0_0/backbone/vllm_compile_cache.py";
        let before = "{((1, 2), 0, 'x'): ('a', '/home/u/v/torch_compile_cache/0123456789/rank_0_0/backbone/a'),\n \
                      ((1, 2), 1, 'x'): ('a', '/home/u/v/torch_compile_cache/other/a')}";
        let tree = tree(root.path(), Kind::Vllm, "torch_compile_cache", &[(path, before)]);
        let relocated = relocate(&tree, "/tmp/cache/vllm").unwrap();
        let after =
            before.replace("/home/u/v/torch_compile_cache/0123", "/tmp/cache/vllm/torch_compile_cache/0123");
        assert_eq!(text(&relocated), [after]);
    }

    #[test]
    fn a_cache_that_lies_right_already_is_not_changed() {
        let root = tempfile::tempdir().unwrap();
        let group = r#"{"child_paths":{"a":"/at/K/a"}}"#;
        let tree = tree(root.path(), Kind::Triton, "", &[("K/__grp__a.json", group), ("K/a", "")]);
        assert_eq!(relocate(&tree, "/at").unwrap(), []);
    }

    #[test]
    fn directories_that_vllm_wants() {
        let root = tempfile::tempdir().unwrap();
        let key = "0123456789abcdef".repeat(4);
        let files = [
            (format!("torch_compile_cache/torch_aot_compile/{key}/rank_0_0/model"), ""),
            ("torch_compile_cache/0123456789/rank_0_0/backbone/a".to_owned(), ""),
            ("torch_compile_cache/0123456789/rank_0_0/inductor_cache/a".to_owned(), ""),
        ];
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
        let tree = tree(root.path(), Kind::Vllm, "", &files);
        let created: Vec<String> = directories_to_create(&tree).into_iter().map(|made| made.path).collect();
        let aot = format!("torch_compile_cache/torch_aot_compile/{key}/inductor_cache");
        assert_eq!(
            created,
            ["dummy_cache", "torch_compile_cache/0123456789/rank_0_0/triton_cache", aot.as_str()]
        );
    }

    #[test]
    fn flashinfer_says_where_it_was_built() {
        let root = tempfile::tempdir().unwrap();
        let ninja = "rule link\nbuild /root/.cache/flashinfer/0.7.2/75/cached_ops/n/n.so: link a.o\n";
        let tree = tree(
            root.path(),
            Kind::FlashInfer,
            ".cache/flashinfer",
            &[("0.7.2/75/cached_ops/n/build.ninja", ninja)],
        );
        assert_eq!(flashinfer_base(&tree).unwrap().as_deref(), Some("/root"));
    }

    #[test]
    fn plain_directories() {
        for good in ["/tmp", "/tmp/compile-cache", "/home/a.b/c_d"] {
            assert!(is_plain_directory(good), "{good}");
        }
        for bad in ["", "/", "tmp", "/a//b", "/a/../b", "/a b", "/a'b", "/a$b", "/a|b", "/a/"] {
            assert!(!is_plain_directory(bad), "{bad}");
        }
    }
}
