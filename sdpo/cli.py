"""``sdpo COMMAND``: which command is meant, and what an error of it looks like.

An error of the user's is a paragraph and exit code 2.
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress

from rich.console import Console
from rich.markup import escape

from sdpo.commands.table import BUILT_IN, commands
from sdpo.errors import MachineError, UserError, without_credentials
from sdpo.forkserver.owner import fork_servers
from sdpo.forkserver.transformers_index import keep_index
from sdpo.terminal.printable import printable
from sdpo.terminal.stop_request import StopRequest, stopping


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code: 2 for an error that is the user's to mend."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("help", "--version") or "-h" in words or "--help" in words:
        from sdpo.commands.help import answer

        text = answer(words)
        if text is not None:
            print(text, end="")
            return 0
    command, *rest = words
    keep_index()
    request = StopRequest()
    try:
        with stopping(request), fork_servers() if _forks(command, rest) else nullcontext():
            return _run(command, rest)
    except UserError as error:
        return _failed(str(error), 2)
    except MachineError as error:
        continues = "The last checkpoint stands; the same command continues from it."
        return _failed(f"{error}\n{continues}" if command == "train" else str(error), 1)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS) and error.filename is not None:
            return _failed(
                f"{error.filename} may not be written or read ({error.strerror}). What was written before is whole, and the last "
                "checkpoint stands. Make it accessible, and repeat the command.",
                2,
            )
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _failed(
            f"the disk is full ({error}). What was written before is whole, and the last checkpoint stands. Free some space, or "
            "set runs_dir to another disk, and repeat the command.",
            2,
        )
    except KeyboardInterrupt:  # a Stopped, or what Ray makes of one
        number = signal.Signals(request.signal_number or signal.SIGINT)
        return _failed(f"stopped at once by {number.name}{_left(command)}", 128 + number)


def _forks(command: str, rest: list[str]) -> bool:
    """Whether the command will start actors on this machine, as far as its words say: imports begin before the config is read."""
    elsewhere = ("-m", "--dry-run", "dry_run=true", "in_process=true", "cluster=", "cluster.address=", "cluster.allocation=")
    return command in BUILT_IN and BUILT_IN[command].starts_actors and not any(word.startswith(elsewhere) for word in rest)


def _failed(sentence: str, code: int) -> int:
    with suppress(OSError):  # of a terminal that was closed
        Console(stderr=True).print(
            f"[bold red]error:[/] {escape(printable(without_credentials(sentence)))}", highlight=False, soft_wrap=True
        )
    return code


def _run(command: str, rest: list[str]) -> int:
    found = BUILT_IN.get(command) or commands().get(command)
    if found is None:
        raise UserError(f"a command must be one of those that `sdpo --help` lists; got {' '.join([command, *rest])!r}.")
    return found.call(rest)


def _left(command: str) -> str:
    """What stands of a command that was interrupted."""
    stands = BUILT_IN[command].stands if command in BUILT_IN else ""
    return f"; {stands}" if stands else ""


if __name__ == "__main__":
    sys.exit(main())
