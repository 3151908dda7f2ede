"""Defects that only reading the layer's bytes shows: tar streams, members, digests, and tables that tell of others."""

import functools
import tarfile

from . import DEEP, add, case
from .sound import CONFIG, TOKENIZER, WEIGHTS
from .tables import small, weights
from .writer import Entry, digest_of, padding

deep = functools.partial(case, depth=DEEP)


def fix_checksum(header):
    """A tar header with the right checksum."""
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank[:512]) + header[156:]


def header_of(layer, name, change):
    """Changes the header of an entry in the tar stream alone; `change` gets its 512 bytes."""
    layer.bend("header", lambda entry, data: change(data) if entry.name == name else data)


# The blob.

@deep("blob-digest")
def blob_digest(image):
    """A byte of a gzip header is another one: the system that it was made on."""
    weights(image).bend("stored", lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:])


@deep("blob-digest", image="tar", also=["diff-id"])
def blob_digest_of_tar(image):
    """A byte of a plain layer's weights is another one."""
    weights(image).bend("stored", lambda data: data[:200_000] + bytes([data[200_000] ^ 1]) + data[200_001:])


@deep("blob-digest", "member-damaged", also=["chunk-digest-differs", "file-digest-differs"])
def bit_rot(image):
    """A byte in the middle of the weights is another one."""
    weights(image).bend("stored", lambda data: data[:150_000] + bytes([data[150_000] ^ 1]) + data[150_001:])


@deep("member-damaged")
def member_checksum(image):
    """The CRC of a chunk's member is wrong."""
    def bend(data):
        at = data.index(b"\x1f\x8b\x08", 150_000) - 8
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    weights(image).bend("blob", bend)


@deep("member-damaged", image="gzip", also=["image-not-lazy", "layer-unread"])
def garbage_behind_gzip(image):
    """Bytes that are not gzip follow a plain layer."""
    weights(image).bend("blob", lambda data: data + b"garbage behind the layer")


@deep("size-annotation-differs")
def size_annotation_differs(image):
    """The descriptor says that the layer unpacks to 1024 bytes more."""
    def bend(descriptor):
        name = "io.containers.estargz.uncompressed-size"
        descriptor["annotations"][name] = str(int(descriptor["annotations"][name]) + 1024)
        return descriptor
    weights(image).bend("descriptor", bend)


# The tar stream.

@deep("tar-damaged")
def tar_header_checksum(image):
    """A tar header's checksum is wrong."""
    header_of(weights(image), WEIGHTS, lambda data: data[:148] + b"000000\0 " + data[156:])


@deep("tar-damaged", image="tar", also=["layer-unread"])
def tar_cut_short(image):
    """A plain layer ends in the middle of the weights."""
    weights(image).bend("members", lambda members: [members[0][:150_000]])


@deep("tar-kind", image="tar")
def tar_kind(image):
    """A plain layer has an entry that is a volume's label."""
    label = fix_checksum(Entry("label").header()[:156] + b"V" + Entry("label").header()[157:])
    header_of(small(image), CONFIG, lambda data: label + data)


def sparse(header):
    """The header of a file of 512 bytes as GNU tar has it for files with holes."""
    holes = b"%011o\0%011o\0" % (0, 512)
    gnu = header[:156] + b"S" + header[157:257] + b"ustar  \0" + header[265:345] + bytes(41) + holes + bytes(72)
    return fix_checksum(gnu + bytes(1) + b"%011o\0" % 512 + header[495:])


@deep("tar-kind", image="tar", also=["models-special"])
def tar_sparse_of_old(image):
    """A plain layer has a file that is stored with holes, in GNU tar's own format."""
    at = small(image).place("models/empty.txt")
    small(image).entries.insert(at, Entry("models/holes.bin", data=b"x" * 512))
    header_of(small(image), "models/holes.bin", sparse)


@deep("tar-sparse", image="tar")
def tar_sparse(image):
    """A plain layer has a file that is stored with holes, in the PAX format 1.0: a list of what there is, and that."""
    at = small(image).place("models/empty.txt")
    data = b"x" * 512
    payload = b"1\n512\n512\n".ljust(512, b"\0") + data
    small(image).entries.insert(at, Entry("models/holes.bin", data=payload, content=bytes(512) + data))
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "models/holes.bin",
               "GNU.sparse.realsize": "1024"}
    header_of(small(image), "models/holes.bin", lambda data: pax(records) + data)


def pax(records):
    """A PAX header with these records."""
    lines = b""
    for name, value in records.items():
        size = len(f" {name}={value}\n")
        size += len(str(size + len(str(size))))
        lines += f"{size} {name}={value}\n".encode()
    info = tarfile.TarInfo("PaxHeaders/holes.bin")
    info.type, info.size = tarfile.XHDTYPE, len(lines)
    return info.tobuf() + lines + padding(lines)


@deep("tar-padding")
def tar_padding(image):
    """The padding behind a file is not zeros."""
    small(image).bend("padding", lambda entry, data: b"\1" * len(data) if entry.name == CONFIG else data)


@deep("tar-end")
def tar_end(image):
    """The tar stream has no end."""
    weights(image).bend("toc_tar", lambda data: data[:-1024])


@deep("tar-end", image="tar")
def tar_end_half(image):
    """A plain layer's end has 512 zeros."""
    weights(image).bend("members", lambda members: [members[0][:-512]])


@deep("tar-end", image="tar")
def tar_end_missing(image):
    """A plain layer ends where its last file does, padding included."""
    weights(image).bend("members", lambda members: [members[0][:-1024]])


@case("tar-end-unpadded", image="tar", also=["tar-end"])
def tar_end_in_padding(image):
    """A plain layer ends with the last byte of its last file, as umoci's do."""
    weights(image).bend("members", lambda members: [members[0][: -1024 - len(padding(weights(image).entry(WEIGHTS).data))]])


