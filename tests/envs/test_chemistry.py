"""Properties of the environment ``chemistry``: its tasks, its splits, and what it says of answers."""

from __future__ import annotations

import os
import pickle
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest
from rdkit import Chem
from rdkit.Chem import Descriptors
from rdkit.Chem.Scaffolds import MurckoScaffold

from sdpo.envs.base import Environment, Task, Verdict
from sdpo.envs.chemistry import FAMILIES, Chemistry
from sdpo.envs.chemistry.balancing import BalanceQuestion
from sdpo.envs.chemistry.bounds import WEIGHT, Bound, BoundsQuestion, measure
from sdpo.envs.chemistry.counting import GROUPS, CountQuestion
from sdpo.envs.chemistry.formulas import BuildQuestion, FormulaQuestion
from sdpo.envs.chemistry.isomers import IsomerQuestion
from sdpo.envs.chemistry.molecules import molecules
from sdpo.envs.chemistry.oxidation import CarbonStateQuestion, FormulaStateQuestion
from sdpo.envs.chemistry.question import Difficulty, Question
from sdpo.envs.chemistry.repair import RepairQuestion
from sdpo.envs.chemistry.stereo import CentresQuestion, LabelsQuestion
from sdpo.envs.chemistry.stoichiometry import AmountQuestion
from sdpo.envs.chemistry.synthesis import PrecursorsQuestion, ProductQuestion
from sdpo.envs.chemistry.weighing import WeightQuestion
from tests.late import Late

CHEMISTRY = Chemistry()
TRAIN = Late(lambda: CHEMISTRY.tasks("train", 0))
HELDOUT = Late(lambda: CHEMISTRY.tasks("heldout", 0))
EVERY_TASK = Late(lambda: [*TRAIN, *HELDOUT])


def question_of(task: Task) -> Question:
    assert isinstance(task.payload, Question)
    return task.payload


def task_of(question: Question) -> Task:
    return Task(id="chemistry/by-hand", env="chemistry", messages=TRAIN[0].messages, payload=question)


def verdict_of(question: Question, answer: str) -> Verdict:
    return CHEMISTRY.verify(task_of(question), f"I think so. <answer>{answer}</answer>")


def feedback_of(question: Question, answer: str) -> str:
    verdict = verdict_of(question, answer)
    assert verdict.reward == 0.0
    assert verdict.feedback is not None
    return verdict.feedback


def names(feedback: str, reference: str) -> bool:
    """The reference stands in the feedback as a word of its own."""
    return re.search(rf"(?<![\w()=#])(?<![0-9]\.){re.escape(reference)}(?![\w(=#]|\.[0-9])", feedback) is not None


def of_family(tasks: Sequence[Task], family: str) -> list[Task]:
    return [task for task in tasks if task.id.split("/")[1] == family]


COUNTS = ("-1", "0", "1", "2", "3", "4", "7", "11", "two", "2.0", "CCO")
STATES = ("+12", "0", "-2", "+3", "2", "-4", "+1", "VI", "3+", "--2")
MOLECULES = ("CC", "CCO", "C1CC", "c1ccccc1", "C(C)(C)(C)(C)C", "CC.CC", "[CH2][CH2]", "CC(=O)OCC", "CC(=O)NC", "C2H6")
WRONG_ANSWERS: dict[type, tuple[str, ...]] = {
    CountQuestion: COUNTS,
    CentresQuestion: COUNTS,
    LabelsQuestion: ("R", "S, S, S", "R, R", "S, R", "S, S", "R, S", "left", "R S", "@, @@", ""),
    FormulaQuestion: ("C", "CH4", "C2H6", "C2H6O", "C7H8O", "C99H2", "C2H5OH", "XyZ", "C4H9Br", "CCO", "c2h6", "3"),
    WeightQuestion: ("0", "46.07", "46", "1e2", "100 g/mol", "99999", "-3", "78.1", "120.5", "C6H6"),
    BuildQuestion: MOLECULES,
    IsomerQuestion: MOLECULES,
    RepairQuestion: MOLECULES,
    BoundsQuestion: (*MOLECULES, "CCCCCCCCCCCCCCCCCC", "OCC(O)C(O)CO", "C=C=C==C", "46"),
    FormulaStateQuestion: STATES,
    CarbonStateQuestion: STATES,
    BalanceQuestion: (
        "1, 1, 1",
        "2, 1, 2",
        "1, 1, 1, 1",
        "2, 2, 2, 2",
        "1, 2, 3, 4",
        "1, 1, 1, 1, 1",
        "0, 1, 1",
        "H2, O2",
        "2",
        "1,,1",
    ),
    AmountQuestion: ("0", "1", "2.5", "10", "46.07", "1000", "ten", "5 g", "-1", "3,5"),
    ProductQuestion: MOLECULES,
    PrecursorsQuestion: ("CC", "CCO.CC(=O)O", "CC(=O)O.CN", "CCBr.CCO", "CC.C1CC", "C.C", "CC=O.NC", "a.b", ".", "CC.CC.CC"),
}
"""Of each kind of question, answers in its form and out of it; few of them right by chance."""


