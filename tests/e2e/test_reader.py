"""Every layer through the reference readers: the estargz package and the metadata stores."""

import hashlib
import os
import subprocess
from dataclasses import dataclass

import pytest

from consumers import image, models, trees
from consumers.proc import run

KIB, MIB = 1 << 10, 1 << 20
# The merge buffer of the snapshotter's passthrough mode.
MERGE = 419_430_400
CHECKSUM = "io.containers.zstd-chunked.manifest-checksum"
POSITION = "io.containers.zstd-chunked.manifest-position"
STORES = ("memory", "db", "boltmeta")


@dataclass
class Case:
    """An image of a source tree, each layer read by all stores."""

    packed: image.Packed
    want: dict  # what must be at /models
    layers: list  # (descriptor, blob, diffID, {store: (entries, summary)})
    zstd: bool

    def files(self, layer):
        """The regular files of a layer that are the model's, as the memory store tells them."""
        entries = layer[3]["memory"][0]
        return [e for e in entries if e["type"] == "reg" and e["path"].startswith("models/")]


def read_case(bin_dir, packed, source):
    layers = []
    for descriptor, blob, diff_id in packed.layout.layers():
        toc = descriptor["annotations"][image.TOC_DIGEST]
        read = {store: image.read_layer(bin_dir, blob, toc, store) for store in STORES}
        layers.append((descriptor, blob, diff_id, read))
    return Case(packed, trees.of_source(source), layers, packed.layout.manifest()["layers"][0]["mediaType"].endswith("zstd"))


def default_chunk(starcar, bin_dir, scratch, options):
    """The size of the chunks in the middle of a large file when nobody asks for another."""
    source = scratch / "probe"
    source.mkdir()
    models.write_safetensors(source / "model.safetensors", 40 * MIB)
    case = read_case(bin_dir, starcar.pack(source, *options), source)
    (weights,) = [e for layer in case.layers for e in case.files(layer)]
    return weights["chunks"][1]["size"]


def sizes_around(chunk):
    return {chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk - 1, 3 * chunk + 1}


def edges(source, chunk):
    """Files whose sizes lie where a chunk begins or ends, as weights and as other files."""
    models.small_files(source)
    (source / "empty.txt").touch()
    (source / "empty.bin").touch()
    (source / "one.txt").write_bytes(b"1")
    for size in sorted(sizes_around(chunk)):
        models.write_safetensors(source / f"model-{size}.safetensors", size)
    for size in sorted(sizes_around(64 * KIB) | {511, 512, 513, 1024, chunk, chunk + 1}):
        models.write_noise(source / f"noise-{size}.txt", size)
    (source / "zeros.json").write_bytes(b" " * (3 * MIB + 5))


def large(source, chunk):
    """Weights past one and past two merge buffers."""
    models.small_files(source)
    models.write_safetensors(source / "model-00001-of-00002.safetensors", MERGE + 9 * MIB + 1)
    models.write_safetensors(source / "model-00002-of-00002.safetensors", MERGE)


def names(source, chunk):
    """Names that a plain tar header cannot hold."""
    models.small_files(source)
    at = source
    for i in range(30):
        at = at / f"level-{i:02d}"
    at.mkdir(parents=True)
    (at / "deep.json").write_text("{}")
    for name in ["n" * 99, "n" * 100, "n" * 101, "n" * 250 + ".json", "d" * 200 + "/" + "e" * 200 + "/f.txt"]:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name[-20:])
    for name in ["Größe.json", "Gro\u0308ße.json", "模型/权重.txt", "emoji-🚗.md", "a b'c\"d.txt", "%20 #?&.json"]:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (source / ("ü" * 100)).mkdir()
    models.write_safetensors(source / ("ü" * 100) / "model.safetensors", 5 * MIB)


def many(source, chunk):
    """10,000 small files."""
    for i in range(10_000):
        at = source / f"part-{i // 500:02d}"
        at.mkdir(parents=True, exist_ok=True)
        (at / f"{i:05d}.json").write_text(f'{{"i": {i}}}' * (i % 50))


