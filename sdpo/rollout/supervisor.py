"""The thread that keeps a fleet of engines at work: hands out prompts, hears what comes back, replaces what dies.

What the fleet is asked is done in that order:

- Prompts are handed out, whole groups to the engine that has the least to do, until all engines are full.
- New weights go to every engine once the prompts before them are handed out. Each engine takes them when it is through with
  those, or with ``rollout.partial`` between two steps (``engine_loop.py``).

A dead engine's unfinished prompts are asked again first of all, with the same seeds. An engine that was restarted gets the
present weights before any work. Each prompt is answered once: only an engine that still owes an answer is heard.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count, groupby
from queue import Empty, SimpleQueue

import ray

from sdpo.config import RolloutConfig
from sdpo.errors import MachineError, OutOfMemory, UserError
from sdpo.rollout.engine_loop import Load, Request
from sdpo.rollout.member import Condition, Died, Ended, Health, Loaded, Member, News, NotLoaded, Started
from sdpo.rollout.questions import Cancelled, Job, Loading, Question, Readiness, Resting
from sdpo.run.logs import tail
from sdpo.types import Prompt, Sampling

WAKE_S = 0.02
"""Longest that a question of the driver waits while the engines have nothing to say."""
IDLE_S = 0.2


class Supervisor:
    """Asked from any thread; its own thread alone changes what it knows."""

    def __init__(self, members: Sequence[Member], config: RolloutConfig, on_event: Callable[[str], None]) -> None:
        self._members, self._config, self._on_event = members, config, on_event
        self._inbox: SimpleQueue[Question | None] = SimpleQueue()
        self._orders: deque[Job | Loading] = deque()
        self._jobs: dict[str, Job] = {}
        """The jobs by the ids of their unanswered requests."""
        self._loadings: list[Loading] = []
        """Begun, and not yet done."""
        self._waiting: list[Readiness] = []
        self._resting: list[Resting] = []
        self._is_at_rest = False
        """Until there is work or weights again; an engine that comes back meanwhile rests too."""
        self._present: Load | None = None
        self._restart_at: dict[Member, float] = {}
        """When a dead engine is started again."""
        self._lost_at: dict[Member, float] = {}
        """When one that is not ready again yet was found dead first."""
        self._request_ids = count()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self._thread.start()

    def ask(self, prompts: Sequence[Prompt], sampling: Sampling) -> Job:
        """Ask for completions. A task's prompts stay together, so that one engine computes what they have in common once."""
        by_task = groupby(sorted(prompts, key=lambda prompt: prompt.task_index), key=lambda prompt: prompt.task_index)
        groups = [[Request(id=str(next(self._request_ids)), prompt=prompt) for prompt in group] for _, group in by_task]
        job = Job(sampling=sampling, groups=deque(groups), unanswered={request.id for group in groups for request in group})
        self._post(job)
        return job

    def cancel(self, job: Job) -> None:
        self._inbox.put(Cancelled(job))

    def load(self, load: Load) -> Future[None]:
        loading = Loading(load=load)
        self._post(loading)
        return loading.done

    def readiness(self) -> Future[None]:
        """Done when every engine can sample."""
        waiting = Readiness()
        self._post(waiting)
        return waiting.done

    def rest(self) -> Future[None]:
        """Done when no engine that lives holds an accelerator's memory, until there is work or weights again."""
        resting = Resting()
        self._post(resting)
        return resting.done

    def conditions(self) -> tuple[Condition, ...]:
        """The condition of every engine, read from outside, so a moment old."""
        return tuple(member.condition for member in self._members)

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join(5.0)

    def _post(self, question: Question) -> None:
        self._inbox.put(question)
        if self._failure is not None:  # looked at after the put: the thread ends by answering what is in the inbox
            raise self._failure

    def _run(self) -> None:
        try:
            while self._hear_driver():
                self._hear_engines()
                self._check_health()
                self._hand_out()
            failure: Exception = MachineError("the fleet was closed while somebody waited for it")
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            failure = error
        self._failure = failure
        loadings = [order for order in self._orders if isinstance(order, Loading)]
        unanswered: set[Question] = {*self._jobs.values(), *loadings, *self._loadings, *self._waiting, *self._resting}
        for question in unanswered:
            question.fail(failure)
        while True:  # those who asked just now, too
            try:
                asked = self._inbox.get_nowait()
            except Empty:
                break
            if asked is not None:
                asked.fail(failure)

    @property
    def _is_idle(self) -> bool:
        return not (self._jobs or self._orders or self._loadings or self._resting or self._restart_at) and all(
            member.health is Health.ready for member in self._members
        )

    def _hear_driver(self) -> bool:
        """Take the questions that are there. Returns False once the fleet is closed."""
        wait_s = IDLE_S if self._is_idle else 0.0
        while True:
            try:
                question = self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait()
            except Empty:
                return True
            wait_s = 0.0
            match question:
                case None:
                    return False
                case Job():
                    self._jobs.update(dict.fromkeys(question.unanswered, question))
                    self._orders.append(question)
                case Loading():
                    self._orders.append(question)
                case Cancelled():
                    self._forget(question.job)
                case Readiness():
                    self._waiting.append(question)
                case Resting():
                    self._resting.append(question)
                    self._is_at_rest = True
                    for member in self._members:
                        if member.health is Health.ready:
                            member.rest()

    def _forget(self, job: Job) -> None:
        ids = list(job.unanswered)
        for request_id in ids:
            self._jobs.pop(request_id, None)
        job.groups.clear()
        for member in self._members:
            if member.health is not Health.dead:
                member.forget(ids)

    def _hear_engines(self) -> None:
        asked = {ref: member for member in self._members for ref in member.refs}
        if not asked:
            time.sleep(WAKE_S)
            return
        ready, _ = ray.wait(list(asked), num_returns=1, timeout=0.0 if self._is_idle else WAKE_S)
        if ready:
            ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0.0)
        for ref in ready:
            for news in asked[ref].hear(ref):
                self._heed(asked[ref], news)

    def _heed(self, member: Member, news: News) -> None:
        match news:
            case Ended():
                job = self._jobs.pop(news.request.id, None)
                if job is not None:
                    job.unanswered.discard(news.request.id)
                    job.outbox.put((news.request.prompt, news.completion))
            case Started():
                if self._present is None:
                    self._is_ready(member)
                else:
                    member.load(self._present)
            case Loaded():
                self._has_loaded(member, news)
            case NotLoaded():
                self._has_not_loaded(news)
            case Died():
                self._replace(member, news)

    def _has_loaded(self, member: Member, news: Loaded) -> None:
        sent, served = news.load, news.served
        if (served.version, served.checksum) != (sent.version, sent.payload.checksum):
            raise MachineError(
                f"every engine must serve the weights that the learner sent: version {sent.version}, checksum "
                f"{sent.payload.checksum}; engine {member.index} serves version {served.version}, checksum {served.checksum}."
            )
        if sent is self._present and member.health is Health.refitting:
            self._is_ready(member)
        for loading in self._loadings:
            loading.is_served = loading.is_served or loading.load is sent

    def _has_not_loaded(self, news: NotLoaded) -> None:
        """Fail the loading, whose sender is gone. Where no engine is ready, fail the jobs too: they need other weights first."""
        for loading in [loading for loading in self._loadings if loading.load is news.load]:
            self._loadings.remove(loading)
            loading.fail(news.error)
        if not any(member.health is Health.ready for member in self._members):
            for job in set(self._jobs.values()):
                self._forget(job)
                job.fail(news.error)

    def _is_ready(self, member: Member) -> None:
        member.health = Health.ready
        if self._is_at_rest:
            member.rest()
        lost_at = self._lost_at.pop(member, None)
        if lost_at is not None:
            weights = "" if self._present is None else f" with the weights of step {self._present.version}"
            self._on_event(f"engine {member.index} is back{weights}, {time.monotonic() - lost_at:.1f} s after it was lost")

    def _replace(self, member: Member, died: Died) -> None:
        owed = member.bury()
        now = time.monotonic()
        self._lost_at.setdefault(member, now)
        member.num_restarts += 1
        last_words = f"The end of {member.log}:\n{tail(member.log)}"
        if died.is_hopeless:
            raise UserError(f"a rollout engine must be able to start; engine {member.index} is not: {died.reason}. {last_words}")
        member.num_memory_deaths += died.is_for_memory
        if member.num_memory_deaths > 1:
            raise OutOfMemory(f"engine {member.index} died twice in a step, so it is not started again: {died.reason}.")
        if member.num_restarts > self._config.max_restarts:
            raise MachineError(
                f"engine {member.index} died {member.num_restarts} times without a completion in between "
                f"(rollout.max_restarts={self._config.max_restarts}); the last time {died.reason}. {last_words}"
            )
        pause_s = self._config.restart_backoff_s * 2 ** (member.num_restarts - 2) if member.num_restarts > 1 else 0.0
        self._restart_at[member] = now + pause_s
        again = f"; its {len(owed)} unfinished prompts are asked again" if owed else ""
        self._on_event(f"engine {member.index} is lost: {died.reason}{again}")
        self._ask_again(owed)

    def _ask_again(self, owed: Sequence[Request]) -> None:
        by_job: dict[Job, list[Request]] = {}
        for request in owed:
            job = self._jobs.get(request.id)
            if job is not None:
                by_job.setdefault(job, []).append(request)
        for job, requests in reversed(by_job.items()):
            by_task = groupby(requests, key=lambda request: request.prompt.task_index)
            job.groups.extendleft(reversed([list(group) for _, group in by_task]))
            if job in self._orders:
                self._orders.remove(job)
            self._orders.appendleft(job)

    def _check_health(self) -> None:
        now = time.monotonic()
        for member in [member for member, at in self._restart_at.items() if now >= at]:
            del self._restart_at[member]
            member.start()
        for member in self._members:
            complaint = member.complaint()
            if complaint is not None:
                self._replace(member, complaint)
        for loading in [loading for loading in self._loadings if self._is_through(loading)]:
            self._loadings.remove(loading)
            loading.done.set_result(None)
        if self._resting and not any(member.is_going_to_rest for member in self._members):
            for resting in self._resting:
                resting.done.set_result(None)
            self._resting.clear()
        if self._waiting and all(member.health is Health.ready for member in self._members):
            for waiting in self._waiting:
                waiting.done.set_result(None)
            self._waiting.clear()

    def _is_through(self, loading: Loading) -> bool:
        """Whether every engine that lives serves it, and one does; those that are being restarted get it before any work."""
        return loading.is_served and not any(loading.load in member.loads for member in self._members)

    def _hand_out(self) -> None:
        """Hand out what was asked, in that order, as far as engines have room."""
        while self._orders:
            self._is_at_rest = False
            head = self._orders[0]
            if isinstance(head, Loading):
                self._begin(head)
            else:
                while head.groups:
                    member = self._least_busy()
                    if member is None:
                        return
                    member.give(head.groups.popleft(), head.sampling)
            self._orders.popleft()

    def _begin(self, loading: Loading) -> None:
        self._present = loading.load
        for member in self._members:
            member.num_memory_deaths = 0
        self._loadings.append(loading)
        for member in self._members:
            if member.health in (Health.ready, Health.suspect, Health.refitting):
                member.load(loading.load)

    def _least_busy(self) -> Member | None:
        """The ready engine that owes the least; None where every engine is full, or none is there."""
        room = self._config.max_num_seqs + self._config.max_num_seqs // 4  # a little more than runs at once, so that none waits
        able = [member for member in self._members if member.health is Health.ready and len(member.owed) < room]
        return min(able, key=lambda member: len(member.owed)) if able else None
