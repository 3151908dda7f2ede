"""What judges the manifests in test_deploy_manifests.py finds what is planted, and has nothing to say of what is sound."""

import copy
import json

import pytest

from consumers.proc import Failed
from kubernetes import kserve, kserve_types
from kubernetes.objects import Judge

IMAGE = "registry.example.com/models/tiny:v1@sha256:" + "0f" * 32
DEPLOYMENT = f"""
# A comment, and nothing else, is no object.
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: tiny
spec:
  replicas: 1
  selector:
    matchLabels: {{app: tiny}}
  template:
    metadata:
      labels: {{app: tiny}}
    spec:
      containers:
        - name: engine
          image: docker.io/vllm/vllm-openai:v0.14.0
          args: [--model, /mnt/models]
          env:
            - {{name: HF_HUB_OFFLINE, value: "1"}}
          ports:
            - {{name: http, containerPort: 8000}}
          startupProbe:
            httpGet: {{path: /health, port: http}}
            failureThreshold: 60
          resources:
            requests: {{cpu: "1", memory: 2Gi, nvidia.com/gpu: "1"}}
            limits: {{memory: 2Gi, nvidia.com/gpu: "1"}}
          volumeMounts:
            - {{name: model, mountPath: /mnt/models, subPath: models, readOnly: true}}
      volumes:
        - name: model
          image: {{reference: {IMAGE}, pullPolicy: IfNotPresent}}
---
apiVersion: v1
kind: Service
metadata:
  name: tiny
spec:
  selector: {{app: tiny}}
  ports:
    - {{name: http, port: 80, targetPort: http}}
"""
INFERENCE_SERVICE = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "tiny", "labels": {"app": "tiny"}},
    "spec": {
        "predictor": {
            "minReplicas": 1,
            "model": {
                "modelFormat": {"name": "huggingface"},
                "storageUri": f"oci://{IMAGE}",
                "args": ["--model", "/mnt/models"],
                "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
            },
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "imagePullSecrets": [{"name": "registry"}],
        }
    },
}
LLM = {
    "apiVersion": "serving.kserve.io/v1alpha2",
    "kind": "LLMInferenceService",
    "metadata": {"name": "tiny"},
    "spec": {
        "model": {"uri": f"oci://{IMAGE}", "name": "tiny"},
        "replicas": 1,
        "router": {"route": {}, "gateway": {}, "scheduler": {}},
        "template": {"containers": [{"name": "main", "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}]}]},
    },
}


@pytest.fixture(scope="module")
def judge(bin_dir):
    return Judge(bin_dir)


def test_a_sound_deployment(judge):
    verdicts = judge(DEPLOYMENT)
    assert [(v.kind, v.known, v.errors, v.warnings) for v in verdicts] == [
        ("Deployment", True, [], []), ("Service", True, [], []),
    ]
    (container,) = verdicts[0].stored["spec"]["template"]["spec"]["containers"]
    assert container["imagePullPolicy"] == "IfNotPresent" and container["startupProbe"]["periodSeconds"] == 10


def test_a_list_is_as_good(judge):
    items = [verdict.object for verdict in judge(DEPLOYMENT)]
    verdicts = judge({"apiVersion": "v1", "kind": "List", "items": items})
    assert [(v.kind, v.errors) for v in verdicts] == [("Deployment", []), ("Service", [])]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("readOnly: true", "readonly: true", "unknown field"),
        ("args: [", "argz: [", "unknown field"),
        ("replicas: 1", "replicas: one", "cannot unmarshal"),
        ('value: "1"', "value: 1", "cannot unmarshal"),
        ('value: "1"', "value: on", "cannot unmarshal"),
        ("replicas: 1", "replicas: 1\n  replicas: 2", "already set"),
        ("- {name: model, mountPath", "- {name: models, mountPath", "Not found"),
        ("mountPath: /mnt/models", "mountPath: ''", "Required value"),
        ("subPath: models", "subPath: ../models", "must not contain"),
        ("containerPort: 8000", "containerPort: 80000", "between 1 and 65535"),
        ("port: http}\n            failure", "port: h_p}\n            failure", "Invalid value"),
        ("limits: {memory: 2Gi", "limits: {memory: 2GiB", "quantities"),
        ("limits: {memory: 2Gi", "limits: {memory: 1Gi", "must be less than or equal to memory limit"),
        ('2Gi, nvidia.com/gpu: "1"}\n            limits: {memory: 2Gi, nvidia.com/gpu: "1"}',
         '2Gi, nvidia.com/gpu: "1"}\n            limits: {memory: 2Gi, nvidia.com/gpu: "2"}', "must be equal to"),
        ("name: tiny\nspec:\n  replicas", "name: tiny_1\nspec:\n  replicas", "RFC 1123"),
        ("matchLabels: {app: tiny}", "matchLabels: {app: other}", "does not match template"),
        ("name: engine", "name: Engine", "RFC 1123"),
        ("name: HF_HUB_OFFLINE", "name: HF=OFFLINE", "Invalid value"),
        ("pullPolicy: IfNotPresent", "pullPolicy: Sometimes", "Unsupported value"),
        ("image: {reference", "image: {ref", "unknown field"),
        ("port: 80,", "port: 0,", "between 1 and 65535"),
    ],
)
def test_planted_errors_are_found(judge, old, new, said):
    assert DEPLOYMENT.count(old) == 1, (old, DEPLOYMENT.count(old))
    errors = [error for verdict in judge(DEPLOYMENT.replace(old, new)) for error in verdict.errors]
    assert any(said in error for error in errors), errors


def test_what_is_stored_with_a_warning_is_told(judge):
    twice = '- {name: HF_HUB_OFFLINE, value: "1"}'
    verdicts = judge(DEPLOYMENT.replace(twice, f"{twice}\n            {twice}"))
    assert verdicts[0].errors == [] and "hides previous definition" in verdicts[0].warnings[0]
    with pytest.raises(Failed):
        judge.stored(verdicts[0].object)


@pytest.mark.parametrize("document", [INFERENCE_SERVICE, LLM], ids=["InferenceService", "LLMInferenceService"])
def test_sound_objects_of_kserve(judge, document):
    assert kserve_types.check(document) == []
    (read,) = judge(json.dumps(document))
    assert not read.known and read.object == document
    judge.stored(kserve.pod_of(document))


@pytest.mark.parametrize(
    ("document", "where", "value", "said"),
    [
        (INFERENCE_SERVICE, "spec.predictor.model.storageURI", "oci://x", "unknown field storageURI"),
        (INFERENCE_SERVICE, "spec.predictor.replicas", 1, "unknown field replicas"),
        (INFERENCE_SERVICE, "spec.predictor.minReplicas", "1", "is no int"),
        (INFERENCE_SERVICE, "spec.predictor.model.modelFormat", None, "must not be `None`"),
        (INFERENCE_SERVICE, "spec.predictor.model.args", "--model", "is no list"),
        (INFERENCE_SERVICE, "spec.predictor.labels", {"a": 1}, "is no str"),
        (INFERENCE_SERVICE, "apiVersion", "serving.kserve.io/v1", "no kind of KServe's"),
        (LLM, "spec.model.url", "oci://x", "unknown field url"),
        (LLM, "spec.model.uri", None, "uri is missing"),
        (LLM, "spec.replicas", "1", "is no int"),
        (LLM, "spec.parallelism", {"tensor": 0}, "less than 1"),
        (LLM, "spec.scaling", {"maxReplicas": 2}, "exclude each other"),
        (LLM, "spec.tolerations", [], "unknown field tolerations"),
        (LLM, "specs", {}, "unknown field specs"),
    ],
)
def test_planted_errors_in_kserves_own_fields(document, where, value, said):
    errors = kserve_types.check(planted(document, where, value))
    assert any(said in error for error in errors), errors


@pytest.mark.parametrize(
    ("document", "where", "value", "said"),
    [
        (INFERENCE_SERVICE, "spec.predictor.model.envs", [], "unknown field"),
        (INFERENCE_SERVICE, "spec.predictor.model.env", [{"name": "A", "val": "1"}], "unknown field"),
        (INFERENCE_SERVICE, "spec.predictor.model.resources", {"limits": {"memory": "1GiB"}}, "quantities"),
        (INFERENCE_SERVICE, "spec.predictor.tolerations", [{"key": "a", "operator": "Is"}], "Unsupported value"),
        (INFERENCE_SERVICE, "spec.predictor.model.volumeMounts", [{"name": "no", "mountPath": "/no"}], "Not found"),
        (LLM, "spec.template.container", [], "unknown field"),
        (LLM, "spec.template.nodeSelector", {"a b": "c"}, "Invalid value"),
        (LLM, "spec.labels", {"a": "b c"}, "Invalid value"),
    ],
)
def test_planted_errors_in_kubernetes_fields(judge, document, where, value, said):
    (verdict,) = judge(kserve.pod_of(planted(document, where, value)))
    assert any(said in error for error in verdict.errors), verdict.errors


def planted(document, where, value):
    """A copy with one field set, or without it."""
    changed = copy.deepcopy(document)
    *above, last = where.split(".")
    at = changed
    for key in above:
        at = at[key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return changed
