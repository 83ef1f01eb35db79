"""The parts of KubeRay's custom resources that are rendered, as a JSON schema, written down from their documentation.

Fields, types and required ones of ``RayJob`` and ``RayCluster`` in ``ray.io/v1`` as of KubeRay v1.6 (its API reference, and
``ray-operator/apis/ray/v1`` of ray-project/kuberay), and of a pod's ``core/v1`` as of Kubernetes 1.30. Everything that is not
rendered is left out, and every object is closed: a field that is misspelt or at the wrong place does not pass.
"""

from __future__ import annotations

Schema = dict[str, object]

LABEL = {"type": "string", "maxLength": 63, "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z"}
SUBDOMAIN = {"type": "string", "maxLength": 253, "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z"}
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?\Z"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}


def closed(required: dict[str, object], optional: dict[str, object] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def listed(items: object, least: int = 1) -> Schema:
    return {"type": "array", "items": items, "minItems": least}


RESOURCES = {"type": "object", "additionalProperties": QUANTITY}
CONTAINER = closed(
    {"name": LABEL, "image": {"type": "string", "minLength": 1}},
    {
        "workingDir": {"type": "string", "pattern": "^/"},
        "env": listed(closed({"name": {"type": "string", "pattern": r"^[A-Za-z_][A-Za-z0-9_]*\Z"}, "value": {"type": "string"}})),
        "envFrom": listed(closed({"secretRef": closed({"name": SUBDOMAIN})})),
        "resources": closed({"requests": RESOURCES, "limits": RESOURCES}),
        "volumeMounts": listed(closed({"name": LABEL, "mountPath": {"type": "string", "pattern": r"^[^:]+\Z"}})),
        "lifecycle": closed({"preStop": closed({"exec": closed({"command": listed({"type": "string"})})})}),
    },
)
VOLUME = {
    "oneOf": [
        closed({"name": LABEL, "persistentVolumeClaim": closed({"claimName": SUBDOMAIN})}),
        closed({"name": LABEL, "emptyDir": closed({"medium": {"enum": ["", "Memory"]}, "sizeLimit": QUANTITY})}),
    ]
}
TOLERATION = {
    "oneOf": [
        closed({"key": {"type": "string"}, "operator": {"const": "Exists"}}, {"effect": {"$ref": "#/$defs/effect"}}),
        closed(
            {"key": {"type": "string"}, "operator": {"const": "Equal"}, "value": {"type": "string"}},
            {"effect": {"$ref": "#/$defs/effect"}},
        ),
    ]
}
TEMPLATE = closed(
    {
        "spec": closed(
            {"containers": listed(CONTAINER)},
            {
                "serviceAccountName": SUBDOMAIN,
                "terminationGracePeriodSeconds": COUNT,
                "volumes": listed(VOLUME),
                "nodeSelector": TEXTS,
                "tolerations": listed(TOLERATION),
            },
        )
    }
)
CLUSTER = closed(
    {"headGroupSpec": closed({"template": TEMPLATE}, {"rayStartParams": TEXTS})},
    {
        "rayVersion": {"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+\Z"},
        "workerGroupSpecs": listed(
            closed(
                {"groupName": LABEL, "minReplicas": COUNT, "maxReplicas": COUNT, "template": TEMPLATE},
                {"replicas": COUNT, "rayStartParams": TEXTS},
            )
        ),
    },
)
JOB = closed(
    {"entrypoint": {"type": "string", "minLength": 1}, "rayClusterSpec": CLUSTER},
    {
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        "backoffLimit": COUNT,
        "shutdownAfterJobFinishes": {"const": True},  # ttlSecondsAfterFinished is refused without
        "ttlSecondsAfterFinished": COUNT,
    },
)


def schema(kind: str, max_name: int, spec: Schema) -> Schema:
    name = {"type": "string", "maxLength": max_name, "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?\Z"}
    return {
        **closed(
            {
                "apiVersion": {"const": "ray.io/v1"},
                "kind": {"const": kind},
                "metadata": closed({"name": name}, {"namespace": LABEL, "labels": TEXTS}),
                "spec": spec,
            }
        ),
        "$defs": {"effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]}},
    }


SCHEMAS = {"RayJob": schema("RayJob", 47, JOB), "RayCluster": schema("RayCluster", 53, CLUSTER)}
