"""The pages: their fenced blocks, links and anchors."""

import re
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]
FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*([\w:+.-]*)\s*$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^()\s]+(?:\([^()\s]*\))?)\)")
# What a block of output may leave open: numbers, digests, and whatever `…` stands for.
OPEN = re.compile(r"…|\b[0-9a-f]{12,}\b|\d[\d.,:]*")


@dataclass
class Block:
    """A fenced block: where it is, its language and text, and the block of output that follows it at once."""

    page: str
    line: int
    language: str
    text: str
    output: "Block | None" = None

    def __str__(self):
        return f"{self.page}:{self.line}"


@dataclass
class Page:
    """A page, by its path from the top of the repository."""

    name: str
    text: str
    blocks: list = field(default_factory=list)

    def directory(self):
        """Where its reader is, from the top of the repository: an example's own directory, else the top."""
        directory = self.name.rpartition("/")[0]
        return directory if directory.startswith("examples") else "."

    def shell(self):
        """The blocks that are run, in order."""
        return [block for block in self.blocks if block.language in ("sh", "console")]


def read(path):
    """The page at a path. A fence that is not closed is an error."""
    text = path.read_text()
    page = Page(path.relative_to(TOP).as_posix(), text)
    opened, between = None, []
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if opened is None:
            if fence:
                opened = (number, fence, [])
            elif line.strip():
                between.append(line)
        elif fence and fence[2][0] == opened[1][2][0] and len(fence[2]) >= len(opened[1][2]) and not fence[3]:
            start, mark, lines = opened
            indent = len(mark[1])
            block = Block(page.name, start, mark[3], "".join(f"{each[indent:]}\n" for each in lines))
            # Output follows its commands at once.
            last = page.blocks[-1] if page.blocks else None
            if block.language == "text" and last and last.language == "sh" and not between:
                last.output = block
            page.blocks.append(block)
            opened, between = None, []
        else:
            opened[2].append(line)
    assert opened is None, f"{page.name}:{opened[0]}: a fence that is not closed"
    return page


def all_pages():
    """README.md, every page below docs/, and those of the examples."""
    below = [path for directory in ("docs", "examples") for path in sorted((TOP / directory).rglob("*.md"))]
    return [read(path) for path in (TOP / "README.md", *below)]


def prose(text):
    """A page's text with the content of fenced blocks and of code spans taken out."""
    kept, inside = [], None
    for line in text.splitlines():
        fence = FENCE.match(line)
        if inside is None and fence:
            inside = fence[2]
        elif inside is not None:
            if fence and fence[2].startswith(inside) and not fence[3]:
                inside = None
        else:
            kept.append(line)
    return re.sub(r"`[^`\n]*`", "``", "\n".join(kept))


def links(page):
    """The targets of a page's links."""
    return LINK.findall(prose(page.text))


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    found, seen, inside = set(), {}, None
    for line in text.splitlines():
        fence = FENCE.match(line)
        if fence and (inside is None or (fence[2].startswith(inside) and not fence[3])):
            inside = fence[2] if inside is None else None
            continue
        heading = None if inside else re.match(r"#{1,6}\s+(.*?)\s*#*$", line)
        if heading:
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            count = seen.get(name, 0)
            seen[name] = count + 1
            found.add(f"{name}-{count}" if count else name)
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def unlike(shown, printed):
    """The first line of a block of output that what was printed does not have, or None.

    Lines are looked for in order. Numbers and digests may be others, `…` is anything, and a line of `…` alone any lines.
    """
    printed = [" ".join(line.split()) for line in printed.splitlines()]
    at = 0
    for line in shown.splitlines():
        line = " ".join(line.split())
        if not line or line == "…":
            continue
        pattern, end = [], 0
        for hole in OPEN.finditer(line):
            pattern.append(re.escape(line[end : hole.start()]))
            pattern.append(".*" if hole[0] == "…" else r"[0-9a-f]+" if len(hole[0]) >= 12 else r"\d[\d.,:]*")
            end = hole.end()
        pattern = re.compile("".join(pattern) + re.escape(line[end:]))
        for number in range(at, len(printed)):
            if pattern.fullmatch(printed[number]):
                at = number + 1
                break
        else:
            return line
    return None
