//! Compile caches in words.

use std::fmt::Write as _;

use crate::{
    cli::output::{count, escaped, size, table},
    compile_cache::{
        CacheRecord, Contract, MOUNTED_AT_DEFAULT,
        identity::{Attribute, Evidence, Identity},
        lint::{Finding, Severity},
    },
};

/// What `pack` says of the caches in an image: what they are, and what the serving side must do.
pub(in crate::cli) fn contract_text(records: &[CacheRecord], image: &str) -> String {
    let mut text = String::new();
    for record in records {
        let _ = writeln!(
            text,
            "{} cache: {}, {}{}",
            escaped(&record.name),
            count(usize::try_from(record.files).unwrap_or(usize::MAX), "file"),
            size(record.size),
            record.target.as_ref().map(|target| format!(", for {}", escaped(target))).unwrap_or_default(),
        );
    }
    text + &Contract { records, mounted_at: MOUNTED_AT_DEFAULT, at: None }.shell(image)
}

/// An identity as a table: attribute, values, and where the first of each was found. What matters and is not known
/// is said to be unknown.
pub(super) fn identity_text(identity: &Identity) -> String {
    let mut rows = Vec::new();
    for (attribute, name) in NAMES {
        let facts = identity.facts(attribute);
        let of_gpu = matches!(attribute, Attribute::GpuName | Attribute::Triton);
        let wanted = !(of_gpu && identity.only(Attribute::Backend) == Some("cpu"));
        if facts.is_empty() && wanted && EXPECTED.contains(&attribute) {
            rows.push(vec![format!("  {name}"), "unknown".to_owned()]);
        }
        for (index, fact) in facts.iter().enumerate() {
            let name = if index == 0 { format!("  {name}") } else { String::new() };
            rows.push(vec![
                name,
                shortened(&fact.value, VALUE_SHOWN),
                fact.evidence.first().map(evidence).unwrap_or_default(),
            ]);
        }
    }
    table(&rows)
}

/// Characters of a table's row that what was found may take; JSON has all of it.
const FOUND_SHOWN: usize = 60;
/// Characters that a value may take: as many as the longest names of GPUs.
const VALUE_SHOWN: usize = 44;

/// The beginning of a text, escaped before it is cut: an escape is longer than what it stands for.
fn shortened(text: &str, characters: usize) -> String {
    let text = escaped(text);
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

fn evidence(evidence: &Evidence) -> String {
    let found = shortened(&evidence.found, FOUND_SHOWN);
    // The last two parts tell a rank or a kernel; what is above is the same for all.
    let path = match evidence.path.rmatch_indices('/').nth(1) {
        Some((slash, _)) => format!("…{}", &evidence.path[slash..]),
        None => evidence.path.clone(),
    };
    match (path.is_empty(), evidence.offset) {
        (true, _) => String::new(),
        (false, Some(offset)) => format!("{found}  {path} byte {offset}"),
        (false, None) => format!("{found}  {path}"),
    }
}

/// What was found wrong, a line for each, with the rule's name, which the documentation explains.
pub(super) fn findings_text(findings: &[Finding]) -> String {
    let name = |severity| match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    findings.iter().fold(String::new(), |mut text, finding| {
        let (severity, rule) = (name(finding.severity), finding.rule);
        let _ = writeln!(text, "  {severity}[{rule}]: {}", escaped(&finding.to_string()));
        text
    })
}

/// All attributes in the order in which they are shown.
pub(super) const NAMES: [(Attribute, &str); 24] = [
    (Attribute::Backend, "backend"),
    (Attribute::Architecture, "architecture"),
    (Attribute::GpuName, "GPU"),
    (Attribute::Multiprocessors, "multiprocessors"),
    (Attribute::WarpSize, "warp size"),
    (Attribute::Ptx, "PTX"),
    (Attribute::Cuda, "CUDA"),
    (Attribute::Rocm, "ROCm"),
    (Attribute::Processor, "processor"),
    (Attribute::InstructionSet, "instruction set"),
    (Attribute::Python, "Python"),
    (Attribute::Torch, "torch"),
    (Attribute::Triton, "Triton"),
    (Attribute::Engine, "engine"),
    (Attribute::EngineVersion, "engine version"),
    (Attribute::FlashInfer, "FlashInfer"),
    (Attribute::Rank, "rank"),
    (Attribute::TensorParallel, "tensor-parallel size"),
    (Attribute::DataParallel, "data-parallel size"),
    (Attribute::DeviceIndex, "device index"),
    (Attribute::Model, "model"),
    (Attribute::Format, "format"),
    (Attribute::Key, "key"),
    (Attribute::KeyFactor, "key factor"),
];

/// Attributes that decide whether a cache is used.
const EXPECTED: [Attribute; 6] = [
    Attribute::Backend,
    Attribute::Architecture,
    Attribute::GpuName,
    Attribute::Python,
    Attribute::Torch,
    Attribute::Triton,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_name_their_rule_and_are_escaped() {
        let finding = Finding {
            severity: Severity::Warning,
            rule: "group-missing",
            path: Some("a\u{1b}[2J\nb".to_owned()),
            files: 1,
            reason: "a file is missing".to_owned(),
            remedy: String::new(),
        };
        assert_eq!(
            findings_text(&[finding]),
            "  warning[group-missing]: a file is missing (a\\u{1b}[2J\\nb)\n"
        );
    }

    #[test]
    fn identities_are_escaped() {
        let mut identity = Identity::default();
        let evidence =
            Evidence { path: "x/\u{1b}[31m/y".to_owned(), found: "\u{9b}2J".repeat(30), offset: None };
        identity.add(Attribute::Model, "模型\u{7}\r", evidence);
        let text = identity_text(&identity);
        assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text:?}");
        assert!(text.contains("模型\\u{7}\\r"), "{text}");
        assert!(text.contains("/\\u{1b}[31m/y"), "{text}");
    }
}
