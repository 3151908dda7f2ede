"""Writes eStargz, zstd:chunked and tar layers, and images of them, as OCI layouts. Nothing of starcar is used here: an
independent witness. Each step of the way can be bent, and all that follows from it is made anew from what then is there.

Source: stargz-snapshotter, docs/estargz.md and estargz/zstdchunked; OCI image specification, layer.md, manifest.md,
config.md.
"""

import base64
import functools
import gzip
import hashlib
import json
import tarfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from .zstd import skippable, zstd_footer, zstd_frame, zstd_unpacked

TOC_NAME = "stargz.index.json"
PREFETCH, NO_PREFETCH = ".prefetch.landmark", ".no.prefetch.landmark"
TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
UNPACKED_SIZE = "io.containers.estargz.uncompressed-size"
TOC_CHECKSUM = "io.containers.zstd-chunked.manifest-checksum"
TOC_POSITION = "io.containers.zstd-chunked.manifest-position"
STORAGE = "io.github.containers.zstd-chunked."
# The formats that have a table of contents.
LISTED = ("estargz", "zstd:chunked")
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MTIME = 1_700_000_000

TYPES = {
    "reg": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE, "fifo": tarfile.FIFOTYPE,
}


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def to_json(document):
    """Canonical JSON."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@functools.lru_cache(maxsize=4)
def member(data):
    """A gzip member."""
    return gzip.compress(data, 1, mtime=0)


def empty_member(extra):
    """An empty gzip member with an extra field, as Go's compress/gzip writes it without compression."""
    size = len(extra).to_bytes(2, "little")
    return b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + size + extra + b"\x01\0\0\xff\xff" + bytes(8)


def footer(toc_offset):
    return empty_member(b"SG\x16\0" + b"%016xSTARGZ" % toc_offset)


def legacy_footer(toc_offset):
    """The footer of stargz, without a subfield."""
    return empty_member(b"%016xSTARGZ" % toc_offset)


def external_footer(_):
    """The footer of a layer whose table is kept elsewhere."""
    return empty_member(b"SG\x11\0STARGZEXTERNALTOC")


def unpacked(data):
    """What gzip members unpack to; None where they do not."""
    parts = []
    try:
        while data:
            unpacker = zlib.decompressobj(31)
            parts += [unpacker.decompress(data), unpacker.flush()]
            if not unpacker.eof:
                return None
            data = unpacker.unused_data
    except zlib.error:
        return None
    return b"".join(parts)


@dataclass
class Entry:
    """A file as a tar header describes it."""

    name: str
    type: str = "reg"
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    user: str = "root"
    group: str = "root"
    mtime: int = MTIME
    link: str = ""
    major: int = 0
    minor: int = 0
    xattrs: dict = field(default_factory=dict)
    chunk: int | None = None  # size of the chunks, all of it if None
    content: bytes | None = None  # what it unpacks to, where that is not its payload
    inner: bool = False  # whether its first chunk begins in the member that is open

    def header(self):
        info = tarfile.TarInfo(self.name)
        info.type, info.mode, info.mtime = TYPES[self.type], self.mode, self.mtime
        info.uid, info.gid, info.uname, info.gname = self.uid, self.gid, self.user, self.group
        info.linkname, info.devmajor, info.devminor = self.link, self.major, self.minor
        info.size = len(self.data)
        info.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in self.xattrs.items()}
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

    def listed(self):
        """The entry of the table of contents, without places."""
        listed = {"name": self.name + "/" * (self.type == "dir"), "type": self.type}
        listed |= {"modtime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.mtime)), "mode": self.mode}
        xattrs = {name: base64.b64encode(value.encode()).decode() for name, value in self.xattrs.items()}
        more = {
            "size": len(self.data), "linkName": self.link, "uid": self.uid, "gid": self.gid, "userName": self.user,
            "groupName": self.group, "devMajor": self.major, "devMinor": self.minor, "xattrs": xattrs,
            "digest": digest_of(self.data) if self.type == "reg" else "",
        }
        return listed | {name: value for name, value in more.items() if value}


def _crc64_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0xD800000000000000 if value & 1 else 0)
        table.append(value)
    return table


