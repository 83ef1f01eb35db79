"""What people write for an answer is read as a person reads it, in every family of ``chemistry``, and nothing else is."""

from __future__ import annotations

import pytest

from sdpo.envs.base import Message, Role, Task, Verdict
from sdpo.envs.chemistry import Chemistry
from sdpo.envs.chemistry.balancing import BalanceQuestion
from sdpo.envs.chemistry.counting import CountQuestion
from sdpo.envs.chemistry.equations import read_equation
from sdpo.envs.chemistry.formulas import BuildQuestion, FormulaQuestion
from sdpo.envs.chemistry.isomers import IsomerQuestion
from sdpo.envs.chemistry.oxidation import CarbonStateQuestion, FormulaStateQuestion
from sdpo.envs.chemistry.question import Difficulty, Question
from sdpo.envs.chemistry.reactions import Reaction
from sdpo.envs.chemistry.repair import RepairQuestion, Slip
from sdpo.envs.chemistry.stereo import CentresQuestion, LabelsQuestion
from sdpo.envs.chemistry.stoichiometry import AmountQuestion
from sdpo.envs.chemistry.synthesis import PrecursorsQuestion, ProductQuestion
from sdpo.envs.chemistry.weighing import WeightQuestion

CHEMISTRY = Chemistry()
WATER = read_equation("H2 + O2 -> H2O")
COPPER = read_equation("Cu + HNO3 -> Cu(NO3)2 + NO + H2O")
FISCHER = Reaction(
    template="Fischer esterification", reactants=("CC(=O)O", "CCO"), product="CCOC(C)=O", difficulty=Difficulty.easy
)

RINGS = CountQuestion(subject="rings (each ring of a fused pair counts)", smiles="C1CCC2CCCC2C1")
HEAVY_ATOMS = CountQuestion(subject="atoms other than hydrogen", smiles="CCO")
CENTRES = CentresQuestion(smiles="CC(O)C(N)CC")
LABELS = LabelsQuestion(smiles="C[C@H](O)[C@@H](N)CC")
FORMULA = FormulaQuestion(smiles="C=C")
WEIGHT = WeightQuestion(smiles="CCO")
MOLES = AmountQuestion(equation=WATER, given=(("O2", 8.75),), product="H2O", difficulty=Difficulty.easy)
GRAMS = AmountQuestion(equation=WATER, given=(("H2", 10.0),), product="H2O", difficulty=Difficulty.medium)
MANGANESE = FormulaStateQuestion(element="Mn", formula="KMnO4", difficulty=Difficulty.easy)
SULFIDE = FormulaStateQuestion(element="S", formula="H2S", difficulty=Difficulty.easy)
CARBON = CarbonStateQuestion(smiles="C[CH2:1]O")
BALANCE = BalanceQuestion(equation=COPPER)
BUILD = BuildQuestion(formula="C2H6O", reference="CCO")
ISOMER = IsomerQuestion(smiles="CCO", reference="COC", group=None)
REPAIR = RepairQuestion(broken="CC(CO", slip=Slip.lost, fault="branch never closed", reference="CC(C)O")
PRODUCT = ProductQuestion(reaction=FISCHER)
PRECURSORS = PrecursorsQuestion(reaction=FISCHER)
EVERY_KIND = (RINGS, HEAVY_ATOMS, CENTRES, LABELS, FORMULA, WEIGHT, MOLES, GRAMS, MANGANESE, SULFIDE, CARBON, BALANCE, BUILD,
              ISOMER, REPAIR, PRODUCT, PRECURSORS)  # fmt: skip


def verdict_of(question: Question, completion: str) -> Verdict:
    task = Task(id="by-hand", env="chemistry", messages=(Message(role=Role.user, content=question.prompt),), payload=question)
    return CHEMISTRY.verify(task, completion)


def is_right(question: Question, answer: str) -> bool:
    return verdict_of(question, f"So: <answer>{answer}</answer>").is_solved


def feedback_of(question: Question, answer: str) -> str:
    verdict = verdict_of(question, f"<answer>{answer}</answer>")
    assert verdict.reward == 0.0
    assert verdict.feedback is not None
    return verdict.feedback


