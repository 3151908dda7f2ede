"""Defects of manifest, config, descriptors, and of what is stored."""

import functools

from . import CONTENT, DEEP, DOCUMENT, case, sound
from .writer import (
    DOCKER_CONFIG_TYPE, DOCKER_LAYER_TYPE, DOCKER_MANIFEST_TYPE, INDEX_TYPE, LAYER_TYPE, PREFETCH, Entry, Layer, to_json,
)

document = functools.partial(case, at=DOCUMENT)


def setting(**changes):
    """A bend that sets fields of a dict; None takes one away."""
    def bend(value):
        for name, new in changes.items():
            value.pop(name, None)
            if new is not None:
                value[name] = new
        return value
    return bend


# The manifest.

@document("manifest-damaged")
def manifest_damaged(image):
    """The manifest's bytes are not those of its digest."""
    image.bend("manifest_stored", lambda data: data.replace(b'"schemaVersion":2', b'"schemaVersion":3'))


@document("manifest-damaged")
def manifest_missing(image):
    """The layout's index names a manifest that is not there."""
    image.bend("manifest_stored", lambda data: None)


@document("index-entry-missing")
def manifest_missing_of_index(image):
    """An image index names a manifest that is not there."""
    image.bend("listed", setting(platform={"os": "linux", "architecture": "amd64"}))
    image.bend("index", lambda index: index)
    image.bend("manifest_stored", lambda data: None)


@document("manifest-malformed")
def manifest_no_json(image):
    """The manifest is cut short."""
    image.bend("manifest_bytes", lambda data: data[:-1])


@document("manifest-malformed")
def manifest_without_config(image):
    """The manifest names no config."""
    image.bend("manifest", setting(config=None))


@document("manifest-malformed")
def manifest_layers_no_list(image):
    """The manifest's layers are a string."""
    image.bend("manifest", setting(layers="none"))


@document("manifest-malformed")
def manifest_of_unknown_type(image):
    """The manifest is of a type of somebody's own."""
    image.bend("manifest", setting(mediaType="application/vnd.example.manifest.v1+json"))


@document("manifest-malformed")
def index_no_json(image):
    """The image index is cut short."""
    image.bend("index", lambda index: to_json(index)[:-1])


def listed_for_amd64(image):
    image.bend("listed", setting(platform={"os": "linux", "architecture": "amd64"}))


@document("index-empty")
def index_empty(image):
    """The image index lists nothing."""
    image.bend("index", setting(manifests=[]))


@document("index-entry-damaged")
def index_entry_length(image):
    """The image index says that the manifest is one byte longer than it is."""
    image.bend("listed", lambda listed: listed | {"size": listed["size"] + 1})
    listed_for_amd64(image)
    image.bend("index", lambda index: index)


@document("index-entry-damaged")
def index_entry_digest(image):
    """The manifest that the image index lists has other bytes of the same length."""
    listed_for_amd64(image)
    image.bend("index", lambda index: index)
    image.bend("manifest_stored", lambda data: data.replace(b'"schemaVersion":2', b'"schemaVersion":3'))


@document("index-platform-missing")
def index_platform_missing(image):
    """The image index states no platform for the image."""
    image.bend("index", lambda index: index)


def listing_as_well(image, **changes):
    """The image index has a second entry, which is the first but for these fields."""
    listed_for_amd64(image)
    changes["platform"] = {"os": "linux", "architecture": "arm64"}
    image.bend("index", lambda index: index | {"manifests": [*index["manifests"], index["manifests"][0] | changes]})


@document("index-entry-unread")
def index_entry_of_unknown_type(image):
    """The image index lists something of a type of somebody's own beside the image."""
    listing_as_well(image, mediaType="application/vnd.example.thing.v1+json")


@document("index-entry-missing")
def index_of_missing_index(image):
    """The image index lists another image index beside the image, which is not there."""
    listing_as_well(image, mediaType=INDEX_TYPE, digest=f"sha256:{64 * '0'}")


@document("schema-version")
def index_schema_version(image):
    """The image index is of schemaVersion 1."""
    listed_for_amd64(image)
    image.bend("index", setting(schemaVersion=1))


@document("manifest-media-type")
def manifest_media_type(image):
    """The index says that the manifest is Docker's, the manifest says that it is OCI's."""
    image.bend("listed", setting(mediaType=DOCKER_MANIFEST_TYPE))


@document("docker-manifest")
def docker_manifest(image):
    """The manifest is of Docker's type."""
    image.bend("manifest", setting(mediaType=DOCKER_MANIFEST_TYPE))


