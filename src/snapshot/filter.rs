//! Which files of a snapshot are packed: the user's globs and the default rules, as pure functions of
//! paths. Must not read files.
//!
//! Order of decisions, first that applies:
//!
//! 1. Housekeeping ([`HOUSEKEEPING`]) is left out, unless an `--include` glob spells the name that the rule
//!    matches as one of its own `/`-separated parts (`--include .gitattributes`). A mere `--include '*'`
//!    therefore does not pack `.git/`.
//! 2. `--exclude` always wins over `--include`.
//! 3. With any `--include`, only files that one of them matches are packed, and rule 4 does not apply: who
//!    names files gets them.
//! 4. Copies of weights in another format ([`DUPLICATES`]) are left out where the weights themselves are
//!    packed. What the user excluded is not packed, so `--exclude '*.safetensors'` brings `*.bin` back.
//!
//! Globs match the whole path inside the snapshot, `*` also matches `/`, and a trailing `/` means all that
//! lies below, as in `allow_patterns` of `huggingface_hub` (`filter_repo_objects`).

use std::collections::{BTreeMap, BTreeSet};

use globset::{Glob, GlobMatcher};

use super::{
    SnapshotOptions,
    error::SnapshotError,
    names::{NamedFormat, is_main_set, weight_name},
    report::{LeftOutReason, Warning},
};

/// A default rule about files that tools leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HousekeepingRule {
    /// Glob for one part of a path, at any depth; a trailing `/` restricts it to directories.
    pub pattern: &'static str,
    /// What such files are, in words.
    pub why: &'static str,
}

/// Files and directories that are never part of a model.
pub const HOUSEKEEPING: &[HousekeepingRule] = &[
    HousekeepingRule { pattern: ".cache/", why: "download records of huggingface_hub" },
    HousekeepingRule { pattern: ".git*", why: "git's own files" },
    HousekeepingRule { pattern: ".no_exist", why: "the hub cache's list of absent files" },
    HousekeepingRule { pattern: ".locks/", why: "the hub cache's locks" },
    HousekeepingRule { pattern: "xet/", why: "chunk cache of hf-xet" },
    HousekeepingRule { pattern: "lost+found/", why: "the file system's own directory" },
    HousekeepingRule { pattern: "*.lock", why: "a lock" },
    HousekeepingRule { pattern: "*.incomplete", why: "an unfinished download" },
    HousekeepingRule { pattern: "*~", why: "an editor's backup" },
    HousekeepingRule { pattern: ".*.sw[op]", why: "an editor's swap file" },
    HousekeepingRule { pattern: ".DS_Store", why: "a file manager's notes" },
    HousekeepingRule { pattern: "Thumbs.db", why: "a file manager's notes" },
    HousekeepingRule { pattern: ".idea/", why: "an editor's settings" },
    HousekeepingRule { pattern: ".vscode/", why: "an editor's settings" },
    HousekeepingRule { pattern: ".ipynb_checkpoints/", why: "a notebook's checkpoints" },
    HousekeepingRule { pattern: "__pycache__/", why: "compiled Python of the machine that ran it" },
];

/// What must be packed for a file to be a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Original {
    /// Safetensors of the same set of weights and variant in the same directory: `pytorch_model.fp16.bin`
    /// has `model.fp16.safetensors`.
    SameSet,
    /// Safetensors named `model*` in the same directory.
    Model,
    /// Safetensors of a model's main weights (`model*`, `*_model*` other than adapters, `consolidated*`) in
    /// the same directory, or for a directory in the one that holds it.
    MainWeights,
}

/// A default rule about weights that are there in another format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuplicateRule {
    /// Glob for a file's name, or with a trailing `/` for the name of a directory.
    pub pattern: &'static str,
    /// What must be packed for the rule to apply.
    pub original: Original,
    /// What such files are, in words.
    pub why: &'static str,
}

