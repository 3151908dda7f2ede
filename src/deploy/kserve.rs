//! KServe's objects. KServe adds the model to their pods by itself, from the URI.

use super::{
    arguments::verbatim,
    document::{Document, Map},
    options::{EngineKind, Mode},
    plan::Plan,
    pod,
    quantity::megabytes,
    versions::{KSERVE_LLM_V1ALPHA2, KSERVE_STANDARD, Targets},
};

/// The component that labels name.
const COMPONENT: &str = "predictor";

/// The image in KServe's words. KServe cuts the scheme off and takes the rest as it is.
fn uri(plan: &Plan<'_>) -> String {
    let scheme = match plan.mode {
        Mode::Modelcar => "oci",
        Mode::Native => "oci+native",
        Mode::Fetch => "oci+fetch",
    };
    format!("{scheme}://{}", plan.facts.image.pinned())
}

fn preamble(plan: &Plan<'_>, what: &str) -> String {
    let how = if plan.is_lazy {
        "nodes with stargz-snapshotter start before it is pulled"
    } else {
        "it is there in whole before the engine starts"
    };
    format!(
        "{what} for\n  {}\n{}; {how}.\nNeeds {}.",
        plan.facts.image.pinned(),
        megabytes(plan.facts.pull_size),
        Targets::needs(plan.options.kind, plan.mode)
    )
}

/// `InferenceService`.
pub(super) fn inference_service(plan: &Plan<'_>) -> Vec<Document> {
    let settings = &plan.options.settings;
    let standard = plan.options.targets.kserve.is_none_or(|have| have >= KSERVE_STANDARD);
    let annotations = Map::new()
        .note("A Deployment, without Knative, which does not let pods have init containers and such unless it is told to.")
        .with("serving.kserve.io/deploymentMode", if standard { "Standard" } else { "RawDeployment" });
    let mut predictor = Map::new()
        .with("minReplicas", settings.replicas.unwrap_or(1))
        .with("maxReplicas", settings.replicas.unwrap_or(1).max(1));
    predictor = pod::user(plan, pod::place(plan, predictor));
    predictor =
        predictor.filled("initContainers", pod::cache_container(plan).into_iter().collect::<Vec<_>>());
    if let Some(runtime) = &plan.options.runtime {
        predictor = predictor.with("model", runtime_model(plan, runtime));
    } else {
        let storage = pod::variable("STORAGE_URI", uri(plan));
        let container = pod::engine(plan, "kserve-container", vec![storage], true, Vec::new());
        predictor = predictor
            .note("STORAGE_URI is what KServe mounts at /mnt/models.")
            .with("containers", vec![container]);
    }
    let mut volumes = pod::scratch_volumes(plan);
    if pod::copies_from_mount(plan) {
        volumes.push(pod::model_volume(plan.facts));
    }
    let predictor = predictor.filled("volumes", volumes);
    let object = Map::new()
        .with("apiVersion", "serving.kserve.io/v1beta1")
        .with("kind", "InferenceService")
        .with("metadata", pod::metadata(plan, &plan.name, COMPONENT, annotations))
        .with("spec", Map::new().with("predictor", predictor));
    vec![Document { preamble: preamble(plan, "KServe InferenceService"), object }]
}

/// `predictor.model`: the cluster's runtime runs, and gets what an engine of ours would.
fn runtime_model(plan: &Plan<'_>, runtime: &str) -> Map {
    let format = plan.options.model_format.clone().unwrap_or_else(|| {
        if runtime.contains("huggingface") { "huggingface".to_owned() } else { "vLLM".to_owned() }
    });
    let mut environment = vec![pod::variable("HF_HUB_OFFLINE", "1")];
    environment.extend(pod::user_variables());
    let mut mounts = Vec::new();
    if let Some(step) = &plan.caches {
        environment.extend(step.environment.iter().map(|(name, value)| pod::variable(name, value.as_str())));
        mounts.extend(step.mounts.iter().map(|place| pod::mount(&place.volume, &place.at)));
    }
    if plan.resources.shm.is_some() {
        mounts.push(pod::mount("dshm", "/dev/shm"));
    }
    let model = ["--model", crate::compile_cache::MOUNTED_AT_DEFAULT].map(str::to_owned);
    let mut arguments = model.to_vec();
    if plan.gpus.count > 1 && !plan.given.has_ranks() {
        arguments.extend(["--tensor-parallel-size".to_owned(), plan.gpus.count.to_string()]);
    }
    arguments.extend(plan.options.engine_arguments.iter().map(|word| verbatim(word, true)));
    let notes = format!("{}\nThe runtime has probes of its own. {}", plan.resources.note, plan.startup.note);
    Map::new()
        .with("modelFormat", Map::new().with("name", format))
        .with("runtime", runtime)
        .with("storageUri", uri(plan))
        .note("Appended to the runtime's own; the last one counts.")
        .with("args", arguments)
        .with("env", environment)
        .note(notes.trim_start())
        .with("resources", pod::resources(plan))
        .filled("volumeMounts", mounts)
}

/// `LLMInferenceService`.
pub(super) fn llm_inference_service(plan: &Plan<'_>) -> Vec<Document> {
    let settings = &plan.options.settings;
    let newer = plan.options.targets.kserve.is_none_or(|have| have >= KSERVE_LLM_V1ALPHA2);
    let mut template = pod::user(plan, pod::place(plan, Map::new()));
    template = template.filled("initContainers", pod::cache_container(plan).into_iter().collect::<Vec<_>>());
    // KServe's template has a home that can be written to.
    let mut first = Vec::new();
    if plan.options.engine != EngineKind::Custom {
        first.push(pod::variable("USER", "engine"));
    }
    let container = pod::engine(plan, "main", first, false, Vec::new());
    template = template
        .note(if plan.engine.as_ref().is_some_and(|engine| engine.tls) {
            "Merged with KServe's own template by name; its certificates are mounted there, and the router expects TLS."
        } else {
            "Merged with KServe's own template by name."
        })
        .with("containers", vec![container]);
    let mut volumes = pod::scratch_volumes(plan);
    if pod::copies_from_mount(plan) {
        volumes.push(pod::model_volume(plan.facts));
    }
    let template = template.filled("volumes", volumes);
    let model = Map::new().with("uri", uri(plan)).with("name", plan.served.as_str());
    let router = Map::new().with("route", Map::new()).with("gateway", Map::new());
    let spec = Map::new()
        .with("model", model)
        .with("replicas", settings.replicas.unwrap_or(1))
        .note("Requests go through the gateway to any replica; `scheduler: {}` beside these chooses one by its caches.")
        .with("router", router)
        .with("template", template);
    let object = Map::new()
        .with("apiVersion", if newer { "serving.kserve.io/v1alpha2" } else { "serving.kserve.io/v1alpha1" })
        .with("kind", "LLMInferenceService")
        .with("metadata", pod::metadata(plan, &plan.name, COMPONENT, Map::new()))
        .with("spec", spec);
    vec![Document { preamble: preamble(plan, "KServe LLMInferenceService"), object }]
}
