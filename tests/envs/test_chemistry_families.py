"""What each of the families of ``chemistry`` knows, accepts and says of a wrong answer."""

from __future__ import annotations

import random
from math import gcd

import pytest
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula, CalcOxidationNumbers

from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.chemistry import Chemistry
from sdpo.envs.chemistry.balancing import BalanceQuestion
from sdpo.envs.chemistry.counting import UNSATURATION, CountQuestion
from sdpo.envs.chemistry.equations import REDOX, Equation, equations, read_equation
from sdpo.envs.chemistry.groups import groups_in
from sdpo.envs.chemistry.isomers import IsomerQuestion, constitution
from sdpo.envs.chemistry.oxidation import CarbonStateQuestion, FormulaStateQuestion
from sdpo.envs.chemistry.question import Difficulty, Question
from sdpo.envs.chemistry.reactions import Reaction, needed, outcomes, reactions
from sdpo.envs.chemistry.repair import RepairQuestion, Slip
from sdpo.envs.chemistry.stereo import CentresQuestion, LabelsQuestion
from sdpo.envs.chemistry.stoichiometry import AmountQuestion
from sdpo.envs.chemistry.substances import composition, molar_mass
from sdpo.envs.chemistry.synthesis import PrecursorsQuestion, ProductQuestion
from sdpo.envs.chemistry.templates import TEMPLATES
from sdpo.envs.chemistry.weighing import WeightQuestion

CHEMISTRY = Chemistry()
EVERY_EQUATION = [*equations("train"), *equations("heldout")]


def verdict_of(question: Question, answer: str) -> Verdict:
    task = Task(id="by-hand", env="chemistry", messages=(Message(role=Role.user, content=question.prompt),), payload=question)
    return CHEMISTRY.verify(task, f"So: <answer>{answer}</answer>")


def is_right(question: Question, answer: str) -> bool:
    return verdict_of(question, answer).is_solved


def feedback_of(question: Question, answer: str) -> str:
    verdict = verdict_of(question, answer)
    assert verdict.reward == 0.0
    assert verdict.feedback is not None
    return verdict.feedback


# weight


def test_a_weight_is_right_within_half_a_unit_and_told_whether_hydrogens_are_the_matter() -> None:
    ethanol = WeightQuestion(smiles="CCO")
    assert [is_right(ethanol, answer) for answer in ("46.07", "46", "46.5", "46.6", "45.5")] == [True, True, True, False, False]
    assert "too low, by so little that hydrogens were miscounted" in feedback_of(ethanol, "44.05")
    assert "too high, by more than a few hydrogens" in feedback_of(ethanol, "58.12")
    assert "not a decimal number" in feedback_of(ethanol, "heavy")


# unsaturation


@pytest.mark.parametrize(
    ("smiles", "degrees"), [("CCO", 0), ("C1CCCCC1", 1), ("c1ccccc1", 4), ("C#N", 2), ("CC(=O)O", 1), ("c1ccc2[nH]ccc2c1", 6)]
)
def test_degrees_of_unsaturation_are_rings_plus_pi_bonds(smiles: str, degrees: int) -> None:
    assert CountQuestion(subject=UNSATURATION, smiles=smiles).reference == str(degrees)


# isomers

ETHANOL_ISOMER = IsomerQuestion(smiles="CCO", reference="COC", group=None)
ACID_ISOMER = IsomerQuestion(smiles="COC(=O)CC", reference="CCCC(=O)O", group="carboxylic acid")


def test_an_isomer_has_the_same_atoms_and_another_constitution() -> None:
    assert is_right(ETHANOL_ISOMER, "COC")
    assert "the very molecule that was given" in feedback_of(ETHANOL_ISOMER, "OCC")
    assert feedback_of(ETHANOL_ISOMER, "CCCO") == (
        "It is no isomer: its formula is C3H8O, that of CCO is C2H6O, so 1 C too many, 2 H too many."
    )


