"""Which trackers a run's numbers go to besides its own files, and under which names there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from sdpo.config.rules import at_least, between

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
    uri: str = field(default="", repr=False)  # it may hold a password
    """A server (``https://…``) or a database (``sqlite:///…``); empty: the database ``mlflow.db`` in ``runs_dir``."""
    experiment: str = "sdpo"

    def __post_init__(self) -> None:
        if not self.experiment:
            raise ValueError("tracking.mlflow.experiment must name an experiment; got ''.")
        if self.uri and not self.uri.startswith(_DATABASES):
            raise ValueError(
                "tracking.mlflow.uri must be a server's or a database's (MLflow's file store cannot hold a metric lift beside a "
                f"metric lift/se); got {self.uri.rpartition('@')[2]!r}. Give https://… or sqlite:///PATH."
            )


def refuse_odd_tags(tags: Sequence[str]) -> None:
    """Every tracker must take them."""
    for tag in tags:
        if not 1 <= len(tag) <= _MAX_TAG or not tag.isprintable():
            raise ValueError(f"tracking.tags must be words of 1 to {_MAX_TAG} printable characters; got {tag!r}.")
    if len(set(tags)) < len(tags):
        raise ValueError(f"tracking.tags must differ from one another; got {list(tags)}.")


@dataclass
class TrackingConfig:
    """What is written beside ``metrics.jsonl``."""

    tensorboard: bool = True
    rollouts: bool = True
    """Every attempt, one JSON line each, under ``rollouts/``."""
    credit_share: float = 0.1
    """Share of the distilled attempts whose tokens are kept with what student and teacher said of them (``credit/``, for
    ``sdpo view``). 0: none."""
    credit_top: int = 5
    """Most probable tokens of student and teacher that are kept at each position."""
    tags: list[str] = field(default_factory=list)
    """Words by which W&B and MLflow find the run."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    mlflow: MlflowConfig = field(default_factory=MlflowConfig)
    quiet: bool = False
    """No live view: one line a step, and one every half minute of what takes longer."""

    def __post_init__(self) -> None:
        between("tracking.credit_share", self.credit_share, 0.0, 1.0)
        at_least("tracking.credit_top", self.credit_top, 1, "a position has a most probable token")
        refuse_odd_tags(self.tags)
