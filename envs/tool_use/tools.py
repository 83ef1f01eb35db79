"""Which tools are there, and which arguments do they take? Read from the prompt's documentation, or from a column ``tools``.

The documentation in a prompt, as ToolAlpaca's, has for each tool two lines::

    search: Look for pictures.
    Parameters: {"color": "Required. string. One of: [red, blue]. The color.", "page": "integer. The page."}

A column ``tools`` holds a list of ``{"name": …, "parameters": …}``, alone or under ``"function"``. The parameters are such texts,
or a JSON schema with ``properties`` and ``required``. What cannot be read is not checked, rather than checked wrongly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sdpo.envs.tool_use.calls import Json

_DOCUMENTED = re.compile(r"^([\w\[(][^\n:]*):[^\n]*\nParameters: (\{[^\n]*\})[ \t]*$", re.MULTILINE)
_KINDS = {
    "string": "string",
    "str": "string",
    "integer": "integer",
    "int": "integer",
    "number": "number",
    "float": "number",
    "boolean": "boolean",
    "bool": "boolean",
    "array": "array",
    "list": "array",
    "object": "object",
    "dict": "object",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """An argument that a tool takes."""

    name: str
    kind: str | None
    """A JSON type's name, ``"string"``; None where the documentation does not say."""
    is_required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool as it is documented."""

    name: str
    parameters: tuple[Parameter, ...] | None
    """None where they could not be read."""


def documented_tools(prompt: str) -> tuple[Tool, ...]:
    """In the order of the documentation; empty where it has another form."""
    tools = []
    for name, parameters in _DOCUMENTED.findall(prompt):
        try:
            read: Json = json.loads(parameters)
        except (ValueError, RecursionError):
            read = None
        tools.append(Tool(name=name.strip(), parameters=_parameters(read)))
    return tuple(tools)


def listed_tools(column: Json) -> tuple[Tool, ...]:
    """The tools of a column ``tools``, given as JSON or as text of it. Raises ValueError for anything else."""
    listed = json.loads(column) if isinstance(column, str) else column
    tools = []
    for entry in listed if isinstance(listed, list) else [listed]:
        match entry:
            case {"function": {"name": str(name), **rest}} | {"name": str(name), **rest}:
                tools.append(Tool(name=name, parameters=_parameters(rest.get("parameters"))))
            case _:
                raise ValueError(f"a column tools must be a list of tools with a name; got {entry!r:.200}")
    return tuple(tools)


def _parameters(described: Json) -> tuple[Parameter, ...] | None:
    match described:
        case {"type": "object", "properties": dict(properties), **rest}:
            required = rest.get("required")
            required = required if isinstance(required, list) else []
            return tuple(
                Parameter(name=name, kind=_kind(schema.get("type")), is_required=name in required)
                for name, schema in properties.items()
                if isinstance(schema, dict)
            )
        case dict():
            return tuple(_from_text(str(name), text) for name, text in described.items())
    return None


def _from_text(name: str, text: Json) -> Parameter:
    """The parameter that a text documents: ``"Required. string. One of: [red, blue]. The color."``"""
    words = text if isinstance(text, str) else ""
    is_required = re.match(r"\s*required\b", words, re.IGNORECASE) is not None
    words = re.sub(r"^\s*(required|optional)\W+", "", words, flags=re.IGNORECASE)
    first = re.match(r"\w+", words)
    return Parameter(name=name, kind=_kind(first.group() if first else None), is_required=is_required)


def _kind(word: Json) -> str | None:
    return _KINDS.get(word.lower()) if isinstance(word, str) else None


def takes(parameter: Parameter, value: Json) -> bool:
    """Whether the value has the documented type; null is let through, as the documentation does not speak of it."""
    checks: Mapping[str, bool] = {
        "string": isinstance(value, str),
        "integer": (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer()),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }
    return value is None or parameter.kind is None or checks[parameter.kind]
