"""Properties of ``sdpo.environments.check``: every kind of fault is found, under its own name, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdpo.environments import Finding, Inspection, Severity, check
from sdpo.environments.battery import wrong_answers
from sdpo.environments.findings import condensed, error, warning
from sdpo.environments.fingerprint import fingerprint
from sdpo.environments.leaks import distinctive
from sdpo.errors import UserError
from sdpo.types import Message, Role, Task

SOUND = '''
import dataclasses, os, random, signal, sys, time, types
from sdpo.types import Message, Role, Task, Verdict

WORDS = {"train": ("stone", "river", "cloud"), "heldout": ("apple", "light")}

class Sound:
    """Words to be written backwards."""
    name = "words"

    def tasks(self, split, seed):
        if split not in WORDS:
            raise ValueError(f"there are the splits {', '.join(WORDS)}; got {split!r}")
        return [self.task(word, word) for word in WORDS[split]]

    def task(self, id, word, **changed):
        messages = (Message(role=Role.user, content=f"Write {word} backwards."),)
        return Task(**{"id": f"words/{id}", "env": self.name, "messages": messages, "payload": word, **changed})

    def verify(self, task, completion):
        is_right = completion.strip() == task.payload[::-1]
        return Verdict(reward=float(is_right), feedback=None if is_right else self.feedback(task, completion))

    def feedback(self, task, completion):
        return f"{len(completion)} letters, and not in the order that was asked for."

    def reference(self, task):
        return task.payload[::-1]
'''

FAULTS = {
    "a constructor that works once": (
        ["error makes-twice"],
        """
        made = []
        def __init__(self):
            self.made.append(self)
            if len(self.made) > 1:
                raise ValueError("the port is taken")
        """,
    ),
    "tasks that raise": (
        ["error tasks"],
        """
        def tasks(self, split, seed):
            if split == "heldout":
                raise RuntimeError("no network")
            return super().tasks(split, seed)
        """,
    ),
    "a generator of tasks": (
        ["error tasks", "error unknown-split"],
        """
        def tasks(self, split, seed):
            yield from super().tasks(split, seed)
        """,
    ),
    "an empty split": (
        ["error tasks"],
        """
        def tasks(self, split, seed):
            return super().tasks(split, seed) if split != "heldout" else []
        """,
    ),
    "a split of another seed that raises": (
        ["error tasks"],
        """
        def tasks(self, split, seed):
            return super().tasks(split, seed)[: 1 // (seed == 0)]
        """,
    ),
    "tasks of another type": (
        ["error tasks"],
        """
        def tasks(self, split, seed):
            return [task.id if split == "train" else task for task in super().tasks(split, seed)]
        """,
    ),
    "an id that is no text": (
        ["error ids"],
        """
        def task(self, id, word):
            task = super().task(id, word)
            return dataclasses.replace(task, id=17) if id == "river" else task
        """,
    ),
    "an id that occurs twice": (
        ["error unique-ids"],
        """
        def task(self, id, word):
            return super().task("stone" if id == "river" else id, word)
        """,
    ),
    "tasks of another environment's name": (
        ["error env-name"],
        """
        def task(self, id, word):
            return super().task(id, word, env="letters")
        """,
    ),
    "messages in a list": (
        ["error messages"],
        """
        def task(self, id, word):
            return super().task(id, word, messages=[Message(role=Role.user, content=f"Write {word} backwards.")])
        """,
    ),
    "a message that is no text": (
        ["error messages"],
        """
        def task(self, id, word):
            return super().task(id, word, messages=(Message(role=Role.user, content=17),))
        """,
    ),
    "a system message at the end of the conversation": (
        ["error messages"],
        """
        def task(self, id, word):
            asked = Message(role=Role.user, content=f"Write {word} backwards.")
            return super().task(id, word, messages=(asked, Message(role=Role.system, content="Be brief."), asked))
        """,
    ),
    "an empty message": (
        ["error messages"],
        """
        def task(self, id, word):
            said = "" if id == "river" else f"Write {word} backwards."
            return super().task(id, word, messages=(Message(role=Role.user, content=said),))
        """,
    ),
    "a prompt that no tokenizer takes": (
        ["error messages"],
        """
        def task(self, id, word):
            return super().task(id, word, messages=(Message(role=Role.user, content=f"Write \\ud800 and {word}."),))
        """,
    ),
    "payloads drawn from the global generator": (
        ["error repeatable-tasks", "warning global-generator"],
        """
        def task(self, id, word):
            return super().task(id, word, payload=word + str(random.random()))
        """,
    ),
    "tasks that depend on how many objects there are": (
        ["error repeatable-tasks"],
        """
        made = []
        def __init__(self):
            self.made.append(self)
            self.number = len(self.made)
        def task(self, id, word):
            return super().task(id, f"{word} {self.number}")
        """,
    ),
    "a held-out id in training": (
        ["error disjoint-ids"],
        """
        def task(self, id, word):
            return super().task("river" if id == "apple" else id, word)
        """,
    ),
    "a held-out question in training": (
        ["error disjoint-prompts"],
        """
        def task(self, id, word):
            return super().task(id, "river" if id == "apple" else word)
        """,
    ),
    "a held-out question in training with another seed": (
        ["error disjoint-ids", "error disjoint-prompts"],
        """
        def tasks(self, split, seed):
            return super().tasks("heldout" if split == "train" and seed == 1 else split, seed)
        """,
    ),
    "an unknown split that is not refused": (
        ["error unknown-split"],
        """
        def tasks(self, split, seed):
            return super().tasks(split if split in WORDS else "train", seed)
        """,
    ),
    "an unknown split that raises KeyError": (
        ["error unknown-split"],
        """
        def tasks(self, split, seed):
            return [self.task(word, word) for word in WORDS[split]]
        """,
    ),
    "a payload that cannot be pickled": (
        ["error picklable"],
        """
        def task(self, id, word):
            return super().task(id, word, payload=lambda: word)
        def verify(self, task, completion):
            return super().verify(self.task_of(task), completion)
        def task_of(self, task):
            return Sound().task("", task.payload())
        def reference(self, task):
            return task.payload()[::-1]
        """,
    ),
    "a payload that cannot be restored": (
        ["error picklable"],
        """
        class Payload(str):
            def __reduce__(self):
                return int, ("no number",)
        def task(self, id, word):
            return super().task(id, word, payload=self.Payload(word))
        """,
    ),
    "an environment without a name": (
        ["error env-name"],
        """
        name = ""
        """,
    ),
    "a metric that is text": (
        ["error verdict"],
        """
        def verify(self, task, completion):
            return Verdict(reward=super().verify(task, completion).reward, feedback="no", metrics={"share": "half"})
        """,
    ),
    "a verifier that raises at some answers": (
        ["error verify-raises"],
        """
        def feedback(self, task, completion):
            return f"{completion.count('a') // len(completion)} is not it."
        """,
    ),
    "a verifier that leaves": (
        ["error verify-raises"],
        """
        def verify(self, task, completion):
            return super().verify(task, completion) if len(completion) < 5000 else sys.exit("too long")
        """,
    ),
    "a verifier whose reward is out of range": (
        ["error reward"],
        """
        def verify(self, task, completion):
            return super().verify(task, completion) if len(completion) < 5000 else Verdict(reward=-1.0, feedback="too long")
        """,
    ),
    "a verifier that returns a number": (
        ["error verdict"],
        """
        def verify(self, task, completion):
            return super().verify(task, completion) if len(completion) < 5000 else 0.0
        """,
    ),
    "feedback that is no text": (
        ["error verdict"],
        """
        def feedback(self, task, completion):
            return ["wrong"]
        """,
    ),
    "a metric that is not a number": (
        ["error verdict"],
        """
        def verify(self, task, completion):
            return Verdict(reward=super().verify(task, completion).reward, feedback="no", metrics={"share": float("nan")})
        """,
    ),
    "no feedback": (
        ["warning no-feedback"],
        """
        def feedback(self, task, completion):
            return None
        """,
    ),
    "feedback that repeats the whole answer": (
        ["error feedback-text", "warning feedback-text", "warning long-feedback"],
        """
        def feedback(self, task, completion):
            return f"{completion} is not it."
        """,
    ),
    "a reward for nothing": (
        ["warning easy-reward"],
        """
        def verify(self, task, completion):
            return Verdict(reward=1.0) if not completion else super().verify(task, completion)
        """,
    ),
    "verdicts that are drawn": (
        ["error repeatable-verdicts", "warning global-generator"],
        """
        def feedback(self, task, completion):
            return f"I am {random.randrange(10**9)} % sure that this is wrong."
        """,
    ),
    "a verifier that remembers what it saw": (
        ["error repeatable-verdicts"],
        """
        seen = set()
        def feedback(self, task, completion):
            known = (task.id, completion) in self.seen
            self.seen.add((task.id, completion))
            return "You said that before." if known else "That is not it."
        """,
    ),
    "a verifier that compares with the answer before": (
        ["error order-of-answers"],
        """
        before = ""
        def verify(self, task, completion):
            before, self.before = self.before, completion
            verdict = super().verify(task, completion)
            is_longer = len(completion) > len(before) and not verdict.is_solved
            return dataclasses.replace(verdict, feedback="Longer, but not right.") if is_longer else verdict
        """,
    ),
    "a verifier that works on self": (
        ["error threads"],
        """
        def verify(self, task, completion):
            self.task_now, self.completion = task, completion
            time.sleep(0.001)
            return super().verify(self.task_now, self.completion)
        """,
    ),
    "a verifier that works in the main thread alone": (
        ["warning threads"],
        """
        def verify(self, task, completion):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            return super().verify(task, completion)
        """,
    ),
    "a slow verdict": (
        ["warning slow"],
        """
        has_slept = False
        def verify(self, task, completion):
            if not self.has_slept:
                time.sleep(1.05)
                self.has_slept = True
            return super().verify(task, completion)
        """,
    ),
    "a verdict that never comes": (
        ["error hangs"],
        """
        def verify(self, task, completion):
            if len(completion) >= 5000:
                time.sleep(3600)
            return super().verify(task, completion)
        """,
    ),
    "a verifier that ends its process": (
        ["error dies"],
        """
        def verify(self, task, completion):
            if len(completion) >= 5000:
                print("too long", flush=True)
                os._exit(7)
            return super().verify(task, completion)
        """,
    ),
    "tasks in the order of a set": (
        ["error fresh-process"],
        """
        def tasks(self, split, seed):
            words = {task.payload + str(number) for task in super().tasks(split, seed) for number in range(20)}
            return [self.task(word, word) for word in words]
        """,
    ),
    "verdicts that depend on hash()": (
        ["error fresh-process"],
        """
        def feedback(self, task, completion):
            return f"Hint {hash(task.id) % 1000}: read it again."
        """,
    ),
    "a verifier that needs what tasks() left behind": (
        ["error verify-raises"],
        """
        known = {}
        reference = None
        def task(self, id, word):
            self.known[id] = word
            return super().task(id, word, payload=id)
        def verify(self, task, completion):
            return super().verify(Sound().task("", self.known[task.payload]), completion)
        """,
    ),
    "an import of what only the trainer needs": (
        ["warning heavy-imports"],
        """
        sys.modules["vllm"] = types.ModuleType("vllm")
        """,
    ),
    "a reference that is wrong": (
        ["error reference"],
        """
        def reference(self, task):
            return task.payload
        """,
    ),
    "a reference that raises": (
        ["error reference"],
        """
        def reference(self, task):
            raise LookupError("no reference")
        """,
    ),
    "feedback that gives the answer away": (
        ["error leak", "warning leak"],
        """
        def feedback(self, task, completion):
            return f"It is {task.payload[::-1]}."
        """,
    ),
    "feedback that gives the answer away in training": (
        ["warning leak"],
        """
        def feedback(self, task, completion):
            return f"It is {task.payload[::-1]}." if task.payload in WORDS["train"] else "It is something else."
        """,
    ),
    "a reply that is no text": (
        ["error reply"],
        """
        def reply(self, task, transcript):
            return len(transcript) if len(transcript) > 1 else None
        def judge(self, task, transcript):
            return self.verify(task, transcript[-1].content)
        """,
    ),
    "a reply that raises": (
        ["error reply"],
        """
        def reply(self, task, transcript):
            return str(int(transcript[-1].content))
        def judge(self, task, transcript):
            return self.verify(task, transcript[-1].content)
        """,
    ),
    "a judge that raises at a conversation": (
        ["error verify-raises"],
        """
        def reply(self, task, transcript):
            return None
        def judge(self, task, transcript):
            (answer,) = transcript
            return self.verify(task, answer.content)
        """,
    ),
}


def kinds(inspection: Inspection) -> list[str]:
    return sorted({f"{finding.severity.value} {finding.rule}" for finding in inspection.findings})


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    file = tmp_path / "words.py"
    file.write_text(SOUND)
    return file


def test_a_sound_environment_is_found_sound(sound: Path) -> None:
    inspection = check(f"{sound}:Sound")
    assert not inspection.findings, str(inspection)
    assert inspection.num_tasks == 5
    assert inspection.num_verdicts > 100
    assert 0.0 < inspection.median_verify_s <= inspection.longest_verify_s


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_nothing_else(fault: str, sound: Path) -> None:
    expected, body = FAULTS[fault]
    sound.write_text(f"{SOUND}\nclass Faulty(Sound):{body}")
    inspection = check(f"{sound}:Faulty", num_tasks=1, verdict_limit_s=10.0)
    assert kinds(inspection) == sorted(expected), str(inspection)
    for finding in inspection.findings:
        assert finding.where
        assert finding.remedy.endswith(".")
        assert len(str(finding)) < 700


def test_what_a_dying_verifier_said_last_is_told(sound: Path) -> None:
    sound.write_text(f"{SOUND}\nclass Faulty(Sound):{FAULTS['a verifier that ends its process'][1]}")
    (finding,) = check(f"{sound}:Faulty", num_tasks=1).findings
    assert "exit code 7, and last said 'too long'" in finding.what
    assert "answer '5000 digits'" in finding.where


def test_what_cannot_be_made_is_refused_in_the_constructors_words(sound: Path) -> None:
    sound.write_text(
        f"{SOUND}\nclass Picky(Sound):\n    def __init__(self, *, size=1):\n        raise ValueError(f'size is {{size}}')"
    )
    with pytest.raises(UserError, match=r"^size is 3$"):
        check(f"{sound}:Picky", {"size": 3})
    with pytest.raises(UserError, match=r"got 'siez' \(did you mean 'size'\?\)"):
        check(f"{sound}:Picky", {"siez": 3})
    with pytest.raises(UserError, match="tasks must be at least 1"):
        check(f"{sound}:Picky", num_tasks=0)


def test_other_names_of_the_splits_can_be_given(sound: Path) -> None:
    sound.write_text(SOUND.replace('"heldout"', '"test"'))
    assert kinds(check(f"{sound}:Sound", num_tasks=1)) == ["error tasks"]
    assert not check(f"{sound}:Sound", num_tasks=1, heldout_split="test").findings


def test_the_environment_of_the_guide_is_sound(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
    file = tmp_path / "my_environment.py"
    file.write_text(guide.split("```python\n")[1].split("```")[0])
    inspection = check(f"{file}:Reverse", {"ignore_case": True})
    assert not inspection.findings, str(inspection)


@pytest.mark.parametrize(("name", "options"), [("code", {}), ("chemistry", {"families": ["rings", "formula"]})])
def test_the_environments_that_are_shipped_are_sound(name: str, options: dict[str, object]) -> None:
    inspection = check(name, options, num_tasks=1)
    assert not inspection.errors, str(inspection)


def test_an_inspection_is_json_for_another_program(sound: Path) -> None:
    sound.write_text(f"{SOUND}\nclass Faulty(Sound):{FAULTS['no feedback'][1]}")
    told = json.loads(check(f"{sound}:Faulty", num_tasks=1).as_json())
    assert told["is_sound"] is True
    assert [(finding["severity"], finding["rule"]) for finding in told["findings"]] == [("warning", "no-feedback")]


def test_errors_come_first_and_what_is_found_often_is_told_once() -> None:
    often = [error("ids", f"task {index}", "is blank", "Name it.") for index in range(9)]
    many = [error("verify-raises", "verify", f"raised error {index}", "Return.") for index in range(9)]
    told = condensed([warning("slow", "verify", "took 2 s", "Be quick."), *often, *many])
    assert told[0] == Finding(severity=Severity.error, rule="ids", where="task 0 and 8 more", what="is blank", remedy="Name it.")
    assert [finding.rule for finding in told] == ["ids", *["verify-raises"] * 4, "slow"]


def task(payload: object) -> Task:
    return Task(id="a", env="b", messages=(Message(role=Role.user, content="c"),), payload=payload)


class Plain:
    def __init__(self, inside: object) -> None:
        self.inside = inside


def test_a_fingerprint_depends_on_contents_and_not_on_objects() -> None:
    cycle: list[object] = [1]
    cycle.append(cycle)
    payloads = [
        {"a": 1}, {"a": 2}, {"a": True}, {"b": 1}, [1, 2], [2, 1], (1, 2), "12", b"12", 12, 12.0, 10**5000, None, cycle,
        {"a", "b"}, {"a", "c"}, Plain(1), Plain(2), Plain(Plain(1)), Role.user, Plain, print, [[1], 2], [[1, 2]], "\ud800",
    ]  # fmt: skip
    assert len({fingerprint(task(payload)) for payload in payloads}) == len(payloads)
    assert fingerprint(task(Plain({"x": 1}))) == fingerprint(task(Plain({"x": 1})))
    assert fingerprint(task({"b", "a"})) == fingerprint(task({"a", "b"}))


@pytest.mark.parametrize(
    ("reference", "secrets"),
    [
        ("12", []),
        ("<answer>CCO</answer>", ["<answer>CCO</answer>"]),
        ("<answer>C7H8O2</answer>", ["<answer>C7H8O2</answer>", "C7H8O2"]),
        ("```python\ndef f(x):\n    return sorted(x)[-1]\n```", ["return sorted(x)[-1]"]),
    ],
)
def test_only_what_is_distinctive_counts_as_a_leak(reference: str, secrets: list[str]) -> None:
    found = distinctive(reference)
    assert set(secrets) <= set(found)
    assert not {"12", "CCO", "def f(x):", "```python"} & set(found)


def test_the_answers_of_a_battery_have_names_of_their_own() -> None:
    names = [answer.name for answer in wrong_answers(task(None))]
    assert len(set(names)) == len(names)
