"""What to change so that a step takes less time. A table of rules has for each share that is too large a config key to turn.

A rule looks at the median step (``phases.py``), the run's config and the machine that it is asked on. Its limit is where changing
the key begins to be worth the trouble, not where something is broken. ``[key]`` in a sentence becomes the config key with the
value it has, e.g. ``rollout.num_verifiers (now 2)``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from sdpo.report import evidence as on
from sdpo.report.evidence import LEARNING, Evidence, Share
from sdpo.report.phases import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that may take too long."""

    name: str
    limit: float
    """The share may be so large."""
    share: Share
    """None: it does not apply."""
    sentence: str
    """With ``{found}``, ``{limit}`` and keys in brackets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A rule that was broken."""

    rule: str
    keys: tuple[str, ...]
    found: float
    limit: float
    sentence: str


def advice(evidence: Evidence) -> tuple[Advice, ...]:
    """What the rules say, in the table's order."""
    given = []
    for rule in RULES:
        found = rule.share(evidence)
        if found is not None and found > rule.limit:
            keys = tuple(re.findall(r"\[([^]]+)\]", rule.sentence))
            said = re.sub(r"\[([^]]+)\]", partial(_with_value, evidence), rule.sentence)
            words = said.replace("{found}", f"{found:.1%}").replace("{limit}", f"{rule.limit:.0%}")
            given.append(Advice(rule=rule.name, keys=keys, found=found, limit=rule.limit, sentence=words))
    return tuple(given)


def _with_value(evidence: Evidence, match: re.Match[str]) -> str:
    key = match.group(1)
    return f"{key} (now {evidence.config[key]})" if key in evidence.config else key


