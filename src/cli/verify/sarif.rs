//! The answer as a SARIF log.
//!
//! Source: OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0".

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::verify::{Finding, Rule, Verification, rules};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// The log of one run. Files are named by their paths in the image, what is about a whole layer or the image by the
/// image's name: viewers want every result to have a place.
pub(super) fn log(verification: &Verification) -> Value {
    let all: Vec<&Rule> = rules::all().collect();
    let described: Vec<Value> = all
        .iter()
        .map(|rule| {
            json!({
                "id": rule.code,
                "shortDescription": { "text": rule.description },
                "fullDescription": { "text": format!("{}.", rule.consequence) },
                "help": { "text": rule.remedy },
                "defaultConfiguration": { "level": rule.severity.name() },
                "properties": { "depth": rule.depth, "breaks": rule.breaks },
            })
        })
        .collect();
    let results: Vec<Value> =
        verification.findings.iter().map(|finding| result(verification, &all, finding)).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": env!("CARGO_PKG_NAME"),
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": described,
            }},
            "columnKind": "unicodeCodePoints",
            "properties": { "image": verification.image, "digest": verification.digest },
            "results": results,
        }],
    })
}

fn result(verification: &Verification, all: &[&Rule], finding: &Finding) -> Value {
    let place = &finding.place;
    let named = place.file.as_deref().unwrap_or(&verification.image);
    let mut location = json!({ "artifactLocation": { "uri": percent_encoded(named) } });
    if let (Some(_), Some(offset)) = (&place.file, place.offset) {
        location["region"] = json!({ "byteOffset": offset, "byteLength": 0 });
    }
    let mut result = json!({
        "ruleId": finding.rule.code,
        "level": finding.severity.name(),
        "message": { "text": format!("{place}: {}", finding.message) },
        "locations": [{
            "physicalLocation": location,
            "logicalLocations": [{ "fullyQualifiedName": place.to_string() }],
        }],
        "properties": place,
    });
    if let Some(index) = all.iter().position(|rule| *rule == finding.rule) {
        result["ruleIndex"] = json!(index);
    }
    result
}

/// `path` as a relative reference (RFC 3986): a colon in its first part would make a scheme of it.
fn percent_encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().fold(String::new(), |mut text, byte| {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_references() {
        assert_eq!(percent_encoded("models/a b:c"), "models/a%20b%3Ac");
        assert_eq!(percent_encoded("é"), "%C3%A9");
    }
}
