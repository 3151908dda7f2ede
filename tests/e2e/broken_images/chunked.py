"""Defects of zstd:chunked: of its footer, of the frame of its table of contents and of the annotations of that, and those
that eStargz has as well, where they are seen in another way."""

import functools

from . import DEEP, DOCUMENT, case
from .sound import TOKENIZER, WEIGHTS, plain
from .streams import note
from .tables import small, weights
from .writer import STORAGE, TOC_NAME, Entry, digest_of
from .zstd import skippable, zstd_footer, zstd_frame

zstd = functools.partial(case, image="zstd_chunked")
deep = functools.partial(zstd, depth=DEEP)
# What is wrong with a tar-split hinders podman alone.
storage = functools.partial(case, image="zstd_storage", at=DOCUMENT)
# As long as the frames of the weights' last chunk with its padding, and of the archive's end.
LAST = zstd_frame(bytes(100_000 + 32)) + zstd_frame(bytes(1024))


def footer(image, change):
    """Writes another footer: `change` gets (place, compressed length, length) of the table, and gives them with the kind."""
    def bend(offset, data):
        numbers = [int.from_bytes(data[at : at + 8], "little") for at in range(8, 32, 8)]
        return zstd_footer(*change(*numbers))
    weights(image).bend("footer", bend)


# The footer.

@zstd("footer-missing")
def zstd_footer_magic(image):
    """The footer of a zstd:chunked layer has another magic."""
    weights(image).bend("footer", lambda offset, data: data.replace(b"GnUlInUx", b"GnUlInUX"))


@zstd("footer-missing")
def zstd_footer_cut_off(image):
    """A zstd:chunked layer ends before the footer."""
    weights(image).bend("footer", lambda offset, data: b"")


@zstd("footer-missing")
def zstd_footer_kind(image):
    """The footer of a zstd:chunked layer says that the table is of kind 2."""
    footer(image, lambda *place: (*place, 2))


@zstd("footer-missing", also=["member-damaged"])
def zstd_footer_frame(image):
    """The footer's own frame says that it is 8 bytes longer than it is."""
    weights(image).bend("footer", lambda offset, data: data[:4] + b"\x30" + data[5:])


@zstd("footer-missing")
def zstd_trailing_frame(image):
    """A frame that is skipped follows the footer."""
    weights(image).bend("blob", lambda data: data + skippable(b"more"))


@zstd("footer-missing")
def zstd_plain_layer_with_annotation(image):
    """A layer of plain zstd is said to have a table of contents."""
    image.layers[2] = plain("zstd").layers[2]
    weights(image).bend("descriptor", lambda it: it | {"annotations": {}})
    weights(image).annotate(toc=digest_of(b"a table"))


@zstd("footer-offset")
def zstd_footer_offset_behind(image):
    """The footer of a zstd:chunked layer places the table behind the layer."""
    footer(image, lambda offset, packed, length: (offset + 1_000_000_000, packed, length))


@zstd("footer-offset")
def zstd_footer_offset_of_64_bits(image):
    """The table would end behind the largest number."""
    footer(image, lambda offset, packed, length: ((1 << 64) - 1, packed, length))


@zstd("footer-offset")
def zstd_footer_length_too_long(image):
    """The table would reach into the footer."""
    footer(image, lambda offset, packed, length: (offset, packed + 1, length))


@zstd("footer-offset")
def zstd_footer_length_zero(image):
    """The table would have no bytes."""
    footer(image, lambda offset, packed, length: (offset, 0, length))


@zstd("toc-unreadable")
def zstd_footer_length_too_short(image):
    """The table would end a byte before it does."""
    footer(image, lambda offset, packed, length: (offset, packed - 1, length))


@zstd("toc-unreadable")
def zstd_footer_offset_of_the_frame(image):
    """The footer leads to the header of the table's frame."""
    footer(image, lambda offset, packed, length: (offset - 8, packed, length))


@zstd("toc-length")
def zstd_footer_uncompressed_length(image):
    """The footer says that the table's JSON has a byte more."""
    footer(image, lambda offset, packed, length: (offset, packed, length + 1))


# The table's frame.

