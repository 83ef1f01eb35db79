"""Which attempts are distilled and which get a policy gradient: ``algorithm.routing.kind`` picks one of these classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from sdpo.config.rules import between, positive


@dataclass
class RoutingConfig:
    """A way of sharing attempts out."""

    kind: str = MISSING
    distils_uniform_groups_alone: ClassVar[bool] = False
    """Whether distillation gets just the groups whose attempts are all solved or all failed."""

    @property
    def has_policy_gradient(self) -> bool:
        """Whether some attempts may be learned from through their advantage."""
        return True

    def weights(self, *, is_solved: bool, has_hint: bool, is_uniform: bool) -> tuple[float, float]:
        """An attempt's weights of distillation and policy gradient; ``is_uniform``: its group's rewards do not differ."""
        raise NotImplementedError


@dataclass
class Blend(RoutingConfig):
    """Every attempt both: λ times the policy gradient, 1-λ times the distillation."""

    kind: str = "blend"
    policy_gradient_share: float = 0.0
    """λ in λ·GRPO + (1-λ)·SDPO."""

    @property
    def has_policy_gradient(self) -> bool:
        return self.policy_gradient_share > 0.0

    def weights(self, *, is_solved: bool, has_hint: bool, is_uniform: bool) -> tuple[float, float]:
        return 1.0 - self.policy_gradient_share, self.policy_gradient_share

    def __post_init__(self) -> None:
        between("algorithm.routing.policy_gradient_share", self.policy_gradient_share, 0.0, 1.0)


@dataclass
class BySuccess(RoutingConfig):
    """Solved attempts the policy gradient, failed ones the distillation."""

    kind: str = "by_success"

    def weights(self, *, is_solved: bool, has_hint: bool, is_uniform: bool) -> tuple[float, float]:
        return (0.0, 1.0) if is_solved else (1.0, 0.0)


@dataclass
class BySuccessAndHint(RoutingConfig):
    """Failed attempts with a hint the distillation, all others the policy gradient (SRPO, arXiv 2604.02288, section 3.1)."""

    kind: str = "by_success_and_hint"

    def weights(self, *, is_solved: bool, has_hint: bool, is_uniform: bool) -> tuple[float, float]:
        return (1.0, 0.0) if has_hint and not is_solved else (0.0, 1.0)


@dataclass
class ByHint(RoutingConfig):
    """Attempts with a hint the distillation, those without the policy gradient."""

    kind: str = "by_hint"

    def weights(self, *, is_solved: bool, has_hint: bool, is_uniform: bool) -> tuple[float, float]:
        return (1.0, 0.0) if has_hint else (0.0, 1.0)


@dataclass
class ByGroup(RoutingConfig):
    """Attempts of a group whose rewards differ the policy gradient, the others the distillation.

    Where all rewards of a group are alike the policy gradient is 0. The rewards are the environment's, before any shaping by
    length.
    """

    kind: str = "by_group"
    distils_uniform_groups_alone = True

    def weights(self, *, is_solved: bool, has_hint: bool, is_uniform: bool) -> tuple[float, float]:
        return (1.0, 0.0) if is_uniform else (0.0, 1.0)


@dataclass
class Auxiliary(RoutingConfig):
    """Every attempt the whole policy gradient; with a hint also the distillation, as an addition."""

    kind: str = "auxiliary"
    distillation_weight: float = 1.0
    """Factor of the added distillation. With ``algorithm.loss=evidence``, which adds no loss, any will do."""

    def weights(self, *, is_solved: bool, has_hint: bool, is_uniform: bool) -> tuple[float, float]:
        return self.distillation_weight, 1.0

    def __post_init__(self) -> None:
        positive("algorithm.routing.distillation_weight", self.distillation_weight)


ROUTINGS: dict[str, type[RoutingConfig]] = {
    "blend": Blend,
    "by_success": BySuccess,
    "by_success_and_hint": BySuccessAndHint,
    "by_hint": ByHint,
    "by_group": ByGroup,
    "auxiliary": Auxiliary,
}
