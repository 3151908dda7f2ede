//! The files that a rule found something in: the first, how many, and a few words of them. Must not know rules.

use std::collections::BTreeSet;

use super::{Finding, Severity};

/// Most things that a reason names.
const NAMED_MAX: usize = 5;
/// Longest name that a reason repeats, in characters.
const NAME_MAX: usize = 200;

/// Files that a rule found something in.
#[derive(Debug, Default)]
pub(super) struct Hits {
    first: Option<String>,
    files: usize,
    named: BTreeSet<String>,
    more: bool,
}

impl Hits {
    /// Counts a file.
    pub(super) fn add(&mut self, path: &str) {
        self.first.get_or_insert_with(|| path.to_owned());
        self.files += 1;
    }

    /// Counts a file whose name must not be told.
    pub(super) fn add_unnamed(&mut self) {
        self.files += 1;
    }

    /// Keeps a word of what was found, unless there are enough.
    pub(super) fn name(&mut self, name: &str) {
        let name: String = name
            .chars()
            .take(NAME_MAX)
            .map(|letter| if letter.is_control() { '?' } else { letter })
            .collect();
        if self.named.len() < NAMED_MAX {
            self.named.insert(name);
        } else if !self.named.contains(&name) {
            self.more = true;
        }
    }

    /// The words, for a reason.
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.named.iter().map(String::as_str).collect();
        names.join(", ") + if self.more { " and others" } else { "" }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// A finding, unless there were no files.
    pub(super) fn report(
        self,
        findings: &mut Vec<Finding>,
        severity: Severity,
        rule: &'static str,
        reason: impl FnOnce(&Self) -> String,
        remedy: &str,
    ) {
        if !self.is_empty() {
            let reason = reason(&self);
            let remedy = remedy.to_owned();
            findings.push(Finding { severity, rule, path: self.first, files: self.files, reason, remedy });
        }
    }
}
