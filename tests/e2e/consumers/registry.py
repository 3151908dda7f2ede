"""The registry: distribution v3 behind a count of what it sends."""

import json
import subprocess
import urllib.request

from .proc import Process, Failed

ACCEPT = ", ".join(
    [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)


class Registry:
    """One registry process on a port of its own on loopback."""

    def __init__(self, binary, directory, addr="127.0.0.1:0"):
        directory.mkdir(parents=True, exist_ok=True)
        self.root = directory / "blobs"
        self.process = Process(
            [binary, "-root", self.root, "-addr", addr], directory / "registry.log", stdout=subprocess.PIPE
        )
        line = self.process.popen.stdout.readline().decode().strip()
        if not line:
            self.process.popen.wait()
            self.process.alive()
        self.host = line
        self.url = f"http://{line}"

    def ref(self, name, tag="latest"):
        """A reference into this registry."""
        return f"{self.host}/{name}:{tag}"

    def get(self, path, method="GET", headers=None):
        request = urllib.request.Request(self.url + path, method=method, headers=headers or {})
        with urllib.request.urlopen(request, timeout=60) as answer:
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

    def requests(self):
        """All requests since reset: time, method, path, range, status, bytes."""
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
