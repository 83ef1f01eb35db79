"""What happens in the process in which an environment is examined? ``python -P -m sdpo.environments.examination FD``.

The request comes on standard input. What is found goes out at once, through the connection FD. So it is known what the
environment hangs or dies of. Everything runs in the main thread, as it does in a verifier, but for the rule on threads.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from multiprocessing.connection import Connection
from typing import TypeVar

from sdpo.environments.cases import REFERENCE, Case, cases_of
from sdpo.environments.findings import Finding, error, warning
from sdpo.environments.fingerprint import fingerprint
from sdpo.environments.records import Began, Ended, Imported, Judged, Listed, Refused, Request, Ruling, Send
from sdpo.environments.reply_rules import finds_in_reply
from sdpo.environments.side_effects import Watch
from sdpo.environments.task_rules import (
    SEARCH_S,
    SEEDS,
    Listing,
    described,
    finds_between_splits,
    finds_in_change,
    finds_in_questions,
    finds_in_repetition,
    finds_in_split,
    finds_in_unknown_split,
    pickled,
    tasks_of,
)
from sdpo.environments.verdict_rules import (
    finds_in_order,
    finds_in_reference,
    finds_in_repetition_of_verdicts,
    finds_in_rulings,
    finds_in_seconds,
    finds_in_threads,
    timed,
)
from sdpo.envs import registry
from sdpo.envs.base import Environment, Task
from sdpo.envs.listing import Endless, Limit, TakesLong

Item = TypeVar("Item")

MAKE_LIMIT_S = 300.0
REPEATED_TASKS_S = 8.0
"""``tasks()`` is called again, with the same seed and others, until it has taken so long."""
JUDGING_S = 40.0
"""A round of verdicts takes no new answer after this."""
REPEATING_S = 15.0
"""Rounds that repeat the first are shortened to about this."""
HEAVY = ("torch", "ray", "vllm", "deepspeed", "transformers")


def examine(request: Request, send: Send) -> None:
    """The whole examination, or, with tasks to restore, its repetition in another process."""
    send(Began(where="the constructor", limit_s=MAKE_LIMIT_S))
    environment = _made(request, send, is_first=True)
    if environment is None:
        return
    try:
        if request.restored:
            _repeat(environment, request, send)
        else:
            _examine(environment, request, send)
    except Endless as endless:
        send(error("endless-tasks", "tasks", endless.what, f"{endless.remedy} The rest was not checked."))


def _repeat(environment: Environment, request: Request, send: Send) -> None:
    """First of all the verdicts, as a verifier's process never lists tasks."""
    sampled = _distinct({split: _restored(tasks, split, send) for split, tasks in request.restored.items()})
    _rulings(environment, cases_of(environment, sampled, request, send)[::-1], request.verdict_limit_s, send, watch=None)
    _listed(environment, request, send)


def _examine(environment: Environment, request: Request, send: Send) -> None:
    watch = Watch()
    with watch.over("tasks", "tasks", may_load=True):
        listed = _listed(environment, request, send)
    second = _made(request, send, is_first=False)
    if second is not None:
        with watch.over("tasks", "tasks", may_load=True):
            _send_all(send, _finds_in_tasks(environment, second, listed, request, send))
    _send_all(send, watch.take())
    sampled = _distinct({split: _spread(listing.tasks, request.num_tasks) for split, listing in listed.items()})
    _examine_verdicts(environment, sampled, request, send, watch)
    send(Imported(libraries=tuple(library for library in HEAVY if library in sys.modules)))


def _made(request: Request, send: Send, *, is_first: bool) -> Environment | None:
    try:
        return registry.make(request.spec, request.options)
    except ValueError as failure:
        if is_first:
            send(Refused(reason=str(failure)))
        else:
            what = f"made a second time with the same options, it raised {described(failure)}"
            send(error("makes-twice", "the constructor", what, "Every verifier's process and the trainer make one of their own."))
        return None