@deep("tar-trailing")
def tar_trailing(image):
    """Bytes follow the end of the tar stream, in the table's member."""
    weights(image).bend("toc_tar", lambda data: data + b"hidden".ljust(512, b"."))


@deep("tar-trailing", image="tar")
def tar_trailing_of_tar(image):
    """Bytes follow the end of a plain layer."""
    weights(image).bend("members", lambda members: [members[0] + b"hidden".ljust(512, b".")])


@deep("toc-not-last", also=["tar-extra"])
def toc_not_last(image):
    """A file follows the table in the tar stream."""
    weights(image).bend("toc_tar", lambda data: data[:-1024] + note() + bytes(1024))


def note():
    """The tar stream of a file."""
    entry = Entry("models/note.txt", data=b"behind the table")
    return entry.header() + entry.data + padding(entry.data)


# What the table says and the stream does not, entry by entry.

@deep("tar-missing")
def entry_missing_in_tar(image):
    """The table lists a file that the stream does not have."""
    more = Entry("models/more.txt").listed()
    small(image).table(lambda entries: entries.append(more))


@deep("tar-extra")
def entry_missing_in_table(image):
    """The stream has a file that the table does not list."""
    small(image).table(lambda entries: entries.pop(3))


@deep("tar-missing", "tar-extra")
def field_name_differs(image):
    """The field name differs from the tar header's."""
    small(image).listed("models/empty.txt", lambda entry: entry.update(name="models/other.txt"))


@deep("tar-order")
def entry_order_differs(image):
    """The table lists two entries in another order than the stream has them."""
    small(image).table(lambda entries: entries.insert(3, entries.pop(4)))


@deep("tar-size", also=["chunk-digest-differs", "file-digest-differs", "member-offset"])
def field_size_differs(image):
    """The field size differs from the tar header's: the file's last byte is missing."""
    small(image).listed(TOKENIZER, lambda entry: entry.update(size=entry["size"] - 1))


@deep("tar-type", also=["entry-fields"])
def field_type_differs(image):
    """The field type differs from the tar header's: a directory is an empty file."""
    image.layers[0].listed("tmp/", lambda entry: entry.update(type="reg", name="tmp"))


FIELDS = {
    "modtime": (CONFIG, "2024-01-01T00:00:00Z", "tar-time"),
    "linkname": ("models/vocab.json", ("linkName", "config.json"), "tar-link"),
    "mode": (CONFIG, 0o666, "tar-mode"),
    "uid": ("models/empty.txt", 7, "tar-owner"),
    "gid": ("models/empty.txt", 7, "tar-owner"),
    "username": (CONFIG, ("userName", "somebody"), "tar-owner-name"),
    "groupname": (CONFIG, ("groupName", "somebody"), "tar-owner-name"),
}
ALSO = {"uid": ["models-owner"], "gid": ["models-owner"]}
BASE_FIELDS = {
    "devmajor": ("dev/null", ("devMajor", 5), "tar-device"),
    "devminor": ("dev/null", ("devMinor", 5), "tar-device"),
    "xattrs": ("etc/passwd", {"user.note": "Yg=="}, "tar-xattr"),
    "hardlink": ("bin/ash", ("linkName", "etc/passwd"), "tar-link"),
}


def _differs(layer, field, name, value):
    field, value = value if isinstance(value, tuple) else (field, value)

    def change(image):
        image.layers[layer].listed(name, lambda entry: entry.update({field: value}))
    change.__doc__ = f"The field {field} of {name} differs from the tar header's."
    return change


for _layer, _fields in ((1, FIELDS), (0, BASE_FIELDS)):
    for _field, (_name, _value, _code) in _fields.items():
        add(f"field-{_field}-differs", _differs(_layer, _field, _name, _value), _code, depth=DEEP,
            also=ALSO.get(_field, ()))


@deep("tar-xattr")
def field_xattrs_lacks_one(image):
    """The table lacks an extended attribute of the tar header."""
    image.layers[0].listed("etc/passwd", lambda entry: entry.pop("xattrs"))


# Chunks.

@deep("member-offset")
def field_offset_differs(image):
    """A chunk begins a byte before where the table says."""
    weights(image).chunks(WEIGHTS, lambda chunks: chunks[1].update(offset=chunks[1]["offset"] + 1))


@deep("member-offset", also=["chunk-digest-differs", "file-digest-differs"])
def field_chunksize_differs(image):
    """Two chunks meet a byte later than the members do."""
    def bend(chunks):
        chunks[0]["chunkSize"] += 1
        chunks[1]["chunkOffset"] += 1
    weights(image).chunks(WEIGHTS, bend)


@deep("member-offset", also=["inner-offset"])
def field_inneroffset_differs(image):
    """A chunk is said to begin a byte into its member."""
    weights(image).chunks(WEIGHTS, lambda chunks: chunks[1].update(innerOffset=1))


@deep("chunk-digest-differs")
def field_chunkdigest_differs(image):
    """A chunk's digest is another one's."""
    weights(image).chunks(WEIGHTS, lambda chunks: chunks[1].update(chunkDigest=digest_of(b"another chunk")))


@deep("chunk-digest-differs", "file-digest-differs")
def chunk_bytes(image):
    """A byte of a chunk is another one than when the table was made."""
    weights(image).bend("chunk", lambda entry, data: b"?" + data[1:] if entry.name == WEIGHTS else data)


@deep("file-digest-differs")
def field_digest_differs(image):
    """The digest of a file of several chunks is another file's."""
    weights(image).listed(WEIGHTS, lambda entry: entry.update(digest=digest_of(b"another file")))
