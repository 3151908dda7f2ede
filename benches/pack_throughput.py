#!/usr/bin/env python3
"""How fast `starcar pack` is, next to what it can be measured against in the same minutes on the same machine.

    python3 benches/pack_throughput.py [--gib 2] [--repeat 5] [--json FILE]

Measures, one after another and several times round, on bf16 weights in four shards with small files beside them:

- `starcar pack` into an OCI layout;
- four SHA-256 passes over the same files on all cores (benches/sha_passes.rs): what the digests of a stored eStargz
  layer cost, and so the floor under packing;
- `ctr-remote image optimize --no-optimize`, which converts an image to eStargz: the same files as plain tar layers,
  already in a containerd content store when the clock starts. It takes minutes per GB, so it gets a smaller model
  (--ctr-mib) of the same make, and speeds are compared, not times.

Everything lies on /dev/shm, so no disk is measured; inputs are read once before each run. It needs numpy, a release
build of starcar (or $STARCAR) and, for the third, Debian's stargz-snapshotter and a containerd: `tests/e2e/setup`
installs and builds both.
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tests" / "e2e"))

from model_files import MIB, write_model  # noqa: E402

BUILT = TOP / ".build" / "e2e" / "bin"


def run(*command, **options):
    """Run a command to its end; returns its stdout, or ends with what it said."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def tool(name):
    """A command built by tests/e2e/setup, or the one in PATH."""
    found = BUILT / name if (BUILT / name).exists() else shutil.which(name)
    if not found:
        sys.exit(f"{name} is missing: run tests/e2e/setup, or leave the comparison out with --no-ctr")
    return found


def size_of(model):
    return sum(path.stat().st_size for path in model.iterdir())


def warm(model):
    """Read every file once, so that each run begins with the same page cache."""
    for path in model.iterdir():
        with open(path, "rb", buffering=0) as file:
            while file.read(4 * MIB):
                pass


class Starcar:
    name = "starcar pack"

    def __init__(self, binary, model, directory, threads):
        self.binary, self.model, self.layout = binary, model, directory / "starcar.oci"
        self.arguments = ["--threads", threads] if threads else []

    def measure(self):
        """Seconds of one pack into a new layout."""
        begin = time.perf_counter()
        run(self.binary, "pack", self.model, "-o", f"oci:{self.layout}", "--base", "scratch", "--quiet", *self.arguments,
            env=os.environ | {"XDG_CACHE_HOME": str(self.layout.parent / "cache")})
        seconds = time.perf_counter() - begin
        shutil.rmtree(self.layout)
        shutil.rmtree(self.layout.parent / "cache", ignore_errors=True)
        return seconds


class ShaPasses:
    name = "four SHA-256 passes"

    def __init__(self, model):
        self.model = model
        said = run("cargo", "bench", "--bench", "sha_passes", "--no-run", "--message-format=json", cwd=TOP)
        messages = [json.loads(line) for line in said.splitlines()]
        self.binary = next(each["executable"] for each in messages
                           if each.get("executable") and each["target"]["name"] == "sha_passes")

    def measure(self):
        """Seconds as the program measures them, without its start."""
        said = json.loads(run(self.binary, *sorted(self.model.iterdir())))
        assert said["bytes"] == size_of(self.model) and said["passes"] == 4
        return said["seconds"]


class CtrRemote:
    name = "ctr-remote image optimize --no-optimize"
    source, target = "bench.local/plain:v1", "bench.local/estargz:v1"

    def __init__(self, model, directory):
        self.model, self.directory = model, directory / "containerd"
        self.directory.mkdir()
        self.socket = self.directory / "containerd.sock"
        config = self.directory / "config.toml"
        config.write_text(f'version = 2\nroot = "{self.directory}/root"\nstate = "{self.directory}/state"\n'
                          'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                          f'[grpc]\naddress = "{self.socket}"\n')
        self.log = open(self.directory / "log", "wb")
        self.containerd = subprocess.Popen([tool("containerd"), "--config", config], stdout=self.log, stderr=self.log)
        try:
            self._import()
        except BaseException:
            self.close()
            raise

    def _import(self):
        deadline = time.monotonic() + 30
        while subprocess.run(self._ctr("version"), capture_output=True).returncode != 0:
            if self.containerd.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"containerd does not answer: {(self.directory / 'log').read_text()}")
            time.sleep(0.1)
        archive = self.directory / "plain.tar"
        write_plain_image(self.model, archive, self.source)
        run(*self._ctr("images", "import", "--no-unpack", archive))
        archive.unlink()

    def _ctr(self, *arguments):
        return [tool("ctr"), "-a", self.socket, *arguments]

    def measure(self):
        """Seconds of one conversion; what it made is removed, so that the next one does the work again."""
        begin = time.perf_counter()
        run(tool("ctr-remote"), "-a", self.socket, "image", "optimize", "--oci", "--no-optimize",
            self.source, self.target)
        seconds = time.perf_counter() - begin
        run(*self._ctr("images", "rm", "--sync", self.target))
        return seconds

    def close(self):
        self.containerd.terminate()
        self.containerd.wait()
        self.log.close()


