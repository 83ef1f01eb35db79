"""A page taken apart by a parser that shares no code with what wrote it."""

from __future__ import annotations

from html.parser import HTMLParser

TAGS = frozenset({
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "aside", "article", "div", "span", "p",
    "h1", "h2", "h3", "h4", "h5", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "figure", "pre", "code", "b",
    "strong", "details", "summary", "svg", "rect", "text", "line", "polyline", "polygon", "circle"
})  # fmt: skip
ATTRIBUTES = frozenset({
    "charset", "http-equiv", "content", "name", "lang", "class", "scope", "title", "role", "aria-label", "aria-hidden",
    "xmlns", "viewbox", "font-family", "font-size", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "width",
    "height", "fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "points", "text-anchor", "transform"
})  # fmt: skip
"""What a report is made of: nothing that runs, loads, links or sends."""
VOID = frozenset({"meta", "br", "hr"})


class Page(HTMLParser):
    """Raises AssertionError where the page is not well-formed, or holds an element or attribute that no report has."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"left open: {self._open}"

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, f"<{tag}>"
        for name, value in attrs:
            assert name in ATTRIBUTES, f"{tag} {name}={value}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> closes <{self._open[-1]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"a processing instruction: {data!r}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data!r}")
