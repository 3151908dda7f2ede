//! Which caches a directory is or holds. Looks at names alone, two levels deep; nothing is opened but a file that
//! may hold torch's artifacts. Must not know what is left out of a cache.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{CacheError, Kind};

/// A cache that was found and not looked into yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What made it.
    pub kind: Kind,
    /// The directory, or the file.
    pub origin: PathBuf,
    /// Where its content lies in the cache; see [`super::CacheTree::inner`].
    pub inner: String,
    /// What the user should know of how it was found.
    pub remarks: Vec<String>,
}

/// Most names of one directory that are looked at to tell what it is.
const NAMES_MAX: usize = 20_000;
/// Most directories that are looked at below one that holds caches.
const DIRECTORIES_MAX: usize = 5_000;
/// How deep caches may lie below the directory that the user names: `~` holds `.cache/vllm` and `.triton/cache`.
const DEPTH_MAX: usize = 2;

/// Directories of a vLLM cache root, in vLLM 0.33.
const VLLM_ROOT: [&str; 5] =
    ["torch_compile_cache", "modelinfos", "deep_gemm", "flashinfer_autotune_cache", "dummy_cache"];
/// Name of vLLM's directory of compiled graphs.
const TORCH_COMPILE_CACHE: &str = "torch_compile_cache";
/// Name of the directory in it that holds ahead-of-time compiled graphs.
const AOT: &str = "torch_aot_compile";
/// Where FlashInfer's files lie below its workspace base.
const FLASHINFER: &str = ".cache/flashinfer";

/// Finds the caches that `path` is or holds. With a `kind` it is taken to be one of that kind.
///
/// # Errors
/// [`CacheError::Unknown`] when it holds none, [`CacheError::Read`] when it cannot be listed.
pub fn find(path: &Path, kind: Option<Kind>) -> Result<Vec<Found>, CacheError> {
    // A link that the user names is followed; links below it are the walk's business.
    let path = fs::canonicalize(path).map_err(read_error(path))?;
    let is_file = fs::metadata(&path).map_err(read_error(&path))?.is_file();
    let found = match (kind, is_file) {
        (None | Some(Kind::Artifacts | Kind::Generic), true) => {
            let kind = match kind {
                Some(kind) => Some(kind),
                None => is_artifacts(&path).map_err(read_error(&path))?.then_some(Kind::Artifacts),
            };
            kind.map(|kind| Found::new(kind, path.clone(), ""))
        }
        (Some(kind), true) => {
            return Err(CacheError::Unknown {
                path,
                reason: format!("a cache of kind {kind} is a directory, and this is a file"),
            });
        }
        (None, false) => return search(&path),
        (Some(kind), false) => return Ok(forced(&path, kind)),
    };
    found.map(|found| vec![found]).ok_or_else(|| CacheError::Unknown {
        path,
        reason: "the file does not begin as `torch.compiler.save_cache_artifacts` writes it".to_owned(),
    })
}

impl Found {
    fn new(kind: Kind, origin: PathBuf, inner: &str) -> Self {
        Self { kind, origin, inner: inner.to_owned(), remarks: Vec::new() }
    }
}

/// A directory that the user says is a cache of this kind: what in it is one, and if nothing is, all of it.
fn forced(path: &Path, kind: Kind) -> Vec<Found> {
    if matches!(kind, Kind::Generic | Kind::Artifacts) {
        return vec![Found::new(kind, path.to_owned(), "")];
    }
    if let Ok(mut found) = search(path) {
        found.retain(|found| found.kind == kind);
        if !found.is_empty() {
            return found;
        }
    }
    let below = path.join(FLASHINFER);
    let mut found = match kind {
        Kind::FlashInfer if below.is_dir() => Found::new(kind, below, FLASHINFER),
        Kind::FlashInfer => Found::new(kind, path.to_owned(), FLASHINFER),
        _ => Found::new(kind, path.to_owned(), ""),
    };
    found
        .remarks
        .push(format!("no name in it is one of a {kind} cache; what is no such cache is not found there"));
    vec![found]
}

