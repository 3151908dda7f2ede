"""What the pages take for granted, and what about them is not run: every exception with its reason.

An entry that nothing needs any more fails the test, so the tables stay as short as they can be.
"""

# Hosts that the pages name, and the address on which each answers. Those of one address are one registry.
REGISTRIES = {
    "registry.example.com": "127.0.0.2",
    "registry-a.example.com": "127.0.0.2",
    "registry-b.example.com": "127.0.0.3",
    "registry-1.docker.io": "127.0.0.4",
    "index.docker.io": "127.0.0.4",
}
# `--ca-file` and credentials: see docs/how-to/private-registry.md.
PRIVATE = ("registry.corp.example", "127.0.0.5")
HUB = "huggingface.co"

# Pages that begin on a machine without starcar.
FRESH = {"docs/tutorial.md"}

# (page, words that the block has) -> why it is not run.
NOT_RUN = {
    ("docs/pipelines.md", "--certificate-identity https://github.com/acme/"):
        "a keyless signature takes GitHub and Sigstore's services",
    ("docs/provenance.md", "cosign attest --key"):
        "enters the signature in Sigstore's public log; publish.sh attests without it, and docs/pipelines.md runs that",
    ("examples/tekton/README.md", "tkn task start"):
        "there is no cluster; tests/e2e/test_pipelines.py runs the task's steps",
    ("docs/container-image.md", "--example container_image"):
        "a static release build takes minutes; tests/e2e/test_container_image.py and tests/container_image.rs run it",
}

# (page, a command as it stands) -> (its exit code, why it is not 0).
EXITS = {
    ("README.md", "starcar profile diff start.json qwen3.json                     # exit code 1 when something differs"):
        (1, "a strace and a recording of one start differ in their times"),
    ("docs/troubleshooting.md", "starcar node check --registry registry.example.com/models/qwen3-8b:v1   # on a node: what it lacks for lazy pulls"):
        (12, "the sandbox is no node, so much is missing"),
}

# Languages of blocks that are no commands, and that nothing can be checked of.
UNCHECKED = {"text", "", "python"}
