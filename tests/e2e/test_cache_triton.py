"""A cache that Triton itself wrote, with the absolute paths that it writes, is used from an image at another place.

Triton compiles for a GPU that is not here. What a group file lists by absolute path must exist, or the kernel is
compiled again: a plain copy misses, what starcar packs hits.
"""

import json
import shutil

import pytest

import cache_use
from consumers.proc import run

ARCHITECTURE = 75


@pytest.fixture(scope="module")
def work(scratch):
    return scratch / "triton"


@pytest.fixture(scope="module")
def baked(work):
    """The cache of one kernel, moved away from where it was made as a build host is; and what making it took."""
    made = work / "build-host" / "triton"
    cold = cache_use.fresh_process("compile_triton.py", ARCHITECTURE, env={"TRITON_CACHE_DIR": str(made)})
    assert cold["hit"] is False and cold["group"] is None
    groups = list(made.rglob("__grp__*"))
    assert len(groups) == 2
    for group in groups:
        assert all(path.startswith(f"{made}/") for path in json.loads(group.read_text())["child_paths"].values())
    again = cache_use.fresh_process("compile_triton.py", ARCHITECTURE, env={"TRITON_CACHE_DIR": str(made)})
    assert again["hit"] is True and set(again["group"]) == {"launcher.c", "launcher.so", "launcher.json"}
    moved = work / "moved"
    made.rename(moved)
    return moved, cold


@pytest.fixture(scope="module")
def served(starcar, registry, baked, small_model, work):
    """The image in the registry, for the place `at`."""
    at = work / "at"
    ref = registry.ref("cache-triton", "v1")
    starcar.pack(small_model[0], "--cache", baked[0], "--cache-at", at, tag=ref)
    return ref, at


def hits(exported, cold, places):
    """A fresh process with the exported variables compiles nothing and writes nothing."""
    directory = exported["TRITON_CACHE_DIR"]
    before = cache_use.files_of(directory)
    warm = cache_use.fresh_process("compile_triton.py", ARCHITECTURE, env=exported)
    assert warm["hit"] is True
    assert cache_use.files_of(directory) == before
    assert set(warm["group"]) == {"launcher.c", "launcher.so", "launcher.json"}
    assert all(path.startswith(f"{places}/") for path in warm["group"].values())
    assert warm["triton"] == cold["triton"]
    return warm


def test_a_plain_copy_misses(baked, work):
    """What makes relocation necessary; when a newer Triton hits here, it is not."""
    copy = work / "plain-copy"
    shutil.copytree(baked[0], copy)
    process = cache_use.fresh_process("compile_triton.py", ARCHITECTURE, env={"TRITON_CACHE_DIR": str(copy)})
    assert process["hit"] is False and process["group"] is None


def test_a_mounted_cache_hits(starcar, served, baked, node, work, measured):
    """Packed, pushed, lazily mounted, copied by the printed snippet."""
    ref, at = served
    models = cache_use.mounted(node, ref, work / "lazy")
    exported = cache_use.sourced(cache_use.snippet(starcar, ref, mounted_at=models), work / "snippet")
    run("umount", models.parent)
    assert exported == {"TRITON_CACHE_DIR": f"{at}/triton"}
    warm = hits(exported, baked[1], f"{at}/triton")
    measured(f"a kernel: {baked[1]['seconds']:.2f} s compiled, {warm['seconds']:.2f} s from the mounted cache")


def test_a_cache_hits_at_another_place(starcar, served, baked, node, work):
    """The same image copied to where it was not packed for: the snippet writes the paths anew."""
    ref, _ = served
    models = cache_use.mounted(node, ref, work / "lazy-2")
    other = work / "other.place"
    exported = cache_use.sourced(cache_use.snippet(starcar, ref, other, models), work / "snippet-2")
    run("umount", models.parent)
    hits(exported, baked[1], f"{other}/triton")


def test_a_layout_is_as_good(starcar, baked, small_model, work):
    """starcar cache env reads a layout; umoci's tree is as good as a mount."""
    at = work / "at-layout"
    packed = starcar.pack(small_model[0], "--cache", f"triton={baked[0]}", "--cache-at", at)
    tag = packed.layout.index()["manifests"][0].get("annotations", {}).get("org.opencontainers.image.ref.name")
    reference = f"oci:{packed.layout.dir}" + (f":{tag}" if tag else "")
    if not tag:
        run("skopeo", "--insecure-policy", "copy", "--preserve-digests", reference, f"oci:{work}/tagged:it")
    run("umoci", "unpack", "--image", f"{packed.layout.dir}:{tag}" if tag else f"{work}/tagged:it", work / "bundle")
    text = cache_use.snippet(starcar, reference, mounted_at=work / "bundle/rootfs/models")
    hits(cache_use.sourced(text, work / "snippet-3"), baked[1], f"{at}/triton")


def test_what_is_known_of_it(starcar, served, baked):
    """The directory and the image tell the same."""
    for what in (baked[0], served[0]):
        cache = cache_use.inspected(starcar, what)["triton"]
        assert cache_use.values(cache, "architecture") == [f"sm_{ARCHITECTURE}"]
        assert cache_use.values(cache, "triton") == [baked[1]["triton"]]
        assert starcar("cache", "check", what, "--gpu", "T4", "--triton", baked[1]["triton"]).returncode == 0
        for wrong in (["--gpu", "H100"], ["--triton", "3.1.0"]):
            done = starcar("cache", "check", what, *wrong, check=False)
            assert done.returncode == 1, (wrong, done.stdout, done.stderr)


def test_an_incomplete_group_is_found(starcar, baked, tmp_path):
    """A group without one of its files is a miss wherever it lies, and is worth telling."""
    broken = tmp_path / "broken"
    shutil.copytree(baked[0], broken)
    (cubin,) = broken.rglob("*.cubin")
    cubin.unlink()
    findings = cache_use.inspected(starcar, broken)["triton"]["findings"]
    assert any(f["severity"] != "note" and "__grp__add.json" in json.dumps(f) for f in findings), findings
