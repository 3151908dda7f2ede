"""`starcar registry check`: whether a push would work, before hours of packing, and without leaving anything."""

import pytest

from pushing import PASSWORD, USER, assert_no_secrets, auth, docker_config


def left(registry):
    """Files that make up repositories: links of tags, manifests and blobs."""
    return sorted(path for path in registry.root.rglob("link"))


@pytest.mark.parametrize("kind", ["distribution 3", "docker-registry 2.8"])
def test_a_registry_that_takes_pushes(request, state, kind, measured):
    registry = request.getfixturevalue("fresh_registry" if kind == "distribution 3" else "debian_registry")
    done = state.run("registry", "check", registry.ref("team/model"), timeout=30)
    assert registry.host in done.stdout, done.stdout
    measured(f"{done.seconds:.2f} s:\n{done.stdout}")
    assert not registry.holds(registry.ref("team/model")), "a tag was left"
    if registry.counts:
        assert sum(each["received"] for each in registry.requests()) < 64 << 10
        # What was begun to find out is ended: an upload that stays open takes room until somebody cleans up.
        # distribution 3 leaves the state of a digest behind when an upload is ended, without the upload.
        begun = list(registry.root.glob("docker/registry/v2/repositories/team/model/_uploads/*/startedat"))
        assert not begun, f"uploads were left: {begun}"


def test_one_with_a_password(password_registry, state, tmp_path):
    ref, host = password_registry.ref("team/model"), password_registry.host
    env = docker_config(tmp_path / "docker", {"auths": {host: auth(USER, PASSWORD)}})
    state.run("registry", "check", ref, "-vvv", env=env, timeout=30)
    assert_no_secrets(state, (PASSWORD,))
    env = docker_config(tmp_path / "wrong", {"auths": {host: auth(USER, "hunter2-e2e-wr0ng")}})
    done = state.run("registry", "check", ref, env=env, status=6, timeout=30)
    assert len(done.words) == 1 and host in done.words[0], done.stderr
    assert_no_secrets(state, (PASSWORD, "hunter2-e2e-wr0ng"))


def test_one_that_may_only_be_read(token_service, state, tmp_path):
    registry, tokens = token_service(grants=("pull",))
    env = docker_config(tmp_path / "docker", {"auths": {registry.host: auth(USER, PASSWORD)}})
    done = state.run("registry", "check", registry.ref("team/model"), env=env, status=6, timeout=30)
    assert "push" in (done.stdout + done.stderr).lower(), done.stderr
    assert len(tokens.requests) <= 4 and not left(registry)


def test_one_that_is_not_there(fresh_registry, state):
    ref = fresh_registry.ref("team/model")
    fresh_registry.process.stop()
    done = state.run("registry", "check", ref, "--retries", 1, status=6, timeout=60)
    assert len(done.words) == 1 and fresh_registry.host in done.words[0], done.stderr
