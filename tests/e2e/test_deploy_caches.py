"""The step that copies the caches and the variables of a generated manifest, as they stand, make real caches hit.

Once on the host, by busybox's sh, with the model's mount and the volumes where the manifest has them; once in the pod
that KServe makes of it. Both as UID 1010, from a read-only mount, and twice, as in a pod that starts again. A torch
Inductor cache, a Triton cache and a FlashInfer workspace are made here and looked up by torch, Triton and ninja.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

import cache_trees
import cache_use
import test_cache_flashinfer as flashinfer
import test_cache_inductor as inductor
import test_cache_triton as triton
from consumers.proc import run, unmount_all
from kubernetes import engine, kserve
from kubernetes.kubelet import Kubelet, expand, pinned
from kubernetes.objects import Judge


@pytest.fixture(scope="module")
def place():
    """A directory that others than root may enter, as the roots of containers are."""
    directory = Path(tempfile.mkdtemp(prefix="starcar-deploy-"))
    directory.chmod(0o755)
    yield directory
    unmount_all(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def baked(place, scratch):
    """The caches, moved away from where they were made, and what Inductor and Triton said without them."""
    work = scratch / "deploy-baked"
    (place / "made").mkdir()
    said = {
        "inductor": inductor.Run(work / "cold", {"TORCHINDUCTOR_CACHE_DIR": f"{place}/made/inductor"}),
        "triton": cache_use.fresh_process(
            "compile_triton.py", triton.ARCHITECTURE, env={"TRITON_CACHE_DIR": f"{place}/made/triton"}
        ),
    }
    assert said["inductor"].missed() and said["triton"]["hit"] is False
    cache_trees.flashinfer(place / "home", place / "package")
    for name in ("inductor", "triton"):
        (place / "made" / name).rename(work / name)
    shutil.copytree(place / "home", work / "flashinfer", copy_function=shutil.copy2)
    shutil.rmtree(place / "home")
    return work, said


@pytest.fixture(scope="module")
def packed(starcar, registry, baked, place, small_model):
    """{base: image} with the three caches."""
    caches = [word for name in ("inductor", "triton", "flashinfer") for word in ("--cache", f"{name}={baked[0]}/{name}")]
    made = {}
    for name, base in (("shell", "/bin/busybox"), ("no-shell", "scratch")):
        ref = registry.ref(f"deploy-caches/{name}", "v1")
        made[name] = starcar.pack(small_model[0], *caches, "--cache-at", place / "at", tag=ref, base=base)
    return made


@pytest.fixture
def manifest(starcar, bin_dir):
    """manifest(image, kind, mode, …) -> the pod, with an API server's defaults."""
    judge = Judge(bin_dir)

    def make(image, kind, mode, *options):
        done = starcar("deploy", image.ref, "--plain-http", "--as", kind, "--mode", mode, *options)
        first = judge(done.stdout)[0]
        if not first.known:
            return judge.stored(kserve.pod_of(first.object))
        return {"spec": first.stored["spec"]["template"]["spec"], "metadata": {}}

    return make


@pytest.fixture
def places(place):
    """The directories at which the manifest mounts what is to be written, empty; gone after the test."""
    directories = {place / "at", place / "home"}
    for directory in directories:
        directory.mkdir()
        directory.chmod(0o777)
    yield directories
    unmount_all(place)
    for directory in directories:
        shutil.rmtree(directory)


def step_of(pod):
    (container,) = [c for c in pod["spec"]["initContainers"] if c["name"] == "compile-cache"]
    return container


def variables(pod, name):
    """The engine's variables that are of caches."""
    (container,) = [c for c in pod["spec"]["containers"] if c["name"] == name]
    named = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE")
    found = {entry["name"]: entry["value"] for entry in container["env"] if entry["name"] in named}
    assert set(found) == set(named)
    return found


def assert_hits(exported, baked, place):
    """Triton compiles nothing, ninja builds nothing."""
    assert exported["FLASHINFER_WORKSPACE_BASE"] == str(place / "home")
    triton.hits(exported, baked[1]["triton"], f"{place}/at/triton")
    explained = flashinfer.explain(place / "home")
    assert flashinfer.up_to_date(explained), explained


def test_on_the_host(manifest, packed, baked, places, place, fresh_node, scratch):
    """The image without a shell: its step reads the mount at /mnt/models."""
    models = cache_use.mounted(fresh_node, packed["no-shell"].ref, scratch / "deploy-caches-lazy")
    pod = manifest(packed["no-shell"], "deployment", "native")
    step = step_of(pod)
    assert {Path(mount["mountPath"]) for mount in step["volumeMounts"]} == {*places, Path("/mnt/models")}
    applets = scratch / "deploy-applets"
    applets.mkdir()
    for name in run("/bin/busybox", "--list").stdout.split():
        (applets / name).symlink_to("/bin/busybox")
    (place / "bin").mkdir()
    run("cp", "-a", f"{applets}/.", place / "bin")
    argv = [expand(word, {}) for word in step["command"] + step.get("args", [])]
    # /mnt is made anew for this process alone; then nothing of the host's commands is left to it.
    around = f'mount -t tmpfs none /mnt && mkdir /mnt/models && mount --bind "{models}" /mnt/models && ' \
        f'mount -o remount,bind,ro /mnt/models && exec setpriv --reuid 1010 --regid 0 --clear-groups ' \
        f'env -i PATH={place}/bin "$@"'
    for _ in range(2):
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-euc", around, "sh", *argv], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60, check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
    run("umount", models.parent)
    assert {path.stat().st_uid for path in (place / "at").rglob("*")} == {1010}
    assert_hits(variables(pod, "engine"), baked, place)


def test_in_kserves_pod(manifest, packed, baked, places, place, fresh_node, registry, scratch, small_model, measured):
    """The image with a shell, as a modelcar: the engine may write to what it finds, and torch compiles nothing."""
    stand_in = engine.build(scratch / "deploy-caches", registry, name="deploy-caches/engine")
    lazy = {pinned(packed["shell"].ref).rpartition(":")[0]}
    kubelet = Kubelet(fresh_node, registry, scratch / "deploy-caches-kubelet", lazy)
    pod, ran = manifest(packed["shell"], "inferenceservice", "modelcar", "--engine-image", stand_in), None
    for _ in range(2):
        ran = kubelet.run(pod, again=ran)
        told = engine.told(ran.containers["kserve-container"].output)
        assert told.user == (1010, 0) and told.complaints == []
        assert ran.containers["compile-cache"].output == ""
    exported = variables(pod, "kserve-container")
    assert exported.items() <= told.environment.items()
    # The volumes where the containers had them.
    for mount in step_of(pod)["volumeMounts"]:
        run("mount", "--bind", ran.volumes[mount["name"]], mount["mountPath"])
    assert_hits(exported, baked, place)
    cold = baked[1]["inductor"]
    warm = inductor.Run(scratch / "deploy-caches-warm", {"TORCHINDUCTOR_CACHE_DIR": exported["TORCHINDUCTOR_CACHE_DIR"]})
    assert warm.hit(), warm.said
    assert not warm.compiled and warm.said["sum"] == cold.said["sum"]
    measured(f"compile: {cold.said['compile']:.1f} s cold, {warm.said['compile']:.1f} s with the caches that the manifest copied")
