"""Memory does not grow with the model, and a push makes no second copy of it on disk."""

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from model_files import MIB, write_model
from packing import STARCAR, clean_env
from pushing import sparse_model

GIB = 1 << 30
# The peak that getrusage tells includes what the process was before exec: start from a small one, not from pytest.
MEASURE = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({"status": done.returncode, "stdout": done.stdout, "peak": peak}))
"""


def peak_memory(*arguments, env, stdin=subprocess.DEVNULL):
    """Run starcar; returns its largest resident set in bytes."""
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", MEASURE, STARCAR, *map(str, arguments)],
        env=clean_env(env), stdin=stdin, text=True, capture_output=True, timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["status"] == 0, done.stderr
    return said["peak"]


@pytest.fixture
def room(tmp_path):
    """A directory for gigabytes, emptied afterwards, on whatever the temporary directory is on.

    There is one at a time, whatever the number of workers: none takes more than some 4 GiB, and a disk that has room
    for one need not have it for two.
    """
    with open(Path(tempfile.gettempdir()) / "starcar-e2e-room.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory = tmp_path / "room"
        directory.mkdir()
        assert shutil.disk_usage(directory).free > 5 * GIB, f"{directory} has too little room for this test"
        yield directory
        shutil.rmtree(directory)


def test_memory_does_not_grow_with_the_model(room, measured):
    peaks = {}
    for size in (1, 4):
        model = sparse_model(room / "model", size * GIB, shards=4)
        peaks[size] = peak_memory("pack", model, "-o", f"oci:{room}/image.oci", "--base", "scratch", env={"TMPDIR": room})
        shutil.rmtree(room / "image.oci")
        shutil.rmtree(model)
    measured(", ".join(f"{size} GiB: {peak / MIB:.1f} MiB resident" for size, peak in peaks.items()))
    assert peaks[4] <= peaks[1] + 64 * MIB, peaks
    assert max(peaks.values()) < 300 * MIB, peaks


class Watch:
    """How much disk a process takes: files below some directories, and what it has open for writing anywhere.

    Files that were unlinked while open count too; a process can hide gigabytes in those. `resident` is the largest
    resident set since exec.
    """

    def __init__(self, directories, pid):
        self.directories, self.pid = directories, pid
        self.peak, self.at_peak, self.samples, self.resident = 0, {}, 0, 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        while not self.stopping.wait(0.01):
            self.sample()

    def sample(self):
        found = {}
        for directory in self.directories:
            for path in directory.rglob("*"):
                try:
                    self._add(found, str(path), path.lstat())
                except FileNotFoundError:
                    pass
        descriptors = Path(f"/proc/{self.pid}/fd")
        try:
            for entry in descriptors.iterdir():
                flags = (descriptors.parent / "fdinfo" / entry.name).read_text().partition("flags:")[2].split()[0]
                about = os.stat(entry)
                if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY or about.st_nlink == 0:
                    self._add(found, os.readlink(entry), about)
            status = (descriptors.parent / "status").read_text()
            self.resident = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        except (FileNotFoundError, ProcessLookupError, IndexError):
            # The process has ended, or is ending: what was seen before counts.
            pass
        self.samples += 1
        total = sum(size for _, size in found.values())
        if total > self.peak:
            self.peak, self.at_peak = total, {name: size for name, size in found.values() if size}

    @staticmethod
    def _add(found, name, about):
        if stat.S_ISREG(about.st_mode):
            found[about.st_dev, about.st_ino] = (name, about.st_blocks * 512)

    def stop(self):
        self.stopping.set()
        self.thread.join()
        self.sample()


def run_watched(arguments, room):
    """Run starcar with every directory it might write to below `room`; returns its watch and its output."""
    places = {name: room / name.lower() for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "cwd")}
    for place in places.values():
        place.mkdir()
    env = clean_env({name: place for name, place in places.items() if name != "cwd"})
    with open(room / "stderr.txt", "wb") as words:
        process = subprocess.Popen(
            [STARCAR, *map(str, arguments)], env=env, cwd=places["cwd"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words, text=True,
        )
        watch = Watch(list(places.values()), process.pid)
        try:
            out, _ = process.communicate(timeout=1200)
        finally:
            watch.stop()
    assert process.returncode == 0, (room / "stderr.txt").read_text()
    return watch, out


def test_a_push_needs_no_second_copy_on_disk(registry, room, measured):
    model = write_model(room / "model", GIB, shards=4, seed=9)
    reference = registry.ref("memory/one-gib", "v1")
    watch, out = run_watched(
        ["pack", model, "-t", reference, "--push", "--plain-http", "--base", "scratch"], room
    )
    stored = sum(layer["size"] for layer in registry.manifest(reference)["layers"])
    assert stored > GIB and "sha256:" in out
    measured(f"{watch.peak} bytes on disk at most, {watch.resident / MIB:.1f} MiB resident, {watch.samples} samples")
    assert watch.samples > 20, "the push was too short to be watched"
    assert watch.peak < 50 * MIB, watch.at_peak
    assert 0 < watch.resident < 300 * MIB


def test_the_watch_sees_unlinked_and_foreign_files(room):
    """The watch itself must be able to fail: a process that hides 64 MiB in an unlinked file is caught."""
    hide = (
        "import os, sys, tempfile, time\n"
        "for directory in sys.argv[1:]:\n"
        "    file = open(os.path.join(directory, 'hidden'), 'w+b', buffering=0)\n"
        "    file.write(bytes(64 << 20))\n"
        "    os.unlink(file.name)\n"
        "    keep = os.dup(file.fileno())\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"
    )
    (room / "inside").mkdir()
    (room / "outside").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", hide, str(room / "inside"), str(room / "outside")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        watch = Watch([room / "inside"], process.pid)
        time.sleep(0.2)
        watch.stop()
    finally:
        process.kill()
        process.communicate()
    assert watch.peak >= 128 * MIB, watch.at_peak
