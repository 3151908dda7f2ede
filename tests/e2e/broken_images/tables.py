"""Defects of footers, of the table of contents as a whole, and of what its entries say of themselves."""

import json

from . import add, case
from .sound import CONFIG, TOKENIZER, WEIGHTS, plain
from .writer import (
    TOC_NAME, Entry, Layer, digest_of, directory, external_footer, footer, legacy_footer, member,
)


def weights(image):
    return image.layers[2]


def small(image):
    return image.layers[1]


# The footer.

@case("footer-missing")
def footer_magic(image):
    """The footer's magic is another one."""
    weights(image).bend("footer", lambda offset, data: data.replace(b"STARGZ", b"STARGX"))


@case("footer-missing")
def footer_no_number(image):
    """The footer's offset is not hexadecimal."""
    weights(image).bend("footer", lambda offset, data: data.replace(b"%016x" % offset, b"%16x" % offset))


@case("footer-missing")
def footer_cut_off(image):
    """The layer ends before the footer."""
    weights(image).bend("footer", lambda offset, data: b"")


@case("footer-missing")
def trailing_bytes(image):
    """An empty gzip member follows the footer."""
    weights(image).bend("blob", lambda data: data + member(b""))


@case("footer-missing")
def plain_layer_with_annotation(image):
    """A layer of plain gzip is said to have a table of contents."""
    image.layers[2] = plain("gzip").layers[2]
    weights(image).bend("descriptor", lambda it: it | {"annotations": {}})
    weights(image).annotate(toc=digest_of(b"a table"))


@case("footer-legacy")
def footer_legacy(image):
    """The footer is that of stargz, which came before."""
    weights(image).write_footer = legacy_footer


@case("footer-offset")
def footer_offset_behind(image):
    """The footer places the table behind the layer."""
    weights(image).bend("footer", lambda offset, data: footer(offset + 1_000_000_000))


@case("footer-offset")
def footer_offset_at_footer(image):
    """The footer places the table where it begins itself."""
    def bend(data):
        return data[:-51] + footer(len(data) - 51)
    weights(image).bend("blob", bend)


@case("toc-external")
def toc_external(image):
    """The footer says that the table is in another image."""
    weights(image).write_footer = external_footer


@case("toc-unreadable")
def footer_offset_of_a_chunk(image):
    """The footer leads to another member than the table's."""
    weights(image).bend("footer", lambda offset, data: footer(offset - 1))


# The table's member.

@case("toc-unreadable", also=["member-damaged"])
def toc_not_compressed(image):
    """The table's tar entry is not compressed."""
    weights(image).bend("toc_member", lambda data: b"\0" * len(data))


@case("toc-unreadable", also=["tar-damaged"])
def toc_not_tar(image):
    """The table's member holds its JSON without a tar header."""
    weights(image).bend("toc_tar", lambda data: data[512:])


@case("toc-unreadable", also=["tar-damaged"])
def toc_cut_short(image):
    """The tar entry says that the JSON is longer than it is."""
    weights(image).bend("toc_tar", lambda data: data[:600])


@case("toc-unreadable")
def toc_no_json(image):
    """The JSON is cut short."""
    weights(image).bend("json", lambda data: data[:-2])


@case("toc-unreadable")
def toc_no_text(image):
    """The JSON is not UTF-8."""
    weights(image).bend("json", lambda data: data.replace(b"model.safetensors", b"model.safetensor\xff"))


@case("toc-unreadable")
def toc_no_object(image):
    """The JSON is a list."""
    weights(image).bend("json", lambda data: b"[" + data + b"]")


@case("toc-name")
def toc_name(image):
    """The table's tar entry has another name."""
    weights(image).name_toc = "stargz.index.txt"


@case("toc-trailing")
def toc_trailing(image):
    """A second JSON document follows the first."""
    weights(image).bend("json", lambda data: data + b"{}")


@case("toc-version")
def toc_version(image):
    """The table is of version 2."""
    weights(image).bend("toc", lambda toc: toc | {"version": 2})


