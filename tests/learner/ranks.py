"""What a rank does in these tests: programs for ``launch``, and how a learner is looked into.

Everything private that the tests touch of the learner is touched here.
"""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from sdpo.batches.packs import pack_rows
from sdpo.batches.updates import in_epochs
from sdpo.commands.replay import run_replay
from sdpo.config import AlgorithmConfig, Dtype, LearnerConfig, ReplayConfig
from sdpo.errors import UserError
from sdpo.learner import checkpoint
from sdpo.learner import model as models
from sdpo.learner.checkpoint import Counters
from sdpo.learner.engine import DeepSpeedLearner
from sdpo.learner.forward import response_hidden
from sdpo.learner.orders import Recording, Scale
from sdpo.learner.statistics import SUMS
from sdpo.types import TokenCredit, Update
from tests.learner.launch import ActorPlacement
from tests.learner.samples import MAX_RESPONSE_TOKENS, TEMPERATURE

State = dict[str, dict[str, Tensor]]
"""Kind (master, exp_avg, exp_avg_sq, average) and parameter to the whole of it, flat."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A learner to be made."""

    model: Path
    algorithm: AlgorithmConfig
    config: LearnerConfig = field(default_factory=lambda: LearnerConfig(dtype=Dtype.float32))
    """``num_ranks`` is the launch's."""
    teacher: Path | None = None
    recording: Recording | None = None

    def with_(self, **changes: object) -> Setup:
        """With another learner config."""
        return replace(self, config=replace(self.config, **changes))  # type: ignore[arg-type]

    def learner(self, placement: ActorPlacement) -> DeepSpeedLearner:
        return DeepSpeedLearner(
            str(self.model),
            None if self.teacher is None else str(self.teacher),
            replace(self.config, num_ranks=placement.num_ranks, timeout_s=60.0),
            self.algorithm,
            Scale(temperature=TEMPERATURE, max_response_tokens=MAX_RESPONSE_TOKENS),
            placement.place,
            self.recording,
        )


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """What a backward says."""

    sums: Mapping[str, float]
    by_parameter: Mapping[str, Tensor]

    @property
    def loss(self) -> float:
        return self.sums["loss"]

    @property
    def vector(self) -> Tensor:
        return torch.cat([self.by_parameter[name].double().flatten() for name in sorted(self.by_parameter)])


def gradients(placement: ActorPlacement, asked: Sequence[tuple[Setup, Sequence[Update]]]) -> list[list[Gradient]]:
    """Of each learner's updates, none of which is taken."""
    found = []
    for setup, updates in asked:
        learner = setup.learner(placement)
        found.append([gradient(learner, update, setup.algorithm) for update in updates])
    return found


def gradient(learner: DeepSpeedLearner, update: Update, algorithm: AlgorithmConfig) -> Gradient:
    """Of an update that is not taken, though it is in the moments afterwards."""
    from deepspeed.utils import safe_get_full_grad

    sums = learner.backward(update, algorithm).sums
    by_parameter = {name: safe_get_full_grad(parameter).clone() for name, parameter in learner._policy.trained.items()}
    learner._policy.step(0.0)
    return Gradient(sums=dict(zip(SUMS, sums.tolist(), strict=True)), by_parameter=by_parameter)


Steps = Sequence[Sequence[Update]]
"""The updates of each step."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a learner went through, and where it ended."""

    begins: State
    metrics: Sequence[Mapping[str, float]]
    """Of each update."""
    ends: State
    policy: Mapping[str, Tensor]
    """As Hugging Face would save it."""
    ema_copy: Sequence[Tensor]
    """What the teacher's average speaks with, whole, in the order of the trained parameters."""
    num_updates: int
    num_steps: int
    steps_counted: set[float]
    """By the optimizer."""
    random: Tensor
    """torch's random state."""
    next: Gradient | None


