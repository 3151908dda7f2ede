use super::*;
use crate::compile_cache::identity::Evidence;

fn identity(facts: &[(Attribute, &str)]) -> Identity {
    let mut identity = Identity::default();
    for (attribute, value) in facts {
        let evidence = Evidence { path: "a".to_owned(), found: (*value).to_owned(), offset: None };
        identity.add(*attribute, *value, evidence);
    }
    identity
}

fn host(facts: &[(Attribute, &str)]) -> HostFacts {
    let mut host = HostFacts::default();
    for (attribute, value) in facts {
        host.give(*attribute, *value);
    }
    host
}

const CACHE: [(Attribute, &str); 11] = [
    (Attribute::Backend, "cuda"),
    (Attribute::Architecture, "sm_90"),
    (Attribute::GpuName, "NVIDIA H100 80GB HBM3"),
    (Attribute::Cuda, "13.0"),
    (Attribute::Python, "3.12.4"),
    (Attribute::Torch, "2.14.1+cu130"),
    (Attribute::Triton, "3.9"),
    (Attribute::EngineVersion, "0.33.0"),
    (Attribute::Model, "/mnt/models"),
    (Attribute::Rank, "0_0"),
    (Attribute::Format, "aot"),
];

const HOST: [(Attribute, &str); 11] = [
    (Attribute::Backend, "cuda"),
    (Attribute::Architecture, "sm_90"),
    (Attribute::GpuName, "NVIDIA H100 80GB HBM3"),
    (Attribute::Cuda, "13.0"),
    (Attribute::Python, "3.12.4"),
    (Attribute::Torch, "2.14.1+cu130"),
    (Attribute::Triton, "3.9.0"),
    (Attribute::EngineVersion, "0.33.0"),
    (Attribute::Model, "/mnt/models"),
    (Attribute::TensorParallel, "1"),
    (Attribute::DataParallel, "1"),
];

fn row(verdict: &Verdict, attribute: Attribute) -> &Row {
    verdict.rows.iter().find(|row| row.attribute == attribute).unwrap()
}

