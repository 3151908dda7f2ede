"""An image for two platforms: one copy of the model at the registry, and each platform's image pulls and runs."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from consumers import image, trees
from consumers import registry as registries
from consumers.proc import run

AMD64, ARM64 = PLATFORMS = ("linux/amd64", "linux/arm64")
MACHINES = {AMD64: "x86_64", ARM64: "aarch64"}
BINFMT = Path("/proc/sys/fs/binfmt_misc")
HANDLER = "starcar-e2e-aarch64"
# The first 20 bytes of an executable for 64-bit ARM, and which of their bits count.
MAGIC = bytes.fromhex("7f454c460201010000000000000000000200b700")
MASK = bytes.fromhex("ffffffffffffff00fffffffffffffffffeffffff")


@pytest.fixture(scope="module")
def arm64_busybox(bin_dir):
    """Debian's static busybox for arm64."""
    path = bin_dir / "arm64/busybox"
    for file in (path, bin_dir / "qemu-aarch64-static"):
        if not os.access(file, os.X_OK):
            pytest.fail(f"{file} is missing: run tests/e2e/setup", pytrace=False)
    return path


@pytest.fixture(scope="module")
def registry(bin_dir, tmp_path_factory):
    """One of these tests alone: what other repositories of a registry have is mounted and not sent."""
    server = registries.Registry(bin_dir / "registry", tmp_path_factory.mktemp("platforms") / "registry")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pushed(starcar, registry, small_model, arm64_busybox):
    """(what pack said, the requests that it made) of the small model for both platforms."""
    registry.reset()
    ref = registry.ref("platforms", "v1")
    packed = starcar.pack(
        small_model[0], "--platform", ",".join(PLATFORMS), "--base", f"{ARM64}={arm64_busybox}", "--verify", tag=ref)
    return packed, registry.requests()


