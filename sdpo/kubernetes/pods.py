"""What is in a pod? One container with Ray, the claim on which runs and models are kept, and shared memory for the object store.

KubeRay adds the command (``ray start``) and the probes, and tells Ray the CPUs, memory and GPUs that the limits say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sdpo.config import KubernetesConfig, TolerationConfig

Manifest = dict[str, object]

GPU = "nvidia.com/gpu"
SHM = "/dev/shm"
PRE_STOP = ("python", "-P", "-m", "sdpo.kubernetes.pre_stop")


def head_template(config: KubernetesConfig) -> Manifest:
    """The pod in which the loop runs; it has no GPU."""
    resources = _resources(config.head_cpus, config.head_memory_gib, num_gpus=0)
    return {"spec": _pod(config, "ray-head", resources)}


def worker_template(config: KubernetesConfig, num_gpus: int) -> Manifest:
    """A pod of learner ranks and engines."""
    resources = _resources(config.cpus_per_node, config.memory_gib_per_node, num_gpus)
    spec = _pod(config, "ray-worker", resources)
    if config.node_selector:
        spec["nodeSelector"] = dict(config.node_selector)
    if config.tolerations:
        spec["tolerations"] = [_toleration(toleration) for toleration in config.tolerations]
    return {"spec": spec}


def ray_start(config: KubernetesConfig) -> dict[str, str]:
    """Parameters of ``ray start``, all of them texts."""
    return {"object-store-memory": str(round(config.object_store_gib * 2**30))}


def _pod(config: KubernetesConfig, name: str, resources: Manifest) -> Manifest:
    account = {} if config.service_account is None else {"serviceAccountName": config.service_account}
    return {
        **account,
        "terminationGracePeriodSeconds": config.grace_s,
        "containers": [_container(config, name, resources)],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": config.claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{math.ceil(config.shm_gib * 1024)}Mi"}},
        ],
    }


def _container(config: KubernetesConfig, name: str, resources: Manifest) -> Manifest:
    secrets = [{"secretRef": {"name": secret}} for secret in config.secrets]
    return {
        "name": name,
        "image": config.image,
        "workingDir": config.mount,  # where relative paths start, the run folders' among them
        "env": [{"name": key, "value": _literal(value)} for key, value in _environment(config).items()],
        **({"envFrom": secrets} if secrets else {}),
        "resources": resources,
        "volumeMounts": [{"name": "shared", "mountPath": config.mount}, {"name": "shm", "mountPath": SHM}],
        "lifecycle": {"preStop": {"exec": {"command": list(PRE_STOP)}}},
    }


def _environment(config: KubernetesConfig) -> Mapping[str, str]:
    """The user's variables come last, and win."""
    return {
        "HF_HOME": f"{config.mount}/cache/huggingface",
        "SDPO_CACHE": f"{config.mount}/cache/sdpo",
        "RAY_JOB_STOP_WAIT_TIME_S": str(config.grace_s),  # else Ray kills a job 3 s after it asked it to end
        **config.env,
    }


def _literal(text: str) -> str:
    """Kubernetes expands ``$(NAME)`` in values and reads ``$$`` as one dollar."""
    return text.replace("$", "$$")


def _resources(num_cpus: int, memory_gib: int, num_gpus: int) -> Manifest:
    amounts = {"cpu": str(num_cpus), "memory": f"{memory_gib}Gi", **({GPU: str(num_gpus)} if num_gpus else {})}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _toleration(toleration: TolerationConfig) -> Manifest:
    found: Manifest = {"key": toleration.key, "operator": toleration.operator.value}
    if toleration.value is not None:
        found["value"] = toleration.value
    if toleration.effect is not None:
        found["effect"] = toleration.effect.value
    return found