fn with(
    facts: &[(Attribute, &'static str)],
    attribute: Attribute,
    value: &'static str,
) -> Vec<(Attribute, &'static str)> {
    let mut facts: Vec<_> = facts.iter().filter(|(known, _)| *known != attribute).copied().collect();
    facts.push((attribute, value));
    facts
}

#[test]
fn the_same_host() {
    let mut cache = CACHE.to_vec();
    cache.extend([(Attribute::TensorParallel, "1"), (Attribute::DataParallel, "1")]);
    let verdict = check(&identity(&cache), Kind::Vllm, &host(&HOST));
    assert_eq!(verdict.fit, Fit::Fits, "{verdict:#?}");
    let verdict = check(&identity(&CACHE), Kind::Vllm, &HostFacts::default());
    assert_eq!(verdict.fit, Fit::FitsAsFarAsKnown);
    assert!(verdict.rows.iter().all(|row| row.result == Comparison::Unknown && !row.reason.is_empty()));
}

#[test]
fn what_follows_from_a_difference() {
    use Consequence::{Crash, Harmless, Refused, SilentRecompile};
    for (kind, format, attribute, value, expected) in [
        (Kind::Vllm, "aot", Attribute::GpuName, "NVIDIA H200", Refused),
        (Kind::Vllm, "aot", Attribute::Architecture, "sm_80", Refused),
        (Kind::Vllm, "aot", Attribute::Python, "3.12.5", Refused),
        (Kind::Vllm, "aot", Attribute::Torch, "2.14.1+cu129", Refused),
        (Kind::Vllm, "aot", Attribute::Cuda, "12.9", Refused),
        (Kind::Vllm, "aot", Attribute::Triton, "3.8.0", Refused),
        (Kind::Vllm, "aot", Attribute::EngineVersion, "0.34.0", SilentRecompile),
        (Kind::Vllm, "aot", Attribute::Model, "meta-llama/Llama", SilentRecompile),
        (Kind::Vllm, "binary", Attribute::GpuName, "NVIDIA H200", SilentRecompile),
        (Kind::Vllm, "binary", Attribute::Python, "3.12.5", Harmless),
        (Kind::Vllm, "binary", Attribute::Python, "3.11.5", SilentRecompile),
        (Kind::Inductor, "binary", Attribute::Torch, "2.14.0+cu130", SilentRecompile),
        (Kind::Inductor, "binary", Attribute::Python, "3.12.5", Harmless),
        (Kind::Triton, "binary", Attribute::Architecture, "sm_80", SilentRecompile),
        (Kind::FlashInfer, "binary", Attribute::Architecture, "sm_80", SilentRecompile),
    ] {
        let cache = identity(&with(&CACHE, Attribute::Format, format));
        let verdict = check(&cache, kind, &host(&with(&HOST, attribute, value)));
        let row = row(&verdict, attribute);
        assert_eq!(row.result, Comparison::Differs, "{attribute:?} {value}");
        assert_eq!(row.consequence, Some(expected), "{kind} {format} {attribute:?} {value}");
        assert_eq!(verdict.fit == Fit::DoesNotFit, expected > Harmless, "{attribute:?} {value}");
        assert_eq!(row.remedy.is_empty(), expected == Harmless);
    }
    let cache = identity(&[(Attribute::Backend, "cpu"), (Attribute::InstructionSet, "avx512")]);
    let verdict = check(&cache, Kind::Inductor, &host(&[(Attribute::InstructionSet, "avx2")]));
    assert_eq!(row(&verdict, Attribute::InstructionSet).consequence, Some(Crash));
}

#[test]
fn a_read_only_mount_is_named() {
    let verdict = check(&identity(&CACHE), Kind::Vllm, &host(&[(Attribute::Model, "x/y")]));
    let row = row(&verdict, Attribute::Model);
    assert!(row.reason.contains("read-only"), "{row:?}");
    assert!(row.remedy.contains("--model x/y"), "{row:?}");
}

#[test]
fn what_a_kind_does_not_compare() {
    let verdict =
        check(&identity(&CACHE), Kind::Triton, &host(&with(&HOST, Attribute::GpuName, "NVIDIA H200")));
    assert!(verdict.rows.iter().all(|row| row.attribute != Attribute::GpuName));
    // 3.9 beside 3.9.0: Triton's own key has it whole.
    assert_eq!(row(&verdict, Attribute::Triton).result, Comparison::SameAsFarAsKnown);
    assert_eq!(verdict.fit, Fit::FitsAsFarAsKnown);
}

#[test]
fn half_known_values() {
    for (attribute, cache_value, host_value) in [
        (Attribute::Python, "3.12", "3.12.4"),
        (Attribute::GpuName, "NVIDIA H100 80GB HBM3", "H100"),
        (Attribute::Torch, "2.14.1", "2.14.1+cu130"),
    ] {
        let cache = identity(&with(&CACHE, attribute, cache_value));
        let verdict = check(&cache, Kind::Vllm, &host(&with(&HOST, attribute, host_value)));
        assert_eq!(row(&verdict, attribute).result, Comparison::SameAsFarAsKnown, "{attribute:?}");
        assert_eq!(verdict.fit, Fit::FitsAsFarAsKnown);
    }
    let mut cache = CACHE.to_vec();
    cache.push((Attribute::Python, "3.12"));
    let verdict = check(&identity(&cache), Kind::Vllm, &host(&with(&HOST, Attribute::Python, "3.12.9")));
    assert_eq!(row(&verdict, Attribute::Python).result, Comparison::Differs);
}

#[test]
fn several_values() {
    let mut cache = CACHE.to_vec();
    cache.extend([
        (Attribute::Architecture, "sm_80"),
        (Attribute::Architecture, "x86_64"),
        (Attribute::Backend, "cpu"),
    ]);
    let verdict = check(&identity(&cache), Kind::Vllm, &host(&HOST));
    let architecture = row(&verdict, Attribute::Architecture);
    assert_eq!(architecture.cache, ["sm_90", "sm_80"]);
    assert_eq!(architecture.result, Comparison::Same);
    assert!(architecture.reason.contains("others"));
    assert_eq!(row(&verdict, Attribute::Backend).cache, ["cuda"]);
}

#[test]
fn ranks_that_are_missing() {
    for (tensor, data, expected) in [
        ("1", "1", Comparison::Same),
        ("2", "1", Comparison::Differs),
        ("1", "2", Comparison::Differs),
        ("none", "1", Comparison::Unknown),
        ("0", "none", Comparison::Unknown),
        ("1024", "1", Comparison::Differs),
        ("1025", "1", Comparison::Differs),
        ("99999999999", "1", Comparison::Differs),
        ("18446744073709551615", "18446744073709551615", Comparison::Differs),
        ("none", "2", Comparison::Differs),
        ("1000", "99999999999", Comparison::Differs),
    ] {
        let sizes = [(Attribute::TensorParallel, tensor), (Attribute::DataParallel, data)];
        let verdict = check(&identity(&CACHE), Kind::Vllm, &host(&sizes));
        let row = row(&verdict, Attribute::Rank);
        assert_eq!(row.result, expected, "{tensor} {data} {row:?}");
        assert!(row.reason.len() < 300);
    }
    let verdict = check(&identity(&CACHE), Kind::Vllm, &host(&[(Attribute::TensorParallel, "3")]));
    let row = row(&verdict, Attribute::Rank);
    assert!(row.reason.starts_with("ranks 1_0, 2_0 are not in the cache"), "{}", row.reason);
    assert!(row.remedy.contains("--tensor-parallel-size 3"));
}

#[test]
fn ranks_that_are_needed() {
    let (tp, dp) = (Attribute::TensorParallel, Attribute::DataParallel);
    for (sizes, expected) in [
        (vec![], None),
        (vec![(tp, "1"), (dp, "1")], Some("0_0")),
        (vec![(tp, "2")], Some("0_0, 1_0")),
        (vec![(tp, "2"), (dp, "2")], Some("0_0, 1_0, 0_1, 1_1")),
        (vec![(dp, "2")], Some("at least 0_0, 0_1")),
        (vec![(tp, "1025")], Some("0_0, 1_0, 2_0, 3_0, 4_0, 5_0, 6_0, 7_0 and 1017 more")),
    ] {
        let verdict = check(&identity(&CACHE), Kind::Vllm, &host(&sizes));
        let needed = row(&verdict, Attribute::Rank).host.as_ref().map(|fact| fact.value.as_str());
        assert_eq!(needed, expected);
    }
    let verdict = check(&identity(&CACHE), Kind::Vllm, &host(&[(dp, "2")]));
    let missing = row(&verdict, Attribute::Rank);
    assert!(missing.reason.starts_with("rank 0_1 is not in the cache"), "{}", missing.reason);
    assert!(missing.remedy.contains("--data-parallel-size 2"), "{}", missing.remedy);
    assert_eq!(verdict.fit, Fit::DoesNotFit);
    // Both are there, and there may be more of a tensor-parallel engine.
    let mut cache = CACHE.to_vec();
    cache.push((Attribute::Rank, "0_1"));
    let verdict = check(&identity(&cache), Kind::Vllm, &host(&[(dp, "2")]));
    assert_eq!(row(&verdict, Attribute::Rank).result, Comparison::Unknown);
}

#[test]
fn what_nobody_tells_keeps_a_cache_from_fitting() {
    let mut cache = CACHE.to_vec();
    cache.extend([(Attribute::TensorParallel, "1"), (Attribute::DataParallel, "1")]);
    let without = |facts: &[(Attribute, &'static str)], attribute| -> Vec<_> {
        facts.iter().filter(|(known, _)| *known != attribute).copied().collect()
    };
    let (cache, host_facts) = (without(&cache, Attribute::Model), without(&HOST, Attribute::Model));
    let verdict = check(&identity(&cache), Kind::Vllm, &host(&host_facts));
    assert_eq!(row(&verdict, Attribute::Model).result, Comparison::Unknown);
    assert_eq!(verdict.fit, Fit::FitsAsFarAsKnown);
}

#[test]
fn a_cache_for_processors() {
    let cache = identity(&[
        (Attribute::Backend, "cpu"),
        (Attribute::Architecture, "x86_64"),
        (Attribute::Torch, "2.14.1"),
    ]);
    let mut elsewhere = host(&[(Attribute::Backend, "cpu"), (Attribute::Torch, "2.14.1")]);
    elsewhere.processor =
        Some(HostFact { value: "aarch64".to_owned(), source: super::super::host::FactSource::System });
    let verdict = check(&cache, Kind::Inductor, &elsewhere);
    assert_eq!(row(&verdict, Attribute::Architecture).consequence, Some(Consequence::Crash));
    assert!(verdict.rows.iter().all(|row| row.attribute != Attribute::GpuName));
    let verdict = check(&cache, Kind::Inductor, &host(&HOST));
    assert_eq!(row(&verdict, Attribute::Backend).consequence, Some(Consequence::SilentRecompile));
}

#[test]
fn an_empty_cache_and_an_unknown_kind() {
    for kind in Kind::ALL {
        let verdict = check(&Identity::default(), kind, &HostFacts::default());
        assert_eq!(verdict.fit, Fit::FitsAsFarAsKnown, "{kind}");
    }
}
