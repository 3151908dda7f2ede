"""What an image is called: several names, none, and names that are taken."""

import shutil

import pytest

from model_files import MIB, write_model
from pushing import PROBE, State, check_image


@pytest.fixture
def models(tmp_path):
    yield [write_model(tmp_path / f"model-{seed}", 8 * MIB, shards=2, seed=seed) for seed in (1, 2)]
    for seed in (1, 2):
        shutil.rmtree(tmp_path / f"model-{seed}")


@pytest.fixture
def push(tmp_path):
    state = State(tmp_path / "state")

    def run(model, *arguments, **options):
        return state.run("pack", model, "--base", "scratch", "--push", *arguments, **options)

    return run


def test_several_names(fresh_registry, second_registry, models, push):
    refs = [fresh_registry.ref("one", "v1"), fresh_registry.ref("one", "latest"), fresh_registry.ref("two", "v1"),
            second_registry.ref("one", "v1")]
    done = push(models[0], *(word for ref in refs for word in ("-t", ref)))
    sizes = [check_image(second_registry if ref == refs[3] else fresh_registry, ref, done.digest) for ref in refs]
    assert fresh_registry.bytes_received() == second_registry.bytes_received() == sizes[0] + PROBE


def test_by_digest_alone(fresh_registry, models, push):
    ref = fresh_registry.ref("untagged", "v1")
    name = ref.rpartition(":")[0]
    push(models[0], "-t", ref, "--push-by-digest", status=2)
    done = push(models[0], "-t", name, "--push-by-digest")
    assert fresh_registry.manifest(f"{name}@{done.digest}")
    assert not fresh_registry.holds(ref) and not fresh_registry.holds(f"{name}:latest")
    assert not list(fresh_registry.root.rglob("_manifests/tags/*"))


def test_a_name_that_is_taken(fresh_registry, models, push):
    ref = fresh_registry.ref("taken", "v1")
    first = push(models[0], "-t", ref, "--no-clobber")
    # The same image under its own name is no change.
    assert push(models[0], "-t", ref, "--no-clobber").digest == first.digest
    fresh_registry.reset()
    done = push(models[1], "-t", ref, "--no-clobber", status=6)
    assert len(done.words) == 1 and ref in done.stderr and first.digest in done.stderr, done.stderr
    assert fresh_registry.bytes_received() == 0, "it was sent before anybody looked whether the name is free"
    check_image(fresh_registry, ref, first.digest)
    second = push(models[1], "-t", ref)
    assert second.digest != first.digest
    check_image(fresh_registry, ref, second.digest)
