"""A node: containerd and stargz snapshotters with fresh state directories."""

import os
import shutil
import signal
import time

from .proc import Process, mounts, run, unmount_all, wait_for

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
    """

    def __init__(self, bin_dir, directory, snapshotters=SNAPSHOTTERS, prefix=()):
        self.bin = bin_dir
        self.prefix = [str(word) for word in prefix]
        self.dir = directory
        self.snapshotters = dict(snapshotters)
        self.processes = []
        self.containers = {}
        self.started = 0
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
        return run(*self.prefix, self.bin / "ctr", "-a", self.sock, *argv, **kw)

    def ctr_remote(self, *argv, **kw):
        """Debian's ctr-remote."""
        return run(*self.prefix, "ctr-remote", "-a", self.sock, *argv, **kw)

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

    def start(self, name, ref, *args, snapshotter="stargz", user=None, binds=(), pidns=None, rootfs=False):
        """Starts a container in the background; its output goes to a file. Gives the ctr process."""
        argv = [*self.prefix, self.bin / "ctr", "-a", self.sock, "run", "--rm"]
        argv += ["--rootfs"] if rootfs else ["--snapshotter", snapshotter]
        if rootfs:
            argv += ["--env", "PATH=/bin"]
        if user:
            argv += ["--user", user]
        for source, target, mode in binds:
            argv += ["--mount", f"type=bind,src={source},dst={target},options=rbind:{mode}"]
        if pidns:
            argv += ["--with-ns", f"pid:{pidns}"]
        self.started += 1
        process = Process([*argv, ref, name, *args], self.dir / f"container-{self.started}-{name}.log")
        self.containers[name] = process
        return process

    def run(self, name, ref, *args, check=True, timeout=300, **kw):
        """Runs a container to its end. Gives (exit status, output)."""
        process = self.start(name, ref, *args, **kw)
        status = process.popen.wait(timeout)
        self.containers.pop(name).stop()
        lines = process.log.read_text(errors="replace").splitlines(keepends=True)
        out = "".join(line for line in lines if not line.startswith('time="'))  # ctr's own
        if check:
            assert status == 0, f"container {name} {args}: exit {status}\n{out}"
        return status, out

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
