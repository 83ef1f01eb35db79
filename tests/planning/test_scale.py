"""The scale model: one node is what was measured, nothing is ever more than perfectly efficient, and each limit limits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo.errors import UserError
from sdpo.planning.gpu_plan import Machine
from sdpo.planning.request import PlanRequest
from sdpo.planning.scale import (
    FACTORS,
    Network,
    Part,
    Workload,
    communication_s,
    curves,
    parts_of,
    point,
    ring_s,
    together,
    uneven,
)
from sdpo.planning.scale_source import DEFAULT, workload
from sdpo.planning.shapes import PUBLISHED
from tests.planning.plans import config_of
from tests.report.folders import attempt_of, step_of, write_folder
from tests.report.folders import config_of as run_config

NETWORK = Network(bytes_per_s=50e9, latency_s=2e-5)
SHAPE = PUBLISHED["package:smollm2_135m"]
WORK = Workload(
    source="by hand", num_nodes=1, generate_s=60.0, longest_s=15.0, verify_s=2.0, learn_s=40.0, optimizer_s=2.0, sync_s=3.0,
    driver_s=1.0, attempts=256.0, rows_per_update=256.0, updates=1, ranks_per_node=8.0, passes=4, zero_stage=1,
    gradient_bytes=32e9, weight_bytes=16e9, overlaps=False,
)  # fmt: skip


def request(scale: str, *words: str) -> PlanRequest:
    return PlanRequest(
        config=config_of(*words),
        machine=Machine(gpus_per_node=0, gpu_gib=80.0, host_gib=None),
        network=NETWORK,
        scale=scale,
    )


def test_on_the_measured_nodes_a_step_is_the_measured_step() -> None:
    for is_weak in (False, True):
        first = point(WORK, NETWORK, 1, is_weak=is_weak)
        assert (first.step_s, first.efficiency) == (pytest.approx(108.0), 1.0)
        assert first.parts[Part.communication] == 0.0
    assert point(replace(WORK, overlaps=True), NETWORK, 1, is_weak=False).step_s == pytest.approx(62.0 + 4.0)


def test_a_ring_by_hand() -> None:
    """32 GB over four nodes at 50 GB/s: six steps of 8 GB, 0.16 s and 20 µs each; an all-gather is half of it."""
    assert ring_s(32e9, 4, NETWORK) == pytest.approx(6 * (0.16 + 2e-5))
    assert ring_s(32e9, 4, NETWORK, turns=1) == pytest.approx(3 * (0.16 + 2e-5))
    assert ring_s(32e9, 1, NETWORK) == 0.0


def test_each_zero_stage_sends_what_it_must() -> None:
    """Two nodes: a gradient scattered is 16 GB, weights gathered 8 GB, at 50 GB/s; the four passes of one node are two of two."""
    network = Network(bytes_per_s=50e9, latency_s=0.0)
    seconds = [communication_s(replace(WORK, zero_stage=stage), network, 2, is_weak=False) for stage in (0, 1, 2, 3)]
    assert seconds == pytest.approx([0.64, 0.64 + 0.16, 2 * 0.32 + 0.16, 2 * (3 * 0.16 + 0.32)])


def test_generation_ends_with_the_longest_response() -> None:
    quick, slow = point(WORK, NETWORK, 4, is_weak=False), point(WORK, NETWORK, 64, is_weak=False)
    assert quick.parts[Part.generation] == 15.0
    assert slow.parts[Part.longest] == 15.0
    assert slow.limit is Part.longest


def test_rows_are_divided_whole() -> None:
    assert uneven(WORK, 1) == 1.0
    assert uneven(WORK, 32) == pytest.approx(1 / 32)
    assert uneven(WORK, 64) == uneven(WORK, 32), "256 ranks have a row each, and 512 no less"
    assert Part.rows in parts_of(WORK, NETWORK, 64, is_weak=False)


def test_what_the_driver_does_limits_at_last() -> None:
    work = replace(WORK, driver_s=30.0)
    assert point(work, NETWORK, 64, is_weak=True).limit is Part.driver
    assert point(work, NETWORK, 64, is_weak=False).step_s > 30.0


def test_a_slow_network_limits() -> None:
    slow = Network(bytes_per_s=1e9, latency_s=1e-3)
    assert point(replace(WORK, zero_stage=3), slow, 16, is_weak=True).limit is Part.communication


def test_staleness_hides_the_shorter_side() -> None:
    parts = parts_of(WORK, NETWORK, 2, is_weak=False)
    sampling, learning = 30.0 + 1.0, 20.0 + 1.0 + parts[Part.communication]
    rest = parts[Part.sync] + parts[Part.driver]
    assert together(parts, overlaps=True) == pytest.approx(max(sampling, learning) + rest)
    assert together(parts, overlaps=False) == pytest.approx(sampling + learning + rest)


SECONDS = st.floats(0.0, 1e4)
WORKS = st.builds(
    lambda share, **fields: Workload(source="", longest_s=share * fields["generate_s"], **fields),
    share=st.floats(0.0, 1.0), num_nodes=st.integers(1, 16), generate_s=SECONDS, verify_s=SECONDS, learn_s=SECONDS,
    optimizer_s=SECONDS, sync_s=SECONDS, driver_s=SECONDS, attempts=st.floats(1.0, 1e5), rows_per_update=st.floats(1.0, 1e5),
    updates=st.integers(1, 64), ranks_per_node=st.sampled_from([0.25, 1.0, 3.0, 8.0]), passes=st.integers(1, 1000),
    zero_stage=st.integers(0, 3), gradient_bytes=st.floats(0.0, 1e12), weight_bytes=st.floats(0.0, 1e12), overlaps=st.booleans(),
)  # fmt: skip


@given(work=WORKS, is_weak=st.booleans(), gb_s=st.floats(0.1, 1000.0), us=st.floats(0.1, 1e4))
def test_efficiency_is_never_above_one(work: Workload, is_weak: bool, gb_s: float, us: float) -> None:
    network = Network(bytes_per_s=gb_s * 1e9, latency_s=us * 1e-6)
    for factor in FACTORS:
        found = point(work, network, factor, is_weak=is_weak)
        assert 0.0 <= found.efficiency <= 1.0 + 1e-9
        assert found.step_s >= 0.0
        assert all(seconds >= -1e-9 for seconds in found.parts.values())


def test_the_times_of_a_run_are_its_median_step(tmp_path: Path) -> None:
    times = {"time/generate_s": 8.0, "time/verify_s": 1.0, "time/learn_s": 6.0, "time/teacher_s": 2.0, "time/student_s": 3.0,
             "time/optimizer_s": 0.5, "time/sync_s": 1.0, "time/step_s": 16.0, "attempts": 48.0, "updates": 2.0}  # fmt: skip
    run = write_folder(
        tmp_path / "run",
        config=run_config("sdpo", rollout={"max_num_seqs": 128, "num_engines": 1}),
        steps=[step_of(1, **{**times, "time/generate_s": 99.0}), step_of(2, **times), step_of(3, **times)],
        attempts=[attempt_of("a"), attempt_of("b")],
    )
    found = workload(request(str(run)), SHAPE)
    assert (found.generate_s, found.verify_s, found.optimizer_s, found.sync_s) == (7.0, 1.0, 0.5, 1.0)
    assert (found.learn_s, found.driver_s, found.attempts, found.updates) == (5.5, 1.0, 48.0, 2)
    assert found.longest_s == 3.5
    strong, weak = curves(found, NETWORK)
    assert strong.points[0].step_s == pytest.approx(16.0)
    assert weak.points[0].step_s == pytest.approx(16.0)
    assert [one.num_nodes for one in strong.points] == list(FACTORS)


def test_a_run_that_generated_ahead_is_reproduced(tmp_path: Path) -> None:
    """Waiting for a batch is what a step recorded; the rest of its generation was beside the learner."""
    times = {"time/generate_s": 2.0, "time/ahead_s": 6.0, "time/learn_s": 9.0, "time/sync_s": 1.0, "time/step_s": 12.0}
    run = write_folder(tmp_path / "run", config=run_config("sdpo"), steps=[step_of(1, **times)])
    found = workload(request(str(run), "rollout.staleness=1"), SHAPE)
    assert found.overlaps
    assert found.generate_s == 8.0
    assert point(found, NETWORK, 1, is_weak=False).step_s <= 12.0


def test_the_documented_run_is_the_default() -> None:
    found = workload(request(DEFAULT), SHAPE)
    assert found.generate_s > 0.0
    assert found.gradient_bytes == 4.0 * 134_515_008


@pytest.mark.parametrize(
    "scale",
    [
        "{", "{}", "[1]", '{"generate": -1}', '{"generate": "fast"}', '{"generate": NaN}', '{"nonsense": 1, "generate": 2}',
        '{"generate": 1, "nodes": 0}', '{"generate": 1, "nodes": 1.5}', '{"generate": 1, "attempts": 0}', '{"longest": 3}',
        '{"generate": true}', '{"generate": 1e300}', '{"generate": 1' + "0" * 400 + "}", "nowhere", "", "\0", '{"a":' * 5000,
    ],
)  # fmt: skip
def test_times_that_are_none_are_refused(scale: str) -> None:
    with pytest.raises(UserError):
        workload(request(scale), SHAPE)


def test_a_run_without_times_is_refused(tmp_path: Path) -> None:
    run = write_folder(tmp_path / "run", steps=[{"step": 1, "success": 0.5}])
    with pytest.raises(UserError, match="has none yet"):
        workload(request(str(run)), SHAPE)


def test_what_is_printed_can_be_read_again() -> None:
    record = json.loads(json.dumps([curve.record() for curve in curves(workload(request(DEFAULT), SHAPE), NETWORK)]))
    assert [curve["points"][0]["efficiency"] for curve in record] == [1.0, 1.0]
