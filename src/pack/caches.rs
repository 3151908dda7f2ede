//! The compile caches of a pack: which image gets which, where each will be at run time, how it lies in its layer.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{PackError, PackOptions, survey};
use crate::{
    compile_cache::{
        CacheDirectory, CacheRecord, Examined, Kind, Relocated, directories_to_create, examine,
        flashinfer_base, identical,
        identity::Attribute,
        is_plain_directory,
        lint::{self, Finding, Severity},
        relocate,
    },
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
    /// Indices of the caches in the image for `target`; `None` is the image that has no target.
    pub fn of_image(&self, target: Option<&str>) -> Vec<usize> {
        let all = 0..self.caches.len();
        match target {
            None if self.targets.is_empty() => all.collect(),
            None => Vec::new(),
            Some(target) => {
                all.filter(|index| fits(self.caches[*index].record.target.as_deref(), target)).collect()
            }
        }
    }
}

/// Whether a cache of a target belongs to the image for `target`. One that is for an architecture belongs to all
/// GPUs of it.
fn fits(cache: Option<&str>, target: &str) -> bool {
    cache.is_none_or(|cache| {
        cache == target || target.strip_prefix(cache).is_some_and(|rest| rest.starts_with('-'))
    })
}

fn share_an_image(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => fits(Some(one), other) || fits(Some(other), one),
        _ => true,
    }
}

/// A cache with its target.
pub(super) struct Targeted {
    pub(super) examined: Examined,
    target: Option<String>,
    /// Whether the user names the target.
    named: bool,
}

/// Caches, and the targets that get an image of their own.
pub(super) struct Assigned {
    pub(super) caches: Vec<Targeted>,
    targets: Vec<String>,
}

impl Assigned {
    /// Layers that the caches of the largest image take.
    pub(super) fn layers(&self) -> usize {
        let of = |target: &String| {
            self.caches.iter().filter(|cache| fits(cache.target.as_deref(), target)).count()
        };
        self.targets.iter().map(of).max().unwrap_or(self.caches.len())
    }
}

/// Examines the caches and assigns them to images.
pub(super) fn examine_all(options: &CacheOptions) -> Result<Assigned, PackError> {
    let mut all = Vec::new();
    for option in &options.caches {
        for mut examined in examine(&option.path, option.kind)? {
            examined.findings.extend(mislabelled(option, &examined));
            if options.strict {
                lint::strict(&mut examined.findings);
            }
            let errors = examined.findings.iter().filter(|finding| finding.severity == Severity::Error);
            let errors: Vec<Finding> = errors.cloned().collect();
            if !errors.is_empty() {
                return Err(PackError::CacheFindings {
                    path: examined.tree.origin.clone(),
                    findings: errors,
                });
            }
            let target = option.target.clone().or_else(|| examined.target());
            // `~` and `~/.cache` hold the same caches.
            let known = |other: &Targeted| {
                other.examined.tree.origin == examined.tree.origin && other.target == target
            };
            if all.iter().any(known) {
                continue;
            }
            all.push(Targeted { examined, target, named: option.target.is_some() });
        }
    }
    let targets = assign(&mut all)?;
    Ok(Assigned { caches: all, targets })
}

/// A word about a target that the user names and that the cache itself contradicts.
fn mislabelled(option: &CacheOption, examined: &Examined) -> Option<Finding> {
    let (named, own) = (option.target.as_deref()?, examined.target()?);
    let is_architecture = ["sm", "gfx", "cpu"].iter().any(|start| named.starts_with(start));
    (is_architecture && !fits(Some(&own), named)).then(|| Finding {
        severity: Severity::Warning,
        rule: "target",
        path: None,
        files: 0,
        reason: format!("the cache is named for {named}, and what is in it is for {own}"),
        remedy: format!("name it {}@{own}, or make one for {named}", examined.tree.kind),
    })
}

