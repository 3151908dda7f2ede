"""Running starcar and judging what it left on disk, with no code of starcar's own."""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
STARCAR = Path(os.environ.get("STARCAR") or TOP / "target" / "release" / "starcar")
BLOB_NAME = re.compile(r"[0-9a-f]{64}")


def starcar(*arguments, env=None, cwd=None, timeout=300):
    """Run starcar to its end and return the finished process, its output as text.

    It gets an empty cache directory: what an earlier run remembered must not stand in for work.
    """
    command = [str(STARCAR), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as cache:
        return subprocess.run(
            command, env=clean_env({"XDG_CACHE_HOME": cache} | (env or {})), cwd=cwd, timeout=timeout,
            text=True, capture_output=True, stdin=subprocess.DEVNULL,
        )


def clean_env(changes=None):
    """This process's environment without what would change an image or a search path, plus `changes`."""
    drop = ("HF_", "HUGGINGFACE_", "STARCAR_", "SOURCE_DATE_EPOCH")
    env = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    return env | {name: str(value) for name, value in (changes or {}).items()}


@dataclass
class Image:
    """An image in a layout: its digest and what --metadata-file said."""

    digest: str
    metadata: dict
    layout: Path

    def layers(self):
        """Kind, digest and diff id of the layers that hold the model."""
        return [
            (layer["kind"], layer["digest"], layer["diffId"])
            for layer in self.metadata["layers"]
            if layer["kind"] != "base"
        ]

    def files(self):
        """Name to content of every regular file below /models, read from the layers with Python's tarfile."""
        manifest = json.loads(blob(self.layout, self.digest).read_bytes())
        found = {}
        for layer in manifest["layers"]:
            path = blob(self.layout, layer["digest"])
            with gzip.open(path) if layer["mediaType"].endswith("+gzip") else open(path, "rb") as stream:
                with tarfile.open(fileobj=stream, mode="r|") as tar:
                    for member in tar:
                        if member.isfile() and member.name.startswith("models/"):
                            name = member.name.removeprefix("models/")
                            assert name not in found, f"{name} is in two layers"
                            found[name] = tar.extractfile(member).read()
        return found


def pack(source, layout, *arguments, env=None, cwd=None, timeout=300):
    """Pack into `layout` (a path, perhaps with `:tag`), which must succeed, and return the image."""
    directory = Path(str(layout).partition(":")[0])
    metadata = directory.parent / f"{directory.name}.metadata.json"
    done = starcar(
        "pack", source, "-o", f"oci:{layout}", "--base", "scratch", "--metadata-file", metadata, *arguments,
        env=env, cwd=cwd, timeout=timeout,
    )
    assert done.returncode == 0, f"{done.args} exited with {done.returncode}:\n{done.stderr}"
    digest = done.stdout.rstrip("\n").rpartition("\n")[2]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest), f"the last line of stdout is no digest: {done.stdout!r}"
    said = json.loads(metadata.read_text())
    metadata.unlink()
    assert said["containerimage.digest"] == digest
    return Image(digest, said, directory)


def refused(source, layout, *arguments, names, env=None, timeout=60):
    """Pack what must not be packed: a clean failure whose message has each of `names`, and no image."""
    directory = Path(str(layout).partition(":")[0])
    before = listed(directory)
    done = starcar(
        "pack", source, "-o", f"oci:{layout}", "--base", "scratch", *arguments, env=env, timeout=timeout
    )
    assert done.returncode > 0, f"exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert "panicked" not in done.stderr and done.returncode != 101, done.stderr
    assert "sha256:" not in done.stdout, f"a digest was printed: {done.stdout}"
    for name in names:
        assert str(name) in done.stderr, f"{name} is not named:\n{done.stderr}"
    assert listed(directory) == before, "a failed pack changed the layout's index"
    assert not litter(directory), f"a failed pack left {litter(directory)}"
    return done


def blob(layout, digest):
    algorithm, _, value = digest.partition(":")
    assert algorithm == "sha256" and BLOB_NAME.fullmatch(value), digest
    return Path(layout) / "blobs" / "sha256" / value


def listed(layout):
    """The manifest descriptors in a layout's index; none when there is no layout or no index."""
    index = Path(layout) / "index.json"
    if not index.exists():
        return []
    return json.loads(index.read_bytes())["manifests"]


def check_blobs(layout):
    """Every file under blobs/sha256 that has a blob's name must have its content, listed or not."""
    blobs = Path(layout) / "blobs" / "sha256"
    for path in sorted(blobs.iterdir()) if blobs.is_dir() else []:
        if BLOB_NAME.fullmatch(path.name):
            assert sha256_file(path) == path.name, f"{path} does not have its name's digest"


def check_complete(layout):
    """Everything that the index lists is there with the right size and digest; returns tag to manifest digest."""
    seen, tags = {}, {}

    def check(descriptor):
        digest, size = descriptor["digest"], descriptor["size"]
        path = blob(layout, digest)
        assert path.is_file(), f"{digest} is listed but missing"
        assert path.stat().st_size == size, f"{digest} has {path.stat().st_size} bytes, not {size}"
        if digest not in seen:
            seen[digest] = sha256_file(path)
        assert f"sha256:{seen[digest]}" == digest, f"{path} has another digest: {seen[digest]}"
        return path

    for descriptor in listed(layout):
        manifest = json.loads(check(descriptor).read_bytes())
        check(manifest["config"])
        for layer in manifest["layers"]:
            check(layer)
        name = descriptor.get("annotations", {}).get("org.opencontainers.image.ref.name")
        assert name not in tags, f"two images are tagged {name}"
        tags[name] = descriptor["digest"]
    if tags:
        assert json.loads((Path(layout) / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    return tags


def litter(layout):
    """Files in a layout that are neither of the OCI layout nor an empty lock file."""
    found = []
    for path in sorted(Path(layout).rglob("*")):
        relative = path.relative_to(layout)
        if path.is_dir() or relative.as_posix() in ("oci-layout", "index.json"):
            continue
        if relative.parts[:2] == ("blobs", "sha256") and len(relative.parts) == 3 and BLOB_NAME.fullmatch(path.name):
            continue
        if "lock" in path.name and path.stat().st_size == 0:
            continue
        found.append(f"{relative} ({path.stat().st_size} bytes)")
    return found


def unlisted_blobs(layout):
    """Whole blobs that no listed image needs (a killed run may leave them for the next)."""
    needed = set()
    for descriptor in listed(layout):
        manifest = json.loads(blob(layout, descriptor["digest"]).read_bytes())
        needed |= {descriptor["digest"], manifest["config"]["digest"], *(each["digest"] for each in manifest["layers"])}
    blobs = Path(layout) / "blobs" / "sha256"
    return sorted({f"sha256:{path.name}" for path in blobs.iterdir() if BLOB_NAME.fullmatch(path.name)} - needed)


def sha256_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_tree(source, target):
    """A plain copy of what `source` shows: symlinks followed, times and modes not kept."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    return target
