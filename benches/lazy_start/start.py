"""One cold start: a fresh node pulls an image, runs a container, and a reader does there what an engine does."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from consumers.node import Node
from consumers.proc import run, wait_for

READER = Path(__file__).with_name("reader.py")
RUNNING = "the container runs"


def plain_http(host):
    """What the snapshotter's config.toml needs to reach a registry that is not on loopback by plain HTTP."""
    return f'[resolver.host."{host}"]\nmirrors = [{{ host = "{host}", insecure = true }}]\n'


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # Of the process and of its children that have ended.
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def warm(paths):
    """Reads files, so that the registry's disk is not what is measured."""
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 22):
                pass


def repeated(requests, weights_at):
    """Counts of GETs for blobs and bytes that had been sent before, by requests made before the first weight was read and
    after it; and the bytes of the former."""
    sent, found = {}, {"requests": 0, "cut_short": 0, "mb_twice_before": 0.0, "mb_twice_weights": 0.0, "mb_before": 0.0}
    for each in sorted(requests, key=lambda request: request["time"]):
        if "/blobs/" not in each["path"] or each["method"] != "GET" or not each["bytes"]:
            continue
        found["requests"] += 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", each["range"])
        if each["range"] and not asked:
            # Several ranges: what each of them got is not known.
            found["mb_before"] += (each["time"] < weights_at) * each["bytes"] / 1e6
            continue
        begin = int(asked[1]) if asked else 0
        end = begin + each["bytes"]
        found["cut_short"] += bool(asked) and end <= int(asked[2])
        ranges, fresh = sent.setdefault(each["path"], []), [(begin, end)]
        for low, high in ranges:
            fresh = [part for a, b in fresh for part in ((a, min(b, low)), (max(a, high), b)) if part[0] < part[1]]
        before = each["time"] < weights_at
        found["mb_before"] += before * each["bytes"] / 1e6
        phase = "mb_twice_before" if before else "mb_twice_weights"
        found[phase] += (each["bytes"] - sum(b - a for a, b in fresh)) / 1e6
        ranges += fresh
    return found


class Bench:
    """What all starts of a run have in common."""

    def __init__(self, bin_dir, directory, registry, link, profile, options):
        self.bin, self.directory, self.registry, self.link = bin_dir, directory, registry, link
        self.profile, self.options = profile, options
        self.count = 0

    def start(self, row, image, config):
        """Measures one start; seconds count from the beginning of the pull."""
        self.count += 1
        snapshotter = "overlayfs" if row.eager else "stargz"
        snapshotters = {} if row.eager else {"stargz": config + plain_http(self.registry.host)}
        directory = self.directory / f"node-{os.getpid()}-{self.count}"
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
        warm(self.registry.blob_file(each) for each in image["digests"])
        node = Node(self.bin, directory, snapshotters, self.link.prefix)
        try:
            return self._measure(node, row, self.registry.ref(image["name"]), snapshotter)
        finally:
            node.stop()
            if not os.environ.get("E2E_KEEP"):
                run("rm", "-rf", directory)

    def _measure(self, node, row, ref, snapshotter):
        self.registry.reset()
        began, begin = time.time(), time.monotonic()
        node.pull(ref) if row.eager else node.rpull(ref, snapshotter)
        pulled = time.monotonic()
        # runc knows containers of all nodes of a machine by name.
        name = f"engine-{os.getpid()}-{self.count}"
        container = node.start(name, ref, "sh", "-c", f"echo '{RUNNING}'; exec sleep 1000000", snapshotter=snapshotter)
        wait_for("the container", lambda: container.alive() and RUNNING in container.log.read_text(), 120, 0.004)
        running = time.monotonic()
        result = {"pulled": pulled - begin, "running": running - begin}
        result["mb_running"] = self.registry.bytes_served() / 1e6
        (line,) = [line for line in node.ctr("task", "ls").stdout.splitlines() if line.startswith(f"{name} ")]
        model = f"/proc/{line.split()[1]}/root/models"
        read = self._read(model, running)
        result["mb_last"] = self.registry.bytes_served() / 1e6
        result |= {"first_weight": read["first_weight"] + running - begin, "last_byte": read["last_byte"] + running - begin}
        result |= {name: read[name] for name in ("waited", "waited_small", "longest_read", "bytes", "sha256")}
        self._settle()
        result["mb_end"] = self.registry.bytes_served() / 1e6
        result |= repeated(self.registry.requests(), began + result["first_weight"])
        result["cpu"] = sum(cpu_seconds(each.pid) for each in node.processes)
        result["load"] = os.getloadavg()[0]
        log = "" if row.eager else node.log(snapshotter)
        result["complaints"] = sum(f"level={level}" in line for line in log.splitlines() for level in ("warning", "error"))
        return result

    def _read(self, model, running):
        arguments = ["--profile", self.profile, "--model", model, "--started", running]
        arguments += ["--think-scale", self.options.think_scale]
        arguments += ["--mmap"] * self.options.mmap + ["--check"] * self.options.check
        done = subprocess.run([sys.executable, READER, *map(str, arguments)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the reader failed: {done.stderr}")
        return json.loads(done.stdout)

    def _settle(self):
        """Waits until nothing has been sent for longer than background fetch pauses, --settle seconds at most."""
        end, last, since = time.monotonic() + self.options.settle, None, time.monotonic()
        while time.monotonic() < end:
            now = self.registry.bytes_served()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > 8:
                return
            time.sleep(0.25)
