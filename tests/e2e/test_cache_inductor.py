"""A cache that torch Inductor made on a processor is hit from a lazily mounted image, and missed where it must be.

Every run of the model is a fresh process with a home and a temporary directory of its own. The compiler in its PATH
writes down what it compiles. Precompiled headers are off: Inductor keeps them in the temporary directory, not in its
cache, makes them anew even if everything is hit, and counts the setting towards its keys.
"""

import json
import platform
import shutil
import subprocess

import pytest

import cache_use
from consumers.proc import run

# Where a key differs for a reason that a user may have.
OTHER_CONFIGURATION = {"TORCHINDUCTOR_CPP_MIN_CHUNK_SIZE": "4096"}


@pytest.fixture(scope="module")
def work(scratch):
    return scratch / "inductor"


class Run:
    """One process that compiles the model: what it printed, and what the C++ compiler was asked for."""

    def __init__(self, directory, environment, *arguments):
        assert shutil.which("g++"), "Inductor needs g++ on processors: run tests/e2e/setup"
        (directory / "bin").mkdir(parents=True)
        (directory / "tmp").mkdir()
        log = directory / "compiler.log"
        log.touch()
        (directory / "bin/g++").write_text(f'#!/bin/sh\necho "$@" >>{log}\nexec {shutil.which("g++")} "$@"\n')
        (directory / "bin/g++").chmod(0o755)
        self.said = cache_use.fresh_process(
            "compile_inductor.py", *arguments,
            env={
                "PATH": f"{directory}/bin:/usr/bin:/bin", "HOME": str(directory), "TMPDIR": str(directory / "tmp"),
                "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0", **environment,
            },
        )
        self.compiled = [line for line in log.read_text().splitlines() if ".cpp " in f"{line} "]
        self.inductor, self.autograd = self.said["counters"]["inductor"], self.said["counters"]["aot_autograd"]

    def hit(self):
        """Both of Inductor's caches hit, none missed."""
        return (
            self.inductor.get("fxgraph_cache_hit") == 1 and not self.inductor.get("fxgraph_cache_miss")
            and self.autograd.get("autograd_cache_hit") == 1 and not self.autograd.get("autograd_cache_miss")
        )

    def missed(self):
        return self.inductor.get("fxgraph_cache_miss") == 1 and not self.inductor.get("fxgraph_cache_hit")


@pytest.fixture(scope="module")
def baked(work):
    """The cold process; its cache, its artifacts and a program compiled ahead of time, at a place that is then gone."""
    made = work / "build-host"
    made.mkdir(parents=True)
    arguments = ["--artifacts-to", made / "artifacts.bin", "--aot-to", made / "model"]
    cold = Run(work / "cold", {"TORCHINDUCTOR_CACHE_DIR": f"{made}/cache"}, *arguments)
    assert cold.missed() and cold.compiled
    made.rename(work / "moved")
    return work / "moved", cold


@pytest.fixture(scope="module")
def served(starcar, registry, baked, small_model, node, work):
    """The image in the registry with the cache and the artifacts, lazily mounted; what the snippet exported."""
    at, ref = work / "at", registry.ref("cache-inductor", "v1")
    directory, _ = baked
    starcar.pack(
        small_model[0], "--cache", directory / "cache", "--cache", f"artifacts={directory}/artifacts.bin",
        "--cache-at", at, tag=ref,
    )
    models = cache_use.mounted(node, ref, work / "lazy")
    text = cache_use.snippet(starcar, ref, mounted_at=models)
    exported = cache_use.sourced(text, work / "snippet")
    run("umount", models.parent)
    assert exported == {"TORCHINDUCTOR_CACHE_DIR": f"{at}/inductor"}
    assert list((directory / "cache").rglob("*.lock")) and not list(at.rglob("*.lock"))
    return ref, at, exported, text


def test_a_mounted_cache_hits(served, baked, measured):
    """Nothing is compiled, no library appears, and the model computes the same."""
    _, _, exported, _ = served
    directory, cold = exported["TORCHINDUCTOR_CACHE_DIR"], baked[1]
    before = {path for path in cache_use.files_of(directory) if path.endswith(".so")}
    warm = Run(served[1].parent / "warm", exported)
    assert warm.hit(), warm.said
    assert not warm.compiled
    after = {path for path in cache_use.files_of(directory) if path.endswith(".so")}
    assert before and after == before
    assert warm.said["sum"] == cold.said["sum"]
    measured(f"compile: {cold.said['compile']:.1f} s cold, {warm.said['compile']:.1f} s with the mounted cache")
    assert warm.said["compile"] < cold.said["compile"] / 2