def _listed(environment: Environment, request: Request, send: Send) -> dict[str, Listing]:
    listed = {}
    for split in (request.train_split, request.heldout_split):
        where = f"tasks({split!r}, 0)"
        listing = _asked(environment, split, 0, request, send)
        if isinstance(listing, Finding):
            send(listing)
            continue
        listed[split] = listing
        bundles = []
        for task in _spread(listing.tasks, request.num_tasks):
            bundle = pickled(where, task)
            if isinstance(bundle, Finding):
                send(bundle)
            else:
                bundles.append(bundle)
        prints = tuple((str(task.id), fingerprint(task)) for task in listing.tasks)
        send(Listed(split=split, num_tasks=listing.num_tasks, fingerprints=prints, pickled=tuple(bundles)))
    return listed


def _asked(environment: Environment, split: str, seed: int, request: Request, send: Send) -> Listing | Finding:
    """The tasks of a split. Whoever started the process ends one that cannot be interrupted from within."""
    send(
        Began(
            where=f"tasks({split!r}, {seed})",
            limit_s=SEARCH_S + 2 * _longest_s(environment, request),
            rule="endless-tasks",
            remedy="Let it return a sequence that ends, whose parts come at once. The rest was not checked.",
        )
    )
    return tasks_of(environment, split, seed, _limit(request))


def _longest_s(environment: Environment, request: Request) -> float:
    own_s = environment.tasks_limit_s if isinstance(environment, TakesLong) else 0.0
    return max(request.tasks_limit_s, own_s)


def _limit(request: Request) -> Limit:
    return Limit(computing_s=request.tasks_limit_s, waiting_s=request.tasks_limit_s)


def _restored(pickles: Iterable[bytes], split: str, send: Send) -> tuple[Task, ...]:
    """The tasks as they arrive in a verifier's process."""
    tasks = []
    for bundle in pickles:
        try:
            tasks.append(pickle.loads(bundle))
        except Exception as failure:  # noqa: BLE001 - unpickling calls the payload's own code
            what = f"a pickled task cannot be restored: {described(failure)}"
            send(error("picklable", f"tasks({split!r}, 0)", what, "Keep plain data in the payload."))
    return tuple(tasks)


def _distinct(sampled: Mapping[str, tuple[Task, ...]]) -> dict[str, tuple[Task, ...]]:
    """Without tasks whose id stood before: verdicts are told apart by it."""
    seen: set[str] = set()
    distinct = {}
    for split, tasks in sampled.items():
        distinct[split] = tuple({task.id: task for task in tasks if task.id not in seen}.values())
        seen |= {task.id for task in tasks}
    return distinct


def _finds_in_tasks(
    environment: Environment, second: Environment, listed: Mapping[str, Listing], request: Request, send: Send
) -> Iterator[Finding]:
    name: object = environment.name
    if not isinstance(name, str) or not name.strip():
        yield error("env-name", "name", f"is {name!r}", "It names the environment in metrics and folders: text.")
    for split, listing in listed.items():
        yield from finds_in_split(name, f"tasks({split!r}, 0)", listing.tasks)
    by_seed = {split: {0: listing.tasks} for split, listing in listed.items()}
    calls = [
        *((second, split, 0, "on a second object of the class") for split in listed),
        *((environment, split, 0, "with the same arguments") for split in listed),
        *((environment, split, seed, "") for seed in SEEDS[1:] for split in listed),
    ]
    took_s, num_made = 0.0, 0
    for asked, split, seed, circumstance in calls:
        if took_s > REPEATED_TASKS_S:
            what = f"is slow: {num_made} calls took {took_s:.0f} s; {len(calls) - num_made} more were not made"
            yield warning("slow-tasks", f"tasks({split!r}, {seed})", what, "A lazy sequence makes a task when it is asked for.")
            break
        again = _asked(asked, split, seed, request, send)
        if isinstance(again, Finding):
            yield again
            continue
        took_s, num_made = took_s + again.took_s, num_made + 1
        if circumstance:
            yield from finds_in_repetition(f"tasks({split!r}, 0)", listed[split], again, circumstance)
        else:
            by_seed[split][seed] = again.tasks
    splits = request.train_split, request.heldout_split
    send(Began(where="tasks, of several seeds", limit_s=MAKE_LIMIT_S))
    if len(set(splits)) == len(by_seed) == 2:
        yield from finds_between_splits(by_seed[splits[0]], listed[splits[1]].tasks, splits)
    yield from finds_in_unknown_split(environment, _limit(request))


