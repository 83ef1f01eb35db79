"""Several environments in one: whose the tasks are, who judges them, and how often each is asked."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

import pytest

from sdpo.attempts.task_stream import TaskStream
from sdpo.config import EnvConfig, TaskOrderConfig
from sdpo.config.compose import train_config
from sdpo.config.named import place_anywhere
from sdpo.environments.inspection import check
from sdpo.envs import registry
from sdpo.envs.base import Conversational, Environment, HasReference, Message, Role, Task, Verdict
from sdpo.envs.judging import reference_of, reply_of, verdict_of, verdict_on
from sdpo.envs.mix import Mix
from sdpo.evaluation.heldout import heldout_metrics
from sdpo.metrics import of_groups
from sdpo.types import Attempt, Completion, Finish, Group, Tried

SUMS, ECHO, TALK = (f"tests.envs.test_mix:{name}" for name in ("Sums", "Echo", "Talk"))


class Sums:
    """Adds numbers."""

    name = "sums"

    def __init__(self, *, size: int = 6, offset: int = 0) -> None:
        self._size, self._offset = size, offset

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        if split not in ("train", "heldout"):
            raise ValueError(f"no split {split!r}")
        first = 0 if split == "train" else 1000
        return [_task(self.name, f"sums/{number}", f"{number} + 1 = ?", number) for number in range(first, first + self._size)]

    def verify(self, task: Task, completion: str) -> Verdict:
        assert isinstance(task.payload, int)
        solved = completion == str(task.payload + 1 + self._offset)
        return Verdict(
            reward=float(solved), feedback=None if solved else "count again", metrics={"digits": float(len(completion))}
        )

    def reference(self, task: Task) -> str:
        assert isinstance(task.payload, int)
        return str(task.payload + 1 + self._offset)


class Echo(Sums):
    """Wants the question back; it knows no answers and takes its time."""

    name = "echo"
    reference = None  # type: ignore[assignment]
    longest_verdict_s = 7.0

    def verify(self, task: Task, completion: str) -> Verdict:
        return Verdict(reward=float(completion == task.messages[-1].content))


class Talk(Sums):
    """Replies once."""

    name = "talk"

    def reply(self, task: Task, transcript: Sequence[Message]) -> str | None:
        return "sure?" if len(transcript) == 1 else None

    def judge(self, task: Task, transcript: Sequence[Message]) -> Verdict:
        return self.verify(task, transcript[-1].content)


def _task(env: str, task_id: str, question: str, payload: object) -> Task:
    return Task(id=task_id, env=env, messages=(Message(role=Role.user, content=question),), payload=payload)


def mix(**members: Mapping[str, object]) -> Environment:
    return registry.make("sdpo.envs.mix:Mix", {"members": members})


TWO = {"plain": {"name": SUMS, "weight": 2}, "off": {"name": SUMS, "options": {"offset": 1, "size": 4}}}


def test_tasks_of_one_environment_with_different_options_have_different_ids_and_their_own_judges() -> None:
    environment = mix(**TWO)
    tasks = {task.id: task for task in environment.tasks("train", 0)}
    assert len(tasks) == 10
    assert verdict_on(environment, tasks["plain/sums/3"], "4").is_solved
    assert not verdict_on(environment, tasks["off/sums/3"], "4").is_solved
    assert verdict_on(environment, tasks["off/sums/3"], "5").is_solved
    assert verdict_on(environment, tasks["off/sums/3"], "4").feedback == "count again"
    assert {task.env for task in tasks.values()} == {"mix"}


def test_a_task_travels_to_another_process() -> None:
    environment = mix(**TWO)
    there = pickle.loads(pickle.dumps(environment.tasks("train", 0)[1]))
    assert verdict_on(mix(**TWO), there, "2").is_solved


def test_members_come_in_turn_so_that_the_first_heldout_tasks_are_of_each() -> None:
    tasks = mix(**TWO).tasks("heldout", 0)
    assert [task.id.split("/")[0] for task in tasks] == ["plain", "off"] * 4 + ["plain"] * 2
    assert [task.id for task in tasks[1:3]] == ["off/sums/1000", "plain/sums/1001"]
    with pytest.raises(ValueError, match="no split 'test'"):
        mix(**TWO).tasks("test", 0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num", [1, 3, 8])
def test_each_is_asked_as_often_as_its_weight_says_and_its_tasks_once_an_epoch(seed: int, num: int) -> None:
    stream = TaskStream(tasks=mix(**TWO).tasks("train", 0), seed=seed)
    asked = [task.id for step in range(24) for task in stream.batch(step, num)]
    for end in range(1, len(asked) + 1):
        found = Counter(task.split("/")[0] for task in asked[:end])
        assert abs(found["plain"] - end * 2 / 3) <= 1.0
    for label, size in (("plain", 6), ("off", 4)):
        of_label = [task for task in asked if task.startswith(f"{label}/")]
        for first in range(0, len(of_label) - size + 1, size):
            assert len(set(of_label[first : first + size])) == size


def test_a_step_asks_the_same_whatever_was_asked_before() -> None:
    used, fresh = (TaskStream(tasks=mix(**TWO).tasks("train", 0), seed=3) for _ in range(2))
    for step in range(9):
        used.batch(step, 4)
    assert used.batch(7, 4) == fresh.batch(7, 4)
    orders = {tuple(TaskStream(tasks=mix(**TWO).tasks("train", 0), seed=seed).batch(0, 4)) for seed in range(4)}
    assert len(orders) == 4


@pytest.mark.parametrize("order", ["epochs", "adaptive"])
def test_stand_ins_are_all_other_tasks_each_once(order: str) -> None:
    stream = TaskStream(tasks=mix(**TWO).tasks("train", 0), seed=3, order=TaskOrderConfig(name=order))
    for num in (1, 3):
        drawn = list(stream.drawn(0, num))
        assert len({task.id for task in drawn}) == len(drawn) == 10
        labels = [task.id.split("/")[0] for task in islice(drawn, 6)]
        assert Counter(labels) == {"plain": 4, "off": 2}, "by their weights too"


def test_an_order_that_learns_learns_of_each_part_by_itself() -> None:
    stream = TaskStream(tasks=mix(**TWO).tasks("train", 0), seed=0, order=TaskOrderConfig(name="adaptive"))
    hopeless = [Tried(task=f"plain/sums/{number}", rewards=(0.0,) * 8) for number in range(5)]
    for step in range(1, 300):
        stream.learn(step, hopeless if step < 9 else [])
    asked = Counter(task.id for step in range(8, 300) for task in stream.batch(step, 1))
    assert asked["plain/sums/5"] > 2 * max(asked[one.task] for one in hopeless)
    off = sum(num for task, num in asked.items() if task.startswith("off/"))
    assert abs(off - 292 / 3) < 2, "the weights stay"
    assert stream.numbers()["tasks/tried/plain"] == 5 / 6
    assert stream.numbers()["tasks/tried/off"] == 0.0


def test_each_members_success_is_known_while_training_and_held_out() -> None:
    environment = mix(**TWO)
    tasks = environment.tasks("heldout", 0)

    def group(task: Task, *answers: str) -> Group:
        completion = Completion(token_ids=(1,), logprobs=(-1.0,), text="", finish=Finish.stop, weights_version=0)
        attempts = tuple(Attempt(completion=completion, verdict=verdict_on(environment, task, answer)) for answer in answers)
        return Group(task=task, prompt_ids=(1,), attempts=attempts)

    groups = (group(tasks[0], "1001", "0"), group(tasks[1], "1", "1"), group(tasks[2], "1002", "1002"))
    trained = of_groups(groups, ((None, None),) * 3)
    assert trained["env/plain/success"] == 0.75
    assert trained["env/off/success"] == 0.0
    assert trained["env/off/digits"] == 1.0
    assert trained["success"] == 0.5
    heldout = heldout_metrics(groups)
    assert heldout["heldout/env/plain/success"] == 0.75
    assert heldout["heldout/env/off/success"] == 0.0


def test_a_mix_can_do_what_its_members_can() -> None:
    echo = {"name": ECHO}
    assert isinstance(mix(**TWO), HasReference)
    assert reference_of(mix(**TWO), mix(**TWO).tasks("train", 0)[1]) == "2"  # type: ignore[arg-type]
    assert not isinstance(mix(**TWO, echo=echo), HasReference), "one that knows no answers is asked for them too"
    assert not isinstance(mix(**TWO), Conversational)
    assert mix(**TWO, echo=echo).longest_verdict_s == 7.0  # type: ignore[attr-defined]


def test_one_member_replies_and_the_other_is_judged_after_a_turn() -> None:
    environment = mix(talk={"name": TALK}, plain={"name": SUMS})
    assert isinstance(environment, Conversational)
    talk, plain = environment.tasks("train", 0)[:2]
    said = (Message(role=Role.assistant, content="1"),)
    assert reply_of(environment, talk, said) == "sure?"
    assert reply_of(environment, plain, said) is None
    assert verdict_of(environment, plain, said).is_solved
    told = (*said, Message(role=Role.user, content="sure?"), Message(role=Role.assistant, content="2"))
    assert not verdict_of(environment, talk, told).is_solved


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({}, "must map labels to environments"),
        ({"a/b": {"name": SUMS}}, "without a slash; got 'a/b'"),
        ({"a": {"name": SUMS, "weight": 0}}, "members.a.weight must be a positive number; got 0"),
        ({"a": {"name": SUMS, "wieght": 2}}, "members.a takes name, options, weight; got 'wieght'"),
        ({"a": {"name": SUMS, "options": {"sise": 2}}}, "members.a: env .* takes only the options its constructor names"),
        ({"chemisty": {}}, "members.chemisty: env must be an installed environment's name"),
        ({"a": 3}, "members.a must map some of"),
    ],
)
def test_members_that_cannot_be_made_are_refused_by_their_label(members: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Mix(members=members)  # type: ignore[arg-type]


def test_another_environments_task_is_refused() -> None:
    with pytest.raises(ValueError, match="mix judges its own tasks only"):
        verdict_on(mix(**TWO), Sums().tasks("train", 0)[0], "1")


def test_a_members_file_means_the_same_in_another_folder() -> None:
    env = EnvConfig(name="sdpo.envs.mix:Mix", options={"members": {"a": {"name": "here.py:Env"}, "b": None}})
    place_anywhere(env)
    assert env.options["members"]["a"]["name"].startswith("/")


def test_the_check_of_environments_finds_nothing_wrong_with_a_mix() -> None:
    inspection = check("sdpo.envs.mix:Mix", {"members": TWO}, num_tasks=3)
    assert not inspection.findings


def test_a_mix_is_said_in_the_words_of_a_command() -> None:
    config = train_config(["env=mix", "env.options.members={code: {weight: 2}, chemistry: {}}"])
    assert config.env.options == {"members": {"code": {"weight": 2}, "chemistry": {}}}
    assert config.name.startswith("mix-")
    config = train_config(["env=mix", "env.options.members.mine.name=a/b.py:C", "env.options.members.mine.options.size=3"])
    assert config.env.options == {"members": {"mine": {"name": "a/b.py:C", "options": {"size": 3}}}}
