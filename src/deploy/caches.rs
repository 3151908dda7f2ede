//! How a pod gets an image's compile caches to where the engine can write to them. An init container copies them: it
//! runs in the model's image, where a shell is, so that the engine's needs none and no mount has to be there yet.
//! Must not know kinds of objects.

use std::{borrow::Cow, collections::BTreeSet};

use super::{
    DeployError,
    facts::Facts,
    options::{EngineKind, ObjectKind, Options},
};
use crate::compile_cache::{Contract, Kind, MOUNTED_AT_DEFAULT};

/// A directory of the engine's that a volume is mounted at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CacheMount {
    /// Name of the volume.
    pub(super) volume: String,
    /// The directory.
    pub(super) at: String,
}

/// The step before the engine's start, and what the engine is told.
#[derive(Debug, Clone)]
pub(super) struct CacheStep {
    /// For `sh`, where the model is in its own image.
    pub(super) script: String,
    /// For `sh`, where the model is mounted.
    pub(super) script_mounted: String,
    /// The engine's variables.
    pub(super) environment: Vec<(String, String)>,
    /// Where writable volumes are mounted, for both.
    pub(super) mounts: Vec<CacheMount>,
}

/// Directories that an engine needs as its image has them, with all below the first and only themselves of the others.
const NEEDED: [&str; 11] =
    ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/sys", "/dev", "/boot", "/run"];
const ROOMS: [&str; 6] = ["/mnt", "/opt", "/var", "/home", "/srv", "/tmp"];

/// A home that images keep from everybody but its user.
const HOME: &str = "/root";

/// `facts` with the caches that the engine can use: one that is not vLLM does not look at vLLM's. A custom engine may
/// be a vLLM, and what brings the image to nodes brings all of it.
pub(super) fn usable<'a>(facts: &'a Facts, options: &Options, warnings: &mut Vec<String>) -> Cow<'a, Facts> {
    let is_for = |kind: Kind| kind != Kind::Vllm || options.engine != EngineKind::Sglang;
    if options.kind == ObjectKind::Prepull || facts.caches.iter().all(|cache| is_for(cache.kind)) {
        return Cow::Borrowed(facts);
    }
    let (kept, others): (Vec<_>, Vec<_>) = facts.caches.iter().cloned().partition(|cache| is_for(cache.kind));
    let names: Vec<&str> = others.iter().map(|cache| cache.name.as_str()).collect();
    warnings.push(format!(
        "SGLang has no use for vLLM's compile caches: {} {} left where the image has {}",
        names.join(", "),
        if names.len() == 1 { "is" } else { "are" },
        if names.len() == 1 { "it" } else { "them" }
    ));
    Cow::Owned(Facts { caches: kept, ..facts.clone() })
}

/// The step for the caches of `facts`; `None` where there is none. `uid` is the engine's user.
pub(super) fn step(facts: &Facts, at: Option<&str>, uid: u64) -> Result<Option<CacheStep>, DeployError> {
    if facts.caches.is_empty() {
        return Ok(None);
    }
    let contract = |mounted_at| Contract { records: &facts.caches, mounted_at, at };
    let own = contract(facts.model_directory.as_str());
    let mut roots = BTreeSet::new();
    for record in &facts.caches {
        let place = own.place(record);
        let below = |whole: &str| place == whole || place.starts_with(&format!("{whole}/"));
        let root = if uid != 0 && below(HOME) {
            // Another user than root may not even enter it: what the volume hides there is of no use to it anyway.
            HOME.to_owned()
        } else if record.kind == Kind::FlashInfer {
            place.clone()
        } else {
            room(&place).to_owned()
        };
        let model = [MOUNTED_AT_DEFAULT, facts.model_directory.as_str()];
        let hides = |whole: &&str| *whole == root || whole.starts_with(&format!("{root}/"));
        if NEEDED.into_iter().any(below)
            || model.into_iter().any(below)
            || model.iter().any(hides)
            || ROOMS.contains(&root.as_str())
        {
            return Err(DeployError::CachePlace { cache: record.name.clone(), place });
        }
        roots.insert(root);
    }
    // A mount below another would make directories of root's in it.
    let outer: Vec<&String> = roots
        .iter()
        .filter(|root| !roots.iter().any(|other| root.starts_with(&format!("{other}/"))))
        .collect();
    let mounts = outer
        .iter()
        .enumerate()
        .map(|(index, at)| CacheMount {
            volume: if index == 0 {
                "compile-cache".to_owned()
            } else {
                format!("compile-cache-{}", index + 1)
            },
            at: (*at).clone(),
        })
        .collect();
    let script = |contract: Contract<'_>| {
        let text = contract.shell(&facts.image.pinned());
        // What the comments say is for whoever puts it before an engine's command.
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let mut script = lines.collect::<Vec<_>>().join("\n");
        script.push('\n');
        script
    };
    Ok(Some(CacheStep {
        script: script(own),
        script_mounted: script(contract(MOUNTED_AT_DEFAULT)),
        environment: own.variables().into_iter().map(|set| (set.name.to_owned(), set.value)).collect(),
        mounts,
    }))
}

/// The directory that a volume is mounted at for a cache at `place`: the one above, so that the cache's own directory
/// belongs to whoever copies it, where nothing else is likely to be in it.
fn room(place: &str) -> &str {
    match place.rsplit_once('/') {
        Some((above, _)) if above.matches('/').count() >= 2 => above,
        _ => place,
    }
}
