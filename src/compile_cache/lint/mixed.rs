//! What a cache's identity alone tells: several GPUs or versions, a device other than the first, an unknown GPU. Must not read a file.

use super::{
    Finding, Severity, ranks,
    rules::{DEVICE, GPU, MIXED},
    view::View,
};
use crate::compile_cache::{
    Kind,
    identity::{Attribute, Fact, Identity},
};

pub(super) fn lint(view: &View<'_>, findings: &mut Vec<Finding>) {
    for (attribute, what) in [
        (Attribute::Backend, "backends"),
        (Attribute::Architecture, "architectures"),
        (Attribute::GpuName, "GPUs"),
        (Attribute::Python, "versions of Python"),
        (Attribute::Torch, "versions of torch"),
        (Attribute::Triton, "versions of Triton"),
        (Attribute::Cuda, "versions of CUDA"),
        (Attribute::EngineVersion, "versions of the engine"),
        (Attribute::FlashInfer, "versions of FlashInfer"),
    ] {
        // FlashInfer builds one library for all architectures of a host.
        if !(view.tree.kind == Kind::FlashInfer && attribute == Attribute::Architecture) {
            findings.extend(mixed(view.identity, attribute, what));
        }
    }
    findings.extend(device(view));
    findings.extend(gpu(view));
}

fn finding(
    severity: Severity,
    rule: &'static str,
    fact: Option<&Fact>,
    reason: String,
    remedy: &str,
) -> Finding {
    let path = fact.and_then(|fact| fact.evidence.first()).map(|evidence| evidence.path.clone());
    Finding { severity, rule, files: usize::from(path.is_some()), path, reason, remedy: remedy.to_owned() }
}

fn mixed(identity: &Identity, attribute: Attribute, what: &str) -> Option<Finding> {
    let mut different: Vec<&Fact> = Vec::new();
    for fact in identity.facts(attribute).iter().filter(|fact| counts(attribute, &fact.value)) {
        match different.iter_mut().find(|known| agree(attribute, &known.value, &fact.value)) {
            // The more exact one will agree with fewer.
            Some(known) if known.value.len() < fact.value.len() => *known = fact,
            Some(_) => {}
            None => different.push(fact),
        }
    }
    let [_, second, ..] = different.as_slice() else { return None };
    let values: Vec<&str> = different.iter().map(|fact| fact.value.as_str()).collect();
    Some(finding(
        Severity::Warning,
        MIXED,
        Some(second),
        format!(
            "several {what} in one cache: {}; what is of the others is of no use to an engine",
            values.join(", ")
        ),
        "make the cache in an empty directory, or pack each part on its own",
    ))
}

/// Whether a value says something of the GPU: a cache for one has code for processors too.
fn counts(attribute: Attribute, value: &str) -> bool {
    match attribute {
        Attribute::Backend => value != "cpu",
        Attribute::Architecture => value.starts_with("sm_") || value.starts_with("gfx"),
        _ => true,
    }
}

/// Whether two values may be said of one thing.
fn agree(attribute: Attribute, one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    let Some(rest) = long.strip_prefix(short) else { return false };
    match attribute {
        Attribute::Architecture => matches!(rest, "" | "a" | "f") || rest.starts_with(':'),
        Attribute::Backend | Attribute::GpuName => rest.is_empty(),
        _ => rest.is_empty() || rest.starts_with(['.', '+']),
    }
}

fn device(view: &View<'_>) -> Option<Finding> {
    // With several ranks, each has the device of its number.
    let devices = ranks::devices(view);
    let fact = view
        .identity
        .facts(Attribute::DeviceIndex)
        .iter()
        .find(|fact| fact.value.parse::<u64>().is_ok_and(|index| index >= devices))?;
    Some(finding(
        Severity::Warning,
        DEVICE,
        Some(fact),
        format!(
            "the code names the GPU cuda:{}; on a host with fewer GPUs, or on the first, it crashes",
            fact.value
        ),
        "make the cache with CUDA_VISIBLE_DEVICES naming one GPU, which then is cuda:0",
    ))
}

fn gpu(view: &View<'_>) -> Option<Finding> {
    // Triton and FlashInfer compare the architecture alone.
    let compares = matches!(view.tree.kind, Kind::Vllm | Kind::Inductor | Kind::Artifacts);
    let backend = view.identity.facts(Attribute::Backend).iter().find(|fact| fact.value != "cpu")?;
    let known = !view.identity.facts(Attribute::GpuName).is_empty();
    (compares && !known).then(|| {
        finding(
            Severity::Note,
            GPU,
            Some(backend),
            "which GPU this cache is for is not in it, only its architecture; torch compares the name"
                .to_owned(),
            "write down the GPU's name, as nvidia-smi prints it, beside the cache",
        )
    })
}
