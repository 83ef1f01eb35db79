"""``cluster=kubernetes``: the Ray cluster that KubeRay shall make, as ``sdpo launch render`` writes it down."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from sdpo.config.cluster import ClusterConfig
from sdpo.config.rules import at_least, positive

SHM_MARGIN_GIB = 4
"""Shared memory beside Ray's object store: NCCL and torch take theirs from the same place."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_KEY = re.compile(r"([a-z0-9][-a-z0-9.]{0,252}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMAGE = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.:/@]*")
_MOUNT = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")


class TolerationOperator(Enum):
    """When a toleration matches a taint, by Kubernetes' name."""

    Exists = "Exists"
    """Whatever the taint's value is."""
    Equal = "Equal"


class TaintEffect(Enum):
    """What a taint does, by Kubernetes' name."""

    NoSchedule = "NoSchedule"
    PreferNoSchedule = "PreferNoSchedule"
    NoExecute = "NoExecute"


@dataclass
class TolerationConfig:
    """A taint in spite of which a machine may be used."""

    key: str = MISSING
    operator: TolerationOperator = TolerationOperator.Exists
    value: str | None = None
    """For ``Equal``."""
    effect: TaintEffect | None = None
    """None: any."""

    def __post_init__(self) -> None:
        _matching("cluster.tolerations: key", self.key, _LABEL_KEY, "a taint's key")
        if (self.value is not None) != (self.operator is TolerationOperator.Equal):
            raise ValueError(
                "cluster.tolerations: a value goes with operator Equal alone (Exists takes any); got "
                f"operator={self.operator.value} and value={self.value!r} for {self.key}."
            )
        if self.value is not None:
            _matching("cluster.tolerations: value", self.value, _LABEL_VALUE, "a taint's value")


@dataclass
class KubernetesConfig(ClusterConfig):
    """Pods of KubeRay: a head with the loop, and ``nodes`` workers with ``gpus_per_node`` GPUs each."""

    address: str | None = "auto"
    """The loop runs in the head's pod, where Ray is running already."""
    object_store_gib: float = 2.0
    """Ray's shared memory in each pod, GiB: two copies of the model."""
    image: str = MISSING
    """What `launch/kubernetes/Containerfile` builds."""
    namespace: str = "default"
    """Kubernetes' namespace, which has to be there."""
    job_name: str | None = None
    """Name of the RayJob or RayCluster; None: the run's name, in lower case and with hyphens."""
    claim: str = "sdpo"
    """A PersistentVolumeClaim (ReadWriteMany) that every pod mounts: run folders, checkpoints and the model cache are there."""
    mount: str = "/mnt/sdpo"
    """Path at which pods mount the claim, and the folder that relative paths of the config start from."""
    cpus_per_node: int = 16
    """CPU cores of a worker."""
    memory_gib_per_node: int = 128
    """Memory of a worker, GiB, shared memory included."""
    head_cpus: int = 4
    head_memory_gib: int = 64
    """Memory of the head, GiB, shared memory included."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of all pods. Tokens belong into ``secrets``: a manifest is no place for them."""
    secrets: list[str] = field(default_factory=list)
    """Secrets whose keys become environment variables of all pods (HF_TOKEN, WANDB_API_KEY)."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels of the machines that workers may run on."""
    tolerations: list[TolerationConfig] = field(default_factory=list)
    """Taints in spite of which workers may run on a machine."""
    service_account: str | None = None
    """None: the namespace's default."""
    retries: int = 3
    """New clusters after a failure; each continues from the last checkpoint."""
    ttl_s: int = 600
    """A finished job's cluster is deleted after that long."""
    grace_s: int = 1800
    """Longest time between the wish that a pod ends and its end by force: for the current step, and its checkpoint."""

    @property
    def shm_gib(self) -> float:
        """Shared memory of each pod."""
        return self.object_store_gib + SHM_MARGIN_GIB

    def __post_init__(self) -> None:
        ClusterConfig.__post_init__(self)
        _matching("cluster.image", self.image, _IMAGE, "an image, as in registry/name:tag")
        _matching("cluster.namespace", self.namespace, _LABEL, "a DNS-1123 label (lower case, digits, hyphens)")
        names = {"cluster.claim": self.claim, "cluster.service_account": self.service_account}
        for key, name in names.items():
            if name is not None:
                _matching(key, name, _SUBDOMAIN, "a DNS-1123 subdomain (lower case, digits, hyphens, dots)")
        for secret in self.secrets:
            _matching("cluster.secrets", secret, _SUBDOMAIN, "names of secrets, each a DNS-1123 subdomain")
        _matching("cluster.mount", self.mount, _MOUNT, "an absolute path of plain names")
        for name in self.env:
            _matching("cluster.env", name, _VARIABLE, "names of environment variables (letters, digits, underscores)")
        for label, value in self.node_selector.items():
            _matching("cluster.node_selector", label, _LABEL_KEY, "labels, as in prefix/name")
            _matching(f"cluster.node_selector.{label}", value, _LABEL_VALUE, "a label's value")
        self._check_sizes()

    def _check_sizes(self) -> None:
        positive("cluster.object_store_gib", self.object_store_gib)
        at_least("cluster.cpus_per_node", self.cpus_per_node, 1, "a pod computes")
        at_least("cluster.head_cpus", self.head_cpus, 1, "a pod computes")
        at_least("cluster.retries", self.retries, 0, "it counts clusters")
        at_least("cluster.ttl_s", self.ttl_s, 0, "it is a pause")
        at_least("cluster.grace_s", self.grace_s, 1, "a checkpoint takes time")
        for key, memory in (("memory_gib_per_node", self.memory_gib_per_node), ("head_memory_gib", self.head_memory_gib)):
            if memory <= self.shm_gib:
                raise ValueError(
                    f"cluster.{key} must exceed shared memory, which is counted in it (cluster.object_store_gib and "
                    f"{SHM_MARGIN_GIB} more); got {memory} and {self.shm_gib:g}. Raise it."
                )


def _matching(key: str, text: str, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(text):
        raise ValueError(f"{key} must be {what}; got {text!r}.")
