"""The pipelines of `examples/`: linted by their own linters, and run as they lie there."""

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import ci_systems
import tekton_types
from ci_systems import Machine, StepFailed, load
from hub_server import Hub
from model_files import TINY_LLAMA, tree
from packing import STARCAR, TOP
from publishing import (  # noqa: F401
    COSIGN_PASSWORD, HUB_TOKEN, PUBLISH, check_published, cosigns, credentials, named, private_registry, shell_environment, shells,
    tags, tools, workspace, write_profile,
)
from pushing import PASSWORD, USER

WORKFLOW = TOP / "examples/github-actions/publish-model.yaml"
GITLAB = TOP / "examples/gitlab/publish-model.gitlab-ci.yml"
TASK = TOP / "examples/tekton/publish-model.yaml"
NOWHERE = "sha256:" + "0" * 64


# Linted. Each linter is given mistakes, too: one that finds nothing may not be looking.


def lint(*command, cwd=None):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode, done.stdout + done.stderr


def planted(path, directory, *mistakes):
    """A copy with mistakes: (old, new, …)."""
    text = path.read_text()
    for old, new, *_ in mistakes:
        assert old in text, old
        text = text.replace(old, new, 1)
    copy = directory / path.name
    copy.write_text(text)
    return copy


def judged(judge, path, directory, mistakes):
    """`judge` has nothing to say of a file, and something of each mistake: (old, new, what is said)."""
    status, said = judge(path)
    assert status == 0, said
    status, said = judge(planted(path, directory, *mistakes))
    assert status != 0
    for _, new, words in mistakes:
        assert words in said, f"{new!r} was not found:\n{said}"


def test_actionlint(tools, tmp_path):
    judge = lambda path: lint(tools[0] / "actionlint", "-no-color", "-shellcheck", shutil.which("shellcheck"), "-pyflakes", "", path)
    judged(judge, WORKFLOW, tmp_path, [
        ("inputs.image }}", "inputs.imag }}", "imag"),
        ("runs-on: ubuntu-24.04", "runs-on: ubuntu-99.04", "ubuntu-99.04"),
        ('docker rm "$container"', "docker rm $container", "SC2086"),
        ("steps.result.outputs.digest", "steps.results.outputs.digest", "results"),
        ("id-token: write", "id-tokens: write", "id-tokens"),
    ])


@pytest.mark.parametrize("path, schema, options, mistakes", [
    (WORKFLOW, "vendor.github-workflows", [], [("timeout-minutes: 180", "timeout: 180", "timeout")]),
    (GITLAB, "vendor.gitlab-ci", ["--data-transform", "gitlab-ci"],
     [("interruptible: false", "interruptible: maybe", "interruptible"), ("  script:\n", "  scripts:\n", "scripts")]),
])
def test_check_jsonschema(tmp_path, path, schema, options, mistakes):
    command = Path(sys.executable).parent / "check-jsonschema"
    judged(lambda file: lint(command, "-v", "--builtin-schema", schema, *options, file), path, tmp_path, mistakes)


def test_tekton_lint(tools, tmp_path):
    command = tools[1] / "node_modules/.bin/tekton-lint"
    judged(lambda path: lint(command, "--max-warnings", "0", path.name, cwd=path.parent), TASK, tmp_path, [
        ("value: $(params.model)", "value: $(params.modell)", "modell"),
        ("name: publish-model\n", "name: Publish_Model\n", "Publish_Model"),
        ("        - name: FAIL_ON\n", "        - name: MAX_SECONDS\n", "MAX_SECONDS"),
        ("value: $(params.fail-on)", "value: warning", "fail-on"),
    ])


@pytest.mark.parametrize("old, new", [
    (None, None),
    ("      script: |\n        #!/bin/sh\n        exec publish pack", "      scirpt: |\n        #!/bin/sh\n        exec publish pack"),
    ("runAsUser: 65532", 'runAsUser: "65532"'),
    ("allowPrivilegeEscalation", "allowPrivilegesEscalation"),
    ("computeResources:", "resources:"),
    ("secretKeyRef:", "secretKeyReference:"),
    ("optional: true\n      readOnly: true", "optional: yes please\n      readOnly: true"),
    ("tekton.dev/v1\n", "tekton.dev/v1beta1\n"),
])
def test_the_task_is_of_tektons_types(tools, tmp_path, old, new):
    validator = jsonschema.Draft7Validator(tekton_types.task_schema(tools[1]))
    path = planted(TASK, tmp_path, (old, new)) if old else TASK
    errors = [error.message for error in validator.iter_errors(load(path))]
    assert bool(errors) == bool(old), errors


