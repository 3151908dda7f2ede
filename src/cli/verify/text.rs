//! The answer in words and tables.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::{
    cli::output::{count, escaped, size, table},
    verify::{Finding, Severity, Verdict, Verification},
};

/// Reasons of a verdict that are told; the findings below have them all.
const REASONS_SHOWN: usize = 2;

pub(super) fn text(verification: &Verification) -> String {
    let mut text = head(verification);
    text.push('\n');
    text.push_str(&table(&verdicts(&verification.verdicts)));
    let mut explained = BTreeSet::new();
    for finding in &verification.findings {
        text.push('\n');
        text.push_str(&finding_text(finding, explained.insert(finding.rule.code)));
    }
    text.push('\n');
    text.push_str(&summary(&verification.findings));
    text.push('\n');
    text
}

fn head(verification: &Verification) -> String {
    let digest = verification.digest.map_or_else(|| "unknown".to_owned(), |digest| digest.to_string());
    let mut rows = vec![
        ["image".to_owned(), escaped(&verification.image).into_owned()],
        ["digest".to_owned(), digest],
        ["layers".to_owned(), format!("{}, {}", verification.layers.len(), size(verification.size))],
        ["read".to_owned(), read(verification)],
    ];
    rows.extend(verification.platforms.iter().map(|image| {
        let digest = image.digest.map_or_else(|| "unknown".to_owned(), |digest| digest.to_string());
        let layers = format!("{}, {}", count(image.layers.len(), "layer"), size(image.size));
        [escaped(&image.platform).into_owned(), format!("{digest}, {layers}")]
    }));
    table(&rows.into_iter().map(Vec::from).collect::<Vec<_>>())
}

/// What was read: `quick: 11 requests, 4.1 KiB (0.3 % of the image)`.
fn read(verification: &Verification) -> String {
    let requests = usize::try_from(verification.requests).unwrap_or(usize::MAX);
    let thousandths =
        verification.bytes.saturating_mul(1000).checked_div(verification.size).unwrap_or_default();
    format!(
        "{}: {}, {} ({}.{} % of the layers' size)",
        verification.depth.name(),
        count(requests, "request"),
        size(verification.bytes),
        thousandths / 10,
        thousandths % 10
    )
}

fn verdicts(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let mut rows = vec![["use", "works", ""].map(str::to_owned).to_vec()];
    for verdict in verdicts {
        let mut why: Vec<String> = verdict.reasons.iter().take(REASONS_SHOWN).cloned().collect();
        let more = verdict.reasons.len().saturating_sub(REASONS_SHOWN);
        if more > 0 {
            why.push(format!("and {more} more"));
        }
        let why = escaped(&why.join("; ")).into_owned();
        rows.push(vec![verdict.way.name().to_owned(), verdict.works.name().to_owned(), why]);
    }
    rows
}

/// A finding; what follows from it and what to do is told where its rule comes first.
pub(super) fn finding_text(finding: &Finding, is_first: bool) -> String {
    let mut text = format!(
        "{}[{}] {}: {}\n",
        finding.severity.name(),
        finding.rule.code,
        finding.place,
        escaped(&finding.message)
    );
    if is_first {
        let _ = writeln!(text, "  {}.\n  fix: {}", finding.rule.consequence, finding.rule.remedy);
    }
    text
}

pub(super) fn summary(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing found".to_owned();
    }
    let counts = [Severity::Error, Severity::Warning, Severity::Note].map(|wanted| {
        let found = findings.iter().filter(|finding| finding.severity == wanted).count();
        (found, wanted.name())
    });
    let counts = counts.iter().filter(|(found, _)| *found > 0);
    counts.map(|(found, name)| count(*found, name)).collect::<Vec<_>>().join(", ")
}
