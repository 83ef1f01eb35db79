"""Test-time self-distillation: one hard task is tried until it is solved, and every failure's feedback is learned from meanwhile.

The training loop (``train.py``) asks many tasks and wants a better model; this one asks one task and wants its solution. Nothing
of a search depends on other searches. Its seeds come from the task's id, and its weights are loaded before each step. Whoever
searches several tasks brings the learner back to its beginning between them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from sdpo.attempts.conversation import attempts
from sdpo.attempts.groups import asked, grouped, refuse_broken_environment
from sdpo.batches.samples import training_samples
from sdpo.batches.updates import in_epochs, pack
from sdpo.config import SearchConfig
from sdpo.protocols import Sampler
from sdpo.solving.budget import next_attempts
from sdpo.solving.folder import SearchFolder
from sdpo.solving.once import Once
from sdpo.solving.parts import Parts, SearchLog
from sdpo.solving.search import Ending, Search, Step, absorbed, tried
from sdpo.solving.strategy import Strategy
from sdpo.types import Attempt, Group, Prompt, SetAside, Task


def solve(
    task: Task,
    config: SearchConfig,
    strategy: Strategy,
    parts: Parts,
    folder: SearchFolder,
    log: SearchLog,
    *,
    seed: int,
    stop_at_once: bool,
) -> tuple[Search, Ending]:
    """Go on from where ``folder`` stands, to a solution or to the end of the budget. The learner must be as it begins."""
    learner = parts.learner
    search = absorbed(Search(task, config.algorithm.hindsight), folder.stand(learner if strategy.learns else None))
    sampler = replace(parts.sampler, verifier=Once(parts.sampler.verifier, search.verdicts))
    log.told(search)
    while (ending := search.ending(config.budget, config.stale_steps)) is None:
        began, number = time.monotonic(), search.num_steps + 1

        # 1. Ask, as the strategy says, with the search's own weights: what the engine has cached of others is gone with them.
        log.phase("sync")
        sampler.engine.load(learner.weights(), version=learner.step)
        log.phase("generate")
        question = strategy.question(task, search.memory, sampler.renderer)
        prompt_ids = sampler.renderer.prompt(question)
        num = next_attempts(config.budget, search.spent, config.batch.group_size)
        prompts = asked((prompt_ids,), num, f"{seed}/{task.id}/{number}")
        answers = _answers(task, prompts, config, sampler, log, search, began, stop_at_once)
        outcomes = [(prompt, answers[prompt.attempt_index]) for prompt in prompts if prompt.attempt_index in answers]
        (group,) = grouped((question,), (prompt_ids,), outcomes)
        refuse_broken_environment((group,), config.rollout.max_set_aside_share)

        # 2. Learn from what was said of the failures. Nothing is learned after a solution.
        num_rows = 0
        if strategy.learns and not any(attempt.verdict.is_solved for attempt in group.attempts):
            num_rows = _learn(group, config, strategy, search, parts, log, seed)

        # 3. Keep the step, and only then count it.
        step = Step(number=number, seconds=time.monotonic() - began, attempts=tried(answers), learned_rows=num_rows)
        folder.add(step, learner if strategy.learns and number % config.keep_every == 0 else None)
        search.absorb(step)
        log.told(search)
    return search, ending


def _answers(
    task: Task,
    prompts: Sequence[Prompt],
    config: SearchConfig,
    sampler: Sampler,
    log: SearchLog,
    search: Search,
    began: float,
    stop_at_once: bool,
) -> dict[int, Attempt | SetAside]:
    """By the attempt's place in the step; without those that were under way when it was cut short."""
    answers: dict[int, Attempt | SetAside] = {}
    sampling = config.sampling.drawn()
    for prompt, answer in attempts((task,), prompts, sampler, sampling, log):
        answers[prompt.attempt_index] = answer
        is_solved = isinstance(answer, Attempt) and answer.verdict.is_solved
        if (stop_at_once and is_solved) or _is_late(config, search, began):
            break  # the engine forgets the rest
    return answers


def _learn(
    group: Group, config: SearchConfig, strategy: Strategy, search: Search, parts: Parts, log: SearchLog, seed: int
) -> int:
    """One step of SDPO on the group. Returns how many of its attempts had something to teach."""
    hints = strategy.hints(
        group, config.algorithm.hindsight, f"{seed}/{search.num_steps + 1}", search.successes.of(group.task.id)
    )
    assert hints is not None, "a strategy that learns has hints"
    if not any(hints):
        log.warn(f"step {search.num_steps + 1}: the environment said nothing of any failure, so there was nothing to learn from")
    log.phase("learn")
    samples = training_samples((group,), (hints,), parts.sampler.renderer, config.algorithm, config.sampling.max_response_tokens)
    updates = pack(samples, config.batch, parts.learner.ranks, config.algorithm)
    parts.learner.keep_old_logprobs(updates)
    for update in in_epochs(updates, config.learner.num_epochs, f"{seed}/{search.num_steps}"):
        parts.learner.update(update, config.algorithm)
    parts.learner.finish_step()
    return sum(update.num_learned_rows for update in updates)


def _is_late(config: SearchConfig, search: Search, began: float) -> bool:
    limit = config.budget.seconds
    return limit is not None and search.spent.seconds + time.monotonic() - began >= limit
