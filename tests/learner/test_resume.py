"""A run that was stopped and continued is the run that was not, to the last bit; on other ranks as far as rounding allows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdpo.config import (
    Blend,
    Dtype,
    EmaTeacher,
    LearnerConfig,
    LinearSchedule,
    LoraConfig,
    Offload,
    SDPOConfig,
    TopSupport,
)
from tests.learner.launch import launch
from tests.learner.ranks import Course, Leg, Setup, State, Steps, courses
from tests.learner.samples import NUM_TASKS, rows, update_of, updates_of
from tests.learner.tiers import MadeOnce, tiered

pytestmark = pytest.mark.integration
ALGORITHM = SDPOConfig(support=TopSupport(num_ids=10), routing=Blend(policy_gradient_share=0.4), teacher=EmaTeacher(ema_rate=0.2))
CONFIG = LearnerConfig(
    dtype=Dtype.float32, lr=1e-3, warmup_updates=3, weight_decay=0.1, schedule=LinearSchedule(floor=0.5, num_steps=5)
)


def steps(model: Path, num_ranks: int, num_steps: int) -> Steps:
    """Of two updates each."""
    return [
        updates_of(
            rows(model, seed=seed), ALGORITHM, num_ranks=num_ranks, micro_batch_tokens=150, tasks_per_update=NUM_TASKS // 2
        )
        for seed in range(num_steps)
    ]


def differing(one: State | Mapping[str, Tensor], other: State | Mapping[str, Tensor]) -> list[str]:
    """Names of what is not the same to the last bit."""
    assert one.keys() == other.keys()
    found = []
    for name, value in one.items():
        if isinstance(value, Tensor):
            same = other[name]
            assert isinstance(same, Tensor)
            found += [] if value.dtype == same.dtype and torch.equal(value, same) else [name]
        else:
            found += [f"{name} {inner}" for inner in differing(value, other[name])]  # type: ignore[arg-type]
    return found


VARIANTS: Mapping[str, tuple[int, dict[str, object]]] = {
    "fp32, ZeRO 0": (1, {"zero_stage": 0}),
    "fp32, ZeRO 0, two epochs": (1, {"zero_stage": 0, "num_epochs": 2}),
    "fp32, ZeRO 1": (1, {"zero_stage": 1}),
    "bf16, ZeRO 1": (1, {"zero_stage": 1, "dtype": Dtype.bfloat16}),
    "bf16, ZeRO 1, adapters": (1, {"zero_stage": 1, "dtype": Dtype.bfloat16, "lora": LoraConfig(rank=4)}),
    "fp32, ZeRO 0, 2 ranks": (2, {"zero_stage": 0}),
    "fp32, ZeRO 3, 2 ranks": (2, {"zero_stage": 3}),
    "bf16, ZeRO 1, 2 ranks": (2, {"zero_stage": 1, "dtype": Dtype.bfloat16}),
    "bf16, ZeRO 2, 2 ranks": (2, {"zero_stage": 2, "dtype": Dtype.bfloat16}),
    "bf16, ZeRO 2, 2 ranks, offloaded": (2, {"zero_stage": 2, "dtype": Dtype.bfloat16, "offload": Offload.optimizer}),
    "bf16, ZeRO 3, 2 ranks": (2, {"zero_stage": 3, "dtype": Dtype.bfloat16}),
    "bf16, ZeRO 3, 2 ranks, offloaded": (2, {"zero_stage": 3, "dtype": Dtype.bfloat16, "offload": Offload.all}),
    "bf16, ZeRO 3, 2 ranks, adapters": (2, {"zero_stage": 3, "dtype": Dtype.bfloat16, "lora": LoraConfig(rank=4)}),
}
CORNERS = ("fp32, ZeRO 0, two epochs", "bf16, ZeRO 1, adapters", "bf16, ZeRO 2, 2 ranks", "bf16, ZeRO 3, 2 ranks, offloaded")
Straight = dict[str, tuple[Course, Course, Path]]
Saved = dict[str, tuple[Course, Path]]


@pytest.fixture(scope="module")
def straight(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """Six steps in one go; the first three, saved in a folder."""

    def go(label: str) -> tuple[Course, Course, Path]:
        num_ranks, changes = VARIANTS[label]
        folder = tmp_path_factory.mktemp("resume")
        setup = Setup(model=model, algorithm=ALGORITHM, config=CONFIG).with_(**changes)
        through = Leg(setup=setup, steps=steps(model, num_ranks, 6))
        half = Leg(setup=setup, steps=steps(model, num_ranks, 3), save=folder)
        whole, first = launch(num_ranks, courses, [through, half])[0]
        return whole, first, folder

    return MadeOnce(go)


@pytest.mark.parametrize("label", tiered(VARIANTS, CORNERS))
def test_a_resumed_run_ends_with_the_same_bits(label: str, straight: Straight, model: Path) -> None:
    whole, first, folder = straight[label]
    num_ranks, changes = VARIANTS[label]
    setup = Setup(model=model, algorithm=ALGORITHM, config=CONFIG).with_(**changes)
    leg = Leg(setup=setup, steps=steps(model, num_ranks, 6)[3:], restore=(folder, first.num_steps, first.num_updates))
    second = launch(num_ranks, courses, [leg])[0][0]
    assert differing(first.ends, second.begins) == []
    assert {"master", "exp_avg", "exp_avg_sq", "average"} == whole.ends.keys()
    assert differing(whole.ends, second.ends) == []
    assert differing(whole.policy, second.policy) == []
    assert all(torch.equal(one, other) for one, other in zip(whole.ema_copy, second.ema_copy, strict=True))
    assert [*first.metrics, *second.metrics] == list(whole.metrics)
    num_updates = 12 * setup.config.num_epochs
    shares = [share for share in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5) for _ in range(num_updates // 6)]
    rates = [share * warm for share, warm in zip(shares, [1 / 3, 2 / 3, *[1.0] * (num_updates - 2)], strict=True)]
    assert [metrics["lr"] / CONFIG.lr for metrics in whole.metrics] == pytest.approx(rates)
    assert whole.steps_counted == second.steps_counted == {float(num_updates)}
    assert (second.num_steps, second.num_updates) == (6, num_updates)
    assert torch.equal(whole.random, second.random)
    moved = torch.cat([whole.ends["master"][name] - whole.begins["master"][name] for name in whole.ends["master"]])
    print(f"{label}: the same bits after {num_updates} updates that moved the weights by {moved.norm():.2f}")


IN_BF16 = [label for label in VARIANTS if "bf16" in label and "adapters" not in label]


@pytest.mark.parametrize("label", tiered(IN_BF16, CORNERS[2:]))
def test_parameters_are_the_masters_rounded(label: str, straight: Straight) -> None:
    whole, _, _ = straight[label]
    for name, master in whole.ends["master"].items():
        assert torch.equal(whole.policy[name].flatten(), master.bfloat16()), name


TRANSFERS = [
    ("2 ranks, ZeRO 2", 2, {"zero_stage": 2}),
    ("2 ranks, ZeRO 3", 2, {"zero_stage": 3}),
    ("2 ranks, ZeRO 0", 2, {"zero_stage": 0}),
    ("3 ranks, ZeRO 1", 3, {"zero_stage": 1}),
    ("1 rank, ZeRO 1", 1, {"zero_stage": 1}),
]
TARGETS = [
    ("1 rank, ZeRO 1", 1, {"zero_stage": 1}),
    ("1 rank, ZeRO 0", 1, {"zero_stage": 0}),
    ("2 ranks, ZeRO 3", 2, {"zero_stage": 3}),
    ("2 ranks, ZeRO 2, offloaded", 2, {"zero_stage": 2, "offload": Offload.optimizer}),
    ("3 ranks, ZeRO 3", 3, {"zero_stage": 3}),
]


@pytest.fixture(scope="module")
def saved(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    def save(label: str) -> tuple[Course, Path]:
        ((num_ranks, changes),) = [(num, changes) for source, num, changes in TRANSFERS if source == label]
        folder = tmp_path_factory.mktemp("transfer")
        setup = Setup(model=model, algorithm=ALGORITHM, config=CONFIG).with_(**changes)
        coming = update_of(rows(model, seed=7), ALGORITHM, num_ranks=num_ranks)
        leg = Leg(setup=setup, steps=steps(model, num_ranks, 2), save=folder, next=coming)
        return launch(num_ranks, courses, [leg])[0][0], folder

    return MadeOnce(save)


@pytest.mark.parametrize("source", tiered([label for label, _, _ in TRANSFERS], ["2 ranks, ZeRO 3"]))
def test_a_checkpoint_continues_on_other_ranks_and_under_another_zero_stage(source: str, saved: Saved, model: Path) -> None:
    before, folder = saved[source]
    assert before.next is not None
    problems = []
    for num_ranks in (1, 2, 3):
        targets = [(label, changes) for label, num, changes in TARGETS if num == num_ranks]
        coming = update_of(rows(model, seed=7), ALGORITHM, num_ranks=num_ranks)
        legs = [
            Leg(
                setup=Setup(model=model, algorithm=ALGORITHM, config=CONFIG).with_(**changes),
                steps=[],
                restore=(folder, before.num_steps, before.num_updates),
                next=coming,
            )
            for _, changes in targets
        ]
        for (label, _), after in zip(targets, launch(num_ranks, courses, legs)[0], strict=True):
            assert after.next is not None
            unlike = differing(before.ends, after.ends) + differing(before.policy, after.policy)
            apart = float((after.next.vector - before.next.vector).norm() / before.next.vector.norm())
            of_loss = abs(after.next.loss / before.next.loss - 1.0)
            print(f"{source} to {label}: {len(unlike)} tensors differ, next gradient {apart:.1e}, loss {of_loss:.1e}")
            problems += [f"{label}: {name}" for name in unlike]
            problems += [f"{label}: gradient {apart:.1e}, loss {of_loss:.1e}"] if max(apart, of_loss) > 1e-6 else []
    assert problems == []


def test_a_checkpoint_that_lacks_a_ranks_file_is_refused(saved: Saved, model: Path, tmp_path: Path) -> None:
    before, folder = saved["2 ranks, ZeRO 3"]
    (tmp_path / "rank-00000.safetensors").write_bytes((folder / "rank-00000.safetensors").read_bytes())
    leg = Leg(setup=Setup(model=model, algorithm=ALGORITHM, config=CONFIG), steps=[], restore=(tmp_path, 2, 4))
    with pytest.raises(AssertionError, match="a checkpoint must hold"):
        launch(1, courses, [leg])
    assert before.num_updates == 4


def test_a_checkpoint_of_a_larger_model_is_refused(saved: Saved, model: Path, tmp_path: Path) -> None:
    """Parameters of the same names and more elements: their beginnings would fit, and mean nothing."""
    _, folder = saved["1 rank, ZeRO 1"]
    stored = load_file(folder / "rank-00000.safetensors")
    larger = {key: value if key == "random" else torch.cat([value, value]) for key, value in stored.items()}
    save_file(larger, tmp_path / "rank-00000.safetensors")
    leg = Leg(setup=Setup(model=model, algorithm=ALGORITHM, config=CONFIG), steps=[], restore=(tmp_path, 2, 4))
    with pytest.raises(AssertionError, match="a checkpoint must hold"):
        launch(1, courses, [leg])


def test_a_checkpoint_with_parameters_that_the_model_lacks_is_refused(untied: Path, model: Path, tmp_path: Path) -> None:
    """An untied head, say, under a model whose head is its embedding."""
    first = Leg(setup=Setup(model=untied, algorithm=ALGORITHM, config=CONFIG), steps=[], save=tmp_path)
    launch(1, courses, [first])
    leg = Leg(setup=Setup(model=model, algorithm=ALGORITHM, config=CONFIG), steps=[], restore=(tmp_path, 0, 0))
    with pytest.raises(AssertionError, match="a checkpoint must hold"):
        launch(1, courses, [leg])


def test_the_refusal_of_a_checkpoint_names_what_it_lacks(saved: Saved, model: Path) -> None:
    _, folder = saved["1 rank, ZeRO 1"]
    setup = Setup(model=model, algorithm=ALGORITHM, config=CONFIG).with_(lora=LoraConfig(rank=4))
    with pytest.raises(AssertionError, match=r"lora_A.* learner.lora\?"):
        launch(1, courses, [Leg(setup=setup, steps=[], restore=(folder, 2, 4))])
