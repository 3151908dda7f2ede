"""A push that breaks goes on where the registry stopped hearing: cut connections, stalls, SIGKILL."""

import random
import shutil

import pytest

from model_files import MIB, write_model
from packing import pack
from pushing import State, check_image, finish, killed_at, layout_size

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


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of 2 GB in four shards, its layout, and a digest cache that knows it."""
    root = tmp_path_factory.mktemp("large")
    assert shutil.disk_usage(root).free > 10_000_000_000, f"{root} has too little room for this test"
    model = write_model(root / "model", 2_000_000_000, shards=4, seed=2)
    digest = pack(model, root / "image.oci", env={"STARCAR_DIGEST_CACHE": root / "digests"}).digest
    yield model, root / "image.oci", digest, layout_size(root / "image.oci", digest), root / "digests"
    shutil.rmtree(root)


def test_twenty_kills(fresh_registry, large, tmp_path, measured):
    """SIGKILL when the registry has received a random part of 2 GB; the next run sends what is missing and no more."""
    model, layout, digest, size, digests = large
    print(f"seed {SEED}")
    generator = random.Random(SEED)
    parts = [(part + generator.random()) / KILLS for part in range(KILLS)]
    generator.shuffle(parts)
    met, worst, seconds = 0, 0, 0
    ref = fresh_registry.ref("killed")
    for number, part in enumerate(parts):
        fresh_registry.forget()
        state = State(tmp_path / f"state-{number}")
        env = {"STARCAR_DIGEST_CACHE": digests}
        if number % 2:
            arguments = ["push", f"oci:{layout}", ref]
        else:
            arguments = ["pack", model, "-t", ref, "--push", "--base", "scratch"]
        met += killed_at(state.start(*arguments, env=env), lambda: fresh_registry.bytes_received() >= part * size)
        before = fresh_registry.bytes_received()
        assert not fresh_registry.holds(ref) or before >= size
        done = state.run(*arguments, env=env)
        received = fresh_registry.bytes_received()
        assert done.digest == digest
        assert check_image(fresh_registry, ref, digest) == size
        assert received <= size + SLACK, f"kill {number} of seed {SEED}: {before} bytes before, {received - before} after"
        worst, seconds = max(worst, received - size), seconds + done.seconds
        shutil.rmtree(state.dir)
    measured(f"{met} of {KILLS} kills met a living push; at most {worst} bytes were sent twice; "
             f"the runs afterwards took {seconds:.0f} s together")
    assert met >= KILLS * 3 / 4, f"only {met} of {KILLS} kills met a living process"


def test_kills_in_a_row(fresh_registry, large, tmp_path, measured):
    """Each of five runs is killed in turn, at one destination: all that they sent together is the image."""
    model, _, digest, size, digests = large
    ref, state = fresh_registry.ref("killed-in-a-row"), State(tmp_path / "state")
    arguments, env = ["pack", model, "-t", ref, "--push", "--base", "scratch"], {"STARCAR_DIGEST_CACHE": digests}
    for part in range(1, 6):
        killed_at(state.start(*arguments, env=env), lambda: fresh_registry.bytes_received() >= part * size / 6)
    finish(state.start(*arguments, env=env))
    received = fresh_registry.bytes_received()
    assert check_image(fresh_registry, ref, digest) == size
    measured(f"{received - size} bytes were sent twice by six runs")
    assert received <= size + 5 * SLACK


def test_debians_registry_after_a_kill(debian_registry, through, small, tmp_path):
    model, layout, digest, size = small
    for number, arguments in enumerate((["push", f"oci:{layout}"], ["pack", model, "--push", "--base", "scratch", "-t"])):
        proxy, state = through(debian_registry), State(tmp_path / f"state-{number}")
        command = [*arguments, proxy.ref(f"killed-{number}")]
        assert killed_at(state.start(*command), lambda: proxy.up >= size // 2)
        assert state.run(*command).digest == digest
        assert check_image(debian_registry, debian_registry.ref(f"killed-{number}"), digest) == size
