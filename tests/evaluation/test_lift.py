"""Teacher lift: unbiased although hints are chosen by outcome, and how teacher_lift() asks for it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import pytest

from sdpo.attempts.survey import Survey
from sdpo.commands.evaluate import survey_of
from sdpo.config import EvaluateConfig, HindsightConfig, HintChoice
from sdpo.errors import UserError
from sdpo.evaluation.heldout import evaluate
from sdpo.evaluation.lift import cross_fitted_hints, lift_metrics, low_lift, teacher_lift
from sdpo.hindsight.hints import choose_hints, hint_of
from sdpo.metrics import METRICS, lift_in_words
from sdpo.protocols import Sampler, Watcher
from sdpo.types import (
    Attempt,
    Completion,
    Evaluation,
    Finish,
    Group,
    Hint,
    Lift,
    Message,
    Prompt,
    Reply,
    Role,
    Sampling,
    SetAside,
    Task,
    Verdict,
)

FAILURES_ONLY = HindsightConfig(solved_get_hints=False)


def group(outcomes: Sequence[bool], name: str = "task") -> Group:
    """Each attempt's text is its place; a failed one is told so."""
    attempts = tuple(
        Attempt(
            completion=Completion(
                token_ids=(1,), logprobs=(-1.0,), text=f"answer {place}", finish=Finish.stop, weights_version=0
            ),
            verdict=Verdict(reward=float(solved), feedback=None if solved else f"wrong {place}"),
        )
        for place, solved in enumerate(outcomes)
    )
    return Group(
        task=Task(id=name, env="test", messages=(Message(role=Role.user, content="?"),)), prompt_ids=(1,), attempts=attempts
    )


def simulated(
    num_tasks: int, k: int, seed: int, after: Callable[[float, Hint], float], hindsight: HindsightConfig
) -> tuple[dict[str, float], float]:
    """The metrics for tasks of random difficulty p, whose attempts succeed with p and whose hinted answers with
    ``after(p, hint)``; and what pairing each hinted answer with its own attempt would have said."""
    draw = random.Random(seed)
    groups, hints, reached, naive = [], [], [], []
    for index in range(num_tasks):
        p = 0.7 * draw.random()
        tried = group([draw.random() < p for _ in range(k)], f"task {index}")
        chosen = cross_fitted_hints(tried, hindsight, str(seed))
        solved = [None if hint is None else draw.random() < after(p, hint) for hint in chosen]
        groups.append(tried)
        hints.append(chosen)
        reached.append(solved)
        naive += [
            float(found) - attempt.verdict.is_solved
            for attempt, found in zip(tried.attempts, solved, strict=True)
            if found is not None
        ]
    return lift_metrics(groups, hints, reached), sum(naive) / len(naive)


def ignoring(p: float, hint: Hint) -> float:
    return p


def learning(p: float, hint: Hint) -> float:
    return p + (0.3 if hint.of("demonstration") else 0.1)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "hindsight", [FAILURES_ONLY, HindsightConfig(choice=HintChoice.feedback_only)], ids=["first", "feedback"]
)
def test_a_teacher_that_ignores_its_hint_has_no_lift_although_naive_pairing_sees_one(k: int, hindsight: HindsightConfig) -> None:
    metrics, naive = simulated(1500, k, k, ignoring, hindsight)
    assert naive > 0.15
    assert abs(metrics["lift"]) < 3.0 * metrics["lift/se"] < 0.06
    assert metrics["lift/plain"] == pytest.approx(metrics["lift/hindsight"], abs=0.06)


@pytest.mark.parametrize("hindsight", [FAILURES_ONLY, HindsightConfig()], ids=["failures", "all"])
def test_a_known_gain_is_found_for_each_kind_of_hint(hindsight: HindsightConfig) -> None:
    metrics, _ = simulated(3000, 4, 0, learning, hindsight)
    assert metrics["lift/demonstration"] == pytest.approx(0.3, abs=0.04)
    assert metrics["lift/feedback"] == pytest.approx(0.1, abs=0.04)
    assert metrics["lift/feedback"] < metrics["lift"] < metrics["lift/demonstration"]
    assert metrics["lift"] == pytest.approx(metrics["lift/hindsight"] - metrics["lift/plain"])