def test_a_molecule_turned_in_space_is_no_constitutional_isomer() -> None:
    question = IsomerQuestion(smiles="CC(N)C(=O)O", reference="NCCC(=O)O", group=None)
    assert "the very molecule" in feedback_of(question, "C[C@H](N)C(=O)O")


@pytest.mark.parametrize(
    ("given", "answer", "says"),
    [
        ("CCO", "[CH3:1]CO", "must not be numbered"),
        ("CCO", "[OH:0]CC", "must not be numbered"),
        ("CCO", "[H:1]OCC", "must not be numbered"),
        ("CC(N)=O", "CC([O-])=[NH2+]", "Write the form without charges"),
        ("CC(=O)O", "CC([O-])=[OH+]", "Write the form without charges"),
        ("NCC(=O)O", "[NH3+]CC(=O)[O-]", "Write the form without charges"),
        ("CC=N", "[H]/N=C/C", "the very molecule"),
    ],
)
def test_the_given_molecule_in_other_dress_is_no_isomer(given: str, answer: str, says: str) -> None:
    """Each of these was rewarded."""
    assert says in feedback_of(IsomerQuestion(smiles=given, reference="C", group=None), answer)


def test_an_isomer_may_have_a_nitro_group() -> None:
    assert is_right(IsomerQuestion(smiles="CON=O", reference="C[N+](=O)[O-]", group=None), "C[N+](=O)[O-]")


def test_an_isomer_without_the_group_that_was_asked_for_is_told_what_it_has() -> None:
    assert is_right(ACID_ISOMER, "CC(C)C(=O)O")
    assert feedback_of(ACID_ISOMER, "CCOC(C)=O") == "It is an isomer, but it has no carboxylic acid; the groups it has: ester."


# repair


def broken(text: str, slip: Slip, fault: str, reference: str) -> RepairQuestion:
    return RepairQuestion(broken=text, slip=slip, fault=fault, reference=reference)


@pytest.mark.parametrize(
    ("question", "right", "wrong", "says"),
    [
        (
            broken("C1CCCC", Slip.lost, "ring left open", "C1CCCC1"),
            "C1CCC1C",
            "CCCCC",
            "putting one back in C1CCCC does not give",
        ),
        (broken("C1CCCC", Slip.lost, "ring left open", "C1CCCC1"), "C1CCCC1", "C1CCCCC1", "1 C too many"),
        (broken("CC(CO", Slip.lost, "branch never closed", "CC(C)O"), "OC(C)C", "CC(CO", "the broken SMILES unchanged"),
        (broken("CC(CO", Slip.lost, "branch never closed", "CC(C)O"), "CC(CO)", "CC(CN)", "1 O too few, 1 N too many"),
        (broken("CC)CO", Slip.lost, "branch never opened", "C(C)CO"), "CCCO", "CC)OC", "Still broken. The SMILES is not valid"),
        (
            broken("CcO", Slip.changed, "aromatic atom outside an aromatic ring", "CCO"),
            "CCO",
            "COC",
            "the right atoms, but changing",
        ),
        (broken("CC=(C)(C)C", Slip.added, "atom with too many bonds", "CC(C)(C)C"), "CC(C)(C)C", "CCCCC", "taking one out"),
    ],
)
def test_a_repair_undoes_one_slip_and_keeps_the_atoms(question: RepairQuestion, right: str, wrong: str, says: str) -> None:
    assert is_right(question, right)
    assert is_right(question, question.reference)
    assert says in feedback_of(question, wrong)


def test_a_repair_counts_in_any_writing_of_the_molecule() -> None:
    question = broken("C1CCCC", Slip.lost, "ring left open", "C1CCCC1")
    assert is_right(question, "C2CCCC2")
    assert is_right(question, "CC1CCC1")
    assert is_right(question, "C9CCC9C")


# stereocentres


