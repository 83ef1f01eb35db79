"""HTML in which whatever a model, an environment or a config wrote can only be text.

Elements are built by ``element``, never pasted. A ``str`` is escaped on its way in. ``Markup``, which is not, comes out of this
module and out of ``chart.py`` and ``bars.py`` alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from html import escape

VOID = ("meta", "br", "hr", "input")
"""Elements that have no end."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *children: str | Iterable[str] | None, **attributes: object) -> Markup:
    """``tag`` with its children, None being no child; ``class_`` is the attribute class, other underscores are hyphens. An
    attribute that is None is left out."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{as_text(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{given}>" if tag in VOID else f"<{tag}{given}>{together(*children)}</{tag}>")


def together(*children: str | Iterable[str] | None) -> Markup:
    """One after the other, with nothing around them."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(as_text(child))
        elif child is not None:
            parts.append(together(*child))
    return Markup("".join(parts))


def as_text(text: str) -> Markup:
    """Escaped for an element's content or a quoted attribute."""
    return Markup(escape(spelled(text), quote=True))


def spelled(text: str) -> str:
    """The same text with everything that is not to be seen spelled out.

    ``\\x1b`` is an escape character, ``\\u202e`` one that turns the line around, and ``\\ud800`` half a character, which no file
    could hold.
    """
    return "".join(char if _is_seen(char) else char.encode("unicode_escape").decode("ascii") for char in text)


def cut(text: str, num_characters: int) -> str:
    """Its beginning, and how much more there is."""
    if len(text) <= num_characters:
        return text
    return f"{text[:num_characters]} … and {len(text) - num_characters:,} more characters"


def _is_seen(char: str) -> bool:
    return char in "\n\t" or char.isprintable() or unicodedata.category(char) == "Zs"
