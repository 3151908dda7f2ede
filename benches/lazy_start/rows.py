"""What is measured: images, and how nodes are configured. Another image is one line in ROWS."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """An image and the way it is pulled.

    `kind` says how it is made: "plain" is tar+gzip layers as docker makes them, "convert" is what ctr-remote makes of
    that, "pack" is starcar. In `arguments` of the last two, {profile} and {record} stand for the profile's files.
    `nodes` are those it is for; empty for all.
    """

    key: str
    title: str
    kind: str
    arguments: tuple = ()
    eager: bool = False
    nodes: tuple = ()


ROWS = [
    Row("plain-eager", "plain tar+gzip, eager", "plain", eager=True),
    Row("starcar-eager", "starcar, eager", "pack", ("--profile", "{profile}"), eager=True),
    Row("ctr-record", "ctr-remote convert, record", "convert", ("--estargz-record-in", "{record}")),
    Row("ctr-none", "ctr-remote convert, no record", "convert"),
    Row("none", "starcar --prefetch none", "pack", ("--profile", "{profile}", "--prefetch", "none")),
    Row("small", "starcar --prefetch small", "pack", ("--profile", "{profile}", "--prefetch", "small")),
    Row("all", "starcar --prefetch all", "pack", ("--profile", "{profile}", "--prefetch", "all")),
    Row("auto", "starcar --prefetch auto", "pack", ("--profile", "{profile}", "--prefetch", "auto")),
    Row(
        "auto-recommended",
        "starcar --prefetch auto --nodes recommended",
        "pack",
        ("--profile", "{profile}", "--prefetch", "auto", "--nodes", "recommended"),
        nodes=("recommended",),
    ),
]

# Why each value is what it is: docs/snapshotter.md.
RECOMMENDED = """\
prefetch_async_size = 16777216
max_concurrency = 4
[blob]
chunk_size = 4194304
prefetch_chunk_size = 67108864
[resolver]
request_timeout_sec = 600
"""

# config.toml of the snapshotter, by the name of the node.
NODES = {"default": "", "recommended": RECOMMENDED}


def choose(keys, extra):
    """The rows with these keys (all if none are given) and those made from "KEY=arguments of starcar pack"."""
    known = {row.key: row for row in ROWS}
    unknown = [key for key in keys or [] if key not in known]
    if unknown:
        raise ValueError(f"no such row: {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [known[key] for key in keys] if keys is not None else list(ROWS)
    for text in extra:
        key, _, arguments = text.partition("=")
        chosen.append(Row(key, f"starcar {arguments}", "pack", tuple(arguments.split())))
    return chosen
