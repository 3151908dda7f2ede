//! Which files of a snapshot are packed: the user's globs and the default rules, as pure functions of
//! paths. Must not read files.
//!
//! Order of decisions, first that applies:
//!
//! 1. Housekeeping ([`HOUSEKEEPING`]) is left out, unless an `--include` glob spells the name that the rule
//!    matches as one of its own `/`-separated parts (`--include .gitattributes`). A mere `--include '*'`
//!    therefore does not pack `.git/`.
//! 2. OCI layouts (directories with `oci-layout`, `index.json` and something in `blobs/`) are left out, unless an
//!    `--include` glob spells the directory's name in that way.
//! 3. `--exclude` always wins over `--include`.
//! 4. With any `--include`, only files that one of them matches are packed, and rule 5 does not apply: who
//!    names files gets them.
//! 5. Copies of weights in another format ([`DUPLICATES`]) are left out where the weights themselves are
//!    packed. What the user excluded is not packed, so `--exclude '*.safetensors'` brings `*.bin` back.
//!
//! Globs match the whole path inside the snapshot, `*` also matches `/`, and a trailing `/` means all that
//! lies below, as in `allow_patterns` of `huggingface_hub` (`filter_repo_objects`).

use std::collections::{BTreeMap, BTreeSet};

use globset::GlobSet;

