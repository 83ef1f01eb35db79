"""What do the words behind an environment's name mean? Settings of the command, and options of the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from sdpo.errors import UserError

OPTIONS_PREFIX = "env.options."
"""As in ``sdpo train``: always an option of the environment, also where the command has a setting of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """``key=value`` words, told apart."""

    settings: Mapping[str, str]
    """Those whose keys the command knows, as they were written."""
    options: Mapping[str, object]
    """All others, read as YAML: ``timeout_s=5``, ``families=[rings,formula]``, ``size.width=3``."""

    def count(self, key: str, default: int, least: int) -> int:
        """A setting that is a whole number."""
        text = self.settings.get(key, str(default))
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
            raise UserError(f"{key} must be a whole number of at least {least}; got {text!r}")
        return int(text)

    def seconds(self, key: str, default: float) -> float:
        """A setting that is a time."""
        text = self.settings.get(key, f"{default:g}")
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", text) or float(text) <= 0.0:
            raise UserError(f"{key} must be a positive number of seconds; got {text!r}")
        return float(text)

    def flag(self, key: str) -> bool:
        text = self.settings.get(key, "false")
        if text not in ("true", "false"):
            raise UserError(f"{key} must be true or false; got {text!r}")
        return text == "true"


def told_apart(words: Sequence[str], settings: Sequence[str]) -> Words:
    """``settings``: the keys that the command knows. Raises UserError for a word that is no ``key=value``."""
    own: dict[str, str] = {}
    options: dict[str, object] = {}
    for word in words:
        key, equals, text = word.partition("=")
        path = key.removeprefix(OPTIONS_PREFIX).split(".")
        if not equals or not all(part.isidentifier() for part in path):
            known = f"the command's own: {', '.join(settings)}" if settings else "an option of the environment"
            raise UserError(f"a word behind the environment's name must read key=value ({known}); got {word!r}")
        if key in settings:
            own[key] = text
        else:
            _put(options, path, _value(word, text), word)
    return Words(settings=own, options=options)


def _put(options: dict[str, object], path: Sequence[str], value: object, word: str) -> None:
    """``a.b=1`` is ``{"a": {"b": 1}}``, as in hydra."""
    for part in path[:-1]:
        within = options.setdefault(part, {})
        if not isinstance(within, dict):
            raise UserError(f"an option is either a value or has parts of its own; {part!r} would be both in {word!r}")
        options = within
    options[path[-1]] = value


def _value(word: str, text: str) -> object:
    if not text:
        return ""  # as hydra reads it
    try:
        value: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the value of an option must be YAML, as in key=[a, b]; got {word!r} ({reason}): quote it") from error
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)  # YAML 1.1 takes 1e-3 for text; hydra, which reads the options of a run, does not
    return value
