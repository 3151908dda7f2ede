"""`starcar deploy`: every kind, mode and engine, for images with and without compile caches, is accepted.

Kubernetes' objects are judged by its API server's code, KServe's by its SDK's models; the pods that KServe makes of
them, its injection included, again by Kubernetes. What is said in them is compared with the image.
"""

import json
import re

import pytest

import cache_trees
from consumers import models
from consumers.proc import run
from kubernetes import kserve, kserve_types
from kubernetes.objects import Judge

NAME = "registry.example.com/models/tiny"
MODES = [
    ("inferenceservice", "modelcar"), ("inferenceservice", "native"), ("llminferenceservice", "modelcar"),
    ("llminferenceservice", "native"), ("deployment", "native"), ("deployment", "modelcar"), ("prepull", "modelcar"),
    ("prepull", "native"),
]
ENGINES = {
    "vllm": ["--engine", "vllm"],
    "vllm of the user's": ["--engine", "vllm", "--engine-image", "registry.example.com/engines/vllm:v1"],
    "sglang": ["--engine", "sglang"],
    "custom": ["--engine", "custom", "--engine-image", "registry.example.com/engines/mine:v1", "--engine-command", "serve"],
    "custom, no command": ["--engine", "custom", "--engine-image", "registry.example.com/engines/mine:v1"],
}
KINDS = {
    "inferenceservice": ["InferenceService"], "llminferenceservice": ["LLMInferenceService"],
    "deployment": ["Deployment", "Service"], "prepull": ["DaemonSet"],
}
VARIABLES = {
    "vllm": {"VLLM_CACHE_ROOT": "/tmp/compile-cache/vllm"}, "two ranks": {"VLLM_CACHE_ROOT": "/tmp/compile-cache/vllm"},
    "no shell": {"VLLM_CACHE_ROOT": "/tmp/compile-cache/vllm"},
}


@pytest.fixture(scope="module")
def judge(bin_dir):
    return Judge(bin_dir)


@pytest.fixture(scope="module")
def images(starcar, scratch):
    """{name: layout with a tag}: images without caches and with caches of several kinds."""
    root = scratch / "deploy-images"
    model = models.model(root / "model", weights=1 << 20, shards=1)
    vllm = cache_trees.vllm(root / "vllm-75")
    other = cache_trees.vllm(root / "vllm-90", arch=90)
    ranks = cache_trees.vllm_aot(root / "ranks", ranks=2)
    flashinfer = cache_trees.flashinfer(root / "workspace", root / "package")
    of = {
        "plain": [],
        "vllm": ["--cache", vllm],
        "two ranks": ["--cache", f"vllm={ranks}"],
        "flashinfer": ["--cache", flashinfer, "--cache", vllm],
        "variants": ["--cache", f"vllm@sm75={vllm}", "--cache", f"vllm@sm90={other}"],
        "no shell": ["--cache", vllm],
        "tar": ["--layer-format", "tar"],
    }
    made = {}
    for name, options in of.items():
        layout = root / f"{name.replace(' ', '-')}.oci"
        base = "scratch" if name == "no shell" else "/bin/busybox"
        starcar("pack", model, *options, "--base", base, "-o", f"oci:{layout}:v1")
        made[name] = layout
    return made


def deployed(starcar, layout, kind, mode, *options, tag="v1", image=f"{NAME}:v1", check=True):
    arguments = ["deploy", f"oci:{layout}:{tag}", "--as", kind, "--image", image]
    return starcar(*arguments, *(["--mode", mode] if mode else []), *options, check=check)


def accepted(judge, text):
    """The objects that are printed and the pods that come of them; none may be refused or warned of."""
    verdicts = judge(text)
    for verdict in verdicts:
        assert not verdict.errors and not verdict.warnings, (verdict.kind, verdict.errors, verdict.warnings, text)
        if not verdict.known:
            assert kserve_types.check(verdict.object) == [], text
    objects = [verdict.object for verdict in verdicts]
    pods = []
    for verdict in verdicts:
        if not verdict.known:
            pods.append(judge.stored(kserve.pod_of(verdict.object, objects)))
        elif "template" in verdict.object["spec"]:
            template = verdict.stored["spec"]["template"]
            metadata = {**template["metadata"], "name": "pod"}
            pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    return verdicts, pods


