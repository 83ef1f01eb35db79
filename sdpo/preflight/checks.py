"""Can this run work at all? Everything that can be known before an engine starts, checked in seconds.

Importing transformers (and torch with it) and rendering every task take most of them. Both are left out where ``proofs.py`` knows
that the run can work.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from heapq import nlargest
from pathlib import Path
from typing import TYPE_CHECKING

from sdpo.attempts.task_stream import task_order
from sdpo.batches.filters import token_filter
from sdpo.config import (
    AlgorithmConfig,
    Config,
    EnvConfig,
    FullSupport,
    HindsightConfig,
    HintChoice,
    ModelConfig,
    RolloutConfig,
    SamplingConfig,
    SDPOConfig,
    TopSupport,
)
from sdpo.envs import listing, registry
from sdpo.envs.base import Conversational, Environment, HasReference, TakesTime
from sdpo.envs.judging import reference_of, told
from sdpo.errors import UserError
from sdpo.hindsight.hints import hint_of, no_reference
from sdpo.hindsight.rendering import ChatRenderer
from sdpo.hindsight.sources import source
from sdpo.objectives.advantage import advantage_of
from sdpo.plugins.seams import ADVANTAGES, DIVERGENCES, HINDSIGHT_LOSSES, POLICY_LOSSES, WEIGHT_SYNCS
from sdpo.preflight.model_traits import refuse_endless, refuse_no_causal_lm, refuse_odd_targets, refuse_tokens_without_rows
from sdpo.preflight.models import resolve
from sdpo.preflight.proofs import Claim
from sdpo.types import Hint, Task, Tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WAITING = 12
"""Waiting may take so much longer than computing: a disk that stalls must not end a run that is started again."""
MOST_RENDERED = 20_000
"""Tasks whose prompts are tokenised before a run starts: of more, the longest ones, and others evenly spread."""
HELDOUT_SEED = 0
"""Seed of the held-out tasks: they are the same whatever the run's seed, so that runs can be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a run needs, found and checked."""

    model_path: str
    teacher_path: str | None
    """Folder or hub id of an external teacher; None where there is none."""
    environment: Environment
    train: Tasks
    heldout: tuple[Task, ...]
    make_renderer: Callable[[], ChatRenderer]
    """Always the same one; made when it is first asked for, because that takes seconds."""
    references: Callable[[Task], str | None]
    """The environment's own answers, where hindsight shows them; elsewhere none."""

    @property
    def renderer(self) -> ChatRenderer:
        return self.make_renderer()


def check_training(config: Config, run_path: Path, say: Callable[[str], None]) -> Ready:
    """Find and check everything. Raises UserError with the field, the value and the remedy."""
    check_named(config.algorithm, config.rollout)
    environment, train, heldout = check_environment(config)
    _check_order(config, len(train))
    if config.sampling.max_turns == 1 and isinstance(environment, Conversational):
        say(
            f"Environment {environment.name!r} replies between turns, but sampling.max_turns=1 leaves the policy only one: its "
            "reply() is never called. Set sampling.max_turns to 2 or more, if that is not meant."
        )
    references = references_of(environment, config.algorithm)
    for task in train:
        references(task)
    model_path = resolve(config.model.path, say)
    teacher_path = None
    teacher, hints = config.algorithm.taught_by, config.algorithm.hints
    if teacher is not None and teacher.other_model is not None:
        teacher_path = resolve(teacher.other_model, say)
    hindsight_tokens = 0 if hints is None else hints.max_prompt_tokens

    claim = _claim(config, model_path, teacher_path, (*train, *heldout))
    proved = None if claim is None else claim.tokenizer_class()

    @cache
    def renderer() -> ChatRenderer:
        if proved is None:
            return model_and_renderer(config.model, config.sampling, hindsight_tokens, say)[1]
        module, _, name = proved.partition(":")
        tokenizer = getattr(importlib.import_module(module), name).from_pretrained(model_path)
        return _renderer(tokenizer, config.model, config.sampling, hindsight_tokens)

    if proved is None:
        _check_model(config, renderer(), model_path, teacher_path)
        refuse_long_prompts(renderer(), (*train, *heldout), hints)
        if claim is not None:
            found = type(renderer().tokenizer)
            claim.remember(f"{found.__module__}:{found.__qualname__}")
    _check_disk(config, model_path, run_path)
    return Ready(
        model_path=model_path,
        teacher_path=teacher_path,
        environment=environment,
        train=train,
        heldout=first(heldout, config.evaluation.num_tasks),
        make_renderer=renderer,
        references=references,
    )


