"""A search on fakes: what each strategy asks and learns from, when it ends, and how it goes on."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sdpo.config import BatchConfig, BudgetConfig, EnvConfig, ModelConfig, SDPOConfig, SolveConfig
from sdpo.errors import UserError
from sdpo.plugins.seams import STRATEGIES
from sdpo.protocols import Sampler
from sdpo.solving.folder import SearchFolder
from sdpo.solving.jobs import Job, Jobs
from sdpo.solving.parts import Parts, SearchLog
from sdpo.solving.search import Ending, Search
from sdpo.solving.solve import solve
from sdpo.solving.strategy import strategy as named
from sdpo.types import Attempt, Completion, Finish, Message, Prompt, Ranks, Role, Sampling, SetAside, Task, Verdict
from tests.loop.fakes import FakeLearner, FakeRenderer, task

TASK = task("hard")
LEARNING = ["sdpo", "sdpo_multi_turn"]


@dataclass
class Engine:
    """Answers with the version of the weights, what is asked, and the seed: nothing else decides an attempt."""

    loaded: tuple[object, int] = ("nothing", -1)
    asked: list[Prompt] = field(default_factory=list)

    def load(self, weights: object, *, version: int) -> None:
        self.loaded = (weights, version)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        self.asked += prompts
        for prompt in prompts:
            text = f"{self.loaded[0]}/{prompt.seed}"
            version = self.loaded[1]
            yield (
                prompt,
                Completion(
                    token_ids=(1 + prompt.attempt_index, 9),
                    logprobs=(-1.0, -1.0),
                    text=text,
                    finish=Finish.stop,
                    weights_version=version,
                ),
            )


@dataclass
class Verifier:
    """``judge`` says of the number-th text it is asked of; None: it breaks."""

    judge: Callable[[int], Verdict | None]
    num: int = 0

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, completion in completions:
            verdict = self.judge(self.num)
            self.num += 1
            yield (
                prompt,
                SetAside(completion=completion, error="Traceback: broken")
                if verdict is None
                else Attempt(completion=completion, verdict=verdict),
            )

    def reply(self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]) -> Iterator[object]:
        raise AssertionError("nobody replies here")


class Learner(FakeLearner):
    """Its weights are the number of updates it took; states are files with that."""

    def weights(self) -> object:
        return f"after {len(self.updates)}"

    def keep(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "learner.json").write_text(f'{{"step": {self.step}, "num_updates": {len(self.updates)}}}')

    def restore(self, path: Path) -> None:
        counters = (path / "learner.json").read_text()
        self.step, num = (int(part.strip(" }").rpartition(" ")[2]) for part in counters.split(","))
        self.updates = [None] * num  # type: ignore[list-item]


class Renderer(FakeRenderer):
    """Tells every failure."""

    def prompt(self, task: Task) -> tuple[int, ...]:
        return tuple(map(ord, task.messages[-1].content))

    def with_feedback(self, task: Task, feedbacks: Sequence[str]) -> Task:
        return replace(task, messages=(Message(role=Role.user, content="|".join([task.messages[-1].content, *feedbacks])),))


@dataclass
class Log(SearchLog):
    """Keeps the warnings."""

    warnings: list[str] = field(default_factory=list)
    stop_after: int = 10**9

    def begins(self, title: str) -> None:
        """Not looked at."""

    def watch(self, completions: Iterable[tuple[Prompt, Completion]], total: int) -> Iterator[tuple[Prompt, Completion]]:
        yield from completions

    def told(self, search: Search) -> None:
        if search.num_steps >= self.stop_after:
            raise KeyboardInterrupt

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


def failing(number: int) -> Verdict:
    return Verdict(reward=0.0, feedback=f"failure {number % 3}")


class Run:
    """A search to its end, with machines of its own."""

    def __init__(
        self,
        folder: Path,
        strategy: str = "sdpo",
        judge: Callable[[int], Verdict | None] = failing,
        *,
        attempts: int = 12,
        log: Log | None = None,
        stop_at_once: bool = True,
        **changes: object,
    ) -> None:
        self.engine, self.verifier = Engine(), Verifier(judge)
        self.learner, self.log = Learner([], ranks=Ranks(num=1, pairs_per_token=100.0)), log or Log()
        self.config = replace(config(strategy, attempts), **changes)  # type: ignore[arg-type]
        self.folder = SearchFolder(folder)
        self.search, self.ending = solve(
            TASK,
            self.config,
            named(strategy),
            self.parts,
            self.folder,
            self.log,
            seed=0,
            stop_at_once=stop_at_once,
        )

    @property
    def parts(self) -> Parts:
        return parts_of(self.engine, self.verifier, self.learner)


def parts_of(engine: Engine, verifier: Verifier, learner: Learner) -> Parts:
    return Parts(sampler=Sampler(engine=engine, verifier=verifier, renderer=Renderer()), learner=learner)  # type: ignore[arg-type]


def config(strategy: str = "sdpo", attempts: int = 12) -> SolveConfig:
    return SolveConfig(
        task="hard",
        strategy=strategy,
        name="test",
        budget=BudgetConfig(attempts=attempts),
        algorithm=SDPOConfig(),
        model=ModelConfig(name="fake", path="fake"),
        env=EnvConfig(name="fake"),
        batch=BatchConfig(num_tasks=1, group_size=4),
    )


def texts(folder: Path) -> list[str]:
    return [one.text for step in SearchFolder(folder).steps() for one in step.attempts]


@pytest.mark.parametrize("strategy", list(STRATEGIES.built_in))
def test_every_strategy_spends_its_budget_and_no_more(strategy: str, tmp_path: Path) -> None:
    run = Run(tmp_path, strategy, attempts=10)
    assert (run.ending, run.search.spent.attempts, len(run.engine.asked)) == (Ending.attempts, 10, 10)


@pytest.mark.parametrize("strategy", list(STRATEGIES.built_in))
def test_learners_learn_from_every_failure_and_others_from_none(strategy: str, tmp_path: Path) -> None:
    run = Run(tmp_path, strategy)
    learned = [update.num_learned_rows for update in run.learner.updates]
    assert learned == ([4, 4, 4] if named(strategy).learns else [])
    assert run.engine.loaded[1] == (2 if named(strategy).learns else 0)


@pytest.mark.parametrize("strategy", list(STRATEGIES.built_in))
def test_turns_are_told_every_distinct_failure_and_others_the_question_alone(strategy: str, tmp_path: Path) -> None:
    run = Run(tmp_path, strategy)
    asked = ["".join(map(chr, prompt.token_ids)) for prompt in run.engine.asked[::4]]
    shows = named(strategy).shows_feedback
    # Four verdicts a step, of three kinds: the one that happened last comes last.
    told = ["hard", "hard|failure 1|failure 2|failure 0", "hard|failure 2|failure 0|failure 1"]
    assert asked == (told if shows else ["hard"] * 3)


def test_the_first_attempts_are_the_same_whatever_the_strategy(tmp_path: Path) -> None:
    first = {strategy: texts_of(Run(tmp_path / strategy, strategy)) for strategy in STRATEGIES.built_in}
    assert len({tuple(found[:4]) for found in first.values()}) == 1
    assert len({tuple(found) for found in first.values()}) == 2, "the fake engine does not read the question"


def texts_of(run: Run) -> list[str]:
    return texts(run.folder.path)


def test_a_solution_ends_the_search_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path, judge=lambda number: Verdict(reward=float(number == 5), feedback="no"))
    assert (run.ending, run.search.spent.attempts) == (Ending.solved, 6)
    assert run.search.solution is not None
    assert len(run.learner.updates) == 1, "nothing is learned from the step that solved it"


def test_a_step_that_is_finished_knows_which_attempt_was_the_first(tmp_path: Path) -> None:
    run = Run(tmp_path, judge=lambda number: Verdict(reward=float(number >= 5), feedback="no"), stop_at_once=False)
    assert (run.search.spent.attempts, run.search.solved_at.attempts if run.search.solved_at else None) == (8, 6)


def test_a_verifier_that_always_passes_ends_with_the_first_attempt(tmp_path: Path) -> None:
    run = Run(tmp_path, judge=lambda number: Verdict(reward=1.0))
    assert (run.ending, run.search.spent.attempts) == (Ending.solved, 1)


def test_a_verifier_that_always_breaks_is_the_environments_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"may be set aside[\s\S]*Traceback: broken"):
        Run(tmp_path, judge=lambda number: None)
    assert texts(tmp_path) == [], "what could not be verified is asked again"


@pytest.mark.parametrize("strategy", LEARNING)
def test_an_environment_that_says_nothing_is_warned_of(strategy: str, tmp_path: Path) -> None:
    run = Run(tmp_path, strategy, judge=lambda number: Verdict(reward=0.0))
    assert [warning.partition(": ")[2] for warning in run.log.warnings] == [
        "the environment said nothing of any failure, so there was nothing to learn from"
    ] * 3
    assert run.search.num_learned == 0


@pytest.mark.parametrize("strategy", list(STRATEGIES.built_in))
@pytest.mark.parametrize("keep_every", [1, 2])
def test_a_killed_search_goes_on_with_the_attempts_it_would_have_made(strategy: str, keep_every: int, tmp_path: Path) -> None:
    whole = texts_of(Run(tmp_path / "whole", strategy, attempts=24, keep_every=keep_every))
    for stop_after in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            Run(tmp_path / "killed", strategy, attempts=24, keep_every=keep_every, log=Log(stop_after=stop_after))
    assert texts_of(Run(tmp_path / "killed", strategy, attempts=24, keep_every=keep_every)) == whole


def test_a_state_without_its_step_is_not_gone_on_from(tmp_path: Path) -> None:
    """The kill came between the state and the line: the step is done again, from the state before it."""
    whole = texts_of(Run(tmp_path / "whole"))
    killed = Run(tmp_path / "killed").folder
    lines = (killed.path / "steps.jsonl").read_text().splitlines(keepends=True)
    (killed.path / "steps.jsonl").write_text("".join(lines[:2]))
    assert texts_of(Run(tmp_path / "killed")) == whole


def test_a_larger_budget_continues_and_the_same_one_does_nothing(tmp_path: Path) -> None:
    Run(tmp_path, attempts=8)
    again = Run(tmp_path, attempts=8)
    assert again.engine.asked == []
    assert len(Run(tmp_path, attempts=12).engine.asked) == 4


def test_tasks_one_after_the_other_get_the_attempts_that_each_gets_alone(tmp_path: Path) -> None:
    tasks = [task("one"), task("two"), task("three")]
    together = _jobs(tmp_path / "together", tasks)
    alone = [_jobs(tmp_path / "alone", [one])[0] for one in reversed(tasks)]
    assert together == list(reversed(alone))
    assert len({tuple(found) for found in together}) == 3


def test_what_another_process_works_on_is_left_to_it(tmp_path: Path) -> None:
    with SearchFolder(tmp_path / "one").claimed():
        assert _jobs(tmp_path, [task("one"), task("two")])[0] == []
    assert len(_jobs(tmp_path, [task("one"), task("two")])[0]) == 12


def test_what_a_killed_process_kept_is_removed_by_the_next(tmp_path: Path) -> None:
    """A learner's first state is as large as a checkpoint."""
    with subprocess.Popen(["true"]) as gone:
        pass
    kept = [tmp_path / f"{dots}beginning-{platform.node()}-{gone.pid}{rest}" for dots, rest in ((".", ""), ("..", ".partial"))]
    elsewhere = tmp_path / f".beginning-elsewhere-{gone.pid}"
    for left in (*kept, elsewhere):
        left.mkdir()
    _jobs(tmp_path, [task("one")])
    assert list(tmp_path.glob("*beginning-*")) == [elsewhere]


def _jobs(folder: Path, tasks: Sequence[Task]) -> list[list[str]]:
    """The texts that each task was answered with."""
    learner = Learner([], ranks=Ranks(num=1, pairs_per_token=100.0))
    parts = parts_of(Engine(), Verifier(failing), learner)
    jobs = [Job(task=one, strategy="sdpo", seed=0, folder=SearchFolder(folder / one.id), title=one.id) for one in tasks]
    searches = Jobs(config(), jobs, stop_at_once=True)
    searches.work(parts, Log(), folder, lambda job, search, ending: None)  # type: ignore[arg-type]
    return [texts(job.folder.path) for job in jobs]
