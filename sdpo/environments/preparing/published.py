"""The published files of a set of tasks, from a folder or the hub. From there they come once and stay in its cache."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from sdpo.environments.preparing.rows import Published, Recipe
from sdpo.envs.code.formats.rows import read_rows
from sdpo.errors import UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


def published_files(name: str, recipe: Recipe, given: str | None) -> list[Path]:
    """``given``: a folder, or a dataset's id; None: where the set is published. Raises UserError where no file of it is there."""
    folder = _folder(name, recipe, given)
    for alternative in recipe.patterns:
        files = sorted({file for pattern in alternative for file in folder.rglob(pattern) if file.is_file()})
        if files:
            return files
    raise UserError(f"{name} is prepared from files called {recipe.files}; {folder} has none. Name another from=.")


def published_rows(files: Sequence[Path]) -> Iterator[Published]:
    """Raises ValueError with file and line for what is no row at all."""
    for file in files:
        for row in read_rows(str(file), "train"):
            yield Published(file=file, row=row)


def _folder(name: str, recipe: Recipe, given: str | None) -> Path:
    if given is not None:
        folder = Path(given).expanduser()
        if folder.is_dir():
            return folder
        if folder.exists() or not _HUB_ID.fullmatch(given):
            raise UserError(f"from= must be a folder with the published files, or a dataset's id on the hub; got {given!r}.")
        return _fetched(given, recipe)
    if recipe.hub is None:
        raise UserError(f"{name} is not on the hub; give from=FOLDER with {recipe.files} in it (docs/experiments.md has whose).")
    return _fetched(recipe.hub, recipe)


def _fetched(dataset: str, recipe: Recipe) -> Path:
    import huggingface_hub  # takes a second to import, and is of no use where there is no network

    try:
        names = [pattern for alternative in recipe.patterns for pattern in alternative]
        anywhere = [*names, *(f"**/{name}" for name in names)]
        return Path(huggingface_hub.snapshot_download(dataset, repo_type="dataset", allow_patterns=anywhere))
    except Exception as error:  # of many kinds, the network's among them
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"the dataset {dataset} must be fetched from the hub; that failed ({type(error).__name__}: {reason}). Check the "
            "network and your access, or fetch its files elsewhere and give from=FOLDER."
        ) from error
