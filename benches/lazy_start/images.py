"""Brings the images of the rows into the registry, once for each model, binary and set of arguments."""

import hashlib
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from consumers.image import Layout, Starcar
from consumers.node import Node
from consumers.proc import run
from consumers.trees import sha256_of

from .rows import Row

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"

# To be counted up when a method below makes something else of the same arguments.
RECIPES = 3


def add_blob(layout, path):
    """Moves a file to its place in a layout; gives digest and size for a descriptor."""
    digest, size = f"sha256:{sha256_of(path)}", path.stat().st_size
    path.rename(layout.blob(digest))
    return {"digest": digest, "size": size}


def compress(layout):
    """Compresses the tar layers of a layout by gzip, which finds more in weights than skopeo's deflate of that level."""
    manifest, index = layout.manifest(), layout.index()

    def one(layer):
        path, target = layout.blob(layer["digest"]), layout.dir / f"{layer['digest'][7:23]}.gz"
        with open(target, "wb") as out:
            subprocess.run(["gzip", "-6", "-n", "-c", path], stdout=out, check=True)
        path.unlink()
        return {"mediaType": TAR_GZIP, **add_blob(layout, target)}

    with ThreadPoolExecutor() as pool:
        manifest["layers"] = list(pool.map(one, manifest["layers"]))
    path = layout.dir / "manifest.json"
    path.write_text(json.dumps(manifest))
    (descriptor,) = index["manifests"]
    index["manifests"] = [{"mediaType": MANIFEST, "annotations": descriptor.get("annotations", {}), **add_blob(layout, path)}]
    (layout.dir / "index.json").write_text(json.dumps(index))


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
        # What others make of a model does not change with starcar.
        identity = self.identity if row.kind == "pack" else None
        wanted = json.dumps([RECIPES, row.kind, arguments, contents, identity])
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
        """Layers as `docker build` makes them: tar, in one gzip stream of level 6; every file of the model."""
        layout = self.directory / "plain.oci"
        self.starcar.pack(self.model, "--layer-format", "tar", "--include", "*", *arguments, output=layout)
        compress(Layout(layout))
        run("skopeo", "--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false",
            f"oci:{layout}", f"docker://{self.registry.ref(name)}", timeout=1800)
        run("rm", "-rf", layout)

    def convert(self, name, arguments):
        """ctr-remote's eStargz of the plain image, its defaults (gzip level 9) and a record if one is given."""
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
