"""Settings that `starcar node config` prints, in the programs that they are for; and `starcar node check` beside these."""

import json
import os

import pytest

from consumers.proc import Failed, Process, mounts, run, unmount_all, wait_for

SOCKET = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock"
CERTIFICATES = "/etc/containerd/certs.d"
SNAPSHOTTER = "etc/containerd-stargz-grpc/config.toml"
CONTAINERD = "etc/containerd/config.toml"
VERSIONS = {"snapshotter": "0.19.1", "snapshotter-old": "0.12.1"}


@pytest.fixture(scope="module")
def images(starcar, registry, small_model):
    """References of a lazily mountable image, and of one with plain layers."""
    model, _ = small_model
    lazy, plain = registry.ref("node/lazy"), registry.ref("node/plain")
    starcar.pack(model, tag=lazy)
    starcar.pack(model, "--layer-format", "tar", tag=plain)
    return lazy, plain


@pytest.mark.parametrize("program", VERSIONS)
def test_the_snapshotter_knows_every_setting(starcar, bin_dir, tmp_path, program):
    """Decoded strictly into the release's own types: a setting that it does not have is an error."""
    file = tmp_path / "config.toml"
    for credentials in ("docker", "cri", "kubeconfig"):
        for registry in ("registry.example.com", "docker.io=http://mirror.example.com:80", "ghcr.io"):
            options = ["--credentials", credentials, "--registry", registry]
            printed = starcar("node", "config", "--for", "snapshotter", "--snapshotter-version", VERSIONS[program], *options)
            file.write_text(printed.stdout)
            run(bin_dir / program, "-check-config", "-config", file)
    file.write_text(printed.stdout.replace("max_concurrency", "max_concurency"))
    with pytest.raises(Failed, match="max_concurency|strict mode"):
        run(bin_dir / program, "-check-config", "-config", file)


class Configured:
    """A node that runs with the printed settings, of which paths alone are changed."""

    def __init__(self, starcar, bin_dir, directory, registry, snapshotter, containerd, version):
        self.dir = directory
        self.bin = bin_dir
        self.processes = []
        options = ["--snapshotter-version", VERSIONS[snapshotter], "--containerd-version", version]
        starcar("node", "config", *options, "--registry", f"http://{registry.host}", "--output", directory)
        self.socket, self.sock = directory / "stargz.sock", directory / "containerd.sock"
        self.layers = directory / "layers"
        config = directory / CONTAINERD
        text = config.read_text()
        for old, new in ((SOCKET, self.socket), (CERTIFICATES, f"{directory}{CERTIFICATES}")):
            assert old in text
            text = text.replace(old, str(new))
        config.write_text(text)
        self.start(bin_dir / snapshotter, "-address", self.socket, "-root", self.layers, "-config", directory / SNAPSHOTTER)
        self.processes[-1].wait_socket(self.socket)
        self.start(containerd, "--config", config, "--address", self.sock, "--root", directory / "root", "--state", directory / "state")
        self.processes[-1].wait_socket(self.sock)
        wait_for("containerd", lambda: self.ctr("version", check=False).returncode == 0)

    def start(self, *argv):
        log = self.dir / f"{len(self.processes)}.log"
        self.processes.append(Process(argv, log, env={"PATH": f"{self.bin}:{os.environ['PATH']}"}))

    def ctr(self, *argv, **kw):
        return run(self.bin / "ctr", "-a", self.sock, *argv, **kw)

    def lazy(self):
        return [mount for mount in mounts(self.layers) if mount[2].startswith("fuse")]

    def check(self, starcar, *options):
        """starcar node check of this node; gives the exit code and what is found, notes aside."""
        places = ["--containerd-config", self.dir / CONTAINERD, "--containerd-socket", self.sock]
        places += ["--snapshotter-config", self.dir / SNAPSHOTTER, "--snapshotter-socket", self.socket]
        places += ["--snapshotter-root", self.layers, "--for-model", "1MiB", "--format", "json"]
        done = starcar("node", "check", *places, *options, check=False)
        report = json.loads(done.stdout)
        assert not [each for each in report["unknown"] if "/proc" not in each["lookedAt"]], report
        return done.returncode, {each["code"] for each in report["findings"] if each["severity"] != "note"}, report

    def stop(self):
        for process in reversed(self.processes):
            process.stop()
        unmount_all(self.dir)


