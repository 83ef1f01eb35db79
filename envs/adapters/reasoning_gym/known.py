"""Which datasets of reasoning-gym cannot be used, have no reference answer, or are easily fooled? Measured on version 0.1.25."""

from __future__ import annotations

from collections.abc import Mapping

VERSION = "0.1.25"

REFUSED: Mapping[str, str] = {
    "composite": "it mixes other datasets and has none by default; name one of those instead",
    "game_of_life_halting": "its scorer gives any answer that is not empty full marks",
}
"""Dataset to why it is no environment here."""

NEEDING: Mapping[str, str] = {"zebra_puzzles": "pycosat"}
"""Dataset to a package of its own that has to be compiled, and may so be missing."""

_RULES = "its scorer checks an answer against the puzzle's rules"
WITHOUT_REFERENCE: Mapping[str, str] = {
    "boxnet": _RULES,
    "graph_color": _RULES,
    "propositional_logic": _RULES,
    "rubiks_cube": _RULES,
    "rush_hour": _RULES,
}
"""Datasets that give no answer of their own, so that nothing proves here that a right one scores 1."""

NOT_REPEATABLE: Mapping[str, str] = {
    "codeio": "it runs other people's code to make its puzzles, and a few in a hundred come out differently in every process",
}
"""Datasets that may make other tasks when a run is resumed; they are served with a warning."""

EASILY_FOOLED: Mapping[str, str] = {
    "coin_flip": "with its default config most answers are so small that 0 is right within its scorer's tolerance",
    "puzzle24": "its scorer does not look at which four numbers were given: 4*6*1*1 solves every puzzle",
}
"""Datasets that a policy can solve without solving them; they are served with a warning."""
