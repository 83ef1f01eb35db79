"""The table of docs/algorithm.md names every option and preset, with the defaults and settings that they have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import pytest

from sdpo.config import FullSupport, GRPOConfig, SDPOConfig
from sdpo.config.compose import _typed, train_config
from sdpo.config.routing import ROUTINGS
from sdpo.config.teacher import EmaTeacher, ExternalTeacher, TrustRegionTeacher, teacher_class

ROOT = Path(__file__).parent.parent.parent
HEAD = "| option | default | formula | source | where it departs |"
PRESETS = sorted(file.stem for file in (ROOT / "conf" / "algorithm").glob("*.yaml"))
LEFT_TO_OTHER_PAGES = {"hindsight", "teacher"}
"""Groups of which the page names the fields that change what is minimised; learner.md and concepts.md have the others."""


@cache
def rows() -> dict[str, str]:
    """The default of each option, and what each preset sets, as they are written."""
    lines = (ROOT / "docs" / "algorithm.md").read_text().partition(HEAD)[2].splitlines()[2:]
    cells = [line.strip("|").split("|") for line in lines[: lines.index("")]]
    assert all(len(row) == 5 for row in cells), [row[0] for row in cells if len(row) != 5]
    names = [row[0].strip().strip("`") for row in cells]
    assert len(set(names)) == len(names)
    return {name: row[1].strip() for name, row in zip(names, cells, strict=True)}


def leaves(config: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key with its value as it would be typed."""
    assert is_dataclass(config)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        elif isinstance(value, list):
            yield f"{prefix}{field.name}", f"[{','.join(value)}]"
        elif not isinstance(value, dict):
            yield f"{prefix}{field.name}", _typed(value)


def known() -> dict[str, str]:
    """Every key of the algorithms with its default, those of all kinds included."""
    found = {**dict(leaves(EmaTeacher(), "teacher.")), **dict(leaves(TrustRegionTeacher(), "teacher."))}
    return {**found, **dict(leaves(SDPOConfig()))}


def settings(preset: str) -> dict[str, str]:
    """What it sets otherwise than its class, and than the class of each kind that it chooses."""
    needs = ["algorithm.teacher.path=somewhere"] if preset == "gkd" else []
    algorithm = train_config([f"algorithm={preset}", *needs]).algorithm
    base = dict(leaves(SDPOConfig() if isinstance(algorithm, SDPOConfig) else GRPOConfig()))
    if isinstance(algorithm, SDPOConfig):
        teacher, support, routing = algorithm.teacher, algorithm.support, algorithm.routing
        of_kind = (
            ExternalTeacher(path="somewhere") if isinstance(teacher, ExternalTeacher) else teacher_class(teacher.kind)(),
            FullSupport() if isinstance(support, FullSupport) else SDPOConfig().support,
            ROUTINGS[routing.kind](),
        )
        chosen = {f"{name}.kind": base[f"{name}.kind"] for name in ("teacher", "support", "routing")}
        for name, kind in zip(("teacher", "support", "routing"), of_kind, strict=True):
            base = {key: value for key, value in base.items() if not key.startswith(f"{name}.")} | dict(leaves(kind, f"{name}."))
        base |= chosen
    return {key: value for key, value in leaves(algorithm) if base.get(key) != value and key != "name"}


def test_the_table_has_every_preset_and_no_other() -> None:
    assert sorted(name.removeprefix("algorithm=") for name in rows() if "=" in name) == PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_what_the_table_says(preset: str) -> None:
    written = dict(pair.split("=", 1) for pair in re.findall(r"`([^`]+)`", rows()[f"algorithm={preset}"]))
    assert written == settings(preset)


def test_the_table_has_every_option_with_its_default() -> None:
    written = {name: text.strip("`") for name, text in rows().items() if "=" not in name}
    defaults = known()
    assert written == {name: defaults.get(name) for name in written}
    missing = {name for name in defaults if name not in written and name.split(".")[0] not in LEFT_TO_OTHER_PAGES}
    assert missing == {"name"}