CASES = {
    "edges": (edges, []),
    "edges-1MiB": (edges, ["--estargz-chunk-size", "1048576"]),
    "edges-gzip": (edges, ["--compression", "gzip"]),
    "large": (large, []),
    "names": (names, []),
    "many": (many, []),
    "edges-zstd": (edges, image.ZSTD_CHUNKED),
    "edges-zstd-all": (edges, [*image.ZSTD_CHUNKED, "--compression", "zstd"]),
    "large-zstd": (large, image.ZSTD_CHUNKED),
    "names-zstd": (names, image.ZSTD_CHUNKED),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, starcar, bin_dir, tmp_path_factory):
    fill, options = CASES[request.param]
    scratch = tmp_path_factory.mktemp(request.param)
    source = scratch / "source"
    source.mkdir()
    chunk = 0
    if fill is edges:
        chunk = MIB if "1MiB" in request.param else default_chunk(starcar, bin_dir, scratch, options)
    fill(source, chunk)
    return read_case(bin_dir, starcar.pack(source, *options), source)


@pytest.mark.parametrize("store", STORES)
def test_files_equal_the_source(case, store):
    tree = {}
    for _, _, _, read in case.layers:
        trees.of_entries(read[store][0], tree)
    trees.assert_same(case.want, trees.under(tree), f"{store} store")


@pytest.mark.parametrize("store", STORES[1:])
def test_store_agrees_with_memory(case, store):
    for descriptor, _, _, read in case.layers:
        assert read[store][1] == read["memory"][1], descriptor
        # Links of directories are counted differently, and nobody needs them.
        by_path = [{e["path"]: {**e, "links": 0} for e in read[s][0] if e["path"]} for s in ("memory", store)]
        assert by_path[1] == by_path[0], descriptor["digest"]


def test_descriptors(case):
    metadata = case.packed.metadata["layers"]
    assert [d["digest"] for d, *_ in case.layers] == [m["digest"] for m in metadata]
    for (descriptor, blob, diff_id, read), told in zip(case.layers, metadata):
        codec, footer = ("zstd", 40) if case.zstd else ("gzip", 51)
        assert descriptor["mediaType"] == f"application/vnd.oci.image.layer.v1.tar+{codec}"
        assert descriptor["size"] == blob.stat().st_size == told["size"]
        assert descriptor["digest"] == "sha256:" + trees.sha256_of(blob)
        with trees.decompressed(blob) as raw:
            size, hasher = 0, hashlib.sha256()
            while piece := raw.read(MIB):
                hasher.update(piece)
                size += len(piece)
        assert diff_id == told["diffId"] == "sha256:" + hasher.hexdigest()
        assert descriptor["annotations"][image.UNCOMPRESSED_SIZE] == str(size)
        assert read["memory"][1]["footerSize"] == footer
        if case.zstd:
            annotations, data = descriptor["annotations"], blob.read_bytes()
            offset, compressed, length, kind = map(int, annotations[POSITION].split(":"))
            toc = data[offset : offset + compressed]
            assert annotations[CHECKSUM] == "sha256:" + hashlib.sha256(toc).hexdigest()
            table = subprocess.run(["zstd", "-dc"], input=toc, capture_output=True, check=True).stdout
            assert (kind, len(table)) == (1, length)
            assert annotations[image.TOC_DIGEST] == "sha256:" + hashlib.sha256(table).hexdigest()