def test_another_configuration_compiles_again(served, baked, work, measured):
    """The same cache under a setting that Inductor's keys cover: the miss that the test above must not have."""
    copy = work / "copy-for-another-configuration"
    shutil.copytree(served[2]["TORCHINDUCTOR_CACHE_DIR"], copy)
    other = Run(work / "other", {"TORCHINDUCTOR_CACHE_DIR": str(copy), **OTHER_CONFIGURATION})
    assert other.missed() and other.compiled, other.said
    measured(f"compile: {other.said['compile']:.1f} s with the mounted cache and another configuration")


def test_check(served, starcar, baked):
    """What this process is fits; another Python, or a GPU, does not."""
    python, torch = platform.python_version(), baked[1].said["torch"]
    arguments = ["cache", "check", served[0]]
    assert starcar(*arguments, "--python", python, "--torch", torch).returncode == 0
    for wrong in (["--python", "3.8"], ["--gpu", "H100"]):
        done = starcar(*arguments, *wrong, check=False)
        assert done.returncode == 1, (wrong, done.stdout, done.stderr)
    cache = cache_use.inspected(starcar, served[0])["inductor"]
    assert cache_use.values(cache, "backend") == ["cpu"]
    assert cache_use.values(cache, "python") == [python.rpartition(".")[0]]


def test_artifacts(served, baked, work, measured):
    """A file of torch's artifacts is packed as it is; loaded first, it makes both caches hit.

    It holds no libraries: on a processor the kernels are compiled again from it.
    """
    _, at, _, text = served
    (saved,) = [path for path in (at / "artifacts").rglob("*") if path.is_file()]
    assert saved.read_bytes() == (baked[0] / "artifacts.bin").read_bytes()
    assert f"load_cache_artifacts(open('{saved}', 'rb').read())" in text
    empty = {"TORCHINDUCTOR_CACHE_DIR": str(work / "from-artifacts")}
    loaded = Run(work / "artifacts-process", empty, "--artifacts-from", saved)
    assert loaded.hit(), loaded.said
    assert loaded.said["sum"] == baked[1].said["sum"]
    measured(f"compile: {loaded.said['compile']:.1f} s from artifacts, {len(loaded.compiled)} libraries compiled")


def test_what_a_real_program_says(starcar, baked, tmp_path):
    """What torch saved ahead of time tells exact versions; it is read and not unpickled."""
    at = tmp_path / "vllm/torch_compile_cache/torch_aot_compile" / ("0f" * 32) / "rank_0_0"
    at.mkdir(parents=True)
    shutil.copy(baked[0] / "model", at / "model")
    cache = cache_use.inspected(starcar, tmp_path / "vllm")["vllm"]
    assert cache_use.values(cache, "python") == [platform.python_version()]
    assert cache_use.values(cache, "torch") == [baked[1].said["torch"]]
    patch = platform.python_version_tuple()
    other = f"{patch[0]}.{patch[1]}.{int(patch[2]) + 1}"
    for wrong in (["--python", other], ["--torch", "2.13.0"]):
        assert starcar("cache", "check", tmp_path / "vllm", *wrong, check=False).returncode == 1, wrong


def test_json_and_env_formats(served, starcar):
    """The other formats name the same variables."""
    ref, at, _, _ = served
    data = json.loads(starcar("cache", "env", ref, "--format", "json").stdout)
    assert f"{at}/inductor" in json.dumps(data) and "TORCHINDUCTOR_CACHE_DIR" in json.dumps(data)
    lines = starcar("cache", "env", ref, "--format", "env").stdout.splitlines()
    assert f"TORCHINDUCTOR_CACHE_DIR={at}/inductor" in lines
    sourced = subprocess.run(["/bin/busybox", "sh", "-n"], input=served[3], text=True, capture_output=True, check=False)
    assert sourced.returncode == 0, sourced.stderr
