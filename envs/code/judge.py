"""What is an answer worth, and what is said of it?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from sdpo.envs.base import Verdict
from sdpo.envs.code import calls, checks, runs
from sdpo.envs.code.execution import Answer
from sdpo.envs.code.extraction import extract_code
from sdpo.envs.code.reasons import Finding, no_code
from sdpo.envs.code.remarks import MIN_TOKENS, Remark, render
from sdpo.envs.code.trials import FunctionTests, ProgramTests, Tests
from sdpo.envs.sandbox import Limits


class Reward(str, Enum):
    """What an answer earns."""

    all = "all"
    """1 if every test passes, else 0; hidden tests are run only if every visible one passes."""
    share = "share"
    """The share of all tests that pass."""


class Judge:
    """The verdict on an answer. Raises ValueError for options out of range, under the names of the environment's options."""

    def __init__(self, *, reward: str, timeout_s: float, memory_bytes: int, max_feedback_tokens: int) -> None:
        if reward not in tuple(Reward):
            raise ValueError(
                "env.options.reward must be all (1 only if every test passes) or share (of the tests passed); "
                f"got {reward!r}: try all"
            )
        if not (math.isfinite(timeout_s) and 0.1 <= timeout_s <= 600):
            raise ValueError(
                "env.options.timeout_s must lie in [0.1, 600] seconds (an interpreter starts in some 0.03, and a batch "
                f"waits for its slowest answer); got {timeout_s!r}: try 5"
            )
        if memory_bytes < 1 << 26:
            raise ValueError(
                f"env.options.memory_bytes must be at least {1 << 26} (64 MB: the interpreter itself needs some 20); "
                f"got {memory_bytes!r}: try {1 << 29}"
            )
        if max_feedback_tokens < MIN_TOKENS:
            raise ValueError(
                f"env.options.max_feedback_tokens must be at least {MIN_TOKENS} (less cannot hold a failed test); "
                f"got {max_feedback_tokens!r}: try 800"
            )
        self._reward = Reward(reward)
        self._limits = Limits(wall_s=timeout_s, memory_bytes=memory_bytes)
        self._max_feedback_tokens = max_feedback_tokens

    def longest_s(self, tests: Tests) -> float:
        """Seconds that the slowest answer can take: one that always ends just in time."""
        if isinstance(tests, ProgramTests):
            return 2 * runs.MOST_TIMES * self._limits.wall_s
        return (bool(tests.visible) + 1 + (checks.MOST_TIMES if tests.check is not None else 0)) * self._limits.wall_s

    def verdict(self, tests: Tests, completion: str) -> Verdict:
        """Run the answer on the tests. Raises SandboxUnavailable where code cannot be run safely."""
        function = tests.function if isinstance(tests, FunctionTests) else None
        code = extract_code(completion, function)
        if code is None:
            return self._verdict(tests, no_code("program" if function is None else "function", completion))
        answer = Answer(source=code.source, preamble=tests.preamble)
        try_visible, try_hidden = _ways(tests, answer, self._limits)
        visible = try_visible()
        hidden = None
        if visible.remark is None or (self._reward is Reward.share and visible.is_loaded):
            hidden = try_hidden() if tests.num_hidden else Finding(num_passed=0, is_loaded=True, remark=None)
        remark = visible.remark
        if remark is None and hidden is not None:
            remark = hidden.remark
        return self._verdict(tests, remark, is_fenced=code.is_fenced, visible=visible, hidden=hidden)

    def _verdict(
        self,
        tests: Tests,
        remark: Remark | None,
        *,
        is_fenced: bool = False,
        visible: Finding | None = None,
        hidden: Finding | None = None,
    ) -> Verdict:
        """Solved where there is nothing to say. Rates are shares of the tests: 0 for those that were not run."""
        num_visible = visible.num_passed if visible is not None else 0
        num_hidden = hidden.num_passed if hidden is not None else 0
        share = (num_visible + num_hidden) / (tests.num_visible + tests.num_hidden)
        if remark is None:
            reward = 1.0
        elif self._reward is Reward.share and share < 1.0:
            reward = share
        else:  # also for the answer that forges a record against itself: nothing that is complained of is solved
            reward = 0.0
        return Verdict(
            reward=reward,
            feedback=None if remark is None else render(remark, self._max_feedback_tokens),
            metrics={
                "format_ok": float(is_fenced),
                "loads_ok": float(visible is not None and visible.is_loaded),
                "visible_pass_rate": num_visible / tests.num_visible,
                "hidden_pass_rate": num_hidden / tests.num_hidden if tests.num_hidden else float(remark is None),
            },
        )


def _ways(tests: Tests, answer: Answer, limits: Limits) -> tuple[Callable[[], Finding], Callable[[], Finding]]:
    """How the visible tests are tried, and how the hidden ones are."""
    if isinstance(tests, ProgramTests):
        each = _within(limits, tests.time_limit_s, num_tests=1)
        return lambda: runs.try_visible(answer, tests, each), lambda: runs.try_hidden(answer, tests, each)
    visible, hidden = (_within(limits, tests.time_limit_s, num_tests=len(trials)) for trials in (tests.visible, tests.hidden))
    return lambda: calls.try_visible(answer, tests, visible), lambda: calls.try_hidden(answer, tests, hidden)


def _within(limits: Limits, time_limit_s: float | None, *, num_tests: int) -> Limits:
    """Limits of a process that runs ``num_tests`` tests, each of which the question gives ``time_limit_s``."""
    return limits if time_limit_s is None else replace(limits, wall_s=min(limits.wall_s, max(time_limit_s * num_tests, 0.1)))