def test_it_is_an_environment_with_enough_tasks_of_every_family() -> None:
    assert isinstance(CHEMISTRY, Environment)
    assert len(FAMILIES) >= 12
    for family in FAMILIES:
        assert len(of_family(TRAIN, family)) >= 200
        assert len(of_family(HELDOUT, family)) >= 50


def test_every_family_has_every_difficulty_and_a_task_says_its_own() -> None:
    for tasks, least in ((TRAIN, 60), (HELDOUT, 12)):
        for family in FAMILIES:
            named = [task.id.split("/")[2] for task in of_family(tasks, family)]
            assert {difficulty: named.count(difficulty) >= least for difficulty in ("easy", "medium", "hard")} == {
                "easy": True,
                "medium": True,
                "hard": True,
            }
        assert all(task.id.split("/")[2] == question_of(task).difficulty.value for task in tasks)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_reference_answer_is_right(family: str) -> None:
    for task in of_family(EVERY_TASK, family):
        verdict = CHEMISTRY.verify(task, f"Let me see.\n<answer> {question_of(task).reference} </answer>")
        assert verdict.is_solved, (task, question_of(task).reference, verdict.feedback)
        assert verdict.feedback is None
        assert verdict.metrics == {"format_ok": 1.0, "well_formed": 1.0}


@pytest.mark.parametrize("family", FAMILIES)
def test_feedback_is_short_and_never_names_the_reference(family: str) -> None:
    num_wrong = num_solved = 0
    for task in of_family(EVERY_TASK, family)[::3]:
        question = question_of(task)
        for answer in WRONG_ANSWERS[type(question)]:
            verdict = CHEMISTRY.verify(task, f"<answer>{answer}</answer>")
            assert verdict.is_solved == (verdict.feedback is None)
            num_solved += verdict.is_solved
            if verdict.feedback is not None:
                num_wrong += 1
                assert len(verdict.feedback) < 400
                assert not names(verdict.feedback, question.reference), (task, answer, verdict.feedback)
    assert num_wrong >= 600  # of each of the families
    assert num_solved < num_wrong


@pytest.mark.parametrize("family", FAMILIES)
def test_feedback_of_a_shotgun_answer_does_not_confirm_the_reference_in_it(family: str) -> None:
    for task in of_family(EVERY_TASK, family)[::3]:
        reference = question_of(task).reference
        for answer in (f"{reference} or 17", f"{reference}, {reference}", f"not {reference}"):
            verdict = CHEMISTRY.verify(task, f"<answer>{answer}</answer>")
            assert verdict.reward == 0.0
            assert verdict.feedback is not None
            assert not names(verdict.feedback, reference), (task, verdict.feedback)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reference_with_one_character_changed_is_judged_like_any_answer(family: str) -> None:
    """Most such answers are wrong; one that is accepted is the same molecule, an isomer that was allowed, or the like."""
    num_wrong = 0
    for number, task in enumerate(of_family(TRAIN, family)[:60]):
        reference, draw = question_of(task).reference, random.Random(number)
        for _ in range(4):
            place, new = draw.randrange(len(reference)), draw.choice("CNO=()123, +-")
            answer = reference[:place] + new + reference[place + draw.randint(0, 1) :]
            verdict = CHEMISTRY.verify(task, f"<answer>{answer}</answer>")
            if verdict.feedback is not None and answer.strip() != reference:
                num_wrong += 1
                assert not names(verdict.feedback, reference), (task, answer, verdict.feedback)
    assert num_wrong >= 60