FORMS: tuple[tuple[Question, tuple[str, ...]], ...] = (
    (RINGS, ("2", "2.", "2.0", "+2", "two", "2 rings", "rings: 2", "n = 2", "The answer is 2", "there are 2 rings",
             "Rings = **2**")),
    (HEAVY_ATOMS, ("3 heavy atoms", "3 atoms", "Three")),
    (CENTRES, ("2 stereocentres", "2 stereocenters", "2 chiral carbons")),
    (FORMULA, ("C2H4", "C_2H_4", "C_{2}H_{4}", r"\ce{C2H4}", r"\mathrm{C_2H_4}", r"\text{C}_2\text{H}_4",
               r"\text{C}_{2}\text{H}_{4}", "C$_2$H$_4$", "C<sub>2</sub>H<sub>4</sub>", "C₂H₄", "C2 H4", "H4C2", "Formula: C2H4",
               "$C_2H_4$.")),
    (WEIGHT, ("46.07", "46.07 g/mol", r"46.07\ \text{g mol}^{-1}", "46.07 g·mol⁻¹", "46.07 Da", "M = 46.07 g/mol", "46,07",
              "4.607e1", "≈ 46.1", "0.04607 kg/mol")),
    (MOLES, ("17.5", "17.5 mol", "17.5 moles", "1.75e1", "1.75 × 10^1", r"1.75 \times 10^{1}", "1.75×10¹", "35/2",
             r"\frac{35}{2}", "17 1/2", "n(H2O) = 17.5 mol", "35/2 = 17.5", "17,5 mol", "~17.5", "about 17.5 moles",
             "17.5 mol of H2O", "17.5 mol H2O(l)", "17500 mmol", "17,500 mmol", r"17.5~\mathrm{mol}", r"\SI{17.5}{\mol}",
             "17.5 mol.")),
    (GRAMS, ("89.36", "89.4 g", "89.4 grams of H2O", "0.0894 kg", "89360 mg", "m = 89.4 g", r"8.94 \cdot 10^{1}\,\text{g}")),
    (MANGANESE, ("+7", "7", "7+", "VII", "+VII", "vii", "Mn(VII)", "Mn(+7)", "manganese(VII)", "Mn = +7", "Mn: +7", "Mn is +7",
                 "Mn⁷⁺", r"\mathrm{Mn}^{7+}", "oxidation state: +7", "plus 7", "+ 7")),
    (SULFIDE, ("-2", "−2", "2-", "-II", "S^{2-}", "minus 2", "–2")),
    (CARBON, ("-1", "C: -1", "-I", "carbon = -1")),
    (BALANCE, ("3, 8, 3, 2, 4", "3 8 3 2 4", "3,8,3,2,4.", "[3, 8, 3, 2, 4]", "(3, 8, 3, 2, 4)", "3:8:3:2:4", "3; 8; 3; 2; 4",
               "3, 8, 3, 2 and 4", "a=3, b=8, c=3, d=2, e=4", "Coefficients: 3, 8, 3, 2, 4", "3 + 8 -> 3 + 2 + 4",
               "3Cu + 8HNO3 -> 3Cu(NO3)2 + 2NO + 4H2O", "3 Cu + 8 HNO3 = 3 Cu(NO3)2 + 2 NO + 4 H2O",
               "3 Cu(s) + 8 HNO3(aq) → 3 Cu(NO3)2(aq) + 2 NO(g) + 4 H2O(l)", "8 HNO₃ + 3 Cu ⟶ 4 H₂O + 2 NO + 3 Cu(NO₃)₂",
               r"\ce{3Cu + 8HNO3 -> 3Cu(NO3)2 + 2NO + 4H2O}", "3 Cu, 8 HNO3, 3 Cu(NO3)2, 2 NO, 4 H2O",
               r"3\mathrm{Cu} + 8\mathrm{HNO}_3 \rightarrow 3\mathrm{Cu(NO_3)_2} + 2\mathrm{NO} + 4\mathrm{H_2O}",
               "Cu: 3, HNO3: 8, Cu(NO3)2: 3, NO: 2, H2O: 4")),
    (BUILD, ("CCO", "SMILES: CCO", "smiles CCO", "```\nCCO\n```", "```smiles\nCCO\n```", "CCO.")),
    (ISOMER, ("COC", "SMILES = COC")),
    (REPAIR, ("CC(C)O", "SMILES: CC(C)O", "CC(CO)")),
    (PRODUCT, ("CCOC(C)=O", "product: CCOC(C)=O", "CC(=O)O.CCO>>CCOC(C)=O", "CC(=O)O.CCO -> CCOC(C)=O")),
    (PRECURSORS, ("CC(=O)O.CCO", "CCO, CC(=O)O", "CC(=O)O + CCO", "CC(=O)O and CCO", "CC(=O)O\nCCO", "CC(=O)O.CCO>>CCOC(C)=O")),
)  # fmt: skip


