"""How does a chemist's LaTeX, HTML and Unicode read in plain characters? ``C_{2}H_{4}`` reads ``C2H4``.

Only for answers that are numbers, formulas or equations; in a SMILES every character counts. Everything here reads untrusted text
and takes a fixed number of passes over it.
"""

from __future__ import annotations

import re

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_CHARACTERS = str.maketrans(
    {
        **dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)),
        **dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{FIGURE DASH}\N{HYPHEN}\N{NON-BREAKING HYPHEN}", "-"),
        **dict.fromkeys("⋅∙•", "·"),
        **dict.fromkeys("→⟶⇒⇌⇄↔⟹", "->"),
        **dict.fromkeys("\N{NO-BREAK SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}\N{FOUR-PER-EM SPACE}", " "),
        "$": "",
    }
)
_ARROW = r"\\(?:[Ll]ong|x)?(?:[Ll]eft)?[Rr]ight(?:left)?(?:arrow|harpoons)(?:\[[^\]]*\])?(?:\{[^{}]*\})?|\\to(?![a-z])|<?[-=]+>"
_COMMANDS = (
    (re.compile(r"\\[,;:! ]|\\q?quad(?![a-z])|(?<=.)~"), " "),
    (re.compile(r"\\(?:left|right)(?![a-z])"), ""),
    (re.compile(_ARROW), " -> "),
    (re.compile(r"\\times(?![a-z])"), "×"),
    (re.compile(r"\\cdot(?![a-z])"), "·"),
    (re.compile(r"\\approx(?![a-z])"), "≈"),
    (re.compile(r"</?su[bp]>"), ""),
    (re.compile(r"\*\*([^*]+)\*\*"), r"\1"),
    (re.compile(r"`"), ""),
)
_INNERMOST = (
    (re.compile(r"\\(?:SI|qty)\{([^{}]*)\}\{\\?([^{}]*)\}"), r"\1 \2"),
    (re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathsf|rm|ce|boxed|operatorname) ?\{([^{}]*)\}"), r"\1"),
    (re.compile(r"_\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\^\{([^{}]*)\}"), r"^\1"),
)
_MAX_NESTING = 4


def plain(text: str) -> str:
    """The text in plain characters, with single spaces."""
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda raised: "^" + raised[0].translate(_SUPERSCRIPTS), text).translate(_CHARACTERS)
    text = re.sub(r"<sup>", "^", text)
    for command, character in _COMMANDS:
        text = command.sub(character, text)
    for _ in range(_MAX_NESTING):
        for group, inside in _INNERMOST:
            text = group.sub(inside, text)
    text = re.sub(r"(?<=[A-Za-z0-9)])_(?=[0-9])", "", text)
    return " ".join(text.split())
