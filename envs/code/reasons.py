"""Why does an answer fail, in the words that functions and programs share?

A reason tells only what the student may learn from. For a visible test it tells the input, the expected and the actual outcome.
For the hidden ones it tells that one failed, and at most the type of a built-in exception. Hidden tests are made in processes of
their own, once the visible ones are done. So any text that the answer chose (a message, a value) is from a process that never saw
a hidden input.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass

from sdpo.envs.answers import without_thinking
from sdpo.envs.code.execution import Raised
from sdpo.envs.code.remarks import Remark, Said
from sdpo.envs.sandbox import Ending, Limits

_MAX_LINE_CHARS = 120
_PASSED = "All visible tests pass, but"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What some tests say of an answer."""

    num_passed: int
    is_loaded: bool
    remark: Remark | None
    """The first reason in this order: an exception, a limit, a wrong outcome, the form. None if every test passes."""


def no_code(kind: str, completion: str) -> Remark:
    place = (
        "No code was found" if without_thinking(completion) or not completion.strip() else "No code was found after the thoughts"
    )
    return (f"{place}: the answer must be one Python {kind} in a ```python block.",)


def raised_remark(raised: Raised, source: str) -> Remark:
    """``NameError: name 'fib' is not defined (line 3: return fib(n-1))``"""
    lines = source.split("\n")
    text = f"{raised.type_name}: {raised.message}" if raised.message else raised.type_name
    if not 1 <= raised.line <= len(lines):
        return (Said(_printable(text)),)
    line = lines[raised.line - 1].strip()[:_MAX_LINE_CHARS]
    return (Said(_printable(text)), f" (line {raised.line}", *((": ", Said(_printable(line))) if line else ()), ")")


def _printable(text: str) -> str:
    """The text with escapes for what would turn the direction of writing, or drive a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def unfinished(ending: Ending, limits: Limits, *, by_itself: str) -> str:
    """What a call or a program did that did not come to its end; ``by_itself`` is for one that no limit kept from it."""
    sentences = {
        "ok": by_itself,
        "error": by_itself,
        "timeout": f"did not finish within {limits.wall_s:g} seconds",
        "cpu": f"did not finish within {limits.wall_s:g} seconds",
        "memory": f"needed more than {limits.memory_bytes >> 20} MB of memory",
        "output": f"printed more than {limits.output_bytes >> 10} kB",
        "processes": "started too many processes",
        "files": "opened or wrote too many files",
        "killed": "crashed the interpreter",
    }
    return sentences.get(ending.name, "was stopped by the sandbox")


def hidden_remark(raised: Raised | None, stopped: str | None, otherwise: str) -> Remark:
    """One of a few fixed sentences: an exception, else what stopped it, else that it is wrong."""
    if raised is not None:
        return (f"{_PASSED} a hidden test raises {_builtin_name(raised)}.",)
    if stopped is not None:
        return (f"{_PASSED} a hidden test {stopped}.",)
    return (f"{_PASSED} a hidden test fails: {otherwise}.",)


def _builtin_name(raised: Raised) -> str:
    """The name of one of Python's own exceptions, as any other is a text that the answer chose."""
    known = getattr(builtins, raised.type_name, None)
    is_builtin = isinstance(known, type) and issubclass(known, BaseException)
    return raised.type_name if is_builtin else "an exception"
