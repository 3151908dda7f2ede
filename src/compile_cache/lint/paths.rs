//! Directories of the host that made a cache, and which of them matter. Paths that are rewritten while packing and
//! FlashInfer's are other rules'.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::{
    Finding, Severity,
    hits::Hits,
    reader::Reader,
    rules::{HOST_PATHS, PYTHON},
    view::{View, name_of, split},
};
use crate::compile_cache::{CacheError, CacheFile, Kind, find::is_rank};

/// Most files that are read, and their bytes: a cache repeats its paths.
const FILES_MAX: usize = 2_000;
const BYTES_MAX: u64 = 128 << 20;
/// Most that is read of one file.
const FILE_MAX: u64 = 4 << 20;

/// Where Python's packages lie.
static PACKAGES: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?-u)((?:/[A-Za-z0-9._+@-]{1,64}){1,16}/(?:site|dist)-packages)/").ok());
/// Directories that people and jobs have for themselves.
static OWN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?-u)(?:^|[^A-Za-z0-9._~/-])(/root|/(?:home|Users|tmp|workspace|scratch|builds?)/[A-Za-z0-9._+@-]{1,64})/[A-Za-z0-9._]",
    )
    .ok()
});

pub(super) fn lint(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), CacheError> {
    let mut reader = Reader::new(FILES_MAX, BYTES_MAX);
    let (mut packages, mut own) = (Hits::default(), Hits::default());
    let keyed = view.tree.kind == Kind::Vllm && view.tree.files.iter().any(is_artifact);
    for file in view.tree.files.iter().filter(|file| is_relevant(file)) {
        let Some(content) = reader.read(file, FILE_MAX)? else { continue };
        let texts = |pattern: &'static LazyLock<Option<Regex>>| {
            let found = pattern.iter().flat_map(|pattern| pattern.captures_iter(&content));
            let found = found.map(|found| String::from_utf8_lossy(found.extract::<1>().1[0]).into_owned());
            found.collect::<std::collections::BTreeSet<String>>()
        };
        for (hits, found) in [(&mut packages, texts(&PACKAGES)), (&mut own, texts(&OWN))] {
            if !found.is_empty() {
                hits.add(&file.path);
                for path in &found {
                    hits.name(path);
                }
            }
        }
    }
    let harmless = |hits: &Hits| {
        format!(
            "directories of the host that made the cache, in comments and for debugging: {}; harmless, but they \
             tell its names",
            hits.names()
        )
    };
    if keyed {
        packages.report(
            findings,
            Severity::Note,
            PYTHON,
            |hits| {
                format!(
                    "vLLM's key has the paths of the sources that it traced, below {}; with packages elsewhere it \
                     compiles again",
                    hits.names()
                )
            },
            "run the cache with the image that made it",
        );
    }
    own.report(findings, Severity::Note, HOST_PATHS, harmless, "");
    Ok(())
}

/// Whether a file is one that vLLM's older key leads to.
fn is_artifact(file: &CacheFile) -> bool {
    let (directory, name) = split(&file.path);
    name.starts_with("artifact") && directory.split('/').any(is_rank)
}

/// Whether a file's paths are this rule's: not those that are rewritten, nor FlashInfer's.
fn is_relevant(file: &CacheFile) -> bool {
    let name = name_of(file);
    let rewritten = name.starts_with("__grp__") || name == "vllm_compile_cache.py";
    let ninja = matches!(name, "build.ninja" | ".ninja_log" | ".ninja_deps");
    !rewritten && !ninja
}