def test_every_prompt_is_short_and_does_not_hold_the_reference() -> None:
    for task in EVERY_TASK:
        system, user = task.messages
        assert len(system.content) < 200
        assert len(user.content) < 400
        question = question_of(task)
        # A SMILES is full of digits, and an amount may well be another's.
        if not isinstance(question, CountQuestion | CentresQuestion | AmountQuestion | CarbonStateQuestion):
            assert not names(user.content, question.reference), user.content


def test_ids_are_unique_and_payloads_survive_pickling() -> None:
    assert len({task.id for task in EVERY_TASK}) == len(EVERY_TASK)
    assert pickle.loads(pickle.dumps([*EVERY_TASK])) == [*EVERY_TASK]


def test_splits_share_no_id_no_prompt_no_key() -> None:
    assert not {task.id for task in TRAIN} & {task.id for task in HELDOUT}
    assert not {task.messages[-1].content for task in TRAIN} & {task.messages[-1].content for task in HELDOUT}
    assert not {question_of(task).key for task in TRAIN} & {question_of(task).key for task in HELDOUT}


def scaffold(smiles: str) -> str:
    """By RDKit's own module, not ours: rings and what joins them, or the bare tree where there is no ring."""
    mol = Chem.MolFromSmiles(smiles)
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)
    Chem.RemoveStereochemistry(mol)
    if mol.GetRingInfo().NumRings():
        return Chem.MolToSmiles(MurckoScaffold.GetScaffoldForMol(mol))
    return Chem.MolToSmiles(MurckoScaffold.MakeScaffoldGeneric(mol))


def subjects(question: Question) -> set[str]:
    """What must not stand on both sides of the split."""
    match question:
        case FormulaQuestion():
            return {scaffold(question.smiles), question.reference}
        case BuildQuestion():
            return {scaffold(question.reference), question.formula}
        case IsomerQuestion() | RepairQuestion():
            return {scaffold(question.reference)}
        case CountQuestion() | WeightQuestion() | CentresQuestion() | LabelsQuestion() | CarbonStateQuestion():
            return {scaffold(question.smiles)}
        case BoundsQuestion():
            return {scaffold(question.reference), question.key}
        case FormulaStateQuestion():
            return {question.formula}
        case BalanceQuestion() | AmountQuestion():
            return {str(question.equation)}
        case ProductQuestion() | PrecursorsQuestion():
            return {scaffold(question.reaction.product), str(question.reaction)}
    raise AssertionError(f"say what a {type(question).__name__} is about")


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_share_no_scaffold_no_asked_formula_and_no_equation(family: str) -> None:
    train, heldout = (
        {subject for task in of_family(tasks, family) for subject in subjects(question_of(task))} for tasks in (TRAIN, HELDOUT)
    )
    assert not train & heldout


def test_splits_share_no_scaffold_among_all_families_together() -> None:
    train, heldout = (
        {subject for task in tasks for subject in subjects(question_of(task)) if not isinstance(question_of(task), BuildQuestion)}
        for tasks in (TRAIN, HELDOUT)
    )
    assert not {one for one in train & heldout if Chem.MolFromSmiles(one) is not None and "->" not in one}


def test_molecules_have_two_to_sixteen_heavy_atoms() -> None:
    sizes = {Chem.MolFromSmiles(smiles).GetNumAtoms() for split in ("train", "heldout") for smiles in molecules(split)}
    assert sizes == set(range(2, 17))


def test_the_seed_gives_the_order_but_not_the_tasks() -> None:
    again, other = CHEMISTRY.tasks("train", 0), CHEMISTRY.tasks("train", 1)
    assert list(again) == list(TRAIN)
    assert list(other) != list(TRAIN)
    assert {task.id for task in other} == {task.id for task in TRAIN}


def test_the_tasks_are_the_same_in_a_process_with_another_hash_seed() -> None:
    script = (
        "from hashlib import sha256; from sdpo.envs.chemistry import Chemistry;"
        "tasks = [*Chemistry().tasks('train', 3), *Chemistry().tasks('heldout', 3)];"
        "print(sha256(repr(tasks).encode()).hexdigest())"
    )
    here = sha256(repr([*CHEMISTRY.tasks("train", 3), *CHEMISTRY.tasks("heldout", 3)]).encode()).hexdigest()
    environment = os.environ | {"PYTHONHASHSEED": "2"}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == here


