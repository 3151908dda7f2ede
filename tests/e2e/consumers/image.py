"""Images in OCI layouts, and the starcar command that makes them."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from .proc import Failed, run

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
ZSTD_CHUNKED = ["--layer-format", "zstd:chunked"]
UNCOMPRESSED_SIZE = "io.containers.estargz.uncompressed-size"


class Layout:
    """An OCI image layout directory."""

    def __init__(self, directory):
        self.dir = Path(directory)

    def blob(self, digest):
        algorithm, value = digest.split(":")
        return self.dir / "blobs" / algorithm / value

    def json(self, digest):
        return json.loads(self.blob(digest).read_bytes())

    def index(self):
        return json.loads((self.dir / "index.json").read_text())

    def manifest_digest(self):
        """Of the only manifest in the layout, an index above it followed."""
        (descriptor,) = self.index()["manifests"]
        while "index" in descriptor["mediaType"]:
            (descriptor,) = self.json(descriptor["digest"])["manifests"]
        return descriptor["digest"]

    def manifest(self):
        return self.json(self.manifest_digest())

    def config(self):
        return self.json(self.manifest()["config"]["digest"])

    def layers(self):
        """[(descriptor, path of the blob, diffID)]."""
        manifest, config = self.manifest(), self.config()
        ids = config["rootfs"]["diff_ids"]
        assert len(ids) == len(manifest["layers"]), (ids, manifest["layers"])
        return [(d, self.blob(d["digest"]), i) for d, i in zip(manifest["layers"], ids)]


@dataclass
class Packed:
    """What one run of starcar pack left."""

    digest: str
    metadata: dict
    seconds: float
    stderr: str
    layout: Layout | None = None
    ref: str | None = None
    layers: list = field(default_factory=list)

    def kinds(self, kind):
        """The layers of a kind in the metadata file: base, small or weights."""
        return [layer for layer in self.metadata["layers"] if layer["kind"] == kind]


class Starcar:
    """The command under test."""

    def __init__(self, binary, scratch):
        self.binary = Path(binary)
        self.scratch = scratch
        self.count = 0
        # The defaults of the user who runs the tests shall not change the outcome.
        self.env = {"HOME": str(scratch), "XDG_CACHE_HOME": str(scratch / "cache"), "PATH": "/usr/bin:/bin"}

    def __call__(self, *argv, check=True, timeout=900, env=None):
        """Runs starcar and gives the CompletedProcess."""
        return run(self.binary, *argv, check=check, timeout=timeout, env={**self.env, **(env or {})})

    def pack(self, snapshot, *argv, output=None, tag=None, base="/bin/busybox", env=None):
        """Packs into an OCI layout, or pushes to a plain-http registry if a tag is given."""
        self.count += 1
        metadata = self.scratch / f"pack-{self.count}.json"
        args = ["pack", snapshot, "--metadata-file", metadata, "--progress", "none"]
        if base is not None:
            args += ["--base", base]
        layout = None
        if tag:
            args += ["--tag", tag, "--push", "--plain-http"]
        if output or not tag:
            layout = Layout(output or self.scratch / f"layout-{self.count}")
            args += ["--output", f"oci:{layout.dir}"]
        start = time.monotonic()
        done = self(*args, *argv, env=env)
        seconds = time.monotonic() - start
        digest = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
        if not digest.startswith("sha256:"):
            raise Failed(f"the last line on stdout is no digest: {done.stdout!r}")
        data = json.loads(metadata.read_text())
        if data["containerimage.digest"] != digest:
            raise Failed(f"stdout says {digest}, the metadata file {data['containerimage.digest']}")
        return Packed(digest, data, seconds, done.stderr, layout, tag)


def read_layer(bin_dir, blob, toc_digest, store="memory"):
    """(entries, summary) of a layer from a reader command, every chunk verified."""
    binary = bin_dir / ("reader-db" if store == "db" else "reader")
    lines = run(binary, "-store", store, "-toc-digest", toc_digest, blob).stdout.splitlines()
    parsed = [json.loads(line) for line in lines]
    return parsed[:-1], parsed[-1]
