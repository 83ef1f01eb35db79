"""What is a command of ``sdpo``, to the one who calls it and to the one who asks for help?"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sdpo.errors import UserError
from sdpo.forkserver.marks import mark

QUIET: Mapping[str, str] = {"--quiet": "quiet=true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command. Nothing is imported before it is called: a typo should not cost ten seconds."""

    usage: str
    """Its lines in the overview, with what they mean; the first begins with ``sdpo NAME``."""
    run: str
    """``module:function``, which returns the exit code. It gets the words, or the config and the words that were composed."""
    composes: str | None = None
    """The function of ``sdpo.config.compose`` that makes a config of the words; None: it takes words alone."""
    gets_words: bool = False
    """Whether it takes the words too where it takes a config."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """Flags that stand for a key's value."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Flags with which another ``module:function`` gets the other words."""
    starts_actors: bool = False
    """Whether it starts actors on this machine, so that imports begin before the config is read."""
    stands: str = ""
    """What is left of it where it was interrupted: the end of a sentence."""
    config: str = ""
    """The file in ``conf/`` that it composes, for help; empty: it takes no keys."""
    words: tuple[str, ...] = ()
    """What is composed with it, for help."""
    keys: tuple[str, ...] = ()
    """Those that are used most, for help."""
    options: tuple[tuple[str, str], ...] = ()
    """What it takes besides keys, and what that means."""

    @classmethod
    def broken(cls, why: str, name: str) -> Command:
        """One of an installed package that cannot be loaded."""
        return cls(usage=f"  sdpo {name}  cannot be loaded: {why}\n", run="")

    def call(self, words: Sequence[str]) -> int:
        """Returns the exit code. Raises UserError."""
        if not self.run:
            raise UserError(f"a command must be one that can be loaded;{self.usage.rstrip()}. Mend or remove the package.")
        for flag, function in self.instead.items():
            if flag in words:
                return int(_loaded(function)([self.flags.get(word, word) for word in words if word != flag]))
        meant = [self.flags.get(word, word) for word in words]
        if self.composes is None:
            return int(_loaded(self.run)(meant))
        config = _loaded(f"sdpo.config.compose:{self.composes}")(meant)
        mark("config")
        run = _loaded(self.run)
        return int(run(config, meant) if self.gets_words else run(config))


def _loaded(name: str) -> Callable[..., int]:
    module, _, attribute = name.partition(":")
    found: Callable[..., int] = getattr(importlib.import_module(module), attribute)
    return found
