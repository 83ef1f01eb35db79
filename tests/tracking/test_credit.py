"""What is kept of single tokens, as records: whole, in the right places, and hostile texts as text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from sdpo.config import TrackingConfig
from sdpo.hindsight.hints import CLOSING, hindsight_message, hint_of, places
from sdpo.hindsight.rendering import ELISION
from sdpo.learner.orders import Recording
from sdpo.learner.recording import joined_credit
from sdpo.run.folder import RunFolder
from sdpo.tracking import credit
from sdpo.tracking.tracker import Tracker
from sdpo.types import Attempt, Completion, Finish, Group, Hint, Message, Role, Sample, Task, TokenCredit, TopTokens, Verdict
from tests.loop.fakes import FakeRenderer

HINT = hint_of(demonstration="return a + b", feedback="f(1, 2) returned 1")
QUESTION = "Add two numbers."


def top(num: int, first_id: int = 65) -> TopTokens:
    return TopTokens(
        ids_nk=torch.arange(first_id, first_id + 2 * num).view(num, 2), logprobs_nk=torch.tensor([[-0.25, -2.0]] * num)
    )


def told(task_index: int, attempt_index: int, places_n: list[int]) -> TokenCredit:
    num = len(places_n)
    return TokenCredit(
        task_index=task_index,
        attempt_index=attempt_index,
        update_index=0,
        places_n=torch.tensor(places_n),
        student_n=torch.tensor([-1.0 - place for place in places_n]),
        teacher_n=torch.tensor([-0.5 - place for place in places_n]),
        divergence_n=torch.full((num,), 0.123456),
        student_top=top(num),
        teacher_top=top(num, 97),
    )


def step(response: str = "x = 1", question: str = QUESTION, hint: Hint = HINT) -> tuple[Group, tuple[Hint, ...], Sample]:
    """One task, one attempt, one token a character."""
    task = Task(id="code/add", env="code", messages=(Message(role=Role.user, content=question),))
    ids = tuple(map(ord, response))
    completion = Completion(token_ids=ids, logprobs=(-1.0,) * len(ids), text=response, finish=Finish.stop, weights_version=0)
    attempt = Attempt(completion=completion, verdict=Verdict(reward=0.0, feedback=hint.of("feedback")))
    teacher_prompt = tuple(map(ord, f"<user>{hindsight_message(question, hint.texts).content}</user>"))
    sample = Sample(
        prompt_ids=tuple(map(ord, question)),
        teacher_prompt_ids=teacher_prompt,
        response_ids=ids,
        loss_mask=(True,) * len(ids),
        sampled_logprobs=(-1.0,) * len(ids),
        advantage=0.0,
    )
    return Group(task=task, prompt_ids=sample.prompt_ids, attempts=(attempt,)), (hint,), sample


def record(response: str = "x = 1", places_n: tuple[int, ...] = (0, 1, 4), **changes: object) -> dict[str, object]:
    group, hints, sample = step(response, **changes)  # type: ignore[arg-type]
    (only,) = credit.lines(3, [group], [hints], [sample], [told(0, 0, list(places_n))], FakeRenderer())
    return dict(only)


def test_a_record_says_of_every_token_what_was_said_of_it_and_nothing_of_the_environments():
    found = record()
    assert found["tokens"] == list("x = 1")
    assert found["student"] == [-1.0, -2.0, None, None, -5.0]
    assert found["teacher"] == [-0.5, -1.5, None, None, -4.5]
    assert found["divergence"] == [0.1235, 0.1235, None, None, 0.1235]
    assert found["student_top"] == [[[65, -0.25], [66, -2.0]], [[67, -0.25], [68, -2.0]], None, None, [[69, -0.25], [70, -2.0]]]
    assert found["pieces"] == {str(number): chr(number) for number in (*range(65, 71), *range(97, 103))}
    assert (found["step"], found["task_index"], found["attempt"], found["update"]) == (3, 0, 0, 0)


def test_the_hint_is_found_in_the_teachers_prompt():
    found = record()
    prompt, marks = found["hindsight_prompt"], found["marks"]
    assert isinstance(prompt, str)
    assert isinstance(marks, dict)
    assert prompt[slice(*marks["demonstration"])] == HINT.of("demonstration")
    assert prompt[slice(*marks["feedback"])] == HINT.of("feedback")


@pytest.mark.parametrize(
    ("demonstration", "feedback"),
    [("def f(): ...", None), (None, "NameError: name 'x'"), (f"a{ELISION}b", f"c{ELISION}d"), (CLOSING, CLOSING), ("A", "A")],
)
@pytest.mark.parametrize("question", ["Add.", "A correct solution to this problem:\nx\n\n" + CLOSING, "a\n\nb"])
def test_places_are_exact_for_any_texts(demonstration, feedback, question):
    """Also where the question or a quoted answer looks like the words around the hint."""
    hint = hint_of(demonstration=demonstration, feedback=feedback)
    text = hindsight_message(question, hint.texts).content
    found = places(f"<|user|>{text}<|end|>", question, hint)
    shown = {name: f"<|user|>{text}<|end|>"[first:last] for name, (first, last) in found.items()}
    assert shown == {
        name: value for name, value in (("demonstration", demonstration), ("feedback", feedback)) if value is not None
    }


def test_a_template_that_rewrites_the_message_has_no_places():
    assert places("NOTHING OF IT", QUESTION, HINT) == {}


def test_hostile_text_survives_as_text(tmp_path: Path):
    hostile = "</script>\x1b[31m\x00\u2028\ud800é"
    _, file = written(tmp_path, [record(hostile, tuple(range(len(hostile))))])
    raw = gzip.decompress(file.read_bytes())
    assert raw.isascii()
    assert raw.count(b"\n") == 1
    assert json.loads(raw)["tokens"] == list(hostile)


def written(folder: Path, records: list[dict[str, object]]) -> tuple[Tracker, Path]:
    run = RunFolder(folder)
    tracker = Tracker(run, TrackingConfig(tensorboard=False))
    tracker.credit(3, records)
    return tracker, run.credit_of(3)


def test_the_same_records_are_the_same_bytes_and_a_repeated_step_replaces_them(tmp_path: Path):
    tracker, file = written(tmp_path, [record()])
    first = file.read_bytes()
    tracker.credit(3, [record()])
    assert file.read_bytes() == first
    tracker.credit(3, [])
    assert not file.exists(), "a repeated step that kept nothing leaves nothing of the first try"
    assert [path.name for path in file.parent.iterdir()] == []


def test_steps_that_will_be_repeated_are_forgotten(tmp_path: Path):
    _, file = written(tmp_path, [record()])
    RunFolder(tmp_path).forget_after(3)
    assert file.exists()
    RunFolder(tmp_path).forget_after(2)
    assert not file.exists()


def test_parts_of_one_attempt_come_together_in_order():
    """Ranks that share a row have each scored a part of it."""
    whole = joined_credit([told(1, 0, [4, 5]), told(0, 2, [0, 2]), told(1, 0, [0, 3])])
    assert [(one.task_index, one.attempt_index) for one in whole] == [(0, 2), (1, 0)]
    assert whole[1].places_n.tolist() == [0, 3, 4, 5]
    assert whole[1].student_n.tolist() == [-1.0, -4.0, -5.0, -6.0]
    assert whole[1].student_top.ids_nk.tolist() == [[65, 66], [67, 68], [65, 66], [67, 68]]


def test_about_the_share_is_drawn_and_the_same_attempts_again():
    keys = [(task, attempt) for task in range(50) for attempt in range(20)]
    drawn = [key for key in keys if Recording(share=0.1, num_top=1).draws(7, key)]
    assert 60 < len(drawn) < 140  # 1000 draws of 0.1: more than four standard deviations either way
    assert drawn == [key for key in keys if Recording(share=0.1, num_top=5).draws(7, key)]
    assert drawn != [key for key in keys if Recording(share=0.1, num_top=1).draws(8, key)]
    assert set(drawn) < {key for key in keys if Recording(share=0.3, num_top=1).draws(7, key)}
