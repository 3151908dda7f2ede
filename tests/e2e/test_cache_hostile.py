"""Caches that somebody made to do harm: an error or a bounded result, and nothing in them is ever run.

Each is looked at and packed under limits of time and memory. A file that unpickling, importing or running anything in
them would leave must not appear.
"""

import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import cache_trees
from consumers import image, models, proc, trees
from test_memory import MEASURE

MIB = 1 << 20
SECONDS, MEMORY = 120, 600 * MIB
KERNEL = "IA3QUKJYNP5TB2BHWMXTRALN7KOXQOWQOFOBA77JYQY5PM7OQWDA"
AOT = f"{cache_trees.AOT}/{'cd' * 32}/rank_0_0"


class Ran:
    """starcar's end under the limits; refuses a crash whatever the tree."""

    def __init__(self, starcar, *arguments, command=()):
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-c", MEASURE, *map(str, command or [starcar.binary]), *map(str, arguments)],
            env=starcar.env, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=True,
        )
        said = json.loads(done.stdout)
        self.status, self.stdout, self.stderr, self.peak = said["status"], said["stdout"], done.stderr, said["peak"]
        assert self.status in (0, 8), (self.status, self.stderr)
        assert "panicked" not in self.stderr and "overflow" not in self.stderr, self.stderr
        assert self.peak < MEMORY, f"{self.peak / MIB:.0f} MiB"
        assert self.status == 0 or self.stderr.strip(), "refused without a word"


@pytest.fixture(scope="module")
def model(scratch):
    """As little as can be packed: what is under test is the cache."""
    return models.model(scratch / "hostile-model", weights=1 << 16, shards=1)