def test_it_imports_nothing_heavy() -> None:
    script = "import sys, sdpo.envs.chemistry; print({'torch', 'ray', 'vllm', 'deepspeed', 'hydra'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_families_choose_the_tasks() -> None:
    tasks = Chemistry(families=["rings", "build"]).tasks("heldout", 0)
    assert {task.id.split("/")[1] for task in tasks} == {"rings", "build"}
    assert {task.id for task in tasks} <= {task.id for task in HELDOUT}


def test_difficulties_choose_the_tasks() -> None:
    tasks = Chemistry(difficulties=["hard", "easy"]).tasks("heldout", 0)
    assert {task.id.split("/")[2] for task in tasks} == {"easy", "hard"}
    assert {task.id for task in tasks} == {task.id for task in HELDOUT if "/medium/" not in task.id}
    assert {question_of(task).difficulty for task in tasks} == {Difficulty.easy, Difficulty.hard}


def test_unknown_families_and_splits_are_refused_with_those_known() -> None:
    with pytest.raises(ValueError, match=r"among heavy_atoms, .*; got 'ringz' \(did you mean 'rings'\?\)"):
        Chemistry(families=["ringz"])
    with pytest.raises(ValueError, match="at least one of its families"):
        Chemistry(families=[])
    with pytest.raises(ValueError, match="must be a list of names; got the text 'rings'"):
        Chemistry(families="rings")
    with pytest.raises(ValueError, match=r"among easy, medium, hard; got 'hart' \(did you mean 'hard'\?\)"):
        Chemistry(difficulties=["hart"])
    with pytest.raises(ValueError, match="one of train, heldout; got 'test'"):
        CHEMISTRY.tasks("test", 0)
    with pytest.raises(ValueError, match="its own tasks only"):
        CHEMISTRY.verify(Task(id="code/1", env="code", messages=TRAIN[0].messages), "<answer>1</answer>")


ETHANOL_RINGS = CountQuestion(subject="rings (each ring of a fused pair counts)", smiles="CCO")
TWO_RINGS = CountQuestion(subject="rings (each ring of a fused pair counts)", smiles="C1CCC2CCCC2C1")
ETHANOL_FORMULA = FormulaQuestion(smiles="CCO")
BUILD_ETHANOL = BuildQuestion(formula="C2H6O", reference="CCO")
LIGHT_AND_RINGLESS = BoundsQuestion(
    bounds=(Bound(property=WEIGHT, low=40, high=60), Bound(property="number of rings", low=0, high=0)), reference="CCO"
)


@pytest.mark.parametrize(
    ("completion", "says"),
    [
        ("0", "no answer to read"),
        ("", "no answer to read"),
        ("<answer>0", "opened but never closed"),
        ("0</answer>", "closed but never opened"),
        ("<answer> </answer>", "is empty"),
        ("<answer>" + "0" * 1001 + "</answer>", "too long"),
    ],
)
def test_an_answer_outside_its_tags_is_worth_nothing_and_the_feedback_says_so(completion: str, says: str) -> None:
    verdict = CHEMISTRY.verify(task_of(ETHANOL_RINGS), completion)
    assert verdict.reward == 0.0
    assert says in str(verdict.feedback)
    assert verdict.metrics == {"format_ok": 0.0, "well_formed": 0.0}


def test_the_last_pair_of_tags_counts() -> None:
    task = task_of(ETHANOL_RINGS)
    assert CHEMISTRY.verify(task, "<answer>1</answer> no: <answer>0</answer> as said <answer>").is_solved
    assert not CHEMISTRY.verify(task, "<answer>0</answer> no: <answer>1</answer>").is_solved


def test_a_wrong_count_is_called_too_high_or_too_low() -> None:
    assert feedback_of(ETHANOL_RINGS, "2").startswith("2 is too high: count the rings")
    assert feedback_of(TWO_RINGS, "1").startswith("1 is too low: count the rings")
    assert "not an integer" in feedback_of(ETHANOL_RINGS, "-1")
    assert "not an integer" in feedback_of(ETHANOL_RINGS, "none")
    assert verdict_of(ETHANOL_RINGS, "none").metrics == {"format_ok": 1.0, "well_formed": 0.0}


def test_a_wrong_formula_is_told_which_elements_are_off_but_not_by_how_much() -> None:
    feedback = feedback_of(ETHANOL_FORMULA, "C2H5N")
    assert feedback.startswith("C2H5N is not right: too few H, too few O, too many N.")
    assert "once" in feedback_of(ETHANOL_FORMULA, "C2H5OH")
    assert "not a molecular formula" in feedback_of(ETHANOL_FORMULA, "ethanol")