def _examine_verdicts(
    environment: Environment, sampled: Mapping[str, tuple[Task, ...]], request: Request, send: Send, watch: Watch
) -> None:
    before = {task.id: fingerprint(task) for tasks in sampled.values() for task in tasks}
    with watch.over("reference", "reference"):
        cases = cases_of(environment, sampled, request, send)
    _send_all(send, finds_in_questions(_questions(cases)))
    rulings, seconds = _rulings(environment, cases, request.verdict_limit_s, send, watch=watch)
    _send_all(send, (*watch.take(), *watch.finds_in_remains("verify")))
    for tasks in sampled.values():
        _send_all(send, (finding for task in tasks for finding in finds_in_change(task, before[task.id])))
    send(Began(where="what the verdicts say", limit_s=MAKE_LIMIT_S))
    _send_all(send, finds_in_rulings(cases, rulings))
    _send_all(send, finds_in_seconds(seconds))
    for case in cases:
        if case.answer.name == REFERENCE and case.key in rulings:
            _send_all(send, finds_in_reference(case, rulings[case.key]))
    total_s = sum(seconds)
    judged = [case for case in cases if case.key in rulings]
    repeated = _spread(judged, max(8, int(len(judged) * min(1.0, REPEATING_S / max(total_s, 1e-9)))))
    send(Began(where="verify, the same answers again", limit_s=request.verdict_limit_s + 4 * total_s))
    unsteady = list(finds_in_repetition_of_verdicts(environment, repeated, rulings))
    _send_all(send, unsteady)
    if not unsteady:
        send(Began(where="verify, the answers in another order", limit_s=request.verdict_limit_s + 4 * total_s))
        unsteady = list(finds_in_order(environment, repeated, rulings))
        _send_all(send, unsteady)
    if not unsteady:
        send(Began(where="verify, from several threads", limit_s=request.verdict_limit_s + 8 * total_s))
        _send_all(send, finds_in_threads(environment, repeated, rulings))
    for split, tasks in sampled.items():
        for task in tasks[:1]:
            reference = next((case.reference for case in cases if case.task.id == task.id), None)
            send(Began(where=f"reply, task {task.id!r}", limit_s=request.verdict_limit_s + 4 * total_s))
            is_heldout = split == request.heldout_split
            _send_all(send, finds_in_reply(environment, task, reference, is_heldout=is_heldout, watch=watch))
    _send_all(send, (*watch.take(), *watch.finds_in_remains("reply")))


def _questions(cases: Iterable[Case]) -> list[tuple[str, Task, str]]:
    """Where a reference is known: a place, the task and the reference."""
    return [
        (f"task {case.task.id!r}", case.task, case.reference)
        for case in cases
        if case.answer.name == REFERENCE and case.reference is not None
    ]


def _rulings(
    environment: Environment, cases: Sequence[Case], limit_s: float, send: Send, *, watch: Watch | None
) -> tuple[dict[tuple[str, str], Ruling], tuple[float, ...]]:
    """The first round: one verdict on each answer, as long as there is time."""
    rulings: dict[tuple[str, str], Ruling] = {}
    seconds: list[float] = []
    for case in cases:
        if sum(seconds) > JUDGING_S:
            break
        send(Began(where=case.where, limit_s=limit_s))
        with nullcontext() if watch is None else watch.over("verify", case.where):
            ruling, took_s = timed(environment, case)
        seconds.append(took_s)
        if isinstance(ruling, Finding):
            send(ruling)
        else:
            rulings[case.key] = ruling
    send(Judged(rulings=rulings, seconds=tuple(seconds)))
    return rulings, tuple(seconds)


def _spread(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """At most ``count`` of them, evenly from first to last."""
    num = min(count, len(items))
    return tuple(items[index * len(items) // num] for index in range(num))


def _send_all(send: Send, findings: Iterable[Finding]) -> None:
    for finding in findings:
        send(finding)


def main() -> None:
    request: Request = pickle.load(sys.stdin.buffer)
    sys.path[:] = request.search_path
    with Connection(int(sys.argv[1]), readable=False) as connection:
        examine(request, connection.send)
        connection.send(Ended())


if __name__ == "__main__":
    main()