def check_named(algorithm: AlgorithmConfig, rollout: RolloutConfig) -> None:
    """Raises UserError where what the config names from outside cannot be had, before anything is started."""
    try:
        token_filter(algorithm.filter)
        if rollout.weight_sync not in WEIGHT_SYNCS.built_in:
            WEIGHT_SYNCS.load(rollout.weight_sync)
        if isinstance(algorithm, SDPOConfig):
            for name in algorithm.hindsight.sources:
                source(name)
            if algorithm.divergence not in DIVERGENCES.built_in:
                _check_divergence(algorithm)
        _check_losses(algorithm)
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_order(config: Config, num_tasks: int) -> None:
    """Raises UserError where the task order that the config names cannot be made."""
    try:
        task_order(config.batch.order, num_tasks, config.seed)
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_divergence(algorithm: SDPOConfig) -> None:
    from sdpo.objectives.divergence import divergence_of  # torch, which a run without a divergence of its own need not wait for

    found = divergence_of(algorithm)
    is_whole = isinstance(algorithm.support, FullSupport) and algorithm.pointwise_clip is None  # a clamped one needs no read
    if is_whole and not hasattr(found, "read"):
        raise ValueError(
            f"algorithm.support.kind=full needs a divergence with its gradient (sdpo.objectives.divergence.WholeRows); "
            f"{algorithm.divergence!r} has no read. Set algorithm.support.kind=student or teacher."
        )


def _check_losses(algorithm: AlgorithmConfig) -> None:
    named = algorithm.policy_gradient
    if named.advantage not in ADVANTAGES.built_in:
        advantage_of(named)
    if named.loss not in POLICY_LOSSES.built_in:
        from sdpo.objectives.policy_gradient import policy_loss_of  # torch, likewise

        policy_loss_of(named)
    if isinstance(algorithm, SDPOConfig) and algorithm.loss not in HINDSIGHT_LOSSES.built_in:
        from sdpo.objectives.hindsight_losses import hindsight_loss_of

        hindsight_loss_of(algorithm)


def refuse_long_prompts(renderer: ChatRenderer, tasks: Sequence[Task], hints: HindsightConfig | None) -> None:
    """Raises UserError where a prompt does not fit, or, with ``hints``, a hindsight prompt without anything of its hint."""
    shown = () if hints is None else tuple(_least_hints(hints.choice))
    for task in _longest_and_others(tasks):
        renderer.prompt(task)
        for hint in shown:
            if renderer.hindsight_prompt(task, hint) is None:
                raise UserError(
                    "algorithm.hindsight.max_prompt_tokens must hold the question, the closing instruction and some of a hint "
                    f"(without one nothing is distilled); for task {task.id!r} the limit of {renderer.max_hindsight_tokens} "
                    f"tokens leaves no room for {' and '.join(hint.names)}. Raise it."
                )


def _least_hints(choice: HintChoice) -> Iterator[Hint]:
    """The shortest hint of each kind that is shown."""
    if choice is not HintChoice.feedback_only and choice is not HintChoice.none:
        yield hint_of(demonstration=".")
    if choice not in (HintChoice.demonstration_only, HintChoice.reference):
        yield hint_of(feedback=".")