def test_small_evaluations_are_unbiased_on_average_and_their_error_is_what_they_scatter_by() -> None:
    """Of twelve tasks each: a mean of the tasks' means would be off here."""
    runs = [simulated(12, 4, seed, ignoring, FAILURES_ONLY)[0] for seed in range(400)]
    lifts = [run["lift"] for run in runs]
    mean = sum(lifts) / len(lifts)
    scatter = math.sqrt(sum((lift - mean) ** 2 for lift in lifts) / (len(lifts) - 1))
    assert abs(mean) < 3.0 * scatter / math.sqrt(len(lifts))
    assert sum(run["lift/se"] for run in runs) / len(runs) == pytest.approx(scatter, rel=0.15)


@pytest.mark.parametrize("k", [2, 3, 4, 7])
def test_a_hint_quotes_attempts_of_its_own_half_alone(k: int) -> None:
    for bits in range(2**k):
        tried = group([bool(bits >> place & 1) for place in range(k)])
        for place, hint in enumerate(cross_fitted_hints(tried, HindsightConfig(choice=HintChoice.both), "seed")):
            if hint is not None and hint.of("demonstration") is not None:
                other = int(hint.of("demonstration").removeprefix("answer "))
                assert other != place
                assert other % 2 == place % 2
                assert tried.attempts[other].verdict.is_solved
            if hint is not None and hint.of("feedback") is not None:
                assert hint.of("feedback") == f"wrong {place}"


def test_the_numbers_by_hand() -> None:
    """Task one: halves (solved, failed) and (failed, failed); three failures get hints: one a demonstration, which helps, and
    two feedback, of which one helps. The other half's success is 0, ½ and ½."""
    one, two = group([True, False, False, False], "one"), group([True, True], "two")
    hints = [cross_fitted_hints(one, FAILURES_ONLY, "seed"), cross_fitted_hints(two, FAILURES_ONLY, "seed")]
    assert [hint and hint.kind for hint in hints[0]] == [None, "feedback", "demonstration", "feedback"]
    metrics = lift_metrics((one, two), hints, ((None, True, True, False), (None, None)))
    assert metrics == pytest.approx(
        {
            "lift": (0.5 + 1.0 - 0.5) / 3,
            "lift/plain": 1 / 3,
            "lift/hindsight": 2 / 3,
            "lift/demonstration": 1.0,
            "lift/feedback": 0.0,
            "lift/share": 0.5,
        }
    )
    assert set(metrics) <= set(METRICS)


def test_a_few_tasks_have_no_error_even_where_all_go_the_same_way() -> None:
    """Two held-out answers gave a lift of -100.0 % ± 0.0 %, a warning and an alarm."""
    hint = hint_of(demonstration=None, feedback="no")
    for num, is_said in ((2, False), (3, False), (4, True)):
        groups_P = tuple(group([True, True], f"task{index}") for index in range(num))
        metrics = lift_metrics(groups_P, [[hint, hint]] * num, [[False, False]] * num)
        assert metrics["lift"] == -1.0
        assert ("lift/se" in metrics) == is_said


def test_what_nothing_speaks_for_is_left_out() -> None:
    lone, solved = group([False]), group([True, True])
    assert lift_metrics((lone,), ((None,),), ((None,),)) == {}
    assert lift_metrics((solved,), ((None, None),), ((None, None),)) == {"lift/share": 0.0}
    assert lift_metrics((), (), ()) == {}
    failed = group([False, False])
    hints = cross_fitted_hints(failed, FAILURES_ONLY, "seed")
    assert lift_metrics((failed,), (hints,), ((None, None),)) == {"lift/share": 1.0}, "no verdict, no lift"


def test_an_answer_without_a_verdict_leaves_both_sides_of_the_comparison() -> None:
    tried = group([True, False, True, False])
    hints = cross_fitted_hints(tried, FAILURES_ONLY, "seed")
    metrics = lift_metrics((tried,), (hints,), ((None, None, None, True),))
    assert (metrics["lift/plain"], metrics["lift/hindsight"]) == (1.0, 1.0)


