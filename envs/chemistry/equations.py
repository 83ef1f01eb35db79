"""Which reaction equations are asked about, and which whole numbers balance them?

Most are put together from ions, acids and fuels; the redox ones of ``REDOX`` are textbook reactions. The coefficients are
computed, never typed: the null space of the element counts, which has to have one dimension (the tests see to it).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import gcd, lcm

from sdpo.envs.chemistry.molecules import split_of
from sdpo.envs.chemistry.question import Difficulty
from sdpo.envs.chemistry.substances import ANIONS, CATIONS, acid, composition, salt

MAX_EASY, MAX_MEDIUM = 3, 6
"""The largest coefficient of an easy and of a medium equation."""
REDOX = (
    "KMnO4 + HCl -> KCl + MnCl2 + Cl2 + H2O",
    "K2Cr2O7 + HCl -> KCl + CrCl3 + Cl2 + H2O",
    "Cu + HNO3 -> Cu(NO3)2 + NO + H2O",
    "Zn + HNO3 -> Zn(NO3)2 + N2O + H2O",
    "Mg + HNO3 -> Mg(NO3)2 + NH4NO3 + H2O",
    "Ag + HNO3 -> AgNO3 + NO + H2O",
    "Fe + HNO3 -> Fe(NO3)3 + NO2 + H2O",
    "P + HNO3 -> H3PO4 + NO2 + H2O",
    "S + HNO3 -> H2SO4 + NO2 + H2O",
    "I2 + HNO3 -> HIO3 + NO2 + H2O",
    "C + HNO3 -> CO2 + NO2 + H2O",
    "Cu + H2SO4 -> CuSO4 + SO2 + H2O",
    "FeS2 + O2 -> Fe2O3 + SO2",
    "NH3 + O2 -> NO + H2O",
    "NH3 + NO -> N2 + H2O",
    "Ca3(PO4)2 + SiO2 + C -> CaSiO3 + CO + P4",
    "Cl2 + NaOH -> NaCl + NaClO3 + H2O",
    "Br2 + KOH -> KBr + KBrO3 + H2O",
    "P4 + NaOH + H2O -> NaH2PO2 + PH3",
    "KMnO4 + FeSO4 + H2SO4 -> K2SO4 + MnSO4 + Fe2(SO4)3 + H2O",
    "K2Cr2O7 + FeSO4 + H2SO4 -> K2SO4 + Cr2(SO4)3 + Fe2(SO4)3 + H2O",
    "KMnO4 + Na2C2O4 + H2SO4 -> K2SO4 + Na2SO4 + MnSO4 + CO2 + H2O",
    "K2Cr2O7 + KI + H2SO4 -> K2SO4 + Cr2(SO4)3 + I2 + H2O",
    "KIO3 + KI + H2SO4 -> K2SO4 + I2 + H2O",
    "MnO2 + HCl -> MnCl2 + Cl2 + H2O",
    "PbO2 + HCl -> PbCl2 + Cl2 + H2O",
    "KClO3 + HCl -> KCl + Cl2 + H2O",
    "NaCrO2 + Br2 + NaOH -> Na2CrO4 + NaBr + H2O",
    "H2S + HNO3 -> S + NO + H2O",
    "SO2 + KMnO4 + H2O -> K2SO4 + MnSO4 + H2SO4",
    "As2O3 + HNO3 + H2O -> H3AsO4 + NO",
    "Fe3O4 + H2 -> Fe + H2O",
    "Fe3O4 + CO -> Fe + CO2",
    "Al + Fe3O4 -> Al2O3 + Fe",
    "Al + NH4ClO4 -> Al2O3 + AlCl3 + NO + H2O",
    "PCl5 + H2O -> H3PO4 + HCl",
    "P4O10 + H2O -> H3PO4",
    "B2H6 + O2 -> B2O3 + H2O",
    "SiH4 + O2 -> SiO2 + H2O",
    "N2H4 + N2O4 -> N2 + H2O",
    "NH4ClO4 -> N2 + Cl2 + O2 + H2O",
    "C3H5N3O9 -> CO2 + H2O + N2 + O2",
    "Ca3P2 + H2O -> Ca(OH)2 + PH3",
    "Al4C3 + H2O -> Al(OH)3 + CH4",
    "Mg3N2 + H2O -> Mg(OH)2 + NH3",
    "KO2 + CO2 -> K2CO3 + O2",
    "Pb(NO3)2 -> PbO + NO2 + O2",
    "CuFeS2 + O2 -> CuO + Fe2O3 + SO2",
    "ZnS + O2 -> ZnO + SO2",
    "V2O5 + Ca -> V + CaO",
    "UO2 + HF -> UF4 + H2O",
    "XeF6 + H2O -> XeO3 + HF",
    "LiAlH4 + BF3 -> LiF + AlF3 + B2H6",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """What reacts to what, not balanced."""

    reactants: tuple[str, ...]
    products: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' + '.join(self.reactants)} -> {' + '.join(self.products)}"

    @property
    def species(self) -> tuple[str, ...]:
        return (*self.reactants, *self.products)

    @property
    def coefficients(self) -> tuple[int, ...]:
        """The smallest whole numbers that balance it, in the order of ``species``."""
        return _coefficients(self)

    @property
    def balanced(self) -> str:
        terms = [f"{count} {name}" if count > 1 else name for count, name in zip(self.coefficients, self.species, strict=True)]
        return f"{' + '.join(terms[: len(self.reactants)])} -> {' + '.join(terms[len(self.reactants) :])}"

    @property
    def difficulty(self) -> Difficulty:
        largest = max(self.coefficients)
        if largest <= MAX_EASY and len(self.species) <= 4:
            return Difficulty.easy
        return Difficulty.medium if largest <= MAX_MEDIUM else Difficulty.hard

    def sides(self, coefficients: Sequence[int]) -> tuple[dict[str, int], dict[str, int]]:
        """The atoms of each element on the left and on the right, in the order in which elements appear."""
        left: dict[str, int] = {}
        right: dict[str, int] = {}
        for index, (name, coefficient) in enumerate(zip(self.species, coefficients, strict=True)):
            side = left if index < len(self.reactants) else right
            for element, count in composition(name).items():
                side[element] = side.get(element, 0) + coefficient * count
        return left, right


@cache
def equations(split: str) -> tuple[Equation, ...]:
    """Those of ``split``, each once, by the hash of the substances that take part."""
    everything = {str(equation): equation for equation in map(read_equation, [*REDOX, *_put_together()])}
    return tuple(equation for text, equation in sorted(everything.items()) if split_of(text) == split)


def read_equation(text: str) -> Equation:
    left, right = text.split(" -> ")
    return Equation(reactants=tuple(left.split(" + ")), products=tuple(right.split(" + ")))


def _put_together() -> Iterator[str]:
    yield from _of_acids_and_bases()
    yield from _of_elements()
    yield from _of_precipitates()
    yield from _of_fuels()


def _of_acids_and_bases() -> Iterator[str]:
    for cation in CATIONS.values():
        for name in ("Cl", "Br", "NO3", "SO4", "PO4"):
            anion = ANIONS[name]
            made = f"{acid(anion)} -> {salt(cation, anion)}"
            yield f"{salt(cation, ANIONS['OH'])} + {made} + H2O"
            yield f"{salt(cation, ANIONS['O'])} + {made} + H2O"
            if cation.charge < 3:
                yield f"{salt(cation, ANIONS['CO3'])} + {made} + H2O + CO2"
            if cation.formula in ("Li", "Na", "K", "Mg", "Ca", "Zn", "Al") and name != "NO3":
                yield f"{cation.formula} + {made} + H2"


def _of_elements() -> Iterator[str]:
    for cation in CATIONS.values():
        for name in ("F", "Cl", "Br", "I"):
            if (cation.formula, name) not in (("Fe", "I"), ("Cu", "I")):  # iodide reduces these
                yield f"{cation.formula} + {name}2 -> {salt(cation, ANIONS[name])}"
        if cation.formula not in ("Na", "K", "Ba", "Sr"):  # these burn to peroxides
            yield f"{cation.formula} + O2 -> {salt(cation, ANIONS['O'])}"
        if cation.formula not in ("Fe", "Cu", "Cr"):  # whose sulfides are of a lower state
            yield f"{cation.formula} + S -> {salt(cation, ANIONS['S'])}"
    for name in ("Fe", "Cu", "Ni", "Zn", "Cr"):
        oxide = salt(CATIONS[name], ANIONS["O"])
        yield f"{oxide} + Al -> {name} + Al2O3"
        yield f"{oxide} + Mg -> {name} + MgO"
        if name in ("Fe", "Cu", "Ni"):
            yield f"{oxide} + H2 -> {name} + H2O"
            yield f"{oxide} + C -> {name} + CO2"
            yield f"{oxide} + CO -> {name} + CO2"


def _of_precipitates() -> Iterator[str]:
    """Two soluble salts exchange their ions, and one of the new pairs is hardly soluble."""
    insoluble = {
        "OH": ("Mg", "Zn", "Cu", "Ni", "Al", "Fe", "Cr"),
        "PO4": ("Mg", "Ca", "Ba", "Sr", "Zn", "Cu", "Ni", "Al", "Fe", "Cr"),
        "CO3": ("Ca", "Ba", "Sr"),
    }
    for name, metals in insoluble.items():
        for metal in metals:
            for spectator in ("Na", "K", "Li"):
                for soluble in ("Cl", "Br", "NO3"):
                    a, b = CATIONS[metal], CATIONS[spectator]
                    c, d = ANIONS[soluble], ANIONS[name]
                    if (spectator, name) not in (("Li", "PO4"), ("Li", "CO3")):  # themselves hardly soluble
                        yield f"{salt(a, c)} + {salt(b, d)} -> {salt(a, d)} + {salt(b, c)}"


def _of_fuels() -> Iterator[str]:
    for num_carbons in range(1, 11):
        for pairs_missing in range(3):
            for num_oxygens in range(3):
                num_hydrogens = 2 * num_carbons + 2 - 2 * pairs_missing
                if num_hydrogens < 2 or pairs_missing >= num_carbons:
                    continue
                carbons = "C" if num_carbons == 1 else f"C{num_carbons}"
                oxygens = ("", "O", "O2")[num_oxygens]
                yield f"{carbons}H{num_hydrogens}{oxygens} + O2 -> CO2 + H2O"


@cache
def _coefficients(equation: Equation) -> tuple[int, ...]:
    """The one solution of the element balance, by Gaussian elimination in fractions, as the smallest whole numbers."""
    sides = [composition(name) for name in equation.species]
    signs = [1] * len(equation.reactants) + [-1] * len(equation.products)
    elements = dict.fromkeys(element for counts in sides for element in counts)
    rows = [[Fraction(sign * counts.get(element, 0)) for sign, counts in zip(signs, sides, strict=True)] for element in elements]
    pivots: list[int] = []
    for column in range(len(sides)):
        rank = len(pivots)
        pivot = next((row for row in rows[rank:] if row[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        pivot = [value / pivot[column] for value in pivot]
        rows = [[value - row[column] * other for value, other in zip(row, pivot, strict=True)] for row in rows]
        rows.insert(rank, pivot)
        pivots.append(column)
    free = [column for column in range(len(sides)) if column not in pivots]
    assert len(free) == 1, f"{equation} has {len(free)} independent ways to balance it"
    solution = [Fraction(1)] * len(sides)
    for row, column in zip(rows, pivots, strict=False):
        solution[column] = -row[free[0]]
    scale = lcm(*(value.denominator for value in solution))
    whole = [int(value * scale) for value in solution]
    assert min(whole) > 0, f"{equation} cannot be balanced"
    return tuple(value // gcd(*whole) for value in whole)
