"""Which trackers a run's numbers go to besides its own files, and under which names there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

_MAX_TAG = 64
_DATABASES = ("sqlite:", "postgresql", "mysql", "mssql", "http:", "https:", "databricks")


class WandbMode(Enum):
    """Whether Weights & Biases hears of the run."""

    none = "none"
    online = "online"
    offline = "offline"
    """Into ``RUN/wandb/``, for ``wandb sync``."""


@dataclass
class WandbConfig:
    """Weights & Biases; needs ``pip install "sdpo[wandb]"``."""

    mode: WandbMode = WandbMode.none
    project: str = "sdpo"
    entity: str | None = None
    """The user or team it belongs to; None: the account's own default."""

    def __post_init__(self) -> None:
        if not self.project:
            raise ValueError("tracking.wandb.project must name a project; got ''.")


@dataclass
class MlflowConfig:
    """MLflow; needs ``pip install "sdpo[mlflow]"``."""

    enabled: bool = False
    uri: str = ""
    """A server (``https://…``) or a database (``sqlite:///…``); empty: the database ``mlflow.db`` in ``runs_dir``."""
    experiment: str = "sdpo"

    def __post_init__(self) -> None:
        if not self.experiment:
            raise ValueError("tracking.mlflow.experiment must name an experiment; got ''.")
        if self.uri and not self.uri.startswith(_DATABASES):
            raise ValueError(
                "tracking.mlflow.uri must be a server's or a database's (MLflow's file store cannot hold a metric lift beside a "
                f"metric lift/se); got {self.uri!r}. Give https://… or sqlite:///PATH."
            )


def refuse_odd_tags(tags: Sequence[str]) -> None:
    """Every tracker must take them."""
    for tag in tags:
        if not 1 <= len(tag) <= _MAX_TAG or not tag.isprintable():
            raise ValueError(f"tracking.tags must be words of 1 to {_MAX_TAG} printable characters; got {tag!r}.")
    if len(set(tags)) < len(tags):
        raise ValueError(f"tracking.tags must differ from one another; got {list(tags)}.")
