"""The names that transformers' models define, kept in a file: else each import reads the files of all its models.

Reading them takes 0.6 s of a core, in the server that imports for engine and learner and again in the command itself. The index
is that of transformers' own ``define_import_structure``, for one version at one place; a package that its user edits has none.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from sdpo.run.cache import cache_folder
from sdpo.run.files import write_whole

Structure = dict[frozenset[str], dict[str, set[str]]]
"""Names by module, by the packages that they need."""
_DEFINES, _FUNCTION = "transformers.utils.import_utils", "define_import_structure"


def keep_index() -> None:
    """Have the next import of transformers in this process find the index, or leave it for the one after."""
    if "transformers" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Waits for one module, and is gone once it comes."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _DEFINES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            loader, run = spec.loader, spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                setattr(module, _FUNCTION, _once(module, getattr(module, _FUNCTION)))

            loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _once(module: ModuleType, define: Callable[..., Structure]) -> Callable[..., Structure]:
    """``define`` for the one call that is about all models; whoever asks the module for it afterwards gets it as it was."""

    def defined(folder: Path, prefix: str | None = None) -> Structure:
        if prefix != "models":
            return define(folder, prefix)
        setattr(module, _FUNCTION, define)
        file = _file(Path(folder))
        if file is None:
            return define(folder, prefix)
        with suppress(OSError, ValueError, AttributeError, TypeError):
            return _read(file.read_text())
        structure = define(folder, prefix)
        with suppress(OSError):
            _write(file, structure)
        return structure

    return defined


def _file(models: Path) -> Path | None:
    """The file of the index of this version at this place; None where the package may change under the same version."""
    from importlib import metadata

    package = metadata.distribution("transformers")
    if package.read_text("direct_url.json") is not None:
        return None
    place = hashlib.sha256(f"{models} {models.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    return cache_folder() / "imports" / f"transformers-{package.version}-{place}.json"


def _read(text: str) -> Structure:
    return {frozenset(needs): {module: set(names) for module, names in modules.items()} for needs, modules in json.loads(text)}


def _write(file: Path, structure: Structure) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [(sorted(needs), {module: sorted(names) for module, names in modules.items()}) for needs, modules in structure.items()]
    write_whole(file, json.dumps(rows))
