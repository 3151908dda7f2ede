"""A kubelet of few words: runs one pod's containers with containerd, as its spec says.

What it does as a kubelet does: it pulls by digest where there is one, expands $(VAR) and $$, runs init containers in
order (those that restart stay), starts containers one after the other without waiting, waits for exec probes of startup
and for postStart hooks, starts again what fails, and mounts emptyDir, ConfigMap and image volumes. It has no network,
no HTTP probes and no limits. A field that it would have to obey and does not know fails the test.
"""

import json
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from consumers.proc import Failed, run, wait_for

CONTAINER = {
    "name", "image", "command", "args", "workingDir", "env", "resources", "volumeMounts", "securityContext", "lifecycle",
    "restartPolicy", "startupProbe", "imagePullPolicy", "terminationMessagePath", "terminationMessagePolicy",
    # Of no consequence where nothing listens.
    "ports", "readinessProbe", "livenessProbe",
}
SECURITY = {
    "runAsUser", "runAsGroup", "runAsNonRoot", "readOnlyRootFilesystem", "allowPrivilegeEscalation", "capabilities", "seccompProfile",
    "privileged",
}
POD_SECURITY = {"runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "fsGroupChangePolicy", "seccompProfile"}
RESTARTS = 8
DEFAULT_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
).split()


@dataclass
class Ended:
    """How a container ended, at its last start."""

    status: int
    output: str
    starts: int


@dataclass
class Ran:
    """What became of a pod."""

    containers: dict = field(default_factory=dict)
    volumes: dict = field(default_factory=dict)
    images: dict = field(default_factory=dict)


def pinned(reference):
    """The name by which a container runtime pulls: a tag beside a digest says nothing to it."""
    name, at, digest = reference.partition("@")
    if not at:
        return reference
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.split(':')[0]}@{digest}"


def expand(text, environment):
    """$(VAR) and $$ in a command, an argument or a variable."""
    def one(found):
        if found[0] == "$$":
            return "$"
        return environment.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)", one, text)


class Kubelet:
    """Runs pods on a node. Images of the tests' registry that are named in `lazy` are pulled lazily."""

    def __init__(self, node, registry, directory, lazy=(), snapshotter="stargz-still", stand_in=None):
        self.node, self.registry, self.dir = node, registry, Path(directory)
        self.lazy, self.snapshotter, self.stand_in = set(lazy), snapshotter, dict(stand_in or {})
        self.dir.mkdir(parents=True)
        self.pods = 0
        self.running = []
        self.configs = {}

    # Images

    def pull(self, reference):
        """(name, snapshotter, config) of an image, pulled if it is not there. An engine's image has its stand-in."""
        reference = self.stand_in.get(reference, reference)
        name = pinned(reference)
        lazily = name.split("@")[0].rpartition(":")[0] in self.lazy or name.split("@")[0] in self.lazy
        snapshotter = self.snapshotter if lazily else "overlayfs"
        if name not in self.configs:
            if not name.startswith(f"{self.registry.host}/"):
                raise Failed(f"{reference} is not in the tests' registry")
            self.node.rpull(name, snapshotter) if lazily else self.node.pull(name)
            manifest = self.registry.manifest(name)
            self.configs[name] = json.loads(self.registry.blob(name, manifest["config"]["digest"])).get("config", {})
        return name, snapshotter, self.configs[name]

    # Pods

    def run(self, pod, configs=(), again=None):
        """Runs a pod with all its defaults until its containers have ended, sidecars aside.

        `configs` are ConfigMaps. `again` is what it left: its containers start anew, with the same volumes.
        """
        spec = pod["spec"]
        refuse(spec.get("securityContext") or {}, POD_SECURITY, "the pod's security context")
        self.pods += 1
        at = self.dir / f"pod-{self.pods}"
        ran, holder = Ran(), None
        if again:
            ran.volumes, ran.images = again.volumes, dict(again.images)
        pidns = None
        if spec.get("shareProcessNamespace"):
            holder = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--kill-child", "sleep", "infinity"], stdin=subprocess.DEVNULL
            )
            children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
            (pid,) = wait_for("the child of unshare", lambda: children.read_text().split())
            pidns = f"/proc/{pid}/ns/pid"
        sidecars = []
        try:
            for volume in spec.get("volumes", []) if not again else ():
                ran.volumes[volume["name"]] = self.volume(volume, at, ran, configs)
            for container in spec.get("initContainers", []):
                if container.get("restartPolicy") == "Always":
                    one = Container(self, pod, container, ran, pidns)
                    sidecars.append(one)
                    one.start()
                    one.started()
                else:
                    one = Container(self, pod, container, ran, pidns)
                    ran.containers[container["name"]] = ended = one.to_its_end(spec["restartPolicy"])
                    if ended.status != 0:
                        raise Failed(f"init container {container['name']}: exit {ended.status}\n{ended.output}")
            containers = [Container(self, pod, container, ran, pidns) for container in spec["containers"]]
            for one in containers:
                one.start()
                one.hook()
            # Sidecars that stay up, as KServe's does, end with what they are beside.
            waiting = [one for one in containers if not one.is_sidecar()]
            for one in waiting:
                ran.containers[one.name] = one.to_its_end(spec["restartPolicy"])
            for one in containers:
                if one not in waiting:
                    one.alive()
                    ran.containers[one.name] = Ended(0, one.output(), one.starts)
        finally:
            for one in self.running[:]:
                one.kill()
            if holder:
                holder.kill()
                holder.wait()
        return ran

    def volume(self, volume, at, ran, configs):
        """The host's directory behind a volume."""
        name, kinds = volume["name"], [key for key in volume if key != "name"]
        (kind,) = kinds
        path = at / "volumes" / name
        path.mkdir(parents=True)
        if kind == "emptyDir":
            path.chmod(0o777)
        elif kind == "image":
            reference, snapshotter, _ = self.pull(volume["image"]["reference"])
            ran.images[name] = reference
            self.node.mount(reference, path, snapshotter)
        elif kind == "configMap":
            found = [c for c in configs if c["metadata"]["name"] == volume["configMap"]["name"]]
            if not found:
                raise Failed(f"no ConfigMap {volume['configMap']['name']}")
            for key, text in found[0].get("data", {}).items():
                (path / key).write_text(text)
                (path / key).chmod(volume["configMap"].get("defaultMode", 0o644))
        elif kind == "secret":
            if not volume["secret"].get("optional"):
                raise Failed(f"no secret {volume['secret']}")
        else:
            raise Failed(f"volume {name}: {kind} is nothing that this kubelet has")
        return path


