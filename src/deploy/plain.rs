//! Objects of Kubernetes alone: a Deployment with its Service, and a `DaemonSet` that warms nodes.

use std::fmt::Write as _;

use super::{
    document::{Document, Map},
    options::{Mode, Pull},
    plan::Plan,
    pod::{self, MODEL_VOLUME},
    quantity::megabytes,
    versions::Targets,
};
use crate::compile_cache::MOUNTED_AT_DEFAULT;

/// The component that labels name.
const SERVER: &str = "model-server";
const PREPULL: &str = "prepull";
/// Where the sidecar's link is made: the directory above the model's.
const LINK_ROOT: &str = "/mnt";

/// Deployment and Service.
pub(super) fn deployment(plan: &Plan<'_>) -> Vec<Document> {
    let settings = &plan.options.settings;
    let is_modelcar = plan.mode == Mode::Modelcar;
    let mut volumes = pod::scratch_volumes(plan);
    let mut containers = Vec::new();
    let mount = if is_modelcar {
        containers.push(modelcar(plan));
        volumes.push(Map::new().with("name", MODEL_VOLUME).with("emptyDir", Map::new()));
        pod::mount(MODEL_VOLUME, LINK_ROOT)
    } else {
        volumes.push(pod::model_volume(plan.facts));
        pod::model_mount(plan.facts)
    };
    containers.push(pod::engine(plan, "engine", Vec::new(), true, vec![mount]));
    let mut template = pod::place(plan, Map::new());
    if is_modelcar {
        template = template
            .note("The engine looks into the modelcar through /proc, where both see each other's processes.")
            .with("shareProcessNamespace", true);
    }
    let template = pod::user(plan, template)
        .filled("initContainers", pod::cache_container(plan).into_iter().collect::<Vec<_>>())
        .with("containers", containers)
        .with("volumes", volumes);
    // A cold start is no failed rollout.
    let deadline =
        plan.startup.failures.saturating_mul(super::plan::PERIOD).saturating_add(600).min(i32::MAX as u64);
    let spec = Map::new()
        .with("replicas", settings.replicas.unwrap_or(1))
        .note("The startup probe's time, and ten minutes for scheduling and pulling.")
        .with("progressDeadlineSeconds", deadline)
        .with("selector", Map::new().with("matchLabels", pod::selector(plan, SERVER)))
        .with(
            "template",
            Map::new()
                .with("metadata", Map::new().with("labels", pod::labels(plan, SERVER)))
                .with("spec", template),
        );
    let object = Map::new()
        .with("apiVersion", "apps/v1")
        .with("kind", "Deployment")
        .with("metadata", pod::metadata(plan, &plan.name, SERVER, Map::new()))
        .with("spec", spec);
    let how = if is_modelcar { "a sidecar has it" } else { "mounted as a volume" };
    let preamble = format!(
        "Deployment for\n  {}\n{}; {how}.\nNeeds {}.",
        plan.facts.image.pinned(),
        megabytes(plan.facts.pull_size),
        Targets::needs(plan.options.kind, plan.mode)
    );
    let port = plan.engine.as_ref().map_or(0, |engine| engine.port);
    // The name of the container's port.
    let name = if plan.engine.as_ref().is_some_and(|engine| engine.tls) { "https" } else { "http" };
    let port =
        Map::new().with("name", name).with("port", port).with("targetPort", name).with("protocol", "TCP");
    let service = Map::new()
        .with("apiVersion", "v1")
        .with("kind", "Service")
        .with("metadata", pod::metadata(plan, &plan.name, SERVER, Map::new()))
        .with("spec", Map::new().with("selector", pod::selector(plan, SERVER)).with("ports", vec![port]));
    vec![Document { preamble, object }, Document { preamble: String::new(), object: service }]
}

/// The sidecar with the model, as KServe makes it.
fn modelcar(plan: &Plan<'_>) -> Map {
    let directory = &plan.facts.model_directory;
    // Kubernetes makes `$$` of `$$$$`: the shell's own process.
    let script = format!("ln -sfn /proc/$$$$/root{directory} {MOUNTED_AT_DEFAULT} && sleep infinity");
    let wait = format!("until [ -d {MOUNTED_AT_DEFAULT}/ ]; do sleep 0.1; done");
    let hook =
        Map::new().with("exec", Map::new().with("command", vec!["sh".to_owned(), "-c".to_owned(), wait]));
    let least = || Map::new().with("cpu", "10m").with("memory", "15Mi");
    Map::new()
        .with("name", "modelcar")
        .with("image", plan.facts.image.pinned())
        .with("imagePullPolicy", "IfNotPresent")
        .with("command", vec!["sh".to_owned(), "-c".to_owned(), script])
        .note("The first container, and it holds back the next one until the link is there.")
        .with("lifecycle", Map::new().with("postStart", hook))
        .with("resources", Map::new().with("requests", least()).with("limits", least()))
        .with("securityContext", pod::confined())
        .with("volumeMounts", vec![pod::mount(MODEL_VOLUME, LINK_ROOT)])
}