@zstd("toc-unreadable")
def zstd_toc_magic(image):
    """The table is not compressed with zstd."""
    weights(image).bend("toc_member", lambda data: b"\x1f\x8b\x08\x00" + data[4:])


@zstd("toc-unreadable")
def zstd_toc_trailing_bytes(image):
    """Bytes that are no frame follow the table, and are counted to it."""
    weights(image).bend("toc_member", lambda data: data + b"garbage")


@zstd("toc-unreadable")
def zstd_toc_no_json(image):
    """The JSON in zstd:chunked is cut short."""
    weights(image).bend("json", lambda data: data[:-2])


@zstd("toc-frame", also=["member-damaged"])
def zstd_toc_frame_header(image):
    """What is in front of the table is zeros and no frame's header."""
    weights(image).bend("toc_frame", lambda data: bytes(8) + data[8:])


@zstd("toc-frame", also=["member-damaged"])
def zstd_toc_frame_too_long(image):
    """The table's frame says that it reaches into the footer."""
    weights(image).bend("toc_frame", lambda data: data[:4] + (len(data) - 8 + 9).to_bytes(4, "little") + data[8:])


@zstd("toc-frame", also=["member-damaged"])
def zstd_toc_frame_too_short(image):
    """The table's frame says that it ends within the table."""
    weights(image).bend("toc_frame", lambda data: data[:4] + (len(data) - 8 - 9).to_bytes(4, "little") + data[8:])


@zstd("toc-trailing")
def zstd_toc_frame_trailing(image):
    """Bytes follow the table in its frame, and are not counted to it."""
    weights(image).bend("toc_frame", lambda data: skippable(data[8:] + b"hidden"))


@zstd("toc-trailing")
def zstd_toc_trailing(image):
    """A second JSON document follows the first in zstd:chunked."""
    weights(image).bend("json", lambda data: data + b"{}")


# The descriptor's annotations.

@zstd("toc-annotation-missing")
def zstd_toc_annotation_missing(image):
    """The descriptor of a zstd:chunked layer does not name the table."""
    weights(image).annotate(toc=None)


@zstd("toc-digest")
def zstd_toc_annotation_of_another_table(image):
    """The descriptor of a zstd:chunked layer names another table."""
    weights(image).annotate(toc=digest_of(b"another table"))


@zstd("toc-position-missing")
def zstd_checksum_missing(image):
    """The descriptor does not say which digest the compressed table has."""
    weights(image).annotate(checksum=None)


@zstd("toc-position-missing")
def zstd_position_missing(image):
    """The descriptor does not say where the table lies."""
    weights(image).annotate(position=None)


@zstd("toc-position-differs")
def zstd_checksum_differs(image):
    """The descriptor gives the compressed table another digest."""
    weights(image).annotate(checksum=digest_of(b"another table"))


@zstd("toc-position-differs")
def zstd_position_differs(image):
    """The descriptor says that the table lies elsewhere."""
    weights(image).annotate(position="1:2:3:1")


@zstd("toc-position-differs")
def zstd_position_malformed(image):
    """The place of the table is no four numbers."""
    weights(image).annotate(position="here")


@zstd("toc-annotations-both", "toc-position-differs", "tar-split-missing")
def zstd_annotations_both(image):
    """The descriptor names a table to containers/storage, too."""
    weights(image).annotate(storage_checksum=digest_of(b"its own table"))


@zstd("layer-compression", exit=0, at=DOCUMENT)
def zstd_media_type_of_gzip(image):
    """The media type of a zstd:chunked layer is that of gzip."""
    weights(image).bend("descriptor", lambda it: it | {"mediaType": it["mediaType"].replace("zstd", "gzip")})


@zstd("layer-not-tar", at=DOCUMENT)
def zstd_media_type_of_tar(image):
    """The media type of a zstd:chunked layer is that of a tar archive."""
    weights(image).bend("descriptor", lambda it: it | {"mediaType": it["mediaType"].removesuffix("+zstd")})


@zstd("format-label", at=DOCUMENT)
def zstd_label_of_estargz(image):
    """The label of a zstd:chunked image says that it is eStargz."""
    image.config["Labels"]["dev.starcar.layer-format"] = "estargz"