use super::{
    SnapshotOptions,
    error::SnapshotError,
    names::{NamedFormat, is_main_set, weight_name},
    report::{LeftOutReason, Warning},
    rules::{DUPLICATES, DuplicateRule, HOUSEKEEPING, HousekeepingRule, Original},
};

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
    housekeeping: Vec<(GlobSet, &'static HousekeepingRule)>,
    duplicates: Vec<(GlobSet, &'static DuplicateRule)>,
}

struct UserGlob {
    text: String,
    matcher: GlobSet,
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
        (!self.names(name)).then_some(LeftOutReason::Housekeeping { pattern: rule.pattern, why: rule.why })
    }

    /// Whether an `--include` glob spells `name` as one of its parts.
    fn names(&self, name: &str) -> bool {
        self.include.iter().any(|glob| glob.text.split('/').any(|part| part == name))
    }

    /// Decides every path (files only, `/`-separated). Paths are decided together because copies are copies
    /// of one another.
    pub(super) fn decide<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, Decision> {
        let paths: Vec<&str> = paths.into_iter().collect();
        let layouts = oci_layouts(&paths);
        let mut decisions: BTreeMap<_, _> =
            paths.into_iter().map(|path| (path, self.decide_alone(path, &layouts))).collect();
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

    fn decide_alone(&self, path: &str, layouts: &BTreeSet<&str>) -> Decision {
        let mut start = 0;
        while let Some(length) = path[start..].find('/') {
            let (directory, name) = (&path[..start + length], &path[start..start + length]);
            if let Some(reason) = self.housekeeping(name, true) {
                return Decision::LeaveOutDirectory(directory.to_owned(), reason);
            }
            if layouts.contains(directory) && !self.names(name) {
                return Decision::LeaveOutDirectory(directory.to_owned(), LeftOutReason::OciLayout);
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

fn compile(glob: &str) -> Result<GlobSet, SnapshotError> {
    crate::glob::matcher(glob, false)
        .map_err(|source| SnapshotError::InvalidGlob { glob: glob.to_owned(), source })
}

fn duplicate_reason(rule: &DuplicateRule, kept: &str) -> LeftOutReason {
    LeftOutReason::Duplicate { pattern: rule.pattern, why: rule.why, kept: kept.to_owned() }
}

/// The directory (empty for the root) and the name of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The directories, below the root, that are OCI layouts with something in them.
///
/// Source: OCI image specification, "Image Layout".
fn oci_layouts<'a>(paths: &[&'a str]) -> BTreeSet<&'a str> {
    let holding = |wanted: &str| -> BTreeSet<&'a str> {
        paths
            .iter()
            .map(|path| split(path))
            .filter(|(_, name)| *name == wanted)
            .map(|(inside, _)| inside)
            .collect()
    };
    let mut layouts = holding("oci-layout");
    // The snapshot itself is what was asked for, whatever it looks like.
    layouts.remove("");
    if layouts.is_empty() {
        return layouts;
    }
    let indexes = holding("index.json");
    layouts.retain(|directory| {
        let has_blobs =
            |path: &&str| path.strip_prefix(directory).is_some_and(|inside| inside.starts_with("/blobs/"));
        indexes.contains(directory) && paths.iter().any(has_blobs)
    });
    layouts
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filters(include: &[&str], exclude: &[&str]) -> Filters {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        let (include, exclude) = (owned(include), owned(exclude));
        Filters::new(&SnapshotOptions { include, exclude, ..Default::default() }).unwrap()
    }

    fn kept<'a>(filters: &Filters, paths: &[&'a str]) -> Vec<&'a str> {
        let decisions = filters.decide(paths.iter().copied());
        decisions
            .into_iter()
            .filter(|(_, decision)| *decision == Decision::Keep)
            .map(|(path, _)| path)
            .collect()
    }

    #[test]
    fn housekeeping_is_left_out_at_any_depth() {
        let filters = filters(&[], &[]);
        let paths = [
            ".cache/huggingface/x",
            ".gitattributes",
            ".git/config",
            "sub/.git/config",
            "model.lock",
            "a/b.incomplete",
            "config.json~",
            ".config.json.swp",
            "sub/__pycache__/m.pyc",
            "xet/chunk",
            ".DS_Store",
        ];
        assert_eq!(kept(&filters, &paths), Vec::<&str>::new());
        let names = ["a.cache", "cache/x", "git", "xet", "modeling.py", "a.locked", "__pycache__"];
        assert_eq!(kept(&filters, &names).len(), names.len());
    }

    #[test]
    fn copies_of_safetensors_are_left_out() {
        let filters = filters(&[], &[]);
        let copies = [
            "pytorch_model.bin",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model.bin.index.json",
            "consolidated.00.pth",
            "consolidated.safetensors",
            "consolidated.safetensors.index.json",
            "original/consolidated.00.pth",
            "original/tokenizer.model",
            "onnx/model.onnx",
            "openvino/openvino_model.bin",
            "tf_model.h5",
            "flax_model.msgpack",
            "flax_model.msgpack.index.json",
            "rust_model.ot",
            "x-q4.gguf",
            "model.pt",
        ];
        let mut paths = copies.to_vec();
        paths.extend(["model.safetensors", "config.json"]);
        assert_eq!(kept(&filters, &paths), ["config.json", "model.safetensors"]);
        // Without safetensors none of them is a copy.
        let others: Vec<_> = copies.into_iter().filter(|path| !path.contains("safetensors")).collect();
        assert_eq!(kept(&filters, &others).len(), others.len());
    }

    #[test]
    fn what_is_no_copy_stays() {
        let filters = filters(&[], &[]);
        for paths in [
            // Another variant, another directory, another set, an adapter beside full weights.
            &["model.safetensors", "pytorch_model.fp16.bin"][..],
            &["model.safetensors", "voices/af.pt"],
            &["model.safetensors", "speakers.pth"],
            &["adapter_model.safetensors", "pytorch_model.bin"],
            &["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin"],
            &["vae.safetensors", "unet-q4.gguf"],
            &["tf_model.safetensors"],
            &["consolidated.safetensors", "params.json"],
        ] {
            assert_eq!(kept(&filters, paths).len(), paths.len(), "{paths:?}");
        }
        let pair = ["unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"];
        assert_eq!(kept(&filters, &pair), ["unet/diffusion_pytorch_model.safetensors"]);
    }

    #[test]
    fn excluded_safetensors_bring_torch_back() {
        let paths = ["model.safetensors", "pytorch_model.bin"];
        assert_eq!(kept(&filters(&[], &["*.safetensors"]), &paths), ["pytorch_model.bin"]);
    }

    #[test]
    fn includes_override_copies_but_not_housekeeping() {
        let paths = [".git/x", ".gitattributes", "a/b.bin", "model.safetensors", "pytorch_model.bin"];
        assert_eq!(kept(&filters(&["*"], &[]), &paths), paths[2..]);
        assert_eq!(kept(&filters(&["*.bin"], &["a/"]), &paths), ["pytorch_model.bin"]);
        assert_eq!(kept(&filters(&[".gitattributes"], &[]), &paths), [".gitattributes"]);
        assert_eq!(kept(&filters(&[".git/"], &[]), &paths), [".git/x"]);
    }

    #[test]
    fn layouts_are_left_out_unless_they_are_named() {
        let layout = ["image/blobs/sha256/ab", "image/index.json", "image/oci-layout"];
        let model = ["model.safetensors", "sub/index.json", "sub/oci-layout", "x/blobs/a", "x/oci-layout"];
        let paths = [&layout[..], &model[..]].concat();
        assert_eq!(kept(&filters(&[], &[]), &paths), model);
        assert_eq!(kept(&filters(&["*"], &[]), &paths), model);
        assert_eq!(kept(&filters(&["image/*"], &[]), &paths), layout);
        assert_eq!(kept(&filters(&["image/"], &["*/blobs/*"]), &paths), layout[1..]);
        // One in a directory of the model, and the snapshot itself.
        let inner = ["a/image/blobs/sha256/ab", "a/image/index.json", "a/image/oci-layout", "a/x"];
        assert_eq!(kept(&filters(&[], &[]), &inner), ["a/x"]);
        assert_eq!(kept(&filters(&[], &[]), &["blobs/sha256/ab", "index.json", "oci-layout"]).len(), 3);
        let decisions = filters(&[], &[]).decide(inner);
        assert_eq!(
            decisions["a/image/blobs/sha256/ab"],
            Decision::LeaveOutDirectory("a/image".to_owned(), LeftOutReason::OciLayout)
        );
    }

    #[test]
    fn reasons_name_the_rule_and_what_is_kept() {
        let filters = filters(&[], &[]);
        let decisions =
            filters.decide(["original/params.json", "model.safetensors", "consolidated.safetensors"]);
        let Decision::LeaveOutDirectory(directory, reason) = &decisions["original/params.json"] else {
            panic!("{decisions:?}");
        };
        assert_eq!(directory, "original");
        assert_eq!(
            reason.to_string(),
            "the same weights in the original authors' format (`original/`); `model.safetensors` is packed; \
             --include packs it all the same"
        );
    }

    #[test]
    fn an_invalid_glob_is_named() {
        let options = SnapshotOptions { include: vec!["[".to_owned()], ..Default::default() };
        let error = Filters::new(&options).err().unwrap().to_string();
        assert!(error.starts_with("`[` is no valid glob"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn globs_and_paths_never_panic(
            globs in proptest::collection::vec(r"[a-z*?\[\]{}/.!\\,-]{0,8}", 0..4),
            paths in proptest::collection::vec("[a-z./é-]{1,12}", 0..6),
        ) {
            let options = SnapshotOptions { exclude: globs, ..Default::default() };
            if let Ok(filters) = Filters::new(&options) {
                let decisions = filters.decide(paths.iter().map(String::as_str));
                prop_assert!(paths.iter().all(|path| decisions.contains_key(path.as_str())));
            }
        }

        #[test]
        fn a_copy_is_left_out_only_beside_a_kept_file(
            paths in proptest::collection::btree_set(
                "(original/|onnx/|unet/)?(pytorch_model|model|consolidated|tf_model|adapter_model)(\\.fp16)?\
                 (-0000[12]-of-00002)?\\.(bin|pth|safetensors|gguf|h5)",
                0..12,
            ),
        ) {
            let filters = filters(&[], &[]);
            let decisions = filters.decide(paths.iter().map(String::as_str));
            for (path, decision) in &decisions {
                if let Decision::LeaveOut(LeftOutReason::Duplicate { kept, .. })
                | Decision::LeaveOutDirectory(_, LeftOutReason::Duplicate { kept, .. }) = decision
                {
                    prop_assert_eq!(&decisions[kept.as_str()], &Decision::Keep, "{} for {}", kept, path);
                }
            }
        }
    }
}
