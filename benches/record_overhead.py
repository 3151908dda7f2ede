#!/usr/bin/env python3
"""How much longer reading takes below `starcar record`: see README.md.

Reads a model's weights whole, by read() and through a mapping, directly and recorded with several read-aheads, in turn.
The reader times itself; starting it and mounting do not count. Needs numpy; root for read-aheads over 128 KiB.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tests/e2e"))

from model_files import MIB, write_model  # noqa: E402

BLOCK = 16 * MIB
READ_AHEADS = ["0", "128KiB", "1MiB"]


def read(directory, way):
    """Reads all shards; returns seconds."""
    import mmap

    import numpy
    block = numpy.empty(BLOCK, numpy.uint8)
    begin = time.monotonic()
    for path in sorted(Path(directory).glob("*.safetensors")):
        file = os.open(path, os.O_RDONLY)
        if way == "read":
            while os.readv(file, [block]):
                pass
        else:
            memory = numpy.frombuffer(mmap.mmap(file, 0, prot=mmap.PROT_READ), numpy.uint8)
            for offset in range(0, len(memory), BLOCK):
                piece = memory[offset:offset + BLOCK]
                block[:len(piece)] = piece
        os.close(file)
    return time.monotonic() - begin


def forget(model):
    """Takes the model out of the page cache."""
    os.sync()
    for path in model.iterdir():
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def measure(options, model, way, read_ahead):
    reader = [sys.executable, __file__, "--reader", way]
    if read_ahead is None:
        command = [*reader, str(model)]
    else:
        command = [options.starcar, "record", str(model), "-q", "-o", str(model.parent / "profile.json"),
                   "--read-ahead", read_ahead, "--", *reader, "{model}"]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starcar", default=str(TOP / "target/release/starcar"))
    parser.add_argument("--mib", type=int, default=1024, help="size of the weights (default: 1024)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", help="where the model is written (default: a temporary directory)")
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    parser.add_argument("model", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        print(read(options.model, options.reader))
        return
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        model = write_model(Path(scratch) / "model", options.mib * MIB, shards=2)
        cases = [(way, state, ahead) for way in ("read", "mmap") for state in ("warm", "cold")
                 for ahead in (None, *READ_AHEADS) if way == "mmap" or ahead in (None, "0")]
        times = {case: [] for case in cases}
        read(model, "read")
        for _ in range(options.rounds):
            for way, state, ahead in cases:
                if state == "cold":
                    forget(model)
                times[way, state, ahead].append(measure(options, model, way, ahead))
    print("| reader | source | | median s | MB/s | times as long |\n|---|---|---|---|---|---|")
    for (way, state, ahead), seconds in times.items():
        median = statistics.median(seconds)
        direct = statistics.median(times[way, state, None])
        what = "directly" if ahead is None else "recorded" + (f", read-ahead {ahead}" if way == "mmap" else "")
        print(f"| {'read()' if way == 'read' else way} | {state} | {what} | {median:.2f} |"
              f" {options.mib * MIB / median / 1e6:.0f} | {median / direct:.2f} |")
    print(json.dumps({" ".join(map(str, case)): seconds for case, seconds in times.items()}), file=sys.stderr)


if __name__ == "__main__":
    main()
