"""From the words of a command line to a config: hydra composes, dataclasses check, and every refusal becomes one sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from enum import Enum
from importlib.metadata import entry_points
from itertools import product
from pathlib import Path

import yaml
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdpo.config import (
    Config,
    DiscoveryConfig,
    EvaluateConfig,
    ExportConfig,
    GRPOConfig,
    ReplayConfig,
    SDPOConfig,
    SlurmLauncherConfig,
    SolveConfig,
    WarmupConfig,
    register,
)
from sdpo.config.kinds import as_today, grouped, home_of, homes, old_value, refuse_old_key
from sdpo.config.words import OPEN, choices, plain, readable
from sdpo.errors import UserError

_ROOTS: dict[str, type] = {
    "train": Config,
    "evaluate": EvaluateConfig,
    "replay": ReplayConfig,
    "export": ExportConfig,
    "warmup": WarmupConfig,
    "solve": SolveConfig,
    "discovery": DiscoveryConfig,
}
ENVIRONMENTS = "sdpo.environments"
"""The group of entry points in which packages name their environments."""


def train_config(overrides: Sequence[str]) -> Config:
    """The config of ``sdpo train``. Raises UserError naming the field, the value and the mend."""
    for word in overrides:
        if word.lstrip("+~").startswith("hydra"):
            raise UserError(f"hydra/launcher= says how the points of a sweep are started; got {word!r} without a sweep. Add -m.")
    config = _composed("train", overrides)
    assert isinstance(config, Config)
    return config


def sweep_points(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """The words of each point of a sweep, in hydra's syntax: ``seed=1,2``, ``seed=range(1,4)``. Raises UserError elsewhere."""
    return list(product(*(choices(plain(word), Config) for word in overrides)))


def launcher_config(overrides: Sequence[str]) -> SlurmLauncherConfig | None:
    """How the points of a sweep are started; None: here, one after the other. Raises UserError where it is said wrongly."""
    register()
    with initialize_config_module("sdpo.conf", version_base=None):
        try:
            launcher = OmegaConf.to_object(compose("train", list(overrides), return_hydra_config=True).hydra.launcher)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(" ".join(str(error).split())) from error
    return launcher if isinstance(launcher, SlurmLauncherConfig) else None


def evaluate_config(overrides: Sequence[str]) -> EvaluateConfig:
    """The config of ``sdpo evaluate``. Raises UserError likewise."""
    config = _composed("evaluate", overrides)
    assert isinstance(config, EvaluateConfig)
    return config


def replay_config(overrides: Sequence[str]) -> ReplayConfig:
    """The config of ``sdpo replay``. Raises UserError likewise."""
    config = _composed("replay", overrides)
    assert isinstance(config, ReplayConfig)
    return config


def export_config(overrides: Sequence[str]) -> ExportConfig:
    """The config of ``sdpo export``. Raises UserError likewise."""
    config = _composed("export", overrides)
    assert isinstance(config, ExportConfig)
    return config


def warmup_config(overrides: Sequence[str]) -> WarmupConfig:
    """The config of ``sdpo warmup``. Raises UserError likewise."""
    config = _composed("warmup", overrides)
    assert isinstance(config, WarmupConfig)
    return config


def solve_config(overrides: Sequence[str]) -> SolveConfig:
    """The config of ``sdpo solve``. Raises UserError likewise."""
    config = _composed("solve", overrides)
    assert isinstance(config, SolveConfig)
    return config


def discovery_config(overrides: Sequence[str]) -> DiscoveryConfig:
    """The config of ``sdpo discovery``. Raises UserError likewise."""
    config = _composed("discovery", overrides)
    assert isinstance(config, DiscoveryConfig)
    return config


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """What a key is where nothing is said."""

    text: str
    """As it would be typed; empty: the key must be given."""
    home: type
    """The dataclass with that field."""


def defaults(command: str, words: Sequence[str] = ()) -> dict[str, Default]:
    """Every key of ``conf/COMMAND.yaml`` with ``words`` added: what the dataclasses say, but for what the YAML files change."""
    register()
    with initialize_config_module("sdpo.conf", version_base=None):
        return dict(_defaults(compose(command, list(words))))


