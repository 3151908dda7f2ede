//! What users ask for that starcar decides otherwise by itself, and images of which it knows little.

use super::*;
use crate::oci::Platform;

fn with(kind: ObjectKind, words: &[&str]) -> Options {
    Options { engine_arguments: words.iter().map(|word| (*word).to_owned()).collect(), ..options(kind) }
}

/// The arguments of the engine in `text`, on one line.
fn arguments(text: &str) -> String {
    let lines = text.lines().map(str::trim_start).skip_while(|line| *line != "args:").skip(1);
    let words: Vec<&str> = lines.map_while(|line| line.strip_prefix("- ")).collect();
    words.join(" ")
}

#[test]
fn caches_of_vllm_are_for_vllm() {
    let told = [(Attribute::Architecture, "sm_90"), (Attribute::TensorParallel, "4")];
    let caches = vec![
        cache(Kind::Vllm, "/tmp/compile-cache/vllm", &told),
        cache(Kind::Triton, "/tmp/compile-cache/triton", &[]),
    ];
    let both = Facts { caches, ..facts() };
    let alone = Facts { caches: both.caches[..1].to_vec(), ..facts() };
    for kind in [ObjectKind::Deployment, ObjectKind::InferenceService] {
        let sglang = Options { engine: EngineKind::Sglang, ..options(kind) };
        let text = printed(&both, &sglang);
        assert!(!text.contains("VLLM_CACHE_ROOT") && !text.contains("compile-cache/vllm"), "{text}");
        assert!(text.contains("TRITON_CACHE_DIR") && text.contains("nvidia.com/gpu: \"1\""), "{text}");
        let said = warnings(&both, &sglang);
        assert!(said[0].contains("SGLang has no use for vLLM's compile caches: vllm is left"), "{said:?}");
        assert!(!printed(&alone, &sglang).contains("initContainers"));
        for engine in [EngineKind::Vllm, EngineKind::Custom] {
            let mut options = Options { engine, ..options(kind) };
            options.settings.engine_image = Some("registry.example.com/engine:v1".to_owned());
            assert!(printed(&both, &options).contains("VLLM_CACHE_ROOT"));
        }
    }
    let prepull = Options { engine: EngineKind::Sglang, ..options(ObjectKind::Prepull) };
    assert!(warnings(&both, &prepull).iter().all(|said| !said.contains("no use")));
}

#[test]
fn what_other_fields_say_as_well_is_refused() {
    for (words, instead) in [
        (&["--port=9000"][..], "--set port=PORT"),
        (&["--port", "9000"], "--set port=PORT"),
        (&["--model=/x"], "/mnt/models"),
        (&["--seed", "1", "--model", "/x"], "/mnt/models"),
        (&["--tensor-parallel-size=4"], "say --gpus 4"),
        (&["-tp", "2", "--pipeline_parallel_size", "2"], "say --gpus 4"),
        (&["--tensor-parallel", "4"], "say --gpus 4"),
    ] {
        let error = refusal(&facts(), &with(ObjectKind::Deployment, words));
        assert!(error.contains(instead), "{words:?}: {error}");
        let sglang = Options { engine: EngineKind::Sglang, ..with(ObjectKind::Deployment, words) };
        assert!(refusal(&facts(), &sglang).contains(instead), "{words:?}");
    }
    let path =
        Options { engine: EngineKind::Sglang, ..with(ObjectKind::Deployment, &["--model-path", "/x"]) };
    assert!(refusal(&facts(), &path).contains("--model-path"));
    let served = with(ObjectKind::LlmInferenceService, &["--served-model-name", "a"]);
    assert!(refusal(&facts(), &served).contains("--set served-model-name"));
    let load = Options { load: Load::Eager, ..with(ObjectKind::Deployment, &["--load-format=dummy"]) };
    assert!(refusal(&facts(), &load).contains("leave out one"));
    // A runtime has a port of its own, a custom engine words of its own, and prepull no engine.
    let words = ["--port", "9000", "--model=/x"];
    let mut custom = Options { engine: EngineKind::Custom, ..with(ObjectKind::Deployment, &words) };
    custom.settings.engine_image = Some("registry.example.com/engine:v1".to_owned());
    assert_eq!(arguments(&printed(&facts(), &custom)), "--port \"9000\" --model=/x");
    printed(&facts(), &with(ObjectKind::Prepull, &words));
    let runtime = Some("kserve-vllm".to_owned());
    let runtime = Options { runtime, ..with(ObjectKind::InferenceService, &["--port", "9000"]) };
    printed(&facts(), &runtime);
    let model = Options { engine_arguments: vec!["--model=/x".to_owned()], ..runtime };
    assert!(refusal(&facts(), &model).contains("/mnt/models"));
}