class Rendered:
    """Hindsight prompts end in the number of the attempt that is quoted; a hint of attempt 6 cannot be shown."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        raise AssertionError("the policy has been asked already")

    def reply(self, text: str, *, after: int) -> tuple[int, ...]:
        raise AssertionError("there is one turn")

    def hindsight_prompt(self, task: Task, hint: Hint) -> tuple[int, ...] | None:
        place = int((hint.of("demonstration") or hint.of("feedback") or "").split()[1])
        return None if place == 6 else (50, place)


class Model:
    """Answers last things first, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Prompt] = []
        self.sampling: list[Sampling] = []

    def load(self, weights: object, *, version: int) -> None:
        raise AssertionError("the weights that are there are asked")

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        self.asked += prompts
        self.sampling.append(sampling)
        for prompt in reversed(prompts):
            text = str(prompt.token_ids[-1])
            yield (
                prompt,
                Completion(token_ids=(2,), logprobs=(-1.0,), text=text, finish=Finish.stop, weights_version=3),
            )


class Knows:
    """Solved where the answer names attempt 1; breaks where told to."""

    def __init__(self, *, breaks_on: str = "") -> None:
        self._breaks_on = breaks_on

    def reply(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Reply | SetAside]]:
        raise AssertionError("there is one turn")

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, completion in completions:
            if completion.text == self._breaks_on:
                yield prompt, SetAside(completion=completion, error="Traceback")
            else:
                yield prompt, Attempt(completion=completion, verdict=Verdict(reward=float(completion.text == "1")))


class Quiet(Watcher):
    """A watcher that remembers its phases."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def watch(self, completions: Iterable[tuple[Prompt, Completion]], total: int) -> Iterator[tuple[Prompt, Completion]]:
        yield from completions


SAMPLING = Sampling(temperature=0.6, top_p=0.95, max_response_tokens=8)
GROUPS = (group([True, False, False, False], "one"), group([True] * 7, "two"), group([False, False], "three"))


def asked(engine: Model, verifier: Knows, log: Quiet, groups: tuple[Group, ...] = GROUPS, *, k: int = 4, seed: int = 0) -> Lift:
    evaluation = Evaluation(num_attempts=k, groups=groups, metrics={})
    survey = Survey(
        sampler=Sampler(engine=engine, verifier=verifier, renderer=Rendered()),  # type: ignore[arg-type]
        tasks_P=tuple(group.task for group in groups),
        num_attempts=k,
        sampling=SAMPLING,
        seed=seed,
        max_set_aside_share=0.45,
    )
    return teacher_lift(survey, evaluation, FAILURES_ONLY, log)


def test_one_answer_is_sampled_for_each_hint_with_seeds_that_do_not_change() -> None:
    engine, log = Model(), Quiet()
    first, second = asked(engine, Knows(), log), asked(engine, Knows(), log)
    assert [prompt.token_ids for prompt in engine.asked[:5]] == [(50, 1), (50, 0), (50, 3), (50, 0), (50, 1)]
    assert engine.asked[:5] == engine.asked[5:]
    assert len({prompt.seed for prompt in engine.asked[:5]}) == 5
    assert first == second
    asked(engine, Knows(), log, seed=1)
    assert {prompt.seed for prompt in engine.asked[:5]}.isdisjoint(prompt.seed for prompt in engine.asked[10:])
    assert engine.sampling == [SAMPLING] * 3
    assert log.phases == ["lift"] * 3


def test_the_answers_are_kept_with_the_hints_that_they_were_given() -> None:
    lift = asked(Model(), Knows(), Quiet())
    assert [[attempt.completion.text for attempt in of_task.attempts] for of_task in lift.groups] == [
        ["1", "0", "3"],
        [],
        ["0", "1"],
    ]
    assert [[hint.kind for hint in hints] for hints in lift.hints] == [
        ["feedback", "demonstration", "feedback"], [], ["feedback", "feedback"],
    ]  # fmt: skip
    assert lift.metrics["lift/hindsight"] == pytest.approx(2 / 5)
    assert lift.metrics["lift/share"] == pytest.approx(5 / 13)


def test_a_broken_verdict_is_set_aside_with_its_hint_and_too_many_are_refused() -> None:
    lift = asked(Model(), Knows(breaks_on="0"), Quiet())
    assert [len(of_task.set_aside) for of_task in lift.groups] == [1, 0, 1]
    assert [len(hints) for hints in lift.hints] == [2, 0, 1]
    assert lift.metrics["lift/hindsight"] == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="verification broke"):
        asked(Model(), Knows(breaks_on="0"), Quiet(), (GROUPS[2], replace(GROUPS[2], attempts=GROUPS[2].attempts[:1])))


def test_a_hint_that_leaves_nothing_in_the_prompt_is_none() -> None:
    tried = group([True] * 6 + [False])
    lift = asked(Model(), Knows(), Quiet(), (replace(tried, attempts=(tried.attempts[1], tried.attempts[6])),), k=2)
    assert lift.metrics == {"lift/share": 0.0}
    assert lift.groups[0].attempts == ()


def test_nothing_is_sampled_where_there_is_no_hint() -> None:
    engine = Model()
    assert asked(engine, Knows(), Quiet(), (group([True, True]),)).metrics == {"lift/share": 0.0}
    assert engine.sampling == []


def test_a_single_attempt_a_task_is_refused() -> None:
    with pytest.raises(UserError, match="at least 2 attempts"):
        asked(Model(), Knows(), Quiet(), k=1)


def lift_of(num: int, **metrics: float) -> Lift:
    values = {"lift": 0.0, "lift/se": 0.0, "lift/plain": 0.1, "lift/hindsight": 0.1, "lift/share": 1.0}
    named = {name.replace("lift_", "lift/"): value for name, value in metrics.items()}
    return Lift(groups=(group([False] * num),), hints=(), metrics={**values, **named})


def test_a_lift_is_low_only_beyond_its_error() -> None:
    assert low_lift(lift_of(200), 0.02) is not None
    assert low_lift(lift_of(200, lift_se=0.03), 0.02) is None, "it may be 6%"
    assert low_lift(lift_of(200, lift=-0.1, lift_se=0.03), 0.02) is not None
    assert low_lift(lift_of(20), 0.02) is None, "twenty failures are no proof"
    assert low_lift(replace(lift_of(20), metrics={"lift/share": 0.0}), 0.02) is None, "nothing was measured"


def test_a_low_lift_is_told_with_its_numbers_and_what_to_do() -> None:
    said = low_lift(lift_of(200, lift=-0.05, lift_se=0.01, lift_plain=0.15, lift_feedback=-0.05), 0.02) or ""
    for part in ("min_lift=2.0%", "-5.0% ± 1.0% (feedback -5.0%)", "from 15.0% to 10.0%", "sdpo warmup", "policy_gradient_share"):
        assert part in said


def test_the_lift_in_words() -> None:
    metrics = {"lift": 0.125, "lift/se": 0.031, "lift/demonstration": 0.2, "lift/feedback": 0.03}
    assert lift_in_words(metrics) == "+12.5% ± 3.1% (demonstration +20.0%, feedback +3.0%)"
    assert lift_in_words({"lift": -0.5, "lift/feedback": -0.5}) == "-50.0% (feedback -50.0%)"
    assert "no attempt had a hint" in lift_in_words({"lift/share": 0.0})


def test_training_hints_come_from_all_siblings_and_measured_ones_from_half_of_them() -> None:
    tried = group([True, False])
    assert choose_hints(tried, FAILURES_ONLY, "seed")[1] is not None
    hint = cross_fitted_hints(tried, FAILURES_ONLY, "seed")[1]
    assert hint is not None
    assert hint.of("demonstration") is None


class Plain(Rendered):
    """Every task's own prompt is the same."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        return (1,)


