//! The order in which engines read small files, as far as it is known without a recording.
//!
//! Evidence: a trace of vLLM 0.32 with its default loader: configuration, tokenizer, chat template, generation
//! configuration, then the shard index and the shards in natural order.

use std::cmp::Ordering;

/// First path parts (or suffixes, with a leading `*`) in the order of first access.
const READ_FIRST: [&str; 18] = [
    "config.json",
    "params.json",
    "configuration_*",
    "tokenizer_config.json",
    "additional_chat_templates/",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "chat_template.",
    "special_tokens_map.json",
    "processor_config.json",
    "preprocessor_config.json",
    "generation_config.json",
    "modeling_*",
    "*.index.json",
];

/// Endings of files that people read and engines do not.
const FOR_PEOPLE: [&str; 10] =
    [".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".mp4", ".webp", ".ipynb"];

/// Names, without an ending, of files that people read.
const FOR_PEOPLE_NAMES: [&str; 5] = ["license", "notice", "use_policy", "readme", "copying"];

/// When an engine reads a small file: lower is earlier; the same number means that the order is not known.
pub(super) fn rank(path: &str) -> usize {
    let position = READ_FIRST.iter().position(|pattern| match pattern.strip_prefix('*') {
        Some(ending) => path.ends_with(ending),
        None => path.starts_with(pattern.trim_end_matches('*')),
    });
    match position {
        Some(position) => position,
        None if for_people(path) => READ_FIRST.len() + 1,
        None => READ_FIRST.len(),
    }
}

/// Whether an engine has no use for the file.
pub(super) fn for_people(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let name = lower.rsplit('/').next().unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    FOR_PEOPLE.iter().any(|ending| name.ends_with(ending)) || FOR_PEOPLE_NAMES.contains(&stem)
}

/// Compares paths as people count: `layers.2` before `layers.10`. Equal numbers with different leading zeros,
/// and everything else, compare bytewise.
pub fn natural_cmp(left: &str, right: &str) -> Ordering {
    let (mut a, mut b) = (left.as_bytes(), right.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (number_a, rest_a) = split_number(a);
                let (number_b, rest_b) = split_number(b);
                let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
                if order != Ordering::Equal {
                    return order;
                }
                (a, b) = (rest_a, rest_b);
            }
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (x, y) => return x.cmp(&y).then_with(|| left.cmp(right)),
        }
    }
}

/// The digits at the start, leading zeros dropped, and what follows them.
fn split_number(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    let (digits, rest) = bytes.split_at(end);
    let zeros = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    (&digits[zeros..], rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn engines_first_people_last() {
        let mut paths = [
            "README.md",
            "model.safetensors.index.json",
            "zz.json",
            "tokenizer.json",
            "LICENSE",
            "config.json",
            "chat_template.jinja",
            "aa.txt",
        ];
        paths.sort_by_key(|path| (rank(path), *path));
        assert_eq!(
            paths,
            [
                "config.json",
                "tokenizer.json",
                "chat_template.jinja",
                "model.safetensors.index.json",
                "aa.txt",
                "zz.json",
                "LICENSE",
                "README.md",
            ]
        );
    }

    #[test]
    fn numbers_count() {
        let mut shards = ["model-10.x", "model-2.x", "model-1.x", "model-02.x", "model.x"];
        shards.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(shards, ["model-1.x", "model-02.x", "model-2.x", "model-10.x", "model.x"]);
    }

    proptest! {
        #[test]
        fn natural_order_is_total(a in "[a0-2.]{0,6}", b in "[a0-2.]{0,6}", c in "[a0-2.]{0,6}") {
            prop_assert_eq!(natural_cmp(&a, &b), natural_cmp(&b, &a).reverse());
            prop_assert_eq!(natural_cmp(&a, &b) == Ordering::Equal, a == b);
            if natural_cmp(&a, &b) != Ordering::Greater && natural_cmp(&b, &c) != Ordering::Greater {
                prop_assert_ne!(natural_cmp(&a, &c), Ordering::Greater);
            }
        }
    }
}
