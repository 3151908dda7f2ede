"""An engine's stand-in: an image whose programs tell their arguments and variables, and read the whole model."""

import base64
import shutil
from dataclasses import dataclass

from consumers.proc import run

# Fails as an engine does whose model is not there. What it was told comes line by line, encoded, between other output.
RECORDER = """#!/bin/sh
echo "started $0 $(id -u) $(id -g)"
for word in "$0" "$@"; do echo "argument $(printf %s "$word" | base64 | tr -d '\\n')"; done
echo "environment $(env -0 | base64 | tr -d '\\n')"
cd /mnt/models 2>/dev/null && [ -f config.json ] || { echo "no model at /mnt/models: $(ls -la /mnt/models 2>&1)"; exit 3; }
find . -type f -print0 | sort -z | xargs -0 sha256sum | sed 's/^/model /'
for directory in $VLLM_CACHE_ROOT $TRITON_CACHE_DIR $TORCHINDUCTOR_CACHE_DIR ${FLASHINFER_WORKSPACE_BASE:+$FLASHINFER_WORKSPACE_BASE/.cache/flashinfer}; do
    cd "$directory" && echo written >engine-wrote-this || exit 4
    rm engine-wrote-this
    find . -type d | while read -r each; do [ -w "$each" ] || echo "not writable: $directory/$each"; done
    find "$directory" -type f -print0 | sort -z | xargs -0 sha256sum | sed 's/^/cache /'
done
if touch /mnt/models/config.json 2>/dev/null; then echo "the model can be written"; fi
echo finished
"""
PROGRAMS = ("python3", "vllm", "sglang", "serve")


def build(directory, registry, name="engine", tag="v1", entrypoint="/bin/serve"):
    """Pushes the stand-in and gives its name."""
    rootfs = directory / "engine-rootfs"
    for each in ("bin", "mnt", "tmp", "etc", "root", "home"):
        (rootfs / each).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for applet in ("sh", "find", "sha256sum", "xargs", "sort", "sed", "base64", "tr", "env", "ls", "id", "touch", "rm", "sleep", "cat",
                   "mkdir", "cp", "test", "[", "readlink", "tail", "grep"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    for program in PROGRAMS:
        (rootfs / "bin" / program).write_text(RECORDER)
        (rootfs / "bin" / program).chmod(0o755)
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    layout = directory / "engine-image"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:it")
    run("umoci", "insert", "--image", f"{layout}:it", rootfs, "/")
    run("umoci", "config", "--image", f"{layout}:it", "--config.env", "PATH=/bin", "--config.entrypoint", entrypoint)
    ref = registry.ref(name, tag)
    run("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{layout}:it", f"docker://{ref}")
    return ref


@dataclass
class Told:
    """What an engine's last start said."""

    arguments: list
    environment: dict
    model: dict
    caches: dict
    user: tuple
    complaints: list


def told(output):
    """Reads the stand-in's output."""
    begin = output.rindex("started ")
    lines = output[begin:].splitlines()
    by = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        by.setdefault(word, []).append(rest)
    decode = lambda text: base64.b64decode(text).decode()  # noqa: E731
    environment = dict(pair.split("=", 1) for pair in decode(by["environment"][0]).split("\0") if pair)
    sums = lambda word, cut: {line[66:].removeprefix(cut): line[:64] for line in by.get(word, [])}  # noqa: E731
    known = {"started", "argument", "environment", "model", "cache", "finished"}
    return Told(
        [decode(each) for each in by["argument"]], environment, sums("model", "./"), sums("cache", ""),
        tuple(map(int, by["started"][0].split()[1:])),
        [line for line in lines if line.partition(" ")[0] not in known] + ([] if "finished" in by else ["it did not finish"]),
    )
