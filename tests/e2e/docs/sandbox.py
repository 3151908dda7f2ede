"""Running a page: its blocks become one shell session in a machine of its own (the script `sandbox`)."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from docs import tables
from docs.standins import standins
from pushing import HTPASSWD, PASSWORD

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[2]


class World:
    """What all pages share: certificates, the files that the hub serves, and what a reader has before the first command."""

    def __init__(self, directory, bin_dir, starcar, authority, corp):
        self.dir, self.bin, self.starcar = Path(directory), Path(bin_dir).resolve(), Path(starcar).resolve()
        self.dir.mkdir(parents=True, exist_ok=True)
        self.ca = authority.cert
        self.hosts = {**tables.REGISTRIES, **dict([tables.PRIVATE])}
        self.pairs = {
            address: (corp if address == tables.PRIVATE[1] else authority).sign(f"at-{address}", hosts=[name for name, at in self.hosts.items() if at == address])
            for address in sorted(set(self.hosts.values()))
        }
        self.hub = authority.sign("hub", hosts=[tables.HUB])
        self.repositories = self.dir / "repositories"
        self.seed = self.vllm = self.prepared = None
        self.count = 0

    def job(self, name):
        """A directory with all that the sandbox of one page needs."""
        self.count += 1
        job = self.dir / f"{self.count}-{name.replace('/', '-')}"
        (job / "hub").mkdir(parents=True)
        shutil.copy(self.hub.cert, job / "hub/hub.cert")
        shutil.copy(self.hub.key, job / "hub/hub.key")
        (job / "hub/repositories").symlink_to("/run/page/repositories")
        shutil.copytree(self.repositories, job / "repositories")
        shutil.copy(self.ca, job / "ca.crt")
        lines = ["127.0.0.1 localhost", f"127.0.0.9 {tables.HUB}"]
        lines += [f"{address} {host}" for host, address in self.hosts.items()]
        (job / "hosts").write_text("\n".join(lines) + "\n")
        registries = []
        for address, pair in self.pairs.items():
            name = f"at-{address}"
            shutil.copy(pair.cert, job / f"{name}.cert")
            shutil.copy(pair.key, job / f"{name}.key")
            options = f"-tls-cert /run/page/{name}.cert -tls-key /run/page/{name}.key"
            if address == tables.PRIVATE[1]:
                (job / "auth.yaml").write_text(
                    "auth:\n  htpasswd:\n    realm: docs\n    path: /run/page/htpasswd\n"
                )
                (job / "htpasswd").write_text(HTPASSWD)
                options += " -auth /run/page/auth.yaml"
            registries.append(f"{name} {address}:443 {options}\n")
        (job / "registries").write_text("".join(registries))
        if self.vllm:
            shutil.copytree(self.vllm, job / "vllm")
        if self.prepared:
            shutil.copytree(self.prepared, job / "prepared")
        if self.seed:
            shutil.copytree(self.seed, job / "seed", symlinks=True)
        return job

    def run(self, job, fresh=False, timeout=300):
        """Runs `page.sh` of a job and gives its CompletedProcess."""
        binds = [TOP, self.bin, self.starcar, Path(sys.prefix), Path(sys.base_prefix)]
        settings = {
            "WORLD": job / "world", "HERE": HERE, "TOP": TOP, "TOOLS": self.bin, "STARCAR": self.starcar,
            "PYTHON": sys.executable, "PASSWORD": PASSWORD, "FRESH": "yes" if fresh else "no", "STANDINS": " ".join(standins.TABLE),
        }
        lines = [f"{name}={shlex.quote(str(value))}" for name, value in settings.items()]
        lines.append(f"BINDS=({' '.join(shlex.quote(str(each)) for each in dict.fromkeys(binds))})")
        (job / "settings").write_text("\n".join(lines) + "\n")
        (job / "world").mkdir()
        command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        drop = ("HF_", "HUGGINGFACE_", "STARCAR", "DOCKER", "CONTAINER", "KUBE", "VLLM_", "E2E_")
        env = {key: value for key, value in os.environ.items() if not key.upper().startswith(drop) and "proxy" not in key.lower()}
        return subprocess.run(
            [*command, HERE / "sandbox", job], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, env=env
        )


def script(blocks, directory="."):
    """The shell session of a page: (page.sh, {file: text}) of its blocks, with `set -e`, the output of each in a file."""
    files, lines = {}, [f"set -e -o pipefail\ncd {directory}\n"]
    for number, (_, text) in enumerate(blocks, 1):
        files[f"block-{number}.sh"] = text
        lines.append(
            f"echo {number} >/run/page/reached\necho $EPOCHREALTIME >>/run/page/times\n. /run/page/block-{number}.sh >/run/page/block-{number}.out 2>&1\n"
        )
    lines.append("echo end >/run/page/reached\necho $EPOCHREALTIME >>/run/page/times\n")
    return "".join(lines), files