#[test]
fn what_harms_nothing_is_said_by_the_user_alone() {
    let of = |words: &[&str], gpus: u64| {
        let mut options = with(ObjectKind::Deployment, words);
        options.settings.gpus = Some(gpus);
        let said = warnings(&facts(), &options).join("\n");
        (arguments(&printed(&facts(), &options)), said)
    };
    let begin = "--model /mnt/models --served-model-name qwen3-8b --port \"8080\"";
    let (text, _) = of(&["--load-format", "dummy"], 1);
    assert_eq!(text, format!("{begin} --load-format dummy"));
    let (text, _) = of(&["--safetensors-load-strategy=eager"], 1);
    assert_eq!(text, format!("{begin} --safetensors-load-strategy=eager"));
    let load = "--safetensors-load-strategy prefetch";
    let (text, _) = of(&["--served-model-name", "a", "b"], 1);
    assert_eq!(text, format!("--model /mnt/models --port \"8080\" {load} --served-model-name a b"));
    let (text, said) = of(&["--pipeline-parallel-size", "4"], 4);
    assert_eq!((text, said.as_str()), (format!("{begin} {load} --pipeline-parallel-size \"4\""), ""));
    let (text, said) = of(&["-tp=2"], 4);
    assert_eq!(text, format!("{begin} {load} -tp=2"));
    assert!(said.contains("asks for 4 GPUs") && said.contains("make 2 ranks"), "{said}");
    let (text, said) = of(&["--config", "/etc/engine.yaml"], 1);
    assert_eq!(text, format!("{begin} {load} --config /etc/engine.yaml"));
    assert!(said.contains("--config file, which is not read here"), "{said}");
    let (text, _) = of(&["--seed", "1"], 2);
    assert_eq!(text, format!("{begin} --tensor-parallel-size \"2\" {load} --seed \"1\""));
    let mut sglang =
        with(ObjectKind::Deployment, &["--host=0.0.0.0", "--dp-size", "2", "--enable-dp-attention"]);
    sglang.engine = EngineKind::Sglang;
    sglang.settings.gpus = Some(2);
    assert_eq!(
        arguments(&printed(&facts(), &sglang)),
        format!("{begin} --tp-size \"2\" --host=0.0.0.0 --dp-size \"2\" --enable-dp-attention")
    );
}

#[test]
fn certificates_of_the_users_are_asked_by_https() {
    let words = ["--ssl-certfile=/c/tls.crt", "--ssl-keyfile=/c/tls.key"];
    let text = printed(&facts(), &with(ObjectKind::Deployment, &words));
    assert_eq!((text.matches("scheme: HTTPS").count(), text.matches("scheme: HTTP\n").count()), (3, 0));
    assert!(text.contains("targetPort: https\n") && text.contains("- name: https\n"), "{text}");
    let llm = arguments(&printed(&facts(), &with(ObjectKind::LlmInferenceService, &words)));
    assert_eq!(llm.matches("--ssl-").count(), 2, "{llm}");
    assert!(llm.contains("--enable-ssl-refresh") && !llm.contains("/var/run/kserve"), "{llm}");
}

#[test]
fn templates_of_kserve_print_what_users_write() {
    let words = ["--chat-template", "{{ $(x) }}"];
    let escaped = "{{`{{`}} $$(x) }}";
    assert!(printed(&facts(), &with(ObjectKind::LlmInferenceService, &words)).contains(escaped));
    let runtime = Some("kserve-vllm".to_owned());
    let runtime = Options { runtime, ..with(ObjectKind::InferenceService, &words) };
    assert!(printed(&facts(), &runtime).contains(escaped));
    for kind in [ObjectKind::InferenceService, ObjectKind::Deployment] {
        assert!(printed(&facts(), &with(kind, &words)).contains("\"{{ $$(x) }}\""), "no template");
    }
    let mut llm = options(ObjectKind::LlmInferenceService);
    llm.settings.health_path = Some("/{{x}}".to_owned());
    assert!(printed(&facts(), &llm).contains("path: /{{`{{`}}x}}\n"));
    llm.settings.served_model_name = Some("{{x}}".to_owned());
    assert!(refusal(&facts(), &llm).contains("served-model-name"));
}

