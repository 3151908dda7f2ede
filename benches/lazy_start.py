#!/usr/bin/env python3
"""How soon an engine has its weights on a node that has never seen the image, over a link like a real one.

    python3 benches/lazy_start.py [--link 1gbit:20ms] [--rounds 3] [--rows small,all] [--nodes default] [--json FILE]

Makes a model and a profile of an engine's start on it, packs the model in the ways that benches/lazy_start/rows.py lists,
and starts each image cold: containerd and a stargz snapshotter with fresh state live in a network namespace behind a link
of the given bandwidth and round-trip time, pull the image from a registry on the other side, and run a container in
whose root file system a reader does what the profile says, pauses included. Prints a Markdown table for each link.

Needs root and what tests/e2e/setup installs and builds, numpy, and a release build of starcar (or $STARCAR).
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tests" / "e2e"))

from consumers.proc import Failed  # noqa: E402
from consumers.registry import Registry  # noqa: E402
from consumers.trees import sha256_of  # noqa: E402

from lazy_start import model as models, report, rows  # noqa: E402
from lazy_start.images import Images  # noqa: E402
from lazy_start.link import Link  # noqa: E402
from lazy_start.start import Bench  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--link", action="append", help="bandwidth and round-trip time, as 200mbit:50ms (repeatable; default 1gbit:20ms)")
    add("--mib", type=int, default=1200, help="size of the weights (default: 1200)")
    add("--shards", type=int, default=4)
    add("--second-format", action="store_true", help="add weights in a format that the engine does not read")
    add("--think-scale", type=float, default=0.45,
        help="factor of the engine's pauses (default: 0.45, the recorded engine without strace)")
    add("--mmap", action="store_true", help="read through mappings, as safetensors does, instead of pread")
    add("--check", action="store_true", help="compare the SHA-256 of what was read with the model's files")
    add("--rounds", type=int, default=3)
    add("--rows", help="keys, comma-separated (default: all): " + ", ".join(row.key for row in rows.ROWS))
    add("--pack", action="append", default=[], metavar="KEY=ARGUMENTS", help="one more row, packed with these arguments")
    add("--nodes", help="names, comma-separated (default: all): " + ", ".join(rows.NODES))
    add("--node", action="append", default=[], metavar="NAME=FILE", help="one more config.toml for the snapshotter")
    add("--settle", type=float, default=30, help="longest wait for the end of background fetch (default: 30)")
    add("--work", type=Path, help="keep model and images there for the next run (default: a temporary directory)")
    add("--json", type=Path, help="write all numbers there")
    return parser.parse_args()


def prepare_model(directory, options):
    """(model, profile, record) for the options, made if they are not there yet."""
    at = directory / f"model-{options.mib}-{options.shards}{'-second' * options.second_format}"
    if not (at / "done").exists():
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir(parents=True)
        model = models.generate(at / "model", options.mib, options.shards, options.second_format)
        profile = models.profile(model)
        (at / "profile.json").write_text(json.dumps(profile))
        (at / "record.json").write_text(models.ctr_record(profile))
        (at / "done").touch()
    return at / "model", at / "profile.json", at / "record.json"


def check(result, model, expected):
    """Fails unless the reader saw the model's bytes. The profile reads every byte of a shard, small files repeatedly."""
    for path, got in result["sha256"].items():
        if path.endswith(".safetensors"):
            want = expected.setdefault(path, sha256_of(model / path))
            if want != got:
                raise Failed(f"{path}: the container has other bytes than the model")
    return len(result["sha256"])


def measure(bench, images, chosen, nodes, options, model, measured):
    """All rows on all nodes, round by round, so that a slow minute of the machine falls on all of them."""
    of_row = lambda row: ["-"] if row.eager else [node for node in nodes if node in (row.nodes or nodes)]  # noqa: E731
    plan = [(row, node) for row in chosen for node in of_row(row)]
    measured += [{"row": row.key, "title": row.title, "node": node, "image": images.make(row), "results": []}
                 for row, node in plan]
    expected = {}
    for number in range(1, options.rounds + 1):
        for (row, node), each in zip(plan, measured):
            try:
                result = bench.start(row, each["image"], nodes.get(node, ""))
                if options.check:
                    check(result, model, expected)
            except (Failed, RuntimeError) as error:
                each["error"] = str(error).splitlines()[0][:100]
                print(f"round {number}: {row.key} on {node}: {error}", file=sys.stderr)
                continue
            each["results"].append(result)
            shown = {name: round(result[name], 2) for name in result if isinstance(result[name], float)}
            print(f"round {number}: {row.key} on {node}: {shown}", file=sys.stderr)


def main():
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("containerd and its snapshotter need root")
    bin_dir = Path(os.environ.get("E2E_BIN", TOP / ".build/e2e/bin"))
    starcar = Path(os.environ.get("STARCAR") or TOP / "target/release/starcar")
    for needed in (bin_dir / "link", bin_dir / "snapshotter", starcar):
        if not needed.exists():
            sys.exit(f"{needed} is missing: run tests/e2e/setup and cargo build --release")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    chosen = rows.choose(options.rows.split(",") if options.rows is not None else None, options.pack)
    nodes = dict(rows.NODES)
    if options.nodes is not None:
        nodes = {name: rows.NODES[name] for name in options.nodes.split(",") if name}
    for each in options.node:
        name, _, file = each.partition("=")
        nodes[name] = Path(file).read_text()
    directory = options.work or Path(tempfile.mkdtemp(prefix="starcar-bench-"))
    about = {"options": {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()},
             "machine": report.machine(bin_dir, starcar), "nodes": nodes, "links": []}
    try:
        model, profile, record = prepare_model(directory, options)
        store = model.parent / "registry"
        for text in options.link or ["1gbit:20ms"]:
            with Link(bin_dir, directory / "link", text) as link:
                registry = Registry(bin_dir / "registry", store, f"{link.host}:0")
                try:
                    images = Images(registry, starcar, bin_dir, store, model, {"profile": str(profile), "record": str(record)})
                    for row in chosen:
                        print(f"{row.key}: {images.make(row)['seconds']} s to make", file=sys.stderr)
                    largest = max((each for row in chosen for each in images.make(row)["digests"]),
                                  key=lambda digest: registry.blob_file(digest).stat().st_size)
                    name = next(made["name"] for made in images.made.values() if largest in made["digests"])
                    found = link.measure(f"{registry.url}/v2/{name}/blobs/{largest}")
                    print(f"\n{text}: a download makes {found['mbit_per_s']:.0f} Mbit/s, "
                          f"a connection takes {found['rtt_ms']:.1f} ms\n", flush=True)
                    bench = Bench(bin_dir, directory, registry, link, profile, options)
                    # What is measured is in the JSON file even when the program is ended.
                    about["links"].append({"link": text, "measured": found, "rows": []})
                    measure(bench, images, chosen, nodes, options, model, about["links"][-1]["rows"])
                finally:
                    registry.stop()
            about["links"][-1]["carried"] = link.carried
            print(report.table(about["links"][-1]["rows"]), flush=True)
    finally:
        if not options.work:
            shutil.rmtree(directory, ignore_errors=True)
        about["load"] = os.getloadavg()
        if options.json:
            options.json.write_text(json.dumps(about, indent=1) + "\n")
    facts = ", ".join(f"{name} {value}" for name, value in about["machine"].items())
    print(f"\n{options.mib} MiB in {options.shards} shards, pauses × {options.think_scale:g}, medians of {options.rounds}; "
          f"{facts}, load {about['load'][0]:.1f} at the end")


if __name__ == "__main__":
    main()
