"""What KServe makes of its objects: the pod that runs.

A predictor's container is merged with its serving runtime's, a template with that of KServe's own configuration, and
the model is injected: a sidecar and an init container (`oci://`, modelcar), or an image volume (`oci+native://`).
After pkg/utils/storage.go of KServe 0.18 to 0.20.
"""

import copy
import re

MODEL_AT = "/mnt/models"
UID = 1010
INIT = (
    "echo 'Pre-fetching modelcar {image}: ' && [ -d /models ] && [ \"$$(ls -A /models)\" ] && "
    "echo 'OK ...' || (echo 'NOK ...' && exit 1)"
)
MODELCAR = "ln -sf /proc/$$$$/root/models /mnt/models && sleep infinity"
SMALL = {"cpu": "10m", "memory": "15Mi"}
LOCATION = "kserve-provision-location"

# Of a predictor's fields, those that are KServe's and no pod's.
PREDICTOR = {
    "annotations", "autoScaling", "batcher", "canaryTrafficPercent", "containerConcurrency", "deploymentStrategy", "labels",
    "logger", "maxReplicas", "minReplicas", "model", "name", "scaleMetric", "scaleMetricType", "scaleTarget",
    "storageContainerName", "storageUris", "timeout", "workerSpec",
}
# Of a model's fields, those that are no container's.
MODEL = {"confidential", "modelFormat", "protocolVersion", "runtime", "runtimeVersion", "storage", "storageUri"}

LOCKED = {
    "allowPrivilegeEscalation": False, "privileged": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
}
# The container of the runtime that KServe brings for models of Hugging Face.
HUGGING_FACE = {
    "name": "kserve-container", "image": "kserve/huggingfaceserver:v0.20.0", "args": ["--model_name={{.Name}}"],
    "securityContext": LOCKED,
    "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
}
# The template that KServe brings for LLMInferenceService, with what matters here.
LLM_TEMPLATE = {
    "containers": [
        {
            "name": "main", "image": "ghcr.io/llm-d/llm-d-cuda:v0.4.0", "imagePullPolicy": "IfNotPresent",
            "command": ["vllm", "serve", MODEL_AT],
            "args": ["--served-model-name", "{{ .Spec.Model.Name }}", "--port", "8000"],
            "ports": [{"containerPort": 8000, "protocol": "TCP"}],
            "env": [
                {"name": "HOME", "value": "/home"}, {"name": "VLLM_LOGGING_LEVEL", "value": "INFO"},
                {"name": "HF_HUB_CACHE", "value": "/models"},
            ],
            "securityContext": {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": False,
                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [
                {"name": "home", "mountPath": "/home"}, {"name": "dshm", "mountPath": "/dev/shm"},
                {"name": "model-cache", "mountPath": "/models"},
                {"name": "tls-certs", "mountPath": "/var/run/kserve/tls", "readOnly": True},
            ],
        }
    ],
    "volumes": [
        {"name": "home", "emptyDir": {}}, {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "model-cache", "emptyDir": {}},
        {"name": "tls-certs", "secret": {"secretName": "model-kserve-self-signed-certs", "optional": True}},
    ],
}
# By what the items of lists are told apart when they are merged; other lists are replaced.
KEYS = {
    "containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "imagePullSecrets": "name",
    "volumeMounts": "mountPath", "ports": "containerPort",
}
VOLUME = {"name"}


def merged(base, patch, field=None):
    """A strategic merge patch, as far as pods need it."""
    if isinstance(base, dict) and isinstance(patch, dict):
        if field == "volumes":
            return copy.deepcopy(patch)
        return {
            key: merged(base[key], patch[key], key) if key in base and key in patch else copy.deepcopy((patch | base)[key])
            for key in {**base, **patch}
        }
    if isinstance(base, list) and isinstance(patch, list) and field in KEYS:
        key = KEYS[field]
        mine = {item[key]: item for item in patch}
        out = [merged(item, mine.pop(item[key]), field if field == "volumes" else None) if item[key] in mine else item for item in base]
        return copy.deepcopy(out + list(mine.values()))
    return copy.deepcopy(patch)


def scheme_of(uri):
    """(mode, image) of a model's URI."""
    found = re.fullmatch(r"oci(?:\+(native|modelcar|fetch))?://(.+)", uri)
    assert found, f"{uri} is no image"
    return found[1] or "modelcar", found[2]


def pod_of(document, others=()):
    """The pod of one of KServe's objects, the model injected. `others` are the objects that were applied beside it."""
    name = document["metadata"]["name"]
    if document["kind"] == "InferenceService":
        spec, uri, target, meta = predictor(document, others)
    elif document["kind"] == "LLMInferenceService":
        spec, uri, target, meta = llm(document)
    else:
        raise AssertionError(f"KServe makes no pod of {document['kind']}")
    spec = filled(spec, {"{{.Name}}": name, "{{ .Spec.Model.Name }}": document["spec"].get("model", {}).get("name", name)})
    # In a cluster its controller would see to these.
    labels = {**document["metadata"].get("labels", {}), **meta.get("labels", {})}
    annotations = {**document["metadata"].get("annotations", {}), **meta.get("annotations", {})}
    pod = {
        "apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": f"{name}-predictor", "labels": labels, "annotations": annotations},
    }
    if "namespace" in document["metadata"]:
        pod["metadata"]["namespace"] = document["metadata"]["namespace"]
    mode, image = scheme_of(uri)
    {"modelcar": modelcar, "native": native}[mode](spec, image, target)
    return pod


