"""Each rule asks for its change where its share is too large, names a key that there is, and is silent elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from sdpo.config.compose import train_config
from sdpo.report.advice import RULES, Advice, advice
from sdpo.report.evidence import Evidence, Machine
from sdpo.report.phases import step_times
from sdpo.report.record import flat
from sdpo.run.folder import plain
from sdpo.types import Metrics

CPU = Machine(has_gpu=False, has_bf16=True)
GPU = Machine(has_gpu=True, has_bf16=True)
OLD_CPU = Machine(has_gpu=False, has_bf16=False)
BALANCED = {
    "time/generate_s": 5.0, "time/verify_s": 0.2, "time/hindsight_s": 0.1, "time/learn_s": 4.5, "time/teacher_s": 1.5,
    "time/student_s": 2.5, "time/optimizer_s": 0.3, "time/sync_s": 0.1, "time/record_s": 0.1, "time/step_s": 10.0,
    "attempts": 48.0, "learned_rows": 48.0, "learned_tokens": 8000.0, "updates": 1.0,
}  # fmt: skip
SETTINGS: Mapping[str, object] = {
    "rollout.num_engines": 1, "rollout.max_num_seqs": 128, "rollout.staleness": 0, "rollout.num_verifiers": 2,
    "rollout.dtype": "bfloat16", "rollout.enforce_eager": False, "learner.dtype": "bfloat16", "learner.num_ranks": 1,
    "learner.offload": "none", "learner.gradient_checkpointing": False, "batch.micro_batch_tokens": 4096,
    "cluster.placement": "auto",
}  # fmt: skip


def said(
    step: Metrics | None = None,
    machine: Machine = CPU,
    evaluations: int = 0,
    settings: Mapping[str, object] | None = None,
    **config: object,
) -> dict[str, Advice]:
    """The advice on steps that differ from balanced ones, under a config with ``rollout__staleness=1`` for the key's dot."""
    row = {**BALANCED, **(step or {})}
    times = step_times([row, row])
    assert times is not None
    changed = {key.replace("__", "."): value for key, value in config.items()}
    evidence = Evidence(
        times=times,
        rows=[row, row],
        evaluations=[{"time/evaluate_s": 10.0}] * evaluations,
        config={**SETTINGS, **changed} if settings is None else settings,
        machine=machine,
    )
    return {one.rule: one for one in advice(evidence)}


