"""A SMILES with a slip of the pen: the family ``repair`` asks for what was meant.

The slip is one character, lost, added or changed, and the prompt says which of the three. An answer is right if it is a valid
SMILES that one character put back, taken out or changed gives. No atom may come, go or turn into another element. Often several
are right, and all of them count, in any writing of the molecule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from rdkit import Chem

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.answers import Unreadable
from sdpo.envs.chemistry.formulas import difference
from sdpo.envs.chemistry.isomers import constitution
from sdpo.envs.chemistry.molecules import difficulty_of, molecule, molecules
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.selection import draw, take_evenly
from sdpo.envs.chemistry.smiles import parse, read_molecule, without_label

MARKS = "()[]=#123456789"
"""The characters of a SMILES, as we write them, that are no atoms."""


class Slip(str, Enum):
    """What happened to one character."""

    lost = "lost"
    added = "added"
    changed = "changed"


REMEDIES = {Slip.lost: "putting one back", Slip.added: "taking one out", Slip.changed: "changing one"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairQuestion:
    """``broken`` was ``reference`` before the slip."""

    broken: str
    slip: Slip
    fault: str
    """What a reader of SMILES would call it, for counting: ``"ring left open"``."""
    reference: str

    @property
    def key(self) -> str:
        return self.broken

    @property
    def difficulty(self) -> Difficulty:
        return difficulty_of(self.reference)

    @property
    def prompt(self) -> str:
        return (
            f"The SMILES {self.broken} is not valid: one character of it was {self.slip.value} by mistake. Repair it by "
            f"{REMEDIES[self.slip]}, so that it is valid and every atom other than hydrogen stays the element it is. "
            f"Answer with the repaired SMILES, like {OPEN}CCCCCCCCCCCCO{CLOSE}."
        )

    def judge(self, answer: str) -> Judgement:
        answer = without_label(answer)
        if answer == self.broken:
            return unreadable(Unreadable(f"This is the broken SMILES unchanged: {_hint(self.fault)}."))
        mol = read_molecule(answer)
        if isinstance(mol, Unreadable):
            return unreadable(Unreadable(f"Still broken. {mol.reason}"))
        if answer in _undone(self.broken, self.slip) or constitution(mol) in repairs(self.broken, self.slip):
            return RIGHT
        off = difference(_elements(mol), _elements(molecule(self.reference)))
        if off:
            return wrong(f"It is valid, but its atoms are not those of {self.broken}: {off}.")
        return wrong(
            f"It is valid and has the right atoms, but {REMEDIES[self.slip]} in {self.broken} does not give it: "
            f"{_hint(self.fault)}, and change nothing else."
        )


@lru_cache(maxsize=4096)
def repairs(broken: str, slip: Slip) -> frozenset[str]:
    """The constitutions, as canonical SMILES, that undoing one such slip can give."""
    mols = ((text, parse(text)) for text in dict.fromkeys(_undone(broken, slip)))
    return frozenset(constitution(mol) for text, mol in mols if mol is not None and _is_whole(mol))


def repair_questions(split: str, limit: int) -> list[RepairQuestion]:
    return take_evenly(_candidates(split), limit, kind=lambda question: question.fault)


def _candidates(split: str) -> Iterator[RepairQuestion]:
    """A molecule, broken in one of the ways that break it."""
    for smiles in molecules(split):
        for slip, fault, broken in draw(_slips(smiles), key=lambda way: f"{smiles}/{way[2]}"):
            if parse(broken) is None:
                yield RepairQuestion(broken=broken, slip=slip, fault=fault, reference=smiles)
                break


def _slips(smiles: str) -> Iterator[tuple[Slip, str, str]]:
    """Ways to break ``smiles``, a few of each kind; not all of them do."""
    places = [place for place in range(len(smiles)) if smiles[:place].count("[") == smiles[:place].count("]")]
    for place in places:
        without, character = smiles[:place] + smiles[place + 1 :], smiles[place]
        if character.isdigit():
            yield Slip.lost, "ring left open", without
        elif character == "(":
            yield Slip.lost, "branch never opened", without
        elif character == ")":
            yield Slip.lost, "branch never closed", without
        elif character == "C" and smiles[place + 1 : place + 2] != "l":
            yield Slip.changed, "aromatic atom outside an aromatic ring", f"{smiles[:place]}c{smiles[place + 1 :]}"
            yield Slip.added, "atom with too many bonds", f"{smiles[:place]}={smiles[place:]}"


def _undone(broken: str, slip: Slip) -> Iterator[str]:
    """Every text that one character put back, taken out or changed makes of ``broken``, its atoms left as they are."""
    if slip is Slip.lost:
        yield from (broken[:place] + mark + broken[place:] for place in range(len(broken) + 1) for mark in MARKS)
        return
    for place, character in enumerate(broken):
        before, after = broken[:place], broken[place + 1 :]
        if slip is Slip.changed:
            yield before + character.swapcase() + after
        if character in MARKS:
            yield from [before + after] if slip is Slip.added else (before + mark + after for mark in MARKS)


def _is_whole(mol: Chem.Mol) -> bool:
    return not any(atom.GetNumRadicalElectrons() or atom.GetFormalCharge() for atom in mol.GetAtoms())


def _elements(mol: Chem.Mol) -> dict[str, int]:
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms() if atom.GetSymbol() != "H"]
    return {symbol: symbols.count(symbol) for symbol in dict.fromkeys(symbols)}


def _hint(fault: str) -> str:
    return {
        "ring left open": "a ring digit stands alone, each has to stand twice",
        "branch never opened": "a parenthesis closes that was never opened",
        "branch never closed": "a parenthesis opens that is never closed",
        "aromatic atom outside an aromatic ring": "a lower-case atom stands where no aromatic ring is",
        "atom with too many bonds": "an atom has more bonds than its valence allows",
    }[fault]
