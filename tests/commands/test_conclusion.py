"""What a run says of itself at its end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from sdpo.commands.conclusion import Gain, conclusion, of_training
from sdpo.run.folder import RunFolder

Evaluated = dict[str, object]


def evaluation(rates: Mapping[str, int], *, step: int = 0, **figures: float) -> Evaluated:
    """Four attempts at each task, of which ``rates`` says how many are solved."""
    attempts = [{"task": task, "attempt": at, "reward": float(at < solved)} for task, solved in rates.items() for at in range(4)]
    return {"step": step, "k": 4, "heldout/success": sum(rates.values()) / (4 * len(rates)), "attempts": attempts, **figures}


TASKS = [f"kind-{index}" for index in range(16)]
NOTHING = evaluation(dict.fromkeys(TASKS, 0))
ONE = evaluation({task: 4 * (task == TASKS[0]) for task in TASKS})
HALF = evaluation({task: index % 2 * 4 for index, task in enumerate(TASKS)}, step=10)


def test_a_gain_is_compared_task_by_task() -> None:
    """The errors of two means, added up, are those of tasks that differ: a gain of a quarter on every task looks like chance."""
    before = evaluation({task: index % 2 * 3 for index, task in enumerate(TASKS)})
    after = evaluation({task: index % 2 * 3 + 1 for index, task in enumerate(TASKS)})
    gain = Gain.between(before, after)
    assert gain is not None
    assert (gain.mean, gain.error, gain.num_tasks) == (0.25, 0.0, 16)
    halves = Gain.between(NOTHING, HALF)
    assert halves is not None
    assert halves.error == pytest.approx(math.sqrt(0.25 * 16 / 15 / 16))


def test_what_was_set_aside_and_tasks_of_one_look_alone_do_not_count() -> None:
    before = evaluation({"a": 0, "b": 4})
    after = evaluation({"a": 4, "c": 0})
    attempts = after["attempts"]
    assert isinstance(attempts, list)
    attempts.append({"task": "a", "attempt": 4, "error": "broke"})
    gain = Gain.between(before, after)
    assert gain == Gain(mean=1.0, error=None, num_tasks=1)
    assert Gain.between(evaluation({"a": 0}), evaluation({"b": 0})) is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (NOTHING, HALF, "raised success on 16 held-out tasks by 50.0 ± 12.9 points, more than chance explains"),
        (HALF, NOTHING, "lost 50.0 ± 12.9 points of success on 16 held-out tasks, more than chance explains"),
        (NOTHING, ONE, "changed success on 16 held-out tasks by +6.2 ± 6.2 points: chance explains that"),
        (
            evaluation({"a": 0, "b": 0}),
            evaluation({"a": 4, "b": 4}),
            "changed success on 2 held-out tasks by +100.0 points, on too few tasks",
        ),
    ],
)
def test_a_sentence_says_whether_it_was_chance(before: Evaluated, after: Evaluated, said: str) -> None:
    """Two held-out answers that went one way gave "-100.0 % ± 0.0 %", and +2.6 ± 6 points stood there as a change."""
    sentence = of_training(before, after)
    assert sentence is not None
    assert sentence.startswith(f"Training {said}")


def test_looks_at_different_tasks_are_not_compared() -> None:
    assert of_training(evaluation({"a": 0}), evaluation({"b": 4})) is None


@pytest.mark.parametrize(
    ("constants", "end"),
    [
        ((0.02, 0.2), ", and more than constants do: the best constant answer of each kind of question solves 20.0%"),
        ((0.02, 0.45), "; but constants may explain it: the best constant answer of each kind of question solves 45.0%"),
        ((0.1,), ", and more than constants do: the best constant answer solves 10.0%"),
    ],
)
def test_a_gain_that_a_constant_answer_has_too_is_not_called_learned(constants: tuple[float, ...], end: str) -> None:
    """Held-out success rose from 0 to 16.7 %, which was the commonest integer."""
    known = dict(zip(("heldout/constant", "heldout/constant_by_kind"), constants, strict=False))
    said = of_training(NOTHING, {**HALF, "heldout/success_se": 0.12, **known})
    assert said is not None
    assert said.endswith(f"more than chance explains{end}, the policy 50.0%.")


def begun(path: Path, algorithm: str, *evaluations: Evaluated, seed: int = 0, model: str = "somewhere") -> RunFolder:
    path.mkdir()
    config = {"seed": seed, "model": {"path": model}, "algorithm": {"name": algorithm}, "learner": {"lr": 1e-5}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "evaluations.jsonl").write_text("".join(json.dumps(one) + "\n" for one in evaluations))
    return RunFolder(path)


def test_runs_beside_it_that_began_alike_are_named_with_the_difference(tmp_path: Path) -> None:
    ours = begun(tmp_path / "ours", "sdpo", NOTHING, HALF)
    begun(tmp_path / "baseline", "grpo", NOTHING, {**NOTHING, "step": 10})
    begun(tmp_path / "another-seed", "dapo", NOTHING, {**NOTHING, "step": 10}, seed=1)
    begun(tmp_path / "unfinished", "gspo", NOTHING, {**NOTHING, "step": 5})
    begun(tmp_path / "same", "sdpo", NOTHING, {**NOTHING, "step": 10})
    (tmp_path / "a file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("a: [")
    (tmp_path / "broken" / "evaluations.jsonl").write_text("")
    said = conclusion(ours, NOTHING, HALF)
    assert said[1:] == ["grpo from the same start (baseline) ended at 0.0%: this run is ahead by 50.0 ± 12.9 points."]
    theirs = conclusion(RunFolder(tmp_path / "baseline"), NOTHING, {**NOTHING, "step": 10})
    assert "sdpo from the same start (ours) ended at 50.0%: this run is behind by 50.0 ± 12.9 points." in theirs or (
        "sdpo from the same start (same) ended at 0.0%: no difference is shown (+0.0 ± 0.0 points)." in theirs
    )


def test_the_warm_up_is_told_apart_from_training(tmp_path: Path) -> None:
    """Of 0 to 15.6 % that a reader took for training's, the warm-up had made all."""
    model = tmp_path / "warm"
    model.mkdir()
    measured = {"plain": 0.25, "plain/se": 0.05, "demonstration/lift": 0.1, "feedback/lift": 0.0}
    after = {"plain": 0.3, "plain/se": 0.06, "demonstration/lift": 0.4, "feedback/lift": 0.2}
    (model / "warmup.json").write_text(json.dumps({"before": measured, "after": after}))
    ours = begun(tmp_path / "ours", "sdpo", NOTHING, HALF, model=str(model))
    assert conclusion(ours, NOTHING, HALF)[0] == (
        "The warm-up before it took success from 25.0% ± 5.0% to 30.0% ± 6.0%, and the lift of demonstrations from +10.0% to "
        "+40.0%, of feedback from +0.0% to +20.0%."
    )


@pytest.mark.parametrize("record", ["{", "[]", "{}", '{"before": {}, "after": {}}'])
def test_a_warm_up_that_tells_nothing_is_left_out(tmp_path: Path, record: str) -> None:
    model = tmp_path / "warm"
    model.mkdir()
    (model / "warmup.json").write_text(record)
    assert len(conclusion(begun(tmp_path / "ours", "sdpo", model=str(model)), NOTHING, HALF)) == 1
