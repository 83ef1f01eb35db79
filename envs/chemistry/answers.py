"""What did the model answer? From the text between the tags to a number, a formula or letters, or the reason why it is none.

``sdpo.envs.answers`` finds the text and takes its decoration off. Here it is read as a person would read it, with labels, units,
LaTeX and Roman numerals. SMILES are read elsewhere (``smiles``), as every character counts in them, and so are equations
(``balancing``).

Everything here reads untrusted text. Nothing raises, and nothing takes longer than a few passes over the text. A reason never
repeats what was written, but for the symbol of an element.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sdpo.envs.chemistry.latex import plain

MAX_ANSWER_CHARACTERS = 1000
"""Of a whole equation in LaTeX; a SMILES is shorter (``smiles``)."""
MOLES: Mapping[str, float] = {
    **dict.fromkeys(("mol", "mols", "mole", "moles"), 1.0),
    **dict.fromkeys(("mmol", "millimole", "millimoles"), 1e-3),
    **dict.fromkeys(("kmol", "kilomole", "kilomoles"), 1e3),
}
GRAMS: Mapping[str, float] = {
    **dict.fromkeys(("g", "gram", "grams"), 1.0),
    **dict.fromkeys(("mg", "milligram", "milligrams"), 1e-3),
    **dict.fromkeys(("kg", "kilogram", "kilograms"), 1e3),
}
GRAMS_PER_MOLE: Mapping[str, float] = {
    **dict.fromkeys(("g/mol", "g/mole", "g mol^-1", "g mol-1", "g·mol^-1", "gram/mol", "grams/mol", "grams/mole"), 1.0),
    **dict.fromkeys(("gram per mole", "grams per mole", "g per mol", "Da", "u", "amu", "dalton", "daltons"), 1.0),
    **dict.fromkeys(("kg/mol", "kg/mole", "kg mol^-1", "kg·mol^-1", "kDa"), 1e3),
}
"""What one of each unit is of the unit asked for."""

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ROMAN = ("0", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
_SIGNS = {"plus": "+", "minus": "-", "negative": "-", "positive": "+"}

_LABEL = re.compile(
    r"(?:[A-Za-z][A-Za-z _()]{0,60}:|(?:the )?(?:final )?answer is|there (?:are|is)|it has|[^:=≈]{0,60}[=≈])\s*", re.IGNORECASE
)
_COUNT = re.compile(r"\+?([0-9]{1,6})(?:\.0{0,3})?((?: [A-Za-z][A-Za-z#=-]*)*)")
_STATE = re.compile(r"\^?\(?\^?([+-]?) ?(?:([0-9]{1,3})(?:\.0)?|([ivx]{1,4})) ?([+-]?)\)?", re.IGNORECASE)
_MANTISSA = r"(?:[1-9][0-9]{0,2}(?:[ ,][0-9]{3}){1,2}(?![0-9])(?:\.[0-9]{0,9})?|[0-9]{1,9}(?:[.,][0-9]{0,9})?|\.[0-9]{1,9})"
_NUMBER = re.compile(
    rf"\+?(?:(?P<whole>[0-9]{{1,6}}) (?=[0-9]{{1,6}} ?/))?(?P<mantissa>{_MANTISSA})"
    r"(?:[eE](?P<e>[+-]?[0-9]{1,2})| ?[×x*·] ?10(?:\^|\*\*)\(?(?P<power>[+-]?[0-9]{1,2})\)?"
    r"| ?/ ?(?P<divisor>[0-9]{1,9}(?:\.[0-9]{1,9})?))?"
)
_APPROXIMATELY = re.compile(r"(?:about|approximately|approx\.?|roughly|ca\.|[~≈])\s*", re.IGNORECASE)
_LETTER = re.compile(r"\(?(?:([0-9])[.:]?)?\(?([RS])\)?", re.IGNORECASE)
_ELEMENT_COUNT = re.compile(r"([A-Z][a-z]?)([0-9]{0,4})")
_FORMULA = re.compile(f"(?:{_ELEMENT_COUNT.pattern})+")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why an answer could not be read, as a sentence to the one who wrote it."""

    reason: str


def read_count(answer: str, subject: str = "") -> int | Unreadable:
    """``"3"``, ``"three"`` and, where ``subject`` names rings, ``"3 rings"`` give 3."""
    text = _without_label(plain(answer))
    first, _, rest = text.partition(" ")
    if first.lower() in _WORDS:
        text = f"{_WORDS.index(first.lower())} {rest}".strip()
    found = _COUNT.fullmatch(text)
    named = {_singular(word) for word in re.findall(r"[A-Za-z#=-]+", f"{subject} in total of the molecule")}
    if found is None or not {_singular(word) for word in found[2].split()} <= named:
        return Unreadable("The answer is not an integer that counts: write digits only, without sign, words or units.")
    return int(found[1])


