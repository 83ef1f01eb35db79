"""What flows through the trainer, in one direction and in this order:

``Task → Completion → Verdict → Attempt → Group → Hint | None → Sample → MicroBatch → Update``

A later stage is a later type, never an earlier one with a field filled in. Nothing here imports torch at run time, so that
an environment can use these types without it.

Shapes: P tasks, G attempts a task, R response tokens, S / Q the student's / teacher's prompt tokens, B rows of a
micro-batch, T packed tokens, N response tokens of a micro-batch, M of them distilled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


class Role(str, Enum):
    """Who speaks in a message."""

    system = "system"
    user = "user"
    assistant = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation. Example: ``Message(role=Role.user, content="What is 2 + 2?")``."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One question of an environment."""

    id: str
    """Unique within its environment, and the same in every process: ``"code/clamp-17"``."""
    env: str
    """Name of the environment that owns it."""
    messages: tuple[Message, ...]
    """The question as the student sees it; the last one is the user's."""
    payload: object = None
    """What the environment's verifier needs (tests, a reference); opaque to the trainer, and picklable."""

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1].role is not Role.user:
            raise ValueError(f"a task's last message must be the user's (the policy answers it); task {self.id!r} breaks this")


class Finish(str, Enum):
    """Why a completion ended."""

    stop = "stop"
    length = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the policy sampled."""

    token_ids: tuple[int, ...]
    """[R] as sampled, the end-of-sequence token included; never re-tokenised."""
    logprobs: tuple[float, ...]
    """[R] in nats, under the distribution that was sampled from (temperature and truncation applied)."""
    text: str
    """The decoded tokens without special ones. With several turns it is the policy's alone, a blank line between them, for people
    to read and search: an environment judges the ``transcript``."""
    finish: Finish
    weights_version: int
    """Version of the weights that sampled it, of the oldest where there were several: the learner's step at the load."""
    versions: tuple[tuple[int, int], ...] = ()
    """Runs of (version, number of the policy's own tokens), in the tokens' order; empty where one version sampled them all."""
    own_mask: tuple[bool, ...] | None = None
    """[R] False where the environment wrote the token (its logprob is then 0); None: the policy wrote them all."""
    turns: tuple[Message, ...] = ()
    """What was said after the task's messages, by policy and environment in turn; empty where there was one turn."""

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.logprobs):
            raise ValueError(f"a completion needs one logprob a token; got {len(self.logprobs)} for {len(self.token_ids)} tokens")
        if self.own_mask is not None and len(self.own_mask) != len(self.token_ids):
            raise ValueError(f"a completion's mask must cover its {len(self.token_ids)} tokens; got {len(self.own_mask)}")
        if self.versions:
            self._check_versions()

    def _check_versions(self) -> None:
        covered = sum(num for _, num in self.versions)
        if covered != self.num_own_tokens or any(num < 1 for _, num in self.versions):
            raise ValueError(
                f"a completion's versions must cover the {self.num_own_tokens} tokens of the policy, in runs of at least one; "
                f"got {self.versions}"
            )
        if self.weights_version != min(version for version, _ in self.versions):
            raise ValueError(
                f"a completion's weights_version is the oldest of its versions; got {self.weights_version} and {self.versions}"
            )

    @property
    def num_own_tokens(self) -> int:
        """The tokens that the policy sampled, the environment's left out."""
        return len(self.token_ids) if self.own_mask is None else sum(self.own_mask)

    @property
    def version_runs(self) -> tuple[tuple[int, int], ...]:
        """``versions``, where one version sampled everything too."""
        return self.versions or ((self.weights_version, self.num_own_tokens),)

    @property
    def transcript(self) -> tuple[Message, ...]:
        """What was said after the task's messages: what an environment judges. It begins and ends with the policy."""
        return self.turns or (Message(role=Role.assistant, content=self.text),)


