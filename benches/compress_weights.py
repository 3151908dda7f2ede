#!/usr/bin/env python3
"""How fast `starcar pack --compress-weights` is and how small it makes weights, next to what else compresses them.

    python3 benches/compress_weights.py [--mib 1024] [--repeat 3] [--json FILE]

Measures, one after another and several times round, on weights in bf16 (N(0, 0.02), four shards, small files beside them):

- `starcar pack --compress-weights` into an OCI layout, in both formats;
- `ctr-remote image optimize --no-optimize` at gzip levels 1 and 9, and with `--zstdchunked`: the same kind of tree as plain
  tar layers, already in a containerd content store when the clock starts. It takes a minute and more for each GB, so it
  gets a smaller model (--ctr-mib), and speeds and ratios are compared;
- `zstd -1 -T0` of a tar archive of the same files, which makes no image and no digests.

Everything lies on /dev/shm, so no disk is measured; inputs are read once before each run. It needs numpy, zstd, a release
build of starcar (or $STARCAR) and Debian's stargz-snapshotter and a containerd: `tests/e2e/setup` installs and builds both.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from pack_throughput import MIB, TOP, CtrRemote, cpu_model, cpu_seconds, run, size_of, tool, warm, write_model


class Starcar:
    def __init__(self, binary, model, directory, layer_format):
        self.name = f"starcar pack --compress-weights, {layer_format}"
        self.binary, self.model, self.format = binary, model, layer_format
        self.layout, self.cache = directory / "starcar.oci", directory / "cache"

    def measure(self):
        """Seconds of one pack into a new layout, and the bytes of its layers."""
        begin = time.perf_counter()
        said = run(self.binary, "pack", self.model, "-o", f"oci:{self.layout}", "--base", "scratch", "--quiet",
                   "--compress-weights", "--layer-format", self.format, "--format", "json",
                   env=os.environ | {"XDG_CACHE_HOME": str(self.cache)})
        seconds = time.perf_counter() - begin
        shutil.rmtree(self.layout)
        shutil.rmtree(self.cache, ignore_errors=True)
        return seconds, sum(layer["size"] for layer in json.loads(said)["layers"])


class Converter:
    """ctr-remote with options; all of them share one containerd and one image to convert."""

    def __init__(self, shared, *options):
        self.name = " ".join(["ctr-remote image optimize", *options])
        self.shared, self.model, self.options = shared, shared.model, options

    def measure(self):
        ctr = self.shared._ctr
        begin = time.perf_counter()
        run(tool("ctr-remote"), "-a", self.shared.socket, "image", "optimize", "--oci", "--no-optimize", *self.options,
            self.shared.source, self.shared.target)
        seconds = time.perf_counter() - begin
        listed = run(*ctr("images", "ls", f"name=={self.shared.target}")).splitlines()[1].split()
        document = json.loads(run(*ctr("content", "get", next(word for word in listed if word.startswith("sha256:")))))
        while "layers" not in document:
            document = json.loads(run(*ctr("content", "get", document["manifests"][0]["digest"])))
        run(*ctr("images", "rm", "--sync", self.shared.target))
        return seconds, sum(layer["size"] for layer in document["layers"])


class Zstd:
    name = "zstd -1 -T0 of the tar"

    def __init__(self, model, directory):
        self.model, self.tar, self.out = model, directory / "model.tar", directory / "model.tar.zst"
        with tarfile.open(self.tar, "w") as tar:
            tar.add(model, "models")

    def measure(self):
        begin = time.perf_counter()
        run("zstd", "-1", "-T0", "-q", "-f", self.tar, "-o", self.out)
        return time.perf_counter() - begin, self.out.stat().st_size


def measure_all(contenders, repeat):
    """What each made of it: interleaved, so that a slow minute of the machine falls on all of them."""
    runs = {contender.name: [] for contender in contenders}
    for number in range(repeat):
        for contender in contenders:
            warm(contender.model)
            before = cpu_seconds()
            seconds, size = contender.measure()
            cpu = cpu_seconds() - before
            runs[contender.name].append((seconds, cpu, size))
            print(f"round {number + 1}: {contender.name}: {seconds:.2f} s, CPU {cpu:.2f} s, {size:,} bytes",
                  file=sys.stderr)
    results = []
    for contender in contenders:
        seconds, cpu, sizes = zip(*runs[contender.name])
        size, median = size_of(contender.model), statistics.median(seconds)
        results.append({
            "name": contender.name, "bytes": size, "made": sizes[-1], "ratio": round(sizes[-1] / size, 5),
            "median_seconds": round(median, 3), "median_mb_per_s": round(size / median / 1e6, 1),
            "slowest_mb_per_s": round(size / max(seconds) / 1e6, 1), "fastest_mb_per_s": round(size / min(seconds) / 1e6, 1),
            "cpu_seconds_per_gb": round(statistics.median(cpu) / size * 1e9, 2),
        })
    return results


def table(results):
    """Rows, with speed and size as parts of the first row's."""
    first = results[0]
    lines = ["| what | bytes | median s | median MB/s | slowest–fastest MB/s | CPU s/GB | of the original's size "
             "| starcar's eStargz is as fast, as large |",
             "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for each in results:
        faster = first["median_mb_per_s"] / each["median_mb_per_s"]
        larger = first["ratio"] / each["ratio"]
        lines.append(
            f"| {each['name']} | {each['bytes']:,} | {each['median_seconds']:.2f} | {each['median_mb_per_s']:,.0f} "
            f"| {each['slowest_mb_per_s']:,.0f}–{each['fastest_mb_per_s']:,.0f} | {each['cpu_seconds_per_gb']:.2f} "
            f"| {each['ratio']:.4f} | {faster:.2f}×, {larger:.4f}× |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the model (default: 1024)")
    parser.add_argument("--ctr-mib", type=int, default=256, help="size of the model for ctr-remote (default: 256)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--no-ctr", action="store_true", help="leave ctr-remote out")
    parser.add_argument("--json", type=Path, help="write the results there as JSON too")
    options = parser.parse_args()

    binary = Path(os.environ.get("STARCAR") or TOP / "target" / "release" / "starcar")
    # Gigabytes of memory must not stay behind when somebody ends the program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    directory = Path(tempfile.mkdtemp(prefix="starcar-bench-", dir="/dev/shm"))
    converter = None
    try:
        model = write_model(directory / "model", options.mib * MIB, shards=4, seed=1)
        contenders = [Starcar(binary, model, directory, each) for each in ("estargz", "zstd:chunked")]
        contenders.append(Zstd(model, directory))
        if not options.no_ctr:
            small = write_model(directory / "small", options.ctr_mib * MIB, shards=4, seed=2)
            converter = CtrRemote(small, directory)
            for level in (1, 9):
                contenders.append(Converter(converter, "--estargz-compression-level", str(level)))
            contenders.append(Converter(converter, "--zstdchunked"))
        load = os.getloadavg()
        results = measure_all(contenders, options.repeat)
    finally:
        if converter:
            converter.close()
        shutil.rmtree(directory)
    print(table(results))
    about = {"cpu": cpu_model(), "cores": os.cpu_count(), "load_before": load, "load": os.getloadavg(),
             "starcar": run(binary, "--version").strip(), "zstd": run("zstd", "--version").strip(), "results": results}
    print(f"\n{about['cpu']}, {about['cores']} cores, load {load[0]:.1f} before and {about['load'][0]:.1f} at the end, "
          f"{about['starcar']}")
    if options.json:
        options.json.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
