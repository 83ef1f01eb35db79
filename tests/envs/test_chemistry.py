"""Properties of the environment ``chemistry``: its tasks, its splits, and what it says of answers."""

from __future__ import annotations

import os
import pickle
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest
from rdkit import Chem
from rdkit.Chem import Descriptors
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from sdpo.envs.base import Environment, Task, Verdict
from sdpo.envs.chemistry import FAMILIES, Chemistry
from sdpo.envs.chemistry.bounds import WEIGHT, Bound, BoundsQuestion, measure
from sdpo.envs.chemistry.counting import GROUPS, CountQuestion
from sdpo.envs.chemistry.formulas import BuildQuestion, FormulaQuestion
from sdpo.envs.chemistry.molecules import molecules
from sdpo.envs.chemistry.question import Question

CHEMISTRY = Chemistry()
TRAIN = CHEMISTRY.tasks("train", 0)
HELDOUT = CHEMISTRY.tasks("heldout", 0)
EVERY_TASK = [*TRAIN, *HELDOUT]


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
    return re.search(rf"(?<![\w(=#]){re.escape(reference)}(?![\w(=#])", feedback) is not None


WRONG_ANSWERS = {
    CountQuestion: ("-1", "0", "1", "2", "3", "4", "7", "11", "two", "2.0", "CCO"),
    FormulaQuestion: ("C", "CH4", "C2H6", "C2H6O", "C7H8O", "C99H2", "C2H5OH", "XyZ", "C4H9Br", "CCO", "c2h6", "3"),
    BuildQuestion: ("C", "CC", "CCO", "C1CC", "c1ccccc1", "C(C)(C)(C)(C)C", "CC.CC", "[CH2][CH2]", "[NH4+]", "C2H6"),
    BoundsQuestion: ("C", "CC", "CCO", "C1CC", "c1ccccc1", "CCCCCCCCCCCCCCCCCC", "OCC(O)C(O)CO", "C=C=C==C", "46"),
}


def test_it_is_an_environment_with_enough_tasks_of_every_family() -> None:
    assert isinstance(CHEMISTRY, Environment)
    assert len(TRAIN) >= 500
    assert len(HELDOUT) >= 100
    for tasks in (TRAIN, HELDOUT):
        assert {task.id.split("/")[1] for task in tasks} == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_reference_answer_is_right(family: str) -> None:
    for task in EVERY_TASK:
        if f"/{family}/" in task.id:
            verdict = CHEMISTRY.verify(task, f"Let me see.\n<answer> {question_of(task).reference} </answer>")
            assert verdict.is_solved, task
            assert verdict.feedback is None
            assert verdict.metrics == {"format_ok": 1.0, "well_formed": 1.0}


def test_feedback_never_names_the_reference_of_any_task() -> None:
    num_wrong = 0
    for task in EVERY_TASK:
        question = question_of(task)
        for answer in WRONG_ANSWERS[type(question)]:
            verdict = CHEMISTRY.verify(task, f"<answer>{answer}</answer>")
            assert verdict.is_solved == (verdict.feedback is None)
            if verdict.feedback is not None:
                num_wrong += 1
                assert not names(verdict.feedback, question.reference), (task, answer, verdict.feedback)
    assert num_wrong > 5 * len(EVERY_TASK)


def test_feedback_of_a_shotgun_answer_does_not_confirm_the_reference_in_it() -> None:
    for task in EVERY_TASK:
        reference = question_of(task).reference
        for answer in (f"{reference} or 17", f"{reference}, {reference}", f"not {reference}"):
            verdict = CHEMISTRY.verify(task, f"<answer>{answer}</answer>")
            assert verdict.reward == 0.0
            assert verdict.feedback is not None
            assert not names(verdict.feedback, reference), (task, verdict.feedback)


def test_every_prompt_is_short_and_does_not_hold_the_reference() -> None:
    for task in EVERY_TASK:
        system, user = task.messages
        assert len(system.content) < 200
        assert len(user.content) < 220
        question = question_of(task)
        if not isinstance(question, CountQuestion):  # a SMILES is full of digits
            assert not names(user.content, question.reference), user.content


def test_ids_are_unique_and_payloads_survive_pickling() -> None:
    assert len({task.id for task in EVERY_TASK}) == len(EVERY_TASK)
    assert pickle.loads(pickle.dumps(EVERY_TASK)) == EVERY_TASK


def test_splits_share_no_id_no_prompt_no_key() -> None:
    assert not {task.id for task in TRAIN} & {task.id for task in HELDOUT}
    assert not {task.messages[-1].content for task in TRAIN} & {task.messages[-1].content for task in HELDOUT}
    assert not {question_of(task).key for task in TRAIN} & {question_of(task).key for task in HELDOUT}