def joined_versions(runs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """``Completion.versions`` of these runs: neighbours of one version are one run, and one version alone is none."""
    joined: list[tuple[int, int]] = []
    for version, num in runs:
        if joined and joined[-1][0] == version:
            joined[-1] = (version, joined[-1][1] + num)
        elif num:
            joined.append((version, num))
    return tuple(joined) if len(joined) > 1 else ()


class InvalidVerdict(ValueError):
    """What an environment says of an answer is no verdict; the message is a sentence."""

    def __init__(self, message: str, *, part: str) -> None:
        """``part`` is what is wrong: ``"verdict"``, ``"reward"``, ``"feedback"``, ``"feedback-text"`` or ``"metrics"``."""
        super().__init__(message)
        self.part = part

    def __reduce__(self) -> tuple[Callable[..., InvalidVerdict], tuple[str]]:
        return partial(InvalidVerdict, part=self.part), (str(self),)


def plain_number(value: object) -> float | None:
    """A finite number of Python or numpy as a float, True as 1. None: it is no such number.

    A lone number of a library (``np.float32(1)``, an array or a tensor without dimensions) says so by its empty shape.
    """
    if getattr(value, "shape", None) == ():
        value = value.item()  # type: ignore[attr-defined]
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def valid_reward(value: object) -> float:
    """``value`` as a float. Raises InvalidVerdict where it is no number from 0 to 1."""
    reward = plain_number(value)
    if reward is None:
        raise InvalidVerdict(
            f"a reward must be a finite number in [0, 1]; got {value!r:.80}, a {type(value).__name__}", part="reward"
        )
    if not 0.0 <= reward <= 1.0:
        raise InvalidVerdict(f"a reward must lie in [0, 1] (1 means solved); got {reward!r}", part="reward")
    return reward


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the environment says of a completion."""

    reward: float
    """In [0, 1]; 1 is solved."""
    feedback: str | None = None
    """What a helpful critic would say of *this* answer; never a hidden test nor a held-out answer. None: nothing to say."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The environment's own numbers, averaged over attempts and logged under ``env/``."""

    def __post_init__(self) -> None:
        valid_reward(self.reward)

    @property
    def is_solved(self) -> bool:
        return self.reward >= 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A completion and its verdict."""

    completion: Completion
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the environment says to a completion before it judges it."""

    completion: Completion
    text: str | None
    """None: nothing more, the conversation is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """A completion whose verification broke: the environment's fault, so neither failed nor rewarded, only counted."""

    completion: Completion
    error: str
    """The environment's traceback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The attempts at one task."""

    task: Task
    prompt_ids: tuple[int, ...]
    """[S] the student's prompt, as the engine saw it."""
    attempts: tuple[Attempt, ...]
    """[G], less those set aside."""
    set_aside: tuple[SetAside, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A group in short: what the choice of later tasks may go by."""

    task: str
    """Its id."""
    rewards: tuple[float, ...]
    """[G], less those set aside."""
    num_set_aside: int = 0
    is_replaced: bool = False
    """Whether another group stands in for it."""

    @staticmethod
    def of(group: Group, *, is_replaced: bool = False) -> Tried:
        return Tried(
            task=group.task.id,
            rewards=tuple(attempt.verdict.reward for attempt in group.attempts),
            num_set_aside=len(group.set_aside),
            is_replaced=is_replaced,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How a step came to its groups."""

    tried: tuple[Tried, ...]
    """Those that were replaced, then the P that it learns from."""
    num_without_signal: int | None
    """Those among the P from which nothing is learned; None where that was not looked at."""
    numbers: Mapping[str, float]
    """What the task order says of its choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HintText:
    """One thing that the teacher is shown and the student is not."""

    name: str
    """Its source: ``demonstration``, ``feedback``, or the name of another source."""
    heading: str
    """What stands above it in the teacher's message, with its line end."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What would have helped with one attempt: at least one text, each of another source."""

    texts: tuple[HintText, ...]
    """In the order in which they are shown. A demonstration is a solved sibling's completion, thinking removed; or what stands in
    for it, a remembered one or the environment's answer. Feedback is what the environment said of this attempt."""
    is_remembered: bool = False
    """Whether the demonstration is of an earlier step."""

    def __post_init__(self) -> None:
        if not self.texts or not all(text.text for text in self.texts):
            raise ValueError("a hint must hold a text, as a demonstration or feedback; where there is none, the hint is None")
        if len(set(self.names)) != len(self.texts):
            raise ValueError(f"the texts of a hint must have different names; got {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(text.name for text in self.texts)

    @property
    def kind(self) -> str:
        """One word for its names; ``both`` for a demonstration and feedback."""
        return "both" if self.names == ("demonstration", "feedback") else "+".join(self.names)

    def of(self, name: str) -> str | None:
        """The text of that name; None where there is none."""
        return next((text.text for text in self.texts if text.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row to learn from. Student and teacher score the same response tokens, under different prompts."""

    prompt_ids: tuple[int, ...]
    """[S] the student's prompt."""
    teacher_prompt_ids: tuple[int, ...] | None
    """[Q] the hindsight prompt; None where there is no hint, and so no distillation loss."""
    response_ids: tuple[int, ...]
    """[R]"""
    loss_mask: tuple[bool, ...]
    """[R] False where the token is not the policy's own (an environment's turn), or a token filter flags it."""
    sampled_logprobs: tuple[float, ...]
    """[R] in nats, from the engine that sampled."""
    advantage: float
    """The group advantage of this row's reward, the same for every token."""
    distillation_weight: float = 1.0
    """Factor of the row's distillation loss; 0: none."""
    policy_gradient_weight: float = 0.0
    """Factor of the row's policy-gradient loss; 0: none."""
    supervised_weight: float = 0.0
    """Factor of the row's cross-entropy -log π(y_t); 0: none. No engine sampled such a row, so it carries no other loss of a
    token, and its ``sampled_logprobs`` are not looked at."""
    task_index: int = 0
    """Position of the task in the step's batch: rows of one task stay in one update."""
    attempt_index: int = 0
    """Position of the attempt in its group."""
    is_solved: bool = False
    """What the environment says of it; no loss reads it, metrics do."""

    def __post_init__(self) -> None:
        if len({len(self.response_ids), len(self.loss_mask), len(self.sampled_logprobs)}) != 1:
            raise ValueError(
                "a sample needs a mask and a logprob for every response token; got "
                f"{len(self.response_ids)} tokens, {len(self.loss_mask)} masks, {len(self.sampled_logprobs)} logprobs"
            )
        if not self.response_ids or not self.prompt_ids or self.teacher_prompt_ids == ():
            raise ValueError(
                "a sample needs at least one prompt token and one response token, and a hindsight prompt is None or not empty"
            )
        if self.supervised_weight != 0.0 and (self.is_distilled or self.policy_gradient_weight != 0.0):
            raise ValueError(
                "a supervised sample carries no distillation and no policy gradient (no engine sampled it, so it has no "
                f"log-probabilities to weigh them by); got a supervised weight of {self.supervised_weight} beside one of them. "
                "Make two samples of it."
            )

    @property
    def is_distilled(self) -> bool:
        """Whether the teacher scores it."""
        return self.teacher_prompt_ids is not None and self.distillation_weight != 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Neighbouring tokens of a pack that belong to the same rows. Each sees all of ``before``, then its own up to itself.

    Rows that begin alike share the segment of what they have in common. A prompt and two answers to it are three segments; the
    answers have ``before=(0,)``.
    """

    first: int
    last: int
    """The half-open range of its tokens in the pack."""
    before: tuple[int, ...]
    """Earlier segments of the pack, in order."""


class Packing(Enum):
    """How rows lie in a forward pass."""

    packed = "packed"
    """End to end; what rows begin with alike is there once. For models whose tokens meet in attention alone."""
    joined = "joined"
    """End to end, each row with all its tokens, and every layer is told where a row ends."""
    whole = "whole"
    """Side by side, padded at their ends to one length. For every causal model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """The rows of a forward pass, end to end or side by side (``Packing``)."""

    ids_T: Tensor
    """[T] int64"""
    positions_T: Tensor
    """[T] int64, each token's position in its row."""
    segments: tuple[Segment, ...]
    """In order; together they cover the T tokens."""
    predicts_N: Tensor
    """[N] int64: the position in the pack whose hidden state predicts each of N response tokens."""
    num_rows: int = 1
    """Rows side by side, each a segment of T / num_rows tokens. 1: all rows lie end to end."""
    has_borders: bool = False
    """Whether layers are told where segments end. Then every segment is a row with all its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Rows of one rank's forward pass.

    Invariant: entry m of ``teacher.predicts_N`` and the student's at the m-th True of ``distilled_N`` predict the same token.
    Both predict it as a continuation of the same response tokens. Student and teacher differ in their prompts alone.
    """

    student: Pack
    """Predicts all N response tokens, of all rows in order."""
    teacher: Pack
    """Under the hindsight prompts; predicts the M that are distilled."""
    response_ids_N: Tensor
    """[N] int64, the tokens that were sampled."""
    rows_N: Tensor
    """[N] int64, the row that each belongs to, from 0."""
    row_keys: tuple[tuple[int, int], ...]
    """[B] for each row, the positions of its task in the step and of its attempt in the group."""
    loss_mask_N: Tensor
    """[N] bool"""
    distilled_N: Tensor
    """[N] bool, loss_mask and the row is distilled."""
    solved_N: Tensor
    """[N] bool, the environment calls the row solved."""
    sampled_logprobs_N: Tensor
    """[N] float32, nats"""
    advantages_N: Tensor
    """[N] float32"""
    distillation_weights_N: Tensor
    """[N] float32, 0 where the row is not distilled."""
    policy_gradient_weights_N: Tensor
    """[N] float32, 0 where the row has no policy-gradient loss."""
    supervised_weights_N: Tensor
    """[N] float32, 0 where the row is not supervised, and so was sampled by an engine."""

    @property
    def distilled_under_plain_prompts(self) -> Pack:
        """The student's pack, which predicts the M that are distilled alone."""
        return replace(self.student, predicts_N=self.student.predicts_N[self.distilled_N])

    @property
    def num_tokens(self) -> int:
        """Tokens that pass through the model, padding included, student and teacher together."""
        return len(self.student.ids_T) + len(self.teacher.ids_T)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Who will compute an update."""

    num: int
    """Ranks, or teams of ranks, that get rows of their own."""
    pairs_per_token: float
    """Pairs of attention (a token and one that it sees) that cost as much as a token does in the other layers."""
    packing: Packing = Packing.packed
    """How rows must lie for the models that will score them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Everything that one optimizer step learns from, on all ranks, with the global counts its losses are divided by."""

    index: int
    """Position within the step, whichever epoch it is."""
    micro_batches: tuple[tuple[MicroBatch, ...], ...]
    """[ranks][micro-batches], the same number on each rank."""
    num_loss_tokens: int
    """Response tokens of rows with a policy-gradient loss, over all ranks and micro-batches, an advantage of 0 included."""
    num_loss_rows: int
    """Those rows."""
    num_distilled_tokens: int
    """Response tokens that the sum of the distillation losses is divided by, likewise."""
    num_supervised_tokens: int
    """Response tokens of supervised rows, likewise."""
    num_scored_tokens: int
    """Response tokens of the rows in the micro-batches."""
    num_learned_rows: int
    """Rows in the micro-batches."""
    num_learned_tokens: int
    """Tokens through the model, student and teacher together."""
    epoch: int = 0
    """How often the step's samples were learned from before."""

    def of_rank(self, rank: int) -> Update:
        """The update with that rank's micro-batches alone, and everybody's counts."""
        return replace(self, micro_batches=(self.micro_batches[rank],))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCredit:
    """What student and teacher say of tokens of one distilled attempt: of n of its R response tokens. Nats, under the sampling
    temperature; the difference of ``teacher_n`` and ``student_n`` is the tokens' hindsight credit."""

    task_index: int
    """Position of the task in the step's batch."""
    attempt_index: int
    """Position of the attempt in its group."""
    update_index: int
    """Position within the step of the update that learned from it."""
    places_n: Tensor
    """[n] int64, positions in the response."""
    student_n: Tensor
    """[n] float32, log π(y_t)"""
    teacher_n: Tensor
    """[n] float32, log q(y_t)"""
    divergence_n: Tensor
    """[n] float32, from student to teacher over the support, unweighted."""
    student_top: TopTokens
    teacher_top: TopTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TopTokens:
    """The most probable tokens at n positions, the most probable one first."""

    ids_nk: Tensor
    """[n, k] int64"""
    logprobs_nk: Tensor
    """[n, k] float32, nats"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the engine is asked to continue: once, with one seed."""

    token_ids: tuple[int, ...]
    seed: int
    task_index: int
    """Position of the task in the batch that was asked for."""
    attempt_index: int
    max_response_tokens: int | None = None
    """What is left of ``Sampling.max_response_tokens`` where earlier turns have used up some of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The distribution that completions are drawn from."""

    temperature: float
    top_p: float
    max_response_tokens: int
    """Response tokens of all turns together, the environment's included."""
    max_turns: int = 1
    """Turns of the policy; 1: the environment is not asked for replies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What held-out tasks say of a policy."""

    num_attempts: int
    """k, attempts a task."""
    groups: tuple[Group, ...]
    metrics: Mapping[str, float]
    """Keys ``heldout/...`` of ``sdpo.metrics``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """How much better the teacher answers than the policy, on the tasks of an evaluation."""

    groups: tuple[Group, ...]
    """[P] what was answered under the hindsight prompts; ``prompt_ids`` stays the policy's prompt."""
    hints: tuple[tuple[Hint, ...], ...]
    """[P] of each attempt in ``groups``, the hint it was given."""
    metrics: Mapping[str, float]
    """Keys ``lift`` and ``lift/...`` of ``sdpo.metrics``; one that could not be measured is missing."""


Metrics = Mapping[str, float]
"""Names from ``sdpo.metrics`` to values."""

Tasks = Sequence[Task]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of a split's tasks, which are asked as often as their weight says."""

    name: str
    weight: float
    """Beside the other parts'."""
    positions: tuple[int, ...]
    """In the split."""


@runtime_checkable
class InParts(Protocol):
    """Tasks, as ``Tasks``, that fall into parts with weights; no task is in two of them, and each in one."""

    @property
    def parts(self) -> tuple[Part, ...]: ...
