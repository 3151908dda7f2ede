//! `starcar cache inspect`

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    source::{Source, SourceArguments},
    text::{findings_text, identity_text},
};
use crate::{
    cli::{
        CliError,
        output::{self, count, escaped, size},
    },
    compile_cache::{CacheRecord, Examined, identity::Identity, lint::Finding},
};

/// Show what compile caches are good for, and what will break when they are moved
///
/// Nothing in a cache is run or unpickled.
#[derive(Debug, Args)]
pub(super) struct InspectArguments {
    #[command(flatten)]
    source: SourceArguments,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = FormatArgument::Text)]
    format: FormatArgument,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Text,
    Json,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    caches: Vec<CacheDocument<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CacheDocument<'a> {
    name: &'a str,
    kind: &'static str,
    /// Where it was read from, or where it lies below the model's directory.
    place: String,
    /// Where it will be at run time.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a str>,
    target: Option<String>,
    files: u64,
    size: u64,
    identity: &'a Identity,
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<&'a [Finding]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<Vec<LeftOutDocument<'a>>>,
}

#[derive(Serialize)]
struct LeftOutDocument<'a> {
    path: &'a str,
    reason: &'a str,
}

pub(super) fn run(arguments: &InspectArguments) -> Result<(), CliError> {
    let source = arguments.source.open()?;
    let (image, variant, caches) = match &source {
        Source::Local(examined) => (None, None, examined.iter().map(of_local).collect()),
        Source::Image { name, caches } => {
            let documents: Vec<CacheDocument<'_>> = caches.records.iter().map(of_image).collect();
            (Some(name.as_str()), caches.variant.as_deref(), documents)
        }
    };
    let document = Document { image, variant, caches };
    match arguments.format {
        FormatArgument::Text => output::data(&text(&document)),
        FormatArgument::Json => output::json(&document),
    }
}

fn of_local(examined: &Examined) -> CacheDocument<'_> {
    let tree = &examined.tree;
    let left_out = tree
        .left_out
        .iter()
        .map(|entry| LeftOutDocument { path: &entry.path, reason: &entry.reason })
        .collect();
    CacheDocument {
        name: &tree.name,
        kind: tree.kind.name(),
        place: tree.origin.display().to_string(),
        at: None,
        target: examined.target(),
        files: tree.files.len() as u64,
        size: examined.size(),
        identity: &examined.identity,
        findings: Some(&examined.findings),
        left_out: Some(left_out),
    }
}

fn of_image(record: &CacheRecord) -> CacheDocument<'_> {
    CacheDocument {
        name: &record.name,
        kind: record.kind.name(),
        place: record.directory.clone(),
        at: Some(&record.at),
        target: record.target.clone(),
        files: record.files,
        size: record.size,
        identity: &record.identity,
        findings: None,
        left_out: None,
    }
}

/// Things left out that are named before they are only counted.
const LEFT_OUT_SHOWN: usize = 5;

fn text(document: &Document<'_>) -> String {
    let mut text = String::new();
    for cache in &document.caches {
        let _ = writeln!(
            text,
            "{}: {} cache, {}, {}",
            escaped(&cache.place),
            cache.kind,
            count(usize::try_from(cache.files).unwrap_or(usize::MAX), "file"),
            size(cache.size)
        );
        if let Some(at) = cache.at {
            let _ = writeln!(text, "  at run time in {}", escaped(at));
        }
        text.push_str(&identity_text(cache.identity));
        text.push_str(&findings_text(cache.findings.unwrap_or_default()));
        let left_out = cache.left_out.as_deref().unwrap_or_default();
        for entry in left_out.iter().take(LEFT_OUT_SHOWN) {
            let _ = writeln!(text, "  left out {}: {}", escaped(entry.path), escaped(entry.reason));
        }
        if left_out.len() > LEFT_OUT_SHOWN {
            let _ = writeln!(text, "  left out {} more", left_out.len() - LEFT_OUT_SHOWN);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_escaped() {
        let identity = Identity::default();
        let cache = CacheDocument {
            name: "x",
            kind: "triton",
            place: "/a\u{1b}[2J".to_owned(),
            at: Some("/b\nfit"),
            target: None,
            files: 1,
            size: 1,
            identity: &identity,
            findings: None,
            left_out: Some(vec![LeftOutDocument { path: "c\u{7}", reason: "d\re" }]),
        };
        let text = text(&Document { image: None, variant: None, caches: vec![cache] });
        for shown in ["/a\\u{1b}[2J: triton cache", "in /b\\nfit\n", "left out c\\u{7}: d\\re\n"] {
            assert!(text.contains(shown), "{text:?}");
        }
    }
}
