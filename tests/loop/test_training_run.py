"""A learner that is lost, on fakes: where the run goes on, what it forgets, and when it gives up."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from rich.console import Console

from sdpo.commands.training_run import TrainingRun, standing
from sdpo.config import (
    AlgorithmConfig,
    BatchConfig,
    CheckpointConfig,
    Config,
    EnvConfig,
    EvaluationConfig,
    GRPOConfig,
    HindsightConfig,
    LearnerConfig,
    ModelConfig,
    RolloutConfig,
    SDPOConfig,
    TaskOrderConfig,
    TrackingConfig,
)
from sdpo.errors import LearnerLost, LearnerOutOfMemory, MachineError, OutOfMemory, UserError
from sdpo.hindsight.hints import no_reference
from sdpo.learner import checkpoint
from sdpo.learner.checkpoint import Counters
from sdpo.preflight.checks import Ready
from sdpo.protocols import Sampler
from sdpo.run.folder import RunFolder, records
from sdpo.run.watchdog import Progress
from sdpo.terminal.live import Terminal
from sdpo.terminal.stop_request import StopRequest
from sdpo.types import Completion, Metrics, Prompt, Ranks, Sampling, Update
from tests.loop.fakes import FakeEngine, FakeLearner, FakeRenderer, FakeVerifier, task

TASKS = tuple(task(f"task {index}") for index in range(6))
HELDOUT = tuple(task(f"heldout {index}") for index in range(2))


@dataclass
class MortalLearner(FakeLearner):
    """Writes the counters of its checkpoints, and fails where it is told to."""

    deaths: list[str] = field(default_factory=list)
    """Events in which it dies, the next one first: ``update 3`` is that of the third step, ``rebuild`` any."""
    error: MachineError = field(default_factory=lambda: LearnerLost("rank 1 of the learner died.\nThe end of LOG:\nbang"))
    is_whole: bool = True

    def _may_die(self, event: str) -> None:
        if self.deaths and self.deaths[0] == event:
            self.deaths.pop(0)
            raise self.error

    def update(self, update: Update, algorithm: AlgorithmConfig) -> Metrics:
        self._may_die(f"update {self.step + 1}")
        return super().update(update, algorithm)

    def save(self, path: Path, *, score: float | None) -> None:
        scratch = checkpoint.begin(path)
        (scratch / "rank-00000.safetensors").write_text("half of it")
        self._may_die(f"save {self.step}")
        super().save(path, score=score)
        checkpoint.commit(path, Counters(step=self.step, num_updates=self.step, score=score))

    def rebuild(self) -> None:
        self.events.append("rebuild")
        self._may_die("rebuild")
        self.step = 0

    def restore(self, path: Path) -> None:
        self.events.append(f"restore {path.name}")
        self.step = checkpoint.counters_of(path).step


class Run:
    """A run of six steps with a checkpoint after every second, in a folder."""

    def __init__(self, path: Path, *deaths: str, **changes: object) -> None:
        config = Config(
            num_steps=6,
            name="run",
            algorithm=SDPOConfig(hindsight=HindsightConfig(success_buffer=2)),
            model=ModelConfig(name="fake", path="fake"),
            env=EnvConfig(name="fake"),
            batch=BatchConfig(num_tasks=2, group_size=4),
            evaluation=EvaluationConfig(every=2, num_tasks=2, num_attempts=2),
            checkpoint=CheckpointConfig(every=2),
            learner=LearnerConfig(max_restarts=2),
            tracking=TrackingConfig(tensorboard=False),
        )
        self.config = replace(config, **changes)  # type: ignore[arg-type]
        self.folder = RunFolder(path)
        self.folder.claim(self.config)
        self.screen = io.StringIO()
        self.events: list[str] = []
        self.stop = StopRequest()
        self.learner = MortalLearner(self.events, ranks=Ranks(num=1, pairs_per_token=100.0), deaths=list(deaths))

    def __call__(self) -> None:
        terminal = Terminal(Console(file=self.screen, width=120), "run", 6)
        TrainingRun(
            config=self.config,
            folder=self.folder,
            ready=Ready(
                model_path="fake",
                teacher_path=None,
                environment=None,  # type: ignore[arg-type]  # nobody asks it
                train=TASKS,
                heldout=HELDOUT,
                make_renderer=FakeRenderer,  # type: ignore[arg-type]
                references=no_reference,
            ),
            sampler=Sampler(
                engine=FakeEngine(self.events),
                verifier=FakeVerifier(),  # type: ignore[arg-type]  # one turn: it is not asked to reply
                renderer=FakeRenderer(),  # type: ignore[arg-type]
            ),
            learner=self.learner,
            terminal=terminal,
            stop=self.stop,
            progress=Progress(),
        ).go_on(standing(self.config, self.folder, terminal.warn))

    @property
    def said(self) -> str:
        return self.screen.getvalue().replace("\n", " ")

    def recorded(self) -> dict[str, object]:
        """All that a run keeps, but for what the clock says."""
        return {
            "metrics": [
                {name: value for name, value in row.items() if not name.startswith("time/") and name != "tokens_per_s"}
                for row in records(self.folder.metrics)
            ],
            "evaluations": [
                {name: value for name, value in record.items() if not name.startswith("time/")}
                for record in records(self.folder.evaluations)
            ],
            "tasks": records(self.folder.tasks),
            "rollouts": {path.name: path.read_text() for path in self.folder.rollouts.iterdir()},
            "checkpoints": {path.name: (path / checkpoint.COUNTERS).read_text() for path in self.folder.checkpoints.iterdir()},
        }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    run = Run(tmp_path_factory.mktemp("runs") / "run")
    run()
    return run.recorded()


@pytest.mark.parametrize(
    ("deaths", "events", "source"),
    [
        (["update 1"], ["rebuild"], "the start, as there is no checkpoint yet"),
        (["update 4"], ["rebuild", "restore step_000002"], "step_000002"),
        (["save 4"], ["rebuild", "restore step_000002"], "step_000002"),
        (["update 4", "rebuild"], ["rebuild", "rebuild", "restore step_000002"], "step_000002"),
        (
            ["update 3", "update 4", "update 5", "update 6"],  # two each between checkpoints
            ["rebuild", "restore step_000002"] * 2 + ["rebuild", "restore step_000004"] * 2,
            "step_000004",
        ),
    ],
)
def test_the_run_goes_on_from_the_last_whole_checkpoint_and_keeps_what_an_undisturbed_one_keeps(
    tmp_path: Path, undisturbed: dict[str, object], deaths: list[str], events: list[str], source: str
) -> None:
    run = Run(tmp_path / "run", *deaths)
    run()
    assert [event for event in run.events if event.startswith(("rebuild", "restore"))] == events
    assert f"warning: rank 1 of the learner died; the learner was rebuilt in 0.0 s from {source}, and the run goes on" in run.said
    assert run.recorded() == undisturbed
    assert run.learner.deaths == []


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_run_that_chooses_its_tasks_by_what_it_tried_chooses_the_same_when_it_goes_on(tmp_path: Path, staleness: int) -> None:
    changes = {
        "algorithm": GRPOConfig(replacement_rounds=1),
        "batch": BatchConfig(num_tasks=2, group_size=4, order=TaskOrderConfig(name="adaptive")),
        "rollout": RolloutConfig(staleness=staleness),
    }
    whole = Run(tmp_path / "whole", **changes)
    whole()
    run = Run(tmp_path / "run", "update 1", "save 4", "update 6", **changes)
    run()
    assert run.recorded()["tasks"] == whole.recorded()["tasks"]
    assert [record["step"] for record in records(run.folder.tasks)] == [1, 2, 3, 4, 5, 6]
    assert "tasks/preference" in records(run.folder.metrics)[-1]
    if staleness == 0:  # else it depends on the threads which weights sample what
        assert run.recorded() == whole.recorded()


def test_a_run_whose_record_of_what_it_tried_is_gone_does_not_go_on(tmp_path: Path) -> None:
    batch = BatchConfig(num_tasks=2, group_size=4, order=TaskOrderConfig(name="adaptive"))
    run = Run(tmp_path / "run", batch=batch, num_steps=2)
    run()
    lines = run.folder.tasks.read_text().splitlines(keepends=True)
    run.folder.tasks.write_text(lines[0])
    with pytest.raises(UserError, match=r"tasks.jsonl has no record of step 2"):
        run()


def test_a_run_that_learns_from_what_comes_keeps_no_record_of_what_it_tried(undisturbed: dict[str, object]) -> None:
    assert undisturbed["tasks"] == []


def test_the_engine_gets_the_weights_that_the_run_goes_on_with(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", "update 4")
    run()
    restored = run.events.index("restore step_000002")
    assert run.events[restored - 2 : restored + 2] == ["anchor", "rebuild", "restore step_000002", "load 2"]


def test_a_learner_that_is_lost_too_often_without_a_checkpoint_ends_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", "update 3", "update 3", "update 4")
    with pytest.raises(MachineError, match=r"once more than learner.max_restarts=2 allows .* rank 1 of the learner died"):
        run()
    assert run.events.count("rebuild") == 2
    assert [row["step"] for row in records(run.folder.metrics)] == [1, 2]
    run.learner.step = 0
    run()  # the same command continues
    assert [row["step"] for row in records(run.folder.metrics)] == [1, 2, 3, 4, 5, 6]


KILLED = LearnerOutOfMemory(
    "rank 1 of the learner was killed by Ray's memory monitor (95 % of 23.5 GiB used; it held 6.1 GiB).\nThe end of LOG:"
)


def test_a_step_that_dies_of_memory_twice_is_not_begun_a_third_time(tmp_path: Path) -> None:
    """It was begun until no restarts were left, and the user was told that a rank had died. Step 3 is repeated from step 2."""
    run = Run(tmp_path / "run", "update 4", "update 4", learner=LearnerConfig(max_restarts=9))
    run.learner.error = KILLED
    with pytest.raises(OutOfMemory, match=r"^step 4 died twice, so it is not begun a third time: rank 1 .* held 6.1 GiB\)\.$"):
        run()
    assert run.events.count("rebuild") == 1
    assert [path.name for path in checkpoint.checkpoints(run.folder.checkpoints)] == ["step_000002"]
    run.learner.step = 0
    run()  # with something changed, it would get through
    assert [row["step"] for row in records(run.folder.metrics)] == [1, 2, 3, 4, 5, 6]


def test_steps_that_die_of_memory_once_are_begun_again(tmp_path: Path, undisturbed: dict[str, object]) -> None:
    run = Run(tmp_path / "run", "update 3", "update 4", "update 6")
    run.learner.error = KILLED
    run()
    assert run.recorded() == undisturbed
    assert "rank 1 of the learner was killed by Ray's memory monitor (95 % of 23.5 GiB used; it held 6.1 GiB)" in run.said


def test_an_error_of_a_learner_that_is_there_ends_the_run(tmp_path: Path) -> None:
    """Three updates in a row that are not finite, an error inside a rank: a new learner would only meet it again."""
    run = Run(tmp_path / "run", "update 3")
    run.learner.error = MachineError("3 updates in a row had a loss or gradient that is not finite")
    with pytest.raises(MachineError, match="not finite"):
        run()
    assert "rebuild" not in run.events


def test_an_error_of_an_engine_is_the_learners_where_that_died(tmp_path: Path) -> None:
    """Weights on their way are gone with the rank that sent them, and then it is the engine that fails."""
    run = Run(tmp_path / "run", "update 3")
    run.learner.error, run.learner.is_whole = MachineError("a rollout engine did not take the weights of step 2"), False
    run()
    assert run.events.count("rebuild") == 1
    assert "the learner died, so a rollout engine did not take the weights of step 2; the learner was rebuilt" in run.said


def test_a_learner_is_not_rebuilt_for_a_run_that_shall_stop(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", "update 3")
    run.stop.is_set = False

    def stop_and_die(event: str) -> None:
        if event == "update 3":
            run.stop.is_set = True
            raise run.learner.error

    run.learner._may_die = stop_and_die  # type: ignore[method-assign]
    with pytest.raises(LearnerLost, match="rank 1 of the learner died"):
        run()
    assert "rebuild" not in run.events


def test_a_request_to_stop_waits_for_nothing_but_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was noted in the first evaluation, and in a rebuild, and then nobody looked for it for as long as they took."""
    run = Run(tmp_path / "run", "update 2")
    seen: list[tuple[str, bool]] = []
    sample, may_die = FakeEngine.sample, run.learner._may_die

    def noted_sample(engine: FakeEngine, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        seen.append(("sample", run.stop.can_wait))
        return sample(engine, prompts, sampling)

    def noted(event: str) -> None:
        seen.append((event, run.stop.can_wait))
        may_die(event)

    monkeypatch.setattr(FakeEngine, "sample", noted_sample)
    monkeypatch.setattr(run.learner, "_may_die", noted)
    run()
    assert seen[0] == ("sample", False)
    assert ("rebuild", False) in seen
    assert all(can_wait for event, can_wait in seen if event.startswith(("update", "save")))


def test_a_request_that_comes_while_a_checkpoint_is_written_waits_for_no_other_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more step was taken, for a checkpoint that was there."""
    run = Run(tmp_path / "run")

    def asked(event: str) -> None:
        run.stop.is_set = run.stop.is_set or event == "save 2"

    monkeypatch.setattr(run.learner, "_may_die", asked)
    run()
    assert [row["step"] for row in records(run.folder.metrics)] == [1, 2]
    assert [path.name for path in run.folder.checkpoints.iterdir()] == ["step_000002"]


def test_a_run_whose_newest_checkpoint_was_damaged_ends_as_an_undisturbed_one(
    tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    """The damaged weights were loaded and trained on, and the next checkpoint was of them."""
    run = Run(tmp_path / "run", "update 5")
    died = run.learner._may_die

    def damage_and_die(event: str) -> None:
        if event == "update 5" and run.learner.deaths:
            (run.folder.checkpoints / "step_000004" / "rank-00000.safetensors").write_text("HALF of it")
        died(event)

    run.learner._may_die = damage_and_die  # type: ignore[method-assign]
    run()
    assert "restore step_000002" in run.events
    assert "restore step_000004" not in run.events
    assert "warning: the checkpoint step_000004 is damaged: rank-00000.safetensors is not what was written" in run.said
    kept = run.folder.checkpoints / "step_000004.damaged"
    assert f"step_000004 is kept as {kept}".replace(" ", "") in run.said.replace(" ", "")
    assert (kept / "rank-00000.safetensors").read_text() == "HALF of it"
    shutil.move(kept, tmp_path)
    assert run.recorded() == undisturbed
