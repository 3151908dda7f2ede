//! The compile caches of a pack: where each will be at run time, and how it lies in its layer.

use std::{collections::BTreeSet, path::PathBuf};

use super::{
    PackError, PackOptions,
    assign::{Assigned, Targeted, fits, share_a_platform, share_an_image},
    platforms::suits,
    survey,
};
use crate::{
    compile_cache::{
        CacheDirectory, CacheRecord, Examined, Kind, Relocated, directories_to_create, flashinfer_base,
        identical, is_plain_directory, relocate,
    },
    oci::Platform,
    plan::{PlanFile, PlanOptions, PlannedLayer, plan_cache},
    profile::{FileUse, Profile, Tree, resolve},
};

/// Directory below the model's that holds the caches.
pub(super) const CACHE_DIRECTORY: &str = "compile-cache";

/// Compile caches to pack.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// The caches.
    pub caches: Vec<CacheOption>,
    /// Absolute directory where they will be at run time.
    pub at: String,
    /// Whether warnings are errors.
    pub strict: bool,
}

/// A cache that the user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOption {
    /// The directory or file.
    pub path: PathBuf,
    /// What it is; `None` is to be found out.
    pub kind: Option<Kind>,
    /// The GPU target that it is for, as tags name it; `None` is to be found out.
    pub target: Option<String>,
}

/// A cache that can be packed.
#[derive(Debug)]
pub struct PreparedCache {
    /// The cache, and what is known of it.
    pub examined: Examined,
    /// What the image says of it.
    pub record: CacheRecord,
    /// What the planner was given: the cache's files.
    pub files: Vec<PlanFile>,
    /// Its layer.
    pub planned: PlannedLayer,
    /// Files whose content changes.
    pub(super) relocated: Vec<Relocated>,
    /// Directories that it does not have and needs.
    pub(super) created: Vec<CacheDirectory>,
    /// For each file the first that is the same.
    pub(super) same: Vec<Option<usize>>,
}

/// The caches of a pack, and which image gets which of them.
#[derive(Debug, Default)]
pub struct Caches {
    /// All of them.
    pub caches: Vec<PreparedCache>,
    /// Targets that get an image of their own, sorted; empty where one image has all caches.
    pub targets: Vec<String>,
}

impl Caches {
    /// Indices of the caches in the image for `target` on `platform`; `None` is the image that has no target.
    pub fn of_image(&self, target: Option<&str>, platform: &Platform) -> Vec<usize> {
        let all = (0..self.caches.len()).filter(|index| suits(&self.caches[*index].examined, platform));
        match target {
            None if self.targets.is_empty() => all.collect(),
            None => Vec::new(),
            Some(target) => {
                all.filter(|index| fits(self.caches[*index].record.target.as_deref(), target)).collect()
            }
        }
    }

    /// A word for each target and platform that none of the target's caches is for.
    pub(super) fn without(&self, platforms: &[Platform]) -> Vec<String> {
        let pairs =
            self.targets.iter().flat_map(|target| platforms.iter().map(move |platform| (target, platform)));
        pairs
            .filter(|(target, platform)| self.of_image(Some(target), platform).is_empty())
            .map(|(target, platform)| {
                format!(
                    "none of the compile caches for {target} is for {platform}, whose image has none of them"
                )
            })
            .collect()
    }
}

/// Prepares the caches that were examined.
pub(super) fn prepare(
    assigned: Assigned,
    options: &PackOptions,
    platforms: &[Platform],
    plan_options: &PlanOptions,
) -> Result<Caches, PackError> {
    let Assigned { caches: all, targets } = assigned;
    let mut caches: Vec<PreparedCache> = Vec::new();
    for Targeted { examined, target, .. } in all {
        let kind = examined.tree.kind;
        let target = target.filter(|_| !targets.is_empty());
        // Only caches that may be in one image need different names.
        let before = caches.iter().filter(|other| {
            let record = &other.record;
            record.kind == kind
                && share_an_image(record.target.as_deref(), target.as_deref())
                && share_a_platform(&other.examined, &examined, platforms)
        });
        let name = match before.count() {
            0 => kind.name().to_owned(),
            before => format!("{kind}-{}", before + 1),
        };
        caches.push(prepare_one(examined, name, target, options, plan_options)?);
    }
    Ok(Caches { caches, targets })
}

