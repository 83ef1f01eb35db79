"""discovery@k: the share of searches that had solved their task by then, and how sure one is of it."""

from __future__ import annotations

import math
import random

import pytest

from sdpo.config import HardSetConfig
from sdpo.discovery.estimator import attempts_to_reach, discovery, interval, versus_best_of_k
from sdpo.discovery.hard_set import candidates, chosen
from sdpo.errors import UserError
from sdpo.types import Message, Role, Task

TASKS = [Task(id=f"t/{n}", env="t", messages=(Message(role=Role.user, content="?"),)) for n in range(30)]


def test_a_task_that_nobody_solved_stays_in() -> None:
    costs = [[1.0, 5.0], [None, None], [3.0, None], [None, None]]
    assert discovery(costs, 1) == pytest.approx(1 / 8)
    assert discovery(costs, 3) == pytest.approx(2 / 8)
    assert discovery(costs, math.inf) == pytest.approx(3 / 8)
    assert discovery(costs, 0) == 0.0


def test_discovery_never_falls() -> None:
    draw = random.Random(0)
    costs = [[draw.choice([None, float(draw.randrange(50))]) for _ in range(3)] for _ in range(9)]
    curve = [discovery(costs, k) for k in range(60)]
    assert curve == sorted(curve)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Tasks of different difficulty, three searches each: the true discovery@20 lies in 95 % of the intervals."""
    truth_of = lambda rate: 1.0 - (1.0 - rate) ** 20  # noqa: E731 - of a task with that rate
    truth = sum(truth_of(10 ** (-3 + 2 * (i + 0.5) / 1000)) for i in range(1000)) / 1000  # rates: log-uniform on 0.1 % to 10 %
    covered, trials = 0, 200
    for trial in range(trials):
        draw = random.Random(f"trial {trial}")
        rates = [10 ** (-3 + 2 * draw.random()) for _ in range(25)]
        costs = [[_first_success(draw, rate) for _ in range(3)] for rate in rates]
        low, high = interval(costs, 20, num_resamples=200)
        covered += low <= truth <= high
    assert 0.88 <= covered / trials <= 1.0


def _first_success(draw: random.Random, rate: float) -> float | None:
    return next((float(k) for k in range(1, 21) if draw.random() < rate), None)


@pytest.mark.parametrize(("cost", "ends"), [(None, (0.0, 0.522)), (1.0, (0.478, 1.0))])
def test_five_failures_in_a_row_are_no_proof(cost: float | None, ends: tuple[float, float]) -> None:
    assert interval([[cost]] * 5, 10) == pytest.approx(ends, abs=1e-3)


def test_the_interval_is_the_same_each_time() -> None:
    costs = [[1.0], [None], [4.0], [9.0], [None]]
    assert interval(costs, 5) == interval(costs, 5)


def test_attempts_to_reach_is_the_first_that_does() -> None:
    costs = [[4.0], [10.0], [None], [7.0]]
    assert attempts_to_reach(costs, 0.5) == 7.0
    assert attempts_to_reach(costs, 0.75) == 10.0
    assert attempts_to_reach(costs, 1.0) is None


def test_strategies_are_measured_by_the_final_discovery_of_best_of_k() -> None:
    costs = {"best_of_k": [[8.0], [40.0], [None]], "quick": [[2.0], [10.0], [90.0]], "poor": [[1.0], [None], [None]]}
    assert versus_best_of_k(costs, "best_of_k") == {"best_of_k": 1.0, "quick": 0.25, "poor": "not reached"}


def test_where_best_of_k_found_nothing_there_is_nothing_to_reach() -> None:
    assert versus_best_of_k({"best_of_k": [[None]], "sdpo": [[3.0]]}, "best_of_k") == {"best_of_k": None, "sdpo": None}


def test_a_hard_task_is_one_that_was_measured_and_lies_within_the_bounds() -> None:
    found = {"t/0": (0, 64), "t/1": (3, 64), "t/2": (30, 64), "t/4": (0, 0)}
    hard = [task.id for task in chosen(TASKS, found, HardSetConfig(num_tasks=5, num_candidates=30))]
    assert hard == ["t/0", "t/1"], "never solved counts; without a verdict does not"
    assert [task.id for task in chosen(TASKS, found, HardSetConfig(num_tasks=5, num_candidates=30, min_rate=0.01))] == ["t/1"]


def test_no_hard_task_at_all_is_said() -> None:
    with pytest.raises(UserError, match="none of the 30 candidates"):
        chosen(TASKS, {task.id: (64, 64) for task in TASKS}, HardSetConfig(num_tasks=1, num_candidates=30))


def test_candidates_are_a_seeded_draw() -> None:
    config = HardSetConfig(num_tasks=2, num_candidates=10)
    assert candidates(TASKS, config, 0) == candidates(TASKS, config, 0)
    assert candidates(TASKS, config, 0) != candidates(TASKS, config, 1)
    assert len({task.id for task in candidates(TASKS, config, 0)}) == 10
