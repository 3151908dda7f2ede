"""The node's network: a namespace behind a link of given bandwidth and round-trip time.

The link is tests/e2e/go/link: a TUN device here and one in the namespace. What runs through
`prefix` has no other network, so all of a node's traffic is shaped.
"""

import json
import os
import re
import subprocess

from consumers.proc import Failed, Process, run, wait_for

CONGESTION = "cubic"
RATES = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


def parse(text):
    """("1gbit:20ms") -> (bits a second, seconds of round-trip time)."""
    found = re.fullmatch(r"([0-9.]+)(kbit|mbit|gbit)[:/]([0-9.]+)ms", text)
    if not found:
        raise ValueError(f"{text}: a link is given as 1gbit:20ms")
    return float(found[1]) * RATES[found[2]], float(found[3]) / 1e3


class Link:
    """A namespace and the link to it, for as long as the object lives in a with statement."""

    def __init__(self, bin_dir, directory, text):
        self.text = text
        self.rate, self.rtt = parse(text)
        self.bin, self.directory = bin_dir, directory
        self.name = f"scar{os.getpid() % 100000}"
        self.process = None
        used = run("ip", "-o", "-4", "addr").stdout
        self.net = next(f"10.213.{i}" for i in range(256) if f" 10.213.{i}." not in used)
        self.host, self.node = f"{self.net}.1", f"{self.net}.2"
        self.prefix = ["nsenter", f"--net=/run/netns/{self.name}", "--"]
        self.carried = None

    def __enter__(self):
        run("ip", "netns", "add", self.name)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.process = Process(
            [self.bin / "link", "-netns", f"/run/netns/{self.name}", "-device", self.name]
            + ["-rate", self.rate, "-rtt", f"{self.rtt * 1e6:.0f}us"],
            self.directory / "link.log",
            stdout=subprocess.PIPE,
        )
        if self.process.popen.stdout.readline() != b"ready\n":
            self.process.popen.wait()
            self.process.alive()
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        for namespace, address in ([], self.host), (["-n", self.name], self.node):
            run("ip", *namespace, "addr", "add", f"{address}/30", "dev", self.name)
            run("ip", *namespace, "link", "set", self.name, "up")
            # What registries run with, whatever this machine's default is.
            run("ip", *namespace, "route", "replace", f"{self.net}.0/30", "dev", self.name, "src", address,
                "congctl", CONGESTION)
        wait_for("the link", lambda: self.process.alive() and self._answers())

    def _answers(self):
        # Any answer to a connection attempt, a refusal too, has crossed the link twice.
        script = f"import socket as s;c=s.socket();c.settimeout(1);print(c.connect_ex(('{self.host}',9)))"
        return run(*self.prefix, "python3", "-c", script).stdout.strip() == "111"

    def measure(self, url):
        """What plain downloads through the link make, of four seconds at most: {"rtt_ms", "mbit_per_s", "bytes"}."""
        part = f"0-{int(self.rate / 8 * 4)}"
        form = '{"connect":%{time_connect},"first":%{time_starttransfer},"total":%{time_total},"bytes":%{size_download}}'
        best, rtts = None, []
        for _ in range(3):
            got = json.loads(run(*self.prefix, "curl", "-sS", "-r", part, "-o", "/dev/null", "-w", form, url).stdout)
            if not got["bytes"]:
                raise Failed(f"{url}: nothing came")
            rtts.append(got["connect"] * 1e3)
            speed = got["bytes"] * 8 / (got["total"] - got["first"]) / 1e6
            best = max(best or 0, speed)
        return {"rtt_ms": round(min(rtts), 2), "mbit_per_s": round(best, 1), "bytes": got["bytes"]}

    def __exit__(self, *_):
        if self.process:
            self.process.stop()
            said = self.process.popen.stdout.read()
            self.carried = json.loads(said) if said else None
            self.process.popen.stdout.close()
        run("ip", "netns", "del", self.name)
