"""How does a name in a config or on a command line become an object: one of ours, an installed package's, or a file's?

A seam is a table of names. Ours stand in it as ``module:object``, so that nothing is imported before it is used. An installed
package adds to it by an entry point; a module or a file is named as ``module:object`` or ``path/to/file.py:object``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from hashlib import blake2b
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

_MISSING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam:
    """The names that a key may have."""

    what: str
    """A word for one of them, for errors: "divergence"."""
    group: str
    """The group of entry points that adds to them: "sdpo.divergences"."""
    built_in: Mapping[str, str]
    """Ours: name to ``module:object``."""

    def names(self) -> tuple[str, ...]:
        """Ours in their order, then those of installed packages."""
        return (*self.built_in, *sorted(_registered(self.group).keys() - self.built_in.keys()))

    def check(self, key: str, name: str) -> None:
        """Raise ValueError where ``name``, the value of ``key``, names nothing; what it names is not imported."""
        place, colon, _ = name.rpartition(":")
        if (colon and place) or name in self.built_in or name in self.names():
            return
        known = f"be one of {', '.join(self.names())}, or " if self.names() else ""
        raise ValueError(
            f"{key} must {known}name a {self.what} as module:object or path/to/file.py:object; got "
            f"{name!r}{near(name, self.names())}."
        )

    def load(self, name: str) -> object:
        """What ``name`` stands for. Raises ValueError, as a sentence, where it cannot be had."""
        spec = self.built_in.get(name) or _registered(self.group).get(name, name)
        self.check(self.what, spec)
        place, _, attribute = spec.rpartition(":")
        module = imported(place, f"{self.what} {name!r}")
        found: object = module
        for part in attribute.split("."):
            found = getattr(found, part, _MISSING)
        if found is _MISSING:
            raise ValueError(
                f"{self.what} {name!r} must name an object of {place}; there is no {attribute!r} in it: correct the name"
            )
        return found


def made(make: object, who: str, *arguments: object, **options: object) -> object:
    """What ``make``, a class or function, returns; None where it is neither. ``who`` asks, in the words of an error.

    Raises ValueError, as a sentence, where it raises.
    """
    if not callable(make):
        return None
    try:
        return make(*arguments, **options)
    except Exception as error:
        raise ValueError(f"{who} must be made by calling {make!r}; that raised {describe(error)}: correct it") from error


@cache
def _registered(group: str) -> Mapping[str, str]:
    """What installed packages add: name to ``module:object``. Looked up once a process."""
    return {entry.name: entry.value for entry in entry_points(group=group)}


def imported(place: str, who: str) -> ModuleType:
    """The module or the file ``place``; ``who`` asks for it, in the words of an error. Raises ValueError, as a sentence."""
    return _imported_file(Path(place), who) if place.endswith(".py") else _imported_module(place, who)


def anywhere(spec: str) -> str:
    """``spec`` with a file's path made absolute: it then means the same in a process that was started in another folder."""
    place, colon, name = spec.rpartition(":")
    return f"{Path(place).expanduser().resolve()}:{name}" if colon and place.endswith(".py") else spec


def _imported_module(name: str, who: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(
            f"{who} must stand in a module that can be imported; importing {name!r} raised {describe(error)}: "
            "correct the name, or install what it needs"
        ) from error


def _imported_file(path: Path, who: str) -> ModuleType:
    """The file as a module, once a process; its name follows from its path, so that objects travel between workers.

    It may import the modules beside it, now and later. Installed ones of the same name come first.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"{who} must name an existing Python file; there is none at {path}: correct the path")
    name = f"sdpo_env_{path.stem}_{blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(
            f"{who} must stand in a file that can be imported; {path} raised {describe(error)}: "
            "correct the file, or install what it needs"
        ) from error
    return module


def describe(error: Exception) -> str:
    """Class and text of an error."""
    return f"{type(error).__name__}: {error}"


def near(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that ``word`` may have meant; empty where none is near."""
    found = get_close_matches(word, list(known), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def short(name: str) -> str:
    """A name for a folder or a title: of ``path/to/file.py:object`` the object."""
    return name.rpartition(":")[2]
