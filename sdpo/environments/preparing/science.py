"""What is a row of SciKnowEval (arXiv 2406.09098), as a question of ``multiple_choice``?

There are two published forms. The hub's has ``question``, ``choices`` with ``text`` and ``label``, ``answerKey``, ``type``,
``domain`` and ``details.level``. Its multiple-choice questions of one domain and one level are taken. The authors of SDPO ship
the other one (``prompt``, ``answer``, ``kind``), which is taken as it is.
"""

from __future__ import annotations

import json

from sdpo.environments.preparing.rows import Kept, Passed, Published, plain
from sdpo.envs.code.formats.rows import Row
from sdpo.envs.multiple_choice.rows import read_row

SUBJECTS = ("biology", "chemistry", "material", "physics")
LEVEL = "L3"
"""The reasoning questions (arXiv 2601.20802, section 3.1)."""
SYSTEM = (
    "Choose the right one of the options that follow the question. Think it through first. Then write the letter of your option, "
    "and nothing else, between <answer> and </answer>."
)


def converted(published: Published, *, subject: str, level: str) -> Kept | Passed:
    """Raises ValueError for a row that is neither."""
    row = published.row
    if "answerKey" in row.values:
        return _from_hub(row, subject, level)
    if "kind" in row.values:
        return _as_shipped(published, subject)
    raise row.refused(
        "a row must be SciKnowEval's (question, choices, answerKey) or prepared (prompt, answer, kind); it has "
        f"{', '.join(sorted(map(str, row.values)))}: give other files"
    )


def _from_hub(row: Row, subject: str, level: str) -> Kept | Passed:
    if row.text("domain").lower() != subject:
        return Passed(reason="it is of another subject")
    if not row.text("type").startswith("mcq"):
        return Passed(reason="it is no multiple-choice question")
    details = row.mapping("details", row.values.get("details"))
    if details.get("level") != level:
        return Passed(reason=f"it is not of level {level}")
    choices = row.mapping("choices", row.values.get("choices"))
    labels, texts = (row.items(f"choices.{key}", choices.get(key)) for key in ("label", "text"))
    options = _options(row, labels, texts)
    answer = row.text("answerKey").strip().upper()
    if answer not in options:
        raise row.refused(f"'answerKey' must be one of the labels {', '.join(options)}; got {answer[:20]!r}: correct the row")
    question = row.text("question").strip()
    prompt = "\n".join([question, "", *(f"{label}: {text}" for label, text in options.items())])
    return Kept(question=plain(prompt), values=_checked(row, subject, SYSTEM, prompt, answer))


def _options(row: Row, labels: list[object], texts: list[object]) -> dict[str, str]:
    """In their order. At least two, each with a letter and a text of its own."""
    if len(labels) != len(texts) or len(labels) < 2:
        raise row.refused(f"'choices' must have a label for each of at least 2 texts; got {len(labels)} and {len(texts)}")
    options = {str(label).strip().upper(): str(text).strip() for label, text in zip(labels, texts, strict=True)}
    are_letters = all(len(label) == 1 and "A" <= label <= "Z" for label in options)
    if not are_letters or len(options) < len(labels) or "" in options.values():
        raise row.refused("'choices' must have different letters as labels and texts that are not blank: correct the row")
    if len({plain(text) for text in options.values()}) < len(options):
        raise row.refused("'choices' must be different (of two that are the same, one letter would be wrong): correct the row")
    return options


def _as_shipped(published: Published, subject: str) -> Kept | Passed:
    row = published.row
    if row.values["kind"] != "mcq":
        return Passed(reason="it is no multiple-choice question")
    system = row.text_or_none("system") or ""
    prompt = row.text("prompt")
    values = _checked(row, subject, system.strip(), prompt, row.text("answer").strip().upper())
    return Kept(question=plain(prompt), values=values, split=published.split)


def _checked(row: Row, subject: str, system: str, prompt: str, answer: str) -> dict[str, object]:
    """By the reader of the environment itself."""
    values: dict[str, object] = {
        "idx": row.number,
        "kind": "mcq",
        "dataset": f"sciknoweval/{subject}",
        "system": system,
        "prompt": prompt,
        "answer": answer,
    }
    read_row(json.dumps(values), row.where)
    return values
