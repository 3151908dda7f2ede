"""Images that others have made, by real tools: what `starcar verify` says of them is true."""

import json
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
from kserve_storage import Storage

from broken_images.writer import digest_of, to_json
from conftest import TOP
from consumers.image import Layout
from consumers.node import Node
from consumers.proc import run
from consumers.shelf import Shelf
from model_files import tree
from test_verify_corpus import assert_consistent, codes, verify  # noqa: F401: a fixture

EXAMPLE = TOP / "examples/tiny-llama"
# Its layers end where their last files do; and so they lack the end of an archive, which only --deep looks for.
UMOCI = {"tar-end-unpadded", "tar-end"}
COPY = ("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false")


def works(document):
    return {verdict["use"]: verdict["works"] for verdict in document["verdicts"]}


@pytest.fixture
def fetches(monkeypatch, tmp_path):
    """fetches(ref) -> whether KServe's downloader brings the whole model."""
    monkeypatch.setenv("KSERVE_OCI_INSECURE_REGISTRY", "true")
    monkeypatch.setenv("KSERVE_OCI_DOCKER_CONFIG", str(tmp_path / "none.json"))

    def run(ref):
        out = Path(tempfile.mkdtemp(dir=tmp_path)) / "fetched"
        try:
            Storage.download(f"oci://{ref}", str(out))
        except Exception:  # noqa: BLE001: whatever it is, the storage initializer ends with it
            return "no"
        return "yes" if tree(out) == tree(EXAMPLE) else "no"
    return run


