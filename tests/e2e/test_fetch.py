"""KServe's fetch mode: its own Python package downloads images of `--layer-format tar` from a registry.

`kserve_storage.Storage.download` is what the storage-initializer container runs for `oci+fetch://`. Nothing of it is
replaced: its own setting for registries without TLS makes it speak plain HTTP to the loopback registry.
"""

import os
import stat
import tarfile

import pytest
from kserve_storage import Storage

from model_files import MIB, tree, write_model
from packing import copy_tree, pack, starcar


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model in which every name and size that a tar treats in its own way occurs."""
    model = write_model(tmp_path_factory.mktemp("model") / "model", 9 * MIB, shards=3, seed=5)
    (model / "empty.txt").write_bytes(b"")
    (model / "block.txt").write_bytes(b"b" * 512)
    deep = model / "assets" / ("long-directory-name-" * 6)
    deep.mkdir(parents=True)
    (deep / ("long-file-name-" * 10 + ".txt")).write_text("a name that needs a pax header\n")
    (model / "assets" / "größe.txt").write_text("a name that is not ASCII\n")
    return model


@pytest.fixture
def fetch(monkeypatch, tmp_path):
    """KServe's download of an image, into a new directory."""
    monkeypatch.setenv("KSERVE_OCI_INSECURE_REGISTRY", "true")
    monkeypatch.setenv("KSERVE_OCI_DOCKER_CONFIG", str(tmp_path / "no-docker-config.json"))

    def run(reference):
        target = tmp_path / "fetched"
        assert Storage.download(f"oci://{reference}", str(target)) == str(target)
        return target

    return run


def push(model, reference, *arguments):
    done = starcar("pack", model, "-t", reference, "--push", "--plain-http", "--base", "scratch", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n").rpartition("\n")[2]


def test_kserve_fetches_tar_layers(registry, model, fetch):
    reference = registry.ref("fetch/tar", "v1")
    push(model, reference, "--layer-format", "tar")
    fetched = fetch(reference)
    assert tree(fetched) == tree(model)
    for path in fetched.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert path.is_dir() or (path.is_file() and not path.is_symlink())
        assert mode == (0o755 if path.is_dir() else 0o644), f"{path} has mode {mode:o}"


def test_kserve_fetches_by_digest(registry, model, fetch):
    reference = registry.ref("fetch/digest", "v1")
    digest = push(model, reference, "--layer-format", "tar")
    assert tree(fetch(f"{reference.rpartition(':')[0]}@{digest}")) == tree(model)


def test_kserve_fetches_what_was_packed_from_symlinks(registry, model, fetch, tmp_path):
    """A hub cache is symlinks; KServe's extraction refuses those that are absolute or leave the tree."""
    repo = tmp_path / "models--acme--linked"
    blobs = copy_tree(model, repo / "blobs")
    snapshot = repo / "snapshots" / ("0123456789" * 4)
    for path in sorted(blobs.rglob("*")):
        if path.is_file():
            link = snapshot / path.relative_to(blobs)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(path, link.parent))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(snapshot.name)
    reference = registry.ref("fetch/linked", "v1")
    push(repo, reference, "--layer-format", "tar")
    assert tree(fetch(reference)) == tree(model)


def test_kserve_fetches_a_pushed_layout(registry, model, fetch, tmp_path):
    image = pack(model, f"{tmp_path}/image.oci:v1", "--layer-format", "tar")
    reference = registry.ref("fetch/layout", "v1")
    done = starcar("push", f"oci:{tmp_path}/image.oci:v1", reference, "--plain-http")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n").rpartition("\n")[2] == image.digest
    assert tree(fetch(reference)) == tree(model)


def test_kserve_cannot_fetch_estargz_layers(registry, model, fetch):
    """Why the tar format exists. When a newer kserve-storage reads eStargz, this fails and the format may go."""
    reference = registry.ref("fetch/estargz", "v1")
    push(model, reference, "--layer-format", "estargz")
    with pytest.raises(tarfile.ReadError):
        fetch(reference)
