"""`hf://`: starcar and huggingface_hub, the newest client, take turns with one cache and one hub (hub_server.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download
from huggingface_hub.utils import WeakFileLock

from hub_server import Hub
from model_files import MIB, tree, write_model
from packing import STARCAR, clean_env, pack

REPO = "acme/tiny-llama"
HF = Path(sys.executable).parent / "hf"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = write_model(tmp_path_factory.mktemp("source") / "model", 6 * MIB, shards=2, seed=1)
    (root / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    (root / "assets").mkdir()
    (root / "assets" / "notes.txt").write_text("a file in a directory\n")
    return root


@pytest.fixture(scope="module")
def image(model, tmp_path_factory):
    """The image of the plain directory, which every other way must equal."""
    return pack(model, tmp_path_factory.mktemp("plain") / "image.oci")


@pytest.fixture(scope="module", params=["classic", "shared"])
def hub(request, model, tmp_path_factory):
    """A hub without and with Xet, whose clients share blobs between repositories."""
    root = tmp_path_factory.mktemp(request.param)
    # Xet keeps a cache of its own below HF_HOME; the server's must not be the client's.
    os.environ["HF_XET_CACHE"] = str(root / "server-xet")
    served = Hub(cas=root / "cas" if request.param == "shared" else None)
    served.main = served.commit(REPO, tree(model), refs=["main", "v1.0"])
    yield served
    served.close()
    del os.environ["HF_XET_CACHE"]


def variables(hub, home):
    return {"HF_ENDPOINT": hub.endpoint, "HF_HOME": home, "HF_HUB_DISABLE_TELEMETRY": 1}


def blob_requests(hub):
    """The requests for files' bytes since the last time, by name."""
    seen, hub.requests[:] = list(hub.requests), []
    return sorted(request.rpartition("/")[2] for request in seen if request.startswith("GET") and "/resolve/" in request)


def hf_download(hub, home):
    command = [HF, "download", REPO, "--max-workers", "1"]
    subprocess.run(command, env=clean_env(variables(hub, home)), capture_output=True, timeout=120, check=True)


def test_what_starcar_downloads_huggingface_hub_finds(hub, model, image, tmp_path):
    home = tmp_path / "home"
    blob_requests(hub)
    packed = pack(f"hf://{REPO}", tmp_path / "image.oci", env=variables(hub, home))
    assert packed.layers() == image.layers()
    wanted = {path: content for path, content in tree(model).items() if path != ".gitattributes"}
    assert blob_requests(hub) == sorted(path.rpartition("/")[2] for path in wanted)

    cache = home / "hub"
    for revision in (None, hub.main):
        found = Path(snapshot_download(REPO, cache_dir=cache, revision=revision, local_files_only=True))
        assert found == cache / "models--acme--tiny-llama" / "snapshots" / hub.main
    assert tree(found) == wanted
    scanned = scan_cache_dir(cache)
    assert not scanned.warnings
    (repo,) = scanned.repos
    assert (repo.repo_id, repo.nb_files) == (REPO, len(wanted))
    assert [(revision.commit_hash, sorted(revision.refs)) for revision in repo.revisions] == [(hub.main, ["main"])]

    # The cached snapshot, packed as a directory, is the same image; downloading again brings only what was left out.
    again = pack(found, tmp_path / "again.oci")
    assert again.digest == packed.digest
    hf_download(hub, home)
    assert [name for name in blob_requests(hub) if name != ".gitattributes"] == []


def test_what_huggingface_hub_downloads_starcar_does_not_download_again(hub, image, tmp_path):
    home = tmp_path / "home"
    hf_download(hub, home)
    blob_requests(hub)
    for revision in ("", "@v1.0", f"@{hub.main}"):
        packed = pack(f"hf://{REPO}{revision}", tmp_path / "image.oci", env=variables(hub, home))
        assert packed.layers() == image.layers()
    assert blob_requests(hub) == []
    gone = variables(hub, home) | {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": 1}
    assert pack(f"hf://{REPO}@v1.0", tmp_path / "image.oci", env=gone).digest == packed.digest

    # A blob that is gone is the only thing that is had again.
    shard = home / "hub" / "models--acme--tiny-llama" / "snapshots" / hub.main / "model-00001-of-00002.safetensors"
    shard.resolve(strict=True).unlink()
    hub.requests.clear()
    packed = pack(f"hf://{REPO}", tmp_path / "image.oci", env=variables(hub, home))
    assert packed.layers() == image.layers()
    assert blob_requests(hub) == [shard.name]


def test_a_lock_of_huggingface_hub_is_waited_for(hub, tmp_path):
    home = tmp_path / "home"
    etag = hub.resolve(REPO, "main")[1]["model-00001-of-00002.safetensors"].etag
    locks = home / "hub" / ".locks" / "models--acme--tiny-llama"
    locks.mkdir(parents=True)
    command = [STARCAR, "pack", f"hf://{REPO}", "-o", f"oci:{tmp_path}/image.oci", "--base", "scratch"]
    env = clean_env(variables(hub, home) | {"XDG_CACHE_HOME": tmp_path / "cache"})
    with WeakFileLock(locks / f"{etag}.lock"):
        packing = subprocess.Popen([str(part) for part in command], env=env, stderr=subprocess.PIPE, text=True)
        for line in packing.stderr:
            if "waiting for another process that downloads model-00001" in line:
                break
        else:
            pytest.fail("it did not wait")
        blobs = home / "hub" / "models--acme--tiny-llama" / "blobs"
        assert not (blobs / etag).exists()
    assert packing.wait(timeout=60) == 0
    packing.stderr.close()
    assert (blobs / etag).is_file()