def engine_of(pod):
    (container,) = [c for c in pod["spec"]["containers"] if c["name"] in ("kserve-container", "main", "engine")]
    return container


def digest_of(layout, tag="v1"):
    for entry in json.loads((layout / "index.json").read_text())["manifests"]:
        if entry["annotations"]["org.opencontainers.image.ref.name"] == tag:
            return entry["digest"]
    raise AssertionError(f"no {tag} in {layout}")


@pytest.mark.parametrize(("kind", "mode"), MODES, ids=[f"{kind}-{mode}" for kind, mode in MODES])
def test_all_is_accepted(starcar, judge, images, kind, mode):
    """vLLM with each image, the other engines with and without caches; YAML and JSON are the same objects."""
    for name, layout in images.items():
        pinned = f"{NAME}:v1@{digest_of(layout)}"
        if name == "no shell" and mode == "modelcar":
            done = deployed(starcar, layout, kind, mode, check=False)
            assert done.returncode != 0 and "hint:" in done.stderr, done.stderr
            continue
        for engine, options in ENGINES.items() if kind != "prepull" else [("none", [])]:
            if engine not in ("vllm", "none") and name not in ("plain", "vllm"):
                continue
            if kind == "llminferenceservice" and engine.startswith("custom"):
                options = [*options, "--set", "health-path=/ready"]
            what = (kind, mode, name, engine)
            done = deployed(starcar, layout, kind, mode, "--pull-secret", "registry", *options)
            verdicts, (pod,) = accepted(judge, done.stdout)
            assert [verdict.kind for verdict in verdicts] == KINDS[kind], what
            if engine in ("vllm", "none"):
                again = deployed(starcar, layout, kind, mode, "--pull-secret", "registry", *options, "--format", "json")
                assert [v.object for v in judge(again.stdout)] == [v.object for v in verdicts], what
            used = re.findall(re.escape(NAME) + r'[^\s"]*', json.dumps([v.object for v in verdicts]))
            assert used and set(used) == {pinned}, (what, used)
            assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}], what
            if kind == "prepull":
                continue
            container = engine_of(pod)
            words = container.get("command", []) + container.get("args", [])
            assert words[words.index("--model") + 1] == "/mnt/models", (what, words)
            environment = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert environment["HF_HUB_OFFLINE"] == "1", what
            # SGLang does not look at vLLM's caches.
            has_caches = name == "flashinfer" or (name in VARIABLES and engine != "sglang")
            if name in VARIABLES and not has_caches:
                assert "vLLM's compile caches" in done.stderr and "VLLM_CACHE_ROOT" not in environment, (what, done.stderr)
                assert not pod["spec"].get("initContainers") or "compile-cache" not in json.dumps(pod["spec"]["initContainers"]), what
            elif name in VARIABLES:
                assert environment.items() >= VARIABLES[name].items(), what
            probe = container["startupProbe"]
            assert probe["failureThreshold"] * probe["periodSeconds"] >= 600, what
            limits = container["resources"]["limits"]
            assert limits["nvidia.com/gpu"] == ("2" if name == "two ranks" else "1"), what
            assert "memory" in limits and "memory" in container["resources"]["requests"], what
            assert any(t.get("key") == "nvidia.com/gpu" for t in pod["spec"]["tolerations"]), what
            if has_caches:
                placed = json.dumps([pod["spec"].get("nodeSelector"), pod["spec"].get("affinity")])
                assert "nvidia.com/gpu." in placed and "Tesla-T4" in placed or '"7"' in placed, (what, placed)
            volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
            model = [m for m in container["volumeMounts"] if m["mountPath"] in ("/mnt/models", "/mnt")]
            assert len(model) == 1, what
            if mode == "native":
                assert model[0]["readOnly"] and model[0]["subPath"] == "models", what
                assert volumes[model[0]["name"]]["image"]["reference"] == pinned, what
            else:
                assert pod["spec"]["shareProcessNamespace"] is True, what
                assert [c["image"] for c in pod["spec"]["containers"] if c["name"] == "modelcar"] == [pinned], what


