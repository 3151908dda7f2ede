"""Packing what huggingface_hub itself laid out, in every layout it has, and refusing what is damaged.

The caches are made by `hf download`, the newest client, from a hub on a loopback port (hub_server.py).
"""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hub_server import Hub
from model_files import MIB, tree, write_model
from packing import clean_env, copy_tree, listed, pack, refused, starcar

REPO = "acme/tiny-llama"
REPO_DIR = "models--acme--tiny-llama"
SHARDS = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
HF = Path(sys.executable).parent / "hf"


class Download:
    """A cache that `hf download` filled, of one layout."""

    def __init__(self, home, hub, layout):
        self.home, self.hub, self.layout = home, hub, layout
        self.cache = home / "hub"
        self.repo = self.cache / REPO_DIR

    def run(self, *arguments):
        env = {"HF_ENDPOINT": self.hub.endpoint, "HF_HOME": self.home, "HF_HUB_DISABLE_TELEMETRY": 1}
        if self.layout == "classic":
            env["HF_HUB_DISABLE_XET"] = 1
        # One worker: several race to make the store of shared blobs, and the losers keep their blob in the repository.
        command = [HF, "download", REPO, "--max-workers", "1", *map(str, arguments)]
        done = subprocess.run(command, env=clean_env(env), text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done

    def snapshot(self, commit):
        return self.repo / "snapshots" / commit

    def blob(self, commit, name):
        """The regular file that holds the bytes of a snapshot's file."""
        return self.snapshot(commit).joinpath(name).resolve(strict=True)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two revisions of a model as plain directories: what the hub's `main` and `tuned` hold."""
    root = tmp_path_factory.mktemp("sources")
    main = write_model(root / "main", 15 * MIB, shards=3, seed=1)
    (main / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    (main / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    (main / "assets").mkdir()
    (main / "assets" / "notes.txt").write_text("a file in a directory\n")
    tuned = copy_tree(main, root / "tuned")
    other = write_model(root / "other", 15 * MIB, shards=3, seed=2)
    shutil.copyfile(other / SHARDS[2], tuned / SHARDS[2])
    config = json.loads((tuned / "config.json").read_text())
    (tuned / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}, indent=2) + "\n")
    return {"main": main, "tuned": tuned}


@pytest.fixture(scope="module")
def plain(sources, tmp_path_factory):
    """The images of the plain directories: what every other way must equal, layer by layer."""
    root = tmp_path_factory.mktemp("plain")
    images = {name: pack(source, root / f"{name}.oci") for name, source in sources.items()}
    assert images["main"].layers() != images["tuned"].layers()
    return images


@pytest.fixture(scope="module", params=["classic", "shared"])
def download(request, sources, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    # Xet keeps a cache of its own below HF_HOME; the server's must not be the client's.
    os.environ["HF_XET_CACHE"] = str(root / "server-xet")
    hub = Hub(cas=root / "cas" if request.param == "shared" else None)
    made = Download(root / "home", hub, request.param)
    made.main = hub.commit(REPO, tree(sources["main"]), refs=["main", "v1.0"])
    made.tuned = hub.commit(REPO, tree(sources["tuned"]), refs=["tuned", "refs/pr/7"])
    for revision in ("main", "v1.0", "tuned", "refs/pr/7"):
        made.run("--revision", revision)
    check_layout_is(request.param, made)
    yield made
    hub.close()
    del os.environ["HF_XET_CACHE"]


def check_layout_is(layout, made):
    """The client must have laid the cache out as this run of the tests says, or they would prove nothing."""
    marker = made.cache / "blobs" / ".huggingface-shared-blobs"
    assert marker.exists() == (layout == "shared")
    for commit in (made.main, made.tuned):
        assert (made.repo / "trees" / f"{commit}.json").is_file()
        for name in SHARDS:
            link = made.snapshot(commit) / name
            first = Path(os.path.normpath(link.parent / os.readlink(link)))
            assert first.parent == made.repo / "blobs" and len(first.name) == 64
            assert first.is_symlink() == (layout == "shared")
            assert made.blob(commit, name).is_relative_to(made.cache / "blobs") == (layout == "shared")
    assert len(os.readlink(made.snapshot(made.main) / "config.json").rpartition("/")[2]) == 40
    refs = {path.relative_to(made.repo / "refs").as_posix(): path.read_text()
            for path in (made.repo / "refs").rglob("*") if path.is_file()}
    assert refs == {"main": made.main, "v1.0": made.main, "tuned": made.tuned, "refs/pr/7": made.tuned}


WAYS = {
    "repository directory": lambda made: (made.repo, {}),
    "snapshot directory": lambda made: (made.snapshot(made.main), {}),
    "id and HF_HUB_CACHE": lambda made: (REPO, {"HF_HUB_CACHE": made.cache, "HF_HOME": made.home / "nothing"}),
    "id and HF_HOME": lambda made: (REPO, {"HF_HOME": made.home}),
}


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_into_a_cache_gives_the_layers_of_a_plain_copy(download, plain, tmp_path, way, threads):
    source, env = WAYS[way](download)
    image = pack(source, tmp_path / "image.oci", "--threads", threads, env=env, cwd=tmp_path)
    assert image.layers() == plain["main"].layers()


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_do_not_change_a_plain_copys_image(sources, plain, tmp_path, threads):
    image = pack(copy_tree(sources["main"], tmp_path / "copy"), tmp_path / "image.oci", "--threads", threads)
    assert image.layers() == plain["main"].layers()


def test_an_image_has_the_files_of_its_revision(sources, plain):
    for name, source in sources.items():
        expected = {path: content for path, content in tree(source).items() if path != ".gitattributes"}
        found = plain[name].files()
        assert sorted(found) == sorted(expected)
        assert found == expected


def test_only_the_changed_layers_differ_between_revisions(plain):
    kinds = [
        kind for (kind, *before), (_, *after) in zip(plain["main"].layers(), plain["tuned"].layers()) if before != after
    ]
    assert sorted(kinds) == ["small", "weights"]


@pytest.mark.parametrize("revision", ["tuned", "refs/pr/7", "main", "v1.0", "a commit"])
def test_a_revision_is_a_branch_a_tag_a_pull_request_or_a_commit(download, plain, tmp_path, revision):
    expected = "main" if revision in ("main", "v1.0") else "tuned"
    asked = download.tuned if revision == "a commit" else revision
    for source, env in ((download.repo, {}), (REPO, {"HF_HUB_CACHE": download.cache})):
        image = pack(source, tmp_path / "image.oci", "--revision", asked, env=env)
        assert image.layers() == plain[expected].layers()


def test_an_unknown_revision_is_refused(download, tmp_path):
    refused(download.repo, tmp_path / "image.oci", "--revision", "no-such-branch", names=["no-such-branch"])


def test_an_unknown_repository_is_refused(download, tmp_path):
    env = {"HF_HUB_CACHE": download.cache}
    refused("acme/never-downloaded", tmp_path / "image.oci", names=["acme/never-downloaded"], env=env)


def test_a_local_dir_download_gives_the_layers_of_a_plain_copy(download, sources, plain, tmp_path):
    download.run("--local-dir", tmp_path / "model")
    assert list((tmp_path / "model" / ".cache" / "huggingface" / "download").glob("*.metadata"))
    image = pack(tmp_path / "model", tmp_path / "image.oci")
    assert image.layers() == plain["main"].layers()


def flip_a_byte(path):
    """Change one bit in the middle of a file without changing its size or times."""
    before = path.stat()
    path.chmod(before.st_mode | stat.S_IWUSR)
    with open(path, "r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)[0]
        file.seek(before.st_size // 2)
        file.write(bytes([byte ^ 1]))
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.fixture
def spoiled(download, tmp_path):
    """A copy of the cache, symlinks kept, to spoil."""
    shutil.copytree(download.home, tmp_path / "home", symlinks=True)
    return Download(tmp_path / "home", download.hub, download.layout)


@pytest.mark.parametrize("name", [SHARDS[1], "tokenizer.json", "assets/notes.txt"])
def test_a_flipped_byte_is_found(download, spoiled, tmp_path, name):
    flip_a_byte(spoiled.blob(download.main, name))
    refused(spoiled.repo, tmp_path / "image.oci", names=[name])


def test_a_flipped_byte_leaves_an_earlier_image_alone(download, spoiled, plain, tmp_path):
    layout = tmp_path / "image.oci"
    earlier = pack(download.repo, f"{layout}:v1")
    flip_a_byte(spoiled.blob(download.main, SHARDS[0]))
    refused(spoiled.repo, f"{layout}:v2", names=[SHARDS[0]])
    assert [each["digest"] for each in listed(layout)] == [earlier.digest]


def test_a_flipped_byte_in_a_local_dir_download_is_found(download, tmp_path):
    download.run("--local-dir", tmp_path / "model")
    flip_a_byte(tmp_path / "model" / SHARDS[2])
    refused(tmp_path / "model", tmp_path / "image.oci", names=[SHARDS[2]])


def test_a_blob_that_is_gone_is_an_error(download, spoiled, tmp_path):
    spoiled.blob(download.main, SHARDS[1]).unlink()
    refused(spoiled.repo, tmp_path / "image.oci", names=[SHARDS[1]])


def test_a_partial_download_is_an_error(download, tmp_path):
    part = Download(tmp_path / "home", download.hub, download.layout)
    part.run("--include", "*.json", "--include", SHARDS[0], "--include", SHARDS[2])
    refused(part.repo, tmp_path / "image.oci", names=[SHARDS[1]])


def missing_shard(model):
    (model / SHARDS[1]).unlink()
    return SHARDS[1]


def truncated_shard(model):
    os.truncate(model / SHARDS[2], (model / SHARDS[2]).stat().st_size - 1)
    return SHARDS[2]


def shard_cut_inside_its_header(model):
    os.truncate(model / SHARDS[0], 20)
    return SHARDS[0]


def dangling_symlink(model):
    (model / "vocabulary.txt").symlink_to("no-such-file")
    return "vocabulary.txt"


def symlink_to_itself(model):
    (model / "vocabulary.txt").symlink_to("vocabulary.txt")
    return "vocabulary.txt"


def absolute_symlink_out_of_the_model(model):
    (model / "passwords.txt").symlink_to("/etc/passwd")
    return "passwords.txt"


def relative_symlink_out_of_the_model(model):
    (model.parent / "secret.txt").write_text("not for publication\n")
    (model / "notes.txt").symlink_to("../secret.txt")
    return "notes.txt"


def symlinked_directory_out_of_the_model(model):
    (model.parent / "elsewhere").mkdir()
    (model.parent / "elsewhere" / "secret.txt").write_text("not for publication\n")
    (model / "extra").symlink_to("../elsewhere")
    return "extra"


def fifo(model):
    os.mkfifo(model / "queue")
    return "queue"


def empty_directory(model):
    shutil.rmtree(model)
    model.mkdir()
    return model.name


def no_directory(model):
    shutil.rmtree(model)
    return model.name


@pytest.mark.parametrize(
    "spoil",
    [
        missing_shard,
        truncated_shard,
        shard_cut_inside_its_header,
        dangling_symlink,
        symlink_to_itself,
        absolute_symlink_out_of_the_model,
        relative_symlink_out_of_the_model,
        symlinked_directory_out_of_the_model,
        fifo,
        empty_directory,
        no_directory,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_a_spoiled_directory_is_refused(sources, tmp_path, spoil):
    model = copy_tree(sources["main"], tmp_path / "spoiled-model")
    name = spoil(model)
    refused(model, tmp_path / "image.oci", names=[name])


def test_a_symlink_in_a_snapshot_that_leaves_the_cache_is_refused(download, spoiled, tmp_path):
    (tmp_path / "secret.txt").write_text("not for publication\n")
    (spoiled.snapshot(download.main) / "extra.txt").symlink_to(tmp_path / "secret.txt")
    refused(spoiled.repo, tmp_path / "image.oci", names=["extra.txt"])


def test_a_dry_run_writes_nothing(sources, tmp_path):
    done = starcar("pack", sources["main"], "-o", f"oci:{tmp_path}/image.oci", "--base", "scratch", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "image.oci").exists()