/// Looks at `root`, its children and theirs.
fn search(root: &Path) -> Result<Vec<Found>, CacheError> {
    let mut found = Vec::new();
    let mut passed_over = Vec::new();
    let mut level = vec![root.to_owned()];
    let mut seen = 0;
    for depth in 0..=DEPTH_MAX {
        let mut next = Vec::new();
        for directory in level {
            seen += 1;
            if seen > DIRECTORIES_MAX {
                passed_over.push(format!("more than {DIRECTORIES_MAX} directories"));
                break;
            }
            match recognise(&directory) {
                Ok(Some(one)) => found.push(one),
                Ok(None) if depth < DEPTH_MAX => {
                    let names = list(&directory)?;
                    passed_over.extend(linked_caches(&directory, &names));
                    next.extend(names.directories(&directory));
                }
                Err(error) if depth == 0 => return Err(error),
                // Others' directories in a home are none of ours, but for those that are called as caches are.
                Err(_) if USUAL_NAMES.contains(&file_name(&directory)) => {
                    passed_over.push(format!("{}, which cannot be read", directory.display()));
                }
                Ok(None) | Err(_) => {}
            }
        }
        level = next;
    }
    let passed_over =
        (!passed_over.is_empty()).then(|| format!("not looked into: {}", passed_over.join(", ")));
    match found.first_mut() {
        Some(first) => first.remarks.extend(passed_over),
        None => {
            return Err(CacheError::Unknown {
                path: root.to_owned(),
                reason: format!(
                    "neither it nor a directory in it looks like a cache of vLLM, Inductor, Triton or FlashInfer{}; \
                     --cache KIND=DIR says what it is, and `generic` takes any directory",
                    passed_over.map(|text| format!(" ({text})")).unwrap_or_default()
                ),
            });
        }
    }
    Ok(found)
}

/// Names that caches have in a home.
const USUAL_NAMES: [&str; 6] = ["vllm", "flashinfer", "triton", ".triton", "inductor", "torch_compile_cache"];

/// Links to caches. They are not followed: what the user names is packed, and not what someone let a link lead to.
fn linked_caches(directory: &Path, names: &Names) -> Vec<String> {
    let is_cache = |path: &PathBuf| matches!(recognise(path), Ok(Some(_)));
    let links = names.links.iter().map(|name| directory.join(name)).filter(is_cache);
    links.map(|link| format!("{}, a link: name the directory that it leads to", link.display())).collect()
}

/// Tells what a directory is by the names in it.
fn recognise(directory: &Path) -> Result<Option<Found>, CacheError> {
    let names = list(directory)?;
    let own = file_name(directory);
    let found = |kind, inner: &str| {
        Ok(Some(Found { kind, origin: directory.to_owned(), inner: inner.to_owned(), remarks: Vec::new() }))
    };
    if VLLM_ROOT.iter().any(|name| names.has_directory(name)) {
        return found(Kind::Vllm, "");
    }
    if is_torch_compile_cache(directory, &names) {
        return found(Kind::Vllm, TORCH_COMPILE_CACHE);
    }
    if names.directories.iter().any(|name| is_aot_key(name) && has_rank(&directory.join(name))) {
        return found(Kind::Vllm, &format!("{TORCH_COMPILE_CACHE}/{AOT}"));
    }
    if names.directories.iter().any(|name| is_rank(name)) {
        if is_legacy_key(own) {
            return found(Kind::Vllm, &format!("{TORCH_COMPILE_CACHE}/{own}"));
        }
        if is_aot_key(own) {
            return found(Kind::Vllm, &format!("{TORCH_COMPILE_CACHE}/{AOT}/{own}"));
        }
    }
    if let Some(found) = flashinfer(directory, &names) {
        return Ok(Some(found));
    }
    if is_inductor(directory, &names) {
        return found(Kind::Inductor, "");
    }
    if is_triton(&names) {
        return found(Kind::Triton, "");
    }
    Ok(None)
}

fn is_torch_compile_cache(directory: &Path, names: &Names) -> bool {
    names.has_directory(AOT)
        || names.directories.iter().any(|name| is_legacy_key(name) && has_rank(&directory.join(name)))
}

/// A FlashInfer workspace: its base, its `.cache/flashinfer`, one version of that, or one architecture of it.
fn flashinfer(directory: &Path, names: &Names) -> Option<Found> {
    let found = |origin: PathBuf, inner: String| Some(Found::new(Kind::FlashInfer, origin, &inner));
    let is_architecture =
        |names: &Names| names.has_directory("cached_ops") || names.has_directory("generated");
    let has_architecture = |path: &Path, names: &Names| {
        names
            .directories
            .iter()
            .filter(|name| name.bytes().next().is_some_and(|byte| byte.is_ascii_digit()))
            .any(|name| list(&path.join(name)).is_ok_and(|names| is_architecture(&names)))
    };
    let has_version = |path: &Path, names: &Names| {
        let versions = names.directories.iter().filter(|name| is_version(name));
        versions
            .map(|name| path.join(name))
            .any(|version| list(&version).is_ok_and(|names| has_architecture(&version, &names)))
    };
    let own = file_name(directory);
    let parent = directory.parent().map(file_name).unwrap_or_default();
    if is_architecture(names) && is_version(parent) {
        return found(directory.to_owned(), format!("{FLASHINFER}/{parent}/{own}"));
    }
    if is_version(own) && has_architecture(directory, names) {
        return found(directory.to_owned(), format!("{FLASHINFER}/{own}"));
    }
    if has_version(directory, names) {
        return found(directory.to_owned(), FLASHINFER.to_owned());
    }
    // The base holds whatever else a home holds; only the workspace is the cache. A home with other caches is
    // searched instead.
    let below = directory.join(FLASHINFER);
    let only = names.directories.iter().all(|name| name == ".cache")
        && list(&directory.join(".cache")).is_ok_and(|names| names.directories.len() == 1);
    if only && list(&below).is_ok_and(|names| has_version(&below, &names)) {
        return found(below, FLASHINFER.to_owned());
    }
    None
}

