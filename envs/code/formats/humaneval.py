"""What is a row of HumanEval: the head of a function with its docstring, and a function ``check`` that asserts?

What stands before the function in the prompt (imports, helpers) is run before an answer. The canonical solution is not read.
"""

from __future__ import annotations

import ast

from sdpo.envs.code.formats.asserts import parsed, read_asserts, unparsed
from sdpo.envs.code.formats.question import (
    FUNCTION_SYSTEM,
    NO_ASSERT,
    Examples,
    LeftOut,
    Question,
    asserted_tests,
    starting_from,
)
from sdpo.envs.code.formats.rows import Row

KEYS = frozenset({"prompt", "entry_point", "test"})


def read(row: Row, examples: Examples) -> Question | LeftOut:
    """Raises ValueError for a row that is not in this form."""
    identity = row.identity("task_id")
    function, prompt = row.text("entry_point"), row.text("prompt")
    try:
        preamble = _before(prompt, function)
        asserted = read_asserts(row.text("test"), "candidate", also=(function,), given=preamble, equality=examples.equality)
    except ValueError as error:
        raise row.refused(f"'prompt' and 'test' of a row {error}: correct or remove it") from error
    if not asserted.is_usable:
        return LeftOut(identity=identity, reason=NO_ASSERT, num_left_out=asserted.num_left_out)
    return Question(
        identity=identity,
        system=FUNCTION_SYSTEM,
        text=starting_from("", prompt),
        tests=asserted_tests(asserted, examples, function=function, preamble=preamble),
        num_left_out=asserted.num_left_out,
    )


def _before(prompt: str, function: str) -> str:
    """Everything in the prompt but the function that is asked for."""
    tree = parsed(f"{prompt.rstrip()}\n    pass\n")
    others = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == function)]
    return "".join(f"{unparsed(node)}\n" for node in others)