CASES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "learner_bf16": ({"machine": OLD_CPU}, {"machine": OLD_CPU, "learner__dtype": "float32"}),
    "engine_bf16": ({"machine": OLD_CPU}, {"machine": OLD_CPU, "rollout__dtype": "float32"}),
    "verification_tail": ({"step": {"time/verify_s": 0.6}}, {"step": {"time/verify_s": 0.4}}),
    "generation": ({"step": {"time/generate_s": 9.0}}, {"step": {"time/generate_s": 9.0}, "rollout__staleness": 1}),
    "generation_colocated": (
        {"step": {"time/generate_s": 9.0}, "cluster__placement": "colocated"},
        {"cluster__placement": "colocated"},
    ),
    "waiting_for_engines": ({"rollout__staleness": 1}, {"rollout__staleness": 1, "step": {"time/generate_s": 1.0}}),
    "queue": ({"rollout__max_num_seqs": 32}, {"rollout__max_num_seqs": 32, "rollout__num_engines": 2}),
    "eager": ({"machine": GPU, "rollout__enforce_eager": True}, {"machine": CPU, "rollout__enforce_eager": True}),
    "samples": ({"step": {"learned_rows": 6.0}}, {"step": {"learned_rows": 24.0}}),
    "hindsight": ({"step": {"time/hindsight_s": 0.7}}, {"step": {"time/hindsight_s": 0.4}}),
    "teacher": (
        {"step": {"time/teacher_s": 2.3, "time/student_s": 2.0}},
        {"step": {"time/teacher_s": 1.9, "time/student_s": 2.0}},
    ),
    "small_passes": ({"batch__micro_batch_tokens": 512}, {"batch__micro_batch_tokens": 2048}),
    "recomputation": (
        {"learner__gradient_checkpointing": True, "step": {"time/student_s": 6.0, "time/learn_s": 8.0}},
        {"learner__gradient_checkpointing": False, "step": {"time/student_s": 6.0, "time/learn_s": 8.0}},
    ),
    "learning": ({"step": {"time/learn_s": 12.0, "time/step_s": 18.0}}, {"step": {"time/learn_s": 5.0}}),
    "optimizer_offloaded": (
        {"step": {"time/optimizer_s": 3.0, "time/learn_s": 7.0}, "learner__offload": "optimizer"},
        {"step": {"time/optimizer_s": 3.0, "time/learn_s": 7.0}},
    ),
    "optimizer_updates": (
        {"step": {"time/optimizer_s": 3.0, "time/learn_s": 7.0, "updates": 4.0}},
        {"step": {"time/optimizer_s": 3.0, "time/learn_s": 7.0, "updates": 1.0}},
    ),
    "optimizer": (
        {"step": {"time/optimizer_s": 3.0, "time/learn_s": 7.0}},
        {"step": {"time/optimizer_s": 3.0, "time/learn_s": 7.0, "updates": 4.0}},
    ),
    "sync": ({"step": {"time/sync_s": 0.4}}, {"step": {"time/sync_s": 0.2}}),
    "recording": ({"step": {"time/record_s": 0.3}}, {"step": {"time/record_s": 0.15}}),
    "rest": ({"step": {"time/step_s": 12.0}}, {"step": {"time/step_s": 10.5}}),
    "checkpoints": ({"step": {"time/save_s": 2.0}}, {"step": {"time/save_s": 1.0}}),
    "evaluations": ({"evaluations": 3}, {"evaluations": 2}),
}
"""Of each rule: where it speaks, and where it is silent though little is different."""


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_a_rule_speaks_above_its_limit_and_not_below(rule: str) -> None:
    loud, quiet = CASES[rule]
    assert rule in said(**loud)  # type: ignore[arg-type]
    assert rule not in said(**quiet)  # type: ignore[arg-type]


def test_every_rule_is_in_the_documentation() -> None:
    table = (Path(__file__).parent.parent.parent / "docs" / "report.md").read_text()
    assert not [rule.name for rule in RULES if f"`{rule.name}`" not in table]


def test_nothing_is_said_of_a_step_that_is_balanced() -> None:
    assert said() == {}


def test_every_key_that_is_named_is_a_key_of_the_config() -> None:
    known = flat(plain(train_config(["algorithm=sdpo", "env=code"]))).keys()
    for rule in RULES:
        one = said(**CASES[rule.name][0])[rule.name]  # type: ignore[arg-type]
        assert one.keys, f"{rule.name} names no key"
        for key in one.keys:
            assert key in known or any(name.startswith(f"{key}.") for name in known), f"{rule.name} names {key}"


def test_a_sentence_says_what_was_found_and_the_value_that_is_set() -> None:
    one = said({"time/verify_s": 1.0})["verification_tail"]
    assert one.sentence == (
        "After the last completion, verdicts are waited for during 20.0% of the time of generation (over 10%): raise "
        "rollout.num_verifiers (now 2)."
    )
    assert one.keys == ("rollout.num_verifiers",)
    assert one.found == pytest.approx(0.2)


def test_a_run_without_a_config_or_of_an_older_version_is_still_looked_at() -> None:
    found = said({"time/verify_s": 1.0, "time/sync_s": 1.0}, settings={})
    assert "raise rollout.num_verifiers." in found["verification_tail"].sentence
    assert "sync" in found
    assert said(settings={"rollout.num_engines": "many", "rollout.max_num_seqs": None, "learner.num_ranks": True}) == {}


def test_no_time_at_all_is_no_division_by_zero() -> None:
    nothing = dict.fromkeys(BALANCED, 0.0)
    assert said(nothing, machine=OLD_CPU, evaluations=3).keys() == {"evaluations"}


def test_the_machine_is_told_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2\n")
    assert Machine.here(tmp_path) == Machine(has_gpu=False, has_bf16=False)
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16\n")
    assert Machine.here(tmp_path) == Machine(has_gpu=False, has_bf16=True)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert Machine.here(tmp_path) == Machine(has_gpu=True, has_bf16=True)
