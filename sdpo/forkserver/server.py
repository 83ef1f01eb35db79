"""The process that forks: imports, listens, forks, tells how each child ended.

It listens before it imports, so that whoever asks early waits in the queue of the socket. A child's life is tied to both ends:
it is killed when the one who asked for it hangs up, and when the server ends.

Forking is safe as long as nothing has started a thread that matters or opened an accelerator. Importing does neither on a CPU:
OpenBLAS's threads are stopped and started again by its own fork handlers. ``owner.py`` keeps servers away from GPUs.
"""

from __future__ import annotations

import array
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sdpo.forkserver.marks import mark
from sdpo.forkserver.transformers_index import keep_index

_PR_SET_PDEATHSIG = 1
_LONGEST_REQUEST = 1 << 20
"""Bytes of a request: a command line and an environment."""
FIXED = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONHOME", "LD_PRELOAD", "LD_LIBRARY_PATH")}
"""Environment variables that are obeyed while a process starts: a child cannot have others than its server."""
SUFFIX = ".sock"
LISTENING = "listening"
"""File in the servers' folder that is there once all sockets are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Modules, and the kinds of children that need no more than these and those before."""

    modules: tuple[str, ...]
    kinds: tuple[str, ...]


STAGES: tuple[Stage, ...] = (
    Stage(modules=("sdpo.forkserver.preload_plain",), kinds=("verifier",)),
    Stage(
        modules=("torch", "transformers", "transformers.models.llama.modeling_llama", "sdpo.config"),
        kinds=("engine", "learner", "command"),
    ),
)
"""The first process imports them in this order."""
OWN: dict[str, tuple[str, ...]] = {
    "verifier": ("sdpo.config", "sdpo.envs.registry", "sdpo.envs.sandbox"),
    "engine": ("sdpo.rollout.preload",),
    "learner": ("sdpo.learner.preload",),
    "command": ("sdpo.rollout.preload", "sdpo.learner.preload"),
}
"""What each kind imports besides, in the process that forks for it."""
USUAL = ("verifier", "engine", "learner")
"""Kinds that a training run forks."""


def address(folder: Path, kind: str) -> Path:
    """The socket at which the server for ``kind`` listens."""
    return folder / f"{kind}{SUFFIX}"


def serve_stages(folder: Path, owner: int, kinds: Sequence[str]) -> None:
    """Bind all sockets, then fork a server for each of ``kinds`` as the imports go on. Ends with the process ``owner``."""
    _die_with(owner)
    keep_index()
    gc.disable()  # a collection during imports finds nothing, and takes a fifth of the time
    sys.modules["ray"] = None  # type: ignore[assignment]  # it reads the environment once, when it is loaded: the child's
    listeners = {kind: _listener(address(folder, kind)) for kind in kinds}
    (folder / LISTENING).touch()
    for stage in STAGES:
        for module in stage.modules:
            importlib.import_module(module)
        for kind in [kind for kind in stage.kinds if kind in listeners]:
            gc.freeze()  # what was imported is shared with the children until one of them writes on it
            parent = os.getpid()
            if os.fork() == 0:
                _die_with(parent)
                for other, listener in listeners.items():
                    if other != kind:
                        listener.close()
                serve(listeners[kind], OWN[kind])
            listeners.pop(kind).close()
    while True:
        signal.pause()


def serve(listener: socket.socket, modules: Sequence[str]) -> None:
    """Import, then fork for whoever asks. Never returns."""
    for module in modules:
        importlib.import_module(module)
    mark(f"imports: {Path(listener.getsockname()).stem}")
    gc.freeze()
    children: dict[int, socket.socket] = {}
    awake, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    while True:
        by_socket = {connection.fileno(): pid for pid, connection in children.items()}
        readable, _, _ = select.select([listener.fileno(), awake, *by_socket], [], [])
        if awake in readable:
            os.read(awake, 4096)
        for pid in _hung_up(readable, by_socket):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap(children)
        if listener.fileno() in readable:
            _answer(listener, children, awake, wakes)


