"""A node: containerd and stargz snapshotters with fresh state directories."""

import itertools
import os
import secrets
import shutil
import signal
import time
from pathlib import Path
from urllib.parse import quote

from .proc import Process, mounts, run, unmount_all, wait_for

WRITE_OUTPUT = Path(__file__).resolve().with_name("write-output")

# The names under which containerd knows the snapshotters, and their config.toml.
# "stargz" is a node as it comes; the others differ in what their names say.
SNAPSHOTTERS = {
    "stargz": "",
    "stargz-still": "no_background_fetch = true\n",
    "stargz-db": 'metadata_store = "db"\n',
    "stargz-passthrough": "no_background_fetch = true\n[fuse]\npassthrough = true\n",
}


class Node:
    """containerd with one process per snapshotter, started when first asked for.

    Every command of the node runs through `prefix`, so that it may live in a network namespace of its own.

    Its containers are in a containerd namespace of its own: runc's state directory and the cgroups are of the whole
    machine, named by namespace and container, and nodes with containers of one name would end each other's.
    """

    def __init__(self, bin_dir, directory, snapshotters=SNAPSHOTTERS, prefix=()):
        self.bin = bin_dir
        self.prefix = [str(word) for word in prefix]
        self.dir = directory
        self.snapshotters = dict(snapshotters)
        self.processes = []
        self.namespace = f"node-{secrets.token_hex(4)}"
        self.containers = {}
        self.numbers = itertools.count(1)
        self.targets = []
        self.sock = self.dir / "containerd.sock"
        self.dir.mkdir(parents=True)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self):
        config = ["version = 3\n"]
        for name, toml in self.snapshotters.items():
            sock = self.dir / f"{name}.sock"
            (self.dir / f"{name}.toml").write_text(toml)
            process = Process(
                [*self.prefix, self.bin / "snapshotter", "-address", sock, "-root", self.dir / name]
                + ["-config", self.dir / f"{name}.toml"],
                self.dir / f"{name}.log",
            )
            self.processes.append(process)
            config.append(f'[proxy_plugins."{name}"]\ntype = "snapshot"\naddress = "{sock}"\n')
        for name, process in zip(self.snapshotters, self.processes):
            process.wait_socket(self.dir / f"{name}.sock")
        (self.dir / "containerd.toml").write_text("".join(config))
        containerd = Process(
            [*self.prefix, self.bin / "containerd", "--config", self.dir / "containerd.toml", "--address", self.sock]
            + ["--root", self.dir / "root", "--state", self.dir / "state"],
            self.dir / "containerd.log",
            env={"PATH": f"{self.bin}:{os.environ['PATH']}"},
        )
        self.processes.append(containerd)
        containerd.wait_socket(self.sock)
        wait_for(
            "an answer from containerd",
            lambda: containerd.alive() and self.ctr("version", check=False).returncode == 0,
        )

    def ctr(self, *argv, **kw):
        """ctr of containerd v2."""
        return run(*self.client(self.bin / "ctr"), *argv, **kw)

    def ctr_remote(self, *argv, **kw):
        """Debian's ctr-remote."""
        return run(*self.client("ctr-remote"), *argv, **kw)

    def client(self, program):
        """A client of containerd, in this node's namespace."""
        return [*self.prefix, program, "-a", self.sock, "-n", self.namespace]

    def rpull(self, ref, snapshotter="stargz", **kw):
        """A lazy pull, with Debian's ctr-remote."""
        return self.ctr_remote("image", "rpull", "--plain-http", "--snapshotter", snapshotter, ref, **kw)

    def pull(self, ref, **kw):
        """An eager pull onto overlayfs."""
        return self.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", ref, **kw)

    def stored(self):
        """The digests in containerd's content store."""
        return set(self.ctr("content", "ls", "-q").stdout.split())

    def lazy_mounts(self, snapshotter="stargz"):
        """The FUSE mounts of a snapshotter, one for each layer that it serves lazily."""
        return [m for m in mounts(self.dir / snapshotter) if m[2].startswith("fuse")]

    def mount(self, ref, target, snapshotter):
        """Mounts the root file system of a pulled image, read-only."""
        target.mkdir(parents=True, exist_ok=True)
        self.targets.append(target)
        self.ctr("images", "mount", "--snapshotter", snapshotter, ref, target)
        return target

    def launch(self, container, reference, options, argv):
        """Starts a container in the background, with options of `ctr run`."""
        return Launched(self, container, [*options, reference, container, *argv])

    def start(self, name, ref, *args, snapshotter="stargz", user=None, binds=(), pidns=None, rootfs=False, platform=None):
        """Starts a container in the background and remembers it."""
        options = ["--rm", *(["--rootfs", "--env", "PATH=/bin"] if rootfs else ["--snapshotter", snapshotter])]
        options += ["--user", user] if user else []
        options += ["--platform", platform] if platform else []
        for source, target, mode in binds:
            options += ["--mount", f"type=bind,src={source},dst={target},options=rbind:{mode}"]
        options += ["--with-ns", f"pid:{pidns}"] if pidns else []
        self.containers[name] = launched = self.launch(name, ref, options, args)
        return launched

    def run(self, name, ref, *args, check=True, timeout=300, **kw):
        """Runs a container to its end. Gives (exit status, output)."""
        launched = self.start(name, ref, *args, **kw)
        status = launched.popen.wait(timeout)
        self.containers.pop(name).stop()
        out = launched.output()
        if check:
            assert status == 0, f"container {name} {args}: exit {status}\n{out}"
        return status, out

    def exec(self, container, *argv):
        """Runs a command in a container. Gives (exit status, output)."""
        name = self.numbered("exec")
        output = self.dir / f"{name}.out"
        done = self.ctr("task", "exec", *into(output), "--exec-id", name, container, *argv, check=False)
        return done.returncode, read(output) + done.stderr

    def numbered(self, name):
        """A name that nothing else on this node has."""
        return f"{name}-{next(self.numbers)}"

    def kill(self, name):
        """Ends a container that runs."""
        process = self.containers.pop(name)
        self.ctr("task", "kill", "-s", "SIGKILL", name, check=False)
        process.stop()

    def log(self, name):
        """What a snapshotter, or containerd, has said."""
        return (self.dir / f"{name}.log").read_text(errors="replace")

    def stop(self):
        for name in list(self.containers):
            self.kill(name)
        for target in self.targets:
            unmount_all(target)
        # containerd first: its shims end with their containers.
        for process in reversed(self.processes):
            process.stop()
        for pid in shims(self.sock):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
        unmount_all(self.dir)
        if self.dir.exists() and not os.environ.get("E2E_KEEP"):
            for big in [*self.snapshotters, "root", "state"]:
                shutil.rmtree(self.dir / big, ignore_errors=True)


