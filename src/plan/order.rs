//! The order in which engines read small files, as far as it is known without a recording.
//!
//! Evidence: a trace of vLLM 0.32 with its default loader: configuration, tokenizer, chat template, generation
//! configuration, then the shard index and the shards in natural order.

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

#[cfg(test)]
mod tests {
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
}
