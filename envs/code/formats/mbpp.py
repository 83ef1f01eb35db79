"""What is a row of MBPP: a sentence, and a list of asserts that name the function?

The name is that of the function which the first assert calls and which the row's own code defines. The code is not run. As
the sentence does not say what the function is called, visible asserts are told with it.
"""

from __future__ import annotations

from sdpo.envs.code.formats.asserts import asserted_function, parsed, read_asserts
from sdpo.envs.code.formats.question import FUNCTION_SYSTEM, Examples, LeftOut, Question, split_tests
from sdpo.envs.code.formats.rows import Row
from sdpo.envs.code.trials import FunctionTests, call_text

KEYS = (frozenset({"text", "test_list"}), frozenset({"prompt", "test_list"}))


def read(row: Row, examples: Examples) -> Question | LeftOut:
    """Raises ValueError for a row that is not in this form."""
    identity = row.identity("task_id")
    asserts = [str(line) for line in row.items("test_list", row.parsed("test_list", row.values["test_list"]))]
    preamble = row.text_or_none("test_setup_code") or ""
    try:
        function = asserted_function("\n".join(asserts), row.text_or_none("code") or "")
        asserted = read_asserts("\n".join(asserts), function) if function is not None else None
        parsed(preamble)
    except ValueError as error:
        raise row.refused(f"'code', 'test_list' and 'test_setup_code' {error}: correct or remove the row") from error
    if function is None or asserted is None or not asserted.trials:
        return LeftOut(identity=identity, reason="it has no usable assert", num_left_out=len(asserts))
    visible, hidden = split_tests(asserted.trials, examples)
    shown = "\n".join(f"{call_text(function, trial.arguments)} returns {trial.expected!r}" for trial in visible)
    text = row.text("text" if "text" in row.values else "prompt").strip()
    return Question(
        identity=identity,
        system=FUNCTION_SYSTEM,
        text=f"{text}\n\nThe function is called {function}:\n{shown}",
        tests=FunctionTests(function=function, visible=tuple(visible), hidden=tuple(hidden), preamble=preamble),
        num_left_out=asserted.num_left_out,
    )
