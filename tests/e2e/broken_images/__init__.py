"""Images with one defect each, made with no code of starcar's, and what is to be said of each.

A case is a function that takes a sound image and changes one thing at one level; all that follows from it (digests,
sizes, diffIDs, annotations) is made anew, so that the defect is the only one.
"""

import importlib
from dataclasses import dataclass, field

from . import sound

QUICK, DEEP = "quick", "deep"
# Where the defect is. The readers of layers see no documents, and do not ask what files are for.
LAYER, DOCUMENT, CONTENT = "layer", "document", "content"
CASES = {}


@dataclass
class Case:
    """What is to be found in an image."""

    name: str
    change: object
    codes: set  # of which all must be found, in `depth` and in no cheaper mode
    depth: str = QUICK
    also: set = field(default_factory=set)  # what follows from the defect and may be found as well
    image: str = "estargz"  # the sound image that it begins with
    at: str = LAYER
    exit: int | None = None  # where it does not follow from the codes' severity
    arguments: tuple = ()
    # What consumers make of it otherwise than starcar says, and why: {"reader" | "fetch" | "containerd": sentence}.
    differ: dict = field(default_factory=dict)
    heavy: bool = False  # hundreds of megabytes when unpacked

    @property
    def doc(self):
        return self.change.__doc__.strip()

    def make(self):
        """The broken image."""
        image = getattr(sound, self.image)()
        self.change(image)
        return image


def add(name, change, *codes, also=(), **more):
    assert name not in CASES, name
    assert change.__doc__, f"{name} says nothing of itself"
    CASES[name] = Case(name, change, set(codes), also=set(also), **more)


def case(*codes, **more):
    """Makes a case of a function that changes an image; its name is the case's."""
    def decorate(change):
        add(change.__name__.replace("_", "-"), change, *codes, **more)
        return change
    return decorate


for _part in ("documents", "contents", "tables", "places", "streams", "chunked"):
    importlib.import_module(f"{__name__}.{_part}")

importlib.import_module(f"{__name__}.disagreements").apply(CASES)