@pytest.mark.parametrize(
    ("question", "forms"), FORMS, ids=lambda value: type(value).__name__ if isinstance(value, Question) else ""
)
def test_what_a_person_would_read_is_read(question: Question, forms: tuple[str, ...]) -> None:
    """17.5 mol, 35/2, VII, 7+ and the whole equation were right answers that got nothing."""
    assert [form for form in forms if not is_right(question, form)] == []


@pytest.mark.parametrize("question", EVERY_KIND, ids=lambda question: type(question).__name__)
@pytest.mark.parametrize(
    "around", ["**{}**", "{}.", "`{}`", "${}$", r"\boxed{{{}}}", r"$\boxed{{\text{{{}}}}}$.", '"{}"', "  {}\n"]
)
def test_decoration_means_nothing_in_any_family(question: Question, around: str) -> None:
    assert is_right(question, around.format(question.reference))


@pytest.mark.parametrize("question", EVERY_KIND, ids=lambda question: type(question).__name__)
def test_thinking_never_counts(question: Question) -> None:
    """A draft in the thoughts was read where the answer itself had no tags, and in a thought that never ends."""
    right, wrong = f"<answer>{question.reference}</answer>", "<answer>?</answer>"
    assert verdict_of(question, f"<think>{wrong}</think>{right}").is_solved
    assert verdict_of(question, f"{wrong}</think>{right}").is_solved
    assert not verdict_of(question, f"<think>{right}</think>{wrong}").is_solved
    for unanswered in (f"<think>{right}</think> done", f"<think>{right}", f"{right}</think> done"):
        verdict = verdict_of(question, unanswered)
        assert (verdict.reward, verdict.metrics["format_ok"]) == (0.0, 0.0)
        assert "outside the thoughts" in str(verdict.feedback)


@pytest.mark.parametrize(
    ("question", "answer", "says"),
    [
        (MOLES, "17.5 g", "not the unit asked for: give the number in mol"),
        (MOLES, "17.5 mol O2", "not the unit asked for"),
        (MOLES, "17.5 mmol", "0.0175 mol is too low"),
        (GRAMS, "89.4 mg", "0.0894 g is too low"),
        (GRAMS, "89.4 Mg", "not the unit asked for"),
        (GRAMS, "4.96 mol", "not the unit asked for: give the number in g"),
        (WEIGHT, "46.07 g", "not the unit asked for: give the number in g/mol"),
        (WEIGHT, "46.07 kg/mol", "46070 is too high"),
        (MOLES, "17.5 or 3", "not the unit asked for"),
        (MOLES, "17.5, 17.5", "not a decimal number"),
        (MOLES, "17.5 17.5", "not a decimal number"),
        (MOLES, "-17.5", "not a decimal number"),
        (MOLES, "35/0", "divides by zero"),
        (RINGS, "2 or 3", "not an integer"),
        (RINGS, "2 3", "not an integer"),
        (RINGS, "2.5", "not an integer"),
        (RINGS, "2 atoms", "not an integer"),
        (MANGANESE, "+7, +6", "not an integer with its sign"),
        (MANGANESE, "K(VII)", "not an integer with its sign"),
        (MANGANESE, "7-", "-7 for Mn"),
        (BALANCE, "6, 16, 6, 4, 8", "2 divides all of them"),
        (BALANCE, "6Cu + 16HNO3 -> 6Cu(NO3)2 + 4NO + 8H2O", "2 divides all of them"),
        (BALANCE, "Cu + HNO3 -> Cu(NO3)2 + NO + H2O", "H: 1 on the left, 2 on the right"),
        (BALANCE, "3Cu + 8HNO3 -> 3Cu(NO3)2 + 2NO", "cannot be read"),
        (BALANCE, "3Cu + 8HNO3 -> 3Cu(NO3)2 + 2NO + 4H2O + N2", "cannot be read"),
        (BALANCE, "3Cu(NO3)2 + 2NO + 4H2O -> 3Cu + 8HNO3", "cannot be read"),
        (BALANCE, "3, 8, 3, 2, 4 or 17", "5 integers are needed"),
        (BALANCE, "1.5, 4, 1.5, 1, 2", "positive integers"),
        (LABELS, "R or S", "letters R and S"),
        (LABELS, "2R,3S", "letters R and S"),
        (FORMULA, "C2H4, C2H4", "not a molecular formula"),
        (FORMULA, "c2h4", "not a molecular formula"),
        (BUILD, "cco", "not valid"),
        (BUILD, "[CH2]CO.", "must not be a radical"),
        (BUILD, "CCO ethanol", "has no place in it"),
        (PRECURSORS, "CC(=O)O, CCO, CC", "the answer has 3"),
        (PRECURSORS, "CC(=O)O.CCO>>CC.CC", "does not end at the target"),
        (PRECURSORS, "CC(=O)O.CCO>>CCOC(C)=O>>CC", "does not end at the target"),
    ],
)
def test_what_means_something_else_is_not_read_as_right(question: Question, answer: str, says: str) -> None:
    """A wrong unit is converted or refused, doubled coefficients stay wrong, a SMILES keeps its case."""
    assert says in feedback_of(question, answer)


