"""Several workers that each push a part of an image, and the image that is made of the parts."""

import os
import subprocess

import pytest
import yaml

from consumers import trees
from model_files import MIB, write_model
from packing import STARCAR, TOP
from pushing import finish, killed_at
from test_lazy_start import assert_lazy

EXAMPLE = TOP / "examples/indexed-job"
WORKERS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model", 16 * MIB, shards=4, seed=11)


@pytest.fixture(scope="module")
def alone(model, starcar):
    """The image that one machine makes."""
    return starcar.pack(model, base="/bin/busybox")


def test_parts_of_four_workers(state, registry, fresh_node, model, alone):
    ref = registry.ref("parts", "v1")

    def worker(number, *prefix):
        part = f"{number}/{WORKERS}"
        return state.start(
            "pack", model, "--base", "/bin/busybox", "--tag", ref, "--push", "--part", part, "--progress", "plain",
            prefix=prefix,
        )

    workers = [worker(number) for number in range(1, WORKERS + 1)]
    # One is killed when it has begun.
    victim = workers[2]
    assert killed_at(victim, lambda: b"part 3/4" in victim.err.read_bytes()), victim.err.read_text()
    parts = [finish(each).digest for each in workers if each is not victim]
    assert len(set(parts)) == WORKERS - 1

    missing = state.run("assemble", "--tag", ref, "--push", status=6)
    assert "part 3 of 4 is missing" in missing.stderr, missing.stderr
    assert f"--part 3/4 -t {ref} --push" in missing.stderr, missing.stderr
    assert missing.stdout == ""

    finish(worker(3))
    # One that is made again by a user with another umask, on one thread, is the same.
    again = state.run(
        "pack", model, "--base", "/bin/busybox", "--tag", ref, "--push", "--part", "1/4", "--threads", "1",
        prefix=("sh", "-c", 'umask 077 && exec "$@"', "sh"),
    )
    assert again.digest == parts[0]
    assembled = state.run("assemble", "--tag", ref, "--push")
    assert assembled.stdout == f"{alone.digest}\n", assembled.stderr

    packed = type(alone)(assembled.digest, {}, 0, "", ref=ref)
    fresh_node.rpull(ref)
    assert_lazy(fresh_node, "stargz", registry, packed)
    _, listing = fresh_node.run("reader", ref, "sh", "-c", "cd /models && find . -type f -print0 | xargs -0 sha256sum")
    found = {"models/" + line[66:].removeprefix("./"): line[:64] for line in listing.splitlines()}
    want = {f"models/{path.relative_to(model)}": trees.sha256_of(path) for path in model.rglob("*") if path.is_file()}
    assert found == want


def container(document):
    """The one container of a Job."""
    (found,) = document["spec"]["template"]["spec"]["containers"]
    return found


@pytest.fixture
def shell(state, tmp_path):
    """Runs a command as a container of the example does, with starcar in its search path."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "starcar").symlink_to(STARCAR.resolve())

    def run(command, **variables):
        env = state.env({"PATH": f"{commands}:{os.environ['PATH']}"} | variables)
        return subprocess.run(
            command, env=env, cwd=tmp_path, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=300
        )

    return run


def test_the_example_makes_the_image(shell, registry, model, alone):
    settings, job = yaml.safe_load_all((EXAMPLE / "pack.yaml").read_text())
    (assembling,) = yaml.safe_load_all((EXAMPLE / "assemble.yaml").read_text())
    data = settings["data"]
    assert data["PARTS"] == str(job["spec"]["completions"]) and job["spec"]["completionMode"] == "Indexed"
    for each in (job, assembling):
        assert container(each)["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    ref = registry.ref("indexed", "v1")
    own = data | {"MODEL": str(model), "IMAGE": ref, "OPTIONS": f"{data['OPTIONS']} --base /bin/busybox"}

    def step(document, **variables):
        (command, args) = (container(document)[name] for name in ("command", "args"))
        done = shell([*command, *args], **own, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for index in range(job["spec"]["completions"]):
        step(job, JOB_COMPLETION_INDEX=str(index))
    assert step(assembling) == f"{alone.digest}\n"


def test_the_example_without_kubernetes(shell, registry, model, alone):
    own = {"MODEL": str(model), "IMAGE": registry.ref("script", "v1"), "OPTIONS": "--base /bin/busybox", "PARTS": "3"}
    done = shell(["sh", str(EXAMPLE / "workers.sh")], **own)
    assert (done.returncode, done.stdout) == (0, f"{alone.digest}\n"), done.stderr
    # A worker that cannot do its work is no image.
    failed = shell(["sh", str(EXAMPLE / "workers.sh")], **(own | {"OPTIONS": "--base /bin/none"}))
    assert (failed.returncode, failed.stdout) == (4, ""), failed.stderr