def scripts():
    """(name, shell, text) of every script in the repository, and of every step of a pipeline."""
    for path in [TOP / ".ci/run", TOP / "fuzz/run", TOP / "fuzz/rustc", TOP / "tests/e2e/setup", *TOP.rglob("examples/**/*.sh")]:
        yield str(path.relative_to(TOP)), None, path.read_text()
    for step in load(TASK)["spec"]["steps"]:
        # Tekton fills these in; to a shell they would be commands.
        yield f"tekton: {step['name']}", None, ci_systems.SUBSTITUTION.sub("/filled/in", step["script"])
    (job,) = (each for name, each in load(GITLAB).items() if name != "variables")
    yield "gitlab", "sh", "\n".join([*job["script"], *job["after_script"]])


@pytest.mark.parametrize("name, shell, text", [pytest.param(*each, id=each[0]) for each in scripts()])
def test_shellcheck(tools, tmp_path, name, shell, text):
    file = tmp_path / "script"
    file.write_text(text)
    # What a pipeline's variables are is not in its script.
    status, said = lint("shellcheck", "--norc", *(["--shell", shell] if shell else []), "--exclude", "SC2154", file)
    assert status == 0, said


def test_actions_are_pinned_and_permissions_few():
    workflow = load(WORKFLOW)
    uses = re.findall(r"uses: (.*)", WORKFLOW.read_text())
    assert uses and all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each) for each in uses), uses
    assert workflow["permissions"] == {} and workflow["concurrency"]["cancel-in-progress"] is False
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read", "packages": "write", "id-token": "write"}
        assert job["timeout-minutes"] and "secrets." not in json.dumps(job["env"])
        assert all("${{" not in step.get("run", "") for step in job["steps"])
        # Each secret is seen by the one step that needs it.
        assert sum("secrets." in json.dumps(step) for step in job["steps"]) == 3


def test_no_logic_is_written_twice():
    """What is done lies in publish.sh; the pipelines call it."""
    for path in (WORKFLOW, GITLAB, TASK):
        assert not re.search(r"\b(starcar (pack|verify|replay|copy)|cosign (sign|attest|verify))\b", path.read_text()), path


# Run


@pytest.fixture(scope="module")
def hub():
    served = Hub()
    served.commit("acme/tiny-llama", tree(TINY_LLAMA), refs=["main", "v1.0"])
    yield served
    served.close()


def fake_docker(directory):
    """What gives starcar out of an image: who runs images is not what is tested."""
    directory.mkdir()
    file = directory / "docker"
    file.write_text(
        f"#!/bin/sh\nset -eu\ncase \"$1 $2\" in\n'create registry.example.com/tools/starcar@{NOWHERE}') echo c0ffee ;;\n"
        f"'cp c0ffee:/usr/local/bin/starcar') cp '{STARCAR}' \"$3\" ;;\n'rm c0ffee') ;;\n*) echo \"docker $*\" >&2; exit 1 ;;\nesac\n"
    )
    file.chmod(0o755)
    return directory


