"""One word for one thing, and the field's where it has one: the words that were given up are no names any more."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sdpo.metrics import METRICS

ROOT = Path(__file__).parent.parent
GIVEN_UP = {
    "lesson": "sample",
    "anchor": "old or reference log-probabilities",
    "voice": "teacher model",
    "heard": "teacher hidden states",
    "mood": "mode",
    "twin": "EMA copy",
    "tally": "loss statistics",
    "tallies": "loss statistics",
    "shipment": "weight payload",
    "seat": "placement",
    "seating": "placement",
    "look": "evaluation",
    "shelter": "background sink",
    "sheltered": "background sink",
    "farewell": "preStop hook",
    "chatter": "process output",
    "tell": "on_event",
}
FOLDERS = ("sdpo", "envs", "tests", "benchmarks")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def names(tree: ast.AST) -> Iterator[str]:
    """Everything that the file gives a name to or calls by one."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.alias(name=name):
                yield from name.split(".")


def given_up(name: str) -> set[str]:
    """The words in ``name`` that nobody uses any more; test functions are sentences, where words have their everyday sense."""
    if name.startswith("test_"):
        return set()
    parts = {part.lower() for part in _PART.findall(name)}
    return {word for word in GIVEN_UP if {word, f"{word}s"} & parts}


def keys(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from keys(value)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_name_in_the_code_has_a_word_that_was_given_up(folder: str) -> None:
    found = {
        f"{file.relative_to(ROOT)}: {name} (say {', '.join(GIVEN_UP[word] for word in words)})"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for name in {*names(ast.parse(file.read_text())), file.stem}
        if (words := given_up(name))
    }
    assert not found, "\n".join(sorted(found))


def test_neither_has_a_key_of_the_config_nor_a_metric() -> None:
    for file in (ROOT / "conf").rglob("*.yaml"):
        for key in keys(yaml.safe_load(file.read_text())):
            assert not given_up(key), f"{file.relative_to(ROOT)}: {key}"
    assert not [name for name in METRICS if given_up(name)]


def test_a_word_within_another_is_another() -> None:
    assert not given_up("installed_seats_of".replace("seats_of", "totally"))
    assert not given_up("ProcessLookupError")
    assert given_up("_seats_of") == {"seat"}
    assert given_up("LookAt") == {"look"}
