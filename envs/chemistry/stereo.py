"""The family ``stereocentres``: how many stereocentres a molecule has, and on hard which of R and S each is.

The count is only asked where two notions of a stereocentre agree: RDKit's, and that of four neighbours which all differ. A ring
whose centres depend on each other (1,4-dimethylcyclohexane) is not asked about. R and S follow the rules of Cahn, Ingold and
Prelog as ``rdCIPLabeler`` has them (Hanson et al., J. Chem. Inf. Model. 58, 1755, 2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from rdkit import Chem
from rdkit.Chem import rdCIPLabeler

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.answers import Unreadable, read_count, read_letters
from sdpo.envs.chemistry.molecules import difficulty_of, molecule, molecules, split_of_molecule, stable_hash
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.selection import draw, take_evenly

ENDS = ("C", "CC", "CCC", "C(C)C", "C=C", "c1ccccc1", "C1CC1", "C1CCCCC1", "CO", "CCl", "C#N", "C(N)=O")
SIDES = ("O", "N", "F", "Cl", "Br", "S", "OC", "C")
LINKS = ("", "C", "CC", "C(=O)", "OC")
MAX_LOOKED_AT = 1000
"""Molecules a split: to find stereocentres takes longer than anything else here."""
SHARE_OF_PAIRS = 100
"""One in so many of the molecules with two marked centres is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CentresQuestion:
    """How many carbons of ``smiles`` are stereocentres?"""

    smiles: str

    @property
    def key(self) -> str:
        return self.smiles

    @property
    def difficulty(self) -> Difficulty:
        return Difficulty.easy if difficulty_of(self.smiles) is Difficulty.easy else Difficulty.medium

    @property
    def prompt(self) -> str:
        return (
            "How many stereocentres (carbon atoms bonded to four different groups) are in the molecule with the SMILES "
            f"{self.smiles} ? Answer with one integer, like {OPEN}12{CLOSE}."
        )

    @property
    def reference(self) -> str:
        return str(len(_asymmetric_carbons(molecule(self.smiles))))

    def judge(self, answer: str) -> Judgement:
        count = read_count(answer, "stereocentre stereocenter stereogenic chiral asymmetric centre center carbon atom")
        if isinstance(count, Unreadable):
            return unreadable(count)
        surplus = count - int(self.reference)
        if surplus == 0:
            return RIGHT
        if surplus > 0:
            return wrong(
                f"{count} is too high: a carbon with a double bond, in an aromatic ring, with two hydrogens or with two equal "
                "branches is no stereocentre."
            )
        return wrong(f"{count} is too low: follow the groups on each tetrahedral carbon outwards until two of them differ.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsQuestion:
    """Is each marked centre of ``smiles`` R or S, from left to right?"""

    smiles: str

    @property
    def key(self) -> str:
        return self.smiles

    @property
    def difficulty(self) -> Difficulty:
        return Difficulty.hard

    @property
    def prompt(self) -> str:
        return (
            "Is each stereocentre (each atom marked @ or @@) of this molecule R or S? From left to right in the SMILES "
            f"{self.smiles} . Answer with the letters, separated by commas, like {OPEN}R,S,S,R{CLOSE}."
        )

    @property
    def reference(self) -> str:
        return ", ".join(label for _, label in _labels(molecule(self.smiles)))

    def judge(self, answer: str) -> Judgement:
        """Which label is wrong is not said: with two letters to choose from, that would be the answer."""
        letters = read_letters(answer)
        if isinstance(letters, Unreadable):
            return unreadable(letters)
        labels = _labels(molecule(self.smiles))
        if len(letters) != len(labels):
            return wrong(f"{len(labels)} letters are needed, one for each marked centre; the answer has {len(letters)}.")
        if letters == tuple(label for _, label in labels):
            return RIGHT
        first = labels[0][0]
        around = ", ".join(sorted([neighbour.GetSymbol() for neighbour in first.GetNeighbors()] + ["H"] * first.GetTotalNumHs()))
        return wrong(
            "Not every letter is right. Rank the four neighbours of each centre (those of the first: "
            f"{around}) by atomic number, ties by what comes next, and look with the lowest pointing away."
        )


def stereocentre_questions(split: str, limit: int) -> list[CentresQuestion | LabelsQuestion]:
    looked_at = draw(molecules(split), key=lambda smiles: f"centres/{smiles}")[:MAX_LOOKED_AT]
    counts = [CentresQuestion(smiles=smiles) for smiles in looked_at if _is_undisputed(molecule(smiles))]
    labels = [LabelsQuestion(smiles=smiles) for smiles in sorted(set(_with_two_centres(split)))]
    return [
        *take_evenly(counts, limit, kind=lambda question: question.reference),
        *take_evenly(labels, limit, kind=lambda question: question.reference),
    ]


def _with_two_centres(split: str) -> Iterator[str]:
    """Chains with two marked carbons, each with a hydrogen, in all four ways to mark them."""
    for parts in product(ENDS, SIDES, LINKS, SIDES, ENDS):
        name = "/".join(parts)
        if stable_hash(name) % SHARE_OF_PAIRS:
            continue
        start, side, link, other_side, end = parts
        marks = ("@", "@@")
        first, second = marks[stable_hash(f"first/{name}") % 2], marks[stable_hash(f"second/{name}") % 2]
        # The start is written last, as a branch: as a fragment it is bound by its first atom.
        drawn = f"[C{first}H]({start.replace('1', '3')})({side}){link}[C{second}H]({other_side}){end}"
        smiles = Chem.MolToSmiles(Chem.MolFromSmiles(drawn))
        if len(_labels(molecule(smiles))) == 2 and split_of_molecule(smiles) == split:
            yield smiles


def _labels(mol: Chem.Mol) -> list[tuple[Chem.Atom, str]]:
    """The marked atoms, in the order of the SMILES, with R or S each."""
    labelled = Chem.Mol(mol)
    rdCIPLabeler.AssignCIPLabels(labelled)
    return [(atom, atom.GetProp("_CIPCode")) for atom in labelled.GetAtoms() if atom.HasProp("_CIPCode")]


def _asymmetric_carbons(mol: Chem.Mol) -> set[int]:
    """The carbons whose four neighbours, a hydrogen among them or not, differ from each other."""
    ranks = list(Chem.CanonicalRankAtoms(mol, breakTies=False))
    return {
        atom.GetIdx()
        for atom in mol.GetAtoms()
        if atom.GetSymbol() == "C" and atom.GetTotalDegree() == 4 and atom.GetTotalNumHs() <= 1
        if len({ranks[neighbour.GetIdx()] for neighbour in atom.GetNeighbors()}) == atom.GetDegree()
    }


def _is_undisputed(mol: Chem.Mol) -> bool:
    tetrahedral = Chem.StereoType.Atom_Tetrahedral
    return {info.centeredOn for info in Chem.FindPotentialStereo(mol) if info.type == tetrahedral} == _asymmetric_carbons(mol)