fn prepare_one(
    mut examined: Examined,
    name: String,
    target: Option<String>,
    options: &PackOptions,
    plan_options: &PlanOptions,
) -> Result<PreparedCache, PackError> {
    examined.tree.name.clone_from(&name);
    let tree = &examined.tree;
    let at = match flashinfer_base(tree)? {
        Some(base) => base,
        None => format!("{}/{name}", options.caches.at),
    };
    let relocated = relocate(tree, &at)?;
    let changed: Vec<usize> = relocated.iter().map(|file| file.index).collect();
    // A consumer that fetches plain tar layers may not follow hard links (KServe's does not).
    let same = if options.format.has_landmarks() {
        identical(tree, &changed)?
    } else {
        vec![None; tree.files.len()]
    };
    let usage = usage(&examined, options.profile.as_ref());
    let files = survey::survey_cache(&tree.files, usage, options.compression)?;
    // As the image has them: paths that were rewritten are longer or shorter than before.
    let size = relocated.iter().fold(examined.size(), |size, file| {
        let before = tree.files.get(file.index).map_or(0, |before| before.stamp.size);
        size.saturating_sub(before).saturating_add(file.content.len() as u64)
    });
    let planned = plan_cache(&files, plan_options);
    let record = CacheRecord {
        kind: tree.kind,
        directory: format!("{CACHE_DIRECTORY}/{name}"),
        at,
        files: tree.files.len() as u64,
        size,
        entries: tree.entries() as u64,
        keys: if tree.kind == Kind::Vllm { tree.keys() } else { Vec::new() },
        target,
        file: match (tree.kind, tree.files.as_slice()) {
            // A name that is more than a path has no place in a snippet.
            (Kind::Artifacts, [only]) if is_plain_directory(&format!("/{}", only.path)) => {
                Some(only.path.clone())
            }
            _ => None,
        },
        identity: examined.identity.clone(),
        name,
    };
    let created = directories_to_create(tree);
    Ok(PreparedCache { examined, record, files, planned, relocated, created, same })
}

/// A word about caches that the profile has and that are not packed under that name.
pub(super) fn unknown_to(profile: Option<&Profile>, caches: &Caches) -> Option<String> {
    if caches.caches.is_empty() {
        return None;
    }
    let mut recorded = recorded(profile?);
    for cache in &caches.caches {
        let tree = &cache.examined.tree;
        recorded.remove(tree.kind.name());
        for part in tree.origin.iter().filter_map(|part| part.to_str()) {
            recorded.remove(part);
        }
    }
    let names: Vec<&str> = recorded.into_iter().collect();
    (!names.is_empty()).then(|| {
        format!(
            "the profile has reads of caches that were recorded in {}; none of --cache lies in a directory of that \
             name, so that they order nothing",
            names.join(", ")
        )
    })
}

/// Names of the caches of a profile: their directories' when they were recorded.
fn recorded(profile: &Profile) -> BTreeSet<&str> {
    let trees = profile.accesses.iter().map(|access| &access.tree);
    trees.filter_map(|tree| if let Tree::Cache(name) = tree { Some(name.as_str()) } else { None }).collect()
}

/// What the profile says of the cache's files. A recording names a tree by its directory, which may be the cache or
/// hold it.
fn usage(examined: &Examined, profile: Option<&Profile>) -> Vec<Option<FileUse>> {
    let tree = &examined.tree;
    let none = || vec![None; tree.files.len()];
    let Some(profile) = profile else { return none() };
    let mut above = PathBuf::new();
    let mut names: Vec<(String, String)> = vec![(tree.kind.name().to_owned(), String::new())];
    for part in tree.origin.iter().rev() {
        let Some(part) = part.to_str() else { break };
        names.push((part.to_owned(), above.to_string_lossy().into_owned()));
        above =
            if above.as_os_str().is_empty() { PathBuf::from(part) } else { PathBuf::from(part).join(above) };
    }
    let recorded = recorded(profile);
    for (name, prefix) in names.into_iter().filter(|(name, _)| recorded.contains(name.as_str())) {
        let own: Vec<(String, u64)> = tree
            .files
            .iter()
            .map(|file| {
                let inner = file.path.strip_prefix(&tree.inner).unwrap_or(&file.path).trim_start_matches('/');
                let path = if prefix.is_empty() { inner.to_owned() } else { format!("{prefix}/{inner}") };
                (path, file.stamp.size)
            })
            .collect();
        let files: Vec<(&str, u64)> = own.iter().map(|(path, size)| (path.as_str(), *size)).collect();
        let uses = resolve(profile, &Tree::Cache(name), &files).uses;
        if uses.iter().any(Option::is_some) {
            return uses;
        }
    }
    none()
}