def test_splits_share_no_molecule_and_no_formula() -> None:
    assert not set(molecules("train")) & set(molecules("heldout"))
    assert not set(molecules("train").values()) & set(molecules("heldout").values())

    def smiles_in(tasks: list[Task]) -> set[str]:
        """Every molecule that a question is about or that is its reference, written canonically anew."""
        questions = [question_of(task) for task in tasks]
        return {
            Chem.MolToSmiles(Chem.MolFromSmiles(q.smiles if isinstance(q, CountQuestion | FormulaQuestion) else q.reference))
            for q in questions
        }

    def formulas_in(smiles: set[str]) -> set[str]:
        return {CalcMolFormula(Chem.MolFromSmiles(one)) for one in smiles}

    train, heldout = smiles_in(list(TRAIN)), smiles_in(list(HELDOUT))
    assert train <= set(molecules("train"))
    assert heldout <= set(molecules("heldout"))
    assert not formulas_in(train) & formulas_in(heldout)


def test_molecules_have_two_to_ten_heavy_atoms() -> None:
    sizes = {Chem.MolFromSmiles(smiles).GetNumAtoms() for split in ("train", "heldout") for smiles in molecules(split)}
    assert sizes == set(range(2, 11))


def test_the_seed_gives_the_order_but_not_the_tasks() -> None:
    again, other = CHEMISTRY.tasks("train", 0), CHEMISTRY.tasks("train", 1)
    assert list(again) == list(TRAIN)
    assert list(other) != list(TRAIN)
    assert {task.id for task in other} == {task.id for task in TRAIN}


def test_the_tasks_are_the_same_in_a_process_with_another_hash_seed_and_made_in_time() -> None:
    script = (
        "import time; from hashlib import sha256; from sdpo.envs.chemistry import Chemistry;"
        "start = time.perf_counter();"
        "tasks = [*Chemistry().tasks('train', 3), *Chemistry().tasks('heldout', 3)];"
        "print(time.perf_counter() - start, sha256(repr(tasks).encode()).hexdigest())"
    )
    here = sha256(repr([*CHEMISTRY.tasks("train", 3), *CHEMISTRY.tasks("heldout", 3)]).encode()).hexdigest()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        duration_s, there = ran.stdout.split()
        assert there == here
        assert float(duration_s) < 10.0  # about 1 s; generous, as the machine may be shared


def test_it_imports_nothing_heavy() -> None:
    script = "import sys, sdpo.envs.chemistry; print({'torch', 'ray', 'vllm', 'deepspeed', 'hydra'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_families_choose_the_tasks() -> None:
    tasks = Chemistry(families=["rings", "build"]).tasks("heldout", 0)
    assert {task.id.split("/")[1] for task in tasks} == {"rings", "build"}
    assert {task.id for task in tasks} <= {task.id for task in HELDOUT}


def test_unknown_families_and_splits_are_refused_with_those_known() -> None:
    with pytest.raises(ValueError, match=r"among heavy_atoms, .*; got 'ringz' \(did you mean 'rings'\?\)"):
        Chemistry(families=["ringz"])
    with pytest.raises(ValueError, match="at least one family"):
        Chemistry(families=[])
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
        ("<answer>" + "0" * 201 + "</answer>", "too long"),
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
    assert feedback == "The molecule has the formula C3H8, but C2H6O was asked for: too many C, too many H, too few O."


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
        ("[CH2-]C[OH2+]", "No carbon"),
        ("[13CH3]CO", "isotopes"),
        ("[Fe]", "it holds Fe"),
        ("C" * 41, "far too large: it has 41 atoms"),
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
        heard = list(threads.map(lambda answer: feedback_of(BUILD_ETHANOL, answer), asked))
    for answer, feedback in zip(asked, heard, strict=True):
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


@pytest.mark.parametrize("family", FAMILIES)
def test_hostile_answers_get_a_verdict_quickly(family: str, capfd: pytest.CaptureFixture[str]) -> None:
    task = next(task for task in HELDOUT if f"/{family}/" in task.id)
    for answer in hostile_answers():
        for completion in (
            f"<answer>{answer}</answer>",
            answer,
            f"<answer>{answer}",
            "<answer>" * 3 + answer + "</answer>",
        ):
            start = time.process_time()
            verdict = CHEMISTRY.verify(task, completion)
            assert time.process_time() - start < 0.5, answer[:200]
            assert set(verdict.metrics) == {"format_ok", "well_formed"}
            assert verdict.is_solved == (verdict.feedback is None)
            assert len(verdict.feedback or "") < 500
            (verdict.feedback or "").encode()  # a surrogate would break the tokenizer
    assert capfd.readouterr().err == ""


def test_a_megabyte_of_tags_is_read_in_no_time() -> None:
    for completion in ("<answer>" * 125_000, "</answer>" * 110_000, "<answer></answer>" * 60_000):
        start = time.process_time()
        assert CHEMISTRY.verify(TRAIN[0], completion).reward == 0.0
        assert time.process_time() - start < 0.5
