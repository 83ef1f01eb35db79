"""Does a model's folder hold its weights? A clone without git-lfs holds pointers, and a download that broke off holds a part."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sdpo.errors import UserError

_POINTER = b"version https://git-lfs"
_POINTER_BYTES = 1024
_WHOLE = ("model.safetensors", "pytorch_model.bin")
"""What transformers loads by itself; with ``.index.json`` behind it, the list of the parts."""


def refuse_missing_weights(folder: Path) -> None:
    """Raises UserError for pointers in place of files, and for weights that are not there or are cut off."""
    for file in sorted(folder.iterdir()):
        if _is_pointer(file):
            raise UserError(
                f"model.path must hold the model's own files; {file} is a pointer of git-lfs. Run `git lfs pull` in {folder}, or "
                "download the model again."
            )
    for file in _weights(folder):
        if not file.is_file():
            raise UserError(f"model.path must hold the model's weights; {file} is missing. Download the model again.")
        if file.suffix == ".safetensors" and (why := _unreadable(file)):
            raise UserError(f"model.path must hold whole weights; {file} cannot be read ({why}). Download the model again.")


def _weights(folder: Path) -> list[Path]:
    """The files that transformers would load. Raises UserError where it would find none."""
    for name in _WHOLE:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"model.path must hold the model's weights; their list {index} cannot be read ({error}). Download the model "
                    "again."
                ) from error
            return [folder / str(part) for part in parts]
    names = ", ".join(f"{name}, {name}.index.json" for name in _WHOLE)
    raise UserError(
        f"model.path must hold the model's weights; {folder} has none of {names}. Download the model again, or name its folder."
    )


def _is_pointer(file: Path) -> bool:
    if not file.is_file() or file.stat().st_size >= _POINTER_BYTES:
        return False
    with file.open("rb") as stream:
        return stream.read(len(_POINTER)) == _POINTER


def _unreadable(file: Path) -> str:
    """What safetensors says against a file's header and length; empty: nothing."""
    try:
        with safe_open(file, framework="numpy"):
            return ""
    except (OSError, SafetensorError) as error:
        return str(error).partition("\n")[0]
