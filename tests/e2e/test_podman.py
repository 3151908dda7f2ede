"""podman, whose library containers-storage pulls zstd:chunked layers in part, with layers that are for it and others."""

import shutil

import pytest

from consumers import image, models, trees
from consumers.podman import Podman
from consumers.proc import run

FOR_PODMAN = [*image.ZSTD_CHUNKED, "--consumer", "containers-storage"]
FOR_BOTH = [*image.ZSTD_CHUNKED, "--consumer", "both"]

# podman sets the times of directories before it puts files into them.
TIMELESS = tuple(field for field in trees.FIELDS if field != "mtime")


@pytest.fixture(scope="module")
def podman_root(bin_dir):
    """Where setup unpacked podman."""
    root = bin_dir.parent / "podman"
    if not (root / "usr/bin/podman").exists():
        pytest.fail(f"{root} has no podman: run tests/e2e/setup", pytrace=False)
    return root


@pytest.fixture
def podman(podman_root, scratch, image_name):
    """podman with an empty store."""
    it = Podman(podman_root, scratch / f"podman-{image_name}")
    yield it
    it.stop()


@pytest.fixture(scope="module")
def changed_model(small_model, scratch):
    """The small model with another config, and its tree."""
    path = scratch / "changed-model"
    shutil.copytree(small_model[0], path)
    (path / "config.json").write_text('{"model_type": "llama", "changed": true}\n')
    return path, trees.of_source(path)


def assert_tree(podman, ref, want):
    """podman has the tree; times are those of files alone."""
    got = trees.under(podman.tree(ref))
    trees.assert_same(want, got, f"/models of {ref} by podman", TIMELESS)
    files = [{path: record for path, record in tree.items() if record["type"] == "reg"} for tree in (want, got)]
    trees.assert_same(*files, f"files of {ref} by podman")


def layers_size(packed):
    return sum(layer["size"] for layer in packed.metadata["layers"])


def test_partial_pull(podman, pack, registry, small_model, changed_model, base_image, image_name, measured):
    """Of a second image with one other file podman fetches that file, and tables of contents."""
    first = pack(small_model[0], *FOR_PODMAN, tag=registry.ref(image_name, "v1"), base=base_image)
    second = pack(changed_model[0], *FOR_PODMAN, tag=registry.ref(image_name, "v2"), base=base_image)
    known = {layer["digest"] for layer in first.metadata["layers"]}
    new = [layer for layer in second.metadata["layers"] if layer["digest"] not in known]
    assert len(new) == 1, "the weights' layers are the same blobs"

    pulled = podman.pull(first.ref)
    assert set(pulled.partial) == known and pulled.whole == [], pulled.log
    assert_tree(podman, first.ref, small_model[1])

    registry.reset()
    pulled = podman.pull(second.ref)
    assert pulled.partial == [new[0]["digest"]] and pulled.whole == [], pulled.log
    [(missing, total)] = pulled.missing
    size = (changed_model[0] / "config.json").stat().st_size
    assert missing == size < total / 4
    served = registry.served()
    assert set(served) & known == set(), "layers that podman has already"
    sent = served[new[0]["digest"]]["bytes"]
    measured(f"podman {podman.version()}: {registry.bytes_served()} bytes for a changed file of {size}, {sent} of them of its layer of {new[0]['size']}; the image has {layers_size(second)}")
    assert_tree(podman, second.ref, changed_model[1])

    # A layer that shares files with another blob, as after a change of a shard's neighbour, brings them from the store.
    moved = pack(changed_model[0], *FOR_PODMAN, "--max-layers", "3", tag=registry.ref(image_name, "v3"), base=base_image)
    registry.reset()
    pulled = podman.pull(moved.ref)
    assert pulled.partial and pulled.whole == [], pulled.log
    assert registry.bytes_served() < layers_size(moved) / 20
    assert_tree(podman, moved.ref, changed_model[1])

    done = podman.run(second.ref, "/bin/sh", "-c", "cat /models/config.json")
    assert done.stdout == (changed_model[0] / "config.json").read_text()


@pytest.mark.parametrize("layers", [[], image.ZSTD_CHUNKED], ids=["estargz", "stargz"])
def test_whole_pull_of_others(podman, pack, registry, small_model, image_name, layers):
    """What is for stargz-snapshotter podman pulls whole."""
    packed = pack(small_model[0], *layers, tag=registry.ref(image_name, "v1"))
    pulled = podman.pull(packed.ref)
    assert pulled.partial == [] and len(set(pulled.whole)) == 1, pulled.log
    assert_tree(podman, packed.ref, small_model[1])


def test_both(podman, fresh_node, pack, registry, small_model, image_name, tmp_path):
    """One index: podman pulls in part, stargz-snapshotter mounts lazily, containerd and skopeo unpack, all of one blob."""
    packed = pack(small_model[0], *FOR_BOTH, tag=registry.ref(image_name, "v1"))
    index = registry.manifest(packed.ref)
    stargz, storage = index["manifests"]
    assert stargz["platform"] == storage["platform"]
    manifests = [registry.manifest(f"{packed.ref.rsplit(':', 1)[0]}@{entry['digest']}") for entry in (stargz, storage)]
    assert [[layer["digest"] for layer in each["layers"]] for each in manifests][0] == [layer["digest"] for layer in manifests[1]["layers"]]

    pulled = podman.pull(packed.ref)
    assert set(pulled.partial) == {layer["digest"] for layer in manifests[0]["layers"]} and pulled.whole == [], pulled.log
    assert_tree(podman, packed.ref, small_model[1])

    fresh_node.rpull(packed.ref, "stargz-still")
    assert len(fresh_node.lazy_mounts("stargz-still")) == len(manifests[0]["layers"])
    target = fresh_node.mount(packed.ref, tmp_path / "lazy", "stargz-still")
    trees.assert_same(small_model[1], trees.under(trees.of_directory(target)), "/models mounted lazily")
    fresh_node.pull(packed.ref)
    target = fresh_node.mount(packed.ref, tmp_path / "eager", "overlayfs")
    trees.assert_same(small_model[1], trees.under(trees.of_directory(target)), "/models by containerd")

    run("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{packed.ref}", f"dir:{tmp_path / 'dir'}")
    tree = {}
    for layer in manifests[0]["layers"]:
        trees.of_tar(tmp_path / "dir" / layer["digest"].removeprefix("sha256:"), tree)
    trees.assert_same(small_model[1], trees.under(tree), "/models by skopeo")


def test_eager_pull_of_podmans(fresh_node, pack, registry, small_model, image_name, tmp_path):
    """What is for podman alone stargz-snapshotter lets containerd pull whole."""
    packed = pack(small_model[0], *FOR_PODMAN, tag=registry.ref(image_name, "v1"))
    fresh_node.rpull(packed.ref, "stargz-still")
    assert fresh_node.lazy_mounts("stargz-still") == []
    target = fresh_node.mount(packed.ref, tmp_path / "root", "stargz-still")
    trees.assert_same(small_model[1], trees.under(trees.of_directory(target)), "/models")
