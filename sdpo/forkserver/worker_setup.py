"""What Ray starts in place of a worker: asks a fork server for the worker and stands for it until it ends.

Ray calls it as it calls its own ``setup_worker.py``: with the worker's command line and the environment that the actor asked for.
It imports nothing but the standard library, as it stands before every worker. Where no server is named, or none answers, it
becomes Ray's own script.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

SERVER = "SDPO_FORK_SERVER"
"""The environment variable that names a server's socket."""
_CONTEXT = "--serialized-runtime-env-context="
_ONLY_VARIABLES: dict[str, Any] = {"command_prefix": [], "override_worker_entrypoint": None, "java_jars": []}
"""A context that asks for nothing but environment variables."""


def main() -> None:
    words = sys.argv[1:]
    context: dict[str, Any] = next((json.loads(word.removeprefix(_CONTEXT)) for word in words if word.startswith(_CONTEXT)), {})
    environment = {**os.environ, **{name: str(value) for name, value in (context.get("env_vars") or {}).items()}}
    server = environment.get(SERVER)
    is_plain = all(context.get(name, value) == value for name, value in _ONLY_VARIABLES.items())
    is_plain = is_plain and context.get("py_executable", sys.executable) == sys.executable
    if server is not None and is_plain:
        command = [word for word in words if not word.startswith((_CONTEXT, "--language="))]
        while command and command[0].startswith("-"):  # flags of the interpreter
            command.pop(0)
        code = forked(Path(server), command, environment)
        if code is not None:
            sys.exit(code if code >= 0 else 128 - code)
    own = Path(_rays_folder()) / "_private" / "workers" / "setup_worker.py"
    os.execv(sys.executable, [sys.executable, str(own), *words])


def forked(server: Path, command: list[str], environment: dict[str, str]) -> int | None:
    """The exit code of ``command``, a Python file and its arguments, forked by ``server``; None where no server answers."""
    request = json.dumps({"argv": command, "env": environment, "cwd": os.getcwd()}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile() as answers:
        try:
            connection.connect(str(server))
            first = socket.send_fds(connection, [request], [0, 1, 2])
            connection.sendall(request[first:])
            has_begun = answers.readline() != ""
        except OSError:
            has_begun = False  # nobody listens, or it was declined
        if not has_begun:
            return None
        code = answers.readline()
    return int(code) if code else 1


def _rays_folder() -> str:
    """Ray's folder, found without importing Ray, which takes a second."""
    import importlib.util

    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return next(iter(spec.submodule_search_locations))


if __name__ == "__main__":
    main()
