"""Defects of where the table of contents places chunks, of chunks' sizes and digests, and of landmarks."""

from . import case
from .sound import CONFIG, TOKENIZER, WEIGHTS
from .tables import small, weights
from .writer import NO_PREFETCH, PREFETCH, Entry, digest_of, directory, landmark

# What else is wrong where a table tells of other chunks than there are, for who reads the bytes.
OTHER_CHUNKS = ("member-offset", "chunk-digest-differs", "file-digest-differs")


def first(image, **fields):
    """Changes the entry of the weights' first chunk."""
    weights(image).listed(WEIGHTS, lambda entry: entry.update(fields))


def further(image, number, **fields):
    """Changes the entry of one of the others."""
    weights(image).chunks(WEIGHTS, lambda chunks: chunks[number].update(fields))


@case("data-offset", also=["member-offset"])
def offset_missing(image):
    """A file has no offset."""
    small(image).listed(TOKENIZER, lambda entry: entry.pop("offset"))


@case("data-offset", also=["member-offset"])
def offset_behind_payloads(image):
    """A chunk would lie behind the layer's end."""
    further(image, 1, offset=1_000_000)


@case("data-order", also=["member-offset"])
def offset_before(image):
    """A chunk would lie before the one in front of it."""
    weights(image).chunks(WEIGHTS, lambda chunks: chunks[1].update(offset=chunks[0]["offset"] - 50_000))


@case("data-overlap", also=["member-offset"])
def offset_twice(image):
    """Two chunks would lie in one place."""
    weights(image).chunks(WEIGHTS, lambda chunks: chunks[1].update(offset=chunks[0]["offset"]))


@case("data-overlap", also=["member-offset"])
def offset_of_another_file(image):
    """Two files of the same bytes are said to lie in one place, and only one of them does."""
    entries = small(image).entries
    entries.insert(small(image).place(TOKENIZER), Entry("models/config.bak", data=small(image).entry(CONFIG).data))

    def bend(listed):
        by_name = {entry["name"]: entry for entry in listed}
        by_name["models/config.bak"]["offset"] = by_name[CONFIG]["offset"]
    small(image).table(bend)


@case("data-size", also=["size-annotation-malformed", "chunk-merge-buffer", "tar-size", *OTHER_CHUNKS])
def size_impossible(image):
    """A file has 300 GB, in a layer of 300 kB."""
    first(image, size=300_000_000_000)


@case("inner-offset")
def members_shared(image):
    """Two files share a gzip member."""
    small(image).entry(TOKENIZER).inner = True


# Chunks.

@case("chunk-orphan", also=["tar-missing", "chunk-missing"])
def chunk_orphan(image):
    """A chunk follows a directory."""
    def bend(entries):
        orphan = {"name": "models/", "type": "chunk", "offset": entries[2]["offset"] - 1, "chunkSize": 5}
        entries.insert(2, orphan | {"chunkDigest": digest_of(b"x")})
    weights(image).table(bend)


@case("chunk-orphan", "chunk-missing", also=OTHER_CHUNKS)
def chunk_of_another_file(image):
    """A chunk has another name than the file that it follows."""
    weights(image).chunks(WEIGHTS, lambda chunks: chunks[1].update(name="models/other"))


@case("chunk-gap", also=OTHER_CHUNKS)
def chunk_gap(image):
    """The chunk in the middle is not listed."""
    weights(image).table(lambda entries: entries.pop(3))


@case("chunk-gap", "chunk-overlap", also=OTHER_CHUNKS)
def chunk_offset_moved(image):
    """The chunk in the middle is said to begin a byte later."""
    further(image, 0, chunkOffset=100_001)


@case("chunk-overlap", also=OTHER_CHUNKS)
def chunk_too_long(image):
    """The chunk in the middle is said to be a byte longer."""
    further(image, 0, chunkSize=100_001)


