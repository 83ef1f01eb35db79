"""The learner's ranks as Ray actors, and the Learner of the loop over them."""

from __future__ import annotations

import socket
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import ray

from sdpo.cluster.actors import Placements, Process, kill, start, talk_over_the_clusters_network, this_process
from sdpo.cluster.weight_sync import weight_sync as made
from sdpo.config import AlgorithmConfig, CheckpointConfig, LearnerConfig
from sdpo.errors import LearnerLost, MachineError
from sdpo.forkserver.marks import mark
from sdpo.learner import checkpoint
from sdpo.learner.answers import answers, dead
from sdpo.learner.checkpoint import Counters
from sdpo.learner.orders import START_TIMEOUT_S, Place, Recording, Scale
from sdpo.preflight.models import hidden_size
from sdpo.protocols import Weights
from sdpo.run import digests
from sdpo.run.logs import redirect_output
from sdpo.types import Metrics, Packing, Ranks, TokenCredit, Update
from sdpo.weights import WeightPayload, weight_payload


class LearnerActor:
    """A DeepSpeedLearner in a process of its own, which alone imports DeepSpeed."""

    def __init__(self, log: Path, model_path: str) -> None:
        redirect_output(log)
        talk_over_the_clusters_network()
        self._model_path = model_path

    def ready(self) -> bool:
        return True

    def process(self) -> Process:
        return this_process()

    def free_address(self) -> str:
        """``host:port`` on this actor's machine, for the ranks to meet at."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def start(
        self,
        teacher_path: str | None,
        config: LearnerConfig,
        algorithm: AlgorithmConfig,
        scale: Scale,
        place: Place,
        recording: Recording | None,
    ) -> Packing:
        """How rows must lie for its models."""
        mark("learner's process")
        from sdpo.learner.engine import DeepSpeedLearner

        self._learner = DeepSpeedLearner(self._model_path, teacher_path, config, algorithm, scale, place, recording)
        mark("learner")
        return self._learner.packing

    def weights(self, *, of_teacher: bool, bucket_bytes: int, weight_sync: str) -> WeightPayload:
        """The weights, left where the weight sync puts them: the driver never holds them. From rank 0, while others help."""
        read = self._learner.teacher_parameters if of_teacher else self._learner.parameters
        return weight_payload(read(wanted=self._is_first), bucket_bytes=bucket_bytes, put=made(weight_sync).put)

    def keep_old_logprobs(self, updates: Sequence[Update]) -> None:
        self._learner.keep_old_logprobs(updates)

    def update(self, update: Update, algorithm: AlgorithmConfig) -> Metrics:
        return self._learner.update(update, algorithm)

    def credit(self) -> list[TokenCredit]:
        return self._learner.credit()

    def finish_step(self, *, follow: bool) -> int:
        self._learner.finish_step(follow=follow)
        return self._learner.step

    def refresh_teacher(self) -> None:
        self._learner.refresh_teacher()

    def save(self, folder: Path) -> dict[str, str]:
        """This rank's part of a checkpoint, into ``folder`` and onto the disk; rank 0 adds the plain model. Returns digests."""
        mine = self._learner.save(folder)
        self.write_policy(folder / checkpoint.POLICY)
        policy = (
            [f"{checkpoint.POLICY}/{name}" for name in digests.files_in(folder / checkpoint.POLICY)] if self._is_first else []
        )
        return digests.sealed(folder, [mine, *policy])

    def save_state(self, folder: Path) -> dict[str, str]:
        """This rank's part of a state, without a plain model. Returns digests."""
        return digests.sealed(folder, [self._learner.save(folder)])

    def write_policy(self, folder: Path) -> None:
        """The plain model in a new ``folder``, from rank 0."""
        from sdpo.learner import policy_folder

        parameters = dict(self._learner.parameters(wanted=self._is_first))
        if self._is_first:
            policy_folder.write(folder, parameters, self._model_path)

    def restore(self, folder: Path, counters: Counters) -> None:
        self._learner.restore(folder, step=counters.step, num_updates=counters.num_updates)

    def counters(self) -> tuple[int, int]:
        return self._learner.step, self._learner.num_updates

    @property
    def _is_first(self) -> bool:
        return self._learner.place.rank == 0


def pairs_per_token(model_path: str) -> float:
    """A layer does about 24·H² operations a token outside of attention and 4·H a pair in it, with hidden size H."""
    return 6.0 * hidden_size(model_path)


