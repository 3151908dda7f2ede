//! The licence that a model card names, in SPDX's words. A model card may hold anything: what is taken of it is bounded.
//!
//! Source: Hugging Face hub documentation, "Licenses" and "Model cards"; SPDX licence list.

use serde::{Deserialize, Serialize};

/// Lines of front matter that are looked at.
const LINES_MAX: usize = 2_000;
/// Licences that are taken of a list.
const LICENCES_MAX: usize = 16;
/// Longest value that is taken, in bytes.
const VALUE_MAX: usize = 200;

/// What the hub calls licences of SPDX's list, and what SPDX does, sorted by the first.
const KNOWN: [(&str, &str); 54] = [
    ("afl-3.0", "AFL-3.0"),
    // The hub does not say whether later versions are allowed too, so none is claimed to be.
    ("agpl-3.0", "AGPL-3.0-only"),
    ("apache-2.0", "Apache-2.0"),
    ("artistic-2.0", "Artistic-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-3-clause-clear", "BSD-3-Clause-Clear"),
    ("bsl-1.0", "BSL-1.0"),
    ("c-uda", "C-UDA-1.0"),
    ("cc-by-2.0", "CC-BY-2.0"),
    ("cc-by-2.5", "CC-BY-2.5"),
    ("cc-by-3.0", "CC-BY-3.0"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-nc-2.0", "CC-BY-NC-2.0"),
    ("cc-by-nc-3.0", "CC-BY-NC-3.0"),
    ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
    ("cc-by-nc-nd-3.0", "CC-BY-NC-ND-3.0"),
    ("cc-by-nc-nd-4.0", "CC-BY-NC-ND-4.0"),
    ("cc-by-nc-sa-2.0", "CC-BY-NC-SA-2.0"),
    ("cc-by-nc-sa-3.0", "CC-BY-NC-SA-3.0"),
    ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"),
    ("cc-by-nd-4.0", "CC-BY-ND-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("cdla-permissive-1.0", "CDLA-Permissive-1.0"),
    ("cdla-permissive-2.0", "CDLA-Permissive-2.0"),
    ("cdla-sharing-1.0", "CDLA-Sharing-1.0"),
    ("ecl-2.0", "ECL-2.0"),
    ("epl-1.0", "EPL-1.0"),
    ("epl-2.0", "EPL-2.0"),
    ("etalab-2.0", "etalab-2.0"),
    ("eupl-1.1", "EUPL-1.1"),
    ("eupl-1.2", "EUPL-1.2"),
    ("gpl-2.0", "GPL-2.0-only"),
    ("gpl-3.0", "GPL-3.0-only"),
    ("isc", "ISC"),
    ("lgpl-2.1", "LGPL-2.1-only"),
    ("lgpl-3.0", "LGPL-3.0-only"),
    ("lgpl-lr", "LGPLLR"),
    ("lppl-1.3c", "LPPL-1.3c"),
    ("mit", "MIT"),
    ("mpl-2.0", "MPL-2.0"),
    ("ms-pl", "MS-PL"),
    ("ncsa", "NCSA"),
    ("odbl", "ODbL-1.0"),
    ("odc-by", "ODC-By-1.0"),
    ("ofl-1.1", "OFL-1.1"),
    ("osl-3.0", "OSL-3.0"),
    ("pddl", "PDDL-1.0"),
    ("postgresql", "PostgreSQL"),
    ("unlicense", "Unlicense"),
    ("wtfpl", "WTFPL"),
    ("zlib", "Zlib"),
];

/// What a model card says of the licence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Licence {
    /// An expression of SPDX's identifiers; of several licences all apply.
    pub expression: String,
    /// Identifiers in it that are not on SPDX's list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<LicenceReference>,
}

/// A licence that is not on SPDX's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LicenceReference {
    /// Its identifier, `LicenseRef-…`.
    pub id: String,
    /// What the model card calls it.
    pub name: String,
    /// Where the model card says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

impl Licence {
    /// Reads the front matter of a model card, its text up to the end of that; `None` where it names no licence.
    pub fn of_model_card(card: &str) -> Option<Self> {
        let front = FrontMatter::read(card)?;
        let mut names: Vec<&str> = Vec::new();
        for name in &front.licences {
            if !name.is_empty() && *name != "unknown" && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let mut references: Vec<LicenceReference> = Vec::new();
        let mut expression: Vec<String> = Vec::new();
        for name in names {
            let found = KNOWN.binary_search_by_key(&name, |(hub, _)| hub).ok();
            if let Some((_, id)) = found.and_then(|found| KNOWN.get(found)) {
                expression.push((*id).to_owned());
                continue;
            }
            // `other` has its name beside it.
            let name = if name == "other" { front.name.as_deref().unwrap_or(name) } else { name };
            let id = format!("LicenseRef-{}", id_of(name));
            if references.iter().all(|reference| reference.id != id) {
                expression.push(id.clone());
                references.push(LicenceReference { id, name: name.to_owned(), link: front.link.clone() });
            }
        }
        (!expression.is_empty()).then(|| Self { expression: expression.join(" AND "), references })
    }
}

/// A name as the end of a licence's identifier, which has letters, digits, dots and hyphens.
///
/// Source: SPDX 2.3, clause 10.1.
fn id_of(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-');
    let id: String = name.chars().map(|letter| if plain(letter) { letter } else { '-' }).collect();
    if id.chars().any(|letter| letter.is_ascii_alphanumeric()) { id } else { "unnamed".to_owned() }
}

/// The keys of a model card's front matter that are about its licence.
#[derive(Debug, Default)]
struct FrontMatter {
    licences: Vec<String>,
    name: Option<String>,
    link: Option<String>,
}

impl FrontMatter {
    /// Not all of YAML: keys at the start of a line, texts on the same line or in a list, as the hub writes them.
    fn read(card: &str) -> Option<Self> {
        let mut lines = card.trim_start_matches('\u{feff}').lines().map(str::trim_end);
        if lines.next()? != "---" {
            return None;
        }
        let mut front = Self::default();
        let mut in_list = false;
        for line in lines.take(LINES_MAX) {
            if line == "---" {
                return Some(front);
            }
            if in_list && let Some(item) = line.trim_start().strip_prefix("- ") {
                front.licence(item);
                continue;
            }
            in_list = in_list && line.is_empty();
            let Some((key, value)) = line.split_once(':') else { continue };
            match (key, value.trim()) {
                ("license", "") => in_list = true,
                ("license", list) if list.starts_with('[') => {
                    list.trim_matches(['[', ']']).split(',').for_each(|item| front.licence(item));
                }
                ("license", value) => front.licence(value),
                ("license_name", value) => front.name = scalar(value),
                ("license_link", value) => front.link = scalar(value),
                _ => {}
            }
        }
        // A front matter that does not end is none.
        None
    }

    fn licence(&mut self, text: &str) {
        if self.licences.len() < LICENCES_MAX {
            self.licences.extend(scalar(text).map(|name| name.to_ascii_lowercase()));
        }
    }
}

/// A text of YAML on one line, without quotes and comment.
fn scalar(text: &str) -> Option<String> {
    let text = text.trim();
    let text = match text.chars().next()? {
        quote @ ('"' | '\'') => text.get(1..)?.split(quote).next()?,
        _ => text.split(" #").next()?.trim_end(),
    };
    let is_plain = !text.is_empty() && text.len() <= VALUE_MAX && !text.chars().any(char::is_control);
    is_plain.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(front: &str) -> Option<String> {
        Licence::of_model_card(&format!("---\n{front}\n---\n# Model\nlicense: mit\n"))
            .map(|licence| licence.expression)
    }

    #[test]
    fn the_table_can_be_searched() {
        assert!(KNOWN.is_sorted_by_key(|(hub, _)| hub));
        assert!(KNOWN.iter().all(|(hub, _)| *hub == hub.to_ascii_lowercase()));
    }

    #[test]
    fn licences_of_model_cards() {
        for (front, expected) in [
            ("license: apache-2.0", Some("Apache-2.0")),
            ("tags:\n- license: x\nlicense: 'MIT' # yes", Some("MIT")),
            ("license:\n- mit\n- apache-2.0\n- mit\ntags:\n- gpl-3.0", Some("MIT AND Apache-2.0")),
            ("license:\n\n  - mit\nlanguage: en", Some("MIT")),
            ("license: [mit, \"isc\"]", Some("MIT AND ISC")),
            ("license: llama3.1", Some("LicenseRef-llama3.1")),
            ("license: other\nlicense_name: My Own, 2\nlicense_link: LICENSE", Some("LicenseRef-My-Own--2")),
            ("license: other", Some("LicenseRef-other")),
            ("license: \u{1f600}", Some("LicenseRef-unnamed")),
            ("license: unknown", None),
            ("license: \"", None),
            ("license: ", None),
            ("licence: mit", None),
            ("  license: mit", None),
        ] {
            assert_eq!(expression(front).as_deref(), expected, "{front}");
        }
        let other = "---\nlicense: other\nlicense_name: x\nlicense_link: https://example.com/x\n---";
        let licence = Licence::of_model_card(other).unwrap();
        assert_eq!(licence.references[0].link.as_deref(), Some("https://example.com/x"));
    }

    #[test]
    fn what_is_no_front_matter_is_none() {
        for card in
            ["", "license: mit", "---\nlicense: mit", "--- \r\nlicense: mit\r\n", "----\nlicense: mit\n---"]
        {
            assert_eq!(Licence::of_model_card(card), None, "{card}");
        }
        let windows = "\u{feff}---\r\nlicense: mit\r\n---\r\n";
        assert_eq!(Licence::of_model_card(windows).unwrap().expression, "MIT");
        let long = format!("---\nlicense: {}\n---\n", "x".repeat(1_000));
        assert_eq!(Licence::of_model_card(&long), None);
    }
}