RULES: tuple[Rule, ...] = (
    Rule(
        name="learner_bf16",
        limit=0.05,
        share=on.slow_bf16("learner.dtype", *LEARNING),
        sentence="Learning takes {found} of a step in bf16, which this machine multiplies in software: if the run was on"
        " it, set [learner.dtype] to float32.",
    ),
    Rule(
        name="engine_bf16",
        limit=0.05,
        share=on.slow_bf16("rollout.dtype", Phase.generate),
        sentence="Generation takes {found} of a step in bf16, which this machine multiplies in software: if the run was "
        "on it, set [rollout.dtype] to float32.",
    ),
    Rule(
        name="verification_tail",
        limit=0.10,
        share=on.part(Phase.verify, (Phase.generate, Phase.verify)),
        sentence="After the last completion, verdicts are waited for during {found} of the time of generation (over "
        "{limit}): raise [rollout.num_verifiers].",
    ),
    Rule(
        name="generation",
        limit=0.60,
        share=on.where(lambda seen: on.is_on_policy(seen) and not on.is_colocated(seen), on.of_step(Phase.generate)),
        sentence="Generation takes {found} of a step (over {limit}): raise [rollout.num_engines], or set "
        "[rollout.staleness] to 1, so that the next batch is generated beside learning.",
    ),
    Rule(
        name="generation_colocated",
        limit=0.60,
        share=on.where(on.is_colocated, on.of_step(Phase.generate)),
        sentence="Generation takes {found} of a step (over {limit}) with engines and learner on the same GPUs: raise "
        "[rollout.num_engines] and [rollout.gpu_memory_utilization].",
    ),
    Rule(
        name="waiting_for_engines",
        limit=0.20,
        share=on.where(lambda seen: not on.is_on_policy(seen), on.of_step(Phase.generate)),
        sentence="A step waits {found} of its time for a batch that was begun before it (over {limit}): the engines do "
        "not keep up; raise [rollout.num_engines].",
    ),
    Rule(
        name="queue",
        limit=0.0,
        share=on.where(lambda seen: seen.times.share(Phase.generate) > 0.30, on.waiting_attempts),
        sentence="{found} of a step's attempts wait until an engine has room for them: raise [rollout.max_num_seqs] or "
        "[rollout.num_engines].",
    ),
    Rule(
        name="eager",
        limit=0.40,
        share=on.where(
            lambda seen: seen.machine.has_gpu and seen.is_set("rollout.enforce_eager", True), on.of_step(Phase.generate)
        ),
        sentence="Generation takes {found} of a step (over {limit}) without captured graphs: set [rollout.enforce_eager]"
        " to false, which starts more slowly and then launches fewer kernels.",
    ),
    Rule(
        name="samples",
        limit=0.40,
        share=on.without_samples,
        sentence="{found} of a step (over {limit}) goes into attempts that nothing is learned from: choose tasks that "
        "are neither always nor never solved with [env.options], or have more attempts get a hint with "
        "[algorithm.hindsight.choice].",
    ),
    Rule(
        name="hindsight",
        limit=0.05,
        share=on.of_step(Phase.hindsight),
        sentence="Hints, rendering and packing take {found} of a step (over {limit}): shorter hindsight prompts are "
        "quicker to render; lower [algorithm.hindsight.max_prompt_tokens].",
    ),
    Rule(
        name="teacher",
        limit=0.50,
        share=on.part(Phase.teacher, (Phase.teacher, Phase.student)),
        sentence="The teacher's forward passes take {found} of teacher and student together (over {limit}), so hindsight"
        " prompts are long: lower [algorithm.hindsight.max_prompt_tokens], or set [algorithm.teacher.offload] to false if"
        " it is true.",
    ),
    Rule(
        name="small_passes",
        limit=0.30,
        share=on.small_passes,
        sentence="Learning takes {found} of a step (over {limit}) in many small forward passes: raise "
        "[batch.micro_batch_tokens] as far as memory allows (the gradient stays the same).",
    ),
    Rule(
        name="recomputation",
        limit=0.40,
        share=on.where(lambda seen: seen.is_set("learner.gradient_checkpointing", True), on.of_step(Phase.student)),
        sentence="The student's passes take {found} of a step (over {limit}), and every layer is computed twice: where "
        "memory allows, set [learner.gradient_checkpointing] to false.",
    ),
    Rule(
        name="learning",
        limit=0.60,
        share=on.of_step(*LEARNING),
        sentence="Learning takes {found} of a step (over {limit}): on more GPUs raise [learner.num_ranks], which share "
        "the rows out.",
    ),
    Rule(
        name="optimizer_offloaded",
        limit=0.20,
        share=on.where(on.is_offloaded, on.of_step(Phase.optimizer)),
        sentence="The optimizer takes {found} of a step (over {limit}) in the host's memory: set [learner.offload] to "
        "none if the GPU has room for its states, or raise [batch.tasks_per_update] for fewer updates.",
    ),
    Rule(
        name="optimizer_updates",
        limit=0.20,
        share=on.where(lambda seen: not on.is_offloaded(seen) and on.has_several_updates(seen), on.of_step(Phase.optimizer)),
        sentence="The optimizer takes {found} of a step (over {limit}) in several updates: raise "
        "[batch.tasks_per_update] for fewer of them.",
    ),
    Rule(
        name="optimizer",
        limit=0.20,
        share=on.where(lambda seen: not on.is_offloaded(seen) and not on.has_several_updates(seen), on.of_step(Phase.optimizer)),
        sentence="The optimizer takes {found} of a step (over {limit}) in a single update: raise [batch.num_tasks], so "
        "that it learns from more, share its states out with [learner.num_ranks] and [learner.zero_stage], or train "
        "adapters with [learner.lora.rank].",
    ),
    Rule(
        name="sync",
        limit=0.03,
        share=on.of_step(Phase.sync),
        sentence="The teacher's update and the weights' way to the engines take {found} of a step (over {limit}): raise "
        "[rollout.bucket_mib], so that they travel in fewer pieces, or [batch.num_tasks], so that a step does more "
        "between two syncs.",
    ),
    Rule(
        name="recording",
        limit=0.02,
        share=on.of_step(Phase.record),
        sentence="Recording takes {found} of a step (over {limit}): lower [tracking.credit_share].",
    ),
    Rule(
        name="rest",
        limit=0.10,
        share=on.of_step(Phase.rest),
        sentence="{found} of a step (over {limit}) is in no phase: something is waited for; lower "
        "[cluster.stall_report_s] to be told who waits for whom.",
    ),
    Rule(
        name="checkpoints",
        limit=0.10,
        share=on.saving,
        sentence="Checkpoints take {found} of the run (over {limit}): raise [checkpoint.every].",
    ),
    Rule(
        name="evaluations",
        limit=0.20,
        share=on.evaluating,
        sentence="Evaluations take {found} of the run (over {limit}): raise [evaluation.every], or lower [evaluation.num_tasks].",
    ),
)