CRC64 = _crc64_table()


@functools.lru_cache(maxsize=64)
def crc64(data):
    """As Go's hash/crc64 has it, of ISO's polynomial; big-endian."""
    crc = (1 << 64) - 1
    for byte in data:
        crc = CRC64[(crc ^ byte) & 0xFF] ^ crc >> 8
    return (crc ^ (1 << 64) - 1).to_bytes(8, "big")


def padding(data):
    return bytes(-len(data) % 512)


def directory(name, **more):
    return Entry(name, "dir", mode=more.pop("mode", 0o755), **more)


def landmark(name):
    return Entry(name, data=b"\x0f")


class Layer:
    """A layer. What `bend` is told runs at its step of the writing, each on what the steps before made:

    header (entry, bytes)  a tar header, the table keeps what was meant
    chunk (entry, bytes)   a chunk's bytes, the table has the digest of what was meant
    padding (entry, bytes) what fills the last block of a file
    members (list)         [bytes], what each gzip member or zstd frame holds; places are those of before
    payload (bytes)        all that is in front of the table's own
    toc (dict)             the table of contents
    json (bytes)           its JSON
    toc_tar (bytes)        the tar stream around that; zstd:chunked has none
    toc_member (bytes)     that, compressed
    toc_frame (bytes)      the frame around that, of zstd:chunked alone
    split (list)           the lines of the tar-split, of layers for containers-storage
    split_text (bytes)     the same as JSON
    split_packed (bytes)   that, compressed
    split_frame (bytes)    the frame around that
    footer (bytes, offset) the footer
    blob (bytes)           all of it; digest, size and diffID are of what comes out
    descriptor (dict)      the layer's descriptor
    stored (bytes)         what is stored under the digest; None for nothing
    """

    def __init__(self, entries, kind="estargz"):
        self.entries, self.kind, self.bends = entries, kind, {}
        self.write_footer = footer
        self.for_storage = False  # whether it has a tar-split, and annotations for containers-storage
        self.name_toc = TOC_NAME

    def bend(self, step, change):
        self.bends.setdefault(step, []).append(change)

    def bent(self, step, value, *about):
        for change in self.bends.get(step, []):
            value = change(*about, value) if about else change(value)
        return value

    def entry(self, name):
        """The entry of a name."""
        (found,) = [entry for entry in self.entries if entry.name == name]
        return found

    def place(self, name):
        return self.entries.index(self.entry(name))

    def listed(self, name, change):
        """Changes the entry of a name in the table alone; `change` gets its dict."""
        def bend(toc):
            change(next(each for each in toc["entries"] if each["name"] == name and each["type"] != "chunk"))
            return toc
        self.bend("toc", bend)

    def chunks(self, name, change):
        """Changes the further chunks of a file in the table alone; `change` gets the list of their dicts."""
        def bend(toc):
            change([each for each in toc["entries"] if each["name"] == name and each["type"] == "chunk"])
            return toc
        self.bend("toc", bend)

    def table(self, change):
        """Changes the list of entries in the table alone, in place."""
        def bend(toc):
            change(toc["entries"])
            return toc
        self.bend("toc", bend)

    def annotate(self, **changes):
        """Changes annotations of the descriptor; None takes one away."""
        names = {
            "toc": TOC_DIGEST, "size": UNPACKED_SIZE, "kind": "dev.starcar.layer.kind", "checksum": TOC_CHECKSUM,
            "position": TOC_POSITION, "storage_checksum": STORAGE + "manifest-checksum",
            "split": STORAGE + "tarsplit-position", "split_checksum": STORAGE + "tarsplit-checksum",
        }
        def bend(descriptor):
            for name, value in changes.items():
                descriptor["annotations"].pop(names[name], None)
                if value is not None:
                    descriptor["annotations"][names[name]] = value
            return descriptor
        self.bend("descriptor", bend)

    def _stream(self):
        """The tar stream as [(what, bytes)]: "more" goes on with the member, "chunk" begins one; and the table."""
        parts, listed = [], []
        for entry in self.entries:
            parts.append(("more", self.bent("header", entry.header(), entry)))
            first = entry.listed()
            listed.append(first)
            size = entry.chunk or len(entry.data) or 1
            for at in range(0, len(entry.data), size):
                data = entry.data[at : at + size]
                here = first
                if entry.inner and not at:
                    here["inner"] = True
                if at:
                    here = {"name": first["name"], "type": "chunk", "chunkOffset": at}
                    listed.append(here)
                if at + size < len(entry.data):
                    here["chunkSize"] = size
                here["chunkDigest"] = digest_of(data)
                parts.append((here, self.bent("chunk", data, entry)))
            if entry.data:
                parts.append(("more", self.bent("padding", padding(entry.data), entry)))
        return parts, listed

    def build(self):
        """(blob, diffID, unpacked size, annotations)."""
        parts, listed = self._stream()
        if self.kind not in LISTED:
            stream = self.bent("members", [b"".join(data for _, data in parts) + bytes(1024)])[0]
            blob = {"tar": bytes, "gzip": member, "zstd": zstd_frame}[self.kind](stream)
            return self.bent("blob", blob), digest_of(stream), len(stream), {}
        is_zstd = self.kind == "zstd:chunked"
        pack = zstd_frame if is_zstd else member
        if is_zstd:
            # The table is no entry: the end comes in front of it.
            parts.append(({}, bytes(1024)))
        # Members first: where they begin is in the table.
        members, owners = [b""], [[]]
        for owner, data in parts:
            if owner == "more":
                members[-1] += data
            elif owner.pop("inner", False):
                owner["innerOffset"] = len(members[-1])
                owners[-1].append(owner)
                members[-1] += data
            else:
                members.append(data)
                owners.append([owner])
        offset, packed = 0, []
        for those, data in zip(owners, members):
            packed.append(pack(data))
            for owner in those:
                owner["offset"] = offset
            offset += len(packed[-1])
        if "members" in self.bends:
            members = self.bent("members", members)
            packed = [pack(data) for data in members]
        toc, split = {"version": 1, "entries": listed}, b""
        if self.for_storage:
            text = self.bent("split_text", b"".join(to_json(line) + b"\n" for line in self.bent("split", self._split())))
            split = self.bent("split_packed", zstd_frame(text))
            split_place, toc["tarSplitDigest"] = [0, len(split), len(text)], digest_of(split)
        toc = self.bent("toc", toc)
        text = self.bent("json", to_json(toc))
        payload = self.bent("payload", b"".join(packed))
        annotations = {TOC_DIGEST: digest_of(text)}
        if is_zstd:
            toc_tar = b""
            toc_member = self.bent("toc_member", zstd_frame(text))
            place = (len(payload) + 8, len(toc_member), len(text))
            tail = self.bent("toc_frame", skippable(toc_member))
            prefix = STORAGE if self.for_storage else TOC_POSITION.removesuffix("manifest-position")
            if self.for_storage:
                split_place[0] = len(payload) + len(tail) + 8
                tail += self.bent("split_frame", skippable(split))
                annotations = {STORAGE + "tarsplit-checksum": digest_of(split)}
                annotations[STORAGE + "tarsplit-position"] = ":".join(map(str, split_place))
            tail += self.bent("footer", zstd_footer(*place), len(payload))
            annotations[prefix + "manifest-checksum"] = digest_of(toc_member)
            annotations[prefix + "manifest-position"] = ":".join(map(str, (*place, 1)))
        else:
            toc_tar = self._toc_tar(text)
            tail = self.bent("toc_member", member(toc_tar))
            tail += self.bent("footer", self.write_footer(len(payload)), len(payload))
        blob = self.bent("blob", payload + tail)
        bent = {"payload", "toc_member", "toc_frame", "footer", "blob"} & set(self.bends)
        stream = (zstd_unpacked if is_zstd else unpacked)(blob) if bent else None
        if stream is None:
            stream = b"".join(members) + toc_tar
        return blob, digest_of(stream), len(stream), annotations | {UNPACKED_SIZE: str(len(stream))}

    def _split(self):
        """The lines of the tar-split."""
        lines, run = [], b""
        for entry in self.entries:
            run += entry.header()
            lines.append({"type": 2, "payload": base64.b64encode(run).decode()})
            line = {"type": 1, "name": entry.listed()["name"], "payload": None}
            if entry.data:
                line |= {"size": len(entry.data), "payload": base64.b64encode(crc64(entry.data)).decode()}
            lines.append(line)
            run = padding(entry.data)
        lines.append({"type": 2, "payload": base64.b64encode(run + bytes(1024)).decode()})
        return [line | {"position": number} for number, line in enumerate(lines)]

    def _toc_tar(self, text):
        tail = tarfile.TarInfo(self.name_toc)
        tail.type, tail.size = tarfile.REGTYPE, len(text)
        return self.bent("toc_tar", tail.tobuf() + text + padding(text) + bytes(1024))


