"""What is known is not read again, and what a registry has is not sent again."""

import shutil

import pytest

from model_files import MIB, write_model, write_safetensors
from pushing import PROBE, State, check_image, traced, weights_read

SHARDS, SHARD = 10, 24 * MIB
# A safetensors header, read to see what tensors a shard has, is no weight.
HEADER = 64 << 10


@pytest.fixture
def model(tmp_path):
    yield write_model(tmp_path / "model", SHARDS * SHARD, shards=SHARDS, seed=5)
    shutil.rmtree(tmp_path / "model")


class Pushes:
    """Pushes of one model by one user."""

    def __init__(self, model, registry, directory):
        self.model, self.registry, self.dir = model, registry, directory
        self.state, self.count = State(directory / "state"), 0

    def __call__(self, ref, *arguments, state=None, env=None):
        """One `pack --push`; (what it ended with, bytes read by shard, bytes that the registry received)."""
        self.count += 1
        trace = self.dir / f"trace-{self.count}"
        self.registry.reset()
        done = (state or self.state).run(
            "pack", self.model, "-t", ref, "--push", "--base", "scratch", *arguments, prefix=traced(trace), env=env
        )
        read, received = weights_read(trace), self.registry.bytes_received()
        shutil.rmtree(trace)
        check_image(self.registry, ref, done.stdout.rstrip("\n").rpartition("\n")[2])
        return done, read, received


@pytest.fixture
def pushes(model, fresh_registry, tmp_path):
    return Pushes(model, fresh_registry, tmp_path)


def test_a_second_push_reads_and_sends_nothing(pushes, fresh_registry, measured):
    ref = fresh_registry.ref("again")
    first, read, received = pushes(ref)
    assert len(read) == SHARDS and min(read.values()) >= SHARD, "strace does not see what is read"
    assert received >= SHARDS * SHARD
    second, read, received = pushes(ref)
    assert second.stdout == first.stdout
    measured(f"second push below strace: {second.seconds:.2f} s, at most {max(read.values(), default=0)} bytes read of a "
             f"shard, {received} received")
    # How long it takes without strace is what people see; what it reads and sends is what can be promised.
    plain = pushes.state.run("pack", pushes.model, "-t", ref, "--push", "--base", "scratch")
    measured(f"second push: {plain.seconds:.2f} s")
    assert max(read.values(), default=0) < HEADER
    assert received == 0
    assert fresh_registry.bytes_received() == 0


def test_a_layout_is_pushed_once(pushes, fresh_registry, tmp_path):
    """`push` of a layout, of which the registry has everything."""
    layout, state = tmp_path / "image.oci", State(tmp_path / "other")
    state.run("pack", pushes.model, "-o", f"oci:{layout}", "--base", "scratch")
    ref = fresh_registry.ref("layout")
    digest = state.run("push", f"oci:{layout}", ref).digest
    fresh_registry.reset()
    assert state.run("push", f"oci:{layout}", ref).digest == digest
    assert fresh_registry.bytes_received() == 0
    # Without a memory of its own, it asks the registry.
    assert State(tmp_path / "third").run("push", f"oci:{layout}", ref).digest == digest
    assert fresh_registry.bytes_received() == 0
    shutil.rmtree(layout)


def test_one_changed_shard_of_ten(pushes, fresh_registry, measured):
    ref = fresh_registry.ref("changed")
    first, _, _ = pushes(ref)
    changed = sorted(pushes.model.glob("*.safetensors"))[3]
    write_safetensors(changed, SHARD, seed=6, prefix="model.layers.3")
    second, read, received = pushes(ref)
    assert second.stdout != first.stdout
    others = {name: size for name, size in read.items() if name != changed.name}
    measured(f"{received} bytes received for a shard of {SHARD}; read of it {read[changed.name]}, "
             f"of any other at most {max(others.values(), default=0)}")
    assert SHARD <= read[changed.name]
    assert max(others.values(), default=0) < HEADER
    assert SHARD <= received <= SHARD + 2 * MIB


def test_a_changed_shard_is_noticed_by_its_content_too(pushes, fresh_registry):
    """The same size and the same time do not deceive --verify-sources, nor a run without the cache."""
    ref = fresh_registry.ref("deceived")
    first, _, _ = pushes(ref)
    changed = sorted(pushes.model.glob("*.safetensors"))[0]
    _, read, received = pushes(ref, "--verify-sources")
    assert len(read) == SHARDS and min(read.values()) >= SHARD and received == 0
    _, read, received = pushes(ref, "--no-digest-cache")
    assert len(read) == SHARDS and min(read.values()) >= SHARD and received == 0
    write_safetensors(changed, SHARD, seed=7)
    done, read, _ = pushes(ref, "--verify-sources")
    assert done.stdout != first.stdout and read[changed.name] >= SHARD


def test_the_digest_cache_can_be_elsewhere(pushes, fresh_registry, tmp_path):
    env = {"STARCAR_DIGEST_CACHE": tmp_path / "digests"}
    pushes(fresh_registry.ref("shared"), env=env)
    _, read, received = pushes(fresh_registry.ref("shared"), env=env, state=State(tmp_path / "another"))
    assert max(read.values(), default=0) < HEADER and received == PROBE


def test_a_second_repository_gets_blobs_mounted(pushes, fresh_registry, tmp_path, measured):
    pushes(fresh_registry.ref("team/one"))
    _, read, received = pushes(fresh_registry.ref("team/two"))
    mounts = [each for each in fresh_registry.requests() if "mount=" in each["query"] and each["status"] == 201]
    measured(f"{len(mounts)} blobs mounted, {received} bytes received")
    assert received == 0 and len(mounts) > SHARDS
    assert max(read.values(), default=0) < HEADER
    # Nothing tells a new user where the blobs are but --mount-from.
    _, _, received = pushes(fresh_registry.ref("team/three"), "--mount-from", "team/one", state=State(tmp_path / "new"))
    assert received == PROBE
    _, _, received = pushes(fresh_registry.ref("team/four"), "--mount-from", "team/none", state=State(tmp_path / "newer"))
    assert received >= SHARDS * SHARD
