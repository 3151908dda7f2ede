"""Nothing half-written: a pack that is killed, interrupted or run twice at once leaves a layout that holds."""

import random
import shutil
import signal
import statistics
import subprocess
import time

import pytest

from model_files import MIB, write_model
from packing import STARCAR, check_blobs, check_complete, clean_env, litter, pack, unlisted_blobs

KILLS = 50
SEED = 20260901


def start(model, layout, scratch, *arguments):
    """Start a pack whose temporary files, if not in the layout, go below `scratch`."""
    scratch.mkdir(exist_ok=True)
    env = clean_env({"TMPDIR": scratch, "XDG_CACHE_HOME": scratch / "cache"})
    return subprocess.Popen(
        [STARCAR, "pack", model, "-o", f"oci:{layout}", "--base", "scratch", *map(str, arguments)],
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def finish(process, timeout=120):
    """Wait for a pack that must succeed; returns its digest."""
    out, words = process.communicate(timeout=timeout)
    assert process.returncode == 0, words
    return out.rstrip("\n").rpartition("\n")[2]


def signalled(process, delay, number):
    """Send a signal after `delay` seconds; whether it met the process alive, and what that had printed."""
    time.sleep(delay)
    alive = process.poll() is None
    process.send_signal(number)
    out, words = process.communicate(timeout=30)
    return alive, out, words


def random_moments(seed, count, end):
    """`count` seconds between 0 and `end`, one in each of as many equal parts, in random order."""
    generator = random.Random(seed)
    moments = [(part + generator.random()) * end / count for part in range(count)]
    generator.shuffle(moments)
    return moments


def temporaries(scratch):
    return [str(path.relative_to(scratch)) for path in scratch.rglob("*")
            if not path.is_dir() and not path.is_relative_to(scratch / "cache")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: write_model(root / name, size * MIB, shards=4, seed=seed)
            for name, size, seed in (("large", 160, 11), ("small", 24, 12))}


@pytest.fixture(scope="module")
def expected(models, tmp_path_factory):
    """The digest of each model's image."""
    root = tmp_path_factory.mktemp("expected")
    return {name: pack(model, root / f"{name}.oci").digest for name, model in models.items()}


@pytest.fixture(scope="module")
def duration(models, tmp_path_factory):
    """Seconds that a full run takes here, warm."""
    root = tmp_path_factory.mktemp("duration")
    took = []
    for number in range(4):
        begin = time.monotonic()
        finish(start(models["large"], root / f"{number}.oci", root / "tmp"))
        took.append(time.monotonic() - begin)
        shutil.rmtree(root / f"{number}.oci")
    return statistics.median(took[1:])


def test_a_killed_pack_leaves_no_broken_image(models, expected, duration, tmp_path, measured):
    """Half of the kills meet a new layout, half one that already holds another image and earlier kills' remains."""
    # A little past the end: the last steps, config, manifest and index.json, are the ones that must not be halved.
    moments = random_moments(SEED, KILLS, duration * 1.1)
    kept = tmp_path / "kept.oci"
    pack(models["small"], f"{kept}:small")
    met, listed_after, most_litter = 0, 0, []
    for number, moment in enumerate(moments):
        layout = kept if number % 2 else tmp_path / f"new-{number}.oci"
        alive, out, _ = signalled(start(models["large"], f"{layout}:large", tmp_path / "tmp"), moment, signal.SIGKILL)
        met += alive
        tags = check_complete(layout)
        check_blobs(layout)
        assert set(tags) <= {"small", "large"}
        assert tags.get("small") == (expected["small"] if layout == kept else None)
        assert tags.get("large") in (None, expected["large"])
        if "sha256:" in out:
            assert tags.get("large") == expected["large"], "a digest was printed before its image was whole"
        listed_after += "large" in tags
        most_litter = max(most_litter, litter(layout), key=len)
        if "large" in tags and layout == kept:
            # Begin anew, or the later kills would find everything done.
            pack(models["small"], f"{tmp_path}/again-{number}.oci:small")
            shutil.rmtree(kept)
            (tmp_path / f"again-{number}.oci").rename(kept)
        elif layout != kept:
            check_recovery(models["large"], layout, expected["large"], tmp_path)
            shutil.rmtree(layout)
    check_recovery(models["large"], kept, expected["large"], tmp_path)
    assert check_complete(kept)["small"] == expected["small"]
    measured(f"a full run takes {duration:.2f} s; {met} of {KILLS} kills met a living process, after {listed_after} kills "
             f"the image was whole; most litter before the next run: {most_litter or 'none'}")
    assert met >= KILLS * 0.7, f"only {met} of {KILLS} kills met a living process: the run takes {duration:.3f} s"
    assert listed_after < KILLS * 0.5, "most runs had finished before they were killed"


def check_recovery(model, layout, digest, tmp_path):
    """The next full run succeeds with the expected image and clears up what the killed ones left."""
    assert finish(start(model, f"{layout}:large", tmp_path / "tmp")) == digest
    assert check_complete(layout)["large"] == digest
    check_blobs(layout)
    assert not litter(layout), f"left after a full run: {litter(layout)}"
    assert not unlisted_blobs(layout), f"blobs of no image: {unlisted_blobs(layout)}"
    assert not temporaries(tmp_path / "tmp"), f"left in TMPDIR: {temporaries(tmp_path / 'tmp')}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_pack_clears_up(models, expected, duration, tmp_path, number):
    moments = random_moments(SEED + number, 12, duration * 0.9)
    met = 0
    for index, moment in enumerate(moments):
        layout = tmp_path / f"{index}.oci"
        process = start(models["large"], f"{layout}:large", tmp_path / "tmp")
        alive, out, words = signalled(process, moment, number)
        if process.returncode == 0:
            assert check_complete(layout) == {"large": expected["large"]}
            continue
        met += alive
        assert process.returncode in (-number, 128 + number), f"exited with {process.returncode}: {words}"
        assert "panicked" not in words and "sha256:" not in out
        assert check_complete(layout) in ({}, {"large": expected["large"]})
        check_blobs(layout)
        assert not litter(layout), f"left after {number.name}: {litter(layout)}"
        assert not temporaries(tmp_path / "tmp"), f"left in TMPDIR: {temporaries(tmp_path / 'tmp')}"
        shutil.rmtree(layout, ignore_errors=True)
    assert met >= len(moments) // 2, f"only {met} of {len(moments)} signals met a living process"


@pytest.mark.parametrize("same", [True, False], ids=["one model", "two models"])
def test_two_packs_at_once_into_one_layout(models, expected, tmp_path, same):
    for number in range(6):
        layout = tmp_path / f"{number}.oci"
        names = ["large", "large" if same else "small"]
        running = [start(models[name], f"{layout}:{index}", tmp_path / "tmp") for index, name in enumerate(names)]
        digests = [finish(process) for process in running]
        assert digests == [expected[name] for name in names]
        assert check_complete(layout) == dict(zip("01", digests))
        check_blobs(layout)
        assert not litter(layout)
        shutil.rmtree(layout)


def test_many_packs_at_once_into_one_layout(models, expected, tmp_path):
    layout = tmp_path / "many.oci"
    running = [start(models["small"], f"{layout}:{number}", tmp_path / "tmp") for number in range(8)]
    assert {finish(process) for process in running} == {expected["small"]}
    assert check_complete(layout) == {str(number): expected["small"] for number in range(8)}
    assert not litter(layout)


def test_a_pack_beside_a_running_one_leaves_its_files_alone(models, expected, duration, tmp_path):
    """Clearing up after the dead must not touch the living: short packs end while a long one runs."""
    layout = tmp_path / "busy.oci"
    long = start(models["large"], f"{layout}:large", tmp_path / "tmp", "--threads", 1)
    time.sleep(duration / 10)
    for number in range(3):
        assert finish(start(models["small"], f"{layout}:{number}", tmp_path / "tmp")) == expected["small"]
    assert finish(long) == expected["large"]
    assert check_complete(layout) == {"large": expected["large"]} | {str(n): expected["small"] for n in range(3)}
    assert not litter(layout)
