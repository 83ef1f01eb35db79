"""A few attempts of a run, as text: the best, the worst, and the one of which hindsight says most, token by token."""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.report.groups import RunGroup
from sdpo.report.markup import Markup, cut, element, together
from sdpo.report.record import RunRecord, hindsight_credit, strength
from sdpo.report.records import AttemptRecord, CreditRecord

MAX_TEXT = 1500
"""Characters of a text that are shown."""
MAX_TOKENS = 400
LEVELS = (0.5, 1.5, 3.0)
"""Nats of hindsight credit from which a token is marked, and marked more."""


def samples(groups: Sequence[RunGroup]) -> Markup:
    """Samples of the first run of each group that recorded any."""
    parts = []
    for group in groups:
        run = next((run for run in group.runs if run.attempts or run.credited), None)
        if run is not None:
            title = group.label if group.label == run.name else f"{group.label} · {run.name}"
            parts.append(element("div", element("h3", title), _of_run(run), class_="samples"))
    return together(parts) if parts else element("p", "No run recorded attempts.")


def _of_run(run: RunRecord) -> Markup:
    judged = sorted(
        (attempt for attempt in run.attempts if attempt.reward is not None), key=lambda attempt: attempt.reward or 0.0
    )
    cards = []
    if judged:
        cards.append(_attempt("Best", judged[-1]))
        worst = next((one for one in judged if one.feedback and one.reward == judged[0].reward), judged[0])
        cards += [_attempt("Worst", worst)] if worst is not judged[-1] else []
    if run.credited is not None and strength(run.credited) > 0.0:
        cards.append(_credited(run.credited))
    return element("div", cards, class_="cards") if cards else element("p", "No attempt of the last step has a verdict.")


def _attempt(title: str, attempt: AttemptRecord) -> Markup:
    chips = [
        f"step {attempt.step}",
        f"reward {attempt.reward:.3g}",
        "" if attempt.num_tokens is None else f"{attempt.num_tokens:,} tokens",
        "cut off at the length limit" if attempt.finish == "length" else "",
        f"hint: {cut(attempt.hint, 40)}" if attempt.hint else "",
    ]
    return element(
        "article",
        _head(title, attempt.task, chips),
        _text("question", attempt.question),
        _text("answer", attempt.completion),
        _text("feedback", attempt.feedback),
        class_="attempt",
    )


def _credited(record: CreditRecord) -> Markup:
    """Its tokens, those marked that the teacher finds more or less probable than the policy did."""
    pairs = list(zip(record.tokens, hindsight_credit(record), strict=True))
    more = f" … and {len(pairs) - MAX_TOKENS:,} more tokens" if len(pairs) > MAX_TOKENS else None
    key = [element("span", "more", class_="more2"), " and ", element("span", "less", class_="less2"), " probable to the teacher"]
    return element(
        "article",
        _head("Most credited", record.task, [f"step {record.step}", f"{strength(record):.2f} nats a token"]),
        element("h5", "answer, with what hindsight says of its tokens: ", key),
        element("pre", [_token(text, credit) for text, credit in pairs[:MAX_TOKENS]], more),
        class_="attempt",
    )


def _token(text: str, credit: float | None) -> Markup:
    shown = cut(text, MAX_TEXT)
    if credit is None:
        return element("span", shown, class_="others")
    level = sum(abs(credit) >= bound for bound in LEVELS)
    style = f"{'more' if credit > 0.0 else 'less'}{level}" if level else None
    return element("span", shown, class_=style, title=f"{credit:+.2f} nats")


def _head(title: str, task: str, chips: Sequence[str]) -> Markup:
    spans = [element("span", chip, class_="chip") for chip in chips if chip]
    return element("header", element("h4", title), element("code", cut(task, 120)), spans)


def _text(name: str, text: str | None) -> Markup | None:
    return together(element("h5", name), element("pre", cut(text, MAX_TEXT))) if text else None
