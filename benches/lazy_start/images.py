"""Brings the images of the rows into the registry, once for each model, binary and set of arguments."""

import hashlib
import json
import time

from consumers.image import Starcar
from consumers.node import Node
from consumers.proc import run


class Images:
    """Images that were made, remembered in a file beside the registry's blobs."""

    def __init__(self, registry, starcar, bin_dir, directory, model, substitutes):
        self.registry, self.bin, self.directory, self.model = registry, bin_dir, directory, model
        self.substitutes = substitutes
        scratch = directory / "starcar"
        scratch.mkdir(parents=True, exist_ok=True)
        self.starcar = Starcar(starcar, scratch)
        self.identity = hashlib.sha256(starcar.read_bytes()).hexdigest()
        self.notes = directory / "images.json"
        self.made = json.loads(self.notes.read_text()) if self.notes.exists() else {}

    def make(self, row):
        """{"name", "bytes", "layers", "seconds"} of the row's image; its reference is registry.ref(name)."""
        arguments = [each.format(**self.substitutes) for each in row.arguments]
        contents = [open(path, "rb").read().hex() for path in arguments if path in self.substitutes.values()]
        wanted = json.dumps([row.kind, arguments, contents, self.identity])
        name = f"{row.kind}-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
        if name not in self.made:
            begin = time.monotonic()
            getattr(self, row.kind)(name, arguments)
            seconds = time.monotonic() - begin
            layers = self.registry.manifest(self.registry.ref(name))["layers"]
            self.made[name] = {"name": name, "bytes": sum(each["size"] for each in layers), "layers": len(layers),
                               "seconds": round(seconds, 1), "digests": [each["digest"] for each in layers]}
            self.notes.write_text(json.dumps(self.made, indent=1))
        return self.made[name]

    def pack(self, name, arguments):
        self.starcar.pack(self.model, *arguments, tag=self.registry.ref(name))

    def plain(self, name, arguments):
        """Layers as `COPY` makes them: tar, compressed by skopeo with gzip's usual level; every file of the model."""
        layout = self.directory / "plain.oci"
        self.starcar.pack(self.model, "--layer-format", "tar", "--include", "*", *arguments, output=layout)
        run("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-compress",
            "--dest-compress-format", "gzip", f"oci:{layout}", f"docker://{self.registry.ref(name)}")
        run("rm", "-rf", layout)

    def convert(self, name, arguments):
        """ctr-remote's eStargz of the plain image, its defaults (gzip level 9) and a record if one is given."""
        from .rows import Row

        source = self.registry.ref(self.make(Row("", "", "plain"))["name"])
        node = Node(self.bin, self.directory / f"converter-{time.monotonic_ns()}", {})
        try:
            node.ctr("content", "fetch", "--plain-http", source)
            node.ctr_remote("image", "convert", "--oci", "--estargz", *arguments, source, self.registry.ref(name),
                            timeout=3600)
            node.ctr("images", "push", "--plain-http", self.registry.ref(name), timeout=1800)
        finally:
            node.stop()
            run("rm", "-rf", node.dir)