/// `DaemonSet` that brings the image to each node it runs on.
pub(super) fn prepull(plan: &Plan<'_>) -> Vec<Document> {
    let facts = plan.facts;
    let is_native = plan.mode == Mode::Native;
    let directory = if is_native { MOUNTED_AT_DEFAULT } else { &facts.model_directory };
    // To read a file is what makes a lazy mount fetch it.
    let reads = plan.options.pull == Pull::Eager;
    let script = if reads {
        format!("find {directory}/ -type f -exec cat {{}} + > /dev/null")
    } else {
        format!("ls -A {directory}/ > /dev/null")
    };
    let container = |name: &str| {
        let image = if is_native { pod::tools_image(plan) } else { facts.image.pinned() };
        Map::new().with("name", name).with("image", image).with("imagePullPolicy", "IfNotPresent")
    };
    let least = || {
        let most = Map::new().with("cpu", "500m").with("memory", "64Mi");
        let requests = Map::new().with("cpu", "10m").with("memory", "16Mi");
        Map::new().with("requests", requests).with("limits", most)
    };
    let mounts = || if is_native { vec![pod::model_mount(facts)] } else { Vec::new() };
    let shell = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let warm = container("warm")
        .note(if reads {
            "Reads every file, so that nodes that pull lazily have all of it; others have it already."
        } else {
            "Pulls the image: on nodes with stargz-snapshotter, mounts it and begins to fetch it in the background."
        })
        .with("command", shell(&script))
        .with("resources", least())
        .with("securityContext", pod::confined())
        .filled("volumeMounts", mounts());
    let keep = container("keep")
        .note("Kubelets remove images that no container uses; this one uses it.")
        .with("command", shell("sleep infinity"))
        .with("resources", least())
        .with("securityContext", pod::confined())
        .filled("volumeMounts", mounts());
    let volumes = if is_native { vec![pod::model_volume(facts)] } else { Vec::new() };
    let template = Map::new().with("automountServiceAccountToken", false);
    let template = pod::user(plan, pod::place(plan, template))
        .note("`sleep` does not heed the signal to end.")
        .with("terminationGracePeriodSeconds", 1)
        .with("initContainers", vec![warm])
        .with("containers", vec![keep])
        .filled("volumes", volumes);
    let name = format!("{}-prepull", plan.name);
    let update = Map::new().with("rollingUpdate", Map::new().with("maxUnavailable", "100%"));
    let spec = Map::new()
        .with("selector", Map::new().with("matchLabels", pod::selector(plan, PREPULL)))
        .with("updateStrategy", update)
        .with(
            "template",
            Map::new()
                .with("metadata", Map::new().with("labels", pod::labels(plan, PREPULL)))
                .with("spec", template),
        );
    let object = Map::new()
        .with("apiVersion", "apps/v1")
        .with("kind", "DaemonSet")
        .with("metadata", pod::metadata(plan, &name, PREPULL, Map::new()))
        .with("spec", spec);
    let commands = commands(plan).join("\n  ");
    let preamble = format!(
        "DaemonSet that brings\n  {}\n({}) to the nodes it runs on.\nNeeds {}.\nOn a node of which an image is made \
         (--script prints this as a script):\n  {commands}",
        facts.image.pinned(),
        megabytes(facts.pull_size),
        Targets::needs(plan.options.kind, plan.mode),
    );
    vec![Document { preamble, object }]
}

/// The commands that bring the image to the node that they run on.
fn commands(plan: &Plan<'_>) -> Vec<String> {
    let image = &plan.facts.image;
    let mut lines = Vec::new();
    if plan.is_lazy {
        lines.push(format!("ctr-remote --namespace k8s.io images rpull {}", image.by_digest()));
    }
    lines.push(format!("crictl pull {}", image.pinned()));
    lines
}

/// A script for nodes whose disk is made an image of.
pub(super) fn script(plan: &Plan<'_>) -> String {
    let image = &plan.facts.image;
    let (pinned, by_digest) = (image.pinned(), image.by_digest());
    let mut text = format!(
        "#!/bin/sh\n# Brings {pinned}\n# to the node that it runs on, so that an image of the node's disk has it. As root.\nset -eu\n"
    );
    if plan.is_lazy {
        let _ = write!(
            text,
            "\n# stargz-snapshotter: the image is mounted at once and fetched behind. The name is the one that kubelets ask for.\n\
             # With LAZY=no it is pulled whole, as nodes without the snapshotter do it.\n\
             if [ \"${{LAZY:-yes}}\" = yes ] && command -v ctr-remote > /dev/null; then\n  \
             ctr-remote --namespace k8s.io images rpull {by_digest}\nelse\n  crictl pull {pinned}\nfi\n"
        );
    } else {
        let _ = write!(text, "\ncrictl pull {pinned}\n");
    }
    let _ = write!(
        text,
        "\n# Says whether it is there.\ncrictl inspecti -q {pinned} > /dev/null && echo 'there: {pinned}'\n"
    );
    text
}