class Image:
    """An image: layers, and what config and manifest say. `config` is the inner one; the rest can be bent:

    config_json (dict), config_bytes (bytes), manifest (dict), manifest_bytes (bytes), index (dict), layout (Path)
    """

    def __init__(self, layers, labels=None):
        self.layers, self.bends = layers, {}
        self.config = {
            "Cmd": ["sh"], "User": "1010:0", "WorkingDir": "/", "Env": ["PATH=/usr/bin:/bin"], "Labels": labels or {},
        }

    bend, bent = Layer.bend, Layer.bent

    def model_files(self):
        """{path below models: bytes} of the regular files, as one who reads names leniently finds them."""
        found = {}
        for layer in self.layers:
            for entry in layer.entries:
                parts = [part for part in entry.name.split("/") if part not in ("", ".")]
                if entry.type == "reg" and parts[:1] == ["models"] and parts[1:]:
                    found["/".join(parts[1:])] = entry.data if entry.content is None else entry.content
        return found

    def write(self, path, tag="v1"):
        """Writes the layout, and gives the manifest's digest."""
        blobs = Path(path) / "blobs" / "sha256"
        blobs.mkdir(parents=True)

        def put(data, media_type, stored=lambda data: data):
            digest = digest_of(data)
            content = stored(data)
            if content is not None:
                (blobs / digest[7:]).write_bytes(content)
            return {"mediaType": media_type, "digest": digest, "size": len(data)}

        suffix = {"estargz": "+gzip", "gzip": "+gzip", "zstd:chunked": "+zstd", "zstd": "+zstd", "tar": ""}
        descriptors, diff_ids = [], []
        for layer in self.layers:
            blob, diff_id, _, annotations = layer.build()
            stored = lambda data, layer=layer: layer.bent("stored", data)  # noqa: E731
            descriptor = put(blob, LAYER_TYPE + suffix[layer.kind], stored)
            if annotations:
                descriptor["annotations"] = annotations
            descriptors.append(layer.bent("descriptor", descriptor))
            diff_ids.append(diff_id)
        config = self.bent("config_json", {
            "architecture": "amd64", "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": f"layer {number}"} for number, _ in enumerate(diff_ids)],
        })
        config = self.bent("config_bytes", to_json(config))
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": put(config, CONFIG_TYPE, lambda data: self.bent("config_stored", data)), "layers": descriptors,
        }
        manifest = self.bent("manifest", manifest)
        data = self.bent("manifest_bytes", to_json(manifest))
        listed = put(data, manifest.get("mediaType", MANIFEST_TYPE), lambda data: self.bent("manifest_stored", data))
        digest = listed["digest"]
        listed = self.bent("listed", listed)
        # An index in between, where there is one to be.
        if "index" in self.bends:
            index = self.bent("index", {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [listed]})
            listed = put(index if isinstance(index, bytes) else to_json(index), INDEX_TYPE)
        listed["annotations"] = {"org.opencontainers.image.ref.name": tag}
        (Path(path) / "index.json").write_bytes(
            to_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [listed]}))
        (Path(path) / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        return digest
