"""What happens in the process in which an environment is examined? ``python -P -m sdpo.environments.examination FD``.

The request comes on standard input. What is found goes out at once, through the connection FD. So it is known what the
environment hangs or dies of. Everything runs in the main thread, as it does in a verifier, but for the rule on threads.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

from sdpo.environments.cases import REFERENCE, Case, cases_of
from sdpo.environments.findings import Finding, error
from sdpo.environments.fingerprint import fingerprint
from sdpo.environments.records import Began, Ended, Imported, Judged, Listed, Refused, Request, Ruling, Send
from sdpo.environments.reply_rules import finds_in_reply
from sdpo.environments.task_rules import (
    SEEDS,
    described,
    finds_between_splits,
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

Item = TypeVar("Item")

MAKE_LIMIT_S = 300.0
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
    splits = (request.train_split, request.heldout_split)
    if request.restored:  # first of all, as a verifier's process never lists tasks
        sampled = _distinct({split: _restored(tasks, split, send) for split, tasks in request.restored.items()})
        _rulings(environment, cases_of(environment, sampled, request, send)[::-1], request.verdict_limit_s, send)
        _listed(environment, splits, request.num_tasks, send)
        return
    listed = _listed(environment, splits, request.num_tasks, send)
    second = _made(request, send, is_first=False)
    if second is not None:
        send(Began(where="tasks, of several seeds", limit_s=MAKE_LIMIT_S))
        _send_all(send, _finds_in_tasks(environment, second, listed, splits))
    sampled = _distinct({split: _spread(tasks, request.num_tasks) for split, tasks in listed.items()})
    _examine_verdicts(environment, sampled, request, send)
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


def _listed(environment: Environment, splits: Sequence[str], num_sampled: int, send: Send) -> dict[str, tuple[Task, ...]]:
    listed = {}
    for split in splits:
        where = f"tasks({split!r}, 0)"
        send(Began(where=where, limit_s=MAKE_LIMIT_S))
        tasks = tasks_of(environment, split, 0)
        if isinstance(tasks, Finding):
            send(tasks)
            continue
        listed[split] = tasks
        bundles = []
        for task in _spread(tasks, num_sampled):
            bundle = pickled(where, task)
            if isinstance(bundle, Finding):
                send(bundle)
            else:
                bundles.append(bundle)
        prints = tuple((str(task.id), fingerprint(task)) for task in tasks)
        send(Listed(split=split, fingerprints=prints, pickled=tuple(bundles)))
    return listed


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
    environment: Environment, second: Environment, listed: Mapping[str, tuple[Task, ...]], splits: tuple[str, str]
) -> Iterator[Finding]:
    name: object = environment.name
    if not isinstance(name, str) or not name.strip():
        yield error("env-name", "name", f"is {name!r}", "It names the environment in metrics and folders: text.")
    by_seed: dict[str, dict[int, Sequence[Task]]] = {}
    for split, tasks in listed.items():
        where = f"tasks({split!r}, 0)"
        yield from finds_in_split(name, where, tasks)
        for other, circumstance in ((environment, "with the same arguments"), (second, "on a second object of the class")):
            again = tasks_of(other, split, 0)
            yield from (again,) if isinstance(again, Finding) else finds_in_repetition(where, tasks, again, circumstance)
        by_seed[split] = {0: tasks}
        for seed in SEEDS[1:]:
            seeded = tasks_of(environment, split, seed)
            if isinstance(seeded, Finding):
                yield seeded
            else:
                by_seed[split][seed] = seeded
    if len(set(splits)) == len(by_seed) == 2:
        yield from finds_between_splits(by_seed[splits[0]], listed[splits[1]], splits)
    yield from finds_in_unknown_split(environment)


def _examine_verdicts(environment: Environment, sampled: Mapping[str, tuple[Task, ...]], request: Request, send: Send) -> None:
    cases = cases_of(environment, sampled, request, send)
    rulings, seconds = _rulings(environment, cases, request.verdict_limit_s, send)
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
    for tasks in sampled.values():
        for task in tasks[:1]:
            send(Began(where=f"reply, task {task.id!r}", limit_s=request.verdict_limit_s + 4 * total_s))
            _send_all(send, finds_in_reply(environment, task))


def _rulings(
    environment: Environment, cases: Sequence[Case], limit_s: float, send: Send
) -> tuple[dict[tuple[str, str], Ruling], tuple[float, ...]]:
    """The first round: one verdict on each answer, as long as there is time."""
    rulings: dict[tuple[str, str], Ruling] = {}
    seconds: list[float] = []
    for case in cases:
        if sum(seconds) > JUDGING_S:
            break
        send(Began(where=case.where, limit_s=limit_s))
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
