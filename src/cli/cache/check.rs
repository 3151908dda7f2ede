//! `starcar cache check`

use std::{fmt::Write as _, path::PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    source::{Source, SourceArguments},
    text::NAMES,
};
use crate::{
    cli::{
        CliError, exit_code,
        output::{self, escaped, table},
        parse,
    },
    compile_cache::{
        Kind,
        check::{Comparison, Fit, Row, Verdict, check},
        host::HostFacts,
        identity::{Attribute, Identity},
    },
};

/// Check whether compile caches fit a GPU, an engine and its versions
///
/// Facts of the host are given, or, with none of --gpu, --torch, --triton, --vllm, --flashinfer, --python, --cuda
/// and --rocm, read from nvidia-smi and the Python environment. The exit code is 1 when a cache does not fit, and with
/// --strict when it is not known to fit, too.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    source: SourceArguments,

    /// The GPU: its name as nvidia-smi prints it, a short one (H100, T4), or its architecture (9.0, gfx942); cpu
    /// for none
    #[arg(long, value_name = "NAME", value_parser = given, help_heading = "Host")]
    gpu: Option<String>,
    /// Version of torch, as `torch.__version__` says it
    #[arg(long, value_name = "VERSION", value_parser = given, help_heading = "Host")]
    torch: Option<String>,
    /// Version of Triton
    #[arg(long, value_name = "VERSION", value_parser = given, help_heading = "Host")]
    triton: Option<String>,
    /// Version of vLLM
    #[arg(long, value_name = "VERSION", value_parser = given, help_heading = "Host")]
    vllm: Option<String>,
    /// Version of FlashInfer
    #[arg(long, value_name = "VERSION", value_parser = given, help_heading = "Host")]
    flashinfer: Option<String>,
    /// Version of Python
    #[arg(long, value_name = "VERSION", value_parser = given, help_heading = "Host")]
    python: Option<String>,
    /// Version of CUDA that torch was built with
    #[arg(long, value_name = "VERSION", value_parser = given, help_heading = "Host")]
    cuda: Option<String>,
    /// Version of `ROCm` that torch was built with
    #[arg(long, value_name = "VERSION", value_parser = given, help_heading = "Host")]
    rocm: Option<String>,
    /// Read facts that are not given from this machine, too
    #[arg(long, help_heading = "Host")]
    this_host: bool,
    /// The Python interpreter whose packages are read [default: python3]
    #[arg(long, value_name = "FILE", help_heading = "Host")]
    interpreter: Option<PathBuf>,

    /// Tensor-parallel size
    #[arg(long, value_name = "N", value_parser = parse::positive, help_heading = "Engine")]
    tp: Option<usize>,
    /// Data-parallel size
    #[arg(long, value_name = "N", value_parser = parse::positive, help_heading = "Engine")]
    dp: Option<usize>,
    /// The `--model` that the engine is started with
    #[arg(long, value_name = "PATH", value_parser = given, help_heading = "Engine")]
    model: Option<String>,

    /// Exit with 1 unless all that decides is known, of the caches and of the host, and the same
    ///
    /// A value that is known only in part, such as Python 3.12 beside 3.12.4, is not enough.
    #[arg(long)]
    strict: bool,
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
struct Document<'a> {
    fit: Fit,
    host: &'a HostFacts,
    caches: Vec<Checked>,
}

#[derive(Serialize)]
struct Checked {
    name: String,
    kind: Kind,
    #[serde(flatten)]
    verdict: Verdict,
}

