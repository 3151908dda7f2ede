"""Fixtures of the end-to-end tests. What is missing fails a test, never skips it."""

import itertools
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
sys.path.insert(0, str(HERE))

from consumers import certificates, image, models, node as nodes, proxy, registry as registries, token_server, trees  # noqa: E402
from consumers.proc import run, unmount_all  # noqa: E402
from model_files import MIB, write_model  # noqa: E402
import packing  # noqa: E402
from pushing import HTPASSWD, IDENTITY, PASSWORD, USER, State, layout_size  # noqa: E402

# A shell's background job ignores these, and so would all that the tests start and interrupt.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

_count = itertools.count(1)


@pytest.fixture(scope="session")
def bin_dir():
    """The commands that tests/e2e/setup built: E2E_BIN, or .build/e2e/bin."""
    path = Path(os.environ.get("E2E_BIN", TOP / ".build/e2e/bin"))
    for name in ("containerd", "ctr", "containerd-shim-runc-v2", "snapshotter", "reader", "reader-db", "registry"):
        if not os.access(path / name, os.X_OK):
            pytest.fail(f"{path / name} is missing: run tests/e2e/setup", pytrace=False)
    for name in ("ctr-remote", "runc", "skopeo", "umoci", "fusermount3", "gzip", "zstd", "tar", "strace", "docker-registry", "openssl"):
        if not shutil.which(name):
            pytest.fail(f"{name} is not installed: run tests/e2e/setup", pytrace=False)
    if os.geteuid() != 0:
        pytest.fail("containerd and its snapshotters need root", pytrace=False)
    return path


@pytest.fixture(scope="session")
def scratch(tmp_path_factory):
    """A directory for the session; unmounted and removed at its end."""
    path = tmp_path_factory.mktemp("e2e")
    yield path
    unmount_all(path)
    if not os.environ.get("E2E_KEEP"):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def starcar(scratch):
    """The command under test: STARCAR, or target/release/starcar."""
    path = Path(os.environ.get("STARCAR", TOP / "target/release/starcar"))
    if not os.access(path, os.X_OK):
        pytest.fail(f"{path} is missing: cargo build --release, or set STARCAR", pytrace=False)
    directory = scratch / "starcar"
    directory.mkdir()
    return image.Starcar(path, directory)


@pytest.fixture
def pack(starcar):
    """pack(snapshot, *options, tag=…|output=…, base=…) -> image.Packed."""
    return starcar.pack


@pytest.fixture(scope="session")
def registry(bin_dir, scratch):
    """A registry that counts the bytes it sends for each digest."""
    server = registries.Registry(bin_dir / "registry", scratch / "registry")
    yield server
    server.stop()


@pytest.fixture
def state(tmp_path):
    """Directories of a user who has run nothing yet."""
    return State(tmp_path / "state")


@pytest.fixture(scope="session", name="image")
def packed_image(tmp_path_factory):
    """(layout, digest, size) of a small image."""
    root = tmp_path_factory.mktemp("image")
    digest = packing.pack(write_model(root / "model", 8 * MIB, shards=2, seed=3), root / "image.oci").digest
    yield root / "image.oci", digest, layout_size(root / "image.oci", digest)
    shutil.rmtree(root)


@pytest.fixture
def fresh_registry(bin_dir, tmp_path):
    """The same, empty, and of one test alone; what it was sent does not outlive the test."""
    server = registries.Registry(bin_dir / "registry", tmp_path / "registry")
    yield server
    server.stop()
    shutil.rmtree(server.root, ignore_errors=True)


@pytest.fixture
def second_registry(bin_dir, tmp_path):
    """Another one, which shares nothing with fresh_registry."""
    server = registries.Registry(bin_dir / "registry", tmp_path / "second-registry")
    yield server
    server.stop()
    shutil.rmtree(server.root, ignore_errors=True)


@pytest.fixture(params=["referrers API", "tag scheme"])
def referring_registry(request, bin_dir, tmp_path):
    """A registry of each of the two ways to find what refers to an image; `api` tells which."""
    server = registries.Registry(bin_dir / "registry", tmp_path / "registry", referrers=request.param == "referrers API")
    server.api = request.param == "referrers API"
    yield server
    server.stop()


@pytest.fixture
def debian_registry(bin_dir, tmp_path):
    """Debian's docker-registry 2.8."""
    server = registries.DebianRegistry(tmp_path / "docker-registry")
    yield server
    server.stop()
    shutil.rmtree(server.root, ignore_errors=True)


