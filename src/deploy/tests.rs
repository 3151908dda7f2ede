//! What is decided: sizes, GPUs, engines, modes and warnings. Whole manifests are in `tests/deploy.rs`.

use super::*;
use crate::{
    compile_cache::{
        CacheRecord, Kind,
        identity::{Attribute, Evidence, Identity},
    },
    digest::Digest,
};

mod user;

fn facts() -> Facts {
    Facts {
        image: PinnedImage {
            repository: "registry.example.com/models/Qwen3_8B".to_owned(),
            tag: Some("v1".to_owned()),
            digest: Digest::of(b""),
        },
        model: None,
        model_directory: MODEL_DIRECTORY_DEFAULT.to_owned(),
        model_size: 16_000_000_000,
        pull_size: 16_000_000_000,
        laziness: Laziness::Mountable,
        is_packed: true,
        is_plain: false,
        has_shell: Some(true),
        platform: None,
        is_for_several: true,
        caches: Vec::new(),
        variant: None,
        targets: Vec::new(),
    }
}

fn cache(kind: Kind, at: &str, told: &[(Attribute, &str)]) -> CacheRecord {
    let mut identity = Identity::default();
    for (attribute, value) in told {
        let evidence = Evidence { path: "x".to_owned(), found: "x".to_owned(), offset: None };
        identity.add(*attribute, *value, evidence);
    }
    CacheRecord {
        name: kind.name().to_owned(),
        kind,
        directory: format!("compile-cache/{kind}"),
        at: at.to_owned(),
        files: 1,
        size: 1,
        entries: 0,
        keys: Vec::new(),
        target: None,
        file: None,
        identity,
    }
}

fn options(kind: ObjectKind) -> Options {
    Options {
        kind,
        mode: None,
        engine: EngineKind::Vllm,
        engine_command: Vec::new(),
        engine_arguments: Vec::new(),
        engine_shell: true,
        load: Load::Auto,
        pull: Pull::Auto,
        runtime: None,
        model_format: None,
        node_selector: true,
        targets: Targets::default(),
        settings: Settings::default(),
    }
}

fn printed(facts: &Facts, options: &Options) -> String {
    yaml(&manifests(facts, options).unwrap().documents).unwrap()
}

fn warnings(facts: &Facts, options: &Options) -> Vec<String> {
    manifests(facts, options).unwrap().warnings
}

fn refusal(facts: &Facts, options: &Options) -> String {
    manifests(facts, options).unwrap_err().to_string()
}

const ALL: [ObjectKind; 4] = [
    ObjectKind::InferenceService,
    ObjectKind::LlmInferenceService,
    ObjectKind::Deployment,
    ObjectKind::Prepull,
];

#[test]
fn a_cold_start_and_the_models_memory_fit() {
    let text = printed(&facts(), &options(ObjectKind::Deployment));
    // 16 GB at 20 MB/s are 800 s, and 600 s for the engine.
    assert!(text.contains("failureThreshold: 140\n"), "{text}");
    assert!(text.contains("memory: 8Gi\n") && text.contains("memory: 23Gi\n"), "{text}");
    let mut eager = options(ObjectKind::Deployment);
    eager.pull = Pull::Eager;
    assert!(printed(&facts(), &eager).contains("failureThreshold: 76\n"));
    let huge = Facts { model_size: u64::MAX, pull_size: u64::MAX, ..facts() };
    for kind in ALL {
        assert!(!printed(&huge, &options(kind)).is_empty());
    }
}

#[test]
fn weights_are_read_as_the_mount_wants_it() {
    let lazy = "--safetensors-load-strategy";
    let of = |change: fn(&mut Options), facts: &Facts| {
        let mut options = options(ObjectKind::Deployment);
        change(&mut options);
        printed(facts, &options)
    };
    assert!(of(|_| {}, &facts()).contains("--safetensors-load-strategy\n        - prefetch\n"));
    assert!(!of(|options| options.pull = Pull::Eager, &facts()).contains(lazy));
    assert!(!of(|options| options.targets.cri_o = Some("1.33".parse().unwrap()), &facts()).contains(lazy));
    assert!(!of(|_| {}, &Facts { laziness: Laziness::Whole, ..facts() }).contains(lazy));
    assert!(!of(|options| options.load = Load::Default, &facts()).contains(lazy));
    assert!(of(|options| options.load = Load::Mmap, &facts()).contains("- lazy\n"));
    assert!(of(|options| options.load = Load::RunaiStreamer, &facts()).contains("- runai_streamer\n"));
    let mut sglang = options(ObjectKind::Deployment);
    sglang.engine = EngineKind::Sglang;
    assert!(!printed(&facts(), &sglang).contains(lazy));
    sglang.load = Load::Prefetch;
    assert!(refusal(&facts(), &sglang).contains("after --"));
}