def test_tools_accept_the_blob(case):
    codec = "zstd" if case.zstd else "gzip"
    for _, blob, _, read in case.layers:
        done = run(codec, "-t", "-q", blob) if case.zstd else run("gzip", "-t", "-c", blob)
        assert done.stderr == ""
        env = {**os.environ, "LC_ALL": "C.UTF-8"}
        argv = ["tar", "--list", f"--{codec}", "--quoting-style=literal", "--null", "--file", blob]
        done = subprocess.run(argv, capture_output=True, check=False, env=env)
        assert (done.returncode, done.stderr) == (0, b""), done
        separator = b"\0" if b"\0" in done.stdout else b"\n"
        listed = [n.decode().rstrip("/") for n in done.stdout.split(separator) if n]
        # The table of contents of zstd:chunked is no part of the archive.
        files = listed if case.zstd else listed[:-1]
        assert case.zstd or listed[-1] == "stargz.index.json"
        assert not any(n.startswith(("./", "/")) for n in listed), listed[:5]
        assert len(listed) == len(set(listed)), "a name twice"
        assert set(files) == {e["path"] for e in read["memory"][0] if e["path"]}


def test_landmarks(case):
    prefetched = 0
    for (descriptor, _, _, read), told in zip(case.layers, case.packed.metadata["layers"]):
        entries, summary = read["memory"]
        assert summary["landmark"], f"no landmark in {descriptor['digest']}"
        assert summary["landmarkByte"] == 0x0F
        (landmark,) = [e for e in entries if e["path"] == summary["landmark"]]
        assert landmark["size"] == 1
        # No loader reads the model card: it need not be there when the container starts.
        files = [e for e in case.files((None, None, None, read)) if e["size"] and not e["path"].endswith(".md")]
        starts = [e["chunks"][0]["blob"] for e in files]
        if told["kind"] == "small":
            assert summary["landmark"] == ".prefetch.landmark"
            assert all(at < summary["landmarkAt"] for at in starts), "a small file behind the landmark"
        if told["kind"] == "weights":
            # Shards are prefetched where that delays no container: all of one or nothing.
            first = summary["landmark"] == ".prefetch.landmark"
            assert all((at < summary["landmarkAt"]) == first for at in starts), "weights on the wrong side"
        if told["kind"] == "unused":
            assert summary["landmark"] == ".no.prefetch.landmark"
            assert all(at > summary["landmarkAt"] for at in starts), "unread files before the landmark"
        if summary["landmark"] == ".prefetch.landmark":
            prefetched += summary["landmarkAt"]
    assert prefetched <= 16 << 20, "so much delays a container's start by more than a second"


def test_one_layer_per_shard(case):
    for layer, told in zip(case.layers, case.packed.metadata["layers"]):
        files = [e["path"] for e in case.files(layer)]
        weights = [p for p in files if p.endswith((".safetensors", ".bin"))]
        if told["kind"] == "weights":
            assert len(files) == 1 and files == weights, files
        elif told["kind"] != "unused":
            assert not weights, weights


def test_chunks(case):
    """What the readers need of chunks, and what costs them reads that bring nothing."""
    wrong = []
    for _, _, _, read in case.layers:
        for e in read["memory"][0]:
            chunks = e.get("chunks", [])
            if e["type"] != "reg" or not chunks:
                continue
            if chunks[0]["size"] < min(64 * KIB, e["size"]):
                wrong.append(f"{e['path']}: the first chunk has {chunks[0]['size']} bytes")
            for c in chunks:
                end = c["offset"] + c["size"]
                if c["offset"] // MERGE != (end - 1) // MERGE:
                    wrong.append(f"{e['path']}: the chunk {c['offset']}..{end} straddles a multiple of {MERGE}")
            # The member of a last chunk is followed by bytes that are not the file's.
            for c in chunks[:-1]:
                member = c["next"] - c["blob"]
                if -(-member // (2 * MIB)) > -(-c["size"] // (2 * MIB)):
                    wrong.append(f"{e['path']}: {c['size']} bytes at {c['offset']} take a member of {member}")
    assert not wrong, f"{len(wrong)} wrong\n" + "\n".join(wrong[:20])


def test_merge_boundaries_are_cuts(case):
    """A file longer than a merge buffer has a chunk that begins at every multiple of one."""
    for layer in case.layers:
        for e in case.files(layer):
            begins = {c["offset"] for c in e.get("chunks", [])}
            missing = [at for at in range(0, e["size"], MERGE) if at not in begins]
            assert not missing, f"{e['path']}: no chunk begins at {missing}"
