//! FlashInfer's workspace: ninja decides whether a library is built again, by absolute paths and its own records
//! (`flashinfer/jit/cpp_ext.py`). Must not know other caches.

use super::{
    Finding, Severity,
    hits::Hits,
    rules::{FLASHINFER, NINJA},
    view::{View, name_of, split},
};
use crate::compile_cache::{CacheError, Kind, flashinfer_base};

pub(super) fn lint(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), CacheError> {
    if view.tree.kind != Kind::FlashInfer {
        return Ok(());
    }
    let mut hits = Hits::default();
    let builds: Vec<_> = view.tree.files.iter().filter(|file| name_of(file) == "build.ninja").collect();
    for file in &builds {
        let directory = split(&file.path).0;
        let built = view.file(directory, &format!("{}.so", split(directory).1)).is_some();
        // Older versions run ninja one directory further up.
        let recorded = |record| [directory, split(directory).0].iter().any(|place| view.has(place, record));
        if built && !(recorded(".ninja_log") && recorded(".ninja_deps")) {
            hits.add(&file.path);
        }
    }
    hits.report(
        findings,
        Severity::Warning,
        NINJA,
        |_| {
            "ninja's records (.ninja_log, .ninja_deps) are missing; FlashInfer builds again at every start"
                .to_owned()
        },
        "copy the workspace with its hidden files",
    );
    let base = match flashinfer_base(view.tree) {
        Ok(base) => base,
        // Another rule says so.
        Err(CacheError::Changed { .. }) => None,
        Err(error) => return Err(error),
    };
    let Some(first) = builds.first() else { return Ok(()) };
    let (reason, remedy) = match base {
        Some(base) => (
            format!(
                "FlashInfer builds again unless its workspace lies at {base} and its sources and CUDA lie where \
                 they lay, with the times that they had"
            ),
            format!("restore it to {base} with FLASHINFER_WORKSPACE_BASE={base}, in the image that made it"),
        ),
        None => (
            "where this workspace lay is not known; at another place FlashInfer builds again".to_owned(),
            "make the cache at the place where it will be".to_owned(),
        ),
    };
    findings.push(Finding {
        severity: Severity::Note,
        rule: FLASHINFER,
        path: Some(first.path.clone()),
        files: builds.len(),
        reason,
        remedy,
    });
    Ok(())
}