def read_signed(answer: str, names: tuple[str, ...] = ()) -> int | Unreadable:
    """``"-3"``, ``"3-"``, ``"-III"`` and, where ``names`` has the element's, ``"Mn(VII)"``."""
    text = _without_label(plain(answer))
    for name in names:  # not the V of VII
        if text.startswith(name) and not text[len(name) : len(name) + 1].isalpha():
            text = text[len(name) :].removeprefix(" is").strip()
            break
    for word, sign in _SIGNS.items():
        if text.lower().startswith(f"{word} "):
            text = sign + text[len(word) :].strip()
    found = _STATE.fullmatch(text)
    if found is None or (found[1] and found[4]) or (found[3] and found[3].lower() not in _ROMAN):
        return Unreadable("The answer is not an integer with its sign: write its sign and its digits, without words or units.")
    number = int(found[2]) if found[2] else _ROMAN.index(found[3].lower())
    return -number if "-" in (found[1], found[4]) else number


def read_number(answer: str, units: Mapping[str, float], unit: str, substance: str = "") -> float | Unreadable:
    """A number in the unit asked for: of grams ``"208 g"``, ``"0.208 kg"``, ``"2.08e2"`` and ``"416/2"`` give 208.0.

    Raises nothing: a unit that is not among ``units`` is told, and so is another substance than ``substance``.
    """
    text = _APPROXIMATELY.sub("", _without_label(plain(answer)), count=1)
    found = _NUMBER.match(text)
    rest = "" if found is None else text[found.end() :].strip()
    if found is None or re.match("[^A-Za-zµμ(%°]", rest):
        return Unreadable("The answer is not a decimal number: write digits and a point, without words.")
    factor = _factor(rest, units, substance)
    if factor is None:
        return Unreadable(f"What follows the number is not the unit asked for: give the number in {unit}.")
    mantissa, divisor = _decimal(found["mantissa"]), float(found["divisor"] or 1)
    if divisor == 0:
        return Unreadable("The answer divides by zero.")
    return (float(found["whole"] or 0) + mantissa / divisor) * 10.0 ** int(found["e"] or found["power"] or 0) * factor


def read_letters(answer: str) -> tuple[str, ...] | Unreadable:
    """``"R, S"``, ``"RS"``, ``"(R), (S)"`` and ``"1: R, 2: S"`` give ``("R", "S")``."""
    text = _without_label(plain(answer))
    bare = re.sub(r"(?<=[0-9][.:]) ", "", text.strip("()[]{} "))
    if re.fullmatch("[RSrs]{1,9}", bare):
        return tuple(bare.upper())
    parts = [_LETTER.fullmatch(part) for part in re.split(r" ?[,;] ?(?:and )?| and | ", bare)]
    letters = [part for part in parts if part is not None]
    numbers = [part[1] for part in letters]
    if len(letters) < len(parts) or numbers not in ([None] * len(parts), [str(place + 1) for place in range(len(parts))]):
        return Unreadable("The answer must hold the letters R and S and commas only.")
    return tuple(part[2].upper() for part in letters)


def read_formula(answer: str) -> Mapping[str, int] | Unreadable:
    """The count of each element: ``"C2H6O"`` gives ``{"C": 2, "H": 6, "O": 1}``, in whatever order they stand."""
    parts = _without_label(plain(answer)).split(" ")
    if any(_FORMULA.fullmatch(part) is None for part in parts):
        return Unreadable("The answer is not a molecular formula: write element symbols, each with its count, and nothing else.")
    counts: dict[str, int] = {}
    for element, count in _ELEMENT_COUNT.findall("".join(parts)):
        if element in counts:
            return Unreadable(
                f"A molecular formula names each element once, with its total count; {element} stands more than once."
            )
        counts[element] = int(count) if count else 1
    return {element: count for element, count in counts.items() if count}


def write_formula(counts: Mapping[str, int]) -> str:
    """The inverse of ``read_formula``, in the order given."""
    return "".join(element + (str(count) if count > 1 else "") for element, count in counts.items())


def _without_label(text: str) -> str:
    """``"n(H2O) = 35/2 = 17.5 mol"`` gives ``"17.5 mol"``."""
    while label := _LABEL.match(text):
        if not (rest := text[label.end() :]):
            break
        text = rest
    return text


def _singular(word: str) -> str:
    return word.lower().removesuffix("s")


def _factor(unit: str, units: Mapping[str, float], substance: str) -> float | None:
    """What to multiply with; None for a unit that is none of ``units``. Case counts in symbols: Mg is no milligram."""
    name, _, rest = unit.partition(" ")
    for written, of in ((unit, ""), (name, rest)):
        if written.strip("()") in units or (len(written) > 4 and written.strip("()").lower() in units):
            known = written.strip("()")
            is_of_another = of and re.sub(r" ?\((?:s|l|g|aq)\)$", "", of.removeprefix("of ")) != substance
            return None if is_of_another else units[known if known in units else known.lower()]
    return None if unit else 1.0


def _decimal(mantissa: str) -> float:
    """A comma before three digits groups them, as English has it; before others it is a decimal comma: ``"17,5"``."""
    if re.fullmatch(r"[1-9][0-9]{0,2}(?:[ ,][0-9]{3})+(?:\.[0-9]*)?", mantissa):
        return float(mantissa.replace(",", "").replace(" ", ""))
    return float(mantissa.replace(",", "."))
