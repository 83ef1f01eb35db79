"""Everything in one process: engine, verifier and learner as the loop asks for them, without Ray.

Use it in a notebook, for experiments on small models, and wherever starting actors would cost more than the work itself. The
classes are those that the actors wrap. What actors are for is missing: a second machine, a time limit on a verdict, a crash
that takes nobody along. So it is only for environments that are trusted.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sdpo.batches.packs import why_it_takes_longer
from sdpo.config import AlgorithmConfig, LearnerConfig, SamplingConfig
from sdpo.envs.base import Environment
from sdpo.errors import MachineError
from sdpo.learner import checkpoint, policy_folder
from sdpo.learner.checkpoint import Counters
from sdpo.learner.engine import DeepSpeedLearner
from sdpo.learner.group import pairs_per_token
from sdpo.learner.orders import Place, Recording, Scale
from sdpo.learner.recording import joined_credit
from sdpo.rollout.engine import VllmEngine
from sdpo.rollout.verify import judge, reply
from sdpo.types import Attempt, Completion, Metrics, Prompt, Ranks, Reply, Sampling, SetAside, Task, TokenCredit, Update
from sdpo.weights import WeightPayload, weight_payload


class LocalEngine:
    """The Engine of an on-policy loop: one thread's, so nothing is generated ahead (``rollout.staleness=0``)."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine
        self._under_way: Generator[object] | None = None

    def load(self, weights: object, *, version: int) -> None:
        assert isinstance(weights, WeightPayload)
        self._forget()
        self._engine.load(weights.in_memory(), version=version)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        self._forget()
        answers = self._engine.sample(prompts, sampling)
        assert isinstance(answers, Generator)
        self._under_way = answers
        for ended in answers:
            yield from ended

    def _forget(self) -> None:
        """Give up what an interrupted call left under way: a notebook keeps the frames of the last error, and so the call."""
        if self._under_way is not None:
            self._under_way.close()
            self._under_way = None


class LocalVerifier:
    """The Verifier of the loop, one completion after the other."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        for prompt, completion in completions:
            yield prompt, judge(self._environment, tasks_P[prompt.task_index], completion)

    def reply(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Reply | SetAside]]:
        for prompt, completion in completions:
            yield prompt, reply(self._environment, tasks_P[prompt.task_index], completion)


class LocalLearner:
    """The Learner of the loop, on one rank. A training run keeps no checkpoints of it; a search keeps states."""

    def __init__(
        self, learner: DeepSpeedLearner, model_path: str, algorithm: AlgorithmConfig, *, max_skipped_updates: int
    ) -> None:
        """``algorithm`` is what ``learner`` was made for, ``model_path`` what both begin with."""
        self._learner, self._model_path = learner, model_path
        self._teacher_differs = algorithm.taught_by is not None and algorithm.taught_by.is_another_self
        self.ranks = Ranks(num=1, pairs_per_token=pairs_per_token(model_path), packing=learner.packing)
        self._max_skipped, self._num_skipped = max_skipped_updates, 0

    @property
    def step(self) -> int:
        return self._learner.step

    def weights(self) -> WeightPayload:
        return weight_payload(self._learner.parameters())

    def teacher_weights(self) -> WeightPayload | None:
        return weight_payload(self._learner.teacher_parameters()) if self._teacher_differs and self.step > 0 else None

    def keep_old_logprobs(self, updates: Sequence[Update]) -> None:
        self._learner.keep_old_logprobs(updates)

    def update(self, update: Update, algorithm: AlgorithmConfig) -> Metrics:
        """Raises MachineError after too many in a row whose loss or gradient was not finite."""
        metrics = self._learner.update(update, algorithm)
        self._num_skipped = self._num_skipped + 1 if metrics["updates_skipped"] else 0
        if self._num_skipped >= self._max_skipped:
            raise MachineError(f"{self._num_skipped} updates in a row had a loss or gradient that is not finite")
        return metrics

    def credit(self) -> tuple[TokenCredit, ...]:
        return joined_credit(self._learner.credit())

    def finish_step(self, *, follow: bool = True) -> None:
        self._learner.finish_step(follow=follow)

    def refresh_teacher(self) -> None:
        self._learner.refresh_teacher()

    def save(self, path: Path, *, score: float | None) -> None:
        """Nothing: a run in one process begins anew."""

    def write_policy(self, folder: Path) -> None:
        """The policy as it is, as a plain model in a new ``folder``."""
        policy_folder.write(folder, dict(self._learner.parameters()), self._model_path)

    def keep(self, path: Path) -> None:
        """Everything to go on from here with ``restore``, and no more: no plain model. Whole or not at all."""
        scratch = checkpoint.begin(path)
        self._learner.save(scratch)
        checkpoint.commit(path, Counters(step=self._learner.step, num_updates=self._learner.num_updates))

    def restore(self, path: Path) -> None:
        """What ``keep`` kept, also of before what was learned since."""
        counters = checkpoint.counters_of(path)
        self._learner.restore(path, step=counters.step, num_updates=counters.num_updates)
        self._num_skipped = 0


@contextmanager
def local_learner(
    model_path: str,
    learner: LearnerConfig,
    algorithm: AlgorithmConfig,
    sampling: SamplingConfig,
    folder: Path,
    recording: Recording | None = None,
) -> Iterator[LocalLearner]:
    """A learner that begins with the weights at ``model_path``; in ``folder`` its one rank meets itself."""
    meeting = folder / f".meet-{os.getpid()}"
    made = DeepSpeedLearner(
        model_path,
        None,
        learner,
        algorithm,
        Scale(temperature=sampling.temperature, max_response_tokens=sampling.max_response_tokens),
        Place(rank=0, num_ranks=1, rendezvous=f"file://{meeting}"),
        recording,
    )
    slower = why_it_takes_longer(made.packing)
    if slower is not None:
        warnings.warn(slower, stacklevel=3)  # at the block that asks for the learner
    try:
        yield LocalLearner(made, model_path, algorithm, max_skipped_updates=learner.max_skipped_updates)
    finally:
        meeting.unlink(missing_ok=True)
