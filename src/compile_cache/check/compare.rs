//! Whether two values of an attribute are the same, as far as both are known. Must not know what follows from it.

use super::Comparison;
use crate::compile_cache::{gpu, identity::Attribute};

/// Compares a cache's value with a host's.
pub(super) fn compare(attribute: Attribute, cache: &str, host: &str) -> Comparison {
    match attribute {
        Attribute::Architecture => of(architecture(cache) == architecture(host)),
        Attribute::GpuName => gpu_names(cache, host),
        Attribute::Python
        | Attribute::Torch
        | Attribute::Triton
        | Attribute::Cuda
        | Attribute::Rocm
        | Attribute::EngineVersion
        | Attribute::FlashInfer
        | Attribute::Ptx => versions(cache, host),
        Attribute::Model => of(cache.trim_end_matches('/') == host.trim_end_matches('/')),
        _ => of(cache.eq_ignore_ascii_case(host)),
    }
}

/// The values without those that another value says more exactly: `3.12` beside `3.12.3`.
pub(super) fn most_exact<'a>(attribute: Attribute, values: &[&'a str]) -> Vec<&'a str> {
    let less = |value: &str, other: &str| {
        value.len() < other.len() && compare(attribute, value, other) == Comparison::SameAsFarAsKnown
    };
    values.iter().filter(|value| !values.iter().any(|other| less(value, other))).copied().collect()
}

fn of(same: bool) -> Comparison {
    if same { Comparison::Same } else { Comparison::Differs }
}

/// The architecture of a GPU that runs code for `name`: `sm_90a` is code for `sm_90` alone.
fn architecture(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix("sm_") {
        Some(digits) => format!("sm_{}", digits.trim_end_matches(['a', 'f'])),
        None => name.split(':').next().unwrap_or_default().to_owned(),
    }
}

/// Versions: equal, one more exact than the other, or different.
fn versions(cache: &str, host: &str) -> Comparison {
    let (cache, host) = (cache.trim_start_matches('v'), host.trim_start_matches('v'));
    if cache == host {
        return Comparison::Same;
    }
    let split = |text: &str| {
        let (public, local) = text.split_once('+').unwrap_or((text, ""));
        (public.split('.').map(str::to_owned).collect::<Vec<_>>(), local.to_owned())
    };
    let ((cache, cache_local), (host, host_local)) = (split(cache), split(host));
    let common = cache.len().min(host.len());
    let locals_differ = !cache_local.is_empty() && !host_local.is_empty() && cache_local != host_local;
    if cache[..common] != host[..common] || locals_differ {
        Comparison::Differs
    } else {
        Comparison::SameAsFarAsKnown
    }
}

/// Names of GPUs. Torch compares them as the driver gives them; a short one (`H100`) may be any of several.
fn gpu_names(cache: &str, host: &str) -> Comparison {
    if cache == host {
        return Comparison::Same;
    }
    if is_full(cache) && is_full(host) {
        return Comparison::Differs;
    }
    let (cache, host) = (gpu::words(cache), gpu::words(host));
    let (short, long) = if cache.len() <= host.len() { (&cache, &host) } else { (&host, &cache) };
    if !short.is_empty() && short.iter().all(|word| long.contains(word)) {
        Comparison::SameAsFarAsKnown
    } else {
        Comparison::Differs
    }
}

/// Whether a name is as a driver gives it.
fn is_full(name: &str) -> bool {
    ["NVIDIA ", "Tesla ", "Quadro ", "GeForce ", "AMD "].into_iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use Comparison::{Differs, Same, SameAsFarAsKnown};

    use super::*;

    #[test]
    fn values() {
        for (attribute, cache, host, expected) in [
            (Attribute::Python, "3.12.4", "3.12.4", Same),
            (Attribute::Python, "3.12", "3.12.4", SameAsFarAsKnown),
            (Attribute::Python, "3.12.3", "3.12.4", Differs),
            (Attribute::Python, "3.1", "3.12", Differs),
            (Attribute::Torch, "2.14.1+cu130", "2.14.1+cu130", Same),
            (Attribute::Torch, "2.14.1+cu130", "2.14.1+cu129", Differs),
            (Attribute::Torch, "2.14.1", "2.14.1+cu129", SameAsFarAsKnown),
            (Attribute::Torch, "2.14+cu130", "2.14.1+cu129", Differs),
            (Attribute::Torch, "2.14.1", "2.15.0", Differs),
            (Attribute::Cuda, "13.0", "13.0", Same),
            (Attribute::Cuda, "13.0", "12.9", Differs),
            (Attribute::Architecture, "sm_90", "sm_90", Same),
            (Attribute::Architecture, "sm_90a", "sm_90", Same),
            (Attribute::Architecture, "sm_90", "sm_80", Differs),
            (Attribute::Architecture, "sm_80", "sm_86", Differs),
            (Attribute::Architecture, "gfx942:sramecc+:xnack-", "gfx942", Same),
            (Attribute::Architecture, "x86_64", "aarch64", Differs),
            (Attribute::GpuName, "NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", Same),
            (Attribute::GpuName, "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", Differs),
            (Attribute::GpuName, "NVIDIA H200", "NVIDIA H200 NVL", Differs),
            (Attribute::GpuName, "NVIDIA H100 80GB HBM3", "H100", SameAsFarAsKnown),
            (Attribute::GpuName, "NVIDIA H100 80GB HBM3", "H200", Differs),
            (Attribute::GpuName, "NVIDIA L40", "L4", Differs),
            (Attribute::Model, "/mnt/models", "/mnt/models/", Same),
            (Attribute::Model, "/models/x", "/mnt/models", Differs),
            (Attribute::EngineVersion, "0.33.0", "0.33.1", Differs),
        ] {
            assert_eq!(compare(attribute, cache, host), expected, "{cache} {host}");
        }
    }

    #[test]
    fn exactness() {
        assert_eq!(most_exact(Attribute::Python, &["3.12", "3.12.3"]), ["3.12.3"]);
        assert_eq!(most_exact(Attribute::Python, &["3.12", "3.11.1"]), ["3.12", "3.11.1"]);
        assert_eq!(most_exact(Attribute::Torch, &["2.14.1", "2.14.1+cu130"]), ["2.14.1+cu130"]);
        assert_eq!(most_exact(Attribute::Backend, &["cuda", "cpu"]), ["cuda", "cpu"]);
    }
}