/// Copies of weights that are left out. Torch files (`*.bin` and so on) are copies only where their own set
/// is there as safetensors: a lone `speakers.pth` beside `model.safetensors` is not.
pub const DUPLICATES: &[DuplicateRule] = &[
    rule("consolidated*.pth", Original::MainWeights, "the same weights in the original authors' format"),
    rule("consolidated*.safetensors", Original::Model, "the same weights in Mistral's naming"),
    rule("consolidated*.safetensors.index*.json", Original::Model, "index of weights that are left out"),
    rule("flax_model*", Original::MainWeights, "the same weights for Flax"),
    rule("tf_model*", Original::MainWeights, "the same weights for TensorFlow"),
    rule("*.h5", Original::MainWeights, "the same weights for TensorFlow"),
    rule("*.msgpack", Original::MainWeights, "the same weights for Flax"),
    rule("*.ot", Original::MainWeights, "the same weights for rust-bert"),
    rule("*.gguf", Original::MainWeights, "the same weights for llama.cpp"),
    rule("openvino_model*", Original::MainWeights, "the same weights for OpenVINO"),
    rule("*.bin", Original::SameSet, "the same weights as pickled torch tensors"),
    rule("*.pth", Original::SameSet, "the same weights as pickled torch tensors"),
    rule("*.pt", Original::SameSet, "the same weights as pickled torch tensors"),
    rule("*.ckpt", Original::SameSet, "the same weights as pickled torch tensors"),
    rule("*.bin.index*.json", Original::SameSet, "index of weights that are left out"),
    rule("original/", Original::MainWeights, "the same weights in the original authors' format"),
    rule("onnx/", Original::MainWeights, "the same weights for ONNX"),
    rule("openvino/", Original::MainWeights, "the same weights for OpenVINO"),
];

const fn rule(pattern: &'static str, original: Original, why: &'static str) -> DuplicateRule {
    DuplicateRule { pattern, original, why }
}

/// What becomes of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    Keep,
    /// Left out alone.
    LeaveOut(LeftOutReason),
    /// Left out with the directory of this path (without a trailing `/`).
    LeaveOutDirectory(String, LeftOutReason),
}

