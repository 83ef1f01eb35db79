"""One rank of the learner: the policy, its teacher, and what one update does with them. No Ray here; ``group.py`` is the shell.

The losses are already divided by the update's global counts, so gradients are summed over ranks, not averaged.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, distributed
from transformers import PreTrainedModel

from sdpo.batches.packs import pack_rows
from sdpo.config import AlgorithmConfig, LearnerConfig, SDPOConfig
from sdpo.learner import model as models
from sdpo.learner import shard_files
from sdpo.learner.forward import response_hidden, tokens_here
from sdpo.learner.importing import import_deepspeed
from sdpo.learner.loss import OldLogprobs, micro_batch_loss, teacher_entropies
from sdpo.learner.make_teacher import frozen, make_teacher
from sdpo.learner.orders import START_TIMEOUT_S, Place, Recording, Scale
from sdpo.learner.output import Run
from sdpo.learner.packing import choose_packing
from sdpo.learner.policy import Head, Policy
from sdpo.learner.recording import Recorder
from sdpo.learner.statistics import SUMS, LossStatistics, joined, metrics
from sdpo.learner.stopwatch import Stopwatch, held_bytes
from sdpo.objectives.distillation import certainty
from sdpo.objectives.fused import score_tokens
from sdpo.objectives.logits import Budget, HeadRule, Logits
from sdpo.types import MicroBatch, TokenCredit, Update


class DeepSpeedLearner:
    """Holds one rank's policy, optimizer and teacher."""

    def __init__(
        self,
        model_path: str,
        teacher_path: str | None,
        config: LearnerConfig,
        algorithm: AlgorithmConfig,
        scale: Scale,
        place: Place,
        recording: Recording | None = None,
    ) -> None:
        """``teacher_path`` is an external teacher's, ``recording`` what is kept of single tokens. Returns once all ranks have
        met."""
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed asks for it; a rank sees one device, its own
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        self._config, self._scale, self.place = config, scale, place
        self.step = 0
        self.num_updates = 0
        self._num_taken = self._num_skipped = 0  # in this step
        self._old_logprobs: dict[int, list[OldLogprobs]] = {}
        self._recording, self._credit = recording, list[TokenCredit]()
        self._device, self._team = _meet(place, config)
        self._stopwatch = Stopwatch(self._device)
        torch.manual_seed(place.rank)
        keeps_average = algorithm.taught_by is not None and algorithm.taught_by.keeps_average
        self._policy = Policy(model_path, config, self._device, of_teacher=keeps_average)
        self._teacher = make_teacher(self._policy, config, algorithm, model_path, teacher_path)
        self._reference = frozen(self._policy, config, model_path) if algorithm.reference_kl else None
        self.packing = choose_packing(self._packed_models(teacher_path), config)

    def parameters(self, *, wanted: bool = True) -> Iterator[tuple[str, Tensor]]:
        """The policy's as Hugging Face would save them, adapters merged, one at a time. Under ZeRO 3 all ranks must go through
        them; those that do not want any get none."""
        return models.parameters(self._policy.model, wanted=wanted)

    def teacher_parameters(self, *, wanted: bool = True) -> Iterator[tuple[str, Tensor]]:
        """The teacher's likewise, of one that is a single model."""
        (teacher_model,) = self._teacher.models
        return models.parameters(teacher_model.model, adapter=teacher_model.adapter, wanted=wanted)

    @torch.no_grad()
    def keep_old_logprobs(self, updates: Sequence[Update]) -> None:
        """Keep what the policy says before the step's first update. With a single update that is what it says in it: free."""
        is_first_of_many = len(updates) * self._config.num_epochs > 1
        if not is_first_of_many and self._reference is None:
            self._old_logprobs = {}
            return
        self._old_logprobs = {
            update.index: [self._scored_before(batch, is_first_of_many) for batch in self._mine(update)] for update in updates
        }

    def update(self, update: Update, algorithm: AlgorithmConfig) -> dict[str, float]:
        """One optimizer step over this rank's micro-batches; the metrics are global, the same on every rank.

        A loss or gradient that is not finite changes nothing: the update is skipped and says so.
        """
        if not self._mine(update):
            return {"updates": 0.0, "updates_without_samples": 1.0, "updates_skipped": 0.0}
        recorder = self._recorder(update)
        statistics = self.backward(update, algorithm, recorder)
        rate = self._config.rate(step=self.step, num_updates=self.num_updates)
        with self._stopwatch.timing("optimizer"):
            norm = self._policy.step(rate)
        seconds = self._stopwatch.take()
        if not math.isfinite(norm):
            self._num_skipped += 1
            return {"updates": 0.0, "updates_without_samples": 0.0, "updates_skipped": 1.0}
        self.num_updates += 1
        self._num_taken += 1
        self._credit += recorder.kept if recorder is not None else []
        return metrics(update, statistics, rate=rate, norm=norm, seconds=seconds, memory_bytes=held_bytes(self._device))

    def credit(self) -> list[TokenCredit]:
        """What was kept of single tokens since it was last asked for, as far as this rank has scored them."""
        kept, self._credit = self._credit, []
        return kept

    def backward(self, update: Update, algorithm: AlgorithmConfig, recorder: Recorder | None = None) -> LossStatistics:
        """Accumulate the update's gradient, summed over ranks, without a step. The statistics are of all ranks."""
        batches = self._mine(update)
        before = self._old_logprobs_of(update, len(batches))
        parts: list[LossStatistics] = []
        taught = self._taught(batches, algorithm)
        for position, (batch, old, (teacher_hidden, certainty_m)) in enumerate(zip(batches, before, taught, strict=True)):
            compute = partial(self._share_of_loss, batch, teacher_hidden, certainty_m, old, update, algorithm, parts, recorder)
            with self._stopwatch.timing("student"):
                self._policy.backward(compute, num_ranks=self.place.num_ranks, is_last=position == len(batches) - 1)
        statistics = joined(parts, torch.device("cpu"))
        return LossStatistics(sums=self._total(statistics.sums), mismatch_n=self._gathered(statistics.mismatch_n))

    @torch.no_grad()
    def loss_statistics(self, update: Update, algorithm: AlgorithmConfig) -> list[dict[str, float]]:
        """``SUMS`` of each of this rank's micro-batches, by name, without learning from them."""
        found = []
        batches = self._mine(update)
        before, taught = self._old_logprobs_of(update, len(batches)), self._taught(batches, algorithm)
        for batch, old, (teacher_hidden, certainty_m) in zip(batches, before, taught, strict=True):
            parts: list[LossStatistics] = []
            self._policy.run(
                partial(self._share_of_loss, batch, teacher_hidden, certainty_m, old, update, algorithm, parts, None)
            )
            found += [dict(zip(SUMS, statistics.sums.tolist(), strict=True)) for statistics in parts]
        return found

    def finish_step(self, *, follow: bool = True) -> None:
        """The step counts as done; the teacher follows the policy, unless it shall not.

        After a step with skipped updates alone the policy stands where it was, and so does an average of each step.
        """
        self._old_logprobs = {}
        self._credit = []
        is_moved = self._num_taken > 0 or self._num_skipped == 0
        self._num_taken = self._num_skipped = 0
        self.step += 1
        if follow:
            self._teacher.follow(self.step, is_moved=is_moved)

    def refresh_teacher(self) -> None:
        """The teacher becomes the policy as it is."""
        self._teacher.refresh()

    def save(self, folder: Path) -> str:
        """Write this rank's shards, moments, average and random state; returns the file's name."""
        return shard_files.save(folder, self.place.rank, self._policy.shards, self._teacher.average)

    def restore(self, folder: Path, *, step: int, num_updates: int) -> None:
        """What ``save`` wrote, on any number of ranks. Raises UserError where it is of another model."""
        shard_files.restore(folder, self.place.rank, self._policy.shards, self._teacher.average, num_updates)
        self.step, self.num_updates = step, num_updates
        self._num_taken = self._num_skipped = 0

    def _packed_models(self, teacher_path: str | None) -> dict[str, Run]:
        """Models that score the same packs and are no copies of each other, by their names."""
        models: dict[str, Run] = {type(self._policy.model).__name__: self._policy.ask}
        if teacher_path is not None:
            for number, teacher_model in enumerate(self._teacher.models, start=1):
                if teacher_model.model is not self._policy.model:
                    models[f"the teacher's model {number}, {type(teacher_model.model).__name__}"] = teacher_model.ask
        return models

    def _recorder(self, update: Update) -> Recorder | None:
        """None where nothing is kept, as in a step's later epochs: of each token one thing is said."""
        if self._recording is None or self._recording.share == 0.0 or update.epoch > 0:
            return None
        return Recorder(recording=self._recording, step=self.step, update_index=update.index, stopwatch=self._stopwatch, kept=[])

    @torch.no_grad()
    def _scored_before(self, batch: MicroBatch, is_first_of_many: bool) -> OldLogprobs:
        def logprobs(model: PreTrainedModel, head: Head) -> Tensor:
            hidden_nH, mine_n = response_hidden(model, batch.student, self._team)
            logprobs_n: Tensor = head(hidden_nH, partial(self._logprobs, batch, mine_n, self._policy.rule))
            return logprobs_n

        old_n = self._policy.run(logprobs) if is_first_of_many else None
        reference_n = None
        if self._reference is not None:
            mine_n = tokens_here(batch.student, self._team)
            hidden_NH = self._reference.hidden(batch.student, self._team)
            hidden_nH, reference = hidden_NH[mine_n.to(hidden_NH.device)], self._reference
            with models.gathered(models.head_parameters(reference.model)):
                reference_n = self._logprobs(batch, mine_n, reference.rule, hidden_nH, models.head(reference.model))
        return OldLogprobs(old_n=old_n, reference_n=reference_n)

    def _logprobs(self, batch: MicroBatch, mine_n: Tensor, rule: HeadRule, hidden_nH: Tensor, head_VH: Tensor) -> Tensor:
        ids_n = batch.response_ids_N[mine_n].to(self._device)
        budget = Budget(temperature=self._scale.temperature, chunk_mib=self._config.logits_chunk_mib)
        return score_tokens(hidden_nH, head_VH, ids_n, budget=budget, rule=rule).student_N

    def _taught(self, batches: Sequence[MicroBatch], algorithm: AlgorithmConfig) -> Iterator[tuple[list[Tensor], Tensor | None]]:
        """What the teacher's models say of each micro-batch, and how sure they are of its tokens; None where that does not count.

        How much a token counts depends on all tokens of the update. So the teacher says everything first; that waits on the host.
        """
        if not isinstance(algorithm, SDPOConfig) or algorithm.entropy_weight == 0.0:
            for batch in batches:
                with self._stopwatch.timing("teacher"):
                    teacher_hidden = self._teacher_hidden(batch)
                yield teacher_hidden, None
            return
        said, entropies = [], []
        with self._stopwatch.timing("teacher"):
            for batch in batches:
                teacher_hidden = self._teacher_hidden(batch)
                entropies.append(self._teacher_entropies(batch, teacher_hidden, algorithm))
                said.append([hidden_MH.cpu() for hidden_MH in teacher_hidden])
            everybodys_M = self._gathered(torch.cat([entropy_m.float().cpu() for entropy_m in entropies]))
        for hidden, entropy_m in zip(said, entropies, strict=True):
            yield (
                [hidden_MH.to(self._device) for hidden_MH in hidden],
                certainty(entropy_m, everybodys_M, algorithm.entropy_weight).to(self._device),
            )

    @torch.no_grad()
    def _teacher_entropies(self, batch: MicroBatch, teacher_hidden: Sequence[Tensor], algorithm: SDPOConfig) -> Tensor:
        layers = [models.head_parameters(teacher_model.model) for teacher_model in self._teacher.models]
        vocabulary = models.head(self._policy.model)
        budget = Budget(temperature=self._scale.temperature, chunk_mib=self._config.logits_chunk_mib)
        with models.gathered(list({id(part): part for layer in layers for part in layer}.values())):
            return teacher_entropies(
                self._teacher_logits(layers, teacher_hidden),
                batch,
                tokens_here(batch.student, self._team),
                getattr(vocabulary, "ds_shape", vocabulary.shape)[0],
                algorithm,
                budget,
            )

    def _teacher_logits(self, layers: Sequence[Sequence[Tensor]], teacher_hidden: Sequence[Tensor]) -> list[Logits]:
        return [
            Logits(hidden_NH=hidden_MH, head_VH=layer[0].detach(), weight=teacher_model.weight, rule=teacher_model.rule)
            for teacher_model, layer, hidden_MH in zip(self._teacher.models, layers, teacher_hidden, strict=bool(teacher_hidden))
        ]

    def _teacher_hidden(self, batch: MicroBatch) -> list[Tensor]:
        """What each of the teacher's models says of the tokens that are distilled; nothing where there are none."""
        hinted, plain = batch.teacher, batch.distilled_under_plain_prompts
        if not len(hinted.ids_T):
            if self._config.zero_stage < 3:
                return []
            hinted = plain = pack_rows([[0]], [[]])  # parameters come by collectives, in which every rank takes part
        return [
            teacher_model.hidden(hinted if teacher_model.is_hinted else plain, self._team)
            for teacher_model in self._teacher.models
        ]

    def _share_of_loss(
        self,
        batch: MicroBatch,
        teacher_hidden: Sequence[Tensor],
        certainty_m: Tensor | None,
        old_logprobs: OldLogprobs,
        update: Update,
        algorithm: AlgorithmConfig,
        parts: list[LossStatistics],
        recorder: Recorder | None,
        model: PreTrainedModel,
        head: Head,
    ) -> Tensor:
        """The micro-batch's loss; what else it says is added to ``parts``."""
        hidden_nH, mine_n = response_hidden(model, batch.student, self._team)

        def score(hidden_nH: Tensor, head_VH: Tensor) -> Tensor:
            layers = [models.head_parameters(teacher_model.model) for teacher_model in self._teacher.models]
            others = [part for layer in layers if layer[0] is not head.weight for part in layer] if teacher_hidden else []
            with models.gathered(others):
                loss, statistics = micro_batch_loss(
                    hidden_nH,
                    head_VH,
                    self._teacher_logits(layers, teacher_hidden),
                    batch,
                    mine_n,
                    old_logprobs,
                    update,
                    algorithm,
                    self._scale,
                    self._config.logits_chunk_mib,
                    recorder,
                    self._policy.rule,
                    certainty_m,
                )
            parts.append(statistics)
            return loss

        loss: Tensor = head(hidden_nH, score)
        return loss

    def _old_logprobs_of(self, update: Update, num_batches: int) -> list[OldLogprobs]:
        return self._old_logprobs.get(update.index, [OldLogprobs(old_n=None, reference_n=None)] * num_batches)

    def _mine(self, update: Update) -> tuple[MicroBatch, ...]:
        """An update that was cut to this rank's part holds nobody else's."""
        alone = len(update.micro_batches) == 1
        return update.micro_batches[0 if alone else self.place.rank // self._config.sequence_parallel]

    def _total(self, sums: Tensor) -> Tensor:
        if self.place.num_ranks > 1:
            on_device = sums.to(self._device)
            distributed.all_reduce(on_device)
            return on_device.cpu()
        return sums

    def _gathered(self, values_n: Tensor) -> Tensor:
        """All ranks' values, one rank's after the other's; every rank may have another number of them."""
        if self.place.num_ranks == 1:
            return values_n
        counts = torch.zeros(self.place.num_ranks, dtype=torch.int64)
        counts[self.place.rank] = len(values_n)
        lengths: list[int] = self._total(counts).tolist()
        padded = torch.zeros(max(lengths), device=self._device)
        padded[: len(values_n)] = values_n
        parts = [torch.empty_like(padded) for _ in lengths]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:length].cpu() for part, length in zip(parts, lengths, strict=True)])


def _meet(place: Place, config: LearnerConfig) -> tuple[torch.device, distributed.ProcessGroup | None]:
    """Join the other ranks: this rank's device, and the team that shares rows with it."""
    deepspeed = import_deepspeed()

    backend = "nccl" if torch.cuda.is_available() else "gloo"
    timeout = timedelta(
        seconds=START_TIMEOUT_S + config.timeout_s
    )  # whoever asks the ranks gives up first, and knows whom it lacks
    if not distributed.is_initialized():
        distributed.init_process_group(
            backend, init_method=place.rendezvous, rank=place.rank, world_size=place.num_ranks, timeout=timeout
        )
    # Else DeepSpeed compiles a shared-memory all-reduce on the CPU, minutes of g++ in every new environment; and a process that
    # is killed while it compiles leaves a lock in the user's cache that every later run waits for without end.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=backend, verbose=False)
    device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
    size = config.sequence_parallel
    if size == 1:
        return device, None
    teams = [list(range(first, first + size)) for first in range(0, place.num_ranks, size)]
    groups = [distributed.new_group(team, timeout=timeout) for team in teams]  # every rank makes every group
    return device, groups[place.rank // size]
