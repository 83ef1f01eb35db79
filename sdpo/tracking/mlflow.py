"""MLflow, through its own client: a database or a server, one run in one experiment."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sdpo.config import MlflowConfig
from sdpo.run.folder import flat
from sdpo.tracking.identity import Identity
from sdpo.tracking.sink import About, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MAX_NAME, _MAX_VALUE, _MAX_PARAMS, _MAX_METRICS = 250, 6000, 100, 1000
"""Characters of a name and of a parameter, and parameters and metrics a call, that every MLflow server takes."""


class Mlflow:
    """One MLflow run."""

    def __init__(self, config: MlflowConfig, uri: str, about: About, identity: Path) -> None:
        """Raises what the client raises."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # its makers would be told of every call
        from mlflow import MlflowClient

        self._identity = Identity(identity, f"{uri} {config.experiment}")
        self._client = MlflowClient(tracking_uri=uri)
        if self._identity.run is None:
            self._begin(config.experiment, about)
        else:
            self._client.update_run(self._identity.run, status="RUNNING")

    def _begin(self, experiment: str, about: About) -> None:
        from mlflow.entities import Param

        run = self._client.create_run(
            _experiment_id(self._client, experiment), run_name=about.name, tags={as_name(tag): "true" for tag in about.tags}
        )
        named = {as_name(key): str(value)[:_MAX_VALUE] for key, value in flat(about.config).items()}
        params = [Param(key, value) for key, value in named.items()]
        for first in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(run.info.run_id, params=params[first : first + _MAX_PARAMS])
        self._identity.begins(run.info.run_id)

    def go_back(self, step: int) -> None:
        """Nothing that was given can be taken back."""

    def record(self, record: Record) -> None:
        from mlflow.entities import Metric

        if not self._identity.lacks(record):
            return
        assert self._identity.run is not None
        now = round(time.time() * 1000)
        metrics = [Metric(as_name(name), value, now, record.step) for name, value in record.metrics.items()]
        for first in range(0, len(metrics), _MAX_METRICS):
            self._client.log_batch(self._identity.run, metrics=metrics[first : first + _MAX_METRICS])
        self._identity.has(record)

    def close(self) -> None:
        assert self._identity.run is not None
        self._client.set_terminated(self._identity.run, status="FINISHED")


def as_name(name: str) -> str:
    """The same, but for what MLflow refuses in names, which an environment's metric or option may have."""
    parts = re.sub(r"[^A-Za-z0-9_\-.: /]", "_", name[:_MAX_NAME]).split("/")
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)


def _experiment_id(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)
