"""The algorithm, and nothing else. Every step of the paper (arXiv 2601.20802, section 2) can be pointed at here.

Shapes: P tasks a step, G attempts a task.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sdpo.batching import pack
from sdpo.config import Config, SDPOConfig
from sdpo.conversation import attempts
from sdpo.evaluation import evaluate, refuse_broken_environment
from sdpo.grouping import asked, grouped
from sdpo.hindsight import choose_hints, no_reference
from sdpo.lessons import lessons
from sdpo.protocols import Engine, Learner, Renderer, Report, Verifier
from sdpo.success_buffer import NOTHING_REMEMBERED, SuccessBuffer
from sdpo.task_stream import TaskStream
from sdpo.types import Group, Hint, Sampling, Task


def train(
    run: Config,
    tasks: TaskStream,
    heldout: tuple[Task, ...],
    engine: Engine,
    verifier: Verifier,
    renderer: Renderer,
    learner: Learner,
    report: Report,
    checkpoints: Path,
    references: Callable[[Task], str | None] = no_reference,
    successes: SuccessBuffer = NOTHING_REMEMBERED,
) -> None:
    """Self-Distillation Policy Optimization, and GRPO beside it. The student answers; the same model, shown a solved sibling
    or the feedback, scores each answer again; the student moves towards it. The teacher never samples."""
    engine.load(learner.weights(), version=learner.step)
    if learner.step == 0:
        _look(0, run, heldout, engine, verifier, renderer, report)
    if report.should_stop:
        return
    sampling = Sampling(
        temperature=run.sampling.temperature,
        top_p=1.0,
        max_response_tokens=run.sampling.max_response_tokens,
        max_turns=run.sampling.max_turns,
    )
    for step in range(learner.step, run.num_steps):
        with report.step(step + 1) as log:
            # 1. Sample G attempts at each of P tasks, and have each verified as it ends.
            log.phase("generate")
            tasks_P = tasks.batch(step, run.batch.num_tasks)  # a pure function of (seed, step)
            prompts_P = tuple(renderer.prompt(task) for task in tasks_P)
            prompts = asked(prompts_P, run.batch.group_size, f"{run.seed}/{step}")
            verified = attempts(tasks_P, prompts, engine, verifier, renderer, sampling, log.watch)
            groups_P = grouped(tasks_P, prompts_P, verified)
            refuse_broken_environment(groups_P, run.rollout.max_set_aside_share)

            # 2. Hindsight: what would have helped? No solved sibling and no feedback means no lesson.
            log.phase("hindsight")
            hints_P_G = [_hints(group, run, step, references, successes) for group in groups_P]
            successes.remember(groups_P)
            log.groups(groups_P, hints_P_G)
            samples = lessons(groups_P, hints_P_G, renderer, run.algorithm, run.sampling.max_response_tokens)
            updates = pack(samples, run.batch, learner.ranks, run.algorithm)

            # 3. Learn. The loss is a sum over tokens divided by one global count, so neither the size of a micro-batch
            #    nor the number of ranks changes the gradient.
            log.phase("learn")
            learner.anchor(updates)
            for update in updates:
                log.update(learner.update(update, run.algorithm))  # no lesson: a counted no-op, not a step of momentum

            # 4. The teacher follows slowly; the engine at once.
            log.phase("sync")
            learner.finish_step()
            engine.load(learner.weights(), version=learner.step)

        # 5. Look, and keep.
        score = None
        if run.evaluation.is_due(step + 1, run.num_steps):
            score = _look(step + 1, run, heldout, engine, verifier, renderer, report)
        is_last = report.should_stop
        if run.checkpoint.is_due(step + 1, run.num_steps) or is_last:
            with report.saving(step + 1):
                learner.save(checkpoints / f"step_{step + 1:06d}", score=score)
        if is_last:
            return


def _hints(
    group: Group, run: Config, step: int, references: Callable[[Task], str | None], successes: SuccessBuffer
) -> tuple[Hint | None, ...]:
    """GRPO learns without hindsight."""
    if not isinstance(run.algorithm, SDPOConfig):
        return (None,) * len(group.attempts)
    reference, remembered = references(group.task), successes.of(group.task.id)
    return choose_hints(group, run.algorithm.hindsight, f"{run.seed}/{step}", reference=reference, remembered=remembered)


def _look(
    step: int,
    run: Config,
    heldout: tuple[Task, ...],
    engine: Engine,
    verifier: Verifier,
    renderer: Renderer,
    report: Report,
) -> float | None:
    """Success on held-out tasks, after ``step`` steps."""
    if not heldout:
        return None
    sampling = Sampling(
        temperature=run.evaluation.temperature,
        top_p=run.evaluation.top_p,
        max_response_tokens=run.sampling.max_response_tokens,
        max_turns=run.sampling.max_turns,
    )
    with report.looking(step) as log:
        evaluation = evaluate(
            engine,
            verifier,
            renderer,
            heldout,
            num_attempts=run.evaluation.num_attempts,
            sampling=sampling,
            seed=run.seed,
            max_set_aside_share=run.rollout.max_set_aside_share,
            log=log,
        )
        report.evaluation(step, evaluation)
    return evaluation.metrics["heldout/success"]