def test_github_actions(shells, cosigns, private_registry, credentials, hub, workspace, image_name):
    """Begun by hand, with a model of the hub. Keyless signing needs the world, so the repository has a key among its variables."""
    cosign = cosigns["sid"]
    # There is no other starcar than the one that the workflow fetches.
    (workspace / "commands").mkdir()
    (workspace / "commands/cosign").symlink_to(shutil.which("cosign", path=shells("sid")))
    path = f"{fake_docker(workspace / 'docker')}:{workspace / 'commands'}:/usr/bin:/bin"
    machine = Machine(workspace, path, {"HF_ENDPOINT": hub.endpoint})
    image = private_registry.ref(image_name, "v1")
    seen, installed = {}, []
    contexts = {
        "vars": {"STARCAR_IMAGE": f"registry.example.com/tools/starcar@{NOWHERE}", "BASE_IMAGE": "scratch",
                 "COSIGN_KEY": str(cosign.key), "REGISTRY_USER": USER},
        "secrets": {"REGISTRY_PASSWORD": PASSWORD, "COSIGN_PASSWORD": COSIGN_PASSWORD, "HF_TOKEN": HUB_TOKEN},
        "github": {"actor": "octocat", "server_url": "https://github.example.com", "repository": "acme/models", "run_id": 7,
                   "run_attempt": 1, "workflow_ref": "acme/models/.github/workflows/publish-model.yaml@refs/heads/main"},
    }
    outputs = ci_systems.github(
        WORKFLOW, machine, {"model": "hf://acme/tiny-llama@v1.0", "image": image, "profile": "profile.json"}, contexts,
        uses={"actions/checkout": installed.append, "sigstore/cosign-installer": installed.append},
        after=lambda step: seen.__setitem__(step, tags(private_registry, image_name)),
    )
    assert len(installed) == 2
    # Nobody sees the image before it is signed.
    assert seen["Pack"] == seen["Gate"] == [] and "v1" in seen["Sign, check and name"]
    machine.base["PATH"] = shells("sid")
    found = check_published(private_registry, image_name, "v1", outputs["digest"], cosign, machine, credentials)
    assert outputs["image"] == found
    predicate = cosign.statement(found, "slsaprovenance1", env=credentials)["predicate"]
    assert predicate["runDetails"]["builder"]["id"].endswith("publish-model.yaml@refs/heads/main")
    assert predicate["runDetails"]["metadata"]["invocationId"] == "https://github.example.com/acme/models/actions/runs/7/attempts/1"
    (login,) = workspace.glob("runner-temp/docker/config.json")
    assert login.stat().st_mode & 0o077 == 0


def test_gitlab(shells, cosigns, private_registry, credentials, workspace, image_name):
    cosign, machine, directory = cosigns["trixie"], Machine(workspace, shells("trixie")), workspace / "work"
    variables = {
        "CI_REGISTRY_IMAGE": f"{private_registry.host}/{image_name}", "CI_REGISTRY_USER": USER, "CI_REGISTRY_PASSWORD": PASSWORD,
        "CI_PROJECT_DIR": str(directory), "CI_PROJECT_URL": "https://gitlab.example.com/acme/models", "CI_COMMIT_SHA": "0" * 40,
        "CI_JOB_URL": "https://gitlab.example.com/acme/models/-/jobs/7", "COSIGN_KEY": str(cosign.key),
        "COSIGN_PASSWORD": COSIGN_PASSWORD, "BASE": "scratch", "MODEL": "tiny-llama", "MODEL_TAG": "v1", "PROFILE": "profile.json",
        "DOCKER_CONFIG": str(workspace / "login"),
    }
    report, (out,) = ci_systems.gitlab(GITLAB, machine, variables)
    found = check_published(private_registry, image_name, "v1", report["MODEL_DIGEST"], cosign, machine, credentials)
    assert report["MODEL_IMAGE"] == found
    assert {"provenance.json", "sbom.spdx.json", "metadata.json"} <= {each.name for each in out.iterdir()}
    for file in filter(Path.is_file, out.rglob("*")):
        text = file.read_text()
        for secret in (PASSWORD, COSIGN_PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(), "PRIVATE KEY"):
            assert secret not in text, f"{file} is an artifact with a secret"


def test_tekton(shells, cosigns, private_registry, credentials, workspace, image_name):
    cosign, machine = cosigns["trixie"], Machine(workspace, shells("trixie"))
    scratch, keys = workspace / "scratch", workspace / "keys"
    scratch.mkdir()
    keys.mkdir()
    for each in (cosign.key, cosign.pub):
        shutil.copy(each, keys)
    (keys / "cosign.password").write_text(COSIGN_PASSWORD)
    image = private_registry.ref(image_name, "v1")
    results = ci_systems.tekton(
        TASK, machine,
        {"model": "tiny-llama", "image": image, "tools-image": f"registry.example.com/tools/publish@{NOWHERE}",
         "profile": "profile.json", "base-image": "scratch", "builder-id": "https://tekton.example.com/tasks/publish-model"},
        {"source": workspace / "work", "dockerconfig": credentials["DOCKER_CONFIG"], "signing-key": keys, "scratch": scratch},
        {"name": "publish-7", "namespace": "models", "uid": "3f2a"},
    )
    assert results["IMAGE_URL"] == image
    check_published(private_registry, image_name, "v1", results["IMAGE_DIGEST"], cosign, machine, credentials)


