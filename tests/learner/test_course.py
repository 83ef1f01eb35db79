"""Several updates in a row are what AdamW in fp64 makes of the formulas: optimizer, warm-up, clipping, importance ratios, and
every teacher as it follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdpo.config import (
    AlgorithmConfig,
    AnchoredTeacher,
    Blend,
    Dtype,
    EmaTeacher,
    ExternalTeacher,
    FrozenTeacher,
    FullSupport,
    Granularity,
    GRPOConfig,
    LearnerConfig,
    LiveTeacher,
    LoraConfig,
    LossMean,
    Offload,
    OnGainTeacher,
    PeriodicTeacher,
    PolicyGradientConfig,
    RatioLevel,
    SDPOConfig,
    SupportKind,
    TeacherConfig,
    TopSupport,
    TrustRegionTeacher,
)
from sdpo.types import Sample
from tests.learner import reference
from tests.learner.launch import launch
from tests.learner.ranks import Course, Leg, Setup, courses
from tests.learner.samples import MAX_RESPONSE_TOKENS, NUM_TASKS, TEMPERATURE, rows, updates_of
from tests.learner.tiers import ranks_and

pytestmark = pytest.mark.integration
CONFIG = LearnerConfig(dtype=Dtype.float32, lr=2e-3, warmup_updates=3, weight_decay=0.1, grad_clip=1.95, beta1=0.8, beta2=0.95)
"""Two updates in four are clipped; the second step's first is the first with the whole rate."""
NUM_STEPS = 2


TEACHERS: dict[str, TeacherConfig] = {
    "live": LiveTeacher(),
    "frozen": FrozenTeacher(),
    "ema": EmaTeacher(ema_rate=0.2),
    "on_gain": OnGainTeacher(),
    "periodic": PeriodicTeacher(refresh_every=1),
    "trust_region": TrustRegionTeacher(live_weight=0.3),
    "anchored": AnchoredTeacher(beta=1.6),
    "external": ExternalTeacher(path="elsewhere"),
}


def sdpo(kind: str, **changes: object) -> SDPOConfig:
    blend = Blend(policy_gradient_share=0.4)
    return SDPOConfig(**{"support": TopSupport(num_ids=10), "routing": blend, "teacher": TEACHERS[kind], **changes})  # type: ignore[arg-type]


