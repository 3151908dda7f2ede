"""Processes that end with the tests."""

import errno
import os
import signal
import subprocess
import time
from pathlib import Path


class Failed(AssertionError):
    """A command that did not succeed, with what it said."""


def run(*argv, timeout=600, check=True, **kw):
    """Runs a command to its end and gives its CompletedProcess, text captured."""
    argv = [str(a) for a in argv]
    kw.setdefault("stdin", subprocess.DEVNULL)
    done = None
    for attempt in range(3):
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, **kw)
            break
        except OSError as error:
            # Seen once in some hundred starts of large Go programs while memory was short: the kernel could not read the
            # program. It says nothing of what is tested.
            if error.errno != errno.EFAULT or attempt == 2:
                raise
    if check and done.returncode != 0:
        raise Failed(
            f"exit {done.returncode}: {' '.join(argv)}\n--- stdout\n{done.stdout[-4000:]}\n--- stderr\n{done.stderr[-8000:]}"
        )
    return done


def wait_for(what, condition, timeout=30.0, interval=0.02):
    """Waits until condition() is true and gives its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {timeout:g} s")
        time.sleep(interval)


class Process:
    """A daemon with its output in a log file; stopped by its pid."""

    def __init__(self, argv, log, env=None, stdout=None):
        self.argv = [str(a) for a in argv]
        self.log = Path(log)
        self._file = self.log.open("ab")
        self.popen = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout if stdout is not None else self._file,
            stderr=self._file,
            env={**os.environ, **(env or {})},
        )
        self.pid = self.popen.pid

    def alive(self):
        """Raises if the process has ended."""
        if self.popen.poll() is not None:
            raise Failed(f"exit {self.popen.returncode}: {' '.join(self.argv)}\n{self.output()[-6000:]}")
        return True

    def output(self):
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def wait_socket(self, path, timeout=30.0):
        wait_for(f"socket {path} of {self.argv[0]}", lambda: self.alive() and Path(path).exists(), timeout)

    def stop(self, timeout=15.0):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self._file.close()


def mounts(below=None):
    """(source, mount point, type, options) of every mount, of those below a directory if told."""
    out = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, point, kind, options = line.split(" ")[:4]
        point = point.encode().decode("unicode_escape")
        if below is None or point == str(below) or point.startswith(f"{below}/"):
            out.append((source, point, kind, options))
    return out


def unmount_all(below):
    """Unmounts everything below a directory, the newest first."""
    for _ in range(3):
        left = mounts(below)
        for _, point, _, _ in reversed(left):
            subprocess.run(["umount", "-l", point], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if not left:
            return
    left = mounts(below)
    if left:
        raise Failed(f"still mounted: {left}")