@document("docker-manifest", "layer-docker-type", image="gzip", also=["image-not-lazy"])
def docker_image(image):
    """All media types are Docker's, as in an image by `docker push`."""
    image.bend("manifest", setting(mediaType=DOCKER_MANIFEST_TYPE))
    image.bend("manifest", lambda manifest: manifest | {"config": manifest["config"] | {"mediaType": DOCKER_CONFIG_TYPE}})
    for layer in image.layers:
        layer.bend("descriptor", setting(mediaType=DOCKER_LAYER_TYPE))


@document("schema-version")
def schema_version(image):
    """The manifest's schemaVersion is 1."""
    image.bend("manifest", setting(schemaVersion=1))


@document("schema-version", also=["manifest-malformed"])
def schema_version_missing(image):
    """The manifest states no schemaVersion."""
    image.bend("manifest", setting(schemaVersion=None))


@document("manifest-no-layers", also=["models-missing", "shell-missing"])
def manifest_no_layers(image):
    """The image has no layers."""
    image.layers.clear()


@document("layer-count")
def layers_129(image):
    """The image has 129 layers."""
    while len(image.layers) < 129:
        name = f"models/part-{len(image.layers)}.txt"
        entries = [sound.directory("models"), Entry(name, data=name.encode()), sound.landmark(PREFETCH)]
        image.layers.append(Layer(entries))


# Descriptors.

@document("descriptor-digest")
def layer_digest_of_another_algorithm(image):
    """A layer is named by its SHA-512."""
    image.layers[1].bend("descriptor", setting(digest="sha512:" + "0" * 128))


@document("descriptor-digest")
def config_digest_malformed(image):
    """The config's digest has 10 digits."""
    image.bend("manifest", lambda manifest: manifest | {"config": manifest["config"] | {"digest": "sha256:0123456789"}})


@document("layer-missing")
def layer_missing(image):
    """A layer is not there."""
    image.layers[2].bend("stored", lambda data: None)


@document("layer-size")
def layer_size_too_large(image):
    """The descriptor says one byte more than the layer has."""
    image.layers[2].bend("descriptor", lambda it: it | {"size": it["size"] + 1})


@document("layer-size")
def layer_size_too_small(image):
    """The descriptor says one byte less than the layer has."""
    image.layers[2].bend("descriptor", lambda it: it | {"size": it["size"] - 1})


@document("layer-size")
def layer_cut_short(image):
    """The last 1000 bytes of a layer are not stored."""
    image.layers[2].bend("stored", lambda data: data[:-1000])


@document("layer-docker-type")
def layer_docker_type(image):
    """One layer is of Docker's type in an image of OCI's."""
    image.layers[1].bend("descriptor", setting(mediaType=DOCKER_LAYER_TYPE))


@document("layer-media-type")
def layer_media_type(image):
    """A layer's media type is nobody's."""
    image.layers[1].bend("descriptor", setting(mediaType="application/vnd.example.model.v1.tar+gzip"))


@document("layer-media-type", image="tar")
def layer_media_type_of_tar(image):
    """The media type of the small files' layer is nobody's: a downloader that skips it brings a part of the model."""
    image.layers[1].bend("descriptor", setting(mediaType="application/vnd.example.model.v1.tar"))


@document("layer-type-skipped", "layer-docker-type", image="tar")
def layer_type_skipped(image):
    """The small files' layer is of Docker's type for plain tar, which containerd knows and kserve-storage does not."""
    image.layers[1].bend("descriptor", setting(mediaType="application/vnd.docker.image.rootfs.diff.tar"))


@document("layer-not-tar")
def layer_compressed_and_said_plain(image):
    """The media type says tar, the layer is compressed."""
    image.layers[1].bend("descriptor", setting(mediaType=LAYER_TYPE))


@document("layer-compression", image="tar")
def layer_plain_and_said_compressed(image):
    """The media type says gzip, the layer is tar."""
    image.layers[1].bend("descriptor", setting(mediaType=LAYER_TYPE + "+gzip"))


@document("layer-compression", image="gzip", also=["image-not-lazy"])
def layer_gzip_and_said_zstd(image):
    """The media type says zstd, the layer is gzip."""
    image.layers[1].bend("descriptor", setting(mediaType=LAYER_TYPE + "+zstd"))


# What keeps layers from being mounted.

@case("layer-not-lazy")
def base_not_lazy(image):
    """The base is not eStargz."""
    image.layers[0] = sound.gzip().layers[0]


@case("layer-not-lazy")
def weights_not_lazy(image):
    """The weights are plain tar."""
    image.layers[2] = sound.tar().layers[2]


@case("image-not-lazy", image="gzip")
def image_of_gzip(image):
    """A plain builder's image."""


@case("image-not-lazy", image="zstd")
def image_of_zstd(image):
    """A plain builder's image, compressed with zstd."""


# The config.

@document("config-damaged")
def config_damaged(image):
    """The config's bytes are not those of its digest."""
    image.bend("config_stored", lambda data: data.replace(b'"amd64"', b'"arm64"'))


