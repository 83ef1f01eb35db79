"""``sdpo view RUN [RUN2] [host=127.0.0.1] [port=8770] [open=true]``: the words of the command line, and the server's address."""

from __future__ import annotations

import errno
import re
import socket
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from rich.console import Console
from rich.markup import escape

from sdpo.errors import UserError
from sdpo.report.index import RunIndex
from sdpo.report.reading import Run
from sdpo.report.server import application, is_loopback
from sdpo.terminal.printable import printable

HOST, PORT = "127.0.0.1", 8770
NUM_PORTS = 20
"""How many ports are tried, from the one that was asked for."""
SETTINGS = ("host", "port", "open")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewConfig:
    """What is shown, and where."""

    paths: tuple[Path, ...]
    host: str = HOST
    port: int = PORT
    opens: bool = False


def view_config(words: Sequence[str]) -> ViewConfig:
    """Raises UserError for words that are neither folders nor settings."""
    settings = {key: text for key, equals, text in (word.partition("=") for word in words) if equals and key in SETTINGS}
    paths = [word for word in words if word.partition("=")[0] not in SETTINGS or "=" not in word]
    if not 1 <= len(paths) <= 2:
        raise UserError(f"sdpo view shows one run folder or two: sdpo view RUN [RUN2] [host=] [port=] [open=true]; got {paths}")
    port, opens = settings.get("port", str(PORT)), settings.get("open", "false")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise UserError(f"port must be a whole number from 0 (any that is free) to 65535; got {port!r}")
    if opens not in ("true", "false"):
        raise UserError(f"open must be true or false; got {opens!r}")
    host = settings.get("host", HOST)
    if not host:
        raise UserError(
            "host must be an address or a name of this machine (127.0.0.1, or 0.0.0.0 for all of its addresses); got ''"
        )
    return ViewConfig(paths=tuple(map(Path, paths)), host=host, port=int(port), opens=opens == "true")


def run_view(words: Sequence[str]) -> int:
    """``sdpo view``. Raises UserError."""
    return serve(view_config(words))


def serve(config: ViewConfig) -> int:
    """Serves until Ctrl-C. Raises UserError where a folder is no run, or the address cannot be had."""
    runs = [Run(path) for path in config.paths]
    listening = bound(config.host, config.port)
    port = listening.getsockname()[1]
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(config.host, config.host)
    url = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
    _announce(runs, url, config)
    if config.opens:
        webbrowser.open(url)
    app = application([RunIndex(run) for run in runs], config.host)
    settings = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(settings).run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        listening.close()
    return 0


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at this port, or at the next one that is free. Raises UserError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"host must be an address or a name of this machine; got {host!r} ({error})") from error
    for number in range(port, min(port + NUM_PORTS, 65536)) if port else (0,):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address[0], number))
            listening.listen()
        except OSError as error:
            listening.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise UserError(f"the server listens at an address of this machine; {host!r} cannot be had ({error})") from error
        else:
            return listening
    raise UserError(
        f"one port from {port} on must be free and allowed, and {NUM_PORTS} were tried. Name another: port=0 takes any."
    )


def _announce(runs: Sequence[Run], url: str, config: ViewConfig) -> None:
    console = Console(highlight=False)
    names = " and ".join(escape(printable(run.name)) for run in runs)
    console.print(f"Showing {names} at [bold]{url}[/] (Ctrl-C ends)", soft_wrap=True)
    if config.port not in (0, int(url.rstrip("/").rpartition(":")[2])):
        console.print(f"Port {config.port} was taken.")
    if not is_loopback(config.host):
        console.print("[yellow]Anybody who reaches this address can read these runs.[/]", soft_wrap=True)
