"""What does a command take? Answers ``sdpo --help``, ``sdpo COMMAND --help`` and ``sdpo --version``, at once.

A default and the words about it are stated once: both are read from the dataclasses of ``sdpo/config/``. What ``conf/`` changes
in a default is added. Neither torch nor Ray is imported for it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from sdpo import __version__
from sdpo.commands.command import Command
from sdpo.commands.table import commands

HEAD = """\
usage: sdpo COMMAND [KEY=VALUE ...]
       sdpo help COMMAND                the keys that COMMAND takes, with their defaults; or sdpo COMMAND --help
       sdpo --version
"""
FOOT = """\
Keys are hydra's: groups (algorithm=, model=, env=, learner=, rollout=, cluster=, tracking=, experiment=) and single values
(batch.group_size=4). sdpo/config/ documents every one.
"""

_WIDTH = 110


def answer(words: Sequence[str]) -> str | None:
    """What such a command line asks for, to be printed; None where it asks about a command that does not exist."""
    if not words or words[0] in ("-h", "--help") or list(words) == ["help"]:
        return overview()
    if words[0] == "--version":
        return f"{__version__}\n"
    command = words[1] if words[0] == "help" else words[0]
    return page(command) if command in commands() else None


def overview() -> str:
    """All commands, each with its usage."""
    lines = "".join(command.usage for command in commands().values())
    return f"{HEAD}\n{lines}\n{FOOT}"


def page(command: str) -> str:
    """Its usage, its groups with their choices, and its most used keys with their defaults."""
    about = commands()[command]
    parts = ["usage:\n" + about.usage.rstrip()]
    if about.options:
        parts.append("Options:\n" + _columns(about.options))
    if about.config:
        groups = list(_groups(about))
        if groups:
            parts.append("Groups, as GROUP=CHOICE, with the default and the other choices:\n" + _columns(groups))
        parts.append(_title(about) + "\n" + _columns(_keys(about)))
    return "\n\n".join(parts) + "\n"


def _title(about: Command) -> str:
    from sdpo.config.compose import defaults

    num_others = len(defaults(about.config, about.words)) - len(about.keys)
    where = f"; sdpo/config/ documents {num_others} more" if num_others > 0 else ""
    return f"Keys, as KEY=VALUE, with their defaults{where}:"


def _groups(about: Command) -> Iterator[tuple[str, str]]:
    """Each with the choice that is its default, and the others."""
    conf = Path(str(files("sdpo.conf")))
    chosen = dict(word.split("=") for word in about.words)
    for entry in yaml.safe_load((conf / f"{about.config}.yaml").read_text())["defaults"]:
        if isinstance(entry, str):
            continue
        ((group, default),) = entry.items()
        default = chosen.get(group, default)
        choices = sorted(file.relative_to(conf / group).with_suffix("").as_posix() for file in (conf / group).rglob("*.yaml"))
        others = [choice for choice in choices if choice != default and "/settings/" not in choice]  # those are parts of others
        named = f"{group}={default}" if default is not None else f"{group}="
        yield named, ", ".join(others) or "(no other)"


def _keys(about: Command) -> Iterator[tuple[str, str]]:
    from sdpo.config.compose import defaults

    known = defaults(about.config, about.words)
    for key in about.keys:
        default = known[key]
        yield f"{key}={default.text}" if default.text else f"{key}=… (required)", words_about(default.home, key.split(".")[-1])


@cache
def words_about(home: type, name: str) -> str:
    """The first sentence that stands below the field in the dataclass which declares it; empty where none does."""
    for declaring in home.__mro__[:-1]:
        body = ast.parse(textwrap.dedent(inspect.getsource(declaring))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, [*body.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == name:
                is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                text = str(ast.literal_eval(below.value)) if is_text and isinstance(below, ast.Expr) else ""
                sentence = " ".join(text.replace("``", "").split()).partition(". ")[0].removesuffix(".")
                return sentence.replace("None:", "null:")  # as it is typed
    return ""


def _columns(rows: Sequence[tuple[str, str]] | Iterator[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(name) for name, _ in rows) + 4
    lines = []
    for name, text in rows:
        first = f"  {name}".ljust(width)
        lines += textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=" " * width, break_on_hyphens=False) or [
            first.rstrip()
        ]
    return "\n".join(lines)