@pytest.fixture(scope="session")
def htpasswd(scratch):
    """The `auth` part of a registry's configuration that lets USER in with PASSWORD."""
    file = scratch / "htpasswd"
    file.write_text(HTPASSWD)
    return f"auth:\n  htpasswd:\n    realm: e2e\n    path: {file}\n"


@pytest.fixture(params=["distribution 3", "docker-registry 2.8"])
def password_registry(request, bin_dir, tmp_path, htpasswd):
    """A registry that USER may use with PASSWORD: distribution 3, and Debian's 2.8."""
    if request.param == "distribution 3":
        server = registries.Registry(bin_dir / "registry", tmp_path / "registry", auth=htpasswd, basic=(USER, PASSWORD))
    else:
        server = registries.DebianRegistry(tmp_path / "registry", auth=htpasswd, basic=(USER, PASSWORD))
    yield server
    server.stop()


@pytest.fixture
def token_service(bin_dir, tmp_path):
    """token_service(lifetime=…, grants=…) -> (registry, token server) of a registry with `auth: token`."""
    started = []

    def start(**options):
        pair = certificates.signing_pair(tmp_path / "tokens")
        tokens = token_server.TokenServer(pair, users={USER: PASSWORD}, identities={IDENTITY}, **options)
        started.append(tokens)
        server = registries.Registry(bin_dir / "registry", tmp_path / "registry", auth=tokens.auth(pair))
        started.append(server)
        return server, tokens

    yield start
    for each in reversed(started):
        each.stop()


@pytest.fixture(scope="session")
def authority(scratch):
    """A certificate authority that no system trusts."""
    return certificates.Authority(scratch / "authority")


@pytest.fixture
def through():
    """through(registry, rate=None) -> a TCP proxy before it."""
    started = []

    def start(registry, rate=None):
        started.append(proxy.Proxy(registry.host, rate))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture(scope="session")
def node(bin_dir, scratch):
    """A node that the tests of a session share: containerd and its snapshotters."""
    with_stop = nodes.Node(bin_dir, scratch / "node")
    yield with_stop
    with_stop.stop()


@pytest.fixture
def fresh_node(bin_dir, scratch):
    """A node that has never pulled anything."""
    with_stop = nodes.Node(bin_dir, scratch / f"node-{next(_count)}")
    yield with_stop
    with_stop.stop()


@pytest.fixture
def image_name(request):
    """A repository name that no other test uses."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-") + f"-{next(_count)}"


@pytest.fixture
def read_layer(bin_dir):
    """read_layer(blob, toc_digest, store) -> (entries, summary), every chunk verified."""
    return lambda blob, toc, store="memory": image.read_layer(bin_dir, blob, toc, store)


@pytest.fixture(scope="session")
def small_model(scratch):
    """A snapshot of 32 MiB in two shards, and its tree at /models."""
    path = models.model(scratch / "small-model")
    return path, trees.of_source(path)


@pytest.fixture(scope="session")
def base_image(scratch, registry):
    """A base in the registry: one plain tar+gzip layer with busybox and its links."""
    rootfs = scratch / "base-rootfs"
    (rootfs / "bin").mkdir(parents=True)
    (rootfs / "etc").mkdir()
    (rootfs / "tmp").mkdir()
    (rootfs / "tmp").chmod(0o1777)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    (rootfs / "bin/busybox").chmod(0o755)
    for applet in ("sh", "ln", "sleep", "ls", "mkdir", "cat"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    os.link(rootfs / "bin/busybox", rootfs / "bin/busybox-too")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    os.lchown(rootfs / "etc/passwd", 0, 42)
    (rootfs / "etc/empty").touch()
    layout = scratch / "base"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:base")
    run("umoci", "insert", "--image", f"{layout}:base", rootfs, "/")
    run("umoci", "config", "--image", f"{layout}:base", "--config.env", "PATH=/bin", "--config.entrypoint", "/bin/sh")
    run("umoci", "gc", "--layout", layout)
    ref = registry.ref("base", "v1")
    run("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{layout}:base", f"docker://{ref}")
    return ref


@pytest.fixture
def measured(request):
    """measured(line): a number worth reading, printed when the tests are through."""
    return lambda line: request.node.user_properties.append(("measured", line))


def pytest_terminal_summary(terminalreporter):
    # Tests may run in other processes: what they measured comes with their reports.
    reports = [report for stat in terminalreporter.stats.values() for report in stat if getattr(report, "when", None) == "call"]
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {line}"
        for report in reports for name, line in report.user_properties if name == "measured"
    ]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(line)
