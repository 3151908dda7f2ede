#!/usr/bin/env python3
"""How long a model takes to a registry on loopback: `starcar pack --push`, and what else brings one there.

    python3 benches/push_throughput.py [--gib 2] [--repeat 3] [--olot FILE] [--json FILE]

Measures, in turn and several times round, on bf16 weights in four shards with small files beside them:

- `starcar pack --push` of a model that starcar has never seen: it is hashed, and then sent;
- the same with a warm digest cache: the registry has nothing, but nothing has to be hashed first;
- the same when the registry has everything;
- `starcar push` of the finished layout, and `skopeo copy` of that layout: sending alone;
- `olot` on a copy of a small base layout and `skopeo copy` of what it made: today's way to a modelcar, with
  `--preserve-digests`, as skopeo would compress the layers on their way otherwise.

The registry is distribution v3 (tests/e2e/go/registry), emptied before each run; it hashes what it receives and writes
it to /dev/shm, where everything else lies too: no disk and no network is measured. Inputs are read once before each run.
It needs numpy, a release build of starcar (or $STARCAR), skopeo and the registry (`tests/e2e/setup`), umoci, and
olot 1.2.1 (`pip install olot`, in an environment of its own; --olot names the command).
"""

import argparse
import json
import os
import resource
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
from pack_throughput import cpu_model  # noqa: E402

BUILT = Path(os.environ.get("E2E_BIN") or TOP / ".build" / "e2e" / "bin")


