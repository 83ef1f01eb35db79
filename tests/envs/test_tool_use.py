"""Properties of the environment ``tool_use``: reading calls, comparing them, and feedback that gives nothing away."""

from __future__ import annotations

import gc
import itertools
import json
import pickle
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdpo.envs.base import Environment, Task, Verdict
from sdpo.envs.tool_use import Calls, ToolUse
from sdpo.envs.tool_use.calls import Call, Unreadable, read_calls
from sdpo.envs.tool_use.judging import equals, is_same
from sdpo.envs.tool_use.literals import python_object
from sdpo.envs.tool_use.tools import Parameter, Tool, documented_tools, listed_tools

PROMPT = """Answer the question with the tools below.
Name: Garden
Documentation:
plantTree: Plant a tree.
Parameters: {"kind": "Required. string. One of: [oak, elm].", "height": "integer. In cm.", "tags": "Array[string]. Labels."}
Output: Done.
waterPlants: Water what was planted.
Parameters: {"litres": "Required. number. How much.", "deep": "boolean. At the roots?", "where": "Object{x: number}. The place."}
Output: Done.
lookAround: See the garden.
Parameters: {}
Output: A text.

Use the format
Action: the tool's name
Action Input: its arguments as JSON

Question: """


def row(question: str, *calls: tuple[str, dict[str, object]]) -> dict[str, object]:
    answer = json.dumps([{"Action": name, "Action_Input": json.dumps(arguments)} for name, arguments in calls])
    return {"prompt": PROMPT + question, "answer": answer, "system": None, "kind": "tooluse"}


