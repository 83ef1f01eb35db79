"""What is kept of a step that is under way, so that a killed driver asks again only for what is missing?

Every verified attempt is a line of ``RUN/unfinished/step_NNNNNN.jsonl`` as soon as its verdict is there. The line has everything
that a completion and a verdict hold, floats exactly. A continued run takes over what was sampled for the same prompt with the
same seed, by weights that its own descend from. It asks again for everything else:

- Lines of weights that will be learned anew, which need not come out the same.
- A line that the kill cut off.
- Attempts that were set aside: whoever starts the run again may have mended the environment.

A step's file goes once a checkpoint stands from which the step will not be repeated.

A line is flushed to the operating system, not to the disk: it survives the process, not a power cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sdpo.run.files import step_in, write_whole
from sdpo.types import Attempt, Completion, Finish, Message, Prompt, Role, SetAside, Verdict

Place = tuple[int, int]
"""``task_index`` and ``attempt_index`` of a prompt."""


def place(prompt: Prompt) -> Place:
    """Which attempt of a batch it asks for, in whatever turn."""
    return prompt.task_index, prompt.attempt_index


class Journal:
    """The unfinished steps of a run."""

    def __init__(self, folder: Path, *, step: int) -> None:
        """Open it for a run that goes on, or begins, with the weights of ``step``; what later weights sampled is removed."""
        self._folder = folder
        self._last_step = 0
        folder.mkdir(parents=True, exist_ok=True)
        forget(folder, step)
        self._forget_weights_after(step)

    def page(self, step: int, prompts: Sequence[Prompt], *, oldest_version: int) -> Page:
        """The page for the answers to the ``prompts`` of a step; ``step`` steps will be finished after it.

        Lines of weights older than ``oldest_version`` are not taken over. Lines of other places than those of the ``prompts``
        stay: the step may ask for more (``Page.further``).
        """
        if step <= self._last_step:  # the run has gone back to a checkpoint
            self._forget_weights_after(step - 1)
        self._last_step = step
        file = self._folder / f"step_{step:06d}.jsonl"
        wanted = {place(prompt): (prompt.seed, _digest(prompt)) for prompt in prompts}
        kept = [
            line
            for line in _lines(file)
            if wanted.get(line.place, (line.seed, line.prompt)) == (line.seed, line.prompt)
            and isinstance(line.outcome, Attempt)
            and line.outcome.completion.weights_version >= oldest_version
        ]
        _write(file, kept)
        return Page(file, prompts, kept)

    def _forget_weights_after(self, step: int) -> None:
        for _, file in _pages(self._folder):
            _write(file, [line for line in _lines(file) if line.outcome.completion.weights_version <= step])


class Page:
    """The answers to one step's prompts."""

    def __init__(self, file: Path, prompts: Sequence[Prompt], lines: Sequence[_Line]) -> None:
        """``lines`` are those of the file that may be taken over."""
        self._file, self._lines = file, lines
        self._asked = {place(prompt): prompt for prompt in prompts}
        taken = {line.place: line.outcome for line in lines if self._is_of(line) and isinstance(line.outcome, Attempt)}
        self.taken = tuple((self._asked[where], attempt) for where, attempt in taken.items())
        """The attempts that a killed run already had."""
        self.missing = tuple(prompt for prompt in prompts if place(prompt) not in taken)

    def further(self, prompts: Sequence[Prompt]) -> Page:
        """The page for the answers to more prompts of the same step, at other places."""
        return Page(self._file, prompts, self._lines)

    def _is_of(self, line: _Line) -> bool:
        prompt = self._asked.get(line.place)
        return prompt is not None and (prompt.seed, _digest(prompt)) == (line.seed, line.prompt)

    def written(self, verified: Iterable[tuple[Prompt, Attempt | SetAside]]) -> Iterator[tuple[Prompt, Attempt | SetAside]]:
        """The same attempts, each a line of the file before it is passed on."""
        with self._file.open("a") as lines:
            for prompt, outcome in verified:
                lines.write(json.dumps(self._record(prompt, outcome)) + "\n")
                lines.flush()
                yield prompt, outcome

    def _record(self, prompt: Prompt, outcome: Attempt | SetAside) -> dict[str, object]:
        """The line of an answer; ``prompt`` may be that of a later turn."""
        asked = self._asked[place(prompt)]
        record: dict[str, object] = {
            "task_index": asked.task_index,
            "attempt_index": asked.attempt_index,
            "seed": asked.seed,
            "prompt": _digest(asked),
            "completion": _plain_completion(outcome.completion),
        }
        if isinstance(outcome, Attempt):
            record["verdict"] = _plain_verdict(outcome.verdict)
        else:
            record["set_aside"] = outcome.error
        return record


def forget(folder: Path, step: int) -> None:
    """Remove what was kept of the first ``step`` steps, which will not be repeated."""
    for number, file in _pages(folder):
        if number <= step:
            file.unlink()


def _pages(folder: Path) -> list[tuple[int, Path]]:
    """The files of steps, each with its step. Others that lie there are nobody's."""
    found = [(step_in(file.name, ".jsonl"), file) for file in folder.glob("step_*.jsonl") if file.is_file()]
    return [(number, file) for number, file in found if number is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One answer."""

    text: str
    """The line as it stands in the file, its end included."""
    place: Place
    seed: int
    prompt: str
    """Digest of the prompt's token ids."""
    outcome: Attempt | SetAside


def _lines(file: Path) -> list[_Line]:
    """The lines that can be read; one that a kill or a full disk cut off cannot."""
    texts = file.read_bytes().splitlines(keepends=True) if file.is_file() else []
    return [line for line in map(_line, texts) if line is not None]


def _line(written: bytes) -> _Line | None:
    if not written.endswith(b"\n"):
        return None
    try:
        text = written.decode()
        record = json.loads(text)
        completion = _completion(record["completion"])
        return _Line(
            text=text,
            place=(int(record["task_index"]), int(record["attempt_index"])),
            seed=record["seed"],
            prompt=record["prompt"],
            outcome=SetAside(completion=completion, error=record["set_aside"])
            if "set_aside" in record
            else Attempt(completion=completion, verdict=Verdict(**record["verdict"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _write(file: Path, lines: Iterable[_Line]) -> None:
    write_whole(file, "".join(line.text for line in lines))


def _digest(prompt: Prompt) -> str:
    """A digest of the token ids, which are the same in every attempt at a task and would be most of the file."""
    return blake2b(repr(prompt.token_ids).encode(), digest_size=16).hexdigest()


def _plain_completion(completion: Completion) -> dict[str, object]:
    return {
        "token_ids": completion.token_ids,
        "logprobs": completion.logprobs,
        "text": completion.text,
        "finish": completion.finish.value,
        "weights_version": completion.weights_version,
        "versions": completion.versions,
        "own_mask": completion.own_mask,
        "turns": [[said.role.value, said.content] for said in completion.turns],
    }


def _completion(fields: Mapping[str, Any]) -> Completion:
    return Completion(
        token_ids=tuple(fields["token_ids"]),
        logprobs=tuple(fields["logprobs"]),
        text=fields["text"],
        finish=Finish(fields["finish"]),
        weights_version=int(fields["weights_version"]),
        versions=tuple((version, num) for version, num in fields["versions"]),
        own_mask=None if fields["own_mask"] is None else tuple(fields["own_mask"]),
        turns=tuple(Message(role=Role(role), content=content) for role, content in fields["turns"]),
    )


def _plain_verdict(verdict: Verdict) -> dict[str, object]:
    return {"reward": verdict.reward, "feedback": verdict.feedback, "metrics": dict(verdict.metrics)}