class OneSolves(Knows):
    """The first of a task's attempts is right, the second is told that it is wrong, and whoever is told so knows better."""

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, completion in completions:
            is_solved = prompt.attempt_index == 0 or prompt.token_ids[0] == 50
            verdict = Verdict(reward=float(is_solved), feedback=None if is_solved else "wrong 1")
            yield prompt, Attempt(completion=completion, verdict=verdict)


def test_sdpo_evaluate_measures_lift_where_it_is_asked_for() -> None:
    tasks = [of_task.task for of_task in GROUPS]
    for is_asked in (False, True):
        config = EvaluateConfig(k=2, lift=is_asked)
        engine = Model()
        sampler = Sampler(engine=engine, verifier=OneSolves(), renderer=Plain())  # type: ignore[arg-type]
        survey = survey_of(config, sampler, tuple(tasks))
        evaluation = evaluate(survey, Quiet())
        lift = teacher_lift(survey, evaluation, config.hindsight, Quiet()).metrics if config.lift else {}
        assert evaluation.metrics["heldout/success"] == 0.5
        assert len(engine.asked) == (3 * 2 + 3 if is_asked else 3 * 2)
        assert lift == ({"lift": 0.0, "lift/plain": 1.0, "lift/hindsight": 1.0, "lift/feedback": 0.0,
                         "lift/share": 0.5} if is_asked else {})  # fmt: skip
