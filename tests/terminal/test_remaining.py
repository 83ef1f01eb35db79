"""After three steps the end of a run is foreseen within a fifth, whatever it evaluates and saves, however slow its start was."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from sdpo.config import CheckpointConfig, Config, EnvConfig, EvaluationConfig, GRPOConfig, LiftSchedule, ModelConfig, SDPOConfig
from sdpo.terminal.remaining import Part, Plan, Remaining, plan_of

WITHIN = 0.2


@dataclass(frozen=True, kw_only=True)
class Course:
    """Of a simulated run: what its parts take, in seconds."""

    step: float = 50.0
    evaluation: float = 90.0
    lift: float = 60.0
    checkpoint: float = 6.0
    slow_start: float = 1.0
    """Times as long as usual that the first of each takes, but for the lift, which is measured with an engine that is warm."""
    noise: float = 0.0
    """Standard deviation of a part's duration, as a share of it."""
    growth: float = 0.0
    """Of a step's duration, from one step to the next."""
    hiccup: int = 0
    """A step that takes six times as long."""

    def parts(self, plan: Plan) -> list[tuple[Part, float]]:
        draw, seen = random.Random(0), set[Part]()
        found: list[tuple[Part, float]] = []
        for number in range(plan.num_steps + 1):
            usual = {
                Part.step: self.step * (1 + self.growth) ** number * (6.0 if number == self.hiccup else 1.0),
                Part.evaluation: self.evaluation,
                Part.lift: self.lift,
                Part.checkpoint: self.checkpoint,
            }
            for part, seconds in usual.items():
                for _ in range(list(plan.due(part)).count(number)):
                    slow = 1.0 if part in seen or part is Part.lift else self.slow_start
                    found.append((part, seconds * slow * max(0.2, draw.gauss(1.0, self.noise))))
                    seen.add(part)
        return found


def foreseen(plan: Plan, course: Course, *, after: int, tokens_per_s: float = 300.0) -> tuple[float, float]:
    """Right after so many steps: the seconds that were foreseen, and those that it took."""
    remaining, now, answer, answered_at = Remaining(plan), 1000.0, None, 0.0
    num_steps = 0
    for part, seconds in course.parts(plan):
        if num_steps == after and answer is None:
            answer, answered_at = remaining.seconds(now), now
        remaining.begins(part, now)
        if part is Part.evaluation:
            remaining.sampled(round(course.evaluation * tokens_per_s))
        now += seconds
        if part is Part.step:
            num_steps += 1
            remaining.speed(tokens_per_s / (course.slow_start if num_steps == 1 else 1.0))
            remaining.ends(now)
    assert answer is not None
    return answer, now - answered_at


def plan(num_steps: int = 40, *, evaluate: int = 0, lift: LiftSchedule = LiftSchedule.first_and_last, save: int = 1) -> Plan:
    return plan_of(
        Config(
            num_steps=num_steps,
            name="run",
            algorithm=SDPOConfig(),
            model=ModelConfig(name="fake", path="fake"),
            env=EnvConfig(name="fake"),
            evaluation=EvaluationConfig(every=evaluate, lift=lift),
            checkpoint=CheckpointConfig(every=save),
        )
    )


PLANS = {
    "short": plan(10),
    "an evaluation every second step": plan(20, evaluate=2),
    "lift each time": plan(30, evaluate=5, lift=LiftSchedule.always),
    "evaluations that do not divide the steps": plan(50, evaluate=7, save=10),
    "a thousand steps": plan(1000, evaluate=50, save=100),
    "nothing but steps": Plan(num_steps=40, checkpoints=(40,)),
}
COURSES = {
    "even": Course(),
    "a slow start": Course(slow_start=4.0),
    "evaluations that take most": Course(step=10.0, evaluation=200.0, lift=100.0, slow_start=1.5),
    "big checkpoints": Course(checkpoint=80.0, slow_start=1.3),
    "chance": Course(noise=0.15, slow_start=3.0),
}


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("plan", PLANS)
def test_the_end_is_foreseen_within_a_fifth_after_three_steps(plan: str, course: str) -> None:
    said, true = foreseen(PLANS[plan], COURSES[course], after=3)
    assert said == pytest.approx(true, rel=WITHIN)


@pytest.mark.parametrize("after", [4, 10, 25, 39])
@pytest.mark.parametrize("course", COURSES)
def test_it_stays_foreseen(course: str, after: int) -> None:
    said, true = foreseen(plan(40, evaluate=8), COURSES[course], after=after)
    assert said == pytest.approx(true, rel=WITHIN)


RECORDED_STEPS = [1.05, 1.0, 0.94, 1.06, 1.23, 0.76, 0.83, 0.93, 0.93, 0.81, 0.85, 0.93]
RECORDED_SPEEDS = [1421, 1376, 1542, 1300, 1241, 1746, 1809, 1406, 1301, 1684, 1720, 1453]
RECORDED_EVALUATIONS = {0: 3.24, 4: 0.46, 8: 0.5, 12: 1.41}
"""Of a real run of the tiny model on two cores: 640 tokens each, the first with a cold engine; the last with the
lift in it, which was not timed by itself."""