def run(*command, **options):
    """Run a command to its end; returns its stdout, or ends with what it said."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def warm(directory):
    """Read every file once, so that each run begins with the same page cache."""
    for path in directory.rglob("*"):
        if path.is_file():
            with open(path, "rb", buffering=0) as file:
                while file.read(4 * MIB):
                    pass


class Bench:
    """The model, its finished layout, and the registry that all push to."""

    def __init__(self, options, directory):
        self.dir = directory
        self.starcar = Path(os.environ.get("STARCAR") or TOP / "target" / "release" / "starcar")
        self.olot = options.olot
        self.model = write_model(directory / "model", int(options.gib * 1024) * MIB, shards=4, seed=1)
        self.bytes = sum(path.stat().st_size for path in self.model.iterdir())
        self.layout = directory / "image.oci"
        (directory / "cache" / "warm").mkdir(parents=True)
        # Also fills the cache of digests that the warm runs have.
        self.run_starcar("warm", "pack", self.model, "-o", f"oci:{self.layout}", "--base", "scratch")
        if self.olot:
            self.base = directory / "base.oci"
            run("umoci", "init", "--layout", self.base)
            run("umoci", "new", "--image", f"{self.base}:latest")
            # It refuses a base without layers.
            run("umoci", "insert", "--image", f"{self.base}:latest", "/bin/busybox", "/bin/busybox")
            run("umoci", "gc", "--layout", self.base)
        self.registry = Registry(BUILT / "registry", directory / "registry")
        self.ref = self.registry.ref("bench/model", "v1")

    def run_starcar(self, cache, *arguments):
        # A cache of its own for each kind of run: one that nothing knows of, unless it is to be warm.
        env = os.environ | {"XDG_CACHE_HOME": str(self.dir / "cache" / cache), "HOME": str(self.dir)}
        env.pop("STARCAR_DIGEST_CACHE", None)
        return run(self.starcar, *arguments, "--quiet", env=env)

    def forget(self, cache):
        shutil.rmtree(self.dir / "cache" / cache, ignore_errors=True)

    def pack_push(self, cache):
        self.run_starcar(cache, "pack", self.model, "-t", self.ref, "--push", "--plain-http", "--base", "scratch")

    def skopeo(self, layout, *arguments):
        run("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *arguments, f"oci:{layout}", f"docker://{self.ref}")

    def stop(self):
        self.registry.stop()


class Contender:
    """One way to push: what is made ready before the clock starts, and what is timed."""

    def __init__(self, name, ready, timed, sends=True):
        self.name, self.ready, self.timed, self.sends = name, ready, timed, sends


def contenders(bench):
    def cold():
        bench.forget("cold")

    def digests_only():
        # Uploads and blobs that are known are another kind of memory: a registry that lost everything is asked anew.
        bench.forget("again")
        shutil.copytree(bench.dir / "cache" / "warm", bench.dir / "cache" / "again")

    def full():
        bench.pack_push("full")
        bench.registry.reset()

    def olot():
        copy = bench.dir / "olot.oci"
        shutil.copytree(bench.base, copy)
        run(bench.olot, copy, *sorted(bench.model.iterdir()))
        bench.skopeo(copy, "--preserve-digests")

    found = [
        Contender("starcar pack --push, cold", cold, lambda: bench.pack_push("cold")),
        Contender("starcar pack --push, warm digest cache", digests_only, lambda: bench.pack_push("again")),
        Contender("starcar pack --push, registry has it", full, lambda: bench.pack_push("full"), sends=False),
        Contender("starcar push of the layout", lambda: bench.forget("push"),
                  lambda: bench.run_starcar("push", "push", f"oci:{bench.layout}", bench.ref)),
        Contender("skopeo copy of the layout", lambda: None, lambda: bench.skopeo(bench.layout)),
    ]
    if bench.olot:
        found.append(Contender("olot, then skopeo copy", lambda: shutil.rmtree(bench.dir / "olot.oci", ignore_errors=True), olot))
    return found


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_all(bench, repeat):
    each, times = contenders(bench), {}
    for number in range(repeat + 1):
        for contender in each:
            bench.registry.forget()
            contender.ready()
            warm(bench.model)
            before, begin = cpu_seconds(), time.perf_counter()
            contender.timed()
            seconds, cpu = time.perf_counter() - begin, cpu_seconds() - before
            received = bench.registry.bytes_received()
            if contender.sends and received < bench.bytes * 0.99 or not contender.sends and received:
                sys.exit(f"{contender.name}: the registry received {received} bytes, so something else was measured")
            # The first round only warms up.
            if number:
                times.setdefault(contender.name, []).append((seconds, cpu))
            print(f"round {number}: {contender.name}: {seconds:.2f} s, CPU {cpu:.2f} s", file=sys.stderr)
            shutil.rmtree(bench.dir / "olot.oci", ignore_errors=True)
    return [summary(name, bench.bytes, *zip(*pairs)) for name, pairs in times.items()]


def summary(name, size, seconds, cpu):
    return {"name": name, "bytes": size, "seconds": seconds, "median_seconds": statistics.median(seconds),
            "fastest_seconds": min(seconds), "slowest_seconds": max(seconds),
            "median_mb_per_s": size / statistics.median(seconds) / 1e6, "median_cpu_seconds": statistics.median(cpu)}


def table(results):
    first = results[0]["median_seconds"]
    lines = ["| what | median s | fastest–slowest s | median MB/s | CPU s, the registry's left out | of the cold push's time |",
             "|---|---|---|---|---|---|"]
    for each in results:
        lines.append(f"| {each['name']} | {each['median_seconds']:.2f} | {each['fastest_seconds']:.2f}–{each['slowest_seconds']:.2f} "
                     f"| {each['median_mb_per_s']:,.0f} | {each['median_cpu_seconds']:.2f} | {each['median_seconds'] / first:.2f}× |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=2, help="size of the model (default: 2)")
    parser.add_argument("--repeat", type=int, default=3, help="measured rounds, after one that is not (default: 3)")
    parser.add_argument("--olot", default=shutil.which("olot"), help="the olot command (default: the one in PATH)")
    parser.add_argument("--no-olot", action="store_true", help="leave olot out")
    parser.add_argument("--json", type=Path, help="write the results there as JSON too")
    options = parser.parse_args()
    if options.no_olot:
        options.olot = None
    elif not options.olot or not shutil.which(options.olot):
        sys.exit("olot is missing: pip install olot==1.2.1 and name it with --olot, or leave it out with --no-olot")
    # The model, its layout, what the registry has and what olot makes of it.
    if shutil.disk_usage("/dev/shm").free < options.gib * 4.5 * 1024 * MIB:
        sys.exit(f"/dev/shm has too little room: {options.gib * 4.5:.0f} GiB are needed")

    # Gigabytes of memory must not stay behind when somebody ends the program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    directory = Path(tempfile.mkdtemp(prefix="starcar-bench-", dir="/dev/shm"))
    bench = None
    try:
        bench = Bench(options, directory)
        results = measure_all(bench, options.repeat)
    finally:
        if bench:
            bench.stop()
        shutil.rmtree(directory)
    print(table(results))
    about = {"cpu": cpu_model(), "cores": os.cpu_count(), "load": os.getloadavg(),
             "starcar": run(bench.starcar, "--version").strip(), "results": results}
    print(f"\n{about['cpu']}, {about['cores']} cores, load {about['load'][0]:.1f} at the end, {about['starcar']}")
    if options.json:
        options.json.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
