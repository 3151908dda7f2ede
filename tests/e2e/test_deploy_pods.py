"""The pods of `starcar deploy`'s manifests run: the model is read whole, as the user that KServe chooses, and the caches
are where the engine is told, copied by the manifest's own step.

The manifest is taken as it is printed. KServe's part is `kubernetes/kserve.py`, the kubelet's `kubernetes/kubelet.py`;
the engine is a stand-in that tells what it was given and reads everything (`kubernetes/engine.py`).
"""

import json

import pytest

import cache_trees
import cache_use
from consumers import node as nodes
from consumers.proc import Failed
from kubernetes import engine, kserve
from kubernetes.kubelet import Kubelet, pinned
from kubernetes.objects import Judge

# Kind, mode, and whether the node pulls lazily.
MODES = [
    ("inferenceservice", "modelcar", True), ("inferenceservice", "native", True), ("llminferenceservice", "modelcar", True),
    ("llminferenceservice", "native", False), ("deployment", "native", True), ("deployment", "modelcar", False),
]
TOOLS = "docker.io/library/busybox:1.37.0"
ODD = ["--engine-arg=--json={\"a\": \"b: c # d\"}", "--engine-arg=$$HOME $(HF_HUB_OFFLINE) 'x' \\ \n y: \u00e9", "--engine-arg=on"]


@pytest.fixture(scope="module")
def judge(bin_dir):
    return Judge(bin_dir)


@pytest.fixture(scope="module")
def stand_in(scratch, registry):
    return engine.build(scratch, registry)


@pytest.fixture(scope="module")
def packed(starcar, registry, small_model, scratch):
    """{name: image in the registry}: with a vLLM cache, upon busybox and upon nothing."""
    cache = cache_trees.vllm(scratch / "deploy-pods-vllm")
    made = {}
    for name, base in (("shell", "/bin/busybox"), ("no-shell", "scratch")):
        ref = registry.ref(f"deploy/{name}", "v1")
        made[name] = starcar.pack(small_model[0], "--cache", cache, tag=ref, base=base)
    return made


@pytest.fixture(scope="module")
def kubelet(bin_dir, registry, scratch, packed, stand_in):
    """On a node of its own: other tests' pulls of the same model would leave its layers in the session's."""
    lazy = {pinned(image.ref).rpartition(":")[0] for image in packed.values()}
    fresh = nodes.Node(bin_dir, scratch / "lazy-node")
    yield Kubelet(fresh, registry, scratch / "kubelet", lazy, stand_in={TOOLS: stand_in})
    fresh.stop()


@pytest.fixture(scope="module")
def eager_kubelet(bin_dir, registry, scratch, stand_in):
    """On a node that has no snapshotter of its own."""
    bare = nodes.Node(bin_dir, scratch / "bare-node", snapshotters={})
    yield Kubelet(bare, registry, scratch / "eager-kubelet", stand_in={TOOLS: stand_in})
    bare.stop()


def applied(starcar, judge, image, kind, mode, *options):
    """The pod that comes of a manifest, with an API server's defaults."""
    done = starcar("deploy", image.ref, "--plain-http", "--as", kind, "--mode", mode, *options)
    verdicts = judge(done.stdout)
    assert not any(verdict.errors for verdict in verdicts), verdicts
    first = verdicts[0]
    if not first.known:
        return judge.stored(kserve.pod_of(first.object, [v.object for v in verdicts]))
    template = first.stored["spec"]["template"]
    return judge.stored({
        "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
        "metadata": {**template["metadata"], "name": first.name, "namespace": first.object["metadata"].get("namespace", "default")},
    })


def served(ran, name):
    """What the engine told, which must have come up at its first start."""
    ended = ran.containers[name]
    assert ended.status == 0, ended.output
    assert ended.starts == 1, f"{ended.starts} starts\n{ended.output}"
    told = engine.told(ended.output)
    assert told.complaints == [], told.complaints
    return told


def assert_whole(told, small_model):
    """Every file of the model, byte for byte."""
    want = {path.removeprefix("models/"): record["sha256"] for path, record in small_model[1].items() if record["type"] == "reg"}
    model = {path: digest for path, digest in told.model.items() if not path.startswith("compile-cache/")}
    assert model == want


def assert_copied(told):
    """Every file of the image's cache, where the engine looks for it."""
    at = told.environment["VLLM_CACHE_ROOT"]
    assert at == "/tmp/compile-cache/vllm"
    inside = "compile-cache/vllm/"
    want = {f"{at}/{path.removeprefix(inside)}": digest for path, digest in told.model.items() if path.startswith(inside)}
    assert len(want) > 17 and told.caches == want


def container_name(kind):
    return {"inferenceservice": "kserve-container", "llminferenceservice": "main", "deployment": "engine"}[kind]