@pytest.fixture
def configured(request, starcar, bin_dir, tmp_path, registry):
    snapshotter, containerd, version = request.param
    program = bin_dir / "containerd" if version == "2.x" else bin_dir.parent / "containerd-1.6/usr/bin/containerd"
    node = Configured(starcar, bin_dir, tmp_path / "node", registry, snapshotter, program, version)
    yield node
    node.stop()


NODES = [
    pytest.param(("snapshotter", "containerd", "2.x"), id="0.19-2"),
    pytest.param(("snapshotter", "containerd", "1.6"), id="0.19-1.6"),
    pytest.param(("snapshotter-old", "containerd", "1.6"), id="0.12-1.6"),
]


@pytest.mark.parametrize("configured", NODES, indirect=True)
def test_a_pull_with_the_printed_settings_is_lazy(configured, request, starcar, bin_dir, images):
    ref, _ = images
    is_two = "0.19-2" in request.node.name
    if is_two:
        # This containerd is built without CRI; the transfer service is what its CRI pulls by, too.
        hosts = f"{configured.dir}{CERTIFICATES}"
        configured.ctr("images", "pull", "--hosts-dir", hosts, "--snapshotter", "stargz", ref)
        namespace = []
    else:
        run(bin_dir / "cripull", configured.sock, ref)
        namespace = ["-n", "k8s.io"]
    mounted = configured.lazy()
    layers = json.loads(starcar("inspect", ref, "--format", "json").stdout)["layers"]
    assert len(mounted) == len(layers)
    stored = configured.ctr(*namespace, "content", "ls", "-q").stdout.split()
    assert not {layer["digest"] for layer in layers} & set(stored)

    old = "0.12" in request.node.name
    version = VERSIONS["snapshotter-old" if old else "snapshotter"]
    code, codes, report = configured.check(starcar, "--registry", ref, "--snapshotter-version", version)
    # 0.12 has no setting against it.
    allowed = {"prefetch-wait"} if old else set()
    # The registry of the tests is on loopback, which needs no settings.
    assert codes - {"cache-tmpfs"} == allowed, report
    assert code == 0
    facts = {fact["lookedAt"]: fact["found"] for fact in report["facts"]}
    assert facts["containerd"].startswith("2.4" if is_two else "1.6.20")
    assert facts[ref] == f"{len(layers)} of {len(layers)} layers can be mounted before they are pulled"


@pytest.mark.parametrize("configured", NODES[:1], indirect=True)
def test_what_is_wrong_with_a_running_node_is_found(configured, starcar, images):
    code, codes, _ = configured.check(starcar, "--registry", images[1])
    assert (code, codes - {"cache-tmpfs"}) == (12, {"layer-not-lazy"})

    # The file was changed, and containerd was not started again.
    config = configured.dir / CONTAINERD
    text = config.read_text()
    config.write_text(text.replace("[proxy_plugins.stargz", "[proxy_plugins.lazy").replace('"stargz"', '"lazy"'))
    code, codes, _ = configured.check(starcar)
    assert (code, codes - {"cache-tmpfs"}) == (12, {"proxy-not-loaded"})
    config.write_text(text)

    containerd = configured.processes.pop()
    snapshotter = configured.processes.pop()
    snapshotter.popen.kill()
    snapshotter.popen.wait()
    code, codes, _ = configured.check(starcar)
    assert (code, codes - {"cache-tmpfs"}) == (12, {"snapshotter-socket-stale"})
    configured.processes.append(containerd)
