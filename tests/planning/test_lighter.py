"""A run that had too little memory is told which keys need less, and none that would make it another run."""

from __future__ import annotations

import pytest

from sdpo.config.compose import train_config
from sdpo.planning.lighter import lighter

MODEL = "Qwen/Qwen3-0.6B"
WORDS = ("model.path=x", "model.name=x", "env=math", "cluster.gpus_per_node=0")


def test_the_keys_that_a_continued_run_may_change_are_named() -> None:
    """An adapter would need less too, but a run is not continued with one."""
    said = lighter(train_config([*WORDS, "rollout.kv_cache_gib=8"]), MODEL)
    assert said.startswith("By sdpo plan the run holds ")
    assert "Less would do with" in said
    assert "rollout.kv_cache_gib=" in said
    assert "lora" not in said


def test_no_key_is_invented_where_none_helps() -> None:
    said = lighter(train_config([*WORDS, "rollout.kv_cache_gib=1", "learner.gradient_checkpointing=true"]), MODEL)
    assert said.endswith("; no key that a continued run may change makes that a tenth less. It needs a machine with more.")


@pytest.mark.parametrize("path", ["nobody/knows", "/nowhere"])
def test_a_model_whose_shape_is_not_known_costs_the_keys_only(path: str) -> None:
    assert lighter(train_config([*WORDS]), path) == "Run sdpo plan with the same words: it shows what each process holds."