@pytest.mark.parametrize(
    ("smiles", "count"),
    [("CCO", 0), ("CC(O)CC", 1), ("CC(C)C(C)CC", 1), ("CC(O)C(N)CC", 2), ("OC(C)=C", 0), ("c1ccccc1C(F)Cl", 1)],
)
def test_stereocentres_are_carbons_with_four_different_groups(smiles: str, count: int) -> None:
    question = CentresQuestion(smiles=smiles)
    assert question.reference == str(count)
    assert "too high: a carbon with a double bond" in feedback_of(question, "9")


@pytest.mark.parametrize(
    ("smiles", "labels"),
    [
        ("C[C@H](N)C(=O)O", "S"),  # L-alanine
        ("N[C@@H](CS)C(=O)O", "R"),  # L-cysteine, sulfur turns the order
        ("OC[C@@H](O)C=O", "R"),  # D-glyceraldehyde
        ("O=C(O)[C@H](O)[C@@H](O)C(=O)O", "R, R"),  # L-tartaric acid
    ],
)
def test_labels_of_well_known_molecules(smiles: str, labels: str) -> None:
    assert LabelsQuestion(smiles=smiles).reference == labels


def test_a_mirror_image_has_every_label_turned() -> None:
    asked = [task.payload for task in CHEMISTRY.tasks("train", 0) if isinstance(task.payload, LabelsQuestion)]
    assert len(asked) >= 60
    for question in asked:
        mirrored = question.smiles.replace("@@", "%").replace("@", "@@").replace("%", "@")
        turned = question.reference.translate(str.maketrans("RS", "SR"))
        assert LabelsQuestion(smiles=mirrored).reference == turned


def test_a_wrong_label_is_not_pointed_at_but_the_neighbours_to_rank_are_named() -> None:
    question = LabelsQuestion(smiles="O=C(O)[C@H](O)[C@@H](O)C(=O)O")
    assert is_right(question, "r,r")
    assert feedback_of(question, "R, S") == feedback_of(question, "S, R") == feedback_of(question, "S, S")
    assert "those of the first: C, C, H, O" in feedback_of(question, "R, S")
    assert "2 letters are needed, one for each marked centre; the answer has 1" in feedback_of(question, "R")
    assert "the letters R and S and commas only" in feedback_of(question, "both R")


# oxidation states


@pytest.mark.parametrize(
    ("element", "formula", "state"),
    [
        ("Mn", "KMnO4", "+7"),
        ("Cr", "K2Cr2O7", "+6"),
        ("S", "H2S", "-2"),
        ("N", "Ca(NO3)2", "+5"),
        ("C", "NaHCO3", "+4"),
        ("N", "N2H4", "-2"),
    ],
)
def test_oxidation_states_in_formulas(element: str, formula: str, state: str) -> None:
    question = FormulaStateQuestion(element=element, formula=formula, difficulty=Difficulty.easy)
    assert question.reference == state
    assert is_right(question, state.lstrip("+").replace("-", "\N{MINUS SIGN}"))
    assert "add up to more than 0" in feedback_of(question, "+9")
    assert "add up to less than 0" in feedback_of(question, "-9")


def test_oxidation_states_of_carbons_agree_with_rdkits_own() -> None:
    asked = [task.payload for task in CHEMISTRY.tasks("train", 0) if isinstance(task.payload, CarbonStateQuestion)]
    assert len(asked) >= 60
    for question in asked:
        mol = Chem.MolFromSmiles(question.smiles)
        Chem.Kekulize(mol, clearAromaticFlags=True)
        CalcOxidationNumbers(mol)
        (carbon,) = [atom for atom in mol.GetAtoms() if atom.GetAtomMapNum() == 1]
        assert carbon.GetIntProp("OxidationNumber") == int(question.reference), question


def test_a_wrong_state_of_a_carbon_is_told_what_the_carbon_is_bonded_to() -> None:
    question = CarbonStateQuestion(smiles="C[CH2:1]O")
    assert is_right(question, "-1")
    assert feedback_of(question, "1").startswith("+1 is too high. The carbon is bonded to C, H, H, O:")


# equations