def write_plain_image(model, archive, reference):
    """An OCI archive of the model as `COPY` would make it: one uncompressed tar layer per file."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch, tarfile.open(archive, "w") as out:
        def add(content, name):
            path = Path(scratch) / "entry"
            if isinstance(content, bytes):
                path.write_bytes(content)
                content = path
            out.add(content, name)

        def blob(content, media_type):
            path = content if isinstance(content, Path) else None
            if path is None:
                digest, size = hashlib.sha256(content).hexdigest(), len(content)
            else:
                with open(path, "rb") as file:
                    digest, size = hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
            add(content, f"blobs/sha256/{digest}")
            return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}

        layers = []
        for path in sorted(model.iterdir()):
            layer = Path(scratch) / "layer.tar"
            with tarfile.open(layer, "w") as tar:
                tar.add(path, f"models/{path.name}")
            layers.append(blob(layer, "application/vnd.oci.image.layer.v1.tar"))
        config = {"architecture": "amd64", "os": "linux", "config": {},
                  "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
                    "layers": layers}
        listed = blob(json.dumps(manifest).encode(), manifest["mediaType"])
        listed["annotations"] = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": "v1"}
        add(json.dumps({"schemaVersion": 2, "manifests": [listed]}).encode(), "index.json")
        add(b'{"imageLayoutVersion":"1.0.0"}', "oci-layout")


def summary(contender, times, cpu):
    size = size_of(contender.model)
    median = statistics.median(times)
    return {"name": contender.name, "bytes": size, "seconds": [round(each, 4) for each in times],
            "median_seconds": round(median, 4), "median_mb_per_s": round(size / median / 1e6, 1),
            "slowest_mb_per_s": round(size / max(times) / 1e6, 1), "fastest_mb_per_s": round(size / min(times) / 1e6, 1),
            "median_cpu_seconds_per_gb": round(statistics.median(cpu) / size * 1e9, 2)}


def cpu_seconds():
    """CPU time of all commands that have ended. containerd, which does a little of ctr-remote's work, runs on."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_all(contenders, repeat):
    """Times by contender: interleaved, so that a slow minute of the machine falls on all of them."""
    times = {contender.name: [] for contender in contenders}
    for round_number in range(repeat + 1):
        for contender in contenders:
            warm(contender.model)
            before = cpu_seconds()
            seconds = contender.measure()
            cpu = cpu_seconds() - before
            # The first round only warms up.
            if round_number:
                times[contender.name].append((seconds, cpu))
            print(f"round {round_number}: {contender.name}: {seconds:.2f} s, CPU {cpu:.2f} s", file=sys.stderr)
    return [summary(contender, *zip(*times[contender.name])) for contender in contenders]


def table(results):
    pack = results[0]["median_mb_per_s"]
    lines = ["| what | bytes | median s | median MB/s | slowest–fastest MB/s | CPU s/GB | starcar is |",
             "|---|---|---|---|---|---|---|"]
    for each in results:
        ratio = f"{pack / each['median_mb_per_s']:.2f}×"
        lines.append(f"| {each['name']} | {each['bytes']:,} | {each['median_seconds']:.2f} | {each['median_mb_per_s']:,.0f} "
                     f"| {each['slowest_mb_per_s']:,.0f}–{each['fastest_mb_per_s']:,.0f} | {each['median_cpu_seconds_per_gb']:.2f} | {ratio} |")
    return "\n".join(lines)


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=2, help="size of the model (default: 2)")
    parser.add_argument("--ctr-mib", type=int, default=256, help="size of the model for ctr-remote (default: 256)")
    parser.add_argument("--repeat", type=int, default=5, help="measured rounds, after one that is not (default: 5)")
    parser.add_argument("--threads", type=int, help="--threads for starcar (default: its own)")
    parser.add_argument("--no-ctr", action="store_true", help="leave ctr-remote out")
    parser.add_argument("--json", type=Path, help="write the results there as JSON too")
    options = parser.parse_args()

    binary = Path(os.environ.get("STARCAR") or TOP / "target" / "release" / "starcar")
    # Gigabytes of memory must not stay behind when somebody ends the program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    directory = Path(tempfile.mkdtemp(prefix="starcar-bench-", dir="/dev/shm"))
    contenders = []
    try:
        model = write_model(directory / "model", int(options.gib * 1024) * MIB, shards=4, seed=1)
        contenders.append(Starcar(binary, model, directory, options.threads))
        contenders.append(ShaPasses(model))
        if not options.no_ctr:
            small = write_model(directory / "small", options.ctr_mib * MIB, shards=4, seed=2)
            contenders.append(CtrRemote(small, directory))
        results = measure_all(contenders, options.repeat)
    finally:
        for contender in contenders:
            if isinstance(contender, CtrRemote):
                contender.close()
        shutil.rmtree(directory)
    print(table(results))
    about = {"cpu": cpu_model(), "cores": os.cpu_count(), "load": os.getloadavg(),
             "starcar": run(binary, "--version").strip(), "results": results}
    print(f"\n{about['cpu']}, {about['cores']} cores, load {about['load'][0]:.1f} at the end, {about['starcar']}")
    if options.json:
        options.json.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