PLANT = row(
    "Plant an elm of 150 cm, tagged garden and shade.", ("plantTree", {"kind": "elm", "height": 150, "tags": ["a7", "b8"]})
)
WATER = row(
    "Water 2.5 litres, deep, at x = 7319.",
    ("waterPlants", {"litres": 2.5, "deep": True, "where": {"x": 7319, "y": [1, {"z": None}]}}),
)
SEE = row("What is there?", ("lookAround", {}))
BOTH = row("Plant an oak, then look.", ("plantTree", {"kind": "oak"}), ("lookAround", {}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.json").write_text("\n".join(map(json.dumps, [PLANT, WATER, SEE])))
    (tmp_path / "test.json").write_text(json.dumps([BOTH]))
    return tmp_path


@pytest.fixture
def env(folder: Path) -> ToolUse:
    return ToolUse(path=str(folder / "train.json"), heldout_path=str(folder / "test.json"))


def task_of(env: ToolUse, asked: dict[str, object]) -> Task:
    tasks = [*env.tasks("train", 0), *env.tasks("heldout", 0)]
    return next(task for task in tasks if task.messages[-1].content == asked["prompt"])


def written(*calls: tuple[str, object]) -> str:
    return "\n".join(f"Thought: I should.\nAction: {name}\nAction Input: {json.dumps(arguments)}" for name, arguments in calls)


def feedback_of(verdict: Verdict) -> str:
    assert verdict.reward == 0.0
    assert verdict.feedback is not None
    assert len(verdict.feedback) < 300
    return verdict.feedback


def test_it_is_an_environment_whose_references_are_right(env: ToolUse) -> None:
    assert isinstance(env, Environment)
    tasks = [*env.tasks("train", 0), *env.tasks("heldout", 0)]
    assert len(tasks) == 4
    assert pickle.loads(pickle.dumps(tasks)) == tasks
    for task in tasks:
        verdict = env.verify(task, f"Thought: easy.\n{env.reference(task)}")
        assert verdict.is_solved
        assert verdict.feedback is None


@pytest.mark.parametrize(
    "completion",
    [
        "Action: lookAround\nAction Input: {}",
        "Thought: I look.\nAction: lookAround\nAction Input: {}\nObservation: a tree",
        '<think>Action: plantTree\nAction Input: {"kind": </think>\nAction: lookAround\nAction Input: {}',
        "  Action :  `lookAround`  \n\n Action Input :\n{\n}\n",
        "Action: lookAround\r\nAction Input: {}\r\n",
    ],
)
def test_a_call_is_read_however_it_is_set(env: ToolUse, completion: str) -> None:
    assert env.verify(task_of(env, SEE), completion).is_solved


ELM = '{"kind": "elm", "height": 150, "tags": ["a7", "b8"]}'


@pytest.mark.parametrize(
    "completion",
    [
        f"**Action:** plantTree\n**Action Input:** {ELM}",
        f"**Action**: plantTree\n**Action Input**: {ELM}",
        f"**Action: plantTree**\n**Action Input:**\n{ELM}",
        f"- **Action:** `plantTree`\n- **Action Input:** `{ELM}`",
        f"### Action: **plantTree**\n### Action Input: {ELM}",
        f"1. Action: plantTree.\n2. Action Input: {ELM}",
        f"action: plantTree\naction input: {ELM}",
        f"ACTION: [plantTree]\nACTION_INPUT: {ELM}",
        f"Action: plantTree\nAction Input:\n```json\n{ELM}\n```\nDone.",
        f"Action: plantTree\nAction Input: ```\n{ELM}\n```",
        f"Action: plantTree\nAction Input:\n~~~json\n{ELM}\n~~~",
        f"```\nAction: plantTree\nAction Input: {ELM}\n```",
        "Action: plantTree\nAction Input: {'kind': 'elm', 'height': 150, 'tags': ['a7', 'b8']}",
        "Action: plantTree\nAction Input: {'kind': \"elm\", 'height': 150, 'tags': ('a7', 'b8',),}\nObservation: {'ok': 1}",
        f"<think>Action: plantTree\nAction Input: {{}}</think>Action: plantTree\nAction Input: {ELM}",
    ],
)
def test_a_call_is_read_as_models_write_it(env: ToolUse, completion: str) -> None:
    """Bold, lower case, a fence and single quotes made a right call unreadable."""
    assert env.verify(task_of(env, PLANT), completion).is_solved
    assert not env.verify(task_of(env, PLANT), completion.replace("elm", "oak")).is_solved
    assert not env.verify(task_of(env, PLANT), completion.replace("150", "151")).is_solved


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{'a': True, 'b': None, 'c': false, 'd': null}", {"a": True, "b": None, "c": False, "d": None}),
        ("{'a': -1.5e3, 'b': (1, [2])} and more }", {"a": -1500.0, "b": [1, [2]]}),
        (r"""{'it\'s': 'a } in "it"', "b": 'é\n'}""", {"it's": 'a } in "it"', "b": "é\n"}),
        ("{}", {}),
        ("{1: 2}", None),
        ("{'a'}", None),
        ("{'a': {1, 2}}", None),
        ("{'a': b'x'}", None),
        ("{'a': 1j}", None),
        ("{'a': open('x')}", None),
        ("{'a': __import__('os')}", None),
        ("{'a': 10**9}", None),
        ("{'a': 'never closed}", None),
        ("{'a': [1}", None),
        ("{**{'a': 1}}", None),
        ("['a']", None),
        ("{'a': " + "[" * 5000, None),
        ("{'a': " + "[" * 100 + "]" * 100 + "}", None),
        ("{'a': " + "-" * 5000 + "1}", None),
        ("{'a': " + "9" * 5000 + "}", None),
        ("{" + "'a' " * 4000 + ": 1}", {"a" * 4000: 1}),
    ],
)
def test_a_literal_of_python_is_read_and_never_evaluated(source: str, value: object) -> None:
    assert python_object(source) == value


