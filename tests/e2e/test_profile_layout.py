"""Images that are laid out by a profile: what inspect, the reference readers and a node see is what the plan said."""

import hashlib
import json
import time

import pytest

from consumers import models, trees
from consumers.proc import wait_for

MIB = 1 << 20
# The second format is left out unless it is asked for.
EVERYTHING = ("--include", "*")
SHARDS = [f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def snapshot(scratch):
    """Three shards of 20 MiB, a second weight format, small files, a card for people."""
    path = models.model(scratch / "profiled-model", weights=60 * MIB, shards=3)
    assert sorted(p.name for p in path.glob("*.safetensors")) == SHARDS
    (path / "original").mkdir()
    models.write_noise(path / "original/consolidated.00.pth", 3 * MIB)
    (path / "README.md").write_text("for people\n" * 50)
    return path


def write_profile(path, accesses):
    path.write_text(json.dumps({"version": 1, "accesses": accesses}))
    return path


def read(at, path, *ranges):
    access = {"at": at, "kind": "read", "path": path}
    return {**access, "ranges": [list(r) for r in ranges]} if ranges else access


@pytest.fixture(scope="module")
def profile(snapshot, scratch):
    """Shards in an unusual order, the header of one apart from its data, a file that does not exist."""
    return write_profile(
        scratch / "profile.json",
        [
            read(1, "tokenizer.json"),
            read(2, "config.json"),
            read(2.5, "gone.json"),
            read(3, SHARDS[2]),
            read(4, SHARDS[0], (0, 4096)),
            read(5, SHARDS[0], (4096, 3 * MIB), (6 * MIB, 3 * MIB)),  # from 9 MiB on, it is not read
            read(6, SHARDS[1]),
        ],
    )


def planned_layers(starcar, snapshot, *options):
    plan = starcar("plan", snapshot, "--base", "/bin/busybox", "--format", "json", *options)
    return json.loads(plan.stdout)["layers"]


def inspected_layers(starcar, packed):
    """For each layer above the base, its kind, its files in physical order with their chunks, what is prefetched."""
    found = json.loads(starcar("inspect", f"oci:{packed.layout.dir}", "--format", "json").stdout)
    layers = []
    for layer in found["layers"]:
        if layer["kind"] == "base":
            continue
        lazy = layer["lazy"]["Ok"]
        entries = [e for e in lazy["entries"] if e["type"] == "reg" and e["path"].startswith("models/")]
        assert [e["offset"] for e in entries] == sorted(e["offset"] for e in entries)
        layers.append(
            {
                "kind": layer["kind"],
                "prioritized": sum(e["prefetched"] for e in entries),
                "landmark": lazy["landmark"]["prefetch"],
                "files": [(e["path"].removeprefix("models/"), e["chunkSizes"]) for e in entries],
            }
        )
    return layers


@pytest.mark.parametrize("prefetch", ["auto", "none", "small", "all"])
def test_inspect_agrees_with_the_plan(starcar, snapshot, profile, prefetch):
    options = (*EVERYTHING, "--profile", profile, "--prefetch", prefetch)
    planned = planned_layers(starcar, snapshot, *options)
    packed = starcar.pack(snapshot, *options)
    inspected = inspected_layers(starcar, packed)
    assert [
        {
            "kind": layer["kind"],
            "prioritized": layer["prioritized"],
            "landmark": layer["prioritized"] > 0,
            "files": [(file["path"], file["chunks"]) for file in layer["files"]],
        }
        for layer in planned
    ] == inspected
    assert "gone.json" in packed.stderr


def test_the_order_is_the_profiles_and_nothing_is_lost(starcar, snapshot, profile):
    packed = starcar.pack(snapshot, *EVERYTHING, "--profile", profile)
    layers = inspected_layers(starcar, packed)
    assert [layer["kind"] for layer in layers] == ["small", "weights", "weights", "weights", "unused"]
    names = [[name for name, _ in layer["files"]] for layer in layers]
    assert names[0] == ["tokenizer.json", "config.json"]
    assert names[1:4] == [[SHARDS[2]], [SHARDS[0]], [SHARDS[1]]]
    assert {"README.md", "original/consolidated.00.pth"} <= set(names[4])
    everything = sorted(name for layer in names for name in layer)
    assert everything == sorted(str(p.relative_to(snapshot)) for p in snapshot.rglob("*") if p.is_file())


def test_chunks_end_where_reads_do(starcar, snapshot, profile):
    packed = starcar.pack(snapshot, *EVERYTHING, "--profile", profile)
    chunks = dict(file for layer in inspected_layers(starcar, packed) for file in layer["files"])[SHARDS[0]]
    ends = [sum(chunks[: n + 1]) for n in range(len(chunks))]
    assert chunks[0] == 128 << 10, "the header is read apart"
    assert {4096 + 3 * MIB, 6 * MIB, 9 * MIB} <= set(ends), ends


def test_the_readers_take_it(starcar, bin_dir, read_layer, snapshot, profile):
    packed = starcar.pack(snapshot, *EVERYTHING, "--profile", profile)
    for descriptor, blob, _ in packed.layout.layers():
        toc = descriptor["annotations"]["containerd.io/snapshot/stargz/toc.digest"]
        for store in ("memory", "db"):
            entries, summary = read_layer(blob, toc, store)
            assert entries and summary["landmark"]


def test_files_before_the_landmark_need_no_request(starcar, snapshot, profile, registry, fresh_node, image_name):
    """Must show 6: after prefetch, the small files are read without a word to the registry."""
    packed = starcar.pack(snapshot, *EVERYTHING, "--profile", profile, tag=registry.ref(image_name, "v1"))
    node = fresh_node
    node.rpull(packed.ref, "stargz-still")
    process = node.start(image_name, packed.ref, "sh", "-c", "sleep 300", snapshotter="stargz-still")
    wait_for("the container", lambda: node.ctr("task", "ls", "-q").stdout.split())
    small = [name for layer in inspected_of(registry, starcar, packed) for name in layer]
    assert {"config.json", "tokenizer.json"} <= set(small)
    # Prefetch is waited for before a container runs; what a mount asks for later is over by then, too.
    time.sleep(1)
    registry.reset()
    for name in small:
        status, out = node.exec(image_name, "sha256sum", f"/models/{name}")
        assert status == 0 and out.split()[0] == hashlib.sha256((snapshot / name).read_bytes()).hexdigest()
    assert registry.requests() == []
    # And the counter counts: a shard behind the landmark is asked for.
    status, _ = node.exec(image_name, "sha256sum", f"/models/{SHARDS[1]}")
    assert status == 0
    sent = registry.bytes_served()
    # The last unit of the blob came with the footer.
    assert sent >= (snapshot / SHARDS[1]).stat().st_size - 100_000, registry.requests()
    assert process.alive()


def inspected_of(registry, starcar, packed):
    """Names of the prefetched files of each layer of a pushed image."""
    found = json.loads(starcar("inspect", packed.ref, "--format", "json").stdout)
    for layer in found["layers"]:
        entries = layer["lazy"]["Ok"]["entries"]
        yield [e["path"].removeprefix("models/") for e in entries if e["prefetched"] and e["path"].startswith("models/")]


def test_an_image_without_a_profile_has_everything(starcar, snapshot, registry, node, image_name, tmp_path):
    packed = starcar.pack(snapshot, *EVERYTHING, "--profile", "none", tag=registry.ref(image_name, "v1"))
    node.rpull(packed.ref, "stargz")
    mounted = node.mount(packed.ref, tmp_path / "root", "stargz")
    trees.assert_same(trees.of_source(snapshot), trees.under(trees.of_directory(mounted)), "profile none")
