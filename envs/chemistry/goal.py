"""A goal of the user's own: a molecule within bounds that a file gives, which nobody may know an answer to.

``{"bounds": {"weight": [180, 220], "rings": [1, 2], "logp": [null, 3]}}``, and if wanted ``"goal"``: a sentence that is put
before the bounds. The properties are those of the family ``bounds``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.bounds import ACCEPTORS, DONORS, HEAVY_ATOMS, LOGP, RINGS, WEIGHT, Bound, BoundsQuestion
from sdpo.envs.chemistry.question import Difficulty, Judgement

PROPERTIES: Mapping[str, str] = {
    "weight": WEIGHT,
    "logp": LOGP,
    "heavy_atoms": HEAVY_ATOMS,
    "donors": DONORS,
    "acceptors": ACCEPTORS,
    "rings": RINGS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Write a molecule within all ``bounds``. No answer is known."""

    sentence: str
    bounds: tuple[Bound, ...]

    @property
    def key(self) -> str:
        return "; ".join([self.sentence, *map(_in_words, self.bounds)])

    @property
    def difficulty(self) -> Difficulty:
        return Difficulty.hard

    @property
    def reference(self) -> str:
        """None is known."""
        return ""

    @property
    def prompt(self) -> str:
        begin = f"{self.sentence.strip()} " if self.sentence.strip() else ""
        bounds = "; ".join(map(_in_words, self.bounds))
        return f"{begin}Write a molecule within these bounds. {bounds}. Answer with one SMILES, like {OPEN}CCCCCCCCCCCCO{CLOSE}."

    def judge(self, answer: str) -> Judgement:
        return BoundsQuestion(bounds=self.bounds, reference="").judge(answer)


def read_goal(path: str) -> Goal:
    """Raises ValueError for a file that is none."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"a goal must be a JSON file that can be read; {path}: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("bounds"), dict) or not record["bounds"]:
        raise ValueError(
            f'{path} must hold {{"bounds": {{"weight": [180, 220], …}}}}, and if wanted a "goal" in words; it has none'
        )
    sentence = record.get("goal", "")
    if not isinstance(sentence, str):
        raise ValueError(f"{path}: goal must be a sentence; got {sentence!r}")
    return Goal(sentence=sentence, bounds=tuple(_bound(path, name, ends) for name, ends in record["bounds"].items()))


def _bound(path: str, name: str, ends: object) -> Bound:
    if name not in PROPERTIES:
        raise ValueError(f"{path}: a bound must be of one of {', '.join(PROPERTIES)}; got {name!r}")
    is_pair = isinstance(ends, list) and len(ends) == 2
    low, high = ends if isinstance(ends, list) and is_pair else (True, True)
    numbers = [-inf if low is None else low, inf if high is None else high]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in numbers) or not any(map(isfinite, numbers)):
        raise ValueError(f"{path}: {name} must be [lowest, highest], at most one of them null; got {ends!r}")
    if not numbers[0] <= numbers[1]:
        raise ValueError(f"{path}: {name} must be [lowest, highest] in that order; got {ends!r}")
    return Bound(property=PROPERTIES[name], low=float(numbers[0]), high=float(numbers[1]))


def _in_words(bound: Bound) -> str:
    if bound.low == -inf:
        return f"{bound.property}: at most {bound.high:g}"
    if bound.high == inf:
        return f"{bound.property}: at least {bound.low:g}"
    return str(bound)