@case("toc-empty", exit=10)
def toc_empty(image):
    """A layer has no files, and no landmark."""
    image.layers.append(Layer([]))


@case("toc-reserved-name")
def toc_reserved_name(image):
    """A file has the table's name."""
    small(image).entries.insert(0, Entry(TOC_NAME, data=b"{}"))


# The descriptor's annotations.

@case("toc-annotation-missing")
def toc_annotation_missing(image):
    """The descriptor does not name the table."""
    weights(image).annotate(toc=None)


@case("toc-annotation-malformed")
def toc_annotation_malformed(image):
    """The descriptor names the table by something that is no digest."""
    weights(image).annotate(toc="sha256:abc")


@case("toc-digest")
def toc_annotation_of_another_table(image):
    """The descriptor names another table."""
    weights(image).annotate(toc=digest_of(b"another table"))


@case("toc-digest")
def toc_bytes(image):
    """The table's JSON has a space more than the one that the descriptor names."""
    def bend(data):
        weights(image).annotate(toc=digest_of(data))
        return data[:-1] + b" }"
    weights(image).bend("json", bend)


@case("size-annotation-missing")
def size_annotation_missing(image):
    """The descriptor does not state the unpacked size."""
    weights(image).annotate(size=None)


@case("size-annotation-malformed")
def size_annotation_no_number(image):
    """The unpacked size is no number."""
    weights(image).annotate(size="much")


@case("size-annotation-malformed", also=["size-annotation-differs"])
def size_annotation_too_small(image):
    """The unpacked size is less than the weights'."""
    weights(image).annotate(size="1000")


# Fields, each of another type than the format has it.

FIELDS = {
    "name": 7, "type": 7, "size": "much", "modtime": 7, "linkName": 7, "mode": "rw", "uid": "root", "gid": "root",
    "userName": 7, "groupName": 7, "offset": "here", "devMajor": "1", "devMinor": "3", "xattrs": "a", "digest": 7,
    "chunkOffset": "0", "chunkSize": "1", "chunkDigest": 7, "innerOffset": "1",
}


def _wrong_type(name, value):
    def change(image):
        weights(image).listed(WEIGHTS, lambda entry: entry.update({name: value}))
    change.__doc__ = f"The field {name} is {json.dumps(value)}."
    return change


for _name, _value in FIELDS.items():
    add(f"field-{_name.lower()}-of-wrong-type", _wrong_type(_name, _value), "toc-unreadable")
for _name in ("size", "uid", "offset", "chunkSize"):
    add(f"field-{_name.lower()}-negative", _wrong_type(_name, -1), "toc-unreadable")


# Fields, each with a value that it cannot have.

@case("entry-name", also=["parent-missing"])
def entry_name_leads_outside(image):
    """A name leads out of the layer."""
    entry = small(image).entry("models/empty.txt")
    entry.name = "models/../../empty.txt"


@case("entry-name", also=["tar-missing", "tar-extra"])
def entry_name_empty(image):
    """The table has an entry without a name."""
    small(image).listed("models/empty.txt", lambda entry: entry.update(name=""))


@case("entry-name", also=["tar-missing", "tar-extra"])
def entry_name_with_zero(image):
    """The table has a name with a zero byte."""
    small(image).listed("models/empty.txt", lambda entry: entry.update(name="models/empty\0.txt"))


@case("entry-duplicate")
def entry_duplicate(image):
    """A file is there twice."""
    small(image).entries.insert(3, Entry(CONFIG, data=b'{"model_type": "other"}\n'))


@case("entry-duplicate", also=["entry-name-unclean"])
def entry_duplicate_by_other_name(image):
    """A file is there twice, once with an empty part in its name."""
    small(image).entries.insert(3, Entry("models//config.json", data=b'{"model_type": "other"}\n'))


@case("entry-type", also=["tar-type", "models-special"])
def entry_type(image):
    """An entry's type is one that the format does not have."""
    small(image).listed("models/empty.txt", lambda entry: entry.update(type="socket"))


