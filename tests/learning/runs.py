"""One run of the gym: the trainer's own loop, engine and learner on the gym's model, in this process."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sdpo.attempts.asking import Answers, Questions
from sdpo.attempts.generation import rollouts_of
from sdpo.attempts.task_stream import TaskStream
from sdpo.attempts.tried import task_stream
from sdpo.config import Config
from sdpo.config.compose import train_config
from sdpo.guards.fold import Guards
from sdpo.hindsight.success_buffer import remembered
from sdpo.learner.engine import DeepSpeedLearner
from sdpo.learner.orders import Place, Scale
from sdpo.machines.local import LocalEngine, LocalLearner, LocalVerifier
from sdpo.preflight.checks import check_training
from sdpo.protocols import Rollouts, Sampler
from sdpo.rollout.engine import VllmEngine
from sdpo.run.folder import RunFolder
from sdpo.terminal.live import Terminal
from sdpo.terminal.stop_request import StopRequest
from sdpo.tracking.run_report import RunReport
from sdpo.tracking.tracker import Tracker
from sdpo.train import train
from sdpo.types import Evaluation, Lift
from tests.learning.late import Late

SOLVED = 0.95
"""Held-out success at which a run ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is run: words of ``sdpo train``."""

    name: str
    words: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What came out of it."""

    name: str
    seed: int
    generations: list[int]
    """Attempts sampled until each look at the held-out tasks."""
    success: list[float]
    """Held-out success at each evaluation."""
    tokens: list[int]
    """Sampled until then."""
    seconds: list[float]
    """Of the steps until then, without the evaluations."""
    credit: float
    """Mean hindsight credit of the first five steps, nats a token; 0 without a teacher."""
    wall_s: float = 0.0
    """Of the whole run."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class UntilSolved(RunReport):
    """Ends a run that has nothing left to learn."""

    _best: float = 0.0

    def evaluation(self, step: int, evaluation: Evaluation, lift: Lift | None) -> None:
        super().evaluation(step, evaluation, lift)
        self._best = max(self._best, evaluation.metrics["heldout/success"])

    @property
    def should_stop(self) -> bool:
        return self._best >= SOLVED or super().should_stop


class Gym:
    """An engine that is started once, and as many runs as are asked for."""

    def __init__(self, model: Path, folder: Path) -> None:
        """``folder`` keeps the runs' records."""
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
        self._model, self.folder = model, folder
        config = self._config(Case(name="none", words=("experiment=gym_sdpo",), seed=0))
        self._engine = LocalEngine(VllmEngine(str(model), max_model_tokens=256, config=config.rollout, seed=0))

    def run(self, case: Case) -> Curve:
        """The run's curve; its metrics stay in the folder of its name and seed."""
        config = self._config(case)
        folder = RunFolder(self.folder / config.name)
        ready = check_training(config, folder.path, lambda sentence: None)
        folder.claim(config)
        folder.forget_after(0)
        learner = DeepSpeedLearner(
            ready.model_path,
            None,
            config.learner,
            config.algorithm,
            Scale(temperature=config.sampling.temperature, max_response_tokens=config.sampling.max_response_tokens),
            Place(rank=0, num_ranks=1, rendezvous=f"file://{self.folder.absolute()}/.meet-{os.getpid()}"),
        )
        terminal = Terminal(Console(file=io.StringIO()), config.name, config.num_steps, quiet=True)
        tracker, guards = Tracker(folder, config.tracking), Guards(config)
        sampler = Sampler(engine=self._engine, verifier=LocalVerifier(ready.environment), renderer=ready.renderer)
        train(
            config,
            self._rollouts(config, task_stream(config, ready.train, folder, 0), sampler),
            ready.heldout,
            sampler,
            LocalLearner(learner, ready.model_path, config.algorithm, max_skipped_updates=config.learner.max_skipped_updates),
            UntilSolved(terminal, tracker, StopRequest(), guards),
            folder.checkpoints,
            guards,
            references=ready.references,
            successes=remembered(config.algorithm, ()),
        )
        return _curve(case, folder)

    def _rollouts(self, config: Config, tasks: TaskStream, sampler: Sampler) -> Rollouts:
        if config.rollout.staleness == 0:
            return rollouts_of(config, tasks, sampler)
        questions, answers = Questions(config, tasks, sampler.renderer), Answers(config, sampler, None)
        return Late(questions, answers, staleness=config.rollout.staleness, num_steps=config.num_steps)

    def _config(self, case: Case) -> Any:
        return train_config(
            [
                case.words[0],
                "tracking.tensorboard=false",
                "tracking.rollouts=false",
                "evaluation.lift=never",
                *case.words[1:],
                f"model.path={self._model}",
                f"seed={case.seed}",
                f"runs_dir={self.folder}",
                f"name={case.name}-s{case.seed}",
                "env.name=tests/learning/cipher.py:Cipher",
            ]
        )


def _curve(case: Case, folder: RunFolder) -> Curve:
    steps = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    evaluations = [json.loads(line) for line in folder.evaluations.read_text().splitlines()]

    def until(name: str, step: int) -> float:
        return sum(row.get(name, 0.0) for row in steps if row["step"] <= step)

    credits = [row["credit"] for row in steps[:5] if "credit" in row]
    return Curve(
        name=case.name,
        seed=case.seed,
        generations=[
            int(until("attempts", evaluation["step"]) + until("attempts/replaced", evaluation["step"]))
            for evaluation in evaluations
        ],
        success=[evaluation["heldout/success"] for evaluation in evaluations],
        tokens=[int(until("generated_tokens", evaluation["step"])) for evaluation in evaluations],
        seconds=[round(until("time/step_s", evaluation["step"]), 2) for evaluation in evaluations],
        credit=sum(credits) / len(credits) if credits else 0.0,
    )


def main() -> None:
    """Runs cases from standard input, one JSON line each, and prints their curves: a worker of ``gym.py``."""
    gym: Gym | None = None
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        if gym is None:
            gym = Gym(Path(asked["model"]), Path(asked["folder"]))
        began = time.monotonic()
        curve = gym.run(Case(name=asked["name"], words=tuple(asked["words"]), seed=asked["seed"]))
        answers.write(json.dumps(replace(curve, wall_s=round(time.monotonic() - began, 1)).as_dict()) + "\n")


if __name__ == "__main__":
    main()