/// The user's globs and the default rules, ready to match.
pub(super) struct Filters {
    include: Vec<UserGlob>,
    exclude: Vec<UserGlob>,
    housekeeping: Vec<(GlobMatcher, &'static HousekeepingRule)>,
    duplicates: Vec<(GlobMatcher, &'static DuplicateRule)>,
}

struct UserGlob {
    text: String,
    matcher: GlobMatcher,
}

impl Filters {
    /// Compiles the globs.
    pub(super) fn new(options: &SnapshotOptions) -> Result<Self, SnapshotError> {
        let user = |globs: &[String]| {
            globs
                .iter()
                .map(|text| {
                    let pattern = if text.ends_with('/') { format!("{text}*") } else { text.clone() };
                    Ok(UserGlob { text: text.clone(), matcher: compile(&pattern)? })
                })
                .collect::<Result<Vec<_>, SnapshotError>>()
        };
        Ok(Self {
            include: user(&options.include)?,
            exclude: user(&options.exclude)?,
            housekeeping: HOUSEKEEPING
                .iter()
                .map(|rule| Ok((compile(rule.pattern.trim_end_matches('/'))?, rule)))
                .collect::<Result<_, SnapshotError>>()?,
            duplicates: DUPLICATES
                .iter()
                .map(|rule| Ok((compile(rule.pattern.trim_end_matches('/'))?, rule)))
                .collect::<Result<_, SnapshotError>>()?,
        })
    }

    /// The rule that makes a file or directory of this name housekeeping, unless the user names it.
    pub(super) fn housekeeping(&self, name: &str, directory: bool) -> Option<LeftOutReason> {
        let rule = self.housekeeping.iter().find_map(|(matcher, rule)| {
            ((directory || !rule.pattern.ends_with('/')) && matcher.is_match(name)).then_some(*rule)
        })?;
        let named = self.include.iter().any(|glob| glob.text.split('/').any(|part| part == name));
        (!named).then_some(LeftOutReason::Housekeeping { pattern: rule.pattern, why: rule.why })
    }

    /// Decides every path (files only, `/`-separated). Paths are decided together because copies are copies
    /// of one another.
    pub(super) fn decide<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, Decision> {
        let mut decisions: BTreeMap<_, _> =
            paths.into_iter().map(|path| (path, self.decide_alone(path))).collect();
        if !self.include.is_empty() {
            return decisions;
        }
        let weights = Weights::of(
            decisions.iter().filter(|(_, decision)| **decision == Decision::Keep).map(|(path, _)| *path),
        );
        for (path, decision) in &mut decisions {
            if *decision == Decision::Keep
                && let Some(duplicate) = self.duplicate(path, &weights)
            {
                *decision = duplicate;
            }
        }
        decisions
    }

    fn decide_alone(&self, path: &str) -> Decision {
        let mut start = 0;
        while let Some(length) = path[start..].find('/') {
            if let Some(reason) = self.housekeeping(&path[start..start + length], true) {
                return Decision::LeaveOutDirectory(path[..start + length].to_owned(), reason);
            }
            start += length + 1;
        }
        if let Some(reason) = self.housekeeping(&path[start..], false) {
            return Decision::LeaveOut(reason);
        }
        if let Some(glob) = self.exclude.iter().find(|glob| glob.matcher.is_match(path)) {
            return Decision::LeaveOut(LeftOutReason::Excluded { glob: glob.text.clone() });
        }
        if !self.include.is_empty() && !self.include.iter().any(|glob| glob.matcher.is_match(path)) {
            return Decision::LeaveOut(LeftOutReason::NotIncluded);
        }
        Decision::Keep
    }

    fn duplicate(&self, path: &str, weights: &Weights<'_>) -> Option<Decision> {
        let (directory, name) = split(path);
        // The outermost directory first, so that all of it is one entry.
        let directories = path.match_indices('/').map(|(end, _)| &path[..end]);
        for inside in directories {
            let (parent, inside_name) = split(inside);
            for (matcher, rule) in &self.duplicates {
                if rule.pattern.ends_with('/')
                    && matcher.is_match(inside_name)
                    && let Some(kept) = weights.original(rule.original, parent, None)
                {
                    let reason = duplicate_reason(rule, kept);
                    return Some(Decision::LeaveOutDirectory(inside.to_owned(), reason));
                }
            }
        }
        self.duplicates.iter().find_map(|(matcher, rule)| {
            if rule.pattern.ends_with('/') || !matcher.is_match(name) {
                return None;
            }
            let weight = weight_name(name);
            // `tf_model.safetensors` must not be taken for a copy of itself.
            let safetensors = weight.as_ref().is_some_and(|name| name.format == NamedFormat::Safetensors);
            if safetensors && rule.original != Original::Model {
                return None;
            }
            let set = weight.map(|weight| weight.set);
            let kept = weights.original(rule.original, directory, set.as_deref())?;
            Some(Decision::LeaveOut(duplicate_reason(rule, kept)))
        })
    }

    /// A warning for each of the user's globs that matches none of `paths` (which include what was left
    /// out).
    pub(super) fn unused(&self, paths: &BTreeSet<&str>) -> Vec<Warning> {
        let unused = |option: &'static str, globs: &[UserGlob]| {
            globs
                .iter()
                .filter(|glob| !paths.iter().any(|path| glob.matcher.is_match(path)))
                .map(|glob| Warning::UnusedGlob { option, glob: glob.text.clone() })
                .collect::<Vec<_>>()
        };
        let mut warnings = unused("--include", &self.include);
        warnings.extend(unused("--exclude", &self.exclude));
        warnings
    }
}

fn compile(glob: &str) -> Result<GlobMatcher, SnapshotError> {
    Glob::new(glob)
        .map(|compiled| compiled.compile_matcher())
        .map_err(|source| SnapshotError::InvalidGlob { glob: glob.to_owned(), source })
}

fn duplicate_reason(rule: &DuplicateRule, kept: &str) -> LeftOutReason {
    LeftOutReason::Duplicate { pattern: rule.pattern, why: rule.why, kept: kept.to_owned() }
}

/// The directory (empty for the root) and the name of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn is_model_set(set: &str) -> bool {
    set == "model" || set.starts_with("model.")
}

/// The safetensors of a snapshot by directory, and one path of each set.
struct Weights<'a>(BTreeMap<&'a str, BTreeMap<String, &'a str>>);

impl<'a> Weights<'a> {
    fn of(paths: impl Iterator<Item = &'a str>) -> Self {
        let mut directories: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for path in paths {
            let (directory, name) = split(path);
            if let Some(weight) = weight_name(name)
                && weight.format == NamedFormat::Safetensors
                && !weight.index
            {
                directories.entry(directory).or_default().entry(weight.set).or_insert(path);
            }
        }
        // Left out itself, see the rules; it cannot be what is kept of others.
        for sets in directories.values_mut() {
            if sets.keys().any(|set| is_model_set(set)) {
                sets.retain(|set, _| !set.starts_with("consolidated"));
            }
        }
        Self(directories)
    }

    fn original(&self, original: Original, directory: &str, set: Option<&str>) -> Option<&'a str> {
        let sets = self.0.get(directory)?;
        let found =
            |test: &dyn Fn(&str) -> bool| sets.iter().find(|(name, _)| test(name)).map(|(_, path)| *path);
        match original {
            Original::SameSet => found(&|name| Some(name) == set),
            Original::Model => found(&is_model_set),
            Original::MainWeights => found(&is_main_set),
        }
    }
}
