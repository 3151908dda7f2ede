"""Containers that start from an image before it is pulled, as KServe starts them."""

import shutil
import subprocess
import time

import pytest

from consumers import image, models, trees
from consumers.proc import Failed, mounts, run, wait_for

GIB = 1 << 30
MERGE = 419_430_400

# pkg/webhook/admission/pod/storage_initializer_injector.go; "$$$$" and "$$" as the shell gets them.
INIT = (
    "echo 'Pre-fetching modelcar {ref}: ' && [ -d /models ] && [ \"$(ls -A /models)\" ] && "
    "echo 'OK ...' || (echo 'NOK ...' && exit 1)"
)
MODELCAR = "ln -sf /proc/$$/root/models /mnt/models && sleep infinity"
# v0.20 and later, where the model goes to a path of its own.
MODELCAR_PATH = "mkdir -p {parent} && ln -sf /proc/$$/root/models {path} && sleep infinity"


@pytest.fixture
def pidns(tmp_path):
    """The PID namespace that the containers of a pod share; its holder ends with the test."""
    holder = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "sleep", "infinity"], stdin=subprocess.DEVNULL
    )

    def child():
        with open(f"/proc/{holder.pid}/task/{holder.pid}/children", encoding="ascii") as f:
            return f.read().split()

    (pid,) = wait_for("the child of unshare", child)
    yield f"/proc/{pid}/ns/pid"
    holder.kill()
    holder.wait()


