"""What do inorganic formulas consist of? Compositions, molar masses, and salts put together from ions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from rdkit import Chem

_TOKEN = re.compile(r"([A-Z][a-z]?)([0-9]*)|\(([A-Za-z0-9]+)\)([0-9]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ion:
    """``charge`` is positive for a cation; ``formula`` has no charge in it."""

    formula: str
    charge: int

    @property
    def is_compound(self) -> bool:
        """Whether it needs parentheses when there are several."""
        return sum(composition(self.formula).values()) > 1


def _ions(table: str) -> dict[str, Ion]:
    pairs = (entry.split(":") for entry in table.split())
    return {formula: Ion(formula=formula, charge=int(charge)) for formula, charge in pairs}


CATIONS = _ions("Na:1 K:1 Li:1 Mg:2 Ca:2 Ba:2 Sr:2 Zn:2 Cu:2 Ni:2 Al:3 Fe:3 Cr:3")
ANIONS = _ions("F:-1 Cl:-1 Br:-1 I:-1 NO3:-1 ClO3:-1 SO4:-2 CO3:-2 PO4:-3 OH:-1 O:-2 S:-2")


def salt(cation: Ion, anion: Ion) -> str:
    """The neutral formula of two ions: ``"Al2(SO4)3"``."""
    divisor = gcd(cation.charge, -anion.charge)
    return _several(cation, -anion.charge // divisor) + _several(anion, cation.charge // divisor)


def acid(anion: Ion) -> str:
    """``"H2SO4"`` of sulfate."""
    return ("H" if anion.charge == -1 else f"H{-anion.charge}") + anion.formula


def composition(formula: str) -> Mapping[str, int]:
    """The count of each element, parentheses multiplied out: ``"Ca(OH)2"`` gives ``{"Ca": 1, "O": 2, "H": 2}``."""
    counts: dict[str, int] = {}
    for element, count, inner, times in _TOKEN.findall(formula):
        part = composition(inner) if inner else {element: 1}
        for symbol, number in part.items():
            counts[symbol] = counts.get(symbol, 0) + number * int((times if inner else count) or 1)
    return counts


def molar_mass(formula: str) -> float:
    """In g/mol, with standard atomic weights."""
    table = Chem.GetPeriodicTable()
    return sum(float(table.GetAtomicWeight(element)) * count for element, count in composition(formula).items())


def _several(ion: Ion, count: int) -> str:
    if count == 1:
        return ion.formula
    return f"({ion.formula}){count}" if ion.is_compound else f"{ion.formula}{count}"