def into(output):
    """The options by which the whole output of a container goes to a file.

    By default `ctr` copies it from a pipe, and closes that as soon as the container has ended, read or not (containerd 2.4.2,
    `copyIO`). The shim's own `file://` closes the file when standard output ends, and standard error is lost that comes later.
    """
    return "--log-uri", f"binary://{WRITE_OUTPUT}?{quote(str(output))}"


class Launched(Process):
    """A container, by the `ctr run` that waits for it."""

    def __init__(self, node, container, argv):
        name = node.numbered(f"container-{container}")
        self.written = node.dir / f"{name}.out"
        super().__init__([*node.client(node.bin / "ctr"), "run", *into(self.written), *argv], node.dir / f"{name}.log")

    def output(self):
        """What the container has written so far, and what ctr says of it."""
        said = read(self.log).splitlines(keepends=True)
        return read(self.written) + "".join(line for line in said if not line.startswith('time="'))


def read(path):
    """The text of an output that may not have begun."""
    return path.read_text(errors="replace") if path.exists() else ""


def shims(sock):
    """The pids of the shims that belong to a containerd socket."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                argv = f.read().split(b"\0")
        except OSError:
            continue
        if argv and argv[0].endswith(b"containerd-shim-runc-v2") and str(sock).encode() in argv:
            found.append(int(pid))
    return found
