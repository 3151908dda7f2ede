"""Who is asking: every place that credentials lie in, tokens that expire, and secrets that stay secret.

Every run is as talkative as it can be (-vvv), and nothing that it says or leaves may have a secret.
"""

import json
import os
import shutil

import pytest

from model_files import MIB, write_model
from packing import pack
from pushing import IDENTITY, PASSWORD, USER, assert_no_secrets, auth, check_image, docker_config, helper, layout_size

# A push that outlives several tokens; with STARCAR_E2E_LONG=1, tokens as short as the specification lets them be.
LIFETIME, LONGER = (60, 180) if os.environ.get("STARCAR_E2E_LONG") == "1" else (5, 20)


def push(state, image, ref, *arguments, secrets=(PASSWORD,), ignore=(), **options):
    """One push that tells all it can, and must tell no secret."""
    done = state.run("push", f"oci:{image[0]}", ref, "--plain-http", "-vvv", *arguments, **options)
    assert_no_secrets(state, secrets, ignore)
    return done


def pushed(registry, ref, image):
    """The image is there; asked with the password of the registry's own tests."""
    return check_image(registry, ref, image[1]) == image[2]


def test_docker_config(password_registry, image, state, tmp_path):
    ref = password_registry.ref("team/model")
    env = docker_config(tmp_path / "docker", {"auths": {password_registry.host: auth(USER, PASSWORD)}})
    push(state, image, ref, env=env)
    assert pushed(password_registry, ref, image)


def test_a_credential_helper_for_one_registry(password_registry, image, state, tmp_path):
    ref, host = password_registry.ref("team/model"), password_registry.host
    path, asked = helper(tmp_path / "bin", "e2e", {host: (USER, PASSWORD)})
    config = {"credHelpers": {host: "e2e"}, "credsStore": "not-there", "auths": {host: {}}}
    push(state, image, ref, env=docker_config(tmp_path / "docker", config) | {"PATH": path})
    assert pushed(password_registry, ref, image)
    assert set(asked.read_text().splitlines()) == {f"get {host}"}


def test_a_credential_store(password_registry, image, state, tmp_path):
    ref, host = password_registry.ref("team/model"), password_registry.host
    path, asked = helper(tmp_path / "bin", "store", {host: (USER, PASSWORD)})
    env = docker_config(tmp_path / "docker", {"credsStore": "store", "auths": {host: {}}}) | {"PATH": path}
    push(state, image, ref, env=env)
    assert pushed(password_registry, ref, image)
    assert set(asked.read_text().splitlines()) == {f"get {host}"}


def test_podmans_longest_prefix(password_registry, image, state, tmp_path):
    ref, host = password_registry.ref("team/models/one"), password_registry.host
    file = tmp_path / "auth.json"
    wrong = auth(USER, "hunter2-e2e-an0ther")
    file.write_text(json.dumps({"auths": {host: wrong, f"{host}/team": wrong, f"{host}/team/models": auth(USER, PASSWORD),
                                          f"{host}/team/models/other": wrong}}))
    secrets = (PASSWORD, "hunter2-e2e-an0ther")
    push(state, image, ref, "--authfile", file, secrets=secrets)
    assert pushed(password_registry, ref, image)
    # The same by the variable, and from the place where `podman login` leaves it.
    push(state, image, ref, env={"REGISTRY_AUTH_FILE": file}, secrets=secrets)
    place = state.home / "run/containers"
    place.mkdir(parents=True)
    shutil.copyfile(file, place / "auth.json")
    push(state, image, ref, secrets=secrets, ignore=(place,))


def test_a_wrong_password(password_registry, image, state, tmp_path, through, measured):
    proxy = through(password_registry)
    ref, host = proxy.ref("team/model"), proxy.host
    env = docker_config(tmp_path / "docker", {"auths": {host: auth(USER, "hunter2-e2e-wr0ng")}})
    done = push(state, image, ref, status=6, env=env, secrets=("hunter2-e2e-wr0ng",), timeout=30)
    assert len(done.words) == 1 and host in done.words[0], done.stderr
    assert str(tmp_path / "docker/config.json") in done.stderr, f"where the password came from is not said:\n{done.stderr}"
    assert "sha256:" not in done.stdout
    measured(f"{proxy.connections} connections, {proxy.up} bytes sent, {done.seconds:.2f} s: {done.words[0]}")
    assert proxy.connections <= 8 and proxy.up < 64 << 10
    if password_registry.counts:
        asked = password_registry.requests()
        assert len(asked) <= 8, asked
        assert not [each for each in asked if each["received"]]


