//! Parts of pods that the kinds of objects share. Must not know which object a part goes into.

use super::{
    document::{Map, Node},
    facts::Facts,
    options::Mode,
    plan::{PERIOD, Plan},
};
use crate::compile_cache::MOUNTED_AT_DEFAULT;

/// The container that copies the compile caches.
const CACHE_CONTAINER: &str = "compile-cache";
/// Volume of the image, where a container of ours mounts it.
pub(super) const MODEL_VOLUME: &str = "model";
/// Shell and tools for images that have none.
const TOOLS_IMAGE: &str = "docker.io/library/busybox:1.37.0";

/// The image with a shell that is used where the model's has none.
pub(super) fn tools_image(plan: &Plan<'_>) -> String {
    plan.options.settings.tools_image.clone().unwrap_or_else(|| TOOLS_IMAGE.to_owned())
}

/// Labels of an object; those of `selector` alone choose pods.
pub(super) fn labels(plan: &Plan<'_>, component: &str) -> Map {
    selector(plan, component)
        .maybe("app.kubernetes.io/version", plan.version())
        .with("app.kubernetes.io/managed-by", "starcar")
}

pub(super) fn selector(plan: &Plan<'_>, component: &str) -> Map {
    Map::new()
        .with("app.kubernetes.io/name", plan.name.as_str())
        .with("app.kubernetes.io/component", component)
}

/// `metadata` of an object.
pub(super) fn metadata(plan: &Plan<'_>, name: &str, component: &str, annotations: Map) -> Map {
    Map::new()
        .with("name", name)
        .maybe("namespace", plan.options.settings.namespace.clone())
        .with("labels", labels(plan, component))
        .filled("annotations", annotations)
}

/// Fields of a pod that say where it runs and as whom.
pub(super) fn place(plan: &Plan<'_>, pod: Map) -> Map {
    let settings = &plan.options.settings;
    let secrets: Vec<Map> =
        settings.pull_secrets.iter().map(|name| Map::new().with("name", name.as_str())).collect();
    pod.maybe("serviceAccountName", settings.service_account.clone())
        .filled("imagePullSecrets", secrets)
        .note("A service called `vllm` would otherwise set VLLM_PORT, which vLLM takes for its own.")
        .with("enableServiceLinks", false)
        .filled("nodeSelector", plan.gpus.selector())
        .note("Other GPUs of this architecture run the engine as well, but compile again: caches are bound to the GPU's name.")
        .filled("affinity", plan.gpus.affinity())
        .filled("tolerations", plan.gpus.tolerations())
}

/// Adds `securityContext` to a pod.
pub(super) fn user(plan: &Plan<'_>, pod: Map) -> Map {
    let words = match (plan.mode, plan.options.kind.is_kserve()) {
        (Mode::Modelcar, true) => {
            "Equal user and group for all containers: otherwise the engine may not look into the modelcar. KServe sets the \
             user alone."
        }
        (Mode::Modelcar, false) => {
            "Equal user and group for all containers: otherwise the engine may not look into the modelcar."
        }
        _ => "One user for all containers: what one copies, another may write to.",
    };
    let context = Map::new()
        .with("runAsUser", plan.uid)
        .with("runAsGroup", plan.gid)
        .maybe("runAsNonRoot", (plan.uid != 0).then_some(true))
        .with("seccompProfile", Map::new().with("type", "RuntimeDefault"));
    pod.note(words).with("securityContext", context)
}

/// `securityContext` of a container.
pub(super) fn confined() -> Map {
    Map::new()
        .with("allowPrivilegeEscalation", false)
        .with("capabilities", Map::new().with("drop", vec!["ALL"]))
}

/// A variable.
pub(super) fn variable(name: &str, value: impl Into<Node>) -> Map {
    Map::new().with("name", name).with("value", value)
}

/// What a user whom the engine's image does not know needs: Python asks for its name, and libraries write to its home.
pub(super) fn user_variables() -> [Map; 2] {
    [variable("HOME", "/tmp"), variable("USER", "engine")]
}

/// The engine's container. `first` are variables that come before its own.
pub(super) fn engine(plan: &Plan<'_>, name: &str, first: Vec<Map>, home: bool, mounts: Vec<Map>) -> Map {
    let mut container = Map::new().with("name", name);
    if let Some(engine) = &plan.engine {
        container = container.with("image", engine.image.as_str()).with("imagePullPolicy", "IfNotPresent");
    }
    let container = command(plan, container);
    let mut environment = first;
    environment.push(
        // Nothing is to be asked of the hub: the model is in the image.
        variable("HF_HUB_OFFLINE", "1"),
    );
    if home {
        environment.extend(user_variables());
    }
    let mut all_mounts = mounts;
    if let Some(step) = &plan.caches {
        environment.extend(step.environment.iter().map(|(name, value)| variable(name, value.as_str())));
    }
    all_mounts.extend(cache_mounts(plan));
    if plan.resources.shm.is_some() {
        all_mounts.push(mount("dshm", "/dev/shm"));
    }
    let container = container.with("env", environment);
    let container = probes(plan, container);
    let container =
        if plan.resources.note.is_empty() { container } else { container.note(plan.resources.note.as_str()) };
    container
        .with("resources", resources(plan))
        .with("securityContext", confined())
        .filled("volumeMounts", all_mounts)
}