@pytest.mark.parametrize(("kind", "mode", "lazily"), MODES, ids=[f"{kind}-{mode}" for kind, mode, _ in MODES])
def test_it_serves(starcar, judge, kubelet, eager_kubelet, packed, stand_in, small_model, kind, mode, lazily):
    """Pulled by digest, read whole under UID 1010."""
    image, node = packed["shell"], kubelet if lazily else eager_kubelet
    pod = applied(starcar, judge, image, kind, mode, "--engine-image", stand_in, *ODD)
    ran = node.run(pod)
    told = served(ran, container_name(kind))
    assert told.user == (1010, 0)
    assert_whole(told, small_model)
    assert_copied(told)
    assert told.environment["HF_HUB_OFFLINE"] == "1"
    words = told.arguments
    assert words[words.index("--model") + 1] == "/mnt/models", words
    for odd in ODD:
        assert odd.removeprefix("--engine-arg=") in words, words
    # Only what the digest names was pulled.
    by_digest = pinned(f"{image.ref}@{image.digest}")
    assert {name for name in ran.images.values() if name != stand_in} == {by_digest}
    names = node.node.ctr("images", "ls", "-q").stdout.split()
    assert by_digest in names and image.ref not in names
    if lazily:
        layers = {layer["digest"] for layer in node.registry.manifest(image.ref)["layers"]}
        assert not node.node.stored() & layers


@pytest.mark.parametrize(("kind", "user"), [("inferenceservice", 1010), ("deployment", 4711)])
def test_an_image_without_a_shell(starcar, judge, kubelet, packed, stand_in, small_model, kind, user):
    """The caches are copied from the mount, by tools of another image; whoever runs the engine may write to them.

    Twice, as when a node restarts a pod's containers, with what is in its volumes.
    """
    options = ["--engine-image", stand_in] + (["--set", f"uid={user}"] if user != 1010 else [])
    pod, ran = applied(starcar, judge, packed["no-shell"], kind, "native", *options), None
    for _ in range(2):
        ran = kubelet.run(pod, again=ran)
        told = served(ran, container_name(kind))
        assert told.user[0] == user
        assert_whole(told, small_model)
        assert_copied(told)


def test_the_clusters_own_runtime(starcar, judge, kubelet, packed, stand_in, small_model):
    """KServe's runtime for Hugging Face's models: the arguments follow its own."""
    pod = applied(starcar, judge, packed["shell"], "inferenceservice", "modelcar", "--runtime", "kserve-huggingfaceserver")
    kubelet.stand_in[kserve.HUGGING_FACE["image"]] = stand_in
    ran = kubelet.run(pod)
    # Nothing waits for the link here: KServe tells this runtime to wait by a variable, and the stand-in does not.
    ended = ran.containers["kserve-container"]
    assert ended.status == 0, ended.output
    told = engine.told(ended.output)
    assert told.complaints == [] and told.environment["MODEL_INIT_MODE"] == "async"
    assert told.arguments[1] == "--model_name=shell" and "--model" in told.arguments
    assert_whole(told, small_model)
    assert_copied(told)


def test_a_link_that_comes_late(starcar, judge, kubelet, packed, stand_in, small_model):
    """A slow sidecar: the engine starts when the model is there, not before."""
    pod = applied(starcar, judge, packed["shell"], "inferenceservice", "modelcar", "--engine-image", stand_in)
    (car,) = [c for c in pod["spec"]["containers"] if c["name"] == "modelcar"]
    car["args"][-1] = f"sleep 2 && {car['args'][-1]}"
    assert_whole(served(kubelet.run(pod), "kserve-container"), small_model)


@pytest.mark.parametrize(("mode", "pull"), [("modelcar", "lazy"), ("native", "eager")])
def test_prepull(starcar, judge, fresh_node, registry, scratch, packed, stand_in, image_name, mode, pull):
    """Its containers end well or stay, and the image is on the node; eagerly, with all of its bytes."""
    image = packed["shell" if mode == "modelcar" else "no-shell"]
    lazy = {pinned(image.ref).rpartition(":")[0]}
    kubelet = Kubelet(fresh_node, registry, scratch / image_name, lazy, stand_in={TOOLS: stand_in})
    registry.reset()
    ran = kubelet.run(applied(starcar, judge, image, "prepull", mode, "--pull", pull))
    assert {name: ended.status for name, ended in ran.containers.items()} == {"warm": 0, "keep": 0}
    names = fresh_node.ctr("images", "ls", "-q").stdout.split()
    assert pinned(f"{image.ref}@{image.digest}") in names
    layers = {layer["digest"]: layer["size"] for layer in registry.manifest(image.ref)["layers"]}
    sent = sum(value["bytes"] for digest, value in registry.served().items() if digest in layers)
    if pull == "eager":
        assert sent > 0.95 * sum(layers.values()), (sent, layers)
    else:
        assert sent < 0.2 * sum(layers.values()), (sent, layers)


def test_the_kubelet_is_no_pushover(kubelet, judge, packed, stand_in):
    """What must fail does: no model in the volume, another user than the sidecar's, an unknown field."""
    image = f"{packed['shell'].ref}@{packed['shell'].digest}"
    document = {
        "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "tiny"},
        "spec": {"predictor": {"containers": [
            {"name": "kserve-container", "image": stand_in, "env": [{"name": "STORAGE_URI", "value": f"oci://{image}"}]}
        ]}},
    }
    pod = judge.stored(kserve.pod_of(document))
    pod["spec"]["restartPolicy"] = "Never"
    for change, status in ((("securityContext", {"runAsUser": 1000}), 3), (("command", ["sh", "-c", "exit 7"]), 7)):
        changed = json.loads(json.dumps(pod))
        changed["spec"]["containers"][0][change[0]] = change[1]
        assert kubelet.run(changed).containers["kserve-container"].status == status
    document["spec"]["predictor"]["containers"][0]["stdinOnce"] = True
    with pytest.raises(Failed, match="stdinOnce"):
        kubelet.run(judge.stored(kserve.pod_of(document)))
    assert cache_use.AT == "/tmp/compile-cache"
