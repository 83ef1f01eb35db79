"""``sdpo train | evaluate | solve | discovery | warmup | export | replay | view | report | profile | envs | doctor``.

An error of the user's is a paragraph and exit code 2.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from rich.console import Console
from rich.markup import escape

from sdpo.errors import MachineError, Stopped, UserError
from sdpo.forkserver.marks import mark
from sdpo.forkserver.owner import fork_servers
from sdpo.forkserver.transformers_index import keep_index
from sdpo.terminal.printable import printable


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
    try:
        with fork_servers() if _forks(command, rest) else nullcontext():
            return _run(command, rest)
    except UserError as error:
        return _failed(str(error), 2)
    except MachineError as error:
        continues = "The last checkpoint stands; the same command continues from it."
        return _failed(f"{error}\n{continues}" if command == "train" else str(error), 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _failed(
            f"the disk is full ({error}). What was written before is whole, and the last checkpoint stands. Free some space, or "
            "set runs_dir to another disk, and repeat the command.",
            2,
        )
    except Stopped as stopped:
        return _failed("stopped at once" + _STANDS.get(command, ""), 128 + stopped.signal_number)
    except KeyboardInterrupt:
        return _failed("stopped at once" + _STANDS.get(command, ""), 130)


def _forks(command: str, rest: list[str]) -> bool:
    """Whether the command will start actors on this machine, as far as its words say: imports begin before the config is read."""
    elsewhere = ("-m", "--dry-run", "dry_run=true", "in_process=true", "cluster=", "cluster.address=", "cluster.allocation=")
    return command in ("train", "evaluate", "solve", "discovery", "warmup") and not any(
        word.startswith(elsewhere) for word in rest
    )


def _failed(sentence: str, code: int) -> int:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(printable(sentence))}", highlight=False, soft_wrap=True)
    return code


def _run(command: str, rest: list[str]) -> int:
    """Heavy imports happen where they are needed: a typo should not cost ten seconds."""
    match command, rest:
        case "train", overrides if "-m" in overrides:
            from sdpo.sweep.command import run_sweep

            return run_sweep([_FLAGS.get(word, word) for word in overrides if word != "-m"])
        case "train", overrides:
            from sdpo.config.compose import train_config

            config = train_config([_FLAGS.get(word, word) for word in overrides])
            mark("config")
            from sdpo.commands.train import run_training

            return run_training(config)
        case "plan", words:
            from sdpo.planning.command import run_plan

            return run_plan(words)
        case "evaluate", overrides:
            from sdpo.config.compose import evaluate_config

            evaluation = evaluate_config(["quiet=true" if word == "--quiet" else word for word in overrides])
            from sdpo.commands.evaluate import run_evaluation

            return run_evaluation(evaluation)
        case "solve", overrides:
            from sdpo.config.compose import solve_config

            words = [_FLAGS_OF_SEARCHES.get(word, word) for word in overrides]
            solving = solve_config(words)
            from sdpo.solving.command import run_solve

            return run_solve(solving, words)
        case "discovery", overrides:
            from sdpo.config.compose import discovery_config

            words = [_FLAGS_OF_SEARCHES.get(word, word) for word in overrides]
            discovery = discovery_config(words)
            from sdpo.discovery.command import run_discovery

            return run_discovery(discovery, words)
        case "warmup", overrides:
            from sdpo.config.compose import warmup_config

            warmup = warmup_config(["quiet=true" if word == "--quiet" else word for word in overrides])
            from sdpo.warmup.command import run_warmup

            return run_warmup(warmup)
        case "export", overrides:
            from sdpo.config.compose import export_config

            export = export_config(overrides)
            from sdpo.commands.export import run_export

            return run_export(export)
        case "replay", overrides:
            from sdpo.config.compose import replay_config

            replay = replay_config(overrides)
            from sdpo.commands.replay import run_replay

            return run_replay(replay)
        case "launch", ["render", *words]:
            from sdpo.kubernetes.render import run_render

            return run_render(words)
        case "view", words:
            from sdpo.report.view import run_view, view_config

            return run_view(view_config(words))
        case "report", words:
            from sdpo.report.report import run_report

            return run_report(words)
        case "profile", words:
            from sdpo.report.profile import run_profile

            return run_profile(words)
        case "compare", words:
            from sdpo.report.compare import run_compare

            return run_compare(words)
        case "envs", words:
            from sdpo.environments.command import run_envs

            return run_envs(words)
        case "doctor", []:
            from sdpo.preflight.doctor import run_doctor

            return run_doctor()
    raise UserError(f"a command must be one of those that `sdpo --help` lists; got {' '.join([command, *rest])!r}.")


_STANDS = {
    "train": "; the last checkpoint stands",
    "solve": "; the same command continues the search",
    "discovery": "; the same command continues",
}
"""What is left of a command that was interrupted."""
_FLAGS_OF_SEARCHES = {"--quiet": "quiet=true"}
_FLAGS = {"--dry-run": "dry_run=true", "--quiet": "tracking.quiet=true"}


if __name__ == "__main__":
    sys.exit(main())
