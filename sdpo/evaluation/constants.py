"""What would somebody score who never reads the question? The best constant answer, and the best for each kind of question.

A policy that has learned to say the commonest answer looks as if it had learned to solve tasks. So held-out success stands beside
what the policy's own commonest answers solve when each is given to every task. They are chosen on the tasks that they are scored
on, which flatters them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from sdpo.protocols import Verifier
from sdpo.types import Attempt, Completion, Finish, Group, Prompt, Task


def best_constants(groups_P: Sequence[Group], verifier: Verifier, *, num: int) -> dict[str, float]:
    """``heldout/constant`` and ``heldout/constant_by_kind``: shares of the tasks that the best of ``num`` answers solves.

    The answers are the ``num`` commonest of ``groups_P``. For each kind, its own commonest answer is tried besides. Answers of
    several turns do not count. The dictionary is empty where there are none, or where the environment breaks over one.
    """
    tasks_P = [group.task for group in groups_P]
    overall = [text for text, _ in _said(groups_P).most_common(num)]
    by_kind: dict[str, list[int]] = defaultdict(list)
    for place, task in enumerate(tasks_P):
        by_kind[kind_of(task)].append(place)
    tried = [(text, place) for text in overall for place in range(len(tasks_P))]
    for places in by_kind.values():
        tried += [(text, place) for text, _ in _said([groups_P[place] for place in places]).most_common(1) for place in places]
    solved = _solved(list(dict.fromkeys(tried)), tasks_P, verifier)
    if solved is None:
        return {}
    answers = {text for text, _ in tried}
    best_of_kind = [
        max(sum((text, place) in solved for place in places) for text in answers)
        for places in by_kind.values()
        if len(places) > 1  # of a lone question any right answer to it is a constant
    ]
    num_of_kinds = sum(len(places) for places in by_kind.values() if len(places) > 1)
    best = max(sum((text, place) in solved for place in range(len(tasks_P))) for text in overall)
    return {
        "heldout/constant": best / len(tasks_P),
        **({"heldout/constant_by_kind": sum(best_of_kind) / num_of_kinds} if num_of_kinds else {}),
    }


def kind_of(task: Task) -> str:
    """The task's kind, read off its id.

    With three parts or more, or a digest at the end, it is all but the last part (``chemistry/rings/easy/1f…``). Otherwise it is
    what stands before the first hyphen or number (``code/add-3``).
    """
    parts = task.id.split("/")
    is_drawn = len(parts) > 2 or (len(parts) > 1 and re.fullmatch(r"[0-9a-f]{8,}", parts[-1]) is not None)
    return "/".join(parts[:-1]) if is_drawn else re.split(r"-|\d", task.id, maxsplit=1)[0]


def _said(groups: Sequence[Group]) -> Counter[str]:
    return Counter(
        attempt.completion.text.strip() for group in groups for attempt in group.attempts if not attempt.completion.turns
    )


def _solved(tried: Sequence[tuple[str, int]], tasks_P: Sequence[Task], verifier: Verifier) -> set[tuple[str, int]] | None:
    """The pairs of an answer and a task's place that the environment calls solved; None where there are none or it breaks."""

    def completions() -> Iterator[tuple[Prompt, Completion]]:
        for index, (text, place) in enumerate(tried):
            completion = Completion(token_ids=(), logprobs=(), text=text, finish=Finish.stop, weights_version=0)
            yield Prompt(token_ids=(), seed=0, task_index=place, attempt_index=index), completion

    judged = [(tried[prompt.attempt_index], outcome) for prompt, outcome in verifier.verify(tasks_P, completions())]
    if not judged or not all(isinstance(outcome, Attempt) for _, outcome in judged):
        return None
    return {pair for pair, outcome in judged if isinstance(outcome, Attempt) and outcome.verdict.is_solved}
