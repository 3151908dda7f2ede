//! Entries in which nothing compiled lies: of vLLM, and of Inductor's and FlashInfer's libraries. Told by names
//! alone; must not read a file.

use super::{
    Finding, Severity,
    hits::Hits,
    rules::{INCOMPLETE, LIBRARIES},
    view::{View, name_of, split},
};
use crate::compile_cache::{
    Kind,
    find::{is_aot_key, is_rank},
};

pub(super) fn lint(view: &View<'_>, findings: &mut Vec<Finding>) {
    if view.tree.kind == Kind::Vllm {
        entries(view, findings);
    }
    libraries(view, findings);
}

fn entries(view: &View<'_>, findings: &mut Vec<Finding>) {
    let mut hits = Hits::default();
    let has_model = view.tree.files.iter().any(|file| {
        let (directory, name) = split(&file.path);
        name == "model" && is_rank(split(directory).1)
    });
    let directories = view.all_directories();
    for directory in &directories {
        let (parent, name) = split(directory);
        let ahead = is_aot_key(split(parent).1);
        if is_rank(name) {
            if ahead && view.file(directory, "model").is_none() {
                hits.add(directory);
            }
            // Empty of any file.
            if !ahead && !has_model && !view.has_file_below(directory) {
                hits.add(directory);
            }
        } else if is_aot_key(name) {
            if !below(&directories, directory).any(|other| is_rank(split(other).1)) {
                hits.add(directory);
            }
        } else if is_rank(split(parent).1) && !has_model && !is_aot_key(split(split(parent).0).1) {
            // Where vLLM compiles ahead of time, it writes no more than factors and graph here.
            let files = view.directories.get(directory).map_or(&[][..], Vec::as_slice);
            let has = |prefix: &str| files.iter().any(|file| name_of(file).starts_with(prefix));
            // Unpacked artifacts, and what older versions keep of Inductor's, are directories.
            let unpacked = below(&directories, directory).next().is_some();
            let is_prefix = has("cache_key_factors.json") || has("computation_graph.py") || has("artifact");
            if is_prefix && !(has("vllm_compile_cache.py") && (has("artifact") || unpacked)) {
                hits.add(directory);
            }
        }
    }
    hits.report(
        findings,
        Severity::Warning,
        INCOMPLETE,
        |_| "nothing compiled lies here that vLLM would find; it compiles again".to_owned(),
        "let the engine answer a request before it is stopped, then pack; or remove these directories",
    );
}

/// The directories below `directory`, of all that there are.
fn below<'a>(directories: &'a [&'a str], directory: &str) -> impl Iterator<Item = &'a str> {
    let start = format!("{directory}/");
    let first = directories.partition_point(|other| *other < start.as_str());
    directories[first..].iter().take_while(move |other| other.starts_with(&start)).copied()
}

fn libraries(view: &View<'_>, findings: &mut Vec<Finding>) {
    let mut hits = Hits::default();
    for file in &view.tree.files {
        let (directory, name) = split(&file.path);
        // Other `.cpp` try out what the compiler can, and may well have failed.
        let lacks = match name.strip_suffix(".main.cpp") {
            Some(key) => view.file(directory, &format!("{key}.main.so")).is_none(),
            None => {
                view.tree.kind == Kind::FlashInfer
                    && name == "build.ninja"
                    && view.file(directory, &format!("{}.so", split(directory).1)).is_none()
            }
        };
        if lacks {
            hits.add(&file.path);
        }
    }
    hits.report(
        findings,
        Severity::Warning,
        LIBRARIES,
        |_| {
            "the library of this source is missing; it is built again, for which the image needs a compiler"
                .to_owned()
        },
        "make the cache anew and wait until the engine is ready before it is stopped",
    );
}