def test_no_credentials_at_all(password_registry, image, state):
    done = push(state, image, password_registry.ref("team/model"), status=6, timeout=30)
    assert len(done.words) == 1 and password_registry.host in done.words[0], done.stderr


def test_tokens_for_a_password(token_service, image, state, tmp_path):
    registry, tokens = token_service()
    ref = registry.ref("team/model")
    env = docker_config(tmp_path / "docker", {"auths": {registry.host: auth(USER, PASSWORD)}})
    push(state, image, ref, env=env, secrets=(PASSWORD,))
    assert_no_secrets(state, (*tokens.given, PASSWORD))
    assert {each["user"] for each in tokens.requests} == {USER}
    assert any("repository:team/model:" in scope and "push" in scope for each in tokens.requests for scope in each["scopes"])
    # A token is for many requests: not each may ask for one.
    assert len(tokens.requests) <= 4, tokens.requests
    assert all(each["authorization"] in ("", "Bearer") for each in registry.requests())


@pytest.mark.parametrize("place", ["auth file", "helper"])
def test_identity_tokens(token_service, image, state, tmp_path, place):
    registry, tokens = token_service()
    if place == "helper":
        path, _ = helper(tmp_path / "bin", "token", {registry.host: ("<token>", IDENTITY)})
        env = docker_config(tmp_path / "docker", {"credHelpers": {registry.host: "token"}}) | {"PATH": path}
    else:
        entry = auth("00000000-0000-0000-0000-000000000000", "") | {"identitytoken": IDENTITY}
        env = docker_config(tmp_path / "docker", {"auths": {registry.host: entry}})
    push(state, image, registry.ref("team/model"), env=env, secrets=(IDENTITY,))
    assert_no_secrets(state, (*tokens.given, IDENTITY))
    assert {each["how"] for each in tokens.requests} == {"POST refresh_token"}
    assert len(tokens.requests) <= 4, tokens.requests


def test_a_wrong_password_at_a_token_server(token_service, image, state, tmp_path, measured):
    registry, tokens = token_service()
    env = docker_config(tmp_path / "docker", {"auths": {registry.host: auth(USER, "hunter2-e2e-wr0ng")}})
    done = push(state, image, registry.ref("team/model"), status=6, env=env, secrets=("hunter2-e2e-wr0ng",), timeout=30)
    assert len(done.words) == 1, done.stderr
    measured(f"{len(tokens.requests)} tokens asked for, {len(registry.requests())} requests: {done.words[0]}")
    assert len(tokens.requests) <= 2 and len(registry.requests()) <= 4


def test_a_push_outlives_its_tokens(token_service, state, tmp_path, through, measured):
    """Blobs that take longer than a token lives: a registry asks at the beginning of a request, not at its end."""
    registry, tokens = token_service(lifetime=LIFETIME)
    # One blob takes longer than a token lives, and all of them several times that.
    model = write_model(tmp_path / "model", 40 * MIB, shards=4, seed=4)
    digest = pack(model, tmp_path / "image.oci").digest
    size = layout_size(tmp_path / "image.oci", digest)
    proxy = through(registry, rate=size / LONGER)
    ref = proxy.ref("team/model")
    env = docker_config(tmp_path / "docker", {"auths": {proxy.host: auth(USER, PASSWORD)}})
    done = push(state, (tmp_path / "image.oci", digest, size), ref, "--concurrency", 2, env=env, timeout=LONGER * 3)
    assert done.digest == digest
    assert_no_secrets(state, (*tokens.given, PASSWORD))
    measured(f"{done.seconds:.0f} s with tokens of {LIFETIME} s: {len(tokens.requests)} tokens asked for, "
             f"{proxy.up / size:.3f} of the size went through")
    assert done.seconds > LONGER * 0.8
    assert LONGER / LIFETIME / 2 <= len(tokens.requests) <= LONGER / LIFETIME * 4
    # A token that ends within a blob must not cost the blob again.
    assert registry.bytes_received() <= size * 1.1
    shutil.rmtree(model)


def test_a_pack_keeps_secrets_too(token_service, state, tmp_path):
    """`pack --push`, which keeps more than `push` does: a digest cache, uploads, blobs that are known."""
    registry, tokens = token_service()
    env = docker_config(tmp_path / "docker", {"auths": {registry.host: auth(USER, PASSWORD)}})
    model = write_model(tmp_path / "model", 8 * MIB, shards=2, seed=3)
    command = ["pack", model, "--base", "scratch", "--plain-http", "-vvv", "--push", "-t", registry.ref("team/model")]
    for _ in range(2):
        state.run(*command, env=env)
    assert_no_secrets(state, (*tokens.given, PASSWORD))
