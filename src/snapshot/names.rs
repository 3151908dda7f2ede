//! What the name of a weight file tells: its format, the set it belongs to, its place in a series of
//! shards. Must not read files.
//!
//! Sources: transformers `utils/__init__.py` (`SAFE_WEIGHTS_INDEX_NAME`, `_add_variant`) and diffusers
//! `utils/constants.py`, `utils/hub_utils.py` for variants (`model.fp16.safetensors`,
//! `model.safetensors.index.fp16.json`, `model.fp16-00001-of-00002.safetensors`).

/// The format that a file name claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NamedFormat {
    Safetensors,
    Torch,
    Gguf,
    /// TensorFlow, Flax, ONNX and other formats that are not packed beside safetensors.
    Other,
}

/// One file of a shard series, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShardNumber<'a> {
    /// The digits of the total, as written.
    pub(super) total: &'a str,
    /// What comes before the number.
    pub(super) before: &'a str,
    /// What comes after the total.
    pub(super) after: &'a str,
}

/// A weight file's or shard index's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WeightName {
    /// The format that its extension claims.
    pub(super) format: NamedFormat,
    /// The set of weights: the name without format, shard number and `pytorch_`, so that
    /// `pytorch_model-00001-of-00002.bin` and `model.safetensors` are of one set, while variants such as
    /// `model.fp16` are others.
    pub(super) set: String,
    /// Whether it is the index of a sharded set.
    pub(super) index: bool,
}

/// Extensions of weights.
const EXTENSIONS: &[(&str, NamedFormat)] = &[
    (".safetensors", NamedFormat::Safetensors),
    (".bin", NamedFormat::Torch),
    (".pth", NamedFormat::Torch),
    (".pt", NamedFormat::Torch),
    (".ckpt", NamedFormat::Torch),
    (".gguf", NamedFormat::Gguf),
    (".h5", NamedFormat::Other),
    (".msgpack", NamedFormat::Other),
    (".ot", NamedFormat::Other),
    (".onnx", NamedFormat::Other),
    (".npz", NamedFormat::Other),
];

/// Takes a file name (no directories) apart; `None` where it is not the name of weights.
pub(super) fn weight_name(name: &str) -> Option<WeightName> {
    let (stem, variant) = match name.strip_suffix(".json") {
        Some(rest) => match rest.strip_suffix(".index") {
            Some(stem) => (stem, Some("")),
            None => rest.rsplit_once(".index.").map(|(stem, variant)| (stem, Some(variant)))?,
        },
        None => (name, None),
    };
    let (stem, format) = EXTENSIONS
        .iter()
        .find_map(|(extension, format)| stem.strip_suffix(extension).map(|stem| (stem, *format)))?;
    if stem.is_empty() {
        return None;
    }
    let mut set = match shard_number(stem) {
        Some(number) => format!("{}{}", number.before, number.after),
        None => stem.to_owned(),
    };
    set = set.replace("pytorch_model", "model");
    if let Some(variant) = variant.filter(|variant| !variant.is_empty()) {
        set = format!("{set}.{variant}");
    }
    Some(WeightName { format, set, index: variant.is_some() })
}

/// Finds `-00001-of-00004` in a name, with at least two digits each.
pub(super) fn shard_number(name: &str) -> Option<ShardNumber<'_>> {
    let middle = name.rfind("-of-")?;
    let digits_before = name[..middle].bytes().rev().take_while(u8::is_ascii_digit).count();
    let total_start = middle + "-of-".len();
    let digits_after = name[total_start..].bytes().take_while(u8::is_ascii_digit).count();
    if digits_before < 2 || digits_after != digits_before {
        return None;
    }
    let before = name[..middle - digits_before].strip_suffix('-')?;
    let (total, after) = name[total_start..].split_at(digits_after);
    Some(ShardNumber { total, before, after })
}

impl ShardNumber<'_> {
    /// The names of the whole series; `None` when the total is zero or beyond any model
    /// ([`MAX_SERIES`]).
    pub(super) fn series(&self) -> Option<impl Iterator<Item = String> + '_> {
        let total: usize = self.total.parse().ok().filter(|total| (1..=MAX_SERIES).contains(total))?;
        let width = self.total.len();
        Some(
            (1..=total).map(move |number| {
                format!("{}-{number:0width$}-of-{}{}", self.before, self.total, self.after)
            }),
        )
    }
}

/// Most shards of one series; the largest public models have a few hundred.
const MAX_SERIES: usize = 99_999;

/// Whether `set` is the name of a model's main weights, of which other formats are copies, rather than of
/// an adapter or a part.
pub(super) fn is_main_set(set: &str) -> bool {
    let base = set.split_once('.').map_or(set, |(base, _)| base);
    matches!(base, "model" | "consolidated") || (base.ends_with("_model") && !base.starts_with("adapter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        use NamedFormat::{Gguf, Other, Safetensors, Torch};
        for (name, format, set, index) in [
            ("model.safetensors", Safetensors, "model", false),
            ("model-00001-of-00004.safetensors", Safetensors, "model", false),
            ("model.safetensors.index.json", Safetensors, "model", true),
            ("model.safetensors.index.fp16.json", Safetensors, "model.fp16", true),
            ("model.fp16-00001-of-00002.safetensors", Safetensors, "model.fp16", false),
            ("model-00001-of-00002.fp16.safetensors", Safetensors, "model.fp16", false),
            ("pytorch_model.bin", Torch, "model", false),
            ("pytorch_model-00001-of-00002.bin", Torch, "model", false),
            ("pytorch_model.bin.index.json", Torch, "model", true),
            ("diffusion_pytorch_model.bin", Torch, "diffusion_model", false),
            ("diffusion_pytorch_model.safetensors", Safetensors, "diffusion_model", false),
            ("tf_model.h5", Other, "tf_model", false),
            ("tf_model.h5.index.json", Other, "tf_model", true),
            ("x-q4-00001-of-00003.gguf", Gguf, "x-q4", false),
        ] {
            let parsed = weight_name(name);
            assert_eq!(parsed, Some(WeightName { format, set: set.to_owned(), index }), "{name}");
        }
        for name in ["config.json", "index.json", "tokenizer.model", ".bin", "a.index.json", "modelbin", ""] {
            assert_eq!(weight_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_series_is_counted() {
        let number = shard_number("model-00001-of-00002.safetensors").unwrap();
        let series: Vec<_> = number.series().unwrap().collect();
        assert_eq!(series, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
        for name in ["a-1-of-2.bin", "state-of-the-art.bin", "00001-of-00002", "a-001-of-00002", "-of-"] {
            assert!(shard_number(name).is_none(), "{name}");
        }
        assert!(shard_number("m-00000-of-00000.bin").unwrap().series().is_none());
        assert!(shard_number("m-1111111111-of-9999999999.bin").unwrap().series().is_none());
    }

    #[test]
    fn adapters_and_parts_are_not_main_weights() {
        for set in ["model", "model.fp16", "diffusion_model", "consolidated", "consolidated.00"] {
            assert!(is_main_set(set), "{set}");
        }
        for set in ["adapter_model", "vae", "embeddings", "remodel"] {
            assert!(!is_main_set(set), "{set}");
        }
    }
}
