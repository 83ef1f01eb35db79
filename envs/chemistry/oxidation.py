"""Who has the electrons? The family ``oxidation_state``: of an element in a formula, on hard of one carbon in a molecule.

In formulas the others have the states of school rules (``STATES``) and the sum is zero. In molecules each bond's electrons
go to the more electronegative atom (IUPAC, Pure Appl. Chem. 88, 831, 2016); sulfur counts as more electronegative than carbon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rdkit import Chem

from sdpo.envs.answers import CLOSE, OPEN
from sdpo.envs.chemistry.answers import Unreadable, read_signed
from sdpo.envs.chemistry.molecules import difficulty_of, molecule, molecules, split_of, stable_hash
from sdpo.envs.chemistry.question import RIGHT, Difficulty, Judgement, unreadable, wrong
from sdpo.envs.chemistry.selection import take_evenly
from sdpo.envs.chemistry.substances import Ion, composition, salt

STATES: Mapping[str, int] = {
    **{"F": -1, "Cl": -1, "O": -2, "H": 1, "Mg": 2, "Ca": 2, "Ba": 2, "Sr": 2, "Zn": 2, "Al": 3},
    **dict.fromkeys(("Li", "Na", "K", "Rb", "Cs", "Ag"), 1),
}
BINARY = {
    "C": "CO CO2 CCl4 CF4",
    "N": "N2O NO NO2 N2O3 N2O5 N2O4 NH3 N2H4 NF3",
    "S": "SO2 SO3 SF4 SF6 H2S SCl2 S2Cl2",
    "P": "P4O6 P4O10 PCl3 PCl5 PH3 PF5",
    "Cl": "Cl2O ClO2 Cl2O7 ClF ClF3",
    "Br": "BrF BrF3 BrF5",
    "I": "ICl ICl3 IF5 IF7 I2O5",
    "Xe": "XeF2 XeF4 XeF6 XeO3",
    "Mn": "MnO MnO2 Mn2O3 Mn2O7 MnCl2",
    "Fe": "FeO Fe2O3 FeCl2 FeCl3",
    "Cr": "CrO CrO3 Cr2O3 CrCl3 CrCl2",
    "V": "VO V2O3 VO2 V2O5 VCl4",
    "Ti": "TiO2 TiCl4 TiCl3 Ti2O3",
    "Pb": "PbO PbO2 PbCl2 PbCl4",
    "Sn": "SnO SnO2 SnCl2 SnCl4",
    "Cu": "Cu2O CuO CuCl CuCl2",
    "Os": "OsO4 OsO2",
    "W": "WO3 WCl6",
    "Re": "ReO3 Re2O7",
    "U": "UO2 UO3 UF4 UF6",
    "As": "As2O3 As2O5 AsH3 AsF5",
    "Sb": "Sb2O3 Sb2O5 SbCl3 SbF5",
    "Se": "SeO2 SeO3 SeF6 H2Se",
    "B": "B2O3 BF3 BCl3",
    "Si": "SiO2 SiCl4 SiF4",
    "Bi": "Bi2O3 BiCl3",
    "Co": "CoO Co2O3 CoCl2 CoF3",
    "Mo": "MoO2 MoO3 MoCl5",
}
"""The element asked for, to compounds with one other element, whose state is known."""
OXOANIONS = {
    "Mn": "MnO4:-1 MnO4:-2",
    "Cr": "CrO4:-2 Cr2O7:-2",
    "S": "SO4:-2 SO3:-2 HSO4:-1 HSO3:-1 S2O3:-2 S2O7:-2",
    "N": "NO3:-1 NO2:-1",
    "Cl": "ClO:-1 ClO2:-1 ClO3:-1 ClO4:-1",
    "Br": "BrO3:-1 BrO4:-1",
    "I": "IO3:-1 IO4:-1",
    "P": "PO4:-3 H2PO4:-1 HPO4:-2 P2O7:-4 PO3:-1",
    "C": "CO3:-2 HCO3:-1 C2O4:-2",
    "V": "VO3:-1 VO4:-3",
    "Mo": "MoO4:-2",
    "W": "WO4:-2",
    "Se": "SeO4:-2 SeO3:-2",
    "As": "AsO4:-3 AsO3:-3",
    "B": "BO3:-3 B4O7:-2",
    "Si": "SiO3:-2 SiO4:-4",
    "Fe": "FeO4:-2",
    "Re": "ReO4:-1",
    "Sn": "SnO3:-2",
}
MORE_ELECTRONEGATIVE = frozenset({"N", "O", "F", "S", "Cl", "Br", "I"})
"""Elements more electronegative than carbon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormulaStateQuestion:
    """What is the oxidation state of ``element`` in ``formula``?"""

    element: str
    formula: str
    difficulty: Difficulty

    @property
    def key(self) -> str:
        return f"{self.element} in {self.formula}"

    @property
    def prompt(self) -> str:
        return f"What is the oxidation state of {self.key} ? Answer with one integer and its sign, like {OPEN}-12{CLOSE}."

    @property
    def reference(self) -> str:
        return f"{_state_of(self.element, self.formula):+d}"

    def judge(self, answer: str) -> Judgement:
        state = read_signed(answer, _names_of(self.element))
        if isinstance(state, Unreadable):
            return unreadable(state)
        right = int(self.reference)
        if state == right:
            return RIGHT
        others = ", ".join(
            f"{element} ({STATES[element]:+d} each)" for element in composition(self.formula) if element != self.element
        )
        return wrong(
            f"With {state:+d} for {self.element} the states of all atoms add up to {'more' if state > right else 'less'} than 0, "
            f"the charge of {self.formula}; the others are {others}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonStateQuestion:
    """What is the oxidation state of the carbon that bears the number 1 in ``smiles``?"""

    smiles: str
    """With a map number: ``"C[CH2:1]O"``."""

    @property
    def key(self) -> str:
        return self.smiles

    @property
    def difficulty(self) -> Difficulty:
        return Difficulty.hard

    @property
    def prompt(self) -> str:
        return (
            f"What is the oxidation state of the carbon atom marked :1 in the molecule with the SMILES {self.smiles} ? "
            f"Answer with one integer and its sign, like {OPEN}-12{CLOSE}."
        )

    @property
    def reference(self) -> str:
        state = _state_of_carbon(_marked(molecule(self.smiles)))
        return f"{state:+d}" if state else "0"

    def judge(self, answer: str) -> Judgement:
        state = read_signed(answer, _names_of("C"))
        if isinstance(state, Unreadable):
            return unreadable(state)
        right = int(self.reference)
        if state == right:
            return RIGHT
        carbon = _marked(molecule(self.smiles))
        around = [neighbour.GetSymbol() for neighbour in carbon.GetNeighbors()] + ["H"] * carbon.GetTotalNumHs()
        return wrong(
            f"{state:+d} is too {'high' if state > right else 'low'}. The carbon is bonded to {', '.join(sorted(around))}: each "
            "hydrogen takes 1 off, each bond to a more electronegative atom adds its order, a bond to carbon does nothing."
        )


def oxidation_state_questions(split: str, limit: int) -> list[FormulaStateQuestion | CarbonStateQuestion]:
    formulas = [question for question in _of_formulas() if split_of(question.formula) == split]
    carbons = list(_of_carbons(split))
    return [
        *take_evenly(formulas, limit, kind=lambda question: question.reference),
        *take_evenly(carbons, limit, kind=lambda question: question.reference),
    ]


def _of_formulas() -> Iterator[FormulaStateQuestion]:
    for element, formulas in BINARY.items():
        for formula in formulas.split():
            yield FormulaStateQuestion(element=element, formula=formula, difficulty=Difficulty.easy)
    for element, anions in OXOANIONS.items():
        for formula, charge in (anion.split(":") for anion in anions.split()):
            for metal, state in STATES.items():
                if state > 0 and not (metal == "H" and formula.startswith("H")):
                    made = salt(Ion(formula=metal, charge=state), Ion(formula=formula, charge=int(charge)))
                    yield FormulaStateQuestion(element=element, formula=made, difficulty=Difficulty.medium)


def _of_carbons(split: str) -> Iterator[CarbonStateQuestion]:
    """One carbon each of the larger molecules: of those that bear another element, where there are any."""
    for smiles in molecules(split):
        if difficulty_of(smiles) is Difficulty.easy:
            continue
        mol = Chem.Mol(molecule(smiles))
        carbons = [atom for atom in mol.GetAtoms() if atom.GetSymbol() == "C" and not atom.GetIsAromatic()]
        bearing = [atom for atom in carbons if any(other.GetSymbol() != "C" for other in atom.GetNeighbors())] or carbons
        if bearing:
            bearing[stable_hash(f"carbon/{smiles}") % len(bearing)].SetAtomMapNum(1)
            yield CarbonStateQuestion(smiles=Chem.MolToSmiles(mol))


def _state_of(element: str, formula: str) -> int:
    counts = composition(formula)
    others = sum(STATES[other] * count for other, count in counts.items() if other != element)
    assert others % counts[element] == 0, f"{element} in {formula} has no whole oxidation state"
    return -others // counts[element]


def _names_of(element: str) -> tuple[str, ...]:
    """What an answer may put before the state: ``"Mn(VII)"``, ``"manganese(VII)"``."""
    table = Chem.GetPeriodicTable()
    name: str = table.GetElementName(table.GetAtomicNumber(element))
    return element, name, name.lower()


def _marked(mol: Chem.Mol) -> Chem.Atom:
    (atom,) = [atom for atom in mol.GetAtoms() if atom.GetAtomMapNum() == 1]
    return atom


def _state_of_carbon(carbon: Chem.Atom) -> int:
    """The oxidation state of a carbon outside aromatic rings, where the order of bonds would be a matter of drawing."""
    bonds: list[tuple[str, int]] = [
        (bond.GetOtherAtom(carbon).GetSymbol(), round(bond.GetBondTypeAsDouble())) for bond in carbon.GetBonds()
    ]
    return sum(order for symbol, order in bonds if symbol in MORE_ELECTRONEGATIVE) - int(carbon.GetTotalNumHs())
