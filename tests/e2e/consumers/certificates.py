"""Certificates made with openssl: an authority of the tests' own, and what it signs."""

from dataclasses import dataclass
from pathlib import Path

from .proc import run


@dataclass
class Pair:
    """A certificate and its key, PEM files."""

    cert: Path
    key: Path


class Authority:
    """A private certificate authority in a directory."""

    def __init__(self, directory, name="e2e authority"):
        self.dir = Path(directory)
        self.dir.mkdir(parents=True)
        self.pair = Pair(self.dir / "ca.crt", self.dir / "ca.key")
        self.cert = self.pair.cert
        run(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
            "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
            "-keyout", self.pair.key, "-out", self.pair.cert,
        )

    def sign(self, name, usage="serverAuth", hosts=()):
        """A pair called `name` for servers or (`clientAuth`) clients; `hosts` are DNS names and IPv4 addresses."""
        pair = Pair(self.dir / f"{name}.cert", self.dir / f"{name}.key")
        request, more = self.dir / f"{name}.csr", self.dir / f"{name}.ext"
        names = ",".join(f"{'IP' if host.replace('.', '').isdigit() else 'DNS'}:{host}" for host in hosts)
        more.write_text(f"extendedKeyUsage={usage}\n" + (f"subjectAltName={names}\n" if names else ""))
        run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-keyout", pair.key, "-out", request)
        run("openssl", "x509", "-req", "-in", request, "-CA", self.pair.cert, "-CAkey", self.pair.key, "-CAcreateserial",
            "-days", "30", "-extfile", more, "-out", pair.cert)
        return pair


def signing_pair(directory):
    """An RSA key, and its self-signed certificate: what a token server signs with and a registry trusts."""
    pair = Pair(Path(directory) / "token.crt", Path(directory) / "token.key")
    pair.cert.parent.mkdir(parents=True, exist_ok=True)
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=e2e tokens",
        "-keyout", pair.key, "-out", pair.cert)
    return pair
