"""Which part of a completion is the code? ``docs/code.md`` has a table of the shapes that are read.

Thoughts are not read. Of several blocks the code is the last one that does what is asked: that defines the function, or that is a
program which reads its input. Blocks before it that only import and define are put in front of it, as its author meant them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sdpo.envs.answers import without_thinking
from sdpo.envs.code.literals import parse_module

MAX_CODE_CHARS = 1 << 16
_MAX_NESTING = 4
_MARK = "\ufeff"
"""The byte-order mark, which some put before a text. It is no part of Python."""
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})(.*)")
_PYTHON = ("python", "python3", "py", "py3", "python2", "ipython")
_WRAPPERS = ("", "markdown", "md")
"""What a block may be called that holds blocks."""
_START = re.compile(
    r"(?:async )?def \w+|class \w+\s*[:(]|@\w|from [\w.]+ import\b"
    r"|import [\w.]+(?: as \w+)?(?:\s*,\s*[\w.]+(?: as \w+)?)*\s*(?:#.*)?$"
)
_READS = re.compile(r"\b(?:input|stdin|fileinput|raw_input)\b|\bopen\(\s*0|\bos\.read\b")
_READERS = frozenset(("input", "raw_input", "stdin", "fileinput", "open", "read", "readline", "readlines"))
_HARMLESS_CALLS = ("setrecursionlimit", "stack_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What an answer asks to be run."""

    source: str
    """Not blank; its lines end in ``\\n``."""
    is_fenced: bool


def extract_code(completion: str, function: str | None = None) -> Code | None:
    """The code of an answer that should define ``function``, or that should be a program where that is None.

    The first that there is of: a block called Python that does what is asked, a block without a name that does, lines outside of
    any block that do, the last block called Python, the last one without a name, lines outside. None where there is none of
    these. Only the first ``MAX_CODE_CHARS`` after the thoughts are read.
    """
    text = without_thinking(completion.replace("\r\n", "\n").replace("\r", "\n").lstrip(_MARK)).lstrip(_MARK)
    lines = text[:MAX_CODE_CHARS].split("\n")
    blocks = [block for block in _blocks(lines, _MAX_NESTING) if block.source.strip()]
    called = [block.source for block in blocks if block.language in _PYTHON]
    nameless = [block.source for block in blocks if block.language == ""]
    for sources in (called, nameless):
        if (at := _asked(sources, function)) is not None:
            return Code(source=_joined(sources[: at + 1], function), is_fenced=True)
    unfenced = _unfenced(lines, has_fences=bool(blocks))
    if unfenced is not None and (_asked([unfenced], function) is not None or not (called or nameless)):
        return Code(source=unfenced, is_fenced=False)
    sources = called or nameless
    return Code(source=_joined(sources, function), is_fenced=True) if sources else None


def _asked(sources: Sequence[str], function: str | None) -> int | None:
    """The place of the last source that defines ``function``, or that is a program which reads its input."""
    if function is not None:
        return next((at for at in reversed(range(len(sources))) if _defines(sources[at], function)), None)
    found, is_read_before = None, False
    for at, source in enumerate(sources):
        only_defines, is_reading = _only_defines(source), _READS.search(source) is not None
        if not only_defines and (is_reading or is_read_before):
            found = at
        is_read_before = is_read_before or (only_defines and is_reading)
    return found


def _joined(sources: Sequence[str], function: str | None) -> str:
    """The last source, with those in front of it that only import and define, and not what is asked for."""
    *before, last = sources
    if "__future__" in last:  # must stand first
        return last
    helpers = [source for source in before if _only_defines(source) and not (function and _defines(source, function))]
    return "".join([*helpers, last])


def _defines(source: str, function: str) -> bool:
    """Whether it looks so: also one that is no Python is the answer, and its fault is told."""
    name = re.escape(function)
    pattern = rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{name}\b|^{name}[ \t]*(?::[^=\n]+)?=(?!=)|^(?:from|import)\b.*\b{name}\b"
    return re.search(pattern, source, re.MULTILINE) is not None


def _only_defines(source: str) -> bool:
    """Whether nothing happens in it: definitions, imports, constants and text alone."""
    module = parse_module(source)
    return module is not None and all(map(_is_definition, module.body))


def _is_definition(statement: ast.stmt) -> bool:
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        return _READERS.isdisjoint(_names(statement))
    if isinstance(statement, ast.Expr):
        value = statement.value
        is_harmless = isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _HARMLESS_CALLS
        return isinstance(value, ast.Constant) or is_harmless
    return isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Pass))


def _names(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        match part:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name


@dataclass(frozen=True, slots=True)
class _Block:
    language: str
    source: str


def _blocks(lines: Sequence[str], nesting: int) -> Iterator[_Block]:
    """What is fenced, in order.

    A block ends at a fence of the same character that is as long, or at the end. If that fence names a language, it starts the
    next block: a closing one was forgotten. A block that holds fenced blocks and has no language of its own gives those.
    """
    at = 0
    while at < len(lines):
        opening = _fence(lines[at])
        at += 1
        if opening is None:
            continue
        start, closing = at, None
        while at < len(lines) and ((closing := _fence(lines[at])) is None or not opening.is_ended_by(closing)):
            at += 1
            closing = None
        inside = [_unindented(line, opening.indent) for line in lines[start:at]]
        if closing is not None and not closing.language:
            at += 1
        held = list(_blocks(inside, nesting - 1)) if nesting and opening.language in _WRAPPERS else []
        yield from held or [_Block(opening.language, _source(inside))]


@dataclass(frozen=True, slots=True)
class _Fence:
    indent: int
    marks: str
    language: str

    def is_ended_by(self, other: _Fence) -> bool:
        return other.marks[0] == self.marks[0] and len(other.marks) >= len(self.marks)


def _fence(line: str) -> _Fence | None:
    found = _FENCE.fullmatch(line)
    if found is None or "`" in found[3]:
        return None
    words = found[3].strip().strip("{}").lstrip(".").replace(",", " ").split()
    return _Fence(len(found[1]), found[2], words[0].partition(":")[0].lower() if words else "")


def _unindented(line: str, indent: int) -> str:
    """The line less the white space of its fence, as far as it has that."""
    return line[min(indent, len(line) - len(line.lstrip(" \t"))) :]


def _source(lines: Sequence[str]) -> str:
    """The lines as a module: less a byte-order mark, and less the indentation that the first one has."""
    source = "\n".join(lines).lstrip(_MARK)
    first = next((line for line in source.split("\n") if line.strip()), "")
    indent = first[: len(first) - len(first.lstrip(" \t"))]
    return "\n".join(line.removeprefix(indent) for line in source.split("\n")) + "\n"


def _unfenced(lines: Sequence[str], *, has_fences: bool) -> str | None:
    """The lines from the first that starts a definition or an import up to a fence; or all, where they are Python."""
    start = next((i for i, line in enumerate(lines) if _START.match(line)), None)
    if start is not None:
        end = next((i for i, line in enumerate(lines) if i > start and _fence(line) is not None), len(lines))
        return "\n".join(lines[start:end]) + "\n"
    whole = "\n".join(lines) + "\n"
    is_code = not has_fences and _READS.search(whole) is not None and parse_module(whole) is not None
    return whole if is_code else None
