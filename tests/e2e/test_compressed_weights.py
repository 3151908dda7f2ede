"""Weights that are compressed by the frequency of their bytes, as everybody reads them.

The blocks of deflate that starcar writes are made by no other program: codes without a match, limited to 14 bits, two
unused codes for distances. Decoders must not only take them in theory."""

import gzip
import tarfile

import pytest

from consumers import image, trees
from consumers.proc import run
from model_files import MIB, write_model


@pytest.fixture(scope="module")
def model(scratch):
    """16 MiB of N(0, 0.02) in bf16, and its tree at /models."""
    path = write_model(scratch / "bf16-model", 16 * MIB, shards=2, seed=7)
    return path, trees.of_source(path)


@pytest.fixture(scope="module", params=[[], image.ZSTD_CHUNKED], ids=["estargz", "zstd"])
def options(request):
    return ["--compress-weights", *request.param]


def test_decoders_take_them(options, starcar, model, read_layer, tmp_path):
    """gzip or zstd, Python's zlib, Go's compress/gzip and klauspost's zstd in the reference readers."""
    source, want = model
    packed = starcar.pack(source, *options, output=tmp_path / "layout", base="scratch")
    weights = {layer["digest"]: layer for layer in packed.kinds("weights")}
    assert len(weights) == 2
    tree = {}
    for descriptor, blob, _ in packed.layout.layers():
        zstd = descriptor["mediaType"].endswith("zstd")
        # Both go by a file's ending, where it has a name.
        run("sh", "-c", f'{"zstd" if zstd else "gzip"} -t < "$0"', blob)
        if not zstd:
            with gzip.open(blob) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                assert all(tar.extractfile(member).read() for member in tar if member.isfile() and member.size)
        trees.of_tar(blob, tree)
        entries, _ = read_layer(blob, descriptor["annotations"][image.TOC_DIGEST])
        assert any(entry["type"] == "reg" for entry in entries)
        if weight := weights.get(descriptor["digest"]):
            assert 0.76 < weight["size"] / weight["uncompressedSize"] < 0.79
    trees.assert_same(want, trees.under(tree), "/models")


def test_nodes_take_them(options, starcar, registry, base_image, model, node, tmp_path):
    """containerd unpacks what it pulled, and a lazy mount shows the same."""
    source, want = model
    name = f"compressed-{'zstd' if image.ZSTD_CHUNKED[-1] in options else 'estargz'}"
    packed = starcar.pack(source, *options, tag=registry.ref(name, "v1"), base=base_image)
    node.pull(packed.ref)
    node.rpull(packed.ref, "stargz-still")
    for snapshotter in ("overlayfs", "stargz-still"):
        target = node.mount(packed.ref, tmp_path / snapshotter, snapshotter)
        seen = trees.of_directory(target)
        run("umount", target)
        trees.assert_same(want, trees.under(seen), f"/models by {snapshotter}")
