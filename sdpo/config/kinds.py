"""How is a kind chosen that decides which fields there are: ``algorithm.teacher``, ``algorithm.routing``, ``learner.schedule``?

To hydra a kind is a config group, whose choice brings its fields. ``algorithm.teacher.kind=frozen`` is the word for
``algorithm/teacher=frozen``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from hashlib import blake2b

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from sdpo.config.algorithm import FullSupport, SupportConfig, TopSupport
from sdpo.config.routing import ROUTINGS, RoutingConfig
from sdpo.config.schedule import SCHEDULES, ScheduleConfig
from sdpo.config.teacher import TeacherConfig, teacher_class
from sdpo.plugins.seam import anywhere
from sdpo.plugins.seams import TEACHERS

_RENAMED = {
    "algorithm.routing": "algorithm.routing.kind",
    "algorithm.policy_gradient_share": "algorithm.routing.policy_gradient_share",
}
"""Keys of older versions, with today's."""
_RENAMED_VALUES = {("algorithm.normalisation", "reference"): "paper"}
"""Values of older versions under their keys, with today's."""
_TEACHER, _ROUTING, _SUPPORT = "algorithm.teacher.kind", "algorithm.routing.kind", "algorithm.support.kind"
_SCHEDULE = "learner.schedule.kind"
_KINDS: dict[str, dict[str, type]] = {
    _TEACHER: {name: teacher_class(name) for name in TEACHERS.built_in},
    _ROUTING: dict(ROUTINGS),
    _SUPPORT: {"student": TopSupport, "teacher": TopSupport, "full": FullSupport},
    _SCHEDULE: dict(SCHEDULES),
}
_KEYS = {key.split(".")[1]: key for key in _KINDS}


def refuse_old_key(word: str) -> None:
    """Raises ValueError for ``KEY=VALUE`` where the key or the value has another name by now."""
    key, _, value = word.partition("=")
    if key in _RENAMED:
        raise ValueError(f"{key} is called {_RENAMED[key]} by now; got {word}. Say {_RENAMED[key]}={value}.")
    if (key, value) in _RENAMED_VALUES:
        raise ValueError(old_value(key, value))


def old_value(key: str, value: str) -> str | None:
    """What to say of a value that is called otherwise by now; None of any other."""
    today = _RENAMED_VALUES.get((key, value))
    return None if today is None else f"{key}={value} is called {today} by now. Say {key}={today}."


def grouped(word: str) -> str:
    """A word that chooses a kind, as hydra's choice of a group; any other word as it is. Raises ValueError for an unknown one."""
    key, equals, kind = word.partition("=")
    if not equals or not kind:
        return word
    if key == _TEACHER:
        return f"algorithm/teacher={kind if kind in TEACHERS.built_in else _stored(kind)}"
    if key in (_ROUTING, _SUPPORT, _SCHEDULE):
        home_of(key.split(".")[1], kind)
    if key in (_ROUTING, _SCHEDULE):
        return f"{key.removesuffix('.kind').replace('.', '/')}={kind}"
    return "algorithm/support=full" if key == _SUPPORT and kind == "full" else word


def _stored(kind: str) -> str:
    """Where hydra finds the fields of a teacher that is not ours: an installed one's by its name, a file's by a short one."""
    node = OmegaConf.structured(teacher_class(kind))
    node.kind = anywhere(kind)
    name = f"from_a_file_{blake2b(kind.encode(), digest_size=4).hexdigest()}" if ":" in kind else kind
    ConfigStore.instance().store(group="algorithm/teacher", name=name, node=node)
    return name


def register_installed_teachers() -> None:
    """Let YAML files choose the teachers of installed packages by name. One that cannot be had is refused where it is chosen."""
    for name in TEACHERS.names():
        if name not in TEACHERS.built_in:
            with suppress(ValueError):
                _stored(name)


def homes(key: str) -> tuple[str, ...]:
    """The kinds that have a field: ``algorithm.teacher.ema_rate`` gives ``("algorithm.teacher.kind=ema",)``."""
    group, _, name = key.rpartition(".")
    kinds = _KINDS.get(f"{group}.kind", {})
    return tuple(f"{group}.kind={kind}" for kind, home in kinds.items() if name in {field.name for field in fields(home)})


def as_today(stored: Mapping[str, object]) -> dict[str, object]:
    """A config that a run has written, in today's shape: an older version's had the fields of all kinds, whichever was chosen."""
    if isinstance(learner := stored.get("learner"), Mapping) and "schedule" not in learner:
        stored = {**stored, "learner": {**learner, "schedule": {"kind": "constant"}}}
    algorithm = stored.get("algorithm")
    if not isinstance(algorithm, Mapping):
        return dict(stored)
    algorithm = dict(algorithm)
    share = algorithm.pop("policy_gradient_share", None)
    if isinstance(routing := algorithm.get("routing"), str):
        algorithm["routing"] = {"kind": routing, "policy_gradient_share": share}
    algorithm.update(
        {
            key.removeprefix("algorithm."): today
            for (key, value), today in _RENAMED_VALUES.items()
            if algorithm.get(key.removeprefix("algorithm.")) == value
        }
    )
    for name in ("teacher", "support", "routing"):
        if isinstance(node := algorithm.get(name), Mapping):
            with suppress(ValueError):  # a kind of a package that has gone: refused where its class is needed
                known = {field.name for field in fields(home_of(name, str(node.get("kind"))))}
                algorithm[name] = {key: value for key, value in node.items() if key in known}
    return {**stored, "algorithm": algorithm}


def home_of(name: str, kind: str) -> type[TeacherConfig] | type[SupportConfig] | type[RoutingConfig] | type[ScheduleConfig]:
    """The class of a kind, of ``name`` teacher, support, routing or schedule. Raises ValueError where there is none."""
    if name == "teacher":
        return teacher_class(kind)
    try:
        return _KINDS[_KEYS[name]][kind]
    except KeyError:
        raise ValueError(f"{_KEYS[name]} must be one of {', '.join(_KINDS[_KEYS[name]])}; got {kind}.") from None