@dataclass(frozen=True, kw_only=True)
class Leg:
    """Part of a course."""

    setup: Setup
    steps: Steps
    restore: tuple[Path, int, int] | None = None
    """Folder, step and number of updates to continue from."""
    save: Path | None = None
    """Where to save at the end."""
    next: Update | None = None
    """An update whose gradient is asked for after the end."""


def courses(placement: ActorPlacement, legs: Sequence[Leg]) -> list[Course]:
    """One learner after the other."""
    return [_course(placement, leg) for leg in legs]


def _course(placement: ActorPlacement, leg: Leg) -> Course:
    learner = leg.setup.learner(placement)
    if leg.restore is not None:
        folder, step, num_updates = leg.restore
        learner.restore(folder, step=step, num_updates=num_updates)
    begins, metrics = state(learner), []
    for updates in leg.steps:
        metrics += take(learner, updates, leg.setup.algorithm)
    if leg.save is not None:
        save(placement, learner, leg.save)
    return Course(
        begins=begins,
        metrics=metrics,
        ends=state(learner),
        policy={name: tensor.clone() for name, tensor in learner.parameters()},
        ema_copy=ema_copy(learner),
        num_updates=learner.num_updates,
        num_steps=learner.step,
        steps_counted=steps_taken(learner),
        random=torch.get_rng_state(),
        next=None if leg.next is None else gradient(learner, leg.next, leg.setup.algorithm),
    )


def without_clock(metrics: Mapping[str, float]) -> dict[str, float]:
    """What repeats to the last bit: neither times nor memory."""
    return {name: value for name, value in metrics.items() if not name.startswith(("time/", "memory/"))}


def take(learner: DeepSpeedLearner, updates: Sequence[Update], algorithm: AlgorithmConfig) -> list[dict[str, float]]:
    """A step, as sdpo.train takes it; the metrics of each update."""
    learner.keep_old_logprobs(updates)
    in_turn = in_epochs(updates, learner._config.num_epochs, f"step {learner.step}")
    metrics = [without_clock(learner.update(update, algorithm)) for update in in_turn]
    learner.finish_step()
    return metrics


def credits(
    placement: ActorPlacement, setup: Setup, update: Update
) -> tuple[list[TokenCredit], dict[str, float], list[TokenCredit]]:
    """What this rank keeps of the tokens of an update, the update's metrics, and what is left to be asked for afterwards."""
    learner = setup.learner(placement)
    metrics = learner.update(update, setup.algorithm)
    return learner.credit(), metrics, learner.credit()


@dataclass(frozen=True, kw_only=True)
class Steered:
    """The teacher's average after each thing it was told, and a second learner that took over at the end."""

    stayed: bool
    """After a step that it should not follow."""
    refreshed: bool
    """After a refresh it is the policy's master weights."""
    speaks: bool
    """And what it speaks with are these, rounded."""
    follows_after: bool
    """Whether it moved in the step after the refresh."""
    whole: State
    """After another step."""
    resumed: State
    """Likewise, of a learner that was restored in between."""


def steer(placement: ActorPlacement, setup: Setup, steps: Steps, folder: Path) -> Steered:
    """Three steps: one not followed and then a refresh, one followed; a save; and one more, with and without a restart."""
    learner = setup.learner(placement)
    begins = state(learner)["average"]
    for update in steps[0]:
        learner.update(update, setup.algorithm)
    learner.finish_step(follow=False)
    stayed = state(learner)["average"]
    learner.refresh_teacher()
    refreshed = state(learner)
    speaking = dict(zip(learner._policy.trained, ema_copy(learner), strict=True))
    take(learner, steps[1], setup.algorithm)
    followed = state(learner)["average"]
    save(placement, learner, folder)
    second = setup.learner(placement)
    second.restore(folder, step=learner.step, num_updates=learner.num_updates)
    for one in (learner, second):
        take(one, steps[2], setup.algorithm)
    average, master = refreshed["average"], refreshed["master"]
    return Steered(
        stayed=all(torch.equal(begins[name], stayed[name]) for name in begins),
        refreshed=all(
            torch.equal(average[name], master[name]) and not torch.equal(average[name], begins[name]) for name in begins
        ),
        speaks=all(torch.equal(average[name].to(said.dtype), said.flatten()) for name, said in speaking.items()),
        follows_after=any(not torch.equal(average[name], followed[name]) for name in begins),
        whole=state(learner),
        resumed=state(second),
    )