def _longest_and_others(tasks: Sequence[Task]) -> Sequence[Task]:
    """All tasks, or of very many ``MOST_RENDERED``: half of them those with the most characters."""
    if len(tasks) <= MOST_RENDERED:
        return tasks
    longest = nlargest(MOST_RENDERED // 2, tasks, key=lambda task: sum(len(message.content) for message in task.messages))
    return (*longest, *tasks[:: -(-len(tasks) // (MOST_RENDERED // 2))])


def _claim(config: Config, model_path: str, teacher_path: str | None, tasks: Sequence[Task]) -> Claim | None:
    """The claim that these models go together and have room for these tasks; None where a model's files are not at hand."""
    algorithm = config.algorithm
    facts: list[object] = [config.model, config.sampling, config.learner.sequence_parallel, config.learner.lora]
    if isinstance(algorithm, SDPOConfig):
        facts += [algorithm.hindsight, algorithm.support]
    claim = Claim(*facts)
    for path in (model_path, teacher_path):
        if path is not None and not Path(path).is_dir():
            return None
        if path is not None:
            claim.about_files(Path(path))
    claim.about_tasks(tasks)
    return claim


def _check_model(config: Config, renderer: ChatRenderer, model_path: str, teacher_path: str | None) -> None:
    """Check the models for all but the lengths, which were checked when ``renderer`` was made. Raises UserError."""
    if isinstance(config.algorithm, SDPOConfig):
        check_support(config.algorithm, model_path)
        if teacher_path is not None:
            _check_external_teacher(teacher_path, model_path)
    _check_heads(config, model_path)
    refuse_odd_targets(config.learner.lora, model_path)


def check_environment(config: Config) -> tuple[Environment, Tasks, Tasks]:
    """The environment with its training and held-out tasks, which share none."""
    environment = make_environment(config.env)
    refuse_silence(environment, config.sampling.max_turns)
    references_of(environment, config.algorithm)
    splits = splits_of(environment, config.env, config.seed)
    refuse_long_verdicts(environment, config.env, config.rollout)
    return environment, *splits


def make_environment(config: EnvConfig) -> Environment:
    """The environment that is named. Raises UserError where it cannot be made with these options."""
    try:
        return registry.make(config.name, config.options)
    except ValueError as error:
        raise UserError(f"env.name={config.name}: {error}") from error


def refuse_silence(environment: Environment, max_turns: int) -> None:
    """Raises UserError where several turns are asked for of an environment that never replies."""
    if max_turns > 1 and not isinstance(environment, Conversational):
        raise UserError(
            f"sampling.max_turns above 1 needs an environment that replies between turns; {environment.name!r} has no methods "
            f"reply and judge, and max_turns is {max_turns}. Set it to 1 or add the methods (docs/environments.md)."
        )


def refuse_long_verdicts(environment: Environment, env: EnvConfig, rollout: RolloutConfig) -> None:
    """Raises UserError where a verdict may take as long as its verifier waits: a slow answer would be the environment's fault."""
    timeout_s = registry.timeout_s(env.name, env.options)
    try:
        longest_s = environment.longest_verdict_s if isinstance(environment, TakesTime) else timeout_s
    except ValueError as error:
        raise UserError(f"env.name={env.name}: {error}") from error
    if longest_s is None or longest_s < rollout.verify_timeout_s:
        return
    cause = f"one of {environment.name!r} can take {longest_s:g} s"
    if timeout_s is not None and timeout_s != longest_s:
        cause += f" (env.options.timeout_s={timeout_s:g} bounds one execution, and an answer has up to {longest_s / timeout_s:g})"
    elif timeout_s is not None:
        cause = f"env.options.timeout_s={timeout_s:g} is no less"
    raise UserError(
        "rollout.verify_timeout_s must be longer than a verdict can take (else a slow answer counts as the environment's fault "
        f"and not as a failure); it is {rollout.verify_timeout_s:g} s, and {cause}. Set rollout.verify_timeout_s above "
        f"{longest_s:g}, or lower env.options.timeout_s."
    )


def references_of(environment: Environment, algorithm: AlgorithmConfig) -> Callable[[Task], str | None]:
    """A function from a task to the environment's own answer, if hindsight shows that; else to None.

    Raises UserError where the environment cannot say: at once, or when the function is called.
    """
    if algorithm.hints is None or algorithm.hints.choice is not HintChoice.reference:
        return no_reference
    if not isinstance(environment, HasReference):
        raise UserError(
            f"algorithm.hindsight.choice=reference shows the environment's own answers; {environment.name!r} has no method "
            "reference(task). Add it (docs/environments.md), or set choice=demonstration_first."
        )
    answers: HasReference = environment

    def reference(task: Task) -> str | None:
        try:
            return reference_of(answers, task)
        except Exception as failure:  # an environment may raise anything; every training task is asked before the run begins
            raise UserError(
                f"algorithm.hindsight.choice=reference needs an answer to every training task; reference() of task {task.id!r} "
                f"raised {told(failure)}. Mend the environment, or set choice=demonstration_first."
            ) from failure

    return reference


def tasks_of(environment: Environment, env: EnvConfig, split: str, seed: int) -> Tasks:
    """The tasks of a split. Raises UserError for an empty or unknown one, and for one that never comes."""
    limit = listing.Limit(computing_s=env.tasks_limit_s, waiting_s=_WAITING * env.tasks_limit_s, option="env.tasks_limit_s")
    try:
        tasks = listing.listed(environment, split, seed, limit)
    except listing.Endless as endless:
        raise UserError(str(endless)) from None
    except ValueError as error:
        raise UserError(
            f"the environment {environment.name!r} must have tasks of the split {split!r} (env.train_split, env.heldout_split); "
            f"it says: {error}"
        ) from error
    if len(tasks) == 0:
        raise UserError(f"a split needs a task; {split!r} of environment {environment.name!r} has none.")
    return tasks


def first(tasks: Tasks, num: int) -> tuple[Task, ...]:
    """The first ``num``, or as many as there are."""
    return tuple(tasks[index] for index in range(min(num, len(tasks))))


def splits_of(environment: Environment, config: EnvConfig, seed: int) -> tuple[Tasks, Tasks]:
    """The training and the held-out tasks. Raises UserError for an empty or unknown split, and where the two share a task."""
    train = tasks_of(environment, config, config.train_split, seed)
    heldout = tasks_of(environment, config, config.heldout_split, HELDOUT_SEED)
    refuse_overlap(environment, train, heldout)
    return train, heldout


def refuse_overlap(environment: Environment, train: Tasks, heldout: Tasks) -> None:
    """Raises UserError where a held-out task is in training too: evaluations would measure what was learned by heart."""
    by_id = {task.id: task for task in heldout}
    by_messages = {task.messages: task for task in heldout}
    for task in train:
        same = by_id.get(task.id) or by_messages.get(task.messages)
        if same is not None:
            shared = f"has the id {task.id!r} in both splits"
            if same.id != task.id:
                shared = f"asks in training task {task.id!r} what held-out task {same.id!r} asks"
            raise UserError(
                f"held-out tasks must not appear in training; environment {environment.name!r} {shared}. "
                "Mend the environment's tasks(), or name other splits (env.train_split, env.heldout_split)."
            )


def model_and_renderer(
    model: ModelConfig, sampling: SamplingConfig, hindsight_tokens: int, say: Callable[[str], None]
) -> tuple[str, ChatRenderer]:
    """The model's folder or hub id, and the renderer of its chat template. Raises UserError where the lengths do not fit."""
    from transformers import AutoConfig, AutoTokenizer

    path = resolve(model.path, say)
    try:
        settings = AutoConfig.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.path must be a Hugging Face causal LM that transformers can read; {path!r} is not: "
            f"{str(error).splitlines()[0]}. Check the path, or your access to the hub."
        ) from error
    if tokenizer.chat_template is None:
        raise UserError(
            f"model.path must have a chat template (tasks are conversations); {path!r} has none. Use an instruct model."
        )
    refuse_no_causal_lm(settings, path)
    refuse_tokens_without_rows(tokenizer, settings, path)
    refuse_endless(tokenizer, path)
    prompt_tokens = max(sampling.max_prompt_tokens, hindsight_tokens)
    longest = prompt_tokens + sampling.max_response_tokens
    limit = getattr(settings.get_text_config(), "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise UserError(
            "prompt and response must fit into the model's context; the longest prompt (sampling.max_prompt_tokens="
            f"{sampling.max_prompt_tokens}, algorithm.hindsight.max_prompt_tokens={hindsight_tokens}) and "
            f"sampling.max_response_tokens={sampling.max_response_tokens} make {longest} tokens, and {model.name} has {limit}. "
            "Lower them."
        )
    return path, _renderer(tokenizer, model, sampling, hindsight_tokens)


def _renderer(
    tokenizer: PreTrainedTokenizerBase, model: ModelConfig, sampling: SamplingConfig, hindsight_tokens: int
) -> ChatRenderer:
    return ChatRenderer(
        tokenizer=tokenizer,
        chat_template_options=model.chat_template_options,
        max_prompt_tokens=sampling.max_prompt_tokens,
        max_hindsight_tokens=hindsight_tokens,
    )


def check_support(algorithm: SDPOConfig, model_path: str) -> None:
    """Raises UserError where the vocabulary has no room for the support."""
    from transformers import AutoConfig

    vocabulary = AutoConfig.from_pretrained(model_path).get_text_config().vocab_size
    if isinstance(algorithm.support, TopSupport) and algorithm.support.num_ids > vocabulary:
        raise UserError(
            f"algorithm.support.num_ids (K) must not exceed the vocabulary; got {algorithm.support.num_ids}, and the model has "
            f"{vocabulary} tokens. Lower it, or set algorithm.support.kind=full."
        )


def _check_external_teacher(found: str, model_path: str) -> None:
    """Raises UserError unless the external teacher reads and writes the very same tokens."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        student, teacher = AutoTokenizer.from_pretrained(model_path), AutoTokenizer.from_pretrained(found)
        rows_student, rows_teacher = (AutoConfig.from_pretrained(p).get_text_config().vocab_size for p in (model_path, found))
    except (OSError, ValueError) as error:
        raise UserError(
            f"algorithm.teacher.path must be a Hugging Face causal LM that transformers can read; {found!r} is not: "
            f"{str(error).splitlines()[0]}"
        ) from error
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours != theirs or rows_teacher < rows_student:
        differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
        example = f"; {differing[0]!r} is {ours.get(differing[0])} here and {theirs.get(differing[0])} there" if differing else ""
        raise UserError(
            "an external teacher must have the policy's vocabulary (both score the same token ids); the policy has "
            f"{len(ours)} tokens in {rows_student} rows, {found} has {len(theirs)} in {rows_teacher}{example}. Choose a teacher "
            "of the same model family."
        )


def _check_heads(config: Config, model_path: str) -> None:
    """Raises UserError where the ranks that share a row cannot divide the attention heads among them (Ulysses)."""
    from transformers import AutoConfig

    size, heads = config.learner.sequence_parallel, AutoConfig.from_pretrained(model_path).get_text_config().num_attention_heads
    if heads % size:
        raise UserError(
            "learner.sequence_parallel must divide the model's attention heads (each rank takes some); got "
            f"{size}, and the model has {heads}."
        )


def _check_disk(config: Config, model_path: str, run_path: Path) -> None:
    """Raises UserError without room for all checkpoints that will be there at once: the kept ones and the one being written."""
    weights = [file.stat().st_size for file in Path(model_path).glob("*.safetensors")] if Path(model_path).is_dir() else []
    # Bytes a bf16 parameter: 2 for the plain copy; for what is trained also fp32 master, two moments and the average.
    trained = 0 if config.learner.lora.rank else 4 + 8 + 4
    keep_best = config.checkpoint.keep_best if config.evaluation.num_tasks and config.evaluation.every else 0
    needed = (config.checkpoint.keep + keep_best + 1) * sum(weights) * (2 + trained) // 2
    needed -= sum(file.stat().st_size for file in run_path.glob("checkpoints/**/*") if file.is_file())
    parent = next(folder for folder in (run_path, *run_path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise UserError(
            f"the checkpoints of this run (checkpoint.keep={config.checkpoint.keep}, keep_best={keep_best}, and one being "
            f"written) need about {needed / 2**30:.1f} GiB; {parent} has {free / 2**30:.1f} GiB free. Free some, lower "
            "checkpoint.keep, or set runs_dir to another disk."
        )