/// Command and arguments. A modelcar's link may come after the engine: the engine is started when it is there.
fn command(plan: &Plan<'_>, container: Map) -> Map {
    let Some(engine) = &plan.engine else { return container };
    let noted = |container: Map| {
        if engine.note.is_empty() { container } else { container.note(engine.note.as_str()) }
    };
    if !plan.waits() {
        let container = container.filled("command", engine.command.clone());
        return noted(container).filled("args", engine.arguments.clone());
    }
    let script = format!("until [ -d {MOUNTED_AT_DEFAULT}/ ]; do sleep 0.2; done; exec \"$@\"");
    let words = vec!["sh".to_owned(), "-c".to_owned(), script, "engine".to_owned()];
    let mut arguments = engine.command.clone();
    arguments.extend(engine.arguments.iter().cloned());
    let container = container
        .note("The model appears when the sidecar has made its link, which may be after this container's start (kserve#3927).")
        .with("command", words);
    noted(container).with("args", arguments)
}

fn probes(plan: &Plan<'_>, container: Map) -> Map {
    let Some(engine) = &plan.engine else { return container };
    let probe = |period: u64, failures: u64, seconds: u64| {
        let how = match &engine.health {
            Some(path) => {
                let get = Map::new().with("path", path.as_str()).with("port", engine.port);
                // KServe's template may say otherwise, and what is left out here is taken from there.
                let get = get.with("scheme", if engine.tls { "HTTPS" } else { "HTTP" });
                Map::new().with("httpGet", get)
            }
            None => Map::new().with("tcpSocket", Map::new().with("port", engine.port)),
        };
        how.with("periodSeconds", period).with("timeoutSeconds", seconds).with("failureThreshold", failures)
    };
    let name = if engine.tls { "https" } else { "http" };
    let port = Map::new().with("name", name).with("containerPort", engine.port).with("protocol", "TCP");
    container
        .with("ports", vec![port])
        .note(plan.startup.note.as_str())
        .with("startupProbe", probe(PERIOD, plan.startup.failures, 5))
        .with("readinessProbe", probe(5, 3, 5))
        .with("livenessProbe", probe(10, 6, 10))
}

/// `resources` of the engine.
pub(super) fn resources(plan: &Plan<'_>) -> Map {
    let of = |cpu: &str, memory: &str| Map::new().with("cpu", cpu).with("memory", memory);
    let own = &plan.resources;
    let gpus = |map: Map| {
        if plan.gpus.count == 0 {
            return map;
        }
        let map = if plan.gpus.reason.is_empty() { map } else { map.note(plan.gpus.reason) };
        map.with(plan.gpus.vendor.resource(), plan.gpus.count.to_string())
    };
    let requests = of(&own.cpu, &own.memory);
    let requests = match plan.gpus.count {
        0 => requests,
        count => requests.with(plan.gpus.vendor.resource(), count.to_string()),
    };
    Map::new().with("requests", requests).with("limits", gpus(of(&own.cpu_limit, &own.memory_limit)))
}

/// A place where a volume is mounted.
pub(super) fn mount(volume: &str, at: &str) -> Map {
    Map::new().with("name", volume).with("mountPath", at)
}

/// The model, mounted from a volume of the image.
pub(super) fn model_mount(facts: &Facts) -> Map {
    mount(MODEL_VOLUME, MOUNTED_AT_DEFAULT)
        .with("subPath", facts.model_directory.trim_start_matches('/'))
        .with("readOnly", true)
}

/// The volume of the image.
pub(super) fn model_volume(facts: &Facts) -> Map {
    let image = Map::new().with("reference", facts.image.pinned()).with("pullPolicy", "IfNotPresent");
    Map::new().with("name", MODEL_VOLUME).with("image", image)
}

fn cache_mounts(plan: &Plan<'_>) -> Vec<Map> {
    let step = plan.caches.iter();
    step.flat_map(|step| &step.mounts).map(|place| mount(&place.volume, &place.at)).collect()
}

/// Volumes that the engine writes to.
pub(super) fn scratch_volumes(plan: &Plan<'_>) -> Vec<Map> {
    let mut volumes: Vec<Map> = plan
        .caches
        .iter()
        .flat_map(|step| &step.mounts)
        .map(|place| Map::new().with("name", place.volume.as_str()).with("emptyDir", Map::new()))
        .collect();
    if let Some(size) = &plan.resources.shm {
        let memory = Map::new().with("medium", "Memory").with("sizeLimit", size.as_str());
        volumes.push(Map::new().with("name", "dshm").with("emptyDir", memory));
    }
    volumes
}

/// Whether the caches are copied from a mount of the image, because it has no shell itself.
pub(super) fn copies_from_mount(plan: &Plan<'_>) -> bool {
    plan.caches.is_some() && plan.facts.has_shell == Some(false)
}

/// The container that copies the caches before the engine starts.
pub(super) fn cache_container(plan: &Plan<'_>) -> Option<Map> {
    let step = plan.caches.as_ref()?;
    let from_mount = copies_from_mount(plan);
    let (image, script) = if from_mount {
        (tools_image(plan), &step.script_mounted)
    } else {
        (plan.facts.image.pinned(), &step.script)
    };
    let mut mounts = Vec::new();
    if from_mount {
        mounts.push(model_mount(plan.facts));
    }
    mounts.extend(cache_mounts(plan));
    let command = vec!["sh".to_owned(), "-c".to_owned(), script.clone()];
    let small = Map::new().with("cpu", "100m").with("memory", "128Mi");
    let most = Map::new().with("cpu", "2").with("memory", "1Gi");
    Some(
        Map::new()
            .with("name", CACHE_CONTAINER)
            .with("image", image)
            .with("imagePullPolicy", "IfNotPresent")
            .note(if from_mount {
                "Engines write to their caches, and the model's mount is read-only: they are copied before the engine starts."
            } else {
                "Engines write to their caches, and the model's mount is read-only: they are copied before the engine starts, in the \
                 model's own image, which has a shell and the caches."
            })
            .with("command", command)
            .with("resources", Map::new().with("requests", small).with("limits", most))
            .with("securityContext", confined())
            .with("volumeMounts", mounts),
    )
}