/// Which targets get an image of their own: all, when the user names any, or when there are several caches of one
/// kind, for then no image can have them all. Caches of one kind and architecture are told apart by the GPU's name. Caches
/// that nobody names, and that are the only ones of their kind, make no image: they go to those that they are for, or to
/// all, as code for processors does.
fn assign(caches: &mut [Targeted]) -> Result<Vec<String>, PackError> {
    let of_kind = |caches: &[Targeted]| {
        let mut of_kind: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
        for (index, cache) in caches.iter().enumerate() {
            // An engine reads one cache of each kind; other files may be any number.
            if cache.examined.tree.kind.variable().is_some() {
                of_kind.entry(cache.examined.tree.kind).or_default().push(index);
            }
        }
        of_kind.into_values().filter(|indices| indices.len() > 1).collect::<Vec<_>>()
    };
    let groups = of_kind(caches);
    if groups.is_empty() && !caches.iter().any(|cache| cache.named) {
        return Ok(Vec::new());
    }
    for group in &groups {
        let names: Vec<Option<String>> = group.iter().map(|index| caches[*index].target.clone()).collect();
        for (index, name) in group.iter().zip(&names) {
            let shared = name.is_some() && names.iter().filter(|other| *other == name).count() > 1;
            let gpu = caches[*index].examined.identity.only(Attribute::GpuName).map(slug);
            if let (true, Some(name), Some(gpu)) = (shared, name, gpu) {
                caches[*index].target = Some(format!("{name}-{gpu}"));
            }
        }
    }
    let grouped: BTreeSet<usize> = groups.iter().flatten().copied().collect();
    let decides = |index: usize, cache: &Targeted| cache.named || grouped.contains(&index);
    let deciding: BTreeSet<String> = caches
        .iter()
        .enumerate()
        .filter(|(index, cache)| decides(*index, cache))
        .filter_map(|(_, cache)| cache.target.clone())
        .collect();
    for (index, cache) in caches.iter_mut().enumerate() {
        let own = cache.target.as_deref();
        let known = deciding.iter().any(|target| share_an_image(own, Some(target)));
        if !decides(index, cache) && !known {
            cache.target = None;
        }
    }
    let distinct: BTreeSet<String> = caches.iter().filter_map(|cache| cache.target.clone()).collect();
    // An architecture has no image of its own where its GPUs have theirs.
    let targets: Vec<String> = distinct
        .iter()
        .filter(|target| !distinct.iter().any(|other| other != *target && fits(Some(target), other)))
        .cloned()
        .collect();
    for target in targets.iter().map(Some).chain(targets.is_empty().then_some(None)) {
        for group in &groups {
            let in_image =
                |index: &&usize| target.is_none_or(|target| fits(caches[**index].target.as_deref(), target));
            let mut clash = group.iter().filter(in_image);
            if let (Some(first), Some(second)) = (clash.next(), clash.next()) {
                return Err(PackError::CacheClash {
                    kind: caches[*first].examined.tree.kind,
                    first: caches[*first].examined.tree.origin.clone(),
                    second: caches[*second].examined.tree.origin.clone(),
                    target: target.cloned(),
                });
            }
        }
    }
    Ok(targets)
}

/// A GPU's name as a tag can hold it: `nvidia-h100-80gb-hbm3`.
fn slug(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let parts: Vec<&str> =
        lower.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

/// Prepares the caches that were examined.
pub(super) fn prepare(
    assigned: Assigned,
    options: &PackOptions,
    plan_options: &PlanOptions,
) -> Result<Caches, PackError> {
    let Assigned { caches: all, targets } = assigned;
    let mut caches: Vec<PreparedCache> = Vec::new();
    for Targeted { examined, target, .. } in all {
        let kind = examined.tree.kind;
        let target = target.filter(|_| !targets.is_empty());
        // Only caches that may be in one image need different names.
        let before = caches.iter().filter(|other| {
            let other = &other.record;
            other.kind == kind && share_an_image(other.target.as_deref(), target.as_deref())
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
    let planned = plan_cache(&files, plan_options);
    let record = CacheRecord {
        kind: tree.kind,
        directory: format!("{CACHE_DIRECTORY}/{name}"),
        at,
        files: tree.files.len() as u64,
        size: examined.size(),
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