def save(placement: ActorPlacement, learner: DeepSpeedLearner, folder: Path) -> None:
    """Returns once every rank has."""
    folder.mkdir(parents=True, exist_ok=True)
    learner.save(folder)
    if placement.num_ranks > 1:
        distributed.barrier()


def state(learner: DeepSpeedLearner) -> State:
    """Gathered from all ranks; asserts that they hold every element of every parameter, and agree."""
    shards, average = learner._policy.shards, learner._teacher.average
    mine: list[tuple[str, str, int, Tensor]] = []
    for piece in shards.pieces:
        kinds = {"master": shards.flats[piece.flat]}
        kinds |= {kind: moment for kind, moment in shards.moments(piece.flat).items() if kind != "step"}
        if average is not None:
            kinds["average"] = average.flats[piece.flat]
        for kind, flat in kinds.items():
            held = flat.detach().reshape(-1)[piece.offset : piece.offset + piece.numel].cpu().clone()
            assert held.dtype == torch.float32
            mine.append((kind, piece.name, piece.start, held))
    found: State = {}
    for kind, name, start, held in _of_all_ranks(mine):
        size = _numel(learner._policy.trained[name])
        whole = found.setdefault(kind, {}).setdefault(name, torch.full((size,), torch.nan))
        before = whole[start : start + len(held)]
        assert before.isnan().all() or torch.equal(before, held), f"{kind} {name} is held twice, and not alike"
        whole[start : start + len(held)] = held
    for kind, named in found.items():
        assert named.keys() == learner._policy.trained.keys()
        assert not any(whole.isnan().any() for whole in named.values()), f"{kind} is not whole"
    return found


def steps_taken(learner: DeepSpeedLearner) -> set[float]:
    """What the optimizer counts, of each of its tensors."""
    shards = learner._policy.shards
    moments = [shards.moments(piece.flat) for piece in shards.pieces]
    return {float(of_flat["step"]) for of_flat in moments if "step" in of_flat}


def ema_copy(learner: DeepSpeedLearner) -> list[Tensor]:
    """The parameters that speak for the average, whole."""
    average = learner._teacher.average
    if average is None:
        return []
    found = []
    for parameter in average._ema_copy:
        with models.gathered([parameter]):
            found.append(parameter.detach().clone())
    return found


def _numel(parameter: Tensor) -> int:
    """Of the whole parameter, also where ZeRO 3 has cut it up."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _of_all_ranks(mine: list[Any]) -> list[Any]:
    if distributed.get_world_size() == 1:
        return mine
    everybody: list[list[Any]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(everybody, mine)
    return [one for of_rank in everybody for one in of_rank]


@dataclass(frozen=True, kw_only=True)
class Following:
    """How far an average has gone where the policy moves by small steps; each is a dot product over all ranks."""

    fp32: float
    """Cosine of the average's movement with that of an fp64 average of an fp64 policy."""
    bf16: float
    """Of an average kept in bf16, of the policy in bf16."""
    length: float
    """Of the average's movement, by that of the fp64 one."""
    speaks: bool
    """Whether the teacher's parameters are the average, rounded to the compute type."""


