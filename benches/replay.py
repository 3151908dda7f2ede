#!/usr/bin/env python3
"""How far `starcar replay` is off: the same start on a real node and replayed, in turn, over the same shaped link.

    python3 benches/replay.py [--link 1gbit:20ms] [--rounds 3] [--rows small:default,auto-recommended:recommended] [--json FILE]

The node, the link, the model, its profile and the images are those of benches/lazy_start.py. The real start is a reader that does
what the profile says in a container whose root file system a fresh containerd and a fresh stargz snapshotter mount lazily.
The replay is `starcar replay` in the same network namespace. Prints a Markdown table for each link.

Needs root and what tests/e2e/setup installs and builds, numpy, and a release build of starcar (or $STARCAR).
"""

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tests" / "e2e"))

from consumers.proc import Failed, run  # noqa: E402
from consumers.registry import Registry  # noqa: E402

from lazy_start import model as models, report, rows  # noqa: E402
from lazy_start.images import Images  # noqa: E402
from lazy_start.link import Link  # noqa: E402
from lazy_start.start import Bench, warm  # noqa: E402

COLUMNS = ["image", "node", "running, s: node", "replay", "ratio", "first weight, s: node", "replay", "last byte, s: node", "replay",
           "ratio", "of each round", "MB: node", "replay", "requests: node", "replay", "CPU, s: node", "replay"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--link", action="append", help="bandwidth and round-trip time, as 200mbit:50ms (repeatable; default 1gbit:20ms)")
    add("--mib", type=int, default=1200, help="size of the weights (default: 1200)")
    add("--shards", type=int, default=4)
    add("--think-scale", type=float, default=0.45, help="factor of the engine's pauses (default: 0.45)")
    add("--rounds", type=int, default=3)
    add("--rows", default="none:default,small:default,small:recommended,auto-recommended:recommended",
        help="image:node, comma-separated (default: %(default)s)")
    add("--work", type=Path, help="keep model and images there for the next run (default: a temporary directory)")
    add("--json", type=Path, help="write all numbers there")
    options = parser.parse_args()
    # What lazy_start's start looks at: pread, no digests, and no wait for the end of background fetch.
    options.mmap, options.check, options.settle = False, False, 0
    return options


def prepare(directory, options):
    at = directory / f"model-{options.mib}-{options.shards}"
    if not (at / "done").exists():
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir(parents=True)
        model = models.generate(at / "model", options.mib, options.shards, False)
        profile = models.profile(model)
        (at / "profile.json").write_text(json.dumps(profile))
        (at / "record.json").write_text(models.ctr_record(profile))
        (at / "done").touch()
    return at / "model", at / "profile.json", at / "record.json"


def replayed(starcar, link, registry, image, node, profile, options):
    """One replay: the report's numbers by the names that a real start has for them."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    warm(registry.blob_file(each) for each in image["digests"])
    registry.reset()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = run(*link.prefix, starcar, "replay", registry.ref(image["name"]), "--plain-http", "--profile", profile,
               "--think-scale", options.think_scale, "--nodes", node, "--format", "json", timeout=1800)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(said.stdout)
    milestones = {each["name"]: each["seconds"] for each in told["milestones"]}
    return {"running": told["seconds"]["running"], "first_weight": milestones["firstWeight"],
            "last_byte": told["seconds"]["lastRead"], "mb_last": told["total"]["bytes"] / 1e6,
            "requests": told["total"]["requests"], "waited": told["waited"], "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "load": os.getloadavg()[0],
            "mb_sent": registry.bytes_served() / 1e6,
            "warnings": told["warnings"], "report": told}


def median(results, name):
    return statistics.median(each[name] for each in results)


def table(measured):
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * 2 + "|--:" * (len(COLUMNS) - 2) + "|"]
    for each in measured:
        real, told = each["node_results"], each["replay_results"]
        if not real or not told:
            continue
        cells = [each["title"], each["node"]]
        cells += [f"{median(real, 'running'):.2f}", f"{median(told, 'running'):.2f}"]
        cells.append(f"{median(told, 'running') / median(real, 'running'):.2f}")
        cells += [f"{median(real, 'first_weight'):.1f}", f"{median(told, 'first_weight'):.1f}"]
        cells += [f"{median(real, 'last_byte'):.1f}", f"{median(told, 'last_byte'):.1f}"]
        cells.append(f"**{median(told, 'last_byte') / median(real, 'last_byte'):.2f}**")
        cells.append(", ".join(f"{b['last_byte'] / a['last_byte']:.2f}" for a, b in zip(real, told)))
        cells += [f"{median(real, 'mb_last'):,.0f}", f"{median(told, 'mb_last'):,.0f}"]
        cells += [f"{median(real, 'requests'):,.0f}", f"{median(told, 'requests'):,.0f}"]
        cells += [f"{median(real, 'cpu'):.0f}", f"{median(told, 'cpu'):.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
    pairs = [text.split(":") for text in options.rows.split(",")]
    chosen = {row.key: row for row in rows.choose([key for key, _ in pairs], [])}
    directory = options.work or Path(tempfile.mkdtemp(prefix="starcar-bench-"))
    about = {"options": {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()},
             "machine": report.machine(bin_dir, starcar), "links": []}
    try:
        model, profile, record = prepare(directory, options)
        store = model.parent / "registry"
        for text in options.link or ["1gbit:20ms"]:
            with Link(bin_dir, directory / "link", text) as link:
                registry = Registry(bin_dir / "registry", store, f"{link.host}:0")
                try:
                    images = Images(registry, starcar, bin_dir, store, model, {"profile": str(profile), "record": str(record)})
                    bench = Bench(bin_dir, directory, registry, link, profile, options)
                    measured = [{"row": key, "title": chosen[key].title, "node": node, "image": images.make(chosen[key]),
                                 "node_results": [], "replay_results": []} for key, node in pairs]
                    about["links"].append({"link": text, "rows": measured})
                    for number in range(1, options.rounds + 1):
                        for each in measured:
                            try:
                                real = bench.start(chosen[each["row"]], each["image"], rows.NODES[each["node"]])
                                told = replayed(starcar, link, registry, each["image"], each["node"], profile, options)
                            except (Failed, RuntimeError) as error:
                                print(f"round {number}: {each['row']} on {each['node']}: {error}", file=sys.stderr)
                                continue
                            each["node_results"].append(real)
                            each["replay_results"].append(told)
                            shown = {name: (round(real[name], 2), round(told[name], 2))
                                     for name in ("running", "first_weight", "last_byte", "waited", "mb_last", "requests", "cpu")}
                            print(f"round {number}: {each['row']} on {each['node']} (node, replay): {shown} "
                                  f"sent {told['mb_sent']:.0f} MB, load {os.getloadavg()[0]:.1f} {told['warnings']}",
                                  file=sys.stderr, flush=True)
                finally:
                    registry.stop()
            print(f"\n{text}\n\n{table(measured)}", flush=True)
    finally:
        if not options.work:
            shutil.rmtree(directory, ignore_errors=True)
        if options.json:
            options.json.write_text(json.dumps(about, indent=1) + "\n")
    facts = ", ".join(f"{name} {value}" for name, value in about["machine"].items())
    print(f"\n{options.mib} MiB in {options.shards} shards, pauses × {options.think_scale:g}, medians of {options.rounds}; {facts}")


if __name__ == "__main__":
    main()
