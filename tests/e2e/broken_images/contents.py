"""Defects of the file tree: what KServe and engines do not find, or may not read."""

import functools
import json
import tomllib
from pathlib import Path

from . import CONTENT, case
from .sound import CONFIG, WEIGHTS
from .writer import PREFETCH, Entry, Layer, directory, landmark

content = functools.partial(case, at=CONTENT)
# Notes where nobody fetches: those cases say so with --for.
FETCH = ("--for", "fetch")


# What modelcar containers run.

@content("passwd-user")
def passwd_user(image):
    """The password file gives user 1010 another group than 0."""
    image.layers[0].entry("etc/passwd").data = b"root:x:0:0:root:/:/bin/sh\nmodel:x:1010:1010::/:/bin/sh\n"


@content("passwd-user", image="tar")
def passwd_user_of_tar(image):
    """The same in a layer of plain tar."""
    passwd_user(image)


@content("shell-missing")
def shell_missing(image):
    """There is no sh."""
    image.layers[0].entries.remove(image.layers[0].entry("bin/sh"))


@content("shell-missing", image="tar")
def shell_missing_of_tar(image):
    """There is no sh in an image of plain tar."""
    shell_missing(image)


@content("shell-missing")
def shell_taken_away(image):
    """A whiteout in an upper layer takes sh away."""
    at = image.layers[1].place("models")
    image.layers[1].entries[at:at] = [directory("bin"), Entry("bin/.wh.sh")]


@content("shell-missing")
def shell_not_executable(image):
    """Others may not execute busybox."""
    image.layers[0].entry("bin/busybox").mode = 0o644


@content("tool-missing")
def tool_missing(image):
    """There is no sleep."""
    image.layers[0].entries.remove(image.layers[0].entry("bin/sleep"))


# The model's directory.

@content("models-missing")
def models_missing(image):
    """The model lies in /model."""
    _rename(image, "model")


@content("models-missing", image="tar")
def models_missing_of_tar(image):
    """The model lies in /model, in layers of plain tar."""
    _rename(image, "model")


def _rename(image, directory):
    for layer in image.layers[1:]:
        for entry in layer.entries:
            if entry.name.startswith("models"):
                entry.name = directory + entry.name.removeprefix("models")


@content("models-symlink")
def models_symlink(image):
    """/models is a symbolic link to the model."""
    _rename(image, "model")
    at = image.layers[1].place("model")
    image.layers[1].entries.insert(at, Entry("models", "symlink", mode=0o777, link="model"))


@content("models-kind")
def models_kind(image):
    """/models is a file."""
    _rename(image, "model")
    at = image.layers[1].place("model")
    image.layers[1].entries.insert(at, Entry("models", data=b"?"))


@content("models-empty")
def models_empty(image):
    """/models is empty."""
    image.layers = [image.layers[0], Layer([Entry("etc/note", data=b"x"), directory("models"), landmark(PREFETCH)])]
    image.layers[1].entries.insert(0, directory("etc"))


@content("models-directory-mode")
def models_directory_mode(image):
    """Others may not enter /models."""
    for layer in image.layers[1:]:
        layer.entry("models").mode = 0o750


@content("models-file-mode")
def models_file_mode(image):
    """Others may not read the weights."""
    image.layers[2].entry(WEIGHTS).mode = 0o600


@content("models-file-mode", image="tar")
def models_file_mode_of_tar(image):
    """Others may not read the weights, in a layer of plain tar."""
    models_file_mode(image)


@content("models-owner")
def models_owner(image):
    """The config belongs to 1000:1000."""
    entry = image.layers[1].entry(CONFIG)
    entry.uid = entry.gid = 1000
    entry.user = entry.group = "builder"


@content("models-symlink-absolute")
def models_symlink_absolute(image):
    """A link below /models is absolute."""
    image.layers[1].entry("models/vocab.json").link = "/models/tokenizer.json"


@content("models-symlink-absolute", image="tar")
def models_symlink_absolute_of_tar(image):
    """A link below /models is absolute, in layers of plain tar."""
    models_symlink_absolute(image)


@content("models-symlink-outside")
def models_symlink_outside(image):
    """A link below /models leads out of it."""
    image.layers[1].entry("models/vocab.json").link = "../etc/passwd"


@content("models-symlink-outside", image="tar")
def models_symlink_outside_of_tar(image):
    """A link below /models leads out of it, in layers of plain tar."""
    models_symlink_outside(image)


@content("models-symlink-dangling")
def models_symlink_dangling(image):
    """A link below /models leads nowhere."""
    image.layers[1].entry("models/vocab.json").link = "missing.json"


