"""Who teaches: ``algorithm.teacher.kind`` picks one of these classes, which has the fields of that kind and no others.

To add one of ours, write its class here and its line in ``sdpo.plugins.seams.TEACHERS``. Someone else's is a class of the same
shape, in an installed package or in a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from omegaconf import MISSING

from sdpo.config.rules import at_least, between
from sdpo.plugins.seams import TEACHERS

Part = TypeVar("Part", covariant=True)
"""A model of a teacher: for the learner what runs it, for the planner its size."""


class TeacherParts(Protocol[Part]):
    """What a teacher can be made of. ``weight`` is that of the model's logits in the teacher's, which are a weighted sum.

    ``is_hinted=False``: the model sees the student's prompt, without the hint.
    """

    def now(self, *, weight: float = 1.0, is_hinted: bool = True) -> Part:
        """The policy as it is at each moment."""
        ...

    def start(self, *, weight: float = 1.0, is_hinted: bool = True) -> Part:
        """The policy as it was before its first update."""
        ...

    def average(self, *, rate: float, on_host: bool, every: int = 1) -> Part:
        """A copy of the policy in fp32, into which ``rate`` of the policy is mixed after every ``every``-th step."""
        ...

    def other(self) -> Part:
        """The model at the kind's ``other_model``."""
        ...


@dataclass
class TeacherConfig:
    """A kind of teacher."""

    kind: str = MISSING
    keeps_average: ClassVar[bool] = False
    """Whether it has fp32 weights of its own, which follow the policy's or are set to them."""
    is_another_self: ClassVar[bool] = False
    """Whether it is one model, the policy's earlier self, which an engine could sample from."""

    @property
    def other_model(self) -> str | None:
        """A model that it needs besides the policy: a folder, a hub id, or ``package:NAME``."""
        return None

    def models(self, parts: TeacherParts[Part]) -> Sequence[Part]:
        """The models whose logits, weighted and summed, are the teacher's."""
        raise NotImplementedError(f"{type(self).__name__} must say which models it is made of: models(parts)")

    def __reduce__(self) -> tuple[object, ...]:
        """By its kind's name, since a class from a file cannot be imported by its own in another process."""
        return _again, (type(self) if self.kind in TEACHERS.built_in else self.kind, dict(vars(self)))


def _again(kind: type[TeacherConfig] | str, fields: Mapping[str, object]) -> TeacherConfig:
    teacher = object.__new__(teacher_class(kind) if isinstance(kind, str) else kind)
    vars(teacher).update(fields)
    return teacher


def teacher_class(kind: str) -> type[TeacherConfig]:
    """The class of a kind. Raises ValueError, as a sentence, where there is none."""
    TEACHERS.check("algorithm.teacher.kind", kind)
    found = TEACHERS.load(kind)
    if not (isinstance(found, type) and issubclass(found, TeacherConfig)):
        raise ValueError(f"algorithm.teacher.kind must name a subclass of sdpo.config.TeacherConfig; {kind!r} is {found!r}.")
    return found


@dataclass
class LiveTeacher(TeacherConfig):
    """The policy's own weights, now."""

    kind: str = "live"

    def models(self, parts: TeacherParts[Part]) -> Sequence[Part]:
        return [parts.now()]


@dataclass
class FrozenTeacher(TeacherConfig):
    """The policy's weights at the start."""

    kind: str = "frozen"
    is_another_self = True

    def models(self, parts: TeacherParts[Part]) -> Sequence[Part]:
        return [parts.start()]


@dataclass
class EmaTeacher(TeacherConfig):
    """An exponential moving average of the policy's weights, kept in fp32."""

    kind: str = "ema"
    ema_rate: float = 0.05
    """Share of the policy mixed in once a step. The paper: 0.05 without environment feedback, 0.01 with."""
    offload: bool = False
    """Keep the average in the host's memory instead of the GPU's."""
    keeps_average = True
    is_another_self = True

    def models(self, parts: TeacherParts[Part]) -> Sequence[Part]:
        return [parts.average(rate=self.ema_rate, on_host=self.offload)]

    def __post_init__(self) -> None:
        between("algorithm.teacher.ema_rate", self.ema_rate, 0.0, 1.0)


