"""``sdpo envs new NAME``: an installable package with a complete environment, its test and its entry point."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from sdpo.envs import registry
from sdpo.errors import UserError

MAX_NAME_CHARS = 40
TEMPLATES = {
    "pyproject.toml": "pyproject.toml.template",
    "README.md": "README.md.template",
    "src/$name/__init__.py": "environment.py.template",
    "tests/test_$name.py": "test.py.template",
}
"""Each file of the package, and the template that it comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What was written."""

    folder: Path
    module: Path
    """The file to edit."""


def write_package(name: str, folder: Path) -> Package:
    """A package ``name`` in a new ``folder``, whole or not at all. Raises UserError for a name or folder that will not do."""
    _refuse_name(name)
    folder = folder.expanduser()
    if folder.exists() or folder.is_symlink():
        raise UserError(
            f"the folder of a new environment must not exist yet; {folder} does: name another, as in sdpo envs new NAME FOLDER"
        )
    words = {"name": name, "class_name": class_name(name)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as unfinished:
            draft = Path(unfinished) / "draft"
            for place, template in TEMPLATES.items():
                file = draft / Template(place).substitute(words)
                file.parent.mkdir(parents=True, exist_ok=True)
                text = files("sdpo.environments").joinpath("template", template).read_text()
                file.write_text(Template(text).substitute(words))
            draft.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} must be a place where files can be written; it is not ({error}): name another") from error
    return Package(folder=folder, module=folder / "src" / name / "__init__.py")


def class_name(name: str) -> str:
    """``"word_sums"`` to ``"WordSums"``."""
    return "".join(word.capitalize() for word in name.split("_"))


def _refuse_name(name: str) -> None:
    rule = "the name of an environment must be that of a new Python package"
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > MAX_NAME_CHARS:
        raise UserError(
            f"{rule}: at most {MAX_NAME_CHARS} lower-case letters, digits and single underscores, a letter first; "
            f"got {name!r}: try word_sums"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or class_name(name) in ("Message", "Role", "Task", "Verdict"):
        raise UserError(f"{rule}; {name!r} is a word of Python's or of the interface: choose another")
    if name in registry.available():
        raise UserError(f"{rule}; an environment {name!r} is installed already (sdpo envs list): choose another")
    if name in sys.stdlib_module_names or _is_package(name):
        raise UserError(f"{rule}; a module {name!r} can be imported already, and would be hidden or hide yours: choose another")


def _is_package(name: str) -> bool:
    """Something that ``import`` finds; a mere folder of that name here is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None