class Garbage:
    """Its collection lets other threads run, wherever the collector comes upon it."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(0)


def test_calls_are_read_by_several_threads_at_once() -> None:
    """Python 3.11 builds one tree at a time: reading raised SystemError where two threads read a literal of Python."""
    source = "{'a': " + "[" * 40 + ", ".join(["[[1, 'x'], {'b': (2,)}]"] * 60) + "]" * 40 + "}"

    def read(_: int) -> str:
        [Garbage() for _ in range(20)]
        return repr(python_object(source))

    before = gc.get_threshold()
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(read, range(60)))) == 1
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize(
    "name", ["[Optional]updateUserProfile", "[x]", "*x*", "`x`", "x.", "_x_", "__x__", "[a] [b]", "(x)", "x: y"]
)
def test_a_tool_of_any_name_can_be_called(folder: Path, name: str) -> None:
    """Brackets went from both ends of a name: the right call of a tool ``[Optional]updateUserProfile`` was impossible."""
    prompt = f"{name}: Do it.\nParameters: {{}}\nOutput: Done.\nQuestion: Do it."
    asked = {"prompt": prompt, "answer": [{"Action": name, "Action_Input": {}}]}
    (folder / "train.json").write_text(json.dumps([asked]))
    env = ToolUse(path=str(folder / "train.json"), heldout_path=str(folder / "test.json"))
    (task,) = env.tasks("train", 0)
    assert env.verify(task, env.reference(task)).is_solved
    assert env.verify(task, f"**Action:** **{name}**\nAction Input: {{}}").is_solved
    assert env.verify(task, f"Action: [{name}]\nAction Input: {{}}").is_solved
    assert not env.verify(task, "Action: Optional\nAction Input: {}").is_solved


def test_a_documented_name_may_have_brackets() -> None:
    (tool,) = documented_tools('[Optional]update: Do it.\nParameters: {"name": "Required. string."}\n')
    assert tool == Tool(name="[Optional]update", parameters=(Parameter(name="name", kind="string", is_required=True),))


def test_a_duplicate_call_is_not_the_same_as_one(folder: Path) -> None:
    see, plant = ("lookAround", {}), ("plantTree", {"kind": "oak"})
    twice = row("See twice.", see, see, plant)
    (folder / "train.json").write_text(json.dumps([twice]))
    env = ToolUse(path=str(folder / "train.json"), heldout_path=str(folder / "test.json"))
    task = task_of(env, twice)
    assert env.verify(task, written(see, plant, see)).is_solved
    for wrong in ((see, plant), (see, see, see, plant), (see, plant, plant), (see, see), (see, see, plant, plant)):
        feedback_of(env.verify(task, written(*wrong)))
    assert not env.verify(task_of(env, BOTH), written(see, see, plant)).is_solved


def test_calls_that_python_holds_equal_are_told_apart() -> None:
    """``1 == True`` in Python: a matched call took another one's place, and the right calls were wrong."""
    one, true = Call(name="f", arguments={"x": 1}), Call(name="f", arguments={"x": True})
    assert equals((true, one), (one, true), is_loose=False)
    assert not equals((one, one), (one, true), is_loose=False)
    assert not equals((true, true), (one, true), is_loose=False)


def test_loosely_equal_calls_are_matched_whichever_comes_first() -> None:
    """``"1"`` equals 1 loosely and so does ``"1.0"``, but not each other: the first match made the second impossible."""

    def calls(*values: object) -> tuple[Call, ...]:
        return tuple(Call(name="f", arguments={"x": value}) for value in values)

    for given in itertools.permutations(["1", "1.0"]):
        for golden in itertools.permutations([1, "1"]):
            assert equals(calls(*given), calls(*golden), is_loose=True)
            assert not equals(calls(*given), calls("1.0", "1.0"), is_loose=True)


@pytest.mark.parametrize("shape", ["<think>so {}", "<think>so {}</think>", "so {}</think>", "<think>so {}</think>No, nothing."])
def test_a_call_in_the_thoughts_never_counts(env: ToolUse, shape: str) -> None:
    """A right call in a thought that never ended was rewarded."""
    call = written(("lookAround", {}))
    assert "No tool call was found" in feedback_of(env.verify(task_of(env, SEE), shape.format(f"\n{call}\n")))
    assert env.verify(task_of(env, SEE), f"{shape.format('hm')}</think>\n{call}").is_solved


def test_nested_arguments_over_several_lines_are_read(env: ToolUse) -> None:
    arguments = json.dumps({"where": {"y": [1.0, {"z": None}], "x": 7319}, "deep": True, "litres": 2.5}, indent=2)
    assert env.verify(task_of(env, WATER), f"Action: waterPlants\nAction Input: {arguments}\n").is_solved