@pytest.mark.parametrize("after", [3, 5, 8])
def test_the_end_of_a_recorded_run_is_foreseen(after: int) -> None:
    remaining, now, said_at = Remaining(Plan(num_steps=12, evaluations=sorted(RECORDED_EVALUATIONS))), 0.0, 0.0
    said: float | None = None
    for number in range(13):
        if number > 0:
            remaining.begins(Part.step, now)
            now += RECORDED_STEPS[number - 1]
            remaining.ends(now)
            remaining.speed(RECORDED_SPEEDS[number - 1])
        if number == after:
            said, said_at = remaining.seconds(now), now
        if number in RECORDED_EVALUATIONS:
            remaining.begins(Part.evaluation, now)
            remaining.sampled(640)
            now += RECORDED_EVALUATIONS[number]
            remaining.ends(now)
    assert said == pytest.approx(now - said_at, rel=WITHIN)


def test_one_step_that_hangs_does_not_make_a_run_seem_endless() -> None:
    said, true = foreseen(plan(100), Course(hiccup=6), after=12)
    assert said == pytest.approx(true, rel=WITHIN)


def test_steps_that_become_longer_are_followed() -> None:
    said, true = foreseen(plan(100), Course(growth=0.01), after=80)
    assert said == pytest.approx(true, rel=WITHIN)


def test_what_is_under_way_counts_only_with_what_is_left_of_it() -> None:
    remaining = Remaining(Plan(num_steps=3))
    for now in (0.0, 10.0):
        remaining.begins(Part.step, now)
    remaining.begins(Part.step, 20.0)
    assert [remaining.seconds(now) for now in (20.0, 26.0, 30.0, 99.0)] == [10.0, 4.0, 0.0, 0.0]


def test_nothing_is_foreseen_before_a_step_has_ended() -> None:
    remaining = Remaining(plan(10))
    assert remaining.seconds(0.0) is None
    remaining.begins(Part.evaluation, 0.0)
    assert remaining.seconds(60.0, share=0.5) is None
    remaining.begins(Part.step, 90.0)
    assert remaining.seconds(95.0) is None
    remaining.ends(140.0)
    assert remaining.seconds(140.0) is not None


def test_an_evaluation_alone_is_foreseen_by_its_own_progress() -> None:
    remaining = Remaining(Plan(num_steps=0, evaluations=(0,), lifts=(0,)))
    remaining.begins(Part.evaluation, 0.0)
    assert remaining.seconds(30.0) is None
    assert remaining.seconds(30.0, share=0.25) == 90.0 + 120.0, "the teacher will take about as long"
    remaining.begins(Part.lift, 120.0)
    assert remaining.seconds(150.0, share=0.75) == 10.0
    remaining.ends(160.0)
    assert remaining.seconds(160.0) == 0.0


def test_a_continued_run_starts_with_what_was_recorded_and_trusts_its_own_steps_once_it_has_some() -> None:
    """It may go on on another machine."""
    remaining = Remaining(plan(20, evaluate=10))
    remaining.go_back(5, {Part.step: [90.0, 30.0, 30.0, 30.0, 30.0], Part.evaluation: [70.0], Part.checkpoint: [2.0] * 5})
    assert remaining.seconds(0.0) == 15 * 30.0 + 2 * (70.0 + 0.0) + 70.0 + 15 * 2.0
    remaining.begins(Part.step, 0.0)
    remaining.ends(200.0)
    assert remaining.typical(Part.step) == 30.0, "its own first one is slow"
    for number in range(1, 3):
        remaining.begins(Part.step, 200.0 + 12.0 * number)
        remaining.ends(200.0 + 12.0 * (number + 1))
    assert remaining.typical(Part.step) == 12.0


def test_a_run_that_went_back_has_the_steps_again_before_it() -> None:
    remaining = Remaining(Plan(num_steps=6, checkpoints=(2, 4, 6)))
    for now in (0.0, 10.0, 20.0, 30.0):
        remaining.begins(Part.step, now)
    remaining.go_back(2, {})
    assert remaining.seconds(35.0) == 40.0
    remaining.go_back(0, {})
    assert remaining.seconds(35.0) == 60.0


@pytest.mark.parametrize(
    ("changes", "evaluations", "lifts", "checkpoints"),
    [
        ({}, [0, 5], [0, 5], [1, 2, 3, 4, 5]),
        ({"evaluation": EvaluationConfig(every=2)}, [0, 2, 4, 5], [0, 5], [1, 2, 3, 4, 5]),
        ({"evaluation": EvaluationConfig(every=2, lift=LiftSchedule.always)}, [0, 2, 4, 5], [0, 2, 4, 5], [1, 2, 3, 4, 5]),
        ({"evaluation": EvaluationConfig(num_tasks=0), "checkpoint": CheckpointConfig(every=4)}, [], [], [4, 5]),
        ({"algorithm": GRPOConfig()}, [0, 5], [], [1, 2, 3, 4, 5]),
    ],
)
def test_a_plan_has_what_the_loop_does(
    changes: dict[str, object], evaluations: list[int], lifts: list[int], checkpoints: list[int]
) -> None:
    config = Config(
        num_steps=5, name="run", algorithm=SDPOConfig(), model=ModelConfig(name="fake", path="fake"), env=EnvConfig(name="fake")
    )
    found = plan_of(replace(config, **changes))  # type: ignore[arg-type]
    assert (found.evaluations, found.lifts, found.checkpoints) == (evaluations, lifts, checkpoints)
