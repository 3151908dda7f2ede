"""starcar's own container image: runc runs it, and it packs."""

import json
import os
import re
import shutil
import subprocess

import pytest

from consumers.proc import run
from packing import TOP

EXAMPLE = TOP / "examples/tiny-llama"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture(scope="module")
def maker():
    """The example program that makes the image; `cargo test` builds it."""
    path = TOP / "target/debug/examples/container_image"
    if not os.access(path, os.X_OK):
        subprocess.run(["cargo", "build", "--quiet", "--locked", "--example", "container_image"], cwd=TOP, check=True)
    return path


@pytest.fixture(scope="module")
def bundle(maker, starcar, bin_dir, tmp_path_factory):
    """An unpacked image with the command under test, which may need the host's libraries."""
    root = tmp_path_factory.mktemp("container-image")
    options = ["--busybox", "/bin/busybox", "-o", root / "image", "-t", "v1"]
    if os.path.exists(CERTIFICATES):
        options += ["--ca-certificates", CERTIFICATES]
    run(maker, starcar.binary, *options)
    run("umoci", "unpack", "--image", f"{root / 'image'}:v1", root / "bundle")
    yield root / "bundle"
    shutil.rmtree(root)


def in_container(bundle, name, *command, mounts=(), user=None):
    """What the command in a container of its own prints; the config is the image's but for what is said here."""
    path = bundle / "config.json"
    original = path.read_text()
    config = json.loads(original)
    config["process"]["terminal"] = False
    config["process"]["args"] = list(command)
    if user:
        config["process"]["user"] = user
    libraries = [place for place in ("/lib", "/lib64", "/usr/lib") if os.path.exists(place)]
    for source, target in [*((place, place) for place in libraries), *mounts]:
        options = ["rbind", "ro" if source in libraries else "rw"]
        config["mounts"].append({"destination": str(target), "source": str(source), "type": "bind", "options": options})
    path.write_text(json.dumps(config))
    try:
        result = subprocess.run(
            ["runc", "--root", bundle.parent / "runc", "run", "--bundle", bundle, name],
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        )
    finally:
        path.write_text(original)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_it_runs_as_nobody_special(bundle, starcar):
    told = in_container(bundle, "starcar-version", "sh", "-c", "starcar --version; id -u; id -g; echo $HOME; touch $HOME/x && echo ok")
    version, *rest = told.split("\n")
    assert re.fullmatch(r"starcar \d+\.\d+\.\d+.*", version)
    assert rest[:4] == ["1010", "0", "/home/starcar", "ok"]


@pytest.mark.parametrize("user", [None, {"uid": 1000660000, "gid": 0}], ids=["its user", "a user of a namespace"])
def test_it_packs(bundle, starcar, tmp_path, user):
    """The same digest in the container and outside, by the image's user and by one that it does not know."""
    tmp_path.chmod(0o755)
    model = tmp_path / "model"
    shutil.copytree(EXAMPLE, model)
    pack = ["pack", "/scratch/model", "--base", "/bin/busybox", "-o", "oci:/home/starcar/out:v1", "--quiet"]
    inside = in_container(
        bundle, f"starcar-pack-{'any' if user else 'own'}",
        "sh", "-c", f"starcar {' '.join(pack)} && rm -r /home/starcar/out",
        mounts=[(tmp_path, "/scratch")], user=user,
    )
    outside = starcar("pack", model, "--base", "/bin/busybox", "-o", f"oci:{tmp_path / 'outside'}:v1", "--quiet")
    assert inside.strip() == outside.stdout.strip()
