"""SDPO: reinforcement learning via self-distillation (arXiv 2601.20802), with GRPO beside it as the baseline.

From Python: ``load_model``, ``train_model``, ``solve_task``, and what they take (docs/python.md). A name is imported when it is
first used, so that ``import sdpo`` imports nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sdpo.config import (
        BatchConfig,
        BudgetConfig,
        Dtype,
        EvaluationConfig,
        GRPOConfig,
        HindsightConfig,
        LearnerConfig,
        RolloutConfig,
        SamplingConfig,
        SDPOConfig,
    )
    from sdpo.errors import UserError
    from sdpo.machines.notebook import LocalModel, TrainedRun, load_model, train_model
    from sdpo.solving.python import Found, solve_task
    from sdpo.types import Message, Role, Task, Verdict

__all__ = [
    "BatchConfig",
    "BudgetConfig",
    "Dtype",
    "EvaluationConfig",
    "Found",
    "GRPOConfig",
    "HindsightConfig",
    "LearnerConfig",
    "LocalModel",
    "Message",
    "Role",
    "RolloutConfig",
    "SDPOConfig",
    "SamplingConfig",
    "Task",
    "TrainedRun",
    "UserError",
    "Verdict",
    "load_model",
    "solve_task",
    "train_model",
]

_HOMES = {
    "sdpo.errors": ("UserError",),
    "sdpo.machines.notebook": ("LocalModel", "TrainedRun", "load_model", "train_model"),
    "sdpo.solving.python": ("Found", "solve_task"),
    "sdpo.types": ("Message", "Role", "Task", "Verdict"),
}
"""Where a name is defined; every other one is in ``sdpo.config``."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """The object of that name, imported now."""
        if name not in __all__:
            raise AttributeError(f"module 'sdpo' has no attribute {name!r}")
        home = next((home for home, names in _HOMES.items() if name in names), "sdpo.config")
        return getattr(import_module(home), name)

    def __dir__() -> list[str]:
        return sorted([*globals(), *__all__])