@pytest.mark.parametrize("answer", ["C2H6O", "C₂H₆O", "OC2H6", "C2H6O1"])
def test_a_formula_is_right_in_any_order_and_with_subscripts(answer: str) -> None:
    assert verdict_of(ETHANOL_FORMULA, answer).is_solved


def test_a_molecule_of_another_formula_is_told_the_one_it_has() -> None:
    feedback = feedback_of(BUILD_ETHANOL, "CCC")
    assert feedback == "The molecule has the formula C3H8, but C2H6O was asked for: 1 C too many, 2 H too many, 1 O too few."


@pytest.mark.parametrize("answer", ["CCO", "OCC", "COC", "C(O)C", "[CH3][CH2][OH]", "[H]OCC"])
def test_any_isomer_in_any_writing_is_right(answer: str) -> None:
    assert verdict_of(BUILD_ETHANOL, answer).is_solved


def test_a_molecule_out_of_bounds_is_told_which_and_its_value() -> None:
    feedback = feedback_of(LIGHT_AND_RINGLESS, "C1CCCCC1")
    assert "its molecular weight in g/mol is 84.16, above 60" in feedback
    assert "its number of rings is 1, above 0" in feedback
    assert "rings" not in feedback_of(LIGHT_AND_RINGLESS, "CCCCCCC")


def test_weights_agree_with_rdkits_own() -> None:
    for smiles in list(molecules("train"))[::50]:
        mol = Chem.MolFromSmiles(smiles)
        assert measure(WEIGHT, mol) == pytest.approx(dict(Descriptors.descList)["MolWt"](mol), abs=0.01)


@pytest.mark.parametrize(
    ("subject", "smiles", "count"),
    [
        ("hydroxyl", "OCCO", 2),
        ("hydroxyl", "CC(=O)O", 0),
        ("hydroxyl", "Oc1ccccc1", 1),
        ("carbonyl", "CC(=O)CC(N)=O", 2),
        ("carboxylic", "OC(=O)CC(=O)O", 2),
        ("carboxylic", "COC=O", 0),
        ("amine", "NCC(N)=O", 1),
        ("amine", "Nc1ccncc1", 1),
        ("ether", "COC", 1),
        ("ether", "COC(C)=O", 0),
        ("ether", "c1ccoc1", 0),
        ("nitrile", "N#CCC#N", 2),
        ("halogen", "FC(Cl)Br", 3),
        ("carbon-carbon", "C=CC=C", 2),
        ("carbon-carbon", "c1ccccc1C=C", 1),
    ],
)
def test_functional_groups_are_counted_as_their_wording_says(subject: str, smiles: str, count: int) -> None:
    (wording,) = [wording for wording in GROUPS if wording.startswith(subject)]
    assert CountQuestion(subject=wording, smiles=smiles).reference == str(count)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("C(C)(C)(C)(C)C", "Explicit valence for atom # 0 C, 5, is greater than permitted"),
        ("c1cccc1", "Can't kekulize mol. Unkekulized atoms: 0 1 2 3 4"),
        ("CC(C", "extra open parentheses; check for mistakes around position"),
        ("CC)C", "extra close parentheses"),
        ("C1CC", "unclosed ring"),
        ("CQ", "syntax error"),
        ("cCO", "non-ring atom 0 marked aromatic"),
        ("C C", "the character ' ' has no place in it"),
        ("C*", "the character '*' has no place"),
        ("C\ud800", "the character '\\ud800' has no place"),
        ("CC.O", "one connected molecule"),
        ("[CH3][CH]O", "must not be a radical"),
        ("CC[O-]", "must be neutral; its charge is -1"),
        ("[CH2-]C[OH2+]", "Write the form without charges"),
        ("[CH2+]CC[CH2-]", "An atom C bears a charge"),
        ("C" * 201, "too long for a SMILES"),
        ("[13CH3]CO", "isotopes"),
        ("[Fe]", "it holds Fe"),
        ("C" * 41, "far too large: it has 41 atoms"),
        ("C(" * 13 + "C" + ")" * 13, "nests its branches too deeply: 13 levels"),
        ("C12" * 16, "too many ring closures: 32 digits"),
    ],
)
def test_a_smiles_that_is_no_molecule_is_told_why_in_rdkits_words(answer: str, says: str) -> None:
    verdict = verdict_of(BUILD_ETHANOL, answer)
    assert verdict.reward == 0.0
    assert says in str(verdict.feedback)
    assert verdict.metrics == {"format_ok": 1.0, "well_formed": 0.0}


