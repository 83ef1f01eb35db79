"""avg@k, pass@k and their error on held-out tasks, and how evaluate() asks for them."""

import math
from collections.abc import Iterable, Iterator, Sequence

import pytest

from sdpo.attempts.survey import Survey
from sdpo.evaluation.heldout import evaluate, heldout_metrics
from sdpo.protocols import Sampler, Watcher
from sdpo.types import (
    Attempt,
    Completion,
    Finish,
    Group,
    Hint,
    Message,
    Prompt,
    Role,
    Sampling,
    SetAside,
    Task,
    Verdict,
)

SAMPLING = Sampling(temperature=0.6, top_p=0.95, max_response_tokens=8)
TASKS = tuple(Task(id=f"sums/{n}", env="sums", messages=(Message(role=Role.user, content="?"),)) for n in range(3))


def completion(num_tokens: int = 1) -> Completion:
    ids = (1,) * num_tokens
    return Completion(token_ids=ids, logprobs=(-1.0,) * num_tokens, text="", finish=Finish.stop, weights_version=7)


def group(*rewards: float, num_tokens: int = 1) -> Group:
    attempts = tuple(Attempt(completion=completion(num_tokens), verdict=Verdict(reward=reward)) for reward in rewards)
    return Group(task=TASKS[0], prompt_ids=(1,), attempts=attempts)


def test_avg_and_pass_at_k_and_their_error_by_hand():
    """Success rates of ½, 0 and 1 over three tasks: standard deviation ½."""
    metrics = heldout_metrics((group(1.0, 0.5), group(0.0, 0.9), group(1.0, 1.0, num_tokens=4)))
    assert metrics == pytest.approx(
        {
            "heldout/success": 0.5,
            "heldout/pass_at_k": 2 / 3,
            "heldout/success_se": 0.5 / math.sqrt(3),
            "heldout/distinct": 0.5,
            "heldout/set_aside": 0.0,
            "heldout/response_tokens": 2.0,
        }
    )


def test_tasks_without_a_verdict_do_not_count():
    assert heldout_metrics((group(1.0, 0.0), group())) == heldout_metrics((group(1.0, 0.0),))


def test_one_task_has_no_error_estimate_and_none_has_no_success():
    assert heldout_metrics((group(1.0, 0.0),))["heldout/success_se"] == 0.0
    assert set(heldout_metrics(()).values()) == {0.0}


class Rendered:
    """A renderer whose prompts are the digits of the task's id."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        return (int(task.id.removeprefix("sums/")),)

    def hindsight_prompt(self, task: Task, hint: Hint) -> tuple[int, ...]:
        raise AssertionError("an evaluation gives no hindsight")


class Echo:
    """An engine that answers last things first, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Prompt, ...]] = []
        self.sampling: list[Sampling] = []

    def load(self, weights: object, *, version: int) -> None:
        raise AssertionError("an evaluation takes the weights that are there")

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        self.asked.append(tuple(prompts))
        self.sampling.append(sampling)
        yield from ((prompt, completion()) for prompt in reversed(prompts))


class SecondTaskIsEasy:
    """A verifier that calls the first attempt at the second task solved, and breaks on the third task."""

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, sampled in completions:
            if prompt.task_index == 2:
                yield prompt, SetAside(completion=sampled, error="Traceback")
            else:
                solved = tasks_P[prompt.task_index].id == "sums/1" and prompt.attempt_index == 0
                yield prompt, Attempt(completion=sampled, verdict=Verdict(reward=float(solved)))


class Silent(Watcher):
    """A watcher that counts what passes."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.total = 0

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def watch(self, completions: Iterable[tuple[Prompt, Completion]], total: int) -> Iterator[tuple[Prompt, Completion]]:
        self.total = total
        yield from completions


def evaluated(engine: Echo, log: Silent, seed: int = 0):
    survey = Survey(
        sampler=Sampler(engine=engine, verifier=SecondTaskIsEasy(), renderer=Rendered()),
        tasks_P=TASKS,
        num_attempts=4,
        sampling=SAMPLING,
        seed=seed,
        max_set_aside_share=0.5,
    )
    return evaluate(survey, log)


def test_evaluation_puts_the_groups_together_and_counts_them():
    log = Silent()
    evaluation = evaluated(Echo(), log)
    assert [group.task for group in evaluation.groups] == list(TASKS)
    assert [len(group.attempts) for group in evaluation.groups] == [4, 4, 0]
    assert [attempt.verdict.is_solved for attempt in evaluation.groups[1].attempts] == [True, False, False, False]
    assert evaluation.metrics["heldout/success"] == pytest.approx(1 / 8)
    assert evaluation.metrics["heldout/pass_at_k"] == pytest.approx(1 / 2)
    assert (evaluation.num_attempts, log.total, log.phases) == (4, 12, ["evaluate"])


def test_each_evaluation_of_a_run_asks_the_same_with_the_same_seeds():
    engine = Echo()
    evaluated(engine, Silent())
    evaluated(engine, Silent())
    evaluated(engine, Silent(), seed=1)
    first, second, other = engine.asked
    assert first == second
    assert [prompt.seed for prompt in first] != [prompt.seed for prompt in other]
    assert [prompt.token_ids for prompt in first[::4]] == [(0,), (1,), (2,)]
    assert engine.sampling == [SAMPLING] * 3
