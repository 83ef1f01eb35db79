"""``import_deepspeed``: DeepSpeed without what it would import for nobody here.

DeepSpeed 0.19 imports MLflow for its autotuner, and TorchInductor to compile the Muon optimizer as soon as it is defined. Neither
is ever used by a learner; together they take four of the six seconds.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_COMPILED = "deepspeed.runtime.zero.muon.muon_optimizer"
"""What DeepSpeed imports with its first engine, and decorates with ``torch.compile``."""
_UNUSED = "mlflow"


def import_deepspeed() -> ModuleType:
    """The package. Muon's functions stay uncompiled in this process."""
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # it asks while it is imported
    if _COMPILED not in sys.modules:
        with _without_module(_UNUSED), _without_compiler():
            importlib.import_module(_COMPILED)
    return importlib.import_module("deepspeed")


@contextmanager
def _without_module(name: str) -> Iterator[None]:
    """Whoever tries to import it meets an ImportError, unless somebody has it already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(name, None)


@contextmanager
def _without_compiler() -> Iterator[None]:
    compiles = torch.compile
    torch.compile = _as_it_is  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compiles


def _as_it_is(function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
    """``torch.compile``, called or as a decorator, with or without options; compiles nothing."""
    return (lambda decorated: decorated) if function is None else function
