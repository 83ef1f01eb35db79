"""Which molecules are asked about, and on which side of the split does each stand?

Molecules are grown from small skeletons: substituents take the place of hydrogens on carbon, twice at most. So the set is the
same in every process and needs no data file. It is divided by a hash of each molecule's *scaffold*: the rings and what joins them
(Bemis and Murcko, J. Med. Chem. 39, 2887, 1996). Where there is no ring, the scaffold is the tree of all atoms with elements and
bond orders forgotten. So no held-out molecule is a training molecule with another substituent on its ring.

Left out: charges, isotopes, stereochemistry and carbons that bear two heteroatoms, as small models write them badly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b

from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from sdpo.envs.chemistry.question import Difficulty

SPLITS = ("train", "heldout")
MIN_HEAVY_ATOMS = 2
MAX_HEAVY_ATOMS = 16
MAX_OF_SMALL = 10
"""Heavy atoms that the ordinary substituents may grow a molecule to; beyond, only the large ones do."""
SHARE_OF_LARGE = 50
"""One in so many of the large molecules is kept: a sample of every scaffold, made in a second."""

SKELETONS = (
    *(
        "C",
        "CC",
        "CCC",
        "CCCC",
        "CCCCC",
        "CCCCCC",
        "CC(C)C",
        "CC(C)(C)C",
        "C=C",
        "C=CC",
        "C=CC=C",
        "CC#C",
        "COC",
        "CNC",
    ),
    *("C1CC1", "C1CCC1", "C1CCCC1", "C1CCCCC1", "C1CCOC1", "C1CCNC1", "C1CCOCC1", "C1CCNCC1"),
    *("C1CCCCCC1", "C1=CCCC1", "C1=CCCCC1", "C1CCSC1", "C1COC1", "C1CNC1", "c1cncnc1", "c1cscn1", "c1cocn1"),
    *(
        "c1ccccc1",
        "c1ccncc1",
        "c1ccoc1",
        "c1ccsc1",
        "c1cc[nH]c1",
        "c1ccc2ccccc2c1",
        "c1ccc2[nH]ccc2c1",
        "c1ccc2c(c1)CCC2",
    ),
    *("C1CCC2CCCC2C1", "C1CC2CCC1C2", "C1CC2CC1C2", "C1CC12CC2", "C1CCC12CC2"),
)
SUBSTITUENTS = ("C", "CC", "O", "N", "F", "Cl", "Br", "S", "C=O", "C#N", "C(C)=O", "C(=O)O", "C(N)=O", "OC", "C1CC1")
"""Each is bound by its first atom."""
SECOND_SUBSTITUENTS = ("C", "O", "N", "F", "Cl", "C#N", "C=O")
LARGE_SUBSTITUENTS = (
    *("c1ccccc1", "c1ccncc1", "c1ccco1", "c1cccs1", "C1CCCCC1", "C1CCCC1", "Cc1ccccc1", "N1CCOCC1"),
    *("C(=O)Nc1ccccc1", "C(=O)NC1CC1", "C(=O)OCC(C)C", "C(=O)NCC(C)O", "CCC(C)CO", "CC(C)(C)CN", "OCCOCC", "CCCC(C)=O"),
)


@cache
def molecules(split: str) -> Mapping[str, str]:
    """The canonical SMILES of ``split``, 2 to 16 heavy atoms each, in alphabetical order, to their formulas."""
    return {smiles: formula for smiles, formula in _everything().items() if split_of_molecule(smiles) == split}


@cache
def molecule(smiles: str) -> Chem.Mol:
    """One of ours, parsed once a process: half the families look at each. Never for what a model wrote."""
    return Chem.MolFromSmiles(smiles)


def difficulty_of(smiles: str) -> Difficulty:
    """By the number of heavy atoms: up to 6 easy, up to 10 medium."""
    num_atoms = molecule(smiles).GetNumAtoms()
    if num_atoms <= 6:
        return Difficulty.easy
    return Difficulty.medium if num_atoms <= MAX_OF_SMALL else Difficulty.hard


def formula_of(smiles: str) -> str:
    """The molecular formula in Hill order: ``"CCO"`` gives ``"C2H6O"``."""
    return CalcMolFormula(molecule(smiles))


def num_rings(mol: Chem.Mol) -> int:
    """The rings of a molecule: bonds - atoms + pieces. Not RDKit's set of rings, which holds 3 of the bicyclic ``C1CC2CC1C2``."""
    return int(mol.GetNumBonds() - mol.GetNumAtoms() + len(Chem.GetMolFrags(mol)))


