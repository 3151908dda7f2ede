"""Medians, the Markdown table, and what has to be known of the machine to read it."""

import os
import platform
import statistics
from pathlib import Path

from consumers.proc import run

from .link import CONGESTION

COLUMNS = ["image", "node", "MB", "pull to running, s", "first weight byte, s", "last byte, s", "waited in reads, s",
           "MB at last byte", "MB at end", "MB twice", "requests", "node CPU, s"]


def median(results, name):
    values = [each[name] for each in results if each.get(name) is not None]
    return statistics.median(values) if values else float("nan")


def table(measured):
    """measured: [{"title", "node", "image", "results": [...]}] of one link."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * 2 + "|--:" * (len(COLUMNS) - 2) + "|"]
    for each in measured:
        got = each["results"]
        if not got:
            lines.append(f"| {each['title']} | {each['node']} | failed: {each.get('error', 'not run')} |" + " |" * (len(COLUMNS) - 3))
            continue
        cells = [each["title"], each["node"], f"{each['image']['bytes'] / 1e6:,.0f}"]
        cells += [f"{median(got, name):.2f}" for name in ("running", "first_weight", "last_byte", "waited")]
        cells += [f"{median(got, name):,.0f}" for name in ("mb_last", "mb_end")]
        cells.append(f"{median(got, 'mb_twice_before') + median(got, 'mb_twice_weights'):,.0f}")
        cells += [f"{median(got, name):,.0f}" for name in ("requests", "cpu")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine(bin_dir, starcar):
    """What the numbers depend on besides the options."""
    processor = next((line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines()
                      if line.startswith("model name")), platform.processor())
    go_mod = Path(__file__).resolve().parents[2] / "tests/e2e/go/go.mod"
    library = next(line.split()[1] for line in go_mod.read_text().splitlines()
                   if line.split()[:1] == ["github.com/containerd/stargz-snapshotter"])
    return {
        "cpu": processor,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "starcar": run(starcar, "--version").stdout.strip(),
        "stargz-snapshotter": library,
        "containerd": run(bin_dir / "containerd", "--version").stdout.split()[2],
        "ctr-remote": run("ctr-remote", "--version").stdout.split()[-1],
        "TCP": CONGESTION,
    }
