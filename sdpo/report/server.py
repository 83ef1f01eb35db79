"""How does the page reach the records? A local server that answers with the page's own files and with what a run folder holds.

Completions are hostile, and so may be another page in the same browser. Nothing in a request names a file: the page's files are
read once at the start, attempts are asked for by number. Answers carry a policy under which no script but the page's own runs and
nothing is fetched from elsewhere. A request must come under a name of this machine. This refuses a foreign name that was made to
resolve to it (DNS rebinding).
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdpo.report import answers
from sdpo.report.index import RunIndex

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REFRESH_S = 0.4
"""How long one request may read before it answers with what it has."""
MAX_SEARCH_CHARACTERS = 1000


def application(indexes: Sequence[RunIndex], host: str) -> Starlette:
    """``host``: the address that the server listens at, as the user wrote it."""
    files = {file.name: file.read_bytes() for file in PAGE.iterdir() if file.suffix in KINDS}
    views = [_View(index) for index in indexes]

    def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            return PlainTextResponse("not found", 404)
        return Response(files[name], media_type=KINDS[Path(name).suffix])

    def runs(_: Request) -> Response:
        return _json([index.run.name for index in indexes])

    def changes(request: Request) -> Response:
        view, (since,) = _view(views, request), _numbers(request, "since")
        return _bad if view is None or since is None else _json(view.changes(since))

    def attempt(request: Request) -> Response:
        view, (step, row) = _view(views, request), _numbers(request, "step", "row")
        if view is None or step is None or row is None:
            return _bad
        found = view.attempt(step, row)
        return PlainTextResponse("not found", 404) if found is None else _json(found)

    def search(request: Request) -> Response:
        view, words = _view(views, request), request.query_params.get("words", "")
        return _bad if view is None or not 0 < len(words) <= MAX_SEARCH_CHARACTERS else _json(view.index.search(words))

    routes = [
        Route("/", page),
        Route("/page/{name}", page),
        Route("/runs", runs),
        Route("/changes", changes),
        Route("/attempt", attempt),
        Route("/search", search),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(Guarded, host=host)
    return app


class Guarded:
    """Refuses what does not come under a name of this machine, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {host.lower(), "localhost"}
        if not is_loopback(host):
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":
            return
        if self._is_ours(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send_guarded)
        else:
            refusal = PlainTextResponse("This server answers under the names of its own machine only.", 403)
            await refusal(scope, receive, send_guarded)

    def _is_ours(self, header: str) -> bool:
        """An address is no name that somebody could have made to resolve to it. Any port: tunnels change it."""
        match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)(:\d{1,5})?", header)
        if match is None:
            return False
        name = match[1].strip("[]").lower()
        return name in self._names or is_address(name)


def is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    return host.lower() == "localhost" or (is_address(host) and ip_address(host).is_loopback)


class _View:
    """An index that several requests may ask at once."""

    def __init__(self, index: RunIndex) -> None:
        self.index = index
        self._lock = threading.Lock()

    def changes(self, since: int) -> dict[str, object]:
        with self._lock:
            has_more = self.index.refresh(REFRESH_S)
            since = since if since <= self.index.revision else 0  # a page that was open before the server began anew
            return answers.changes(self.index, since, has_more=has_more)

    def attempt(self, step: int, row: int) -> dict[str, object] | None:
        """An attempt that a link names may not have been come to yet."""
        with self._lock:
            while self.index.entry(step, row) is None and self.index.refresh(REFRESH_S):
                pass
        return answers.attempt(self.index, step, row)


_bad = PlainTextResponse("a number is missing, or out of range", 400)


def _view(views: Sequence[_View], request: Request) -> _View | None:
    (number,) = _numbers(request, "run")
    return views[number] if number is not None and number < len(views) else None


def _numbers(request: Request, *names: str) -> tuple[int | None, ...]:
    texts = [request.query_params.get(name, "") for name in names]
    return tuple(int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None for text in texts)


def _json(value: object) -> Response:
    return Response(answers.as_json(value), media_type="application/json")