@case("chunk-overlap", "data-order", also=["chunk-gap", "chunk-empty", "chunk-missing", *OTHER_CHUNKS])
def chunk_order(image):
    """The last two chunks are listed in the wrong order."""
    weights(image).table(lambda entries: entries.append(entries.pop(3)))


@case("chunk-empty", also=["chunk-gap", *OTHER_CHUNKS])
def chunk_empty(image):
    """A chunk that is not the last one has no size."""
    weights(image).chunks(WEIGHTS, lambda chunks: chunks[0].pop("chunkSize"))


@case("chunk-beyond-end", also=OTHER_CHUNKS)
def chunk_beyond_end(image):
    """The last chunk is said to be a byte longer than the file."""
    further(image, 1, chunkSize=100_001)


@case("chunk-missing", also=OTHER_CHUNKS)
def chunk_missing(image):
    """The last chunk is not listed."""
    weights(image).table(lambda entries: entries.pop(4))


@case("chunk-missing", also=OTHER_CHUNKS)
def chunk_too_short(image):
    """The last chunk is said to be a byte shorter."""
    further(image, 1, chunkSize=99_999)


@case("chunk-digest-missing")
def chunk_digest_missing(image):
    """A chunk has no digest."""
    weights(image).chunks(WEIGHTS, lambda chunks: chunks[1].pop("chunkDigest"))


@case("chunk-digest-missing")
def chunk_digest_missing_of_file(image):
    """A file of one chunk has no digest of it."""
    small(image).listed(TOKENIZER, lambda entry: entry.pop("chunkDigest"))


@case("chunk-digest-malformed")
def chunk_digest_malformed(image):
    """A chunk's digest is SHA-1."""
    further(image, 1, chunkDigest="sha1:" + "0" * 40)


@case("passwd-unread", also=["chunk-digest-differs", "file-digest-differs"])
def passwd_unread(image):
    """The password file's digest is another one's."""
    other = digest_of(b"another file")
    image.layers[0].listed("etc/passwd", lambda entry: entry.update(digest=other, chunkDigest=other))


@case("chunk-first-small")
def chunk_first_small(image):
    """The first chunk has less than 64 KiB."""
    weights(image).entry(WEIGHTS).chunk = 50_000


@case("chunk-merge-buffer", heavy=True)
def chunk_merge_buffer(image):
    """A chunk lies across a multiple of 419,430,400 bytes."""
    entry = weights(image).entry(WEIGHTS)
    entry.data, entry.chunk = bytes(419_430_400 + 1_000_000), 4_000_000


# Landmarks.

@case("landmark-missing")
def landmark_missing(image):
    """A layer has no landmark."""
    small(image).entries.remove(small(image).entry(PREFETCH))


@case("landmark-both")
def landmark_both(image):
    """A layer has both landmarks."""
    small(image).entries.insert(0, landmark(NO_PREFETCH))


@case("landmark-misplaced")
def landmark_in_a_directory(image):
    """There is a second landmark, in a directory."""
    small(image).entries.append(landmark(f"models/{PREFETCH}"))


@case("landmark-misplaced")
def landmark_of_prefetching_first(image):
    """No file comes before the landmark of prefetching."""
    entries = small(image).entries
    entries.insert(0, entries.pop(small(image).place(PREFETCH)))


@case("landmark-misplaced")
def landmark_of_no_prefetching_last(image):
    """The landmark that says that nothing is prefetched comes behind the weights."""
    entries = weights(image).entries
    entries.append(entries.pop(0))


@case("landmark-content")
def landmark_content(image):
    """A landmark holds another byte."""
    small(image).entry(PREFETCH).data = b"\x0e"


@case("landmark-content")
def landmark_size(image):
    """A landmark holds two bytes."""
    small(image).entry(PREFETCH).data = b"\x0f\x0f"


@case("landmark-content", also=["landmark-misplaced"])
def landmark_is_a_directory(image):
    """A landmark is a directory."""
    small(image).entry(PREFETCH).__dict__.update(directory(PREFETCH).__dict__)
