"""KServe's types: a strict round trip through the models of its Python SDK.

Of the SDK's packages only `kserve.models` is imported, which needs nothing; all that a server needs stays out. What is
of Kubernetes' types in KServe's objects is left to `kserve.pod_of` and Kubernetes' own validation. The SDK has no
model of LLMInferenceService's spec; its fields are listed here, as v1alpha1 and v1alpha2 have them.
"""

import importlib
import importlib.util
import re
import sys
import types
from functools import cache

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float)}
# Kubernetes' types, by the names that the SDK gives them.
FOREIGN = re.compile(r"V1[A-Z]\w*|K8sIoApi\w+|ResourceQuantity|RawExtension")

WORKLOAD = {
    "replicas": "int", "scaling": "LLMScaling", "parallelism": "LLMParallelism", "labels": "dict(str, str)",
    "annotations": "dict(str, str)", "template": "V1PodSpec", "worker": "V1PodSpec",
}
V2 = {"kvCacheOffloading": "object"}
MODEL = {"uri": "str", "name": "str", "lora": "LLMLoRA"}
LLM = {
    "V1alpha1LLMInferenceServiceSpec": {
        "model": "LLMModelV1", "storageInitializer": "LLMStorageInitializer", "router": "LLMRouter", "prefill": "LLMWorkload",
        "baseRefs": "list[LLMReference]", **WORKLOAD,
    },
    "V1alpha2LLMInferenceServiceSpec": {
        "model": "LLMModel", "storageInitializer": "LLMStorageInitializer", "router": "LLMRouter", "prefill": "LLMWorkload",
        "baseRefs": "list[LLMReference]", **WORKLOAD, **V2,
    },
    "LLMWorkload": WORKLOAD,
    "LLMModel": MODEL,
    "LLMModelV1": {**MODEL, "criticality": "str"},
    "LLMLoRA": {"adapters": "list[LLMModel]", "maxRank": "int", "maxAdapters": "int", "maxCpuAdapters": "int"},
    "LLMStorageInitializer": {"enabled": "bool"},
    "LLMParallelism": {
        "tensor": "int", "pipeline": "int", "data": "int", "dataLocal": "int", "dataRPCPort": "int", "expert": "bool",
    },
    "LLMScaling": {"minReplicas": "int", "maxReplicas": "int", "wva": "object"},
    "LLMRouter": {"route": "LLMRoute", "gateway": "LLMGateway", "ingress": "LLMGateway", "scheduler": "LLMScheduler"},
    "LLMRoute": {"http": "LLMHTTPRoute"},
    "LLMHTTPRoute": {"refs": "list[LLMReference]", "spec": "object"},
    "LLMGateway": {"refs": "list[object]"},
    "LLMScheduler": {
        "pool": "object", "labels": "dict(str, str)", "annotations": "dict(str, str)", "template": "V1PodSpec", "config": "object",
        "replicas": "int",
    },
    "LLMReference": {"name": "str"},
}
REQUIRED = {"LLMModel": {"uri"}, "LLMModelV1": {"uri"}, "LLMScaling": {"maxReplicas"}}
AT_LEAST_ONE = {"tensor", "pipeline", "data", "dataLocal", "dataRPCPort", "maxRank", "maxReplicas", "minReplicas"}

KINDS = {
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): "V1alpha1ServingRuntime",
    ("serving.kserve.io/v1alpha1", "LLMInferenceService"): "V1alpha1LLMInferenceService",
    ("serving.kserve.io/v1alpha2", "LLMInferenceService"): "V1alpha2LLMInferenceService",
}


@cache
def models():
    """The module of the SDK's models, without the packages around it."""
    spec = importlib.util.find_spec("kserve")
    if spec is None:
        raise AssertionError("kserve is not installed: pip install --no-deps -r tests/e2e/requirements-no-deps.txt")
    package = types.ModuleType("kserve")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["kserve"] = package
    return importlib.import_module("kserve.models")


def check(document):
    """[what is wrong] with one of KServe's objects."""
    name = KINDS.get((document.get("apiVersion"), document.get("kind")))
    if name is None:
        return [f"{document.get('apiVersion')} {document.get('kind')}: no kind of KServe's that is known here"]
    errors = []
    made = build(document, name, name, errors)
    if not errors and not kept(document, plain(made)):
        errors.append(f"the SDK makes something else of it: {plain(made)}")
    return errors


def kept(given, made):
    """Whether all that was given is in what was made, which has its defaults: empty strings."""
    if isinstance(given, dict) and isinstance(made, dict):
        return set(given) <= set(made) and all(
            kept(given[key], item) if key in given else item == "" for key, item in made.items()
        )
    if isinstance(given, list) and isinstance(made, list):
        return len(given) == len(made) and all(map(kept, given, made))
    return type(given) is type(made) and given == made


def build(value, kind, path, errors):
    """`value` as an instance of the SDK's model `kind`; what does not fit goes to `errors`."""
    inner = re.fullmatch(r"list\[(.*)\]", kind)
    if inner:
        if not isinstance(value, list):
            return errors.append(f"{path}: {value!r} is no list")
        return [build(item, inner[1], f"{path}[{number}]", errors) for number, item in enumerate(value)]
    inner = re.fullmatch(r"dict\(str, (.*)\)", kind)
    if inner:
        if not isinstance(value, dict):
            return errors.append(f"{path}: {value!r} is no map")
        return {key: build(item, inner[1], f"{path}.{key}", errors) for key, item in value.items()}
    if kind in PLAIN:
        if not isinstance(value, PLAIN[kind]) or (kind != "bool" and isinstance(value, bool)):
            errors.append(f"{path}: {value!r} is no {kind}")
        if path.rpartition(".")[2] in AT_LEAST_ONE and isinstance(value, int) and value < 1:
            errors.append(f"{path}: {value} is less than 1")
        return value
    if kind in LLM:
        return fields(value, kind, LLM[kind], path, errors)
    model = getattr(models(), kind, None)
    if model is None:
        if kind != "object" and not FOREIGN.fullmatch(kind):
            errors.append(f"{path}: no type {kind}")
        return value
    if not isinstance(value, dict):
        return errors.append(f"{path}: {value!r} is no {kind}")
    names = {theirs: ours for ours, theirs in model.attribute_map.items()}
    made = {}
    for key, item in value.items():
        if key not in names:
            errors.append(f"{path}: unknown field {key}")
            continue
        made[names[key]] = build(item, model.openapi_types[names[key]], f"{path}.{key}", errors)
    try:
        return model(**made)
    except (ValueError, TypeError) as error:
        return errors.append(f"{path}: {error}")


def fields(value, kind, known, path, errors):
    """The same for what the SDK has no model of."""
    if not isinstance(value, dict):
        return errors.append(f"{path}: {value!r} is no {kind}")
    errors += [f"{path}: unknown field {key}" for key in value if key not in known]
    errors += [f"{path}: {key} is missing" for key in REQUIRED.get(kind, ()) if key not in value]
    if "replicas" in value and "scaling" in value:
        errors.append(f"{path}: replicas and scaling exclude each other")
    return {key: build(item, known[key], f"{path}.{key}", errors) for key, item in value.items() if key in known}


def plain(made):
    """What was put into the SDK's instances."""
    if isinstance(made, list):
        return [plain(item) for item in made]
    if isinstance(made, dict):
        return {key: plain(item) for key, item in made.items()}
    if hasattr(made, "attribute_map"):
        items = ((theirs, getattr(made, ours)) for ours, theirs in made.attribute_map.items())
        return {key: plain(item) for key, item in items if item is not None}
    return made