@pytest.fixture
def canary(tmp_path):
    """A file that whatever is run in the tree makes."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something in the cache was run"


@pytest.fixture
def both(starcar, model, tmp_path, measured):
    """both(spec) -> (inspect, pack): the two commands on a tree, and what they took."""

    def run(tree, kind=None, *options):
        start = time.monotonic()
        inspect = Ran(starcar, "cache", "inspect", tree, "--format", "json", *(["--kind", kind] if kind else []))
        spec = f"{kind}={tree}" if kind else tree
        pack = Ran(
            starcar, "pack", model, "--cache", spec, "--base", "scratch", "--progress", "none",
            "-o", f"oci:{tmp_path}/image", *options,
        )
        measured(
            f"inspect {inspect.status}, pack {pack.status}, {time.monotonic() - start:.1f} s, "
            f"{max(inspect.peak, pack.peak) / MIB:.0f} MiB"
        )
        if pack.status:
            assert not (tmp_path / "image/index.json").exists(), "an image in spite of an error"
        return inspect, pack

    return run


def packed(tmp_path):
    """The tree of the last layer of what was packed."""
    return trees.of_tar(image.Layout(tmp_path / "image").layers()[-1][1])


def triton(root):
    """The least that is a Triton cache."""
    at = root / KERNEL
    at.mkdir(parents=True)
    target = {"backend": "cuda", "arch": 75, "warp_size": 32}
    (at / "add.json").write_text(json.dumps({"target": target, "triton_version": "3.8.0", "name": "add"}))
    return at


def test_links(both, tmp_path, canary):
    """Loops end; what a link outside leads to does not get into an image."""
    root, secret = tmp_path / "cache", tmp_path / "secret"
    at = triton(root)
    secret.write_bytes(b"the host's secret: " + cache_trees.noise("secret", 32))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/hidden").write_bytes(secret.read_bytes())
    (at / "self").symlink_to("self")
    (at / "there").symlink_to("back")
    (at / "back").symlink_to("there")
    (at / "up").symlink_to("..")
    (root / "again").symlink_to(root)
    (at / "absolute").symlink_to(secret)
    (at / "relative").symlink_to("../../secret")
    (at / "directory").symlink_to(tmp_path / "outside")
    (at / "passwd").symlink_to("/etc/passwd")
    (at / "dangling").symlink_to("nowhere")
    (at / "endless").symlink_to("/dev/zero")
    (at / "inside").symlink_to("add.json")
    inspect, pack = both(root)
    if pack.status == 0:
        wrong = trees.sha256_of(secret)
        tree = packed(tmp_path)
        assert all(record["sha256"] not in (wrong, trees.sha256_of("/etc/passwd")) for record in tree.values())
        assert not any(record["type"] == "symlink" for record in tree.values())
        assert "absolute" in inspect.stdout, "a link that was left out is not told"


def test_a_link_that_is_the_cache(both, tmp_path, canary):
    """A directory in the place of the cache that is a link to somewhere else."""
    triton(tmp_path / "real")
    (tmp_path / "cache").symlink_to("real")
    both(tmp_path / "cache")


@pytest.mark.parametrize(("kind", "size"), [("triton", 5_000_000_000), ("generic", 1_000_000_000)])
def test_a_huge_sparse_file(both, tmp_path, canary, kind, size):
    """5 GB that take no disk are no kernel; what the user says is a cache is packed, whatever its size."""
    at = triton(tmp_path / "cache")
    with open(at / "huge.cubin", "wb") as file:
        file.truncate(size)
    _, pack = both(tmp_path / "cache", kind)
    assert pack.status == (8 if kind == "triton" else 0), pack.stderr


class Touch:
    """Unpickled, it makes the canary."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_code_is_not_run(both, tmp_path, canary):
    """Pickles, modules and programs in all the places where engines load them from."""
    evil = pickle.dumps(Touch(canary))
    python = f"import os; os.system('touch {canary}')\n"
    root = tmp_path / "vllm"
    legacy = root / cache_trees.LEGACY
    for at in (legacy, root / AOT, root / AOT / "../inductor_cache/fxgraph/ab/fabc", root / "modelinfos"):
        at.mkdir(parents=True, exist_ok=True)
        (at / "sitecustomize.py").write_text(python)
        (at / "conftest.py").write_text(python)
        (at / "run.sh").write_text(f"#!/bin/sh\ntouch {canary}\n")
        (at / "run.sh").chmod(0o755)
        (at / "pickled").write_bytes(evil)
    (root / AOT / "model").write_bytes(b"PT2AOT\x01" + evil)
    (legacy / "artifact_compile_range_1_2_subgraph_0").write_bytes(evil)
    (legacy / "vllm_compile_cache.py").write_text(f"__import__('os').system('touch {canary}')\n")
    (legacy / "cache_key_factors.json").write_text("{}")
    both(root)
    shutil.rmtree(tmp_path / "image", ignore_errors=True)
    (tmp_path / "artifacts.bin").write_bytes(evil)
    both(tmp_path / "artifacts.bin", "artifacts")
    # The canary is one: loading what was packed does run it.
    pickle.loads(evil)
    assert canary.exists()
    canary.unlink()


def bombs():
    """Pickles that want more than there is."""
    return {
        "2^120 references": b"\x80\x04]\x94" + b"".join(b"h%ch%c\x86\x94" % (n, n) for n in range(120)) + b".",
        "a string of 2^63 bytes": b"\x80\x04\x8d" + (2**63 - 1).to_bytes(8, "little") + b"abc",
        "bytes of 2^64 bytes": b"\x80\x04\x8e" + b"\xff" * 8 + b"abc",
        "a frame of 2^64 bytes": b"\x80\x04\x95" + b"\xff" * 8 + b"abc.",
        "a negative length": b"\x80\x02T" + b"\xff" * 4 + b"abc.",
        "a number of 2 GB": b"\x80\x02\x8b" + (2**31 - 1).to_bytes(4, "little") + b"1.",
        "memo far away": b"\x80\x04Nr" + b"\xff" * 4 + b"j" + b"\xff" * 4 + b".",
        "millions of marks": b"\x80\x04" + b"(" * 5_000_000 + b".",
        "millions of tuples": b"\x80\x04" + b"N" + b"\x85" * 5_000_000 + b".",
        "millions of strings": b"\x80\x04" + b"\x8c\x01a\x94" * 3_000_000 + b".",
        "nothing ends": b"\x80\x04" + b"]" * 3_000_000,
        "20,000 systems": b"\x80\x04](" + cache_trees.system_info() * 20_000 + b"e.",
    }


