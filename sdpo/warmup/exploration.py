"""What is known of a training task: which answers are right, and what the environment says of those that are wrong?

Answers come from the model's own attempts and, where the environment has one, from the task's reference. Failures come from the
same attempts and from edits of the reference. Nothing counts that the environment has not judged.

Shapes: P tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sdpo.attempts.groups import grouped, refuse_broken_environment
from sdpo.attempts.survey import Survey
from sdpo.envs.answers import without_thinking
from sdpo.envs.base import Environment, HasReference
from sdpo.envs.judging import reference_of, told
from sdpo.errors import UserError
from sdpo.protocols import Watcher
from sdpo.types import Attempt, Completion, Finish, Group, Prompt, Task
from sdpo.warmup.perturbation import perturbed
from sdpo.warmup.writing import Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A right answer."""

    text: str
    """Thinking removed: as a demonstration shows it."""
    token_ids: tuple[int, ...] | None
    """As the policy wrote it or would write it, its turn ended. None where it cannot be learned: it was cut off or is longer
    than a response may be."""
    is_own: bool
    """The model's, not the environment's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What the environment said of a wrong answer."""

    feedback: str
    is_own: bool
    """Said of the model's attempt, not of an edited reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """A training task, and what is known of it."""

    group: Group
    """The model's own attempts."""
    answers: tuple[Answer, ...]
    """All different."""
    failures: tuple[Failure, ...]
    """All different."""


def explore(survey: Survey, environment: Environment, writer: Writer, num_edits: int, log: Watcher) -> tuple[Explored, ...]:
    """[P] with the engine's present weights. Raises UserError where verification breaks too often."""
    log.phase("generate")
    tasks_P = survey.tasks_P
    own_P = survey.groups("warmup", log)
    written = list(_written(tasks_P, environment, writer, num_edits, survey.seed))
    judged = survey.sampler.verifier.verify(tasks_P, log.watch(written, len(written)))
    judged_P = grouped(tasks_P, [group.prompt_ids for group in own_P], judged)
    refuse_broken_environment(judged_P, survey.max_set_aside_share)
    references = {prompt.task_index: completion.text for prompt, completion in written if prompt.attempt_index == 0}
    return tuple(
        _explored(own, judged, references.get(index), survey.sampling.max_response_tokens)
        for index, (own, judged) in enumerate(zip(own_P, judged_P, strict=True))
    )


def _written(
    tasks_P: Sequence[Task], environment: Environment, writer: Writer, num_edits: int, seed: int
) -> Iterator[tuple[Prompt, Completion]]:
    """Each task's reference, and then its edits; nothing where the environment has none."""
    if not isinstance(environment, HasReference):
        return
    for task_index, task in enumerate(tasks_P):
        try:
            reference = reference_of(environment, task)
        except Exception as error:
            raise UserError(
                f"reference(task) must answer every training task; environment {environment.name!r} raised, for {task.id!r}, "
                f"{told(error)}"
            ) from error
        texts = (reference, *perturbed(reference, num_edits, f"{seed}/{task.id}"))
        for index, text in enumerate(texts):
            prompt = Prompt(token_ids=(), seed=0, task_index=task_index, attempt_index=index)
            yield prompt, writer.completion(text)


def _explored(own: Group, judged: Group, reference: str | None, max_response_tokens: int) -> Explored:
    answers: dict[str, Answer] = {}
    failures: dict[str, Failure] = {}
    for attempt, is_own in (*((attempt, True) for attempt in own.attempts), *((attempt, False) for attempt in judged.attempts)):
        is_edit = not is_own and attempt.completion.text != reference
        feedback = (attempt.verdict.feedback or "").strip()
        if not attempt.verdict.is_solved:
            if feedback and (is_own or is_edit):
                failures.setdefault(feedback, Failure(feedback=feedback, is_own=is_own))
            continue
        answer = _answer(attempt, is_own, max_response_tokens)
        known = answers.get(answer.text)
        if answer.text and not is_edit and (known is None or known.token_ids is None):
            answers[answer.text] = answer
    return Explored(group=own, answers=tuple(answers.values()), failures=tuple(failures.values()))


def _answer(attempt: Attempt, is_own: bool, max_response_tokens: int) -> Answer:
    completion = attempt.completion
    is_whole = completion.finish is Finish.stop and len(completion.token_ids) <= max_response_tokens
    return Answer(text=without_thinking(completion.text), token_ids=completion.token_ids if is_whole else None, is_own=is_own)
