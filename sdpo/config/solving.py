"""``sdpo solve`` and ``sdpo discovery``: hard tasks at test time, by which strategy, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, cast

from omegaconf import MISSING

from sdpo.config.algorithm import QuestionWeight, SDPOConfig
from sdpo.config.cluster import ClusterConfig
from sdpo.config.hindsight import HintChoice
from sdpo.config.machines import LearnerConfig, RolloutConfig, SandboxConfig
from sdpo.config.rules import at_least, between, finite_throughout, folder_name, seed_within
from sdpo.config.run import BatchConfig, EnvConfig, ModelConfig, SamplingConfig
from sdpo.config.teacher import OnGainTeacher
from sdpo.plugins.seams import STRATEGIES


class Traits(Protocol):
    """What the config needs to know of a strategy."""

    @property
    def shows_feedback(self) -> bool:
        """Whether its prompts hold what was said of earlier attempts."""
        ...

    @property
    def learns(self) -> bool: ...


def _traits_of(name: str) -> Traits:
    found = STRATEGIES.load(name)
    if not isinstance(getattr(found, "learns", None), bool) or not isinstance(getattr(found, "shows_feedback", None), bool):
        raise ValueError(f"strategy must name a sdpo.solving.strategy.Strategy; {name!r} is {found!r}.")
    return cast(Traits, found)


@dataclass
class BudgetConfig:
    """What a search may spend; it ends with whichever is spent first."""

    attempts: int | None = 512
    """Verified attempts at each task."""
    tokens: int | None = None
    """Generated tokens. Looked at between steps, so the last step may exceed it."""
    seconds: float | None = None
    """Seconds of sampling, verifying and learning, over all processes that worked on it; not of starting them."""

    def __post_init__(self) -> None:
        if self.attempts is None and self.tokens is None and self.seconds is None:
            raise ValueError(
                "a search needs a budget (an unsolvable task would be tried forever); got budget.attempts, budget.tokens and "
                "budget.seconds all null. Set one."
            )
        for name, value in (("attempts", self.attempts), ("tokens", self.tokens), ("seconds", self.seconds)):
            if value is not None and not value > 0:
                raise ValueError(f"budget.{name} must be positive (an empty budget solves nothing); got {value}.")


@dataclass
class SearchConfig:
    """What ``sdpo solve`` and ``sdpo discovery`` have in common: how a task is searched, and with what."""

    seed: int = 0
    """Seed of all draws, together with the task's id; where a task stands among others does not matter."""
    runs_dir: str = "runs"
    name: str = ""
    """The folder under ``runs_dir``."""
    split: str | None = None
    """Split in which tasks are looked up; None: ``env.train_split`` and ``env.heldout_split``."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """What the search of one task may spend."""
    context_tokens: int = 768
    """Longest prompt that tells what was said of earlier attempts, in tokens; the oldest attempt is left out first."""
    stale_steps: int = 3
    """Steps in a row without an attempt that differs from all earlier ones, after which a search ends. 0: it never does."""
    keep_every: int = 1
    """Steps between states of the learner on disk: a killed search repeats at most so many."""
    in_process: bool = False
    """Engine, learner and verifier in one process, without Ray; only for environments that are trusted. It starts sooner and fits
    one core, but nothing limits the time of a verdict."""
    num_workers: int = 1
    """Processes that share the tasks, each with its own engine and learner, on cores of its own."""
    quiet: bool = False
    """No live view: one line a step, and one every half minute of what takes longer."""
    algorithm: SDPOConfig = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    """``group_size`` attempts a step."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    @property
    def strategies_used(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def _traits(self) -> tuple[Traits, ...]:
        return tuple(_traits_of(name) for name in self.strategies_used)

    @property
    def learns(self) -> bool:
        return any(strategy.learns for strategy in self._traits)

    @property
    def max_question_tokens(self) -> int:
        """Tokens of the longest prompt that is asked."""
        shows = any(strategy.shows_feedback for strategy in self._traits)
        return max(self.sampling.max_prompt_tokens, self.context_tokens if shows else 0)

    def __post_init__(self) -> None:
        for name in self.strategies_used:
            STRATEGIES.check("strategy", name)
        finite_throughout(self)
        seed_within(self.seed)
        at_least("stale_steps", self.stale_steps, 0, "it counts steps")
        at_least("keep_every", self.keep_every, 1, "it counts steps")
        at_least("num_workers", self.num_workers, 1, "somebody has to search")
        at_least("context_tokens", self.context_tokens, self.sampling.max_prompt_tokens, "it holds the question too")
        folder_name(self.name, "search")
        if self.batch.num_tasks != 1:
            raise ValueError(
                f"batch.num_tasks must be 1 in a search (a step asks one task, and learns for it alone); got "
                f"{self.batch.num_tasks}. Set batch.group_size, the attempts a step."
            )
        if self.num_workers > 1 and not self.in_process:
            raise ValueError(
                f"num_workers above 1 needs in_process=true (each worker is a process with everything in it); got "
                f"{self.num_workers}. Set in_process=true, or start the same command on another machine: they share the tasks."
            )
        if self.in_process and (self.learner.num_ranks > 1 or self.rollout.num_engines > 1):
            raise ValueError(
                "in_process=true is one process, so it has one engine and one rank; got rollout.num_engines="
                f"{self.rollout.num_engines} and learner.num_ranks={self.learner.num_ranks}."
            )
        if self.rollout.staleness > 0:
            raise ValueError(
                f"rollout.staleness must be 0 in a search (a step asks what the last one taught); got {self.rollout.staleness}."
            )
        if self.learns:
            self._check_learning()

    def _check_learning(self) -> None:
        hindsight = self.algorithm.hindsight
        if not self.learner.schedule.is_bounded:
            raise ValueError(
                "learner.schedule.num_steps must be given in a search (how many steps it takes is not known before its end); got "
                f"null with kind={self.learner.schedule.kind}. Give it, or set learner.schedule.kind=constant."
            )
        if hindsight.choice not in (HintChoice.demonstration_first, HintChoice.both, HintChoice.feedback_only):
            raise ValueError(
                "algorithm.hindsight.choice must show feedback in a search (before the end there is no solved sibling, and the "
                f"answer is what is looked for); got {hindsight.choice.value}. Set feedback_only."
            )
        at_least(
            "algorithm.hindsight.max_prompt_tokens",
            hindsight.max_prompt_tokens,
            self.max_question_tokens,
            "the hindsight prompt repeats the question, and what it tells of earlier attempts",
        )
        if self.algorithm.teacher.other_model is not None or isinstance(self.algorithm.teacher, OnGainTeacher):
            raise ValueError(
                "algorithm.teacher.kind must be ema, periodic, frozen, live or trust_region in a search (the teacher is the "
                "model itself, and before the end no success has risen that could refresh it); got "
                f"{self.algorithm.teacher.kind}. Set ema."
            )
        if self.algorithm.question_weight is QuestionWeight.uncertainty:
            raise ValueError(
                "algorithm.question_weight must be none in a search (uncertainty weighs a task that no attempt has solved with "
                "0, and a search ends where one has); got uncertainty."
            )
        if not self.algorithm.adds_distillation:
            raise ValueError(
                f"algorithm.loss must teach by itself in a search (before the end no attempt is better than another); got "
                f"{self.algorithm.loss}. Set divergence."
            )
        if self.algorithm.replacement_rounds:
            raise ValueError(
                "algorithm.replacement_rounds must be 0 in a search (there is one task, and no other to replace it); got "
                f"{self.algorithm.replacement_rounds}."
            )
        self.algorithm.refuse_split_rows(self.learner.sequence_parallel)
        if self.algorithm.has_policy_gradient and self.batch.group_size < 2:
            raise ValueError(
                f"batch.group_size must be at least 2 with a policy gradient (a lone attempt's advantage is always 0); got "
                f"{self.batch.group_size}."
            )


@dataclass
class SolveConfig(SearchConfig):
    """``sdpo solve``: tasks, each until it is solved or the budget is spent."""

    task: str | None = None
    """The id of a task, or a file that holds one."""
    tasks: str | None = None
    """``all`` those of ``split``, or ids with commas between them."""
    strategy: str = "sdpo"
    """What is done with a failure: ``best_of_k``, ``multi_turn``, ``sdpo``, ``sdpo_multi_turn``, or a name of your own."""
    stop_at_once: bool = True
    """A solution ends the step it was found in; else the step's other attempts are verified too."""

    @property
    def strategies_used(self) -> tuple[str, ...]:
        return (self.strategy,)

    def __post_init__(self) -> None:
        SearchConfig.__post_init__(self)
        if (self.task is None) == (self.tasks is None):
            raise ValueError(
                "give task= (an id, or a file with one problem) or tasks= (all, or ids with commas between them); got "
                + ("both." if self.task else "neither. `sdpo envs sample NAME` shows ids.")
            )


@dataclass
class HardSetConfig:
    """Which tasks are hard: those that the model itself solves rarely, in a measurement of their own."""

    num_tasks: int = 20
    """At most so many, a seeded draw of those that are hard enough."""
    num_candidates: int = 200
    """Tasks that are measured, a seeded draw of the split's."""
    num_attempts: int = 64
    """k of pass@k, at each candidate."""
    min_rate: float = 0.0
    """Least share of the attempts that solve a task. 0: also tasks that none solved, which count as not discovered."""
    max_rate: float = 0.1
    """Largest share of the attempts that solve a task."""

    def __post_init__(self) -> None:
        at_least("hard.num_tasks", self.num_tasks, 1, "a measurement needs a task")
        at_least("hard.num_candidates", self.num_candidates, self.num_tasks, "the hard ones are among them")
        at_least("hard.num_attempts", self.num_attempts, 1, "a rate needs an attempt")
        between("hard.min_rate", self.min_rate, 0.0, 1.0)
        between("hard.max_rate", self.max_rate, self.min_rate, 1.0)


@dataclass
class DiscoveryConfig(SearchConfig):
    """``sdpo discovery``: strategies over hard tasks and seeds, at equal budgets."""

    strategies: list[str] = field(default_factory=lambda: list(STRATEGIES.built_in))
    """Those that are compared."""
    num_seeds: int = 3
    """Searches of each task and strategy, with the seeds ``seed``, ``seed`` + 1, …"""
    tasks: str | None = None
    """Ids with commas between them, in place of a hard set; ``all`` those of ``split``."""
    hard: HardSetConfig = field(default_factory=HardSetConfig)

    @property
    def strategies_used(self) -> tuple[str, ...]:
        return tuple(self.strategies)

    def __post_init__(self) -> None:
        SearchConfig.__post_init__(self)
        at_least("num_seeds", self.num_seeds, 1, "a measurement needs a seed")
        if not self.strategies or len(set(self.strategies)) != len(self.strategies):
            raise ValueError(f"strategies must name each strategy that is compared once; got {list(self.strategies)}.")