@pytest.mark.parametrize("name", bombs())
def test_pickle_bombs(both, tmp_path, canary, name):
    root = tmp_path / "vllm"
    (root / AOT).mkdir(parents=True)
    (root / AOT / "model").write_bytes(b"PT2AOT\x01" + bombs()[name])
    legacy = root / cache_trees.LEGACY
    legacy.mkdir(parents=True)
    (legacy / "artifact_compile_range_1_2_subgraph_0").write_bytes(bombs()[name])
    both(root)


def test_truncated_programs(starcar, model, tmp_path, canary):
    """A program compiled ahead of time, cut at every one of 40 places."""
    root = tmp_path / "vllm"
    whole = (cache_trees.vllm_aot(tmp_path / "whole") / cache_trees.AOT / ("ab" * 32) / "rank_0_0/model").read_bytes()
    whole = whole[: whole.index(b"SystemInfo") + 250]
    for number, size in enumerate(sorted({len(whole) * n // 40 for n in range(41)} | set(range(9)))):
        at = root / cache_trees.AOT / f"{number:064x}" / "rank_0_0"
        at.mkdir(parents=True)
        (at / "model").write_bytes(whole[:size])
    Ran(starcar, "cache", "inspect", root, "--format", "json")


def test_deep_nesting(both, tmp_path, canary):
    at = triton(tmp_path / "cache")
    for number in range(300):
        at = at / f"d{number % 10}"
    at.mkdir(parents=True)
    (at / "deep").write_text("x")
    both(tmp_path / "cache")


def test_many_files(starcar, both, tmp_path, canary):
    """200,000 files in one cache: told of as Triton's, and packed as anything's."""
    root = tmp_path / "cache"
    root.mkdir()
    # In memory: a disk takes longer to hold them than starcar to pack them.
    proc.run("mount", "-t", "tmpfs", "-o", "size=1g,nr_inodes=400k", "tmpfs", root)
    try:
        triton(root)
        for directory in range(200):
            at = root / f"{directory:03}".replace("0", "A").replace("1", "B").ljust(52, "C")
            at.mkdir()
            handle = os.open(at, os.O_RDONLY)
            for number in range(1000):
                os.close(os.open(f"k{number}.json", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=handle))
            os.close(handle)
        Ran(starcar, "cache", "inspect", root, "--format", "json")
        _, pack = both(root, "generic")
    finally:
        proc.run("umount", root)
    assert pack.status == 0, pack.stderr


@pytest.mark.parametrize(
    "name",
    [b"new\nline", b"not-utf8-\xff\xfe", b"tab\tand \x1b[31mred", b"'; touch x; '", b"-rf", b"x" * 255, b"$(touch x)"],
)
def test_names(both, tmp_path, canary, name):
    """Names that a terminal, a shell or a tar might take for something else."""
    at = triton(tmp_path / "cache")
    Path(os.fsdecode(os.fsencode(at) + b"/" + name)).write_text("x")
    inspect, pack = both(tmp_path / "cache")
    for said in (inspect.stderr, pack.stderr):
        assert "\x1b[31m" not in said, "an escape sequence reached the terminal"
    if pack.status == 0 and b"\xff" not in name:
        assert any(path.endswith(f"/{name.decode()}") for path in packed(tmp_path))


def test_pipes_sockets_and_devices(both, tmp_path, canary):
    """Nobody writes into the pipe, and the device has no end: neither is opened."""
    at = triton(tmp_path / "cache")
    os.mkfifo(at / "pipe.json")
    os.mkfifo(at / "__grp__pipe.json")
    os.mknod(at / "socket", stat.S_IFSOCK | 0o600)
    os.mknod(at / "zero.cubin", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    inspect, pack = both(tmp_path / "cache")
    if pack.status == 0:
        assert "pipe.json" in inspect.stdout and "socket" in inspect.stdout
        assert not any(path.endswith(("pipe.json", "socket", "zero.cubin")) for path in packed(tmp_path))


def test_an_unreadable_file(starcar, model, canary):
    """Told by name, by a user who may not read it."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        work.chmod(0o755)
        shutil.copy(starcar.binary, work / "starcar")
        at = triton(work / "cache")
        (at / "closed.cubin").write_bytes(b"x")
        (at / "closed.cubin").chmod(0)
        shutil.copytree(model, work / "model")
        (work / "out").mkdir()
        (work / "out").chmod(0o777)
        user = ["setpriv", "--reuid", "1010", "--regid", "1010", "--clear-groups", "env", f"HOME={work}/out"]
        ran = Ran(
            starcar, "pack", work / "model", "--cache", work / "cache", "--base", "scratch", "--progress", "none",
            "-o", f"oci:{work}/out/image", command=[*user, f"XDG_CACHE_HOME={work}/out", work / "starcar"],
        )
        assert ran.status == 8 and "closed.cubin" in ran.stderr, ran.stderr


def test_deep_json(both, tmp_path, canary):
    """100,000 arrays in one another, in every file that is read as JSON."""
    deep = "[" * 100_000 + "]" * 100_000
    root = cache_trees.vllm(tmp_path / "vllm")
    (root / cache_trees.LEGACY / "cache_key_factors.json").write_text(deep)
    at = triton(root / "torch_compile_cache" / ("ef" * 5) / "rank_0_0/triton_cache")
    (at / "add.json").write_text('{"target": ' + deep + "}")
    (at / "__grp__add.json").write_text('{"child_paths": ' + deep + "}")
    both(root)


def test_wide_json(both, tmp_path, canary):
    """60 MB of JSON in a file that has a few bytes."""
    at = triton(tmp_path / "cache")
    children = ",".join(f'"k{n}": "/x/{n}"' for n in range(3_000_000))
    (at / "__grp__add.json").write_text(f'{{"child_paths": {{{children}}}}}')
    both(tmp_path / "cache")


def test_a_file_that_grows(starcar, model, tmp_path, canary):
    """What is written to while it is packed is refused by name."""
    at = triton(tmp_path / "cache")
    growing = at / "growing.cubin"
    growing.write_bytes(cache_trees.noise("growing", 32 * MIB))
    stop = threading.Event()

    def grow():
        with open(growing, "ab") as file:
            while not stop.wait(0.002):
                file.write(b"more")
                file.flush()

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        ran = Ran(
            starcar, "pack", model, "--cache", tmp_path / "cache", "--base", "scratch", "--progress", "none",
            "-o", f"oci:{tmp_path}/image",
        )
    finally:
        stop.set()
        thread.join()
    assert ran.status == 8 and "growing.cubin" in ran.stderr, ran.stderr
    assert not (tmp_path / "image/index.json").exists()


def test_a_label_is_no_command(starcar, model, tmp_path, canary):
    """The snippet is put into a shell: a name with a command in it gets quoted or refused."""
    layout = image.Layout(tmp_path / "image")
    at = f"/tmp/x; touch {canary}; '"
    root = tmp_path / "cache"
    triton(root)
    done = starcar(
        "pack", model, "--cache", root, "--cache-at", at, "--base", "scratch", "-o", f"oci:{layout.dir}:v1",
        check=False,
    )
    if done.returncode == 0:
        text = starcar("cache", "env", f"oci:{layout.dir}:v1").stdout
        subprocess.run(["/bin/busybox", "sh", "-c", text], capture_output=True, check=False, timeout=60, cwd=tmp_path)
    else:
        assert done.returncode in (2, 8), done.stderr
