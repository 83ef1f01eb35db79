"""The process that runs math-verify: compares answers in forks that have walled themselves in (``forks.py``).

It runs as a script, with nothing of this package in it but those walls. The right answer is parsed here too once a fork has shown
that this ends, since the parser keeps what it has worked out of its grammar, and forks begin with that.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from typing import Any

from sdpo.envs.sandbox import forks

_SAMPLES = ("12", "-0.5", r"\frac{1}{2}", r"2\sqrt{3}", "x^2+2x+1", "(1,2)", "[0,1)", r"\text{red}", r"1,2", r"\frac{\pi}{4}")
"""Parsed once, so that no fork has to learn the grammar of what is usual."""
_MAX_RELATIVE_ERROR = 1e-5
"""math-verify compares to six places, by which any two tiny numbers are equal."""


class Library:
    """The package, imported."""

    def __init__(self) -> None:
        logging.disable(logging.CRITICAL)  # it warns of limits that are set elsewhere
        package = importlib.import_module("math_verify")
        self._parse, self._verify, self._target = package.parse, package.verify, package.LatexExtractionConfig()
        self._sympy = importlib.import_module("sympy")
        for sample in _SAMPLES:
            self.judge(sample, sample)

    def parsed(self, text: str) -> list[Any]:
        """Expressions of sympy, with texts behind them; Any: the package has no types."""
        found: list[Any] = self._parse(f"\\boxed{{{text}}}", [self._target], parsing_timeout=None)
        return found

    def judge(self, right: str, answer: str) -> bytes:
        expected, given = self.parsed(right), self.parsed(answer)
        if not any(self._is_expression(one) for one in given):
            return b"unread"
        is_equal = self._verify(expected, given, timeout_seconds=None) and not self._are_far_apart(expected[0], given[0])
        return b"equal" if is_equal else b"different"

    def _is_expression(self, found: object) -> bool:
        return isinstance(found, self._sympy.Basic | self._sympy.MatrixBase)

    def _are_far_apart(self, expected: Any, given: Any) -> bool:
        if not (getattr(expected, "is_number", False) and getattr(given, "is_number", False)):
            return False
        distance = abs(complex(expected.evalf()) - complex(given.evalf()))
        return bool(distance > _MAX_RELATIVE_ERROR * abs(complex(expected.evalf())))


def start(refusals: bytes) -> tuple[object, Callable[[forks.Message], forks.Message]]:
    library = Library()

    def answer(request: forks.Message) -> forks.Message:
        match request:
            case ("compare", str(right), str(given), wall_s, memory_bytes):
                assert isinstance(wall_s, float | int)
                assert isinstance(memory_bytes, int)
                outcome = forks.in_fork(
                    lambda: library.judge(right, given), wall_s=wall_s, memory_bytes=memory_bytes, refusals=refusals
                )
                if outcome[0] == "said":
                    library.parsed(right)
                return outcome
        raise ValueError(f"no such request: {request[0]!r}")

    return None, answer


if __name__ == "__main__":
    forks.serve(lambda: start(bytes.fromhex(sys.argv[1])))