@cache
def split_of_molecule(smiles: str) -> str:
    """The side of the split that a molecule's scaffold belongs to."""
    return split_of(scaffold_of(molecule(smiles)))


def scaffold_of(mol: Chem.Mol) -> str:
    """``"c1ccccc1"`` of toluene; ``"CCC"`` of propane, ethanol and acetaldehyde alike."""
    if num_rings(mol):
        return Chem.MolToSmiles(Chem.MurckoDecompose(mol), isomericSmiles=False)
    tree = Chem.RWMol()
    for _ in mol.GetAtoms():
        tree.AddAtom(Chem.Atom(6))
    for bond in mol.GetBonds():
        tree.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    return Chem.MolToSmiles(tree)


def split_of(key: str) -> str:
    """The side of the split that ``key`` belongs to, for good: about one key in five is held out."""
    return "heldout" if stable_hash(f"split/{key}") % 5 == 0 else "train"


def stable_hash(key: str) -> int:
    """64 bits that do not depend on the process, unlike the built-in ``hash``."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest())


@cache
def _everything() -> dict[str, str]:
    """Canonical SMILES of every molecule to its formula."""
    skeletons = [Chem.MolFromSmiles(smiles) for smiles in SKELETONS]
    grown = _distinct(skeletons)
    once = _distinct(_grow(grown.values(), SUBSTITUENTS, MAX_OF_SMALL))
    twice = _distinct(_grow(once.values(), SECOND_SUBSTITUENTS, 7))
    large = _distinct(_grow((grown | once).values(), LARGE_SUBSTITUENTS, MAX_HEAVY_ATOMS, share=SHARE_OF_LARGE))
    everything = sorted((grown | once | twice | large).items())
    return {smiles: CalcMolFormula(mol) for smiles, mol in everything if mol.GetNumAtoms() >= MIN_HEAVY_ATOMS}


def _distinct(mols: Iterable[Chem.Mol]) -> dict[str, Chem.Mol]:
    return {Chem.MolToSmiles(mol): mol for mol in mols}


def _grow(mols: Iterable[Chem.Mol], substituents: Sequence[str], max_heavy_atoms: int, share: int = 1) -> Iterator[Chem.Mol]:
    """One in ``share`` of the molecules with one hydrogen replaced by a substituent, one site of each symmetry class."""
    parts = [Chem.MolFromSmiles(smiles) for smiles in substituents]
    for mol in mols:
        sites, name = _sites(mol), Chem.MolToSmiles(mol)
        for substituent, part in zip(substituents, parts, strict=True):
            if mol.GetNumAtoms() + part.GetNumAtoms() > max_heavy_atoms:
                continue
            for site in sites:
                if share > 1 and stable_hash(f"{name}/{site}/{substituent}") % share:
                    continue
                grown = Chem.RWMol(Chem.CombineMols(mol, part))
                grown.AddBond(site, mol.GetNumAtoms(), Chem.BondType.SINGLE)
                Chem.SanitizeMol(grown)
                yield grown


def _sites(mol: Chem.Mol) -> list[int]:
    """Carbons with a hydrogen to give, but for aliphatic ones that already bear a heteroatom (no gem-diols)."""
    site_of_class: dict[int, int] = {}
    for atom, symmetry_class in zip(mol.GetAtoms(), Chem.CanonicalRankAtoms(mol, breakTies=False), strict=True):
        bears_heteroatom = any(neighbour.GetSymbol() != "C" for neighbour in atom.GetNeighbors())
        if atom.GetSymbol() == "C" and atom.GetTotalNumHs() and (atom.GetIsAromatic() or not bears_heteroatom):
            site_of_class.setdefault(symmetry_class, atom.GetIdx())
    return list(site_of_class.values())