@pytest.mark.parametrize(
    ("text", "coefficients"),
    [
        ("H2 + O2 -> H2O", "2, 1, 2"),
        ("KMnO4 + HCl -> KCl + MnCl2 + Cl2 + H2O", "2, 16, 2, 2, 5, 8"),
        ("Al(OH)3 + H2SO4 -> Al2(SO4)3 + H2O", "2, 3, 1, 6"),
        ("C4H10 + O2 -> CO2 + H2O", "2, 13, 8, 10"),
        ("P4O10 + H2O -> H3PO4", "1, 6, 4"),
    ],
)
def test_known_equations_balance_as_textbooks_say(text: str, coefficients: str) -> None:
    assert BalanceQuestion(equation=read_equation(text)).reference == coefficients


def test_every_equation_has_one_way_to_balance_it_with_smallest_whole_numbers() -> None:
    assert len(EVERY_EQUATION) >= 400
    assert len({str(equation) for equation in EVERY_EQUATION}) == len(EVERY_EQUATION)
    assert {str(read_equation(text)) for text in REDOX} <= {str(equation) for equation in EVERY_EQUATION}
    for equation in EVERY_EQUATION:
        left, right = equation.sides(equation.coefficients)
        assert left == {element: right[element] for element in left}
        assert len(right) == len(left)
        assert gcd(*equation.coefficients) == 1
        assert not set(equation.reactants) & set(equation.products)


def test_any_change_of_a_coefficient_is_told_an_element_and_both_its_counts() -> None:
    draw = random.Random(0)
    for equation in EVERY_EQUATION:
        question = BalanceQuestion(equation=equation)
        changed = list(equation.coefficients)
        changed[draw.randrange(len(changed))] += draw.randint(1, 3)
        left, right = equation.sides(changed)
        off = [element for element in left if left[element] != right[element]]
        feedback = feedback_of(question, ", ".join(map(str, changed)))
        assert off
        for element in off:
            assert f"{element}: {left[element]} on the left, {right[element]} on the right" in feedback
        doubled = ",".join(str(2 * count) for count in equation.coefficients)
        assert "2 divides all of them" in feedback_of(question, doubled)


def test_coefficients_are_positive_and_as_many_as_there_are_substances() -> None:
    question = BalanceQuestion(equation=read_equation("H2 + O2 -> H2O"))
    assert feedback_of(question, "2, 1") == "3 integers are needed, separated by commas; the answer has 2."
    assert "positive integers" in feedback_of(question, "0, 0, 0")
    assert "cannot be read" in feedback_of(question, "2 H2, O2, 2 NH3")
    assert "O: 2 on the left, 1 on the right" in feedback_of(question, "1, 1, 1")


@pytest.mark.parametrize(
    ("formula", "mass"), [("H2O", 18.015), ("Ca(OH)2", 74.093), ("Al2(SO4)3", 342.15), ("KMnO4", 158.034), ("C6H12O6", 180.156)]
)
def test_molar_masses(formula: str, mass: float) -> None:
    assert molar_mass(formula) == pytest.approx(mass, abs=0.02)


def test_parentheses_are_multiplied_out() -> None:
    assert composition("Fe2(SO4)3") == {"Fe": 2, "S": 3, "O": 12}


# stoichiometry

WATER = read_equation("H2 + O2 -> H2O")


def amount(equation: Equation, product: str, difficulty: Difficulty, **given: float) -> AmountQuestion:
    return AmountQuestion(equation=equation, given=tuple(given.items()), product=product, difficulty=difficulty)


def test_amounts_of_water() -> None:
    assert amount(WATER, "H2O", Difficulty.easy, O2=1.5).reference == "3"
    assert amount(WATER, "H2O", Difficulty.medium, H2=10.0).reference == "89.36"
    assert amount(WATER, "H2O", Difficulty.hard, H2=10.0, O2=10.0).reference == "11.26"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("5.63", "the coefficients of O2 and H2O were left out"),
        ("0.625", "these are moles of the product"),
        ("10", "were taken as grams of H2O, go through moles"),
        ("89.4", "what the reactant in excess would give"),
        ("11.5", "11.5 g is too high: go from grams to moles"),
        ("0", "0 g is too low"),
    ],
)
def test_a_usual_slip_is_named(answer: str, says: str) -> None:
    assert says in feedback_of(amount(WATER, "H2O", Difficulty.hard, H2=10.0, O2=10.0), answer)