def _defaults(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, Default]]:
    home = OmegaConf.get_type(config)
    assert home is not None
    for key in map(str, config):
        is_given = not OmegaConf.is_missing(config, key)
        if is_given and is_dataclass(OmegaConf.get_type(config, key)):
            yield from _defaults(config[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", Default(text=_typed(config[key]) if is_given else "", home=home)


def _typed(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Enum():
            return str(value.value)
        case float():
            return f"{value:g}"
        case ListConfig():
            return f"[{','.join(map(_typed, value))}]"
        case DictConfig():
            return f"{{{','.join(str(key) + ':' + _typed(inner) for key, inner in value.items())}}}"
        case _:
            return str(value) or "''"


def saved_config(file: Path) -> Config:
    """The config that a run has written. Raises UserError where there is none, or one of another version."""
    try:
        stored = OmegaConf.create(as_today(yaml.safe_load(file.read_text())))
        schema = OmegaConf.structured(Config)
        schema.algorithm = OmegaConf.structured(SDPOConfig() if "divergence" in stored.algorithm else GRPOConfig())
        for name in ("teacher", "support", "routing"):
            if name in stored.algorithm:
                schema.algorithm[name] = OmegaConf.structured(home_of(name, stored.algorithm[name].kind))
        schema.learner.schedule = OmegaConf.structured(home_of("schedule", stored.learner.schedule.kind))
        config = OmegaConf.to_object(OmegaConf.merge(schema, stored))
    except (OSError, OmegaConfBaseException, AttributeError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"a run's folder must hold the config it was started with; {file} is none that can be read ({reason})."
        ) from error
    assert isinstance(config, Config)
    return config


def _composed(name: str, overrides: Sequence[str]) -> object:
    register()
    words, root = [plain(word) for word in overrides], _ROOTS[name]
    with initialize_config_module("sdpo.conf", version_base=None):
        try:
            for word in words:
                refuse_old_key(word)
            return OmegaConf.to_object(compose(name, [readable(grouped(word), root) for word in words]))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_explained(name, words, error)) from error
        except ValueError as error:
            raise UserError(str(error)) from error


def _explained(name: str, overrides: Sequence[str], error: Exception) -> str:
    """Hydra's own words, less its internals; for an unknown key, with the nearest known ones."""
    unknown = _unknown_key(name, overrides)
    if unknown is not None:
        key, known = unknown
        if (kinds := homes(key)) and f"{key.rpartition('.')[0]}.kind" in known:
            return (
                f"{key} is a field of {' or '.join(kinds)} alone; the config has another kind. Choose that kind, or leave it out."
            )
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
        last = [other for other in known if other.split(".")[-1] == key.split(".")[-1]]
        nearest = list(dict.fromkeys([*last, *near]))[:3]
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else f"Known at the top: {', '.join(_tops(known))}."
        return f"a config key must exist; {key!r} does not. {hint} (sdpo/config/ has them all; --dry-run prints yours.)"
    of_ones_own = _unknown_environment(overrides, str(error))
    if of_ones_own is not None:
        return of_ones_own
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    field = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), None)
    missing = re.search(r"[Mm]issing mandatory value: (\S+)", str(cause))
    if missing:
        key = field or missing.group(1)
        return f"{key} must be given; add {key}=VALUE to the command."
    lines = lines[: next((i for i, line in enumerate(lines) if line.startswith("Config search path")), len(lines))]
    internal = ("full_key:", "object_type=", "reference_type=", "See https:")
    words = " ".join(line for line in lines if not line.startswith(internal) and not line.endswith("_schema"))
    wrong = re.search(r"Invalid value '(\w+)'", words)
    if field and wrong and (renamed := old_value(field, wrong.group(1))) is not None:
        return renamed
    return f"{field}: {words}" if field else words


def _unknown_environment(overrides: Sequence[str], error: str) -> str | None:
    """For ``env=my_env``: how an environment of one's own is named. None where something else is wrong."""
    chosen = next((word.removeprefix("env=") for word in overrides if word.startswith("env=")), None)
    if chosen is None or f"Could not find 'env/{chosen}'" not in error:
        return None
    shipped = error.partition("Available options in 'env':")[2].partition("Config search path")[0].split()
    shipped = [name for name in shipped if not name.endswith("_schema")]
    near = difflib.get_close_matches(chosen, shipped, n=1)
    own = sorted({entry.name for entry in entry_points(group=ENVIRONMENTS)} - set(shipped))
    return (
        f"env must be one of {', '.join(shipped)}; got {chosen!r}{f' (did you mean {near[0]!r}?)' if near else ''}. "
        f"An environment of your own is named with env=custom env.name={chosen}, where the name is an installed one"
        f"{' (' + ', '.join(own) + ')' if own else ''}, module:Class or path/to/file.py:Class (sdpo envs list)."
    )


def _unknown_key(name: str, overrides: Sequence[str]) -> tuple[str, list[str]] | None:
    """The first ``key=value`` whose key the config lacks, with the keys it has; None where all are known.

    Group choices (``algorithm=grpo``) are composed first, because they decide which keys there are.
    """
    assigned = [(word.split("=", 1)[0], word) for word in overrides if "=" in word]
    try:
        groups = [word for key, word in assigned if "." not in key and _is_group(name, key)]
        known = list(_keys(compose(name, groups)))
        kinds = [grouped(word) for key, word in assigned if key in known or "/" in key]
        groups += [word for word in kinds if "/" in word.partition("=")[0]]
        known = list(_keys(compose(name, groups)))
    except (HydraException, OmegaConfBaseException):
        return None
    for key, word in assigned:
        if grouped(word) not in groups and key not in known and not key.startswith((*OPEN, "hydra")):
            return key, known
    return None


def _is_group(name: str, key: str) -> bool:
    return key == "experiment" or OmegaConf.is_config(OmegaConf.select(compose(name), key, throw_on_missing=False))


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, config):
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(config, key):
            inner = config._get_node(key)
            if isinstance(inner, DictConfig) and not inner._is_none():
                yield from _keys(inner, f"{prefix}{key}.")


def _tops(known: Sequence[str]) -> list[str]:
    return [key for key in known if "." not in key]
