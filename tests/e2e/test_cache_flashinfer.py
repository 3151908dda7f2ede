"""A FlashInfer workspace comes back such that ninja has nothing to do: the times of its files are kept.

The op in it was really built, by ninja, with a build file like FlashInfer's: absolute outputs, compiler-made
dependencies, one source generated in the workspace and one in the installed package.
"""

import os
import re
import shutil
import subprocess

import pytest

import cache_trees
import cache_use
from consumers.proc import run

OPS = ".cache/flashinfer/0.7.2/75/cached_ops"


@pytest.fixture(scope="module")
def work(scratch):
    return scratch / "flashinfer"


@pytest.fixture(scope="module")
def base(work):
    """Where the workspace was built, and where it has to be again: a home."""
    return work / "home"


@pytest.fixture(scope="module")
def baked(base, work):
    """A copy of the workspace, times kept; the one that was built is gone."""
    cache_trees.flashinfer(base, work / "package")
    explained = explain(base)
    assert up_to_date(explained), explained
    kept = work / "kept"
    shutil.copytree(base, kept, copy_function=shutil.copy2)
    shutil.rmtree(base)
    return kept


@pytest.fixture(scope="module")
def served(starcar, registry, baked, small_model):
    ref = registry.ref("cache-flashinfer", "v1")
    packed = starcar.pack(small_model[0], "--cache", baked, tag=ref)
    return ref, packed


@pytest.fixture(autouse=True)
def nothing_there(base):
    """Every test restores the workspace, or not, for itself."""
    shutil.rmtree(base, ignore_errors=True)


def explain(base):
    """What ninja would do, and why."""
    done = subprocess.run(
        cache_trees.ninja_command(base, "single_prefill", "-n", "-d", "explain"), capture_output=True, text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def up_to_date(text):
    return "no work to do" in text and not re.search(r"^\[\d+/\d+\]", text, re.MULTILINE)


def test_a_mounted_workspace_is_up_to_date(starcar, served, base, node, work):
    """Lazily mounted, copied by the snippet to the base that FlashInfer is told."""
    models = cache_use.mounted(node, served[0], work / "lazy")
    exported = cache_use.sourced(cache_use.snippet(starcar, served[0], mounted_at=models), work / "snippet")
    run("umount", models.parent)
    assert exported == {"FLASHINFER_WORKSPACE_BASE": str(base)}
    explained = explain(base)
    assert up_to_date(explained), explained
    assert os.access(base / OPS / "single_prefill/single_prefill.so", os.X_OK)
    assert not list(base.rglob("*.lock"))


def test_an_unpacked_workspace_is_up_to_date(served, base, work):
    """The same by umoci, moved to its base."""
    run(
        "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--preserve-digests",
        f"docker://{served[0]}", f"oci:{work}/oci:it",
    )
    run("umoci", "unpack", "--image", f"{work}/oci:it", work / "bundle")
    base.parent.mkdir(parents=True, exist_ok=True)
    (work / "bundle/rootfs" / cache_use.PACKED / "flashinfer").rename(base)
    explained = explain(base)
    assert up_to_date(explained), explained


def test_files_are_what_they_were(served, baked, work, node):
    """Whole seconds of all times, modes, contents; locks are left out."""
    models = cache_use.mounted(node, served[0], work / "lazy-again")
    tree = cache_use.trees.of_directory(models.parent)
    run("umount", models.parent)
    expected = cache_use.want(baked, "flashinfer", left_out={f"{OPS}/tmp"})
    for above in (".cache", ".cache/flashinfer"):
        expected[f"{cache_use.PACKED}/flashinfer/{above}"]["mtime"] = None
    cache_use.assert_packed(expected, tree, "flashinfer", "the workspace")


@pytest.mark.parametrize("which", ["outputs", "everything"])
def test_without_times_it_is_built_again(baked, base, which):
    """What the tests above would see if times were not kept."""
    shutil.copytree(baked, base, copy_function=shutil.copy2)
    for path in base.rglob("*"):
        if which == "everything" or path.suffix in (".o", ".so"):
            os.utime(path, (0, 0))
    explained = explain(base)
    assert not up_to_date(explained), explained
    assert "[" in explained and "c++" in explained


def test_another_base_is_built_again_and_said(starcar, baked, base, work):
    """Ninja's files name the base: at another one nothing in them exists. starcar knows the base and goes there."""
    other = work / "other-base"
    shutil.copytree(baked, other, copy_function=shutil.copy2)
    done = subprocess.run(
        cache_trees.ninja_command(other, "single_prefill", "-n"), capture_output=True, text=True, check=False
    )
    assert not up_to_date(done.stdout), done.stdout
    shutil.rmtree(other)
    cache = cache_use.inspected(starcar, baked)["flashinfer"]
    assert str(base) in str(cache), cache


def test_a_part_of_a_workspace(starcar, baked, small_model):
    """`~/.cache/flashinfer`, and one version below it, go to their place in a workspace."""
    for part in (".cache/flashinfer", ".cache/flashinfer/0.7.2"):
        packed = starcar.pack(small_model[0], "--cache", baked / part)
        tree = cache_use.trees.of_tar(packed.layout.layers()[-1][1])
        path = f"{cache_use.PACKED}/flashinfer/{OPS}/single_prefill/single_prefill.so"
        assert tree[path]["sha256"] == cache_use.trees.sha256_of(baked / OPS / "single_prefill/single_prefill.so")
