"""The registries: distribution v3 behind a count of what it sends and receives, and Debian's docker-registry."""

import base64
import json
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request

from .proc import Process, Failed, wait_for

ACCEPT = ", ".join(
    [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)


class Registry:
    """One registry process on a port of its own on loopback.

    `auth` is the `auth` part of its configuration, `basic` (user, password) what the tests' own requests bring.
    `pair` makes it HTTPS, `client_ca` asks for client certificates as `client` is one.
    With `referrers` it has the referrers API, which distribution lacks.
    """

    counts = True

    def __init__(self, binary, directory, addr="127.0.0.1:0", auth=None, basic=None, pair=None, client_ca=None, client=None,
                 referrers=False):
        directory.mkdir(parents=True, exist_ok=True)
        self.root = directory / "blobs"
        more = []
        if auth:
            (directory / "auth.yaml").write_text(auth)
            more += ["-auth", directory / "auth.yaml"]
        if pair:
            more += ["-tls-cert", pair.cert, "-tls-key", pair.key]
        if client_ca:
            more += ["-client-ca", client_ca]
        if referrers:
            more += ["-referrers"]
        self.context = None
        if pair:
            # The tests' own questions need no proof of who answers.
            self.context = ssl._create_unverified_context()
            if client:
                self.context.load_cert_chain(client.cert, client.key)
        self.basic = basic
        self.process = Process(
            [binary, "-root", self.root, "-addr", addr, *more], directory / "registry.log", stdout=subprocess.PIPE
        )
        line = self.process.popen.stdout.readline().decode().strip()
        if not line:
            self.process.popen.wait()
            self.process.alive()
        self.host = line
        self.url = f"{'https' if pair else 'http'}://{line}"

    def ref(self, name, tag="latest"):
        """A reference into this registry."""
        return f"{self.host}/{name}:{tag}"

    def get(self, path, method="GET", headers=None):
        request = urllib.request.Request(self.url + path, method=method, headers=headers or {})
        if self.basic:
            pair = base64.b64encode(":".join(self.basic).encode()).decode()
            request.add_header("Authorization", f"Basic {pair}")
        with urllib.request.urlopen(request, timeout=60, context=self.context) as answer:
            return answer.read()

    def reset(self):
        """Counts from here on."""
        self.get("/_served", method="POST")

    def served(self):
        """{digest: {"bytes": n, "requests": n}} of the blobs and manifests sent since reset."""
        return json.loads(self.get("/_served"))

    def bytes_served(self):
        """Bytes of all blobs and manifests sent since reset."""
        return sum(v["bytes"] for v in self.served().values())

    def received(self):
        """{repository: {"blobs": n, "manifests": n, "uploads": {id: n}}}: bytes of bodies since reset."""
        return json.loads(self.get("/_received"))

    def bytes_received(self, name=None):
        """Bytes of blobs received since reset, by one repository if told."""
        return sum(v["blobs"] for repository, v in self.received().items() if name in (None, repository))

    def forget(self):
        """Empties the registry, which keeps nothing in memory, and counts from here on."""
        shutil.rmtree(self.root / "docker", ignore_errors=True)
        self.reset()

    def holds(self, ref):
        """Whether there is a manifest of that name."""
        try:
            self.manifest_bytes(ref)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise
        return True

    def requests(self):
        """All requests since reset: time, method, path, query, range, status, bytes, received, authorization."""
        return json.loads(self.get("/_requests")) or []

    def manifest(self, ref):
        """The manifest of HOST/NAME:TAG or HOST/NAME@DIGEST, parsed."""
        return json.loads(self.manifest_bytes(ref))

    def manifest_bytes(self, ref):
        """The same as it is."""
        name, tag = split(ref, self.host)
        return self.get(f"/v2/{name}/manifests/{tag}", headers={"Accept": ACCEPT})

    def blob(self, ref, digest):
        """A blob that belongs to the repository of a reference."""
        name, _ = split(ref, self.host)
        return self.get(f"/v2/{name}/blobs/{digest}")

    def blob_file(self, digest):
        """Where the registry keeps a blob."""
        algorithm, value = digest.split(":")
        path = self.root / "docker/registry/v2/blobs" / algorithm / value[:2] / value / "data"
        if not path.is_file():
            raise Failed(f"the registry does not hold {digest}")
        return path

    def stop(self):
        self.process.stop()
        self.process.popen.stdout.close()


class DebianRegistry(Registry):
    """Debian's docker-registry 2.8, which counts nothing and drops what a broken connection brought of a blob."""

    counts = False

    def __init__(self, directory, auth=None, basic=None):
        directory.mkdir(parents=True, exist_ok=True)
        self.root, self.context, self.basic = directory / "blobs", None, basic
        config = directory / "config.yml"

        def start():
            # It cannot say which port it chose, so one that was free a moment ago is chosen for it.
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.host = "127.0.0.1:%d" % probe.getsockname()[1]
            config.write_text(
                "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n"
                f"storage:\n  filesystem: {{rootdirectory: {self.root}}}\n  delete: {{enabled: true}}\n"
                f"http: {{addr: {self.host!r}, secret: e2e}}\n" + (auth or "")
            )
            self.process = Process(["docker-registry", "serve", config], directory / "registry.log")
            try:
                wait_for("an answer of docker-registry", self._answers)
            except Failed:
                self.process.stop()
                return False
            return True

        if not any(start() for _ in range(3)):
            raise Failed((directory / "registry.log").read_text()[-4000:])
        self.url = f"http://{self.host}"

    def _answers(self):
        self.process.alive()
        host, _, port = self.host.rpartition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def reset(self):
        """There is nothing to count from."""

    def served(self):
        raise Failed("docker-registry does not count: ask a proxy before it")

    received = requests = served

    def stop(self):
        self.process.stop()


def split(ref, host):
    """(name, tag or digest) of a reference into a host."""
    if not ref.startswith(host + "/"):
        raise ValueError(f"{ref} is not at {host}")
    rest = ref[len(host) + 1 :]
    if "@" in rest:
        name, tag = rest.split("@", 1)
        return name.split(":")[0], tag
    name, _, tag = rest.partition(":")
    return name, tag or "latest"