class Container:
    """One container of a pod."""

    def __init__(self, kubelet, pod, spec, ran, pidns):
        self.kubelet, self.node, self.pod, self.spec, self.ran, self.pidns = kubelet, kubelet.node, pod, spec, ran, pidns
        self.name, self.starts, self.process = spec["name"], 0, None
        refuse(spec, CONTAINER, f"container {self.name}")

    def is_sidecar(self):
        """KServe's, and those that do as it does."""
        words = " ".join(self.spec.get("command", []) + self.spec.get("args", []))
        return "sleep infinity" in words or "/proc/" in words and "sleep" in words

    def start(self):
        spec, security = self.spec, {**(self.spec.get("securityContext") or {})}
        refuse(security, SECURITY, f"container {self.name}'s security context")
        above = self.pod["spec"].get("securityContext") or {}
        reference, snapshotter, config = self.kubelet.pull(spec["image"])
        self.ran.images[self.name] = reference
        environment = dict(entry.split("=", 1) for entry in config.get("Env", []))
        # What the image has set is there, but $(VAR) does not see it.
        own = {}
        for entry in spec.get("env", []):
            own[entry["name"]] = expand(entry["value"], own) if "value" in entry else self.field(entry)
        environment |= own
        command = [expand(word, own) for word in spec.get("command") or []]
        arguments = [expand(word, own) for word in spec.get("args") or []]
        argv = [*command, *arguments] if command else [*(config.get("Entrypoint") or []), *(arguments or config.get("Cmd") or [])]
        user = str(security.get("runAsUser", above.get("runAsUser", config.get("User") or "0")))
        group = security.get("runAsGroup", above.get("runAsGroup"))
        if group is not None:
            user = f"{user.split(':')[0]}:{group}"
        if security.get("runAsNonRoot", above.get("runAsNonRoot")):
            number = user.split(":")[0]
            if not number.isdigit() or number == "0":
                raise Failed(f"container {self.name}: runAsNonRoot, and the user is {user!r}")
        options = ["--rm", "--snapshotter", snapshotter, "--user", user]
        # containerd takes 4096 bytes for a label. CRI leaves longer ones of an image out; ctr stumbles over them.
        for name, value in (config.get("Labels") or {}).items():
            options += ["--label", f"{name}=too long"] if len((name + value).encode()) > 4096 else []
        options += [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        directory = spec.get("workingDir") or config.get("WorkingDir")
        options += ["--cwd", directory] if directory else []
        options += ["--read-only"] if security.get("readOnlyRootFilesystem") else []
        seccomp = security.get("seccompProfile") or above.get("seccompProfile") or {}
        options += ["--seccomp"] if seccomp.get("type") == "RuntimeDefault" else []
        options += ["--allow-new-privs"] if security.get("allowPrivilegeEscalation", True) else []
        if security.get("privileged"):
            raise Failed(f"container {self.name} is privileged")
        capabilities = security.get("capabilities") or {}
        if "ALL" in capabilities.get("drop", []):
            options += [word for each in DEFAULT_CAPABILITIES for word in ("--cap-drop", f"CAP_{each}")]
        elif capabilities:
            raise Failed(f"container {self.name}: {capabilities}")
        for mount in sorted(spec.get("volumeMounts", []), key=lambda each: each["mountPath"].count("/")):
            options += ["--mount", self.mount(mount)]
        options += ["--with-ns", f"pid:{self.pidns}"] if self.pidns else []
        self.starts += 1
        self.id = self.node.numbered(self.name)
        self.process = self.node.launch(self.id, reference, options, argv)
        self.kubelet.running.append(self)

    def field(self, entry):
        """A variable's value that is taken from the pod."""
        path = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
        if not path.startswith("metadata."):
            raise Failed(f"container {self.name}: {entry}")
        return self.pod["metadata"].get(path.removeprefix("metadata."), "")

    def mount(self, mount):
        refuse(mount, {"name", "mountPath", "subPath", "readOnly"}, f"container {self.name}'s mount")
        source = self.ran.volumes[mount["name"]]
        image = "image" in next(v for v in self.pod["spec"]["volumes"] if v["name"] == mount["name"])
        if "subPath" in mount:
            source = source / mount["subPath"]
            if image and not source.is_dir():
                raise Failed(f"container {self.name}: the image has no {mount['subPath']}")
            source.mkdir(exist_ok=True)
        # Whatever the mount says, an image is read-only.
        mode = "ro" if mount.get("readOnly") or image else "rw"
        return f"type=bind,src={source},dst={mount['mountPath']},options=rbind:{mode}"

    def exec(self, command):
        """(exit status, output) of a command in the container."""
        return self.node.exec(self.id, *command)

    def up(self):
        """Whether its process runs."""
        listed = self.node.ctr("task", "ls", check=False).stdout.splitlines()
        return any(line.split()[:1] == [self.id] and "RUNNING" in line for line in listed)

    def started(self):
        """Waits until a sidecar has started: for its startup probe where it has one."""
        wait_for(f"container {self.name}", lambda: self.alive() and self.up())
        probe = self.spec.get("startupProbe")
        if probe:
            if "exec" not in probe:
                raise Failed(f"container {self.name}: {probe}")
            wait_for(f"the probe of {self.name}", lambda: self.alive() and self.exec(probe["exec"]["command"])[0] == 0, 60, 0.1)
        self.hook()

    def hook(self):
        """The postStart hook, for which a kubelet waits before it starts the next container."""
        hook = (self.spec.get("lifecycle") or {}).get("postStart")
        if hook:
            wait_for(f"container {self.name}", lambda: self.alive() and self.up())
            status, output = self.exec(hook["exec"]["command"])
            if status != 0:
                raise Failed(f"container {self.name}: postStart: exit {status}\n{output}")

    def to_its_end(self, policy):
        """Waits until it has ended well, starting it again as the pod's policy says."""
        if not self.process:
            self.start()
        while True:
            status = self.ended()
            self.done()
            if status == 0 or policy == "Never" or self.starts > RESTARTS:
                return Ended(status, self.output(), self.starts)
            time.sleep(0.2)
            self.start()

    def ended(self):
        """Waits for its exit status; sidecars stay up meanwhile. A container that does not end is told with what runs."""
        end = time.monotonic() + 120
        while (status := self.process.popen.poll()) is None:
            for other in self.kubelet.running[:]:
                if other is not self and other.is_sidecar():
                    other.stay_up()
            if time.monotonic() > end:
                seen = run("ps", "-eo", "pid,ppid,stat,etimes,wchan:30,args", check=False).stdout
                ours = [line[:200] for line in seen.splitlines() if " [k" not in line]
                raise Failed(f"container {self.name} did not end\n{self.output()}\n" + "\n".join(ours[-60:]))
            time.sleep(0.02)
        return status

    def stay_up(self):
        """Starts it again if it has ended.

        KServe's modelcar may: its `ln -sf` finds the link of the pod's earlier process namespace, and where a process with a
        model has that number, the link would be made below the model, which is read-only.
        """
        if self.process.popen.poll() is not None and self.starts <= RESTARTS:
            self.done()
            self.start()

    def alive(self):
        return self.process.alive()

    def output(self):
        return self.process.output()

    def done(self):
        self.process.stop()
        if self in self.kubelet.running:
            self.kubelet.running.remove(self)

    def kill(self):
        self.node.ctr("task", "kill", "-s", "SIGKILL", self.id, check=False)
        self.done()


def refuse(given, known, what):
    """Fails on a field that would have to be obeyed."""
    odd = {key for key, value in given.items() if key not in known and value not in (None, {}, [])}
    if odd:
        raise Failed(f"{what}: this kubelet does not know {sorted(odd)}")