@pytest.mark.parametrize("mode", ["modelcar", "native"])
def test_a_runtime_of_the_cluster(starcar, judge, images, mode):
    """A ServingRuntime's name instead of an engine: KServe adds its arguments before the manifest's."""
    for name in ("plain", "vllm"):
        done = deployed(starcar, images[name], "inferenceservice", mode, "--runtime", "kserve-huggingfaceserver")
        (verdict,), (pod,) = accepted(judge, done.stdout)
        model = verdict.object["spec"]["predictor"]["model"]
        assert (model["runtime"], model["modelFormat"]["name"]) == ("kserve-huggingfaceserver", "huggingface")
        (container,) = [c for c in pod["spec"]["containers"] if c["name"] == "kserve-container"]
        words = container["args"]
        assert words[0].startswith("--model_name=") and words[words.index("--model") + 1] == "/mnt/models"
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert environment["HF_HUB_OFFLINE"] == "1"
        assert environment.items() >= VARIABLES.get(name, {}).items()


def test_an_image_for_two_platforms(starcar, judge, scratch, images):
    """The index's digest is named, so that nodes of both kinds find theirs; nodes are chosen by --platform alone."""
    layout = scratch / "deploy-images/platforms.oci"
    model = scratch / "deploy-images/model"
    starcar("pack", model, "--base", "scratch", "--platform", "linux/amd64,linux/arm64", "-o", f"oci:{layout}:v1")
    done = deployed(starcar, layout, "deployment", None)
    _, (pod,) = accepted(judge, done.stdout)
    index = json.loads((layout / "index.json").read_text())["manifests"][0]
    assert "index" in index["mediaType"] and f"{NAME}:v1@{index['digest']}" in done.stdout
    assert "kubernetes.io/arch" not in json.dumps(pod)
    for architecture in ("amd64", "arm64"):
        done = deployed(starcar, layout, "deployment", None, "--platform", f"linux/{architecture}")
        _, (pod,) = accepted(judge, done.stdout)
        assert pod["spec"]["nodeSelector"] == {"kubernetes.io/arch": architecture}
        assert f"{NAME}:v1@{index['digest']}" in done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_variant_by_its_target(starcar, judge, images, kind):
    """--target takes the variant's tag and digest; without it the image without caches, and the targets are named."""
    layout = images["variants"]
    plain = deployed(starcar, layout, kind, None)
    assert "sm75" in plain.stderr and "sm90" in plain.stderr, plain.stderr
    assert f"{NAME}:v1@{digest_of(layout)}" in plain.stdout
    for target, product in (("sm75", "T4"), ("sm90", "H100")):
        done = deployed(starcar, layout, kind, None, "--target", target)
        accepted(judge, done.stdout)
        assert f"{NAME}:v1-{target}@{digest_of(layout, f'v1-{target}')}" in done.stdout
        assert product in done.stdout or kind == "prepull"
    done = deployed(starcar, layout, kind, None, "--target", "sm100", check=False)
    assert done.returncode not in (0, 101) and "sm75" in done.stderr, done.stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "image",
    [
        "registry.example.com/on:on", "registry.example.com/0:0", "registry.example.com/1e3:1e3", "registry.example.com/a__b.c--d:1.10",
        f"registry.example.com/{'a' * 120}:{'v' * 128}", "registry.example.com/models/x:V1.0_RC.", "localhost:5000/no:yes",
        "registry.example.com:5000/null:0x1f", "registry.example.com/8b-model:_1",
    ],
)
def test_odd_names(starcar, judge, images, kind, image):
    """Whatever an image is called, its objects are accepted, or the name is asked for."""
    done = deployed(starcar, images["plain"], kind, None, image=image, check=False)
    if done.returncode != 0:
        assert done.returncode == 2 and "--name" in done.stderr, done.stderr
        done = deployed(starcar, images["plain"], kind, None, "--name", "tiny", image=image)
    verdicts, _ = accepted(judge, done.stdout)
    assert f"{image}@sha256:" in json.dumps([verdict.object for verdict in verdicts])


