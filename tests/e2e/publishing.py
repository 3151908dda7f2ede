"""Publishing a model as `examples/` do it: what is needed for it, and what must then be at the registry."""

import base64
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from ci_systems import Machine
from consumers import registry as registries
from consumers.proc import run
from model_files import TINY_LLAMA
from packing import STARCAR, TOP
from pushing import HTPASSWD, PASSWORD, USER, http_status

PUBLISH = TOP / "examples/shell/publish.sh"
COSIGN_PASSWORD = "hunter2-e2e-k3y"
HUB_TOKEN = "hunter2-e2e-hub-t0ken"
RELEASES = ("trixie", "sid")


@pytest.fixture(scope="module")
def tools(bin_dir):
    """The directories of what tests/e2e/setup brings for pipelines: commands, and what judges Tekton's tasks."""
    tekton = bin_dir.parent / "tekton"
    needed = [bin_dir / "actionlint", bin_dir / "cosign-trixie", bin_dir / "cosign-sid"]
    needed += [tekton / "node_modules/.bin/tekton-lint", *map(Path, filter(None, map(shutil.which, ["shellcheck", "jq"])))]
    if len(needed) != 6 or not all(os.access(path, os.X_OK) for path in needed):
        pytest.fail("a linter, cosign or jq is missing: run tests/e2e/setup", pytrace=False)
    return bin_dir, tekton


@pytest.fixture(scope="module")
def shells(tools, tmp_path_factory):
    """shells(release) -> a PATH with starcar, publish and the cosign of that release of Debian, docker as GitHub has it, and
    what every system has."""
    root = tmp_path_factory.mktemp("commands")

    def path(release):
        directory = root / release
        if not directory.exists():
            directory.mkdir()
            (directory / "starcar").symlink_to(STARCAR)
            (directory / "cosign").symlink_to(tools[0] / f"cosign-{release}")
            (directory / "publish").symlink_to(PUBLISH)
        return f"{directory}:/usr/bin:/bin"

    return path


@pytest.fixture(scope="module")
def cosigns(shells, tmp_path_factory):
    """Debian's cosign of each major version, by the release that has it, with a key pair."""
    return {release: Cosign(release, shells, tmp_path_factory.mktemp(f"keys-{release}")) for release in RELEASES}


@pytest.fixture(scope="module", params=RELEASES)
def cosign(request, cosigns):
    """Both of them."""
    return cosigns[request.param]


class Cosign:
    """cosign(…) runs it; `key` and `pub` are files."""

    def __init__(self, release, shells, directory):
        self.release, self.dir = release, directory
        self.env = {"PATH": shells(release), "HOME": str(directory), "COSIGN_PASSWORD": COSIGN_PASSWORD}
        self.env["HTTPS_PROXY"] = "http://127.0.0.1:9"
        self.key, self.pub = directory / "cosign.key", directory / "cosign.pub"
        self("generate-key-pair")

    def __call__(self, *arguments, env=None, check=True):
        return run("cosign", *arguments, env=self.env | (env or {}), cwd=self.dir, check=check, timeout=60)

    def verify(self, image, *arguments, verb="verify", key=None, env=None, check=True):
        key = key or self.pub
        return self(verb, "--key", key, "--insecure-ignore-tlog=true", *arguments, image, env=env, check=check)

    def statement(self, image, kind, env=None):
        """The statement of a verified attestation, however often it was attested."""
        done = self.verify(image, "--type", kind, verb="verify-attestation", env=env)
        (payload,) = {json.loads(line)["payload"] for line in done.stdout.splitlines()}
        return json.loads(base64.b64decode(payload))


@pytest.fixture(scope="module")
def private_registry(tools, tmp_path_factory):
    """A registry that wants a password, shared by the pipelines."""
    root = tmp_path_factory.mktemp("private")
    (root / "htpasswd").write_text(HTPASSWD)
    auth = f"auth:\n  htpasswd:\n    realm: e2e\n    path: {root / 'htpasswd'}\n"
    server = registries.Registry(tools[0] / "registry", root / "registry", auth=auth, basic=(USER, PASSWORD))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def credentials(private_registry, tmp_path_factory):
    """DOCKER_CONFIG of one who may use it."""
    directory = tmp_path_factory.mktemp("docker")
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {private_registry.host: {"auth": pair}}}))
    return {"DOCKER_CONFIG": str(directory)}


@pytest.fixture
def workspace(tmp_path):
    """A machine of a CI system."""
    return repository(tmp_path / "machine")


def repository(root):
    """A directory whose `work` is a checkout that has a model, a profile by which a start is short, and the script."""
    work = root / "work"
    (work / "ci").mkdir(parents=True)
    shutil.copy(PUBLISH, work / "ci/publish.sh")
    shutil.copytree(TINY_LLAMA, work / "tiny-llama")
    write_profile(work / "profile.json", milliseconds=1)
    return root


def write_profile(path, milliseconds):
    names = ["config.json", *sorted(each.name for each in TINY_LLAMA.glob("*.safetensors"))]
    accesses = [{"at": at * milliseconds, "kind": "read", "path": name} for at, name in enumerate(names, 1)]
    path.write_text(json.dumps({"version": 1, "accesses": accesses}))


def tags(registry, name):
    if http_status(registry, f"/v2/{name}/tags/list") == 404:
        return []
    return sorted(json.loads(registry.get(f"/v2/{name}/tags/list"))["tags"] or [])


def named(registry, name):
    """The tags of a repository that are for people."""
    return [tag for tag in tags(registry, name) if not tag.startswith("sha256-")]


def check_published(registry, name, tag, digest, cosign, machine, env=None):
    """The image is there by tag and digest, is what it should be, and is signed and attested."""
    content = registry.manifest_bytes(registry.ref(name, tag))
    assert "sha256:" + hashlib.sha256(content).hexdigest() == digest
    assert registry.manifest_bytes(f"{registry.host}/{name}@{digest}") == content
    image = f"{registry.host}/{name}@{digest}"
    run("starcar", "verify", "--deep", image, env=machine.base | (env or {}))
    assert digest in cosign.verify(image, env=env).stdout
    for kind, predicate in (("slsaprovenance1", "https://slsa.dev/provenance/v1"), ("spdxjson", "https://spdx.dev/Document")):
        statement = cosign.statement(image, kind, env=env)
        assert statement["predicateType"] == predicate
        assert [each["digest"] for each in statement["subject"]] == [{"sha256": digest.removeprefix("sha256:")}]
    # With a key, nobody but the registry is asked.
    assert "127.0.0.1:9:" not in machine.output, machine.output
    for secret in (PASSWORD, COSIGN_PASSWORD, HUB_TOKEN):
        assert secret not in machine.output
    return image


def shell_environment(image, cosign):
    """What publish.sh is told."""
    return {"MODEL": "tiny-llama", "IMAGE": image, "PROFILE": "profile.json", "BASE": "scratch", "COSIGN_KEY": cosign.key,
            "COSIGN_PASSWORD": COSIGN_PASSWORD}