def follow_small_steps(
    placement: ActorPlacement, setup: Setup, num_steps: int, size: float, folder: Path
) -> tuple[Following, Following]:
    """In the middle, where a second learner takes over from a checkpoint, and at the end. The policy drifts, and jitters."""
    learner = setup.learner(placement)
    masters = [flat.detach().double().clone() for flat in learner._policy.shards.flats]
    average = [flat.clone() for flat in masters]
    coarse = [flat.bfloat16() for flat in masters]
    begins = [flat.clone() for flat in masters]
    rate = setup.algorithm.teacher.ema_rate  # type: ignore[attr-defined]
    draw = torch.Generator().manual_seed(placement.rank)
    drifts = [torch.randn(flat.shape, generator=draw, dtype=torch.float64) for flat in masters]
    found = []
    for step in range(num_steps):
        if step == num_steps // 2:
            found.append(_followed(learner, begins, average, coarse))
            save(placement, learner, folder)
            learner = setup.learner(placement)
            learner.restore(folder, step=step, num_updates=0)
        moves = [size * (drift + torch.randn(drift.shape, generator=draw, dtype=torch.float64)) for drift in drifts]
        for flat, move in zip(learner._policy.shards.flats, moves, strict=True):
            flat.data.add_(move)
        for master, move, fine, rough in zip(masters, moves, average, coarse, strict=True):
            master.add_(move)
            fine.lerp_(master, rate)
            rough.lerp_(master.bfloat16(), rate)
        learner.finish_step()
    found.append(_followed(learner, begins, average, coarse))
    return found[0], found[1]


def _followed(
    learner: DeepSpeedLearner, begins: Sequence[Tensor], average: Sequence[Tensor], coarse: Sequence[Tensor]
) -> Following:
    assert learner._teacher.average is not None
    pieces = learner._policy.shards.pieces

    def moved(flats: Sequence[Tensor], origins: Sequence[Tensor]) -> Tensor:
        parts = [(piece, flats[piece.flat].double().view(-1) - origins[piece.flat].double().view(-1)) for piece in pieces]
        return torch.cat([part[piece.offset : piece.offset + piece.numel] for piece, part in parts])

    true = moved(average, begins)
    ours = moved(learner._teacher.average.flats, [flat.float() for flat in begins])
    rough = moved(coarse, [flat.bfloat16() for flat in begins])
    dots = torch.stack([true @ true, ours @ ours, rough @ rough, ours @ true, rough @ true])
    distributed.all_reduce(dots)
    of_true, of_ours, of_rough, ours_true, rough_true = dots.tolist()
    whole = state(learner)["average"]
    speaking = dict(zip(learner._policy.trained, ema_copy(learner), strict=True))
    return Following(
        fp32=ours_true / (of_ours * of_true) ** 0.5,
        bf16=rough_true / (of_rough * of_true) ** 0.5 if of_rough else 0.0,
        length=(of_ours / of_true) ** 0.5,
        speaks=all(torch.equal(whole[name].to(said.dtype), said.flatten()) for name, said in speaking.items()),
    )


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A learner after an update."""

    metrics: Mapping[str, float]
    state: State
    policy: Mapping[str, Tensor]
    num_updates: int


def moments_after(placement: ActorPlacement, asked: Sequence[tuple[Setup, Sequence[Update]]]) -> list[list[Moment]]:
    """Of each learner, after it was made (without metrics) and after each of its updates."""
    found = []
    for setup, updates in asked:
        learner = setup.learner(placement)
        moments = [_moment(learner, {})]
        moments += [_moment(learner, without_clock(learner.update(update, setup.algorithm))) for update in updates]
        found.append(moments)
    return found


def _moment(learner: DeepSpeedLearner, metrics: Mapping[str, float]) -> Moment:
    policy = {name: tensor.clone() for name, tensor in learner.parameters()}
    return Moment(metrics=metrics, state=state(learner), policy=policy, num_updates=learner.num_updates)


@dataclass(frozen=True, kw_only=True)
class Checkpointed:
    """A checkpoint that was written, and what the learner said as it wrote it."""

    policy: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    """fp32, flat; empty where there is none."""
    logits_TV: Tensor
    """Of the policy, after each of the ids that were asked about."""
    teacher_TV: Tensor
    """Of the teacher's one teacher_model."""
    metrics: Sequence[Mapping[str, float]]