@case("format-label", at=DOCUMENT)
def estargz_label_of_zstd(image):
    """The label of an eStargz image says that it is zstd:chunked."""
    image.config["Labels"]["dev.starcar.layer-format"] = "zstd:chunked"


@zstd("fetch-zstd", at=DOCUMENT, arguments=("--for", "fetch"))
def zstd_fetch(image):
    """A zstd:chunked image, to be fetched."""


# The tar-split, for containers-storage.

@storage("tar-split-missing")
def tar_split_annotation_missing(image):
    """The descriptor does not say where the tar-split lies."""
    weights(image).annotate(split=None)


@storage("tar-split-missing")
def tar_split_digest_missing(image):
    """The table does not give the tar-split's digest."""
    weights(image).bend("toc", lambda toc: {name: value for name, value in toc.items() if name != "tarSplitDigest"})


@storage("tar-split-place")
def tar_split_position_malformed(image):
    """The place of the tar-split is no three numbers."""
    weights(image).annotate(split="1:2:3:4")


@storage("tar-split-place")
def tar_split_in_the_data(image):
    """The place of the tar-split is in front of the table."""
    weights(image).annotate(split="8:100:100")


@storage("tar-split-place")
def tar_split_behind_the_layer(image):
    """The place of the tar-split would end behind the largest number."""
    weights(image).annotate(split=f"{(1 << 64) - 1}:100:100")


@storage("tar-split-place")
def tar_split_frame_length(image):
    """The tar-split's frame has more bytes than the annotation says."""
    weights(image).bend("split_frame", lambda data: skippable(data[8:] + b"more"))


@storage("tar-split-digest")
def tar_split_of_another_digest(image):
    """The table gives the tar-split another digest."""
    weights(image).bend("toc", lambda toc: toc | {"tarSplitDigest": digest_of(b"another")})


@storage("tar-split-digest")
def tar_split_checksum_differs(image):
    """An annotation gives the tar-split another digest."""
    weights(image).annotate(split_checksum=digest_of(b"another"))


@storage("tar-split-damaged")
def tar_split_no_zstd(image):
    """The tar-split is not compressed with zstd."""
    weights(image).bend("split_packed", lambda data: b"garbage")


@storage("tar-split-damaged")
def tar_split_no_json(image):
    """A line of the tar-split is no JSON."""
    weights(image).bend("split_text", lambda data: data.replace(b"{", b"[", 1))


@storage("tar-split-damaged")
def tar_split_length_differs(image):
    """The descriptor says that the tar-split unpacks to a byte more."""
    def bend(descriptor):
        name = STORAGE + "tarsplit-position"
        offset, packed, length = descriptor["annotations"][name].split(":")
        descriptor["annotations"][name] = f"{offset}:{packed}:{int(length) + 1}"
        return descriptor
    weights(image).bend("descriptor", bend)


def split_entry(image, **changes):
    """Changes the tar-split's line of the weights."""
    weights(image).bend("split", lambda lines: [
        line | changes if line.get("name") == WEIGHTS else line for line in lines])


@storage("tar-split-files", also=["tar-split-differs"])
def tar_split_name(image):
    """The weights have another name in the tar-split."""
    split_entry(image, name="models/other.safetensors")


@storage("tar-split-files", also=["tar-split-differs"])
def tar_split_size(image):
    """The weights have another size in the tar-split."""
    split_entry(image, size=299_999)


@storage("tar-split-differs", depth=DEEP)
def tar_split_crc(image):
    """The weights have another CRC-64 in the tar-split."""
    split_entry(image, payload="AAAAAAAAAAA=")


@storage("tar-split-differs", depth=DEEP)
def tar_split_header(image):
    """The first byte of a header in the tar-split is another one."""
    weights(image).bend("split", lambda lines: [lines[0] | {"payload": "B" + lines[0]["payload"][1:]}, *lines[1:]])


@storage("tar-split-differs", depth=DEEP)
def tar_split_end(image):
    """The tar-split makes a stream that ends too early."""
    weights(image).bend("split", lambda lines: [*lines[:-1], lines[-1] | {"payload": "AAAA"}])


# What the table says.

@zstd("toc-reserved-name")
def zstd_toc_reserved_name(image):
    """A file of a zstd:chunked layer has the name that the table has in eStargz."""
    small(image).entries.insert(0, Entry(TOC_NAME, data=b"{}"))