/// `fxgraph` and `aotautograd` hold graphs; directories of two letters hold generated code.
fn is_inductor(directory: &Path, names: &Names) -> bool {
    if names.has_directory("fxgraph") || names.has_directory("aotautograd") {
        return true;
    }
    let is_short = |name: &&String| name.len() == 2 && name.bytes().all(is_base32_lower);
    names.directories.iter().filter(is_short).take(64).any(|name| {
        list(&directory.join(name)).is_ok_and(|inside| {
            inside.files.iter().any(|file| {
                let stem = file.split('.').next().unwrap_or_default();
                file.starts_with(&format!("c{name}")) && stem.len() > 40
            })
        })
    })
}

/// Each kernel has a directory that is named by 32 bytes in base 32.
fn is_triton(names: &Names) -> bool {
    names
        .directories
        .iter()
        .any(|name| name.len() >= 40 && name.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7')))
}

fn is_base32_lower(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'2'..=b'7')
}

fn is_hex(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// vLLM's key of graphs that are compiled when they are first run: ten hexadecimal digits.
pub(super) fn is_legacy_key(name: &str) -> bool {
    name.len() == 10 && is_hex(name)
}

/// vLLM's key of graphs that are compiled ahead of time: a SHA-256.
pub(super) fn is_aot_key(name: &str) -> bool {
    name.len() == 64 && is_hex(name)
}

/// `rank_<rank>_<data-parallel rank>`.
pub(super) fn is_rank(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("rank_")
        .and_then(|rest| rest.split_once('_'))
        .is_some_and(|(rank, data)| digits(rank) && digits(data))
}

fn is_version(name: &str) -> bool {
    name.contains('.') && name.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
}

fn has_rank(directory: &Path) -> bool {
    list(directory).is_ok_and(|names| names.directories.iter().any(|name| is_rank(name)))
}

/// Whether a file begins as torch's `AppendingByteSerializer` writes it: a CRC-32, and the encoding's version,
/// 1, as eight bytes, the most significant first (`torch/utils/_appending_byte_serializer.py`).
fn is_artifacts(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(12).read_to_end(&mut start)?;
    Ok(start.get(4..12) == Some(&1_u64.to_be_bytes()))
}

/// The names in a directory.
#[derive(Debug, Default)]
struct Names {
    directories: Vec<String>,
    files: Vec<String>,
    links: Vec<String>,
}

impl Names {
    fn has_directory(&self, name: &str) -> bool {
        self.directories.iter().any(|directory| directory == name)
    }

    fn directories(&self, parent: &Path) -> Vec<PathBuf> {
        self.directories.iter().map(|name| parent.join(name)).collect()
    }
}

/// Lists a directory, sorted, without what is named otherwise than in UTF-8. Links are neither.
fn list(directory: &Path) -> Result<Names, CacheError> {
    let mut names = Names::default();
    for entry in fs::read_dir(directory).map_err(read_error(directory))?.take(NAMES_MAX) {
        let entry = entry.map_err(read_error(directory))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => names.directories.push(name),
            Ok(kind) if kind.is_file() => names.files.push(name),
            Ok(kind) if kind.is_symlink() => names.links.push(name),
            _ => {}
        }
    }
    names.directories.sort_unstable();
    names.links.sort_unstable();
    Ok(names)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |cause| CacheError::Read { path, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        root
    }

    /// What is found in `start` of a tree: kind, place of the origin in the tree, and inner path.
    fn found(paths: &[&str], start: &str) -> Vec<(Kind, String, String)> {
        let root = tree(paths);
        let start = root.path().join(start);
        let canonical = fs::canonicalize(root.path()).unwrap();
        let found = find(&start, None).unwrap();
        found
            .into_iter()
            .map(|one| {
                let origin = one.origin.strip_prefix(&canonical).unwrap().to_str().unwrap().to_owned();
                (one.kind, origin, one.inner)
            })
            .collect()
    }

    fn one(kind: Kind, origin: &str, inner: &str) -> Vec<(Kind, String, String)> {
        vec![(kind, origin.to_owned(), inner.to_owned())]
    }

    const AOT_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn vllm_caches_are_found_at_any_level() {
        let legacy = ["v/torch_compile_cache/0123456789/rank_0_0/backbone/computation_graph.py"];
        assert_eq!(found(&legacy, "v"), one(Kind::Vllm, "v", ""));
        assert_eq!(
            found(&legacy, "v/torch_compile_cache"),
            one(Kind::Vllm, "v/torch_compile_cache", "torch_compile_cache")
        );
        assert_eq!(
            found(&legacy, "v/torch_compile_cache/0123456789"),
            one(Kind::Vllm, "v/torch_compile_cache/0123456789", "torch_compile_cache/0123456789")
        );
        let model = format!("c/torch_aot_compile/{AOT_KEY}/rank_0_0/model");
        let aot = [model.as_str()];
        assert_eq!(found(&aot, "c"), one(Kind::Vllm, "c", "torch_compile_cache"));
        assert_eq!(
            found(&aot, "c/torch_aot_compile"),
            one(Kind::Vllm, "c/torch_aot_compile", "torch_compile_cache/torch_aot_compile")
        );
        let place = format!("c/torch_aot_compile/{AOT_KEY}");
        assert_eq!(
            found(&aot, &place),
            one(Kind::Vllm, &place, &format!("torch_compile_cache/torch_aot_compile/{AOT_KEY}"))
        );
    }

    #[test]
    fn inductor_and_triton_are_told_by_their_names() {
        assert_eq!(found(&["i/fxgraph/av/f/g"], "i"), one(Kind::Inductor, "i", ""));
        let code = "i/rm/crmf4vks4pq7zljj6lxnfieun3xd3jmqa2jzrkzy34dw34a2pwls.main.so";
        assert_eq!(found(&[code], "i"), one(Kind::Inductor, "i", ""));
        let kernel = "t/2KWZU5NBV7DGHTOQZNYQVHZHTW5Y7G5YTDWJ3UMSJ5OVQ5Z6YB6A/add.json";
        assert_eq!(found(&[kernel], "t"), one(Kind::Triton, "t", ""));
    }

    #[test]
    fn flashinfer_is_found_at_any_level() {
        let op = ["w/.cache/flashinfer/0.7.2/75/cached_ops/norm/build.ninja"];
        let origin = "w/.cache/flashinfer";
        assert_eq!(found(&op, "w"), one(Kind::FlashInfer, origin, ".cache/flashinfer"));
        assert_eq!(found(&op, origin), one(Kind::FlashInfer, origin, ".cache/flashinfer"));
        for below in ["0.7.2", "0.7.2/75"] {
            let origin = format!("{origin}/{below}");
            let inner = format!(".cache/flashinfer/{below}");
            assert_eq!(found(&op, &origin), one(Kind::FlashInfer, &origin, &inner));
        }
    }

    #[test]
    fn a_home_may_hold_several() {
        let home = [
            "h/.cache/vllm/modelinfos/a.json",
            "h/.cache/flashinfer/0.7.2/75/cached_ops/norm/build.ninja",
            "h/.cache/pip/http/a",
            "h/.triton/cache/2KWZU5NBV7DGHTOQZNYQVHZHTW5Y7G5YTDWJ3UMSJ5OVQ5Z6YB6A/add.json",
        ];
        let kinds = |start| found(&home, start).into_iter().map(|(kind, _, _)| kind).collect::<Vec<_>>();
        assert_eq!(kinds("h"), [Kind::FlashInfer, Kind::Vllm, Kind::Triton]);
        assert_eq!(kinds("h/.cache"), [Kind::FlashInfer, Kind::Vllm]);
    }

    #[test]
    fn unknown_trees_are_refused_unless_forced() {
        let root = tree(&["d/a.txt", "d/b/c.txt"]);
        let directory = root.path().join("d");
        let error = find(&directory, None).unwrap_err().to_string();
        assert!(error.contains("generic"), "{error}");
        assert_eq!(find(&directory, Some(Kind::Generic)).unwrap()[0].kind, Kind::Generic);
        assert_eq!(find(&directory, Some(Kind::Triton)).unwrap()[0].kind, Kind::Triton);
        assert!(find(&directory.join("a.txt"), None).is_err());
        assert!(find(&directory.join("a.txt"), Some(Kind::Triton)).is_err());
        assert!(find(&directory.join("absent"), None).is_err());
    }

    #[test]
    fn artifacts_are_told_by_their_first_bytes() {
        let root = tree(&["a"]);
        let file = root.path().join("a");
        fs::write(&file, [&[9; 4][..], &1_u64.to_be_bytes(), b"rest"].concat()).unwrap();
        assert_eq!(find(&file, None).unwrap()[0].kind, Kind::Artifacts);
    }
}
