"""``sdpo plan`` as it is called: what fits exits 0, what does not 1, with its arithmetic and a remedy that works; bad input 2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sdpo.cli import main
from sdpo.config import Config, Dtype
from sdpo.errors import UserError
from sdpo.planning.gpu_plan import gpu_plan
from sdpo.planning.request import plan_request
from sdpo.planning.suggestions import suggestions, turned
from tests.planning.plans import PAPER, QWEN_8B, planned
from tests.tiny import write_tiny_model

GH200 = (*PAPER, "learner=zero3", "learner.num_ranks=4", "rollout.num_engines=4", "cluster.gpus_per_node=4", "gpu_gib=96")


def shown(capsys: pytest.CaptureFixture[str], words: Sequence[str], code: int) -> tuple[str, dict[str, Any]]:
    assert main(["plan", *words]) == code
    text, _, last = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    return text, json.loads(last)


def test_what_does_not_fit_says_why_in_numbers_and_each_suggestion_does_fit(capsys: pytest.CaptureFixture[str]) -> None:
    text, record = shown(capsys, GH200, 1)
    assert not record["fits"]
    (problem,) = record["problems"]
    assert "61.9 + 48.0 = 109.9" in problem, "a rank and half of 96 GiB, on one GPU"
    assert "rollout.gpu_memory_utilization=0.5 x 96" in problem
    assert "does not fit" in text
    assert "12 B x 8.191 G trained / 4" in text
    assert record["suggestions"]
    _, again = shown(capsys, [*GH200, *record["suggestions"][0]], 0)
    assert again["fits"]
    assert again["problems"] == again["suggestions"] == []


def test_every_suggestion_fits_and_needs_each_of_its_turns() -> None:
    plan = planned(*PAPER, "learner=zero3", "rollout.num_engines=4", gpus=4, gib=96.0)

    def fits(config: Config) -> bool:
        try:
            return gpu_plan(config, QWEN_8B, None, plan.machine).fits
        except UserError:
            return False

    ways = suggestions(plan.config, QWEN_8B, fits, is_gpu=True)
    assert not plan.fits
    assert ways
    for way in ways:
        for left_out in (None, *way):
            changed = turned(plan.config, tuple(turn for turn in way if turn is not left_out))
            assert changed is not None
            assert fits(changed) is (left_out is None)


def test_sixteen_nodes_of_eight_gpus_fit(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*PAPER, "learner=zero3", "learner.num_ranks=64", "learner.sequence_parallel=2", "rollout.num_engines=32",
             "rollout.tensor_parallel_size=2", "cluster.nodes=16", "cluster.gpus_per_node=8")  # fmt: skip
    _, record = shown(capsys, words, 0)
    assert record["ranks"][63] == "node 7 GPU 7"
    assert record["engines"][8] == ["node 8 GPU 2", "node 8 GPU 3"] or record["engines"][8] == ["node 9 GPU 2", "node 9 GPU 3"]
    assert len(record["host_gib"]) == 16
    assert record["rank_gib"]["weights"] == pytest.approx(2 * 8_190_735_360 / 64 / 2**30, abs=1e-3)


def test_an_object_store_that_is_too_small_is_one_key_to_turn(capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in GH200 if not word.startswith("cluster.object_store")]
    _, record = shown(capsys, [*words, "rollout.gpu_memory_utilization=0.35"], 1)
    assert "30.5 GiB" in record["problems"][0]
    assert record["suggestions"] == [["cluster.object_store_gib=31"]]
    joined = [*words, "rollout.gpu_memory_utilization=0.35", "cluster.address=auto"]
    assert shown(capsys, joined, 0)[1]["fits"], "a cluster that is joined has an object store of its own"


def test_a_context_that_is_too_short_and_a_cache_without_room_are_problems() -> None:
    long = planned(*PAPER, "sampling.max_response_tokens=40000", gib=1000.0)
    assert any("context 40,960" in problem for problem in long.problems)
    small = planned(*PAPER, "rollout.gpu_memory_utilization=0.2", gib=80.0)
    assert any("left for it are -" in problem for problem in small.problems)


def test_host_memory_is_checked_where_it_is_known() -> None:
    words = (*PAPER, "learner=zero3", "learner.offload=optimizer", "rollout.gpu_memory_utilization=0.35")
    assert not any("of its own memory" in problem for problem in planned(*words, gib=96.0).problems)
    assert any("of its own memory" in problem for problem in planned(*words, gib=96.0, host=100.0).problems)


def test_heads_that_do_not_divide_are_a_problem() -> None:
    found = planned("rollout.tensor_parallel_size=3", "learner.num_ranks=3", "learner.sequence_parallel=3", gpus=8)
    assert [problem.partition(" must divide")[0] for problem in found.problems if "must divide" in problem] == [
        "learner.sequence_parallel", "rollout.tensor_parallel_size",
    ]  # fmt: skip


def test_types_are_those_of_the_planned_machine_and_not_of_this_one(tmp_path: Path) -> None:
    """A laptop whose CPU would choose fp32 plans GPUs in bf16, as a run on them would."""
    (tmp_path / "dev").mkdir()
    on_gpus = plan_request(["cluster.gpus_per_node=8"], root=tmp_path)
    assert (on_gpus.config.learner.dtype, on_gpus.config.rollout.dtype) == (Dtype.bfloat16, Dtype.bfloat16)
    asked = plan_request(["cluster.gpus_per_node=8", "learner.dtype=float32"], root=tmp_path)
    assert asked.config.learner.dtype is Dtype.float32
    assert not on_gpus.machine.joins_cluster
    assert on_gpus.machine.host_gib is None


def test_without_a_word_the_gpus_of_this_machine_are_counted(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    assert plan_request([], root=tmp_path).machine.gpus_per_node == 0
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    assert plan_request([], root=tmp_path).machine.gpus_per_node == 2


def test_a_machine_without_gpus_is_planned_by_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_tiny_model(tmp_path / "model")
    words = [f"model.path={model}", "model.name=tiny", "cluster.gpus_per_node=0"]
    text, record = shown(capsys, words, 0)
    assert set(record["process_gib"]) == {"learner", "engine", "driver", "verifier", "object store", "ray"}
    assert record["machine_gib"] == pytest.approx(
        sum(record["process_gib"][name] * num for name, num in record["processes"].items()), abs=1e-3
    )
    assert "it fits" in text
    _, small = shown(capsys, [*words, "host_gib=1"], 1)
    assert "the machine has 1.0 GiB" in small["problems"][-1]


def test_how_it_scales_is_printed_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    times = 'scale={"generate": 60, "student": 40, "longest": 20, "sync": 2}'
    text, record = shown(capsys, [*GH200, "rollout.gpu_memory_utilization=0.35", times], 0)
    assert [point["nodes"] for point in record["scale"][0]["points"]] == [1, 2, 4, 8, 16, 32, 64]
    assert "the longest response" in text
    assert "assumed:" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gpu_gib=0"], "gpu_gib must be a number above 0"),
        (["gpu_gib=nan"], "gpu_gib must be"),
        (["gpu_gib=80", "gpu_gib=96"], "given once"),
        (["scale"], "given once"),
        (["host_gib=-4"], "host_gib must be"),
        (["network_gb_s=inf"], "network_gb_s must be"),
        (["latency_us="], "latency_us must be"),
        (["cluster.nodes=0"], "cluster.nodes must be at least 1"),
        (["cluster.gpus_per_node=-1"], "cluster.gpus_per_node must be at least 0"),
        (["learner.num_rank=2"], "Did you mean learner.num_ranks"),
        (["cluster.gpus_per_node=1", "learner.num_ranks=4"], "Lower one of them"),
        (["model.path=owner/name", "model.name=x"], "must know the model's shape"),
        (["scale=nowhere"], "a run folder holds"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("error: ")
    assert said in error
    assert "\x1b" not in error


def test_the_plan_of_what_a_run_would_refuse_is_refused_alike(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("plan", "train"):
        assert main([command, "batch.group_size=1", "algorithm=grpo"]) == 2
    first, second = capsys.readouterr().err.split("error: ")[1:]
    assert first.split() == second.split()
