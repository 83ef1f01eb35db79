"""How is a reward function found and called, and what may it return?

There are two forms, told apart by whether there is a parameter ``completions``:

- one completion: ``f(completion, *, prompt=…, answer=…, …) -> float | (float, feedback)``
- TRL's (``GRPOTrainer(reward_funcs=…)``): ``f(completions, *, prompts=…, answer=[…], **columns) -> list`` of the same, one an
  entry. Where the prompt is a text, prompts and completions are texts. Where it is messages, they are lists of messages.

Columns are passed by keyword: those that the function names, or all where it takes ``**``. The function may be ``async``.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.util import module_from_spec, spec_from_file_location
from numbers import Real
from pathlib import Path
from types import ModuleType

_ROUNDING = 1e-9
"""Weights that add up to 1 on paper add up to a little more or less."""

RewardCallable = Callable[..., object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a function returned for one completion."""

    reward: float
    feedback: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The rewards that mean 0 and 1."""

    low: float
    high: float

    @classmethod
    def of(cls, scale: Sequence[float] | None) -> Scale:
        """Raises ValueError for anything but two finite numbers, the lower first."""
        low, high = (0.0, 1.0) if scale is None else (tuple(scale) if len(scale) == 2 else (math.nan, math.nan))
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"env.options.scale must be the rewards that mean 0 and 1, as in [-1, 1]; got {scale!r}")
        return cls(low=float(low), high=float(high))

    def to_unit(self, reward: float, function: str) -> float:
        """Raises ValueError for a reward outside of the scale, NaN included."""
        unit = (reward - self.low) / (self.high - self.low)
        if abs(unit) < _ROUNDING or abs(unit - 1) < _ROUNDING:
            return float(round(unit))
        if not 0 <= unit <= 1:
            raise ValueError(
                f"a reward must lie in [{self.low:g}, {self.high:g}]; {function} returned {reward!r}: "
                "correct the function, or say with env.options.scale which rewards mean 0 and 1"
            )
        return unit


def absolute(spec: str) -> str:
    """``spec``, its file's path made absolute. Raises ValueError where there is no such function."""
    place, _, name = spec.rpartition(":")
    if place.endswith(".py"):
        spec = f"{Path(place).expanduser().resolve()}:{name}"
    load(spec)
    return spec


@cache
def load(spec: str) -> RewardCallable:
    """Once a process. Raises ValueError, as a sentence, for whatever keeps it from being found."""
    place, _, name = spec.rpartition(":")
    try:
        module = _module_of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:
        raise ValueError(
            f"env.options.function {spec!r} must stand in a module or file that can be imported; that raised "
            f"{type(error).__name__}: {error}: correct the name, or install what it needs"
        ) from error
    function: object = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"env.options.function {spec!r} must name a function of {place}; there is none called {name!r}")
    return function


def reward(spec: str, prompt: object, completion: str, columns: Mapping[str, object]) -> Said:
    """One call, one completion. Raises ValueError for a return value that is none of the above."""
    function = load(spec)
    parameters = inspect.signature(function).parameters
    is_batched = "completions" in parameters
    first = "completions" if is_batched else next(iter(parameters), "")
    available: dict[str, object] = {"prompt": prompt, **columns}
    answer: object = completion
    if is_batched:
        is_conversation = not isinstance(prompt, str)
        answer = [[{"role": "assistant", "content": completion}] if is_conversation else completion]
        available = {"prompts": [prompt], **{name: [value] for name, value in columns.items()}}
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    keywords = {name: value for name, value in available.items() if (takes_all or name in parameters) and name != first}
    returned = function(completions=answer, **keywords) if is_batched else function(answer, **keywords)
    if inspect.iscoroutine(returned):
        returned = asyncio.run(returned)
    if is_batched:
        if not isinstance(returned, Sequence) or isinstance(returned, str) or len(returned) != 1:
            raise ValueError(
                f"{spec} takes completions, so it must return a list with one reward a completion; got {returned!r:.200}"
            )
        returned = returned[0]
    return _said(spec, returned)


def _said(spec: str, returned: object) -> Said:
    match returned:
        case (value, str() | None as feedback):
            pass
        case value:
            feedback = None
    if hasattr(value, "item"):  # an array's or a tensor's number
        value = value.item()
    if not isinstance(value, Real):
        raise ValueError(f"{spec} must return a number, or a number and a feedback text; got {returned!r:.200}")
    return Said(reward=float(value), feedback=feedback)


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file at {path}")
    spec = spec_from_file_location(f"sdpo_reward_{path.stem}_{blake2b(str(path).encode(), digest_size=4).hexdigest()}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