def _hung_up(readable: Sequence[int], by_socket: dict[int, int]) -> list[int]:
    """Children whose callers are gone: nobody sends anything but the request, so a readable connection is a closed one."""
    return [pid for descriptor, pid in by_socket.items() if descriptor in readable]


def _reap(children: dict[int, socket.socket]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        connection = children.pop(pid, None)
        if connection is not None:
            with suppress(OSError):
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            connection.close()


def _answer(listener: socket.socket, children: dict[int, socket.socket], *pipes: int) -> None:
    connection, _ = listener.accept()
    try:
        request, descriptors = _received(connection)
    except (OSError, ValueError):
        connection.close()
        return
    if any(_variable(request, name) != value for name, value in FIXED.items()):
        for descriptor in (connection.detach(), *descriptors):
            os.close(descriptor)  # it has to be started from nothing
        print(f"declined {request['argv']}: another environment", file=sys.stderr, flush=True)
        return
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _die_with(server)
            for descriptor in pipes:
                os.close(descriptor)
            listener.close()
            connection.close()
            for other in children.values():
                other.close()
            _become(request, descriptors)
        except BaseException:  # noqa: BLE001 - a child must never go back into the server's loop
            traceback.print_exc()
        finally:
            os._exit(70)
    for descriptor in descriptors:
        os.close(descriptor)
    children[pid] = connection
    with suppress(OSError):
        connection.sendall(f"{pid}\n".encode())


def _variable(request: dict[str, object], name: str) -> object:
    environment = request["env"]
    assert isinstance(environment, dict)
    return environment.get(name)


def _received(connection: socket.socket) -> tuple[dict[str, object], list[int]]:
    """A line of JSON (``argv``, ``env``, ``cwd``) and the descriptors that become the child's 0, 1 and 2."""
    room = array.array("i")
    text, ancillary, _, _ = connection.recvmsg(_LONGEST_REQUEST, socket.CMSG_LEN(3 * room.itemsize))
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            room.frombytes(content[: len(content) - len(content) % room.itemsize])
    while not text.endswith(b"\n"):
        more = connection.recv(_LONGEST_REQUEST)
        if not more:
            raise ValueError("the request ended early")
        text += more
    request = json.loads(text)
    return request, list(room)


def _become(request: dict[str, object], descriptors: list[int]) -> None:
    """Run the script that was asked for, with its own arguments, environment, folder and streams."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        if descriptor > 2:
            os.close(descriptor)
    del sys.modules["ray"]
    gc.enable()
    argv, environment = request["argv"], request["env"]
    assert isinstance(argv, list)
    assert isinstance(environment, dict)
    os.setsid()
    os.chdir(str(request["cwd"]))
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    os.environ.update(environment)
    if "torch" in sys.modules and "OMP_NUM_THREADS" in environment:
        sys.modules["torch"].set_num_threads(int(environment["OMP_NUM_THREADS"]))  # OpenMP read it when torch was loaded
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # Python's own generator is seeded anew at every fork, numpy's is not
    sys.argv = [str(word) for word in argv]
    code = 0
    try:
        _run(sys.argv[0])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
    _leave(code)


def _run(program: str) -> None:
    """Run a file, or ``module:function``."""
    module, separator, name = program.partition(":")
    if separator and not Path(program).exists():
        function: Callable[[], object] = getattr(importlib.import_module(module), name)
        code = function()
        raise SystemExit(code)
    runpy.run_path(program, run_name="__main__")


def _leave(code: int) -> None:
    """End the process as the interpreter would, with what was registered to run at exit."""
    import atexit
    import threading

    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    with suppress(Exception):
        atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    return listener


def _die_with(parent: int) -> None:
    """End when ``parent`` ends, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    serve_stages(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