@pytest.fixture(scope="module")
def emulated(bin_dir, arm64_busybox):
    """The kernel runs programs for arm64 in containers: the emulator is open when they start, wherever their root is."""
    mounted = not (BINFMT / "register").exists()
    if mounted:
        run("mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT)
    escaped = ["".join(f"\\x{byte:02x}" for byte in part) for part in (MAGIC, MASK)]
    handler = BINFMT / HANDLER
    if handler.exists():
        handler.write_text("-1")
    (BINFMT / "register").write_text(f":{HANDLER}:M::{':'.join(escaped)}:{bin_dir / 'qemu-aarch64-static'}:F")
    yield
    handler.write_text("-1")
    if mounted:
        run("umount", BINFMT)


def images(packed):
    return dict(zip(PLATFORMS, packed.metadata["platforms"], strict=True))


def layers(packed, platform, *kinds):
    return [layer["digest"] for layer in images(packed)[platform]["layers"] if not kinds or layer["kind"] in kinds]


def test_the_model_is_sent_and_stored_once(pushed, registry, measured):
    packed, requests = pushed
    model = layers(packed, AMD64, "small", "weights", "unused")
    assert model == layers(packed, ARM64, "small", "weights", "unused") and len(model) == 4
    assert layers(packed, AMD64, "base") != layers(packed, ARM64, "base")
    ended = [r["query"] for r in requests if r["method"] == "PUT" and "/blobs/uploads/" in r["path"]]
    for digest in {*layers(packed, AMD64), *layers(packed, ARM64)}:
        sent = [query for query in ended if digest.removeprefix("sha256:") in query]
        assert len(sent) == 1, (digest, ended)
    blobs = registry.root / "docker/registry/v2/blobs/sha256"
    sizes = [path.stat().st_size for path in blobs.glob("*/*/data")]
    weights = {digest: registry.blob_file(digest).stat().st_size for digest in model}
    for size in weights.values():
        assert sizes.count(size) == 1
    links = registry.root / "docker/registry/v2/repositories/platforms/_layers/sha256"
    assert all((links / digest.removeprefix("sha256:") / "link").is_file() for digest in model)
    # Children come before the index, whose name comes last.
    manifests = [r["path"].rsplit("/", 1)[1] for r in requests if r["method"] == "PUT" and "/manifests/" in r["path"]]
    assert manifests == [*(one["digest"] for one in images(packed).values()), "v1"]
    body = registry.manifest_bytes(packed.ref)
    assert f"sha256:{hashlib.sha256(body).hexdigest()}" == packed.digest
    listed = [entry["platform"] for entry in json.loads(body)["manifests"]]
    assert listed == [{"os": "linux", "architecture": name} for name in ("amd64", "arm64")]
    measured(f"two platforms: {sum(weights.values())} bytes of the model sent once, of {sum(sizes)} at the registry")


def test_containerd_pulls_each_platform(pushed, node, small_model, tmp_path):
    packed, _ = pushed
    for platform in PLATFORMS:
        node.ctr("images", "pull", "--plain-http", "--platform", platform, "--snapshotter", "overlayfs", packed.ref)
        target = tmp_path / platform.replace("/", "-")
        target.mkdir()
        node.targets.append(target)
        node.ctr("images", "mount", "--platform", platform, "--snapshotter", "overlayfs", packed.ref, target)
        trees.assert_same(small_model[1], trees.under(trees.of_directory(target)), f"/models for {platform}")
        run("umount", target)
    stored = node.stored()
    assert {packed.digest, *(one["digest"] for one in images(packed).values())} <= stored
    assert {*layers(packed, AMD64), *layers(packed, ARM64)} <= stored


def test_skopeo_sees_and_copies_each_and_all(pushed, tmp_path):
    packed, _ = pushed
    skopeo = ["skopeo", "--insecure-policy"]
    for platform, name in zip(PLATFORMS, ("amd64", "arm64")):
        seen = json.loads(run(
            *skopeo, "--override-arch", name, "inspect", "--tls-verify=false", f"docker://{packed.ref}").stdout)
        assert (seen["Architecture"], seen["Layers"]) == (name, layers(packed, platform))
        run(*skopeo, "--override-arch", name, "copy", "--src-tls-verify=false", "--preserve-digests",
            f"docker://{packed.ref}", f"oci:{tmp_path / name}:v1")
        assert image.Layout(tmp_path / name).manifest_digest() == images(packed)[platform]["digest"]
    run(*skopeo, "copy", "--all", "--src-tls-verify=false", "--preserve-digests", f"docker://{packed.ref}",
        f"oci:{tmp_path / 'all'}:v1")
    (entry,) = image.Layout(tmp_path / "all").index()["manifests"]
    assert entry["digest"] == packed.digest


def test_the_platform_of_the_node_is_mounted_lazily(pushed, fresh_node, small_model):
    packed, _ = pushed
    fresh_node.rpull(packed.ref, "stargz-still")
    path = "models/config.json"
    status, out = fresh_node.run(
        "lazy-platform", packed.ref, "sh", "-c", f"/bin/busybox uname -m; sha256sum /{path}", snapshotter="stargz-still")
    assert out.split()[:2] == [MACHINES[AMD64], hashlib.sha256((small_model[0] / "config.json").read_bytes()).hexdigest()]
    assert len(fresh_node.lazy_mounts("stargz-still")) >= len(layers(packed, AMD64))


def test_both_platforms_run(pushed, node, small_model, emulated):
    """Each in a container of runc's, the one for arm64 by an emulator."""
    packed, _ = pushed
    want = hashlib.sha256((small_model[0] / "config.json").read_bytes()).hexdigest()
    for platform in PLATFORMS:
        node.ctr("images", "pull", "--plain-http", "--platform", platform, "--snapshotter", "overlayfs", packed.ref)
        _, out = node.run(
            f"runs-{platform.rsplit('/', 1)[1]}", packed.ref, "sh", "-c", "/bin/busybox uname -m; sha256sum /models/config.json",
            platform=platform, snapshotter="overlayfs",
        )
        assert out.split()[:2] == [MACHINES[platform], want], out