def test_several_calls_may_come_in_any_order_but_each_as_often_as_asked(env: ToolUse) -> None:
    task = task_of(env, BOTH)
    plant, see = ("plantTree", {"kind": "oak"}), ("lookAround", {})
    assert env.verify(task, written(plant, see)).is_solved
    assert env.verify(task, written(see, plant)).is_solved
    assert "more calls are needed" in feedback_of(env.verify(task, written(plant)))
    assert "More calls were made" in feedback_of(env.verify(task, written(plant, see, see)))
    assert not env.verify(task, written(plant, plant)).is_solved


@pytest.mark.parametrize(
    ("completion", "complaint"),
    [
        ("I would plant a tree.", "No tool call was found"),
        ("", "No tool call was found"),
        ("Action: plantTree", "no 'Action Input:'"),
        ("Action:\nAction Input: {}", "no tool's name"),
        ("Action: plantTree\nAction Input:", "is empty"),
        ('Action: plantTree\nAction Input: {"kind": "elm" "height": 1}', "at character 15"),
        ("Action: plantTree\nAction Input: {kind: elm}", "at character 1"),
        ("Action: plantTree\nAction Input: [1]", "it is an array"),
        ("Action: plantTree\nAction Input: null", "it is null"),
        ('Action: plantTree\nAction Input: {"height": NaN}', "no usable JSON"),
        ('Action: plantTree\nAction Input: {"height": ' + "9" * 9000 + "}", "no usable JSON"),
        ("Action: plantTrees\nAction Input: {}", r"no tool named 'plantTrees' (did you mean plantTree?)"),
        ('Action: plantTree\nAction Input: {"colour": "red", "kind": "elm"}', "'colour', which that tool does not take"),
        ('Action: plantTree\nAction Input: {"height": 150}', "lacks the argument kind"),
        ('Action: plantTree\nAction Input: {"kind": "elm", "height": "150"}', "height a string; the documentation says integer"),
        ('Action: plantTree\nAction Input: {"kind": "elm", "height": true}', "height a boolean; the documentation says integer"),
        ('Action: plantTree\nAction Input: {"kind": "oak", "height": 150, "tags": ["a7", "b8"]}', "value of 'kind' (a string)"),
        ('Action: plantTree\nAction Input: {"kind": "elm"}', "an argument is missing"),
        ('Action: waterPlants\nAction Input: {"litres": 1}', "does not do what was asked"),
    ],
)
def test_feedback_says_what_is_wrong_with_the_call_that_was_made(env: ToolUse, completion: str, complaint: str) -> None:
    assert complaint in feedback_of(env.verify(task_of(env, PLANT), completion))


def test_an_argument_too_many_is_named(env: ToolUse) -> None:
    completion = written(("plantTree", {"kind": "oak", "height": 3}), ("lookAround", {}))
    assert "'height' should not be given" in feedback_of(env.verify(task_of(env, BOTH), completion))


def test_feedback_never_holds_an_expected_name_or_value_that_the_answer_did_not_write(env: ToolUse) -> None:
    """Over many corruptions of the right calls: only what the answer or the documentation said may come back."""
    draw = random.Random(0)
    secrets = {id(PLANT): ("elm", "150", "a7", "b8"), id(WATER): ("2.5", "7319")}
    num_wrong = 0
    for asked in (PLANT, WATER):
        task = task_of(env, asked)
        assert isinstance(task.payload, Calls)
        (golden,) = task.payload.golden
        for _ in range(400):
            arguments = dict(golden.arguments)
            for name in draw.sample(sorted(arguments), draw.randint(1, len(arguments))):
                arguments[name] = draw.choice(["wrong", -1, None, True, [], {}, 0.5])
                if draw.random() < 0.3:
                    del arguments[name]
            if draw.random() < 0.2:
                arguments["more"] = 1
            name = draw.choice([golden.name, golden.name, "lookAround", "nothing"])
            completion = written((name, arguments))
            verdict = env.verify(task, completion)
            if verdict.feedback is not None:
                num_wrong += 1
                leaked = [secret for secret in secrets[id(asked)] if secret in verdict.feedback]
                assert not leaked, (completion, verdict.feedback)
                assert name == golden.name or golden.name not in verdict.feedback
    assert num_wrong > 700


