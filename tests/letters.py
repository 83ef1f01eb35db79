"""Environments small enough for a test: letters in words. Without torch: a verifier's process imports this file."""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.types import Message, Role, Task, Verdict


class Letters:
    """Asks for a text with one of six letters in it: a random model is right every other time, and the failure has a reason."""

    name = "letters"

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        letters = {"train": "abcdefghijklmnop", "heldout": "qrstuvwxyz"}[split]
        return [
            Task(
                id=f"letters/{letter}",
                env=self.name,
                messages=(Message(role=Role.user, content=f"Write a word with one of the letters {_six(letter)} in it."),),
                payload=letter,
            )
            for letter in letters
        ]

    def verify(self, task: Task, completion: str) -> Verdict:
        if any(letter in completion for letter in _six(str(task.payload))):
            return Verdict(reward=1.0)
        return Verdict(reward=0.0, feedback=f"There is no {task.payload} in it.")


def _six(letter: str) -> str:
    """The letter and the five after it, z followed by a."""
    return "".join(chr(ord("a") + (ord(letter) - ord("a") + offset) % 26) for offset in range(6))


class Asking(Letters):
    """Asks again, once, and judges both turns together."""

    def reply(self, task: Task, transcript: Sequence[Message]) -> str | None:
        return f"Another with {task.payload}." if len(transcript) == 1 else None

    def judge(self, task: Task, transcript: Sequence[Message]) -> Verdict:
        return self.verify(task, "".join(said.content for said in transcript if said.role is Role.assistant))


class Hopeless(Letters):
    """Solved by nobody, with feedback for everybody: every attempt is learned from."""

    def verify(self, task: Task, completion: str) -> Verdict:
        return Verdict(reward=0.0, feedback=f"{task.payload} would have been better.")


class Raising(Letters):
    """Breaks on every third letter it is asked about."""

    def verify(self, task: Task, completion: str) -> Verdict:
        if ord(str(task.payload)) % 3 == 0:
            raise RuntimeError("the verifier's own fault")
        return super().verify(task, completion)


class Hanging(Letters):
    """Never answers about one letter."""

    def verify(self, task: Task, completion: str) -> Verdict:
        import time

        if task.payload == "a":
            time.sleep(3600)
        return super().verify(task, completion)


class Thoughtful(Letters):
    """Takes its time over every verdict."""

    def verify(self, task: Task, completion: str) -> Verdict:
        import time

        time.sleep(0.4)
        return super().verify(task, completion)


class Sums(Letters):
    """Asks for a letter and a number, knows the right answer, and says which of the two is wrong; a random model never has it."""

    name = "sums"

    def reference(self, task: Task) -> str:
        letter = str(task.payload)
        return f"{letter} = {ord(letter) % 7}"

    def verify(self, task: Task, completion: str) -> Verdict:
        letter, _, number = completion.strip().partition(" = ")
        right_letter, _, right_number = self.reference(task).partition(" = ")
        if letter != right_letter:
            return Verdict(reward=0.0, feedback=f"{letter[:20]!r} is not the letter that was asked for.")
        if number != right_number:
            return Verdict(reward=0.0, feedback=f"The number is {number[:20]!r}, and the letter has another.")
        return Verdict(reward=1.0)