def test_labels_are_read_in_every_usual_form() -> None:
    first, second = LABELS.reference.split(", ")
    forms = ("{}, {}", "{} {}", "{}{}", "({}), ({})", "({},{})", "{} and {}", "1{},2{}", "1: {}, 2: {}")
    assert [form for form in forms if not is_right(LABELS, form.format(first, second).replace("R", "r"))] == []


# charges


@pytest.mark.parametrize(
    ("formula", "smiles"),
    [
        ("C2H3N", "[C-]#[N+]C"),
        ("C2H3N", "C[N+]#[C-]"),
        ("CH3NO2", "C[N+](=O)[O-]"),
        ("C5H5NO", "[O-][n+]1ccccc1"),
        ("C3H9NO", "C[N+](C)(C)[O-]"),
        ("CH3N3", "CN=[N+]=[N-]"),
        ("CH2N2", "C=[N+]=[N-]"),
        ("CH2N2", "[CH2-][N+]#N"),
        ("C2H3NO", "CC#[N+][O-]"),
        ("C2H5NO", "C=[N+](C)[O-]"),
        ("CO", "[C-]#[O+]"),
        ("CH2O2", "C=[O+][O-]"),
        ("C5H11NO2", "C[N+](C)(C)CC(=O)[O-]"),
        ("C12H8N2O2", "[O-][n+]1c2ccccc2[n+]([O-])c2ccccc12"),
    ],
)
def test_groups_that_cannot_do_without_charges_are_read(formula: str, smiles: str) -> None:
    """An isocyanide was told to be written without charges, which nobody can."""
    assert is_right(BuildQuestion(formula=formula, reference="C"), smiles)


@pytest.mark.parametrize(
    ("formula", "charged", "uncharged"),
    [
        ("C2H6OS", "C[S+](C)[O-]", "CS(C)=O"),
        ("C4H11P", "C[P+](C)(C)[CH2-]", "CP(C)(C)=C"),
        ("C2H5NO2", "[NH3+]CC(=O)[O-]", "NCC(=O)O"),
        ("C2H7NO", "C[NH+](C)[O-]", "CN(C)O"),
        ("C3H7NO", "[O-]C=[N+](C)C", "O=CN(C)C"),
        ("C6H7NO", "[O-]C1=CC=[N+](C)C=C1", "O=C1C=CN(C)C=C1"),
        ("C4H8N2O3", "O=[N+]([O-])CC([O-])=[N+](C)C", "O=[N+]([O-])CC(=O)N(C)C"),
        ("C2H6O", "[CH2-]C[OH2+]", "CCO"),
    ],
)
def test_the_form_without_charges_is_asked_for_only_where_it_is_read(formula: str, charged: str, uncharged: str) -> None:
    question = BuildQuestion(formula=formula, reference="C")
    assert "Write the form without charges" in feedback_of(question, charged)
    assert is_right(question, uncharged)