def test_one_percent_is_close_enough() -> None:
    question = amount(WATER, "H2O", Difficulty.medium, H2=10.0)
    assert [is_right(question, answer) for answer in ("90", "89", "90.2", "90.3", "88.4")] == [True, True, True, False, False]


def test_the_first_reactant_limits_about_as_often_as_the_second() -> None:
    limited = [task.payload for task in CHEMISTRY.tasks("train", 0) if isinstance(task.payload, AmountQuestion)]
    limited = [question for question in limited if question.difficulty is Difficulty.hard]
    ratios = []
    for question in limited:
        runs = [
            mass / molar_mass(name) / count
            for (name, mass), count in zip(question.given, question.equation.coefficients, strict=False)
        ]
        assert max(runs) > 1.2 * min(runs)
        ratios.append(runs[0] < runs[1])
    assert 0.3 < sum(ratios) / len(ratios) < 0.7


# groups and reactions


@pytest.mark.parametrize(
    ("smiles", "groups"),
    [
        ("CC(=O)O", ("carboxylic acid",)),
        ("COC(C)=O", ("ester",)),
        ("CC(=O)NC", ("amide",)),
        ("CC=O", ("aldehyde",)),
        ("C=O", ("aldehyde",)),
        ("CC(C)=O", ("ketone",)),
        ("OCC=C", ("alcohol", "alkene")),
        ("Oc1ccccc1", ("phenol",)),
        ("COC", ("ether",)),
        ("CN", ("amine",)),
        ("CC#N", ("nitrile",)),
        ("CC(=O)Cl", ("acyl chloride",)),
        ("c1ccccc1", ()),
    ],
)
def test_functional_groups_have_the_names_a_chemist_gives_them(smiles: str, groups: tuple[str, ...]) -> None:
    assert groups_in(Chem.MolFromSmiles(smiles)) == groups


@pytest.mark.parametrize(
    ("template", "reactants", "product"),
    [
        ("Fischer esterification", "CC(=O)O.CCO", "CCOC(C)=O"),
        ("amide coupling", "OC(=O)c1ccccc1.NC", "CNC(=O)c1ccccc1"),
        ("acylation of an amine", "CC(=O)Cl.CNC", "CC(=O)N(C)C"),
        ("Williamson ether synthesis", "CCO.BrCC", "CCOCC"),
        ("reductive amination", "CC=O.NC", "CCNC"),
        ("Suzuki coupling", "Brc1ccccc1.OB(O)c1ccncc1", "c1ccc(-c2ccncc2)cc1"),
        ("Grignard addition", "CC(C)=O.C[Mg]Br", "CC(C)(C)O"),
        ("reduction with NaBH4", "CC(=O)CC(=O)OC", "COC(=O)CC(C)O"),
        ("reduction of an acid with LiAlH4", "OC(=O)CC", "CCCO"),
        ("hydrogenation of an alkene", "C=Cc1ccccc1", "CCc1ccccc1"),
        ("Markovnikov addition of HBr", "CC(C)=C", "CC(C)(C)Br"),
        ("SN2 substitution with NaCN", "CCBr", "CCC#N"),
        ("oxidation with PCC", "OCC", "CC=O"),
        ("oxidation with PCC", "CC(C)O", "CC(C)=O"),
        ("Wittig methylenation", "CC(C)=O", "C=C(C)C"),
        ("hydrolysis of a nitrile", "CC#N", "CC(=O)O"),
        ("saponification of an ester", "CCC(=O)OC", "CCC(=O)O"),
    ],
)
def test_templates_do_what_textbooks_say_in_either_order(template: str, reactants: str, product: str) -> None:
    mols = [Chem.MolFromSmiles(smiles) for smiles in reactants.split(".")]
    assert outcomes(template, mols) == {constitution(Chem.MolFromSmiles(product))}
    assert outcomes(template, mols[::-1]) == outcomes(template, mols)