class LearnerGroup:
    """The Learner of the loop, over ``config.num_ranks`` actors. ``step`` is known without asking them."""

    def __init__(
        self,
        model_path: str,
        *,
        teacher_path: str | None,
        config: LearnerConfig,
        algorithm: AlgorithmConfig,
        scale: Scale,
        num_gpus: float,
        checkpoints: CheckpointConfig,
        logs: Path,
        skipped: Path,
        bucket_bytes: int,
        weight_sync: str = "object_store",
        recording: Recording | None = None,
        placements: Placements | None = None,
    ) -> None:
        """Start the ranks without waiting for them, at ``placements`` where there are several machines.

        ``num_gpus`` is each one's share. ``teacher_path`` is where an external teacher was found. ``skipped`` is the folder for
        updates that could not be taken. ``bucket_bytes`` is the size of the pieces that weights travel in. ``recording`` is what
        is kept of single tokens.
        """
        self.ranks = Ranks(num=config.num_data_ranks, pairs_per_token=pairs_per_token(model_path))
        self.step = 0
        self._model_path, self._teacher_path, self._num_gpus = model_path, teacher_path, num_gpus
        self._config, self._algorithm, self._scale = config, algorithm, scale
        self._checkpoints = checkpoints
        self._skipped, self._num_skipped = skipped, 0
        self._bucket_bytes, self._weight_sync, self._recording = bucket_bytes, weight_sync, recording
        self._teacher_differs = algorithm.taught_by is not None and algorithm.taught_by.is_another_self
        self._has_reference = algorithm.reference_kl != 0.0
        self._logs = [logs / f"learner-{rank}.log" for rank in range(config.num_ranks)]
        self._placements = placements or Placements.anywhere(config.num_ranks)
        self._start()

    def _start(self) -> None:
        self._placements.wait_for_room()
        self._processes: list[Process] = []
        threads = self._config.num_threads or self._placements.num_threads
        self._actors = [
            start(
                LearnerActor,
                log,
                self._model_path,
                num_gpus=self._num_gpus,
                num_threads=threads,
                placement=placement,
                kind="learner",
            )
            for log, placement in zip(self._logs, self._placements.placements, strict=True)
        ]
        self._processes = self._answers([actor.process.remote() for actor in self._actors], at_least_s=START_TIMEOUT_S)
        address = self._answers([self._actors[0].free_address.remote()])[0]
        self._started = [
            actor.start.remote(
                self._teacher_path,
                self._config,
                self._algorithm,
                self._scale,
                Place(rank=rank, num_ranks=self._config.num_ranks, rendezvous=f"tcp://{address}"),
                self._recording,
            )
            for rank, actor in enumerate(self._actors)
        ]

    def wait_until_ready(self) -> None:
        """Returns once every rank has its model and has met the others; ``ranks`` says how rows must lie from then on."""
        packings: list[Packing] = self._answers(self._started, at_least_s=START_TIMEOUT_S)
        self.ranks = replace(self.ranks, packing=packings[0])

    @property
    def is_whole(self) -> bool:
        """Whether every rank's process is there, as far as is known."""
        return not dead(self._actors, within_s=5.0)

    def rebuild(self) -> None:
        """New ranks instead of what is left of these, which begin like those of a new run."""
        for actor, process in zip_longest(self._actors, self._processes):
            kill(actor, process)
        self.step, self._num_skipped = 0, 0
        self._start()
        self.wait_until_ready()

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint, whatever number of ranks and ZeRO stage wrote it. Raises UserError where it is none."""
        counters = checkpoint.counters_of(path)
        self._answers([actor.restore.remote(path, counters) for actor in self._actors])
        self.step = counters.step

    def weights(self) -> Weights:
        """The policy's weights, as the places where the weight sync has put the buckets."""
        return self._weights(of_teacher=False)

    def teacher_weights(self) -> Weights | None:
        """The teacher's weights, as ``weights`` gives the policy's.

        None where they are the policy's own (before the first step too). None for a mixture of two models' logits, which no
        model samples from, and for another model, which the engine does not know.
        """
        return self._weights(of_teacher=True) if self._teacher_differs and self.step > 0 else None

    def _weights(self, *, of_teacher: bool) -> Weights:
        asked = self._actors if self._config.zero_stage == 3 else self._actors[:1]  # whole parameters take everybody's part
        how = {"of_teacher": of_teacher, "bucket_bytes": self._bucket_bytes, "weight_sync": self._weight_sync}
        payloads: list[Weights] = self._answers([actor.weights.remote(**how) for actor in asked])
        return payloads[0]

    def keep_old_logprobs(self, updates: Sequence[Update]) -> None:
        if len(updates) * self._config.num_epochs > 1 or self._has_reference:
            self._answers(
                [
                    actor.keep_old_logprobs.remote([update.of_rank(rank) for update in updates])
                    for rank, actor in self._by_data_rank()
                ]
            )

    def update(self, update: Update, algorithm: AlgorithmConfig) -> Metrics:
        """Raises MachineError after ``learner.max_skipped_updates`` in a row whose loss or gradient was not finite."""
        answers: list[Metrics] = self._answers(
            [actor.update.remote(update.of_rank(rank), algorithm) for rank, actor in self._by_data_rank()]
        )
        metrics = answers[0]
        if metrics["updates_skipped"] > 0.0:
            self._keep_skipped(update)
        elif metrics["updates"] > 0.0:
            self._num_skipped = 0
        return metrics

    def _by_data_rank(self) -> list[tuple[int, ray.actor.ActorHandle[LearnerActor]]]:
        """Each actor with the rank whose rows it computes."""
        return [(rank // self._config.sequence_parallel, actor) for rank, actor in enumerate(self._actors)]

    def _keep_skipped(self, update: Update) -> None:
        from sdpo.learner import update_file

        self._num_skipped += 1
        epoch = f"-epoch_{update.epoch}" if update.epoch else ""
        path = self._skipped / f"step_{self.step + 1:06d}-update_{update.index}{epoch}.pt"
        update_file.save(path, update, step=self.step)
        if self._num_skipped >= self._config.max_skipped_updates:
            raise MachineError(
                f"{self._num_skipped} updates in a row had a loss or gradient that is not finite "
                f"(learner.max_skipped_updates={self._config.max_skipped_updates}); each was skipped, so the weights are as "
                f"before them. Look at one with: sdpo replay batch={path}"
            )

    def credit(self) -> tuple[TokenCredit, ...]:
        from sdpo.learner.recording import joined_credit

        if self._recording is None or self._recording.share == 0.0:
            return ()
        of_ranks: list[list[TokenCredit]] = self._answers([actor.credit.remote() for actor in self._actors])
        return joined_credit([part for of_rank in of_ranks for part in of_rank])

    def finish_step(self, *, follow: bool = True) -> None:
        self.step = self._answers([actor.finish_step.remote(follow=follow) for actor in self._actors])[0]

    def refresh_teacher(self) -> None:
        self._answers([actor.refresh_teacher.remote() for actor in self._actors])

    def save(self, path: Path, *, score: float | None) -> None:
        """Save a checkpoint, whole or not at all. Raises UserError where it cannot be written, a full disk included.

        Where a rank is lost over it, what was written is left, to be removed once nobody writes any more.
        """
        try:
            scratch = checkpoint.begin(path)
            sealed: list[dict[str, str]] = self._answers([actor.save.remote(scratch) for actor in self._actors])
            step, num_updates = self._answers([self._actors[0].counters.remote()])[0]
            checkpoint.commit(path, Counters(step=step, num_updates=num_updates, score=score), dict(ChainMap(*sealed)))
        except LearnerLost:
            raise
        except (OSError, MachineError) as error:
            raise checkpoint.abandon(path, error) from error
        checkpoint.prune(path.parent, keep=self._checkpoints.keep, keep_best=self._checkpoints.keep_best)

    def keep(self, path: Path) -> None:
        """Everything to go on from here with ``restore``, and no more: a checkpoint without the plain model."""
        try:
            scratch = checkpoint.begin(path)
            sealed: list[dict[str, str]] = self._answers([actor.save_state.remote(scratch) for actor in self._actors])
            step, num_updates = self._answers([self._actors[0].counters.remote()])[0]
            checkpoint.commit(path, Counters(step=step, num_updates=num_updates), dict(ChainMap(*sealed)))
        except OSError as error:
            raise checkpoint.abandon(path, error) from error

    def write_policy(self, folder: Path) -> None:
        """The policy as it is now, as a plain Hugging Face folder, which must not be there yet."""
        self._answers([actor.write_policy.remote(folder) for actor in self._actors])

    def _answers(self, asked: Sequence[ray.ObjectRef], *, at_least_s: float = 0.0) -> list:  # type: ignore[type-arg]
        """The answers of the ranks that were asked, which are the first ones. Raises the reason why one gave none."""
        return answers(
            self._actors,
            asked,
            self._logs,
            timeout_s=max(self._config.timeout_s, at_least_s),
            pids=[process.pid for process in self._processes],
        )