@content("models-symlink-dangling", image="tar")
def models_symlink_dangling_of_tar(image):
    """A link below /models leads nowhere, in layers of plain tar."""
    models_symlink_dangling(image)


@content("models-hardlink", exit=0)
def models_hardlink(image):
    """A file below /models is a hard link."""
    at = image.layers[1].place("models/empty.txt")
    image.layers[1].entries.insert(at, Entry("models/copy.json", "hardlink", link=CONFIG))


@content("models-hardlink", image="tar")
def models_hardlink_of_tar(image):
    """A file below /models is a hard link, in layers of plain tar."""
    models_hardlink(image)


@content("models-special", exit=0)
def models_special(image):
    """There is a pipe below /models."""
    image.layers[1].entries.insert(image.layers[1].place("models/empty.txt"), Entry("models/pipe", "fifo"))


@content("models-special", image="tar")
def models_special_of_tar(image):
    """There is a pipe below /models, in layers of plain tar."""
    models_special(image)


@content("models-special", image="tar")
def models_device_of_tar(image):
    """There is a device below /models, in layers of plain tar."""
    at = image.layers[1].place("models/empty.txt")
    image.layers[1].entries.insert(at, Entry("models/null", "char", major=1, minor=3))


@content("entry-name-unclean", image="tar")
def names_begin_with_dot(image):
    """The names of a tar layer begin with `./`, as `tar -C model .` has it."""
    for entry in image.layers[1].entries:
        entry.name = "./" + entry.name


@content("entry-name-unclean", exit=0)
def names_begin_with_dot_in_estargz(image):
    """The names of an eStargz layer begin with `./`."""
    for entry in image.layers[1].entries:
        entry.name = "./" + entry.name


# Fetching.

@content("fetch-gzip", arguments=FETCH)
def fetch_estargz(image):
    """An eStargz image, to be fetched."""


@content("fetch-zstd", image="zstd", arguments=FETCH, also=["image-not-lazy"])
def fetch_zstd(image):
    """A zstd image, to be fetched."""


# Compile caches.

def _cache(image, files=2, size=30, directory_name="caches/triton", **labels):
    """A layer with a cache, and the record of it."""
    names = [f"models/{directory_name}/{name}" for name in ("a.json", "b.json")]
    parents = ["models", "models/caches", "models/caches/triton"]
    entries = [*map(directory, parents), *(Entry(name, data=b'{"cache": "ab"}') for name in names), landmark(PREFETCH)]
    image.layers.append(Layer(entries))
    image.layers[-1].annotate(kind="cache")
    record = {"name": "triton", "kind": "inductor", "directory": "caches/triton", "at": "/root/.triton/cache",
              "files": files, "size": size, "identity": {}}
    image.config["Labels"]["dev.starcar.caches"] = json.dumps([record])
    image.config["Labels"] |= labels


@content("cache-label-malformed")
def cache_label_malformed(image):
    """The caches' label is cut short."""
    _cache(image)
    image.config["Labels"]["dev.starcar.caches"] = image.config["Labels"]["dev.starcar.caches"][:-1]


@content("cache-label-malformed")
def cache_label_path(image):
    """The caches' label names a directory that is more than a path to a shell."""
    _cache(image)
    label = image.config["Labels"]["dev.starcar.caches"]
    image.config["Labels"]["dev.starcar.caches"] = label.replace("/root/.triton/cache", "/root/$(reboot)")


@content("cache-missing")
def cache_missing(image):
    """A cache that the label names is not there."""
    _cache(image)
    image.layers.pop()


@content("cache-differs")
def cache_differs_in_files(image):
    """A cache has another number of files than the label says."""
    _cache(image, files=3)


@content("cache-differs")
def cache_differs_in_size(image):
    """A cache has another size than the label says."""
    _cache(image, size=31)


@content("cache-unlabelled")
def cache_unlabelled(image):
    """A layer is said to hold a cache, and no label speaks of it."""
    _cache(image)
    del image.config["Labels"]["dev.starcar.caches"]


@content("cache-label-differs")
def cache_label_differs(image):
    """The labels of KServe's kernel caches are not those of the record: there are none for a cache of Triton's."""
    _cache(image, **{"dev.starcar.version": VERSION})
    label = json.loads(image.config["Labels"]["dev.starcar.caches"])
    label[0]["kind"] = "triton"
    image.config["Labels"]["dev.starcar.caches"] = json.dumps(label)


def _version():
    """The version of this checkout: labels of others are not judged."""
    return tomllib.loads((Path(__file__).parents[3] / "Cargo.toml").read_text())["package"]["version"]


VERSION = _version()
