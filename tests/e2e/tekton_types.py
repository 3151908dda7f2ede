"""Tekton's and Kubernetes' own types as one JSON Schema, in which a field that no type has is an error.

fabric8's jars hold schemas that were made from the Go types of both projects, for their Java classes. They differ from plain
JSON Schema in that a type of the other project, or one with a class of its own, is told by the name of its class.
"""

import json
import zipfile

TASK = "github_com_tektoncd_pipeline_pkg_apis_pipeline_v1_Task"
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
# Classes that have no schema: what Go's types write as JSON.
BY_HAND = {
    "io.fabric8.tekton.pipeline.v1.ParamValue": {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, STRINGS],
    },
    "io.fabric8.kubernetes.api.model.Duration": {"type": "string", "pattern": r"^([0-9.]+(ms|s|m|h))+$"},
    "io.fabric8.kubernetes.api.model.Quantity": {"type": ["string", "number"]},
}


def load(directory):
    """The definitions of both jars below a directory."""
    definitions = {}
    for jar, name in (("kubernetes-model-core", "kube-schema.json"), ("tekton-model-v1", "tekton-schema-v1.json")):
        (file,) = directory.glob(f"{jar}-*.jar")
        with zipfile.ZipFile(file) as archive:
            definitions |= json.loads(archive.read(f"schema/{name}"))["definitions"]
    return definitions


def task_schema(directory):
    """The schema of a v1 Task."""
    definitions = load(directory)
    by_class = {about["javaType"]: name for name, about in definitions.items() if "javaType" in about}

    def plain(node):
        if isinstance(node, list):
            return [plain(each) for each in node]
        if not isinstance(node, dict):
            return node
        java = node.get("existingJavaType")
        if java in BY_HAND:
            return BY_HAND[java]
        if "$ref" in node:
            return {"$ref": node["$ref"]}
        if java in by_class:
            return {"$ref": f"#/definitions/{by_class[java]}"}
        # A boolean `required`, and what is for Java, mean nothing to JSON Schema.
        kept = {key: value for key, value in node.items() if key in ("type", "pattern", "maxLength", "enum")}
        if "items" in node:
            kept["items"] = plain(node["items"])
        if "properties" in node:
            kept["properties"] = {name: plain(each) for name, each in node["properties"].items()}
            kept["additionalProperties"] = False
        elif isinstance(node.get("additionalProperties"), dict):
            kept["additionalProperties"] = plain(node["additionalProperties"])
        return kept

    schema = {name: BY_HAND.get(about.get("javaType")) or plain(about) for name, about in definitions.items()}
    # What Tekton's admission asks for beyond the types.
    schema[TASK]["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema[TASK]["properties"]["apiVersion"] = {"const": "tekton.dev/v1"}
    schema[TASK]["properties"]["kind"] = {"const": "Task"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": f"#/definitions/{TASK}", "definitions": schema}