@pytest.mark.parametrize(
    ("expected", "actual", "is_equal", "is_loosely_equal"),
    [
        (1, 1.0, True, True),
        (1, "1", False, True),
        ("1", 1, False, True),
        ("1.50", 1.5, False, True),
        (True, 1, False, False),
        (True, "true", False, True),
        (None, "null", False, False),
        ("a", "A", False, False),
        ([1, [2]], [1, [2.0]], True, True),
        ([1, 2], [2, 1], False, False),
        ([1], [1, 2], False, False),
        ({"a": {"b": 1}}, {"a": {"b": "1"}}, False, True),
        ({"a": 1}, {"a": 1, "b": None}, False, False),
        ("x", 1, False, False),
        ({}, [], False, False),
    ],
)
def test_values_are_compared_by_type_unless_loosely(
    expected: object, actual: object, is_equal: bool, is_loosely_equal: bool
) -> None:
    assert is_same(expected, actual, is_loose=False) == is_equal
    assert is_same(expected, actual, is_loose=True) == is_loosely_equal


def test_loose_types_are_an_option(folder: Path) -> None:
    completion = written(("plantTree", {"kind": "elm", "height": "150", "tags": ["a7", "b8"]}))
    for is_loose in (False, True):
        env = ToolUse(path=str(folder / "train.json"), heldout_path=str(folder / "test.json"), loose_types=is_loose)
        assert env.verify(task_of(env, PLANT), completion).is_solved == is_loose


@pytest.mark.parametrize(
    "completion",
    [
        "\0" * 1000,
        "\ud800",
        "Action: \ud800\nAction Input: {}",
        'Action: plantTree\nAction Input: {"\ud800": "\u202e"}',
        "Action: plantTree\nAction Input: " + '{"a":' * 100_000,
        "Action: plantTree\nAction Input: " + "[" * 1_000_000,
        'Action: plantTree\nAction Input: {"kind": "' + "x" * 1_000_000,
        "Action: lookAround\nAction Input: {}\n" * 30_000,
        "Action: " * 125_000,
        "Action:\n" * 125_000,
        "Action: x\n" + "Action Input" * 80_000,
        "Action: x\n" + " \t" * 500_000,
        "Action: " + "x" * 1_000_000 + "\nAction Input: {}",
        'Action: plantTree\nAction Input: {"kind": 1e999, "height": -0.0}',
        "<think>" * 100_000 + "</think>" * 60_000,
        "Action: plantTree\nAction Input: {'kind': '" + "x'" * 500_000,
        "Action: plantTree\nAction Input: " + "{'a':" * 100_000,
        "Action: plantTree\nAction Input: {'a': " + "-" * 100_000,
        "Action: plantTree\nAction Input: " + "`" * 1_000_000,
        "- " * 500_000,
        "-" * 1_000_000,
        "Action" + " " * 1_000_000,
        "Action: " + "[" * 500_000 + "]" * 500_000 + "\nAction Input: {}",
    ],
)
def test_no_completion_makes_verify_raise_or_wait(env: ToolUse, completion: str) -> None:
    started = time.monotonic()
    for task in env.tasks("train", 0):
        feedback_of(env.verify(task, completion)).encode("utf-8")
    assert time.monotonic() - started < 3


def test_only_calls_after_the_last_thought_count() -> None:
    assert read_calls("<think>Action: a\nAction Input: {}</think>Action: b\nAction Input: {}") == (Call(name="b", arguments={}),)
    assert isinstance(read_calls("<think>Action: a\nAction Input: {}</think>nothing"), Unreadable)