@pytest.fixture
def runtime_rootfs(tmp_path):
    """The root of a runtime container: busybox, nothing of the image."""
    rootfs = tmp_path / "runtime"
    for name in ("bin", "mnt", "proc", "dev", "sys", "tmp", "etc"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for applet in ("sh", "find", "sha256sum", "xargs", "readlink", "ls", "id", "cat"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    return rootfs


@pytest.fixture
def empty_dir(tmp_path):
    """What Kubernetes mounts at /mnt in all containers of the pod."""
    path = tmp_path / "emptydir"
    path.mkdir()
    path.chmod(0o777)
    return path


@pytest.fixture
def pod(fresh_node, empty_dir, pidns, runtime_rootfs):
    return Pod(fresh_node, empty_dir, pidns, runtime_rootfs)


class Pod:
    """The three containers of a KServe predictor in modelcar mode."""

    def __init__(self, node, empty_dir, pidns, runtime_rootfs):
        self.node, self.empty_dir, self.pidns, self.runtime_rootfs = node, empty_dir, pidns, runtime_rootfs

    def init(self, ref, snapshotter):
        """modelcar-init: no mounts, and the image's own user."""
        args = ("sh", "-c", INIT.format(ref=ref))
        return self.node.run("modelcar-init", ref, *args, snapshotter=snapshotter, pidns=self.pidns)

    def modelcar(self, ref, snapshotter, command=MODELCAR, link="models"):
        """The sidecar; gives the seconds until its link is there."""
        start = time.monotonic()
        binds = [(self.empty_dir, "/mnt", "rw")]
        process = self.node.start(
            "modelcar", ref, "sh", "-c", command, snapshotter=snapshotter, user="1010:0", binds=binds, pidns=self.pidns
        )
        wait_for("the modelcar's link", lambda: process.alive() and (self.empty_dir / link).is_symlink(), 60, 0.005)
        return time.monotonic() - start

    def runtime(self, *command, user="1010:0", check=True):
        """A second container, with /mnt, and a root of its own."""
        return self.node.run(
            "runtime", self.runtime_rootfs, *command, rootfs=True, user=user, pidns=self.pidns, check=check,
            binds=[(self.empty_dir, "/mnt", "rw")],
        )

    def hashes(self, path="/mnt/models"):
        """{path below models/: sha256} as the runtime container reads them."""
        find = f"cd {path} && find . -type f -print0 | xargs -0 sha256sum"
        _, out = self.runtime("sh", "-c", find)
        return {"models/" + line[66:].removeprefix("./"): line[:64] for line in out.splitlines()}


def hashes_of(tree):
    return {p: r["sha256"] for p, r in tree.items() if r["type"] == "reg"}


def assert_lazy(node, snapshotter, registry, packed):
    """A FUSE mount for each layer, and no layer in the content store."""
    manifest = registry.manifest(packed.ref)
    digests = {layer["digest"] for layer in manifest["layers"]}
    lazy = node.lazy_mounts(snapshotter)
    if len(lazy) != len(digests):
        raise Failed(f"{len(lazy)} FUSE mounts for {len(digests)} layers: {lazy}\n{node.log(snapshotter)[-6000:]}")
    assert {m[2].split(".", 1)[-1] for m in lazy} <= {"stargz", "rawBridge"}, lazy
    stored = node.stored()
    assert not stored & digests, "layers in the content store"
    assert stored == {packed.digest, manifest["config"]["digest"]}, stored


def quiet(registry):
    """Waits until the registry has sent nothing for a second."""
    while True:
        before = registry.bytes_served()
        time.sleep(1)
        if registry.bytes_served() == before:
            return before


@pytest.mark.parametrize("snapshotter", ["stargz", "stargz-db"])
@pytest.mark.parametrize("base", ["busybox", "registry"])
@pytest.mark.parametrize("layers", [[], image.ZSTD_CHUNKED], ids=["estargz", "zstd"])
def test_kserve_modelcar(pod, pack, registry, base_image, small_model, image_name, layers, base, snapshotter):
    source, want = small_model
    packed = pack(
        source, *layers, tag=registry.ref(image_name, "v1"), base="/bin/busybox" if base == "busybox" else base_image
    )
    pod.node.rpull(packed.ref, snapshotter)
    assert_lazy(pod.node, snapshotter, registry, packed)

    _, out = pod.init(packed.ref, snapshotter)
    assert out.splitlines() == [f"Pre-fetching modelcar {packed.ref}: ", "OK ..."]
    pod.modelcar(packed.ref, snapshotter)
    _, link = pod.runtime("readlink", "/mnt/models")
    assert link.startswith("/proc/") and link.strip().endswith("/root/models")
    assert pod.hashes() == hashes_of(want)
    # Only an equal user and group follow the link: what KServe's defaults rest on.
    for other in ("1010:1010", "1000:0"):
        status, out = pod.runtime("ls", "/mnt/models/", user=other, check=False)
        assert status != 0 and "ermission denied" in out, (other, out)
    assert_lazy(pod.node, snapshotter, registry, packed)


def test_kserve_modelcar_at_a_path(pod, pack, registry, small_model, image_name):
    source, want = small_model
    packed = pack(source, tag=registry.ref(image_name, "v1"))
    pod.node.rpull(packed.ref)
    command = MODELCAR_PATH.format(parent="/mnt/pvc/a", path="/mnt/pvc/a/models")
    pod.modelcar(packed.ref, "stargz", command, "pvc/a/models")
    assert pod.hashes("/mnt/pvc/a/models") == hashes_of(want)


def test_image_runs_as_its_own_user(fresh_node, pack, registry, small_model, image_name):
    packed = pack(small_model[0], tag=registry.ref(image_name, "v1"))
    fresh_node.rpull(packed.ref)
    script = "cd /proc/self && while read -r line; do echo \"$line\"; done < status"
    _, out = fresh_node.run("whoami", packed.ref, "sh", "-c", script)
    ids = {k: v.split() for k, _, v in (line.partition(":") for line in out.splitlines())}
    assert (ids["Uid"], ids["Gid"]) == (["1010"] * 4, ["0"] * 4)


def test_image_volume(fresh_node, pack, registry, small_model, image_name, tmp_path):
    """Native mode: the image is a volume, /models of it is bound read-only; no shell, no base."""
    source, want = small_model
    packed = pack(source, tag=registry.ref(image_name, "v1"), base="scratch")
    fresh_node.rpull(packed.ref)
    assert_lazy(fresh_node, "stargz", registry, packed)
    target = fresh_node.mount(packed.ref, tmp_path / "volume", "stargz")
    trees.assert_same(want, {"models": want["models"]} | {
        f"models/{p}": r for p, r in trees.of_directory(target / "models").items()
    }, "the volume", fields=("type", "mode", "uid", "gid", "size", "sha256", "link"))
    run("umount", target)


@pytest.fixture(scope="module")
def gigabyte(scratch):
    path = models.model(scratch / "gigabyte", weights=GIB, shards=4)
    yield path, trees.of_source(path)
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("snapshotter", "layers"),
    [("stargz", []), ("stargz-still", []), ("stargz-still", image.ZSTD_CHUNKED)],
    ids=["stargz", "stargz-still", "stargz-still-zstd"],
)
def test_few_bytes_before_the_start(pod, pack, registry, gigabyte, image_name, snapshotter, layers, measured):
    """A container of a 1 GiB image runs after less than 2 % of it was sent."""
    source, want = gigabyte
    packed = pack(source, *layers, tag=registry.ref(image_name, "v1"))
    size = sum(layer["size"] for layer in packed.metadata["layers"])
    registry.reset()
    start = time.monotonic()
    pod.node.rpull(packed.ref, snapshotter)
    pulled, pulled_bytes = time.monotonic() - start, registry.bytes_served()
    started = pod.modelcar(packed.ref, snapshotter)
    served = registry.served()
    running_bytes = sum(v["bytes"] for v in served.values())
    measured(
        f"{snapshotter}: {size} bytes packed and pushed in {packed.seconds:.1f} s; rpull {pulled:.2f} s, "
        f"{pulled_bytes} bytes; running {started:.2f} s later, {running_bytes} bytes = {running_bytes / size:.3%}"
    )
    for layer in packed.metadata["layers"]:
        sent = served.get(layer["digest"], {"bytes": 0, "requests": 0})
        measured(f"  {layer['kind']:8} {layer['size']:>12}: {sent['bytes']:>9} bytes, {sent['requests']} requests")
    assert running_bytes < size * 0.02, f"{running_bytes} of {size} bytes before the container ran"
    assert_lazy(pod.node, snapshotter, registry, packed)
    if snapshotter == "stargz-still":
        assert quiet(registry) < size * 0.02, "bytes that nobody asked for"
    start = time.monotonic()
    assert pod.hashes() == hashes_of(want)
    seconds = time.monotonic() - start
    measured(f"{snapshotter}: read and hashed in {seconds:.1f} s, {registry.bytes_served() / size:.3f} of the image sent")
    if snapshotter == "stargz-still":
        assert registry.bytes_served() < size * 1.25, "bytes sent more than once"


@pytest.mark.parametrize("layers", [[], image.ZSTD_CHUNKED], ids=["estargz", "zstd"])
def test_passthrough(fresh_node, pack, registry, image_name, tmp_path, layers):
    """Passthrough mode merges a file's chunks in buffers of 419,430,400 bytes and panics when one straddles."""
    source = tmp_path / "source"
    models.small_files(source)
    models.write_safetensors(source / "model.safetensors", MERGE + 5 * models.MIB + 1)
    want = trees.of_source(source)
    packed = pack(source, *layers, tag=registry.ref(image_name, "v1"))
    fresh_node.rpull(packed.ref, "stargz-passthrough")
    assert_lazy(fresh_node, "stargz-passthrough", registry, packed)
    target = fresh_node.mount(packed.ref, tmp_path / "root", "stargz-passthrough")
    got = trees.of_directory(target / "models")
    assert {f"models/{p}": r["sha256"] for p, r in got.items() if r["type"] == "reg"} == hashes_of(want)
    for process in fresh_node.processes:
        process.alive()
    run("umount", target)
    assert "panic" not in fresh_node.log("stargz-passthrough")
    assert mounts(fresh_node.dir / "stargz-passthrough")