#[test]
fn processors_of_both_images_agree() {
    let of = |architecture: Option<&str>, gpus: u64, version: &str, backend: &str| {
        let told = [(Attribute::Backend, backend), (Attribute::EngineVersion, version)];
        let facts = Facts {
            platform: architecture
                .map(|name| Platform { architecture: name.to_owned(), ..Platform::default() }),
            caches: vec![cache(Kind::Vllm, "/tmp/compile-cache/vllm", &told)],
            ..facts()
        };
        let mut options = options(ObjectKind::Deployment);
        options.settings.gpus = Some(gpus);
        let text = printed(&facts, &options);
        let line = |start: &str| {
            text.lines().find_map(|line| line.trim_start().strip_prefix(start)).unwrap_or_default().to_owned()
        };
        (
            line("image: docker.io/vllm/") + &line("image: public.ecr.aws/q9t5s3a7/"),
            line("kubernetes.io/arch: "),
            warnings(&facts, &options).join("\n"),
        )
    };
    let is = |(image, architecture, said): (String, String, String), expected: (&str, &str, &str)| {
        assert_eq!((image.as_str(), architecture.as_str()), (expected.0, expected.1));
        assert!(said.contains(expected.2) && said.is_empty() == expected.2.is_empty(), "{said}");
    };
    is(of(Some("arm64"), 0, "0.32.1", "cpu"), ("vllm-openai-cpu:v0.32.1", "arm64", ""));
    is(of(Some("amd64"), 0, "0.32.1", "cpu"), ("vllm-openai-cpu:v0.32.1", "amd64", ""));
    is(of(None, 0, "0.32.1", "cpu"), ("vllm-openai-cpu:v0.32.1", "", ""));
    // Images for processors that have one repository each.
    is(of(Some("arm64"), 0, "0.16.0", "cpu"), ("vllm-arm64-cpu-release-repo:v0.16.0", "arm64", ""));
    is(of(None, 0, "0.16.0", "cpu"), ("vllm-cpu-release-repo:v0.16.0", "amd64", ""));
    is(of(Some("arm64"), 1, "0.32.1", "cuda"), ("vllm-openai:v0.32.1", "arm64", ""));
    is(of(Some("arm64"), 1, "0.10.0", "cuda"), ("vllm-openai:v0.10.0", "arm64", "is for amd64 alone"));
    is(of(Some("arm64"), 1, "0.32.1", "rocm"), ("vllm-openai-rocm:v0.32.1", "arm64", "--engine-image"));
    is(of(None, 1, "0.32.1", "rocm"), ("vllm-openai-rocm:v0.32.1", "amd64", ""));
    is(of(Some("s390x"), 0, "0.32.1", "cpu"), ("vllm-openai-cpu:v0.32.1", "s390x", "amd64 and arm64"));
    // An architecture that is no label's value.
    let odd = of(Some("a: b"), 0, "0.32.1", "cpu");
    assert_eq!(odd.1, "a--b");
}

#[test]
fn shared_memory_is_memory() {
    let of = |size: &str, gpus: u64| {
        let mut options = options(ObjectKind::Deployment);
        options.settings.shm = Some(size.to_owned());
        options.settings.gpus = Some(gpus);
        printed(&facts(), &options)
    };
    // 8 and 10 of shared memory; 15 of the model.
    let text = of("10Gi", 1);
    for line in [
        "sizeLimit: 10Gi",
        "memory: 18Gi\n",
        "memory: 33Gi\n",
        "mountPath: /dev/shm",
        "and its shared memory",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let text = of("10Gi", 2);
    assert!(text.contains("memory: 22Gi\n") && text.contains("memory: 37Gi\n"), "{text}");
    for none in ["0", "0Gi"] {
        let text = of(none, 2);
        assert!(!text.contains("shm") && !text.contains("shared memory"), "{text}");
        assert!(text.contains("memory: 12Gi\n") && text.contains("memory: 27Gi\n"), "{text}");
    }
}

#[test]
fn images_of_others_are_deployed_with_a_warning() {
    let foreign = Facts { is_packed: false, has_shell: None, laziness: Laziness::Whole, ..facts() };
    let said = |facts: &Facts, kind, mode| {
        let options = Options { mode: Some(mode), ..options(kind) };
        printed(facts, &options);
        let said = warnings(facts, &options);
        assert_eq!(said.len(), 1, "{said:?}");
        said.concat()
    };
    let modelcar = said(&foreign, ObjectKind::InferenceService, Mode::Modelcar);
    assert!(modelcar.contains("/models, that it has sh, ln and sleep, needs one GPU"), "{modelcar}");
    let native = said(&foreign, ObjectKind::Deployment, Mode::Native);
    assert!(native.contains("did not pack") && !native.contains("sh, ln"), "{native}");
    let prepull = said(&foreign, ObjectKind::Prepull, Mode::Modelcar);
    assert!(prepull.contains("sh, ln") && !prepull.contains("GPU"), "{prepull}");
    let plain = Facts { is_plain: true, ..foreign.clone() };
    let fetch = said(&plain, ObjectKind::InferenceService, Mode::Fetch);
    assert!(fetch.contains("one gzip member"), "{fetch}");
    let fetch = Options { mode: Some(Mode::Fetch), ..options(ObjectKind::InferenceService) };
    assert!(refusal(&foreign, &fetch).contains("this image has others"));
}
