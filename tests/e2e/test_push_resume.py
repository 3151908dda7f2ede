"""A push that breaks goes on where the registry stopped hearing: cut connections, stalls, SIGKILL."""

import random
import shutil

import pytest

from model_files import MIB, write_model
from packing import pack
from pushing import State, check_image, killed_at, layout_size

SEED = 20261121
KILLS = 20
# What a killed process had under way may be lost; distribution keeps what it has read.
SLACK = 16 * MIB


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of one shard of 64 MiB: (snapshot, layout, digest, size of its blobs)."""
    root = tmp_path_factory.mktemp("small")
    model = write_model(root / "model", 64 * MIB, shards=1, seed=1)
    digest = pack(model, root / "image.oci").digest
    yield model, root / "image.oci", digest, layout_size(root / "image.oci", digest)
    shutil.rmtree(root)


def test_a_connection_cut_at_each_tenth(fresh_registry, through, small, tmp_path, measured):
    _, layout, digest, size = small
    worst = 0
    for tenth in range(1, 10):
        proxy = through(fresh_registry)
        proxy.cut(size * tenth // 10)
        fresh_registry.forget()
        done = State(tmp_path / f"state-{tenth}").run("push", f"oci:{layout}", proxy.ref("tenths", f"v{tenth}"))
        assert proxy.happened == [(size * tenth // 10, "cut")]
        assert done.digest == digest
        assert check_image(fresh_registry, fresh_registry.ref("tenths", f"v{tenth}"), digest) == size
        worst = max(worst, fresh_registry.bytes_received())
    measured(f"received at most {worst / size:.4f} of the image's size")
    assert worst <= 1.1 * size


def test_a_connection_cut_at_every_tenth_of_one_push(fresh_registry, through, small, tmp_path, measured):
    """Nine breaks are more than --retries: what counts is tries without progress."""
    _, layout, digest, size = small
    proxy = through(fresh_registry)
    proxy.cut(*(size * tenth // 10 for tenth in range(1, 10)))
    done = State(tmp_path / "state").run("push", f"oci:{layout}", proxy.ref("all-tenths"), "--retries", 3)
    assert len(proxy.happened) == 9
    assert check_image(fresh_registry, fresh_registry.ref("all-tenths"), digest) == size
    received = fresh_registry.bytes_received()
    measured(f"received {received / size:.4f} of the image's size in {done.seconds:.1f} s")
    assert received <= 1.1 * size


def test_cuts_of_a_chunked_push(fresh_registry, through, small, tmp_path):
    _, layout, digest, size = small
    proxy = through(fresh_registry)
    proxy.cut(*(size * part // 100 for part in (3, 27, 51, 52, 98)))
    State(tmp_path / "state").run("push", f"oci:{layout}", proxy.ref("chunked"), "--chunk-size", "8MiB")
    assert len(proxy.happened) == 5
    assert check_image(fresh_registry, fresh_registry.ref("chunked"), digest) == size
    patches = [each for each in fresh_registry.requests() if each["method"] == "PATCH"]
    assert len(patches) >= size // (8 * MIB) and max(each["received"] for each in patches) <= 8 * MIB
    # Each break may cost the piece that it was in.
    assert fresh_registry.bytes_received() <= size + 5 * 8 * MIB


def test_a_connection_that_stalls_is_given_up(fresh_registry, through, small, tmp_path, measured):
    _, layout, digest, size = small
    proxy = through(fresh_registry)
    proxy.stall(size // 3, size * 2 // 3)
    done = State(tmp_path / "state").run("push", f"oci:{layout}", proxy.ref("stalled"), "--stall-timeout", "2s", timeout=60)
    assert len(proxy.happened) == 2
    assert check_image(fresh_registry, fresh_registry.ref("stalled"), digest) == size
    received = fresh_registry.bytes_received()
    measured(f"two stalls with --stall-timeout 2s: {done.seconds:.1f} s, received {received / size:.4f} of the size")
    assert received <= 1.1 * size


def test_debians_registry_gets_broken_blobs_anew(debian_registry, through, small, tmp_path, measured):
    """It answers 404 to whoever asks for the rest of an upload that broke."""
    _, layout, digest, size = small
    proxy = through(debian_registry)
    for tenth in (2, 5, 9):
        proxy.reset()
        proxy.cut(size * tenth // 10)
        State(tmp_path / f"state-{tenth}").run("push", f"oci:{layout}", proxy.ref(f"debian-{tenth}"))
        assert proxy.happened
        assert check_image(debian_registry, debian_registry.ref(f"debian-{tenth}"), digest) == size
        measured(f"cut at {tenth}/10: {proxy.up / size:.2f} of the size went through")


class Killed:
    """A model, its layout, a digest cache that knows it; pushes of either, alternately."""

    def __init__(self, root, size, seed):
        assert shutil.disk_usage(root).free > 5 * size, f"{root} has too little room for this test"
        self.root, self.model, self.layout = root, write_model(root / "model", size, shards=4, seed=seed), root / "image.oci"
        self.env = {"STARCAR_DIGEST_CACHE": root / "digests"}
        self.digest = pack(self.model, self.layout, env=self.env).digest
        self.size = layout_size(self.layout, self.digest)

    def command(self, number, ref):
        if number % 2:
            return ["push", f"oci:{self.layout}", ref]
        return ["pack", self.model, "-t", ref, "--push", "--base", "scratch"]


@pytest.fixture
def killed(tmp_path):
    """killed(size, seed) -> Killed"""
    made = []

    def make(size, seed):
        made.append(Killed(tmp_path, size, seed))
        return made[-1]

    yield make
    for each in made:
        shutil.rmtree(each.model)
        shutil.rmtree(each.layout)


def random_parts():
    """KILLS numbers between 0 and 1, one in each of as many equal parts, in random order."""
    print(f"seed {SEED}")
    generator = random.Random(SEED)
    parts = [(part + generator.random()) / KILLS for part in range(KILLS)]
    generator.shuffle(parts)
    return parts


def test_twenty_kills(fresh_registry, killed, tmp_path, measured):
    """SIGKILL when the registry has received a random part of 256 MB; the next run sends what is missing, no more."""
    image, ref = killed(256_000_000, 2), fresh_registry.ref("killed")
    met, worst, seconds = 0, 0, 0
    for number, part in enumerate(random_parts()):
        # Blobs that it had of an earlier round would not be sent again.
        fresh_registry.forget()
        state, command = State(tmp_path / f"state-{number}"), image.command(number, ref)
        met += killed_at(state.start(*command, env=image.env), lambda: fresh_registry.bytes_received() >= part * image.size)
        before = fresh_registry.bytes_received()
        done = state.run(*command, env=image.env)
        received = fresh_registry.bytes_received()
        assert done.digest == image.digest
        assert check_image(fresh_registry, ref, image.digest) == image.size
        assert received <= image.size + SLACK, f"kill {number} of seed {SEED}: {before} bytes before, {received - before} after"
        worst, seconds = max(worst, received - image.size), seconds + done.seconds
    measured(f"{met} of {KILLS} kills met a living push; at most {worst} bytes were sent twice; "
             f"the runs afterwards took {seconds:.1f} s together")
    assert met >= KILLS * 3 / 4, f"only {met} of {KILLS} kills met a living process"


def test_twenty_kills_of_two_gigabytes(fresh_registry, killed, tmp_path, measured):
    """Five kills in a row at each of four destinations: every run goes on where the one before was killed."""
    image, ref, parts = killed(2_000_000_000, 3), fresh_registry.ref("killed"), random_parts()
    met, worst = 0, 0
    for destination in range(4):
        fresh_registry.forget()
        state, command = State(tmp_path / f"state-{destination}"), image.command(destination, ref)
        for part in sorted(parts[destination::4]):
            met += killed_at(state.start(*command, env=image.env), lambda: fresh_registry.bytes_received() >= part * image.size)
        done = state.run(*command, env=image.env)
        received = fresh_registry.bytes_received()
        assert done.digest == image.digest
        assert check_image(fresh_registry, ref, image.digest) == image.size
        assert received <= image.size + 5 * SLACK, f"destination {destination} of seed {SEED}"
        worst = max(worst, received - image.size)
    measured(f"{met} of {KILLS} kills met a living push; at most {worst} bytes were sent twice after five")
    assert met >= KILLS * 3 / 4, f"only {met} of {KILLS} kills met a living process"


def test_debians_registry_after_a_kill(debian_registry, through, small, tmp_path):
    model, layout, digest, size = small
    for number, arguments in enumerate((["push", f"oci:{layout}"], ["pack", model, "--push", "--base", "scratch", "-t"])):
        proxy, state = through(debian_registry), State(tmp_path / f"state-{number}")
        command = [*arguments, proxy.ref(f"killed-{number}")]
        assert killed_at(state.start(*command), lambda: proxy.up >= size // 2)
        assert state.run(*command).digest == digest
        assert check_image(debian_registry, debian_registry.ref(f"killed-{number}"), digest) == size
