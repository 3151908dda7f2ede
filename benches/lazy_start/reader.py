#!/usr/bin/env python3
"""Reads what a profile says an engine reads, with the engine's pauses, and tells how long it waited.

    reader.py --profile FILE --model DIR --started SECONDS [--think-scale X] [--mmap] [--check]

A process of its own, started for each measurement. The time between two accesses of the profile is the engine's own
work: it begins when the access before it is complete, however long that took. --started is the monotonic clock's time at
which the engine's process began. Prints one JSON object.
"""

import argparse
import hashlib
import json
import mmap
import os
import sys
import time


class Files:
    """Files below a directory, read by pread or through a mapping."""

    def __init__(self, directory, mapped):
        self.directory, self.mapped = directory, mapped
        self.open_files = {}

    def read(self, path, at, size):
        file = self.open_files.get(path)
        if file is None:
            descriptor = os.open(os.path.join(self.directory, path), os.O_RDONLY)
            total = os.fstat(descriptor).st_size
            mapping = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) if self.mapped and total else None
            file = self.open_files[path] = (descriptor, mapping)
        descriptor, mapping = file
        if mapping is not None:
            return mapping[at : at + size]
        parts = []
        while size:
            part = os.pread(descriptor, size, at)
            if not part:
                break
            parts.append(part)
            at, size = at + len(part), size - len(part)
        return b"".join(parts)

    def size(self, path):
        return os.stat(os.path.join(self.directory, path)).st_size


def replay(accesses, files, started, scale, check):
    """Times are seconds since `started`."""
    clock = lambda: time.monotonic() - started  # noqa: E731
    result = {"first_weight": None, "waited": 0.0, "waited_small": 0.0, "bytes": 0, "longest_read": 0.0}
    sums, thought, done = {}, 0.0, 0.0
    for access in accesses:
        pause = max(0.0, access["at"] - thought) * scale
        left = done + pause - clock()
        if left > 0:
            time.sleep(left)
        thought = max(thought, access.get("until", access["at"]))
        begin = clock()
        weights = access["path"].endswith(".safetensors")
        if access["kind"] == "missing":
            try:
                files.size(access["path"])
            except FileNotFoundError:
                pass
        elif access["kind"] == "read":
            for at, size in access.get("ranges") or [[0, files.size(access["path"])]]:
                # The first byte of a weight by itself: the engine would see it before the rest.
                if weights and result["first_weight"] is None:
                    files.read(access["path"], at, 1)
                    result["first_weight"] = clock()
                data = files.read(access["path"], at, size)
                if len(data) != size:
                    sys.exit(f"{access['path']}: {len(data)} bytes at {at}, not {size}")
                result["bytes"] += size
                if check:
                    sums.setdefault(access["path"], hashlib.sha256()).update(data)
        done = clock()
        took = done - begin
        result["waited"] += took
        result["longest_read"] = max(result["longest_read"], took)
        if not weights:
            result["waited_small"] += took
    result["last_byte"] = done
    result["sha256"] = {path: each.hexdigest() for path, each in sums.items()}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", required=True)
    parser.add_argument("--model", required=True, help="the model's directory in the container's root file system")
    parser.add_argument("--started", type=float, required=True)
    parser.add_argument("--think-scale", type=float, default=1.0)
    parser.add_argument("--mmap", action="store_true", help="read through mappings, as safetensors does")
    parser.add_argument("--check", action="store_true", help="print the SHA-256 of what was read of each file")
    options = parser.parse_args()
    with open(options.profile) as file:
        accesses = json.load(file)["accesses"]
    files = Files(options.model, options.mmap)
    print(json.dumps(replay(accesses, files, options.started, options.think_scale, options.check)))


if __name__ == "__main__":
    main()