def errors(document):
    return [finding for finding in document["findings"] if finding["severity"] == "error"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A layout with `model`, an image of umoci's of a model alone, and `modelcar`, the same over busybox: tar+gzip."""
    root = tmp_path_factory.mktemp("plain")
    rootfs, layout = root / "rootfs", root / "layout"
    (rootfs / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for applet in ("sh", "ln", "ls", "mkdir", "sleep"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    (rootfs / "tmp").mkdir()
    (rootfs / "tmp").chmod(0o1777)
    run("umoci", "init", "--layout", layout)
    for tag in ("model", "modelcar"):
        run("umoci", "new", "--image", f"{layout}:{tag}")
        if tag == "modelcar":
            run("umoci", "insert", "--image", f"{layout}:{tag}", rootfs, "/")
        run("umoci", "insert", "--image", f"{layout}:{tag}", EXAMPLE, "/models")
        run("umoci", "config", "--image", f"{layout}:{tag}", "--config.env", "PATH=/bin", "--config.user", "1010:0")
    return layout


def test_umoci(plain, verify):
    """Its layers end where their last files do, for which Python's tarfile, and so KServe's downloader, has an error."""
    status, document = verify(f"oci:{plain}:modelcar", "--deep")
    assert (status, codes(document)) == (10, {"image-not-lazy", *UMOCI})
    assert works(document) == {"lazy": "no", "modelcar": "yes", "native": "yes", "fetch": "no"}
    assert [layer["format"] for layer in document["layers"]] == ["tar+gzip"] * 2
    assert_consistent(status, document)


def test_umoci_quick(plain, verify):
    """Layers that are small are looked into without --deep."""
    status, document = verify(f"oci:{plain}:modelcar")
    assert (status, codes(document)) == (10, {"image-not-lazy", "tar-end-unpadded"})
    assert works(document) == {"lazy": "no", "modelcar": "yes", "native": "yes", "fetch": "no"}


def test_umoci_without_a_shell(plain, verify, registry, fetches):
    """The model alone is for oci+native:// and oci+fetch://."""
    ref = registry.ref("others/umoci", "v1")
    run(*COPY, f"oci:{plain}:model", f"docker://{ref}")
    status, document = verify(f"oci:{plain}:model", "--deep")
    assert (status, codes(document)) == (9, {"image-not-lazy", "shell-missing", *UMOCI})
    assert works(document) == {"lazy": "no", "modelcar": "no", "native": "yes", "fetch": fetches(ref)}


def test_docker_schema_2(plain, verify, registry, fetches):
    """skopeo writes Docker's types."""
    ref = registry.ref("others/docker", "v1")
    run(*COPY, "--format", "v2s2", f"oci:{plain}:modelcar", f"docker://{ref}")
    status, document = verify(ref, "--plain-http", "--deep")
    assert (status, codes(document)) == (10, {"docker-manifest", "layer-docker-type", "image-not-lazy", *UMOCI})
    assert works(document) == {"lazy": "no", "modelcar": "yes", "native": "yes", "fetch": fetches(ref)}
    assert [finding["layer"] for finding in document["findings"] if finding["code"] == "layer-docker-type"] == [1, 2]


def test_zstd(plain, verify, registry, fetches, tmp_path):
    """skopeo compresses anew."""
    layout, ref = tmp_path / "layout", registry.ref("others/zstd", "v1")
    run(*COPY, "--dest-compress", "--dest-compress-format", "zstd", f"oci:{plain}:modelcar", f"oci:{layout}:v1")
    run(*COPY, "--preserve-digests", f"oci:{layout}:v1", f"docker://{ref}")
    manifest = registry.manifest(ref)
    assert {layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]} == {"zstd"}
    status, document = verify(ref, "--plain-http", "--deep")
    assert (status, codes(document)) == (10, {"image-not-lazy", *UMOCI})
    assert works(document) == {"lazy": "no", "modelcar": "yes", "native": "yes", "fetch": "no"}
    assert [layer["format"] for layer in document["layers"]] == ["tar+zstd"] * 2
    assert fetches(ref) == "no"
    assert "fetch-zstd" in codes(verify(ref, "--plain-http", "--for", "fetch")[1])


def test_plain_tar(verify, fetches, tmp_path):
    """Layers as Python's tarfile writes them, with the names that `tar -C … .` gives."""
    for prefix, fetched in (("models", "yes"), ("./models", "no")):
        layout = tmp_path / prefix.strip("./") / str(len(prefix))
        blobs = layout / "blobs/sha256"
        blobs.mkdir(parents=True)

        def put(data, media_type):
            (blobs / digest_of(data)[7:]).write_bytes(data)
            return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

        with tarfile.open(tmp_path / "layer.tar", "w") as tar:
            tar.add(EXAMPLE, prefix, filter=root_owned)
        data = (tmp_path / "layer.tar").read_bytes()
        config = {"os": "linux", "architecture": "amd64", "config": {"User": "1010:0"},
                  "rootfs": {"type": "layers", "diff_ids": [digest_of(data)]}}
        kind = "application/vnd.oci.image."
        manifest = {"schemaVersion": 2, "mediaType": f"{kind}manifest.v1+json", "layers": [put(data, f"{kind}layer.v1.tar")],
                    "config": put(to_json(config), f"{kind}config.v1+json")}
        listed = put(to_json(manifest), manifest["mediaType"])
        (layout / "index.json").write_bytes(to_json({"schemaVersion": 2, "manifests": [listed]}))
        (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        for mode in ((), ("--deep",)):
            _, document = verify(f"oci:{layout}", "--for", "native,fetch", *mode)
            assert works(document) == {"lazy": "no", "modelcar": "no", "native": "yes", "fetch": fetched}
            assert ("entry-name-unclean" in codes(document)) == (fetched == "no")
        shelf = Shelf(tmp_path)
        assert fetches(shelf.ref(layout.relative_to(tmp_path).as_posix())) == fetched
        shelf.stop()


def root_owned(info):
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = 0o755 if info.isdir() else 0o644
    return info


@pytest.fixture(scope="module")
def by_ctr_remote(plain, registry, bin_dir, tmp_path_factory):
    """The modelcar as `ctr-remote image optimize` converts it, in the registry."""
    source, target = registry.ref("others/ctr-remote", "plain"), registry.ref("others/ctr-remote", "esgz")
    run(*COPY, f"oci:{plain}:modelcar", f"docker://{source}")
    node = Node(bin_dir, tmp_path_factory.mktemp("ctr-remote") / "node", snapshotters={})
    try:
        node.ctr("content", "fetch", "--plain-http", source)
        node.ctr_remote("image", "optimize", "--oci", "--no-optimize", source, target)
        node.ctr("images", "push", "--plain-http", target)
    finally:
        node.stop()
    return target


def test_ctr_remote(by_ctr_remote, verify, fetches):
    """What stargz-snapshotter's own converter writes is right, and is said to be."""
    assert fetches(by_ctr_remote) == "no"
    for mode in ((), ("--deep",)):
        status, document = verify(by_ctr_remote, "--plain-http", *mode)
        assert not errors(document), errors(document)
        assert works(document) == {"lazy": "yes", "modelcar": "yes", "native": "yes", "fetch": "no"}
        assert [layer["format"] for layer in document["layers"]] == ["estargz"] * 2
        assert_consistent(status, document)
        assert codes(document) <= KNOWN, codes(document)


# What ctr-remote's images have that is worth a word.
KNOWN = set()


def test_plain_layer_over_lazy_ones(by_ctr_remote, verify, tmp_path):
    """umoci adds a layer: that one alone is pulled."""
    layout, extra = tmp_path / "layout", tmp_path / "extra"
    run(*COPY, f"docker://{by_ctr_remote}", f"oci:{layout}:v1")
    extra.write_text("more\n")
    run("umoci", "insert", "--image", f"{layout}:v1", extra, "/models/extra.txt")
    status, document = verify(f"oci:{layout}:v1", "--deep")
    assert not errors(document), errors(document)
    (finding,) = [each for each in document["findings"] if each["code"] == "layer-not-lazy"]
    assert finding["layer"] == 3 and "0 above it" in finding["message"]
    assert status == 10 and works(document) == {"lazy": "partly", "modelcar": "yes", "native": "yes", "fetch": "no"}


def test_plain_base_below_lazy_layers(plain, by_ctr_remote, verify, tmp_path):
    """The model's layer is eStargz, the base is as it came: nothing is mounted lazily, whatever lies above it."""
    layout = Layout(tmp_path / "layout")
    run(*COPY, f"docker://{by_ctr_remote}", f"oci:{layout.dir}:v1")
    base = json.loads((plain / "index.json").read_text())["manifests"]
    (base,) = [each for each in base if each["annotations"]["org.opencontainers.image.ref.name"] == "modelcar"]
    base = Layout(plain).json(base["digest"])
    manifest, config = layout.manifest(), layout.config()
    manifest["layers"][0] = base["layers"][0]
    config["rootfs"]["diff_ids"][0] = Layout(plain).json(base["config"]["digest"])["rootfs"]["diff_ids"][0]
    shutil.copy(Layout(plain).blob(base["layers"][0]["digest"]), layout.blob(base["layers"][0]["digest"]))
    for document, descriptor in ((config, manifest["config"]), (manifest, None)):
        data = to_json(document)
        layout.blob(digest_of(data)).write_bytes(data)
        descriptor = descriptor if descriptor is not None else layout.index()["manifests"][0]
        descriptor |= {"digest": digest_of(data), "size": len(data)}
    descriptor.pop("annotations", None)
    (layout.dir / "index.json").write_bytes(to_json({"schemaVersion": 2, "manifests": [descriptor]}))
    status, document = verify(f"oci:{layout.dir}", "--deep")
    assert not errors(document), errors(document)
    (finding,) = [each for each in document["findings"] if each["code"] == "layer-not-lazy"]
    assert finding["layer"] == 1 and "1 above it" in finding["message"]
    assert finding["digest"] == base["layers"][0]["digest"]
    assert works(document)["lazy"] in ("no", "partly")