@case("entry-type", also=["tar-type", "models-special"])
def entry_type_empty(image):
    """An entry's type is empty."""
    small(image).listed("models/empty.txt", lambda entry: entry.update(type=""))


@case("entry-mode")
def entry_mode(image):
    """A mode has the bits of the file's type."""
    small(image).listed(CONFIG, lambda entry: entry.update(mode=0o100644))


@case("entry-time")
def entry_time(image):
    """A time is a word."""
    small(image).listed(CONFIG, lambda entry: entry.update(modtime="yesterday"))


@case("entry-link", also=["tar-link", "models-symlink-dangling"])
def symlink_without_target(image):
    """A symbolic link has no target."""
    small(image).listed("models/vocab.json", lambda entry: entry.pop("linkName"))


@case("entry-link", also=["tar-link"])
def hardlink_without_target(image):
    """A hard link has no target."""
    image.layers[0].listed("bin/ash", lambda entry: entry.pop("linkName"))


@case("entry-xattr")
def entry_xattr(image):
    """An extended attribute is not base64."""
    image.layers[0].listed("etc/passwd", lambda entry: entry.update(xattrs={"user.note": "?"}))


@case("entry-digest")
def entry_digest_malformed(image):
    """A file's digest is none."""
    weights(image).listed(WEIGHTS, lambda entry: entry.update(digest="sha256:0"))


@case("entry-digest", also=["file-digest-differs"])
def entry_digest_of_only_chunk(image):
    """A file's digest is not that of its only chunk."""
    small(image).listed(TOKENIZER, lambda entry: entry.update(digest=digest_of(b"another file")))


ODD = {
    "size-of-a-directory": ("models/", {"size": 5}),
    "target-of-a-file": (CONFIG, {"linkName": "elsewhere"}),
    "chunk-of-a-symlink": ("models/vocab.json", {"chunkSize": 5}),
    "digest-of-a-symlink": ("models/vocab.json", {"digest": digest_of(b"x")}),
    "device-of-a-file": (CONFIG, {"devMajor": 1}),
}


def _odd(name, fields):
    def change(image):
        small(image).listed(name, lambda entry: entry.update(fields))
    change.__doc__ = f"The entry {name} has {json.dumps(fields)}."
    return change


for _name, _of in ODD.items():
    add(_name, _odd(*_of), "entry-fields")


# Links and parents.

@case("hardlink-target")
def hardlink_target(image):
    """A hard link's target is in a lower layer."""
    small(image).entries[1:1] = [directory("bin"), Entry("bin/hush", "hardlink", mode=0o755, link="bin/busybox")]


@case("hardlink-kind")
def hardlink_of_directory(image):
    """A hard link's target is a directory."""
    image.layers[0].entry("bin/ash").link = "tmp"


@case("hardlink-kind")
def hardlink_of_itself(image):
    """A hard link's target is the link itself."""
    image.layers[0].entry("bin/ash").link = "bin/ash"


@case("hardlink-order")
def hardlink_order(image):
    """A hard link comes before its target."""
    entries = image.layers[0].entries
    entries.insert(1, entries.pop(image.layers[0].place("bin/ash")))


@case("parent-missing")
def parent_missing(image):
    """The layer has no entry for a directory."""
    weights(image).entries.remove(weights(image).entry("models"))


@case("entry-number", also=["models-owner", "tar-owner"])
def field_uid_of_64_bits(image):
    """The field uid is more than Go's numbers hold."""
    small(image).listed(CONFIG, lambda entry: entry.update(uid=1 << 63))


@case("parent-symlink")
def parent_is_a_link(image):
    """A file lies below a symbolic link to a directory."""
    at = image.layers[0].place("dev")
    image.layers[0].entries[at:at] = [Entry("sbin", "symlink", mode=0o777, link="bin"), Entry("sbin/init")]


@case("parent-kind", also=["tar-type"])
def parent_is_a_file(image):
    """A file lies below a file."""
    at = image.layers[0].place("dev")
    image.layers[0].entries[at:at] = [Entry("etc/hosts"), Entry("etc/hosts/local")]