def test_rdkit_messages_stay_with_the_thread_that_asked() -> None:
    answers = {"CC(C": "open parentheses", "C1CC": "unclosed ring", "CQ": "syntax error", "cCO": "aromatic"}
    asked = [answer for _ in range(100) for answer in answers]
    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(lambda answer: feedback_of(BUILD_ETHANOL, answer), asked))
    for answer, feedback in zip(asked, told, strict=True):
        assert [say for say in answers.values() if say in feedback] == [answers[answer]]


def test_rdkit_writes_nothing_to_standard_error_while_verifying(capfd: pytest.CaptureFixture[str]) -> None:
    for answer in ("CC(C", "C1CC", "C(C)(C)(C)(C)C", "c1cccc1", "cCO"):
        feedback_of(BUILD_ETHANOL, answer)
    assert capfd.readouterr() == ("", "")


def hostile_answers() -> list[str]:
    draw = random.Random(0)
    grammar = "CNOSPcnos[]()=#123456789%+-@/\\.HFIBrl"
    random_smiles = ["".join(draw.choices(grammar, k=draw.randint(1, 200))) for _ in range(300)]
    random_text = ["".join(map(chr, draw.choices(range(0xE000), k=50))) for _ in range(50)]
    bombs = ["(" * 10_000 + ")" * 10_000, "C" * 10_000, "C1" * 5_000, "[" * 200, "C(" * 100, "C%10" * 50, "C12" * 66]
    cages = [
        "S" + "123456789" * 5,
        "C1C2C3C4C5C6C7C8C9" * 11,
        "[CH99999999999]",
        "[99999999999C]",
        "[C+99999]",
        "[C:9999999999]",
    ]
    texts = [
        "\x00",
        "C\x00C",
        "\x00" * 1_000_000,
        "9" * 199,
        "C9" * 100,
        "C9999H9999",
        "\ud800\udfff",
        "🧪",
        "\u202e2",
        "²",
        "٣",
    ]
    aromatic = ["c1" * 20, "c" * 200, "n1" * 40 + "c" * 40, "c1ccc2c(c1)" * 18]
    return [*random_smiles, *random_text, *bombs, *cages, *texts, *aromatic]


@pytest.mark.parametrize("kind", WRONG_ANSWERS)
def test_hostile_answers_get_a_verdict_quickly(kind: type, capfd: pytest.CaptureFixture[str]) -> None:
    task = next(task for task in HELDOUT if isinstance(task.payload, kind))
    pairs = ["C=O.N", f"{'C' * 39}.{'N' * 39}", "O=C(O)CCCCCCC(=O)O.OCCCCCCO", ".".join(["C"] * 90), "C1.C1"]
    numbers = ["1," * 99, "9" * 6 + ",9" * 3, "1e999", "nan", "inf", "9" * 9 + "." + "9" * 9, "-", "+", "0.", "R," * 99, "0,0,0"]
    for answer in [*hostile_answers(), *pairs, *numbers]:
        start = time.process_time()
        verdict = CHEMISTRY.verify(task, f"<answer>{answer}</answer>")
        assert time.process_time() - start < 2.0, answer[:200]
        assert set(verdict.metrics) == {"format_ok", "well_formed"}
        assert verdict.is_solved == (verdict.feedback is None)
        assert len(verdict.feedback or "") < 500
        (verdict.feedback or "").encode()  # a surrogate would break the tokenizer
    assert capfd.readouterr().err == ""


def test_hostile_answers_without_proper_tags_get_a_verdict_quickly() -> None:
    for answer in hostile_answers():
        for completion in (answer, f"<answer>{answer}", "<answer>" * 3 + answer + "</answer>"):
            start = time.process_time()
            assert CHEMISTRY.verify(HELDOUT[0], completion).reward == 0.0
            assert time.process_time() - start < 2.0, answer[:200]


def test_a_megabyte_of_tags_is_read_in_no_time() -> None:
    for completion in ("<answer>" * 125_000, "</answer>" * 110_000, "<answer></answer>" * 60_000):
        start = time.process_time()
        assert CHEMISTRY.verify(TRAIN[0], completion).reward == 0.0
        assert time.process_time() - start < 2.0
