//! What a look at a node says: facts, findings, each of a rule, and what could not be seen. Must not know how they come
//! about.

use serde::{Serialize, Serializer};

pub use crate::verify::Severity;

/// Something that can be missing on a node, or wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name: stable, in small letters and hyphens.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it finds, in one line.
    pub description: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
    /// What to do about it, where no finding says it better.
    pub remedy: &'static str,
}

/// Something that is missing on a node, or wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Finding {
    /// The rule; in documents its code.
    #[serde(rename = "code", serialize_with = "code")]
    pub rule: &'static Rule,
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at.
    pub looked_at: String,
    /// What was found there.
    pub found: String,
    /// What it breaks.
    pub breaks: &'static str,
    /// What to do: a line to run, or a setting to write.
    pub remedy: String,
}

fn code<S: Serializer>(rule: &Rule, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(rule.code)
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Fact {
    /// What was looked at.
    pub looked_at: String,
    /// What was found there.
    pub found: String,
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Unknown {
    /// What could not be looked at.
    pub looked_at: String,
    /// Why not.
    pub why: String,
    /// What is therefore not known.
    pub unknown: String,
}

/// All that was seen on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Report {
    /// The worst of the findings; nothing where there are none.
    pub worst: Option<Severity>,
    /// What is missing or wrong, in the order in which it was looked at.
    pub findings: Vec<Finding>,
    /// What could not be looked at. It is not known to be well.
    pub unknown: Vec<Unknown>,
    /// What was seen.
    pub facts: Vec<Fact>,
}

impl Report {
    /// Adds what a rule found, with the rule's own remedy.
    pub(super) fn find(
        &mut self,
        rule: &'static Rule,
        looked_at: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.find_with(rule, looked_at, found, rule.remedy);
    }

    /// Adds what a rule found.
    pub(super) fn find_with(
        &mut self,
        rule: &'static Rule,
        looked_at: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.worst = self.worst.max(Some(rule.severity));
        self.findings.push(Finding {
            rule,
            severity: rule.severity,
            looked_at: looked_at.into(),
            found: found.into(),
            breaks: rule.breaks,
            remedy: remedy.into(),
        });
    }

    /// Adds what was seen.
    pub(super) fn fact(&mut self, looked_at: impl Into<String>, found: impl Into<String>) {
        self.facts.push(Fact { looked_at: looked_at.into(), found: found.into() });
    }

    /// Adds what could not be looked at.
    pub(super) fn unknown(
        &mut self,
        looked_at: impl Into<String>,
        why: impl std::fmt::Display,
        unknown: impl Into<String>,
    ) {
        self.unknown.push(Unknown {
            looked_at: looked_at.into(),
            why: why.to_string(),
            unknown: unknown.into(),
        });
    }
}