@pytest.mark.parametrize("release, shell", [("trixie", "busybox sh"), ("sid", "sh")])
def test_shell(shells, cosigns, registry, workspace, image_name, release, shell):
    machine = Machine(workspace, shells(release))
    environment = shell_environment(registry.ref(image_name, "v1"), cosigns[release]) | {"MAX_SECONDS": "60s"}
    machine.run("publish.sh", [*shell.split(), PUBLISH], environment)
    digest = (machine.work / "starcar-out/digest").read_text().strip()
    check_published(registry, image_name, "v1", digest, cosigns[release], machine)
    assert re.findall(r"^publish: (\w+)$", machine.output, re.M) == ["pack", "gate", "sign", "check", "name"]


# What stops a pipeline


def stopped(machine, registry, name, cosign, **env):
    """publish.sh, which must fail; nothing may have a tag then, neither the image nor a signature."""
    with pytest.raises(StepFailed) as failed:
        machine.run("publish.sh", ["sh", PUBLISH], shell_environment(registry.ref(name, "v1"), cosign) | env)
    assert tags(registry, name) == []
    return failed.value


def test_a_slow_image_gets_no_name(shells, cosigns, registry, workspace, image_name):
    write_profile(workspace / "work/profile.json", milliseconds=60_000)
    error = stopped(Machine(workspace, shells("trixie")), registry, image_name, cosigns["trixie"], MAX_SECONDS="1s")
    assert error.status == 11, error.output


def test_a_finding_stops_it(shells, cosigns, registry, workspace, image_name):
    """The base has no shell, which KServe's sidecar needs."""
    wrapped(workspace / "bin", 'case $1 in verify) shift; set -- verify --for modelcar "$@" ;; esac')
    path = f"{workspace / 'bin'}:{shells('trixie')}"
    error = stopped(Machine(workspace, path), registry, image_name, cosigns["trixie"])
    assert error.status in (9, 10) and "shell-missing" in error.output, error.output


def wrapped(directory, line):
    """A starcar whose arguments a line of shell changes first."""
    directory.mkdir()
    (directory / "starcar").write_text(f"#!/bin/sh\n{line}\nexec '{STARCAR}' \"$@\"\n")
    (directory / "starcar").chmod(0o755)


def test_every_image_that_gets_a_name_is_signed(shells, cosigns, registry, workspace, image_name):
    """An image for two platforms and one GPU target: whoever deploys any of its tags or entries verifies that one's digest."""
    cosign, machine = cosigns["sid"], Machine(workspace, shells("sid"))
    (workspace / "a cache").mkdir()
    (workspace / "a cache/kernel.json").write_text("{}")
    more = f"--cache=generic@sm90={workspace / 'a cache'}\n--platform=linux/amd64,linux/arm64"
    environment = shell_environment(registry.ref(image_name, "v1"), cosign) | {"PACK_OPTIONS": more}
    machine.run("publish.sh", ["sh", PUBLISH], environment)
    assert named(registry, image_name) == ["v1", "v1-sm90"]
    # The gate sees each, and what check leaves is of the image that was asked for.
    metadata = json.loads((machine.work / "starcar-out/metadata.json").read_text())
    gated = machine.output.partition("publish: gate\n")[2].partition("publish: sign\n")[0]
    assert len(metadata["variants"]) == 1
    assert all(each["digest"] in gated for each in (metadata, *metadata["variants"])), gated
    (line,) = (machine.work / "starcar-out/provenance.signed.json").read_text().splitlines()
    statement = json.loads(base64.b64decode(json.loads(line)["payload"]))
    assert [each["digest"]["sha256"] for each in statement["subject"]] == [metadata["digest"].removeprefix("sha256:")]
    for tag in ("v1", "v1-sm90"):
        index = registry.ref(image_name, tag)
        cosign.verify(index)
        cosign.verify(index, "--type", "spdxjson", verb="verify-attestation")
        entries = registry.manifest(index)["manifests"]
        assert len(entries) == 2
        for entry in entries:
            cosign.verify(f"{registry.host}/{image_name}@{entry['digest']}")


