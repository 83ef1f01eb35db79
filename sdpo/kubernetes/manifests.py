"""A RayJob or RayCluster (``ray.io/v1``, fields as of KubeRay v1.6) of a run, as plain mappings for YAML.

A job is submitted in HTTPMode: KubeRay hands the command to Ray as one text, which exactly one shell reads, so quoting once is
right. In K8sJobMode the same text would be an argument of a pod's container too, where Kubernetes expands ``$(NAME)``, and that
pod can be evicted.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import PurePosixPath

from sdpo.config import Config, KubernetesConfig
from sdpo.errors import UserError
from sdpo.kubernetes.names import Kind, object_name
from sdpo.kubernetes.pods import Manifest, head_template, ray_start, worker_template


def manifest(config: Config, command: Sequence[str], kind: Kind) -> Manifest:
    """The manifest of a run. ``command`` is what the job runs, word by word; a RayCluster is made without.

    Raises UserError for what cannot be written down so that it works.
    """
    cluster = config.cluster
    if not isinstance(cluster, KubernetesConfig):
        raise UserError(
            "a manifest describes pods, so it needs cluster=kubernetes; this config has another cluster. Add cluster=kubernetes "
            "cluster.image=IMAGE cluster.nodes=N cluster.gpus_per_node=N to the command."
        )
    _refuse_unshared(config.runs_dir, cluster)
    head: Manifest = {
        "apiVersion": "ray.io/v1",
        "kind": kind.value,
        "metadata": {
            "name": object_name(config.name, cluster.job_name, kind),
            "namespace": cluster.namespace,
            "labels": {"app.kubernetes.io/name": "sdpo"},
        },
    }
    return {**head, "spec": _cluster(cluster) if kind is Kind.RayCluster else _job(cluster, command)}


def refuse_pods(config: Config) -> None:
    """Raises UserError where a run is to begin here that was described for ``sdpo launch render``."""
    if isinstance(config.cluster, KubernetesConfig) and not config.dry_run:
        raise UserError(
            "cluster=kubernetes describes pods, in which `sdpo launch render` lets this command run with cluster=ray; it cannot "
            "begin here. Render it, or set cluster=ray to join a Ray cluster that is there."
        )


def _job(cluster: KubernetesConfig, command: Sequence[str]) -> Manifest:
    return {
        "entrypoint": shlex.join(command),
        "submissionMode": "HTTPMode",
        "backoffLimit": cluster.retries,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": cluster.ttl_s,
        "rayClusterSpec": _cluster(cluster),
    }


def _cluster(cluster: KubernetesConfig) -> Manifest:
    if cluster.gpus_per_node is None:
        raise UserError(
            "cluster.gpus_per_node must be given for Kubernetes, which hands out no more GPUs than a pod asks for; got null. Set "
            "it to the GPUs of one machine, or to 0 for a cluster without."
        )
    return {
        "rayVersion": version("ray"),
        "headGroupSpec": {"rayStartParams": ray_start(cluster), "template": head_template(cluster)},
        "workerGroupSpecs": [
            {
                "groupName": "gpu" if cluster.gpus_per_node else "cpu",
                "replicas": cluster.nodes,
                "minReplicas": cluster.nodes,
                "maxReplicas": cluster.nodes,
                "rayStartParams": ray_start(cluster),
                "template": worker_template(cluster, cluster.gpus_per_node),
            }
        ],
    }


def _refuse_unshared(runs_dir: str, cluster: KubernetesConfig) -> None:
    """Raises UserError where ``runs_dir`` is not shared: ranks write checkpoints there, and a new cluster must find them."""
    place = PurePosixPath(cluster.mount) / runs_dir
    if ".." in place.parts or not place.is_relative_to(cluster.mount):
        raise UserError(
            f"runs_dir must lie on the storage that every pod sees, {cluster.mount}; got {runs_dir!r}. Leave it relative (it "
            "starts there), or set cluster.mount."
        )
