#!/usr/bin/env python3
"""What `starcar verify` reads of an image in a registry, and how fast it reads all of it.

    python3 benches/verify.py [--gib 4] [--repeat 3] [--json FILE]

packs bf16 weights (four shards, small files beside them) on no base into a layout on /dev/shm, and pushes that to a registry
(tests/e2e/go/registry) whose storage lies there too. Then, in turn and several times round:

- `starcar verify`, of the registry: bytes and requests as the registry counts them, and the time;
- `starcar verify --deep` of the layout, and of the registry;
- four SHA-256 passes over the weights on all cores (benches/sha_passes.rs): reading a stored eStargz layer costs four digests of
  every byte, so that is the floor under --deep.

It needs numpy, a release build of starcar (or $STARCAR) and the registry: `tests/e2e/setup`.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tests" / "e2e"))

from consumers.registry import Registry  # noqa: E402
from model_files import MIB, write_model  # noqa: E402
from pack_throughput import ShaPasses, cpu_model, run, tool, warm  # noqa: E402


class Bench:
    def __init__(self, options, directory):
        self.starcar = Path(os.environ.get("STARCAR") or TOP / "target" / "release" / "starcar")
        self.model = write_model(directory / "model", int(options.gib * 1024) * MIB, shards=4, seed=1)
        self.layout = f"oci:{directory / 'image'}"
        self.env = os.environ | {"XDG_CACHE_HOME": str(directory / "cache")}
        self.run("pack", self.model, "-o", self.layout, "--base", "scratch", "--quiet")
        self.registry = Registry(tool("registry"), directory / "registry")
        self.ref = self.registry.ref("bench/model", "v1")
        self.run("push", self.layout, self.ref, "--quiet")
        self.passes = ShaPasses(self.model)

    def run(self, *arguments):
        return run(self.starcar, *arguments, env=self.env)

    def verify(self, image, *arguments):
        """Seconds, what starcar says it read, and what the registry sent."""
        self.registry.reset()
        begin = time.perf_counter()
        process = subprocess.Popen([self.starcar, "verify", image, "--format", "json", *arguments],
                                   env=self.env, stdout=subprocess.PIPE)
        said = json.load(process.stdout)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begin
        if said["findings"]:
            sys.exit(f"{image} is not good: {said['findings'][0]}")
        return {"seconds": seconds, "size": said["size"], "sent": self.registry.bytes_served(),
                "requests": len(self.registry.requests()), "peak": usage.ru_maxrss}

    def measure(self):
        warm(self.model)
        rows = {"quick": self.verify(self.ref), "deep": self.verify(self.layout, "--deep"),
                "deep of the registry": self.verify(self.ref, "--deep")}
        return rows | {"four SHA-256 passes": {"seconds": self.passes.measure()}}


def table(rounds):
    median = {name: statistics.median(each[name]["seconds"] for each in rounds) for name in rounds[0]}
    floor = median["four SHA-256 passes"]
    quick = rounds[0]["quick"]
    lines = [f"quick: {quick['requests']} requests, {quick['sent']:,} of {quick['size']:,} bytes "
             f"({quick['sent'] / quick['size']:.4%}), {median['quick']:.2f} s", "",
             "| what | median s | fastest–slowest s | MB/s | of the floor |", "|---|---|---|---|---|"]
    for name in ("deep", "deep of the registry", "four SHA-256 passes"):
        seconds = [each[name]["seconds"] for each in rounds]
        lines.append(f"| {name} | {median[name]:.2f} | {min(seconds):.2f}–{max(seconds):.2f} "
                     f"| {quick['size'] / median[name] / 1e6:,.0f} | {floor / median[name]:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=4, help="size of the model (default: 4)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--json", type=Path, help="write the results there as JSON too")
    options = parser.parse_args()
    # The model, its layout and what the registry has.
    if shutil.disk_usage("/dev/shm").free < options.gib * 3.1 * 1024 * MIB:
        sys.exit(f"/dev/shm has too little room: {options.gib * 3.1:.0f} GiB are needed")
    # Gigabytes of memory must not stay behind when somebody ends the program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    directory = Path(tempfile.mkdtemp(prefix="starcar-bench-", dir="/dev/shm"))
    bench = None
    try:
        bench = Bench(options, directory)
        rounds = [bench.measure() for _ in range(options.repeat)]
    finally:
        if bench:
            bench.registry.stop()
        shutil.rmtree(directory)
    print(table(rounds))
    peak = max(each[name].get("peak", 0) for each in rounds for name in each)
    print(f"\npeak memory {peak // 1024} MiB; {cpu_model()}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f} at the end")
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=2) + "\n")


if __name__ == "__main__":
    main()
