"""`starcar replay` against a real registry: what it tells is what the registry has seen, and the background has its turn."""

import json
import re

import pytest

from model_files import MIB, write_model

SIZE = 48 * MIB


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(model, profile): the profile reads a small file at once, and all shards after ten seconds."""
    root = tmp_path_factory.mktemp("replayed")
    model = write_model(root / "model", SIZE, shards=2, seed=21)
    accesses = [{"at": 0, "kind": "read", "path": "config.json"}]
    accesses += [{"at": 10 + at, "kind": "read", "path": shard.name}
                 for at, shard in enumerate(sorted(model.glob("*.safetensors")))]
    profile = root / "profile.json"
    profile.write_text(json.dumps({"version": 1, "accesses": accesses}))
    return model, profile


def replay(starcar, registry, ref, profile, *arguments):
    registry.reset()
    report = json.loads(starcar("replay", ref, "--profile", profile, "--format", "json", *arguments).stdout)
    asked = [each for each in registry.requests() if "/blobs/" in each["path"]]
    return report, {each["digest"]: [one for one in asked if each["digest"] in one["path"]] for each in report["layers"]}


def covered(requests):
    """Bytes of a blob that some request asked for."""
    spans = sorted(tuple(map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", each["range"]).groups()))
                   for each in requests if each["range"])
    total, position = 0, 0
    for begin, end in spans:
        total += max(0, end + 1 - max(begin, position))
        position = max(position, end + 1)
    return total


def test_the_report_is_what_the_registry_saw(fresh_registry, pack, starcar, model):
    tree, profile = model
    packed = pack(tree, "--profile", profile, "--prefetch", "small", tag=fresh_registry.ref("replayed"))
    report, asked = replay(starcar, fresh_registry, packed.ref, profile, "--think-scale", 0, "--node-no-background-fetch")
    for layer in report["layers"]:
        seen = asked[layer["digest"]]
        assert layer["total"] == {"requests": len(seen), "bytes": sum(each["bytes"] for each in seen if each["method"] == "GET")}
    assert report["readBytes"] >= SIZE and report["chunks"]["missed"] >= SIZE // (4 * MIB)
    assert report["chunks"]["background"] == 0


def test_background_fetch_has_its_turn_after_five_seconds(fresh_registry, pack, starcar, model):
    tree, profile = model
    packed = pack(tree, "--profile", profile, "--prefetch", "small", tag=fresh_registry.ref("replayed"))
    report, asked = replay(starcar, fresh_registry, packed.ref, profile)
    assert report["seconds"]["lastRead"] >= 11
    assert report["chunks"]["background"] > 0 and report["chunks"]["missed"] == 0, report["chunks"]
    assert all("read" not in layer["causes"] for layer in report["layers"]), report["layers"]
    # Every byte of the weights came, and few came twice.
    weights = [layer for layer in report["layers"] if layer["size"] > MIB]
    assert sum(layer["size"] for layer in weights) >= SIZE
    for layer in weights:
        whole = covered(asked[layer["digest"]])
        assert whole >= layer["size"] * 0.999 and layer["total"]["bytes"] < layer["size"] * 1.1, layer
