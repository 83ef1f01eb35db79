"""Identical attempts are verified once: the Verifier of a search, which remembers its verdicts.

The environment judges what was said, so one text, or one conversation, has one verdict. An attempt that was set aside is not
remembered: the environment broke over it, and may not do so again.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

from sdpo.protocols import Verifier
from sdpo.types import Attempt, Completion, Message, Prompt, Reply, SetAside, Task, Verdict

Answer = tuple[Prompt, Attempt | SetAside]


def digest(transcript: Sequence[Message]) -> str:
    """What an attempt is known by; texts may be long, and hold what is no valid Unicode."""
    said = [[message.role.value, message.content] for message in transcript]
    return blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


class Once:
    """For one task: what was asked before is not asked again."""

    def __init__(self, verifier: Verifier, verdicts: dict[str, Verdict]) -> None:
        """``verdicts`` by the digest of the attempt; those that come are added."""
        self._verifier, self._verdicts = verifier, verdicts

    def reply(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Reply | SetAside]]:
        return self._verifier.reply(tasks_P, completions)

    def verify(self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]) -> Iterator[Answer]:
        """One attempt for each completion. Copies of one that is being judged wait for its verdict."""
        copies: dict[str, list[tuple[Prompt, Completion]]] = {}
        known: deque[Answer] = deque()
        for prompt, outcome in self._verifier.verify(tasks_P, self._new(completions, copies, known)):
            key = digest(outcome.completion.transcript)
            if isinstance(outcome, Attempt):
                self._verdicts[key] = outcome.verdict
            yield prompt, outcome
            for other, completion in copies.pop(key):
                yield other, _same(outcome, completion)
            while known:
                yield known.popleft()
        yield from known

    def _new(
        self,
        completions: Iterable[tuple[Prompt, Completion]],
        copies: dict[str, list[tuple[Prompt, Completion]]],
        known: deque[Answer],
    ) -> Iterator[tuple[Prompt, Completion]]:
        """Those that have to be judged."""
        for prompt, completion in completions:
            key = digest(completion.transcript)
            verdict = self._verdicts.get(key)
            if verdict is not None:
                known.append((prompt, Attempt(completion=completion, verdict=verdict)))
            elif key in copies:
                copies[key].append((prompt, completion))
            else:
                copies[key] = []
                yield prompt, completion


def _same(outcome: Attempt | SetAside, completion: Completion) -> Attempt | SetAside:
    if isinstance(outcome, Attempt):
        return Attempt(completion=completion, verdict=outcome.verdict)
    return SetAside(completion=completion, error=outcome.error)