def test_every_template_is_asked_about_on_both_sides_and_every_reactant_has_what_it_needs() -> None:
    for split in ("train", "heldout"):
        assert {reaction.template for reaction in reactions(split)} == set(TEMPLATES)
        for reaction in reactions(split):
            mols = [Chem.MolFromSmiles(smiles) for smiles in reaction.reactants]
            needs = TEMPLATES[reaction.template].needs
            assert [needed(reaction.template, [mol]) for mol in mols] == [needs[:0] + needs[1:], needs[:1]][: len(needs)], (
                reaction
            )
            assert reaction.product not in reaction.reactants


ESTER = Reaction(template="Fischer esterification", reactants=("CC(=O)O", "CCO"), product="CCOC(C)=O", difficulty=Difficulty.easy)


def test_a_wrong_product_is_told_groups_atoms_and_whether_anything_has_reacted() -> None:
    question = ProductQuestion(reaction=ESTER)
    assert is_right(question, "O=C(C)OCC")
    assert "one of the starting materials, unchanged" in feedback_of(question, "CC(O)=O")
    assert feedback_of(question, "CCCC(=O)O") == (
        "It has a carboxylic acid, which the product has not. It lacks an ester, which the product has. "
        "Its formula is that of the product."
    )
    assert feedback_of(question, "COC(C)=O") == "Against the product its formula C3H6O2 has 1 C too few, 2 H too few."
    assert "joined at other places" in feedback_of(question, "CCC(=O)OC")
    assert "several pieces" in feedback_of(question, "CCOC(C)=O.O")


def test_any_two_precursors_that_give_the_target_are_right() -> None:
    question = PrecursorsQuestion(reaction=ESTER)
    assert is_right(question, "OCC.OC(C)=O")
    amide = Reaction(template="reductive amination", reactants=("CC=O", "CCN"), product="CCNCC", difficulty=Difficulty.easy)
    ether = Reaction(template="Williamson ether synthesis", reactants=("CCO", "CBr"), product="CCOC", difficulty=Difficulty.easy)
    assert is_right(PrecursorsQuestion(reaction=amide), "NCC.O=CC")
    assert is_right(PrecursorsQuestion(reaction=ether), "CO.CCBr")  # the other way round


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("CC(=O)O.CO", "These two do react by Fischer esterification, but to another molecule. Against the target"),
        ("CC.CCO", "neither has the carboxylic acid it needs"),
        ("CC.CC", "neither has the carboxylic acid or the alcohol it needs"),
        ("CC(=O)O.CC", "neither has the alcohol it needs"),
        ("OCCC(=O)O.CC", "it needs one with the carboxylic acid and another one with the alcohol"),
        ("CCOC(C)=O.O", "One of the two is the target itself"),
        ("CC(=O)O", "2 molecules are needed, separated by a dot; the answer has 1"),
        ("CC(=O)O.C1CC", "Molecule 2 of 2: The SMILES is not valid"),
        ("CC(=O)O.", "2 molecules are needed, separated by a dot; the answer has 1"),
        (".CC(=O)O", "Molecule 1 of 2: It is empty"),
    ],
)
def test_wrong_precursors_are_told_what_they_lack_or_what_they_give(answer: str, says: str) -> None:
    feedback = feedback_of(PrecursorsQuestion(reaction=ESTER), answer)
    assert says in feedback


def test_precursors_never_gain_or_lose_carbon() -> None:
    """No template adds carbon of its own where two precursors are asked for: the target's are all in them."""
    for reaction in reactions("train"):
        if TEMPLATES[reaction.template].can_be_planned:
            carbons = [composition(CalcMolFormula(Chem.MolFromSmiles(smiles)))["C"] for smiles in reaction.reactants]
            assert composition(CalcMolFormula(Chem.MolFromSmiles(reaction.product)))["C"] == sum(carbons), reaction
