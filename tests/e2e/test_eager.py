"""The image as eager consumers unpack it: they all get one tree."""

import json

import pytest

from consumers import image, trees
from consumers.proc import run


@pytest.fixture(scope="module", params=["busybox", "registry", "tar", "zstd"])
def pushed(request, starcar, registry, base_image, small_model):
    """The small model over a base, in the registry and in a layout."""
    source, want = small_model
    base = "/bin/busybox" if request.param == "busybox" else base_image
    options = {"tar": ["--layer-format", "tar"], "zstd": image.ZSTD_CHUNKED}.get(request.param, [])
    packed = starcar.pack(source, *options, tag=registry.ref(f"eager-{request.param}", "v1"), base=base)
    return packed, want


def unpacked(packed, registry, node, scratch):
    """{consumer: tree} of everything that unpacks eagerly."""
    ref, out = packed.ref, scratch / "out"
    out.mkdir()
    node.pull(ref)
    target = node.mount(ref, out / "overlayfs", "overlayfs")
    got = {"containerd overlayfs": trees.of_directory(target)}
    run("umount", target)

    copy = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{ref}"]
    run(*copy, f"dir:{out / 'dir'}")
    tree = {}
    for layer in registry.manifest(ref)["layers"]:
        trees.of_tar(out / "dir" / layer["digest"].removeprefix("sha256:"), tree)
    got["skopeo dir and tar"] = tree

    # Left to itself, skopeo compresses plain tar layers on their way into a layout.
    run(*copy, "--preserve-digests", f"oci:{out / 'oci'}:it")
    assert image.Layout(out / "oci").manifest_digest() == packed.digest
    # Debian's umoci knows no zstd.
    if not any(layer["mediaType"].endswith("zstd") for layer in registry.manifest(ref)["layers"]):
        run("umoci", "unpack", "--image", f"{out / 'oci'}:it", out / "bundle")
        got["skopeo oci and umoci"] = trees.of_directory(out / "bundle" / "rootfs")
    return got


def test_trees_are_one(pushed, registry, node, tmp_path):
    packed, want = pushed
    got = unpacked(packed, registry, node, tmp_path)
    for consumer, tree in got.items():
        trees.assert_same(want, trees.under(tree), f"/models by {consumer}")
    first, *others = got.items()
    for consumer, tree in others:
        trees.assert_same(first[1], tree, f"{consumer} against {first[0]}")


def test_lazy_is_eager(pushed, node, tmp_path):
    """A lazy mount shows what an eager pull unpacks."""
    packed, _ = pushed
    node.pull(packed.ref)
    node.rpull(packed.ref, "stargz-still")
    seen = {}
    for snapshotter in ("overlayfs", "stargz-still"):
        target = node.mount(packed.ref, tmp_path / snapshotter, snapshotter)
        seen[snapshotter] = trees.of_directory(target)
        run("umount", target)
    trees.assert_same(seen["overlayfs"], seen["stargz-still"], "lazy against eager")


def test_manifest_and_config(pushed, registry):
    """What KServe and containerd want of the image's JSON."""
    packed, _ = pushed
    manifest = registry.manifest(packed.ref)
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    lazy = not any(layer["mediaType"].endswith(".tar") for layer in manifest["layers"])
    for layer in manifest["layers"]:
        if lazy:
            assert layer["mediaType"].endswith((".v1.tar+gzip", ".v1.tar+zstd"))
            assert layer["annotations"][image.TOC_DIGEST].startswith("sha256:")
            assert int(layer["annotations"][image.UNCOMPRESSED_SIZE]) > 0
    assert 2 <= len(manifest["layers"]) < 128

    config = json.loads(registry.blob(packed.ref, manifest["config"]["digest"]))
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    inner = config["config"]
    assert not inner.get("Entrypoint"), "KServe's args would follow it"
    assert inner["Cmd"] == ["sh"]
    assert inner["User"] == "1010:0"
    assert inner["WorkingDir"] == "/"
    (path,) = [e for e in inner["Env"] if e.startswith("PATH=")]
    assert "/bin" in path.removeprefix("PATH=").split(":")
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"])
    history = [h for h in config.get("history", []) if not h.get("empty_layer")]
    assert len(history) in (0, len(manifest["layers"])), "a history that does not fit the layers"
