"""Debian's newest podman, which pulls zstd:chunked layers in part.

It needs a newer C library than the tests run on, so tests/e2e/setup unpacks it, with its libraries, into a directory
that it runs in as its root, with mounts that end with it.
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from . import trees
from .proc import run

# Runs "$@" with $ROOT as its root directory, where $STORE has the same path as outside.
_ENTER = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /sys "$ROOT/sys"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs none "$ROOT/run"
mount -t tmpfs none "$ROOT/var/tmp"
mkdir -p "$ROOT/var/tmp/store"
mount --bind "$STORE" "$ROOT/var/tmp/store"
exec /usr/bin/env -i PATH=/usr/bin:/usr/sbin HOME=/root CONTAINERS_STORAGE_CONF=/var/tmp/store/storage.conf \
    PODMAN_IGNORE_CGROUPSV1_WARNING=1 chroot "$ROOT" /usr/bin/podman --log-level debug --runtime /usr/bin/runc "$@"
"""


class Podman:
    """podman with a store of its own, whose storage.conf turns partial pulls on."""

    def __init__(self, root, directory, **pull_options):
        self.root = Path(root)
        self.dir = Path(directory)
        self.dir.mkdir(parents=True)
        options = {"enable_partial_images": "true", **pull_options}
        lines = ["[storage]", 'driver = "overlay"', 'graphroot = "/var/tmp/store/root"', 'runroot = "/var/tmp/store/run"']
        lines += ["[storage.options.pull_options]", *(f'{k} = "{v}"' for k, v in options.items())]
        (self.dir / "storage.conf").write_text("\n".join(lines) + "\n")

    def __call__(self, *argv, check=True):
        """Runs podman and gives the CompletedProcess; its debug log is on stderr."""
        env = {**os.environ, "ROOT": str(self.root), "STORE": str(self.dir)}
        return run("unshare", "--mount", "--propagation", "private", "bash", "-c", _ENTER, "podman", *argv, check=check, env=env)

    def version(self):
        return self("--version").stdout.split()[-1]

    def pull(self, ref, check=True):
        """Pulls from a registry without TLS; gives what is known of it afterwards."""
        return Pulled(self("pull", "--tls-verify=false", ref, check=check))

    def tree(self, ref):
        """The tree of a pulled image, as podman has it on disk."""
        name = self("create", "--network", "none", ref, "none").stdout.split()[-1]
        with tempfile.TemporaryDirectory(dir=self.dir) as at:
            self("export", "--output", f"/var/tmp/store/{Path(at).name}/tree.tar", name)
            self("rm", name)
            return trees.of_tar(Path(at) / "tree.tar")

    def run(self, ref, *argv, check=True):
        """Runs a container to its end and gives its CompletedProcess."""
        return self("run", "--rm", "--network", "none", "--cgroupns", "host", "--ulimit", "host", ref, *argv, check=check)

    def images(self):
        return json.loads(self("images", "--format", "json").stdout)

    def stop(self):
        self("system", "reset", "--force", check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


class Pulled:
    """What podman's debug log says of a pull."""

    def __init__(self, done):
        self.returncode = done.returncode
        self.log = done.stderr
        #: Layers that were fetched in part, as digests.
        self.partial = re.findall(r'Retrieved partial blob (sha256:[0-9a-f]{64})', self.log)
        #: Why layers were fetched whole, one line each.
        self.whole = re.findall(r'Failed to retrieve partial blob: ([^"]*)"', self.log)
        #: (missing bytes, bytes in all) of each layer that was fetched in part.
        self.missing = [(int(a), int(b)) for a, b in re.findall(r"Missing (\d+) bytes out of (\d+)", self.log)]
