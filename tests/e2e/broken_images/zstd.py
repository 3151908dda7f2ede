"""Zstd frames of raw blocks, and the frames of zstd:chunked that decoders skip: no compressor is needed for them.

Source: RFC 8878; stargz-snapshotter, estargz/zstdchunked.
"""


def zstd_frame(data):
    """A frame of raw blocks."""
    frame = b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little")
    pieces = [data[at : at + 100_000] for at in range(0, len(data), 100_000)] or [b""]
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        frame += (len(piece) << 3 | last).to_bytes(3, "little") + piece
    return frame


def skippable(data):
    """A frame that decoders skip."""
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def zstd_footer(toc_offset, compressed, uncompressed, kind=1):
    numbers = [number.to_bytes(8, "little") for number in (toc_offset, compressed, uncompressed, kind)]
    return skippable(b"".join(numbers) + b"GnUlInUx")


def zstd_unpacked(data):
    """What frames as `zstd_frame` writes them, and those that are skipped, unpack to; None where they do not."""
    parts = []
    while data:
        if data[1:4] == b"\x2a\x4d\x18" and data[0] >> 4 == 5:
            data = data[8 + int.from_bytes(data[4:8], "little") :]
            continue
        if data[:5] != b"\x28\xb5\x2f\xfd\xa0":
            return None
        data, last = data[9:], False
        while not last:
            block = int.from_bytes(data[:3], "little")
            last, size = block & 1, block >> 3
            if block & 6 or len(data) < 3 + size:
                return None
            parts.append(data[3 : 3 + size])
            data = data[3 + size :]
    return b"".join(parts)
