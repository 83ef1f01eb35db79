"""The learner's ranks as Ray actors, and the Learner of the loop over them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from sdpo.actors import start, threads_each
from sdpo.config import AlgorithmConfig, LearnerConfig
from sdpo.errors import MachineError, UserError
from sdpo.learner import checkpoint
from sdpo.learner.checkpoint import Counters
from sdpo.learner.engine import DeepSpeedLearner, Place
from sdpo.learner.loss import Scale
from sdpo.logs import redirect_output, tail
from sdpo.types import Metrics, Update
from sdpo.weights import PackedWeights, packed


class LearnerActor:
    """A DeepSpeedLearner in a process of its own."""

    def __init__(self, log: Path, model_path: str) -> None:
        redirect_output(log)
        self._model_path = model_path

    def free_address(self) -> str:
        """``host:port`` on this actor's machine, for the ranks to meet at."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def start(self, config: LearnerConfig, algorithm: AlgorithmConfig, scale: Scale, place: Place) -> None:
        self._learner = DeepSpeedLearner(self._model_path, config, algorithm, scale, place)

    def weights(self) -> ray.ObjectRef[PackedWeights]:
        """In the object store, so that the driver passes on a reference and never holds them."""
        return ray.put(packed(self._learner.parameters()))

    def anchor(self, updates: Sequence[Update]) -> None:
        self._learner.anchor(updates)

    def update(self, update: Update, algorithm: AlgorithmConfig) -> Metrics:
        return self._learner.update(update, algorithm)

    def finish_step(self) -> int:
        self._learner.finish_step()
        return self._learner.step

    def save(self, folder: Path) -> None:
        """This rank's part of a checkpoint, into ``folder``; rank 0 adds the plain model."""
        self._learner.save_optimizer(folder / "deepspeed")
        if state := self._learner.teacher_state():
            save_file(state, folder / self._teacher_file())
        if self._learner.place.rank == 0:
            policy = folder / checkpoint.POLICY
            policy.mkdir()
            save_file(self._learner.parameters(), policy / "model.safetensors", metadata={"format": "pt"})
            for part in (AutoConfig, AutoTokenizer):
                part.from_pretrained(self._model_path).save_pretrained(policy)
            _generation_config(self._model_path).save_pretrained(policy)

    def restore(self, folder: Path, counters: Counters) -> None:
        self._learner.load_optimizer(folder / "deepspeed")
        file = folder / self._teacher_file()
        self._learner.restore_teacher(load_file(file) if file.is_file() else {})
        self._learner.step, self._learner.num_updates = counters.step, counters.num_updates

    def counters(self) -> tuple[int, int]:
        return self._learner.step, self._learner.num_updates

    def _teacher_file(self) -> str:
        return f"teacher-{self._learner.place.rank}.safetensors"


def _generation_config(model_path: str) -> GenerationConfig:
    """The model's own, which may know more ends of sequence than its config; else what the config says."""
    try:
        return GenerationConfig.from_pretrained(model_path)
    except OSError:
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(model_path))


class LearnerGroup:
    """The Learner of the loop, over ``config.num_ranks`` actors. ``step`` is known without asking them."""

    def __init__(
        self,
        model_path: str,
        *,
        config: LearnerConfig,
        algorithm: AlgorithmConfig,
        scale: Scale,
        num_gpus: float,
        keep_checkpoints: int,
        logs: Path,
    ) -> None:
        """Starts the ranks without waiting for them; ``num_gpus`` is each one's share."""
        self.num_ranks = config.num_ranks
        self.step = 0
        self._config = config
        self._keep_checkpoints = keep_checkpoints
        self._logs = [logs / f"learner-{rank}.log" for rank in range(config.num_ranks)]
        threads = config.num_threads or threads_each(config.num_ranks)
        self._actors = [start(LearnerActor, log, model_path, num_gpus=num_gpus, num_threads=threads) for log in self._logs]
        address = self._answers([self._actors[0].free_address.remote()])[0]
        self._started = [
            actor.start.remote(
                config,
                algorithm,
                scale,
                Place(rank=rank, num_ranks=config.num_ranks, rendezvous=f"tcp://{address}"),
            )
            for rank, actor in enumerate(self._actors)
        ]

    def wait_until_ready(self) -> None:
        """Returns once every rank has its model and has met the others."""
        self._answers(self._started)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint. Raises UserError for one of another shape."""
        counters = checkpoint.counters_of(path)
        for name, found, wanted in (
            ("num_ranks", counters.num_ranks, self._config.num_ranks),
            ("zero_stage", counters.zero_stage, self._config.zero_stage),
        ):
            if found != wanted:
                raise UserError(
                    f"a checkpoint continues with the learner.{name} it was written with; {path} has {found}, the "
                    f"config {wanted}. Set learner.{name}={found}."
                )
        self._answers([actor.restore.remote(path, counters) for actor in self._actors])
        self.step = counters.step

    def weights(self) -> object:
        """A reference to PackedWeights in the object store."""
        return self._answers([self._actors[0].weights.remote()])[0]

    def anchor(self, updates: Sequence[Update]) -> None:
        if len(updates) > 1:
            self._answers([actor.anchor.remote(updates) for actor in self._actors])

    def update(self, update: Update, algorithm: AlgorithmConfig) -> Metrics:
        answers: list[Metrics] = self._answers([actor.update.remote(update, algorithm) for actor in self._actors])
        return answers[0]

    def finish_step(self) -> None:
        self.step = self._answers([actor.finish_step.remote() for actor in self._actors])[0]

    def save(self, path: Path) -> None:
        """Whole or not at all. Raises UserError where it cannot be written, a full disk included."""
        try:
            scratch = checkpoint.begin(path)
            self._answers([actor.save.remote(scratch) for actor in self._actors])
            step, num_updates = self._answers([self._actors[0].counters.remote()])[0]
            checkpoint.commit(
                path,
                Counters(step=step, num_updates=num_updates, num_ranks=self.num_ranks, zero_stage=self._config.zero_stage),
            )
        except (OSError, MachineError) as error:
            raise checkpoint.abandon(path, error) from error
        checkpoint.prune(path.parent, self._keep_checkpoints)

    def _answers(self, refs: Sequence[ray.ObjectRef]) -> list:  # type: ignore[type-arg]
        """Of all ranks, or the reason why one gave none: who was waited for, and the end of its log."""
        try:
            return list(ray.get(list(refs), timeout=self._config.timeout_s))
        except GetTimeoutError as error:
            raise MachineError(f"the learner did not answer within learner.timeout_s; see {self._logs[0]}") from error
        except RayTaskError as error:
            cause = str(error.cause).partition("\n")[0]
            raise MachineError(
                f"a rank of the learner failed: {type(error.cause).__name__}: {cause}. See {self._logs[0]}"
            ) from error
        except RayActorError as error:
            ends = "\n".join(f"The end of {log}:\n{tail(log)}" for log in self._logs)
            raise MachineError(f"a rank of the learner died.\n{ends}") from error
