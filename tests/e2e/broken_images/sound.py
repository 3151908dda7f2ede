"""Images with which nothing is wrong: what cases begin with."""

import random

from .writer import NO_PREFETCH, PREFETCH, Entry, Image, Layer, directory, landmark
from .zstd import skippable

KIB = 1 << 10
WEIGHTS, CONFIG, TOKENIZER = "models/model.safetensors", "models/config.json", "models/tokenizer.json"
LABELS = {"dev.starcar.model.directory": "/models"}
TAR_LABELS = LABELS | {"dev.starcar.layer-format": "tar"}


def noise(size, seed):
    return random.Random(seed).randbytes(size)


def base_entries():
    """What modelcar containers run. Nothing runs it here, so that busybox is made of noise."""
    tools = [Entry(f"bin/{name}", "symlink", mode=0o777, link="busybox") for name in ("sh", "ln", "ls", "mkdir", "sleep")]
    return [
        directory("bin"),
        Entry("bin/busybox", data=noise(70 * KIB, 1), mode=0o755),
        *tools,
        directory("etc"),
        Entry("etc/passwd", data=b"root:x:0:0:root:/:/bin/sh\nmodel:x:1010:0::/:/bin/sh\n", xattrs={"user.note": "a"}),
        directory("dev"),
        Entry("dev/null", "char", mode=0o666, major=1, minor=3),
        directory("tmp", mode=0o1777),
        Entry("bin/ash", "hardlink", mode=0o755, link="bin/busybox"),
    ]


def small_entries():
    return [
        directory("models"),
        Entry(CONFIG, data=b'{"model_type": "llama"}\n'),
        Entry(TOKENIZER, data=b"[" + b"0, " * 700 + b"0]"),
        Entry("models/empty.txt"),
        Entry("models/vocab.json", "symlink", mode=0o777, link="tokenizer.json"),
    ]


def weights_entries():
    # Three chunks, the first larger than 64 KiB.
    return [directory("models"), Entry(WEIGHTS, data=noise(300_000, 2), chunk=100_000)]


def estargz(kind="estargz"):
    """base, small files, weights."""
    return Image([
        Layer([*base_entries(), landmark(PREFETCH)], kind),
        Layer([*small_entries(), landmark(PREFETCH)], kind),
        Layer([landmark(NO_PREFETCH), *weights_entries()], kind),
    ], dict(LABELS))


def zstd_chunked():
    """The same in zstd:chunked."""
    return estargz("zstd:chunked")


def zstd_chunked_with_frames():
    """The same with frames that decoders skip in front of the table and behind it, as other tools write them."""
    image = zstd_chunked()
    for layer in image.layers:
        layer.bend("payload", lambda data: data + skippable(b"tar-split"))
        layer.bend("toc_frame", lambda data: data + skippable(b"more"))
    return image


def zstd_storage():
    """The same for containers-storage, which podman and CRI-O pull by."""
    image = zstd_chunked()
    for layer in image.layers:
        layer.for_storage = True
    image.bend("manifest", lambda it: it | {"annotations": {"dev.starcar.consumer": "containers-storage"}})
    return image


def plain(kind, labels=LABELS):
    """The same in layers of another kind: tar, gzip or zstd."""
    return Image([Layer(entries, kind) for entries in (base_entries(), small_entries(), weights_entries())], dict(labels))


def tar():
    """What is packed for oci+fetch://."""
    return plain("tar", TAR_LABELS)


def gzip():
    """What a plain builder makes."""
    return plain("gzip")


def zstd():
    return plain("zstd")
