"""Every rule fires on a run that collapses and is silent on one that does not; and the guards are a fold over the records."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.config import (
    Blend,
    CheckpointConfig,
    Config,
    EnvConfig,
    EvaluationConfig,
    GRPOConfig,
    Guard,
    GuardsConfig,
    ModelConfig,
    OnGainTeacher,
    Response,
    SDPOConfig,
)
from sdpo.guards.alarms import Alarm, evaluation_rules, step_rules
from sdpo.guards.fold import Guards, folded
from sdpo.types import Metrics

Curve = Callable[[int], float]
DOCS = Path(__file__).parent.parent.parent / "docs" / "guards.md"


def config(**changes: object) -> Config:
    plain = Config(
        name="run", algorithm=SDPOConfig(), model=ModelConfig(name="fake", path="fake"), env=EnvConfig(name="fake"), num_steps=300
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def rows(num_steps: int, seed: int = 0, **curves: Curve) -> list[dict[str, float]]:
    """Of a run like the default one: 48 attempts a step, 5 to 30 % noise in everything else; ``curves`` say what is otherwise."""
    draw = random.Random(seed)
    means: dict[str, Curve] = {
        "response_tokens": lambda step: 60.0,
        "entropy": lambda step: 0.9,
        "divergence": lambda step: 0.1,
        "mismatch": lambda step: 0.001,
        "credit/solved": lambda step: 0.05,
        "credit/failed": lambda step: 0.0,
        **curves,
    }
    success = means.pop("success", lambda step: 0.11)
    spread = {"response_tokens": 0.05, "credit/solved": 1.0}
    found = []
    for step in range(1, num_steps + 1):
        rates = [draw.betavariate(max(1.5 * success(step), 1e-3), max(1.5 * (1.0 - success(step)), 1e-3)) for _ in range(8)]
        solved = sum(draw.random() < rate for rate in rates for _ in range(6))
        row = {"step": float(step), "success": solved / 48, "hindsight": 0.9, "updates": 1.0, "updates_skipped": 0.0, "loss": 0.1}
        row["answers/distinct"] = 0.9
        row |= {name: mean(step) * draw.gauss(1.0, spread.get(name, 0.3)) for name, mean in means.items() if name not in row}
        found.append(row | {name: curve(step) for name, curve in curves.items() if name in row and name != "success"})
    return found


def held_out(step: int, success: float, se: float = 0.045, **others: float) -> dict[str, float]:
    return {"step": step, "heldout/success": success, "heldout/success_se": se, "heldout/response_tokens": 50.0, **others}


def fallen(start: float, end: float, *, begin: int = 20, length: int = 20) -> Curve:
    return lambda step: start + (end - start) * min(1.0, max(0.0, (step - begin) / length))


def raised(
    of_steps: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, float]] = (), of: Config | None = None
) -> list[Alarm]:
    return folded(of or config(), of_steps, evaluations).alarms


HEALTHY: Mapping[str, Mapping[str, Curve]] = {
    "as it began": {},
    "hardly ever solved": {"success": lambda step: 0.03},
    "rising": {"success": lambda step: min(0.8, 0.1 + 0.01 * step)},
    "rising, with answers that get short and sure": {
        "success": fallen(0.1, 0.8, begin=2),
        "response_tokens": fallen(60.0, 12.0, begin=2),
        "entropy": fallen(0.9, 0.05, begin=2),
        "answers/distinct": fallen(0.95, 0.55, begin=2),
    },
    "rising, with answers that get long": {
        "success": fallen(0.1, 0.8, begin=2),
        "response_tokens": fallen(60.0, 400.0, begin=2),
    },
    "mastered": {
        "success": lambda step: 0.97,
        "entropy": fallen(0.3, 0.001),
        "divergence": fallen(0.1, 0.001),
        "answers/distinct": fallen(0.5, 0.125),
    },
    "a third worse": {"success": fallen(0.5, 0.35)},
    "one odd step": {
        name: lambda step, usual=usual, odd=odd: odd if step == 30 else usual  # type: ignore[misc]
        for name, usual, odd in (("response_tokens", 60.0, 1.0), ("entropy", 0.9, 0.0), ("divergence", 0.1, 9.0))
    },
    "some tokens further apart than most": {"mismatch/p99": lambda step: 0.05},
    "a step or two without samples or a hint": {
        "updates": lambda step: float(step % 3 == 0),
        "hindsight": lambda step: float(step % 3 == 1),
    },
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_alarms_nobody(name: str) -> None:
    for seed in range(4):
        assert raised(rows(100, seed, **HEALTHY[name])) == []


def test_runs_as_short_as_the_default_one_alarm_nobody() -> None:
    for seed in range(100):
        of_steps = rows(10, seed)
        looked = [held_out(0, 0.29), held_out(10, random.Random(seed).gauss(0.29, 0.03))]
        assert raised(of_steps, looked) == []


COLLAPSES: Mapping[str, tuple[Guard, Mapping[str, Curve]]] = {
    "answers end at once": (Guard.length, {"response_tokens": fallen(60.0, 2.0), "success": fallen(0.1, 0.02)}),
    "answers never end": (Guard.length, {"response_tokens": fallen(60.0, 400.0), "success": fallen(0.1, 0.05)}),
    "sure of what is wrong": (Guard.entropy, {"entropy": fallen(0.9, 0.1), "success": fallen(0.1, 0.02)}),
    "all attempts alike": (Guard.entropy, {"entropy": fallen(0.9, 0.0), "success": fallen(0.1, 0.5)}),
    "said by heart": (Guard.variety, {"answers/distinct": fallen(0.95, 0.38), "success": fallen(0.3, 0.7)}),
    "no samples": (Guard.no_samples, {"updates": lambda step: float(step < 30)}),
    "no hint": (Guard.no_hint, {"hindsight": lambda step: float(step < 30)}),
    "hindsight that prefers failures": (Guard.credit, {"credit/solved": lambda step: -0.05, "credit/failed": lambda step: 0.05}),
    "blow-up": (Guard.divergence, {"divergence": fallen(0.1, 2.0)}),
    "not finite": (Guard.divergence, {"divergence": lambda step: math.nan if step == 30 else 0.1}),
    "no finite gradient": (Guard.divergence, {"updates": lambda s: float(s < 30), "updates_skipped": lambda s: float(s >= 30)}),
    "unlearning": (Guard.success, {"success": fallen(0.5, 0.1)}),
    "unlearning from a low start": (Guard.success, {"success": fallen(0.12, 0.0)}),
    "another engine": (Guard.mismatch, {"mismatch": fallen(0.001, 0.5)}),
    "another engine here and there": (Guard.mismatch, {"mismatch/p99": fallen(0.01, 0.9)}),
}


@pytest.mark.parametrize("name", COLLAPSES)
def test_a_collapse_is_noticed(name: str) -> None:
    guard, curves = COLLAPSES[name]
    for seed in range(8):
        found = [alarm for alarm in raised(rows(100, seed, **curves)) if alarm.guard is guard]
        assert found, seed
        assert found[0].step <= 70
        assert found[0].sentence.endswith(".")
    assert {guard for guard, _ in COLLAPSES.values()} | {Guard.lift, Guard.heldout} == set(Guard)


def test_nothing_at_all_is_solved_any_more_before_a_run_is_over() -> None:
    """What users of the reference implementation report: 0.7 for hundreds of steps, then zero."""
    steps = [
        alarm.step for alarm in raised(rows(120, success=fallen(0.7, 0.0, begin=50, length=40))) if alarm.guard is Guard.success
    ]
    assert 50 < steps[0] < 75  # the policy still solves more than a quarter


@pytest.mark.parametrize(("best", "se"), [(0.3, 0.045), (0.5, 0.05), (0.8, 0.04), (0.1, 0.015), (1.0, 0.0)])
def test_heldout_success_alarms_before_it_has_halved(best: float, se: float) -> None:
    evaluations = [held_out(step, best * (1.0 - 0.05 * max(0, step - 3)), se) for step in range(12)]
    (alarm, *_) = raised([], evaluations)
    assert alarm.guard is Guard.heldout
    assert evaluations[alarm.step]["heldout/success"] > best / 2


def test_heldout_success_may_waver_by_its_noise() -> None:
    """By chance alone the best of ten evaluations is two standard errors too good, and so some runs alarm all the same."""
    draw = random.Random(0)
    runs = [raised([], [held_out(step, draw.gauss(0.3, 0.025)) for step in range(10)]) for _ in range(100)]
    assert sum(bool(alarms) for alarms in runs) <= 3


@pytest.mark.parametrize(
    ("lift", "se", "fires"), [(-0.10, 0.04, True), (-0.10, 0.06, False), (0.1, 0.0, False), (0.0, 0.0, False), (-0.01, 0.0, True)]
)
def test_a_teacher_that_hindsight_makes_worse_is_noticed(lift: float, se: float, fires: bool) -> None:
    found = raised([], [held_out(0, 0.3, lift=lift, **{"lift/se": se})])
    assert [alarm.guard for alarm in found] == [Guard.lift] * fires


@pytest.mark.parametrize(
    ("lift", "se", "fires"), [(0.42, 0.05, False), (0.06, 0.05, True), (-0.1, 0.05, True), (None, None, True)]
)
def test_a_teacher_that_was_found_to_know_better_does_not_mislead(lift: float | None, se: float | None, fires: bool) -> None:
    """The default run, whose teacher solves 42 points more, was told in its ninth step that its teacher misleads.

    A teacher that is shown one right answer finds other right ones less probable.
    """
    prefers_failures = rows(40, **{"credit/solved": lambda step: -0.05, "credit/failed": lambda step: 0.05})
    measured = {} if lift is None or se is None else {"lift": lift, "lift/se": se}
    found = raised(prefers_failures, [held_out(0, 0.3, **measured)])
    assert (Guard.credit in {alarm.guard for alarm in found}) == fires


def test_the_lift_of_a_single_task_is_no_evidence() -> None:
    """It has no standard error, which the alarm took for one of 0."""
    assert raised([], [held_out(0, 0.3, lift=-0.5)]) == []


def test_grpo_is_not_asked_for_hints() -> None:
    of = config(algorithm=GRPOConfig())
    assert raised(rows(30, hindsight=lambda step: 0.0), of=of) == []


def test_an_alarm_is_not_raised_again_for_a_while() -> None:
    found = raised(rows(45, updates=lambda step: float(step < 10)))
    assert [alarm.step for alarm in found] == [12, 22, 32, 42]


def test_numbers_that_are_missing_are_no_alarm() -> None:
    bare = [{"step": step, "success": 0.1, "response_tokens": 60.0, "updates": 1.0, "hindsight": 1.0} for step in range(1, 40)]
    assert raised(bare, [{"step": 10, "lift": 0.1}], on_gain()) == []


# What an alarm does.

COLLAPSED = rows(60, success=fallen(0.5, 0.0))
LATER = rows(60, success=fallen(0.5, 0.0, begin=10), divergence=fallen(0.1, 5.0, begin=30))


def responding(response: Response, **changes: object) -> Config:
    kinds: dict[str, object] = {
        "guards": GuardsConfig(response=response, repeat_after=100),
        "evaluation": EvaluationConfig(every=1),
        "checkpoint": CheckpointConfig(keep_best=1),
    }
    return config(**kinds | changes)


def test_a_warning_changes_nothing() -> None:
    guards = folded(config(), COLLAPSED, [])
    assert guards.alarms
    assert guards.algorithm == config().algorithm
    assert guards.teacher_follows
    assert guards.stopped_by is None
    assert (guards.last_refresh, guards.num_refreshes) == (0, 0)


def test_each_response_does_what_it_is_called() -> None:
    refreshed = folded(responding(Response.refresh_teacher), COLLAPSED, [])
    assert refreshed.last_refresh == refreshed.alarms[-1].step > 0
    assert not folded(responding(Response.freeze_teacher), COLLAPSED, []).teacher_follows
    for response in (Response.stop, Response.stop_at_best):
        stopped = folded(responding(response), COLLAPSED, [])
        assert stopped.stopped_by == stopped.alarms[0]
        assert stopped.may_save == (response is Response.stop_at_best)


def test_the_policy_gradients_share_rises_with_each_alarm_up_to_its_end() -> None:
    of = responding(Response.raise_policy_gradient, guards=GuardsConfig(response=Response.raise_policy_gradient, repeat_after=5))
    guards = folded(of, LATER, [])
    assert len(guards.alarms) > 4
    assert isinstance(guards.algorithm, SDPOConfig)
    assert guards.numbers["policy_gradient_share"] == 0.75
    assert guards.algorithm == replace(of.algorithm, routing=Blend(policy_gradient_share=0.75))  # type: ignore[call-arg]


def test_an_alarm_that_is_not_responded_to_is_told_all_the_same() -> None:
    of = responding(Response.stop, guards=GuardsConfig(response=Response.stop, responds_to=[Guard.mismatch]))
    guards = folded(of, COLLAPSED, [])
    assert guards.alarms
    assert guards.stopped_by is None


# When the teacher moves.


def on_gain(**changes: object) -> Config:
    teacher = OnGainTeacher(min_gain=0.05, max_length_growth=0.2, gain_window=4)
    return config(algorithm=SDPOConfig(teacher=teacher), evaluation=EvaluationConfig(every=2), **changes)


def refreshes(of: Config, of_steps: Sequence[Metrics], evaluations: Sequence[Metrics]) -> list[int]:
    guards, found = Guards(of), []
    for step in range(41):
        for check, records in ((guards.step, of_steps), (guards.evaluation, evaluations)):
            for record in records:
                if record["step"] == step:
                    check(step, record)
        if guards.last_refresh == step > 0:
            found.append(step)
    assert guards.num_refreshes == len(found)
    return found


def test_the_teacher_moves_on_heldout_gains_and_not_on_falls_or_stillness() -> None:
    success = {0: 0.3, 2: 0.34, 4: 0.36, 6: 0.2, 8: 0.40, 10: 0.42}
    assert refreshes(on_gain(), rows(12), [held_out(step, value) for step, value in success.items()]) == [4, 10]


def test_a_gain_with_longer_answers_does_not_move_the_teacher() -> None:
    looked = [held_out(0, 0.3), held_out(2, 0.5) | {"heldout/response_tokens": 61.0}, held_out(4, 0.5)]
    assert refreshes(on_gain(), [], looked) == [4]


def test_without_evaluations_windows_of_training_are_compared() -> None:
    of = replace(on_gain(), evaluation=EvaluationConfig(every=0))
    of_steps = [
        {"step": step, "success": 0.1 * ((step - 1) // 8), "response_tokens": 50.0, "updates": 1.0, "hindsight": 1.0}
        for step in range(1, 41)
    ]
    assert refreshes(of, of_steps, [held_out(0, 0.0), held_out(40, 1.0)]) == [12, 20, 28, 36]


def test_a_frozen_teacher_does_not_move_on_gains_either() -> None:
    of = on_gain(guards=GuardsConfig(response=Response.freeze_teacher, responds_to=[Guard.no_hint], patience=1))
    looked = [held_out(0, 0.3), held_out(2, 0.5), held_out(4, 0.9)]
    assert refreshes(of, rows(6, hindsight=lambda step: float(step < 3)), looked) == [2]


def test_gains_are_over_the_teacher_that_an_alarm_has_put_there() -> None:
    """They were over the teacher before it: one that an alarm had made of a fallen policy stayed, however far that rose again."""
    of = on_gain(
        guards=GuardsConfig(response=Response.refresh_teacher, responds_to=[Guard.no_hint], patience=1, repeat_after=100)
    )
    looked = [held_out(0, 0.3), held_out(2, 0.6), held_out(4, 0.2), held_out(6, 0.55)]
    assert refreshes(of, rows(6, hindsight=lambda step: float(step != 4)), looked) == [2, 4, 6]


# The fold.

SHARE = st.floats(0.0, 1.0)
NUMBER = st.one_of(st.floats(0.0, 1e3), st.just(math.nan), st.just(math.inf))


@st.composite
def records(draw: st.DrawFn) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    num = draw(st.integers(1, 25))
    of_steps, evaluations = [], []
    for step in range(num + 1):
        if step > 0:
            row = {"step": float(step), "success": draw(SHARE), "hindsight": draw(st.sampled_from([0.0, 0.5]))}
            row |= {"response_tokens": draw(st.floats(0.0, 1e3)), "updates": draw(st.sampled_from([0.0, 1.0]))}
            names = draw(st.sets(st.sampled_from(["entropy", "divergence", "mismatch", "credit/solved", "credit/failed"])))
            of_steps.append(row | {name: draw(NUMBER) for name in sorted(names)})
        if draw(st.booleans()):
            evaluations.append(held_out(step, draw(SHARE), draw(SHARE), lift=draw(st.floats(-1.0, 1.0))))
    return of_steps, evaluations


@settings(max_examples=60, deadline=None)
@given(records(), st.data(), st.sampled_from([Response.refresh_teacher, Response.freeze_teacher, Response.raise_policy_gradient]))
def test_a_continued_run_stands_where_the_uninterrupted_one_does(
    recorded: tuple[list[dict[str, float]], list[dict[str, float]]], data: st.DataObject, response: Response
) -> None:
    """Fold of the prefix, and then live: the same alarms, λ, teacher and rules as the fold of everything, through JSON."""
    guards = GuardsConfig(response=response, responds_to=list(Guard), early=2, recent=2, window=2, patience=2, repeat_after=3)
    teacher = OnGainTeacher(gain_window=3)
    of = config(
        guards=guards, algorithm=SDPOConfig(teacher=teacher), evaluation=EvaluationConfig(every=data.draw(st.integers(0, 1)))
    )
    of_steps, evaluations = recorded
    whole = folded(of, of_steps, evaluations)
    cut = data.draw(st.integers(0, len(of_steps)))
    early = [[json.loads(json.dumps(one)) for one in kind if one["step"] <= cut] for kind in recorded]
    live = folded(of, *early)
    for step in range(cut + 1, len(of_steps) + 1):
        live.step(step, of_steps[step - 1])
        for record in evaluations:
            if record["step"] == step:
                live.evaluation(step, record)
    assert vars(live) == vars(whole)


# The documentation.


def test_the_table_of_the_documentation_is_the_codes() -> None:
    table = [line.split("|")[1:-1] for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    documented = [cells[0].strip(" `") for cells in table]
    assert documented[: len(Guard)] == [guard.value for guard in Guard]
    assert documented[len(Guard) :] == [response.value for response in Response]
    defaults = vars(GuardsConfig())
    for cells in table[: len(Guard)]:
        for word in cells[2].split(","):
            key, value = word.strip().split(" ")
            assert defaults[key.strip("`")] == float(value), cells
    rules = {*step_rules(GuardsConfig(), SDPOConfig()), *evaluation_rules(GuardsConfig())}
    assert rules == set(Guard)
