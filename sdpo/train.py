"""The algorithm, and nothing else. Every step of the paper (arXiv 2601.20802, section 2) can be pointed at here.

Shapes: P tasks a step, G attempts a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sdpo.attempts.survey import Survey
from sdpo.batches.samples import shown_hints, training_samples
from sdpo.batches.updates import in_epochs, pack
from sdpo.config import Config, OnLowLift, SDPOConfig
from sdpo.errors import UserError
from sdpo.evaluation.constants import best_constants
from sdpo.evaluation.heldout import evaluate, heldout_survey
from sdpo.evaluation.lift import low_lift, teacher_lift
from sdpo.guards.fold import Guards
from sdpo.hindsight.hindsight import Hindsight
from sdpo.hindsight.hints import no_reference
from sdpo.hindsight.success_buffer import NOTHING_REMEMBERED, SuccessBuffer
from sdpo.protocols import Engine, Learner, Report, Rollouts, Sampler
from sdpo.types import Lift, Task


def train(
    run: Config,
    rollouts: Rollouts,
    heldout: tuple[Task, ...],
    sampler: Sampler,
    learner: Learner,
    report: Report,
    checkpoints: Path,
    guards: Guards,
    references: Callable[[Task], str | None] = no_reference,
    successes: SuccessBuffer = NOTHING_REMEMBERED,
) -> None:
    """Self-Distillation Policy Optimization, and GRPO beside it. The student answers; the same model, shown a solved sibling
    or the feedback, scores each answer again; the student moves towards it. The student samples all that is learned from."""
    engine, survey = sampler.engine, heldout_survey(run, sampler, heldout)
    hindsight = Hindsight(run=run, references=references, successes=successes)
    engine.load(learner.weights(), version=learner.step)
    if learner.step == 0:
        _evaluated(0, run, rollouts, survey, learner, report)
    if report.should_stop:
        return
    for step in range(learner.step, run.num_steps):
        with report.step(step + 1) as log:
            # 1. G attempts at each of P tasks, sampled by the engine and verified as each ended (asking.py, generation.py).
            log.phase("generate")
            groups_P = rollouts.of(step, log)

            # 2. Hindsight: what would have helped? No solved sibling and no feedback means no sample.
            log.phase("hindsight")
            hints_P_G = [hindsight.hints(group, step) for group in groups_P]
            successes.remember(groups_P)
            algorithm = guards.algorithm  # the run's; an alarm may have raised its share of policy gradient
            samples = training_samples(groups_P, hints_P_G, sampler.renderer, algorithm, run.sampling.max_response_tokens)
            log.groups(groups_P, shown_hints(hints_P_G, samples))
            updates = pack(samples, run.batch, learner.ranks, algorithm)

            # 3. Learn. The loss is a sum over tokens divided by one global count, so neither the size of a micro-batch
            #    nor the number of ranks changes the gradient.
            log.phase("learn")
            learner.keep_old_logprobs(updates)
            for update in in_epochs(updates, run.learner.num_epochs, f"{run.seed}/{step}"):
                log.update(learner.update(update, algorithm))  # no sample: a counted no-op, not a step of momentum
            log.phase("record")
            log.credit(samples, learner.credit())  # which tokens of some attempts hindsight would have changed

            # 4. The teacher follows slowly; the engine at once.
            log.phase("sync")
            learner.finish_step(follow=guards.teacher_follows)
            engine.load(learner.weights(), version=learner.step)

        # 5. Evaluate, answer what the numbers say, and keep.
        score = None
        if run.evaluation.is_due(step + 1, run.num_steps):
            score = _evaluated(step + 1, run, rollouts, survey, learner, report)
        if guards.last_refresh == step + 1:
            learner.refresh_teacher()
        is_last = report.should_stop
        if guards.may_save and (run.checkpoint.is_due(step + 1, run.num_steps) or is_last):
            with report.saving(step + 1):
                learner.save(checkpoints / f"step_{step + 1:06d}", score=score)
            is_last = report.should_stop  # asked for meanwhile: all that was done is kept
        if is_last:
            return


def _evaluated(step: int, run: Config, rollouts: Rollouts, survey: Survey, learner: Learner, report: Report) -> float | None:
    """Success on held-out tasks after ``step`` steps, and where it is due how much better the teacher answers."""
    if not survey.tasks_P:
        return None
    with report.evaluating(step) as log:
        evaluation = evaluate(survey, log)
        if run.evaluation.asks_for_constants(step, run.num_steps):
            constants = best_constants(evaluation.groups, survey.sampler.verifier, num=run.evaluation.num_constants)
            evaluation = replace(evaluation, metrics={**evaluation.metrics, **constants})
        lift = None
        if run.hindsight_answered is not None and run.evaluation.asks_for_lift(step, run.num_steps):
            with _teacher_in(survey.sampler.engine, learner, rollouts):
                lift = teacher_lift(survey, evaluation, run.hindsight_answered, log)
        report.evaluation(step, evaluation, lift)
    if step == 0 and lift is not None:
        _heed(lift, run, report)
    return evaluation.metrics["heldout/success"]


@contextmanager
def _teacher_in(engine: Engine, learner: Learner, rollouts: Rollouts) -> Iterator[None]:
    """Give the engine the teacher's weights where they are not the policy's, and the policy's again afterwards. The student
    samples all that is learned from: until then no training batch is asked for, and none is under way."""
    weights = learner.teacher_weights()
    if weights is None:
        yield
        return
    with rollouts.paused():
        engine.load(weights, version=learner.step)
        del weights  # and with it their copy
        try:
            yield
        except Exception:  # not for a KeyboardInterrupt, which ends the engines and shall not wait for what they are sampling
            engine.load(learner.weights(), version=learner.step)
            raise
        engine.load(learner.weights(), version=learner.step)


def _heed(lift: Lift, run: Config, report: Report) -> None:
    """Raises UserError where a run shall not begin without lift."""
    if not isinstance(run.algorithm, SDPOConfig) or run.algorithm.on_low_lift is OnLowLift.ignore:
        return
    sentence = low_lift(lift, run.algorithm.min_lift)
    if sentence is None:
        return
    if run.algorithm.on_low_lift is OnLowLift.refuse:
        raise UserError(sentence)
    report.warn(sentence)
