"""A second reader of SMILES, without RDKit: for what the tests compute once more.

It reads what the tasks of ``chemistry`` are written in: neutral atoms, rings of one digit, branches, map numbers and @ marks.
Hydrogens are filled up by valence. An aromatic carbon or nitrogen lends one valence to its ring.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(r"\[([A-Za-z][a-z]?)(@{0,2})(H[0-9]?)?(?::([0-9]+))?\]|(Cl|Br|[BCNOPSFIbcnops])|([-=#:])|([()])|([0-9])")
VALENCES = {"B": 3, "C": 4, "N": 3, "O": 2, "P": 3, "S": 2, "F": 1, "Cl": 1, "Br": 1, "I": 1}
MASSES = {"H": 1.008, "B": 10.81, "C": 12.011, "N": 14.007, "O": 15.999, "F": 18.998, "S": 32.06, "Cl": 35.45, "Br": 79.904}


@dataclass
class Atom:
    symbol: str
    is_aromatic: bool
    hydrogens: int | None
    map_number: int
    bonds: dict[int, int] = field(default_factory=dict)
    """Other atoms by their place to the bond's order; aromatic bonds count 1."""


@dataclass
class Molecule:
    atoms: list[Atom]
    num_closures: int

    @property
    def formula(self) -> dict[str, int]:
        symbols = [atom.symbol for atom in self.atoms] + ["H"] * sum(atom.hydrogens or 0 for atom in self.atoms)
        return {symbol: symbols.count(symbol) for symbol in set(symbols)}

    def neighbours(self, atom: Atom) -> list[tuple[Atom, int]]:
        return [(self.atoms[place], order) for place, order in atom.bonds.items()]


def read(smiles: str) -> Molecule:
    assert "".join(token[0] for token in _TOKEN.finditer(smiles)) == smiles
    atoms: list[Atom] = []
    branches: list[int] = []
    opened: dict[str, tuple[int, int]] = {}
    previous, order, num_closures = -1, 0, 0
    for symbol, _, hydrogens, number, bare, bond, parenthesis, digit in _TOKEN.findall(smiles):
        if symbol or bare:
            written = symbol or bare
            fixed = None if bare else int(hydrogens[1:] or bool(hydrogens))
            atoms.append(Atom(written.capitalize(), written.islower(), fixed, int(number or 0)))
            if previous >= 0:
                _bind(atoms, previous, len(atoms) - 1, order or 1)
            previous, order = len(atoms) - 1, 0
        elif bond:
            order = "-=#".find(bond) + 1
        elif parenthesis == "(":
            branches.append(previous)
        elif parenthesis:
            previous = branches.pop()
        elif digit in opened:
            start, start_order = opened.pop(digit)
            _bind(atoms, start, previous, max(order, start_order, 1))
            order, num_closures = 0, num_closures + 1
        else:
            opened[digit], order = (previous, order), 0
    assert not opened
    assert not branches
    for atom in atoms:
        if atom.hydrogens is None:
            used = sum(atom.bonds.values()) + atom.is_aromatic * (atom.symbol in ("C", "N"))
            atom.hydrogens = max(VALENCES[atom.symbol] - used, 0)
    return Molecule(atoms, num_closures)


def _bind(atoms: list[Atom], one: int, other: int, order: int) -> None:
    atoms[one].bonds[other] = order
    atoms[other].bonds[one] = order