def samples_of(setup: Setup) -> list[list[list[Sample]]]:
    """Steps of two updates of two tasks each, with the weights that sdpo.batches.samples gives rows under the algorithm."""
    per_update = NUM_TASKS // 2
    _, share = setup.algorithm.weights(is_solved=False, has_hint=True, is_uniform=False)
    return [
        [[s for s in step if s.task_index // per_update == index] for index in range(2)]
        for step in (rows(setup.model, seed=seed, share=share) for seed in range(NUM_STEPS))
    ]


def leg(setup: Setup, num_ranks: int) -> Leg:
    steps = [
        updates_of(
            [s for update in step for s in update],
            setup.algorithm,
            num_ranks=num_ranks,
            micro_batch_tokens=150,
            tasks_per_update=NUM_TASKS // 2,
        )
        for step in samples_of(setup)
    ]
    return Leg(setup=setup, steps=steps)


_EXPECTED: dict[str, reference.Course] = {}


def expected(setup: Setup, begins: Mapping[str, Tensor] | None = None) -> reference.Course:
    """In fp64; the same for any number of ranks and any ZeRO stage, so computed once. ``begins``: the adapters."""
    key = repr((setup.model, setup.algorithm, setup.config.lora, setup.config.grad_clip))
    if key not in _EXPECTED:
        _EXPECTED[key] = _computed(setup, begins)
    return _EXPECTED[key]


def _computed(setup: Setup, begins: Mapping[str, Tensor] | None) -> reference.Course:
    return reference.course(
        setup.model,
        samples_of(setup),
        setup.algorithm,
        setup.config,
        temperature=TEMPERATURE,
        max_response_tokens=MAX_RESPONSE_TOKENS,
        begins=begins,
        other=setup.teacher,
    )


def apart(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], start: Mapping[str, Tensor] | None = None) -> float:
    """The difference of two sets of tensors, by the norm of the second, or of how far that is from ``start``, if it is
    anywhere else."""
    assert ours.keys() == theirs.keys()
    error = sum(float((ours[name].double() - theirs[name].flatten()).square().sum()) for name in theirs)
    whole = sum(
        float((theirs[name].flatten() - (0.0 if start is None else start[name].double())).square().sum()) for name in theirs
    )
    return float((error / whole) ** 0.5) if whole else float(error**0.5)


def check(label: str, ours: Course, theirs: reference.Course, *, keeps_average: bool) -> None:
    """Losses to 1e-5, movements and moments to 1e-3 of themselves: an optimizer that counts an update too many is off by 1e-1."""
    of_loss = max(abs(m["loss"] - value) / abs(value) for m, value in zip(ours.metrics, theirs.losses, strict=True))
    of_norm = max(abs(m["grad_norm"] / value - 1.0) for m, value in zip(ours.metrics, theirs.norms, strict=True))
    moved = apart(ours.ends["master"], theirs.trained, ours.begins["master"])
    means, squares = (apart(ours.ends[kind], getattr(theirs, kind)) for kind in ("exp_avg", "exp_avg_sq"))
    followed = apart(ours.ends["average"], theirs.average, ours.begins["master"]) if keeps_average else 0.0
    print(
        f"{label}: loss {of_loss:.1e}, norm {of_norm:.1e}, movement {moved:.1e}, moments {means:.1e} {squares:.1e}, "
        f"average's movement {followed:.1e}"
    )
    assert max(of_loss, of_norm) < 1e-4
    assert max(moved, means, squares, followed) < 1e-3
    assert keeps_average == ("average" in ours.ends)


ZERO: Mapping[str, dict[str, object]] = {
    **{f"ZeRO {stage}": {"zero_stage": stage} for stage in (0, 1, 2, 3)},
    **{f"ZeRO {stage} offloaded": {"zero_stage": stage, "offload": Offload.optimizer} for stage in (1, 2, 3)},
    "ZeRO 3 all offloaded": {"zero_stage": 3, "offload": Offload.all},
}


@pytest.mark.parametrize(
    ("num_ranks", "labels"), ranks_and(("ZeRO 0", "ZeRO 1", "ZeRO 2 offloaded", "ZeRO 3", "ZeRO 3 all offloaded"), ZERO)
)
def test_updates_are_adamws_under_every_zero_stage(num_ranks: int, labels: tuple[str, ...], model: Path) -> None:
    """Bias corrections from the first update on, decay of matrices alone, clipping before the moments, a rate that warms up."""
    setup = Setup(model=model, algorithm=sdpo("ema"), config=CONFIG)
    theirs = expected(setup)
    assert min(theirs.norms) < CONFIG.grad_clip < max(theirs.norms)
    found = launch(num_ranks, courses, [leg(setup.with_(**ZERO[label]), num_ranks) for label in labels])[0]
    for label, ours in zip(labels, found, strict=True):
        check(f"{num_ranks} ranks, {label}", ours, theirs, keeps_average=True)
        rates = [metrics["lr"] for metrics in ours.metrics]
        assert rates == pytest.approx([CONFIG.lr / 3, CONFIG.lr * 2 / 3, CONFIG.lr, CONFIG.lr])
        assert (ours.num_updates, ours.num_steps) == (4, 2)


def on(num_ranks: int, stage: int, *marks: pytest.MarkDecorator) -> object:
    return pytest.param(num_ranks, stage, marks=marks, id=f"{num_ranks}-ZeRO {stage}")


FULL = pytest.mark.full
RANKS_AND_STAGE = pytest.mark.parametrize(("num_ranks", "stage"), [on(2, 3), on(1, 1, FULL), on(1, 3, FULL), on(2, 1, FULL)])


@RANKS_AND_STAGE
def test_every_teacher_follows_as_it_should(num_ranks: int, stage: int, model: Path, untied: Path) -> None:
    asked, labels, setups = [], [], []
    for kind in TEACHERS:
        setup = Setup(model=model, algorithm=sdpo(kind), config=CONFIG, teacher=untied if kind == "external" else None)
        asked.append(leg(setup.with_(zero_stage=stage), num_ranks))
        labels.append(f"{kind}, {num_ranks} ranks, ZeRO {stage}")
        setups.append(setup)
    found = launch(num_ranks, courses, asked)[0]
    for label, setup, ours in zip(labels, setups, found, strict=True):
        assert isinstance(setup.algorithm, SDPOConfig)
        check(label, ours, expected(setup), keeps_average=setup.algorithm.teacher.keeps_average)


@pytest.mark.parametrize("kinds", [("ema", "external"), pytest.param(tuple(TEACHERS), marks=FULL)], ids=["corners", "all"])
@RANKS_AND_STAGE
def test_adapters_learn_from_every_teacher(num_ranks: int, stage: int, kinds: tuple[str, ...], model: Path, untied: Path) -> None:
    asked, labels = [], []
    for kind in kinds:
        setup = Setup(
            model=model,
            algorithm=sdpo(kind, reference_kl=0.1),
            config=replace(CONFIG, lora=LoraConfig(rank=4)),
            teacher=untied if kind == "external" else None,
        )
        asked.append(leg(setup.with_(zero_stage=stage), num_ranks))
        labels.append(f"adapters, {kind}, {num_ranks} ranks, ZeRO {stage}")
    found = launch(num_ranks, courses, asked)[0]
    for label, one, ours in zip(labels, asked, found, strict=True):
        assert all(torch.equal(ours.begins["master"][name], flat) for name, flat in found[0].begins["master"].items())
        shapes = adapter_shapes(ours.policy, ours.begins["master"], rank=4)
        begins = {name: flat.view(shapes[name]) for name, flat in ours.begins["master"].items()}
        assert isinstance(one.setup.algorithm, SDPOConfig)
        keeps_average = one.setup.algorithm.teacher.keeps_average
        check(label, ours, expected(one.setup, begins), keeps_average=keeps_average)


def adapter_shapes(policy: Mapping[str, Tensor], names: Mapping[str, Tensor], *, rank: int) -> dict[str, tuple[int, int]]:
    """[rank, inputs] of the first and [outputs, rank] of the second matrix of each adapter."""
    found = {}
    for name in names:
        layer, _, rest = name.partition(".lora_")
        outputs, inputs = policy[f"{layer}.weight"].shape
        found[name] = (rank, inputs) if rest.startswith("A") else (outputs, rank)
    return found


ALGORITHMS: Mapping[str, AlgorithmConfig] = {
    "forward KL, teacher's support": sdpo(
        "frozen", divergence="forward_kl", support=TopSupport(kind=SupportKind.teacher, num_ids=7)
    ),
    "JSD without a tail": sdpo("ema", divergence="jsd", jsd_beta=0.3, support=TopSupport(num_ids=20, tail=False)),
    "full support": sdpo("live", support=FullSupport(), entropy_bonus=0.05),
    "token": sdpo("frozen", granularity=Granularity.token, routing=Blend(policy_gradient_share=0.0)),
    "sequence": sdpo("frozen", granularity=Granularity.sequence),
    "all weights of tokens": sdpo("frozen", entropy_weight=0.3, future_credit=0.9, pointwise_clip=0.05),
    "anchored": sdpo("anchored"),
    "clamps that bite": sdpo("ema", importance_clip=1.0, rollout_clip=1.0),
    "GRPO": GRPOConfig(),
    "GRPO with all its terms": GRPOConfig(
        entropy_bonus=0.1,
        reference_kl=0.2,
        policy_gradient=PolicyGradientConfig(mean=LossMean.sequence, clip_low=0.01, clip_high=0.01),
    ),
    "GSPO": GRPOConfig(policy_gradient=PolicyGradientConfig(ratio=RatioLevel.sequence, mean=LossMean.sequence)),
    "Dr.GRPO": GRPOConfig(policy_gradient=PolicyGradientConfig(mean=LossMean.constant)),
}


@pytest.mark.parametrize(("num_ranks", "stage"), [on(1, 1), on(2, 3, FULL)])
def test_every_algorithm_learns_by_its_formulas(num_ranks: int, stage: int, model: Path) -> None:
    """Also from the second update of a step, where the ratios to the policy before it are no longer 1."""
    setups = [Setup(model=model, algorithm=algorithm, config=CONFIG) for algorithm in ALGORITHMS.values()]
    found = launch(num_ranks, courses, [leg(setup.with_(zero_stage=stage), num_ranks) for setup in setups])[0]
    for label, setup, ours in zip(ALGORITHMS, setups, found, strict=True):
        keeps_average = isinstance(setup.algorithm, SDPOConfig) and setup.algorithm.teacher.kind == "ema"
        check(f"{label}, {num_ranks} ranks, ZeRO {stage}", ours, expected(setup), keeps_average=keeps_average)


def test_later_epochs_learn_the_same_samples_by_ratios_to_the_policy_before_the_first(model: Path) -> None:
    """A step's only update was scored by what the policy says in it, which in a second epoch is another policy.

    An average rests until the step is over; a live teacher is the policy as each update finds it.
    """
    algorithms = (sdpo("ema"), sdpo("live"), GRPOConfig())
    setups = [Setup(model=model, algorithm=algorithm, config=replace(CONFIG, num_epochs=2)) for algorithm in algorithms]
    samples = [[[s for update in step for s in update] for step in samples_of(setup)] for setup in setups]
    legs = [
        Leg(setup=setup, steps=[updates_of(of_step, setup.algorithm, micro_batch_tokens=150) for of_step in of_setup])
        for setup, of_setup in zip(setups, samples, strict=True)
    ]
    for setup, of_setup, ours in zip(setups, samples, launch(1, courses, legs)[0], strict=True):
        theirs = reference.course(
            model,
            [[of_step, of_step] for of_step in of_setup],
            setup.algorithm,
            setup.config,
            temperature=TEMPERATURE,
            max_response_tokens=MAX_RESPONSE_TOKENS,
        )
        kind = setup.algorithm.taught_by.kind if setup.algorithm.taught_by is not None else "none"
        check(f"two epochs, {setup.algorithm.name}, teacher {kind}", ours, theirs, keeps_average=kind == "ema")
        assert (ours.num_updates, ours.num_steps) == (4, 2)
        assert [metrics["learned_rows"] > 0.0 for metrics in ours.metrics] == [True, False] * 2


@pytest.mark.parametrize(
    ("kind", "stages"),
    [
        ("ema", (3,)),
        ("trust_region", (1,)),
        pytest.param("ema", (0, 1), marks=pytest.mark.full),
        pytest.param("trust_region", (0, 3), marks=pytest.mark.full),
    ],
    ids=lambda value: str(getattr(value, "value", value)),
)
def test_ranks_that_share_rows_learn_what_one_would(kind: str, stages: tuple[int, ...], model: Path) -> None:
    """Each knows the old and the reference's log-probabilities of its own tokens alone; lengths and counts are the rows', and
    the mean certainty of the teacher is over the tokens of both."""
    pg = PolicyGradientConfig(mean=LossMean.sequence)
    setup = Setup(
        model=model,
        algorithm=sdpo(kind, reference_kl=0.1, entropy_bonus=0.1, entropy_weight=0.8, policy_gradient=pg),
        config=CONFIG,
    ).with_(num_ranks=2, sequence_parallel=2)
    found = launch(2, courses, [leg(setup.with_(zero_stage=stage), 1) for stage in stages])[0]
    for stage, ours in zip(stages, found, strict=True):
        check(f"Ulysses, {kind}, ZeRO {stage}", ours, expected(setup), keeps_average=kind == "ema")


IN_BF16 = ("ZeRO 1", *(label for label in ZERO if label not in ("ZeRO 0", "ZeRO 1", "ZeRO 3 all offloaded")))
"""ZeRO 1 first: the others are compared with it."""


@pytest.mark.parametrize(("num_ranks", "labels"), ranks_and(("ZeRO 1", "ZeRO 2 offloaded", "ZeRO 3"), IN_BF16))
def test_updates_in_bf16_are_the_same_under_every_zero_stage(num_ranks: int, labels: tuple[str, ...], model: Path) -> None:
    """Only sums over ranks and micro-batches may round differently, in fp32."""
    setup = Setup(model=model, algorithm=sdpo("ema"), config=CONFIG).with_(dtype=Dtype.bfloat16)
    theirs = expected(setup)
    found = launch(num_ranks, courses, [leg(setup.with_(**ZERO[label]), num_ranks) for label in labels])[0]
    for label, ours in zip(labels, found, strict=True):
        apart_ = {
            kind: apart(ours.ends[kind], found[0].ends[kind], ours.begins["master"] if kind == "master" else None)
            for kind in ("master", "exp_avg", "exp_avg_sq")
        }
        true = apart(ours.ends["master"], theirs.trained, ours.begins["master"])
        print(
            f"bf16, {num_ranks} ranks, {label} to ZeRO 1: "
            + ", ".join(f"{kind} {value:.1e}" for kind, value in apart_.items())
            + f"; movement to fp64 {true:.1e}"
        )
        assert max(apart_.values()) < 1e-2
        assert true < 0.2