@document("config-damaged")
def config_missing(image):
    """The config is not there."""
    image.bend("config_stored", lambda data: None)


@document("config-malformed")
def config_no_json(image):
    """The config is cut short."""
    image.bend("config_bytes", lambda data: data[:-1])


@document("config-malformed")
def config_without_rootfs(image):
    """The config has no rootfs."""
    image.bend("config_json", setting(rootfs=None))


@document("config-media-type")
def config_media_type(image):
    """The config is of a type of somebody's own."""
    image.bend("manifest", lambda it: it | {"config": it["config"] | {"mediaType": "application/vnd.example.config+json"}})


@document("rootfs-type")
def rootfs_type(image):
    """The rootfs is of type `files`."""
    image.bend("config_json", lambda it: it | {"rootfs": it["rootfs"] | {"type": "files"}})


def _diff_ids(change):
    def bend(config):
        change(config["rootfs"]["diff_ids"])
        return config
    return bend


@document("diff-id-count")
def diff_id_too_few(image):
    """The config has one diffID less than there are layers."""
    image.bend("config_json", _diff_ids(lambda ids: ids.pop()))


@document("diff-id-count")
def diff_id_too_many(image):
    """The config has one diffID more than there are layers."""
    image.bend("config_json", _diff_ids(lambda ids: ids.append(ids[0])))


@document("diff-id-malformed")
def diff_id_malformed(image):
    """A diffID is no digest."""
    image.bend("config_json", _diff_ids(lambda ids: ids.__setitem__(2, "sha256:none")))


@document("diff-id", depth=DEEP)
def diff_id_of_another_layer(image):
    """Two diffIDs are each other's."""
    image.bend("config_json", _diff_ids(lambda ids: ids.insert(1, ids.pop(2))))


@document("diff-id", depth=DEEP, image="tar")
def diff_id_of_a_plain_layer(image):
    """The diffID of a plain layer is another layer's."""
    image.bend("config_json", _diff_ids(lambda ids: ids.__setitem__(2, ids[0])))


@document("history-count")
def history_count(image):
    """The history has one entry too many."""
    image.bend("config_json", lambda it: it | {"history": [*it["history"], {"created_by": "nobody"}]})


@document("platform-missing")
def platform_without_os(image):
    """The config states no operating system."""
    image.bend("config_json", setting(os=None))


@document("platform-missing")
def platform_without_architecture(image):
    """The config states an empty architecture."""
    image.bend("config_json", setting(architecture=""))


@document("platform-differs")
def platform_of_index(image):
    """The index lists an image for amd64, its config is for arm64."""
    image.bend("listed", setting(platform={"os": "linux", "architecture": "amd64"}))
    image.bend("index", lambda index: index)
    image.bend("config_json", setting(architecture="arm64"))


@document("platform-differs", arguments=("--platform", "linux/arm64"))
def platform_asked_for(image):
    """The image is for amd64, arm64 is asked for."""


# What the config says to run, and labels.

@case("entrypoint-set", at=CONTENT)
def entrypoint_set(image):
    """The image has an entrypoint."""
    image.config["Entrypoint"] = ["/bin/busybox"]


@case("user-missing", at=CONTENT)
def user_missing(image):
    """The image states no user."""
    del image.config["User"]


@case("user-missing", at=CONTENT)
def user_root(image):
    """The image's user is 0."""
    image.config["User"] = "0:0"


@case("user-name", at=CONTENT)
def user_name(image):
    """The image's user is a name."""
    image.config["User"] = "model"


@case("shell-missing", at=CONTENT)
def path_elsewhere(image):
    """The image's PATH has no directory with tools."""
    image.config["Env"] = ["PATH=/opt/bin"]


@case("format-label", at=CONTENT, also=["fetch-gzip"], exit=9)
def format_label(image):
    """The label says that the layers are plain tar; they are eStargz."""
    image.config["Labels"] = dict(sound.TAR_LABELS)


@case("label-differs", at=CONTENT)
def label_differs(image):
    """A label and the annotation of the same name differ."""
    image.bend("manifest", setting(annotations={"dev.starcar.model.directory": "/elsewhere"}))


@case("model-label", at=CONTENT)
def model_label(image):
    """The label says that the model is where nothing is."""
    image.config["Labels"] = {"dev.starcar.model.directory": "/elsewhere"}


@case("options-malformed", at=CONTENT)
def options_malformed(image):
    """The annotation of the options that the image was packed with is no JSON."""
    image.bend("manifest", setting(annotations={"dev.starcar.pack.options": "{"}))


@case("layer-unread", image="zstd", also=["image-not-lazy"])
def layer_unread(image):
    """A plain layer is too large to be looked into without reading all of it."""
    image.layers[2].entry(sound.WEIGHTS).data = bytes(20 << 20)