@pytest.mark.parametrize(("kind", "mode"), MODES, ids=[f"{kind}-{mode}" for kind, mode in MODES])
def test_settings(starcar, judge, images, kind, mode):
    """What the user sets is in the objects, as a flag or as --set."""
    names = ["--name", "mine", "--namespace", "1010"] if mode == "native" else ["--set", "name=mine", "--set", "namespace=1010"]
    more = ["--set", "service-account=no"]
    if kind != "prepull":
        more += ["--gpus", "4", "--replicas", "3", "--set", "cpu=12", "--set", "memory=99Gi"]
        more += ["--engine-image", "registry.example.com/engines/vllm:on"]
    done = deployed(starcar, images["vllm"], kind, mode, *names, *more)
    verdicts, (pod,) = accepted(judge, done.stdout)
    for verdict in verdicts:
        assert verdict.object["metadata"]["namespace"] == "1010"
        assert verdict.name in ("mine", "mine-prepull"), verdict.name
    assert pod["spec"]["serviceAccountName"] == "no"
    if kind == "prepull":
        return
    container = engine_of(pod)
    assert container["image"] == "registry.example.com/engines/vllm:on"
    resources = container["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "4"
    assert resources["requests"]["cpu"] == "12" and "99Gi" in (resources["limits"]["memory"], resources["requests"]["memory"])
    words = container.get("command", []) + container["args"]
    assert words[words.index("--tensor-parallel-size") + 1] == "4"
    assert '"replicas": 3' in json.dumps(verdicts[0].object) or '"minReplicas": 3' in json.dumps(verdicts[0].object)
    assert any(volume.get("emptyDir", {}).get("medium") == "Memory" for volume in pod["spec"]["volumes"])


@pytest.mark.parametrize(
    "options",
    [
        ["--set", "name=Mine"], ["--set", "name=a.b"], ["--set", "namespace=a_b"], ["--set", "memory=12GB"], ["--set", "cpu=many"],
        ["--set", "gpus=-1"], ["--set", "gpus=one"], ["--set", "port=0"], ["--set", "port=70000"], ["--set", "replicas=x"],
        ["--set", "colour=red"], ["--set", "name"], ["--name", "a" * 64], ["--pull-secret", "a b"], ["--engine", "custom"],
        ["--kubernetes", "latest"],
    ],
)
def test_what_no_cluster_would_take_is_refused(starcar, images, options):
    done = deployed(starcar, images["plain"], "deployment", None, *options, check=False)
    assert done.returncode == 2 and not done.stdout and "panicked" not in done.stderr, (done.returncode, done.stdout, done.stderr)


def test_a_layout_needs_a_name(starcar, images):
    done = starcar("deploy", f"oci:{images['plain']}:v1", "--as", "deployment", check=False)
    assert done.returncode == 2 and "--image" in done.stderr and not done.stdout, done.stderr


def test_fetch_mode(starcar, judge, images):
    """Layers that KServe's downloader cannot read are refused with the reason; those that it can are not."""
    done = deployed(starcar, images["plain"], "inferenceservice", "fetch", check=False)
    assert done.returncode != 0 and "tar" in done.stderr and not done.stdout, done.stderr
    done = deployed(starcar, images["tar"], "inferenceservice", "fetch")
    (verdict,) = judge(done.stdout)
    assert kserve_types.check(verdict.object) == [] and "oci+fetch://" in done.stdout


@pytest.mark.parametrize(
    ("kind", "mode", "options", "said"),
    [
        ("deployment", "native", ["--containerd", "2.1"], "subPath"),
        ("deployment", "native", ["--containerd", "1.7"], "image volume"),
        ("deployment", "native", ["--kubernetes", "1.30"], "image volume"),
        ("deployment", "native", ["--kubernetes", "1.32"], "subPath"),
        ("inferenceservice", "native", ["--kserve", "0.15"], "oci+native"),
        ("deployment", "native", ["--cri-o", "1.30"], "image volume"),
    ],
)
def test_warnings_for_older_clusters(starcar, judge, images, kind, mode, options, said):
    old = deployed(starcar, images["plain"], kind, mode, *options)
    accepted(judge, old.stdout)
    assert said.lower() in old.stderr.lower(), old.stderr
    new = deployed(starcar, images["plain"], kind, mode, "--kubernetes", "1.36", "--kserve", "0.20", "--containerd", "2.2")
    assert "warning" not in new.stderr, new.stderr


def test_a_script_for_nodes(starcar, images, tmp_path):
    done = deployed(starcar, images["plain"], "prepull", None, "--script")
    (tmp_path / "script").write_text(done.stdout)
    run("/bin/busybox", "sh", "-n", tmp_path / "script")
    assert f"{NAME}:v1@{digest_of(images['plain'])}" in done.stdout
