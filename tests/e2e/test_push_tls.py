"""Certificates: private authorities, client certificates, and what happens when nobody can be trusted."""

import shutil
import time

import pytest

from consumers import certificates, registry as registries
from pushing import State, check_image, with_hosts

NAME = "registry.e2e.test"


class Named(registries.Registry):
    """A registry that its clients know by name: one on a loopback address is spoken to without TLS."""

    def ref(self, name, tag="latest"):
        return f"{NAME}:{self.host.rpartition(':')[2]}/{name}:{tag}"

    @property
    def name(self):
        return self.ref("").partition("/")[0]


@pytest.fixture
def tls_registry(bin_dir, tmp_path, authority):
    server = Named(bin_dir / "registry", tmp_path / "registry", pair=authority.sign("server", hosts=[NAME]))
    yield server
    server.stop()


@pytest.fixture
def client_pair(authority):
    return authority.sign("client", usage="clientAuth")


@pytest.fixture
def mutual_registry(bin_dir, tmp_path, authority, client_pair):
    """One that lets nobody in without a client certificate."""
    pair = authority.sign("mutual-server", hosts=[NAME])
    server = Named(bin_dir / "registry", tmp_path / "registry", pair=pair, client_ca=authority.cert, client=client_pair)
    yield server
    server.stop()


@pytest.fixture
def push(image, tmp_path):
    """push(registry, *arguments): one push to a registry that goes by NAME."""
    state, count = State(tmp_path / "state"), iter(range(100))

    def run(registry, *arguments, status=0, env=None):
        ref = registry.ref(f"tls/{next(count)}")
        done = state.run("push", f"oci:{image[0]}", ref, *arguments, status=status, env=env, timeout=60,
                         prefix=with_hosts(tmp_path, **{NAME: "127.0.0.1"}))
        if status == 0:
            assert done.digest == image[1]
            local = ref.replace(registry.name, registry.host)
            assert check_image(registry, local, image[1]) == image[2]
        return done

    run.state = state
    return run


def refused(done, *words):
    """One clear error."""
    assert len(done.words) == 1, done.stderr
    assert NAME in done.words[0], done.stderr
    for word in words:
        assert word in done.stderr.lower(), f"{word!r} is not said:\n{done.stderr}"


def test_a_private_authority(tls_registry, authority, push):
    push(tls_registry, "--ca-file", authority.cert)


def test_a_private_authority_of_the_environment(tls_registry, authority, push):
    push(tls_registry, env={"SSL_CERT_FILE": authority.cert})


@pytest.mark.parametrize("option", [True, False], ids=["--cert-dir", "certs.d at home"])
def test_a_directory_of_certificates(mutual_registry, authority, client_pair, push, tmp_path, option):
    """`--cert-dir DIR` is as podman's and skopeo's; certs.d has a directory for each registry."""
    place = tmp_path / "certs" if option else push.state.home / ".config/containers/certs.d" / mutual_registry.name
    place.mkdir(parents=True)
    shutil.copy(authority.cert, place / "ca.crt")
    shutil.copy(client_pair.cert, place / "client.cert")
    shutil.copy(client_pair.key, place / "client.key")
    push(mutual_registry, *(["--cert-dir", place] if option else []))


def test_a_client_certificate(mutual_registry, authority, client_pair, push):
    push(mutual_registry, "--ca-file", authority.cert, "--client-cert", client_pair.cert, "--client-key", client_pair.key)


def test_without_a_client_certificate(mutual_registry, authority, push):
    refused(push(mutual_registry, "--ca-file", authority.cert, status=6), "certificate")


def test_a_client_certificate_of_somebody_else(mutual_registry, authority, push, tmp_path):
    other = certificates.Authority(tmp_path / "other", "other authority").sign("client", usage="clientAuth")
    done = push(mutual_registry, "--ca-file", authority.cert, "--client-cert", other.cert, "--client-key", other.key,
                status=6)
    refused(done)


def test_nobody_is_trusted_without_being_told(tls_registry, push):
    begin = time.monotonic()
    refused(push(tls_registry, status=6), "certificate", "--ca-file")
    assert time.monotonic() - begin < 10, "it was tried again and again, though a certificate does not get better"
    assert tls_registry.requests() == []


def test_a_wrong_authority(tls_registry, push, tmp_path):
    other = certificates.Authority(tmp_path / "other", "other authority")
    refused(push(tls_registry, "--ca-file", other.cert, status=6), "certificate")
    assert tls_registry.requests() == []


def test_a_certificate_for_another_name(bin_dir, authority, push, tmp_path):
    pair = authority.sign("elsewhere", hosts=["elsewhere.e2e.test"])
    server = Named(bin_dir / "registry", tmp_path / "registry", pair=pair)
    try:
        refused(push(server, "--ca-file", authority.cert, status=6), "certificate")
        assert server.requests() == []
    finally:
        server.stop()


@pytest.mark.parametrize("quiet", [False, True], ids=["", "--quiet"])
def test_not_verifying_is_possible_and_loud(tls_registry, push, quiet):
    done = push(tls_registry, "--tls-verify=false", *(["--quiet"] if quiet else []))
    warnings = [line for line in done.stderr.splitlines() if line.lower().startswith("warning")]
    assert any(tls_registry.name in line or "verif" in line for line in warnings), done.stderr


def test_files_that_hold_no_certificate(tls_registry, push, tmp_path):
    """A wrong file is an error before anything is sent, and is named."""
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for arguments in (
        ["--ca-file", empty],
        ["--ca-file", tmp_path / "missing.pem"],
        ["--client-cert", empty, "--client-key", empty],
        ["--cert-dir", tmp_path / "no-directory"],
    ):
        done = push(tls_registry, *arguments, status=2)
        assert str(arguments[1]) in done.stderr, done.stderr
    assert tls_registry.requests() == []


def test_plain_http_is_never_a_way_out(fresh_registry, push, image, tmp_path):
    """A registry without TLS that goes by a name is not spoken to in the clear, unless told."""
    port = fresh_registry.host.rpartition(":")[2]
    state, ref = State(tmp_path / "plain"), f"{NAME}:{port}/plain:latest"
    prefix = with_hosts(tmp_path, **{NAME: "127.0.0.1"})
    state.run("push", f"oci:{image[0]}", ref, status=6, prefix=prefix, timeout=60)
    assert fresh_registry.requests() == []
    for number, option in enumerate(("--plain-http", "--tls-verify=false")):
        state.run("push", f"oci:{image[0]}", f"{NAME}:{port}/plain-{number}", option, prefix=prefix)
        assert check_image(fresh_registry, fresh_registry.ref(f"plain-{number}"), image[1]) == image[2]
