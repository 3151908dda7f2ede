//! `vllm_compile_cache.py`, which names the artifacts of an entry. A Python literal; only names and paths are taken
//! from it. Must not know the artifacts' content.

use std::sync::LazyLock;

use regex::Regex;

use super::{
    Finding, Severity,
    hits::Hits,
    reader::Reader,
    rules::{ARTIFACT_PATHS, MISSING},
    view::{View, name_of, split},
};
use crate::compile_cache::CacheError;

const NAME: &str = "vllm_compile_cache.py";
/// Most such files that are read, and their bytes. The real ones have some kilobytes.
const FILES_MAX: usize = 2_000;
const BYTES_MAX: u64 = 64 << 20;
const FILE_MAX: u64 = 4 << 20;

/// An artifact's name and path, as `pprint` writes the pair.
static HANDLE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\(\s*'([^'\\\n/]+)',\s*'(/[^'\\\n]*)'").ok());

pub(super) fn lint(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), CacheError> {
    let mut reader = Reader::new(FILES_MAX, BYTES_MAX);
    let (mut paths, mut missing, mut foreign) = (Hits::default(), Hits::default(), Hits::default());
    for file in view.tree.files.iter().filter(|file| name_of(file) == NAME) {
        let directory = split(&file.path).0;
        let Some(content) = reader.read(file, FILE_MAX)? else { continue };
        let text = String::from_utf8_lossy(&content);
        let handles = HANDLE.iter().flat_map(|handle| handle.captures_iter(&text));
        // What `relocate` takes for a path to this very directory.
        let own = format!("/{directory}/");
        let (mut named, mut astray, mut lost) = (false, false, false);
        for (_, [artifact, path]) in handles.map(|handle| handle.extract()) {
            // Older versions keep a key and the path of a file in Inductor's cache.
            if split(path).1 != artifact {
                continue;
            }
            if path.get(1..).is_some_and(|path| path.contains(&own)) {
                if !named {
                    paths.add(&file.path);
                    paths.name(split(path).0);
                    named = true;
                }
            } else {
                foreign.name(split(path).0);
                astray = true;
            }
            if !view.has(directory, artifact) {
                missing.name(artifact);
                lost = true;
            }
        }
        if astray {
            foreign.add(&file.path);
        }
        if lost {
            missing.add(&file.path);
        }
    }
    missing.report(
        findings,
        Severity::Error,
        MISSING,
        |hits| format!("vLLM opens artifacts that are not there, and crashes: {}", hits.names()),
        "copy the whole directory from where it was made, or remove it so that vLLM compiles again",
    );
    foreign.report(
        findings,
        Severity::Warning,
        MISSING,
        |hits| {
            format!(
                "absolute paths that do not lead to the entry's own directory ({}): packing leaves them as they \
                 are, and older versions of vLLM open them as they are",
                hits.names()
            )
        },
        "give the entry's directories the names that they had where it was made, or make the cache anew",
    );
    paths.report(
        findings,
        Severity::Note,
        ARTIFACT_PATHS,
        |hits| format!("absolute paths ({}); they are rewritten while packing", hits.names()),
        "",
    );
    reader.report(findings, "the lists of artifacts", MISSING);
    Ok(())
}