@zstd("data-offset", also=["member-offset"])
def zstd_offset_of_the_table(image):
    """A chunk would lie in the table's frame."""
    def bend(toc):
        chunk = [entry for entry in toc["entries"] if entry["name"] == WEIGHTS][-1]
        chunk["offset"] += len(LAST)
        return toc
    weights(image).bend("toc", bend)


@zstd("data-size", also=["size-annotation-malformed", "chunk-merge-buffer", "tar-size", "member-offset",
                         "chunk-digest-differs", "file-digest-differs"])
def zstd_size_impossible(image):
    """A file has 300 TB, in a zstd:chunked layer of 300 kB."""
    weights(image).listed(WEIGHTS, lambda entry: entry.update(size=300_000_000_000_000))


@zstd("inner-offset")
def zstd_frames_shared(image):
    """Two files share a zstd frame."""
    small(image).entry(TOKENIZER).inner = True


@zstd("chunk-gap", also=["member-offset", "chunk-digest-differs", "file-digest-differs"])
def zstd_chunk_gap(image):
    """The chunk in the middle is not listed in zstd:chunked."""
    weights(image).table(lambda entries: entries.pop(3))


# The bytes.

@deep("blob-digest", "diff-id", "chunk-digest-differs", "file-digest-differs")
def zstd_bit_rot(image):
    """A byte in the middle of weights in raw blocks is another one."""
    weights(image).bend("stored", lambda data: data[:150_000] + bytes([data[150_000] ^ 1]) + data[150_001:])


@deep("member-damaged")
def zstd_block_type(image):
    """A frame has a block of the type that is reserved."""
    def bend(data):
        at = data.index(b"\x28\xb5\x2f\xfd", 150_000) + 9
        return data[:at] + bytes([data[at] | 6]) + data[at + 1 :]
    weights(image).bend("blob", bend)


@deep("member-damaged")
def zstd_garbage_before_the_table(image):
    """Bytes that are no frame lie between the last chunk and the table."""
    weights(image).bend("payload", lambda data: data + b"garbage")


@deep("toc-not-last", "tar-extra")
def zstd_entry_behind_the_table(image):
    """A file follows the table in the tar stream of zstd:chunked."""
    weights(image).bend("members", lambda members: members[:-1])
    weights(image).bend("toc_frame", lambda data: data + zstd_frame(note() + bytes(1024)))


@deep("tar-end")
def zstd_tar_end(image):
    """The tar stream of zstd:chunked has no end."""
    weights(image).bend("members", lambda members: members[:-1])


@deep("tar-trailing")
def zstd_tar_trailing(image):
    """Bytes follow the end of the tar stream of zstd:chunked."""
    weights(image).bend("members", lambda members: [*members[:-1], members[-1] + b"hidden".ljust(512, b".")])


@deep("member-offset")
def zstd_offset_differs(image):
    """A chunk of zstd:chunked begins a byte before where the table says."""
    weights(image).chunks(WEIGHTS, lambda chunks: chunks[1].update(offset=chunks[1]["offset"] + 1))


@deep("member-offset")
def zstd_offset_of_a_skipped_frame(image):
    """The frame where the table says that a chunk begins is one that is skipped, and the chunk's follows it."""
    def bend(data):
        at = len(data) - len(LAST)
        return data[:at] + skippable(b"in front") + data[at:]
    weights(image).bend("payload", bend)


@deep("chunk-digest-differs", "file-digest-differs")
def zstd_chunk_bytes(image):
    """A byte of a chunk of zstd:chunked is another one than when the table was made."""
    weights(image).bend("chunk", lambda entry, data: b"?" + data[1:] if entry.name == WEIGHTS else data)


@deep("tar-missing")
def zstd_entry_missing_in_tar(image):
    """The table of zstd:chunked lists a file that the stream does not have."""
    more = Entry("models/more.txt").listed()
    small(image).table(lambda entries: entries.append(more))


@deep("size-annotation-differs")
def zstd_size_annotation_differs(image):
    """The descriptor says that a zstd:chunked layer unpacks to more bytes."""
    weights(image).annotate(size="1000000")
