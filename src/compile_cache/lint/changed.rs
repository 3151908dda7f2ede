//! Files that changed since the cache was listed. Must not know what they hold.

use std::{fs, io};

use super::{Finding, Severity, hits::Hits, rules::CHANGED, view::View};
use crate::{blob::FileStamp, compile_cache::CacheError};

pub(super) fn lint(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), CacheError> {
    let mut hits = Hits::default();
    for file in &view.tree.files {
        let same = match fs::metadata(&file.source) {
            Ok(metadata) => FileStamp::of(&metadata).is_unchanged_since(&file.stamp),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => false,
            Err(cause) => return Err(CacheError::Read { path: file.source.clone(), cause }),
        };
        if !same {
            hits.add(&file.path);
        }
    }
    hits.report(
        findings,
        Severity::Error,
        CHANGED,
        |_| {
            "changed or vanished since the cache was first looked at: something still writes to it".to_owned()
        },
        "stop the engine and try again",
    );
    Ok(())
}
