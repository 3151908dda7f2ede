//! How a pod gets an image's compile caches to where the engine can write to them. An init container copies them: it
//! runs in the model's image, where a shell is, so that the engine's needs none and no mount has to be there yet.
//! Must not know kinds of objects.

use std::collections::BTreeSet;

use super::{DeployError, facts::Facts};
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

/// The step for the caches of `facts`; `None` where there is none.
pub(super) fn step(facts: &Facts, at: Option<&str>) -> Result<Option<CacheStep>, DeployError> {
    if facts.caches.is_empty() {
        return Ok(None);
    }
    let contract = |mounted_at| Contract { records: &facts.caches, mounted_at, at };
    let own = contract(facts.model_directory.as_str());
    let mut roots = BTreeSet::new();
    for record in &facts.caches {
        let place = own.place(record);
        let root = if record.kind == Kind::FlashInfer { place.clone() } else { room(&place).to_owned() };
        let model = [MOUNTED_AT_DEFAULT, facts.model_directory.as_str()];
        let below = |whole: &str| place == whole || place.starts_with(&format!("{whole}/"));
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
