"""Several turns on the real engines: the environment replies, and its tokens carry no loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import Trainer

pytestmark = pytest.mark.integration
ASKING = f"{Path(__file__).parent.parent / 'letters.py'}:Asking"


def test_a_run_of_two_turns_hears_the_environment_and_learns_from_the_policys_tokens(trainer: Trainer) -> None:
    words = [
        *trainer.words("algorithm.hindsight.max_prompt_tokens=360", env=ASKING),
        *(
            "sampling.max_turns=2",
            "sampling.max_response_tokens=140",
            "num_steps=2",
            "evaluation.num_tasks=0",
            "batch.micro_batch_tokens=2000",
        ),
    ]
    trainer.run(words)
    assert [row["step"] for row in trainer.rows()] == [1, 2]
    assert all(row["updates"] == 1.0 for row in trainer.rows())
    attempts = [attempt for step in (1, 2) for attempt in trainer.rollouts(step)]
    talks = [attempt for attempt in attempts if "turns" in attempt]
    assert talks, "a random model ends some of its turns by itself"
    for talk in talks:
        assert [said["role"] for said in talk["turns"]] == ["assistant", "user", "assistant"]
        assert talk["turns"][1]["content"].startswith("Another with ")
        assert talk["num_own_tokens"] < talk["num_tokens"] <= 140
        assert talk["completion"] == f"{talk['turns'][0]['content']}\n\n{talk['turns'][2]['content']}"
