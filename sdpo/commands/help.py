"""What does a command take? Answers ``sdpo --help``, ``sdpo COMMAND --help`` and ``sdpo --version``, at once.

A default has one home, and so have the words about it: both are read from the dataclasses of ``sdpo/config/``, the default with
what ``conf/`` changes. Neither torch nor Ray is imported for it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from sdpo import __version__

OVERVIEW = """\
usage: sdpo COMMAND [KEY=VALUE ...]
       sdpo help COMMAND                the keys that COMMAND takes, with their defaults; or sdpo COMMAND --help
       sdpo --version

  sdpo train [KEY=VALUE ...]            train; e.g. sdpo train algorithm=grpo env=chemistry num_steps=20
      --dry-run                         resolve and check the config, start nothing
      --quiet                           one line a step instead of the live view, and one every half minute of what takes longer;
                                        also of the other commands with a live view
      -m algorithm=sdpo,grpo seed=1,2   each point of a sweep, here or, with hydra/launcher=slurm, as Slurm jobs: docs/cluster.md
  sdpo plan [KEY=VALUE ...]             where that run would go, what memory it takes, what does not fit: docs/planning.md
      cluster.nodes=1 cluster.gpus_per_node=8 gpu_gib=80 scale=RUN
  sdpo evaluate [KEY=VALUE ...]         held-out success; e.g. sdpo evaluate checkpoint=runs/NAME/checkpoints/step_000012 k=8
      lift=true                         and how much better it answers when it is shown a hint
  sdpo solve env=code task=ID [KEY=VALUE ...]       one hard task, or a file with one, until it is solved: docs/test-time.md
      tasks=all split=heldout           each of many; strategy=sdpo|best_of_k|multi_turn|sdpo_multi_turn
  sdpo discovery env=code [KEY=VALUE ...]           strategies compared on hard tasks, at equal budgets
  sdpo warmup to=DIR [KEY=VALUE ...]    teach a model to use hindsight; then: sdpo train model.path=DIR
  sdpo export checkpoint=FOLDER to=DIR  a plain Hugging Face folder; weights=average for the teacher's
  sdpo replay batch=FILE                an update that a run could not take, through the learner alone
  sdpo launch render cluster=kubernetes [KEY=VALUE ...]         a KubeRay manifest of that run: launch/kubernetes/README.md
      kind=RayJob|RayCluster to=FILE
  sdpo view RUN [RUN2]                  a page over a run folder, or two: which tokens did hindsight change?
      host=127.0.0.1 port=8770 open=true
  sdpo report RUN [RUN ...]             run folders as one HTML file: curves, tables, times, alarms, attempts; to=report.html
  sdpo profile RUN                      where a step's time went, and what to change
  sdpo compare RUN [RUN ...]            one table over seeds: success, lift, tokens/s, hours; e.g. sdpo compare runs/*
  sdpo envs list                        the environments that are installed
  sdpo envs show NAME                   its options, splits and sizes; NAME: installed, module:Class or file.py:Class
  sdpo envs sample NAME [N] [split=train] [OPTION=VALUE ...]    tasks, with the verdicts on a few answers
  sdpo envs check NAME [OPTION=VALUE ...] [json=true]           whether it keeps the rules; exit code 1 if not
  sdpo envs new NAME [FOLDER]           a package with an environment of your own, ready to edit
  sdpo envs prepare NAME to=DIR [from=HUB_ID|FOLDER]            the paper's tasks, fetched and checked: docs/experiments.md
  sdpo doctor                           versions, devices, what is missing and how to get it

Keys are hydra's: groups (algorithm=, model=, env=, learner=, rollout=, cluster=, tracking=, experiment=) and single values
(batch.group_size=4). sdpo/config/ documents every one.
"""

_WIDTH = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    """What there is to say of one besides its part of the overview."""

    config: str = ""
    """The file in ``conf/`` that it composes; empty: it takes no keys."""
    words: tuple[str, ...] = ()
    """What is composed with it."""
    keys: tuple[str, ...] = ()
    """Those that are used most."""
    options: tuple[tuple[str, str], ...] = ()
    """What it takes besides keys, and what that means."""


COMMANDS: Mapping[str, _Command] = {
    "train": _Command(
        config="train",
        keys=(
            "name",
            "num_steps",
            "seed",
            "model.path",
            "batch.num_tasks",
            "batch.group_size",
            "sampling.max_prompt_tokens",
            "sampling.max_response_tokens",
            "learner.lr",
            "evaluation.every",
        ),
    ),
    "plan": _Command(
        config="train",
        keys=(
            "model.path",
            "cluster.nodes",
            "cluster.gpus_per_node",
            "cluster.placement",
            "learner.num_ranks",
            "learner.zero_stage",
            "rollout.num_engines",
            "rollout.tensor_parallel_size",
            "batch.micro_batch_tokens",
            "sampling.max_response_tokens",
        ),
        options=(
            ("gpu_gib=NUMBER", "memory of a GPU, GiB"),
            ("host_gib=NUMBER", "memory of a machine, GiB"),
            ("scale=RUN", "a run folder; its times say how long a step takes on 1 to 64 nodes"),
            ("network_gb_s=NUMBER", "between nodes, GB/s, for scale"),
            ("latency_us=NUMBER", "of that network, microseconds"),
        ),
    ),
    "evaluate": _Command(
        config="evaluate",
        keys=(
            "checkpoint",
            "model.path",
            "k",
            "num_tasks",
            "temperature",
            "top_p",
            "lift",
            "seed",
            "sampling.max_response_tokens",
            "quiet",
        ),
    ),
    "solve": _Command(
        config="solve",
        keys=(
            "task",
            "tasks",
            "split",
            "strategy",
            "budget.attempts",
            "batch.group_size",
            "sampling.max_response_tokens",
            "in_process",
            "num_workers",
            "name",
        ),
    ),
    "discovery": _Command(
        config="discovery",
        keys=(
            "strategies",
            "tasks",
            "num_seeds",
            "hard.num_tasks",
            "hard.max_rate",
            "budget.attempts",
            "batch.group_size",
            "in_process",
            "num_workers",
            "name",
        ),
    ),
    "warmup": _Command(
        config="warmup",
        keys=(
            "to",
            "model.path",
            "num_updates",
            "lr",
            "kl_weight",
            "pairs.num_tasks",
            "pairs.num_attempts",
            "sampling.max_response_tokens",
            "evaluation.num_tasks",
            "seed",
        ),
    ),
    "export": _Command(config="export", keys=("checkpoint", "to", "weights", "dtype")),
    "replay": _Command(config="replay", keys=("batch", "checkpoint", "num_threads")),
    "launch": _Command(
        config="train",
        words=("cluster=kubernetes",),
        keys=(
            "cluster.image",
            "cluster.nodes",
            "cluster.gpus_per_node",
            "cluster.cpus_per_node",
            "cluster.memory_gib_per_node",
            "cluster.namespace",
            "cluster.claim",
            "cluster.mount",
            "cluster.secrets",
            "cluster.node_selector",
        ),
        options=(
            ("kind=KIND", "what is written: a RayJob, or a RayCluster to which jobs are submitted"),
            ("to=FILE", "where it is written; else to the screen"),
        ),
    ),
    "view": _Command(
        options=(
            ("host=ADDRESS", "where it is served; 0.0.0.0: at every address of this machine"),
            ("port=NUMBER", "the first port that is tried; 0: any that is free"),
            ("open=true", "open a browser"),
        )
    ),
    "report": _Command(options=(("to=FILE", "the file that is written"),)),
    "profile": _Command(),
    "compare": _Command(),
    "envs": _Command(
        options=(
            ("OPTION=VALUE", "of show, sample and check: an option of the environment, as env.options.OPTION in sdpo train"),
            ("split=SPLIT", "of sample: train or heldout"),
            ("seed=NUMBER", "of sample: which tasks"),
            ("tasks=NUMBER", "of check: how many tasks are examined"),
            ("train_split=SPLIT", "of check, if the environment names its splits otherwise"),
            ("heldout_split=SPLIT", "likewise"),
            ("json=true", "of check: the findings as JSON"),
            ("to=DIR", "of prepare: the folder to make"),
            ("from=HUB_ID|FOLDER", "of prepare: where the published files are"),
            ("level=LEVEL", "of prepare: which questions of SciKnowEval"),
            ("broken=leave_out", "of prepare: leave out rows that cannot be read, rather than refuse the file"),
        )
    ),
    "doctor": _Command(),
}


def answer(words: Sequence[str]) -> str | None:
    """What such a command line asks for, to be printed; None where it asks about a command that does not exist."""
    if not words or words[0] in ("-h", "--help") or list(words) == ["help"]:
        return OVERVIEW
    if words[0] == "--version":
        return f"{__version__}\n"
    command = words[1] if words[0] == "help" else words[0]
    return page(command) if command in COMMANDS else None


def page(command: str) -> str:
    """Its usage, its groups with their choices, and its most used keys with their defaults."""
    about = COMMANDS[command]
    parts = [_usage(command)]
    if about.options:
        parts.append("Options:\n" + _columns(about.options))
    if about.config:
        groups = list(_groups(about))
        if groups:
            parts.append("Groups, as GROUP=CHOICE, with the default and the other choices:\n" + _columns(groups))
        parts.append(_title(about) + "\n" + _columns(_keys(about)))
    return "\n\n".join(parts) + "\n"


def _usage(command: str) -> str:
    """The overview's lines about it, and those that are further in below them."""
    found: list[str] = []
    is_its_own = False
    for line in OVERVIEW.partition("\n\n")[2].partition("\n\n")[0].splitlines():
        if line.startswith("  sdpo "):
            is_its_own = line.split()[1] == command
        if is_its_own:
            found.append(line)
    return "usage:\n" + "\n".join(found)


def _title(about: _Command) -> str:
    from sdpo.config.compose import defaults

    num_others = len(defaults(about.config, about.words)) - len(about.keys)
    where = f"; sdpo/config/ documents {num_others} more" if num_others > 0 else ""
    return f"Keys, as KEY=VALUE, with their defaults{where}:"


def _groups(about: _Command) -> Iterator[tuple[str, str]]:
    """Each with the choice that is its default, and the others."""
    conf = Path(str(files("sdpo.conf")))
    chosen = dict(word.split("=") for word in about.words)
    for entry in yaml.safe_load((conf / f"{about.config}.yaml").read_text())["defaults"]:
        if isinstance(entry, str):
            continue
        ((group, default),) = entry.items()
        default = chosen.get(group, default)
        choices = sorted(file.relative_to(conf / group).with_suffix("").as_posix() for file in (conf / group).rglob("*.yaml"))
        others = [choice for choice in choices if choice != default and "/settings/" not in choice]  # those are parts of others
        named = f"{group}={default}" if default is not None else f"{group}="
        yield named, ", ".join(others) or "(no other)"


def _keys(about: _Command) -> Iterator[tuple[str, str]]:
    from sdpo.config.compose import defaults

    known = defaults(about.config, about.words)
    for key in about.keys:
        default = known[key]
        yield f"{key}={default.text}" if default.text else f"{key}=… (required)", words_about(default.home, key.split(".")[-1])


@cache
def words_about(home: type, name: str) -> str:
    """The first sentence that stands below the field in the dataclass which declares it; empty where none does."""
    for declaring in home.__mro__[:-1]:
        body = ast.parse(textwrap.dedent(inspect.getsource(declaring))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, [*body.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == name:
                is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                text = str(ast.literal_eval(below.value)) if is_text and isinstance(below, ast.Expr) else ""
                sentence = " ".join(text.replace("``", "").split()).partition(". ")[0].removesuffix(".")
                return sentence.replace("None:", "null:")  # as it is typed
    return ""


def _columns(rows: Sequence[tuple[str, str]] | Iterator[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(name) for name, _ in rows) + 4
    lines = []
    for name, text in rows:
        first = f"  {name}".ljust(width)
        lines += textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=" " * width, break_on_hyphens=False) or [
            first.rstrip()
        ]
    return "\n".join(lines)