def write_checkpoint(placement: ActorPlacement, setup: Setup, steps: Steps, path: Path, ids: Sequence[int]) -> Checkpointed:
    """As LearnerGroup and its actors write it."""
    from sdpo.learner import policy_folder

    learner, metrics = setup.learner(placement), []
    for updates in steps:
        metrics += take(learner, updates, setup.algorithm)
    if placement.rank == 0:
        checkpoint.begin(path)
    _wait(placement)
    learner.save(checkpoint.scratch_of(path))
    policy = {name: tensor.clone() for name, tensor in learner.parameters()}
    if placement.rank == 0:
        policy_folder.write(checkpoint.scratch_of(path) / checkpoint.POLICY, policy, str(setup.model))
    _wait(placement)
    if placement.rank == 0:
        checkpoint.commit(path, Counters(step=learner.step, num_updates=learner.num_updates))
    _wait(placement)
    pack = pack_rows([ids], [range(len(ids))])
    (teacher_model,) = learner._teacher.models
    with torch.no_grad():
        logits_TV = learner._policy.run(
            lambda model, head: head(response_hidden(model, pack)[0], lambda hidden_TH, head_VH: hidden_TH @ head_VH.T)
        )
        hidden_TH = teacher_model.hidden(pack, None)
        with models.gathered([models.head(teacher_model.model)]):
            teacher_TV = hidden_TH @ models.head(teacher_model.model).T
    return Checkpointed(
        policy=policy,
        average=state(learner).get("average", {}),
        logits_TV=logits_TV,
        teacher_TV=teacher_TV,
        metrics=metrics,
    )


@dataclass(frozen=True, kw_only=True)
class Lent:
    """The teacher's weights, as an engine would be lent them."""

    teacher: Mapping[str, Tensor]
    """By the names of the policy's; empty on the ranks that did not want them."""
    policy: Mapping[str, Tensor]
    teacher_TV: Tensor
    """Logits of the teacher's one teacher_model, after each of the ids that were asked about."""
    metrics: Sequence[Mapping[str, float]]


def lend(placement: ActorPlacement, asked: Sequence[tuple[Setup, Steps]], ids: Sequence[int]) -> list[Lent]:
    """By each learner after its steps, as the actors of LearnerGroup ask for it."""
    found = []
    pack = pack_rows([ids], [range(len(ids))])
    for setup, steps in asked:
        learner, metrics = setup.learner(placement), []
        for updates in steps:
            metrics += take(learner, updates, setup.algorithm)
        wanted = placement.rank == 0
        teacher = {name: tensor.clone() for name, tensor in learner.teacher_parameters(wanted=wanted)}
        policy = {name: tensor.clone() for name, tensor in learner.parameters(wanted=wanted)}
        (teacher_model,) = learner._teacher.models
        with torch.no_grad():
            hidden_TH = teacher_model.hidden(pack, None)
            with models.gathered([models.head(teacher_model.model)]):
                teacher_TV = hidden_TH @ models.head(teacher_model.model).T
        found.append(Lent(teacher=teacher, policy=policy, teacher_TV=teacher_TV, metrics=metrics))
    return found


def _wait(placement: ActorPlacement) -> None:
    if placement.num_ranks > 1:
        distributed.barrier()


def replay(placement: ActorPlacement, config: ReplayConfig) -> tuple[int, str] | str:
    """Exit code and what was printed; or what the user is told is wrong."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            code = run_replay(config)
    except UserError as error:
        return str(error)
    return code, printed.getvalue()


def replay_all(placement: ActorPlacement, configs: Sequence[ReplayConfig]) -> list[str]:
    """What came of each: what was printed, what the user is told, or the traceback that they should not have seen."""
    found = []
    for config in configs:
        try:
            answer = replay(placement, config)
        except Exception:  # noqa: BLE001 - it is what is looked for
            answer = traceback.format_exc()
        found.append(answer if isinstance(answer, str) else answer[1])
    return found
