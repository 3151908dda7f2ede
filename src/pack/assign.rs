//! Which image gets which compile cache: by GPU target, each of which may have an image of its own, and by what the cache's
//! libraries are for. Must not know how caches lie in layers.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CacheOption, CacheOptions, PackError,
    platforms::{list, processors, suits},
};
use crate::{
    compile_cache::{
        Examined, Kind, examine,
        identity::Attribute,
        lint::{self, Finding, Severity},
    },
    oci::Platform,
};

/// Whether a cache of a target belongs to the image for `target`. One that is for an architecture belongs to all
/// GPUs of it.
pub(super) fn fits(cache: Option<&str>, target: &str) -> bool {
    cache.is_none_or(|cache| {
        cache == target || target.strip_prefix(cache).is_some_and(|rest| rest.starts_with('-'))
    })
}

/// Whether there may be an image for a GPU that has both of two caches, by their targets.
pub(super) fn share_an_image(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => fits(Some(one), other) || fits(Some(other), one),
        _ => true,
    }
}

/// A cache with its target.
pub(super) struct Targeted {
    pub(super) examined: Examined,
    pub(super) target: Option<String>,
    /// Whether the user names the target.
    named: bool,
}

/// Caches, and the targets that get an image of their own.
pub(super) struct Assigned {
    pub(super) caches: Vec<Targeted>,
    pub(super) targets: Vec<String>,
}

impl Assigned {
    /// Layers that the caches of the largest image take.
    pub(super) fn layers(&self, platforms: &[Platform]) -> usize {
        let of = |target: Option<&String>, platform: &Platform| {
            let in_image = |cache: &&Targeted| {
                suits(&cache.examined, platform)
                    && target.is_none_or(|target| fits(cache.target.as_deref(), target))
            };
            self.caches.iter().filter(in_image).count()
        };
        let targets = self.targets.iter().map(Some).chain(self.targets.is_empty().then_some(None));
        targets
            .flat_map(|target| platforms.iter().map(move |platform| of(target, platform)))
            .max()
            .unwrap_or_default()
    }
}

/// Refuses a cache for processors of none of the platforms: engines would try to load what is in it.
fn check_platform(examined: &Examined, platforms: &[Platform]) -> Result<(), PackError> {
    if platforms.iter().any(|platform| suits(examined, platform)) {
        return Ok(());
    }
    Err(PackError::CachePlatform {
        path: examined.tree.origin.clone(),
        processors: processors(&examined.identity).join(" and "),
        platforms: list(platforms),
    })
}

/// Whether two caches may be in one image, as far as processors go.
pub(super) fn share_a_platform(one: &Examined, other: &Examined, platforms: &[Platform]) -> bool {
    platforms.iter().any(|platform| suits(one, platform) && suits(other, platform))
}

/// Examines the caches and assigns them to images for `platforms`.
pub(super) fn examine_all(options: &CacheOptions, platforms: &[Platform]) -> Result<Assigned, PackError> {
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
            check_platform(&examined, platforms)?;
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
    let targets = assign(&mut all, platforms)?;
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
///
/// Caches that no platform has both of are not several.
fn assign(caches: &mut [Targeted], platforms: &[Platform]) -> Result<Vec<String>, PackError> {
    let of_kind = |caches: &[Targeted], platform: &Platform| {
        let mut of_kind: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
        for (index, cache) in caches.iter().enumerate() {
            // An engine reads one cache of each kind; other files may be any number.
            if cache.examined.tree.kind.variable().is_some() && suits(&cache.examined, platform) {
                of_kind.entry(cache.examined.tree.kind).or_default().push(index);
            }
        }
        of_kind.into_values().filter(|indices| indices.len() > 1).collect::<Vec<_>>()
    };
    let mut groups: Vec<Vec<usize>> =
        platforms.iter().flat_map(|platform| of_kind(caches, platform)).collect();
    groups.sort_by_key(|group| group.first().map(|index| caches[*index].examined.tree.kind));
    groups.dedup();
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