@dataclass
class PeriodicTeacher(TeacherConfig):
    """A copy of the policy in fp32, made anew after every so many steps and at rest in between."""

    kind: str = "periodic"
    refresh_every: int = 10
    """Steps between two copies."""
    offload: bool = False
    """Keep the copy in the host's memory instead of the GPU's."""
    keeps_average = True
    is_another_self = True

    def models(self, parts: TeacherParts[Part]) -> Sequence[Part]:
        return [parts.average(rate=1.0, on_host=self.offload, every=self.refresh_every)]

    def __post_init__(self) -> None:
        at_least("algorithm.teacher.refresh_every", self.refresh_every, 1, "it counts steps")


@dataclass
class OnGainTeacher(TeacherConfig):
    """A copy of the policy in fp32, made anew only when success has risen and responses have not grown.

    Consolidation-Gated Teacher Refresh (arXiv 2606.03532).
    """

    kind: str = "on_gain"
    min_gain: float = 0.02
    """Success that a refresh needs beyond that of the last one."""
    max_length_growth: float = 0.1
    """Share by which the mean response may have grown since the last refresh."""
    gain_window: int = 8
    """Steps whose training success is compared, where evaluation.every is 0; else held-out success is."""
    offload: bool = False
    """Keep the copy in the host's memory instead of the GPU's."""
    keeps_average = True
    is_another_self = True

    def models(self, parts: TeacherParts[Part]) -> Sequence[Part]:
        return [parts.average(rate=0.0, on_host=self.offload)]

    def __post_init__(self) -> None:
        between("algorithm.teacher.min_gain", self.min_gain, 0.0, 1.0)
        at_least("algorithm.teacher.max_length_growth", self.max_length_growth, 0.0, "equal length has grown by 0")
        at_least("algorithm.teacher.gain_window", self.gain_window, 1, "it counts steps")


@dataclass
class TrustRegionTeacher(TeacherConfig):
    """The policy at the start and now: their logits are mixed, so that the teacher never strays far."""

    kind: str = "trust_region"
    live_weight: float = 0.05
    """Weight of the policy's logits in the mixture; the start's have the rest."""

    def models(self, parts: TeacherParts[Part]) -> Sequence[Part]:
        return [parts.start(weight=1.0 - self.live_weight), parts.now(weight=self.live_weight)]

    def __post_init__(self) -> None:
        between("algorithm.teacher.live_weight", self.live_weight, 0.0, 1.0)


@dataclass
class AnchoredTeacher(TeacherConfig):
    """The policy at the start with the hint, its logits mixed with those of the policy as it is without one.

    β-OPSD (arXiv 2607.28582): π* ∝ π_ref^(1-1/β) · p_T^(1/β) maximises E[log p_T/π_ref] - β·KL(π‖π_ref), token by token.
    """

    kind: str = "anchored"
    beta: float = 2.0
    """β, at least 1: how strongly the policy is held where it is. The hinted logits weigh 1/β; with 1 they are all there is."""

    def models(self, parts: TeacherParts[Part]) -> Sequence[Part]:
        hinted = 1.0 / self.beta
        if hinted == 1.0:
            return [parts.start()]
        return [parts.start(weight=hinted), parts.now(weight=1.0 - hinted, is_hinted=False)]

    def __post_init__(self) -> None:
        at_least("algorithm.teacher.beta", self.beta, 1.0, "below it the mixture would overshoot the hinted teacher")


@dataclass
class ExternalTeacher(TeacherConfig):
    """Another model, with the same vocabulary."""

    kind: str = "external"
    path: str = MISSING
    """A folder, a hub id, or ``package:NAME``."""

    @property
    def other_model(self) -> str | None:
        return self.path

    def models(self, parts: TeacherParts[Part]) -> Sequence[Part]:
        return [parts.other()]