LOGIN = {"IMAGE": "registry.example.com/models/tiny:v1", "REGISTRY_USER": USER, "REGISTRY_PASSWORD": PASSWORD}


@pytest.mark.parametrize("shell", ["sh", "busybox sh"])
def test_login_keeps_other_logins(shells, tmp_path, shell):
    machine, config = Machine(tmp_path / "machine", shells("trixie")), tmp_path / "docker/config.json"
    login = lambda: machine.run("publish.sh", [*shell.split(), PUBLISH, "login"], LOGIN | {"DOCKER_CONFIG": config.parent})
    ours = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    login()
    assert json.loads(config.read_text()) == {"auths": {"registry.example.com": ours}}
    others = {"auths": {"other.example.com": {"auth": "eA=="}}, "credHelpers": {"gcr.io": "gcloud"}}
    stale = {"registry.example.com": {"auth": "eA==", "identitytoken": "stale"}}
    config.write_text(json.dumps(others | {"auths": others["auths"] | stale}))
    config.chmod(0o644)
    login()
    assert json.loads(config.read_text()) == others | {"auths": others["auths"] | {"registry.example.com": ours}}
    assert config.stat().st_mode & 0o777 == 0o600
    # What a helper is asked for, a file is not; and what is no login file is somebody's mistake.
    for text in ('{"credsStore": "pass"}', '{"credHelpers": {"registry.example.com": "pass"}}', "[]", "{", '{"auths": 1}'):
        config.write_text(text)
        with pytest.raises(StepFailed) as failed:
            login()
        assert failed.value.status == 2 and str(config) in failed.value.output
        assert config.read_text() == text and list(config.parent.iterdir()) == [config]
    assert PASSWORD not in machine.output


@pytest.mark.parametrize("env, steps, says", [
    ({"IMAGE": "registry.example.com/models/tiny"}, ["pack"], "is not REGISTRY"),
    ({"IMAGE": "registry.example.com:5000/models/tiny"}, ["pack"], "is not REGISTRY"),
    ({"IMAGE": "registry.example.com/models:5000/tiny"}, ["pack"], "has no tag"),
    ({"IMAGE": f"registry.example.com/models/tiny@{NOWHERE}"}, ["pack"], "has a digest"),
    ({"IMAGE": "registry.example.com/models/tiny:"}, ["pack"], "has no tag"),
    ({"FAIL_ON": "errors"}, ["pack"], "FAIL_ON=errors"),
    ({"MAX_SECONDS": "abc"}, ["pack"], "MAX_SECONDS=abc"),
    ({"MAX_SECONDS": "90"}, ["pack"], "MAX_SECONDS=90"),
    ({"MAX_SECONDS": "1.2.3s"}, ["pack"], "MAX_SECONDS=1.2.3s"),
    ({"MAX_SECONDS": "-1s"}, ["pack"], "MAX_SECONDS=-1s"),
    ({"MAX_SECONDS": "1.5min", "PROFILE": "none"}, ["pack"], "PROFILE=none"),
    ({"PATH": "/nowhere"}, ["pack"], "starcar is not in PATH"),
    ({"PATH": "/nowhere"}, ["login"], "jq is not in PATH"),
    ({"PATH": "/nowhere"}, ["check"], "cosign is not in PATH"),
    ({"IMAGE": "tiny:v1"}, ["pack"], "is not REGISTRY"),
    ({}, ["sign"], "run the step pack first"),
    ({}, ["name"], "run the step pack first"),
    ({}, ["pack", "deploy"], "no step deploy"),
    ({"MODEL": ""}, ["pack"], "MODEL"),
    ({}, ["login"], "DOCKER_CONFIG"),
])
def test_what_the_script_refuses(shells, tmp_path, env, steps, says):
    machine = Machine(tmp_path / "machine", shells("trixie"))
    with pytest.raises(StepFailed) as failed:
        machine.run("publish.sh", ["/bin/sh", PUBLISH, *steps], {"IMAGE": "127.0.0.1:9/tiny:v1", "MODEL": str(TINY_LLAMA)} | env)
    assert failed.value.status == 2 and says in failed.value.output, failed.value.output
