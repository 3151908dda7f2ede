"""Kubernetes' own judgement of manifests, by its API server's code (go-kubernetes)."""

import json
import subprocess
from dataclasses import dataclass, field

from consumers.proc import Failed


@dataclass
class Verdict:
    """An object of a manifest, what an API server says of it, and the object with its defaults."""

    object: dict | None
    known: bool
    errors: list = field(default_factory=list)
    warnings: list = field(default_factory=list)
    stored: dict | None = None

    @property
    def kind(self):
        return (self.object or {}).get("kind")

    @property
    def name(self):
        return (self.object or {}).get("metadata", {}).get("name")


class Judge:
    """The command that tests/e2e/setup builds."""

    def __init__(self, bin_dir):
        self.binary = bin_dir / "kubernetes-objects"

    def __call__(self, text):
        """[Verdict] of the objects in YAML documents, or of one object."""
        if not isinstance(text, str):
            text = json.dumps(text)
        done = subprocess.run([self.binary], input=text, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise Failed(f"kubernetes-objects: exit {done.returncode}\n{done.stderr}")
        return [Verdict(**json.loads(line)) for line in done.stdout.splitlines()]

    def stored(self, thing):
        """One object of a kind of Kubernetes', with its defaults; fails if an API server would refuse it or warn of it."""
        (verdict,) = self(thing)
        if not verdict.known or verdict.errors or verdict.warnings:
            raise Failed(f"{verdict.kind} {verdict.name}: {verdict.errors} {verdict.warnings}\n{json.dumps(thing, indent=1)}")
        return verdict.stored
