"""Is this SMILES a molecule, and if not, what does RDKit have against it?

A molecule here is one neutral piece of common elements, closed-shell and without isotopes. Anything looser would let a formula or
a bound be met by what no chemist would call an answer (``C.C.C``, ``[CH2][CH2]``).

Charges on its atoms are read where the molecule cannot be written without: isocyanides, nitro groups, N-oxides, azides, diazo
groups, ylides, betaines. A canonical SMILES takes any other form with charges for another molecule, so that one is refused.

RDKit says what is wrong with a SMILES only in its log. The log is sent to Python's ``rdkit`` logger (once a process). A filter
there picks up what is said in this thread while it parses; all other messages still reach standard error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from rdkit import Chem, rdBase

from sdpo.envs.chemistry.answers import Unreadable

MAX_CHARACTERS = 200
MAX_ATOMS = 40
"""Most atoms, counted before RDKit looks for rings; four times what any question here needs."""
MAX_RING_DIGITS = 30
"""Most ring digits outside brackets, two a ring. Checked before RDKit sees the text, as is the next."""
MAX_NESTING = 12
"""Most levels of nested branches."""
MAX_MESSAGES = 4
"""A syntax error and its position, twice; RDKit may go on for pages."""
MAX_FORMS = 20
"""Most resonance forms that are looked at."""
ELEMENTS = frozenset({"H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I"})

_LABEL = re.compile(r"(?:smiles|answer|product|molecule|isomer|precursors|reactants) ?(?::|=|\bis\b|\s)\s*", re.IGNORECASE)
_BETWEEN = re.compile(r" ?[.,;] ?| (?:\+|&|and) | ")
"""What people put between two SMILES."""
_FOREIGN_CHARACTER = re.compile(r"[^A-Za-z0-9@+\-\[\]()=#:/\\.%]")
_BRACKET = re.compile(r"\[[^\[\]]*\]")
_NUMBERED = re.compile(r"\[[^\[\]]*:[^\[\]]*\]")
_TIMESTAMP = re.compile(r"^\[[0-9:]+\] ")
_ECHO = re.compile(r" (?:while parsing|for input): .*", re.DOTALL)

_overheard: ContextVar[list[str] | None] = ContextVar("rdkit_messages", default=None)


def read_molecule(answer: str) -> Chem.Mol | Unreadable:
    """The molecule that a SMILES of at most 200 characters stands for, or what is wrong with it."""
    answer = without_label(answer)
    if len(answer) > MAX_CHARACTERS:
        return Unreadable(f"The answer is too long for a SMILES: at most {MAX_CHARACTERS} characters are read.")
    foreign = _FOREIGN_CHARACTER.search(answer)
    if foreign is not None:
        return Unreadable(f"The answer is not a SMILES: the character {foreign[0]!a} has no place in it.")
    objection = _objection_to_text(answer)
    if objection is not None:
        return Unreadable(objection)
    with _rdkit_messages() as messages:
        draft = Chem.MolFromSmiles(answer, sanitize=False)
        if draft is None:
            return _refused(messages)
        objection = _objection_to_draft(draft)
        if objection is not None:
            return Unreadable(objection)
        problems = [problem.Message() for problem in Chem.DetectChemistryProblems(draft)]
        if problems:
            return _refused(problems)
        mol = Chem.MolFromSmiles(answer)
        if mol is None:
            return _refused(messages)
    objection = _objection_to_molecule(mol)
    return mol if objection is None else Unreadable(objection)


def read_molecules(answer: str, num_molecules: int) -> list[Chem.Mol] | Unreadable:
    """The molecules of a SMILES with dots between them, where so many were asked for."""
    parts = _BETWEEN.split(" ".join(without_label(answer).split()))
    if len(parts) != num_molecules:
        return Unreadable(f"{num_molecules} molecules are needed, separated by a dot; the answer has {len(parts)}.")
    mols = []
    for number, part in enumerate(parts, start=1):
        mol = read_molecule(part) if part else Unreadable("It is empty.")
        if isinstance(mol, Unreadable):
            return Unreadable(f"Molecule {number} of {num_molecules}: {mol.reason}")
        mols.append(mol)
    return mols


def without_label(answer: str) -> str:
    """``"SMILES: CCO"`` gives ``"CCO"``."""
    label = _LABEL.match(answer)
    return answer if label is None else answer[label.end() :]


def parse(smiles: str) -> Chem.Mol | None:
    """The molecule of a short SMILES of our own making, None where it is none; nothing is logged."""
    with _rdkit_messages():
        return Chem.MolFromSmiles(smiles)


def _objection_to_text(smiles: str) -> str | None:
    """What would cost RDKit time or stack without being a small molecule."""
    depth = deepest = 0
    for character in smiles:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        return f"The SMILES nests its branches too deeply: {deepest} levels, and at most {MAX_NESTING} are read."
    num_digits = len(re.findall("[0-9]", _BRACKET.sub("", smiles)))
    if num_digits > MAX_RING_DIGITS:
        return f"The SMILES has too many ring closures: {num_digits} digits, and at most {MAX_RING_DIGITS} are read."
    if _NUMBERED.search(smiles) is not None:  # RDKit would tell [CH3:1] from C
        return "Atoms must not be numbered, as [CH3:1] is; write the SMILES without."
    return None


def _objection_to_draft(draft: Chem.Mol) -> str | None:
    """What can be told before valences and rings are worked out."""
    num_atoms = draft.GetNumAtoms()
    if num_atoms == 0:
        return "The SMILES holds no atoms."
    if num_atoms > MAX_ATOMS:
        return f"The molecule is far too large: it has {num_atoms} atoms, and at most {MAX_ATOMS} are read."
    foreign = sorted({atom.GetSymbol() for atom in draft.GetAtoms()} - ELEMENTS)
    if foreign:
        return f"Only common elements (such as C, H, N, O, S and halogens) are read; it holds {', '.join(foreign)}."
    if len(Chem.GetMolFrags(draft)) > 1:
        return "The answer must be one connected molecule; the SMILES has several pieces, separated by dots."
    return None


def _objection_to_molecule(mol: Chem.Mol) -> str | None:
    if Chem.GetFormalCharge(mol) != 0:
        return f"The molecule must be neutral; its charge is {Chem.GetFormalCharge(mol):+d}."
    for atom in mol.GetAtoms():
        if atom.GetNumRadicalElectrons():
            return f"The molecule must not be a radical; an atom {atom.GetSymbol()} has too few bonds or hydrogens."
        if atom.GetIsotope():
            return f"The molecule must not be labelled with isotopes; an atom {atom.GetSymbol()} is."
    return _objection_to_charges(mol)


def _objection_to_charges(mol: Chem.Mol) -> str | None:
    """What is wrong with the charges of a neutral molecule. A form without charges is asked for only where there is one."""
    charged = [atom for atom in mol.GetAtoms() if atom.GetFormalCharge()]
    if not charged:
        return None
    if _can_be_written_without_charges(mol, charged):
        return f"Its charges are needless: an atom {charged[0].GetSymbol()} bears one. Write the form without charges."
    for atom in charged:
        if not _is_usual_charge(atom):
            return (
                f"An atom {atom.GetSymbol()} bears a charge. Charges are read only where chemists cannot do without: in "
                "isocyanides, nitro groups, N-oxides, azides, diazo groups, ylides and betaines. Write another molecule."
            )
    return None


def _can_be_written_without_charges(mol: Chem.Mol, charged: list[Chem.Atom]) -> bool:
    """Whether a proton, a pair of electrons or a double bond moved takes charges away."""
    bases = [atom for atom in charged if atom.GetFormalCharge() < 0 and atom.GetSymbol() != "B"]
    acids = [atom for atom in charged if atom.GetFormalCharge() > 0]
    if bases and any(atom.GetTotalNumHs() and atom.GetSymbol() != "C" for atom in acids):
        return True
    neighbours = {other.GetIdx() for base in bases for other in base.GetNeighbors()}
    if any(atom.GetIdx() in neighbours and atom.GetSymbol() in ("C", "Si", "P", "S") for atom in acids):
        return True
    with _rdkit_messages():
        forms = [form for form in Chem.ResonanceMolSupplier(mol, 0, MAX_FORMS) if form is not None]
    remaining = ([atom for atom in form.GetAtoms() if atom.GetFormalCharge()] for form in forms)
    return any(len(atoms) < len(charged) and all(map(_is_usual_charge, atoms)) for atoms in remaining)


def _is_usual_charge(atom: Chem.Atom) -> bool:
    return _is_onium(atom) or _is_anion(atom)


def _is_onium(atom: Chem.Atom) -> bool:
    """Whether it is N+, O+, P+ or S+ beside an anion, or has single and aromatic bonds only, as in a betaine."""
    if atom.GetFormalCharge() != 1 or atom.GetSymbol() not in ("N", "O", "P", "S"):
        return False
    if any(other.GetFormalCharge() < 0 for other in atom.GetNeighbors()):
        return True
    return atom.GetSymbol() != "O" and all(bond.GetIsAromatic() or bond.GetBondTypeAsDouble() == 1 for bond in atom.GetBonds())


def _is_anion(atom: Chem.Atom) -> bool:
    """Whether it is N-, O- or S-, or the C- of an isocyanide or an ylide."""
    if atom.GetFormalCharge() != -1:
        return False
    is_beside = any(other.GetFormalCharge() > 0 for other in atom.GetNeighbors())
    return atom.GetSymbol() in ("N", "O", "S") or (atom.GetSymbol() == "C" and is_beside)


def _refused(messages: list[str]) -> Unreadable:
    """RDKit's own words, less its echo of the SMILES."""
    said = [_ECHO.sub("", _TIMESTAMP.sub("", message)).removeprefix("SMILES Parse Error: ") for message in messages]
    # The echo and the caret under it are lines of their own: only what is said in words is kept.
    said = [" ".join(line.rstrip(" :").split()) for line in said if " " in line and "Failed parsing" not in line]
    reason = "; ".join(list(dict.fromkeys(said))[:MAX_MESSAGES]) or "it cannot be parsed"
    numbering = " (atoms are numbered from 0)" if "atom" in reason else ""
    return Unreadable(f"The SMILES is not valid. RDKit: {reason}{numbering}.")


@contextmanager
def _rdkit_messages() -> Iterator[list[str]]:
    """What RDKit logs in this thread meanwhile, which then goes nowhere else."""
    _route_log()
    messages: list[str] = []
    token = _overheard.set(messages)
    try:
        yield messages
    finally:
        _overheard.reset(token)


@cache
def _route_log() -> None:
    rdBase.LogToPythonLogger()
    logging.getLogger("rdkit").addFilter(_overhear)


def _overhear(record: logging.LogRecord) -> bool:
    """A logging filter: False where the message was wanted here."""
    messages = _overheard.get()
    if messages is None:
        return True
    messages.append(record.getMessage())
    return False