#[test]
fn caches_choose_gpus_nodes_and_the_engines_version() {
    let told = [
        (Attribute::Backend, "cuda"),
        (Attribute::Architecture, "sm_100"),
        (Attribute::GpuName, "NVIDIA B200"),
        (Attribute::TensorParallel, "4"),
        (Attribute::Engine, "vllm"),
        (Attribute::EngineVersion, "0.32.1"),
    ];
    let facts = Facts { caches: vec![cache(Kind::Vllm, "/tmp/compile-cache/vllm", &told)], ..facts() };
    let text = printed(&facts, &options(ObjectKind::Deployment));
    for line in [
        "nvidia.com/gpu.compute.major: \"10\"",
        "nvidia.com/gpu.compute.minor: \"0\"",
        "- NVIDIA-B200-SHARED",
        "nvidia.com/gpu: \"4\"",
        "--tensor-parallel-size\n        - \"4\"",
        "image: docker.io/vllm/vllm-openai:v0.32.1",
        "mountPath: /dev/shm",
        "sizeLimit: 8Gi",
        "name: VLLM_CACHE_ROOT\n          value: /tmp/compile-cache/vllm",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let mut other = options(ObjectKind::Deployment);
    other.node_selector = false;
    other.settings.gpus = Some(2);
    let text = printed(&facts, &other);
    assert!(!text.contains("gpu.compute") && !text.contains("NVIDIA-B200"), "{text}");
    assert!(warnings(&facts, &other)[0].contains("tensor-parallel size of 4"));
}

#[test]
fn other_vendors_and_processors() {
    let amd = [(Attribute::Architecture, "gfx942"), (Attribute::GpuName, "AMD Instinct MI300X OAM")];
    let amd = Facts { caches: vec![cache(Kind::Triton, "/tmp/compile-cache/triton", &amd)], ..facts() };
    let text = printed(&amd, &options(ObjectKind::Deployment));
    for line in [
        "feature.node.kubernetes.io/amd-gpu: \"true\"",
        "- AMD_Instinct_MI300X_OAM",
        "amd.com/gpu: \"1\"",
        "key: amd.com/gpu",
        "vllm-openai-rocm:v",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let cpu = [(Attribute::Backend, "cpu"), (Attribute::Architecture, "x86_64")];
    let cpu = Facts { caches: vec![cache(Kind::Inductor, "/tmp/compile-cache/inductor", &cpu)], ..facts() };
    let text = printed(&cpu, &options(ObjectKind::Deployment));
    assert!(!text.contains("gpu") && text.contains("docker.io/vllm/vllm-openai-cpu:v"), "{text}");
    // FlashInfer names the architecture of code, Triton that of GPUs.
    let same = ["sm_90a", "sm_90"].map(|name| [(Attribute::Architecture, name)]);
    let same = [
        cache(Kind::FlashInfer, "/root", &same[0]),
        cache(Kind::Triton, "/tmp/compile-cache/triton", &same[1]),
    ];
    let same = Facts { caches: same.to_vec(), ..facts() };
    assert!(printed(&same, &options(ObjectKind::Deployment)).contains("gpu.compute.major: \"9\""));
    // Caches that contradict each other, or tell something that is no GPU, tell nothing.
    let odd = [(Attribute::Architecture, "sm_90"), (Attribute::Architecture, "sm_80")];
    let odd = Facts { caches: vec![cache(Kind::Triton, "/tmp/compile-cache/triton", &odd)], ..facts() };
    assert!(!printed(&odd, &options(ObjectKind::Deployment)).contains("gpu.compute"));
    let strange = [(Attribute::Architecture, "sm_é"), (Attribute::GpuName, "\u{1b}[31m: é\n- x")];
    let strange =
        Facts { caches: vec![cache(Kind::Triton, "/tmp/compile-cache/triton", &strange)], ..facts() };
    let text = printed(&strange, &options(ObjectKind::Deployment));
    assert!(!text.contains('\u{1b}') && text.contains("31m------x"), "{text}");
}

#[test]
fn an_unreleased_engine_is_asked_for() {
    let told = [(Attribute::Engine, "vllm"), (Attribute::EngineVersion, "0.33.1.dev3+gabc")];
    let facts = Facts { caches: vec![cache(Kind::Vllm, "/tmp/compile-cache/vllm", &told)], ..facts() };
    assert!(warnings(&facts, &options(ObjectKind::Deployment))[0].contains("no release"));
    let mut named = options(ObjectKind::Deployment);
    named.settings.engine_image = Some("registry.example.com/vllm:dev".to_owned());
    assert_eq!(warnings(&facts, &named), [""; 0]);
}

#[test]
fn a_guessed_engine_is_told_beside_caches() {
    let torch = [(Attribute::Torch, "2.9.1+cu128")];
    let facts = Facts { caches: vec![cache(Kind::Triton, "/tmp/compile-cache/triton", &torch)], ..facts() };
    for engine in [EngineKind::Vllm, EngineKind::Sglang] {
        let mut options = Options { engine, ..options(ObjectKind::Deployment) };
        let said = warnings(&facts, &options).join("\n");
        assert!(said.contains("of torch 2.9.1+cu128") && said.contains("--engine-image"), "{said}");
        options.settings.engine_image = Some("registry.example.com/engine:1".to_owned());
        assert_eq!(warnings(&facts, &options), [""; 0]);
    }
}

#[test]
fn volumes_hide_nothing_that_is_needed() {
    let mounts = |records: Vec<CacheRecord>, at: Option<&str>| {
        let facts = Facts { caches: records, ..facts() };
        let step = caches::step(&facts, at, 1010).map_err(|error| error.to_string())?;
        let mounts = step.into_iter().flat_map(|step| step.mounts).map(|mount| mount.at);
        Ok::<Vec<String>, String>(mounts.collect())
    };
    let of = |kind, at: &str| mounts(vec![cache(kind, at, &[])], None);
    assert_eq!(of(Kind::Triton, "/tmp/compile-cache/triton").unwrap(), ["/tmp/compile-cache"]);
    assert_eq!(of(Kind::Triton, "/tmp/triton").unwrap(), ["/tmp/triton"]);
    assert_eq!(of(Kind::FlashInfer, "/root").unwrap(), ["/root"]);
    let both = vec![
        cache(Kind::FlashInfer, "/root", &[]),
        cache(Kind::Vllm, "/root/.cache/vllm", &[]),
        cache(Kind::Triton, "/tmp/compile-cache/triton", &[]),
    ];
    assert_eq!(mounts(both, None).unwrap(), ["/root", "/tmp/compile-cache"]);
    // Nobody but root may enter the image's own.
    let record = cache(Kind::Vllm, "/root/.cache/vllm", &[]);
    assert_eq!(of(Kind::Vllm, &record.at).unwrap(), ["/root"]);
    let of_root = caches::step(&Facts { caches: vec![record], ..facts() }, None, 0).unwrap().unwrap();
    assert_eq!(of_root.mounts[0].at, "/root/.cache");
    assert_eq!(of_root.environment, [("VLLM_CACHE_ROOT".to_owned(), "/root/.cache/vllm".to_owned())]);
    for place in
        ["/usr/x", "/usr", "/mnt/models/c/x", "/models/x", "/etc/a/b", "/tmp", "/mnt", "/dev/shm/x/y"]
    {
        let error = of(Kind::Triton, place).unwrap_err();
        assert!(error.contains("cache-at"), "{place}: {error}");
    }
    let moved = mounts(vec![cache(Kind::Triton, "/usr/x", &[])], Some("/var/cache/c"));
    assert_eq!(moved.unwrap(), ["/var/cache/c"]);
}

#[test]
fn modes_that_cannot_work_are_refused() {
    let with = |kind, mode| Options { mode: Some(mode), ..options(kind) };
    let scratch = Facts { has_shell: Some(false), ..facts() };
    for kind in ALL {
        assert!(refusal(&scratch, &with(kind, Mode::Modelcar)).contains("--base scratch"));
        assert!(refusal(&facts(), &with(kind, Mode::Fetch)).contains("does not work"));
        assert!(printed(&scratch, &options(kind)).contains("sha256:"), "native by itself");
    }
    let fetch = with(ObjectKind::InferenceService, Mode::Fetch);
    assert!(refusal(&facts(), &fetch).contains("gzip member"));
    assert!(
        refusal(&facts(), &with(ObjectKind::LlmInferenceService, Mode::Fetch)).contains("unsupported schema")
    );
    let plain = Facts { is_plain: true, laziness: Laziness::Whole, ..facts() };
    assert!(printed(&plain, &fetch).contains("value: oci+fetch://registry.example.com/"));
    let elsewhere = Facts { model_directory: "/weights".to_owned(), ..facts() };
    assert!(refusal(&elsewhere, &options(ObjectKind::InferenceService)).contains("/weights"));
    assert!(printed(&elsewhere, &options(ObjectKind::Deployment)).contains("subPath: weights\n"));
    let custom = Options { engine: EngineKind::Custom, ..options(ObjectKind::Deployment) };
    assert!(refusal(&facts(), &custom).contains("--engine-image"));
}

#[test]
fn clusters_that_cannot_are_named() {
    use Mode::{Modelcar, Native};
    use ObjectKind::{Deployment, InferenceService, LlmInferenceService};

    let of = |kind, mode, name: &str, version: &str| {
        let version = Some(version.parse().unwrap());
        let mut targets = Targets::default();
        match name {
            "kubernetes" => targets.kubernetes = version,
            "kserve" => targets.kserve = version,
            "containerd" => targets.containerd = version,
            _ => targets.cri_o = version,
        }
        let whole = Facts { laziness: Laziness::Whole, ..facts() };
        warnings(&whole, &Options { mode: Some(mode), targets, ..options(kind) }).join("\n")
    };
    for (kind, mode, name, version, word) in [
        (Deployment, Native, "kubernetes", "1.30", "has no image volumes"),
        (Deployment, Native, "kubernetes", "1.32", "no subPath"),
        (Deployment, Native, "kubernetes", "1.33", "feature-gates=ImageVolume=true"),
        (Deployment, Native, "containerd", "1.7", "has no image volumes"),
        (Deployment, Native, "containerd", "2.1", "mounts the image's root"),
        (Deployment, Native, "cri-o", "1.30", "has no image volumes"),
        (Deployment, Native, "cri-o", "1.32", "no subPath"),
        (InferenceService, Native, "kserve", "0.19", "oci+native://"),
        (InferenceService, Native, "containerd", "2.1", "mounts the image's root"),
        (InferenceService, Modelcar, "kserve", "0.11", "oci://"),
        (InferenceService, Modelcar, "kserve", "0.13", "waits for /mnt/models"),
        (LlmInferenceService, Modelcar, "kserve", "0.15", "no LLMInferenceService"),
    ] {
        let told = of(kind, mode, name, version);
        assert!(told.contains(word), "{name} {version}: {told}");
    }
    for (kind, mode, name, version) in [
        (Deployment, Native, "kubernetes", "1.35"),
        (Deployment, Native, "containerd", "2.2"),
        (Deployment, Native, "cri-o", "1.33"),
        (Deployment, Modelcar, "kubernetes", "1.24"),
        (Deployment, Modelcar, "containerd", "1.6"),
        (InferenceService, Native, "kserve", "0.20"),
        (InferenceService, Modelcar, "kserve", "0.16"),
        (Deployment, Native, "kserve", "0.11"),
    ] {
        assert_eq!(of(kind, mode, name, version), "", "{name} {version}");
    }
    let mut cri_o = options(Deployment);
    cri_o.targets.cri_o = Some("1.35".parse().unwrap());
    assert!(warnings(&facts(), &cri_o)[0].contains("no lazy mounts"));
}

#[test]
fn tags_are_explicit() {
    let tagged = |tag: Option<&str>| {
        let mut facts = facts();
        facts.image.tag = tag.map(str::to_owned);
        warnings(&facts, &options(ObjectKind::Deployment)).join("\n")
    };
    assert_eq!(tagged(Some("v1")), "");
    assert!(tagged(Some("latest")).contains("moved by every push"));
    assert!(tagged(None).contains("--image"));
}

#[test]
fn older_kserve_gets_its_own_words() {
    let mut options = options(ObjectKind::InferenceService);
    options.targets.kserve = Some("0.15".parse().unwrap());
    assert!(printed(&facts(), &options).contains("deploymentMode: RawDeployment\n"));
    let mut llm = Options { kind: ObjectKind::LlmInferenceService, ..options };
    llm.targets.kserve = Some("0.16".parse().unwrap());
    assert!(printed(&facts(), &llm).contains("serving.kserve.io/v1alpha1\n"));
}

#[test]
fn engines_without_a_shell_are_started_by_themselves() {
    for (kind, warned) in [(ObjectKind::Deployment, false), (ObjectKind::InferenceService, true)] {
        let mut options = Options { mode: Some(Mode::Modelcar), engine: EngineKind::Custom, ..options(kind) };
        options.settings.engine_image = Some("registry.example.com/engine:v1".to_owned());
        options.engine_arguments = vec!["--dir".to_owned(), "/mnt/models".to_owned()];
        assert_eq!(warnings(&facts(), &options).len(), usize::from(warned));
        let text = printed(&facts(), &options);
        assert!(!text.contains("exec \"$@\"") && text.contains("- --dir\n"), "{text}");
        assert!(text.contains("tcpSocket:"), "{text}");
        options.engine_command = vec!["/engine".to_owned()];
        assert!(printed(&facts(), &options).contains("exec \"$@\""));
        options.engine_shell = false;
        assert!(!printed(&facts(), &options).contains("exec \"$@\""));
    }
}

#[test]
fn images_cannot_smuggle_names() {
    let facts = Facts { model: Some("a\nb: c".to_owned()), ..facts() };
    let text = printed(&facts, &options(ObjectKind::Deployment));
    assert!(text.contains("--served-model-name\n        - qwen3-8b\n"), "{text}");
    assert!(warnings(&facts, &options(ObjectKind::Deployment))[0].contains(r"`a\nb: c`"));
    for name in ["$(HOME)", "{{ .Name }}", "a b"] {
        let facts = Facts { model: Some(name.to_owned()), ..facts.clone() };
        let text = printed(&facts, &options(ObjectKind::LlmInferenceService));
        assert!(!text.contains(name) && text.contains("name: qwen3-8b\n"), "{text}");
    }
    let model = Facts { model: Some("Qwen/Qwen3-8B".to_owned()), ..facts };
    assert!(printed(&model, &options(ObjectKind::Deployment)).contains("- Qwen/Qwen3-8B\n"));
}

#[test]
fn an_old_vllm_gets_no_argument_that_it_refuses() {
    let of = |image: &str, load: Load| {
        let mut options = Options { load, ..options(ObjectKind::Deployment) };
        options.settings.engine_image = Some(image.to_owned());
        let strategy = printed(&facts(), &options).contains("--safetensors-load-strategy");
        (strategy, warnings(&facts(), &options).len())
    };
    assert_eq!(of("vllm/vllm-openai:v0.17.1", Load::Auto), (false, 0));
    assert_eq!(of("vllm/vllm-openai:v0.17.1", Load::Prefetch), (false, 1));
    assert_eq!(of("vllm/vllm-openai:v0.17.1", Load::Mmap), (true, 0));
    assert_eq!(of("vllm/vllm-openai:v0.10.1", Load::Eager), (false, 1));
    assert_eq!(of("vllm/vllm-openai:v0.18.0", Load::Auto), (true, 0));
    assert_eq!(of("registry.example.com/own:v0.1", Load::Auto), (true, 0));
    let told = [(Attribute::Engine, "vllm"), (Attribute::EngineVersion, "0.9.2")];
    let old = Facts { caches: vec![cache(Kind::Vllm, "/tmp/compile-cache/vllm", &told)], ..facts() };
    assert!(!printed(&old, &options(ObjectKind::Deployment)).contains("--safetensors-load-strategy"));
}

#[test]
fn prepull_takes_what_an_engine_could_not() {
    let facts = Facts { caches: vec![cache(Kind::Triton, "/usr/x", &[])], ..facts() };
    let mut options = options(ObjectKind::Prepull);
    assert_eq!(warnings(&facts, &options), [""; 0]);
    options.settings.replicas = Some(2);
    options.load = Load::Eager;
    assert!(warnings(&facts, &options)[0].contains("--load, replicas changes nothing"));
    options.runtime = Some("x".to_owned());
    assert!(refusal(&facts, &options).contains("--as inferenceservice"));
}

#[test]
fn a_runtime_has_its_own_engine() {
    let mut options = options(ObjectKind::InferenceService);
    options.runtime = Some("kserve-huggingfaceserver".to_owned());
    options.settings.gpus = Some(2);
    assert!(printed(&facts(), &options).contains("- --tensor-parallel-size\n      - \"2\"\n"));
    options.settings.port = Some(9000);
    assert!(refusal(&facts(), &options).contains("leave out port"));
}

#[test]
fn notes_and_names_are_of_what_is_printed() {
    let mut options = options(ObjectKind::Deployment);
    options.settings.served_model_name = Some("$(HOME)".to_owned());
    options.settings.memory = Some("50Gi".to_owned());
    let text = printed(&facts(), &options);
    assert!(text.contains("$$(HOME)") && !text.contains("The engine takes 8Gi"), "{text}");
}
