"""Are the trackers' clients there? Asked before anything starts."""

from __future__ import annotations

from importlib.util import find_spec

from sdpo.config import TrackingConfig, WandbMode
from sdpo.errors import UserError


def refuse_missing(config: TrackingConfig) -> None:
    """Raises UserError where a tracker is asked for whose client is not installed."""
    wanted = {
        "wandb": (f"tracking.wandb.mode={config.wandb.mode.value}", config.wandb.mode is not WandbMode.none, ("wandb",)),
        "mlflow": ("tracking.mlflow.enabled=true", config.mlflow.enabled, ("mlflow", *_database(config))),
    }
    for extra, (key, is_wanted, packages) in wanted.items():
        missing = [package for package in packages if find_spec(package) is None]
        if is_wanted and missing:
            raise UserError(
                f"{key} needs a package that is not installed: {' and '.join(missing)}. Run: "
                f'pip install "sdpo[{extra}]" (from a checkout: pip install ".[{extra}]"), or leave the tracker out.'
            )


def _database(config: TrackingConfig) -> tuple[str, ...]:
    """What MLflow's small client needs besides where no server does the writing."""
    return () if config.mlflow.uri.startswith(("http", "databricks")) else ("sqlalchemy", "alembic")