@pytest.mark.parametrize("smiles", ["[CH2+]CC[CH2-]", "[O-][Cl+]C", "[BH3-][NH3+]", "[CH2-]CC[N+](C)(C)C", "[O-]C[O+]=C"])
def test_other_charges_are_refused_without_advice_that_nobody_can_follow(smiles: str) -> None:
    feedback = feedback_of(BUILD, smiles)
    assert "bears a charge" in feedback
    assert "Write another molecule" in feedback


# partners


@pytest.mark.parametrize(
    ("template", "target", "accepted", "refused"),
    [
        (
            "Fischer esterification",
            "CCOC(C)=O",
            ("CC(=O)O.CCO",),
            ("CC(=O)Cl.CCO", "CC(=O)O.CCBr", "CC(=O)OC(C)=O.CCO"),
        ),
        ("amide coupling", "CCNC(C)=O", ("CC(=O)O.CCN",), ("CC(=O)Cl.CCN", "CC(=O)OC.CCN", "CC(N)=O.CCBr")),
        ("acylation of an amine", "CCN(C)C(C)=O", ("CC(=O)Cl.CCNC",), ("CC(=O)O.CCNC", "CC(=O)Cl.CCN")),
        (
            "Williamson ether synthesis",
            "CCOC",
            ("CCO.CBr", "CO.CCBr", "CCO.CI", "CO.CCCl", "CO.CCOS(C)(=O)=O", "CO.CCOS(=O)(=O)c1ccc(C)cc1", "CCO.COS(C)(=O)=O"),
            ("CCO.CO", "CCO.CF"),
        ),
        ("Williamson ether synthesis", "COC(C)C", ("CC(C)O.CI",), ("CO.CC(C)Br",)),
        (
            "reductive amination",
            "CNC(C)C",
            ("CN.CC(C)=O", "CC(C)N.C=O"),
            ("CC(C)N.CI", "CN.CC(C)O", "CNC=O.CC"),
        ),
        ("reductive amination", "CCNCC", ("CC=O.CCN",), ("CC(=O)O.CCN",)),
        (
            "Suzuki coupling",
            "c1ccc(-c2ccncc2)cc1",
            (
                "Brc1ccccc1.OB(O)c1ccncc1",
                "Ic1ccccc1.OB(O)c1ccncc1",
                "Clc1ccncc1.OB(O)c1ccccc1",
                "Brc1ccncc1.CC1(C)OB(c2ccccc2)OC1(C)C",
                "Ic1ccncc1.COB(OC)c1ccccc1",
                "O=S(=O)(Oc1ccccc1)C(F)(F)F.OB(O)c1ccncc1",
            ),
            ("c1ccccc1.OB(O)c1ccncc1", "Fc1ccccc1.OB(O)c1ccncc1", "Brc1ccccc1.Brc1ccncc1", "Ic1ccccc1.[Mg]"),
        ),
    ],
)
def test_every_partner_that_a_chemist_takes_is_accepted(
    template: str, target: str, accepted: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    """An aryl iodide and a pinacol boronate were refused in a Suzuki coupling, ketones in a reductive amination."""
    question = PrecursorsQuestion(
        reaction=Reaction(template=template, reactants=("C", "C"), product=target, difficulty=Difficulty.easy)
    )
    assert [answer for answer in accepted if not is_right(question, answer)] == []
    assert [answer for answer in refused if is_right(question, answer)] == []


def test_a_missing_partner_is_named_as_a_chemist_names_it() -> None:
    reaction = Reaction(
        template="Suzuki coupling", reactants=("C", "C"), product="c1ccc(-c2ccncc2)cc1", difficulty=Difficulty.easy
    )
    question = PrecursorsQuestion(reaction=reaction)
    assert "neither has the aryl halide or sulfonate it needs" in feedback_of(question, "c1ccccc1.OB(O)c1ccncc1")
    assert "neither has the arylboronic acid or ester it needs" in feedback_of(question, "Ic1ccccc1.c1ccncc1")
