"""`starcar copy`: the same image elsewhere, byte for byte, and never more bytes on their way than needed."""

import json
import shutil

import pytest

from consumers.proc import run
from model_files import MIB, write_model
from packing import check_blobs, check_complete, litter, pack
from pushing import check_image, finish, killed_at, layout_size


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """(layout, digest, size) of an image of 64 MiB in two shards."""
    root = tmp_path_factory.mktemp("image")
    digest = pack(write_model(root / "model", 64 * MIB, shards=2, seed=8), root / "image.oci").digest
    yield root / "image.oci", digest, layout_size(root / "image.oci", digest)
    shutil.rmtree(root)


@pytest.fixture
def source(fresh_registry, image):
    """A reference at which skopeo, not starcar, has put the image."""
    ref = fresh_registry.ref("source/model", "v1")
    run("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{image[0]}", f"docker://{ref}")
    fresh_registry.reset()
    return ref


def inspected(ref):
    """The digest and the layers that skopeo sees."""
    said = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{ref}").stdout)
    return said["Digest"], said["Layers"]


def copied(done, digest):
    assert done.stdout.rstrip("\n").rpartition("\n")[2] == digest, done.stdout


def test_from_registry_to_registry(fresh_registry, second_registry, source, image, state):
    ref = second_registry.ref("target/model", "v2")
    copied(state.run("copy", source, ref), image[1])
    assert check_image(second_registry, ref, image[1]) == image[2]
    assert inspected(ref) == inspected(source)
    assert second_registry.manifest_bytes(ref) == fresh_registry.manifest_bytes(source)
    assert second_registry.bytes_received() == image[2]
    # Again: nothing is to do, and so nothing is fetched.
    fresh_registry.reset(), second_registry.reset()
    copied(state.run("copy", source, ref), image[1])
    assert second_registry.bytes_received() == 0
    assert fresh_registry.bytes_served() < MIB


def test_by_digest(second_registry, source, image, state):
    ref = second_registry.ref("target/digest")
    copied(state.run("copy", f"{source.rpartition(':')[0]}@{image[1]}", ref), image[1])
    assert check_image(second_registry, ref, image[1]) == image[2]


def test_from_a_layout_to_a_registry(fresh_registry, image, state):
    ref = fresh_registry.ref("from-layout")
    copied(state.run("copy", f"oci:{image[0]}", ref), image[1])
    assert check_image(fresh_registry, ref, image[1]) == image[2]
    assert inspected(ref)[0] == image[1]


def test_from_a_registry_to_a_layout(source, image, state, tmp_path):
    layout = tmp_path / "copy.oci"
    copied(state.run("copy", source, f"oci:{layout}:v1"), image[1])
    assert check_complete(layout) == {"v1": image[1]}
    check_blobs(layout)
    assert not litter(layout)
    raw = run("skopeo", "inspect", "--raw", f"oci:{layout}:v1").stdout
    assert raw == run("skopeo", "inspect", "--raw", f"oci:{image[0]}").stdout
    shutil.rmtree(layout)


def test_within_a_registry_blobs_are_mounted(fresh_registry, source, image, state):
    ref = fresh_registry.ref("other/place")
    copied(state.run("copy", source, ref), image[1])
    assert check_image(fresh_registry, ref, image[1]) == image[2]
    assert fresh_registry.bytes_received() == 0
    assert fresh_registry.bytes_served() < MIB, "blobs were fetched that are only to be mounted"


@pytest.mark.parametrize("side", ["source", "target"])
def test_connections_that_break(fresh_registry, second_registry, source, image, state, through, side, measured):
    proxy = through(fresh_registry if side == "source" else second_registry)
    parts = [image[2] * part // 100 for part in (10, 45, 55, 90)]
    (proxy.cut_down if side == "source" else proxy.cut)(*parts)
    name = second_registry.ref("target/broken")
    pair = (proxy.ref("source/model", "v1"), name) if side == "source" else (source, proxy.ref("target/broken"))
    copied(state.run("copy", *pair), image[1])
    assert len(proxy.happened) == 4
    assert check_image(second_registry, name, image[1]) == image[2]
    received = second_registry.bytes_received()
    measured(f"{side} broke four times: received {received / image[2]:.3f} of the size, "
             f"served {fresh_registry.bytes_served() / image[2]:.3f}")
    assert received <= image[2] * 1.1
    # Whatever a source has served into the buffers of a connection is lost with it: a few MiB each time.
    assert fresh_registry.bytes_served() <= image[2] * 1.1 + 4 * 12 * MIB


def test_a_killed_copy_goes_on(fresh_registry, second_registry, source, image, state, through):
    """The line is slow, so that the kills land within; what was received counts, whatever was fetched for it."""
    proxy = through(second_registry, rate=image[2] / 2)
    ref = proxy.ref("target/killed")
    for part in (1, 2):
        assert killed_at(state.start("copy", source, ref), lambda: second_registry.bytes_received() >= image[2] * part / 3)
    proxy.rate = None
    copied(finish(state.start("copy", source, ref)), image[1])
    assert check_image(second_registry, second_registry.ref("target/killed"), image[1]) == image[2]
    assert second_registry.bytes_received() <= image[2] + 2 * 4 * MIB


def test_a_killed_copy_into_a_layout(fresh_registry, source, image, state, through, tmp_path):
    proxy, layout = through(fresh_registry), tmp_path / "copy.oci"
    command = ["copy", proxy.ref("source/model", "v1"), f"oci:{layout}:v1"]
    assert killed_at(state.start(*command), lambda: proxy.down >= image[2] // 2)
    assert not layout.exists() or check_complete(layout) == {}
    copied(finish(state.start(*command)), image[1])
    assert check_complete(layout) == {"v1": image[1]}
    assert not litter(layout)
    shutil.rmtree(layout)


def test_what_is_not_there(fresh_registry, state, tmp_path):
    for source, status in ((fresh_registry.ref("nobody/knows"), 6), (f"oci:{tmp_path}/nothing", 5)):
        done = state.run("copy", source, fresh_registry.ref("target"), status=status, timeout=30)
        assert len(done.words) == 1, done.stderr
        assert fresh_registry.bytes_received() == 0


def test_a_damaged_source_is_refused(fresh_registry, second_registry, source, image, state):
    """A source that sends other bytes than it should must not get them into the target under any name."""
    largest = max(fresh_registry.manifest(source)["layers"], key=lambda layer: layer["size"])
    with open(fresh_registry.blob_file(largest["digest"]), "r+b") as file:
        file.seek(largest["size"] // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    ref = second_registry.ref("target/damaged")
    done = state.run("copy", source, ref, status=6, timeout=60)
    assert largest["digest"] in done.stderr, done.stderr
    assert not second_registry.holds(ref)
