//! All that can be wrong with an image: tables, so that documentation and outputs can quote them. Must not know how
//! it is found.

mod chunks;
mod deep;
mod documents;
mod image;
mod index;
mod rebuild;
mod source;
mod toc;

pub use self::{chunks::*, deep::*, documents::*, image::*, index::*, rebuild::*, source::*, toc::*};
use super::finding::{Depth, Rule, Severity, Use};

/// What breaks every use.
const EVERY: &[Use] = &Use::ALL;
/// What breaks lazy starts only.
const LAZY: &[Use] = &[Use::Lazy];
/// What breaks all of `KServe`'s modes.
const KSERVE: &[Use] = &[Use::Modelcar, Use::Native, Use::Fetch];
/// What breaks modelcar containers only.
const MODELCAR: &[Use] = &[Use::Modelcar];
/// What breaks `KServe`'s downloader only.
const FETCH: &[Use] = &[Use::Fetch];
/// What breaks no use in particular.
const NONE: &[Use] = &[];

/// The tables, in the order in which an image is looked at.
const TABLES: [&[&Rule]; 8] = [
    documents::DOCUMENTS_RULES,
    index::INDEX_RULES,
    toc::TOC_RULES,
    chunks::CHUNK_RULES,
    image::IMAGE_RULES,
    deep::DEEP_RULES,
    source::SOURCE_RULES,
    rebuild::REBUILD_RULES,
];

/// All rules.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    TABLES.into_iter().flatten().copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documentation_lists_every_rule() {
        let text = include_str!("../../../docs/verify.md");
        for rule in all() {
            let row = format!("| `{}` | {} | {} |", rule.code, rule.severity.name(), rule.depth.name());
            assert!(text.contains(&row) && text.contains(&format!("| {} |", rule.description)), "{row}");
        }
    }

    #[test]
    fn codes_are_unique_and_plain() {
        let mut seen = BTreeSet::new();
        for rule in all() {
            assert!(seen.insert(rule.code), "{} twice", rule.code);
            assert!(rule.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", rule.code);
            for text in [rule.description, rule.consequence, rule.remedy] {
                assert!(!text.is_empty() && !text.ends_with('.'), "{}: {text:?}", rule.code);
            }
        }
    }
}
