"""What is a row of MBPP: a sentence, and a list of asserts that name the function?

The name is that of the function which the first assert calls and which the row's own code defines. The code is not run. As
the sentence does not say what the function is called, visible asserts are told with it.
"""

from __future__ import annotations

from sdpo.envs.code.formats.asserts import asserted_function, is_run_apart, read_asserts
from sdpo.envs.code.formats.question import FUNCTION_SYSTEM, NO_ASSERT, Examples, LeftOut, Question, asserted_tests
from sdpo.envs.code.formats.rows import Row
from sdpo.envs.code.literals import shown
from sdpo.envs.code.trials import call_text

KEYS = (frozenset({"text", "test_list"}), frozenset({"prompt", "test_list"}))


def read(row: Row, examples: Examples) -> Question | LeftOut:
    """Raises ValueError for a row that is not in this form."""
    identity = row.identity("task_id")
    asserts = [str(line) for line in row.items("test_list", row.parsed("test_list", row.values["test_list"]))]
    imports = [str(line) for line in row.items("test_imports", row.parsed("test_imports", row.values.get("test_imports") or []))]
    preamble = "\n".join([*imports, row.text_or_none("test_setup_code") or ""]).strip()
    try:
        function = asserted_function("\n".join(asserts), row.text_or_none("code") or "")
        asserted = None
        if function is not None and is_run_apart(preamble):
            asserted = read_asserts("\n".join(asserts), function, given=preamble, equality=examples.equality)
    except ValueError as error:
        raise row.refused(f"'code', 'test_list' and 'test_setup_code' {error}: correct or remove the row") from error
    if function is None or asserted is None or not asserted.is_usable:
        return LeftOut(identity=identity, reason=NO_ASSERT, num_left_out=len(asserts))
    tests = asserted_tests(asserted, examples, function=function, preamble=preamble)
    examples_shown = [
        f"{call_text(function, trial.arguments, trial.views)} returns {shown(trial.expected)}" for trial in tests.visible
    ]
    told = "\n".join(examples_shown or asserts[:1])
    text = row.text("text" if "text" in row.values else "prompt").strip()
    return Question(
        identity=identity,
        system=FUNCTION_SYSTEM,
        text=f"{text}\n\nThe function is called {function}:\n{told}",
        tests=tests,
        num_left_out=asserted.num_left_out,
    )
