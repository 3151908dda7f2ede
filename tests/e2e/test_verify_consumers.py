"""What real consumers make of each of the broken images, against what `starcar verify --deep` says of them. Where they
differ, broken_images/disagreements.py says why."""

import functools
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from kserve_storage import Storage

from broken_images import CASES, LAYER, sound
from broken_images.writer import TOC_DIGEST
from consumers.node import Node
from consumers.proc import Process, run, wait_for
from consumers.shelf import Shelf
from packing import STARCAR, clean_env

SOUND = ["estargz", "zstd_chunked", "tar", "gzip", "zstd"]
# Hundreds of megabytes tell consumers no more.
NAMES = SOUND + [name for name, case in CASES.items() if not case.heavy]
LAYERS = [name for name in NAMES if name not in CASES or CASES[name].at == LAYER]
EVERY_USE = {"lazy", "modelcar", "native", "fetch"}


class Corpus:
    """The layouts of all images, each written when it is asked for, and starcar's opinion of each."""

    def __init__(self, root):
        self.root = root
        self.layout = functools.cache(self._write)
        self.verification = functools.cache(self._verify)

    def image(self, name):
        return CASES[name].make() if name in CASES else getattr(sound, name)()

    def _write(self, name):
        self.image(name).write(self.root / name)
        return self.root / name

    def _verify(self, name):
        arguments = CASES[name].arguments if name in CASES else ()
        argv = [str(STARCAR), "verify", "--deep", "--format", "json", *arguments, f"oci:{self.layout(name)}:v1"]
        env = clean_env({"XDG_CACHE_HOME": self.root / ".cache"})
        done = subprocess.run(argv, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, timeout=300)
        assert done.returncode in (0, 9, 10), done.stderr
        return json.loads(done.stdout)

    def works(self, name, use):
        (verdict,) = [each for each in self.verification(name)["verdicts"] if each["use"] == use]
        return verdict["works"]

    def judge(self, name, consumer, says, accepts, why):
        """Compares starcar's opinion with a consumer's: they agree, or it is known why not."""
        reason = CASES[name].differ.get(consumer) if name in CASES else None
        found = [f"{each['code']}: {each['message']}" for each in self.verification(name)["findings"]]
        said = f"starcar {'takes' if says else 'refuses'} it ({found}), {consumer} {'takes' if accepts else 'refuses'} it ({why})"
        if reason is None:
            assert says == accepts, f"{said}: explain it in broken_images/disagreements.py"
        else:
            assert says != accepts, f"{said}: that no longer differs, it was explained by {reason!r}"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    yield Corpus(root)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def shelf(corpus):
    server = Shelf(corpus.root)
    yield server
    server.stop()


# The readers of stargz-snapshotter.


@pytest.fixture(scope="module")
def read(bin_dir):
    """read(blob, digest of the table) -> what the first reader that refuses a layer says, or None."""
    @functools.cache
    def ask(blob, toc, _content):
        for command, store in (("reader", "memory"), ("reader-db", "db")):
            # One of them goes round in circles until its stack is full.
            argv = ["prlimit", "--as=1000000000", bin_dir / command, "-store", store, "-toc-digest", toc, blob]
            done = run(*argv, check=False)
            if done.returncode:
                return done.stderr.strip()[-300:]
        return None
    return lambda blob, toc: ask(blob, toc, blob.read_bytes())


def unread(corpus, name, read):
    """Why the readers do not take an image's layers; None if they do."""
    layout = corpus.layout(name)
    listed = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    manifest = json.loads((layout / "blobs/sha256" / listed[7:]).read_text())
    for number, layer in enumerate(manifest["layers"], 1):
        toc = layer.get("annotations", {}).get(TOC_DIGEST)
        if not toc:
            return f"layer {number} is not said to have a table: it is not mounted lazily"
        # Layers that images share are read once: the file of the same digest is the same, or is damaged.
        if why := read(layout / "blobs/sha256" / layer["digest"][7:], toc):
            return f"layer {number}: {why}"
    return None


@pytest.mark.parametrize("name", LAYERS)
def test_reader(name, corpus, read):
    why = unread(corpus, name, read)
    corpus.judge(name, "reader", corpus.works(name, "lazy") == "yes", why is None, why)


# KServe's downloader.


@pytest.mark.parametrize("name", NAMES)
def test_fetch(name, corpus, shelf, monkeypatch, tmp_path):
    monkeypatch.setenv("KSERVE_OCI_INSECURE_REGISTRY", "true")
    monkeypatch.setenv("KSERVE_OCI_DOCKER_CONFIG", str(tmp_path / "none.json"))
    corpus.layout(name)
    out = tmp_path / "fetched"
    try:
        Storage.download(f"oci://{shelf.ref(name)}", str(out))
        why = None
    except Exception as error:  # noqa: BLE001: whatever it is, the storage initializer ends with it
        why = repr(error)
    if why is None:
        # It passes over what it does not know without a word: only what is there tells.
        got = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file() and not path.is_symlink()}
        want = corpus.image(name).model_files()
        if got != want:
            why = f"other files than the model's: {sorted(set(want) ^ set(got)) or 'the same names'}"
    works = corpus.works(name, "fetch")
    assert works in ("yes", "no"), works
    corpus.judge(name, "fetch", works == "yes", why is None, why)


# containerd.


class Eager(Node):
    """containerd alone. What one namespace has pulled is not there for the others."""

    def _start(self):
        (self.dir / "containerd.toml").write_text(
            'version = 3\n[plugins."io.containerd.metadata.v1.bolt"]\ncontent_sharing_policy = "isolated"\n')
        containerd = Process(
            [self.bin / "containerd", "--config", self.dir / "containerd.toml", "--address", self.sock]
            + ["--root", self.dir / "root", "--state", self.dir / "state"],
            self.dir / "containerd.log", env={"PATH": f"{self.bin}:{os.environ['PATH']}"},
        )
        self.processes.append(containerd)
        containerd.wait_socket(self.sock)
        wait_for("an answer from containerd", lambda: containerd.alive() and self.ctr("version", check=False).returncode == 0)


@pytest.fixture(scope="module")
def pulls(request, bin_dir, tmp_path_factory, corpus, shelf):
    """{case: what comes of its pull} of the cases that will be asked for; several at a time."""
    node = Eager(bin_dir, tmp_path_factory.mktemp("containerd") / "node", snapshotters={})

    def pull(name):
        done = node.ctr("-n", name, "images", "pull", "--plain-http", "--snapshotter", "overlayfs", shelf.ref(name), check=False)
        return None if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2]

    names = [item.callspec.params["name"] for item in request.session.items if item.originalname == "test_containerd"]
    for name in names:
        corpus.layout(name)
    with ThreadPoolExecutor(4) as threads:
        yield {name: threads.submit(pull, name) for name in names}
    node.stop()


@pytest.mark.parametrize("name", NAMES)
def test_containerd(name, corpus, pulls):
    why = pulls[name].result()
    broken = any(set(finding["breaks"]) == EVERY_USE for finding in corpus.verification(name)["findings"])
    corpus.judge(name, "containerd", not broken, why is None, why)
