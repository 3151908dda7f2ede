"""Eight blobs at a time, and memory and disk stay small however large the model is."""

import shutil

import pytest

from model_files import MIB
from pushing import sparse_model
from test_memory import GIB, room, run_watched  # noqa: F401

LARGEST = 300 * MIB
MOST_DISK = 50 * MIB


@pytest.mark.parametrize("gib", [1, 4])
def test_memory_and_disk_of_a_push(room, fresh_registry, gib, measured):  # noqa: F811
    model = sparse_model(room / "model", gib * GIB, shards=8)
    ref = fresh_registry.ref(f"memory/{gib}-gib")
    watch, _ = run_watched(["pack", model, "-t", ref, "--push", "--base", "scratch", "--concurrency", 8], room)
    assert sum(layer["size"] for layer in fresh_registry.manifest(ref)["layers"]) > gib * GIB
    measured(f"{watch.resident / MIB:.1f} MiB resident, {watch.peak} bytes on disk at most")
    assert watch.samples > 20, "the push was too short to be watched"
    assert 0 < watch.resident < LARGEST
    assert watch.peak < MOST_DISK, watch.at_peak
    shutil.rmtree(model)