/// A fact that is there: an empty one, of a variable that is not set in a script, would differ from everything.
fn given(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("expected a value, and it is empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// Checks, and returns the exit code.
pub(super) fn run(arguments: &CheckArguments) -> Result<u8, CliError> {
    let host = host(arguments)?;
    let one = |name: &str, kind: Kind, identity: &Identity| Checked {
        name: name.to_owned(),
        kind,
        verdict: check(identity, kind, &host),
    };
    let caches: Vec<Checked> = match arguments.source.open()? {
        Source::Local(examined) => {
            examined.iter().map(|one_of| one(&one_of.tree.name, one_of.tree.kind, &one_of.identity)).collect()
        }
        Source::Image { caches, .. } => {
            caches.records.iter().map(|record| one(&record.name, record.kind, &record.identity)).collect()
        }
    };
    let fit = caches.iter().map(|checked| checked.verdict.fit).max().unwrap_or(Fit::FitsAsFarAsKnown);
    let document = Document { fit, host: &host, caches };
    match arguments.format {
        FormatArgument::Text => {
            host.remarks.iter().for_each(|remark| output::words(&format!("note: {remark}")));
            output::data(&text(&document))?;
        }
        FormatArgument::Json => output::json(&document)?,
    }
    Ok(code(fit, arguments.strict))
}

fn code(fit: Fit, strict: bool) -> u8 {
    match fit {
        Fit::Fits => exit_code::OK,
        Fit::FitsAsFarAsKnown if !strict => exit_code::OK,
        Fit::FitsAsFarAsKnown | Fit::DoesNotFit => exit_code::UNFIT,
    }
}

fn host(arguments: &CheckArguments) -> Result<HostFacts, CliError> {
    let given = [
        (Attribute::Torch, &arguments.torch),
        (Attribute::Triton, &arguments.triton),
        (Attribute::EngineVersion, &arguments.vllm),
        (Attribute::FlashInfer, &arguments.flashinfer),
        (Attribute::Python, &arguments.python),
        (Attribute::Cuda, &arguments.cuda),
        (Attribute::Rocm, &arguments.rocm),
    ];
    // What is given may be about another machine, of which this one's facts say nothing.
    let none = arguments.gpu.is_none() && given.iter().all(|(_, value)| value.is_none());
    let mut host = if none || arguments.this_host || arguments.interpreter.is_some() {
        HostFacts::read(arguments.interpreter.as_deref())?
    } else {
        HostFacts::default()
    };
    if let Some(gpu) = &arguments.gpu {
        host.give_gpu(gpu)?;
    }
    for (attribute, value) in given {
        if let Some(value) = value {
            host.give(attribute, value);
        }
    }
    for (attribute, size) in
        [(Attribute::TensorParallel, arguments.tp), (Attribute::DataParallel, arguments.dp)]
    {
        if let Some(size) = size {
            host.give(attribute, size.to_string());
        }
    }
    if let Some(model) = &arguments.model {
        host.give(Attribute::Model, model);
    }
    Ok(host)
}

fn text(document: &Document<'_>) -> String {
    let mut text = String::new();
    for Checked { name, verdict, .. } in &document.caches {
        let _ = writeln!(text, "{} cache: {}", escaped(name), verdict.fit.text());
        let heading = ["", "cache", "host", ""].map(str::to_owned).to_vec();
        let rows = verdict.rows.iter().map(cells);
        text.push_str(&table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()));
        for row in verdict.rows.iter().filter(|row| row.result == Comparison::Differs) {
            let _ = writeln!(text, "  {}: {}", name_of(row.attribute), escaped(&row.reason));
            if !row.remedy.is_empty() {
                let _ = writeln!(text, "    {}", escaped(&row.remedy));
            }
        }
    }
    text
}

fn cells(row: &Row) -> Vec<String> {
    let cache = if row.cache.is_empty() { "unknown".to_owned() } else { row.cache.join(", ") };
    let host = match &row.host {
        Some(fact) => format!("{} ({})", fact.value, fact.source),
        None => "unknown".to_owned(),
    };
    let result = match row.result {
        Comparison::Same => "same",
        Comparison::SameAsFarAsKnown => "same as far as is known",
        Comparison::Unknown => "unknown",
        Comparison::Differs => "differs",
    };
    vec![format!("  {}", name_of(row.attribute)), cache, host, result.to_owned()]
}

fn name_of(attribute: Attribute) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == attribute).map_or("", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::compile_cache::identity::Evidence;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        arguments: CheckArguments,
    }

    #[test]
    fn empty_facts_are_refused() {
        for option in
            ["gpu", "torch", "triton", "vllm", "flashinfer", "python", "cuda", "rocm", "model", "interpreter"]
        {
            let option = format!("--{option}");
            assert!(Program::try_parse_from(["check", "/a", &option, ""]).is_err(), "{option}");
            let parsed = Program::try_parse_from(["check", "/a", &option, "x"]);
            assert!(parsed.is_ok(), "{option}");
        }
        assert!(Program::try_parse_from(["check", "/a", "--torch", " \t"]).is_err());
        let parsed = Program::try_parse_from(["check", "/a", "--gpu", " cpu ", "--strict"]).unwrap();
        assert_eq!((parsed.arguments.gpu.as_deref(), parsed.arguments.strict), (Some("cpu"), true));
    }

    #[test]
    fn exit_codes() {
        for (fit, plain, strict) in
            [(Fit::Fits, 0, 0), (Fit::FitsAsFarAsKnown, 0, 1), (Fit::DoesNotFit, 1, 1)]
        {
            assert_eq!((code(fit, false), code(fit, true)), (plain, strict), "{fit:?}");
        }
    }

    #[test]
    fn what_others_wrote_is_escaped() {
        let mut identity = Identity::default();
        let evidence = Evidence { path: String::new(), found: String::new(), offset: None };
        identity.add(Attribute::Model, "/m\u{1b}[2J", evidence);
        let mut host = HostFacts::default();
        host.give(Attribute::Model, "/n\u{7}");
        let verdict = check(&identity, Kind::Vllm, &host);
        let caches = vec![Checked { name: "v\rw".to_owned(), kind: Kind::Vllm, verdict }];
        let text = text(&Document { fit: Fit::DoesNotFit, host: &host, caches });
        assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text:?}");
        for shown in ["v\\rw cache", "/m\\u{1b}[2J", "/n\\u{7} (given)"] {
            assert!(text.contains(shown), "{text}");
        }
    }
}