def predictor(document, others):
    """(pod spec, URI, container, metadata) of an InferenceService's predictor."""
    given = copy.deepcopy(document["spec"]["predictor"])
    meta = {key: given.get(key, {}) for key in ("labels", "annotations")}
    spec = {key: value for key, value in given.items() if key not in PREDICTOR}
    model = given.get("model")
    if model is None:
        (container,) = [c for c in spec["containers"] if c.get("name", "kserve-container") == "kserve-container"]
        container["name"] = "kserve-container"
        uris = [entry["uri"] for entry in given.get("storageUris", [])]
        uris += [entry["value"] for entry in container.get("env", []) if entry["name"] == "STORAGE_URI"]
        (uri,) = uris
        return spec, uri, "kserve-container", meta
    base, wanted = {"containers": [HUGGING_FACE]}, model.get("runtime")
    if wanted and wanted != "kserve-huggingfaceserver":
        (runtime,) = [o for o in others if o["kind"] == "ServingRuntime" and o["metadata"]["name"] == wanted]
        formats = [entry["name"] for entry in runtime["spec"].get("supportedModelFormats", [])]
        assert model["modelFormat"]["name"] in formats, (model["modelFormat"], formats)
        base = {k: v for k, v in runtime["spec"].items() if k not in ("supportedModelFormats", "protocolVersions", "multiModel", "annotations", "labels")}
    else:
        assert model["modelFormat"]["name"] == "huggingface", f"no runtime serves {model['modelFormat']}"
    (container,) = [c for c in base["containers"] if c["name"] == "kserve-container"]
    mine = {key: value for key, value in model.items() if key not in MODEL}
    # The one list that is joined, the runtime's first.
    arguments = container.get("args", []) + mine.get("args", [])
    joined = merged(container, {**mine, "name": "kserve-container"})
    if arguments:
        joined["args"] = arguments
    rest = {key: value for key, value in base.items() if key != "containers"}
    spec = merged(rest, {key: value for key, value in spec.items() if key != "containers"})
    spec["containers"] = [joined] + [c for c in given.get("containers", []) if c["name"] != "kserve-container"]
    return spec, model["storageUri"], "kserve-container", meta


def llm(document):
    """(pod spec, URI, container, metadata) of an LLMInferenceService."""
    given = document["spec"]
    spec = merged(LLM_TEMPLATE, given.get("template", {}))
    return spec, given["model"]["uri"], "main", {key: given.get(key, {}) for key in ("labels", "annotations")}


def modelcar(spec, image, target):
    """The sidecar with the model, and what lets `target` see into it."""
    container = named(spec, target)
    environment = [entry for entry in container.get("env", []) if entry["name"] != "MODEL_INIT_MODE"]
    container["env"] = [*environment, {"name": "MODEL_INIT_MODE", "value": "async"}]
    volumes = spec.setdefault("volumes", [])
    if LOCATION not in {volume["name"] for volume in volumes}:
        volumes.append({"name": LOCATION, "emptyDir": {}})
    mount = {"name": LOCATION, "mountPath": "/mnt"}
    mounts = container.setdefault("volumeMounts", [])
    if LOCATION not in {each["name"] for each in mounts}:
        mounts.append(mount)
    # All else that was set there is gone.
    container["securityContext"] = {"runAsUser": UID}
    sized = {"image": image, "resources": {"limits": SMALL, "requests": SMALL}, "terminationMessagePolicy": "FallbackToLogsOnError"}
    spec["containers"].append(
        {"name": "modelcar", "args": ["sh", "-c", MODELCAR], "volumeMounts": [mount], "securityContext": {"runAsUser": UID}, **sized}
    )
    spec.setdefault("initContainers", []).append(
        {"name": "modelcar-init", "args": ["sh", "-c", INIT.format(image=image)], **sized}
    )
    spec["shareProcessNamespace"] = True


def native(spec, image, target):
    """The image as a volume, of which /models is mounted."""
    spec.setdefault("volumes", []).append({"name": LOCATION, "image": {"reference": image, "pullPolicy": "IfNotPresent"}})
    mount = {"name": LOCATION, "mountPath": MODEL_AT, "subPath": "models", "readOnly": True}
    named(spec, target).setdefault("volumeMounts", []).append(mount)


def named(spec, name):
    (container,) = [c for c in spec["containers"] if c["name"] == name]
    return container


def filled(value, words):
    """KServe's placeholders replaced."""
    if isinstance(value, dict):
        return {key: filled(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, words) for item in value]
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(word, text)
    return value