def test_documentation_in_the_prompt_is_read() -> None:
    plant, water, see = documented_tools(PROMPT)
    assert plant == Tool(
        name="plantTree",
        parameters=(
            Parameter(name="kind", kind="string", is_required=True),
            Parameter(name="height", kind="integer", is_required=False),
            Parameter(name="tags", kind="array", is_required=False),
        ),
    )
    assert water.parameters is not None
    assert [parameter.kind for parameter in water.parameters] == ["number", "boolean", "object"]
    assert see == Tool(name="lookAround", parameters=())


def test_documentation_of_another_form_is_not_checked_rather_than_checked_wrongly(folder: Path) -> None:
    assert documented_tools("Use the tools at your discretion.") == ()
    assert documented_tools("odd: tool\nParameters: {broken}\n") == (Tool(name="odd", parameters=None),)
    bare = {"prompt": "Look around.", "golden_answer": [{"Action": "look", "Action_Input": {"far": 1}}]}
    (folder / "train.json").write_text(json.dumps([bare]))
    env = ToolUse(path=str(folder / "train.json"), heldout_path=str(folder / "test.json"))
    (task,) = env.tasks("train", 0)
    assert env.verify(task, env.reference(task)).is_solved
    assert "does not do what was asked" in feedback_of(env.verify(task, "Action: wait\nAction Input: {}"))


def test_documentation_that_the_right_calls_break_is_not_held_against_an_answer(folder: Path) -> None:
    odd = row("Plant.", ("plantTree", {"sort": "fir"}))
    (folder / "train.json").write_text(json.dumps([odd]))
    env = ToolUse(path=str(folder / "train.json"), heldout_path=str(folder / "test.json"))
    verdict = env.verify(task_of(env, odd), written(("plantTree", {"sort": "oak"})))
    assert "value of 'sort' (a string)" in feedback_of(verdict)
    assert env.verify(task_of(env, odd), written(("plantTree", {"sort": "fir"}))).is_solved


def test_a_column_of_tools_is_read_as_texts_or_as_a_schema(folder: Path) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
    expected = (
        Tool(
            name="weather",
            parameters=(
                Parameter(name="city", kind="string", is_required=True),
                Parameter(name="days", kind="integer", is_required=False),
            ),
        ),
    )
    assert listed_tools([{"type": "function", "function": {"name": "weather", "parameters": parameters}}]) == expected
    assert (
        listed_tools(json.dumps([{"name": "weather", "parameters": {"city": "Required. string.", "days": "integer"}}]))
        == expected
    )
    with pytest.raises(ValueError, match="tools with a name"):
        listed_tools([{"title": "weather"}])


def test_rows_whose_answer_cannot_be_read_are_left_out_with_a_warning(folder: Path) -> None:
    broken = [
        {**SEE, "prompt": f"{number}", "answer": answer} for number, answer in enumerate(["nothing", "[]", '[{"Action": "x"}]'])
    ]
    (folder / "train.json").write_text(json.dumps([PLANT, *broken]))
    env = ToolUse(path=str(folder / "train.json"), heldout_path=str(folder / "test.json"))
    with pytest.warns(UserWarning, match="left out 3 rows .* row 2: "):
        assert len(env.tasks("train", 0)) == 1
    (folder / "train.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="has none"), pytest.warns(UserWarning, match="left out 3 rows"):
        env.tasks("train", 0)


def test_the_order_of_tasks_follows_the_seed_alone(folder: Path) -> None:
    rows = [row(f"Question {number}?", ("lookAround", {})) for number in range(50)]
    (folder / "train.json").write_text(json.dumps(rows))
    env = ToolUse(path=str(folder / "train.json"), heldout_share=0.2)
    ids = [task.id for task in env.tasks("train", 0)]
    assert ids == [task.id for task in ToolUse(path=str(folder / "train.json"), heldout_share=0.2).tasks("train", 0)]
    assert ids != [task.id for task in env.tasks("train", 1)]
    assert set(ids).isdisjoint(task.id for task in env.tasks("heldout", 0))
    with pytest.raises(ValueError, match="split must be one of train, heldout"):
        env.tasks("test", 0)
